"""What every adapter shares: it runs a task with one model, in that model's own interpreter (numpy
and torch suffice).

An adapter is a script `peer_<name>.py` with a subclass of `Peer`, ending in `main(ThatPeer)`;
README.md has the task and result format. Units: angstrom, eV, eV/angstrom. Legend: N atoms, B
frames, 3 x y z.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

READY, ANSWER = "@@ready", "@@answer "
WARM_UP = 4  # TorchScript profiles its first calls


@dataclass(frozen=True)
class Frame:
    """Atoms with their labels; the energy as float64, since its mean is subtracted before it
    becomes float32.
    """

    numbers_N: np.ndarray
    pos_N3: np.ndarray
    forces_N3: np.ndarray
    energy: float
    cell_33: np.ndarray
    pbc_3: np.ndarray


@dataclass(frozen=True)
class Statistics:
    """What a peer may know of its training frames."""

    elements: list[int]
    force_rms: float
    energy_std: float
    neighbours: float


class Peer:
    """One model: how it is built, how frames become its input, how it answers.

    Args of __init__: cutoff in angstrom and the statistics of the training frames. Energies that it
    learns have the mean of the training frames subtracted, so it needs no reference energies.
    """

    label = ""
    package = ""
    lr = 1e-3
    model: torch.nn.Module

    def __init__(self, cutoff: float, statistics: Statistics):
        raise NotImplementedError

    def graph(self, frame: Frame):
        """Whatever may be prepared of one frame before training (off the clock)."""
        raise NotImplementedError

    def batch(self, graphs: list):
        """Graphs of several frames as the model's input (off the clock)."""
        raise NotImplementedError

    def energy_forces(self, batch, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Energies [B] and forces [N, 3], differentiable towards the weights when training."""
        raise NotImplementedError


def read_frames(path: str) -> list[Frame]:
    with np.load(path) as stored:
        ends = np.cumsum(stored["counts"])[:-1]
        parts = [np.split(stored[key], ends) for key in ("numbers", "positions", "forces")]
        whole = [stored[key] for key in ("energy", "cell", "pbc")]
    return [
        Frame(numbers, pos, forces, float(energy), cell, pbc)
        for numbers, pos, forces, energy, cell, pbc in zip(*parts, *whole, strict=True)
    ]


def mean_neighbours(frames: list[Frame], cutoff: float) -> float:
    """Neighbours of an atom within the cutoff, averaged over molecules (no cell)."""
    pairs = sum((_distances(frame.pos_N3) < cutoff).sum() - len(frame.pos_N3) for frame in frames)
    return float(pairs / sum(len(frame.pos_N3) for frame in frames))


def _distances(pos_N3: np.ndarray) -> np.ndarray:
    return np.linalg.norm(pos_N3[:, None] - pos_N3[None], axis=-1)


def statistics_of(frames: list[Frame], cutoff: float) -> Statistics:
    forces = np.concatenate([frame.forces_N3 for frame in frames])
    elements = sorted({int(number) for frame in frames for number in frame.numbers_N})
    spread = float(np.std([frame.energy for frame in frames]))
    return Statistics(
        elements, float(np.sqrt((forces**2).mean())), spread, mean_neighbours(frames, cutoff)
    )


@dataclass(frozen=True)
class Labels:
    """Energies [B] less the reference, forces [N, 3]."""

    energy: torch.Tensor
    forces: torch.Tensor

    @classmethod
    def of(cls, frames: list[Frame], reference: float) -> "Labels":
        energies = np.array([frame.energy - reference for frame in frames])
        forces = np.concatenate([frame.forces_N3 for frame in frames])
        return cls(
            torch.tensor(energies, dtype=torch.float32), torch.tensor(forces, dtype=torch.float32)
        )


def loss_of(energy: torch.Tensor, forces: torch.Tensor, labels: Labels, task: dict) -> torch.Tensor:
    by_energy = (energy - labels.energy).square().mean()
    by_force = (forces - labels.forces).square().mean()
    return task["energy_weight"] * by_energy + task["force_weight"] * by_force


def weights_of(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def parameter_count(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in weights_of(model))


class Speed:
    """Training step, inference and water box of one peer, one repeat at a time, in CPU ms.

    Inference has a model of its own with frozen weights, as in a simulation.
    """

    def __init__(self, kind: type[Peer], task: dict):
        self.task = task
        self.frames = read_frames(task["train_frames"])
        self.box = read_frames(task["box"])
        statistics = statistics_of(self.frames, task["cutoff"])
        self.learner, self.server = (
            kind(task["cutoff"], statistics),
            kind(task["cutoff"], statistics),
        )
        self.parameters = parameter_count(self.learner.model)
        self.learner.model.train()
        self.server.model.eval().requires_grad_(False)
        self.optimiser = torch.optim.Adam(weights_of(self.learner.model), lr=1e-5)
        self.labels = Labels.of(
            self.frames, float(np.mean([frame.energy for frame in self.frames]))
        )
        self.input = self.learner.batch([self.learner.graph(frame) for frame in self.frames])
        self.parts = {
            "train_step": self.train_step,
            "inference": self.batch_inference(self.frames),
            "box_inference": self.batch_inference(self.box),
            "graphs": self.make_graphs,
        }

    def train_step(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        energy, forces = self.learner.energy_forces(self.input, training=True)
        loss_of(energy, forces, self.labels, self.task).backward()
        self.optimiser.step()

    def batch_inference(self, frames: list[Frame]):
        batch = self.server.batch([self.server.graph(frame) for frame in frames])
        return lambda: self.server.energy_forces(batch, training=False)

    def make_graphs(self) -> None:
        self.learner.batch([self.learner.graph(frame) for frame in self.frames])

    def repeat(self) -> dict[str, float]:
        """CPU ms of each part, once."""
        return {name: _cpu_ms(part) for name, part in self.parts.items()}

    def run(self) -> dict:
        """One repeat for each line on stdin, so that the driver can alternate between peers."""
        for _ in range(WARM_UP):
            self.repeat()
        print(READY, flush=True)
        repeats = []
        for _ in sys.stdin:
            repeats.append(self.repeat())
            print(ANSWER + json.dumps(repeats[-1]), flush=True)
        return {"parameters": self.parameters, "repeats": repeats}


def _cpu_ms(part) -> float:
    start = time.process_time()
    part()
    return 1000 * (time.process_time() - start)


class Average:
    """Exponential moving average of weights, its decay ramped up at the start."""

    def __init__(self, model: torch.nn.Module, decay: float):
        self.weights = weights_of(model)
        self.mean = [weight.detach().clone() for weight in self.weights]
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.mean, self.weights, 1 - decay)

    @torch.no_grad()
    def load(self) -> None:
        for weight, mean in zip(self.weights, self.mean, strict=True):
            weight.copy_(mean)


class Race:
    """Training on a budget of CPU seconds, then errors on frames held out."""

    def __init__(self, kind: type[Peer], task: dict):
        self.task = task
        self.frames, self.test = read_frames(task["train_frames"]), read_frames(task["test_frames"])
        self.reference = float(np.mean([frame.energy for frame in self.frames]))
        self.peer = kind(task["cutoff"], statistics_of(self.frames, task["cutoff"]))
        self.model = self.peer.model.train()
        self.lr = task.get("lr") or kind.lr
        self.optimiser = torch.optim.AdamW(
            weights_of(self.model), lr=self.lr, weight_decay=0.0, amsgrad=True
        )
        self.average = Average(self.model, task["ema"])
        self.graphs = [self.peer.graph(frame) for frame in self.frames]
        self.rng = np.random.default_rng(task["seed"])

    def batches(self):
        """Without end: (input, labels), each epoch in a new order, the last incomplete batch
        dropped.
        """
        size = self.task["batch"]
        while True:
            order = self.rng.permutation(len(self.frames))
            for start in range(0, len(order) - size + 1, size):
                yield self.made(order[start : start + size])

    def made(self, chosen: np.ndarray):
        labels = Labels.of([self.frames[i] for i in chosen], self.reference)
        return self.peer.batch([self.graphs[i] for i in chosen]), labels

    def gradients(self, batch, labels: Labels) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        energy, forces = self.peer.energy_forces(batch, training=True)
        loss_of(energy, forces, labels, self.task).backward()

    def step(self, batch, labels: Labels, progress: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = 0.5 * self.lr * (1 + math.cos(math.pi * progress))
        self.gradients(batch, labels)
        torch.nn.utils.clip_grad_norm_(weights_of(self.model), self.task["clip"])
        self.optimiser.step()
        self.average.update()

    def train(self) -> tuple[int, float]:
        """Steps and CPU seconds used; warm-up computes gradients alone, off the clock."""
        batches, budget, used, steps = self.batches(), self.task["budget"], 0.0, 0
        for _ in range(WARM_UP):
            self.gradients(*next(batches))
        while used < budget:
            batch, labels = next(batches)
            start = time.process_time()
            self.step(batch, labels, used / budget)
            used += time.process_time() - start
            steps += 1
        return steps, used

    def errors(self) -> dict[str, float]:
        """Mean absolute errors of the averaged weights, in meV and meV/angstrom."""
        self.average.load()
        self.model.eval()
        by_energy, by_force = [], []
        for start in range(0, len(self.test), 50):
            frames = self.test[start : start + 50]
            labels = Labels.of(frames, self.reference)
            batch = self.peer.batch([self.peer.graph(frame) for frame in frames])
            energy, forces = self.peer.energy_forces(batch, training=False)
            by_energy.append((energy.detach() - labels.energy).abs())
            by_force.append((forces.detach() - labels.forces).abs().flatten())
        means = [1000 * torch.cat(errors).mean().item() for errors in (by_force, by_energy)]
        return {"force_mae_meV_A": means[0], "energy_mae_meV": means[1]}

    def run(self) -> dict:
        parameters = parameter_count(self.model)
        start = time.perf_counter()
        steps, used = self.train()
        wall = time.perf_counter() - start
        found = {
            "parameters": parameters,
            "steps": steps,
            "cpu_s": used,
            "wall_s": wall,
            "lr": self.lr,
        }
        return found | self.errors()


def main(kind: type[Peer]) -> None:
    """Read a task, run it, write its result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", type=Path)
    parser.add_argument("result", type=Path)
    args = parser.parse_args()
    task = json.loads(args.task.read_text())
    torch.set_num_threads(task["threads"])
    torch.manual_seed(task["seed"])
    np.random.seed(task["seed"])
    result = (Speed if task["task"] == "speed" else Race)(kind, task).run()
    about = {
        "label": kind.label,
        "package": f"{kind.package} {version(kind.package)}",
        "torch": torch.__version__,
    }
    args.result.write_text(json.dumps(about | result, indent=1))
