"""What a transfer matrix says: every source against every target, and each target left out; as
table and heat map.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.files.tables import Table
from sciforge.experiments.plots import METRIC_NAMES, new_axes
from sciforge.experiments.results import ExperimentResult
from sciforge.experiments.statistics import (
    Interval,
    direction_text,
    mean_interval,
    paired_difference,
)

if TYPE_CHECKING:
    import pandas as pd

OTHERS = "all others"  # the source of the leave-one-source-out row


@dataclass(frozen=True)
class TransferScore:
    """One method, trained on one source, tested on one target.

    Args:
        method, source, target, seed: which; the source is `OTHERS` where all but the target were
            learnt.
        labels: how many were learnt.
        split, records: of the target, on which it was tested.
        metrics: on them.
        value: the compared one.
        without: the same without each group of records.
    """

    method: str
    source: str
    target: str
    seed: int
    labels: int
    split: str
    records: int
    metrics: Mapping[str, float]
    value: float
    without: tuple[float, ...]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Iterator["TransferScore"]:
        """Yield the scores of a line of the results log, one a target."""
        for target, scores in row["targets"].items():
            source = OTHERS if row["source"] == f"all but {target}" else row["source"]
            about = {
                "method": row["method"],
                "source": source,
                "target": target,
                "seed": row["seed"],
            }
            yield cls(
                **about, labels=row["labels"], **{**scores, "without": tuple(scores["without"])}
            )


@dataclass(frozen=True, repr=False)
class TransferResult(ExperimentResult):
    """All scores of a transfer matrix and what follows from them.

    Args:
        scores: every (method, source, target, seed), complete.
        metric: the metric compared.
        higher_is_better: its direction.
        kinds: method -> network, control or baseline, in the order of the table.
        targets: names of the sources of data.
    """

    name = "transfer"

    scores: tuple[TransferScore, ...]
    metric: str
    higher_is_better: bool
    kinds: Mapping[str, str]
    targets: tuple[str, ...]

    @property
    def training_sets(self) -> tuple[str, ...]:
        """The rows of the matrix: every source, and all others than the target."""
        return (*self.targets, OTHERS)

    def cell(self, method: str, source: str, target: str) -> list[TransferScore]:
        """Return the scores of a cell, by seed; empty on the diagonal where a source holds
        nothing out.
        """
        wanted = (method, source, target)
        return sorted(
            (s for s in self.scores if (s.method, s.source, s.target) == wanted),
            key=lambda score: score.seed,
        )

    def interval(self, method: str, source: str, target: str) -> Interval | None:
        """Return the mean over seeds with its 95 % interval over seeds and records; None for an
        empty cell.
        """
        cell = self.cell(method, source, target)
        return mean_interval([s.value for s in cell], [s.without for s in cell]) if cell else None

    def difference(self, method: str, other: str, source: str, target: str) -> Interval | None:
        """Return the paired difference of two methods in a cell with its 95 % interval; None for
        an empty cell.
        """
        one, two = self.cell(method, source, target), self.cell(other, source, target)
        if not one or not two:
            return None
        without = [s.without for s in one], [s.without for s in two]
        return paired_difference([s.value for s in one], [s.value for s in two], *without)

    def best_baseline(self, source: str, target: str) -> str | None:
        """Return the classical baseline with the best mean in a cell: the choice favours the
        baseline.
        """
        sign = 1 if self.higher_is_better else -1
        intervals = {
            m: self.interval(m, source, target)
            for m, kind in self.kinds.items()
            if kind == "baseline"
        }
        means = {
            method: sign * interval.value for method, interval in intervals.items() if interval
        }
        return max(means, key=means.__getitem__) if means else None

    def matrix(self, method: str) -> "pd.DataFrame":
        """Return the means of one method: a row a source, a column a target; NaN for an empty
        cell.
        """
        import pandas as pd

        rows = [
            [getattr(self.interval(method, s, t), "value", np.nan) for t in self.targets]
            for s in self.training_sets
        ]
        return pd.DataFrame(
            rows, pd.Index(self.training_sets, name="source"), pd.Index(self.targets, name="target")
        )

    def table(self) -> Table:
        """Return a row for each method and source, a column a target, then what pretraining
        gains on a new source.
        """
        rows = []
        for method in self.kinds:
            for source in self.training_sets:
                intervals = [self.interval(method, source, target) for target in self.targets]
                rows.append((method, source, *(i.significant() if i else "" for i in intervals)))
        for label, others in self._rivals().items():
            cells = []
            for target, other in zip(self.targets, others, strict=True):
                difference = self.difference("pretrained", other, OTHERS, target) if other else None
                name = "" if label == other else f" ({other})"
                cells.append(difference.significant(sign=True) + name if difference else "")
            rows.append((f"pretrained - {label}", OTHERS, *cells))
        return Table(("method", "trained on", *self.targets), tuple(rows), self.note())

    def _rivals(self) -> dict[str, list[str | None]]:
        """Return label -> the method that pretraining is compared with on each target left out."""
        if "pretrained" not in self.kinds:
            return {}
        rivals: dict[str, list[str | None]] = {}
        if "untrained" in self.kinds:
            rivals["untrained"] = ["untrained"] * len(self.targets)
        if "baseline" in self.kinds.values():
            rivals["best baseline"] = [
                self.best_baseline(OTHERS, target) for target in self.targets
            ]
        return rivals

    def note(self) -> str:
        """Return what a reader of the table must know."""
        seeds = len({score.seed for score in self.scores})
        better = direction_text(self.higher_is_better)
        lines = [
            f"Columns: tested on; {self.metric}; {better}'{OTHERS}': trained on all sources but the"
            " target."
        ]
        lines.append(
            f"Means over {seeds} paired seeds [95 % interval over seeds and records of the target]."
        )
        sizes = {s.target: f"{s.records} {s.split}" for s in self.scores if s.source != s.target}
        tested = [f"{name} {sizes[name]}" for name in self.targets if name in sizes]
        labels = {s.labels for s in self.scores}
        learnt = f"{min(labels)}" if len(labels) == 1 else f"{min(labels)} to {max(labels)}"
        lines.append(f"Labels learnt: {learnt}. Records tested: {', '.join(tested)}.")
        if seeds < 5:
            lines.append("Fewer than 5 seeds: intervals are coarse.")
        return "\n".join(lines)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a score: method, kind, source, target, seed, labels, records, and every
        metric.
        """
        import pandas as pd

        rows = []
        for s in self.scores:
            about: dict[str, Any] = {
                "method": s.method,
                "kind": self.kinds[s.method],
                "source": s.source,
                "target": s.target,
            }
            about |= {"seed": s.seed, "labels": s.labels, "split": s.split, "records": s.records}
            rows.append({**about, **s.metrics})
        return pd.DataFrame(rows)

    def plot(self, ax: Any = None, method: str | None = None) -> Any:
        """Draw the means of one method as a heat map, and return the axes.

        Args:
            ax: where to draw; None for axes of their own.
            method: which; by default the first of the table.
        """
        method = method or next(iter(self.kinds))
        size = len(self.targets)
        axes, mean_ST = (
            new_axes(ax, (2.2 + 1.1 * size, 1.6 + 0.7 * size)),
            self.matrix(method).to_numpy(),
        )
        axes.imshow(
            mean_ST, cmap="viridis" if self.higher_is_better else "viridis_r", aspect="auto"
        )
        shade_ST = (mean_ST - np.nanmin(mean_ST)) / (np.nanmax(mean_ST) - np.nanmin(mean_ST) or 1.0)
        for (row, column), value in np.ndenumerate(mean_ST):
            if np.isfinite(value):
                bright = (shade_ST[row, column] > 0.6) == self.higher_is_better
                color = "#000000" if bright else "#FFFFFF"
                axes.text(
                    column, row, f"{value:.3g}", ha="center", va="center", color=color, fontsize=9
                )
        axes.set_xticks(range(size), self.targets, rotation=30, ha="right", parse_math=False)
        axes.set_yticks(range(size + 1), self.training_sets, parse_math=False)
        axes.axhline(size - 0.5, color="#FFFFFF", linewidth=3)
        axes.set(xlabel="tested on", ylabel="trained on")
        axes.set_title(
            f"{method}, {METRIC_NAMES.get(self.metric, self.metric)}", loc="left", fontsize=11
        )
        return axes

    def to_json(self) -> dict[str, Any]:
        """Return every number of the table, and the scores."""
        cells = []
        for method in self.kinds:
            for source in self.training_sets:
                for target in self.targets:
                    if interval := self.interval(method, source, target):
                        about = {"method": method, "source": source, "target": target}
                        cells.append({**about, **interval.to_json()})
        head = {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "kinds": dict(self.kinds),
        }
        return {**head, "cells": cells, "scores": [dict(vars(score)) for score in self.scores]}
