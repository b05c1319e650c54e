"""Intervals hold the truth as often as they say; directions of metrics are known or asked for."""

import numpy as np
import pytest

from sciforge.core.domain import Objective
from sciforge.errors import ConfigError
from sciforge.experiments.statistics import (
    bootstrap,
    clopper_pearson,
    higher_is_better,
    mean_interval,
    metric_of,
    paired_difference,
    percentile_interval,
    require_direction,
)


def test_intervals_of_seeds_and_records():
    alone = mean_interval([1.0], [[0.9, 1.1] * 10])
    assert alone.high - alone.value == pytest.approx(2.093 * (19 * 0.01) ** 0.5, rel=1e-4)
    both = mean_interval([0.5, 1.5], [[0.9, 1.1] * 10] * 2)
    assert both.high - both.value > 12.7 * 0.5 and both.value == 1.0
    assert mean_interval([1.0, np.inf], [[1.0], []]).value == np.inf


def test_intervals_of_few_records_hold_the_truth_as_often_as_they_say():
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        value_N = rng.normal(0, 1, 4)
        found = mean_interval([value_N.mean()], [[np.delete(value_N, i).mean() for i in range(4)]])
        held += found.low < 0 < found.high
    assert 0.92 < held / 400 < 0.98


def test_without_seeds_or_groups_there_is_no_interval():
    found = mean_interval([1.0])
    assert found.value == 1.0 and np.isnan(found.low) and np.isnan(found.high)
    assert found.to_json() == {"value": 1.0, "interval": [None, None]}


def test_differences_are_paired_over_seeds_and_records():
    rng = np.random.default_rng(0)
    shared_S, shared_SG = rng.normal(0, 1, 5), rng.normal(0, 1, (5, 20))
    found = paired_difference(shared_S + 1, shared_S, shared_SG + 1, shared_SG)
    assert found.value == pytest.approx(1) and found.high - found.low < 1e-9
    apart = paired_difference(shared_S + 1, shared_S[::-1], shared_SG + 1, shared_SG[::-1])
    assert apart.high - apart.low > 1
    assert paired_difference([1.0, np.inf], [0.0, 0.0]).value == np.inf


def test_student_intervals_and_the_bootstrap_agree_on_means():
    rng, student, drawn = np.random.default_rng(1), [], []
    for _ in range(200):
        values = rng.normal(0.5, 0.1, 5)
        found = mean_interval(values)
        student.append(found.low < 0.5 < found.high)
        found = percentile_interval(values.mean(), bootstrap({"a": values}, {"a": [()] * 5})["a"])
        drawn.append(found.low < 0.5 < found.high)
    assert 0.9 < np.mean(student) < 0.99 and 0.88 < np.mean(drawn) < 0.99


def test_clopper_pearson_agrees_with_scipy():
    from scipy.stats import binomtest

    for hits, num in ((0, 7), (3, 50), (50, 50)):
        found = binomtest(hits, num).proportion_ci(method="exact")
        assert clopper_pearson(hits, num) == pytest.approx((found.low, found.high))


def test_the_direction_of_a_metric_is_known_or_asked_for():
    assert higher_is_better(Objective(), "test/auroc") and not higher_is_better(
        Objective(), "rmse_log"
    )
    assert higher_is_better(Objective(), "rmse", given=True)
    with pytest.raises(
        ConfigError, match="whether a larger coverage is better; set higher_is_better"
    ):
        require_direction(higher_is_better(Objective(), "coverage"), "coverage")
    with pytest.raises(ConfigError, match="no metric 'auco'.*did you mean 'auroc'"):
        metric_of({"auroc": 1.0}, "auco")
