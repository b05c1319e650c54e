"""Where the arithmetic runs, as far as one process can tell: votes, moves, gradients, devices."""

from dataclasses import replace

import pytest
import torch
from torch import distributed as dist
from torch import nn

from sciforge.core.training import distributed
from sciforge.core.training.distributed import Engine
from sciforge.core.training.run import Hardware
from sciforge.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def group():
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("flag", [True, False])
def test_a_vote_is_taken_on_the_host(group, flag):
    """A vote on the device would wait for it; one on `meta` cannot even be read."""
    assert Engine(torch.device("meta"), "float32", rank=0, world=2).any(flag) is flag
    assert Engine(CPU, "float32").any(flag) is flag


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gradients_that_no_process_has_stay_absent(group):
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)})
    model["used"](torch.ones(1, 2)).sum().backward()
    before = model["used"].weight.grad.clone()
    engine = Engine(CPU, "float32", rank=0, world=2)
    engine.reduce_grads(list(model.parameters()))
    assert torch.equal(model["used"].weight.grad, before) and model["idle"].weight.grad is None
    model.zero_grad()
    engine.reduce_grads(list(model.parameters()))
    assert all(p.grad is None for p in model.parameters())


def test_ranks_parts_and_who_writes():
    first = Engine(CPU, "float32", rank=0, world=6, tensor=2)
    fourth = replace(first, rank=3)
    assert first.main and not fourth.main
    assert (first.parts, first.part, fourth.part) == (3, 0, 1)
    assert not first.splits and replace(first, shard=True).splits
    assert replace(first, mesh="a mesh").splits


def test_a_batch_of_any_shape_is_moved_and_takes_the_precision():
    class Graph:
        x = torch.ones(2)

        def apply(self, function):
            self.x = function(self.x)
            return self

    class Own:
        def to(self, device):
            return device

    engine = Engine(CPU, "float64")
    moved = engine.move({"x": torch.ones(2), "n": torch.ones(2, dtype=torch.int32), "name": "a"})
    assert moved["x"].dtype == torch.float64 and moved["n"].dtype == torch.int32
    assert moved["name"] == "a" and engine.move(Own()) == CPU
    graph = Graph()
    assert engine.move(graph) is graph and graph.x.dtype == torch.float64


def test_each_process_takes_its_own_gpu_before_the_processes_meet(monkeypatch):
    taken = []

    def join(device, timeout):
        taken.append(timeout)
        raise InterruptedError

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "choose_device", lambda name: torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(distributed, "_join", join)
    with pytest.raises(InterruptedError), Engine.start(Hardware(timeout=77)):
        pass
    assert taken == [torch.device("cuda", 1), 77]
    monkeypatch.setenv("WORLD_SIZE", "1")
    with Engine.start(Hardware()) as engine:
        assert engine.precision == "bfloat16" and engine.world == 1 and len(taken) == 2


def test_a_strategy_of_several_processes_needs_them():
    with (
        pytest.raises(ConfigError, match="strategy shard needs processes; start it with torchrun"),
        Engine.start(Hardware(device="cpu"), "shard"),
    ):
        pass
    with Engine.start(Hardware(device="cpu", precision="float64")) as engine:
        assert engine == Engine(CPU, "float64")


def test_no_memory_is_one_line_with_a_remedy_and_other_errors_stay():
    engine = Engine(CPU, "float32")
    for error in (torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory: 1 TB")):
        with pytest.raises(ConfigError, match="with 9 examples at once; set .*micro_batch 4 or"):
            with engine.enough_memory(9):
                raise error
    with pytest.raises(ConfigError, match="micro_batch 1 or"), engine.enough_memory(1):
        raise torch.OutOfMemoryError
    with pytest.raises(RuntimeError, match="shapes"), engine.enough_memory(9):
        raise RuntimeError("shapes differ")
