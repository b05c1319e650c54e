"""Documents of a store seen as places where a row of tokens may begin: rows are full, nothing is
stored twice.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from sciforge.core.data.store import Store
from sciforge.errors import ConfigError

# of English word pieces with their spaces, about; it only sets how far apart rows begin
LETTERS_PER_TOKEN = 4
SENTENCES_AT_ONCE = 50  # counted together; a novel must not be one piece of work
# letters taken as one piece of work; a line without any full stop goes on in the next one
LONGEST_SENTENCE = 2000


class TextRows(Sequence):
    """Places that tile the documents of one split; an objective begins a row at a sentence of the
    place and reads on.

    A record holds its document's `text`, `sentences` (offsets in letters), `name` and `place`
    (document, part, parts), and `corpus`, the view itself, for what stands elsewhere. A document
    has about as many places as it fills rows.

    Args:
        store: a store with the columns `text` and `sentences`.
        split: `train`, `validation` or `test`.
        length: tokens of a row.
    """

    def __init__(self, store: Store, split: str, length: int) -> None:
        self.rows = store.split(split)
        letters_N = store.lengths("text")[self.rows.indices]
        self.places_N = np.maximum(
            1, np.rint(letters_N / (LETTERS_PER_TOKEN * length)).astype(np.int64)
        )
        self.ends = np.cumsum(self.places_N)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, i: int) -> dict[str, Any]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        document = int(np.searchsorted(self.ends, i, side="right"))
        part = i - (int(self.ends[document - 1]) if document else 0)
        place = (document, part, int(self.places_N[document]))
        return {**self.rows[document], "place": place, "corpus": self}

    @property
    def num_documents(self) -> int:
        """Documents of the split."""
        return len(self.rows)

    def sentences(self, document: int, first: int = 0) -> Iterator[str]:
        """Yield the sentences of a document from one on; documents beyond the last begin again
        at the first.
        """
        record = self.rows[document % len(self.rows)]
        yield from sentences_of(record, first)

    def ids(self, codec: Any) -> Iterator[np.ndarray]:
        """Yield the ids of each document [n]."""
        for document in range(len(self.rows)):
            for sentences in in_groups(self.sentences(document), SENTENCES_AT_ONCE):
                yield codec.pieces(" ".join(sentences))[0]

    def another(self, document: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return another document, drawn at random, with `text` and `sentences`."""
        if len(self.rows) < 2:
            raise ConfigError(
                "a random second segment needs a second document; give more documents or --no-pairs"
            )
        drawn = int(rng.integers(len(self.rows) - 1))
        return self.rows[drawn + (drawn >= document)]


def in_groups(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield lists of up to `size` items.

    >>> list(in_groups("abc", 2))
    [['a', 'b'], ['c']]
    """
    items = iter(items)
    while group := list(islice(items, size)):
        yield group


def borders(record: dict[str, Any]) -> np.ndarray:
    """Return where the sentences of a document begin and where the last ends [S + 1], giant
    sentences cut.

    >>> borders({"text": "a" * 4500 + ".", "sentences": np.array([0, 4501])}).tolist()
    [0, 2000, 4000, 4501]
    """
    given = (
        np.asarray(record["sentences"], np.int64)
        if "sentences" in record
        else np.array([0, len(record["text"])])
    )
    if not len(given) or np.diff(given).max(initial=0) <= LONGEST_SENTENCE:
        return given
    cuts = [np.arange(a, b, LONGEST_SENTENCE) for a, b in zip(given[:-1], given[1:], strict=True)]
    return np.concatenate([*cuts, given[-1:]])


def sentences_of(record: dict[str, Any], first: int = 0) -> Iterator[str]:
    """Yield the sentences of a document from one on, without the spaces behind them."""
    text, at = record["text"], borders(record)
    yield from (text[a:b].rstrip() for a, b in zip(at[first:-1], at[first + 1 :], strict=True))


def first_sentences(record: dict[str, Any]) -> tuple[int, int]:
    """Return the range of sentences at which a row of this place may begin, first and one behind
    the last.

    >>> first_sentences({"text": "abcdef", "sentences": np.array([0, 2, 4, 6]), "place": (0, 1, 2)})
    (2, 3)
    """
    _, part, parts = record["place"]
    at = borders(record)[:-1]
    size = max(len(record["text"]), 1)
    first, last = (int(np.searchsorted(at, size * p / parts)) for p in (part, part + 1))
    return min(first, len(at) - 1), max(last, min(first, len(at) - 1) + 1)
