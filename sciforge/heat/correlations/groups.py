"""The dimensionless groups of a channel, declared once: names, bounds that physics sets, and a
point to count from.

The names are the columns of CSV files and of every table in this domain. A batch of points is a
mapping from these names to tensors of one shape, in float64 where a law is fitted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sciforge.errors import DataError

Points = Mapping[str, Tensor]


@dataclass(frozen=True)
class Group:
    """A dimensionless group.

    Args:
        name: the column's name.
        symbol: in LaTeX.
        meaning: in words, with its definition.
        reference: where logarithms are counted from: a ribbed blade channel in the middle of what
            has been measured.
        low: physics allows no less; `open_low` says whether the bound itself is excluded.
        high: physics allows no more.
        absent: the value that stands for a smooth wall or a column that is not given; None where it
            must be given.
    """

    name: str
    symbol: str
    meaning: str
    reference: float
    low: float
    high: float
    open_low: bool = True
    absent: float | None = None


GROUPS = {
    group.name: group
    for group in (
        Group(
            "Re",
            r"\mathrm{Re}",
            "Reynolds number, mean velocity x hydraulic diameter / kinematic viscosity",
            3e4,
            0,
            1e12,
        ),
        Group(
            "Pr",
            r"\mathrm{Pr}",
            "Prandtl number, kinematic viscosity / thermal diffusivity",
            0.7,
            0,
            1e6,
        ),
        Group(
            "e_D",
            "e/D",
            "rib height / hydraulic diameter of the smooth channel",
            0.0625,
            0,
            0.5,
            False,
            0.0,
        ),
        Group("P_e", "P/e", "rib pitch / rib height", 10.0, 1, 1e3, True, 10.0),
        Group(
            "alpha_deg",
            r"\alpha",
            "angle of the ribs to the flow, degrees; 90 is transverse",
            90.0,
            0,
            90.0,
            True,
            90.0,
        ),
        Group("W_H", "W/H", "width of the ribbed walls / their distance", 1.0, 0, 1e3, True, 1.0),
    )
}
# fixed by machining; Re and Pr are set by the operator
GEOMETRY = ("e_D", "P_e", "alpha_deg", "W_H")


def check_points(
    x_NG: np.ndarray, names: Sequence[str], nusselt_N: np.ndarray | None = None
) -> None:
    """Raise DataError, with the row, for a group or Nusselt number that physics does not allow."""
    for name, column_N in zip(names, np.asarray(x_NG).T, strict=True):
        group = GROUPS.get(name)
        if group is None:
            continue
        below_N = column_N <= group.low if group.open_low else column_N < group.low
        for wrong_N, limit in (
            (below_N, f"above {group.low:g}"),
            (column_N > group.high, f"at most {group.high:g}"),
        ):
            if wrong_N.any():
                row = int(np.flatnonzero(wrong_N)[0])
                raise DataError(
                    f"row {row}: {name} is {column_N[row]:g}; it must be {limit}: correct or drop"
                    " the row"
                )
    if nusselt_N is not None and (nusselt_N <= 0).any():
        row = int(np.flatnonzero(nusselt_N <= 0)[0])
        raise DataError(
            f"row {row}: the Nusselt number is {nusselt_N[row]:g}; it must be above 0: correct or"
            " drop the row"
        )
