"""Where the measured points end: which groups of a new point lie outside of what was measured.

Legend of shape letters: N measured points, M points asked for, G groups.
"""

from dataclasses import dataclass

import numpy as np
import torch

from sciforge.core.files.tables import Table
from sciforge.heat.data.codec import HeatCodec

EDGE = 1e-9


@dataclass(frozen=True, eq=False)
class Certificate:
    """Whether points lie where something was measured.

    Args:
        columns: names of the groups.
        outside_MG: which groups of each point lie outside the range of the measured ones.
        low_G, high_G: that range.
        inside_M: whether the point lies in the convex hull of the measured points, in the
            logarithms of the groups that vary.
        away_M: distance to the nearest measured point, in the lengths over which the residual
            varies.
    """

    columns: tuple[str, ...]
    outside_MG: np.ndarray
    low_G: np.ndarray
    high_G: np.ndarray
    inside_M: np.ndarray
    away_M: np.ndarray

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """Return of each point the names of the groups outside."""
        return [tuple(np.array(self.columns)[row]) for row in self.outside_MG]

    def table(self) -> Table:
        """Return the certificate as a table, one row a point."""
        rows = []
        for groups, inside, away in zip(self.groups, self.inside_M, self.away_M, strict=True):
            rows.append(
                ("inside" if inside else "outside", ", ".join(groups) or "-", f"{away:.2f}")
            )
        spans = ", ".join(
            f"{n} {lo:.4g} to {hi:.4g}"
            for n, lo, hi in zip(self.columns, self.low_G, self.high_G, strict=True)
        )
        return Table(("hull", "groups out of range", "distance"), tuple(rows), f"measured: {spans}")


def certify(
    codec: HeatCodec, length_D: np.ndarray, known_NG: np.ndarray, asked_MG: np.ndarray
) -> Certificate:
    """Compare points asked for with the measured ones.

    Args:
        codec: gives coordinates.
        length_D: the residual's lengths.
        known_NG: groups of the measured points.
        asked_MG: groups of the points asked for.
    """
    low_G, high_G = known_NG.min(0), known_NG.max(0)
    slack_G = EDGE * np.maximum(np.abs(low_G), np.abs(high_G))
    outside_MG = (asked_MG < low_G - slack_G) | (asked_MG > high_G + slack_G)
    known_ND, asked_MD = (
        codec.coordinates(torch.from_numpy(x)).numpy() for x in (known_NG, asked_MG)
    )
    away_MN = np.linalg.norm((asked_MD[:, None] - known_ND) / length_D, axis=2)
    inside_M = ~outside_MG.any(1)
    varying = np.ptp(known_ND, axis=0) > EDGE
    if varying.sum():
        inside_M[inside_M] = _in_hull(known_ND[:, varying], asked_MD[inside_M][:, varying])
    return Certificate(codec.columns, outside_MG, low_G, high_G, inside_M, away_MN.min(1))


def _in_hull(known_ND: np.ndarray, asked_MD: np.ndarray) -> np.ndarray:
    """Return which points are a mean of known ones, with weights >= 0, by linear programming (no
    triangulation in 6-D).
    """
    from scipy.optimize import linprog

    equal = np.vstack([known_ND.T, np.ones(len(known_ND))])
    found = []
    for point_D in asked_MD:
        solved = linprog(
            np.zeros(len(known_ND)),
            A_eq=equal,
            b_eq=np.append(point_D, 1.0),
            bounds=(0, None),
            method="highs",
        )
        found.append(solved.status == 0)
    return np.array(found, bool)
