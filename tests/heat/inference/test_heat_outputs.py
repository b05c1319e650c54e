"""What checkpoints of heat write, and the picture."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from sciforge import catalog
from sciforge.core.data.store import prepare
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.errors import ConfigError, DataError
from sciforge.heat.data.codec import CHANNEL
from sciforge.heat.data.measurements import Measurements
from sciforge.heat.data.readers import read_table
from sciforge.heat.inference.estimator import NusseltLaw
from sciforge.heat.inference.fitted_law import FittedLaw
from sciforge.heat.inference.law_formula import LawFormula, transfer_audit_of
from sciforge.heat.inference.plot import draw_law, save_figure
from sciforge.heat.inference.predictions import NextExperiment, PredictedNusselt
from sciforge.heat.objectives.nusselt import Nusselt

pytestmark = pytest.mark.filterwarnings("ignore::sciforge.heat.inference.estimator.HeatWarning")
ASKED = """Re,Pr,e_D,P_e,alpha_deg,W_H
30000,0.703,0.063,10,90,1
300000,0.703,0.063,10,60,1
30000,0.703,0,10,90,1
"""


@pytest.fixture(scope="module")
def prior() -> Model:
    return Model.load(catalog.find("nusselt-ribbed"), "cpu")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Model:
    """The bundled prior specialised on the tabulated rig."""
    folder = tmp_path_factory.mktemp("heat")
    lines = catalog.find("ribbed-channel").read_text().splitlines()
    rig = [line for line in lines if not line[0].isalpha() or line.startswith(("rig,", "nasa"))]
    (folder / "rig.csv").write_text("\n".join(rig) + "\n")
    with pytest.warns(UserWarning):  # W/H and the pitch never change on this rig
        prepare(Measurements(files=(folder / "rig.csv",)), folder / "store")
    schedule = Schedule(steps=1, batch=64, lr=0.0, weight_decay=0.0)
    hardware = Hardware(device="cpu", precision="float64", threads=1)
    run = Run(
        data=folder / "store",
        out=folder / "out",
        init=catalog.find("nusselt-ribbed"),
        objective=Nusselt(),
        schedule=schedule,
        hardware=hardware,
    )
    made: Checkpoint = train(run)
    return Model.load(made.path, "cpu")


@pytest.fixture
def asked(tmp_path) -> Path:
    path = tmp_path / "asked.csv"
    path.write_text(ASKED)
    return path


def test_predictions_of_a_tuned_checkpoint(tuned, asked, tmp_path):
    result = PredictedNusselt(file=asked).run(tuned)
    out = result.save(tmp_path / "nu.csv")
    about = json.loads(out.with_suffix(".json").read_text())
    assert (
        about["weights_sha256"] and "measured points" in about["from"] and about["coverage"] == 0.9
    )
    table = pd.read_csv(out)  # with pandas' defaults
    inside, far, smooth = table.to_dict("records")
    assert (
        not inside["extrapolates"]
        and pd.isna(inside["groups_out_of_range"])
        and pd.isna(inside["problem"])
    )
    assert far["extrapolates"] and far["groups_out_of_range"] == "Re"
    assert np.isnan(smooth["Nu"]) and "no value" in smooth["problem"]
    for row in (inside, far):
        assert row["Nu_lower"] < row["Nu"] < row["Nu_upper"]
    assert inside["Nu"] == pytest.approx(179.5, rel=0.1)  # measured 179.52 at Re 30771
    assert far["std_log_Nu"] > inside["std_log_Nu"]
    matplotlib.use("Agg")
    assert len(result.plot().containers) == 1


def test_predictions_are_those_of_the_objective(tuned, asked):
    """The table says what the model says; single precision of a checkpoint aside."""
    table = PredictedNusselt(file=asked, rig="nasa-cr-3837").run(tuned).to_pandas()
    points = read_table(asked, measured=False).points
    records = [
        {**{name: points[name][i] for name in CHANNEL}, "rig": "nasa-cr-3837"} for i in range(2)
    ]
    outputs = tuned.outputs(records)
    names = (("Nu", "value"), ("Nu_lower", "low"), ("Nu_upper", "high"), ("std_log_Nu", "std"))
    for ours, theirs in names:
        np.testing.assert_allclose(table[ours][:2], outputs[theirs], rtol=1e-4)


def test_a_new_rig_is_less_sure(tuned, asked):
    same = PredictedNusselt(file=asked).run(tuned).to_pandas()
    new = PredictedNusselt(file=asked, rig="new", coverage=0.5).run(tuned).to_pandas()
    assert new["std_log_Nu"][0] > same["std_log_Nu"][0]
    with pytest.raises(ConfigError, match="no rig 'nasa' .*nasa-cr-3837"):
        PredictedNusselt(file=asked, rig="nasa").run(tuned)


def test_a_prior_predicts_and_says_that_it_is_one(prior, tuned, asked):
    result = PredictedNusselt(file=asked).run(prior)
    sure = PredictedNusselt(file=asked).run(tuned).to_pandas()
    assert "prior alone, no measured point" in result.about["from"]
    first = result.to_pandas().iloc[0]
    assert first["extrapolates"] is None and first["std_log_Nu"] > 2 * sure["std_log_Nu"][0]
    assert first["Nu_lower"] < 179.5 < first["Nu_upper"]


def test_bad_input_is_one_line(tuned, asked, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("Re,Pr,e_D\n-5,0.7,0.06\n")
    with pytest.raises(DataError, match="bad.csv:2: Re is -5"):
        PredictedNusselt(file=bad).run(tuned)
    with pytest.raises(ConfigError, match="coverage is 1.5"):
        PredictedNusselt(file=asked, coverage=1.5)
    with pytest.raises(ConfigError, match="also read from"):
        PredictedNusselt(file=asked).run(tuned).save(asked)
    with pytest.raises(ConfigError, match="none of .txt"):
        LawFormula().run(tuned).save(tmp_path / "law.docx")
    assert asked.read_text() == ASKED


@pytest.mark.parametrize("suffix", [".txt", ".md", ".tex", ".py", ".png", ".pdf"])
def test_the_law_in_every_form(prior, tuned, tmp_path, suffix):
    for name, predictor in (("prior", prior), ("tuned", tuned)):
        out = LawFormula().run(predictor).save(tmp_path / f"{name}{suffix}")
        assert out.stat().st_size > 500
        if suffix in (".txt", ".md"):
            # the transfer audit needs points
            assert ("no pretraining" in out.read_text()) == (name == "tuned")
            assert "Nu = " in out.read_text()
        if suffix == ".tex":
            assert r"\begin{equation}" in out.read_text()


def test_source_of_a_checkpoint_is_its_prediction(tuned, prior, asked, tmp_path):
    for predictor in (tuned, prior):
        source = LawFormula().run(predictor).save(tmp_path / "law.py").read_text()
        call = "print(nusselt(30000.0, 0.703, 0.063, 10.0, 90.0, 1.0))"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", f"{source}\n{call}"], capture_output=True, text=True
        )
        view = FittedLaw.of_predictor(predictor)
        weight_C, mean_CM, _ = view.mixture(view.points_of([[30000, 0.703, 0.063, 10, 90, 1]]))
        assert float(done.stdout) == pytest.approx(float((weight_C @ mean_CM).exp()), rel=1e-9)


def test_audit_of_a_checkpoint_is_that_of_the_estimator(tuned):
    view = FittedLaw.of_predictor(tuned)
    law = NusseltLaw.pretrained("ribbed").fit(
        view.x_NG.numpy(), view.posterior.rows.log_N.exp().numpy()
    )
    ours = {e.source: e.median for e in transfer_audit_of(view).entries}
    assert ours == {
        e.source: pytest.approx(e.median, rel=1e-6) for e in law.transfer_audit_.entries
    }


def test_next_experiment_of_a_checkpoint(tuned, tmp_path):
    file = tmp_path / "candidates.csv"
    grid = [(re, e, a) for re in (1e4, 3e4, 6e4) for e in (0.03, 0.063) for a in (90, 60)]
    file.write_text("Re,Pr,e_D,alpha_deg\n" + "".join(f"{re},0.703,{e},{a}\n" for re, e, a in grid))
    with pytest.warns(UserWarning, match="no column P_e, W_H; 10, 1 taken"):
        result = NextExperiment(file=file, count=3).run(tuned)
    table = result.to_pandas()
    assert table["reading"].tolist() == [1, 2, 3]
    assert table["e_D"][0] == 0.03 and table["plate"][0] == "new"  # the rig has only e/D 0.063
    left = [result.about["std_before"], *table["std_of_all_after"]]
    assert left == sorted(left, reverse=True)
    line = int(table["line"][0])
    assert file.read_text().splitlines()[line - 1].split(",")[2] == "0.03"
    file.write_text("Re,Pr,e_D,P_e,alpha_deg,W_H\n1e4,0.7,0,10,90,1\n")
    with pytest.raises(DataError, match="candidates.csv: candidate 0"):
        NextExperiment(file=file, count=1).run(tuned)


# --- the picture ---


def test_picture_of_a_law_leaves_no_figure_behind(tuned, tmp_path):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    picture = imread(save_figure(draw_law(FittedLaw.of_predictor(tuned)), tmp_path / "law.png"))
    assert picture.std() > 0.05 and pyplot.get_fignums() == before
    assert [path.name for path in tmp_path.iterdir()] == ["law.png"]


def test_picture_of_awkward_names_and_no_path(tmp_path):
    rng = np.random.default_rng(0)
    x_NG = rng.uniform(1, 2, (8, 2))
    law = NusseltLaw(columns=("a$b_{", "x^%")).fit(x_NG, x_NG[:, 0] ** 2)
    figure = law.figure()
    labels = [axes.get_xlabel() for axes in figure.get_axes()]
    assert "a$b_{" in labels
    save_figure(figure, tmp_path / "law.svg")  # mathematics in names would fail here
    with pytest.raises(ConfigError, match="suffix"):
        save_figure(figure, tmp_path / "law.gif")


def test_plots_return_axes(tuned):
    matplotlib.use("Agg")
    view = FittedLaw.of_predictor(tuned)
    law = NusseltLaw.pretrained("ribbed").fit(
        view.x_NG.numpy(), view.posterior.rows.log_N.exp().numpy()
    )
    axes = law.plot("Re")
    measured = next(line for line in axes.lines if line.get_label().startswith("measured"))
    np.testing.assert_allclose(measured.get_xdata(), view.x_NG[:, 0])
    curve = np.interp(
        np.log(measured.get_xdata()),
        np.log(axes.lines[0].get_xdata()),
        np.log(axes.lines[0].get_ydata()),
    )
    residual = np.log(view.posterior.rows.log_N.exp().numpy() / law.predict(view.x_NG.numpy()))
    np.testing.assert_allclose(np.log(measured.get_ydata()) - curve, residual, atol=0.01)
    assert axes.figure is not None and axes.get_xlabel() == "Re" and len(axes.collections) == 1
    assert law.plot(ax=axes.figure.add_subplot()).get_ylabel() == "predicted Nu"
    with pytest.raises(ConfigError, match="no group 'Rey'"):
        law.plot("Rey")
    for group in ("alpha_deg", "W_H", "Pr"):
        assert np.isfinite(law.plot(group).lines[0].get_ydata()).all()
