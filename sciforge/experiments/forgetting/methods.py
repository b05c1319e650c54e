"""The ways to fine-tune without forgetting that are compared, and the search for the least strength that is enough.

Each method has one knob: the strength of a pull, the share of old examples, the rank of an update. A method is
`stronger`, and forgets less, the larger its strength or share, and the smaller its rank.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sciforge.core.training.run import EWC, L2SP, Freeze, LoRA, Replay

START = "start"  # the base with its new heads as the objective starts them, before any step
DECADE, OCTAVE = 10.0, 2.0


@dataclass(frozen=True)
class Method:
    """A way to fine-tune.

    Args:
        settings: function(spec, knob) -> the fields of the Run that make it.
        ladder: the field of the spec that holds the knob's values; empty for a method without a knob.
        knob: what the knob is called.
        fisher: which Fisher information it needs.
        limits: of the knob, function(spec) -> (least, largest).
        stride: factor to a stronger value, by which the search goes beyond the ladder; below 1 for ranks.
        plain: whether it becomes plain fine-tuning as it gets weaker.
    """

    settings: Callable[[Any, float], Mapping[str, Any]]
    ladder: str = ""
    knob: str = ""
    fisher: str = ""
    limits: Callable[[Any], tuple[float, float]] = lambda spec: (0.0, math.inf)
    stride: float = DECADE
    plain: bool = False

    def snap(self, spec: Any, knob: float) -> float:
        """Return the nearest value the knob can take: whole ranks, whole numbers of replayed examples."""
        low, high = self.limits(spec)
        knob = min(max(knob, low), high)
        if self.knob == "rank":
            return float(round(knob))
        if self.knob == "share":
            return round(knob * spec.schedule.batch) / spec.schedule.batch
        return float(f"{knob:.3g}")

    def values(self, spec: Any) -> tuple[float, ...]:
        """Return the knob's ladder, from weak to strong; one 0 where there is no knob."""
        if not self.ladder:
            return (0.0,)
        return tuple(sorted({self.snap(spec, v) for v in getattr(spec, self.ladder)}, reverse=self.stride < 1))


def _ewc(spec: Any, knob: float, estimator: str, replay: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"regularization": EWC(knob, estimator, step=spec.step)}
    return found | ({"replay": Replay(spec.old, spec.replay_share)} if replay else {})


def _shares(spec: Any) -> tuple[float, float]:
    return 1 / spec.schedule.batch, 1 - 1 / spec.schedule.batch


_PULL = {"knob": "strength", "limits": lambda spec: (1e-9, 1e12)}

METHODS: dict[str, Method] = {
    "plain": Method(lambda spec, knob: {}),
    "frozen": Method(lambda spec, knob: {"finetuning": Freeze(spec.heads)}),
    "l2sp": Method(lambda spec, knob: {"regularization": L2SP(knob, spec.step)}, "l2sp", plain=True, **_PULL),
    **{
        f"ewc-{estimator}": Method(partial(_ewc, estimator=estimator), "ewc", fisher=estimator, plain=True, **_PULL)
        for estimator in ("exact", "sampled", "empirical")
    },
    "replay": Method(
        lambda spec, knob: {"replay": Replay(spec.old, knob)},
        "shares",
        "share",
        limits=_shares,
        stride=OCTAVE,
        plain=True,
    ),
    # alpha grows with the rank, so that the rank alone changes and not the scale of the update
    "lora": Method(
        lambda spec, knob: {"finetuning": LoRA(int(knob), 2.0 * knob, spec.matrices)},
        "ranks",
        "rank",
        limits=lambda spec: (1, 256),
        stride=1 / OCTAVE,
    ),
    "ewc+replay": Method(partial(_ewc, estimator="exact", replay=True), "ewc", fisher="exact", **_PULL),
}


@dataclass(frozen=True)
class Enough:
    """What the search found.

    Args:
        knob: the weakest value that keeps to the budget, or, where none does, the strongest that was tried.
        growth: of the old error there, relative.
        met: whether it keeps to the budget.
        weakest: whether every weaker value that may be tried keeps to it too.
    """

    knob: float
    growth: float
    met: bool
    weakest: bool = False


def least_enough(
    growth: Callable[[float], float],
    ladder: Sequence[float],
    budget: float,
    halvings: int,
    snap: Callable[[float], float],
    stride: float,
) -> Enough:
    """Search for the weakest knob whose growth is within the budget: along the ladder, beyond it, then by bisection.

    Growth is taken to fall from weak to strong; where it does not, the weakest rung that keeps to the budget counts.

    Args:
        growth: of the old error at a value of the knob; measured at most once a value by the caller.
        ladder: from weak to strong.
        budget: largest growth allowed.
        halvings: how often the bracket is halved, on the log scale.
        snap: the nearest value the knob can take, within its limits.
        stride: factor to a stronger value, by which to go beyond either end of the ladder; at most four times.

    >>> least_enough(lambda s: 1 / s, (1.0, 100.0), 0.1, 8, lambda s: round(s, 1), 10.0)
    Enough(knob=10.0, growth=0.1, met=True, weakest=False)
    """
    rungs = list(ladder)
    good = next((i for i, knob in enumerate(rungs) if growth(knob) <= budget), None)
    for _ in range(4):
        if good is None and (knob := snap(rungs[-1] * stride)) != rungs[-1]:
            rungs.append(knob)
            good = len(rungs) - 1 if growth(knob) <= budget else None
        elif good == 0 and (knob := snap(rungs[0] / stride)) != rungs[0]:
            rungs.insert(0, knob)
            good = 0 if growth(knob) <= budget else 1
    if good is None:
        return Enough(rungs[-1], growth(rungs[-1]), False)
    if good == 0:
        return Enough(rungs[0], growth(rungs[0]), True, weakest=True)
    bad, enough = rungs[good - 1], rungs[good]
    for _ in range(halvings):
        middle = snap(math.sqrt(bad * enough))
        if middle in (bad, enough):
            break
        if growth(middle) <= budget:
            enough = middle
        else:
            bad = middle
    return Enough(enough, growth(enough), True)
