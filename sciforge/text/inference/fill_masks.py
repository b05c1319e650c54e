"""The likeliest words at the [MASK] of a text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sciforge.core.files.output_files import about
from sciforge.core.files.results import TableResult
from sciforge.core.files.settings import Settings
from sciforge.core.training.evaluation import evaluation
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError
from sciforge.text.data.vocabulary import MASK


@dataclass(frozen=True, kw_only=True)
class FillMasks(Settings):
    """The likeliest words for every [MASK] of some texts, as a table: text, mask, rank, word,
    probability.

    Works on pretraining checkpoints and on fine-tuned ones, whose language head stays as it was.

    Args:
        texts: each with one [MASK] at least.
        top: words for each mask.
    """

    texts: tuple[str, ...]
    top: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "top")
        if not self.texts:
            raise ConfigError("fillmasks.texts is empty; give at least one text with a [MASK]")

    def run(self, model: Model) -> TableResult:
        """Return the table; raises ConfigError for a text without [MASK], or longer than the
        checkpoint reads.
        """
        import pandas as pd

        rows = []
        with evaluation(model.network, model.objective):
            for text in self.texts:
                for mask, words in enumerate(fill(model, text, self.top), 1):
                    rows += [(text, mask, rank, word, p) for rank, (word, p) in enumerate(words, 1)]
        columns = ["text", "mask", "rank", "word", "probability"]
        return TableResult(pd.DataFrame(rows, columns=columns), about(self, model))


def fill_masks(model: Model, texts: Sequence[str] | str, *, top: int = 5) -> TableResult:
    """Return the likeliest words for every [MASK] of some texts: text, mask, rank, word,
    probability.

    Args:
        model: pretrained or fine-tuned.
        texts: each with one [MASK] at least.
        top: words for each mask.

    Raises:
        ConfigError: a text has no [MASK], or is longer than the model reads.
    """
    return FillMasks(texts=(texts,) if isinstance(texts, str) else tuple(texts), top=top).run(model)


@torch.no_grad()
def fill(model: Model, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
    """Return for each [MASK] of a text the likeliest pieces and their probabilities.

    Raises:
        ConfigError: there is no [MASK], or the text is longer than the checkpoint's rows.
    """
    codec = model.codec
    ids = codec.pieces(text, specials=True)[0]
    if not (ids == codec.mask).any():
        raise ConfigError(f"no {MASK} in {text[:60]!r}; put one where a word is asked for")
    if len(ids) > codec.length - 2:
        raise ConfigError(
            f"{text[:60]!r}... has {len(ids)} tokens; the checkpoint reads {codec.length - 2}"
        )
    batch = model.engine.move(codec.collate([codec.row(ids)]))
    x_MD = model.network(batch, only=batch["ids"] == codec.mask)
    p_MV = model.network.word_logits(x_MD).softmax(-1)
    best = p_MV.topk(min(top, p_MV.shape[1]))
    return [
        [(codec.token(i), float(p)) for p, i in zip(row, places, strict=True)]
        for row, places in zip(best.values, best.indices.tolist(), strict=True)
    ]
