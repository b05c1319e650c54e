"""What a label-efficiency curve says: means, intervals, differences of paired seeds, labels
saved; as table and plot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.files.tables import Table
from sciforge.experiments.results import ExperimentResult
from sciforge.experiments.statistics import (
    LEVELS,
    Interval,
    bootstrap,
    decimal,
    finite,
    percentile_interval,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RunMetrics:
    """One method on one subset.

    Args:
        method, labels, seed: which.
        metrics: on the test split.
        without: the compared metric with each group of test records left out.
        seconds: of training and evaluation.
        about: the learning rate chosen and the losses it was chosen by.
    """

    method: str
    labels: int
    seed: int
    metrics: Mapping[str, float]
    without: tuple[float, ...]
    seconds: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return every field."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunMetrics":
        """Return what `to_json` wrote."""
        return cls(**{**data, "without": tuple(data["without"])})


@dataclass(frozen=True)
class Saving:
    """How many labels the untrained network needs for what the pretrained one reaches with
    `labels`.

    `factor` is None where the curves do not meet; then `reason` says why.
    """

    labels: int
    metric: float
    factor: Interval | None
    reason: str = ""

    def text(self) -> str:
        """Return one line; an infinite bound means that some draws never reach the level."""
        if self.factor is None:
            return self.reason
        low, high = (
            f"{v:.1f}" if np.isfinite(v) else "beyond the sizes measured"
            for v in (self.factor.low, self.factor.high)
        )
        return (
            f"{self.factor.value:.1f} times fewer labels than untrained at {decimal(self.metric)}"
            f" [{low}, {high}]"
        )


@dataclass(frozen=True, repr=False)
class LabelEfficiencyResult(ExperimentResult):
    """All runs of a curve and what follows from them.

    Args:
        runs: every (method, labels, seed), complete.
        metric: the metric compared.
        higher_is_better: its direction.
        kinds: method -> network, control or baseline, in the order of the table.
    """

    name = "label_efficiency"

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
        return sorted(
            (r for r in self.runs if (r.method, r.labels) == (method, labels)), key=lambda r: r.seed
        )

    def mean(self, method: str, labels: int) -> float:
        """Return the mean of the metric over seeds."""
        return float(np.mean([run.metrics[self.metric] for run in self.cell(method, labels)]))

    def std(self, method: str, labels: int) -> float:
        """Return the standard deviation over seeds; 0 for one seed."""
        values = [run.metrics[self.metric] for run in self.cell(method, labels)]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def collapsed(self, method: str, labels: int) -> int:
        """Return how many runs predicted one class only."""
        return sum(bool(run.metrics.get("collapsed", 0)) for run in self.cell(method, labels))

    @cached_property
    def draws(self) -> dict[tuple[str, int], np.ndarray]:
        """The bootstrap distribution of each (method, labels); draws are paired over methods and
        sizes.
        """
        cells = {
            (method, labels): self.cell(method, labels)
            for method in self.methods
            for labels in self.sizes
        }
        values = {key: [run.metrics[self.metric] for run in runs] for key, runs in cells.items()}
        return bootstrap(
            values, {key: [run.without for run in runs] for key, runs in cells.items()}
        )

    def interval(self, method: str, labels: int) -> Interval:
        """Return the mean with its interval."""
        return percentile_interval(self.mean(method, labels), self.draws[method, labels])

    def difference(self, one: str, other: str, labels: int) -> Interval:
        """Return the paired difference of two methods with its interval."""
        value = self.mean(one, labels) - self.mean(other, labels)
        return percentile_interval(value, self.draws[one, labels] - self.draws[other, labels])

    def best_baseline(self, labels: int) -> str | None:
        """Return the classical baseline with the best mean on the test split: the choice favours
        the baseline.
        """
        names = [method for method, kind in self.kinds.items() if kind == "baseline"]
        sign = 1 if self.higher_is_better else -1
        return max(names, key=lambda m: sign * self.mean(m, labels)) if names else None

    def saving(self, labels: int) -> Saving | None:
        """Return the label-saving factor of pretraining at the level reached with `labels`,
        where the curves cross.
        """
        if not {"pretrained", "untrained"} <= set(self.methods):
            return None
        sign = 1 if self.higher_is_better else -1
        level = self.mean("pretrained", labels)
        untrained = [sign * self.mean("untrained", n) for n in self.sizes]
        needed = labels_needed(self.sizes, untrained, sign * level)
        if needed == np.inf:
            return Saving(
                labels,
                level,
                None,
                f"not reached: untrained never gets to {decimal(level)} within {self.sizes[-1]}"
                " labels",
            )
        if needed == 0:
            reason = (
                f"no crossing: untrained is beyond {decimal(level)} with {self.sizes[0]} labels"
                " already"
            )
            return Saving(labels, level, None, reason)
        curves = sign * np.stack([self.draws["untrained", n] for n in self.sizes], axis=1)
        levels = sign * self.draws["pretrained", labels]
        drawn = np.array(
            [labels_needed(self.sizes, c, m) for c, m in zip(curves, levels, strict=True)]
        )
        low, high = np.percentile(drawn, LEVELS, method="nearest") / labels
        return Saving(labels, level, Interval(needed / labels, float(low), float(high)))

    def table(self) -> Table:
        """Return one row a method: mean ± sd [interval] at each number of labels, collapsed runs
        counted.
        """
        rows = []
        for method in self.methods:
            cells = []
            for labels in self.sizes:
                interval = self.interval(method, labels)
                collapsed = self.collapsed(method, labels)
                std = decimal(self.std(method, labels))
                text = (
                    f"{decimal(interval.value)} ± {std} [{decimal(interval.low)},"
                    f" {decimal(interval.high)}]"
                )
                cells.append(text + (f" {collapsed} collapsed" if collapsed else ""))
            rows.append((method, *cells))
        for other in ("untrained", "best baseline"):
            if "pretrained" in self.methods and (
                other in self.methods or self.best_baseline(self.sizes[0])
            ):
                cells = []
                for labels in self.sizes:
                    rival = other if other == "untrained" else self.best_baseline(labels)
                    if rival is None or rival not in self.methods:
                        break
                    name = "" if rival == other else f" ({rival})"
                    cells.append(
                        self.difference("pretrained", rival, labels).text(sign=True) + name
                    )
                if len(cells) == len(self.sizes):
                    rows.append((f"pretrained - {other}", *cells))
        for one, other in (("adapted", "pretrained"), ("adapted", "adapted-control")):
            if {one, other} <= set(self.methods):
                differences = (self.difference(one, other, n).text(sign=True) for n in self.sizes)
                rows.append((f"{one} - {other}", *differences))
        return Table(
            (f"test {self.metric}", *(f"{n} labels" for n in self.sizes)), tuple(rows), self.note()
        )

    def note(self) -> str:
        """Return what a reader of the table must know."""
        seeds = len({run.seed for run in self.runs})
        lines = [
            f"Mean ± std over {seeds} paired seeds [95 % interval over seeds and test records]."
        ]
        if seeds < 5:
            lines.append("Fewer than 5 seeds: intervals are coarse.")
        collapsed = sum(self.collapsed(m, n) for m in self.methods for n in self.sizes)
        count = f"{collapsed} of {len(self.runs)} runs" if collapsed else "No run"
        lines.append(f"{count} collapsed to one class.")
        if "adapted" in self.methods and "adapted-control" not in self.methods:
            lines.append(
                "No control of adaptation by equal compute (--adaptation.control): a gain may come"
                " from longer training alone."
            )
        savings = [(n, self.saving(n)) for n in self.sizes]
        lines += [
            f"Labels saved, {n} labels: {saving.text()}."
            for n, saving in savings
            if saving is not None
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return every number of the table, and the runs."""
        cells = []
        for method in self.methods:
            for labels in self.sizes:
                interval = self.interval(method, labels)
                cell = {
                    "method": method,
                    "labels": labels,
                    "mean": interval.value,
                    "std": self.std(method, labels),
                }
                ends = [finite(interval.low), finite(interval.high)]
                cells.append(
                    {**cell, "interval": ends, "collapsed": self.collapsed(method, labels)}
                )
        savings = {}
        for labels in self.sizes:
            if (saving := self.saving(labels)) is not None:
                bounds = (
                    None
                    if saving.factor is None
                    else [finite(v) for v in vars(saving.factor).values()]
                )
                savings[str(labels)] = {"factor": bounds, "text": saving.text()}
        runs = [run.to_json() for run in self.runs]
        head = {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "kinds": dict(self.kinds),
        }
        return {**head, "cells": cells, "labels_saved": savings, "runs": runs}

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a run: method, kind, labels, seed, every metric on the test split,
        seconds, learning rate.
        """
        import pandas as pd

        rows = [
            {
                "method": r.method,
                "kind": self.kinds[r.method],
                "labels": r.labels,
                "seed": r.seed,
                **r.metrics,
            }
            | {"seconds": r.seconds, "lr": r.about.get("lr")}
            for r in self.runs
        ]
        return pd.DataFrame(rows)

    def plot(self, ax: Any = None) -> Any:
        """Draw the means over the number of labels with 95 % intervals, and return the axes."""
        from sciforge.experiments.label_efficiency.plot import draw

        return draw(self, ax)


def labels_needed(sizes: Sequence[int], curve: Sequence[float], level: float) -> float:
    """Return how many labels a curve needs to reach a level: made monotone, then read off between
    sizes in log n.

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
