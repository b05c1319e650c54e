"""The dimensionless groups of a channel, declared once: names, bounds that physics sets, and a point to count from.

The names are the columns of CSV files and of every table in this domain. A batch of points is a mapping from these names
to tensors of one shape, in float64 where a law is fitted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

Points = Mapping[str, Tensor]


@dataclass(frozen=True)
class Group:
    """A dimensionless group.

    Args:
        name: the column's name.
        symbol: in LaTeX.
        meaning: in words, with its definition.
        reference: where logarithms are counted from: a ribbed blade channel in the middle of what has been measured.
        low: physics allows no less; `open_low` says whether the bound itself is excluded.
        high: physics allows no more.
        absent: the value that stands for a smooth wall or a column that is not given; None where it must be given.
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
        Group("Re", r"\mathrm{Re}", "Reynolds number, mean velocity x hydraulic diameter / kinematic viscosity", 3e4, 0, 1e12),
        Group("Pr", r"\mathrm{Pr}", "Prandtl number, kinematic viscosity / thermal diffusivity", 0.7, 0, 1e6),
        Group("e_D", "e/D", "rib height / hydraulic diameter of the smooth channel", 0.0625, 0, 0.5, False, 0.0),
        Group("P_e", "P/e", "rib pitch / rib height", 10.0, 1, 1e3, True, 10.0),
        Group("alpha_deg", r"\alpha", "angle of the ribs to the flow, degrees; 90 is transverse", 90.0, 0, 90.0, True, 90.0),
        Group("W_H", "W/H", "width of the ribbed walls / their distance", 1.0, 0, 1e3, True, 1.0),
    )
}  # fmt: skip
