"""Documents are near duplicates where they share most pairs of neighbouring words."""

import re

import numpy as np

from sciforge.core.data.near_duplicates import hashed
from sciforge.core.domain import Fingerprint, Record


def features(record: Record) -> np.ndarray:
    """Return the pairs of neighbouring words, uint64, with the ends of the document as words; case
    and punctuation do not matter.

    >>> one, other = (features({"text": t}) for t in ("A fine room.", "a fine, room"))
    >>> set(one) == set(other), len(one)
    (True, 4)
    """
    words = ["", *re.findall(r"\w+", record["text"].casefold()), ""]
    return hashed([f"{one} {other}" for one, other in zip(words[:-1], words[1:], strict=True)])


FINGERPRINT = Fingerprint(
    columns=("key",),
    features=features,
    similarity=0.6,
    summary="pairs of neighbouring words",
    kinds=("documents",),
)
