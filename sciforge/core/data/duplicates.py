"""Duplicates in a store: records that are the same, with which labels and in which splits, and
records that are nearly the same.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sciforge.core.data.groups import number_of, splits_of
from sciforge.core.data.near_duplicates import NearPairs, near_pairs
from sciforge.core.data.store import SPLITS, Store
from sciforge.core.domain import Fingerprint, get_domain

# what a summary looks at without being asked; an audit looks at everything
MOST_RECORDS = 200_000
MOST_BYTES = 1 << 29
MOST_COMPARED = 2000


@dataclass(frozen=True)
class Duplicates:
    """Records that are the same.

    Args:
        within: records that repeat an earlier one of their split.
        across: validation and test records that stand in a split nearer to training too.
        conflicting: records of which a copy has another label.
        first: names of the first record of `across`, else of `within`, and of its copy.
    """

    within: int
    across: int
    conflicting: int
    first: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """Return what a summary says of them; nothing where there are none."""
        lines = []
        example = f", the first: {' and '.join(self.first)}" if self.first else ""
        if self.across:
            held_out = number_of(self.across, "held-out record")
            lines.append(f"{held_out} also in training or validation{example}")
        if self.within:
            example = "" if self.across else example
            lines.append(f"{number_of(self.within, 'exact duplicate')} within a split{example}")
        if self.conflicting:
            repeated = number_of(self.conflicting, "record")
            lines.append(f"{repeated} with an exact duplicate of another label")
        return lines


@dataclass(frozen=True)
class NearDuplicates:
    """Held-out records that nearly stand in training.

    Args:
        count: records of the test split (of validation where there is no test) with a near
            duplicate in training.
        records: of that split.
        split: which of the two.
        similarity: from which two records are near duplicates.
    """

    count: int
    records: int
    split: str
    similarity: float

    def sentences(self) -> list[str]:
        """Return what a summary says of them; nothing where there are none."""
        if not self.count:
            return []
        share = self.count / self.records
        return [
            f"{self.count} of {self.records} {self.split} records ({share:.0%}) with a near"
            f" duplicate in training (similarity {self.similarity:g} or more); see sciforge audit"
            " near-duplicates"
        ]


def fingerprint_of(store: Store) -> Fingerprint | None:
    """Return by what the records of a store are compared; None where they are not."""
    fingerprint = get_domain(store.domain).fingerprint
    return fingerprint if fingerprint is not None and fingerprint.applies(store) else None


def is_small(store: Store, columns: Sequence[str]) -> bool:
    """Return whether a summary may read these columns of all records."""
    size = sum(
        (store.path / f"{shard['name']}.{column}.bin").stat().st_size
        for shard in store.index["shards"]
        for column in columns
        if column in shard["columns"]
    )
    return len(store) <= MOST_RECORDS and size <= MOST_BYTES


def record_digests(store: Store, columns: Sequence[str]) -> np.ndarray:
    """Return 64 bits of a digest of these columns of every record, uint64 [N]; equal for records
    whose columns are equal, in any store.
    """
    digests = np.empty(len(store), np.uint64)
    for place in range(len(store)):
        record, state = store[place], hashlib.blake2b(digest_size=8)
        for column in columns:
            value = record[column]
            data = value.encode() if isinstance(value, str) else np.asarray(value).tobytes()
            state.update(len(data).to_bytes(8, "little") + data)
        digests[place] = int.from_bytes(state.digest(), "little")
    return digests


def find_duplicates(store: Store) -> Duplicates | None:
    """Return the records of a store that are the same; None where they are not compared, or too
    many.
    """
    fingerprint = fingerprint_of(store)
    if fingerprint is None or not len(store) or not is_small(store, fingerprint.columns):
        return None
    split_N = splits_of(store)
    used = np.flatnonzero(np.isin(split_N, range(len(SPLITS))))
    digest_N, split_N = record_digests(store, fingerprint.columns)[used], split_N[used]
    _, number_N = np.unique(digest_N, return_inverse=True)
    size = int(number_N.max(initial=-1)) + 1
    held_GS = np.zeros((size, len(SPLITS)), bool)
    held_GS[number_N, split_N] = True
    nearest_G = held_GS.argmax(1)
    across_N = split_N > nearest_G[number_N]
    first_N = np.zeros(len(used), bool)
    first_N[np.unique(number_N * len(SPLITS) + split_N, return_index=True)[1]] = True
    within_N = ~first_N
    repeated_N = np.bincount(number_N, minlength=size)[number_N] > 1
    conflicting = _conflicting(store, used[repeated_N], number_N[repeated_N])
    return Duplicates(
        int(within_N.sum()),
        int(across_N.sum()),
        conflicting,
        _example(store, used, number_N, across_N if across_N.any() else within_N),
    )


def _conflicting(store: Store, places: np.ndarray, number_N: np.ndarray) -> int:
    """Return how many of these records have a copy, one of the same number, with another label."""
    records = [store[int(place)] for place in places]
    if not records:
        return 0
    different = np.zeros(len(records), bool)
    for values in get_domain(store.domain).labels(records, store.meta).values():
        label_N = np.asarray(values)
        known = np.ones(len(label_N), bool)
        if label_N.dtype.kind == "f":
            known = np.isfinite(label_N)
        code_N = np.unique(label_N.astype(str), return_inverse=True)[1]
        pairs = np.unique(np.stack([number_N[known], code_N[known]], 1), axis=0)
        several = np.bincount(pairs[:, 0], minlength=int(number_N.max()) + 1) > 1
        different |= several[number_N] & known
    return int(different.sum())


def _example(
    store: Store, used: np.ndarray, number_N: np.ndarray, chosen_N: np.ndarray
) -> tuple[str, ...]:
    if not chosen_N.any():
        return ()
    place = int(chosen_N.argmax())
    copies = np.flatnonzero(number_N == number_N[place])
    other = int(copies[copies != place][0])
    return tuple(name_of(store[int(used[at])], int(used[at])) for at in (place, other))


def name_of(record: Mapping[str, Any], place: int) -> str:
    """Return what messages call a record: its name, file and line, else its place in the store."""
    if record.get("name"):
        return repr(str(record["name"])[:60])
    if "file" in record and "line" in record:
        return f"{record['file']}:{int(record['line'])}"
    return f"record {place}"


def features_of(store: Store, fingerprint: Fingerprint) -> list[np.ndarray]:
    """Return the features of every record; none of those that are in no split."""
    used_N = np.isin(splits_of(store), range(len(SPLITS)))
    nothing = np.empty(0, np.uint64)
    return [
        fingerprint.features(store[place]) if used else nothing
        for place, used in enumerate(used_N.tolist())
    ]


def held_out_split(split_N: np.ndarray) -> int | None:
    """Return the split whose near duplicates in training count: test, else validation, else
    none.
    """
    splits = [split for split in (2, 1) if (split_N == split).any() and (split_N == 0).any()]
    return splits[0] if splits else None


def estimate_near_duplicates(store: Store) -> NearDuplicates | str | None:
    """Return near duplicates between training and test; why they were not looked for; or None
    where the question does not arise.
    """
    fingerprint, split_N = fingerprint_of(store), splits_of(store)
    split = held_out_split(split_N)
    if fingerprint is None or split is None:
        return None
    if len(store) > MOST_COMPARED or not is_small(store, fingerprint.columns):
        return (
            f"near duplicates across splits not checked (more than {MOST_COMPARED} records); see"
            " sciforge audit near-duplicates"
        )
    pairs = near_pairs(features_of(store, fingerprint), fingerprint.similarity)
    return count_near(pairs, split_N, split, fingerprint.similarity)


def count_near(
    pairs: NearPairs, split_N: np.ndarray, split: int, similarity: float
) -> NearDuplicates:
    """Return how many records of a held-out split have a near duplicate in training."""
    held_out, training = np.flatnonzero(split_N == split), np.flatnonzero(split_N == 0)
    nearest, _ = pairs.nearest(held_out, training)
    return NearDuplicates(int((nearest >= 0).sum()), len(held_out), SPLITS[split], similarity)
