"""Measured points are near duplicates where all dimensionless groups agree within about 1 %."""

import numpy as np

from sciforge.core.data.near_duplicates import hashed
from sciforge.core.domain import Fingerprint, Record
from sciforge.heat.correlations.groups import GROUPS

WIDTH = 0.02  # of a cell, in the logarithm of each group
SHIFTS = 4  # grids of cells, so that neighbours on both sides of a border share a cell of another


def features(record: Record) -> np.ndarray:
    """Return the cell of the point on each of four shifted grids, uint64; of one rig or of two.

    >>> point = {name: 10.0 for name in GROUPS}
    >>> near, far = {**point, "Re": 10.03}, {**point, "Re": 10.5}
    >>> len(set(features(point)) & set(features(near))) >= 2
    True
    >>> set(features(point)) & set(features(far))
    set()
    """
    values = np.array([float(record[name]) for name in GROUPS])
    values = np.where(np.isfinite(values), values, 0.0)
    scaled = np.sign(values) * np.log1p(np.abs(values) * 1e3) / WIDTH
    grids = (np.floor(scaled + shift / SHIFTS).astype(np.int64) for shift in range(SHIFTS))
    return hashed([f"{number} ".encode() + cells.tobytes() for number, cells in enumerate(grids)])


FINGERPRINT = Fingerprint(
    columns=(*GROUPS, "rig"),
    features=features,
    similarity=0.3,
    summary="all groups within about 1 %",
    kinds=("measurements",),
)
