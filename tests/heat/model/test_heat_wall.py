"""Friction and heat transfer fitted together."""

import warnings

import numpy as np
import pytest
import torch

from sciforge import catalog
from sciforge.errors import DataError
from sciforge.heat.correlations.library import get_correlation
from sciforge.heat.correlations.ribbed import RIBBED
from sciforge.heat.data.codec import CHANNEL
from sciforge.heat.data.readers import read_table
from sciforge.heat.inference.wall_law import WallNusseltLaw, slope

pytestmark = pytest.mark.filterwarnings("ignore::sciforge.heat.inference.estimator.HeatWarning")


@pytest.fixture(scope="module")
def measured() -> dict[str, np.ndarray]:
    table = read_table(catalog.fetch("ribbed-channel"), warn=False)
    known = np.isfinite(table.fanning)
    return {
        **{n: c[known] for n, c in table.points.items()},
        "Nu": table.nu[known],
        "f": table.fanning[known],
    }


def part(
    measured: dict[str, np.ndarray], places: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    return {n: measured[n][places] for n in CHANNEL}, measured["Nu"][places], measured["f"][places]


@pytest.mark.parametrize("name", ["han-park-1988", "han-1988"])
def test_slope_is_what_the_law_of_the_wall_does(name):
    """Changing R alone, as a rougher wall would, moves Nu and f along the slope that is used
    (G's growth is .28 to .35).
    """
    law = next(law for law in RIBBED if law.name == name)
    points = {"Re": 3e4, "Pr": 0.703, "e_D": 0.0625, "P_e": 10.0, "alpha_deg": 90.0, "W_H": 2.0}
    more = {**points, "P_e": 10.5}  # R grows with pitch; G does not, in a rectangular channel
    nusselt, fanning = (
        torch.stack([f(points), f(more)]).double() for f in (law.unchecked, law.fanning)
    )
    found = float(torch.diff(nusselt.log()) / torch.diff(fanning.log()))
    assert found == pytest.approx(float(slope(points, nusselt[0], fanning[0])), abs=0.05)


def test_friction_is_learnt_from_few_points_far_better_than_by_the_published_law(measured):
    errors, published = [], []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(measured["Nu"]))
        X, nusselt, friction = part(measured, order[:5])
        law = WallNusseltLaw.pretrained("ribbed").fit(X, nusselt, fanning=friction)
        asked, _, true = part(measured, order[5:])
        errors.append(np.abs(law.predict_friction(asked) / true - 1))
        by_law = get_correlation("ravigururajan-bergles-1996").fanning(asked).numpy()
        published.append(np.abs(by_law / true - 1))
        low, high = law.predict_friction(asked, coverage=0.9)
        assert 0.7 < ((low <= true) & (true <= high)).mean() <= 1
    assert np.median(np.concatenate(errors)) < 0.3 * np.median(np.concatenate(published))


def test_a_wall_that_drags_more_heats_more(measured):
    """Friction 30 % above the law at points without a surprise in Nu still raises Nu elsewhere,
    and only a little.
    """
    X, nusselt, friction = part(measured, np.arange(0, 33, 4))
    usual = WallNusseltLaw.pretrained("ribbed").fit(X, nusselt, fanning=friction)
    dragging = WallNusseltLaw.pretrained("ribbed").fit(X, nusselt, fanning=1.3 * friction)
    asked, _, _ = part(measured, np.arange(1, 33, 4))
    assert (dragging.predict_friction(asked) > 1.1 * usual.predict_friction(asked)).all()
    # Nu itself was measured
    assert np.abs(np.log(dragging.predict(asked) / usual.predict(asked))).max() < 0.1


def test_gaps_and_bad_friction(measured):
    X, nusselt, friction = part(measured, np.arange(6))
    gaps = np.where(np.arange(6) % 2, np.nan, friction)
    law = WallNusseltLaw.pretrained("ribbed").fit(X, nusselt, fanning=gaps)
    low, high = law.predict_interval(X)
    assert (low < law.predict(X)).all() and (law.predict(X) < high).all()
    with pytest.raises(DataError, match="no friction factor above 0"):
        WallNusseltLaw.pretrained("ribbed").fit(X, nusselt)
    with pytest.raises(DataError, match="-0.01 at a point"):
        WallNusseltLaw.pretrained("ribbed").fit(
            X, nusselt, fanning=np.where(np.arange(6) == 2, -0.01, friction)
        )
    with (
        pytest.raises(DataError, match="none of the laws knows the friction"),
        warnings.catch_warnings(),
    ):
        WallNusseltLaw.pretrained("smooth").fit(X, nusselt, fanning=friction)
