"""Micro-batches, two processes, split models and a resume on another number of processes give
the weights of one process.
"""

import subprocess
import sys

import pytest
from tiny_runs import ROOT, Tiny, largest_difference, load_file

from sciforge.core.training.checkpoint import Checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def differences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float]]:
    return load_file(ROOT / "benchmarks" / "world.py").measure(tmp_path_factory.mktemp("world"))


def test_weights_agree(differences):
    assert len(differences) > 30 and all(
        any(way in name for name in differences) for way in ("FSDP2", "tensor")
    )
    for way in ("2 processes:", "2 processes, FSDP2:", "2 processes, tensor:"):
        assert {
            f"{way} resume, {order}" for order in ("one, then two", "two, then one")
        } <= differences.keys()
    assert {
        name: weights for name, (weights, _) in differences.items() if not weights < 1e-10
    } == {}


def test_development_metrics_agree(differences):
    assert {
        name: metrics for name, (_, metrics) in differences.items() if not metrics < 1e-10
    } == {}


def test_the_command_line_under_torchrun(tiny: Tiny, fit, tmp_path):
    """The README's growth path: the same command, started by torchrun."""
    run = tiny.finetuning
    options = {"steps": 3, "batch": 8, "evaluate_every": 0, "patience": 0}
    alone = fit(run, "alone", schedule=options)
    flags = ["--data", run.data, "--out", tmp_path / "two", "--init", run.init, "--seed", run.seed]
    flags += ["--bins", run.objective.bins, "--no-warm-start"]
    flags += [
        "--schedule.steps",
        3,
        "--schedule.batch",
        8,
        "--schedule.lr",
        run.schedule.lr,
        "--schedule.kind",
        "step",
    ]
    flags += [
        "--hardware.device",
        "cpu",
        "--hardware.precision",
        "float64",
        "--hardware.threads",
        1,
    ]
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
        "-m",
        "sciforge",
    ]
    command = [*launch, "train", "classify", *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    both = Checkpoint.open(tmp_path / "two")
    assert both.provenance["world_size"] == 2
    assert largest_difference(both.weights(), alone.weights()) < 1e-10
