"""TextCodec: documents become rows of word pieces, [CLS] words [SEP] or [CLS] words [SEP] words
[SEP].

Legend of shape letters: B batch, L tokens of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from sciforge.core.domain import Batch, Example, Record
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError
from sciforge.text.data.vocabulary import (
    END,
    MASK,
    PAD,
    SPECIALS,
    START,
    UNKNOWN,
    is_bytes,
    open_tokenizer,
    pieces,
    train_bytes,
    train_wordpiece,
)

NO_TARGET = -100
SHORTEST_ROW = 4


@dataclass(frozen=True)
class TextCodec(Settings):
    """How text becomes tokens; its vocabulary is trained on the training split and stays in the
    checkpoint.

    Args:
        kind: `wordpiece` (BERT) or `bytes` (byte pairs, RoBERTa).
        size: most pieces of the vocabulary.
        lower: fold case, and for `wordpiece` take accents off.
        least: how often two pieces must meet to become one.
        length: tokens of the longest row, special tokens included; the net has so many positions.
        tokenizer: the trained vocabulary, JSON as the package `tokenizers` writes it.
    """

    kind: Literal["wordpiece", "bytes"] = "wordpiece"
    size: int = 8000
    lower: bool = True
    least: int = 2
    length: int = 512
    tokenizer: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size <= len(SPECIALS) or self.least < 1:
            raise ConfigError(
                f"codec.size is {self.size} and codec.least {self.least}; give more than 5 and at"
                " least 1"
            )
        if self.length < SHORTEST_ROW:
            raise ConfigError(
                f"codec.length is {self.length}; a row needs at least {SHORTEST_ROW} tokens"
            )

    def where(self, name: str) -> str:
        """Return how an error names a field: codec.size."""
        return f"codec.{name}"

    def fit(self, store: Any) -> Self:
        """Return a copy with a vocabulary of the training split; a codec that has one keeps it."""
        return self.fit_all([store])

    def fit_all(self, stores: Sequence[Any]) -> Self:
        """Return a copy with one vocabulary of the training splits of all tasks; the same store
        counts once.
        """
        if self.tokenizer:
            return self
        splits = {store.path: store.split("train") for store in stores}
        texts = [text for records in splits.values() for text in records.column("text")]
        train = train_bytes if self.kind == "bytes" else train_wordpiece
        return replace(
            self,
            tokenizer=train(texts, self.size, self.lower, self.least),
        )

    @cached_property
    def num_tokens(self) -> int:
        """Size of the vocabulary, special tokens included."""
        return self._opened(False).get_vocab_size()

    @cached_property
    def special(self) -> dict[str, int]:
        """Ids of [PAD], [UNK], [CLS], [SEP] and [MASK]."""
        return {token: self._opened(False).token_to_id(token) for token in SPECIALS}

    @cached_property
    def ordinary(self) -> np.ndarray:
        """Ids of the pieces that are no special tokens, int64, sorted."""
        return np.setdiff1d(np.arange(self.num_tokens), list(self.special.values()))

    def _opened(self, specials: bool) -> Any:
        if not self.tokenizer:
            raise ConfigError(
                "the codec has no vocabulary yet; it is trained on the first data that a model"
                " trains on"
            )
        return open_tokenizer(self.tokenizer, specials)

    def pieces(self, text: str, specials: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return ids [n] of a text and the number of each piece's word [n]; with `specials`
        "[MASK]" is the mask token.
        """
        self._opened(specials)
        return pieces(self.tokenizer, text, specials)[:2]

    def places(self, text: str) -> np.ndarray:
        """Return where each piece of a text stands, from which letter to which, int32 [n, 2]."""
        self._opened(False)
        return pieces(self.tokenizer, text)[2]

    def row(self, *parts: np.ndarray) -> Example:
        """Return [CLS] part [SEP] part [SEP] ... as an example; the second part has segment 1, as
        in BERT.

        Args:
            parts: ids, one array or two; at most `length` tokens with the special ones.
        """
        ids, segments = [np.array([self.special[START]])], [np.zeros(1, np.int64)]
        for number, part in enumerate(parts):
            ids += [part, np.array([self.special[END]])]
            segments.append(np.full(len(part) + 1, number))
        row_L = np.concatenate(ids).astype(np.int64)
        if len(row_L) > self.length:
            raise DataError(
                f"a row of {len(row_L)} tokens is longer than codec.length {self.length}; cut it"
            )
        return {
            "ids": torch.from_numpy(row_L),
            "segments": torch.from_numpy(np.concatenate(segments)),
        }

    def encode(self, record: Record) -> Example:
        """Return a document's `ids` and `segments` [L]; of a long one the first `length` tokens."""
        return self.row(self.pieces(str(record["text"]))[0][: self.length - 2])

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Pad what is as long as the tokens and stack the rest; `lengths` [B] counts real tokens.

        Padding is [PAD] in `ids`, -100 in whatever is named `target...`, else 0.
        """
        lengths = [len(example["ids"]) for example in examples]
        batch: Batch = {"lengths": torch.tensor(lengths)}
        for name, first in examples[0].items():
            values = [example[name] for example in examples]
            if first.ndim:
                fill = (
                    self.special[PAD]
                    if name == "ids"
                    else NO_TARGET
                    if name.startswith("target")
                    else 0
                )
                batch[name] = padded(values, fill)
            else:
                batch[name] = torch.stack(values)
        return batch

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens left out; words stand one space apart."""
        return self._opened(False).decode([int(i) for i in ids], skip_special_tokens=True)

    def token(self, number: int) -> str:
        """Return one piece as it is written: `##ing` inside a word (WordPiece), with its spaces
        (bytes).
        """
        if is_bytes(self.tokenizer) and number not in self.special.values():
            return self._opened(False).decode([int(number)])
        return self._opened(False).id_to_token(int(number))

    def unknown(self, text: str) -> int:
        """Return how many words of a text are unknown."""
        return int((self.pieces(text)[0] == self.special[UNKNOWN]).sum())

    @property
    def mask(self) -> int:
        """The id of [MASK]."""
        return self.special[MASK]


def padded(rows: Sequence[Tensor], fill: int | float) -> Tensor:
    """Return rows of unequal length as one tensor, filled up behind.

    >>> padded([torch.tensor([1, 2]), torch.tensor([3])], 0).tolist()
    [[1, 2], [3, 0]]
    """
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=fill)
