"""Fixtures for all tests: a tiny pretrained checkpoint and the runs around it."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tiny_runs import Tiny, make_tiny

from sciforge.core.training import loop
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.loop import train
from sciforge.core.training.run import Run

torch.set_num_threads(1)
collect_ignore_glob = [
    "*/contract.py",
    "*/parsers.py",
    "golden/*.py",
    "stories/*.py",
]  # same names in several folders; no tests in them


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the processes of `-n auto`: several for the whole suite, none for files that are
    named.
    """
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return max(2, min(os.cpu_count() or 1, 8)) if whole else 0


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name compressed bytes by their kind: they hold the time, and all workers must collect the
    same names.
    """
    return "gzip" if isinstance(val, bytes) and val[:2] == b"\x1f\x8b" else None


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny genome runs, for tests of the core that need any domain at all."""
    return make_tiny("genomes", tmp_path_factory.mktemp("genomes"))


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Train a changed copy of a run in a folder of its own; `schedule` and `hardware` take dicts
    of changes.
    """

    def run_it(run: Run, name: str = "run", resume: bool = False, **changes) -> Checkpoint:
        for part in ("schedule", "hardware"):
            if isinstance(changes.get(part), dict):
                changes[part] = replace(getattr(run, part), **changes[part])
        return train(replace(run, out=tmp_path / name, **changes), resume=resume)

    return run_it


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager]:
    """Stop training by Ctrl-C before a step; what is inside must train so far."""

    @contextmanager
    def stopping(at: int) -> Iterator[None]:
        def stop(state, step, batches):
            if step == at:
                raise KeyboardInterrupt
            return take_step(state, step, batches)

        take_step = loop.take_step
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(loop, "take_step", stop)
            yield

    return stopping


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], list[Run]]:
    """Note the runs that a module hands to `train`."""

    def note(module: ModuleType) -> list[Run]:
        def noting(run, *args, **kwargs):
            runs.append(run)
            return original(run, *args, **kwargs)

        runs, original = [], module.train
        monkeypatch.setattr(module, "train", noting)
        return runs

    return note
