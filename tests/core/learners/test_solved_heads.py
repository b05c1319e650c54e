"""Heads that are solved rather than descended to: the linear probe and the trees that live in a
checkpoint.
"""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sciforge.core.learners import boosted_trees, linear_probe


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_trees_as_tensors_equal_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    features = rng.normal(size=(200, 12)).astype(np.float32)
    labels = (features[:, 0] * features[:, 1] > 0) + (classes > 2) * rng.integers(
        0, classes - 1, 200
    )
    model = boosted_trees.fit_classes(features, labels, seed=0)
    ours = boosted_trees.Trees(len(np.unique(labels)))
    ours.load(model)
    fresh = rng.normal(size=(500, 12)).astype(np.float32)
    assert (
        np.abs(ours(torch.from_numpy(fresh)).softmax(-1).numpy() - model.predict_proba(fresh)).max()
        < 1e-6
    )
    # the training values themselves lie nearest to the thresholds
    assert (
        np.abs(
            ours(torch.from_numpy(features)).softmax(-1).numpy() - model.predict_proba(features)
        ).max()
        < 1e-6
    )


def test_trees_of_numbers_equal_scikit_learn_and_travel_in_a_state_dict():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 6)).astype(np.float32)
    model = boosted_trees.fit_numbers(features, features[:, 0] * 3 + features[:, 1] ** 2, seed=0)
    ours, copy = boosted_trees.Trees(1), boosted_trees.Trees(1)
    ours.load(model)
    copy.load_state_dict(ours.state_dict())
    assert np.allclose(
        copy(torch.from_numpy(features))[:, 0].numpy(), model.predict(features), atol=1e-4
    )


def test_unfitted_trees_say_nothing():
    assert not boosted_trees.Trees(3)(torch.randn(4, 7)).any()


@pytest.mark.parametrize("num", [20, 90])  # fewer and more examples than features
def test_probe_solves_the_penalised_problem(num):
    rng = np.random.default_rng(num)
    features = rng.normal(size=(num, 40))
    labels = (features[:, 0] + 0.5 * rng.normal(size=num) > 0).astype(int)
    weight_CF, bias_C = linear_probe.fit_logistic(features, labels, 2, seed=0)
    rotated, _ = linear_probe._rotate(features)
    chosen = linear_probe._choose_penalty(rotated, labels, 0)
    direct = LogisticRegression(C=chosen, max_iter=5000, tol=1e-8).fit(features, labels)
    scores = features @ weight_CF.T + bias_C
    expected = direct.decision_function(features)
    # lbfgs stops early
    assert np.abs((scores[:, 1] - scores[:, 0]) - expected).max() < 0.1 * np.abs(expected).max()


def test_probe_of_labels_that_mean_nothing_stays_uncertain():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 200)), np.arange(60) % 2
    features = features / np.sqrt(features.var(0).sum())
    weight_CF, bias_C = linear_probe.fit_logistic(features, labels, 2, seed=0)
    fresh = rng.normal(size=(500, 200)) / 14
    probability = 1 / (1 + np.exp(-(fresh @ (weight_CF[1] - weight_CF[0]) + bias_C[1] - bias_C[0])))
    assert ((probability > 0.5) == (np.arange(500) % 2 == 1)).mean() == pytest.approx(0.5, abs=0.1)


def test_probe_with_one_class_or_a_missing_one_is_defined():
    features = np.random.default_rng(0).normal(size=(10, 4))
    weight, bias = linear_probe.fit_logistic(features, np.ones(10, int), 2, 0)
    assert not weight.any() and bias.argmax() == 1
    weight, bias = linear_probe.fit_logistic(features, np.arange(10) % 2 * 2, 3, 0)
    assert (features @ weight.T + bias).argmax(-1).max() in (0, 2)
    assert np.isfinite(weight).all()


def test_scales_give_every_block_unit_variance():
    features = np.random.default_rng(0).normal(size=(500, 9)) * [1, 1, 1, 50, 50, 50, 0, 0, 0]
    centre, scale = linear_probe.block_scales(features, [3, 3, 3])
    scaled = (features - centre) / scale
    totals = scaled.var(0).reshape(3, 3).sum(1)
    assert totals[:2] == pytest.approx([1, 1]) and totals[2] == 0


def test_the_seed_of_a_run_may_be_longer_than_scikit_learn_s():
    rng = np.random.default_rng(3)
    features, labels = rng.normal(size=(60, 4)), rng.integers(0, 2, 60)
    for fit in (
        linear_probe.fit_logistic,
        lambda x, y, _, seed: (boosted_trees.fit_classes(x, y, seed).predict_proba(x), 0),
    ):
        one, other = (fit(features, labels, 2, seed)[0] for seed in (5, 2**62 + 5))
        assert np.array_equal(one, other)
