"""Ready recipes: labelled tasks from a genome and its annotation, with matched negatives and honest
splits.

The rules of each are in its docstring and in docs/genomes.md.
"""

from dataclasses import replace
from typing import Literal

import numpy as np

from sciforge.errors import ConfigError
from sciforge.genomes.data.annotation import MITOCHONDRIA, Annotation
from sciforge.genomes.data.labelled_windows import (
    ByBlock,
    ByContig,
    Contigs,
    Regions,
    SplitRule,
    Windows,
    anchors,
    around,
    assigned,
    centred,
    join,
    lengths_bp,
    matched,
    windows_of,
    without_unknown,
)

OCCUPIED = frozenset(
    {
        "gene",
        "pseudogene",
        "CDS",
        "exon",
        "transcript",
        "mobile_element",
        "mobile_genetic_element",
        "repeat_region",
    }
)


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def _labelled(positives: Windows, negatives: Windows) -> Windows:
    """Return positives with label 1 and negatives with label 0, ordered by place so that order
    tells nothing.
    """
    positives = replace(positives, label=np.ones(len(positives), np.int32))
    both = join(positives, replace(negatives, label=np.zeros(len(negatives), np.int32)))
    return both.select(np.lexsort((both.strand, both.start, both.contig)))


def from_intervals(
    genome: Contigs,
    intervals: Annotation,
    rule: SplitRule,
    length: int,
    distance: int = 0,
    seed: int = 0,
) -> Windows:
    """Return windows about the middles of intervals (label 1), and matched ones at a distance
    from all (label 0).
    """
    positives = assigned(without_unknown(genome, centred(intervals, genome, length)), rule)
    outside = Regions.of(intervals, genome, distance).gaps(lengths_bp(genome))
    return _labelled(*matched(genome, positives, outside, rule, _generator(seed)))


YEAST_SPLIT = ByContig(test=("IV", "XIII", "XV"), validation=("VIII",))
ECOLI_SPLIT = ByBlock(block_bp=232_000, turns=10, test=(2, 5, 8), validation=(0,))


def yeast_promoters(
    genome: Contigs,
    transcripts: Annotation,
    genes: Annotation | None = None,
    *,
    rule: SplitRule = YEAST_SPLIT,
    upstream: int = 200,
    downstream: int = 50,
    distance: int = 400,
    seed: int = 0,
) -> Windows:
    """Return promoters (label 1) by measured transcript starts, and as many windows of like GC
    elsewhere (label 0).

    Negatives have no start of either strand within distance bases; given genes, they lie inside a
    CDS instead (easier). The mitochondrion is left out.
    """
    genome = {name: codes for name, codes in genome.items() if name not in MITOCHONDRIA}
    nuclear = np.array([name not in MITOCHONDRIA for name in transcripts.contig], bool)
    omitted = len(transcripts) - int(nuclear.sum())
    transcripts = transcripts.select(nuclear)
    sites = around(transcripts, genome, upstream, downstream)
    positives = assigned(without_unknown(genome, sites), rule)
    if genes is None:
        starts = around(transcripts, genome, 0, 1)
        within = Regions.of(anchors(starts, 0), genome, distance).gaps(lengths_bp(genome))
    else:
        coding = genes.of_kind("CDS")
        coding = coding.select(np.array([name not in MITOCHONDRIA for name in coding.contig], bool))
        within = Regions.of(coding, genome)
    windows = _labelled(*matched(genome, positives, within, rule, _generator(seed)))
    notes = (f"{omitted} transcripts of the mitochondrion left out",) if omitted else ()
    return replace(windows, notes=notes + windows.notes)


def ecoli_coding(
    genome: Contigs,
    annotation: Annotation,
    *,
    rule: SplitRule = ECOLI_SPLIT,
    length: int = 100,
    seed: int = 0,
) -> Windows:
    """Return windows inside a CDS (label 1) and as many of like GC between all genes, RNAs and
    repeats (label 0).

    Tiles between genes are the scarce class, so coding windows are matched to them; strands are
    random for both.
    """
    generator, kinds = _generator(seed), set(annotation.kind)
    occupied = annotation.of_kind(
        *(kind for kind in kinds if kind in OCCUPIED or kind.endswith("RNA"))
    )
    between = Regions.of(occupied, genome).gaps(lengths_bp(genome))
    tiles = [
        (index, start)
        for index, stretches in enumerate(zip(between.starts, between.ends, strict=True))
        for left, right in zip(*stretches, strict=True)
        for start in range(left, right - length + 1, length)
    ]
    contig, start = np.array(tiles, np.int64).reshape(-1, 2).T
    strand = generator.integers(0, 2, len(tiles)) * 2 - 1
    tiled = windows_of(tuple(genome), contig, start, length, strand, np.full(len(tiles), ""))
    tiled = assigned(without_unknown(genome, tiled), rule)
    coding = Regions.of(annotation.of_kind("CDS"), genome)
    noncoding, coding_windows = matched(
        genome, tiled, coding, rule, generator, gc_bin=0.04, cell_bp=length
    )
    return _labelled(coding_windows, noncoding)


def from_ends(
    genome: Contigs,
    intervals: Annotation,
    rule: SplitRule,
    anchor: Literal["start", "end"] = "start",
    *,
    upstream: int = 200,
    downstream: int = 50,
    distance: int = 400,
    seed: int = 0,
) -> Windows:
    """Return windows about the first or last base of intervals, by strand (label 1), and matched
    ones elsewhere (label 0).

    Negatives keep `distance` from every anchor of either strand, and never overlap a positive.

    Raises:
        ConfigError: the anchor is unknown, or no window is left.
        DataError: an interval has no strand.
    """
    if anchor not in ("start", "end"):
        raise ConfigError(f"anchor is {anchor!r}; use start or end")
    positives = assigned(
        without_unknown(genome, around(intervals, genome, upstream, downstream, anchor)), rule
    )
    sites = anchors(around(intervals, genome, 0, 1, anchor), 0)
    outside = Regions.of(sites, genome, max(distance, upstream, downstream)).gaps(
        lengths_bp(genome)
    )
    return _labelled(*matched(genome, positives, outside, rule, _generator(seed)))
