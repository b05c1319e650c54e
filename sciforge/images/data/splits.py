"""Which split each picture is in: named or drawn class by class; the same picture is never in two.

Legend of shape letters: N records, G groups of the same picture.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from sciforge.core.data import sampling
from sciforge.core.data.store import Store

LEFT_OUT = 3  # a copy of a picture of another split; in none
UNDRAWN = 255  # a split still to be drawn; not in a finished store


def digests(store: Store) -> list[bytes]:
    """Return a digest of the pixels of every picture."""
    return [
        hashlib.blake2b(store[i]["image"].tobytes(), digest_size=16).digest()
        for i in range(len(store))
    ]


def drawn_splits(
    named_N: np.ndarray,
    keys: Iterable[Any],
    labels: np.ndarray,
    test_share: float,
    validation_share: float,
    seed: int,
) -> np.ndarray:
    """Return the split of every record: named ones as they are, the others drawn; equal keys stay
    together.

    Args:
        named_N: places in SPLITS, UNDRAWN where none is named.
        keys: what must not be in two splits.
        labels: classes, of each of which the shares are drawn.
        test_share: of the keys without a named split that go to test; 0 where that split is named
            for others.
        validation_share: the same for validation.
        seed: of the draw.

    >>> drawn_splits(np.array([255, 255, 2, 0]), "abca", np.array(["x"] * 4), 0.0, 0.0, 0).tolist()
    [0, 0, 2, 0]
    >>> drawn_splits(np.array([0, 2]), "aa", np.array(["x"] * 2), 0.0, 0.0, 0).tolist()
    [3, 2]
    """
    first: dict[Any, int] = {}
    group_N = np.array([first.setdefault(key, len(first)) for key in keys])
    strictest = np.full(len(first), -1)
    known = named_N != UNDRAWN
    np.maximum.at(strictest, group_N[known], named_N[known].astype(int))
    lead = np.full(len(first), -1)
    lead[group_N[::-1]] = np.arange(len(group_N))[::-1]  # the first record of each group
    shares = [
        share * (split not in named_N) for split, share in ((2, test_share), (1, validation_share))
    ]
    rng = sampling.generator(seed, sampling.SUBSET)
    split_G = np.where(strictest < 0, 0, strictest)
    for label in np.unique(labels):
        free = np.flatnonzero((strictest < 0) & (labels[lead] == label))
        tests, devs = (round(share * len(free)) for share in shares)
        free = rng.permutation(free)
        split_G[free[:tests]], split_G[free[tests : tests + devs]] = 2, 1
    split_N = split_G[group_N].astype(np.uint8)
    # A copy named for a less held-out split, or for none, must not be learnt from where another
    # copy is held out.
    own = np.where(known, named_N, np.where(strictest[group_N] >= 0, 0, split_N))
    return np.where((strictest[group_N] >= 0) & (own != split_N), LEFT_OUT, split_N).astype(
        np.uint8
    )
