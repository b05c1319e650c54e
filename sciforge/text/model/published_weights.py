"""Published weights: a local folder of BERT, ALBERT or ELECTRA as `transformers` saves them, as
a model and codec of ours.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sciforge.core.domain import seeded_model
from sciforge.core.training import checkpoint
from sciforge.core.training.run import Run
from sciforge.errors import DataError, did_you_mean
from sciforge.text.data.codec import TextCodec
from sciforge.text.data.vocabulary import wordpiece
from sciforge.text.model.bert import Bert, BertConfig
from sciforge.text.objectives.masked_words import MaskedWords

log = logging.getLogger(__name__)

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu-tanh", "gelu_pytorch_tanh": "gelu-tanh"}
KINDS = ("bert", "albert", "electra")
# Their names -> ours, in turn; what stays as it was has no place here.
RENAMES = (
    (r"^(bert|albert|electra)\.", ""),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
    (r"^embeddings\.word_embeddings", "embeddings.word"),
    (r"^embeddings\.position_embeddings", "embeddings.position"),
    (r"^embeddings\.token_type_embeddings", "embeddings.segment"),
    (r"^embeddings\.LayerNorm", "embeddings.norm"),
    (r"^(encoder\.embedding_hidden_mapping_in|embeddings_project)", "embedding_project"),
    (r"^encoder\.layer\.(\d+)", r"encoder.blocks.\1"),
    (r"^encoder\.albert_layer_groups\.0\.albert_layers\.0", "encoder.blocks.0"),
    (r"\.attention\.self\.", ".attention."),
    (r"\.attention\.(output\.)?LayerNorm", ".attention_norm"),
    (r"\.attention\.(output\.)?dense", ".attention.output"),
    (r"^(encoder\.blocks\.\d+)\.(intermediate\.dense|ffn)\.", r"\1.mlp.up."),
    (r"^(encoder\.blocks\.\d+)\.(output\.dense|ffn_output)\.", r"\1.mlp.down."),
    (r"^(encoder\.blocks\.\d+)\.(output\.LayerNorm|full_layer_layer_norm)", r"\1.mlp_norm"),
    (r"^(cls\.)?predictions\.transform\.", "words."),
    (r"^(cls\.)?predictions\.", "words."),
    (r"^words\.LayerNorm", "words.norm"),
    (r"^pooler\.(dense\.)?", "heads.pairs.pooler."),
    (r"^(cls\.seq_relationship|sop_classifier\.classifier)\.", "heads.pairs.linear."),
)
# Tied to others, or no weight at all; ELECTRA's own head has no generator beside it.
LEFT_OUT = re.compile(r"position_ids$|^words\.decoder\.|^discriminator_predictions\.|^generator_")


def translated(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of transformers' BertForPreTraining, AlbertForPreTraining or ElectraModel
    under our names.

    >>> list(translated({"bert.encoder.layer.0.attention.output.LayerNorm.gamma": None}))
    ['encoder.blocks.0.attention_norm.weight']
    """
    weights = {}
    for name, tensor in state.items():
        for pattern, ours in RENAMES:
            name = re.sub(pattern, ours, name)
        if not LEFT_OUT.search(name):
            weights[name] = tensor
    return weights


def config_of(body: Mapping[str, Any], path: Path | str = "config.json") -> tuple[BertConfig, int]:
    """Return the sizes that a config.json tells, and the length of the longest row.

    Raises:
        DataError: another architecture, or something our model has not.
    """
    kind, activation = body.get("model_type"), body.get("hidden_act", "gelu")
    if kind not in KINDS:
        raise DataError(f"model_type is {kind!r}; {did_you_mean(str(kind), KINDS)}", path)
    if activation not in ACTIVATIONS:
        raise DataError(
            f"hidden_act is {activation!r}; {did_you_mean(str(activation), ACTIVATIONS)}", path
        )
    if (
        body.get("position_embedding_type", "absolute") != "absolute"
        or body.get("type_vocab_size", 2) != 2
    ):
        raise DataError(
            "positions are not absolute, or segments are not two; such a BERT cannot be read", path
        )
    if max(body.get("num_hidden_groups", 1), body.get("inner_group_num", 1)) > 1:
        raise DataError("an ALBERT of several groups of layers cannot be read", path)
    try:
        config = BertConfig(
            width=body["hidden_size"],
            depth=body["num_hidden_layers"],
            heads=body["num_attention_heads"],
            hidden=body["intermediate_size"],
            embedding=0 if kind == "bert" else body["embedding_size"],
            shared=kind == "albert",
            activation=ACTIVATIONS[activation],
            dropout=float(body.get("hidden_dropout_prob", 0.1)),
            eps=float(body.get("layer_norm_eps", 1e-12)),
        )
        return config, int(body["max_position_embeddings"])
    except KeyError as error:
        raise DataError(f"has no {error}; give the config.json of the model", path) from None


def from_transformers(folder: Path) -> tuple[Bert, TextCodec, MaskedWords]:
    """Read config.json, vocab.txt (or tokenizer.json) and model.safetensors of a local folder.

    Heads that the file lacks (ELECTRA has no language head) are fresh.

    Returns:
        the model in evaluation mode, its codec, and the objective its heads belong to.

    Raises:
        DataError: a file is missing or is not what it should be.
    """
    folder = Path(folder)
    config, length = config_of(_json(folder / "config.json"), folder / "config.json")
    try:
        weights = translated(load_file(folder / "model.safetensors"))
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{error}; save the model as safetensors", folder / "model.safetensors"
        ) from None
    codec = TextCodec(length=length, tokenizer=_tokenizer(folder), lower=_lower(folder))
    codec = replace(codec, size=codec.num_tokens)
    pairs = "heads.pairs.linear.weight" in weights
    objective = MaskedWords(length=min(128, length), pairs=pairs)
    model = seeded_model(config, codec, [objective], seed=0)
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in weights and not name.startswith("words."):
            raise DataError(
                f"no weight for {name!r}; the file is of another model",
                folder / "model.safetensors",
            )
        if name in weights and weights[name].shape != tensor.shape:
            shapes = (
                f"{tuple(weights[name].shape)}, config.json and vocabulary make it"
                f" {tuple(tensor.shape)}"
            )
            raise DataError(f"the weight of {name!r} is {shapes}", folder / "model.safetensors")
    _warn_of_differences(set(weights), set(own), folder)
    model.load_state_dict({name: weights.get(name, own[name]) for name in own})
    return model.eval(), codec, objective


def _warn_of_differences(given: set[str], own: set[str], folder: Path) -> None:
    """Log which weights of a folder have no place here, and which of ours it lacks."""
    if unused := sorted(given - own):
        log.warning("%s: weights not used: %s", folder, ", ".join(unused))
    if fresh := sorted(own - given):
        log.warning("%s: weights not in it, which start at random: %s", folder, ", ".join(fresh))


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(
            f"cannot be read ({error}); give a folder that transformers saved", path
        ) from None


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return _json(path) if path.exists() else {}


def _lower(folder: Path) -> bool:
    return bool(_tokenizer_config(folder).get("do_lower_case", True))


def _tokenizer(folder: Path) -> str:
    """Return the vocabulary of a folder as JSON."""
    lines = folder / "vocab.txt"
    if lines.exists():
        try:
            # only a line feed ends a piece: U+2028 and U+0085 are pieces of published vocabularies
            text = lines.read_bytes().decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:
            raise DataError("is not UTF-8; fetch it again", lines) from None
        pieces = text.removesuffix("\n").split("\n")
        settings = _tokenizer_config(folder)
        return wordpiece(
            {piece: number for number, piece in enumerate(pieces)},
            _lower(folder),
            strip_accents=settings.get("strip_accents"),
            split_chinese=bool(settings.get("tokenize_chinese_chars", True)),
        )
    if not (folder / "tokenizer.json").exists():
        raise DataError(
            "there is neither vocab.txt nor tokenizer.json; save the tokenizer beside the model",
            folder,
        )
    return (folder / "tokenizer.json").read_text(encoding="utf-8")


def import_bert(folder: Path, out: Path) -> checkpoint.Checkpoint:
    """Make a checkpoint of published weights, for every verb that takes one: `--init`, `predict`,
    `check`.

    Args:
        folder: with config.json, model.safetensors and vocab.txt or tokenizer.json.
        out: the folder to write.

    Raises:
        DataError: as `from_transformers`.
    """
    model, codec, objective = from_transformers(folder)
    run = Run(data=folder, out=out, objective=objective, model=model.config, codec=codec)
    return checkpoint.save(
        Path(out) / "final",
        domain="text",
        run=run,
        codec=codec,
        model_config=model.config,
        objectives=(objective,),
        weights=model.state_dict(),
        step=0,
        metrics={},
        provenance=checkpoint.provenance(run, "cpu", 1, {}, None),
    )
