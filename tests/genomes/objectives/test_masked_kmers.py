"""Leak-proof masking, reading-frame targets and windows: what pretraining may and may not see."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciforge.core.data.sampling import CORRUPT, generator
from sciforge.core.data.store import prepare
from sciforge.errors import ConfigError
from sciforge.genomes.data.codec import KmerCodec
from sciforge.genomes.data.genome import Genome, UnknownRuns
from sciforge.genomes.data.genome_windows import GenomeWindows, spans_of_split
from sciforge.genomes.data.sequences import as_letters, encode, reverse_complement
from sciforge.genomes.evaluation.audits import dnabert_readable_share, readable_share
from sciforge.genomes.objectives.masked_kmers import MaskedKmers
from sciforge.genomes.objectives.masking import (
    SCORED_KEPT,
    SCORED_MASKED,
    SCORED_RANDOM,
    covered,
    draw_masks,
)
from sciforge.genomes.objectives.reading_frames import frame_targets, open_frames


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.data())
def test_no_masked_base_lies_under_a_visible_token(k, data):
    codec = KmerCodec(k, data.draw(st.integers(1, k)))
    length, seed = data.draw(st.integers(60, 200)), data.draw(st.integers(0, 10**6))
    rng = generator(seed, CORRUPT)
    bases = rng.integers(0, 4, length).astype(np.uint8)
    masks = draw_masks(bases, codec, rng, rate=0.2, shortest=1, longest=8)
    hidden = masks.scored_L == SCORED_MASKED
    assert not (covered(~masks.masked_T, length, codec) & hidden).any()
    changed = masks.bases_L != bases
    assert not (changed & (masks.scored_L != SCORED_RANDOM)).any()
    assert (masks.predicted_T | ~masks.masked_T).all()


def test_shares_of_treatments_and_rate_hold():
    codec = KmerCodec(6, 3)
    counts = np.zeros(4)
    for index in range(400):
        rng = generator(3, CORRUPT, 0, index)
        masks = draw_masks(np.zeros(510, np.uint8), codec, rng, rate=0.15, shortest=3, longest=12)
        counts += np.bincount(masks.scored_L, minlength=4)
    scored = counts[1:] / counts[1:].sum()
    assert counts[1:].sum() / counts.sum() == pytest.approx(0.15, abs=0.02)
    assert scored[SCORED_RANDOM - 1] == pytest.approx(0.1, abs=0.02)
    assert scored[SCORED_KEPT - 1] == pytest.approx(0.1, abs=0.02)


def test_audit_sees_the_leak_of_the_published_scheme_and_none_of_ours():
    sequences = [
        generator(5, CORRUPT, 0, i).integers(0, 4, 512).astype(np.uint8) for i in range(80)
    ]
    assert readable_share(sequences, KmerCodec(6, 1)) == 0
    assert readable_share(sequences, KmerCodec(6, 3)) == 0
    # science notes: .441
    assert dnabert_readable_share(sequences, KmerCodec(6, 1)) == pytest.approx(0.44, abs=0.04)


def test_frames_of_a_gene_on_both_strands():
    gene = "ATG" + "GCC" * 120 + "TAA"
    left, right = "CTAACTAGCTGA" * 3, "TTAGCTATCA" * 4
    bases = encode((left + gene + right).encode())
    start, stop = len(left), len(left) + len(gene)
    assert (start, stop, 1, True, True) in open_frames(bases)
    frame, distance = frame_targets(bases)
    assert (
        frame[start : start + 6].tolist() == [1, 2, 3, 1, 2, 3]
        and not frame[:start].any()
        and not frame[stop:].any()
    )
    turned, _ = frame_targets(reverse_complement(bases))
    mirrored = turned[::-1]
    assert (mirrored[start:stop] >= 4).all()
    # codon positions are the gene's own
    assert np.array_equal(mirrored[start:stop] - 3, frame[start:stop])
    assert distance[start, 0] == np.digitize(
        0, [-400, -200, -100, -50, -20, 0, 20, 50, 100, 200, 400]
    )


def test_frames_need_no_annotation_and_break_at_unknown_bases():
    gene = encode(("ATG" + "GCC" * 120 + "TAA").encode())
    gene[180] = 4
    assert not any(stop - start >= 366 for start, stop, *_ in open_frames(gene))
    assert frame_targets(np.full(50, 4, np.uint8))[0].sum() == 0


def write_genome(folder, records):
    path = folder / "g.fa"
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in records.items()))
    return path


def test_windows_stay_in_their_split_and_out_of_unknown_runs(tmp_path):
    rng = np.random.default_rng(0)
    bases = "".join(rng.choice(list("ACGT"), 3000))
    bases = bases[:1000] + "N" * 50 + bases[1050:]
    (tmp_path / "hold.bed").write_text("a\t2000\t2300\n")
    path = write_genome(tmp_path, {"a": bases, "b": "ACGT" * 200})
    preparer = Genome(
        files=(path,), test=("b",), hold_out=tmp_path / "hold.bed", margin=100, validation_every=0
    )
    store = prepare(preparer, tmp_path / "store")
    spans = [tuple(span[1:]) for span in store.meta["spans"] if span[0] == 0]
    assert spans == [
        (0, 1000, "train"),
        (1050, 1900, "train"),
        (2000, 2300, "test"),
        (2400, 3000, "train"),
    ]
    windows = GenomeWindows(store, "train", 100, flank=60)
    whole = encode(bases.encode())
    for record in (windows[i] for i in range(len(windows))):
        left, (first, last) = record["start"], record["inside"]
        assert np.array_equal(record["bases"], whole[left : left + len(record["bases"])])
        assert any(
            a <= left + first and left + last <= b for a, b, split in spans if split == "train"
        )
        assert 100 <= last - first <= 199
    reached = np.zeros(3000, bool)
    for record in (windows[i] for i in range(len(windows))):
        reached[record["start"] + record["inside"][0] : record["start"] + record["inside"][1]] = (
            True
        )
    assert reached[:1000].all() and not reached[1900:2400].any()


def test_a_labelled_store_is_refused_for_pretraining(tiny):
    with pytest.raises(ConfigError, match="prepare genome"):
        GenomeWindows(tiny.labelled, "train", 32)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=200), st.integers(1, 30))
def test_unknown_runs_do_not_depend_on_the_pieces(flags, size):
    bases = np.where(np.array(flags) == 1, 4, 0).astype(np.uint8)
    whole, pieces = UnknownRuns(), UnknownRuns()
    whole.add(bases)
    for at in range(0, len(bases), size):
        pieces.add(bases[at : at + size])
    assert np.array_equal(whole.close(), pieces.close())
    assert sum(stop - start for start, stop in whole.close().tolist()) == sum(flags)


def test_short_unknown_runs_stay_inside_and_long_ones_cut():
    assert spans_of_split(100, np.array([[40, 45]]), []) == [(0, 100, "train")]
    assert spans_of_split(100, np.array([[0, 20], [90, 100]]), []) == [(20, 90, "train")]


def test_unknown_and_unmasked_bases_are_never_scored(tiny):
    objective = MaskedKmers(length=48, mask_rate=0.3, unmasked_share=0.5)
    codec = KmerCodec(3)
    records = GenomeWindows(tiny.store, "train", 48)
    whole = 0
    for index in range(60):
        record = dict(records[index % len(records)])
        record["bases"] = np.array(record["bases"])
        record["bases"][5:9] = 4
        example = objective.prepare(record, codec, generator(0, CORRUPT, 0, index), True)
        scored = example["target_bases"] >= 0
        assert not (scored & ((example["bases"] & 7) > 3)).any()
        whole += not scored.any()
    assert 15 < whole < 45


@pytest.mark.parametrize("pair", ["next", "strand"])
def test_the_pair_task_changes_second_halves_and_says_so(tiny, pair):
    objective = MaskedKmers(
        length=60,
        mask_rate=0.01,
        shortest=1,
        longest=1,
        keep_share=1.0,
        random_share=0.0,
        pair_weight=1.0,
        pair=pair,
    )
    codec = KmerCodec(3)
    records = objective.examples(tiny.store, "train")
    told = []
    for index in range(40):
        record = records[index % len(records)]
        example = objective.prepare(record, codec, generator(0, CORRUPT, 0, index), True)
        letters = as_letters(example["bases"].numpy())
        both = (
            as_letters(record["bases"]),
            as_letters(reverse_complement(np.asarray(record["bases"]))),
        )
        assert any(letters[:30] in strand for strand in both)
        assert (any(letters in strand for strand in both)) == (int(example["target_pair"]) == 0)
        if pair == "next":
            assert any(letters[30:] in strand for strand in both if letters[:30] in strand)
        told.append(int(example["target_pair"]))
    assert 8 < sum(told) < 32
