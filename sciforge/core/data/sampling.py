"""Which examples are in step s, and the random generator of each: pure functions of (seed, step,
index).

Because nothing here has a state, results depend neither on worker count nor on the number of
processes, and resuming needs one integer.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

# Streams keep the uses of one seed apart, so that the order of examples says nothing about their
# corruption.
ORDER, CORRUPT, EVALUATE, SUBSET, SAMPLE, NOISE = range(6)


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


@lru_cache(maxsize=4)
def _permutation(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    return generator(seed, ORDER, epoch).permutation(num_examples)


def step_indices(num_examples: int, batch: int, seed: int, step: int) -> list[tuple[int, int]]:
    """Return the (epoch, index) pairs of one step; every epoch is a fresh permutation of all
    examples.

    >>> sorted(i for s in range(2) for _, i in step_indices(6, 3, seed=1, step=s))
    [0, 1, 2, 3, 4, 5]
    """
    places = range(step * batch, (step + 1) * batch)
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
