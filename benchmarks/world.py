"""Do micro-batches, two processes, FSDP2, tensor parallelism and a resume on another number of
processes give the weights of one process?

    python benchmarks/world.py

Trains tiny genome and molecule runs in float64 with AdamW, six steps each, in one process and under
torchrun with two (gloo), and prints the largest difference of any weight and of any figure: every
step's loss, and development. AdamW's eps (1e-8) keeps rounding where gradients are almost 0 from
growing: the update is at most rate * 1e-17 / 1e-8.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sciforge.core.files.metrics_log import read_metrics
from sciforge.core.training import loop
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import EWC, L2SP, Freeze, LoRA, Replay, Run

TESTS = Path(__file__).parents[1] / "tests"
LABELS = {"shard": "FSDP2", "tensor": "tensor"}  # names of cases begin with the strategy
CUT = 4  # step at which the runs to resume are stopped


def tiny_runs(domain: str, folder: Path, build: bool) -> tuple[Run, Run]:
    """Return the domain's tiny pretraining and fine-tuning runs."""
    spec = importlib.util.spec_from_file_location("contract", TESTS / domain / "contract.py")
    contract = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(contract)
    if not build:
        contract.prepare = lambda preparer, out, **options: None  # the first process has done so
    (folder / domain).mkdir(exist_ok=True)
    return contract.tiny(folder / domain)[1:]


def cases(folder: Path, build: bool = False) -> dict[str, Run]:
    """Return the runs to repeat, by name; those named `shard` or `tensor` split the model over
    two processes.
    """
    pretraining, finetuning = tiny_runs("genomes", folder, build)
    molecules, properties = tiny_runs("molecules", folder, build)
    # the last weights, not the best
    saved = {"schedule": replace(finetuning.schedule, save_every=2, patience=0)}
    side_tasks = replace(pretraining.objective, frame_weight=1.0, pair_weight=0.1)
    replay = Replay(pretraining.data, 0.25)
    proximal = EWC(10.0, data=pretraining.data, examples=1, step="proximal")
    averaged = replace(pretraining.schedule, ema_decay=0.5, save_every=2)
    pieces = replace(finetuning.hardware, micro_batch=2, checkpointing=True)
    return {
        "masked": pretraining,
        "masked, side tasks": replace(pretraining, objective=side_tasks),
        "classify": finetuning,
        "replay + L2-SP": replace(finetuning, replay=replay, regularization=L2SP(0.5)),
        "EWC, proximal": replace(finetuning, regularization=proximal),
        "LoRA + replay": replace(finetuning, replay=replay, finetuning=LoRA(rank=2)),
        "odd batch": replace(
            finetuning, schedule=replace(finetuning.schedule, batch=5), replay=replay
        ),
        "resume": replace(finetuning, **saved),
        "molecules": molecules,
        "shard masked": pretraining,
        "shard masked, side tasks": replace(pretraining, objective=side_tasks),
        "shard classify": finetuning,
        "shard replay + L2-SP": replace(
            finetuning, replay=Replay(pretraining.data, 0.5), regularization=L2SP(0.5)
        ),
        "shard EWC": replace(finetuning, regularization=proximal),
        "shard classify, micro-batches": replace(
            finetuning, hardware=replace(finetuning.hardware, micro_batch=2)
        ),
        "shard resume": replace(finetuning, **saved),
        "tensor masked, 40 steps": replace(
            pretraining, schedule=replace(pretraining.schedule, steps=40)
        ),
        "tensor classify, micro-batches, checkpointing": replace(finetuning, hardware=pieces),
        "tensor replay + L2-SP": replace(finetuning, replay=replay, regularization=L2SP(0.5)),
        "tensor EWC": replace(finetuning, regularization=proximal),
        "tensor heads only": replace(finetuning, finetuning=Freeze()),
        "tensor resume": replace(finetuning, **saved),
        "tensor averaged, resume": replace(pretraining, schedule=averaged),
        "tensor molecules, 40 steps": replace(
            molecules, schedule=replace(molecules.schedule, steps=40)
        ),
        "tensor molecules, properties": replace(
            properties, schedule=replace(properties.schedule, clip=0.1)
        ),
    }


def train_case(name: str, run: Run, out: Path, world: int, cut: bool = False) -> None:
    """Train one case; with `cut` stop before step CUT, as a kill would."""
    take_step = loop.take_step

    def stopping(state: Any, step: int, batches: Any) -> dict[str, float]:
        if step == CUT:
            raise KeyboardInterrupt
        return take_step(state, step, batches)

    strategy = name.split()[0] if name.split()[0] in LABELS and world > 1 else "replicate"
    try:
        loop.take_step = stopping if cut else take_step
        with suppress(KeyboardInterrupt) if cut else nullcontext():
            loop.train(replace(run, out=out, strategy=strategy), resume=out.exists())
    finally:
        loop.take_step = take_step


def worker(folder: Path) -> None:
    """Train every case as one of the processes of torchrun."""
    from torch import distributed

    distributed.init_process_group("gloo")
    for name, run in cases(folder).items():
        train_case(name, run, folder / "two" / name, 2)
        if "resume" in name:
            train_case(name, run, folder / "one, then two" / name, 2)
            train_case(name, run, folder / "two, then one" / name, 2, cut=True)
    distributed.destroy_process_group()


def difference(a: Path, b: Path) -> tuple[float, float]:
    """Return the largest difference of any weight and of any development figure or step's loss
    of two runs.
    """
    first, second = Checkpoint.open(a), Checkpoint.open(b)
    ours, theirs = first.weights(), second.weights()
    assert ours.keys() == theirs.keys() and first.metrics.keys() == second.metrics.keys()
    weights = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    metrics = [
        abs(value - second.metrics[name])
        for name, value in first.metrics.items()
        if isinstance(value, float)
    ]
    losses = [
        [line["loss"] for line in read_metrics(f / "metrics.jsonl") if "loss" in line]
        for f in (a, b)
    ]
    assert len(losses[0]) == len(losses[1])
    return weights, max(*metrics, *(abs(x - y) for x, y in zip(*losses, strict=True)))


def measure(folder: Path) -> dict[str, tuple[float, float]]:
    """Train everything and return case -> (difference of weights, of metrics)."""
    torch.set_num_threads(1)
    runs = cases(folder, build=True)
    for parent in (runs["masked"], runs["molecules"]):  # of all fine-tuning
        loop.train(parent)
    found = {}
    for name, run in runs.items():
        train_case(name, run, folder / "one" / name, 1)
        if "resume" in name:
            train_case(name, run, folder / "one, then two" / name, 1, cut=True)
    for name in ("masked", "masked, side tasks", "classify", "replay + L2-SP"):
        pieces = replace(runs[name], hardware=replace(runs[name].hardware, micro_batch=3))
        train_case(name, pieces, folder / "micro" / name, 1)
        found[f"micro-batches of 3: {name}"] = difference(
            folder / "one" / name, folder / "micro" / name
        )
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
        "--no-python",
    ]
    launch += [sys.executable, __file__, "--worker", str(folder)]
    # also where not installed
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(launch, capture_output=True, text=True, timeout=600, env=environment)
    if done.returncode:
        ours = [line for line in done.stderr.splitlines() if line.startswith("[rank")]
        raise RuntimeError("\n".join(ours)[-6000:] or done.stderr[-6000:])
    for name, run in runs.items():
        kind, _, rest = name.partition(" ")
        label = f"2 processes, {LABELS[kind]}: {rest}" if kind in LABELS else f"2 processes: {name}"
        found[label] = difference(folder / "one" / name, folder / "two" / name)
        if "resume" in name:
            train_case(name, run, folder / "two, then one" / name, 1)
            for way in ("one, then two", "two, then one"):
                found[f"{label}, {way}"] = difference(folder / "one" / name, folder / way / name)
    return found


def main() -> None:
    """Print the table, or JSON with --json."""
    if "--worker" in sys.argv:
        return worker(Path(sys.argv[-1]))
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    if "--json" in sys.argv:
        print(json.dumps(found))
        return None
    print(f"{'against one process':<74}{'weights':>10}{'metrics':>10}")
    for name, (weights, metrics) in found.items():
        print(f"{name:<74}{weights:>10.1e}{metrics:>10.1e}")
    return None


if __name__ == "__main__":
    main()
