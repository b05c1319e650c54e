"""The ModernBert stands wherever a Bert does: laws, chosen tokens, layers, replaced words, and
published limits.
"""

import copy

import numpy as np
import pytest
import torch

from sciforge.core.data import sampling
from sciforge.core.data.store import Store, prepare
from sciforge.core.domain import seeded_model
from sciforge.errors import ConfigError
from sciforge.text import Documents, MaskedWords, ModernBertConfig, ReplacedWords, TextCodec
from sciforge.text.evaluation.laws import LAWS

pytest.importorskip("tokenizers")

WORDS = "garden river window candle mountain letter carriage evening breakfast silver".split()
SIZE = ModernBertConfig(width=16, depth=2, heads=2, hidden=32)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    folder, rng = tmp_path_factory.mktemp("modern"), np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 30)) + "." for _ in range(20)]
    (folder / "a.txt").write_text("\n\n".join(texts) + "\n")
    return prepare(Documents(files=(folder / "a.txt",), shares=(1.0, 0.0, 0.0)), folder / "store")


@pytest.fixture(scope="module")
def codec(store) -> TextCodec:
    return TextCodec(size=200, length=64, least=1).fit(store)


def batch_of(objective, store, codec, count=4):
    rows = objective.examples(store, "train")
    rngs = [sampling.generator(0, sampling.CORRUPT, 0, i) for i in range(count)]
    return codec.collate(
        [objective.prepare(rows[i % len(rows)], codec, rng, True) for i, rng in enumerate(rngs)]
    )


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_laws_of_bert_hold(law, codec):
    model = seeded_model(SIZE, codec, [], 0).double().eval()
    violation, tolerance = law(model, codec, np.random.default_rng(1))
    assert violation <= tolerance


def test_chosen_tokens_and_layers_are_those_of_the_whole(store, codec):
    model = seeded_model(SIZE, codec, [], 0).double().eval()
    batch = batch_of(MaskedWords(length=40), store, codec)
    whole, chosen = model(batch), batch["target_ids"] >= 0
    assert torch.allclose(model(batch, only=chosen), whole[chosen], atol=1e-12)
    layers = model(batch, layers=True)
    assert len(layers) == model.depth + 1 and torch.equal(layers[-1], whole)


def test_only_distances_count(codec):
    """A word's state depends on its neighbours' distances; a Bert's depends on where the row
    begins.
    """
    model = seeded_model(SIZE, codec, [], 0).double().eval()
    x_LD = torch.randn(1, 6, 16, dtype=torch.float64)
    # the encoder counts places from 0 in each document
    segments = torch.tensor([[0, 1, 1, 1, 1, 1]])
    moved = model.encoder(x_LD, segments_BL=segments)[:, 1:]
    assert torch.allclose(moved, model.encoder(x_LD[:, 1:]), atol=1e-12)
    later = model.encoder(
        torch.cat([torch.zeros(1, 3, 16), x_LD], 1), segments_BL=torch.tensor([[0] * 3 + [1] * 6])
    )
    assert torch.allclose(later[:, 3:], model.encoder(x_LD), atol=1e-12)


def test_replaced_words_learn_on_it(store, codec):
    objective = ReplacedWords(length=40)
    model = seeded_model(SIZE, codec, [objective], 0)
    batch = batch_of(objective, store, codec)
    before = copy.deepcopy(model.state_dict())
    loss = objective.loss(model, batch)
    (loss.total / loss.count).backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    moved = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert any(name.startswith("encoder.blocks.0.") for name in moved)
    assert any(name.startswith("heads.generator.encoder") for name in moved)


def test_rows_beyond_the_codec_are_refused(codec):
    model = seeded_model(SIZE, codec, [], 0)
    ids = torch.zeros(1, 65, dtype=torch.long)
    with pytest.raises(ConfigError, match="longer than the codec's 64"):
        model({"ids": ids, "segments": ids, "lengths": torch.tensor([65])})
