"""Near duplicates by hashed features: what is found is there, and what is there is found."""

from pathlib import Path

import numpy as np
import pytest
from strangers import DOMAINS, natural_inputs

from sciforge.cli.main import main
from sciforge.core.data.near_duplicates import hashed, near_pairs
from sciforge.core.domain import discover, find_offer, get_domain
from sciforge.errors import DataError


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    return len(np.intersect1d(one, other)) / len(np.union1d(one, other))


@pytest.mark.parametrize("similarity", [0.3, 0.6, 0.8, 0.95])
def test_pairs_are_those_that_every_comparison_finds(similarity: float) -> None:
    rng = np.random.default_rng(0)
    features = [rng.integers(0, 5000, 60).astype(np.uint64) for _ in range(150)]
    for place in range(100):  # copies with 1 to 30 features changed
        changed = features[place].copy()
        changed[rng.integers(0, 60, 1 + place % 30)] = rng.integers(10**6, 10**7)
        features.append(changed)
    pairs = near_pairs(features, similarity)
    found = {tuple(sorted(pair)) for pair in pairs.pair_P2.tolist()}
    sets = [np.unique(own) for own in features]
    true = {
        (i, j)
        for i in range(len(sets))
        for j in range(i)
        if _jaccard(sets[i], sets[j]) >= similarity
    }
    true = {(j, i) for i, j in true}
    assert found <= true and len(found) >= 0.95 * len(true) and true
    for (i, j), value in zip(pairs.pair_P2.tolist(), pairs.similarity_P, strict=True):
        assert value == pytest.approx(_jaccard(sets[i], sets[j]))


def test_nearest_prefers_a_copy_and_knows_what_is_alone() -> None:
    base = np.arange(20, dtype=np.uint64)
    features = [base, base + 1, base.copy(), base + 100, np.empty(0, np.uint64), base[:0]]
    pairs = near_pairs(features, 0.8)
    places, similarity = pairs.nearest(np.array([2, 3, 4]), np.array([0, 1, 5]))
    assert places.tolist() == [0, -1, -1] and similarity.tolist() == [1.0, 0.0, 0.0]
    places, similarity = pairs.nearest(np.array([0]), np.array([1]))
    assert places.tolist() == [1] and similarity[0] == pytest.approx(19 / 21)


def test_groups_link_chains_and_named_groups_but_not_what_has_no_features() -> None:
    base = np.arange(100, dtype=np.uint64)
    features = [base, base + 8, base + 16, base + 500, np.empty(0), np.empty(0)]
    pairs = near_pairs(features, 0.8)
    groups = pairs.groups()
    assert groups[0] == groups[1] == groups[2] and len(set(groups.tolist())) == 4
    joined = pairs.groups(np.array([0, 1, 2, 2, 3, 4]))
    assert joined[3] == joined[0] and len(set(joined.tolist())) == 3


def test_a_thousand_equal_records_are_one_set_and_no_pairs() -> None:
    pairs = near_pairs([hashed(["a", "b"])] * 1000, 0.8)
    assert not len(pairs.pair_P2) and len(set(pairs.groups().tolist())) == 1


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_small_change_is_near_and_another_record_is_not(domain: str) -> None:
    fingerprint, reader = get_domain(domain).fingerprint, get_domain(domain).inputs
    inputs, _ = natural_inputs(domain)
    first, other = inputs.iloc[[0]] if domain == "heat" else inputs[0], None
    if domain == "heat":
        other, far = first.assign(Re=first["Re"] * 1.001), inputs.iloc[[20]]
        records = [_points(frame) for frame in (first, other, far)]
    else:
        far = inputs[1]
        records = reader.records([first, _changed(domain, first), far])
    one, near, far = (set(fingerprint.features(r).tolist()) for r in records)
    assert len(one & near) / len(one | near) >= fingerprint.similarity
    assert len(one & far) / len(one | far) < fingerprint.similarity


def _changed(domain: str, value: object) -> object:
    if domain == "genomes":
        return value[:20] + ("A" if value[20] != "A" else "C") + value[21:]
    if domain == "text":
        return value.upper().replace(" ", ",  ", 1)
    if domain == "molecules":
        return "OCC"  # the same ethanol, written from the other end
    if domain == "images":
        return np.clip(value.astype(int) // 2 + 20, 0, 255).astype(np.uint8)
    turned = value.copy()
    turned.rotate(40, (1, 2, 3))
    return turned[::-1]


def _points(frame: object) -> dict:
    return {name: float(frame[name].iloc[0]) for name in frame.columns}


def test_one_audit_of_all_domains_needs_no_domain(capsys: pytest.CaptureFixture) -> None:
    domain, cls = find_offer("audits", "near-duplicates")
    assert all(one.audits["near-duplicates"] is cls for one in discover().values())
    with pytest.raises(DataError, match="no_store"):
        cls(data=Path("no_store")).run()
    assert main(["audit", "near-duplicates", "--data", "no_store"]) == 2
    assert "no_store" in capsys.readouterr().err
