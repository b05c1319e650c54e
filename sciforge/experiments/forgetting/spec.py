"""What a forgetting report is to compare, on which data, at which strengths."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sciforge.core.files.settings import Settings
from sciforge.core.methods.retention import MAX_RECORDS
from sciforge.core.training.run import Freeze, Hardware, LoRA, Schedule
from sciforge.errors import ConfigError, did_you_mean
from sciforge.experiments.forgetting.methods import METHODS


@dataclass(frozen=True, kw_only=True)
class Forgetting(Settings):
    """Fine-tune a checkpoint in every way that is to forget less, and measure the new and the old
    task each time.

    Args:
        init: the parent checkpoint, a path or a name.
        old: a prepared store of what the parent learnt; replay and the Fisher information use its
            training split, the old error its validation split (test where there is no validation).
        new: a prepared store of the new task; the new error is on its test split (validation where
            there is no test).
        objective: what to learn of `new`, a name or an objective.
        out: folder of the results, where a report that was stopped continues; None for a temporary
            one, which lives as long as the result.
        methods: of plain, frozen, l2sp, ewc-exact, ewc-sampled, ewc-empirical, replay, lora,
            ewc+replay; empty for all that the model allows.
        l2sp: strengths of L2-SP to try.
        ewc: strengths of EWC to try, with each estimator.
        shares: shares of old examples in a batch to try for replay.
        ranks: ranks of LoRA to try; alpha is twice the rank.
        replay_share: share of old examples where replay joins EWC.
        seeds: paired seeds; each has its own order, labels and initial heads, the same for all
            methods.
        labels: fine-tune on this many training records, chosen by the seed; 0 for all.
        schedule: steps, batch size and learning rate of every run alike; no early stopping.
        budget: find for each method the weakest strength with which the old error grows by at most
            this, e.g. 10%.
        halvings: of the bracket around that strength, on the log scale.
        examples: old training records to estimate the Fisher information from, once for each
            estimator.
        step: how the penalties of L2-SP and EWC are applied; `proximal` is stable at any strength.
        heads: the weights that are trained under frozen, a regular expression, besides new heads.
            The default trains the parent's own heads as well, which some objectives read; `$^`
            trains new heads alone.
        matrices: the weight matrices that LoRA updates, a regular expression.
        new_metric, old_metric: the metrics to compare; None for the objectives' own.
        new_higher_is_better, old_higher_is_better: their direction; None for what the objective or
            the metric's name says. The error is 1 less such a metric.
        max_records: largest number of old records to evaluate on, evenly spaced.
        hardware: of training and evaluation.
        keep: keep the checkpoint of every run under `out`/checkpoints.
    """

    init: Path
    old: Path
    new: Path
    objective: Any
    out: Path | None = None
    methods: tuple[str, ...] = ()
    l2sp: tuple[float, ...] = (0.01, 1.0, 100.0)
    ewc: tuple[float, ...] = (0.01, 1.0, 100.0, 1e4)
    shares: tuple[float, ...] = (0.125, 0.25, 0.5)
    ranks: tuple[int, ...] = (2, 8, 32)
    replay_share: float = 0.25
    seeds: int = 3
    labels: int = 0
    schedule: Schedule = Schedule(steps=100, batch=32, lr=2e-4, kind="step", warmup=0.1)
    budget: float | str | None = None
    halvings: int = 4
    examples: int = 128
    step: Literal["gradient", "proximal"] = "proximal"
    heads: str = Freeze().pattern
    matrices: str = LoRA().pattern
    new_metric: str | None = None
    old_metric: str | None = None
    new_higher_is_better: bool | None = None
    old_higher_is_better: bool | None = None
    max_records: int = MAX_RECORDS
    hardware: Hardware = Hardware()
    keep: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "seeds", "examples", "max_records")
        self.require(0, math.inf, "labels", "halvings")
        share_of(self.budget)
        for name in self.methods:
            if name not in METHODS:
                raise ConfigError(f"no method {name!r}; {did_you_mean(name, METHODS)}")
        for name in ("l2sp", "ewc", "shares", "ranks"):
            values = getattr(self, name)
            if not values or min(values) <= 0 or not all(map(math.isfinite, values)):
                raise ConfigError(
                    f"forgetting.{name} is {values}; give positive numbers, or leave out the method"
                )
        if max(*self.shares, self.replay_share) >= 1 or self.replay_share <= 0:
            raise ConfigError(
                "shares of replay must lie between 0 and 1; correct --shares or --replay-share"
            )
        if self.schedule.batch < 2:
            raise ConfigError(
                "schedule.batch is 1; replay needs at least 2, one new and one old example"
            )
        if self.schedule.evaluate_every:
            raise ConfigError(
                "all methods take the same steps, without early stopping; set"
                " schedule.evaluate_every 0"
            )


def share_of(budget: float | str | None) -> float | None:
    """Return a budget as a share; raises ConfigError unless it is like 10% or 0.1.

    >>> share_of("10%"), share_of(0.1), share_of("0.1"), share_of(None)
    (0.1, 0.1, 0.1, None)
    """
    if budget is None:
        return None
    try:
        text = str(budget)
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share < 1 and not (str(budget).endswith("%") and 0 <= share < math.inf):
        raise ConfigError(
            f"forgetting.budget is {budget}; give a percentage such as 10%, or a share such as 0.1"
        )
    return share
