"""The encoder against transformers' own BERT, ALBERT and ELECTRA, with the same random weights."""

from dataclasses import replace

import pytest
import torch

from sciforge.core.training.checkpoint import Checkpoint
from sciforge.errors import ConfigError, DataError
from sciforge.text.model.bert import BertConfig
from sciforge.text.model.published_weights import config_of, from_transformers, import_bert

transformers = pytest.importorskip("transformers", reason="transformers is in the extra [test]")
pytest.importorskip("tokenizers")

WORDS = ["[PAD]", *(f"[unused{n}]" for n in range(3)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += ["the", "room", "was", "clean", "##ing", "hotel", "."] + [f"w{n}" for n in range(20)]
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
SIZES |= {"intermediate_size": 40, "max_position_embeddings": 20}


def saved(folder, kind: str, **changes):
    """Save a random model of transformers and its vocabulary; return it in float64."""
    config = {"bert": transformers.BertConfig, "albert": transformers.AlbertConfig}.get(
        kind, transformers.ElectraConfig
    )
    cls = {
        "bert": transformers.BertForPreTraining,
        "albert": transformers.AlbertForPreTraining,
    }.get(kind, transformers.ElectraModel)
    torch.manual_seed(3)
    model = cls(config(**SIZES, **changes)).eval()
    with torch.no_grad():
        # biases and norms start at 0 and 1, which would hide a mix-up
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return model.double()


def rows() -> tuple[dict, dict]:
    """Return a padded batch with segments, for us and for transformers."""
    torch.manual_seed(0)
    ids = torch.randint(8, len(WORDS), (3, 20))
    lengths = torch.tensor([20, 7, 13])
    real = torch.arange(20) < lengths[:, None]
    ids = ids.masked_fill(~real, 0)
    segments = (torch.arange(20) >= lengths[:, None] // 2).long() * real
    ours = {"ids": ids, "segments": segments, "lengths": lengths}
    return ours, {"input_ids": ids, "token_type_ids": segments, "attention_mask": real.long()}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("bert", {}), ("albert", {"embedding_size": 8}), ("electra", {"embedding_size": 8})],
)
def test_outputs_are_those_of_transformers(tmp_path, kind, changes):
    peer = saved(tmp_path, kind, **changes)
    model, codec, objective = from_transformers(tmp_path)
    ours, theirs = rows()
    with torch.no_grad():
        found = model.double()(ours, layers=True)
        told = peer(**theirs, output_hidden_states=True)
    real = theirs["attention_mask"].bool()
    assert len(found) == len(told.hidden_states) == 4
    for x, y in list(zip(found, told.hidden_states, strict=True))[kind != "bert" :]:
        assert (x - y)[real].abs().max() < 1e-10
    if kind == "electra":
        assert not objective.pairs
        return
    words = model.word_logits(found[-1])
    pairs = model.heads["pairs"](found[-1][:, 0])
    assert (words - told.prediction_logits)[real].abs().max() < 1e-10
    second = told.seq_relationship_logits if kind == "bert" else told.sop_logits
    assert (pairs - second).abs().max() < 1e-10


def test_the_language_loss_is_that_of_transformers(tmp_path):
    peer = saved(tmp_path, "bert")
    model, codec, objective = from_transformers(tmp_path)
    ours, theirs = rows()
    target = torch.full_like(ours["ids"], -100)
    target[:, 2:5] = ours["ids"][:, 2:5]
    kind = torch.tensor([0, 1, 1])
    # 3 of 20 are hidden: then the constant weight is that of two means
    objective = replace(objective, length=20)
    loss = objective.loss(model.double(), {**ours, "target_ids": target, "target_pair": kind})
    told = peer(**theirs, labels=target, next_sentence_label=kind).loss
    assert float((loss.total / loss.count).detach()) == pytest.approx(
        float(told.detach()), rel=1e-10
    )


def test_float32_is_close_too(tmp_path):
    peer = saved(tmp_path, "bert").float()
    ours, theirs = rows()
    with torch.no_grad():
        found, told = from_transformers(tmp_path)[0](ours), peer.bert(**theirs).last_hidden_state
    assert (found - told)[theirs["attention_mask"].bool()].abs().max() < 1e-5


def test_tokens_are_those_of_transformers(tmp_path):
    saved(tmp_path, "bert")
    codec = from_transformers(tmp_path)[1]
    peer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    for text in (
        "The room was clean.",
        "Cleaning the HOTEL\tw7w8 cleaning",
        "Thé rôom, 北京 was☃ [MASK]",
        "",
        " . ",
    ):
        ours = [codec.token(i) for i in codec.pieces(text, specials=True)[0]]
        assert ours == peer.tokenize(text), text


def test_import_makes_a_checkpoint(tmp_path):
    saved(tmp_path / "bert", "bert")
    made = Checkpoint.open(import_bert(tmp_path / "bert", tmp_path / "out").path)
    before, after = from_transformers(tmp_path / "bert")[0], made.build()
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    )
    assert made.codec.num_tokens == len(WORDS) and made.codec.length == 20


def test_what_cannot_be_read_is_told(tmp_path):
    with pytest.raises(DataError, match="config.json: cannot be read"):
        from_transformers(tmp_path)
    body = {"model_type": "bert", **SIZES}
    assert config_of(body)[1] == 20
    for change, match in (
        ({"model_type": "gpt2"}, "gpt2"),
        ({"hidden_act": "relu"}, "relu"),
        ({"type_vocab_size": 1}, "two"),
    ):
        with pytest.raises(DataError, match=match):
            config_of({**body, **change})
    with pytest.raises(DataError, match="hidden_size"):
        config_of({"model_type": "bert"})
    saved(tmp_path, "bert")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS[:-1]))
    with pytest.raises(DataError, match="embeddings.word.weight"):
        from_transformers(tmp_path)
    (tmp_path / "vocab.txt").write_text("the\nroom\n")
    with pytest.raises(DataError, match=r"no \[PAD\]"):
        from_transformers(tmp_path)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="multiple of 3 heads"):
        BertConfig(width=16, heads=3)
    with pytest.raises(ConfigError, match="dropout"):
        BertConfig(dropout=1.0)


def test_only_some_tokens_gives_the_same_states(tmp_path):
    saved(tmp_path, "albert", embedding_size=8)
    model = from_transformers(tmp_path)[0].double()
    ours, _ = rows()
    only = torch.zeros(3, 20, dtype=torch.bool)
    only[0, [3, 9]], only[2, 0] = True, True
    assert (model(ours, only=only) - model(ours)[only]).abs().max() < 1e-12
    model.encoder.checkpointing = True
    assert (model(ours, only=only) - model(ours)[only]).abs().max() < 1e-12
