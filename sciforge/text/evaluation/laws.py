"""What must hold for every Bert, fresh or trained; `sciforge check` runs these on a user's own
checkpoint.

A law takes (model in float64, codec, numpy generator) and returns (largest violation, tolerance).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.domain import Batch
from sciforge.text.data.codec import TextCodec
from sciforge.text.data.pairs import Part, words_of_row
from sciforge.text.data.vocabulary import plain
from sciforge.text.model.heads import real_tokens
from sciforge.text.objectives.document_labels import ClassifyDocuments
from sciforge.text.objectives.masked_words import MaskedWords

Verdict = tuple[float, float]
ROUNDING = 1e-9  # of float64 through a dozen blocks; float32 leaves 1e-5


def _parts(codec: TextCodec, rng: np.random.Generator, *sizes: int) -> list[Part]:
    """Return segments of random pieces, as many as fit the codec."""
    capacity = codec.length - len(sizes) - 1
    segments = [
        rng.choice(codec.ordinary, max(1, min(size, capacity // len(sizes)))) for size in sizes
    ]
    return [Part(ids, np.arange(len(ids)), np.zeros(1, np.int64)) for ids in segments]


def _batch(model: nn.Module, codec: TextCodec, rows: list[list[Part]]) -> Batch:
    device = next(model.parameters()).device
    batch = codec.collate([codec.row(*(part.ids for part in row)) for row in rows])
    return {name: value.to(device) for name, value in batch.items()}


@torch.no_grad()
def _states(model: nn.Module, codec: TextCodec, rows: list[list[Part]]) -> list[Tensor]:
    """Return the states of the real tokens of each row, all in one batch."""
    batch = _batch(model, codec, rows)
    return [x_LD[:n] for x_LD, n in zip(model(batch), batch["lengths"].tolist(), strict=True)]


def _largest(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max())


def _rows(codec: TextCodec, rng: np.random.Generator) -> list[list[Part]]:
    return [_parts(codec, rng, *sizes) for sizes in ((5,), (40,), (9, 14), (27,), (60, 60))]


def padding(model: nn.Module, codec: TextCodec, rng: np.random.Generator) -> Verdict:
    """Padding never changes a result, neither hidden states nor class probabilities where there
    is a head.
    """
    rows = _rows(codec, rng)
    together = _states(model, codec, rows)
    changed = max(
        _largest(_states(model, codec, [row])[0], x) for row, x in zip(rows, together, strict=True)
    )
    if "document_class" in model.heads:
        texts = [codec.decode(np.concatenate([part.ids for part in row])) for row in rows]
        probabilities = _probabilities(model, codec, texts)
        for text, p_C in zip(texts, probabilities, strict=True):
            changed = max(changed, _largest(_probabilities(model, codec, [text])[0], p_C))
    return changed, ROUNDING


def batch_mates(model: nn.Module, codec: TextCodec, rng: np.random.Generator) -> Verdict:
    """What else is in the batch, and in which order, never changes a result."""
    rows = _rows(codec, rng)
    together, turned = _states(model, codec, rows), _states(model, codec, rows[::-1])[::-1]
    others = _states(model, codec, [rows[0], *_rows(codec, rng)])[0]
    return max(_largest(others, together[0]), *map(_largest, together, turned)), ROUNDING


@torch.no_grad()
def masks_hide(model: nn.Module, codec: TextCodec, rng: np.random.Generator) -> Verdict:
    """Words under [MASK] cannot be read: other words there change no logit at all, and all words
    are predicted.
    """
    hide = MaskedWords(random_share=0.0, keep_share=0.0)
    part, seed = _parts(codec, rng, 50)[0], int(rng.integers(2**32))
    first = codec.row(part.ids)["ids"].numpy()
    other = first.copy()
    hidden = (
        hide._hide(first, words_of_row([part]), codec, np.random.default_rng(seed))[
            "target_ids"
        ].numpy()
        >= 0
    )
    other[hidden] = rng.choice(codec.ordinary, int(hidden.sum()))
    logits = []
    for ids in (first, other):
        masked = hide._hide(ids, words_of_row([part]), codec, np.random.default_rng(seed))
        batch = {
            **_batch(model, codec, [[part]]),
            "ids": masked["ids"][None].to(next(model.parameters()).device),
        }
        logits.append(model.word_logits(model(batch)[0, torch.from_numpy(hidden)]))
    missing = abs(logits[0].shape[-1] - codec.num_tokens)
    return _largest(*logits) + float(missing), 0.0


@torch.no_grad()
def chosen_tokens(model: nn.Module, codec: TextCodec, rng: np.random.Generator) -> Verdict:
    """States computed for chosen tokens alone, as in training, are those of the whole pass."""
    batch = _batch(model, codec, _rows(codec, rng))
    only_BL = real_tokens(batch) & torch.from_numpy(rng.random(batch["ids"].shape) < 0.2).to(
        batch["ids"].device
    )
    only_BL[:, 0] = True
    return _largest(model(batch, only=only_BL), model(batch)[only_BL]), ROUNDING


def round_trip(model: nn.Module, codec: TextCodec, rng: np.random.Generator) -> Verdict:
    """Text of known pieces, cut into tokens and joined again, is that text as the vocabulary
    normalises it.
    """
    wrong = 0
    for _ in range(20):
        text = codec.decode(rng.choice(codec.ordinary, 30))
        if not codec.unknown(text):
            wrong += codec.decode(codec.pieces(text)[0]) != plain(codec.tokenizer, text)
    return float(wrong), 0.0


@torch.no_grad()
def _probabilities(model: nn.Module, codec: TextCodec, texts: list[str]) -> Tensor:
    head = model.heads["document_class"]
    names = tuple(map(str, range(len(head.bias_C))))  # their names play no part in predict
    objective = ClassifyDocuments(classes=names, grams=bool(len(head.rarity_G)))
    rng = np.random.default_rng(0)  # predicting draws nothing
    batch = codec.collate(
        [objective.prepare({"text": text}, codec, rng, training=False) for text in texts]
    )
    batch = {name: value.to(next(model.parameters()).device) for name, value in batch.items()}
    return objective.predict(model, batch)["probability"]


def document_probabilities(model: nn.Module, codec: TextCodec, rng: np.random.Generator) -> Verdict:
    """Class probabilities are at least 0 and add up to 1 (holds idly without a classification
    head).
    """
    if "document_class" not in model.heads:
        return 0.0, 1e-6
    p_BC = _probabilities(model, codec, [codec.decode(row[0].ids) for row in _rows(codec, rng)])
    return max(float((p_BC.sum(-1) - 1).abs().max()), float(-p_BC.min())), 1e-6


LAWS: dict[str, Callable[[nn.Module, TextCodec, np.random.Generator], Verdict]] = {
    "padding": padding,
    "batch-mates": batch_mates,
    "masks-hide": masks_hide,
    "chosen-tokens": chosen_tokens,
    "round-trip": round_trip,
    "document-probabilities": document_probabilities,
}
