"""The wheel, installed read-only and used outside of the checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = {
    "datasets": ("-m", "sciforge", "datasets", "list"),
    "check": ("-m", "sciforge", "check", "nusselt-ribbed"),
    "load": ("-c", "import sciforge as sf; print(sf.__file__, sf.load('dna-bert-mini'))"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the unpacked wheel and nothing else, read-only."""
    pytest.importorskip(
        "hatchling", reason="the wheel is built without a network: pip install hatchling"
    )
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-q",
        str(ROOT),
    ]
    done = subprocess.run([*command, "-w", str(folder)], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("sciforge-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    places = [folder / "site", *(folder / "site").rglob("*")]
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    yield folder / "site"
    for place in places:
        place.chmod(0o755 if place.is_dir() else 0o644)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_wheel_works_read_only_and_away_from_the_checkout(site, program, tmp_path):
    before = {path for path in site.rglob("*")}
    packages = sysconfig.get_paths()["purelib"]
    path = os.pathsep.join([str(site), packages])
    env = {**os.environ, "PYTHONPATH": path, "SCIFORGE_CACHE": str(tmp_path / "cache")}
    # -S leaves site-packages out, where an editable installation would put the checkout on the path
    code = [sys.executable, "-S", "-W", "error", *PROGRAMS[program]]
    done = subprocess.run(code, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert str(ROOT / "sciforge") not in done.stdout + done.stderr
    if program == "load":
        assert str(site) in done.stdout
    assert {path for path in site.rglob("*")} == before


@pytest.mark.slow
def test_the_wheel_holds_what_a_user_needs(site):
    assert (site / "sciforge" / "py.typed").is_file()
    assert (site / "sciforge" / "_datasets" / "solubility.csv").is_file()
    metadata = next(site.glob("sciforge-*.dist-info/METADATA")).read_text()
    assert (
        "License-Expression: Apache-2.0" in metadata and "Author: sciforge developers" in metadata
    )
