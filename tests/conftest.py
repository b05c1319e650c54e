"""Fixtures for all tests: a tiny pretrained checkpoint and the runs around it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import Tiny, make_tiny

from sciforge.core.checkpoint import Checkpoint
from sciforge.core.loop import train
from sciforge.core.run import Run

torch.set_num_threads(1)
collect_ignore_glob = [
    "*/contract.py",
    "*/parsers.py",
    "golden/*.py",
]  # same names in several folders; no tests in them


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny genome runs, for tests of the core that need any domain at all."""
    return make_tiny("genomes", tmp_path_factory.mktemp("genomes"))


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Train a changed copy of a run in a folder of its own; `schedule` and `hardware` take dicts of changes."""

    def run_it(run: Run, name: str = "run", resume: bool = False, **changes) -> Checkpoint:
        for part in ("schedule", "hardware"):
            if isinstance(changes.get(part), dict):
                changes[part] = replace(getattr(run, part), **changes[part])
        return train(replace(run, out=tmp_path / name, **changes), resume=resume)

    return run_it
