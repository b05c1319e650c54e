"""What a BERT learns before it sees a label: hidden words, and whether two segments follow each
other.

Legend of shape letters: B batch, L tokens, N chosen tokens, D width, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import (
    Batch,
    Categorical,
    Example,
    Likelihood,
    Loss,
    Objective,
    Record,
    widened,
)
from sciforge.core.transfers import host_view, places, to_device
from sciforge.errors import ConfigError
from sciforge.text.data.codec import NO_TARGET, SHORTEST_ROW, TextCodec
from sciforge.text.data.cooccurrence import start_from_counts
from sciforge.text.data.pairs import NEXT, fill_pair, fill_row, words_of_row
from sciforge.text.data.rows import TextRows
from sciforge.text.data.vocabulary import END, START
from sciforge.text.model.bert import PairHead

COPIES = 10  # of the data with masks of their own, where masks are drawn once (BERT's dupe_factor)


@dataclass(frozen=True)
class MaskedWords(Objective):
    """Masked-language modelling (Devlin et al. 2019) on full rows, masks drawn anew in every epoch
    (Liu et al. 2019).

    The defaults are RoBERTa's (arXiv 1907.11692): no second task, rows that go on into the next
    document. BERT's are `pairs` and `dynamic` off. The loss is in nats per hidden token.

    Args:
        length: tokens of a row, special tokens included.
        mask_rate: share of the tokens to hide and score.
        random_share: share of these that becomes a random piece.
        keep_share: share of these that stays as it is; the rest becomes [MASK].
        whole_words: hide all pieces of a word together (BERT's later release).
        across: a row that reaches the end of its document goes on in the next one, a [SEP] between
            them.
        dynamic: draw masks anew each time; off, each row has one of 10 masks for good, as BERT's
            data had.
        pairs: next-sentence prediction: rows of two segments, the second of half of them from
            another document.
        pair_weight: of that task, in nats per row.
        short_share: with `pairs`, share of rows of a random shorter length (BERT's 0.1).
        counts: start word vectors and the language head's bias from counts of the corpus
            (text.counts): in a `fresh` model, `always` (also in one that goes on in another field),
            or `never`, as published.
    """

    length: int = 128
    mask_rate: float = 0.15
    random_share: float = 0.1
    keep_share: float = 0.1
    whole_words: bool = False
    across: bool = True
    dynamic: bool = True
    pairs: bool = False
    pair_weight: float = 1.0
    short_share: float = 0.1
    counts: Literal["fresh", "always", "never"] = "fresh"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_rate < 1:
            raise ConfigError(
                f"objective.mask_rate is {self.mask_rate}; it must lie between 0 and 1"
            )
        if min(self.random_share, self.keep_share) < 0 or self.random_share + self.keep_share > 1:
            raise ConfigError(
                "objective: random_share and keep_share must be shares that add up to at most 1"
            )
        if self.length < SHORTEST_ROW + self.pairs:
            raise ConfigError(
                f"objective.length is {self.length}; a row needs at least"
                f" {SHORTEST_ROW + self.pairs}"
            )
        if not 0 <= self.short_share <= 1 or self.pair_weight < 0:
            raise ConfigError("objective: short_share must be a share and pair_weight at least 0")

    def attach(self, model: nn.Module) -> None:
        """Add BERT's pooler and second head where pairs are asked for."""
        if self.pairs and "pairs" not in model.heads:
            model.heads["pairs"] = PairHead(model.width)

    def examples(self, store: Any, split: str) -> Sequence[Record]:
        """Return the places of a split where rows begin; raises ConfigError where pairs have but
        one document.
        """
        rows = TextRows(store, split, self.length)
        if self.pairs and rows.num_documents == 1:
            raise ConfigError(
                f"{store.path} has one {split} document; a random pair needs a second: use"
                " --no-pairs"
            )
        return rows

    def start(
        self,
        model: nn.Module,
        codec: TextCodec,
        records: Sequence[Record],
        engine: Any,
        seed: int,
        parent: Any,
    ) -> Mapping[str, Any] | None:
        """Set word vectors and the language head's bias from counts of the training documents,
        where asked for.
        """
        if self.counts == "always" or (self.counts == "fresh" and parent is None):
            return start_from_counts(model, records.ids(codec), seed, fresh=parent is None)
        return None

    def prepare(
        self, record: Record, codec: TextCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Fill a row from the record's place on, hide words, and note what is to be predicted."""
        if self.length > codec.length:
            raise ConfigError(
                f"objective.length is {self.length}, codec.length {codec.length}; rows must fit the"
                " codec"
            )
        if not self.dynamic:
            rng = np.random.default_rng([*record["place"], int(rng.integers(COPIES))])
        if self.pairs:
            parts, kind = fill_pair(
                record, codec, rng, training, self._row_length(rng, training) - 3
            )
        else:
            parts, kind = (
                [fill_row(record, codec, rng, training, self.length - 2, self.across)],
                NEXT,
            )
        example = codec.row(*(part.ids for part in parts))
        example |= self._hide(example["ids"].numpy(), words_of_row(parts), codec, rng)
        if self.pairs:
            example["target_pair"] = torch.tensor(kind)
        return example

    def _row_length(self, rng: np.random.Generator, training: bool) -> int:
        """Return the tokens of this row."""
        if training and rng.random() < self.short_share:
            return int(rng.integers(SHORTEST_ROW + 1, self.length + 1))
        return self.length

    def _hide(
        self, ids_L: np.ndarray, words_L: np.ndarray, codec: TextCodec, rng: np.random.Generator
    ) -> Example:
        """Return the row with words hidden, and their ids as targets."""
        candidates = np.flatnonzero((ids_L != codec.special[START]) & (ids_L != codec.special[END]))
        count = max(1, round(self.mask_rate * len(candidates)))
        units = words_L if self.whole_words else np.arange(len(ids_L))
        chosen = choose_units(units[candidates], count, rng)
        hidden = candidates[chosen]
        shown_L, target_L = ids_L.copy(), np.full(len(ids_L), NO_TARGET)
        target_L[hidden] = ids_L[hidden]
        draw = rng.random(len(hidden))
        shown_L[hidden[draw >= self.random_share + self.keep_share]] = codec.mask
        swapped = hidden[draw < self.random_share]
        shown_L[swapped] = rng.choice(codec.ordinary, len(swapped))
        return {"ids": torch.from_numpy(shown_L), "target_ids": torch.from_numpy(target_L)}

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return nats summed over hidden tokens, and with pairs the second task's, weighted to
        the same count.
        """
        logits_NV, first_BD = self._read(model, batch)
        target_N = batch["target_ids"][hidden_places(batch)]
        nats, count = (
            F.cross_entropy(logits_NV, target_N, reduction="sum"),
            torch.tensor(len(target_N)),
        )
        parts = {
            "word_nats": (nats, count),
            "word_accuracy": ((logits_NV.argmax(-1) == target_N).sum(), count),
        }
        if self.pairs:
            logits_B2 = widened(model.heads["pairs"](first_BD))
            pair_nats = F.cross_entropy(logits_B2, batch["target_pair"], reduction="sum")
            rows = torch.tensor(len(logits_B2))
            right = (logits_B2.argmax(-1) == batch["target_pair"]).sum()
            parts |= {"pair_nats": (pair_nats, rows), "pair_accuracy": (right, rows)}
            # weighted per hidden token, so that the one count divides both; a full row has
            # mask_rate * length of them
            nats = nats + self.pair_weight * self.mask_rate * self.length * pair_nats
        return Loss(nats, count, parts)

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return the distribution of each hidden token."""
        return Categorical(self._read(model, batch)[0], batch["target_ids"][hidden_places(batch)])

    def _read(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits [N, V] at hidden tokens, and the states of [CLS] [B, D]; the last block
        computes these alone.
        """
        device = batch["target_ids"].device
        # torch.compile would break its graph at a number of tokens that depends on the data
        if hasattr(model, "_orig_mod"):
            x_BLD = model(batch)
            return widened(model.word_logits(x_BLD[hidden_places(batch)])), x_BLD[:, 0]
        asked_BL = host_view(batch["target_ids"]) >= 0
        asked_BL[:, 0] = self.pairs
        x_ND = model(batch, only=to_device(asked_BL, device))
        first_N = asked_BL.nonzero()[:, 1] == 0
        return (
            widened(model.word_logits(x_ND[places(~first_N, device)])),
            x_ND[places(first_N, device)],
        )


def hidden_places(batch: Batch) -> tuple[Tensor, ...]:
    """Return the rows and columns of hidden tokens, on the device of the batch."""
    return places(host_view(batch["target_ids"]) >= 0, batch["target_ids"].device)


def choose_units(units_N: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return places of whole units (words) drawn at random, `count` of them or, where no unit fits
    any more, fewer.

    The first unit is taken whatever its size, so that something is always hidden.

    >>> choose_units(np.array([0, 0, 1, 2, 2]), 2, np.random.default_rng(0)).tolist()
    [3, 4]
    """
    names, inverse, sizes = np.unique(units_N, return_inverse=True, return_counts=True)
    order = rng.permutation(len(names))
    if len(names) == len(units_N):
        return np.sort(order[:count])
    taken = np.zeros(len(names), bool)
    left = count
    for unit in order:
        if sizes[unit] <= left or not taken.any():
            taken[unit], left = True, left - sizes[unit]
        if left <= 0:
            break
    return np.flatnonzero(taken[inverse])
