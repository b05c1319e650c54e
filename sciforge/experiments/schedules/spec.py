"""Which learning-rate schedules to compare, on what, and how they are made comparable."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sciforge.core.files.settings import Settings
from sciforge.core.training.run import Hardware, Schedule, ScheduleKind
from sciforge.errors import ConfigError

KINDS: tuple[ScheduleKind, ...] = ("exponential", "step", "cosine", "trapezoid", "constant")


@dataclass(frozen=True, kw_only=True)
class Schedules(Settings):
    """Compare learning-rate schedules at equal steps, equal final learning rate, and equal peak or
    equal area.

    The area is the sum of the learning rates over the steps. A schedule with a larger area has
    moved further, so kinds that share only their peak are confounded with it; both comparisons are
    offered and each says which it is.

    Args:
        data: a prepared store with a test or validation split.
        out: folder of the results, where a comparison that was stopped continues; None for a
            temporary one, which lives as long as the result.
        objective: what to learn, a name or an objective.
        model: a preset's name or a configuration, for pretraining from random weights; excludes
            `init`.
        init: a checkpoint to fine-tune.
        kinds: of the schedules; the first is what the others are compared with.
        equal: `area` scales each kind's peak so that all sum to the same over the run, `peak`
            leaves peaks equal.
        schedule: steps, batch size, peak and min_lr_ratio of the first kind; drops of the step
            decay.
        split: the split to evaluate on; empty takes test where there is one, else validation.
        metric: the metric to compare; None for the objective's own.
        higher_is_better: the direction of `metric`; None for what the objective or the metric's
            name says.
        seeds: paired over kinds.
        hardware: of the runs.
    """

    data: Path
    out: Path | None = None
    objective: Any
    model: Any = None
    init: Path | None = None
    kinds: tuple[ScheduleKind, ...] = ("exponential", "step", "cosine", "constant")
    equal: Literal["area", "peak"] = "area"
    schedule: Schedule = Schedule(steps=200, kind="exponential")
    split: str = ""
    metric: str | None = None
    higher_is_better: bool | None = None
    seeds: int = 3
    hardware: Hardware = Hardware()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "seeds")
        if len(set(self.kinds)) < max(len(self.kinds), 2) or None in self.kinds:
            known = ", ".join(map(str, KINDS))
            raise ConfigError(
                f"kinds are {self.kinds}; give at least two different ones of {known}"
            )
        if (self.model is None) == (self.init is None):
            raise ConfigError(
                "a comparison starts from random weights or a checkpoint; give either --model or"
                " --init"
            )
        if self.schedule.patience:
            raise ConfigError(
                "all kinds take the same steps, without early stopping; set schedule.patience 0"
            )
        if self.kinds[0] == "constant" and self.equal == "area":
            raise ConfigError(
                "no other kind has a constant one's final lr and area; name a falling kind first"
            )

    def schedule_of(self, kind: ScheduleKind) -> Schedule:
        """Return the schedule of a kind: the same final learning rate where it falls, and the
        area or peak of the first.
        """
        first = self._ended(replace(self.schedule, kind=self.kinds[0], save_every=0))
        if kind == self.kinds[0]:
            return first
        schedule = self._ended(replace(first, kind=kind, min_lr_ratio=self.schedule.min_lr_ratio))
        if self.equal == "peak":
            return schedule
        # the final learning rate is that of the first kind: ratio and peak are found together
        peak = area(first) / area(replace(schedule, lr=1.0))
        scaled = schedule
        for _ in range(50):
            scaled = self._ended(replace(schedule, lr=peak), final_lr(first))
            if abs(area(scaled) / area(first) - 1) < 1e-9:
                break
            peak *= area(first) / area(scaled)
        return scaled

    def _ended(self, schedule: Schedule, end: float | None = None) -> Schedule:
        """Return the schedule with its final learning rate; of a step decay also the factor of
        each drop that leads there.
        """
        ratio = self.schedule.min_lr_ratio if end is None else min(end / schedule.lr, 1.0)
        if schedule.kind == "step":
            return replace(
                schedule, min_lr_ratio=ratio, factor=ratio ** (1 / max(schedule.drops, 1))
            )
        return replace(schedule, min_lr_ratio=ratio)


def area(schedule: Schedule) -> float:
    """Return the sum of the learning rates over a run.

    >>> round(area(Schedule(steps=10, lr=0.5, warmup=0.0, kind="constant")), 6)
    5.0
    """
    return sum(schedule.lr_at(step) for step in range(schedule.steps))


def final_lr(schedule: Schedule) -> float:
    """Return the learning rate after the last step, by the kind's closed form.

    >>> final_lr(Schedule(steps=10, lr=2.0, kind="exponential", min_lr_ratio=0.1))
    0.2
    """
    return schedule.lr * (1.0 if schedule.kind == "constant" else schedule.min_lr_ratio)
