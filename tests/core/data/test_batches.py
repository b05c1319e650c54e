"""Batches for a GPU: pinned, prepared ahead, and the same as for a CPU; how many processes
prepare them.
"""

import os
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from pretend_cuda import pretend_cuda

from sciforge.core.data.batches import AHEAD, LONG_RUN, StepData, default_workers
from sciforge.errors import DataError

CUDA = torch.device("cuda", 0)


class Steps(StepData):
    """A step's batch is its number; notes which were made, and by which thread."""

    def __init__(self, broken: int = -1):
        object.__setattr__(self, "broken", broken)
        object.__setattr__(self, "made", [])

    def __getitem__(self, step: int) -> list:
        if step == self.broken:
            raise DataError(f"step {step} is broken")
        self.made.append((step, threading.current_thread().name))
        return [[{"x": torch.tensor([step]), "nested": {"y": torch.ones(2)}, "name": "text"}]]


def test_a_gpu_gets_pinned_batches_in_order_and_ahead():
    data = Steps()
    with pretend_cuda():
        batches = data.load(range(3, 20), 0, CUDA)
        for wanted in range(3, 8):
            step, [[batch]] = next(batches)
            assert step == wanted and batch["x"].tolist() == [step] and batch["name"] == "text"
            assert batch["x"].is_pinned() and batch["nested"]["y"].is_pinned()
        batches.close()
    steps = [step for step, _ in data.made]
    assert steps == list(range(3, 3 + len(steps))) and 5 <= len(steps) <= 5 + AHEAD + 1
    assert all(name != threading.main_thread().name for _, name in data.made)
    assert not [t for t in threading.enumerate() if t.name.startswith("sciforge-batches")]


def test_a_cpu_gets_them_one_by_one():
    data = Steps()
    batches = data.load(range(5), None)
    next(batches)
    assert data.made == [(0, threading.main_thread().name)]


@pytest.mark.parametrize("broken", [0, 4])
def test_an_error_arrives_at_its_step(broken: int):
    with pretend_cuda(), pytest.raises(DataError, match=f"step {broken} is broken"):
        for expected, (step, _) in enumerate(Steps(broken).load(range(9), 0, CUDA)):
            assert step == expected < broken


def test_all_steps_come_and_no_more():
    with pretend_cuda():
        assert [step for step, _ in Steps().load(range(7), 0, CUDA)] == list(range(7))
        assert list(Steps().load(range(0), 0, CUDA)) == []


def test_how_many_processes_prepare(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    # a script of the user's: no process may import it again
    assert default_workers(CUDA, LONG_RUN) == 0
    for program in ("/usr/bin/sciforge", "/lib/python/sciforge/__main__.py"):
        monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=program))
        assert default_workers(CUDA, LONG_RUN) == 4
        assert default_workers(CUDA, LONG_RUN - 1) == 0
        assert default_workers(torch.device("cpu"), LONG_RUN) == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert default_workers(CUDA, LONG_RUN) == 3
