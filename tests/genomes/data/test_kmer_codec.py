"""The laws of k-mer tokens."""

import dataclasses
import json
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciforge.errors import ConfigError, DataError
from sciforge.genomes.data import codec as codec_module
from sciforge.genomes.data.codec import KmerCodec, dnabert_order, kmer_ids, reverse_complement_ids

SCHEMES = [(k, stride) for k in range(1, 9) for stride in range(1, k + 1)]
BASES = st.lists(st.sampled_from([0, 1, 2, 3, 8, 9, 10, 11, 4, 12, 5, 7]), min_size=8, max_size=70)


def slow_ids(bases: list[int], k: int, stride: int) -> list[int]:
    """The definition, one token at a time."""
    ids = []
    for start in range(0, len(bases) - k + 1, stride):
        run = [base & 7 for base in bases[start : start + k]]
        ids.append(4**k + 2 if max(run) > 3 else int("".join(map(str, run)), 4))
    return ids


@pytest.mark.parametrize(("k", "stride"), SCHEMES)
@settings(max_examples=15, deadline=None)
@given(codes=BASES, block=st.sampled_from([16, 1 << 15]))
def test_array_tensor_and_definition_agree(k, stride, codes, block):
    bases = np.array(codes, np.uint8)
    # small blocks: their seams lie in the data
    before, codec_module.BLOCK = codec_module.BLOCK, block
    try:
        fast = kmer_ids(bases, k, stride)
    finally:
        codec_module.BLOCK = before
    assert fast.dtype == (np.uint16 if k < 8 else np.int32)
    assert fast.tolist() == slow_ids(codes, k, stride)
    assert kmer_ids(torch.from_numpy(bases), k, stride).tolist() == fast.tolist()
    assert len(fast) == KmerCodec(k, stride).num_tokens(len(codes))


def test_blocks_of_a_long_sequence():
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 4, 200_003).astype(np.uint8)
    bases[[5, 70_000, 70_003, 131_072]] = 4
    for k, stride in [(6, 1), (8, 1), (7, 3), (6, 6), (8, 5)]:
        expected = kmer_ids(torch.from_numpy(bases), k, stride).numpy()
        assert np.array_equal(kmer_ids(bases, k, stride), expected)
        stacked = kmer_ids(np.stack([bases, bases[::-1]]), k, stride)
        assert np.array_equal(stacked[0], expected)


@pytest.mark.parametrize("k", range(1, 9))
@settings(max_examples=20, deadline=None)
@given(codes=st.lists(st.integers(0, 4), min_size=8, max_size=50))
def test_reverse_complement_of_ids(k, codes):
    bases = np.array(codes, np.uint8)
    reverse = np.where(bases < 4, 3 - bases, 4)[::-1].astype(np.uint8)
    table = reverse_complement_ids(k)
    assert np.array_equal(kmer_ids(reverse, k), table[kmer_ids(bases, k)][::-1])
    assert np.array_equal(table[table], np.arange(4**k + 5))


@pytest.mark.parametrize("k", [1, 3, 6])
def test_vocabulary_and_dnabert_order(k):
    codec = KmerCodec(k)
    theirs = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *map("".join, product("ATCG", repeat=k)),
    ]
    assert [codec.kmer(token) for token in dnabert_order(k).tolist()] == theirs
    assert len(theirs) == codec.size
    assert [codec.kmer(token) for token in (codec.pad, codec.mask, codec.unknown)] == [
        "[PAD]",
        "[MASK]",
        "[UNK]",
    ]
    # rows of the published vocab.txt of DNABERT-6, counted from 0
    if k == 6:
        # AAAAAA AAAAAT AAAAAC AAAAAG
        assert dnabert_order(6)[[5, 6, 7, 8]].tolist() == [0, 3, 1, 2]
    with pytest.raises(DataError, match="another k"):
        codec.kmer(codec.size)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_collating_equals_singles(data):
    codec = KmerCodec(*data.draw(st.sampled_from(SCHEMES)))
    examples = []
    for codes in data.draw(st.lists(BASES, min_size=1, max_size=5)):
        example = codec.encode(
            {"bases": np.array(codes, np.uint8), "label": 1, "name": "chrI", "missing": None}
        )
        example["masked"] = torch.arange(codec.num_tokens(len(codes))) % 3 == 0
        examples.append(example)
    batch = codec.collate(examples)
    assert batch.keys() == {"bases", "label", "masked", "lengths", "ids"}
    assert batch["ids"].dtype == batch["lengths"].dtype == torch.int64
    for row, example in enumerate(examples):
        alone, length = codec.collate([example]), batch["lengths"][row]
        assert length == alone["lengths"] == alone["ids"].shape[1]
        assert torch.equal(batch["ids"][row, :length], alone["ids"][0])
        assert (batch["ids"][row, length:] == codec.pad).all()
        assert (batch["ids"][row, :length][example["masked"]] == codec.mask).all()
        assert not batch["masked"][row, length:].any()
        assert (batch["bases"][row, len(example["bases"]) :] == 4).all()


def test_padding_of_other_fields():
    codec = KmerCodec(3)
    records = [
        {
            "bases": np.zeros(length, np.uint8),
            "target": np.ones((length, 2), np.int64),
            "track": np.ones(length),
            "y": 2.5,
        }
        for length in (4, 6)
    ]
    batch = codec.collate([codec.encode(record) for record in records])
    assert batch["target"].shape == (2, 6, 2) and (batch["target"][0, 4:] == -100).all()
    assert batch["track"].shape == (2, 6) and (batch["track"][0, 4:] == 0).all()
    assert batch["y"].tolist() == [2.5, 2.5]


def test_read_only_bases_are_copied():
    bases = np.zeros(10, np.uint8)
    bases.flags.writeable = False
    KmerCodec().encode({"bases": bases})["bases"][0] = 3
    assert bases[0] == 0


def test_settings_round_trip_through_json():
    codec = KmerCodec(5, 2)
    assert KmerCodec(**json.loads(json.dumps(dataclasses.asdict(codec)))) == codec
    assert codec.fit(None) is codec


@pytest.mark.parametrize(
    ("k", "stride"), [(0, 1), (9, 1), (6, 0), (6, 7), (True, 1), (6.0, 1), ("6", 1)]
)
def test_bad_settings(k, stride):
    with pytest.raises(ConfigError, match="expected int|must be an integer from 1 to"):
        KmerCodec(k, stride)


def test_bad_records():
    codec = KmerCodec()
    for bases in (None, "ACGTACGT", np.zeros(9, np.int64), np.zeros((9, 9), np.uint8)):
        with pytest.raises(DataError, match="uint8 codes"):
            codec.encode({"bases": bases})
    with pytest.raises(DataError, match="5 bases has no 6-mer"):
        codec.encode({"bases": np.zeros(5, np.uint8)})
    with pytest.raises(DataError, match="no 6-mer"):
        kmer_ids(np.zeros(5, np.uint8), 6)
    with pytest.raises(DataError, match="at least one"):
        codec.collate([])
    short, long = (
        {"bases": torch.zeros(5, dtype=torch.uint8)},
        {"bases": torch.zeros(9, dtype=torch.uint8)},
    )
    with pytest.raises(DataError, match="example 1 has fewer than k"):
        codec.collate([long, short])
    with pytest.raises(DataError, match="same fields"):
        codec.collate([long, {**long, "label": torch.tensor(1)}])
    with pytest.raises(DataError, match="one entry for each token"):
        codec.collate([{**long, "masked": torch.zeros(9, dtype=torch.bool)}])
