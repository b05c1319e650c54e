"""What `sciforge prepare` makes of genome files: a genome to pretrain on, or labelled windows to specialise with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sciforge.core.data.sampling import balanced_subset
from sciforge.core.data.store import SPLITS, Reject, ShardWriter, Store
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.genomes.data.annotation import Annotation, read_bed, reconcile
from sciforge.genomes.data.genome_windows import spans_of_split
from sciforge.genomes.data.labelled_tables import read_labelled
from sciforge.genomes.data.sequences import N_CODE, read_sequences

OnReject = Callable[[Reject], None] | None


def load_genome(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Return contig name -> uint8 codes of all files; raises DataError where a name comes twice."""
    pieces: dict[str, list[np.ndarray]] = {}
    for file in files:
        earlier = set(pieces)
        for piece in read_sequences(file):
            if piece.name in earlier:
                raise DataError(f"contig {piece.name!r} is in an earlier file too; rename one of them", file)
            pieces.setdefault(piece.name, []).append(piece.bases)
    return {name: np.concatenate(parts) for name, parts in pieces.items()}


@dataclass(frozen=True, kw_only=True)
class Genome:
    """Bases of whole genomes, stored once for every k, stride and strand.

    Args:
        files: FASTA or GenBank, plain or compressed.
        test: contigs kept for testing, never trained on.
        validation: contigs for the validation split.
        hold_out: BED of regions kept for testing; `margin` bases on each side are left out with them.
        exclude: contigs not to use at all (a mitochondrion, say).
        validation_every: where no `validation` is given, one block of 64 kb in so many is the validation split; 0 for none.
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

    def sources(self) -> Sequence[Path]:
        """Return the sequence files, one shard each."""
        if not self.files:
            raise ConfigError("no sequence file; give FASTA or GenBank files")
        return self.files

    def write(self, source: Path, shard: ShardWriter, on_reject: OnReject) -> None:
        """Stream the contigs of one file; each piece goes to disk as it comes."""
        runs = UnknownRuns()
        for piece in read_sequences(source, on_reject):
            if piece.name in self.exclude:
                continue
            shard.append(bases=piece.bases)
            runs.add(piece.bases)
            if piece.last:
                shard.append(unknown_runs=runs.close())
                length = piece.start + len(piece.bases)
                shard.end(
                    name=piece.name, length=np.int64(length), circular=np.bool_(piece.circular), file=Path(source).name
                )
                runs = UnknownRuns()

    def finish(self, store: Store) -> dict[str, Any]:
        """Return spans (contig number, start, stop, split) after hold-outs and N runs are cut out."""
        names = store.column("name")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise DataError(
                f"contig {repeated[0]!r} comes from two files; rename one, or exclude it", store.column("file")[0]
            )
        for name in (*self.test, *self.validation):
            if name not in names:
                raise ConfigError(f"no contig {name!r} to hold out; {did_you_mean(name, names)}")
        lengths = dict(zip(names, map(int, store.column("length")), strict=True))
        held = self._held_regions(lengths)
        spans = []
        for number, name in enumerate(names):
            cuts = spans_of_split(lengths[name], np.asarray(store[number]["unknown_runs"]), held.get(name, []))
            spans += [[number, start, stop, split] for start, stop, split in cuts if split in SPLITS]
        return {"spans": spans, "bases": sum(lengths.values()), "contigs": len(names)}

    def _held_regions(self, lengths: dict[str, int]) -> dict[str, list[tuple[int, int, str]]]:
        held: dict[str, list[tuple[int, int, str]]] = {}
        for name, length in lengths.items():
            if name in self.test or name in self.validation:
                held[name] = [(0, length, "test" if name in self.test else "validation")]
        if self.hold_out:
            intervals = reconcile(read_bed(self.hold_out), lengths)
            for name in dict.fromkeys(intervals.contig):
                if name not in held:
                    rows = intervals.select(intervals.contig == name)
                    held[name] = _with_margin(rows, lengths[name], self.margin)
        if self.validation_every and not self.validation:
            for name, length in lengths.items():
                if name not in held:
                    starts = range(
                        (self.validation_every // 2) * self.block_bp, length, self.validation_every * self.block_bp
                    )
                    held[name] = [(s, min(s + self.block_bp, length), "validation") for s in starts]
        return held


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


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Labelled sequences from tables (TSV, CSV, the UCI promoters file).

    Args:
        files: tables with a sequence and a label in each row.
        sequence_column, label_column: their names in the header.
        test_share, validation_share: shares of the rows drawn, class by class, for the splits where no `split` is in the table.
        numeric: the labels are numbers (for regression), not classes.
        seed: of the split.
    """

    files: tuple[Path, ...]
    sequence_column: str = "sequence"
    label_column: str = "label"
    test_share: float = 0.2
    validation_share: float = 0.1
    numeric: bool = False
    seed: int = 0

    domain: ClassVar[str] = "genomes"
    kind: ClassVar[str] = "windows"

    def sources(self) -> Sequence[tuple[Path, ...]]:
        """Return all files as one unit, since the split looks at them together."""
        if not self.files:
            raise ConfigError("no table; give TSV or CSV files")
        if not 0 <= self.test_share + self.validation_share < 1:
            raise ConfigError("test_share + validation_share must leave something to train on")
        return [self.files]

    def write(self, source: tuple[Path, ...], shard: ShardWriter, on_reject: OnReject) -> None:
        """Write all rows with their splits; equal sequences are kept in one split."""
        rows = [r for f in source for r in read_labelled(f, self.sequence_column, self.label_column, on_reject)]
        _, group = np.unique([r.bases.tobytes() for r in rows], return_inverse=True) if rows else ((), ())
        first = {g: r.label for g, r in zip(reversed(list(group)), reversed(rows), strict=True)}
        num = len(first)
        labels = np.array([first[g] for g in range(num)])
        order = balanced_or_natural(labels, self.seed)
        split = np.zeros(num, np.uint8)
        tests, devs = round(self.test_share * num), round(self.validation_share * num)
        split[order[:tests]], split[order[tests : tests + devs]] = SPLITS.index("test"), SPLITS.index("validation")
        for row, g in zip(rows, group, strict=True):
            extra: dict[str, Any] = {"label": row.label, "name": row.name, "split": split[g]}
            if self.numeric:
                extra["value"] = np.float64(_number(row.label, source[0], row.line))
            shard.add({"bases": row.bases}, **extra)

    def finish(self, store: Store) -> dict[str, Any]:
        """Return the class names, sorted."""
        return {"classes": [] if self.numeric else sorted(set(store.column("label")))}


def balanced_or_natural(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return an order in which every prefix holds the classes in about their own proportions."""
    order = balanced_subset(labels, len(labels), seed)
    rank = np.empty(len(order))
    for value in np.unique(labels):
        members = order[labels[order] == value]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(rank, kind="stable")


def _number(text: str, path: Path, line: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"label {text!r} is not a number; correct it or leave --numeric out", path, line) from None
