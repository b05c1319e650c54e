"""What a label-efficiency curve says: means, intervals, differences of paired seeds, labels saved; as table and plot.

Intervals join two sources of chance. Seeds (which labels were drawn, the net's start) are resampled with replacement,
the same draw for all methods. Test examples enter by leaving out one twentieth at a time (the infinitesimal jackknife), the
same twentieth for all methods. Of few seeds or groups a bootstrap is too narrow, so its deviations are widened by Student's t
and the lost degree of freedom (factor 1.58 for five seeds, 1.10 for twenty groups).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.files.tables import Table

DRAWS = 2000
LEVELS = (2.5, 97.5)


@dataclass(frozen=True)
class RunMetrics:
    """One method on one subset.

    Args:
        method, labels, seed: which.
        metrics: on the test split.
        without: the compared metric with each group of test examples left out.
        seconds: of fitting and judging.
        about: the rate chosen and the losses it was chosen by.
        outputs: per test example; on disk beside runs.jsonl, not in it.
    """

    method: str
    labels: int
    seed: int
    metrics: Mapping[str, float]
    without: tuple[float, ...]
    seconds: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the outputs."""
        return {name: value for name, value in vars(self).items() if name != "outputs"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunMetrics":
        """Return what `to_json` wrote."""
        return cls(**{**data, "without": tuple(data["without"])})


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 2, sign: bool = False) -> str:
        """Return the value and the interval.

        >>> Interval(0.5, 0.4, 0.61).text()
        '.50 [.40, .61]'
        """
        value, low, high = (figure(v, digits, sign) for v in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def to_json(self) -> dict[str, Any]:
        """Return the value and the interval, None for what is not finite, which JSON lacks."""
        return {"value": finite(self.value), "interval": [finite(self.low), finite(self.high)]}


@dataclass(frozen=True)
class Saving:
    """How many labels from scratch reach what the pretrained net reaches with `labels`; None where curves do not meet."""

    labels: int
    metric: float
    factor: Interval | None
    reason: str = ""

    def text(self) -> str:
        """Return one line; an infinite bound means that some draws never reach the level."""
        if self.factor is None:
            return self.reason
        low, high = (
            f"{v:.1f}" if np.isfinite(v) else "beyond the sizes measured" for v in (self.factor.low, self.factor.high)
        )
        return f"{self.factor.value:.1f} times fewer labels than scratch at {figure(self.metric)} [{low}, {high}]"


@dataclass(frozen=True)
class LabelEfficiencyResult:
    """All runs of a curve and what follows from them.

    Args:
        runs: every (method, labels, seed), complete.
        metric: the figure compared.
        higher_is_better: its sense.
        kinds: method -> net, control or baseline, in the order of the table.
    """

    runs: tuple[RunMetrics, ...]
    metric: str
    higher_is_better: bool
    kinds: Mapping[str, str]

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods in the order of the table."""
        return tuple(self.kinds)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of labels, ascending."""
        return tuple(sorted({run.labels for run in self.runs}))

    def cell(self, method: str, labels: int) -> list[RunMetrics]:
        """Return the runs of a method at a number of labels, by seed."""
        return sorted((r for r in self.runs if (r.method, r.labels) == (method, labels)), key=lambda r: r.seed)

    def mean(self, method: str, labels: int) -> float:
        """Return the mean of the metric over seeds."""
        return float(np.mean([run.metrics[self.metric] for run in self.cell(method, labels)]))

    def sd(self, method: str, labels: int) -> float:
        """Return the standard deviation over seeds; 0 for one seed."""
        values = [run.metrics[self.metric] for run in self.cell(method, labels)]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def collapsed(self, method: str, labels: int) -> int:
        """Return how many runs predicted one class only."""
        return sum(bool(run.metrics.get("collapsed", 0)) for run in self.cell(method, labels))

    @cached_property
    def draws(self) -> dict[tuple[str, int], np.ndarray]:
        """The bootstrap distribution [DRAWS] of each (method, labels); draws are paired over methods and sizes."""
        rng = np.random.default_rng(0)
        seeds = sorted({run.seed for run in self.runs})
        num, parts = len(seeds), max(len(run.without) for run in self.runs)
        chosen = rng.integers(0, num, (DRAWS, num))
        times = np.stack([(chosen == s).sum(axis=1) for s in range(num)], axis=1) / num
        groups = rng.multinomial(parts, np.full(parts, 1 / parts), DRAWS) if parts else np.zeros((DRAWS, 0))
        found = {}
        for method in self.methods:
            for labels in self.sizes:
                runs = self.cell(method, labels)
                value = np.array([run.metrics[self.metric] for run in runs])
                drawn = value.mean() + widening(num) * (times @ value - value.mean())
                if parts:
                    without = np.array([run.without for run in runs])
                    pull = (value[:, None] - without).mean(axis=0) * (parts - 1) / parts
                    drawn = drawn + widening(parts) * ((groups - 1) @ (pull - pull.mean()))
                found[method, labels] = drawn
        return found

    def interval(self, method: str, labels: int) -> Interval:
        """Return the mean with its interval."""
        return Interval(self.mean(method, labels), *_percentiles(self.draws[method, labels]))

    def difference(self, one: str, other: str, labels: int) -> Interval:
        """Return the paired difference of two methods with its interval."""
        value = self.mean(one, labels) - self.mean(other, labels)
        return Interval(value, *_percentiles(self.draws[one, labels] - self.draws[other, labels]))

    def best_baseline(self, labels: int) -> str | None:
        """Return the classical baseline with the best mean on the test split: the choice favours the baseline."""
        names = [method for method, kind in self.kinds.items() if kind == "baseline"]
        sign = 1 if self.higher_is_better else -1
        return max(names, key=lambda m: sign * self.mean(m, labels)) if names else None

    def saving(self, labels: int) -> Saving | None:
        """Return the label-saving factor of pretraining at the level reached with `labels`, where the curves cross."""
        if not {"pretrained", "scratch"} <= set(self.methods):
            return None
        sign = 1 if self.higher_is_better else -1
        level = self.mean("pretrained", labels)
        scratch = [sign * self.mean("scratch", n) for n in self.sizes]
        needed = labels_needed(self.sizes, scratch, sign * level)
        if needed == np.inf:
            return Saving(
                labels,
                level,
                None,
                f"not reached: scratch never gets to {figure(level)} within {self.sizes[-1]} labels",
            )
        if needed == 0:
            reason = f"no crossing: scratch is beyond {figure(level)} with {self.sizes[0]} labels already"
            return Saving(labels, level, None, reason)
        curves = sign * np.stack([self.draws["scratch", n] for n in self.sizes], axis=1)
        levels = sign * self.draws["pretrained", labels]
        drawn = np.array([labels_needed(self.sizes, c, m) for c, m in zip(curves, levels, strict=True)])
        low, high = np.percentile(drawn, LEVELS, method="nearest") / labels
        return Saving(labels, level, Interval(needed / labels, float(low), float(high)))

    def table(self) -> Table:
        """Return one row a method: mean ± sd [interval] at each number of labels, collapsed runs counted."""
        rows = []
        for method in self.methods:
            cells = []
            for labels in self.sizes:
                found = self.interval(method, labels)
                lost = self.collapsed(method, labels)
                spread = figure(self.sd(method, labels))
                text = f"{figure(found.value)} ± {spread} [{figure(found.low)}, {figure(found.high)}]"
                cells.append(text + (f" {lost} collapsed" if lost else ""))
            rows.append((method, *cells))
        for other in ("scratch", "best baseline"):
            if "pretrained" in self.methods and (other in self.methods or self.best_baseline(self.sizes[0])):
                cells = []
                for labels in self.sizes:
                    rival = other if other == "scratch" else self.best_baseline(labels)
                    if rival is None or rival not in self.methods:
                        break
                    name = "" if rival == other else f" ({rival})"
                    cells.append(self.difference("pretrained", rival, labels).text(sign=True) + name)
                if len(cells) == len(self.sizes):
                    rows.append((f"pretrained - {other}", *cells))
        for one, other in (("adapted", "pretrained"), ("adapted", "adapted-control")):
            if {one, other} <= set(self.methods):
                found = (self.difference(one, other, n).text(sign=True) for n in self.sizes)
                rows.append((f"{one} - {other}", *found))
        return Table((f"test {self.metric}", *(f"{n} labels" for n in self.sizes)), tuple(rows), self.note())

    def note(self) -> str:
        """Return what a reader of the table must know."""
        seeds = len({run.seed for run in self.runs})
        lines = [f"Mean ± s.d. over {seeds} paired seeds [95 % interval over seeds and test examples]."]
        if seeds < 5:
            lines.append("Fewer than 5 seeds: intervals are coarse.")
        lost = sum(self.collapsed(m, n) for m in self.methods for n in self.sizes)
        lines.append(
            f"{lost} of {len(self.runs)} runs collapsed to one class." if lost else "No run collapsed to one class."
        )
        if "adapted" in self.methods and "adapted-control" not in self.methods:
            lines.append(
                "No control of adaptation by equal compute (--adaptation.control): a gain may be of longer training alone."
            )
        savings = [(n, self.saving(n)) for n in self.sizes]
        lines += [f"Labels saved, {n} labels: {saving.text()}." for n, saving in savings if saving is not None]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return every figure of the table, and the runs."""
        cells = []
        for method in self.methods:
            for labels in self.sizes:
                found = self.interval(method, labels)
                cell = {"method": method, "labels": labels, "mean": found.value, "sd": self.sd(method, labels)}
                cells.append({**cell, "interval": [found.low, found.high], "collapsed": self.collapsed(method, labels)})
        savings = {}
        for labels in self.sizes:
            if (saving := self.saving(labels)) is not None:
                bounds = None if saving.factor is None else [finite(v) for v in vars(saving.factor).values()]
                savings[str(labels)] = {"factor": bounds, "text": saving.text()}
        runs = [run.to_json() for run in self.runs]
        head = {"metric": self.metric, "higher_is_better": self.higher_is_better, "kinds": dict(self.kinds)}
        return {**head, "cells": cells, "labels_saved": savings, "runs": runs}

    def plot(self, path: Path, title: str = "") -> Path:
        """Draw the curves to a PNG (or what the suffix says) and return its path."""
        from sciforge.experiments.label_efficiency.plot import draw

        return draw(self, Path(path), title)


def widening(num: int) -> float:
    """Return by how much a bootstrap of so few is too narrow: Student's t against the normal, and a degree of freedom.

    >>> round(widening(5), 2), round(widening(20), 2), widening(1)
    (1.58, 1.1, 0.0)
    """
    from scipy.stats import t as student

    return float(student.ppf(0.975, num - 1) / 1.96 * (num / (num - 1)) ** 0.5) if num > 1 else 0.0


def labels_needed(sizes: Sequence[int], curve: Sequence[float], level: float) -> float:
    """Return how many labels a curve needs to reach a level: made monotone, then read off between sizes in log n.

    0 where even the smallest size is beyond the level, infinity where the largest falls short.

    >>> round(labels_needed([32, 128, 512], [0.2, 0.4, 0.6], 0.5), 6)
    256.0
    """
    from sklearn.isotonic import isotonic_regression

    rising = isotonic_regression(np.asarray(curve, float))
    if level > rising[-1]:
        return np.inf
    if level < rising[0]:
        return 0.0
    right = int(np.argmax(rising >= level))
    if right == 0:
        return float(sizes[0])
    share = (level - rising[right - 1]) / (rising[right] - rising[right - 1])
    return float(np.exp(np.log(sizes[right - 1]) * (1 - share) + np.log(sizes[right]) * share))


def figure(value: float, digits: int = 2, sign: bool = False) -> str:
    """Return a number as tables print it, without the zero before the point.

    >>> figure(0.456), figure(-0.05), figure(0.1, sign=True), figure(12.3)
    ('.46', '-.05', '+.10', '12.30')
    """
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text.replace("0.", ".", 1) if abs(round(value, digits)) < 1 else text


def _percentiles(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(draws, LEVELS)
    return float(low), float(high)


def finite(value: float) -> float | None:
    """Return a number that JSON can hold.

    >>> finite(1.0), finite(float("inf"))
    (1.0, None)
    """
    return float(value) if np.isfinite(value) else None
