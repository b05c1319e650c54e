"""Measured points as a store: tables of points with a split, from files or from a table in memory.

Columns: Re, Pr, e_D, P_e, alpha_deg, W_H and `value` (the Nusselt number), `fanning` (four-sided)
and `uncertainty` (relative), NaN where unknown, float64; `split` int8 (places in SPLITS, -1 in
none), `rig` text; of measurements also `line` int64, `file` and `basis` text, and `group` text
where groups are named.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from sciforge.core.data.groups import split_by_group
from sciforge.core.data.sampling import SUBSET, generator
from sciforge.core.data.store import SPLIT_NAMES, SPLITS, Reject, ShardWriter, Store
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.heat.correlations.groups import GROUPS
from sciforge.heat.data.readers import TABLES, MeasuredTable, read_table
from sciforge.heat.data.table_checks import suspicions

OnReject = Callable[[Reject], None] | None

NAMES = {**SPLIT_NAMES, "none": -1}
SAME_ANGLE = 0.5  # degrees


def check_shares(shares: Sequence[float]) -> None:
    """Raise ConfigError unless three shares, none negative and the first positive, add up to 1."""
    if len(shares) != 3 or min(shares) < 0 or shares[0] == 0 or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(
            f"shares are {tuple(shares)}; give three for train, validation and test that add up"
            " to 1"
        )


@dataclass(frozen=True, kw_only=True)
class Measurements(Settings):
    """Measured heat transfer of channels from tables (.csv, .tsv, plain or gzipped).

    Args:
        files: what to read; one shard each.
        columns: ours=theirs where a column is not found by itself, e.g. Nu=Nu_r or "alpha_deg=angle
            [rad]".
        basis: of Nu, where the files do not state it, e.g. "ribbed wall, projected area, smooth
            diameter".
        group_column: column whose points of one value (campaign, test section) stay in one split:
            what is drawn is drawn by groups.
        split: `random` (repeats of a point stay together), `angle` or `rig` (those in `held` are
            the test), `reynolds` (train below, test above the border in `held`), or `given` (the
            column `split`).
        shares: of train, validation and test; where `held` names the test, validation takes its
            share of the rest.
        held: angles in degrees, names of rigs, or one or two Reynolds numbers (between two, a point
            is in no split).
        seed: of the split.
    """

    files: tuple[Path, ...]
    columns: tuple[str, ...] = ()
    basis: str = ""
    group_column: str = ""
    split: Literal["random", "angle", "rig", "reynolds", "given"] = "random"
    shares: tuple[float, float, float] = (0.8, 0.0, 0.2)
    held: tuple[str, ...] = ()
    seed: int = 0

    domain: ClassVar[str] = "heat"
    kind: ClassVar[str] = "measurements"

    def sources(self) -> Sequence[Path]:
        """Return the files, one shard each; raises ConfigError for settings that cannot be."""
        if not self.files:
            raise ConfigError(f"no file; give tables ({', '.join(TABLES)}, with or without .gz)")
        if twice := [file for file in self.files if self.files.count(file) > 1]:
            raise ConfigError(f"{twice[0]} is named twice; name each file once")
        check_shares(self.shares)
        by_held = self.split in ("angle", "rig", "reynolds")
        if by_held != bool(self.held):
            what = (
                f"held says what the test is; give {'it' if by_held else 'none'} with the split"
                f" {self.split!r}"
            )
            raise ConfigError(
                f"{what}{' (angles, rigs, or one or two Reynolds numbers)' if by_held else ''}"
            )
        if self.split in ("angle", "reynolds"):
            numbers = [_held_number(text) for text in self.held]
            if self.split == "reynolds" and (len(numbers) > 2 or numbers != sorted(numbers)):
                raise ConfigError(
                    f"held is {', '.join(self.held)}; give one Reynolds number, or the lower and"
                    " the upper"
                )
        return self.files

    def write(self, source: Path, shard: ShardWriter, on_reject: OnReject) -> None:
        """Read one table and append its points."""
        options = {"basis": self.basis, "group_column": self.group_column, "warn": False}
        table = read_table(source, self.columns, on_reject, **options)
        for row in range(len(table)):
            split = NAMES.get(table.split[row].lower()) if self.split == "given" else -1
            if split is None:
                line, name = int(table.line[row]), table.split[row]
                what = f"split {name!r} is not known; {did_you_mean(name.lower(), NAMES)}"
                if on_reject is None:
                    raise DataError(what, source, line)
                on_reject(Reject(str(source), line, "", what))
                continue
            add_point(shard, table, row, split, source.name)

    def finish(self, store: Store) -> dict[str, Any]:
        """Settle the split over all files and return rigs, basis, counts and the ranges of
        training.

        Raises:
            DataError: files of different bases, or no training point.
            ConfigError: `held` names what the files do not have.
        """
        bases = dict(zip(store.column("basis"), store.column("file"), strict=True))
        if len(bases) > 1:
            said = "; ".join(f"{basis} in {file}" for basis, file in sorted(bases.items()))
            raise DataError(
                f"the files differ in the basis of Nu ({said}); convert them to one first"
                " (heat.basis.convert)"
            )
        points, rig, value = _points(store), store.column("rig"), store.column("value")
        group = store.column("group") if self.group_column else None
        split = (
            store.column("split") if self.split == "given" else self._settled(points, rig, group)
        )
        store.rewrite("split", split)
        if not (split == 0).any():
            raise DataError(
                "no point is in training; choose other shares, another border or another split"
            )
        said = zip(store.column("file"), store.column("note"), strict=True)
        notes = {f"{file}: {line}" for file, text in said for line in text.split("\n") if line}
        for note in (*sorted(notes), *suspicions(points, rig, value)):
            warnings.warn(note, stacklevel=2)
        still = [name for name, column in points.items() if np.all(column == column[0])]
        more = {
            "basis": next(iter(bases)),
            "constant": still,
            "held": list(self.held),
            "notes": sorted(notes),
        }
        return (
            counts_and_ranges(points, split, rig) | more | {"split": self.split, "seed": self.seed}
        )

    def _settled(
        self,
        points: Mapping[str, np.ndarray],
        rig: Sequence[str],
        group: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Return the split of each point, int8 [N]."""
        if self.split == "random" and group is not None:
            return split_by_group(group, self.shares, self.seed).astype(np.int8)
        _, plate = np.unique(
            np.array([*points.values(), _numbered(rig)]), axis=1, return_inverse=True
        )
        if self.split == "random":
            return split_together(plate.reshape(-1), self.shares, self.seed)
        if self.split == "rig":
            if unknown := [name for name in self.held if name not in rig]:
                raise ConfigError(
                    f"no rig {unknown[0]!r} in the files; {did_you_mean(unknown[0], set(rig))}"
                )
            test = np.isin(np.array(rig, object), self.held)
            left = np.zeros(len(rig), bool)
        else:
            numbers = [_held_number(text) for text in self.held]
            column = points["alpha_deg" if self.split == "angle" else "Re"]
            if self.split == "angle":
                apart = np.abs(column[:, None] - numbers)
                if (apart.min(0) > SAME_ANGLE).any():
                    known = ", ".join(f"{angle:g}" for angle in np.unique(column))
                    raise ConfigError(
                        f"no rib angle {self.held[int(apart.min(0).argmax())]} in the files; known:"
                        f" {known}"
                    )
                test, left = (apart <= SAME_ANGLE).any(1), np.zeros(len(rig), bool)
            else:
                test = column > numbers[-1]
                left = (
                    (column >= numbers[0]) & ~test
                    if len(numbers) == 2
                    else np.zeros(len(rig), bool)
                )
        split = np.where(test, 2, -1).astype(np.int8)
        rest = ~test & ~left
        if rest.any():
            shares = (1 - self.shares[1], self.shares[1], 0.0)
            split[rest] = (
                split_together(plate.reshape(-1)[rest], shares, self.seed)
                if group is None
                else split_by_group(np.asarray(group)[rest], shares, self.seed)
            )
        return split


def add_point(shard: ShardWriter, table: MeasuredTable, row: int, split: int, file: str) -> None:
    """Append one row of a table."""
    numbers = {name: table.points[name][row] for name in GROUPS} | {"value": table.nu[row]}
    numbers |= {
        "fanning": table.fanning[row],
        "uncertainty": table.uncertainty[row],
        "line": table.line[row],
    }
    texts = {
        "rig": table.rig[row],
        "file": file,
        "basis": table.basis,
        "note": "\n".join(table.notes),
    }
    if table.group and table.group[row]:
        texts["group"] = table.group[row]
    shard.end(**numbers, **texts, split=np.int8(split))


def split_together(group_N: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """Return a random split, int8 [N], that keeps points of one group together.

    >>> split_together(np.array([0, 0, 1, 2, 3, 4]), (0.8, 0.0, 0.2), seed=0).tolist()
    [0, 0, 0, 0, 2, 0]
    """
    groups = np.unique(group_N)
    ends = np.round(np.cumsum(shares)[:2] * len(groups)).astype(int)
    ends = np.maximum(ends, 1)  # a single point is for training
    place = np.empty(len(groups), np.int64)
    place[generator(seed, SUBSET).permutation(len(groups))] = np.arange(len(groups))
    return np.searchsorted(ends, place, side="right").astype(np.int8)[
        np.searchsorted(groups, group_N)
    ]


def _held_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(
            f"held {text!r} is no positive number; give angles in degrees, or Reynolds numbers"
        )
    return value


def _points(store: Store) -> dict[str, np.ndarray]:
    return {name: np.asarray(store.column(name)) for name in GROUPS}


def _numbered(names: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(names), return_inverse=True)[1].reshape(-1).astype(np.float64)


def counts_and_ranges(
    points: Mapping[str, np.ndarray], split: np.ndarray, rig: Sequence[str]
) -> dict[str, Any]:
    """Return counts of splits and rigs, and the ranges of the groups over training."""
    ranges = {
        name: [float(column[split == 0].min()), float(column[split == 0].max())]
        for name, column in points.items()
    }
    counts = {name: int((split == place).sum()) for place, name in enumerate(SPLITS)}
    return {
        "count": len(split),
        "counts": counts,
        "rigs": dict(sorted(Counter(rig).items())),
        "ranges": ranges,
    }
