"""What a linear probe explains of a label."""

import numpy as np
import pytest

from sciforge.experiments.invariance.label_probe import explain, indicators


def test_a_small_feature_counts_only_where_features_are_scaled():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=120)
    features = np.column_stack([1e-4 * signal, *rng.normal(size=(40, 120))])
    label = indicators(signal)
    plain, scaled = (explain([features], label, permutations=20, scaled=s) for s in (False, True))
    assert explain([features], label, permutations=20) == plain
    assert not plain.informative and plain.value < 0.1
    assert scaled.informative and scaled.value > 0.8


def test_the_interval_holds_the_share_and_views_are_averaged():
    rng = np.random.default_rng(1)
    signal, noise = rng.normal(size=(2, 200))
    label = indicators(signal + noise)
    good, bad = signal[:, None], rng.normal(size=(200, 1))
    one, none = (explain([view], label, permutations=50) for view in (good, bad))
    both = explain([good, bad], label, permutations=50)
    assert one.low < one.value < one.high and one.value == pytest.approx(0.5, abs=0.15)
    assert not none.informative and both.value == pytest.approx((one.value + none.value) / 2)
    assert explain([good], label, permutations=0).chance == 0.0
