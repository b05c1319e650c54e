"""Classical rivals: they give what curves need at any number of points, and are what they say
they are.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from sciforge.core.data.store import prepare
from sciforge.heat.correlations.library import get_correlation
from sciforge.heat.data.codec import CHANNEL
from sciforge.heat.data.measurements import Measurements
from sciforge.heat.evaluation.baselines import BASELINES
from sciforge.heat.objectives.nusselt import Nusselt

RIBBED_CHANNEL = Path(__file__).parents[3] / "datasets" / "ribbed-channel.csv"
INTERVALS = ("log_gp", "constant_dittus_boelter", "least_squares")
PUBLISHED = ("han_park_1988", "ravigururajan_bergles_1996", "webb_1971", "dittus_boelter")


class Records:
    """Records of a store, from columns."""

    def __init__(self, columns: Mapping[str, np.ndarray]):
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["value"])

    def column(self, name: str) -> np.ndarray:
        return self.columns[name]

    def take(self, places) -> "Records":
        return Records({name: column[places] for name, column in self.columns.items()})


def drawn(num: int, seed: int = 0, **fixed: float) -> Records:
    """Points all over the range of ribbed channels: Nu is 3 Dittus-Boelter's, with other
    exponents and no noise.
    """
    rng = np.random.default_rng(seed)
    spans = {
        "Re": (8e3, 1e5),
        "Pr": (0.6, 5),
        "e_D": (0.02, 0.1),
        "P_e": (10, 20),
        "alpha_deg": (30, 90),
        "W_H": (1, 4),
    }
    columns = {name: low * (high / low) ** rng.random(num) for name, (low, high) in spans.items()}
    columns |= {name: np.full(num, value) for name, value in fixed.items()}
    slant = 1 - columns["alpha_deg"] / 90
    columns["value"] = (
        0.3
        * columns["Re"] ** 0.65
        * columns["Pr"] ** 0.4
        * columns["P_e"] ** -0.2
        * np.exp(0.3 * slant)
    )
    return Records(columns)


def error(name: str, train: Records, test: Records, seed: int = 0) -> float:
    """Return the median error of a baseline in %."""
    return Nusselt().metrics(BASELINES[name](Nusselt(), train, test, seed), test)["median_error"]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(
    ("num", "fixed"),
    [(1, {}), (3, {}), (5, {"Pr": 0.703, "P_e": 10.0, "W_H": 1.0}), (12, {"e_D": 0.0}), (300, {})],
)
def test_every_baseline_takes_any_number_of_points(name, num, fixed):
    train, test = drawn(num, **fixed), drawn(40, seed=1, **fixed)
    state = np.random.get_state()[1].copy()
    outputs = BASELINES[name](Nusselt(), train, test, 3)
    again = BASELINES[name](Nusselt(), train, test, 3)
    assert {"value"} <= set(outputs) <= {"value", "std", "low", "high"}
    for key, values in outputs.items():
        assert values.shape == (40,) and np.isfinite(values).all() and (values > 0).all(), key
        assert np.array_equal(values, again[key]), key
    if "low" in outputs:
        assert (outputs["low"] < outputs["value"]).all() and (
            outputs["value"] < outputs["high"]
        ).all()
    assert ("low" in outputs) == (
        name in INTERVALS and (num > 7 or name == "log_gp" or (name[0] == "c" and num > 1))
    )
    assert np.array_equal(np.random.get_state()[1], state)
    assert np.isfinite(list(Nusselt().metrics(outputs, test).values())).all()


@pytest.mark.parametrize("name", BASELINES)
def test_points_that_are_all_one_point_are_no_error(name):
    train = drawn(4).take([0, 0, 0, 0])
    assert np.isfinite(BASELINES[name](Nusselt(), train, drawn(10, seed=1), 0)["value"]).all()


@pytest.mark.parametrize(
    ("name", "percent"), [("least_squares", 1e-6), ("ridge_power_law", 0.1), ("log_gp", 0.5)]
)
def test_power_laws_find_a_power_law(name, percent):
    assert error(name, drawn(40), drawn(40, seed=1)) < percent


def test_open_exponents_are_those_of_least_norm():
    points = drawn(30, Pr=0.7)
    # one rib height, which papers round either way
    points.columns["e_D"] = np.where(np.arange(30) % 2, 0.0625, 0.063)
    points.columns["value"] = points.columns["value"] * np.exp(
        0.05 * np.random.default_rng(3).standard_normal(30)
    )
    test = drawn(30, seed=1, Pr=0.7)
    found = BASELINES["least_squares"](Nusselt(), points, test, 0)
    same = Records(test.columns | {"e_D": np.full(30, 0.063), "Pr": np.full(30, 5.0)})
    assert found["value"] == pytest.approx(
        BASELINES["least_squares"](Nusselt(), points, same, 0)["value"], rel=0.2
    )


def test_t_intervals_cover():
    inside = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        train, test = drawn(12, seed), drawn(20, seed + 100)
        for records in (train, test):
            records.columns["value"] = records.column("value") * np.exp(
                0.05 * rng.standard_normal(len(records))
            )
        inside.append(
            Nusselt().metrics(BASELINES["least_squares"](Nusselt(), train, test, 0), test)[
                "coverage"
            ]
        )
    assert 86 < np.mean(inside) < 94


def test_constant_is_fitted_and_published_laws_are_not():
    points = drawn(20)
    groups = {name: torch.from_numpy(points.column(name)) for name in CHANNEL}
    law = {
        name: get_correlation(name.replace("_", "-")).unchecked(groups).numpy()
        for name in PUBLISHED
    }
    triple = Records(points.columns | {"value": 3 * law["dittus_boelter"]})
    assert BASELINES["constant_dittus_boelter"](Nusselt(), triple, points, 0)[
        "value"
    ] == pytest.approx(3 * law["dittus_boelter"])
    for name in PUBLISHED:
        assert BASELINES[name](Nusselt(), triple, points, 0)["value"] == pytest.approx(law[name]), (
            name
        )


def test_a_published_law_without_a_value_falls_back_to_the_smooth_one():
    points = drawn(5, e_D=0.0)
    smooth = BASELINES["dittus_boelter"](Nusselt(), points, points, 0)["value"]
    assert BASELINES["han_park_1988"](Nusselt(), points, points, 0)["value"] == pytest.approx(
        smooth
    )


def test_measured_points_give_what_the_notes_state(tmp_path):
    store = prepare(Measurements(files=(RIBBED_CHANNEL,), shares=(0.6, 0, 0.4)), tmp_path / "store")
    train, test = store.split("train"), store.split("test")
    most = {
        "log_gp": 5,
        "boosting_ratio": 7,
        "boosting_nu": 13,
        "ridge_power_law": 10,
        "least_squares": 10,
        "mlp": 6,
    }
    most |= {
        "constant_dittus_boelter": 16,
        "han_park_1988": 10,
        "webb_1971": 16,
        "ravigururajan_bergles_1996": 22,
    }
    for name, percent in most.items():
        assert error(name, train, test) < percent, name
    assert error("dittus_boelter", train, test) > 50
