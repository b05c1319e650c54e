"""Groups of records (patients, donors) stay in one split, in every domain, from files and from
memory.
"""

from pathlib import Path

import numpy as np
import pytest
from strangers import COUNT, DOMAINS, DONORS, natural_inputs, preparer

import sciforge as sf
from sciforge.core.data.dataset import as_dataset
from sciforge.core.data.groups import (
    UNDRAWN,
    groups_of,
    split_by_group,
    splits_of,
    torn_groups,
)
from sciforge.errors import ConfigError, DataError

SHARES = (0.7, 0.1, 0.2)
pytestmark = pytest.mark.filterwarnings("ignore:.*never change")


def test_no_group_is_divided_and_shares_are_met_within_half_a_group() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        group_N = rng.integers(0, 50, 1000)
        split_N = split_by_group(group_N, SHARES, seed)
        assert all(len(set(split_N[group_N == g])) == 1 for g in set(group_N))
        largest = np.bincount(group_N).max()
        assert np.abs(np.bincount(split_N, minlength=3) - np.array(SHARES) * 1000).max() <= largest


def test_the_order_of_records_does_not_matter_and_the_seed_does() -> None:
    group_N = np.array([f"g{i % 23}" for i in range(300)])
    order = np.random.default_rng(1).permutation(300)
    split_N = split_by_group(group_N, SHARES, seed=4)
    assert np.array_equal(split_by_group(group_N[order], SHARES, seed=4), split_N[order])
    assert not np.array_equal(split_by_group(group_N, SHARES, seed=5), split_N)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (100, 1, 1), (1, 100, 1), (30, 30, 30, 30)])
def test_no_split_with_a_share_is_empty_where_there_are_groups_enough(sizes: tuple) -> None:
    group_N = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(10):
        assert set(split_by_group(group_N, (0.8, 0.1, 0.1), seed)) == {0, 1, 2}


def test_a_split_without_a_share_gets_nothing() -> None:
    for seed in range(10):
        assert set(split_by_group(np.arange(9) % 5, (0.8, 0.0, 0.2), seed)) == {0, 2}


def test_given_splits_stay_and_the_rest_of_their_group_follows_the_most_held_out() -> None:
    group_N = ["a", "a", "a", "b", "b", "c"]
    given_N = np.array([0, 2, UNDRAWN, 1, UNDRAWN, UNDRAWN])
    split_N = split_by_group(group_N, (1.0, 0.0, 0.0), 0, given_N)
    assert split_N.tolist() == [0, 2, 2, 1, 1, 0]


@pytest.mark.parametrize("domain", DOMAINS)
def test_files_are_split_by_whole_groups_whose_names_are_kept(domain: str, tmp_path: Path) -> None:
    dataset = sf.prepare(preparer(domain, tmp_path))
    groups, split_N = groups_of(dataset.store), splits_of(dataset.store)
    assert set(groups) == set(DONORS)
    assert torn_groups(groups, split_N) is None
    assert len(set(split_N.tolist())) >= 2
    torn = sf.prepare(preparer(domain, _new(tmp_path), ""))
    assert groups_of(torn.store) is None


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_missing_group_column_and_an_empty_group_are_named(domain: str, tmp_path: Path) -> None:
    with pytest.raises((DataError, ConfigError), match="patient|group"):
        sf.prepare(preparer(domain, tmp_path, "patient"))
    made = preparer(domain, _new(tmp_path))
    name = {"atoms": "frames.xyz", "images": "labels.csv", "heat": "points.csv"}
    file = tmp_path / "new" / name.get(domain, "table.csv")
    text = file.read_text(encoding="utf-8")
    empty = text.replace('donor="donor 3"', "other=1") if domain == "atoms" else None
    file.write_text(empty or text.replace("donor 3", ""), encoding="utf-8")
    with pytest.raises(DataError, match="group"):
        sf.prepare(made)


@pytest.mark.parametrize("domain", DOMAINS)
def test_groups_in_memory_are_held_out_whole_and_kept(domain: str) -> None:
    inputs, labels = natural_inputs(domain)
    dataset = as_dataset(inputs, labels, domain=domain, group=DONORS, held_out=0.25)
    groups, split_N = groups_of(dataset.store), splits_of(dataset.store)
    assert set(groups) == set(DONORS) and set(split_N.tolist()) == {0, 2}
    assert torn_groups(groups, split_N) is None
    split = ["train", "test"] * (COUNT // 2)
    given = as_dataset(inputs, labels, domain=domain, group=DONORS, split=split)
    assert splits_of(given.store).tolist() == [0, 2] * (COUNT // 2)
    assert torn_groups(groups_of(given.store), splits_of(given.store)).count == 7


def test_a_column_of_a_table_names_the_groups_and_gaps_are_refused() -> None:
    inputs, _ = natural_inputs("heat")
    table = inputs.assign(rig=DONORS)
    dataset = as_dataset(table, None, domain="heat", group="rig", held_out=0.25)
    assert groups_of(dataset.store) == list(dataset.store.column("rig")) == DONORS
    sequences, labels = natural_inputs("genomes")
    with pytest.raises(DataError, match="input 2: the group is empty"):
        gaps = [*DONORS[:2], float("nan"), *DONORS[3:]]
        as_dataset(sequences, labels, domain="genomes", group=gaps)
    with pytest.raises(ConfigError, match="40 inputs and 39 groups"):
        as_dataset(sequences, labels, domain="genomes", group=DONORS[1:])
    with pytest.raises(ConfigError, match="all inputs are of the group"):
        as_dataset(sequences, labels, domain="genomes", group=["a"] * COUNT, held_out=0.25)


def test_images_of_one_slide_follow_the_slide_and_not_the_class(tmp_path: Path) -> None:
    made = preparer("images", tmp_path, test_share=0.3, validation_share=0.2)
    dataset = sf.prepare(made)
    groups, split_N = np.array(groups_of(dataset.store)), splits_of(dataset.store)
    assert {len(set(split_N[groups == g])) for g in set(groups)} == {1}
    assert set(split_N.tolist()) == {0, 1, 2}


def test_atoms_refuse_a_split_that_tears_groups(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not keep groups whole"):
        sf.prepare(preparer("atoms", tmp_path, split="time"))


def _new(folder: Path) -> Path:
    (folder / "new").mkdir()
    return folder / "new"
