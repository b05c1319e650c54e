"""Labelled windows of a genome, made from its annotation: positives, matched negatives, splits
without leaks.

A window is an interval on the + strand; strand -1 says that it is reverse-complemented when read
(extract does so). Shortcuts are taken out: negatives match their positives in length, GC and N
content within each split, and a locus is in one split for both strands. Random draws come from the
generator passed in.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.genomes.data.annotation import Annotation
from sciforge.genomes.data.sequences import N_CODE, reverse_complement

Contigs = dict[str, np.ndarray]  # contig name -> uint8 codes [length]; may be memory-mapped
SPLITS = ("train", "validation", "test")


_ROUNDS = 12  # tries for each cell to draw a window of a composition that is still wanted


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of one task; every array has one entry a window, contigs lists the names that contig
    indexes.

    contig int32; start int64 (0-based, on the + strand); length int32; strand int8 (+1, -1); label
    int32; split object (train, validation, test, or '' for not yet); name object; notes: how many
    windows were left out on the way, and why.
    """

    contigs: tuple[str, ...]
    contig: np.ndarray
    start: np.ndarray
    length: np.ndarray
    strand: np.ndarray
    label: np.ndarray
    split: np.ndarray
    name: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.start)

    @property
    def end(self) -> np.ndarray:
        """Return the ends, int64, not included."""
        return self.start + self.length

    def select(self, chosen: np.ndarray) -> "Windows":
        """Return the windows that a boolean mask or an index array picks."""
        columns = ("contig", "start", "length", "strand", "label", "split", "name")
        return replace(self, **{column: getattr(self, column)[chosen] for column in columns})

    def keep(self, mask: np.ndarray, reason: str) -> "Windows":
        """Return the windows that a boolean mask picks, with a note of how many it leaves out."""
        dropped = len(self) - int(mask.sum())
        notes = (f"{dropped} windows left out: {reason}",) if dropped else ()
        return replace(self.select(mask), notes=self.notes + notes)

    def counts(self) -> dict[str, int]:
        """Return the number of windows in each split."""
        return {split: int((self.split == split).sum()) for split in SPLITS}


def windows_of(
    contigs: tuple[str, ...],
    contig: np.ndarray,
    start: np.ndarray,
    length: int,
    strand: np.ndarray,
    name: np.ndarray,
) -> Windows:
    """Return windows of one length, label 0, not yet split."""
    n = len(start)
    lengths, labels = np.full(n, length, np.int32), np.zeros(n, np.int32)
    columns = (
        contig.astype(np.int32),
        start.astype(np.int64),
        lengths,
        strand.astype(np.int8),
        labels,
    )
    return Windows(contigs, *columns, np.full(n, "", object), name.astype(object))


def join(*parts: Windows) -> Windows:
    """Return the windows of all parts, which must be of one genome, one after another."""
    columns = ("contig", "start", "length", "strand", "label", "split", "name")
    joined: dict = {c: np.concatenate([getattr(part, c) for part in parts]) for c in columns}
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return replace(parts[0], **joined, notes=notes)


def around(
    intervals: Annotation,
    genome: Contigs,
    upstream: int,
    downstream: int,
    anchor: Literal["start", "end"] = "start",
) -> Windows:
    """Return the windows from upstream bases before to downstream bases after the first (or last)
    base, by strand.

    With anchor position p: + is [p - upstream, p + downstream), - is [p - downstream + 1, p +
    upstream + 1), to be reverse-complemented. Windows past the ends of a contig are left out; one
    window for each (contig, p, strand).

    Raises:
        DataError: an interval has no strand.
        ConfigError: the window is empty.
    """
    if upstream + downstream < 1:
        raise ConfigError(
            f"upstream {upstream} and downstream {downstream} leave an empty window; ask for more"
        )
    if (intervals.strand == 0).any():
        line = int(intervals.line[(intervals.strand == 0).argmax()])
        raise DataError(
            "this interval has no strand; give column 6 of BED or column 7 of GFF",
            intervals.path,
            line,
        )
    forward = intervals.strand > 0
    anchor_at = np.where(forward == (anchor == "start"), intervals.start, intervals.end - 1)
    start = np.where(forward, anchor_at - upstream, anchor_at - downstream + 1)
    contig = _contig_index(intervals, genome)
    windows = windows_of(
        tuple(genome), contig, start, upstream + downstream, intervals.strand, intervals.name
    )
    key = np.stack([windows.contig, windows.start, windows.strand], axis=1)
    _, first = np.unique(key, axis=0, return_index=True)
    windows = windows.keep(
        np.isin(np.arange(len(windows)), first), "another has the same anchor and strand"
    )
    return _within_contigs(windows, genome)


def centred(intervals: Annotation, genome: Contigs, length: int) -> Windows:
    """Return one window of the given length about the middle of each interval (strand 0 is read
    as +).
    """
    start = (intervals.start + intervals.end - length) // 2
    strand = np.where(intervals.strand < 0, -1, 1)
    windows = windows_of(
        tuple(genome), _contig_index(intervals, genome), start, length, strand, intervals.name
    )
    return _within_contigs(windows, genome)


def _within_contigs(windows: Windows, genome: Contigs) -> Windows:
    inside = (windows.start >= 0) & (windows.end <= lengths_bp(genome)[windows.contig])
    return windows.keep(inside, "they reach past the end of a contig")


def _contig_index(intervals: Annotation, genome: Contigs) -> np.ndarray:
    index = {name: i for i, name in enumerate(genome)}
    for name in dict.fromkeys(intervals.contig):
        if name not in index:
            raise DataError(
                f"no contig {name!r} in the genome; {did_you_mean(name, index)}", intervals.path
            )
    return np.array([index[name] for name in intervals.contig], np.int32)


def lengths_bp(genome: Contigs) -> np.ndarray:
    """Return the bases of each contig, int64 [contigs]."""
    return np.array([len(codes) for codes in genome.values()], np.int64)


def extract(genome: Contigs, windows: Windows) -> Iterator[np.ndarray]:
    """Yield the codes of each window, uint8 [length], read in the direction of its strand."""
    for contig, start, end, strand in zip(
        windows.contig, windows.start, windows.end, windows.strand, strict=True
    ):
        codes = np.asarray(genome[windows.contigs[contig]][start:end])
        yield reverse_complement(codes) if strand < 0 else codes


def composition(genome: Contigs, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Return (GC fraction of the known bases, float64; number of unknown bases, int64) of each
    window.
    """
    gc, unknown = np.zeros(len(windows), np.int64), np.zeros(len(windows), np.int64)
    for index in np.unique(windows.contig):
        rows = windows.contig == index
        base = np.asarray(genome[windows.contigs[index]]) & 7
        for total, marks in ((gc, (base == 1) | (base == 2)), (unknown, base == N_CODE)):
            before = np.zeros(len(base) + 1, np.int32 if len(base) < 2**31 else np.int64)
            np.cumsum(marks, out=before[1:])
            total[rows] = before[windows.end[rows]] - before[windows.start[rows]]
    return gc / np.maximum(windows.length - unknown, 1), unknown


class SplitRule(Protocol):
    """Assigns windows to splits."""

    def assign(self, windows: Windows) -> np.ndarray:
        """Return the split of each window, object [windows]; '' where it lies across a border."""
        ...


@dataclass(frozen=True)
class ByContig:
    """Whole contigs are held out."""

    test: tuple[str, ...]
    validation: tuple[str, ...]

    def assign(self, windows: Windows) -> np.ndarray:
        """Return the splits, object.

        Raises:
            ConfigError: a held-out contig is not in the genome.
        """
        for name in (*self.test, *self.validation):
            if name not in windows.contigs:
                raise ConfigError(
                    f"no contig {name!r} to hold out; {did_you_mean(name, windows.contigs)}"
                )
        splits = [
            "test" if name in self.test else "validation" if name in self.validation else "train"
            for name in windows.contigs
        ]
        return np.array(splits, object)[windows.contig]


@dataclass(frozen=True)
class ByBlock:
    """Blocks of block_bp bases take turns: block number modulo turns is in test, in validation,
    or else in train.
    """

    block_bp: int
    turns: int
    test: tuple[int, ...]
    validation: tuple[int, ...]

    def assign(self, windows: Windows) -> np.ndarray:
        """Return the splits, object; '' where the first and the last base are in different ones."""
        turns = [
            "test" if i in self.test else "validation" if i in self.validation else "train"
            for i in range(self.turns)
        ]
        by_turn = np.array(turns, object)
        first = by_turn[(windows.start // self.block_bp) % self.turns]
        last = by_turn[((windows.end - 1) // self.block_bp) % self.turns]
        return np.where(first == last, first, "")


def assigned(windows: Windows, rule: SplitRule) -> Windows:
    """Return the windows with their splits; those across a border are left out."""
    windows = replace(windows, split=rule.assign(windows))
    return windows.keep(windows.split != "", "they lie across the border of two splits")


@dataclass(frozen=True, eq=False)
class Regions:
    """Stretches of every contig: starts (sorted) and ends (each the largest so far), int64, one
    array a contig.
    """

    starts: list[np.ndarray]
    ends: list[np.ndarray]

    @classmethod
    def of(cls, intervals: Annotation, genome: Contigs, margin: int = 0) -> "Regions":
        """Return the regions that intervals cover, each widened by margin bases on either side."""
        contig = _contig_index(intervals, genome)
        starts, ends = [], []
        for index in range(len(genome)):
            rows = np.flatnonzero(contig == index)
            rows = rows[np.argsort(intervals.start[rows], kind="stable")]
            starts.append(intervals.start[rows] - margin)
            ends.append(np.maximum.accumulate(intervals.end[rows] + margin))
        return cls(starts, ends)

    def gaps(self, lengths_bp: np.ndarray) -> "Regions":
        """Return the stretches between these, from the first to the last base of each contig."""
        starts, ends = [], []
        for start, end, length in zip(self.starts, self.ends, lengths_bp, strict=True):
            left, right = np.concatenate([[0], end]), np.concatenate([start, [length]])
            starts.append(left[left < right])
            ends.append(right[left < right])
        return Regions(starts, ends)

    def hold(self, windows: Windows) -> np.ndarray:
        """Return a boolean mask of the windows that lie within a single one of the intervals."""
        inside = np.zeros(len(windows), bool)
        for index, (starts, ends) in enumerate(zip(self.starts, self.ends, strict=True)):
            rows = np.flatnonzero(windows.contig == index)
            at = np.searchsorted(starts, windows.start[rows], side="right") - 1
            known = at >= 0
            inside[rows[known]] = ends[at[known]] >= windows.end[rows[known]]
        return inside


def anchors(windows: Windows, upstream: int) -> Annotation:
    """Return the one-base intervals at the anchors of windows made by around with this upstream."""
    at = np.where(windows.strand > 0, windows.start + upstream, windows.end - 1 - upstream)
    contig, blank = (
        np.array(windows.contigs, object)[windows.contig],
        np.full(len(windows), "", object),
    )
    number = np.arange(len(windows))
    return Annotation(contig, at, at + 1, windows.strand, blank, windows.name, number, number)


def _strata(genome: Contigs, windows: Windows, gc_bin: float) -> np.ndarray:
    """Return one integer for each window that stands for its split, GC bin and number of unknown
    bases.
    """
    gc, unknown = composition(genome, windows)
    split = np.array([SPLITS.index(name) for name in windows.split], np.int64)
    bins = int(1 / gc_bin) + 2
    # half a millionth keeps a fraction that is a multiple of the bin width on one side of its
    # border
    return (unknown * bins + np.floor(gc / gc_bin + 5e-7).astype(np.int64)) * len(SPLITS) + split


def _ranks(keys: np.ndarray) -> np.ndarray:
    """Return how many equal keys stand before each key.

    >>> _ranks(np.array([5, 3, 5, 5])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(keys, kind="stable")
    new = np.concatenate([[True], keys[order][1:] != keys[order][:-1]])[: len(keys)]
    ranks = np.empty(len(keys), np.int64)
    ranks[order] = np.arange(len(keys)) - np.maximum.accumulate(
        np.where(new, np.arange(len(keys)), 0)
    )
    return ranks


def matched(
    genome: Contigs,
    like: Windows,
    within: Regions,
    rule: SplitRule,
    generator: np.random.Generator,
    gc_bin: float = 0.02,
    cell_bp: int | None = None,
) -> tuple[Windows, Windows]:
    """Return (windows of like that have a partner, their partners): equal counts in each split, GC
    bin and N count.

    Partners lie within the given regions, on a random strand, have the length of like, label 0, and
    at most one starts in each cell of cell_bp bases (by default half a length).

    Raises:
        ConfigError: like is empty, or its windows differ in length.
    """
    if len(like) == 0 or like.length.min() != like.length.max():
        raise ConfigError("matching needs windows, all of one length; check the intervals")
    length = int(like.length[0])
    cell_bp = cell_bp or max(length // 2, 1)
    cells = -(-lengths_bp(genome) // cell_bp)
    contig = np.repeat(np.arange(len(genome)), cells)
    cell_start = (np.arange(len(contig)) - np.repeat(np.cumsum(cells) - cells, cells)) * cell_bp
    wanted, partners, matched_keys = _strata(genome, like, gc_bin), [], np.zeros(0, np.int64)
    unmet = wanted
    for _ in range(_ROUNDS):
        order = generator.permutation(len(contig))
        contig, cell_start = contig[order], cell_start[order]
        start = cell_start + generator.integers(0, cell_bp, len(contig))
        strand = generator.integers(0, 2, len(contig)) * 2 - 1
        drawn = windows_of(like.contigs, contig, start, length, strand, np.full(len(contig), ""))
        drawn = replace(drawn, split=rule.assign(drawn))
        fit = np.flatnonzero((drawn.split != "") & within.hold(drawn))
        keys = _strata(genome, drawn.select(fit), gc_bin)
        taken = _ranks(keys) < _count_of(keys, unmet)
        partners.append(drawn.select(fit[taken]))
        matched_keys = np.concatenate([matched_keys, keys[taken]])
        unmet = wanted[_ranks(wanted) >= _count_of(wanted, matched_keys)]
        contig, cell_start = np.delete(contig, fit[taken]), np.delete(cell_start, fit[taken])
        if not len(unmet):
            break
    with_partner = _ranks(wanted) < _count_of(wanted, matched_keys)
    return like.keep(with_partner, "no window of the other class matches them"), join(*partners)


def _count_of(keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return how often each key occurs among others."""
    among = np.sort(among)
    return np.searchsorted(among, keys, side="right") - np.searchsorted(among, keys, side="left")


def without_unknown(genome: Contigs, windows: Windows) -> Windows:
    """Return the windows that hold no N."""
    return windows.keep(composition(genome, windows)[1] == 0, "they hold unknown bases (N)")
