"""What does the shared loop cost over a hand-written one, same model, data and optimiser?

    python benchmarks/loop_overhead.py [--blocks 24] [--steps 6] [--width 128]

`train(Run)` runs as it is. Between its steps it is made to wait while a bare loop (forward,
backward on the mean, clipping, rate, fused AdamW) takes as many steps on the same batches with a
twin of the model; blocks alternate which goes first. Times are of processor time, the preparation
of data among both. Printed: the ratio of the two by block, its median and a 95 % bootstrap
interval. Asked for: at most 1.03.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciforge.core.data.batches import ExampleSource, StepData
from sciforge.core.data.store import Store, prepare
from sciforge.core.domain import seeded_model
from sciforge.core.training import loop
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.genomes.data.codec import KmerCodec
from sciforge.genomes.data.genome import Genome
from sciforge.genomes.model.dna_bert import DnaBertConfig
from sciforge.genomes.objectives.masked_kmers import MaskedKmers


def run_of(folder: Path, steps: int, width: int) -> Run:
    """Return the run: 16 windows of 128 bases a step."""
    bases = "".join(np.random.default_rng(0).choice(list("ACGT"), 60_000))
    (folder / "random.fa").write_text(f">a\n{bases}\n")
    prepare(Genome(files=(folder / "random.fa",)), folder / "store")
    return Run(
        data=folder / "store",
        out=folder / "out",
        model=DnaBertConfig(width=width, depth=4, heads=4, hidden=2 * width),
        codec=KmerCodec(k=3),
        objective=MaskedKmers(length=128),
        schedule=Schedule(steps=steps, batch=16),
        hardware=Hardware(device="cpu", threads=1),
    )


@dataclass
class Bare:
    """A loop as one writes it for a single script."""

    run: Run
    model: Any = None
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = seeded_model(
            self.run.model, self.run.codec, (self.run.objective,), self.run.seed
        ).train()
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]
        schedule = self.run.schedule
        groups = [
            {"params": matrices, "weight_decay": schedule.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=schedule.betas, fused=True)

    def steps(self, data: StepData, steps: range) -> None:
        """Train on the batches of these steps."""
        for step in steps:
            ((batch,),) = data[step]
            for group in self.optimizer.param_groups:
                group["lr"] = self.run.schedule.lr_at(step)
            self.optimizer.zero_grad()
            found = self.run.objective.loss(self.model, batch)
            loss = found.total / found.count
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.run.schedule.clip)
            self.optimizer.step()
            self.losses.append(loss.item())


def measure(run: Run, blocks: int, steps: int) -> tuple[np.ndarray, Bare]:
    """Return seconds [blocks, 2] of the shared loop and of the bare one, and the bare one."""
    bare, found = Bare(run), np.zeros((blocks, 2))
    plain_load = StepData.load

    def timed(function: Any) -> float:
        start = time.process_time()
        function()
        return time.process_time() - start

    def load(data: StepData, wanted: range, workers: int) -> Iterator[tuple[int, Any]]:
        for block in range(blocks):
            part = wanted[block * steps : (block + 1) * steps]
            if block % 2 == 0:
                found[block, 1] = timed(lambda part=part: bare.steps(data, part))
            # from here to the end of the block the time is that of `train`
            start = time.process_time()
            yield from plain_load(data, part, workers)
            found[block, 0] = time.process_time() - start
            if block % 2:
                found[block, 1] = timed(lambda part=part: bare.steps(data, part))

    try:
        StepData.load = load
        loop.train(run)
    finally:
        StepData.load = plain_load
    return found, bare


def control(run: Run, blocks: int, steps: int) -> np.ndarray:
    """Return seconds [blocks, 2] of two bare loops, which tells what the place of weights in
    memory alone does.
    """
    objective = run.objective
    records = objective.examples(Store.open(run.data), "train")
    data = StepData(
        (ExampleSource(objective, records, run.schedule.batch),), run.codec, run.seed, 0, 1, None
    )
    pair, found = (Bare(run), Bare(run)), np.zeros((blocks, 2))
    for block in range(blocks):
        part = range(block * steps, (block + 1) * steps)
        for side in (0, 1) if block % 2 else (1, 0):
            start = time.process_time()
            pair[side].steps(data, part)
            found[block, side] = time.process_time() - start
    return found


def interval(found: np.ndarray) -> str:
    """Return the median ratio of a table's columns and its 95 % bootstrap interval."""
    ratio = found[2:, 0] / found[2:, 1]  # the first blocks warm up
    rng = np.random.default_rng(0)
    low, high = np.quantile(
        [np.median(rng.choice(ratio, len(ratio))) for _ in range(2000)], (0.025, 0.975)
    )
    return f"{np.median(ratio):.3f} (95 % interval of the median {low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--steps", type=int, default=6, help="steps of a block")
    parser.add_argument("--width", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        run = run_of(Path(name), options.blocks * options.steps, options.width)
        found, bare = measure(run, options.blocks, options.steps)
        same = control(run, options.blocks, options.steps)
        lines = (run.out / "metrics.jsonl").read_text().splitlines()
    ours = [float(line.split('"loss": ')[1].split(",")[0]) for line in lines]
    apart = max(abs(a - b) for a, b in zip(ours, bare.losses, strict=True))
    per_step = np.median(found[2:], axis=0) / options.steps * 1e3
    print(
        f"{len(found)} blocks of {options.steps} steps, width {options.width}; losses differ by"
        f" {apart:.1e} at most"
    )
    print(
        f"shared loop {per_step[0]:.2f} ms, bare loop {per_step[1]:.2f} ms a step (processor time,"
        " medians)"
    )
    print(f"shared loop against bare: {interval(found)}; asked for: 1.03 at most")
    print(f"one bare loop against another: {interval(same)}")


if __name__ == "__main__":
    main()
