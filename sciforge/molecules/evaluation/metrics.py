"""Figures of merit of generated molecules with 95 % intervals: fractions, cosines of counts,
distances of distributions.

The definitions are those of MOSES (Polykovskiy et al., Front. Pharmacol. 2020, arXiv 1811.12823,
molsets 0.3.1): every figure but uniqueness and novelty is over all valid samples, duplicates among
them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Z95 = 1.959964
Statistic = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval.

    Args:
        value: the figure.
        low, high: ends of the interval.
        count: of molecules (or strings) that it is of.
        by: how the interval was made.
    """

    value: float
    low: float
    high: float
    count: int
    by: str

    def as_json(self) -> dict[str, Any]:
        """Return the figure as a dict that JSON holds."""
        return asdict(self)


def fraction(hits: int, count: int) -> Figure:
    """Return a fraction with Wilson's binomial interval; count must be at least 1.

    >>> figure = fraction(8, 10)
    >>> figure.value, round(figure.low, 4), round(figure.high, 4)
    (0.8, 0.4902, 0.9433)
    """
    share, wide = hits / count, Z95**2 / count
    middle = (share + wide / 2) / (1 + wide)
    reach = Z95 * math.sqrt(share * (1 - share) / count + wide / (4 * count)) / (1 + wide)
    low, high = max(middle - reach, 0.0), min(middle + reach, 1.0)
    # At 0 and 1 the interval ends there exactly; rounding must not say 0.9999999999999999.
    return Figure(share, 0.0 if hits == 0 else low, 1.0 if hits == count else high, count, "Wilson")


def uniqueness(plain: Sequence[str], first: int | None = None) -> Figure:
    """Return the share of different molecules among the first valid ones, given by canonical
    SMILES.

    >>> uniqueness(["CCO", "CC", "CCO", "C"]).value, uniqueness(["CCO", "CC", "CCO", "C"], 2).value
    (0.75, 1.0)
    """
    some = plain[:first]
    return fraction(len(set(some)), len(some))


def bootstrapped(
    statistic: Statistic,
    count: int,
    seed: int,
    repeats: int = 100,
    bounds: tuple[float, float] = (0.0, math.inf),
) -> Figure:
    """Return a statistic of weighted molecules with the interval of +-1.96 bootstrap standard
    deviations.

    The std is taken, not the quantiles: a distance or a cosine of resampled molecules is biased
    (fewer different molecules), so that its quantiles need not even hold the figure.

    Args:
        statistic: function of the weight of each molecule (float64, shape (count,)); weights 1 give
            the figure.
        count: of molecules.
        seed: of the resampling.
        repeats: how many times.
        bounds: ends that the figure cannot pass.
    """
    rng = np.random.default_rng(seed)
    value = statistic(np.ones(count))
    drawn = [
        statistic(np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64))
        for _ in range(repeats)
    ]
    return normal(value, float(np.std(drawn, ddof=1)), count, f"bootstrap x{repeats}", bounds)


def normal(
    value: float, std: float, count: int, by: str, bounds: tuple[float, float] = (0.0, math.inf)
) -> Figure:
    """Return a figure with the interval of +-1.96 standard deviations, cut at the bounds.

    >>> normal(0.99, 0.01, 5, "bootstrap", (0, 1)).high
    1
    """
    low, high = max(value - Z95 * std, bounds[0]), min(value + Z95 * std, bounds[1])
    return Figure(float(value), min(low, value), max(high, value), count, by)


def mean_of(values_N: np.ndarray, bounds: tuple[float, float] = (0.0, 1.0)) -> Figure:
    """Return a mean with its standard error.

    >>> mean_of(np.array([0.0, 1.0])).value
    0.5
    """
    std = (
        float(np.std(values_N, ddof=1)) / math.sqrt(len(values_N))
        if len(values_N) > 1
        else math.inf
    )
    return normal(float(np.mean(values_N)), std, len(values_N), "standard error", bounds)


@dataclass(frozen=True)
class Bag:
    """Things that molecules hold: thing i is `words[word_M[i]]` and belongs to molecule
    `owner_M[i]`.
    """

    words: tuple[str, ...]
    word_M: np.ndarray
    owner_M: np.ndarray

    @classmethod
    def of(cls, things: Sequence[Sequence[str]]) -> "Bag":
        """Return the bag of each molecule's things."""
        words: dict[str, int] = {}
        pairs = [
            (words.setdefault(word, len(words)), i) for i, own in enumerate(things) for word in own
        ]
        word_M, owner_M = np.array(pairs, np.int32).reshape(-1, 2).T
        return cls(tuple(words), word_M.copy(), owner_M.copy())


def cosine(sample: Bag, reference: Bag, weight_N: np.ndarray | None = None) -> float:
    """Return the cosine of two vectors of counts, 0 to 1 (MOSES' Frag and Scaf); both bags must
    hold something.

    >>> round(cosine(Bag.of([["a"], ["b"]]), Bag.of([["a"]])), 4)
    0.7071
    """
    return cosine_to(sample, reference)(
        np.ones(int(sample.owner_M.max()) + 1) if weight_N is None else weight_N
    )


def cosine_to(sample: Bag, reference: Bag) -> Statistic:
    """Return the cosine as a function of the weight of each sampled molecule."""
    counts = np.bincount(reference.word_M, minlength=len(reference.words)).astype(np.float64)
    place = {word: i for i, word in enumerate(reference.words)}
    here = np.array([place.get(word, -1) for word in sample.words])
    matching_V = np.where(here >= 0, counts[np.maximum(here, 0)], 0.0)
    length = np.linalg.norm(counts)

    def statistic(weight_N: np.ndarray) -> float:
        own_V = np.bincount(sample.word_M, weight_N[sample.owner_M], minlength=len(sample.words))
        norm = np.linalg.norm(own_V)
        return float(own_V @ matching_V / (norm * length)) if norm else 0.0

    return statistic


def wasserstein_to(values_M: np.ndarray, owner_M: np.ndarray, reference_K: np.ndarray) -> Statistic:
    """Return the first Wasserstein distance to a reference, in the values' unit, as a function of
    the molecules' weights.

    The sorting is done once, which scipy's function would do for each resample.

    >>> wasserstein_to(np.array([1.0, 2.0]), np.arange(2), np.array([3.0, 4.0]))(np.ones(2))
    2.0
    """
    order = np.argsort(values_M, kind="stable")
    values, owner = values_M[order], owner_M[order]
    reference = np.sort(reference_K)
    grid = np.unique(np.concatenate([values, reference]))
    step = np.diff(grid)
    theirs = np.searchsorted(reference, grid[:-1], side="right") / len(reference)
    below = np.searchsorted(values, grid[:-1], side="right")

    def statistic(weight_N: np.ndarray) -> float:
        heap = np.concatenate([[0.0], np.cumsum(weight_N[owner])])
        return float(np.abs(heap[below] / heap[-1] - theirs) @ step) if heap[-1] else 0.0

    return statistic
