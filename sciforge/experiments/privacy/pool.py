"""The records that an audit is about, and the stores made of them: one with all, and one for
each shadow model.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.data import sampling
from sciforge.core.data.store import Rows, Store
from sciforge.core.domain import Objective
from sciforge.errors import ConfigError
from sciforge.experiments.subsets import write_store

TARGETS = ("label", "value")  # columns by which a domain says what is to be learnt


@dataclass(frozen=True)
class Pool:
    """Records of one or two stores, members of the target's training set first.

    Args:
        rows: where they are.
        member_N: whether the target learnt them; all False where there is no target.
        validation: records for early stopping, which no shadow learns.
        labels: place in the pool -> a wrong label, for canaries.
        column: which column holds labels; empty without canaries.
    """

    rows: tuple[Rows, ...]
    member_N: np.ndarray
    validation: Rows
    labels: Mapping[int, Any] = field(default_factory=dict)
    column: str = ""

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    def __getitem__(self, i: int) -> dict[str, Any]:
        for rows in self.rows:
            if i < len(rows):
                return rows[i]
            i -= len(rows)
        raise IndexError(i)

    def write(self, path: Path, learnt_N: np.ndarray) -> Store:
        """Write a store in which the chosen records are the training split, in the order of the
        pool, canaries mislabelled.
        """
        learnt = ({**self[i], **self._changed(i)} for i in map(int, np.flatnonzero(learnt_N)))
        return write_store(
            path, {"train": learnt, "validation": self.validation}, self.rows[0].store
        )

    def _changed(self, i: int) -> dict[str, Any]:
        """Return the wrong label of a canary; nothing for other records."""
        return {self.column: self.labels[i]} if i in self.labels else {}

    def with_canaries(self, count: int, seed: int) -> "Pool":
        """Give `count` records a label of another one; never records that the target learnt.

        Raises:
            ConfigError: there are no labels, too few records, or all labels are the same.
        """
        if not count:
            return self
        column = next((name for name in TARGETS if name in self[0]), None)
        if column is None:
            raise ConfigError("canaries need records with a label or a value; set canaries 0")
        free = np.flatnonzero(~self.member_N)
        if count > len(free) // 2:
            raise ConfigError(
                f"canaries is {count}; at most half of the {len(free)} records not learnt: lower it"
            )
        rng = sampling.generator(seed, sampling.SAMPLE, 0, 1)
        names = [repr(np.asarray(self[i][column]).tolist()) for i in range(len(self))]
        labels = {}
        for place in rng.permutation(free)[:count]:
            others = [i for i, name in enumerate(names) if name != names[place]]
            if not others:
                raise ConfigError(
                    "all records have the same label; canaries need another: set canaries 0"
                )
            labels[int(place)] = self[int(rng.choice(others))][column]
        return Pool(self.rows, self.member_N, self.validation, labels, column)


def records_of(store: Store, split: str, objective: Objective) -> Rows:
    """Return the records of a split, `all` for every one.

    Raises:
        ConfigError: there are none, or what the objective learns from are not whole records
            (windows of a genome).
    """
    rows = Rows(store, np.arange(len(store))) if split == "all" else store.split(split)
    seen = objective.examples(store, "train")
    if not isinstance(seen, Rows) or len(seen) != len(store.split("train")):
        raise ConfigError(
            f"{type(objective).__name__} does not learn whole records; audit a fine-tuning on"
            " labels"
        )
    if not len(rows):
        raise ConfigError(f"{store.path} has no {split} records; choose another split")
    return rows


def refuse_shared(members: Rows, others: Rows) -> None:
    """Raise ConfigError where a record, its name and split aside, is on both sides."""
    known = {_digest(members[i]) for i in range(len(members))}
    if shared := sum(_digest(others[i]) in known for i in range(len(others))):
        raise ConfigError(
            f"{shared} of the non-members are members too; give records that the model has not"
            " learnt"
        )


def _digest(record: Mapping[str, Any]) -> bytes:
    parts = [(name, np.asarray(record[name])) for name in sorted(record.keys() - {"split", "name"})]
    return hashlib.sha256(
        b"".join(name.encode() + str(x.shape).encode() + x.tobytes() for name, x in parts)
    ).digest()


def random_subset(rows: Rows, count: int, seed: int) -> Rows:
    """Return `count` of the rows at random, or all of them, in their order."""
    if not count or count >= len(rows):
        return rows
    return rows.take(
        np.sort(sampling.generator(seed, sampling.SAMPLE, 0, 2).permutation(len(rows))[:count])
    )


def names_of(pool: Pool, places: Sequence[int]) -> list[str]:
    """Return how to call records: by their name where they have one, else by their place in the
    store.
    """
    names = []
    for place in places:
        record, index = (
            pool[place],
            int(np.concatenate([rows.indices for rows in pool.rows])[place]),
        )
        names.append(str(record.get("name") or f"record {index}"))
    return names
