"""NusseltLaw as scientists use it: scikit-learn's own checks, bad input, the transfer audit,
intervals.
"""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator

from sciforge import catalog
from sciforge.errors import DataError
from sciforge.heat import NusseltLaw
from sciforge.heat.correlations.library import get_correlation
from sciforge.heat.data.codec import CHANNEL
from sciforge.heat.data.readers import read_table
from sciforge.heat.inference.estimator import HeatWarning
from sciforge.heat.model.transfer_audit import EVERYTHING, NOTHING

QUIET = pytest.mark.filterwarnings("ignore::sciforge.heat.inference.estimator.HeatWarning")


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    table = read_table(catalog.fetch("ribbed-channel"), warn=False)
    return pd.DataFrame({**table.points, "Nu": table.nu, "rig": table.rig})


def few(measured: pd.DataFrame, num: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    order = np.random.default_rng(seed).permutation(len(measured))
    return measured.iloc[order[:num]], measured.iloc[order[num:]]


def error(law: NusseltLaw, table: pd.DataFrame) -> float:
    return float(np.median(np.abs(law.predict(table) / table["Nu"] - 1)))


@pytest.mark.parametrize("estimator, check", list(estimator_checks_generator(NusseltLaw())))
def test_scikit_learn_accepts_it(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@QUIET
def test_few_points_beat_the_law_as_published_and_the_same_form_from_scratch(measured):
    found = {name: [] for name in ("pretrained", "scratch", "published")}
    for seed in range(8):
        known, rest = few(measured, 5, seed)
        found["pretrained"].append(
            error(NusseltLaw.pretrained("ribbed").fit(known, known["Nu"]), rest)
        )
        found["scratch"].append(
            error(NusseltLaw(columns=CHANNEL).fit(known[list(CHANNEL)], known["Nu"]), rest)
        )
        law = get_correlation("ravigururajan-bergles-1996").unchecked(
            {g: rest[g].to_numpy() for g in CHANNEL}
        )
        found["published"].append(float(np.median(np.abs(law.numpy() / rest["Nu"] - 1))))
    medians = {name: float(np.median(values)) for name, values in found.items()}
    assert medians["pretrained"] < 0.07
    assert (
        medians["pretrained"] < 0.8 * medians["scratch"]
        and medians["pretrained"] < 0.5 * medians["published"]
    )


@QUIET
def test_frames_mappings_and_arrays_are_one(measured):
    known, rest = few(measured, 12)
    by_frame = NusseltLaw.pretrained("ribbed").fit(known, known["Nu"])
    as_dict = {name: known[name].to_numpy() for name in reversed(CHANNEL)}
    by_dict = NusseltLaw.pretrained("ribbed").fit(as_dict, known["Nu"].to_numpy())
    array = rest[list(CHANNEL)].to_numpy()
    assert np.array_equal(by_frame.predict(rest), by_dict.predict(array))
    part = ["Nu", "Re", "Pr", "e_D"]
    named = NusseltLaw.pretrained("ribbed", columns=part[1:]).fit(
        known[part[1:]].to_numpy(), known["Nu"]
    )
    absent = {name: known[name] for name in part[1:]}
    assert np.allclose(
        named.predict(absent),
        NusseltLaw.pretrained("ribbed").fit(absent, known["Nu"]).predict(absent),
    )


@QUIET
def test_intervals_widen_where_they_should(measured):
    known = measured[measured["rig"] != "nasa-cr-3837"]
    law = NusseltLaw.pretrained("ribbed").fit(known, known["Nu"], rig=known["rig"])
    asked = {
        "Re": [3e4, 3e4, 1e6],
        "Pr": [0.703] * 3,
        "e_D": [0.0625] * 3,
        "P_e": [10] * 3,
        "alpha_deg": [60] * 3,
        "W_H": [1] * 3,
    }

    def width(rig: str | None) -> np.ndarray:
        low, high = law.predict_interval(asked, rig=rig)
        assert (low < law.predict(asked, rig=rig)).all() and (
            law.predict(asked, rig=rig) < high
        ).all()
        return np.log(high / low)

    own, new = width("han-zhang-lee-1991"), width("a rig never seen")
    assert (new > own).all() and (own[2] > 1.5 * own[0])
    assert np.array_equal(new, width(None))  # of several rigs none is meant by default
    _, spread = law.predict(asked, return_std=True)
    assert spread[2] / law.predict(asked)[2] > spread[0] / law.predict(asked)[0] > 0.02
    narrow, wide = (law.predict_interval(asked, coverage) for coverage in (0.5, 0.99))
    assert (narrow[0] > wide[0]).all() and (narrow[1] < wide[1]).all()


@pytest.mark.filterwarnings("ignore:no change in")
def test_every_source_is_in_the_audit_and_one_that_harms_is_dropped(measured):
    known, rest = few(measured, 10)
    with pytest.warns(
        HeatWarning, match="webb-1971 made leave-one-out errors .* larger than no pretraining"
    ):
        law = NusseltLaw.pretrained("ribbed").fit(known, known["Nu"])
    assert {e.source for e in law.transfer_audit_.entries} == {
        NOTHING,
        EVERYTHING,
        *law.model_.laws,
    }
    assert law.notes_["laws"]["webb-1971"] == 0 and abs(sum(law.notes_["laws"].values()) - 1) < 1e-9
    assert "harmed" in law.transfer_audit_.table().text()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HeatWarning)
        assert (
            NusseltLaw.pretrained("ribbed", audit=False).fit(known, known["Nu"]).transfer_audit_
            is None
        )


@QUIET
def test_pretraining_that_harms_is_dropped_whole():
    """Points of a law that no library holds (Nu falls with rib height and pitch): the prior can
    only mislead.
    """
    rng = np.random.default_rng(0)
    num = 40
    X = {
        "Re": rng.uniform(1e4, 6e4, num),
        "Pr": np.full(num, 0.7),
        "e_D": rng.uniform(0.02, 0.1, num),
    }
    X |= {"P_e": rng.uniform(8, 20, num), "alpha_deg": np.full(num, 90.0), "W_H": np.ones(num)}
    nusselt = 3 * X["Re"] ** 0.2 * X["e_D"] ** -1.5 * (X["P_e"] / 10) ** -2
    law = NusseltLaw.pretrained("ribbed").fit(X, nusselt)
    assert error(law, pd.DataFrame({**X, "Nu": nusselt})) < 0.01
    assert law.certificate({**X, "Re": X["Re"] * 3}).outside_MG[:, 0].any()


@QUIET
def test_it_survives_copying_pickling_and_a_search(measured):
    known, rest = few(measured, 20)
    law = NusseltLaw.pretrained("ribbed").fit(known, known["Nu"])
    again = pickle.loads(pickle.dumps(law))
    assert np.array_equal(again.predict(rest), law.predict(rest))
    assert clone(law).get_params() == law.get_params()
    X, y = known[list(CHANNEL)], known["Nu"]
    search = GridSearchCV(
        NusseltLaw.pretrained("ribbed", audit=False), {"prior": [None, "nusselt-ribbed"]}, cv=4
    )
    assert search.fit(X.to_numpy(), y).best_params_
    assert cross_val_score(NusseltLaw.pretrained("ribbed", audit=False), X, y, cv=4).mean() > 0.5


@QUIET
def test_order_of_points_does_not_matter(measured):
    known, rest = few(measured, 15)
    there = NusseltLaw.pretrained("ribbed").fit(known, known["Nu"]).predict(rest)
    back = NusseltLaw.pretrained("ribbed").fit(known[::-1], known["Nu"][::-1]).predict(rest)
    assert np.allclose(there, back, rtol=1e-6)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"Re": -5.0}, "row 1: Re is -5; it must be above 0"),
        ({"Re": 0.0}, "row 1: Re is 0"),
        ({"alpha_deg": 120.0}, "alpha_deg is 120; it must be at most 90"),
        ({"e_D": 0.9}, "e_D is 0.9"),
        ({"Nu": -1.0}, "row 1: the Nusselt number is -1"),
        ({"Nu": np.nan}, "NaN"),
        ({"Re": np.inf}, "infinity"),
    ],
)
def test_bad_points_are_one_line(measured, change, said):
    known = measured.iloc[:5].reset_index(drop=True).copy()
    for name, value in change.items():
        known.loc[1, name] = value
    with pytest.raises(ValueError, match=said):
        NusseltLaw.pretrained("ribbed").fit(known, known["Nu"])


@pytest.mark.filterwarnings("ignore:no change in")
def test_missing_columns_and_single_points_are_named(measured):
    with pytest.raises(DataError, match="no column 'Pr'"):
        NusseltLaw.pretrained("ribbed").fit({"Re": [1e4]}, [50.0])
    with pytest.raises(DataError, match="X has 3 columns"):
        NusseltLaw.pretrained("ribbed").fit(np.ones((4, 3)), np.ones(4))
    one = measured.iloc[:1]
    with pytest.warns(HeatWarning, match="one point"):
        law = NusseltLaw.pretrained("ribbed").fit(one, one["Nu"])
    assert error(law, measured) < 0.2
    with pytest.warns(HeatWarning, match="1 points repeat"):
        NusseltLaw.pretrained("ribbed").fit(
            measured.iloc[[0, 0, 20, 40, 60]], measured["Nu"].iloc[[0, 0, 20, 40, 60]]
        )
    # ribbed laws on a smooth wall
    with pytest.raises(DataError, match="has a value at these points"):
        known = {"Re": [1e4, 2e4, 4e4], "Pr": [0.7] * 3, "e_D": [0.0] * 3}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HeatWarning)
            NusseltLaw.pretrained("ribbed", laws=["han-park-1988"]).fit(known, [30.0, 50.0, 90.0])


@QUIET
def test_where_a_law_has_no_value_is_said(measured):
    law = NusseltLaw.pretrained("ribbed").fit(measured[:20], measured["Nu"][:20])
    with pytest.warns(HeatWarning, match="1 points are NaN"):
        assert np.isnan(
            law.predict({"Re": [2e4, 2e4], "Pr": 0.7, "e_D": [0.0, 0.06]})
        ).tolist() == [True, False]


@QUIET
def test_the_module_is_the_same_law(measured):
    """In float64 to rounding, in float32 to its precision, with gradients; NaN where a law has
    no value.
    """
    law = NusseltLaw.pretrained("ribbed").fit(measured[:30], measured["Nu"][:30])
    x_MG = torch.tensor(measured[list(CHANNEL)].to_numpy(), requires_grad=True)
    module = law.module()
    said = module(x_MG)
    assert np.allclose(said.detach().numpy(), law.predict(measured), rtol=1e-12)
    (slope,) = torch.autograd.grad(said.log().sum(), x_MG)
    assert bool((slope[:, 0] > 0).all())  # more flow, more heat
    single = module.float()(x_MG.detach().float())
    assert np.allclose(single.numpy(), law.predict(measured), rtol=1e-5)
    smooth = x_MG.detach().clone()
    smooth[:, 2] = 0.0
    assert bool(module(smooth.float()).isnan().all())
