"""Rows of tokens from running text: full rows of sentences, or two segments of which the second
may come from elsewhere.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sciforge.core.domain import Record
from sciforge.text.data.codec import TextCodec
from sciforge.text.data.rows import first_sentences, sentences_of
from sciforge.text.data.vocabulary import END

NEXT, RANDOM = 0, 1  # BERT's labels: the second segment follows, or comes from another document
NO_WORD = -1


class Part(NamedTuple):
    """Tokens of a segment: ids [n], the number of each piece's word [n] (-1 for a [SEP]), where
    sentences begin [s].
    """

    ids: np.ndarray
    words: np.ndarray
    starts: np.ndarray

    def cut(self, first: int, last: int) -> "Part":
        """Return the tokens from one on, up to another."""
        words = self.words[first:last]
        least = words[words >= 0].min(initial=len(self.words))
        starts = self.starts[(self.starts >= first) & (self.starts < last)] - first
        return Part(self.ids[first:last], np.where(words < 0, NO_WORD, words - least), starts)


def fill_row(
    record: Record,
    codec: TextCodec,
    rng: np.random.Generator,
    training: bool,
    capacity: int,
    across: bool,
) -> Part:
    """Return up to `capacity` tokens from a sentence of the record's place on.

    Args:
        record: of a TextRows.
        codec: of the tokens.
        rng: draws the sentence in training; else it is the place's first.
        training: whether to draw it.
        capacity: tokens, special ones aside.
        across: go on in the next documents, [SEP] between them, until the row is full.
    """
    first, last = first_sentences(record)
    start = int(rng.integers(first, last)) if training else first
    ids, words, starts, size, word = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [], 0, 0
    for sentence in _running(record, start, across):
        if sentence is None:
            pieces, number = np.array([codec.special[END]]), np.array([NO_WORD])
        else:  # the space belongs to the next word where pieces are of bytes
            pieces, number = codec.pieces(f" {sentence}" if size else sentence)
        if not len(pieces) or (sentence is None and not size):
            continue
        if sentence is not None:
            starts.append(size)
        ids.append(pieces)
        words.append(np.where(number < 0, NO_WORD, number + word))
        size, word = size + len(pieces), word + int(number.max()) + 1
        if size >= capacity:
            break
    starts = np.array([at for at in starts if at < capacity], np.int64)
    return Part(np.concatenate(ids)[:capacity], np.concatenate(words)[:capacity], starts)


def _running(record: Record, start: int, across: bool) -> Iterator[str | None]:
    """Yield sentences from one on, None at the end of a document; at most one round through the
    corpus.
    """
    yield from sentences_of(record, start)
    if across:
        document, corpus = record["place"][0], record["corpus"]
        for step in range(1, corpus.num_documents):
            yield None
            yield from corpus.sentences(document + step)


def fill_pair(
    record: Record, codec: TextCodec, rng: np.random.Generator, training: bool, capacity: int
) -> tuple[list[Part], int]:
    """Return two segments of up to `capacity` tokens together, and whether the second is NEXT or
    RANDOM (half of the rows).

    The first is some sentences, the second what follows them in the document, or as many tokens of
    another one: its length tells nothing. What is one sentence is cut between two words, so that
    both kinds are equally frequent there.
    """
    whole, kind = (
        fill_row(record, codec, rng, training, capacity, across=False),
        int(rng.integers(2)),
    )
    cuts = whole.starts[whole.starts > 0]
    if not len(cuts):
        cuts = np.flatnonzero(np.diff(whole.words) != 0) + 1
    if not len(cuts):  # one word has no next segment
        other = _elsewhere(record, codec, rng, 1)
        return [whole.cut(0, max(1, capacity - len(other.ids))), other], RANDOM
    cut = int(rng.choice(cuts))
    first, second = whole.cut(0, cut), whole.cut(cut, len(whole.ids))
    if kind == RANDOM:
        second = _elsewhere(record, codec, rng, len(second.ids))
    return [first, second], kind


def _elsewhere(record: Record, codec: TextCodec, rng: np.random.Generator, capacity: int) -> Part:
    """Return tokens from a sentence of another document, both drawn at random."""
    other = record["corpus"].another(record["place"][0], rng)
    return fill_row({**other, "place": (0, 0, 1)}, codec, rng, True, capacity, across=False)


def words_of_row(parts: list[Part]) -> np.ndarray:
    """Return the number of each token's word in [CLS] part [SEP] part [SEP] [L], no two parts
    alike; -1 for special tokens.

    >>> part = Part(np.array([7, 8]), np.array([0, 0]), np.array([0]))
    >>> words_of_row([part, part]).tolist()
    [-1, 0, 0, -1, 1, 1, -1]
    """
    words, above = [np.array([NO_WORD])], 0
    for part in parts:
        words += [np.where(part.words < 0, NO_WORD, part.words + above), np.array([NO_WORD])]
        above += int(part.words.max(initial=NO_WORD)) + 1
    return np.concatenate(words)
