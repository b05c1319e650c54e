"""Which examples are in step s, and the random generator of each: pure functions of (seed, step,
index).

Because nothing here has a state, results depend neither on worker count nor on the number of
processes, and resuming needs one integer.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

# Streams keep the uses of one seed apart, so that the order of examples says nothing about their
# corruption.
ORDER, CORRUPT, EVALUATE, SUBSET, SAMPLE, NOISE, TASK = range(7)


def generator(seed: int, stream: int, epoch: int = 0, index: int = 0) -> np.random.Generator:
    """Return the counter-based generator of one (seed, stream, epoch, index).

    >>> one, other = (generator(0, CORRUPT, 1, 2) for _ in range(2))
    >>> int(one.integers(1000)) == int(other.integers(1000))
    True
    """
    # Philox counts in the low word, so the upper words address streams that never overlap.
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, index, epoch]))


def short(seed: int) -> int:
    """Return a seed for scikit-learn, which takes 32 bits of the 63 that a run's may have.

    >>> short(7), short(2**40 + 7)
    (7, 7)
    """
    return seed % 2**32


def task_seed(seed: int, number: int) -> int:
    """Return the seed of a run's task by its place: tasks on the same data draw in orders of their
    own.

    >>> task_seed(7, 0), task_seed(7, 1) == task_seed(7, 2)
    (7, False)
    """
    return int(generator(seed, TASK, index=number).integers(2**63)) if number else seed


def task_counts(examples: int, shares: Sequence[Fraction]) -> list[int]:
    """Return how many of the first examples of a run fall to each task.

    Each task takes its share of what the tasks before it leave, rounded: a closed form that grows
    by one task's one example at a time and whose rounding errors never add up.

    >>> [task_counts(n, [Fraction(3, 4), Fraction(1, 4)]) for n in (1, 2, 4, 400)]
    [[1, 0], [2, 0], [3, 1], [300, 100]]
    """
    counts, left, rest = [], examples, sum(shares, Fraction(0))
    for share in shares:
        part = left * share / rest if rest else Fraction(left)
        count = (2 * part.numerator + part.denominator) // (2 * part.denominator)
        counts.append(count)
        left, rest = left - count, rest - share
    return counts


def task_places(batch: int, shares: Sequence[Fraction], step: int) -> list[range]:
    """Return the places in each task's own sequence of examples that one step draws.

    >>> [[len(p) for p in task_places(2, [Fraction(3, 4), Fraction(1, 4)], s)] for s in range(4)]
    [[2, 0], [1, 1], [2, 0], [1, 1]]
    """
    before, after = (task_counts(n * batch, shares) for n in (step, step + 1))
    return [range(*ends) for ends in zip(before, after, strict=True)]


@lru_cache(maxsize=8)
def _permutations(num_examples: int, seed: int) -> dict[int, np.ndarray]:
    return {}


def _permutation(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    kept = _permutations(num_examples, seed)
    if epoch not in kept:
        for old in list(kept)[:-1]:  # a step spans two epochs at most, or many short ones
            del kept[old]
        kept[epoch] = generator(seed, ORDER, epoch).permutation(num_examples)
    return kept[epoch]


def step_indices(num_examples: int, batch: int, seed: int, step: int) -> list[tuple[int, int]]:
    """Return the (epoch, index) pairs of one step; every epoch is a fresh permutation of all
    examples.

    >>> sorted(i for s in range(2) for _, i in step_indices(6, 3, seed=1, step=s))
    [0, 1, 2, 3, 4, 5]
    """
    return indices_at(num_examples, range(step * batch, (step + 1) * batch), seed)


def indices_at(num_examples: int, places: range, seed: int) -> list[tuple[int, int]]:
    """Return the (epoch, index) pairs at places of the sequence of all epochs.

    >>> [epoch for epoch, _ in indices_at(6, range(4, 8), seed=1)]
    [0, 0, 1, 1]
    """
    return [
        (
            p // num_examples,
            int(_permutation(num_examples, seed, p // num_examples)[p % num_examples]),
        )
        for p in places
    ]


def poisson_indices(num_examples: int, rate: float, seed: int, step: int) -> list[tuple[int, int]]:
    """Return the (epoch, index) pairs of one step in which every example takes part by a coin of
    its own, `rate` its chance.

    What DP-SGD is accounted for; some steps have no example. The step counts as the epoch, so
    corruption is new each time.

    >>> sizes = [len(poisson_indices(10, 0.2, seed=1, step=s)) for s in range(1000)]
    >>> min(sizes), round(sum(sizes) / 1000)
    (0, 2)
    """
    chosen = generator(seed, SAMPLE, step).random(num_examples) < rate
    return [(step, int(index)) for index in np.flatnonzero(chosen)]


def share_of_rank(items: Sequence, rank: int, world: int) -> Sequence:
    """Return the part of a global batch that one process handles.

    >>> share_of_rank([0, 1, 2, 3, 4], rank=1, world=2)
    [1, 3]
    """
    return items[rank::world]


def micro_batches(items: Sequence, size: int | None) -> list[Sequence]:
    """Cut a batch into pieces of at most `size`.

    >>> micro_batches([1, 2, 3], 2)
    [[1, 2], [3]]
    """
    size = size or max(len(items), 1)
    return [items[i : i + size] for i in range(0, len(items), size)]


def replay_sizes(batch: int, share: float) -> tuple[int, int]:
    """Split a batch between new and replayed examples, at least one of each.

    >>> replay_sizes(32, 0.25)
    (24, 8)
    """
    replayed = min(max(round(batch * share), 1), batch - 1)
    return batch - replayed, replayed


def balanced_subset(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose `count` indices with classes as equal as possible; nested, so a larger subset holds
    the smaller ones.

    Numbers count as classes of their own, so of labels that never repeat the choice is plainly
    random.

    >>> labels = np.array([0] * 90 + [1] * 10)
    >>> np.bincount(labels[balanced_subset(labels, 8, seed=0)]).tolist()
    [4, 4]
    """
    rng = generator(seed, SUBSET)
    shuffled = [rng.permutation(np.flatnonzero(labels == value)) for value in np.unique(labels)]
    # which class comes first
    order = np.repeat(rng.permutation(len(shuffled)), [len(s) for s in shuffled])
    place = np.concatenate([np.arange(len(s)) for s in shuffled])
    return np.concatenate(shuffled)[np.lexsort((order, place))][:count]  # one of each class in turn
