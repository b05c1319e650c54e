"""Which molecule goes to training, development or test: by Bemis-Murcko scaffold, at random, or as
a column says.

All rules see the used molecules of all files together and depend on nothing but their order, the
shares and the seed.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from sciforge.core.data.sampling import SUBSET, generator
from sciforge.core.data.store import SPLIT_NAMES, SPLITS
from sciforge.errors import ConfigError, DataError, did_you_mean

Rule = Literal["scaffold", "scaffold-sorted", "random", "column", "none"]


def split_by_scaffold(
    group_N: np.ndarray, shares: Sequence[float], seed: int, balanced: bool
) -> np.ndarray:
    """Return the split of each molecule, uint8 [N] (0 train, 1 validation, 2 test); a scaffold is
    never divided.

    Scaffolds are taken one after the other; each goes to training if it still fits there, else to
    development if it fits, else to test. Balanced (chemprop's rule): scaffolds larger than half of
    the development or test share come first, then the others, both in an order drawn from the seed.
    Otherwise the largest comes first, and of equals the one met first in the files; the seed then
    changes nothing. All molecules without rings are one scaffold.

    Args:
        group_N: integer number of each molecule's scaffold.
        shares: of train, validation and test, which add up to 1.
        seed: of the balanced order.
        balanced: which of the two rules.

    >>> group_N, shares = np.array([0, 0, 0, 0, 1, 2]), (0.7, 0.15, 0.15)
    >>> split_by_scaffold(group_N, shares, 0, balanced=False).tolist()
    [0, 0, 0, 0, 2, 2]
    """
    number, first, size = np.unique(group_N, return_index=True, return_counts=True)
    total = len(group_N)
    if balanced:
        rng = generator(seed, SUBSET)
        in_order = np.argsort(first)
        big = (size[in_order] > total * shares[1] / 2) | (size[in_order] > total * shares[2] / 2)
        order = np.concatenate([rng.permutation(in_order[big]), rng.permutation(in_order[~big])])
    else:
        order = np.lexsort((first, -size))
    room = [total * shares[0], total * shares[1]]
    of_group = np.full(len(number), SPLITS.index("test"), np.uint8)
    for place in order.tolist():
        for split in (0, 1):
            if size[place] <= room[split] + 1e-9:
                room[split] -= size[place]
                of_group[place] = split
                break
    return of_group[np.searchsorted(number, group_N)]


def split_at_random(num: int, shares: Sequence[float], seed: int) -> np.ndarray:
    """Return a random split, uint8 [N].

    >>> np.bincount(split_at_random(10, (0.8, 0.1, 0.1), seed=0)).tolist()
    [8, 1, 1]
    """
    order = generator(seed, SUBSET).permutation(num)
    ends = np.round(np.cumsum(shares)[:2] * num).astype(int)
    split = np.full(num, SPLITS.index("test"), np.uint8)
    split[order[: ends[0]]], split[order[ends[0] : ends[1]]] = 0, 1
    return split


def split_of_name(text: str) -> int:
    """Return the number of a split by its name; raises DataError for an unknown one.

    >>> split_of_name("Valid")
    1
    """
    if text.strip().lower() not in SPLIT_NAMES:
        raise DataError(
            f"split {text!r} is not known; {did_you_mean(text.strip().lower(), SPLIT_NAMES)}"
        )
    return SPLIT_NAMES[text.strip().lower()]


def check_shares(shares: Sequence[float]) -> None:
    """Raise ConfigError unless three shares, none negative and the first positive, add up to 1."""
    if len(shares) != 3 or min(shares) < 0 or shares[0] == 0 or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(
            f"shares are {tuple(shares)}; give three for train, validation and test that add up"
            " to 1"
        )
