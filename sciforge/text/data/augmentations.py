"""Changes of a text that a user may hold to be without meaning: case, punctuation, numbers, word
order, a part of it.

Legend of shape letters: B batch, L tokens, D width.
"""

import re
import zlib
from typing import Any

import numpy as np
from torch import Tensor, nn

from sciforge.core.domain import Augmentation, Batch, Record
from sciforge.text.model.heads import pooled_mean, real_tokens

MARKS = ".,!?;:'\"-()"
BUCKETS = 64  # of hashed pairs of neighbours
DROPPED = 0.5  # share of punctuation marks that are taken out
KEPT = 0.5  # share of a document that is kept


def embed(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean of the last layer's states over a document's tokens [B, D]."""
    return pooled_mean(model(batch), real_tokens(batch))


def _with(record: Record, text: str) -> dict[str, Any]:
    """Return the record with another text; what pointed into the old one is gone."""
    kept = {
        name: value for name, value in record.items() if name not in ("sentences", "words", "tags")
    }
    return {**kept, "text": text, "sentences": np.array([0, len(text)], np.int32)}


def lower_case(record: Record, rng: np.random.Generator) -> dict[str, Any]:
    """Return the record in small letters."""
    return _with(record, record["text"].lower())


def capitals(record: Record) -> np.ndarray:
    """Return shares [3]: capital letters among letters, words that begin with one, words of
    capitals alone.

    >>> capitals({"text": "I LOVE it"}).round(2).tolist()
    [0.71, 0.67, 0.33]
    """
    letters = [letter for letter in record["text"] if letter.isalpha()]
    words = re.findall(r"[^\W\d_]+", record["text"])
    upper = sum(letter.isupper() for letter in letters) / max(len(letters), 1)
    first = sum(word[0].isupper() for word in words) / max(len(words), 1)
    return np.array(
        [upper, first, sum(len(w) > 1 and w.isupper() for w in words) / max(len(words), 1)]
    )


def drop_punctuation(record: Record, rng: np.random.Generator) -> dict[str, Any]:
    """Return the record with half of its punctuation marks taken out, drawn at random; never all
    of its letters.
    """
    text = record["text"]
    taken = [mark in MARKS and rng.random() < DROPPED for mark in text]
    shortened = "".join(letter for letter, gone in zip(text, taken, strict=True) if not gone)
    return _with(record, shortened if shortened.strip() else text)


def punctuation(record: Record) -> np.ndarray:
    """Return how often each of 11 marks comes, per word [11].

    >>> punctuation({"text": "Well, well!"})[:3].tolist()
    [0.0, 0.5, 0.5]
    """
    words = max(len(record["text"].split()), 1)
    return np.array([record["text"].count(mark) / words for mark in MARKS])


def mask_numbers(record: Record, rng: np.random.Generator) -> dict[str, Any]:
    """Return the record with every digit a 0."""
    return _with(record, re.sub(r"\d", "0", record["text"]))


def digits(record: Record) -> np.ndarray:
    """Return how often each of the digits 0 to 9 comes, per word [10].

    >>> digits({"text": "room 101"})[:2].tolist()
    [0.5, 1.0]
    """
    words = max(len(record["text"].split()), 1)
    return np.array([record["text"].count(str(digit)) / words for digit in range(10)])


def shuffle_words(record: Record, rng: np.random.Generator) -> dict[str, Any]:
    """Return the record with its words in a random order."""
    words = record["text"].split()
    return _with(record, " ".join(words[i] for i in rng.permutation(len(words))))


def neighbours(record: Record) -> np.ndarray:
    """Return shares of pairs of neighbouring words by a hash of both [64]: what word order changes
    and word counts do not.

    >>> neighbours({"text": "to be or not to be"}).sum().round(6) == 1
    np.True_
    """
    words = record["text"].lower().split()
    shares = np.zeros(BUCKETS)
    for pair in zip(words[:-1], words[1:], strict=True):
        shares[zlib.crc32(" ".join(pair).encode()) % BUCKETS] += 1
    return shares / max(len(words) - 1, 1)


def keep_half(record: Record, rng: np.random.Generator) -> dict[str, Any]:
    """Return one half of the record's words, a run that begins anywhere."""
    words = record["text"].split()
    size = max(1, round(KEPT * len(words)))
    start = int(rng.integers(len(words) - size + 1)) if words else 0
    return _with(record, " ".join(words[start : start + size]))


def ends(record: Record) -> np.ndarray:
    """Return the log of the number of words, and hashes of the first and the last three words [1 +
    2 * 16].

    >>> ends({"text": "once upon a time"}).shape
    (33,)
    """
    words = record["text"].lower().split()
    counts = np.zeros((2, 16))
    for row, part in zip(counts, (words[:3], words[-3:]), strict=True):
        for word in part:
            row[zlib.crc32(word.encode()) % 16] += 1
    return np.concatenate([[np.log1p(len(words))], counts.ravel()])


AUGMENTATIONS = {
    "lower-case": Augmentation(lower_case, capitals, "all letters small"),
    "drop-punctuation": Augmentation(
        drop_punctuation, punctuation, "half of the punctuation marks taken out"
    ),
    "mask-numbers": Augmentation(mask_numbers, digits, "every digit a 0"),
    "shuffle-words": Augmentation(shuffle_words, neighbours, "words in a random order"),
    "keep-half": Augmentation(keep_half, ends, "one half of the words, a run from anywhere"),
}
