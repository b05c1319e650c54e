"""What the operating system refuses is one line that names the user's file, whoever writes it."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_runs import ROOT, Tiny

import sciforge as sf
from sciforge.core.data.store import prepare
from sciforge.core.files import atomic
from sciforge.core.files.atomic import TEMPORARY, copy_folder, disk_error, replace_json
from sciforge.core.files.metrics_log import MetricsLog
from sciforge.core.files.output_files import whole_files
from sciforge.core.files.results import ArrayResult, TableResult
from sciforge.core.files.tables import Section, write_html
from sciforge.core.training import checkpoint
from sciforge.core.training.loop import train
from sciforge.errors import DataError, SciforgeError
from sciforge.genomes.data.genome import Genome

LIMIT = 8192  # bytes that a file may hold where the disk is full
BIG = 5000  # rows, far more than that


def write_metrics(path: Path, tiny: Tiny) -> None:
    path.mkdir()
    log = MetricsLog(path, 10)
    try:
        for step in range(BIG):
            log.write(step, loss=0.5, note="x" * 50)
    finally:
        log.close()


def write_checkpoint(path: Path, tiny: Tiny) -> None:
    opened = tiny.checkpoint
    checkpoint.save(
        path,
        domain="genomes",
        run=opened.run,
        codec=opened.codec,
        model_config=opened.model_config,
        objectives=opened.objectives,
        weights={"w": torch.zeros(BIG)},
        step=1,
        metrics={},
        provenance={},
    )


def write_store(path: Path, tiny: Tiny) -> None:
    fasta = tiny.store.path.parent / "big.fa"
    if not fasta.exists():
        fasta.write_text(">a\n" + "ACGT" * 5000 + "\n")
    prepare(Genome(files=(fasta,)), path)


def write_picture(path: Path, tiny: Tiny) -> None:
    from sciforge.experiments.plots import save_figure

    save_figure(path, lambda ax: ax.plot(np.random.default_rng(0).random(900)))


def write_binary(path: Path, tiny: Tiny) -> None:
    with whole_files(path, binary=True) as (file,):
        np.savez(file, values=np.arange(BIG))


FRAME = pd.DataFrame({"value": np.random.default_rng(0).random(BIG)})
FILES: dict[str, Callable[[Path, Tiny], object]] = {
    "table.csv": lambda path, _: TableResult(FRAME).save(path),
    "arrays.npz": lambda path, _: ArrayResult(["a"], {"x": np.ones((1, BIG))}).save(path),
    "binary.npz": write_binary,
    "report.html": lambda path, _: write_html(path, "t", [Section("s", ("x" * 60_000,))]),
    "figure.png": write_picture,
    "body.json": lambda path, _: replace_json(path, {"text": "x" * 60_000}),
}
FOLDERS: dict[str, Callable[[Path, Tiny], object]] = {
    "checkpoint": write_checkpoint,
    "store": write_store,
    "copy": lambda path, tiny: copy_folder(tiny.checkpoint.path, path),
    "model": lambda path, tiny: sf.load(tiny.checkpoint.path, device="cpu").save(path),
    "run": lambda path, tiny: train(replace(tiny.pretraining, out=path)),
}
WRITERS = {**FILES, **FOLDERS}


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow beyond `LIMIT`, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def refused(write: Callable[[Path, Tiny], object], path: Path, tiny: Tiny, named: Path) -> str:
    """Return the line of the error, which must name a file of the user's."""
    with pytest.raises(SciforgeError) as caught:
        write(path, tiny)
    line = str(caught.value)
    assert "\n" not in line and str(named) in line and TEMPORARY not in line, line
    return line


@pytest.mark.parametrize("name", [*WRITERS, "metrics"])
def test_a_full_disk(name: str, tiny: Tiny, tmp_path: Path):
    write = {**WRITERS, "metrics": write_metrics}[name]
    if name == "store":
        write_store(tmp_path / "first", tiny)  # makes the input
    with full_disk():
        line = refused(write, tmp_path / name, tiny, tmp_path / name)
    assert "larger than the disk" in line or "free on the disk" in line
    assert not list(tmp_path.rglob(f"{TEMPORARY}*"))
    if name not in ("run", "metrics"):  # whole or not at all
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", FILES)
def test_a_full_disk_leaves_the_old_file(name: str, tiny: Tiny, tmp_path: Path):
    (tmp_path / name).write_text("old")
    with full_disk():
        refused(FILES[name], tmp_path / name, tiny, tmp_path / name)
    assert (tmp_path / name).read_text() == "old"


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_where_a_folder_is_needed(name: str, tiny: Tiny, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file" / name, tmp_path / "file" / "deeper" / name):
        line = refused(WRITERS[name], place, tiny, tmp_path / "file")
        assert "a file is where a folder is needed" in line or "File exists" in line, line


@pytest.mark.parametrize("name", WRITERS)
def test_a_name_that_is_too_long(name: str, tiny: Tiny, tmp_path: Path):
    stem, dot, suffix = name.partition(".")
    place = tmp_path / (stem * 90 + dot + suffix)
    assert "oo long" in refused(WRITERS[name], place, tiny, place)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_where_a_file_is_written(name: str, tiny: Tiny, tmp_path: Path):
    (tmp_path / name / "within").mkdir(parents=True)
    assert "is a folder" in refused(FILES[name], tmp_path / name, tiny, tmp_path / name)
    assert (tmp_path / name / "within").is_dir()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", WRITERS)
def test_places_that_may_not_be_written(
    name: str, number: int, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The system refuses whatever is made in the folder, by whichever call."""
    (tmp_path / "closed").mkdir()

    def refusing(call: Callable) -> Callable:
        def refuse(path, *args, **kwargs):
            writes = call is os.mkdir or any(mode in str(args[:1]) for mode in "wax")
            if str(path).startswith(str(tmp_path / "closed")) and writes:
                raise OSError(number, os.strerror(number), str(path))
            return call(path, *args, **kwargs)

        return refuse

    monkeypatch.setattr(os, "mkdir", refusing(os.mkdir))
    monkeypatch.setattr("builtins.open", refusing(open))
    monkeypatch.setattr("io.open", refusing(open))
    line = refused(WRITERS[name], tmp_path / "closed" / name, tiny, tmp_path / "closed" / name)
    full = number in (errno.ENOSPC, errno.EDQUOT)
    assert ("the disk is full" in line) == full
    if not full and name != "run":
        assert "no permission" in line


def test_errors_of_a_copied_folder_name_the_first_file(tmp_path: Path):
    why = f"[Errno {errno.ENOSPC}] No space left on device: 'x'"
    error = shutil.Error([("a/b", str(tmp_path / ".writing-7-c/b"), why)])
    expected = f"{tmp_path}/c/b: the disk is full; free some space and start again"
    assert str(disk_error(error, Path("other"))) == expected
    assert "other" in str(disk_error(shutil.Error("odd"), Path("other")))


def test_a_cache_that_cannot_be_written_costs_time_only(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("SCIFORGE_CACHE", str(tmp_path / "cache"))

    def refuse(*_):
        raise DataError("the disk is full", tmp_path)

    monkeypatch.setattr(atomic, "replace_file", refuse)
    monkeypatch.setattr("sciforge.core.files.verified_files.replace_file", refuse)
    monkeypatch.setattr("sciforge.core.files.verified_files.SETTLED", -1.0)
    assert len(sf.Dataset.open(tiny.store.path).store) == len(tiny.store)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "sciforge", "--help"]
        options = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, **options)
    assert done.returncode == 2
    assert done.stderr == (
        "sciforge: standard output: the disk is full; free some space and start again\n"
    )
