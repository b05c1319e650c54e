"""A published correlation: its formula, where it holds, how exact it says it is, and what its
Nusselt number means.

A call checks every point against the range of the law and warns once per law, with counts: a
simulation that steps outside a million times says so once (EnergyPlus issue 8508 counts 350,000
such warnings in one run).
"""

import functools
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.heat.correlations.groups import GROUPS, Points

Formula = Callable[[Points], Tensor]
Kind = Literal["plate", "duct", "ribbed tube", "ribbed channel"]

EDGE = 1e-6  # a point on the edge of a range is inside it, in float32 too
# all that a formula may read
ABSENT = {name: group.absent for name, group in GROUPS.items()} | {"mu_ratio": 1.0}
_outside: Counter[str] = Counter()


class ValidityWarning(UserWarning):
    """Points lie outside the range in which a correlation was measured; its values there are
    extrapolations.
    """


@dataclass(frozen=True, eq=False)  # a law is itself; formulas do not compare
class Correlation:
    """One published law of the Nusselt number, and of the friction factor where it has one.

    The formulas take complete points (every group that they read); the methods take what a user
    has: groups that may be absent are filled, numbers and arrays are made tensors, shapes are
    broadcast. All run on any device, in float32 or float64, and are differentiable.

    Args:
        name: as `get_correlation` finds it.
        summary: one line.
        kind: of surface.
        nusselt: the formula.
        box: the lowest and highest value of each group that it was measured over; a group that is
            missing does not matter, or its range is not known.
        basis: which wall, area, diameter, extent and properties the Nusselt number is of, as
            `Basis.parse` reads it (a plate's is on its length, and has no diameter).
        source: the paper.
        reliability: "read" in a source, or "recalled": check it before you print it.
        friction: the Fanning factor; of a ribbed channel as if all four walls were ribbed
            (`four_sided_fanning`).
        average: the Nusselt number averaged over four walls of which two are ribbed, where the law
            gives one.
        accuracy: relative, as the source states it; None where it states none.
        accuracy_says: in the words of the source.
        conditions: further ranges, of products of groups: what they say, and a formula that is true
            inside.
        ribs: the shape of the ribs; "" for a smooth wall. `alpha_deg` is the angle of each rib to
            the flow, below 90 in all.
    """

    name: str
    summary: str
    kind: Kind
    nusselt: Formula
    box: Mapping[str, tuple[float, float]]
    basis: str
    source: str
    reliability: Literal["read", "recalled"]
    friction: Formula | None = None
    average: Formula | None = None
    accuracy: float | None = None
    accuracy_says: str = "not stated"
    conditions: Mapping[str, Formula] = field(default_factory=dict)
    ribs: Literal["", "transverse", "parallel", "crossed", "V", "reversed V", "Lambda"] = ""

    def __call__(self, points: Points) -> Tensor:
        """Return the Nusselt number [N], warning once (ValidityWarning) when points lie outside;
        raises DataError.
        """
        whole = filled(points)
        self._check(whole)
        return self._evaluate(self.nusselt, whole)

    def unchecked(self, points: Points) -> Tensor:
        """Return the Nusselt number [N] without a look at the range; NaN where a group is not
        finite; raises DataError.
        """
        return self._evaluate(self.nusselt, filled(points))

    def fanning(self, points: Points) -> Tensor:
        """Return the Fanning friction factor [N], unchecked; raises ConfigError where the law
        has none, DataError.
        """
        if self.friction is None:
            raise ConfigError(
                f"{self.name} has no friction factor; choose another correlation (see table())"
            )
        return self._evaluate(self.friction, filled(points))

    def wall_average(self, points: Points) -> Tensor:
        """Return the Nusselt number averaged over four walls [N], unchecked; raises ConfigError
        where there is none, DataError.
        """
        if self.average is None:
            raise ConfigError(
                f"{self.name} has no average over four walls; choose another correlation, or state"
                " a ratio"
            )
        return self._evaluate(self.average, filled(points))

    def inside(self, points: Points) -> Tensor:
        """Return which points lie in the range of the law, bool [N]; a value that is not finite
        lies outside; raises DataError.
        """
        return torch.stack(list(self._ranges(filled(points)).values())).all(0)

    def _ranges(self, whole: Points) -> dict[str, Tensor]:
        """Return for each range of the law which points keep it."""
        with torch.no_grad():
            found = {}
            for name, (low, high) in self.box.items():
                kept = (whole[name] >= low * (1 - EDGE)) & (whole[name] <= high * (1 + EDGE))
                found[f"{name} {low:g} to {high:g}"] = kept
            return found | {says: holds(whole) for says, holds in self.conditions.items()}

    def _check(self, whole: Points) -> None:
        ranges = self._ranges(whole)
        inside = torch.stack(list(ranges.values())).all(0)
        outside = int((~inside).sum())
        if not outside:
            return
        first = self.name not in _outside
        _outside[self.name] += outside
        if first:
            parts = [
                f"{says}: {count}" for says, kept in ranges.items() if (count := int((~kept).sum()))
            ]
            text = (
                f"{self.name}: {outside} of {inside.numel()} points lie outside its range"
                f" ({', '.join(parts)}) and are extrapolated; further ones are counted silently"
                " (outside_counts)"
            )
            warnings.warn(ValidityWarning(text), stacklevel=3)

    def _evaluate(self, formula: Formula, whole: Points) -> Tensor:
        value = formula(whole)
        for name in {"Re", "Pr", *self.box}:  # an infinite Re is a mistake, not an infinite Nu
            value = value.masked_fill(~whole[name].isfinite(), float("nan"))
        return value


def filled(points: Points) -> dict[str, Tensor]:
    """Return points as tensors of one shape and type, the groups that may be absent filled; raises
    DataError for the others.

    Other columns are left out, but for `mu_ratio`, the viscosity of the bulk over that at the wall
    (1 if absent).

    >>> whole = filled({"Re": torch.tensor([1e4, 2e4]), "Pr": 0.5})
    >>> whole["Pr"].tolist(), whole["P_e"].tolist()
    ([0.5, 0.5], [10.0, 10.0])
    """
    for name, value in ABSENT.items():
        if value is None and name not in points:
            raise DataError(f"the points have no {name!r}; {did_you_mean(name, points)}; give it")
    tensors = [
        value for name, value in points.items() if name in ABSENT and isinstance(value, Tensor)
    ]
    dtypes = [value.dtype for value in tensors if value.is_floating_point()]
    dtype = functools.reduce(torch.promote_types, dtypes) if dtypes else torch.float64
    device = tensors[0].device if tensors else None
    whole: dict[str, Tensor] = {}
    for name, value in ABSENT.items():
        try:
            whole[name] = torch.as_tensor(points.get(name, value), dtype=dtype).to(
                device, non_blocking=True
            )
        except (TypeError, ValueError) as error:
            raise DataError(f"the group {name!r} is not numbers ({error}); correct it") from None
    try:
        return dict(zip(whole, torch.broadcast_tensors(*whole.values()), strict=True))
    except RuntimeError:
        shapes = ", ".join(
            f"{name} {tuple(value.shape)}" for name, value in whole.items() if value.ndim
        )
        raise DataError(
            f"the groups have shapes that do not fit ({shapes}); give one length"
        ) from None


def outside_counts() -> dict[str, int]:
    """Return how many points each law has met outside its range since the last reset.

    >>> reset_outside_counts()
    >>> outside_counts()
    {}
    """
    return dict(_outside)


def reset_outside_counts() -> None:
    """Forget the counts, so that every law warns once more."""
    _outside.clear()
