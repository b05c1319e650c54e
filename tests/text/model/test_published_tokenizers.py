"""Settings of a published tokenizer: what transformers would do, or a word about it."""

import json
import logging

import pytest
import torch

from sciforge.text.data.vocabulary import pieces
from sciforge.text.model.published_weights import from_transformers

transformers = pytest.importorskip("transformers")
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def published(folder, words, settings, labels=False):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(
        vocab_size=len(words), intermediate_size=32, max_position_embeddings=32, **sizes
    )
    kind = "BertForSequenceClassification" if labels else "BertForPreTraining"
    getattr(transformers, kind)(config).save_pretrained(folder)
    (folder / "vocab.txt").write_bytes(("\n".join(words) + "\n").encode())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"do_lower_case": True}, "Das Schön"),
        ({"do_lower_case": True, "strip_accents": False}, "Das Schön"),
        ({"do_lower_case": False, "strip_accents": True}, "das schön"),
        ({"tokenize_chinese_chars": False}, "das 王明"),
        ({"tokenize_chinese_chars": True}, "das 王明"),
    ],
)
def test_settings_of_a_tokenizer_are_those_of_transformers(tmp_path, settings, text):
    words = [*SPECIALS, "das", "schon", "schön", "王", "明", "王明", "\u2028", "\x85", "room"]
    folder = published(tmp_path, words, settings)
    _, codec, _ = from_transformers(folder)
    ids = pieces(codec.tokenizer, f"{text} room")[0].tolist()
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    assert ids[-1] == words.index("room")
    assert ids[:-1] == theirs(text, add_special_tokens=False)["input_ids"]


def test_weights_that_have_no_place_are_named(tmp_path, caplog):
    folder = published(tmp_path, [*SPECIALS, "a"], {}, labels=True)
    with caplog.at_level(logging.WARNING):
        from_transformers(folder)
    messages = " ".join(caplog.messages)
    assert "not used: classifier.bias, classifier.weight" in messages and "words." in messages
