"""Leak-proof masking of overlapping k-mers: hide spans of bases, and with them every token that
touches them.

L masked tokens in a run hide only L - k + 1 bases, and a keep-or-mask choice made token by token
lets neighbours give the hidden bases away: in DNABERT's scheme 44 % of the scored tokens can be
read off visible ones. Here the span of bases is drawn first and the choice mask / random / keep is
made once a span.
"""

from dataclasses import dataclass

import numpy as np

from sciforge.genomes.data.codec import KmerCodec

SCORED_MASKED, SCORED_RANDOM, SCORED_KEPT = 1, 2, 3


@dataclass(frozen=True)
class Masks:
    """What is hidden in one sequence.

    Args:
        bases_L: uint8 codes after random replacement.
        scored_L: uint8, 0 or how a scored base was treated (SCORED_MASKED, SCORED_RANDOM,
            SCORED_KEPT).
        masked_T: bool, tokens replaced by [MASK].
        predicted_T: bool, tokens whose bases are predicted.
    """

    bases_L: np.ndarray
    scored_L: np.ndarray
    masked_T: np.ndarray
    predicted_T: np.ndarray


def touching_tokens(start: int, stop: int, codec: KmerCodec, num_tokens: int) -> slice:
    """Return the tokens that touch bases start..stop.

    >>> touching_tokens(10, 12, KmerCodec(k=6), 100)
    slice(5, 12, None)
    """
    first = max(0, -(-(start - codec.k + 1) // codec.stride))
    return slice(first, min((stop - 1) // codec.stride + 1, num_tokens))


def covered(tokens_T: np.ndarray, length: int, codec: KmerCodec) -> np.ndarray:
    """Return which bases lie under any of the marked tokens, bool [L].

    >>> covered(np.array([True, False, False]), 8, KmerCodec(k=6)).astype(int).tolist()
    [1, 1, 1, 1, 1, 1, 0, 0]
    """
    marked = np.flatnonzero(tokens_T) * codec.stride
    edges = np.zeros(length + codec.k + 1, np.int64)
    np.add.at(edges, marked, 1)
    np.add.at(edges, marked + codec.k, -1)
    return np.cumsum(edges)[:length] > 0


def draw_masks(
    bases_L: np.ndarray,
    codec: KmerCodec,
    rng: np.random.Generator,
    *,
    rate: float,
    shortest: int,
    longest: int,
    random_share: float = 0.1,
    keep_share: float = 0.1,
) -> Masks:
    """Draw spans of bases until `rate` of the sequence is scored, and treat each span as one.

    Args:
        bases_L: uint8 codes; unknown bases are never scored.
        codec: k and stride; span borders lie on multiples of the stride, where a span hides most
            for its tokens.
        rng: the only source of randomness.
        rate: share of the bases to score; 0 hides nothing.
        shortest: fewest bases of a span before rounding to the stride.
        longest: most bases of a span before rounding to the stride.
        random_share: share of spans whose bases are replaced by random ones and encoded anew.
        keep_share: share of spans left as they are.
    """
    length, num_tokens = len(bases_L), codec.num_tokens(len(bases_L))
    bases_L = bases_L.copy()
    hidden = np.zeros(length, np.uint8)
    masked = np.zeros(num_tokens, bool)
    wanted = max(1, round(rate * length)) if rate else 0
    last = (num_tokens - 1) * codec.stride + codec.k  # bases behind the last token are never seen
    for _ in range(16 * length):
        if np.count_nonzero(hidden) >= wanted:
            break
        size = -(-int(rng.integers(shortest, longest + 1)) // codec.stride) * codec.stride
        start = int(rng.integers(0, max(1, last - size + 1))) // codec.stride * codec.stride
        stop = min(start + size, last)
        around = slice(max(0, start - codec.k), stop + codec.k)
        if hidden[around].any():  # spans must not touch, or their treatments would mix in one token
            continue
        how = SCORED_MASKED
        draw = rng.random()
        if draw < random_share:
            how = SCORED_RANDOM
            bases_L[start:stop] = rng.integers(0, 4, stop - start)
        elif draw < random_share + keep_share:
            how = SCORED_KEPT
        else:
            masked[touching_tokens(start, stop, codec, num_tokens)] = True
        hidden[start:stop] = how
    # With stride > 1 a masked token hides also bases that no visible token covers.
    unseen = covered(masked, length, codec) & ~covered(~masked, length, codec)
    hidden[unseen] = SCORED_MASKED
    predicted = masked.copy()
    for how in (SCORED_RANDOM, SCORED_KEPT):
        for start in np.flatnonzero(hidden == how):
            predicted[touching_tokens(start, start + 1, codec, num_tokens)] = True
    return Masks(bases_L, hidden, masked, predicted)
