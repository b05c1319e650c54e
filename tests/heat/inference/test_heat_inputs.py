"""Measured points in a DataFrame: the same fit as from a file, and the same as the estimator's."""

import numpy as np
import pandas as pd
import pytest
from tiny_runs import assert_saves_itself

from sciforge import api, catalog
from sciforge.core.data.store import prepare
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError
from sciforge.heat import Measurements, NusseltLaw
from sciforge.heat.data.in_memory import MeasurementsInMemory
from sciforge.heat.data.readers import read_frame

COLUMNS = ["Re", "Pr", "e_D", "P_e", "alpha_deg", "W_H"]
pytestmark = [
    pytest.mark.filterwarnings("ignore::sciforge.heat.inference.estimator.HeatWarning"),
    pytest.mark.filterwarnings("ignore:.*never change"),
]


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    frame = pd.read_csv(catalog.find("ribbed-channel"), comment="#")
    return frame[frame["rig"] == frame["rig"].iloc[0]].iloc[::3].reset_index(drop=True)


def test_fit_of_a_frame_is_the_estimator_s(points, tmp_path):
    model = api.load("nusselt-ribbed", device="cpu").fit(
        points[[*COLUMNS, "Nu"]], target="Nu", verbose=False
    )
    asked = points[COLUMNS].set_index(pd.Index([f"p{i}" for i in range(len(points))]))
    table = model.predict(asked)
    assert (
        list(table.columns) == ["Nu", "std_log_Nu", "Nu_lower", "Nu_upper"]
        and table.index[0] == "p0"
    )
    law = NusseltLaw.pretrained("ribbed").fit(points[COLUMNS], points["Nu"])
    np.testing.assert_allclose(table["Nu"], law.predict(points[COLUMNS]), rtol=1e-3)
    assert model.evaluate(points)["median_error"] < 10
    assert_saves_itself(model, tmp_path / "saved", asked, points)


def test_a_frame_and_a_file_make_the_same_store(points, tmp_path):
    points.to_csv(tmp_path / "points.csv", index=False)
    basis = "ribbed wall, projected area, smooth diameter"
    options = {"basis": basis, "shares": (1.0, 0.0, 0.0)}
    from_file = prepare(
        Measurements(files=(tmp_path / "points.csv",), **options), tmp_path / "file"
    )
    from_frame = prepare(MeasurementsInMemory.of(points, basis=basis), tmp_path / "frame")
    for name in (*COLUMNS, "value", "rig", "fanning"):
        np.testing.assert_array_equal(from_file.column(name), from_frame.column(name))
    assert from_file.meta["basis"] == from_frame.meta["basis"]
    assert any(basis in note for note in from_frame.meta["notes"])


def test_columns_are_found_by_alias_and_unit_and_mistakes_by_place(points):
    renamed = points.rename(columns={"Re": "Reynolds"})
    renamed["angle [rad]"] = np.radians(renamed.pop("alpha_deg"))
    table = read_frame(
        renamed, ["alpha_deg=angle [rad]"], basis="ribbed wall, projected area, smooth diameter"
    )
    np.testing.assert_allclose(table.points["Re"], points["Re"])
    np.testing.assert_allclose(table.points["alpha_deg"], points["alpha_deg"])
    bad = points.copy()
    bad.loc[2, "Re"] = -5.0
    with pytest.raises(DataError, match="input 2: Re is -5"):
        MeasurementsInMemory.of(bad)
    with pytest.raises(DataError, match="the table: no column Re"):
        MeasurementsInMemory.of(points.drop(columns="Re"))
    stated = points.copy()
    stated.attrs["basis"] = "smooth wall, projected area, smooth diameter"
    assert "smooth" in MeasurementsInMemory.of(stated).table.basis


def test_what_is_no_table_is_refused():
    model = Model.load(catalog.find("nusselt-ribbed"), "cpu")
    with pytest.raises(ConfigError, match="DataFrame with columns Re"):
        model.predict([[1e4, 0.7]])
