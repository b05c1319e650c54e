"""Structures are near duplicates where they have the same elements and most interatomic distances
agree within 0.1 angstrom.
"""

import numpy as np

from sciforge.core.domain import Fingerprint, Record

WIDTH_A = 0.1


def features(record: Record) -> np.ndarray:
    """Return the elements and the distances within the cutoff by pair of elements, rounded to 0.1
    angstrom and counted, uint64; rotation, translation and the order of atoms do not matter.
    """
    numbers_N = np.asarray(record["numbers"], np.int64)
    position_N3 = np.asarray(record["pos_A"])
    receiver_E, sender_E = (np.asarray(record[name]) for name in ("receiver", "sender"))
    shift_E3 = np.asarray(record["shift"], float) @ np.asarray(record["cell_A"])
    apart_E = np.linalg.norm(position_N3[sender_E] + shift_E3 - position_N3[receiver_E], axis=1)
    low, high = (f(numbers_N[receiver_E], numbers_N[sender_E]) for f in (np.minimum, np.maximum))
    pair_E = (low << 40) + (high << 32) + (np.rint(apart_E / WIDTH_A).astype(np.int64) << 16)
    codes = np.concatenate([numbers_N << 48, pair_E])
    values, counts = np.unique(codes, return_counts=True)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return (np.repeat(values, counts) + place).astype(np.uint64)


FINGERPRINT = Fingerprint(
    columns=("numbers", "pos_A", "cell_A"),
    features=features,
    similarity=0.8,
    summary="elements, and distances to 0.1 angstrom",
    kinds=("structures",),
)
