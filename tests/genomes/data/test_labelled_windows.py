"""Labelled windows: off-by-one on both strands, no leak between splits, negatives without
shortcuts.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciforge.errors import ConfigError, DataError
from sciforge.genomes.data.annotation import Annotation, read_annotation, reconcile
from sciforge.genomes.data.labelled_windows import (
    ByBlock,
    ByContig,
    Contigs,
    Regions,
    Windows,
    anchors,
    around,
    assigned,
    centred,
    composition,
    extract,
    matched,
)
from sciforge.genomes.data.sequences import (
    SOFT_MASK,
    as_letters,
    encode,
    read_sequences,
    reverse_complement,
)
from sciforge.genomes.data.window_tasks import (
    ECOLI_SPLIT,
    ecoli_coding,
    from_intervals,
    without_unknown,
    yeast_promoters,
)

SHARED = (
    Path(os.environ.get("SCIFORGE_SHARED", Path(__file__).parents[4] / "shared"))
    / "data"
    / "genomes"
)
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the shared data are not at {SHARED}"
)
COLUMNS = ("contig", "start", "length", "strand", "label", "split", "name")


def intervals(*rows: tuple) -> Annotation:
    """Rows are (contig, start, end, strand) or (contig, start, end, strand, kind)."""
    contig, start, end, strand = (np.array([row[i] for row in rows], object) for i in range(4))
    kind = np.array([row[4] if len(row) > 4 else "region" for row in rows], object)
    number = np.arange(len(rows))
    start, end = start.astype(np.int64), end.astype(np.int64)
    return Annotation(
        contig, start, end, strand.astype(np.int8), kind, kind, number + 1, number, "a.bed"
    )


def random_genome(seed: int = 0, **lengths: int) -> Contigs:
    generator = np.random.Generator(np.random.Philox(seed))
    return {
        name: generator.integers(0, 4, length).astype(np.uint8) for name, length in lengths.items()
    }


def letters(genome: Contigs, windows: Windows) -> list[str]:
    return [as_letters(codes) for codes in extract(genome, windows)]


def same(one: Windows, other: Windows) -> bool:
    return all(np.array_equal(getattr(one, column), getattr(other, column)) for column in COLUMNS)


def load(path: Path) -> Contigs:
    parts: dict[str, list] = {}
    for piece in read_sequences(path):
        parts.setdefault(piece.name, []).append(piece.bases)
    return {name: np.concatenate(bases) for name, bases in parts.items()}


def test_windows_around_starts_on_both_strands():
    #                      0123456789
    genome = {"c": encode(b"AACCGTTAGc")}
    found = around(intervals(("c", 3, 6, 1), ("c", 3, 6, -1)), genome, upstream=2, downstream=1)
    assert found.start.tolist() == [1, 5] and found.end.tolist() == [4, 8]
    # the anchor is base 3 (C) on +, base 5 (T, read as A) on -: it is the last of three bases read
    assert letters(genome, found) == ["ACC", "TAA"]
    ends = around(intervals(("c", 3, 6, 1), ("c", 3, 6, -1)), genome, 2, 1, anchor="end")
    assert ends.start.tolist() == [3, 3] and letters(genome, ends) == ["CGT", "ACG"]


@given(
    st.integers(0, 80),
    st.integers(1, 20),
    st.integers(0, 30),
    st.integers(1, 30),
    st.sampled_from(["start", "end"]),
)
@settings(max_examples=80, deadline=None)
def test_the_other_strand_is_the_mirror(start, size, upstream, downstream, anchor):
    genome = random_genome(c=100)
    mirrored = {"c": reverse_complement(genome["c"])}
    forward = around(intervals(("c", start, start + size, 1)), genome, upstream, downstream, anchor)
    backward = around(
        intervals(("c", 100 - start - size, 100 - start, -1)),
        mirrored,
        upstream,
        downstream,
        anchor,
    )
    assert letters(genome, forward) == letters(mirrored, backward)
    if len(forward):
        (read,) = extract(genome, forward)
        at = start if anchor == "start" else start + size - 1
        assert len(read) == upstream + downstream and read[upstream] == genome["c"][at]
        assert anchors(forward, upstream).start.tolist() == [at]
        assert anchors(backward, upstream).start.tolist() == [99 - at]


def test_the_rule_of_the_notes():
    genome = random_genome(c=1000)
    found = around(intervals(("c", 500, 600, 1), ("c", 500, 600, -1)), genome, 200, 50)
    tss = 599  # BED end - 1
    assert list(zip(found.start.tolist(), found.end.tolist(), strict=True)) == [
        (300, 550),
        (tss - 49, tss + 201),
    ]


def test_windows_at_the_ends_of_contigs_and_duplicates():
    genome = random_genome(c=100)
    rows = [
        ("c", 10, 20, 1),
        ("c", 9, 20, 1),
        ("c", 10, 30, 1),
        ("c", 5, 90, -1),
        ("c", 5, 91, -1),
        ("c", 96, 99, 1),
    ]
    found = around(intervals(*rows), genome, upstream=10, downstream=5)
    assert found.start.tolist() == [0, 85] and found.strand.tolist() == [1, -1]
    with pytest.raises(DataError, match="a.bed:1: this interval has no strand"):
        around(intervals(("c", 10, 20, 0)), genome, 1, 1)
    with pytest.raises(DataError, match="no contig 'd' in the genome; "):
        around(intervals(("d", 10, 20, 1)), genome, 1, 1)
    with pytest.raises(ConfigError, match="empty window"):
        around(intervals(("c", 10, 20, 1)), genome, 1, -1)
    middle = centred(intervals(("c", 10, 20, 0), ("c", 0, 2, 1)), genome, 4)
    assert middle.start.tolist() == [13] and middle.strand.tolist() == [1]


def test_composition_counts_soft_masked_bases_and_leaves_n_out():
    genome = {"c": encode(b"GCgcATNNNNAT")}
    found = around(intervals(("c", 0, 9, 1), ("c", 2, 9, 1), ("c", 8, 9, 1)), genome, 0, 4)
    gc, unknown = composition(genome, found)
    assert gc.tolist() == [1.0, 0.5, 0.0] and unknown.tolist() == [0, 0, 2]
    assert len(without_unknown(genome, found)) == 2
    assert next(extract(genome, found)).tolist() == [2, 1, 2 | SOFT_MASK, 1 | SOFT_MASK]


def test_splits():
    genome = random_genome(a=100, b=100)
    found = around(
        intervals(("a", 8, 9, 1), ("a", 10, 11, 1), ("a", 9, 10, -1), ("b", 20, 21, 1)),
        genome,
        0,
        4,
    )
    by_block = ByBlock(block_bp=10, turns=3, test=(1,), validation=(0,))
    assert by_block.assign(found).tolist() == ["", "test", "validation", "train"]
    assert assigned(found, by_block).split.tolist() == ["test", "validation", "train"]
    by_contig = ByContig(test=("b",), validation=())
    assert assigned(found, by_contig).counts() == {"train": 3, "validation": 0, "test": 1}
    with pytest.raises(ConfigError, match="no contig 'chrb' to hold out; "):
        ByContig(test=("chrb",), validation=()).assign(found)


@given(
    st.lists(st.tuples(st.integers(0, 49), st.integers(1, 12)), min_size=1, max_size=8),
    st.integers(0, 5),
)
@settings(max_examples=80, deadline=None)
def test_regions_against_every_window_by_hand(rows, margin):
    genome = random_genome(c=60, d=20)
    found = intervals(*[("c", start, min(start + size, 60), 1) for start, size in rows])
    windows = around(
        intervals(*[(name, at, at + 1, 1) for name in "cd" for at in range(60)]), genome, 0, 5
    )
    touched = np.zeros(60, bool)
    for start, end in zip(found.start, found.end, strict=True):
        touched[max(start - margin, 0) : end + margin] = True
    single = [
        contig == 0
        and any(
            a - margin <= s and s + 5 <= b + margin
            for a, b in zip(found.start, found.end, strict=True)
        )
        for contig, s in zip(windows.contig, windows.start, strict=True)
    ]
    free = [
        contig == 1 or not touched[s : s + 5].any()
        for contig, s in zip(windows.contig, windows.start, strict=True)
    ]
    regions = Regions.of(found, genome, margin)
    assert regions.hold(windows).tolist() == single
    assert regions.gaps(np.array([60, 20])).hold(windows).tolist() == free


def test_matched_windows_are_like_their_partners():
    genome = random_genome(a=40_000, b=20_000, c=20_000)
    genome["a"][5000:9000] = 4
    points = intervals(
        *[
            (name, at, at + 1, sign)
            for name in "abc"
            for at in range(500, 20_000, 700)
            for sign in (1, -1)
        ]
    )
    rule = ByContig(test=("b",), validation=("c",))
    positives = assigned(without_unknown(genome, around(points, genome, 30, 20)), rule)
    within = Regions.of(points, genome, margin=60).gaps(np.array([40_000, 20_000, 20_000]))

    def draw(seed: int) -> tuple[Windows, Windows]:
        return matched(genome, positives, within, rule, np.random.Generator(np.random.Philox(seed)))

    kept, partners = draw(1)
    assert kept.counts() == partners.counts() == positives.counts()
    assert set(partners.strand.tolist()) == {1, -1} and set(partners.length.tolist()) == {50}
    for split in ("train", "validation", "test"):
        gc = [
            np.sort(np.floor(composition(genome, w.select(w.split == split))[0] * 50 + 1e-6))
            for w in (kept, partners)
        ]
        assert np.array_equal(*gc)
    assert composition(genome, partners)[1].max() == 0
    at = {name: np.arange(500, 20_000, 700) for name in "abc"}
    for contig, start, end in zip(partners.contig, partners.start, partners.end, strict=True):
        place = at["abc"[contig]]
        assert np.minimum(abs(place - start), abs(place - (end - 1))).min() > 60
    cells = list(zip(partners.contig.tolist(), (partners.start // 25).tolist(), strict=True))
    assert len(set(cells)) == len(cells)
    assert same(draw(1)[1], partners) and not same(draw(2)[1], partners)


def test_positives_without_partner_are_left_out():
    genome = {"c": np.concatenate([encode(b"G" * 50), encode(b"AT" * 200)])}
    positives = assigned(
        around(intervals(("c", 0, 1, 1), ("c", 60, 61, 1)), genome, 0, 10), ByContig((), ())
    )
    everywhere = Regions.of(intervals(("c", 100, 450, 1)), genome)
    kept, partners = matched(
        genome, positives, everywhere, ByContig((), ()), np.random.Generator(np.random.Philox(0))
    )
    assert kept.start.tolist() == [60] and len(partners) == 1 and partners.start[0] >= 100
    with pytest.raises(ConfigError, match="all of one length"):
        matched(
            genome,
            positives.select(np.zeros(2, bool)),
            everywhere,
            ByContig((), ()),
            np.random.default_rng(0),
        )


def test_recipes_leave_the_global_generator_alone():
    genome = random_genome(a=30_000, b=9_000)
    found = intervals(*[("ab"[at % 2], at * 20 + 300, at * 20 + 400, 1) for at in range(200)])
    before = np.random.get_state()[1].copy()
    one, two = (from_intervals(genome, found, ByContig(("b",), ()), 60, seed=3) for _ in range(2))
    assert same(one, two) and np.array_equal(before, np.random.get_state()[1])
    assert one.label.sum() * 2 == len(one) > 0


def test_coding_windows_lie_in_one_cds_and_tiles_in_none():
    genome = random_genome(c=60_000)
    genes = [
        ("c", at, at + 700, 1, kind) for at in range(0, 60_000, 1500) for kind in ("gene", "CDS")
    ]
    found = intervals(("c", 0, 60_000, 1, "source"), *genes, ("c", 800, 900, 1, "tRNA"))
    windows = ecoli_coding(genome, found, rule=ByBlock(6000, 5, (1,), (2,)))
    phase, coding = windows.start % 1500, windows.label == 1
    assert coding.sum() * 2 == len(windows) > 300
    assert (
        (phase[coding] <= 600).all()
        and (phase[~coding] >= 700).all()
        and (phase[~coding] <= 1400).all()
    )
    assert (windows.start[~coding] // 100 != 8).all()
    assert (windows.start // 6000 == (windows.end - 1) // 6000).sum() >= len(windows) - 20


@needs_shared
def test_yeast_promoters_as_in_the_notes():
    folder = SHARED / "yeast"
    genome = load(folder / "Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz")
    lengths_bp = {name: len(codes) for name, codes in genome.items()}
    transcripts = reconcile(
        read_annotation(folder / "Scer_polIItranscripts-adjustedTSS.bed"), lengths_bp
    )
    windows = yeast_promoters(genome, transcripts)
    assert windows.counts() == {"train": 8414, "validation": 588, "test": 3790}
    assert same(windows, yeast_promoters(genome, transcripts))
    gc, unknown = composition(genome, windows)
    assert (
        abs(gc[windows.label == 1].mean() - gc[windows.label == 0].mean()) < 0.001
        and unknown.max() == 0
    )
    held = {
        name for name, split in zip(windows.contig, windows.split, strict=True) if split == "test"
    }
    assert {windows.contigs[index] for index in held} == {"IV", "XIII", "XV"}
    genes = reconcile(
        read_annotation(folder / "Saccharomyces_cerevisiae.R64-1-1.96.gtf.gz"), lengths_bp
    )
    inside = yeast_promoters(genome, transcripts, genes)
    nuclear = genes.of_kind("CDS").select(genes.of_kind("CDS").contig != "Mito")
    genome.pop("Mito")
    assert Regions.of(nuclear, genome).hold(inside.select(inside.label == 0)).all()
    assert len(inside) > 12_600


@needs_shared
def test_ecoli_coding_as_in_the_notes():
    path = SHARED / "ecoli" / "GCF_000005845.2_ASM584v2_genomic.gbff.gz"
    genome = load(path)
    windows = ecoli_coding(genome, read_annotation(path))
    for split, noted in {"train": 3818, "validation": 534, "test": 2087}.items():
        assert abs(windows.counts()[split] / noted - 1) < 0.05
    assert (ECOLI_SPLIT.assign(windows) == windows.split).all()
