"""`sciforge score` from files to report: what it prints, what it keeps, what it refuses; and the
peers' published metrics.
"""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sciforge.errors import ConfigError, DataError, MissingExtra
from sciforge.molecules.evaluation import score as scoring
from sciforge.molecules.evaluation.score import TITLES, Score, table_of

SHARED = (
    Path(os.environ.get("SCIFORGE_SHARED", Path(__file__).parents[4] / "shared"))
    / "data"
    / "molecules"
)
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the shared data are not at {SHARED}"
)
PARTS = [
    *("c1ccc2ccccc2c1", "c1ccc(-c2ccccc2)cc1", "O=C(Nc1ccccc1)c1ccncc1"),
    *("C" * n + "O" for n in range(3, 10)),
]
TRAIN = [f"{part}{end}" for part in PARTS for end in ("", "C", "N", "CC", "CO")]
TEST = [f"{part}{end}" for part in PARTS for end in ("CN", "CCC", "F")]
NOVEL = [f"{part}CF" for part in PARTS]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Training set, reference and a sample of 9 valid of 12 lines, 8 of them different, 6 of
    those novel.
    """
    (tmp_path / "train.csv").write_text(
        "SMILES,SPLIT\n" + "".join(f"{one},train\n" for one in TRAIN)
    )
    (tmp_path / "test.csv.gz").write_bytes(
        gzip.compress(("SMILES\n" + "\n".join(TEST) + "\n").encode())
    )
    sample = [*NOVEL[:6], NOVEL[0], "OCCC", "NOCCC", "CC.CC", "", "C[CH2]"]
    (tmp_path / "ours.smi").write_text("\n".join(sample) + "\n")
    names = {"file": "ours.smi", "training": "train.csv", "reference": "test.csv.gz"}
    return {**{name: tmp_path / file for name, file in names.items()}, "cache": tmp_path / "cache"}


def scored(files: dict[str, Path], **changes) -> dict:
    return Score(**{**files, "fcd": False, **changes}).run().report


def test_report_and_table(files):
    result = Score(**files, fcd=False).run()
    report = result.report
    metrics = report["metrics"]
    assert metrics["validity"]["value"] == 9 / 12 and metrics["validity"]["by"] == "Wilson"
    assert metrics["unique"]["value"] == 8 / 9
    # propanol and its amine are written otherwise in the training set
    assert metrics["novelty"]["value"] == 6 / 8
    assert report["invalid"] == {"several components": 1, "empty": 1, "radical": 1}
    assert set(report["omitted"]) == {"unique_1000", "unique_10000"}
    assert report["strings"] == 12 and report["real_molecules"]["snn"]["count"] == 9
    for name, figure in metrics.items():
        assert figure["low"] <= figure["value"] <= figure["high"], name
    text = repr(result)
    assert all(TITLES[name] in text for name in metrics)
    assert (
        "30,000 were asked for" in text
        and "1 invalid: radical" in text
        and "nan" not in text.lower()
    )


def test_a_result_is_a_table_a_picture_and_a_file(files, tmp_path):
    result = Score(**files, fcd=False).run()
    frame = result.to_pandas().set_index("metric")
    assert frame.loc["validity", "value"] == 9 / 12 and np.isnan(frame.loc["validity", "real"])
    assert result.plot().get_xlim() == (-0.02, 1.02)
    assert json.loads(result.save(tmp_path / "report.json").read_text()) == result.report
    assert (
        pd.read_csv(result.save(tmp_path / "score.csv"))["metric"].tolist() == frame.index.tolist()
    )
    with pytest.raises(ConfigError, match=r"\.csv or \.tsv"):
        result.save(tmp_path / "score.doc")


def test_a_training_set_is_not_novel_but_near(files):
    report = scored({**files, "file": files["training"]})
    assert (
        report["metrics"]["novelty"]["value"] == 0 and report["metrics"]["validity"]["value"] == 1
    )
    # As many random molecules of the training set are the training set: every figure is the
    # floor's.
    for name, real in report["real_molecules"].items():
        assert report["metrics"][name]["value"] == pytest.approx(real["value"], abs=1e-9), name


def test_num_takes_the_first_lines(files):
    report = scored(files, num=6)
    assert report["strings"] == 6 and report["metrics"]["validity"]["value"] == 1


def test_what_is_kept_serves_again_and_changed_files_do_not_use_it(files, monkeypatch):
    before = scored(files)
    kept = sorted(files["cache"].iterdir())
    assert [path.name.partition("-")[0] for path in kept] == ["features", "known", "real"]
    with monkeypatch.context() as patched:
        for name in ("hash_index_of", "pick_strings"):
            patched.setattr(scoring, name, lambda *_: pytest.fail("computed again"))
        assert scored(files)["metrics"] == before["metrics"]
    files["training"].write_text("SMILES\n" + "\n".join([*TRAIN, *NOVEL]) + "\n")
    after = scored(files)
    assert after["metrics"]["novelty"]["value"] == 0 and before["metrics"]["novelty"]["value"] > 0


def test_several_processes_say_the_same(files):
    one, two = scored(files), scored({**files, "cache": files["cache"] / "other"}, workers=2)
    assert one["metrics"] == two["metrics"] and one["real_molecules"] == two["real_molecules"]


def test_part_of_the_reference(files):
    assert scored(files, reference_num=10)["reference_molecules"] == 10


def test_fcd_with_its_floor_and_given_statistics(files):
    pytest.importorskip("fcd_torch", reason="fcd_torch holds the net of FCD")
    report = scored(files, fcd=True)
    excess = report["metrics"]["fcd"]["value"] - report["real_molecules"]["fcd"]["value"]
    assert report["metrics"]["fcd_excess"]["value"] == pytest.approx(excess)
    moments = next(path for path in files["cache"].iterdir() if path.name.startswith("moments"))
    stats = files["file"].with_name("stats.npz")
    stats.write_bytes(moments.read_bytes())
    again = scored(files, fcd=True, reference_stats=stats)
    assert again["metrics"]["fcd"]["value"] == pytest.approx(report["metrics"]["fcd"]["value"])
    assert scored(files, fcd=True, fcd_num=4)["metrics"]["fcd"]["count"] == 4


def test_a_floor_of_fewer_molecules_gives_no_excess(files):
    pytest.importorskip("fcd_torch", reason="fcd_torch holds the net of FCD")
    files["training"].write_text("SMILES\n" + "\n".join(TRAIN[:5]) + "\n")
    report = scored(files, fcd=True)
    assert "fewer" in report["omitted"]["fcd_excess"] and "fcd_excess" not in report["metrics"]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"num": 0}, ConfigError, "num is 0"),
        ({"num": "ten"}, ConfigError, "score.num is 'ten'"),
        ({"file": Path("nowhere.smi")}, DataError, "nowhere.smi"),
        ({"training": Path("nowhere.csv")}, DataError, "nowhere.csv"),
    ],
)
def test_settings_and_files_that_are_wrong(files, changes, error, says):
    with pytest.raises(error, match=says):
        scored(files, **changes)


@pytest.mark.parametrize("text", ["", "\n\n", ">seq1\nACGTNNN_\n", "<html>\n</html>\n"])
def test_files_without_a_molecule(files, text):
    files["file"].write_text(text)
    with pytest.raises(DataError, match="no valid molecule"):
        scored(files)
    files["file"].write_text("CCO\n")
    files["reference"] = files["file"].with_name("reference.smi")
    files["reference"].write_text(text)
    with pytest.raises(DataError, match="reference.smi"):
        scored(files)


def test_fcd_without_its_package_is_said_before_the_work(files, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fcd_torch", None)
    with pytest.raises(MissingExtra, match=r"\[fcd\]"):
        scored(files, fcd=True)
    assert not files["cache"].exists()


def test_reports_side_by_side(files):
    report = scored(files)
    table = table_of({"ours": report, "theirs": report})
    assert table.columns.count("95 % interval") == 2 and len(table.rows) == len(report["metrics"])


@needs_shared
@pytest.mark.slow
def test_released_samples_have_their_published_validity():
    from sciforge.molecules.evaluation.generated_files import judge_all, read_strings

    folder = SHARED / "generated_by_peers"
    jtvae = judge_all(list(read_strings(folder / "jtvae_moses_30k.smi.gz", 1000)))
    digress = judge_all(list(read_strings(folder / "digress_moses_25k.smi.gz", 5000)))
    assert all(not sample.reason for sample in jtvae)
    assert np.mean([not sample.reason for sample in digress]) == pytest.approx(0.8600, abs=1e-9)
    # it writes None for what it could not build
    assert {sample.reason for sample in digress} == {"", "not a SMILES"}


def test_files_of_another_dialect_are_no_invalid_molecules(files, tmp_path):
    good = scored(files)
    text = files["file"].read_text()
    for name, content in (
        ("mark.smi", "\ufeff" + text),
        ("UPPER.CSV", "smiles,name\n" + "".join(f"{line},x\n" for line in text.splitlines())),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert scored(files, file=tmp_path / name)["metrics"] == good["metrics"]
    (tmp_path / "a.sdf").write_text("x\n$$$$\n")
    with pytest.raises(DataError, match="the ending '.sdf' is none of .smi"):
        scored(files, file=tmp_path / "a.sdf")
    (tmp_path / "two.csv").write_text("smiles,smiles\nCC,CCC\n")
    with pytest.raises(DataError, match="two columns are called 'smiles'"):
        scored(files, file=tmp_path / "two.csv")
    with pytest.raises(ConfigError, match="fcd_num is about FCD, which is switched off"):
        scored(files, fcd_num=5)
