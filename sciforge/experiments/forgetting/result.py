"""What a comparison of ways not to forget says: a row for every method and strength, the Pareto
front, the budget.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sciforge.core.files.tables import Table
from sciforge.experiments.forgetting.methods import METHODS, START
from sciforge.experiments.held_out import Scores
from sciforge.experiments.results import ExperimentResult
from sciforge.experiments.statistics import Interval, finite, mean_interval, paired_difference

if TYPE_CHECKING:
    import pandas as pd

Point = tuple[str, float]  # method and strength


@dataclass(frozen=True)
class Trial:
    """One fine-tuning: both tasks after it.

    Args:
        method, strength, seed: which.
        new, old: errors on the new and the old task; infinite where the run diverged.
        new_without, old_without: the same without each group of test records.
        metrics: all metrics, `new` and `old`.
        seconds: of training and evaluation.
        failed: why the run failed, if it did.
    """

    method: str
    strength: float
    seed: int
    new: float
    old: float
    new_without: tuple[float, ...] = ()
    old_without: tuple[float, ...] = ()
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    failed: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return every field; infinity as None, which JSON lacks."""
        metrics = {
            task: {name: finite(value) for name, value in of.items()}
            for task, of in self.metrics.items()
        }
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
        metric: the metric.
        error: what errors are: the metric, or 1 less it where higher is better.
        split: of the store.
        records: how many are evaluated.
    """

    metric: str
    error: str
    split: str
    records: int


@dataclass(frozen=True)
class BudgetAnswer:
    """The weakest strength of a method within the budget; `strength` is None where none is."""

    method: str
    strength: float | None
    text: str


@dataclass(frozen=True, repr=False)
class ForgettingResult(ExperimentResult):
    """All fine-tunings and what follows from them.

    Args:
        runs: every (method, strength, seed), complete.
        before: the error of the parent on the old task.
        new, old: what was measured.
        budget: largest relative growth of the old error, if one was asked for.
        answers: of the methods, to the budget.
        left_out: method -> why it cannot be used here.
    """

    name = "forgetting"

    runs: tuple[Trial, ...]
    before: Scores
    new: Task
    old: Task
    budget: float | None = None
    answers: tuple[BudgetAnswer, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """Every (method, strength), methods in the order of the table, each from weak to strong."""
        points = {(run.method, run.strength) for run in self.runs}
        names = [START, *METHODS]
        stronger = {name: -1 if method.stride < 1 else 1 for name, method in METHODS.items()}
        return tuple(
            sorted(points, key=lambda p: (names.index(p[0]), p[1] * stronger.get(p[0], 1)))
        )

    def cell(self, point: Point) -> list[Trial]:
        """Return the runs of a method at a strength, by seed."""
        return sorted(
            (run for run in self.runs if (run.method, run.strength) == point),
            key=lambda run: run.seed,
        )

    def new_error(self, point: Point) -> Interval:
        """Return the error on the new task over seeds and records."""
        runs = self.cell(point)
        return mean_interval([run.new for run in runs], [run.new_without for run in runs])

    def old_error(self, point: Point) -> Interval:
        """Return the error on the old task after fine-tuning."""
        runs = self.cell(point)
        return mean_interval([run.old for run in runs], [run.old_without for run in runs])

    def growth(self, point: Point) -> Interval | None:
        """Return the relative growth of the old error, each group of records before and after;
        None if none is defined.
        """
        value, without = self.before.value, self.before.without
        if min((value, *without)) <= 0:
            return None
        runs = self.cell(point)
        ratios = [
            [now / then for now, then in zip(run.old_without, without, strict=False)]
            for run in runs
        ]
        ratio = mean_interval([run.old / value for run in runs], ratios)
        return Interval(ratio.value - 1, ratio.low - 1, ratio.high - 1)

    def cost(self, point: Point) -> Interval | None:
        """Return the new error less that of plain fine-tuning, seed by seed; None without plain
        runs.
        """
        runs, plain = self.cell(point), {run.seed: run for run in self.cell(("plain", 0.0))}
        if not plain or point[0] == "plain":
            return None
        pairs = [(run, plain[run.seed]) for run in runs if run.seed in plain]
        new, other = ([pair[side].new for pair in pairs] for side in (0, 1))
        new_without, other_without = ([pair[side].new_without for pair in pairs] for side in (0, 1))
        return paired_difference(new, other, new_without, other_without)

    @cached_property
    def front(self) -> frozenset[Point]:
        """The points that no other beats on one task without being worse on the other (means
        over seeds).
        """
        means = {p: (self.new_error(p).value, self.old_error(p).value) for p in self.points}
        return frozenset(
            pareto({p: pair for p, pair in means.items() if all(map(math.isfinite, pair))})
        )

    def table(self) -> Table:
        """Return one row a point: new error, what it costs against plain, old error, its growth,
        whether on the front.
        """
        rows = [("parent", "", "", "", significant(self.before.value), "", "")]
        for point in self.points:
            cost, growth = self.cost(point), self.growth(point)
            cells = (
                text(self.new_error(point)),
                text(cost, sign=True) if cost else "",
                text(self.old_error(point)),
            )
            grown = text(growth, percent=True) if growth else ""
            rows.append(
                (point[0], strength_text(point), *cells, grown, "*" if point in self.front else "")
            )
        heads = (f"new {self.new.error}", "less plain", f"old {self.old.error}", "growth", "front")
        return Table(("method", "strength", *heads), tuple(rows), self.note())

    def note(self) -> str:
        """Return what a reader of the table must know."""
        seeds = len({run.seed for run in self.runs})
        kind = (
            f"{seeds} paired seeds [95 % interval over seeds and records]"
            if seeds > 1
            else "one seed [95 % interval"
        )
        lines = [
            f"Means over {kind}." if seeds > 1 else f"{kind.capitalize()} over records alone]."
        ]
        if 1 < seeds < 5:
            lines.append("Fewer than 5 seeds: intervals are coarse.")
        for name, task in (("New", self.new), ("Old", self.old)):
            lines.append(
                f"{name} task: {task.error} on {task.records} {task.split} records; lower is"
                " better."
            )
        if self.growth(("plain", 0.0) if self.cell(("plain", 0.0)) else self.points[0]) is None:
            lines.append("The old error is not positive, so its relative growth is not defined.")
        lines.append("* on the Pareto front. Strengths of different estimators are not comparable.")
        lines += [f"{name} left out: {reason}." for name, reason in self.left_out.items()]
        diverged = sorted(
            {
                f"{r.method} {strength_text((r.method, r.strength))}".strip()
                for r in self.runs
                if r.failed
            }
        )
        return "\n".join([*lines, *([f"Diverged: {', '.join(diverged)}."] if diverged else [])])

    def budget_table(self) -> Table | None:
        """Return the weakest strength of each method within the budget, and the new error there."""
        if self.budget is None:
            return None
        rows = []
        for answer in self.answers:
            cells = ("", "", "")
            if answer.strength is not None:
                point = (answer.method, answer.strength)
                growth = self.growth(point)
                grown = text(growth, percent=True) if growth else ""
                cells = (strength_text(point), text(self.new_error(point)), grown)
            rows.append((answer.method, *cells, answer.text))
        heads = ("method", "weakest strength", f"new {self.new.error}", "growth of old error", "")
        note = (
            f"Budget: the old error, {significant(self.before.value)} before, grows by at most"
            f" {100 * self.budget:g} %. "
        )
        note += (
            "Strengths are chosen by the mean on these same old records; on others expect somewhat"
            " more growth."
        )
        return Table(heads, tuple(rows), note)

    def text(self) -> str:
        """Return the tables for a terminal."""
        return "\n\n".join(
            table.text() for table in (self.table(), self.budget_table()) if table is not None
        )

    def to_json(self) -> dict[str, Any]:
        """Return every number of the tables, and the runs."""
        cells = []
        for point in self.points:
            intervals = {
                "new": self.new_error(point),
                "old": self.old_error(point),
                "growth": self.growth(point),
            }
            intervals["less_plain"] = self.cost(point)
            values = {
                k: None if v is None else [finite(x) for x in vars(v).values()]
                for k, v in intervals.items()
            }
            cells.append(
                {"method": point[0], "strength": point[1], **values, "front": point in self.front}
            )
        head = {"new": vars(self.new), "old": vars(self.old), "old_before": self.before.value}
        answers = {"budget": self.budget, "answers": [vars(answer) for answer in self.answers]}
        runs = [run.to_json() for run in self.runs]
        return {**head, "cells": cells, **answers, "left_out": dict(self.left_out), "runs": runs}

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a run: method, strength, seed, the errors and every metric of both
        tasks, seconds, failure.
        """
        import pandas as pd

        rows = []
        for run in self.runs:
            row = {
                "method": run.method,
                "strength": run.strength,
                "seed": run.seed,
                "new_error": run.new,
            }
            row |= {"old_error_before": self.before.value, "old_error": run.old}
            row |= {
                f"{task}.{name}": value
                for task, of in run.metrics.items()
                for name, value in of.items()
            }
            rows.append({**row, "seconds": run.seconds, "failed": run.failed})
        return pd.DataFrame(rows)

    def plot(self, ax: Any = None) -> Any:
        """Draw the new error against the old error, one line a method, and return the axes."""
        from sciforge.experiments.forgetting.plot import draw

        return draw(self, ax)


def pareto(points: Mapping[Any, tuple[float, float]]) -> list[Any]:
    """Return the keys of the pairs that no other pair is at most as large as in both and smaller in
    one.

    >>> pareto({"a": (1, 3), "b": (2, 2), "c": (3, 3), "d": (2, 2)})
    ['a', 'b', 'd']
    """

    def beaten(pair: tuple[float, float]) -> bool:
        return any(
            other != pair and other[0] <= pair[0] and other[1] <= pair[1]
            for other in points.values()
        )

    return [key for key, pair in points.items() if not beaten(pair)]


def error_of(value: float, higher_is_better: bool) -> float:
    """Return a metric as an error: itself, or 1 less it where higher is better (metrics whose best
    is 1).

    >>> error_of(0.75, True), error_of(3.0, False)
    (0.25, 3.0)
    """
    return 1 - value if higher_is_better else value


def significant(value: float, sign: bool = False) -> str:
    """Return a number to three digits, or to the unit.

    >>> significant(0.012345), significant(0.5, sign=True), significant(1234.5)
    ('0.0123', '+0.5', '1234')
    """
    return f"{value:{'+' if sign else ''}{'.0f' if 1000 <= abs(value) < 1e6 else '.3g'}}"


def text(interval: Interval, sign: bool = False, percent: bool = False) -> str:
    """Return a value with its interval.

    >>> text(Interval(0.1, 0.05, 0.15), percent=True)
    '+10 % [+5, +15]'
    """
    if not math.isfinite(interval.value):
        return "diverged"
    if percent:
        value, low, high = (
            significant(100 * x, sign=True) for x in (interval.value, interval.low, interval.high)
        )
        return f"{value} % [{low}, {high}]"
    value, low, high = (significant(x, sign) for x in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def strength_text(point: Point) -> str:
    """Return the strength of a method; empty for a method without a parameter.

    >>> [strength_text(point) for point in (("lora", 8.0), ("ewc-exact", 1e4), ("plain", 0.0))]
    ['rank 8', '1e+04', '']
    """
    method = METHODS.get(point[0])
    if method is None or not method.field:
        return ""
    return (
        f"{method.parameter} {point[1]:.4g}"
        if method.parameter != "strength"
        else f"{point[1]:.4g}"
    )
