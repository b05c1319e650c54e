"""What a comparison of ways not to forget says: a row for every method and strength, the Pareto front, the budget."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.files.output_files import whole_files
from sciforge.core.files.tables import Table
from sciforge.experiments.forgetting.methods import METHODS, START
from sciforge.experiments.held_out import interval
from sciforge.experiments.label_efficiency.result import Interval, finite

Point = tuple[str, float]  # method and the value of its knob


@dataclass(frozen=True)
class Trial:
    """One fine-tuning: both tasks after it.

    Args:
        method, knob, seed: which.
        new, old: errors on the new and the old task; infinite where the run diverged.
        new_without, old_without: the same without each group of test records.
        metrics: all metrics, `new` and `old`.
        seconds: of training and judging.
        about: why the run failed, if it did.
    """

    method: str
    knob: float
    seed: int
    new: float
    old: float
    new_without: tuple[float, ...] = ()
    old_without: tuple[float, ...] = ()
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    about: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return every field; infinity as None, which JSON lacks."""
        metrics = {task: {name: finite(value) for name, value in of.items()} for task, of in self.metrics.items()}
        return vars(self) | {"new": finite(self.new), "old": finite(self.old), "metrics": metrics}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Trial":
        """Return what `to_json` wrote."""
        errors = {name: math.inf if data[name] is None else data[name] for name in ("new", "old")}
        parts = {name: tuple(data[name]) for name in ("new_without", "old_without")}
        return cls(**{**data, **errors, **parts})


@dataclass(frozen=True)
class Task:
    """What is measured on one of the two tasks.

    Args:
        metric: the figure.
        error: what errors are: the figure, or 1 less it where higher is better.
        split: of the store.
        records: how many are judged.
    """

    metric: str
    error: str
    split: str
    records: int


@dataclass(frozen=True)
class Answer:
    """The least strength of a method that keeps to the budget; `knob` is None where none does."""

    method: str
    knob: float | None
    text: str


@dataclass(frozen=True)
class ForgettingResult:
    """All fine-tunings and what follows from them.

    Args:
        runs: every (method, knob, seed), complete.
        before: the error of the base on the old task, and without each group of records.
        new, old: what was measured.
        budget: largest relative growth of the old error, if one was asked for.
        answers: of the methods, to the budget.
        left_out: method -> why it cannot be used here.
    """

    runs: tuple[Trial, ...]
    before: tuple[float, tuple[float, ...]]
    new: Task
    old: Task
    budget: float | None = None
    answers: tuple[Answer, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """Every (method, knob), methods in the order of the table, each from weak to strong."""
        found = {(run.method, run.knob) for run in self.runs}
        names = [START, *METHODS]
        stronger = {name: -1 if method.stride < 1 else 1 for name, method in METHODS.items()}
        return tuple(sorted(found, key=lambda p: (names.index(p[0]), p[1] * stronger.get(p[0], 1))))

    def cell(self, point: Point) -> list[Trial]:
        """Return the runs of a method at a value of its knob, by seed."""
        return sorted((run for run in self.runs if (run.method, run.knob) == point), key=lambda run: run.seed)

    def new_error(self, point: Point) -> Interval:
        """Return the error on the new task over seeds and records."""
        runs = self.cell(point)
        return interval([run.new for run in runs], [run.new_without for run in runs])

    def old_error(self, point: Point) -> Interval:
        """Return the error on the old task after fine-tuning."""
        runs = self.cell(point)
        return interval([run.old for run in runs], [run.old_without for run in runs])

    def growth(self, point: Point) -> Interval | None:
        """Return the relative growth of the old error, each group of records before and after; None if none is defined."""
        value, without = self.before
        if min((value, *without)) <= 0:
            return None
        runs = self.cell(point)
        ratios = [[after / was for after, was in zip(run.old_without, without, strict=False)] for run in runs]
        found = interval([run.old / value for run in runs], ratios)
        return Interval(found.value - 1, found.low - 1, found.high - 1)

    def price(self, point: Point) -> Interval | None:
        """Return the new error less that of plain fine-tuning, seed by seed; None without plain runs."""
        runs, plain = self.cell(point), {run.seed: run for run in self.cell(("plain", 0.0))}
        if not plain or point[0] == "plain":
            return None
        pairs = [(run, plain[run.seed]) for run in runs if run.seed in plain]
        if any(run.about or other.about for run, other in pairs):
            return interval([math.inf], [])
        values = [run.new - other.new for run, other in pairs]
        return interval(values, [np.subtract(run.new_without, other.new_without) for run, other in pairs])

    @cached_property
    def front(self) -> frozenset[Point]:
        """The points that no other beats on one task without being worse on the other (means over seeds)."""
        means = {p: (self.new_error(p).value, self.old_error(p).value) for p in self.points}
        return frozenset(pareto({p: pair for p, pair in means.items() if all(map(math.isfinite, pair))}))

    def table(self) -> Table:
        """Return one row a point: new error, what it costs against plain, old error, its growth, whether on the front."""
        rows = [("base", "", "", "", figure(self.before[0]), "", "")]
        for point in self.points:
            price, growth = self.price(point), self.growth(point)
            cells = (text(self.new_error(point)), text(price, sign=True) if price else "", text(self.old_error(point)))
            grown = text(growth, percent=True) if growth else ""
            rows.append((point[0], knob_text(point), *cells, grown, "*" if point in self.front else ""))
        heads = (f"new {self.new.error}", "less plain", f"old {self.old.error}", "growth", "front")
        return Table(("method", "strength", *heads), tuple(rows), self.note())

    def note(self) -> str:
        """Return what a reader of the table must know."""
        seeds = len({run.seed for run in self.runs})
        kind = (
            f"{seeds} paired seeds [95 % interval over seeds and records]" if seeds > 1 else "one seed [95 % interval"
        )
        lines = [f"Means over {kind}." if seeds > 1 else f"{kind.capitalize()} over records alone]."]
        if 1 < seeds < 5:
            lines.append("Fewer than 5 seeds: intervals are coarse.")
        for name, task in (("New", self.new), ("Old", self.old)):
            lines.append(f"{name} task: {task.error} on {task.records} {task.split} records; lower is better.")
        if self.growth(("plain", 0.0) if self.cell(("plain", 0.0)) else self.points[0]) is None:
            lines.append("The old error is not positive, so its relative growth is not defined.")
        lines.append("* on the Pareto front. Strengths of different estimators are not comparable.")
        lines += [f"{name} left out: {reason}." for name, reason in self.left_out.items()]
        lost = sorted({f"{r.method} {knob_text((r.method, r.knob))}".strip() for r in self.runs if r.about})
        return "\n".join([*lines, *([f"Diverged: {', '.join(lost)}."] if lost else [])])

    def budget_table(self) -> Table | None:
        """Return the least strength of each method that keeps to the budget and the new error there."""
        if self.budget is None:
            return None
        rows = []
        for answer in self.answers:
            cells = ("", "", "")
            if answer.knob is not None:
                point = (answer.method, answer.knob)
                cells = knob_text(point), text(self.new_error(point)), text(self.growth(point), percent=True)
            rows.append((answer.method, *cells, answer.text))
        heads = ("method", "least strength", f"new {self.new.error}", "growth of old error", "")
        note = f"Budget: the old error, {figure(self.before[0])} before, grows by at most {100 * self.budget:g} %. "
        note += "Strengths are chosen by the mean on these same old records; on others expect somewhat more growth."
        return Table(heads, tuple(rows), note)

    def text(self) -> str:
        """Return the tables for a terminal."""
        return "\n\n".join(table.text() for table in (self.table(), self.budget_table()) if table is not None)

    def to_json(self) -> dict[str, Any]:
        """Return every figure of the tables, and the runs."""
        cells = []
        for point in self.points:
            found = {"new": self.new_error(point), "old": self.old_error(point), "growth": self.growth(point)}
            found["less_plain"] = self.price(point)
            metrics = {k: None if v is None else [finite(x) for x in vars(v).values()] for k, v in found.items()}
            cells.append({"method": point[0], "knob": point[1], **metrics, "front": point in self.front})
        head = {"new": vars(self.new), "old": vars(self.old), "old_before": self.before[0]}
        answers = {"budget": self.budget, "answers": [vars(answer) for answer in self.answers]}
        runs = [run.to_json() for run in self.runs]
        return {**head, "cells": cells, **answers, "left_out": dict(self.left_out), "runs": runs}

    def write_csv(self, path: Path) -> Path:
        """Write one row a run, with every figure of both tasks."""
        names = [(task, name) for task in ("new", "old") for name in sorted(set().union(
            *(run.metrics.get(task, {}) for run in self.runs)))]  # fmt: skip
        with whole_files(path) as (handle,):
            writer = csv.writer(handle, lineterminator="\n")
            heads = ["method", "strength", "seed", "new_error", "old_error_before", "old_error", "seconds", "failed"]
            writer.writerow([*heads, *(f"{task}.{name}" for task, name in names)])
            for run in self.runs:
                row = [run.method, knob_text((run.method, run.knob)), run.seed, run.new, self.before[0], run.old]
                metrics = [run.metrics.get(task, {}).get(name, "") for task, name in names]
                writer.writerow([*row, f"{run.seconds:.2f}", run.about, *metrics])
        return Path(path)

    def plot(self, path: Path, title: str = "") -> Path:
        """Draw new error against old error, one line a method, to a PNG (or what the suffix says)."""
        from sciforge.experiments.forgetting.plot import draw

        return draw(self, Path(path), title)


def pareto(points: Mapping[Any, tuple[float, float]]) -> list[Any]:
    """Return the keys of the pairs that no other pair is at most as large as in both and smaller in one.

    >>> pareto({"a": (1, 3), "b": (2, 2), "c": (3, 3), "d": (2, 2)})
    ['a', 'b', 'd']
    """

    def beaten(pair: tuple[float, float]) -> bool:
        return any(other != pair and other[0] <= pair[0] and other[1] <= pair[1] for other in points.values())

    return [key for key, pair in points.items() if not beaten(pair)]


def error_of(value: float, higher_is_better: bool) -> float:
    """Return a figure as an error: itself, or 1 less it where higher is better (metrics whose best is 1).

    >>> error_of(0.75, True), error_of(3.0, False)
    (0.25, 3.0)
    """
    return 1 - value if higher_is_better else value


def figure(value: float, sign: bool = False) -> str:
    """Return a number to three digits, or to the unit.

    >>> figure(0.012345), figure(0.5, sign=True), figure(1234.5)
    ('0.0123', '+0.5', '1234')
    """
    return f"{value:{'+' if sign else ''}{'.0f' if 1000 <= abs(value) < 1e6 else '.3g'}}"


def text(found: Interval, sign: bool = False, percent: bool = False) -> str:
    """Return a value with its interval.

    >>> text(Interval(0.1, 0.05, 0.15), percent=True)
    '+10 % [+5, +15]'
    """
    if not math.isfinite(found.value):
        return "diverged"
    if percent:
        value, low, high = (figure(100 * x, sign=True) for x in (found.value, found.low, found.high))
        return f"{value} % [{low}, {high}]"
    value, low, high = (figure(x, sign) for x in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def knob_text(point: Point) -> str:
    """Return the value of a method's knob; empty for a method without one.

    >>> knob_text(("lora", 8.0)), knob_text(("ewc-exact", 1e4)), knob_text(("plain", 0.0))
    ('rank 8', '1e+04', '')
    """
    method = METHODS.get(point[0])
    if method is None or not method.ladder:
        return ""
    return f"{method.knob} {point[1]:.4g}" if method.knob != "strength" else f"{point[1]:.4g}"
