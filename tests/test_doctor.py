"""The doctor, with packages broken on purpose."""

import os
from pathlib import Path

import pytest

from sciforge import doctor


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Return a function that puts a package that fails on import before all others."""

    def make(name: str, code: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        root = str(Path(doctor.__file__).resolve().parents[1])
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), root]))

    return make


def test_broken_missing_and_sound(broken):
    broken("pooch", "raise RuntimeError('operator torchvision::nms does not exist')")
    finding = doctor.probe("pooch", "")
    assert (finding.state, finding.mend, finding.required) == (
        "broken",
        "pip uninstall torchvision",
        True,
    )
    assert "torchvision::nms" in finding.detail
    assert doctor.probe("tqdm", "").state == "ok"
    missing = doctor.probe("no-such-package", "dask")
    assert (missing.state, missing.mend) == ("missing", 'pip install "sciforge[dask]"')
    assert doctor.probe("no-such-package", "bystander") is None


def test_a_package_that_kills_its_process(broken):
    broken("pooch", "import os; os._exit(7)")
    finding = doctor.probe("pooch", "")
    assert finding.state == "broken" and "force-reinstall" in finding.mend and "7" in finding.detail


def test_a_package_that_hangs(broken):
    broken("pooch", "import time; time.sleep(60)")
    assert "more than 1 seconds" in doctor.probe("pooch", "", timeout=1).detail


def test_a_broken_bystander_is_named(broken):
    broken("torchvision", "raise RuntimeError('ABI')")
    finding = doctor.probe("torchvision", "bystander")
    assert (finding.state, finding.mend, finding.required) == (
        "broken",
        "pip uninstall torchvision",
        False,
    )


def test_names_of_modules_that_differ_from_their_package_s():
    installed = ["pillow", "scikit-learn", "biopython", "torch-geometric"]
    findings = doctor.probe_all(installed, dict.fromkeys(installed, ""), timeout=60)
    assert {f.what: f.state for f in findings} == dict.fromkeys(installed, "ok")


def test_a_package_that_kills_a_shared_process_does_not_hide_the_others(broken):
    broken("pooch", "import os; os._exit(7)")
    findings = doctor.probe_all(["safetensors", "pooch", "tqdm"], {}, timeout=60)
    assert [f.state for f in findings] == ["ok", "broken", "ok"]


def test_requirements_come_from_the_package_itself():
    wanted = doctor.requirements()
    assert {
        wanted[name] for name in ("torch", "numpy", "safetensors", "tqdm", "tyro", "pooch")
    } == {""}
    assert "sciforge" not in wanted
    assert wanted["distributed"] == "dask"


def test_health():
    fine = doctor.Finding("torch", "ok", "2.13")
    optional = doctor.Finding("distributed", "missing", mend="pip", required=False)
    assert doctor.Diagnosis((fine, optional)).healthy
    sick = doctor.Diagnosis((fine, doctor.Finding("numpy", "broken", "x", "pip install numpy")))
    assert not sick.healthy and "pip install numpy" in sick.text()


@pytest.mark.slow
def test_doctor_of_this_machine():
    diagnosis = doctor.doctor()
    assert {"torch", "domains", "threads", "cache folder"} <= {f.what for f in diagnosis.findings}
    assert diagnosis.healthy, diagnosis.text()
