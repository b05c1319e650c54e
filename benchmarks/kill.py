"""Kill -9 (or stop by SIGTERM) a training run at random moments, resume it, and compare with a run
that was never stopped.

    python benchmarks/kill.py --kills 50
    python benchmarks/kill.py --kills 50 --signal TERM --save-every 0

Each kill hits a forked process that trains a tiny genome run and saves at every step. After each
kill every checkpoint in the folder is opened (digests checked); after each next start stale
temporaries are counted; once a run has finished, its weights are compared byte for byte, its
metrics but for their timing and the next run begins.
"""

import argparse
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from sciforge.core.files.atomic import TEMPORARY
from sciforge.core.files.metrics_log import read_metrics
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.loop import train
from sciforge.core.training.run import Run
from sciforge.errors import SciforgeError, StoppedError

CONTRACT = Path(__file__).parents[1] / "tests" / "genomes" / "contract.py"


def tiny_run(folder: Path, steps: int, save_every: int = 1) -> Run:
    """Return a run that saves every so many steps."""
    spec = importlib.util.spec_from_file_location("contract", CONTRACT)
    contract = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(contract)
    run = contract.tiny(folder)[1]
    return replace(
        run,
        schedule=replace(
            run.schedule, steps=steps, save_every=save_every, evaluate_every=4, patience=100
        ),
    )


def start(run: Run) -> int:
    """Fork a process that trains; returns its id. A fork saves the seconds that importing torch
    would take.
    """
    sys.stdout.flush()
    if child := os.fork():
        return child
    try:
        train(run, resume=True)
        os._exit(0)
    except StoppedError:
        os._exit(75)
    except BaseException as error:
        print(f"child: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def logged_steps(out: Path) -> int:
    """Return how many steps the metrics tell of."""
    lines = (
        (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        if (out / "metrics.jsonl").exists()
        else []
    )
    return max((json.loads(line)["step"] + 1 for line in lines if line.endswith(b"\n")), default=0)


def inspect(out: Path, seen: Counter) -> None:
    """Open every checkpoint that a kill left."""
    for folder in [*out.glob("step-*"), *out.glob("final")]:
        if (folder / "checkpoint.json").exists():
            seen["checkpoints opened"] += 1
            try:
                Checkpoint.open(folder)
            except SciforgeError as error:
                seen["unreadable checkpoints"] += 1
                print(error, file=sys.stderr)
    seen["temporaries left by kills"] += len(list(out.glob(f"{TEMPORARY}*")))


def measure(
    folder: Path,
    kills: int,
    steps: int = 12,
    seed: int = 0,
    sent: int = signal.SIGKILL,
    save_every: int = 1,
) -> Counter:
    """Stop and resume until `kills` signals have hit; return the counts."""
    torch.set_num_threads(1)
    run = tiny_run(folder, steps, save_every)
    began = time.monotonic()
    whole = train(replace(run, out=folder / "whole"))
    wanted, lines = (
        (whole.path / "model.safetensors").read_bytes(),
        read_metrics(folder / "whole/metrics.jsonl"),
    )
    span = time.monotonic() - began
    seen, chance, number = (
        Counter({"kills": 0, "unreadable checkpoints": 0, "stale after the next start": 0}),
        random.Random(seed),
        0,
    )
    while seen["kills"] < kills or not seen["runs finished"]:
        out = folder / f"run-{number}"
        child = start(replace(run, out=out))
        deadline = time.monotonic() + (
            chance.uniform(0, 0.6) * span if seen["kills"] < kills else 60
        )
        while time.monotonic() < deadline and not (done := os.waitpid(child, os.WNOHANG))[0]:
            time.sleep(0.0005)
        if not done[0]:
            before = logged_steps(out)
            os.kill(child, sent)
            done = os.waitpid(child, 0)
            if os.WIFSIGNALED(done[1]) or os.WEXITSTATUS(done[1]) == 75:
                seen["kills"] += 1
                inspect(out, seen)
                if os.WIFEXITED(done[1]):
                    saved = any(out.glob("*/checkpoint.json"))
                    seen[f"stopped {'with a checkpoint' if saved else 'before a step'}"] += 1
                    seen["steps lost"] += logged_steps(out) - (
                        Checkpoint.open(out).step if saved else 0
                    )
                    seen["steps after the signal, at most"] = max(
                        seen["steps after the signal, at most"], logged_steps(out) - before
                    )
                continue
        seen["runs finished"] += 1
        seen["runs that failed"] += done[1] != 0
        same = done[1] == 0 and (out / "final/model.safetensors").read_bytes() == wanted
        seen["runs with other weights"] += not same
        seen["runs with other metrics"] += read_metrics(out / "metrics.jsonl") != lines
        seen["stale after the next start"] += len(list(out.glob(f"{TEMPORARY}*")))
        shutil.rmtree(out)
        number += 1
    return seen


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM", "USR1"), default="KILL")
    parser.add_argument("--save-every", type=int, default=1)
    options = parser.parse_args()
    changes = {
        "seed": options.seed,
        "sent": getattr(signal, f"SIG{options.signal}"),
        "save_every": options.save_every,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, count in measure(Path(folder), options.kills, **changes).items():
            print(f"{name:<32}{count:>6}")


if __name__ == "__main__":
    main()
