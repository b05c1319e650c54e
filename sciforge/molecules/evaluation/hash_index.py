"""Which molecules a training set holds, in 8 bytes for each: hashes of canonical SMILES without
stereochemistry.

MOSES compares strings, but RDKit's canonical form moves from release to release, so both sides are
written anew.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sciforge.errors import DataError
from sciforge.molecules.evaluation.generated_files import in_chunks, judge, read_strings

VERSION = 1  # of what is kept; part of the key of the cached file


def hash_of(plain: str) -> int:
    """Return 64 bits of a canonical SMILES; 30,000 molecules meet 1.6 million by accident once in
    4e8 runs.

    >>> hash_of("CCO") == hash_of("CCO") != hash_of("CCN")
    True
    """
    return int.from_bytes(hashlib.blake2b(plain.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class HashIndex:
    """The molecules of a training set.

    Args:
        hashes_K: sorted, each once, uint64.
        rejected: rows of the file that are no valid molecule.
    """

    hashes_K: np.ndarray
    rejected: int

    def holds(self, plain: Sequence[str]) -> np.ndarray:
        """Return whether it holds each molecule, given as canonical SMILES without
        stereochemistry.
        """
        wanted = np.array([hash_of(one) for one in plain], np.uint64)
        place = np.searchsorted(self.hashes_K, wanted)
        return self.hashes_K[np.minimum(place, len(self.hashes_K) - 1)] == wanted

    def save(self, path: Path) -> None:
        """Write the hashes."""
        with open(path, "wb") as handle:
            np.savez(handle, hashes=self.hashes_K, rejected=self.rejected)

    @classmethod
    def load(cls, path: Path) -> "HashIndex":
        """Return what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["hashes"], int(arrays["rejected"]))


def _hashes(texts: Sequence[str]) -> tuple[np.ndarray, int]:
    hashes = [hash_of(sample.plain) for sample in map(judge, texts) if not sample.reason]
    return np.array(hashes, np.uint64), len(texts) - len(hashes)


def hash_index_of(path: Path, pool: Executor | None = None) -> HashIndex:
    """Return the molecules of a file, read as a stream; about 6,000 a second on a core.

    Raises:
        DataError: it cannot be read, or holds no valid molecule.
    """
    parts = list(in_chunks(_hashes, read_strings(path), pool, "training set"))
    hashes = np.unique(np.concatenate([np.zeros(0, np.uint64), *(part for part, _ in parts)]))
    if not len(hashes):
        raise DataError(
            "no valid molecule in it; give the SMILES that the generator was trained on", path
        )
    return HashIndex(hashes, sum(rejected for _, rejected in parts))
