"""Hashed counts of letters in a row: what a document looks like to a classical method, with no
vocabulary to fit.

A head that reads them beside the hidden states is never worse informed than TF-IDF, which is hard
to beat with few labels.
"""

import numpy as np

from sciforge.text.data.vocabulary import spaces

BITS = 15
NUM_GRAMS = 1 << BITS
SHORTEST, LONGEST = 2, 5  # letters of a gram
_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)


def letter_grams(text: str, lower: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return the buckets of a text's grams of 2 to 5 letters int64 [G], and 1 + log of how often
    each comes float32 [G].

    Letters count across word borders, white space as one space, and the text begins and ends with
    one.

    >>> [len(part) for part in letter_grams("aa")]
    [6, 6]
    >>> letter_grams("a b")[0].tolist() == letter_grams(" a  b ")[0].tolist()
    True
    """
    text = f" {spaces(text.lower() if lower else text)} "
    letter_L = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    buckets = []
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is the hash
        hash_L = np.zeros(len(letter_L), np.uint64)
        for size in range(1, min(LONGEST, len(letter_L)) + 1):
            tail = letter_L[size - 1 :]
            hash_L = hash_L[: len(tail)] * _PRIME + tail + np.uint64(1)
            if size >= SHORTEST:
                buckets.append(((hash_L + np.uint64(size)) * _MIX) >> np.uint64(64 - BITS))
    bucket_G, count_G = np.unique(
        np.concatenate(buckets or [np.zeros(0, np.uint64)]), return_counts=True
    )
    return bucket_G.astype(np.int64), (1 + np.log(count_G)).astype(np.float32)
