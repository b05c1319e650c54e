"""Windows and labelled sequences are near duplicates where they share most 8-mers, of either
strand.
"""

import numpy as np

from sciforge.core.domain import Fingerprint, Record
from sciforge.genomes.data.sequences import N_CODE, reverse_complement

# 8-mers: one changed base of 60 costs 8 of them, and unrelated windows of 200 bases share 1 in 100
WORD = 8


def features(record: Record) -> np.ndarray:
    """Return the canonical 8-mers of the bases, uint64, without those with an unknown base.

    >>> bases = np.array([0, 1, 2, 3, 0, 0, 1, 1, 3, 2, 1], np.uint8)
    >>> other = reverse_complement(bases)
    >>> set(features({"bases": bases})) == set(features({"bases": other}))
    True
    """
    bases = np.asarray(record["bases"]) & 7
    if len(bases) < WORD:
        return np.empty(0, np.uint64)
    unknown = np.concatenate([[0], np.cumsum(bases == N_CODE)])
    known = unknown[WORD:] == unknown[:-WORD]
    forward = _words(bases)
    backward = _words(reverse_complement(bases) & 7)[::-1]
    return np.unique(np.minimum(forward, backward)[known])


def _words(bases: np.ndarray) -> np.ndarray:
    words = np.zeros(len(bases) - WORD + 1, np.uint64)
    for place in range(WORD):
        words = words * np.uint64(4) + (bases[place : len(words) + place] & 3).astype(np.uint64)
    return words


FINGERPRINT = Fingerprint(
    columns=("bases",),
    features=features,
    similarity=0.6,
    summary="8-mers of either strand",
    kinds=("windows",),
)
