"""Records that are nearly the same, by hashed features: MinHash signatures find candidates, and the
features themselves decide.

The similarity of two records is that of Jaccard: features in common, of all that either has.

Legend of shape letters: N records, U distinct sets of features, F features of all sets together,
P pairs.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sciforge.core.data.sampling import EVALUATE, generator

HASHES = 64
ROWS = (8, 7, 6, 5, 4, 3, 2, 1)  # hashes of a band, the most selective first
RECALL = 0.98  # of pairs just at the similarity asked for, at least
NEIGHBOURS = 8  # candidates of a record in one band; a bucket of thousands is no list of pairs
MARGIN = 0.15  # by which the similarity of two signatures may be off
CHUNK = 1 << 18  # pairs compared at once


@dataclass(frozen=True)
class NearPairs:
    """Pairs of records at least so similar.

    Args:
        set_N: number of each record's set of features; -1 for a record without any.
        pair_P2: numbers of two similar sets that differ.
        similarity_P: of each pair.
    """

    set_N: np.ndarray
    pair_P2: np.ndarray
    similarity_P: np.ndarray

    @cached_property
    def _both_ways(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        one, other = np.concatenate([self.pair_P2, self.pair_P2[:, ::-1]]).T
        return one, other, np.tile(self.similarity_P, 2)

    def nearest(self, of_N: np.ndarray, among_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the most similar other record of each, and how similar it is.

        Args:
            of_N: places of the records that are asked about.
            among_N: places of the records that may be the answer; none of them is in `of_N`.

        Returns:
            Places, -1 where no record is similar enough, and similarities, 0 there.
        """
        size = int(self.set_N.max(initial=-1)) + 1
        member_U = np.full(size + 1, -1)
        member_U[self.set_N[among_N][::-1]] = among_N[::-1]  # the first of each set
        member_U[-1] = -1  # what has no features resembles nothing
        best_U, place_U = (member_U >= 0).astype(float), member_U.copy()
        one, other, similarity = self._both_ways
        useful = (member_U[other] >= 0) & (member_U[one] < 0)
        for at in np.flatnonzero(useful)[np.argsort(similarity[useful], kind="stable")]:
            best_U[one[at]], place_U[one[at]] = similarity[at], member_U[other[at]]
        return place_U[self.set_N[of_N]], best_U[self.set_N[of_N]]

    def groups(self, group_N: np.ndarray | None = None) -> np.ndarray:
        """Return a number for each record, int [N], equal for all that similar records link.

        Args:
            group_N: numbers of groups that are whole already; None for none.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        num, size = len(self.set_N), int(self.set_N.max(initial=-1)) + 1
        known = np.flatnonzero(self.set_N >= 0)
        links = [np.stack([known, num + self.set_N[known]], 1), num + self.pair_P2]
        if group_N is not None:
            links.append(np.stack([np.arange(num), num + size + group_N], 1))
            size += int(group_N.max(initial=-1)) + 1
        row, column = np.concatenate(links).T
        graph = coo_array((np.ones(len(row), bool), (row, column)), shape=(num + size, num + size))
        return connected_components(graph, directed=False)[1][:num]


def near_pairs(features: Sequence[np.ndarray], similarity: float, seed: int = 0) -> NearPairs:
    """Return the pairs of records whose features have at least this similarity.

    Time and memory grow with the features, not with the pairs: a record is compared with those that
    share some hashes with it, a few for each. What is returned is exactly as similar as stated;
    of all such pairs some 2 % may be missed, and more where hundreds of records are alike (they are
    then linked in chains).

    Args:
        features: of each record, uint64, hashes of what it consists of.
        similarity: least Jaccard similarity, above 0.
        seed: of the hashes.

    >>> pairs = near_pairs([np.arange(9), np.arange(10), np.arange(50, 60), np.arange(9)], 0.8)
    >>> pairs.set_N.tolist(), pairs.pair_P2.tolist(), pairs.similarity_P.tolist()
    ([0, 1, 2, 0], [[0, 1]], [0.9])
    """
    sets: dict[bytes, int] = {}
    distinct: list[np.ndarray] = []
    set_N = np.full(len(features), -1)
    for place, own in enumerate(features):
        own = np.unique(np.asarray(own).astype(np.uint64))
        if len(own):
            set_N[place] = sets.setdefault(own.tobytes(), len(sets))
            if len(sets) > len(distinct):
                distinct.append(own)
    nothing = np.empty((0, 2), int), np.empty(0)
    if len(distinct) < 2:
        return NearPairs(set_N, *nothing)
    signature_UH = _signatures(distinct, seed)
    pair_P2 = _candidates(signature_UH, similarity)
    alike = np.concatenate(
        [
            (signature_UH[part[:, 0]] == signature_UH[part[:, 1]]).mean(1)
            for part in np.array_split(pair_P2, -(-len(pair_P2) // CHUNK) or 1)
        ]
    )
    pair_P2 = pair_P2[alike >= similarity - MARGIN]
    similarity_P = _jaccard(distinct, pair_P2)
    kept = similarity_P >= similarity
    return NearPairs(set_N, pair_P2[kept], similarity_P[kept])


def _signatures(distinct: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Return the smallest of each hash over the features of each set, uint32 [U, HASHES]."""
    feature_F = np.concatenate(distinct)
    start_U = np.concatenate([[0], np.cumsum([len(own) for own in distinct])[:-1]])
    feature_F = (feature_F ^ (feature_F >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    feature_F ^= feature_F >> np.uint64(29)
    factors = generator(seed, EVALUATE).integers(2**63, size=(2, HASHES), dtype=np.uint64)
    signature_UH = np.empty((len(distinct), HASHES), np.uint32)
    for place, (factor, offset) in enumerate(factors.T):
        mixed_F = (feature_F * (factor | np.uint64(1)) + offset) >> np.uint64(32)
        signature_UH[:, place] = np.minimum.reduceat(mixed_F.astype(np.uint32), start_U)
    return signature_UH


def _candidates(signature_UH: np.ndarray, similarity: float) -> np.ndarray:
    """Return pairs of sets that agree in a whole band of hashes, int64 [P, 2], smaller first."""
    rows = next(
        (r for r in ROWS if 1 - (1 - similarity**r) ** (HASHES // r) >= RECALL),
        1,
    )
    num, bands = len(signature_UH), HASHES // rows
    found = []
    key_UB = np.empty((num, bands), np.uint64)
    for band in range(bands):
        key_U = np.zeros(num, np.uint64)
        for column in signature_UH[:, band * rows : (band + 1) * rows].T:
            key_U = (key_U ^ column) * np.uint64(0x9E3779B97F4A7C15)
            key_U ^= key_U >> np.uint64(32)
        key_UB[:, band] = key_U
    for band in range(bands):
        key_U = key_UB[:, band]
        order = np.lexsort((key_UB[:, (band + 1) % bands], key_U))  # the most alike side by side
        for apart in range(1, NEIGHBOURS + 1):
            one, other = order[:-apart], order[apart:]
            same = key_U[one] == key_U[other]
            if not same.any():
                break
            low, high = np.minimum(one, other)[same], np.maximum(one, other)[same]
            found.append(low * num + high)
    code_P = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    return np.stack(np.divmod(code_P, num), 1)


def _jaccard(distinct: Sequence[np.ndarray], pair_P2: np.ndarray) -> np.ndarray:
    """Return the Jaccard similarity of pairs of sets, float64 [P]."""
    from scipy.sparse import csr_array

    size_U = np.array([len(own) for own in distinct])
    _, column_F = np.unique(np.concatenate(distinct), return_inverse=True)
    ends = np.concatenate([[0], np.cumsum(size_U)])
    matrix = csr_array((np.ones(len(column_F), np.int32), column_F, ends))
    common = [
        matrix[part[:, 0]].multiply(matrix[part[:, 1]]).sum(1)
        for part in np.array_split(pair_P2, -(-len(pair_P2) // (CHUNK // 8)) or 1)
    ]
    both_P = np.concatenate(common)
    return both_P / (size_U[pair_P2].sum(1) - both_P)


def hashed(parts: Sequence[str | bytes]) -> np.ndarray:
    """Return 64 bits of a digest of each part, uint64: equal for equal parts, everywhere and
    always.

    >>> hashed(["a", "b"]).tolist()[0] == hashed([b"a"]).tolist()[0]
    True
    """
    digests = (
        hashlib.blake2b(part.encode() if isinstance(part, str) else part, digest_size=8).digest()
        for part in parts
    )
    return np.frombuffer(b"".join(digests), "<u8")
