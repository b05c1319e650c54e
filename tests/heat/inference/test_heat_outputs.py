"""What checkpoints of heat write, and the picture."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
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
from sciforge.heat.data.prepare import Measurements
from sciforge.heat.data.readers import read_table
from sciforge.heat.inference.estimator import NusseltLaw
from sciforge.heat.inference.fitted_law import FittedLaw
from sciforge.heat.inference.plot import plot
from sciforge.heat.inference.predictions import LawFormula, NextExperiment, PredictedNusselt, ledger_of
from sciforge.heat.objectives.nusselt import Nusselt

pytestmark = pytest.mark.filterwarnings("ignore::sciforge.heat.inference.estimator.HeatWarning")
ASKED = "Re,Pr,e_D,P_e,alpha_deg,W_H\n30000,0.703,0.063,10,90,1\n300000,0.703,0.063,10,60,1\n30000,0.703,0,10,90,1\n"


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
    run = Run(data=folder / "store", out=folder / "out", init=catalog.find("nusselt-ribbed"), objective=Nusselt(),
              schedule=schedule, hardware=hardware)  # fmt: skip
    made: Checkpoint = train(run)
    return Model.load(made.path, "cpu")


@pytest.fixture
def asked(tmp_path) -> Path:
    path = tmp_path / "asked.csv"
    path.write_text(ASKED)
    return path


def rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    lines = path.read_text().splitlines()
    remarks = [line for line in lines if line.startswith("#")]
    return remarks, list(csv.DictReader(line for line in lines if not line.startswith("#")))


def test_predictions_of_a_tuned_checkpoint(tuned, asked, tmp_path):
    remarks, found = rows(PredictedNusselt(file=asked, out=tmp_path / "nu.csv").write(tuned))
    assert json.loads(remarks[0][2:])["weights_sha256"]
    assert "measured points" in remarks[2] and "probability 0.9" in remarks[2]
    inside, far, smooth = found
    assert (inside["hull"], inside["groups_out_of_range"], inside["problem"]) == ("inside", "", "")
    assert (far["hull"], far["groups_out_of_range"]) == ("outside", "Re")
    assert smooth["Nu"] == "" and "no value" in smooth["problem"]
    for row in (inside, far):
        assert float(row["low"]) < float(row["Nu"]) < float(row["high"])
    assert float(inside["Nu"]) == pytest.approx(179.5, rel=0.1)  # measured 179.52 at Re 30771
    assert float(far["spread"]) > float(inside["spread"])


def test_predictions_are_those_of_the_objective(tuned, asked, tmp_path):
    """The table says what the predictor says; single precision of a checkpoint aside."""
    _, found = rows(PredictedNusselt(file=asked, out=tmp_path / "nu.csv", rig="nasa-cr-3837").write(tuned))
    table = read_table(asked, measured=False)
    records = [{**{name: table.points[name][i] for name in CHANNEL}, "rig": "nasa-cr-3837"} for i in range(2)]
    said = tuned.outputs(records)
    for i in range(2):
        for ours, theirs in (("Nu", "value"), ("low", "low"), ("high", "high"), ("spread", "spread")):
            assert float(found[i][ours]) == pytest.approx(said[theirs][i], rel=1e-4)


def test_a_new_rig_is_less_sure(tuned, asked, tmp_path):
    _, same = rows(PredictedNusselt(file=asked, out=tmp_path / "same.csv").write(tuned))
    _, new = rows(PredictedNusselt(file=asked, out=tmp_path / "new.csv", rig="new", coverage=0.5).write(tuned))
    assert float(new[0]["spread"]) > float(same[0]["spread"])
    with pytest.raises(ConfigError, match="no rig 'nasa' .*nasa-cr-3837"):
        PredictedNusselt(file=asked, out=tmp_path / "x.csv", rig="nasa").write(tuned)
    assert not (tmp_path / "x.csv").exists()


def test_a_prior_predicts_and_says_that_it_is_one(prior, tuned, asked, tmp_path):
    remarks, found = rows(PredictedNusselt(file=asked, out=tmp_path / "prior.csv").write(prior))
    _, sure = rows(PredictedNusselt(file=asked, out=tmp_path / "tuned.csv").write(tuned))
    assert "prior alone, no measured point" in remarks[2]
    assert found[0]["hull"] == "" and float(found[0]["spread"]) > 2 * float(sure[0]["spread"])
    assert float(found[0]["low"]) < 179.5 < float(found[0]["high"])


def test_bad_input_is_one_line_and_leaves_no_file(tuned, asked, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("Re,Pr,e_D\n-5,0.7,0.06\n")
    with pytest.raises(DataError, match="bad.csv:2: Re is -5"):
        PredictedNusselt(file=bad, out=tmp_path / "out.csv").write(tuned)
    with pytest.raises(ConfigError, match="coverage is 1.5"):
        PredictedNusselt(file=asked, out=tmp_path / "out.csv", coverage=1.5)
    with pytest.raises(ConfigError, match="also read from"):
        PredictedNusselt(file=asked, out=asked).write(tuned)
    with pytest.raises(ConfigError, match="none of .txt"):
        LawFormula(out=tmp_path / "law.docx")
    assert asked.read_text() == ASKED and not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("suffix", [".txt", ".md", ".tex", ".py", ".png", ".pdf"])
def test_the_law_in_every_form(prior, tuned, tmp_path, suffix):
    for name, predictor in (("prior", prior), ("tuned", tuned)):
        out = LawFormula(out=tmp_path / f"{name}{suffix}").write(predictor)
        assert out.stat().st_size > 500
        if suffix in (".txt", ".md"):
            assert ("no pretraining" in out.read_text()) == (name == "tuned")  # the ledger needs points
            assert "Nu = " in out.read_text()
        if suffix == ".tex":
            assert r"\begin{equation}" in out.read_text()


def test_source_of_a_checkpoint_is_its_prediction(tuned, prior, asked, tmp_path):
    for predictor in (tuned, prior):
        source = LawFormula(out=tmp_path / "law.py").write(predictor).read_text()
        call = "print(nusselt(30000.0, 0.703, 0.063, 10.0, 90.0, 1.0))"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", f"{source}\n{call}"], capture_output=True, text=True)
        view = FittedLaw.of_predictor(predictor)
        weight_C, mean_CM, _ = view.mixture(view.points_of([[30000, 0.703, 0.063, 10, 90, 1]]))
        assert float(done.stdout) == pytest.approx(float((weight_C @ mean_CM).exp()), rel=1e-9)


def test_ledger_of_a_checkpoint_is_that_of_the_estimator(tuned):
    view = FittedLaw.of_predictor(tuned)
    law = NusseltLaw.pretrained("ribbed").fit(view.x_NG.numpy(), view.posterior.rows.log_N.exp().numpy())
    ours = {e.source: e.median for e in ledger_of(view).entries}
    assert ours == {e.source: pytest.approx(e.median, rel=1e-6) for e in law.ledger_.entries}


def test_next_experiment_of_a_checkpoint(tuned, tmp_path):
    file = tmp_path / "candidates.csv"
    grid = [(re, e, a) for re in (1e4, 3e4, 6e4) for e in (0.03, 0.063) for a in (90, 60)]
    file.write_text("Re,Pr,e_D,alpha_deg\n" + "".join(f"{re},0.703,{e},{a}\n" for re, e, a in grid))
    with pytest.warns(UserWarning, match="no column P_e, W_H; 10, 1 taken"):
        remarks, found = rows(NextExperiment(file=file, out=tmp_path / "next.csv", count=3).write(tuned))
    assert [row["reading"] for row in found] == ["1", "2", "3"]
    assert float(found[0]["e_D"]) == 0.03 and found[0]["plate"] == "new"  # the rig has only e/D 0.063
    left = [float(row["spread_of_all_after"]) for row in found]
    assert left == sorted(left, reverse=True) and "candidates' spread" in remarks[1]
    line = int(found[0]["line"])
    assert file.read_text().splitlines()[line - 1].split(",")[2] == "0.03"
    file.write_text("Re,Pr,e_D,P_e,alpha_deg,W_H\n1e4,0.7,0,10,90,1\n")
    with pytest.raises(DataError, match="candidates.csv: candidate 0"):
        NextExperiment(file=file, out=tmp_path / "no.csv", count=1).write(tuned)


# --- the picture ---


def test_picture_of_a_law_leaves_no_figure_behind(tuned, tmp_path):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    picture = imread(plot(FittedLaw.of_predictor(tuned), tmp_path / "law.png"))
    assert picture.std() > 0.05 and pyplot.get_fignums() == before
    assert [path.name for path in tmp_path.iterdir()] == ["law.png"]


def test_picture_of_awkward_names_and_no_path(tmp_path):
    rng = np.random.default_rng(0)
    x_NG = rng.uniform(1, 2, (8, 2))
    law = NusseltLaw(columns=("a$b_{", "x^%")).fit(x_NG, x_NG[:, 0] ** 2)
    figure = law.plot()
    labels = [axes.get_xlabel() for axes in figure.get_axes()]
    assert "a$b_{" in labels
    law.plot(tmp_path / "law.svg")  # mathematics in names would fail here
    with pytest.raises(ConfigError, match="suffix"):
        plot(law, tmp_path / "law.gif")
