"""DnaBert: sizes, composition, the language head, and heads that padding cannot move."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sciforge.errors import ConfigError
from sciforge.genomes.data.codec import KmerCodec, torch_kmer_ids
from sciforge.genomes.model.dna_bert import (
    MODELS,
    DnaBertConfig,
    KmerEmbedding,
    PooledHead,
    TokenHead,
)

TINY = DnaBertConfig(width=16, depth=2, heads=2, hidden=24)


def build(k: int = 3, stride: int = 1, config: DnaBertConfig = TINY):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return config.build(KmerCodec(k, stride))


def make_batch(codec: KmerCodec, lengths=(20, 11, 33)) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    return codec.collate(
        [codec.encode({"bases": rng.integers(0, 4, n).astype(np.uint8)}) for n in lengths]
    )


@pytest.mark.parametrize(("name", "millions"), [("mini", 3.0), ("small", 20.0), ("base", 86.0)])
def test_sizes_of_presets(name, millions):
    with torch.device("meta"):
        model = MODELS[name].build(KmerCodec())
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(millions * 1e6, rel=0.1)
    assert name != "mini" or 4 * count <= 16e6


@pytest.mark.parametrize("k", [1, 3, 6])
def test_embedding_is_the_sum_of_its_bases(k):
    embedding = KmerEmbedding(k, 8).double()
    torch.nn.init.normal_(embedding.free)
    ids = torch.randint(4**k, (50,), generator=torch.Generator().manual_seed(0))
    bases = ids[:, None] >> 2 * torch.arange(k - 1, -1, -1) & 3
    expected = embedding.free[ids] + sum(
        embedding.bases[place, bases[:, place]] for place in range(k)
    )
    torch.testing.assert_close(embedding(ids), expected)
    special = torch.arange(4**k, 4**k + 5)
    torch.testing.assert_close(embedding(special), embedding.free[4**k :])


def test_padding_changes_nothing():
    codec, model = KmerCodec(3), build().double()
    batch = make_batch(codec)
    states = model(batch)
    for row, length in enumerate(batch["lengths"].tolist()):
        alone = model(
            {
                "ids": batch["ids"][row : row + 1, :length],
                "lengths": batch["lengths"][row : row + 1],
            }
        )
        torch.testing.assert_close(states[row, :length], alone[0], rtol=0, atol=1e-12)


def test_packed_rows_and_layers_and_chosen_tokens():
    model = build().double()
    batch = make_batch(KmerCodec(3))
    real = batch["ids"] != KmerCodec(3).pad
    states = model(batch)
    packed = {
        "ids": batch["ids"][real][None],
        "segments": torch.arange(3).repeat_interleave(batch["lengths"])[None],
    }
    torch.testing.assert_close(model(packed)[0], states[real], rtol=0, atol=1e-12)
    layers = model(batch, layers=True)
    assert len(layers) == TINY.depth + 1 and torch.equal(layers[-1], states)
    torch.testing.assert_close(model(batch, only=real), states[real], rtol=0, atol=1e-12)


def test_head_is_tied_to_the_base_embedding():
    model = build()
    logits = model.base_logits(torch.randn(7, 16, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (7, 3, 4)
    (gradient,) = torch.autograd.grad(logits.square().sum(), model.embedding.bases)
    assert gradient.abs().min() > 0
    fresh = F.cross_entropy(logits.flatten(0, 1), torch.zeros(21, dtype=torch.long))
    assert fresh.item() == pytest.approx(math.log(4), abs=0.05)  # starts undecided


def test_masked_bases_are_learnt_at_once():
    codec, model = KmerCodec(3), build(config=DnaBertConfig(width=32, depth=2, heads=2, hidden=64))
    motif = np.tile(np.array([0, 1, 2, 3, 3, 1, 0], np.uint8), 8)
    examples = []
    for shift in range(7):
        example = codec.encode({"bases": np.roll(motif, shift)})
        example["masked"] = torch.arange(54) % 18 < 4  # hides two bases each time
        examples.append(example)
    batch = codec.collate(examples)
    kmers = torch_kmer_ids(batch["bases"], 3, 1)[batch["masked"]]
    target = kmers[:, None] >> 2 * torch.arange(2, -1, -1) & 3
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(120):
        logits = model.base_logits(model(batch, only=batch["masked"]))
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss.item() < 0.2  # ln 4 = 1.39 at the start


def test_the_seed_decides_the_weights():
    one, two = build().state_dict(), build().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert len(build().heads) == 0 and build().width == 16
    assert len(repr(build())) < 4000


def test_pooled_head_does_not_see_padding():
    torch.manual_seed(0)
    head = PooledHead(8, classes=3, bins=4).double()
    torch.nn.init.normal_(head.linear.weight)
    lengths = torch.tensor([10, 3, 1])
    x_BTD = torch.randn(3, 10, 8, dtype=torch.float64)
    scores = head(x_BTD, lengths)
    assert scores.shape == (3, 3)
    for row, length in enumerate(lengths.tolist()):
        alone = head(x_BTD[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(scores[row], alone[0], rtol=0, atol=1e-12)
    means = F.adaptive_avg_pool1d(x_BTD[:1].mT, 4)[0].mT  # the reference for full rows
    expected = head.linear(head.norm(torch.cat([means, x_BTD[0].amax(0)[None]])).flatten())
    torch.testing.assert_close(scores[0], expected, rtol=0, atol=1e-12)
    with pytest.raises(ConfigError):
        PooledHead(8, classes=3, bins=0)


@pytest.mark.parametrize(("k", "stride"), [(1, 1), (3, 1), (3, 2), (6, 6)])
def test_token_head_averages_votes(k, stride):
    torch.manual_seed(0)
    head = TokenHead(8, classes=2, k=k, stride=stride).double()
    lengths = torch.tensor([5, 2])
    x_BTD = torch.randn(2, 5, 8, dtype=torch.float64)
    scores = head(x_BTD, lengths)
    assert scores.shape == (2, 4 * stride + k, 2)
    for row, length in enumerate(lengths.tolist()):
        votes = head.linear(x_BTD[row, :length]).view(length, k, 2)
        for base in range(scores.shape[1]):
            mine = [
                votes[t, base - t * stride] for t in range(length) if 0 <= base - t * stride < k
            ]
            expected = torch.stack(mine).mean(0) if mine else torch.zeros(2, dtype=torch.float64)
            torch.testing.assert_close(scores[row, base], expected, rtol=0, atol=1e-12)
