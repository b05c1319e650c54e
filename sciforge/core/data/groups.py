"""Groups of records that belong together (a patient, a donor, a laboratory): whole in one split, or
counted.

A store keeps the group of each record in the text column `group`, where it was asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sciforge.core.data.sampling import SUBSET, generator
from sciforge.core.data.store import SPLITS, Store
from sciforge.errors import DataError

COLUMN = "group"
UNDRAWN = -1  # the split of a record that is still to be drawn


@dataclass(frozen=True)
class TornGroups:
    """Groups with records in several splits.

    Args:
        count: how many there are.
        records: how many records they hold.
        first: the name of the first, in alphabetical order.
        splits: the splits of the first.
    """

    count: int
    records: int
    first: str
    splits: tuple[str, ...]

    def text(self) -> str:
        """Return one sentence."""
        spans = "spans" if self.count == 1 else "span"
        return (
            f"{number_of(self.count, 'group')} {spans} several splits"
            f" ({number_of(self.records, 'record')}), the first: {self.first!r} in"
            f" {' and '.join(self.splits)}"
        )


def number_of(count: int, what: str) -> str:
    """Return a count with its noun.

    >>> number_of(1, "record"), number_of(2, "record")
    ('1 record', '2 records')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def split_by_group(
    group_N: Sequence[Any] | np.ndarray,
    shares: Sequence[float],
    seed: int,
    given_N: np.ndarray | None = None,
) -> np.ndarray:
    """Return the split of each record, uint8 [N]; a group is never divided.

    Groups come in an order drawn from the seed and fill the splits by their numbers of records, so
    that no split misses its share by more than half a group. A split with a share takes the
    smallest group of the fullest split where it would be empty. The result does not depend on the
    order of the records.

    Args:
        group_N: the group of each record, text or numbers.
        shares: of train, validation and test, which add up to 1.
        seed: of the order of groups.
        given_N: splits that are fixed already, UNDRAWN elsewhere; the rest of such a group goes to
            the most held-out of them. None where all are drawn.

    >>> split_by_group(["d", "c", "a", "a"], (0.5, 0.25, 0.25), seed=0).tolist()
    [2, 1, 0, 0]
    """
    group_N = np.asarray(group_N)
    if not len(group_N):
        return np.empty(0, np.uint8)
    _, number_N = np.unique(group_N, return_inverse=True)
    given_N = np.full(len(group_N), UNDRAWN) if given_N is None else np.asarray(given_N, int)
    strictest_G = np.full(number_N.max() + 1, UNDRAWN)
    np.maximum.at(strictest_G, number_N, given_N)
    open_G = np.flatnonzero(strictest_G == UNDRAWN)
    size_G = np.bincount(number_N)[open_G]
    strictest_G[open_G] = _drawn(size_G, shares, seed)
    return np.where(given_N == UNDRAWN, strictest_G[number_N], given_N).astype(np.uint8)


def _drawn(size_G: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """Return the split of each group, int [G]."""
    order = generator(seed, SUBSET).permutation(len(size_G))
    middle_G = np.empty(len(size_G))
    middle_G[order] = np.cumsum(size_G[order]) - size_G[order] / 2
    borders = np.cumsum(shares)[:2] * size_G.sum()
    split_G = np.searchsorted(borders, middle_G, side="right")
    wanted = [split for split in (0, 2, 1) if shares[split] > 0]
    if len(size_G) < len(wanted):
        return split_G
    for split in wanted:
        if not (split_G == split).any():
            counts = np.bincount(split_G, minlength=3)
            filled = np.bincount(split_G, size_G, minlength=3)
            fullest = int(np.where(counts > 1, filled, -1).argmax())
            members = order[split_G[order] == fullest]
            split_G[members[size_G[members].argmin()]] = split
    return split_G


def torn_groups(group_N: Sequence[str], split_N: np.ndarray) -> TornGroups | None:
    """Return which groups have records in several splits; None where there are none.

    Args:
        group_N: the group of each record.
        split_N: places in SPLITS; records with another number are in no split.

    >>> torn_groups(["a", "a", "b"], np.array([0, 2, 0])).text()
    "1 group spans several splits (2 records), the first: 'a' in train and test"
    """
    used = np.isin(split_N, range(len(SPLITS)))
    names, number_N = np.unique(np.asarray(group_N)[used], return_inverse=True)
    held_GS = np.zeros((len(names), len(SPLITS)), bool)
    held_GS[number_N, np.asarray(split_N)[used].astype(int)] = True
    torn = np.flatnonzero(held_GS.sum(1) > 1)
    if not len(torn):
        return None
    splits = tuple(SPLITS[split] for split in np.flatnonzero(held_GS[torn[0]]))
    records = int(np.isin(number_N, torn).sum())
    return TornGroups(len(torn), records, str(names[torn[0]]), splits)


def groups_of(store: Store) -> list[str] | None:
    """Return the group of every record of a store; None where it keeps none by name."""
    kinds = {
        shard["columns"].get(COLUMN, {}).get("kind")
        for shard in store.index["shards"]
        if shard["num_records"]
    }
    return list(store.column(COLUMN)) if kinds == {"text"} else None


def splits_of(store: Store) -> np.ndarray:
    """Return the number of every record's split, int64 [N]; 0 (train) without a column `split`."""
    shards = [shard for shard in store.index["shards"] if shard["num_records"]]
    if not any("split" in shard["columns"] for shard in shards):
        return np.zeros(len(store), np.int64)
    return np.asarray(store.column("split")).astype(np.int64)


def group_name(value: Any) -> str:
    """Return the name of a group; raises DataError where it is missing.

    >>> group_name(" donor 1 "), group_name(3), group_name(3.0)
    ('donor 1', '3', '3')
    """
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)  # a column of whole numbers with a gap is one of floats
    text = "" if value is None or value != value else str(value).strip()
    if not text:
        raise DataError("the group is empty; give every record one")
    return text


def group_names(group: Sequence[Any] | None, count: int) -> tuple[str, ...] | None:
    """Return the name of each input's group; None where no groups are given.

    Raises:
        DataError: there are too many or too few, or one is missing; names the input by its place.
    """
    if group is None:
        return None
    names = []
    for place, value in enumerate(group):
        try:
            names.append(group_name(value))
        except DataError as error:
            raise DataError(f"input {place}: {error}") from None
    if len(names) != count:
        raise DataError(f"there are {count} inputs and {len(names)} groups; give one for each")
    return tuple(names)
