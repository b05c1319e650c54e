"""Calibration: what is measured is what the field measures, and corrections correct."""

import numpy as np
import pytest
import torch
from scipy.stats import binom

from sciforge.core.files.settings import from_json, to_json
from sciforge.core.learners import calibration
from sciforge.core.learners.calibration import ConformalInterval, Isotonic, Temperature
from sciforge.core.training.run import CORE_TYPES
from sciforge.errors import ConfigError


def draws(num: int, classes: int = 2, sharpness: float = 1.0, seed: int = 0):
    """Return probabilities `sharpness` times as sure as they should be [N, C], and labels [N]."""
    rng = np.random.default_rng(seed)
    score_NC = rng.normal(size=(num, classes)) * 1.5
    true_NC = softmax(score_NC)
    label_N = (rng.random((num, 1)) > true_NC.cumsum(1)).sum(1).clip(max=classes - 1)
    return softmax(score_NC * sharpness), label_N


def softmax(score_NC: np.ndarray) -> np.ndarray:
    p_NC = np.exp(score_NC - score_NC.max(1, keepdims=True))
    return p_NC / p_NC.sum(1, keepdims=True)


def ece(p_NC: np.ndarray, label_N: np.ndarray) -> float:
    return calibration.expected_calibration_error(*calibration.top_label(p_NC, label_N))


def applied(correction, p_NC: np.ndarray) -> np.ndarray:
    return correction.apply(torch.from_numpy(p_NC)).numpy()


def test_error_of_known_bins():
    confidence_N = np.array([0.6] * 10 + [0.9] * 30)
    hit_N = np.array([1] * 5 + [0] * 5 + [1] * 24 + [0] * 6)
    for binning in ("mass", "width"):
        error = calibration.expected_calibration_error(confidence_N, hit_N, 10, binning)
        assert error == pytest.approx(0.25 * 0.1 + 0.75 * 0.1)


@pytest.mark.parametrize("binning", ["mass", "width"])
def test_measures_and_fits_do_not_depend_on_the_order(binning):
    p_NC, label_N = draws(200, 3, 2.0)
    p_NC = p_NC.round(1) + 1e-3  # many ties
    p_NC /= p_NC.sum(1, keepdims=True)
    order = np.random.default_rng(1).permutation(200)
    pairs = []
    for p, label in ((p_NC, label_N), (p_NC[order], label_N[order])):
        confidence, hit = calibration.top_label(p, label)
        error = calibration.expected_calibration_error(confidence, hit, 7, binning)
        pairs.append((error, calibration.chance_error(confidence), Temperature.fit(p, label)))
    assert pairs[0] == pairs[1]


def test_chance_is_what_perfect_probabilities_show():
    shown, chance = [], []
    for seed in range(30):
        p_NC, label_N = draws(150, seed=seed)
        shown.append(ece(p_NC, label_N))
        chance.append(calibration.chance_error(p_NC.max(1)))
    assert np.mean(shown) == pytest.approx(np.mean(chance), abs=0.01) and np.mean(chance) > 0.03


def test_parts_add_up_to_the_brier_score():
    p_NC, label_N = draws(500, 4, 2.0)
    parts = calibration.brier_parts(p_NC, label_N)
    total = parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within_bins"]
    assert total == pytest.approx(calibration.brier_score(p_NC, label_N), abs=1e-12)
    assert parts["reliability"] > calibration.brier_parts(*draws(500, 4))["reliability"]


def test_no_measure_of_few_records():
    assert calibration.probability_metrics(np.zeros(49, int), np.full((49, 2), 0.5)) == {}
    assert set(calibration.probability_metrics(np.zeros(50, int), np.full((50, 2), 0.5))) == {
        "ece",
        "brier",
    }


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("sharpness", [0.4, 3.0])
def test_temperature_mends_wrong_confidence_and_keeps_the_decisions(classes, sharpness):
    few, fresh = draws(128, classes, sharpness, 1), draws(5000, classes, sharpness, 2)
    correction = Temperature.fit(*few)
    assert correction.temperature == pytest.approx(sharpness, rel=0.35)
    corrected = applied(correction, fresh[0])
    assert ece(corrected, fresh[1]) < 0.05 < ece(*fresh)
    assert (corrected.argmax(1) == fresh[0].argmax(1)).all()


def test_temperature_of_flawless_predictions_stays_finite():
    label_N = np.arange(60) % 2
    p_NC = np.where(np.eye(2)[label_N] > 0, 0.99, 0.01)
    correction = Temperature.fit(p_NC, label_N)
    assert 0.3 < correction.temperature < 1
    certain = applied(correction, np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert np.isfinite(certain).all() and np.allclose(certain.sum(1), 1)


def test_isotonic_regression_follows_what_a_temperature_cannot():
    p_NC, label_N = draws(3000, seed=1)
    shifted = softmax(np.log(p_NC) + np.where(p_NC[:, 1:] > 0.5, [[0, 2.5]], [[0, -0.5]]))
    learn, judge = slice(0, 1500), slice(1500, None)
    errors = []
    for correction in (
        Temperature.fit(shifted[learn], label_N[learn]),
        calibration.fit_classes(shifted[learn], label_N[learn]),
    ):
        p_N = applied(correction, shifted[judge])[:, 1]
        errors.append(calibration.expected_calibration_error(p_N, label_N[judge]))
    assert isinstance(correction, Isotonic) and errors[1] < 0.04 < errors[0]


def test_isotonic_map_rises_everywhere_so_that_extreme_records_keep_their_order():
    correction = Isotonic.fit(*draws(1500, seed=3))
    score_N = np.linspace(-40, 40, 400)
    p_NC = softmax(np.stack([0 * score_N, score_N], 1))
    log_odds = np.log(applied(correction, p_NC))
    assert (np.diff(log_odds[:, 1] - log_odds[:, 0]) > 0).all()


def test_the_rule_between_temperature_and_isotonic():
    assert isinstance(calibration.fit_classes(*draws(999)), Temperature)
    assert isinstance(calibration.fit_classes(*draws(1000)), Isotonic)
    assert isinstance(calibration.fit_classes(*draws(1000, 3)), Temperature)
    assert isinstance(calibration.fit_classes(*draws(60), "isotonic"), Isotonic)
    with pytest.raises(ConfigError, match="two classes; there are 3"):
        calibration.fit_classes(*draws(60, 3), "isotonic")


@pytest.mark.parametrize(
    "correction",
    [
        Temperature.fit(*draws(80)),
        Isotonic.fit(*draws(80)),
        ConformalInterval.fit(np.arange(60.0), 0.9),
    ],
    ids=lambda correction: type(correction).__name__,
)
def test_json_brings_the_same_correction_back(correction):
    assert from_json(to_json(correction), CORE_TYPES) == correction


@pytest.mark.parametrize(
    "body",
    [
        {"type": "Isotonic", "knots": [1, 0], "values": [0, 1], "temperature": 1, "labels": 9},
        {"type": "Temperature", "temperature": 0.0, "labels": 9},
    ],
)
def test_forged_corrections_are_refused(body):
    with pytest.raises(ConfigError, match="increase|temperature"):
        from_json(body, CORE_TYPES)


def test_conformal_intervals_cover_exchangeable_records():
    """The coverage of N labels is a Beta-binomial of mean ceil(.9 (N + 1)) / (N + 1)."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        error_N = rng.standard_cauchy(51)  # no moment need exist
        half = ConformalInterval.fit(error_N[:50], 0.9).half_width
        inside += abs(error_N[50]) <= half
    low, high = binom.ppf([0.001, 0.999], 400, 46 / 51)
    assert low <= inside <= high


def test_folds_spread_classes_and_keep_groups_whole():
    label_N = np.array([0] * 100 + [1] * 25 + [2])
    fold_N = calibration.assign_folds(label_N, None, seed=3)
    assert all(np.ptp(np.bincount(fold_N[label_N == c], minlength=5)) <= 1 for c in range(3))
    group_N = np.repeat(np.arange(40), np.random.default_rng(0).integers(1, 9, 40))
    fold_N = calibration.assign_folds(np.zeros(len(group_N), int), group_N, seed=3)
    assert all(len(np.unique(fold_N[group_N == g])) == 1 for g in range(40))
    assert np.ptp(np.bincount(fold_N)) <= 8 and fold_N.max() == 4
    # few groups are left out one by one
    fold_N = calibration.assign_folds(np.zeros(90, int), np.repeat(np.arange(9), 10), seed=3)
    assert (np.bincount(fold_N) == 10).all() and fold_N.max() == 8


def test_cross_fitting_judges_no_record_by_itself():
    fold_N = np.arange(20) % 4

    def leaks(fit: np.ndarray, to: np.ndarray) -> np.ndarray:
        assert not set(fit) & set(to) and len(fit) + len(to) == 20
        return to * 10

    assert (calibration.cross_fitted(fold_N, leaks) == np.arange(20) * 10).all()
