"""What `sciforge prepare` makes of a genome with its annotation: labelled windows, or a class
for every base.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from sciforge.core.data.store import SPLITS, ShardWriter, Store
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.genomes.data import labelled_windows, window_tasks
from sciforge.genomes.data.annotation import (
    Annotation,
    check_assembly,
    join_annotations,
    read_annotation,
    reconcile,
)
from sciforge.genomes.data.genome import OnReject, load_genome
from sciforge.genomes.data.sequences import N_CODE


class _WindowTask(Settings):
    """What the annotation tasks share: one unit of work that writes a table of windows."""

    domain: ClassVar[str] = "genomes"
    kind: ClassVar[str] = "windows"
    names: ClassVar[tuple[str, str]] = ("background", "positive")

    def sources(self) -> Sequence[str]:
        """Return one unit: matching negatives needs the whole genome at once."""
        return ["windows"]

    def _rows(
        self, genome: dict[str, np.ndarray], table: labelled_windows.Windows
    ) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        """Yield the oriented bases and the fixed columns of each window."""
        for i, bases in enumerate(labelled_windows.extract(genome, table)):
            yield (
                bases,
                {
                    "label": self.names[int(table.label[i])],
                    "split": np.uint8(SPLITS.index(table.split[i])),
                    "contig": str(table.contigs[table.contig[i]]),
                    "start": np.int64(table.start[i]),
                    "strand": np.int8(table.strand[i]),
                    "name": str(table.name[i]),
                },
            )

    def table(self) -> tuple[dict[str, np.ndarray], labelled_windows.Windows]:
        """Return the genome and the windows of the task."""
        raise TypeError(f"{type(self).__name__} must define table")

    def write(self, source: str, shard: ShardWriter, on_reject: OnReject) -> None:
        """Write every window with its label, split and place; note what was left out."""
        genome, table = self.table()
        shard.notes += table.notes
        for bases, columns in self._rows(genome, table):
            shard.add({"bases": bases}, **columns)

    def finish(self, store: Store) -> dict[str, Any]:
        """Return the class names; raises DataError where a class is missing."""
        if missing := set(self.names) - set(store.column("label")):
            raise DataError(
                f"no window of class {missing.pop()!r}; loosen the distance, or give more intervals"
            )
        return {"classes": list(self.names)}


@dataclass(frozen=True, kw_only=True)
class YeastPromoters(_WindowTask):
    """Yeast promoters: TSS -200..+50 of measured transcripts against GC-matched windows over 400 bp
    from any TSS.

    Args:
        genome: FASTA of S. cerevisiae (R64).
        transcripts: BED of Pol II transcripts with measured 5' ends.
        genes: GTF; where given, negatives lie inside coding sequences instead, an easier task.
        test: chromosomes held out for the test split.
        validation: chromosomes held out for the validation split.
        seed: of the negatives.
    """

    genome: Path
    transcripts: Path
    genes: Path | None = None
    test: tuple[str, ...] = ("IV", "XIII", "XV")
    validation: tuple[str, ...] = ("VIII",)
    seed: int = 0

    names: ClassVar[tuple[str, str]] = ("background", "promoter")

    def table(self) -> tuple[dict[str, np.ndarray], labelled_windows.Windows]:
        """Return the genome and the promoter windows."""
        genome = load_genome([self.genome])
        transcripts = _fitted(self.transcripts, genome, self.genome)
        genes = None if self.genes is None else _fitted(self.genes, genome, self.genome)
        rule = labelled_windows.ByContig(self.test, self.validation)
        windows = window_tasks.yeast_promoters(
            genome, transcripts, genes, rule=rule, seed=self.seed
        )
        return genome, _noted(windows, transcripts, *([] if genes is None else [genes]))


@dataclass(frozen=True, kw_only=True)
class EcoliCoding(_WindowTask):
    """Coding against intergenic windows of equal GC from an annotated bacterial genome.

    Args:
        genome: annotated GenBank, or FASTA together with `annotation`.
        annotation: GFF3; None where the genome is GenBank.
        length: bases of a window.
        seed: of the negatives.
    """

    genome: Path
    annotation: Path | None = None
    length: int = 100
    seed: int = 0

    names: ClassVar[tuple[str, str]] = ("intergenic", "coding")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "length")
        self.require(0, math.inf, "seed")

    def table(self) -> tuple[dict[str, np.ndarray], labelled_windows.Windows]:
        """Return the genome and the windows."""
        genome = load_genome([self.genome])
        annotation = _fitted(self.annotation or self.genome, genome, self.genome)
        windows = window_tasks.ecoli_coding(genome, annotation, length=self.length, seed=self.seed)
        return genome, _noted(windows, annotation)


@dataclass(frozen=True, kw_only=True)
class Intervals(_WindowTask):
    """Windows around any intervals of yours against matched windows away from all of them.

    Args:
        genome: FASTA or GenBank, one or several files.
        intervals: BED, GFF3, GTF or GenBank, one or several files.
        kinds: take only features of these kinds (gene, CDS, ...); all for BED.
        anchor: `middle` centres windows of `length`; `start` and `end` take `upstream` and
            `downstream` bases, by strand.
        length: bases of a centred window.
        upstream: bases before the anchor.
        downstream: bases from the anchor on.
        distance: least distance of a negative from any interval.
        test: contigs held out for the test split; where none is held out, blocks take turns (3 in
            10 test, 1 validation).
        validation: contigs held out for the validation split.
        block_bp: bases of a block.
        seed: of the negatives.
    """

    genome: tuple[Path, ...]
    intervals: tuple[Path, ...]
    kinds: tuple[str, ...] = ()
    anchor: Literal["middle", "start", "end"] = "middle"
    length: int = 200
    upstream: int = 200
    downstream: int = 50
    distance: int = 400
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    block_bp: int = 50_000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "length", "block_bp")
        self.require(0, math.inf, "distance", "seed")
        if not self.genome or not self.intervals:
            raise ConfigError(
                "intervals.genome and intervals.intervals need a file each; give FASTA and BED, for"
                " instance"
            )
        own, other = ("length",), ("upstream", "downstream")
        for name in other if self.anchor == "middle" else own:
            if getattr(self, name) != getattr(type(self), name):
                raise ConfigError(
                    f"intervals.{name} is not used with anchor {self.anchor}; leave it out, or"
                    f" choose anchor {'start or end' if self.anchor == 'middle' else 'middle'}"
                )
        _check_blocks(self)

    def table(self) -> tuple[dict[str, np.ndarray], labelled_windows.Windows]:
        """Return the genome and the windows."""
        genome = load_genome(self.genome)
        source = ", ".join(map(str, self.genome))
        intervals = join_annotations([_fitted(path, genome, source) for path in self.intervals])
        if self.kinds:
            _known_kinds(self.kinds, intervals)
        chosen = intervals.of_kind(*self.kinds) if self.kinds else intervals
        rule = _rule(self)
        options = {"distance": self.distance, "seed": self.seed}
        if self.anchor == "middle":
            windows = window_tasks.from_intervals(genome, chosen, rule, self.length, **options)
        else:
            reach = {"upstream": self.upstream, "downstream": self.downstream}
            windows = window_tasks.from_ends(genome, chosen, rule, self.anchor, **reach, **options)
        windows = _noted(windows, intervals, kinds=self.kinds)
        notes = () if self.kinds else _all_kinds(intervals)
        return genome, replace(windows, notes=(*notes, *windows.notes))


def _known_kinds(kinds: Sequence[str], intervals: Annotation) -> None:
    """Raise ConfigError where a kind of feature is not in the annotation."""
    if unknown := set(kinds) - set(intervals.kind):
        raise ConfigError(
            f"no feature of kind {min(unknown)!r};"
            f" {did_you_mean(min(unknown), set(intervals.kind))}"
        )


def _check_blocks(options: "Intervals | Tracks") -> None:
    """Raise ConfigError where blocks are sized and whole contigs are held out instead."""
    if (options.test or options.validation) and options.block_bp != type(options).block_bp:
        raise ConfigError(
            "block_bp is not used where contigs are held out (test, validation); leave one out"
        )


def _noted(
    windows: labelled_windows.Windows, *annotations: Annotation, kinds: Sequence[str] = ()
) -> labelled_windows.Windows:
    """Return windows with the notes of the annotations they come from, and the kinds of features
    that were read or not.
    """
    notes = [note for annotation in annotations for note in annotation.notes]
    for annotation in annotations:
        count_of = Counter(annotation.kind)
        rest = [kind for kind in count_of if kind not in kinds]
        listed = ", ".join(f"{kind} ({count_of[kind]})" for kind in sorted(rest))
        if kinds and rest:
            notes.append(f"features not used: {listed}")
    return replace(windows, notes=(*notes, *windows.notes))


def _all_kinds(intervals: Annotation) -> tuple[str, ...]:
    """Return a note that features of several kinds are taken alike, where they are."""
    kinds = sorted(set(intervals.kind))
    return (f"features of all kinds taken alike: {', '.join(kinds)}",) if len(kinds) > 1 else ()


def _rule(options: "Intervals | Tracks") -> labelled_windows.SplitRule:
    """Return the split by contigs where some are named, else by blocks."""
    if options.test or options.validation:
        return labelled_windows.ByContig(options.test, options.validation)
    return labelled_windows.ByBlock(options.block_bp, 10, test=(2, 5, 8), validation=(0,))


def _fitted(annotation: Path, genome: dict[str, np.ndarray], source: Path | str) -> Annotation:
    """Read an annotation and make sure that it belongs to the genome."""
    lengths = {name: len(codes) for name, codes in genome.items()}
    intervals = read_annotation(annotation)
    check_assembly(intervals, lengths, str(source))
    return reconcile(intervals, lengths, str(source))


@dataclass(frozen=True, kw_only=True)
class Tracks(Settings):
    """Windows of a genome with a class for every base, from annotation; the first kind given wins
    where kinds overlap.

    Args:
        genome: FASTA or GenBank.
        annotation: GFF3, GTF, BED or GenBank; None where the genome is GenBank.
        kinds: feature kinds in order of precedence (CDS, tRNA, ...).
        length: bases of a window.
        stranded: a feature on the other strand is a class of its own.
        test: contigs held out for the test split; where none is held out, blocks take turns (3 in
            10 test, 1 validation).
        validation: contigs held out for the validation split.
        block_bp: bases of a block.
    """

    genome: Path
    annotation: Path | None = None
    kinds: tuple[str, ...] = ("CDS",)
    length: int = 510
    stranded: bool = False
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    block_bp: int = 50_000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "length", "block_bp")
        if not self.kinds:
            raise ConfigError("tracks.kinds is empty; give feature kinds, CDS for instance")
        _check_blocks(self)

    domain: ClassVar[str] = "genomes"
    kind: ClassVar[str] = "tracks"

    def sources(self) -> Sequence[str]:
        """Return one unit of work."""
        return ["tracks"]

    def write(self, source: str, shard: ShardWriter, on_reject: OnReject) -> None:
        """Write every whole window that lies in one split."""
        genome = load_genome([self.genome])
        intervals = _fitted(self.annotation or self.genome, genome, self.genome)
        _known_kinds(self.kinds, intervals)
        tracks = {name: np.zeros(len(codes), np.uint8) for name, codes in genome.items()}
        for rank, kind in reversed(list(enumerate(self.kinds))):
            rows = intervals.of_kind(kind)
            for contig, start, end, strand in zip(
                rows.contig, rows.start, rows.end, rows.strand, strict=True
            ):
                other = self.stranded and strand < 0
                tracks[contig][start:end] = 1 + rank + (len(self.kinds) if other else 0)
        names = tuple(genome)
        starts = [
            (i, s)
            for i, n in enumerate(names)
            for s in range(0, len(genome[n]) - self.length + 1, self.length)
        ]
        contig, start = np.array(starts, np.int64).reshape(-1, 2).T
        blank = np.full(len(start), "")
        table = labelled_windows.windows_of(
            names, contig, start, self.length, np.ones(len(start)), blank
        )
        left_out: Counter[str] = Counter()
        for i, split in enumerate(_rule(self).assign(table)):
            name = names[contig[i]]
            here = slice(int(start[i]), int(start[i]) + self.length)
            if split not in SPLITS:
                left_out["they lie across the border of two splits"] += 1
            elif ((genome[name][here] & 7) == N_CODE).all():
                left_out["all their bases are unknown (N)"] += 1
            else:
                columns = {
                    "contig": name,
                    "start": np.int64(start[i]),
                    "split": np.uint8(SPLITS.index(split)),
                }
                shard.add({"bases": genome[name][here], "track": tracks[name][here]}, **columns)
        shard.notes += intervals.notes
        shard.notes += [f"{n} windows left out: {reason}" for reason, n in left_out.items()]
        rest = sum(len(codes) % self.length for codes in genome.values())
        if rest:
            shard.notes.append(f"{rest} bases at the ends of contigs fill no whole window")

    def finish(self, store: Store) -> dict[str, Any]:
        """Return the names of the classes of a base."""
        other = [f"{kind} on the other strand" for kind in self.kinds] if self.stranded else []
        return {"track_classes": ["background", *self.kinds, *other]}
