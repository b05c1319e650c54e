"""Whole genomes, prepared to pretrain on: bases, held-out contigs and regions, runs of unknown
bases.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sciforge.core.data.store import SPLITS, Reject, ShardWriter, Store
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.genomes.data.annotation import Annotation, read_bed, reconcile
from sciforge.genomes.data.genome_windows import spans_of_split
from sciforge.genomes.data.sequences import N_CODE, read_sequences

OnReject = Callable[[Reject], None] | None


def load_genome(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Return contig name -> uint8 codes of all files; raises DataError where a name comes twice."""
    pieces: dict[str, list[np.ndarray]] = {}
    for file in files:
        earlier = set(pieces)
        for piece in read_sequences(file):
            if piece.name in earlier:
                raise DataError(
                    f"contig {piece.name!r} is in an earlier file too; rename one of them", file
                )
            pieces.setdefault(piece.name, []).append(piece.bases)
    return {name: np.concatenate(parts) for name, parts in pieces.items()}


@dataclass(frozen=True, kw_only=True)
class Genome(Settings):
    """Bases of whole genomes, stored once for every k, stride and strand.

    Args:
        files: FASTA or GenBank, plain or compressed.
        test: contigs kept for testing, never trained on.
        validation: contigs for the validation split.
        hold_out: BED of regions kept for testing; `margin` bases on each side are left out with
            them.
        exclude: contigs not to use at all (a mitochondrion, say).
        validation_every: where no `validation` is given, one block of 64 kb in so many is the
            validation split; 0 for none.
        margin: bases left out on each side of a held-out region.
    """

    files: tuple[Path, ...]
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    hold_out: Path | None = None
    exclude: tuple[str, ...] = ()
    validation_every: int = 50
    margin: int = 1000

    domain: ClassVar[str] = "genomes"
    kind: ClassVar[str] = "genome"
    block_bp: ClassVar[int] = 65_536

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, math.inf, "validation_every", "margin")

    def sources(self) -> Sequence[Path]:
        """Return the sequence files, one shard each."""
        if not self.files:
            raise ConfigError("no sequence file; give FASTA or GenBank files")
        return self.files

    def write(self, source: Path, shard: ShardWriter, on_reject: OnReject) -> None:
        """Stream the contigs of one file; each piece goes to disk as it comes."""
        runs = UnknownRuns()
        excluded: set[str] = set()
        for piece in read_sequences(source, on_reject):
            if piece.name in self.exclude:
                excluded.add(piece.name)
                continue
            shard.append(bases=piece.bases)
            runs.add(piece.bases)
            if piece.last:
                shard.append(unknown_runs=runs.close())
                length = piece.start + len(piece.bases)
                shard.end(
                    name=piece.name,
                    length=np.int64(length),
                    circular=np.bool_(piece.circular),
                    file=Path(source).name,
                )
                runs = UnknownRuns()
        shard.notes += [_excluded(name) for name in sorted(excluded)]

    def finish(self, store: Store) -> dict[str, Any]:
        """Return spans (contig number, start, stop, split) after hold-outs and N runs are cut
        out.
        """
        names = store.column("name")
        repeated = sorted(name for name, times in Counter(names).items() if times > 1)
        if repeated:
            raise DataError(
                f"contig {repeated[0]!r} comes from two files; rename one, or exclude it",
                store.column("file")[0],
            )
        for name in (*self.test, *self.validation):
            if name not in names:
                raise ConfigError(f"no contig {name!r} to hold out; {did_you_mean(name, names)}")
        for name in self.exclude:
            if _excluded(name) not in store.meta["notes"]:
                raise ConfigError(f"no contig {name!r} to exclude; {did_you_mean(name, names)}")
        if twice := set(self.test) & set(self.validation):
            raise ConfigError(f"contig {min(twice)!r} is in both test and validation; choose one")
        lengths = dict(zip(names, map(int, store.column("length")), strict=True))
        held = self._held_regions(lengths)
        spans = []
        for number, name in enumerate(names):
            cuts = spans_of_split(
                lengths[name], np.asarray(store[number]["unknown_runs"]), held.get(name, [])
            )
            spans += [
                [number, start, stop, split] for start, stop, split in cuts if split in SPLITS
            ]
        meta = {"spans": spans, "bases": sum(lengths.values()), "contigs": len(names)}
        notes = [*self._intervals_in_whole_contigs(held, lengths), *_unknown(store)]
        if not any(split == "validation" for *_, split in spans):
            notes.append(
                "no validation split: no contig is long enough for a block of it; name contigs with"
                " validation"
            )
        return meta | ({"notes": notes} if notes else {})

    def _intervals_in_whole_contigs(
        self, held: dict[str, list[tuple[int, int, str]]], lengths: dict[str, int]
    ) -> list[str]:
        """Return the notes on intervals of `hold_out`: those read, and those in contigs that are
        held out whole.
        """
        if not self.hold_out:
            return []
        intervals = reconcile(read_bed(self.hold_out), lengths)
        whole = {*self.test, *self.validation}
        idle = sum(name in whole for name in intervals.contig)
        note = f"{idle} intervals of {self.hold_out.name} lie in contigs held out whole"
        return [*intervals.notes, *([note] if idle else [])]

    def _held_regions(self, lengths: dict[str, int]) -> dict[str, list[tuple[int, int, str]]]:
        held: dict[str, list[tuple[int, int, str]]] = {}
        for name, length in lengths.items():
            if name in self.test or name in self.validation:
                held[name] = [(0, length, "test" if name in self.test else "validation")]
        if self.hold_out:
            intervals = reconcile(read_bed(self.hold_out), lengths)
            rows_of: dict[str, list[int]] = {}
            for row, name in enumerate(intervals.contig):
                rows_of.setdefault(name, []).append(row)
            for name, chosen in rows_of.items():
                if name not in held:
                    held[name] = _with_margin(
                        intervals.select(np.array(chosen)), lengths[name], self.margin
                    )
        if self.validation_every and not self.validation:
            for name, length in lengths.items():
                if name not in held:
                    starts = range(
                        (self.validation_every // 2) * self.block_bp,
                        length,
                        self.validation_every * self.block_bp,
                    )
                    held[name] = [(s, min(s + self.block_bp, length), "validation") for s in starts]
        return held


def _excluded(name: str) -> str:
    """Return the note on a contig that was left out as asked."""
    return f"contig {name!r} excluded, as asked"


def _unknown(store: Store) -> list[str]:
    """Return a note on unknown bases, where there are some."""
    runs = [np.asarray(store[number]["unknown_runs"]) for number in range(len(store))]
    bases = sum(int((run[:, 1] - run[:, 0]).sum()) for run in runs)
    contigs = sum(len(run) > 0 for run in runs)
    if not bases:
        return []
    return [f"{bases:,} bases of {contigs} contigs are unknown (N and other ambiguity codes)"]


def _with_margin(rows: Annotation, length: int, margin: int) -> list[tuple[int, int, str]]:
    """Return sorted disjoint regions: the intervals as test, their margins as nobody's."""
    marks = np.zeros(length + 1, np.int8)
    for start, end in zip(rows.start.tolist(), rows.end.tolist(), strict=True):
        marks[max(0, start - margin) : end + margin] |= 1
    for start, end in zip(rows.start.tolist(), rows.end.tolist(), strict=True):
        marks[start:end] |= 2
    borders = np.flatnonzero(np.diff(marks[:length], prepend=0, append=0))
    regions = [(int(a), int(b), marks[a]) for a, b in zip(borders, borders[1:], strict=False)]
    return [(a, b, "test" if mark & 2 else "margin") for a, b, mark in regions if mark]


class UnknownRuns:
    """Collects half-open runs of unknown bases from consecutive pieces of a contig."""

    def __init__(self) -> None:
        self.at, self.runs = 0, []

    def add(self, bases: np.ndarray) -> None:
        """Take the next piece; a run over the border of two pieces becomes one."""
        unknown = (bases & 7) == N_CODE
        if unknown.any():
            edges = np.flatnonzero(np.diff(unknown.astype(np.int8), prepend=0, append=0)) + self.at
            for start, stop in edges.reshape(-1, 2).tolist():
                if self.runs and self.runs[-1][1] == start:
                    self.runs[-1][1] = stop
                else:
                    self.runs.append([start, stop])
        self.at += len(bases)

    def close(self) -> np.ndarray:
        """Return the runs, int64 [n, 2]."""
        return np.array(self.runs, np.int64).reshape(-1, 2)
