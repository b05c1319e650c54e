"""The readers of the property head against the same in other words: brute-force leave-one-out,
scikit-learn's trees.
"""

import numpy as np
import pytest
import torch

from sciforge.core.learners.extra_trees import Forest
from sciforge.core.learners.gaussian_process import GaussianProcess, matern
from sciforge.molecules.model.heads import PropertyHead, platt, ridge, shares


def data(num: int = 60, features: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, features))
    y = np.sin(x[:, 0]) + 0.5 * x[:, 1] + 0.1 * rng.normal(size=num)
    return x, (y - y.mean()) / y.std()


def test_a_gaussian_process_is_the_textbook_one():
    x, y = data()
    process = GaussianProcess(6, 1, 60).double()
    fit = process.fit(x, y[:, None], [2, 4], 0)
    gram = matern(torch.tensor(x), torch.tensor(x), process.weight_F, process.amplitude).numpy()
    noisy = gram + (float(process.noise) + 1e-6) * np.eye(60)
    new = torch.tensor(data(seed=1)[0])
    cross = matern(new, torch.tensor(x), process.weight_F, process.amplitude).numpy()
    mean, std = process(new)
    np.testing.assert_allclose(mean[:, 0], cross @ np.linalg.solve(noisy, y), atol=1e-8)
    variance = (
        float(process.amplitude)
        - (cross @ np.linalg.inv(noisy) * cross).sum(1)
        + float(process.noise)
    )
    np.testing.assert_allclose(std**2, variance, atol=1e-6)
    for out in (0, 17):
        rest = np.arange(60) != out
        alone = gram[out, rest] @ np.linalg.solve(noisy[np.ix_(rest, rest)], y[rest])
        assert fit.held_NK[out, 0] == pytest.approx(alone, abs=1e-8)
    assert process.weight_F[0] > process.weight_F[5]  # the block that matters


def test_many_molecules_are_projected_on_the_support_and_gaps_are_left_out():
    x, y = data(400)
    target = np.stack([y, np.where(np.arange(400) % 3, y, np.nan)], 1)
    exact, few = GaussianProcess(6, 2, 400), GaussianProcess(6, 2, 120)
    exact.fit(x, target, [6], 0)
    held = few.fit(x, target, [6], 0).held_NK
    new, truth = data(300, seed=5)
    said = few(torch.tensor(new))[0].numpy()
    assert np.corrcoef(said[:, 0], exact(torch.tensor(new))[0][:, 0])[0, 1] > 0.97
    assert np.corrcoef(said[:, 1], truth)[0, 1] > 0.9 and (np.isnan(held) == np.isnan(target)).all()


@pytest.mark.parametrize("yes_no", [True, False])
def test_stored_trees_say_what_scikit_learn_says(yes_no):
    x, y = data(80)
    target = (y > 0).astype(float) if yes_no else y
    forest = Forest(1, 80)
    held = forest.fit(x, target[:, None], (yes_no,), 0)
    grown = forest._grown(x.astype(np.float32), target, yes_no, 0)
    new = data(50, seed=2)[0].astype(np.float32)
    np.testing.assert_allclose(forest(torch.tensor(new))[:, 0], grown.predict(new), atol=1e-6)
    assert np.corrcoef(held[:, 0], target)[0, 1] > 0.5  # of molecules not seen, yet not of nothing


def test_ridge_leaves_one_out_as_if_it_had_refitted():
    x, y = data(30)
    weight, bias, held = ridge(x, y)
    residual = y - (x @ weight + bias)
    assert (np.abs(held - y) >= np.abs(residual) - 1e-9).all()
    np.testing.assert_allclose(x @ weight + bias, y, atol=1.5)


def test_shares_follow_the_evidence_and_few_labels_stay_even():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=400)
    said = np.stack([truth + 0.3 * rng.normal(size=400), truth + 2 * rng.normal(size=400)], 1)
    assert shares(said, truth, False)[0] > 0.9
    even = shares(said[:2], truth[:2], False)
    assert even.sum() == pytest.approx(1) and even.min() > 0.05
    label = (truth > 0).astype(float)
    assert shares(np.stack([4 * truth, rng.normal(size=400)], 1), label, True)[0] > 0.9


def test_log_odds_stay_finite_where_all_are_one_class():
    slope, offset = platt(np.linspace(-1, 1, 10), np.ones(10))
    assert np.isfinite([slope, offset]).all() and 1 / (1 + np.exp(-offset)) > 0.7


def test_a_head_with_one_class_only_or_a_single_label_still_answers():
    rng = np.random.default_rng(0)
    head = PropertyHead(4, (True, False), 12, 217, 8)
    encoded = rng.normal(size=(12, sum(head.blocks))).astype(np.float32)
    computed = rng.normal(size=(12, 217)).astype(np.float32)
    label = np.stack([np.ones(12), np.r_[1.0, np.full(11, np.nan)]], 1)
    head.solve(encoded, computed, label, ("linear", "kernel", "said"), 0)
    head.eval()
    with torch.no_grad():
        scores, std = head(torch.tensor(encoded), torch.tensor(computed))
    assert scores.isfinite().all() and std.isfinite().all() and (scores[:, 0] > 0).all()
