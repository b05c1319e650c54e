"""Markov models of a genome: what counting alone says of a hidden base, the floor that a
pretrained net must break.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sciforge.errors import ConfigError
from sciforge.genomes.data.codec import kmer_ids
from sciforge.genomes.data.sequences import reverse_complement

MAX_ORDER = {False: 7, True: 5}


@dataclass(frozen=True, eq=False)
class Markov:
    """p(base | context), fitted by counting on both strands with additive smoothing.

    A one-sided context is the m bases before; a two-sided one the m bases before and the m after,
    which is what a masked language model sees of a single hidden base.

    Args:
        order: m.
        two_sided: which context.
        log2_p: float64 [4**m or 4**(2 m), 4].
    """

    order: int
    two_sided: bool
    log2_p: np.ndarray

    @classmethod
    def fit(
        cls,
        stretches: Iterable[np.ndarray],
        order: int,
        two_sided: bool = False,
        pseudo: float = 1.0,
    ) -> "Markov":
        """Count over stretches of codes; contexts with an N are left out.

        Raises:
            ConfigError: the order is negative or its table would not fit.
        """
        if not 0 <= order <= MAX_ORDER[two_sided]:
            raise ConfigError(f"order is {order}; it must be from 0 to {MAX_ORDER[two_sided]}")
        counts = np.zeros(4 ** (2 * order + 1 if two_sided else order + 1))
        for bases in stretches:
            for strand in (bases, reverse_complement(bases)):
                context, base = contexts(strand, order, two_sided)
                counts += np.bincount(context * 4 + base, minlength=len(counts))
        table = counts.reshape(-1, 4) + pseudo
        return cls(order, two_sided, np.log2(table / table.sum(1, keepdims=True)))

    def bits(self, stretches: Iterable[np.ndarray]) -> float:
        """Return the mean bits per known base that has a whole known context, over both strands;
        NaN for none.
        """
        total, count = 0.0, 0
        for bases in stretches:
            for strand in (bases, reverse_complement(bases)):
                context, base = contexts(strand, self.order, self.two_sided)
                total -= float(self.log2_p[context, base].sum())
                count += len(base)
        return total / count if count else float("nan")


def contexts(bases: np.ndarray, order: int, two_sided: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the context's number and the base, int64 [n], wherever both are known.

    C after A, G after C, T after G; then C between A and G, G between C and T:

    >>> bases = np.array([0, 1, 2, 3], np.uint8)
    >>> [a.tolist() for a in contexts(bases, 1, False)]
    [[0, 1, 2], [1, 2, 3]]
    >>> [a.tolist() for a in contexts(bases, 1, True)]
    [[2, 7], [1, 2]]
    """
    reach = 2 * order if two_sided else order
    if len(bases) <= reach:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    plain = bases & 7
    base = plain[order : len(plain) - (order if two_sided else 0)].astype(np.int64)
    known = base < 4
    if not order:
        return np.zeros(int(known.sum()), np.int64), base[known]
    ids = kmer_ids(plain, order).astype(np.int64)
    left = ids[: len(base)]
    known &= left < 4**order
    context = left
    if two_sided:
        right = ids[order + 1 :]
        known &= right < 4**order
        context = left * 4**order + right
    return context[known], base[known]
