"""What a comparison of schedules says: means, paired differences from the first kind, verdicts;
as table and plots.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.files.tables import Table
from sciforge.core.training.run import Schedule, to_json
from sciforge.experiments.held_out import Scores
from sciforge.experiments.plots import COLORS, frame, new_axes
from sciforge.experiments.results import ExperimentResult
from sciforge.experiments.schedules.spec import area, final_lr
from sciforge.experiments.statistics import Interval, direction_text, paired_difference

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class SchedulesResult(ExperimentResult):
    """All runs of a comparison and what follows from them.

    Args:
        scores: every (kind, seed), complete.
        schedules: kind -> its schedule; the first is what the others are compared with.
        metric, higher_is_better: the metric compared and its direction.
        equal: area or peak.
    """

    name = "schedules"

    scores: Mapping[tuple[str, int], Scores]
    schedules: Mapping[str, Schedule]
    metric: str
    higher_is_better: bool
    equal: str

    @property
    def first(self) -> str:
        """The kind that the others are compared with."""
        return next(iter(self.schedules))

    def cell(self, kind: str) -> list[Scores]:
        """Return the runs of a kind, by seed."""
        return [self.scores[key] for key in sorted(self.scores) if key[0] == kind]

    def difference(self, kind: str) -> Interval:
        """Return the paired difference from the first kind with its 95 % interval over seeds and
        records.
        """
        own, first = self.cell(kind), self.cell(self.first)
        without = [run.without for run in own], [run.without for run in first]
        return paired_difference([run.value for run in own], [run.value for run in first], *without)

    def verdict(self, kind: str) -> str:
        """Return better, worse, or undecided; one seed decides nothing."""
        interval = self.difference(kind)
        if len(self.cell(kind)) < 2 or not (interval.low > 0 or interval.high < 0):
            return "undecided"
        return "better" if (interval.low > 0) == self.higher_is_better else "worse"

    def table(self) -> Table:
        """Return means over seeds and paired differences, with what each schedule was."""
        rows = []
        for kind, schedule in self.schedules.items():
            values = [run.value for run in self.cell(kind)]
            std = np.std(values, ddof=1) if len(values) > 1 else math.nan
            row: tuple[str, ...] = (
                kind,
                f"{schedule.lr:.3g}",
                f"{final_lr(schedule):.3g}",
                f"{area(schedule):.4g}",
            )
            row += (f"{np.mean(values):.4g} ± {std:.2g}",)
            others = self.difference(kind).significant(sign=True), self.verdict(kind)
            rows.append(row + (("", "") if kind == self.first else others))
        head = ("kind", "peak lr", "final lr", "area", self.metric, f"less {self.first}", "verdict")
        note = (
            f"equal {self.equal}, equal final lr where the kind falls;"
            f" {direction_text(self.higher_is_better)}"
        )
        return Table(head, tuple(rows), note + "95 % intervals over paired seeds and records")

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a run: kind, seed, every metric, peak and final learning rate, area."""
        import pandas as pd

        rows = []
        for (kind, seed), scores in self.scores.items():
            schedule = self.schedules[kind]
            about = {"peak_lr": schedule.lr, "final_lr": final_lr(schedule), "area": area(schedule)}
            rows.append({"kind": kind, "seed": seed, **scores.metrics, **about})
        return pd.DataFrame(rows)

    @property
    def panels(self) -> tuple[Any, ...]:
        """The learning rates and the metric."""
        return self.plot_lr, self.plot

    def plot(self, ax: Any = None) -> Any:
        """Draw the metric of each seed and the mean of each kind, and return the axes."""
        axes = new_axes(ax, (5.2, 3.6))
        for place, kind in enumerate(self.schedules):
            values, color = [run.value for run in self.cell(kind)], COLORS[place % len(COLORS)]
            shifted = place + np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [place]
            axes.plot(shifted, values, "o", color=color, markersize=4)
            axes.plot([place - 0.25, place + 0.25], [np.mean(values)] * 2, color=color, linewidth=2)
        axes.set_xticks(range(len(self.schedules)), list(self.schedules))
        axes.set_ylabel(self.metric)
        frame(axes)
        return axes

    def plot_lr(self, ax: Any = None) -> Any:
        """Draw the learning rate of each kind over the steps, and return the axes."""
        axes = new_axes(ax, (5.2, 3.6))
        for place, (kind, schedule) in enumerate(self.schedules.items()):
            lrs = [schedule.lr_at(step) for step in range(schedule.steps)]
            axes.plot(lrs, color=COLORS[place % len(COLORS)], label=kind)
        axes.set(xlabel="step", ylabel="learning rate", yscale="log")
        axes.legend(frameon=False, fontsize=8)
        frame(axes)
        return axes

    def to_json(self) -> dict[str, Any]:
        """Return every number of the table, and the runs."""
        about = {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "equal": self.equal,
        }
        about["schedules"] = {kind: to_json(schedule) for kind, schedule in self.schedules.items()}
        differences = {
            kind: self.difference(kind).to_json() for kind in self.schedules if kind != self.first
        }
        runs = [
            {"kind": kind, "seed": seed, **vars(scores)}
            for (kind, seed), scores in self.scores.items()
        ]
        return {**about, "differences": differences, "runs": runs}
