"""Hidden words, pairs of segments, replaced words: what is drawn, how often, and that nothing
leaks.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sciforge.core.data import sampling
from sciforge.core.data.store import Store, prepare
from sciforge.core.domain import seeded_model
from sciforge.errors import ConfigError
from sciforge.text.data.codec import NO_TARGET, TextCodec
from sciforge.text.data.documents import Documents
from sciforge.text.data.pairs import NEXT, fill_row
from sciforge.text.data.vocabulary import train_bytes, train_wordpiece
from sciforge.text.model.bert import BertConfig
from sciforge.text.objectives.masked_words import MaskedWords
from sciforge.text.objectives.replaced_words import ReplacedWords, sample

pytest.importorskip("tokenizers")

NOUNS = "garden river window candle mountain letter carriage evening breakfast silver".split()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Forty documents; each says its own number in every sentence, so that a token tells its
    document.
    """
    folder = tmp_path_factory.mktemp("masked")
    rng = np.random.default_rng(0)
    documents = []
    for n in range(40):
        name = "".join("bcdfghklmn"[int(digit)] for digit in f"{n:02d}") + "o"
        said = [
            f"The {name} saw a {rng.choice(NOUNS)} by the {rng.choice(NOUNS)}."
            for _ in range(1 + n % 7)
        ]
        documents.append(" ".join(said))
    (folder / "a.txt").write_text("\n\n".join(documents) + "\n")
    return prepare(Documents(files=(folder / "a.txt",), shares=(1.0, 0.0, 0.0)), folder / "store")


@pytest.fixture(scope="module")
def codec(store) -> TextCodec:
    return TextCodec(size=400, length=64, least=1).fit(store)


def drawn(
    objective: MaskedWords, store: Store, codec: TextCodec, count: int, training: bool = True
) -> list:
    rows = objective.examples(store, "train")
    made = []
    for i in range(count):
        rng = sampling.generator(0, sampling.CORRUPT, i // len(rows), i)
        made.append(objective.prepare(rows[i % len(rows)], codec, rng, training))
    return made


def test_fifteen_percent_are_hidden_eighty_ten_ten(store, codec):
    made = drawn(MaskedWords(length=48), store, codec, 1500)
    rows = [(e["ids"].numpy(), e["target_ids"].numpy()) for e in made]
    hidden = np.concatenate([ids[target >= 0] for ids, target in rows])
    truth = np.concatenate([target[target >= 0] for _, target in rows])
    for ids, target in rows:
        whole = np.where(target >= 0, target, ids)
        words = ((whole != codec.special["[CLS]"]) & (whole != codec.special["[SEP]"])).sum()
        assert (target >= 0).sum() == max(1, round(0.15 * words))
        assert ids[0] == codec.special["[CLS]"] and ids[-1] == codec.special["[SEP]"]
        assert target[0] == target[-1] == NO_TARGET
    shares = [
        (hidden == codec.mask).mean(),
        ((hidden != codec.mask) & (hidden != truth)).mean(),
        (hidden == truth).mean(),
    ]
    error = 4 * np.sqrt(0.8 * 0.2 / len(hidden))
    # a random piece is at times the true one
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=error + 0.001)
    special = set(codec.special.values()) - {codec.mask}
    assert not special & set(hidden[hidden != truth].tolist())


def test_rows_are_full_and_cross_documents_only_where_asked(store, codec):
    across = drawn(MaskedWords(length=48), store, codec, 60)
    assert {len(e["ids"]) for e in across} == {48}
    inside = drawn(MaskedWords(length=48, across=False), store, codec, 60)
    for example in inside:
        ids = torch.where(example["target_ids"] >= 0, example["target_ids"], example["ids"])
        assert (ids == codec.special["[SEP]"]).sum() == 1 and len(ids) <= 48


def test_a_row_is_the_text_itself(store, codec):
    objective = MaskedWords(length=48)
    for i, example in enumerate(
        drawn(objective, store, codec, len(objective.examples(store, "train")), training=False)
    ):
        ids = torch.where(example["target_ids"] >= 0, example["target_ids"], example["ids"])
        said = codec.decode(ids.tolist()).replace(" ", "")
        document = objective.examples(store, "train")[i]["text"].lower().replace(" ", "")
        assert said.startswith(document[: len(said)][: len(document)])


def test_dynamic_masks_differ_and_static_ones_come_again(store, codec):
    rows = MaskedWords(length=48).examples(store, "train")
    found = {}
    for dynamic in (True, False):
        objective = MaskedWords(length=48, dynamic=dynamic)
        masks = [
            tuple(
                objective.prepare(rows[3], codec, np.random.default_rng(n), True)[
                    "target_ids"
                ].tolist()
            )
            for n in range(80)
        ]
        found[dynamic] = len(set(masks))
    assert found[True] > 75 and found[False] <= 10


def test_whole_words_are_hidden_whole(store):
    codec = TextCodec(size=70, length=64).fit(store)
    objective = MaskedWords(
        length=48, whole_words=True, across=False, random_share=0.0, keep_share=0.0
    )
    rows, pieces = objective.examples(store, "train"), 0
    for i in range(200):
        record = rows[i % len(rows)]
        example = objective.prepare(record, codec, np.random.default_rng(i), training=False)
        part = fill_row(record, codec, np.random.default_rng(0), False, 46, across=False)
        hidden = example["target_ids"][1:-1].numpy() >= 0
        for word in np.unique(part.words):
            assert len(set(hidden[part.words == word].tolist())) == 1
            pieces += int((part.words == word).sum() > 1)
        assert hidden.any()
    assert pieces > 100  # some words are of several pieces, or this would prove nothing


def test_half_of_the_pairs_are_random_and_from_another_document(store, codec):
    objective = MaskedWords(
        length=40, pairs=True, random_share=0.0, keep_share=0.0, short_share=0.0
    )
    names = {
        f"{n:02d}": "".join("bcdfghklmn"[int(digit)] for digit in f"{n:02d}") + "o"
        for n in range(40)
    }
    kinds = []
    for example in drawn(objective, store, codec, 800):
        ids = torch.where(example["target_ids"] >= 0, example["target_ids"], example["ids"])
        parts = [codec.decode(ids[example["segments"] == s].tolist()) for s in (0, 1)]
        told = [{name for name in names.values() if f"the {name} " in part} for part in parts]
        kind = int(example["target_pair"])
        kinds.append(kind)
        if all(told):
            assert (told[0] == told[1]) == (kind == NEXT)
        assert len(ids) <= 40 and all(parts)
    assert np.mean(kinds) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(len(kinds)))


def test_one_document_has_no_random_pair(tmp_path, codec):
    (tmp_path / "a.txt").write_text("One single document.\n")
    single = prepare(
        Documents(files=(tmp_path / "a.txt",), shares=(1.0, 0.0, 0.0)), tmp_path / "store"
    )
    with pytest.raises(ConfigError, match="one train document"):
        MaskedWords(pairs=True).examples(single, "train")
    assert len(MaskedWords().examples(single, "train")) == 1


def test_rows_longer_than_the_codec_are_refused(store, codec):
    objective = MaskedWords(length=65)
    with pytest.raises(ConfigError, match="objective.length is 65, codec.length 64"):
        objective.prepare(
            objective.examples(store, "train")[0], codec, np.random.default_rng(0), True
        )
    with pytest.raises(ConfigError, match="objective.mask_rate"):
        MaskedWords(mask_rate=1.0)


@pytest.mark.parametrize("train", [train_wordpiece, train_bytes])
def test_a_vocabulary_does_not_depend_on_the_order_of_documents(store, train):
    texts = store.column("text")
    assert train(texts, 500, True, 1) == train(texts[::-1], 500, True, 1)


def test_special_words_in_a_text_are_plain_words(codec):
    assert codec.mask not in codec.pieces("a [MASK] by [SEP]")[0]
    assert codec.mask in codec.pieces("a [MASK] by", specials=True)[0]


def test_sampling_follows_the_distribution():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    noise = torch.from_numpy(np.random.default_rng(0).random(40_000))
    share = torch.bincount(sample(logits.expand(len(noise), 4), noise), minlength=4) / len(noise)
    assert share.numpy() == pytest.approx(logits.softmax(-1)[0].numpy(), abs=0.01)


def test_replaced_words_are_what_the_generator_drew(store, codec):
    objective = ReplacedWords(length=48)
    model = seeded_model(
        BertConfig(width=32, depth=2, heads=2, hidden=64), codec, [objective], 0
    ).double()
    seen = {}
    model.register_forward_pre_hook(lambda _, args: seen.update(args[0]))
    batch = codec.collate(drawn(objective, store, codec, 8))
    loss = objective.loss(model, batch)
    changed = seen["ids"] != torch.where(
        batch["target_ids"] >= 0, batch["target_ids"], batch["ids"]
    )
    assert not changed[batch["target_ids"] < 0].any()
    assert loss.parts["replaced_share"][0] == changed.sum() > 0
    assert not (seen["ids"] == codec.mask).all(1).any()
    loss.total.backward()
    generator = [
        p
        for name, p in model.named_parameters()
        if name.startswith("heads.generator") and p.grad is None
    ]
    assert not generator and model.embeddings.word.weight.grad is not None
    later = {**batch, "noise": torch.zeros_like(batch["noise"])}
    again = objective.loss(model, later)
    assert (
        again.parts["word_nats"][0].item() == loss.parts["word_nats"][0].item()
    )  # noise is no matter of the generator's loss
    assert again.parts["detection_nats"][0].item() != loss.parts["detection_nats"][0].item()
    with pytest.raises(ConfigError, match="no likelihood"):
        objective.likelihood(model, batch)


def test_published_share_of_the_loss(store, codec):
    objective = ReplacedWords(length=48)
    model = seeded_model(
        BertConfig(width=32, depth=1, heads=2, hidden=64), codec, [objective], 0
    ).double()
    batch = codec.collate(drawn(objective, store, codec, 4))
    with_it, without = (
        objective.loss(model, batch),
        replace(objective, discriminator_weight=0.0).loss(model, batch),
    )
    nats, tokens = with_it.parts["detection_nats"]
    assert tokens == batch["lengths"].sum()
    assert (with_it.total - without.total).item() == pytest.approx(
        (50 * 0.15 * nats).item(), rel=1e-12
    )
