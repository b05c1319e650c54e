"""Splits: scaffolds are never divided, shares are kept, seeds matter where they should."""

import numpy as np
import pytest

from sciforge.errors import ConfigError, DataError
from sciforge.molecules.data.splits import (
    check_shares,
    split_at_random,
    split_by_scaffold,
    split_of_name,
)

SHARES = (0.8, 0.1, 0.1)


def groups(seed: int) -> np.ndarray:
    """Return scaffold numbers of 1000 molecules: one giant scaffold, some of a few tens, many of
    one or two.
    """
    rng = np.random.default_rng(seed)
    sizes = [250, *rng.integers(20, 80, 8), *rng.integers(1, 3, 600)]
    return rng.permutation(np.repeat(np.arange(len(sizes)), sizes)[:1000])


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_scaffolds_stay_whole_and_shares_are_kept(seed, balanced):
    group = groups(seed)
    split = split_by_scaffold(group, SHARES, seed, balanced)
    for number in np.unique(group):
        assert len(np.unique(split[group == number])) == 1
    counts = np.bincount(split, minlength=3) / len(group)
    assert counts[0] <= 0.8 and counts[1] <= 0.1
    assert counts == pytest.approx(SHARES, abs=0.02)


def test_the_giant_scaffold_trains_and_only_the_balanced_rule_has_a_seed():
    group = groups(0)
    giant = np.bincount(group).argmax()
    a, b = (split_by_scaffold(group, SHARES, seed, True) for seed in (0, 1))
    assert (a != b).any() and a[group == giant].max() == 0
    a, b = (split_by_scaffold(group, SHARES, seed, False) for seed in (0, 1))
    assert (a == b).all() and a[group == giant].max() == 0


def test_names_of_scaffolds_do_not_matter():
    group = groups(3)
    renamed = 10_000 - group
    np.testing.assert_array_equal(
        split_by_scaffold(group, SHARES, 0, True), split_by_scaffold(renamed, SHARES, 0, True)
    )


def test_random_splits_have_their_shares():
    assert np.bincount(split_at_random(103, SHARES, 0)).tolist() == [82, 11, 10]
    assert (split_at_random(103, SHARES, 0) != split_at_random(103, SHARES, 1)).any()


def test_what_is_no_split():
    with pytest.raises(DataError, match="did you mean 'test'"):
        split_of_name("tets")
    for shares in ((1.0, 0.1, 0.1), (0.0, 0.5, 0.5), (0.8, 0.2), (1.2, -0.1, -0.1)):
        with pytest.raises(ConfigError, match="add up to 1"):
            check_shares(shares)
