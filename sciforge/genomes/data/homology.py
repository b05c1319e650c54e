"""Shared sequence between sets of windows: duplicates, overlaps in place, and 16-mers in common,
on either strand.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sciforge.genomes.data.sequences import reverse_complement

# 4^16 is 200 times a bacterial corpus: chance hits are rare, diverged copies still share words
WORD = 16


def _numbers(bases: np.ndarray) -> np.ndarray:
    run = (bases & 3).astype(np.uint32)
    for width in (1, 2, 4, 8):
        run = run[:-width] << np.uint32(2 * width) | run[width:]
    return run


def _known(bases: np.ndarray) -> np.ndarray:
    unknown = np.concatenate([[0], np.cumsum((bases & 7) > 3)])
    return unknown[WORD:] == unknown[:-WORD]


def canonical_words(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Return the distinct 16-mers of sequences, each as the smaller of itself and its reverse
    complement, sorted.

    >>> a = np.array([0, 1, 2, 3] * 5, np.uint8)
    >>> np.array_equal(canonical_words([a]), canonical_words([reverse_complement(a)]))
    True
    """
    words = [_canonical(bases) for bases in sequences if len(bases) >= WORD]
    return np.unique(np.concatenate(words)) if words else np.empty(0, np.uint32)


def _canonical(bases: np.ndarray) -> np.ndarray:
    # word i of one strand is word n - 1 - i of the other
    backward = _numbers(reverse_complement(bases))[::-1]
    return np.minimum(_numbers(bases), backward)[_known(bases)]


def share_within(sequences: Sequence[np.ndarray], known: np.ndarray) -> np.ndarray:
    """Return for each sequence the share of its 16-mers that are among `known` (sorted) [n]; 0
    for short ones.
    """
    shares = np.zeros(len(sequences))
    for i, bases in enumerate(sequences):
        if len(bases) >= WORD and len(known):
            own = _canonical(bases)
            if len(own):
                at = np.searchsorted(known, own).clip(max=len(known) - 1)
                shares[i] = (known[at] == own).mean()
    return shares


def duplicates(sequences: Sequence[np.ndarray], train: np.ndarray, test: np.ndarray) -> int:
    """Return how many test sequences stand in the training set, on either strand."""

    def key(bases: np.ndarray) -> bytes:
        plain = bases & 7
        return min(plain.tobytes(), (reverse_complement(plain) & 7).tobytes())

    known = {key(sequences[i]) for i in train}
    return sum(key(sequences[i]) in known for i in test)


def overlaps(
    store: Any, sequences: Sequence[np.ndarray], train: np.ndarray, test: np.ndarray
) -> int:
    """Return how many test windows overlap a training window in place, whatever the strands."""
    contig = np.asarray(store.column("contig"), object)
    start = np.asarray(store.column("start"))
    stop = start + np.array([len(bases) for bases in sequences])
    count = 0
    for name in set(contig[test]):
        others = train[contig[train] == name]
        if not len(others):
            continue
        order = np.argsort(start[others], kind="stable")
        starts, reach = start[others][order], np.maximum.accumulate(stop[others][order])
        for i in test[contig[test] == name]:
            before = np.searchsorted(starts, stop[i], side="left")
            count += bool(before and reach[before - 1] > start[i])
    return count
