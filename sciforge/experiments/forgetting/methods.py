"""The ways to fine-tune without forgetting that are compared, and the search for the weakest
strength within a budget.

Each method has one parameter: the strength of a penalty, the share of old examples, the rank of an
update; its value is called the method's strength here. A method forgets less the larger its penalty
or share, and the smaller its rank.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sciforge.core.training.run import EWC, L2SP, Freeze, LoRA, Replay

START = "start"  # the parent with new heads as the objective initialises them, before any step
DECADE, OCTAVE = 10.0, 2.0


@dataclass(frozen=True)
class Method:
    """A way to fine-tune.

    Args:
        settings: function(spec, strength) -> the fields of the Run that make it.
        field: of the spec that holds the strengths to try; empty for a method without a parameter.
        parameter: what its strength is: strength, share or rank.
        fisher: which Fisher information it needs.
        limits: of the strength, function(spec) -> (smallest, largest).
        stride: factor to a stronger value, by which the search goes beyond the values given; below
            1 for ranks.
        plain: whether it becomes plain fine-tuning as it gets weaker.
    """

    settings: Callable[[Any, float], Mapping[str, Any]]
    field: str = ""
    parameter: str = ""
    fisher: str = ""
    limits: Callable[[Any], tuple[float, float]] = lambda spec: (0.0, math.inf)
    stride: float = DECADE
    plain: bool = False

    def snap(self, spec: Any, strength: float) -> float:
        """Return the nearest possible value: whole ranks, whole numbers of replayed examples."""
        low, high = self.limits(spec)
        strength = min(max(strength, low), high)
        if self.parameter == "rank":
            return float(round(strength))
        if self.parameter == "share":
            return round(strength * spec.schedule.batch) / spec.schedule.batch
        return float(f"{strength:.3g}")

    def values(self, spec: Any) -> tuple[float, ...]:
        """Return the strengths to try, from weak to strong; one 0 where there is no parameter."""
        if not self.field:
            return (0.0,)
        return tuple(
            sorted({self.snap(spec, v) for v in getattr(spec, self.field)}, reverse=self.stride < 1)
        )


def _ewc(spec: Any, strength: float, estimator: Any, replay: bool = False) -> dict[str, Any]:
    settings: dict[str, Any] = {"regularization": EWC(strength, estimator, step=spec.step)}
    return settings | ({"replay": Replay(spec.old, spec.replay_share)} if replay else {})


def _shares(spec: Any) -> tuple[float, float]:
    return 1 / spec.schedule.batch, 1 - 1 / spec.schedule.batch


_PENALTY: dict[str, Any] = {"parameter": "strength", "limits": lambda spec: (1e-9, 1e12)}

METHODS: dict[str, Method] = {
    "plain": Method(lambda spec, strength: {}),
    "frozen": Method(lambda spec, strength: {"finetuning": Freeze(spec.heads)}),
    "l2sp": Method(
        lambda spec, strength: {"regularization": L2SP(strength, spec.step)},
        "l2sp",
        plain=True,
        **_PENALTY,
    ),
    **{
        f"ewc-{estimator}": Method(
            partial(_ewc, estimator=estimator), "ewc", fisher=estimator, plain=True, **_PENALTY
        )
        for estimator in ("exact", "sampled", "empirical")
    },
    "replay": Method(
        lambda spec, strength: {"replay": Replay(spec.old, strength)},
        "shares",
        "share",
        limits=_shares,
        stride=OCTAVE,
        plain=True,
    ),
    # alpha grows with the rank, so that the rank alone changes and not the scale of the update
    "lora": Method(
        lambda spec, strength: {"finetuning": LoRA(int(strength), 2.0 * strength, spec.matrices)},
        "ranks",
        "rank",
        limits=lambda spec: (1, 256),
        stride=1 / OCTAVE,
    ),
    "ewc+replay": Method(
        partial(_ewc, estimator="exact", replay=True), "ewc", fisher="exact", **_PENALTY
    ),
}


@dataclass(frozen=True)
class BudgetSearch:
    """The outcome of a search for the weakest strength within a budget.

    Args:
        strength: the weakest value within the budget, or, where none is, the strongest that was
            tried.
        growth: of the old error there, relative.
        met: whether it is within the budget.
        weakest: whether every weaker value that may be tried is within it too.
    """

    strength: float
    growth: float
    met: bool
    weakest: bool = False


def search_budget(
    growth: Callable[[float], float],
    strengths: Sequence[float],
    budget: float,
    halvings: int,
    snap: Callable[[float], float],
    stride: float,
) -> BudgetSearch:
    """Search for the weakest strength within a budget: along the values given, beyond them, then by
    bisection.

    Growth is assumed to fall from weak to strong; where it does not, the weakest value within the
    budget counts.

    Args:
        growth: of the old error at a strength; measured at most once a value by the caller.
        strengths: from weak to strong.
        budget: largest growth allowed.
        halvings: how often the bracket is halved, on the log scale.
        snap: the nearest possible value.
        stride: factor to a stronger value, by which to go beyond either end; at most four times.

    >>> search_budget(lambda s: 1 / s, (1.0, 100.0), 0.1, 8, lambda s: round(s, 1), 10.0)
    BudgetSearch(strength=10.0, growth=0.1, met=True, weakest=False)
    """
    tried = list(strengths)
    first = next((i for i, strength in enumerate(tried) if growth(strength) <= budget), None)
    for _ in range(4):
        if first is None and (strength := snap(tried[-1] * stride)) != tried[-1]:
            tried.append(strength)
            first = len(tried) - 1 if growth(strength) <= budget else None
        elif first == 0 and (strength := snap(tried[0] / stride)) != tried[0]:
            tried.insert(0, strength)
            first = 0 if growth(strength) <= budget else 1
    if first is None:
        return BudgetSearch(tried[-1], growth(tried[-1]), False)
    if first == 0:
        return BudgetSearch(tried[0], growth(tried[0]), True, weakest=True)
    outside, within = tried[first - 1], tried[first]
    for _ in range(halvings):
        middle = snap(math.sqrt(outside * within))
        if middle in (outside, within):
            break
        if growth(middle) <= budget:
            within = middle
        else:
            outside = middle
    return BudgetSearch(within, growth(within), True)
