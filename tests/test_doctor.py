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
    found = doctor.probe("pooch", "")
    assert (found.state, found.mend, found.required) == ("broken", "pip uninstall torchvision", True)
    assert "torchvision::nms" in found.detail
    assert doctor.probe("tqdm", "").state == "ok"
    missing = doctor.probe("no-such-package", "dask")
    assert (missing.state, missing.mend) == ("missing", 'pip install "sciforge[dask]"')
    assert doctor.probe("no-such-package", "bystander") is None


def test_a_package_that_kills_its_process(broken):
    broken("pooch", "import os; os._exit(7)")
    found = doctor.probe("pooch", "")
    assert found.state == "broken" and "force-reinstall" in found.mend and "7" in found.detail


def test_a_package_that_hangs(broken):
    broken("pooch", "import time; time.sleep(60)")
    assert "more than 1 seconds" in doctor.probe("pooch", "", timeout=1).detail


def test_a_broken_bystander_is_named(broken):
    broken("torchvision", "raise RuntimeError('ABI')")
    found = doctor.probe("torchvision", "bystander")
    assert (found.state, found.mend, found.required) == ("broken", "pip uninstall torchvision", False)


def test_requirements_come_from_the_package_itself():
    wanted = doctor.requirements()
    assert {wanted[name] for name in ("torch", "numpy", "safetensors", "tqdm", "tyro", "pooch")} == {""}
    assert wanted["distributed"] == "dask"


def test_health():
    fine = doctor.Finding("torch", "ok", "2.13")
    optional = doctor.Finding("distributed", "missing", mend="pip", required=False)
    assert doctor.Diagnosis((fine, optional)).healthy
    sick = doctor.Diagnosis((fine, doctor.Finding("numpy", "broken", "x", "pip install numpy")))
    assert not sick.healthy and "pip install numpy" in sick.text()


@pytest.mark.slow
def test_doctor_of_this_machine():
    found = doctor.doctor()
    assert {"torch", "domains", "threads", "cache folder"} <= {f.what for f in found.findings}
