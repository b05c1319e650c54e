"""Labelled sequences, from tables or in memory, prepared to fine-tune on.

Columns of the store: `bases` uint8 [L], `label` text, `name` text, `split` uint8, `value` float64
where labels are numbers, and `group` text where groups are named.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sciforge.core.data.groups import group_names, split_by_group
from sciforge.core.data.sampling import balanced_subset
from sciforge.core.data.store import SPLITS, Reject, ShardWriter, Store
from sciforge.core.data.targets import Target, split_numbers
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError
from sciforge.genomes.data.labelled_tables import (
    NAME_COLUMNS,
    LabelledSequence,
    header_of,
    number_of,
    read_labelled,
)

OnReject = Callable[[Reject], None] | None
SPLIT_COLUMN = "split"  # taken where a table has it; a column of another name must be there


@dataclass(frozen=True, kw_only=True)
class Sequences(Settings):
    """Labelled sequences from tables (TSV, CSV, the UCI promoters file).

    Args:
        files: tables with a sequence and a label in each row.
        sequence_column: name of the column of sequences.
        label_column: name of the column of labels.
        split_column: name of a column with train, validation or test; where the table has no column
            `split`, or this is empty, the splits are drawn by the shares.
        group_column: name of a column whose rows of one value (donor, gene family, laboratory) stay
            in one split; the splits are then drawn by groups, not class by class.
        test_share: share of the sequences drawn, class by class, for the test split.
        validation_share: share of the sequences drawn, class by class, for the validation split.
        numeric: the labels are numbers (for regression), not classes.
        seed: of the drawn split.
    """

    files: tuple[Path, ...]
    sequence_column: str = "sequence"
    label_column: str = "label"
    split_column: str = SPLIT_COLUMN
    group_column: str = ""
    test_share: float = 0.2
    validation_share: float = 0.1
    numeric: bool = False
    seed: int = 0

    domain: ClassVar[str] = "genomes"
    kind: ClassVar[str] = "windows"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, 1, "test_share", "validation_share")
        self.require(0, math.inf, "seed")
        if self.test_share + self.validation_share >= 1:
            raise ConfigError(
                "sequences: test_share + validation_share must leave something to train on"
            )

    def sources(self) -> Sequence[tuple[Path, ...]]:
        """Return all files as one unit, since the split looks at them together."""
        if not self.files:
            raise ConfigError("no table; give TSV or CSV files")
        return [self.files]

    def write(self, source: tuple[Path, ...], shard: ShardWriter, on_reject: OnReject) -> None:
        """Write all rows with their splits; equal sequences are drawn into one split."""
        given = self._given_splits()
        names = (self.sequence_column, self.label_column, self.split_column if given else "")
        names = (*names, self.group_column)
        rows = [
            row
            for file in source
            for row in read_labelled(file, *names, on_reject=on_reject, numeric=self.numeric)
        ]
        if given:
            split_N = np.array([row.split for row in rows], np.uint8)
        elif self.group_column:
            shares = (1 - self.test_share - self.validation_share, self.validation_share)
            group_N = [row.group for row in rows]
            split_N = split_by_group(group_N, (*shares, self.test_share), self.seed)
        else:
            split_N = drawn_splits(rows, self.test_share, self.validation_share, self.seed)
        write_rows(shard, rows, split_N, self.numeric)
        shard.notes += _repeats(rows, split_N, self.numeric)

    def _given_splits(self) -> bool:
        """Return whether the splits stand in the tables."""
        if self.split_column != SPLIT_COLUMN:
            return bool(self.split_column)
        return all(SPLIT_COLUMN in header_of(file) for file in self.files)

    def finish(self, store: Store) -> dict[str, Any]:
        """Return the class names, sorted, the name of the labels, and a note on columns that
        were not used.
        """
        headers = [header_of(file) for file in self.files]
        used = {self.sequence_column, self.label_column, self.group_column}
        used |= {next((name for name in NAME_COLUMNS if name in header), "") for header in headers}
        notes = []
        if self._given_splits():
            used.add(self.split_column)
            notes.append(f"splits taken from the column {self.split_column}")
        if rest := sorted({column for header in headers for column in header} - used):
            notes.append(f"columns not used: {', '.join(rest)}")
        classes = [] if self.numeric else sorted(set(store.column("label")))
        _check_classes(classes)
        learnt = set(classes) and set(store.split("train").column("label"))
        if unseen := [name for name in classes if name not in learnt]:
            notes.append(f"classes without a training sequence: {', '.join(unseen)}")
        meta = {"classes": classes, "target": self.label_column}
        return meta | ({"notes": list(dict.fromkeys(notes))} if notes else {})


@dataclass(frozen=True, kw_only=True)
class SequencesInMemory(Settings):
    """Labelled sequences that are in memory; the store is the one that their table would give.

    Args:
        target: name of the labels.
        numeric: the labels are numbers (for regression), not classes.
        seed: kept with the store.
    """

    target: str = "label"
    numeric: bool = False
    seed: int = 0
    rows: tuple[LabelledSequence, ...] = field(default=(), init=False, repr=False)
    unlabelled: int = field(default=0, init=False)

    domain: ClassVar[str] = "genomes"
    kind: ClassVar[str] = "windows"

    @classmethod
    def of(
        cls,
        sequences: Sequence[np.ndarray],
        target: Target,
        split: Sequence[str] | None,
        seed: int,
        group: Sequence[Any] | None = None,
    ) -> "SequencesInMemory":
        """Return the preparer of sequences with their labels; those without a label are left out
        and counted.

        Args:
            sequences: uint8 codes of each.
            target: their labels.
            split: name of each one's split; None for all in training.
            seed: kept with the store.
            group: of each; None for none.
        """
        numbers_N = split_numbers(split, len(sequences))
        group_N = group_names(group, len(sequences)) or [""] * len(sequences)
        rows = tuple(
            LabelledSequence(
                f"input {place}", bases, label, place, int(numbers_N[place]), group_N[place]
            )
            for place, (bases, label) in enumerate(zip(sequences, target.texts, strict=True))
            if label
        )
        preparer = cls(target=target.name, numeric=target.numeric, seed=seed)
        object.__setattr__(preparer, "rows", rows)
        object.__setattr__(preparer, "unlabelled", len(sequences) - len(rows))
        return preparer

    def sources(self) -> Sequence[str]:
        """Return one unit of work."""
        return ["inputs"]

    def write(self, source: str, shard: ShardWriter, on_reject: OnReject) -> None:
        """Write all labelled sequences."""
        write_rows(
            shard,
            self.rows,
            np.array([row.split for row in self.rows], np.uint8),
            self.numeric,
        )

    def finish(self, store: Store) -> dict[str, Any]:
        """Return the class names, sorted, the name of the labels, and a note on inputs without a
        label.
        """
        meta = {
            "classes": [] if self.numeric else sorted(set(store.column("label"))),
            "target": self.target,
        }
        return meta | (
            {"notes": [f"{self.unlabelled} inputs without a label left out"]}
            if self.unlabelled
            else {}
        )


def write_rows(
    shard: ShardWriter,
    rows: Sequence[LabelledSequence],
    split_N: np.ndarray,
    numeric: bool,
) -> None:
    """Append labelled sequences with their splits; raises DataError where a label that must be a
    number is none.
    """
    for row, split in zip(rows, split_N, strict=True):
        fixed: dict[str, Any] = {"label": row.label, "name": row.name, "split": split}
        if row.group:
            fixed["group"] = row.group
        if numeric:
            fixed["value"] = np.float64(number_of(row.label))
        shard.add({"bases": row.bases}, **fixed)


def drawn_splits(
    rows: Sequence[LabelledSequence], test_share: float, validation_share: float, seed: int
) -> np.ndarray:
    """Return the split of each row, uint8 [N], drawn class by class; equal sequences are kept in
    one split.
    """
    _, group_N = (
        np.unique([row.bases.tobytes() for row in rows], return_inverse=True) if rows else ((), ())
    )
    first_label = {
        group: row.label for group, row in zip(reversed(list(group_N)), reversed(rows), strict=True)
    }
    num_groups = len(first_label)
    order = natural_order(np.array([first_label[group] for group in range(num_groups)]), seed)
    split_G = np.zeros(num_groups, np.uint8)
    num_test, num_validation = round(test_share * num_groups), round(validation_share * num_groups)
    split_G[order[:num_test]] = SPLITS.index("test")
    split_G[order[num_test : num_test + num_validation]] = SPLITS.index("validation")
    return split_G[np.asarray(group_N, int)]


def natural_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return an order in which every prefix holds the classes in about their own proportions."""
    order = balanced_subset(labels, len(labels), seed)
    rank = np.empty(len(order))
    for value in np.unique(labels):
        members = order[labels[order] == value]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(rank, kind="stable")


def _check_classes(classes: Sequence[str]) -> None:
    """Raise DataError where two classes are one number written in two ways, `1` and `1.0`."""
    numbers: dict[float, str] = {}
    for name in classes:
        try:
            value = float(name)
        except ValueError:
            continue
        if value in numbers:
            raise DataError(
                f"labels {numbers[value]!r} and {name!r} are one number written in two ways; write"
                " them alike, or use --numeric"
            )
        numbers[value] = name


def _repeats(rows: Sequence[LabelledSequence], split_N: np.ndarray, numeric: bool) -> list[str]:
    """Return the notes on sequences that stand in several rows, labels or splits, and on unknown
    bases.
    """
    labels: dict[bytes, set[str]] = {}
    splits: dict[bytes, set[int]] = {}
    unknown = 0
    for row, split in zip(rows, split_N.tolist(), strict=True):
        key = (row.bases & 7).tobytes()
        labels.setdefault(key, set()).add(row.label)
        splits.setdefault(key, set()).add(split)
        unknown += bool(((row.bases & 7) > 3).any())
    contradictory = sum(len(names) > 1 for names in labels.values())
    spanning = sum(len(numbers) > 1 for numbers in splits.values())
    counts = {
        "rows repeat an earlier sequence": len(rows) - len(labels),
        "sequences have different labels in different rows": 0 if numeric else contradictory,
        "sequences stand in more than one split": spanning,
        "sequences hold unknown bases (N and other ambiguity codes)": unknown,
    }
    return [f"{count} {what}" for what, count in counts.items() if count]
