"""The pure functions that choose examples."""

import numpy as np
import pytest

from sciforge.core.data import sampling


def test_every_epoch_visits_every_example_once_in_another_order():
    pairs = [pair for step in range(9) for pair in sampling.step_indices(12, 4, seed=5, step=step)]
    for epoch in range(3):
        assert sorted(i for e, i in pairs if e == epoch) == list(range(12))
    assert pairs[:12] != [(0, i) for _, i in pairs[12:24]]


def test_order_is_a_function_of_seed_and_step_alone():
    once = [sampling.step_indices(100, 7, seed=1, step=s) for s in range(40)]
    assert once[::-1] == [
        sampling.step_indices(100, 7, seed=1, step=s) for s in reversed(range(40))
    ]
    assert once != [sampling.step_indices(100, 7, seed=2, step=s) for s in range(40)]


def test_a_batch_larger_than_the_data_takes_several_epochs():
    assert [epoch for epoch, _ in sampling.step_indices(3, 8, seed=0, step=0)] == [
        0,
        0,
        0,
        1,
        1,
        1,
        2,
        2,
    ]


def test_streams_of_one_seed_are_apart():
    draws = {
        sampling.generator(0, stream, epoch, index).integers(2**62)
        for stream in range(4)
        for epoch in range(5)
        for index in range(5)
    }
    assert len(draws) == 100


@pytest.mark.parametrize(("world", "batch"), [(1, 7), (2, 7), (3, 7), (5, 2)])
def test_ranks_share_a_batch_without_overlap(world: int, batch: int):
    items = list(range(batch))
    shares = [sampling.share_of_rank(items, rank, world) for rank in range(world)]
    assert sorted(sum(shares, [])) == items


def test_subsets_are_nested_and_balanced():
    labels = np.array(["a"] * 700 + ["b"] * 200 + ["c"] * 100)
    large = sampling.balanced_subset(labels, 300, seed=4)
    for count in (3, 9, 32, 128):
        small = sampling.balanced_subset(labels, count, seed=4)
        assert small.tolist() == large[:count].tolist() and len(set(small)) == count
        found = np.unique(labels[small], return_counts=True)[1]
        assert found.max() - found.min() <= 1
    assert sorted(sampling.balanced_subset(labels, 1000, seed=4)) == list(range(1000))
    assert large.tolist() != sampling.balanced_subset(labels, 300, seed=5).tolist()


def test_a_subset_of_numbers_is_random_not_the_smallest():
    values = np.linspace(0, 1, 1000)
    chosen = values[sampling.balanced_subset(values, 100, seed=0)]
    assert 0.4 < chosen.mean() < 0.6


@pytest.mark.parametrize(("batch", "share"), [(2, 0.01), (2, 0.99), (32, 0.2), (31, 0.5), (8, 0.9)])
def test_replay_takes_its_share_and_at_least_one(batch: int, share: float):
    new, old = sampling.replay_sizes(batch, share)
    assert new >= 1 and old >= 1 and new + old == batch
    assert abs(old - batch * share) <= 1
