"""Many processes, little memory, a cluster: what splits a model is the same model, and what
stops a job loses no work.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import ROOT, Tiny, largest_difference, load_file, make_tiny

from sciforge.core.data.store import prepare
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import Run
from sciforge.errors import ConfigError
from sciforge.genomes.data.genome import Genome
from sciforge.nn.transformer import Encoder

WORKER = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from torch import distributed
from sciforge.core.training.distributed import Engine
from sciforge.core.training.set_up import set_up
from sciforge.core.training.loop import train
from sciforge.core.training.run import LoRA, Run, from_json
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.errors import ConfigError

distributed.init_process_group("gloo")
genomes, heat, out = map(Path, sys.argv[1:])
mixed = replace(Checkpoint.open(genomes).run, strategy="tensor")
mixed = replace(mixed, hardware=replace(mixed.hardware, tensor=2))
train(replace(mixed, out=out / "mixed"))
single = replace(mixed, strategy="shard", hardware=replace(mixed.hardware, precision="float32"))
train(replace(single, out=out / "single"))
found = {}
wrong = {
    "heat": replace(Checkpoint.open(heat).run, strategy="tensor"),
    "four": replace(mixed, hardware=replace(mixed.hardware, tensor=None)),
    "three": replace(mixed, hardware=replace(mixed.hardware, tensor=3)),
    "lora": replace(mixed, model=None, init=genomes, finetuning=LoRA(rank=2)),
}
for name, run in wrong.items():
    try:
        train(replace(run, out=out / name))
    except ConfigError as error:
        found[name] = str(error)
with Engine.start(mixed.hardware, "tensor") as engine:
    model = set_up(mixed, engine).model
    parameters = list(model.encoder.blocks.parameters())
    found["held"] = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in parameters)
    found["whole"] = sum(p.numel() for p in parameters)
    found["part"] = engine.part, engine.parts
if distributed.get_rank() == 3:
    (out / "found.json").write_text(json.dumps(found))
distributed.destroy_process_group()
os._exit(0)  # gloo may abort while Python takes itself down
"""


@pytest.fixture(scope="module")
def four(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Train on four processes, two of which hold a model together, and try what cannot be."""
    out = tmp_path_factory.mktemp("four")
    heat = make_tiny("heat", tmp_path_factory.mktemp("heat"))
    (out / "worker.py").write_text(WORKER)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "4",
        "--standalone",
    ]
    arguments = [out / "worker.py", tiny.checkpoint.path, heat.checkpoint.path, out]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
    }
    command = [*launch, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return out, json.loads((out / "found.json").read_text())


def test_two_copies_of_a_model_on_two_processes_each(tiny, four):
    mixed = Checkpoint.open(four[0] / "mixed")
    assert mixed.provenance["world_size"] == 4
    assert largest_difference(mixed.weights(), tiny.checkpoint.weights()) < 1e-10
    assert mixed.metrics == pytest.approx(tiny.checkpoint.metrics, abs=1e-10)


def test_sharding_in_single_precision(tiny, four):
    """In float32 FSDP2 asked gloo for a scaled sum, which it does not have; float64 had hidden
    that.
    """
    assert (
        largest_difference(Checkpoint.open(four[0] / "single").weights(), tiny.checkpoint.weights())
        < 1e-3
    )


def test_a_process_holds_half_of_the_matrices(four):
    found = four[1]
    assert found["part"] == [1, 2] and 0.5 < found["held"] / found["whole"] < 0.52


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("heat", "no blocks with a tensor_plan"),
        ("four", "blocks of 2 equal pieces .* 4 processes"),
        ("three", "hardware.tensor 3 does not divide 4 processes"),
        ("lora", "cannot cut matrices under LoRA"),
    ],
)
def test_what_cannot_be_cut_says_so(four, name, words):
    with pytest.raises(ConfigError, match=words):
        raise ConfigError(four[1][name])
    assert "\n" not in four[1][name]


@pytest.mark.parametrize("strategy", ["shard", "tensor"])
def test_splitting_needs_processes(tiny, fit, strategy):
    with pytest.raises(
        ConfigError, match=f"strategy {strategy} needs processes; start it with torchrun"
    ):
        fit(tiny.pretraining, strategy=strategy)


@pytest.fixture(scope="module")
def cost():
    return load_file(ROOT / "benchmarks" / "cost_model.py")


@pytest.mark.parametrize("domain", ["genomes", "molecules"])
def test_recomputing_saves_memory_and_changes_no_gradient(domain, tmp_path, cost):
    tiny = make_tiny(domain, tmp_path)
    objective, model, codec = (
        tiny.checkpoint.objectives[0],
        tiny.checkpoint.build().train(),
        tiny.checkpoint.codec,
    )
    records = objective.examples(tiny.store, "train")
    batch = cost.first_batch(objective, codec, records, 8)
    bricks = [module for module in model.modules() if hasattr(module, "checkpointing")]
    assert bricks
    found = []
    for on in (False, True):
        for brick in bricks:
            brick.checkpointing = on
        loss, size = cost.saved_by(model, lambda: objective.loss(model, batch).total)
        model.zero_grad()
        loss.backward()
        found.append(
            (size, [None if p.grad is None else p.grad.clone() for p in model.parameters()])
        )
    (full, straight), (kept, recomputed) = found
    assert kept < 0.7 * full
    for a, b in zip(straight, recomputed, strict=True):
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_formula_of_saved_bytes(cost, checkpointing):
    found, predicted = [], []
    for depth in (2, 5):  # the difference is that of blocks; what lies around them is the model's
        encoder = Encoder(width=64, depth=depth, heads=4, hidden=160).train()
        encoder.checkpointing = checkpointing
        x_BLD = torch.randn(4, 32, 64, requires_grad=True)
        found.append(cost.saved_by(encoder, lambda e=encoder, x=x_BLD: e(x).square().sum())[1])
        shape = cost.Shape(64, depth, 4, 160, tokens=128, length=32)
        predicted.append(shape.saved_bytes(checkpointing))
        assert shape.parameters == sum(p.numel() for p in encoder.parameters())
    assert predicted[1] - predicted[0] == pytest.approx(found[1] - found[0], rel=1e-6)


def test_the_model_of_cost_knows_its_limits(cost):
    shape = cost.Shape(64, 5, 4, 160, tokens=4096, length=32)
    machine = cost.Machine(*[1e-11] * 6, link=1e-9, cut_link=1e-9)
    alone = sum(cost.seconds(shape, machine, "replicate", 1).values())
    for way in cost.WAYS:
        parts = cost.seconds(shape, machine, way, 2)
        assert parts["traffic"] > 0 and alone / 2 < sum(parts.values()) < 20 * alone
    assert (
        cost.memory(shape, "shard", 4)
        < cost.memory(shape, "replicate", 4)
        < cost.memory(shape, "replicate", 2)
    )


def test_a_dask_cluster_prepares_the_same_bytes(tmp_path):
    distributed = pytest.importorskip("distributed")
    files = []
    for name in "abc":
        files.append(tmp_path / f"{name}.fa")
        files[-1].write_text(f">{name}\n{'ACGTTGCA' * (40 + len(files))}\n")
    preparer = Genome(files=tuple(files))
    prepare(preparer, tmp_path / "one")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options, silence_logs=50) as cluster:
        address = cluster.scheduler_address.replace("tcp://", "dask://")
        prepare(preparer, tmp_path / "two", executor=address)
    one, two = (
        {f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "two")
    )
    assert one == two and len(one) > 3


SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo localhost; echo elsewhere; else echo "$@" >> "$LOG"; fi
"""
SRUN = """#!/bin/bash
shift
printf '%s\\n' "$@" > "$WORDS"
exec sleep "$NAP"
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a Slurm job whose commands are stand-ins that write down how they were
    called.
    """
    (tmp_path / "bin").mkdir()
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    state = {"ID": "4242", "NODELIST": "localhost,elsewhere", "NUM_NODES": "1"}
    environment = {f"SLURM_JOB_{name}": value for name, value in state.items()}
    environment |= {
        "SLURM_GPUS_ON_NODE": "2",
        "SLURM_CPUS_PER_TASK": "2",
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    return {
        **environment,
        "LOG": str(tmp_path / "log"),
        "WORDS": str(tmp_path / "words"),
        "NAP": "0",
    }


TEMPLATE = ["bash", str(ROOT / "docs" / "slurm" / "train.sbatch")]


@pytest.mark.parametrize("sent", [signal.SIGUSR1, signal.SIGTERM])
def test_the_slurm_template_queues_itself_again(slurm, tmp_path, sent):
    state = subprocess.Popen(
        [*TEMPLATE, "masked"], env={**slurm, "NAP": "60"}, stderr=subprocess.PIPE
    )
    until = time.monotonic() + 30
    while not (tmp_path / "words").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.2)
    state.send_signal(sent)
    said = state.communicate(timeout=30)[1].decode()
    assert state.returncode == 0 and "job 4242 is queued again" in said
    assert (tmp_path / "log").read_text() == "requeue 4242\n"


def test_the_slurm_template_starts_a_run_that_resumes(slurm, tmp_path, tiny: Tiny):
    run: Run = replace(tiny.pretraining, out=tmp_path / "run")
    (tmp_path / "run.json").write_text(json.dumps(tiny.checkpoint.body["run"]))
    words = ["--config", tmp_path / "run.json", "--out", run.out, "--data", run.data]
    subprocess.run([*TEMPLATE, *map(str, words)], env=slurm, check=True)
    command = (tmp_path / "words").read_text().splitlines()
    assert command[0] == "torchrun" and command[-1] == "--resume" and "4242-0" in command
    assert command[command.index("--rdzv-endpoint") + 1] == "localhost:24242"
    assert command[command.index("--nproc-per-node") + 1] == "2"
    launch = [sys.executable, "-m", "torch.distributed.run", *command[1:]]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert largest_difference(Checkpoint.open(run.out).weights(), tiny.checkpoint.weights()) < 1e-10


@pytest.mark.slow
def test_the_slurm_template_of_prepare_makes_the_store_of_one_process(slurm, tmp_path):
    """Its own lines, with a srun that starts the one task of each of two nodes here."""
    pytest.importorskip("distributed")
    if shutil.which("dask") is None:
        pytest.skip("no dask command here")
    programs = {
        "srun": '"$@" & "$@" & wait',
        "sciforge": f'exec "{sys.executable}" -m sciforge "$@"',
    }
    for name, line in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    files = []
    for name in "abc":
        files.append(tmp_path / f"{name}.fa")
        files[-1].write_text(f">{name}\n{'ACGTTGCA' * (40 + len(files))}\n")
    prepare(Genome(files=tuple(files)), tmp_path / "one")
    script = ROOT / "docs" / "slurm" / "prepare.sbatch"
    command = ["bash", script, "genome", *files, "--out", tmp_path / "two"]
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**slurm, "SLURM_CPUS_PER_TASK": "1", "HOSTNAME": "localhost"}
    done = subprocess.run(
        [*map(str, command)],
        env={**os.environ, **environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (
        {f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "two")
    )
    assert one == two and len(one) > 3


@pytest.mark.parametrize("script", sorted((ROOT / "docs" / "slurm").glob("*.sbatch")))
def test_slurm_templates_are_sound_scripts(script: Path):
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    text = script.read_text()
    options = re.findall(r"^#SBATCH --([a-z-]+)", text, re.MULTILINE)
    assert {"job-name", "nodes", "ntasks-per-node", "time", "output"} <= set(options)
    assert text.index("#SBATCH") < text.index("set -euo pipefail")  # Slurm stops at a command
    if shutil.which("shellcheck"):
        checked = subprocess.run(["shellcheck", script], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout
