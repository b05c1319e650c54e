"""What does a step of molecular dynamics cost beyond the model, and how do time and memory grow
with the atoms?

    PYTHONPATH=. python benchmarks/md_cost.py [--checkpoint folder] [--model mini] [--atoms 102 192
    1029 3000 10125]

Part 1: a periodic box of 64 water molecules, 300 K, NVE, time step 0.5 fs. The model alone on the
very batches of the run against the whole step (integrator, calculator, neighbour list where it was
made anew), in processor time of one thread; with the pairs of the skin left in the batch as well,
to see what leaving them out saves. Part 2: one process a size: processor time of a step that keeps
its list and of one that makes it anew, and the growth of peak memory. Without a checkpoint the
weights are random, scaled down so that the water stays water for a while.

Prediction before the first run: a skin of 1 angstrom on 5 has 1.73 times the pairs, so leaving them
out should save a third of the model's time for a filter over 17,000 pairs, 1 ms or less; a list
lasts some 20 steps.

What came: leaving them out saves a fifth to a quarter, since the matrix products on nodes do not
shrink; the filter takes 1 ms; a list lasts 18 steps. Time an atom is not flat: 1.6 times more at
3,000 atoms than at 192. Half of that step is page faults (the allocator hands large tensors back
and fetches them again): with MALLOC_MMAP_THRESHOLD_=100000000000 and
MALLOC_TRIM_THRESHOLD_=100000000000 in the environment it took 0.87 s in place of 1.78.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

from sciforge.atoms import MODELS, AtomsCodec, EnergyForces
from sciforge.atoms.inference.calculator import Calculator
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.model import Model
from sciforge.structures.velocities import draw_momenta

DENSITY = 0.997 * 0.602214 / 18.015  # molecules per cubic angstrom


def water_box(molecules: int) -> Atoms:
    """Water molecules at random orientations on a grid that fills a cube, of the density of
    water.
    """
    random = np.random.default_rng(0)
    side = (molecules / DENSITY) ** (1 / 3)
    per_side = int(np.ceil(molecules ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(per_side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    chosen = np.sort(random.permutation(len(grid))[:molecules])
    half = np.radians(104.52) / 2
    bonds = 0.9572 * np.array(
        [[0, 0, 0], [np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]]
    )
    turns = np.linalg.qr(random.standard_normal((molecules, 3, 3)))[0]
    pos = ((grid[chosen] + 0.5) * side / per_side)[:, None] + bonds @ turns
    return Atoms("OHH" * molecules, positions=pos.reshape(-1, 3), cell=[side] * 3, pbc=True)


def predictor_of(checkpoint: Path | None, size: str) -> Model:
    """A checkpoint's predictor, or one with random weights of a size."""
    if checkpoint:
        return Model.load(checkpoint, "cpu")
    codec = AtomsCodec(neighbours=50.0, force_eV_A=0.05, elements=(1, 8))
    torch.manual_seed(0)
    model = MODELS[size].build(codec).eval()
    body = {"domain": "atoms"}
    opened = Checkpoint(Path("random"), body)
    opened.__dict__.update(
        codec=codec, objectives=(EnergyForces(),), model_config=replace(MODELS[size])
    )
    return Model(opened, model, torch.device("cpu"))


class Timed(Calculator):
    """A calculator that adds up the time inside the model and inside the neighbour list."""

    prune = True

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.model_s = self.list_s = self.table_s = 0.0
        update, table = self.pairs.update, self.pairs.table

        def timed_update(*inner):
            start = time.process_time()
            update(*inner)
            self.list_s += time.process_time() - start

        def timed_table(*inner):
            start = time.process_time()
            found = table(*inner, prune=self.prune)
            self.table_s += time.process_time() - start
            return found

        self.pairs.update, self.pairs.table = timed_update, timed_table

    def _answer(self, member, batch, stress):
        # The call to the model and nothing else; making float64 results of it is the calculator's
        # own cost.
        batch = {**batch, "level": torch.full_like(batch["charge"], member.slot)}
        start = time.process_time()
        found = member.model(batch, stress=stress, create_graph=False)
        self.model_s += time.process_time() - start
        return super()._answer(Recalled(member, found), batch, stress)


class Recalled:
    """A member whose answer is known."""

    def __init__(self, member, found):
        self.slot, self.found, self.references_eV = member.slot, found, member.model.references_eV
        self.model = self

    def __call__(self, batch, **options):
        return self.found


def first_part(predictor: Model, steps: int, skin_A: float, prune: bool) -> None:
    """One row: ms a step, shares, rebuilds."""
    atoms = water_box(64)
    calculator = Timed(predictor, skin_A=skin_A)
    calculator.prune = prune
    atoms.calc = calculator
    draw_momenta(atoms, 300.0, np.random.default_rng(0))
    integrator = VelocityVerlet(atoms, 0.5 * units.fs)
    integrator.run(5)
    before, made = [calculator.model_s, calculator.list_s, calculator.table_s], calculator.rebuilds
    start = time.process_time()
    integrator.run(steps)
    whole = time.process_time() - start
    after = [calculator.model_s, calculator.list_s, calculator.table_s]
    model, listing, table = (1e3 * (b - a) / steps for a, b in zip(before, after, strict=True))
    whole *= 1e3 / steps
    rest = whole - model - listing - table
    print(
        f"{skin_A:5.2f} {'yes' if prune else 'no':>6} {whole:9.2f} {model:9.2f} {listing:6.2f}"
        f" {table:6.2f} {rest:6.2f} {100 * (whole - model) / model:12.1f}"
        f" {calculator.rebuilds - made:9d} {atoms.get_temperature():9.0f}",
        flush=True,
    )


def second_part(predictor: Model, size: int) -> None:
    """One row for a size, in a process of its own so that the peak is its own."""
    atoms = water_box(size // 3)
    atoms.calc = calculator = Timed(predictor)
    random = np.random.default_rng(0)
    small = water_box(8)
    small.calc = Timed(predictor)
    small.get_forces()  # what torch itself needs
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(4):
        atoms.positions += 0.005 * random.standard_normal(atoms.positions.shape)
        start, listed = time.process_time(), calculator.list_s
        atoms.get_forces()
        times.append((time.process_time() - start, calculator.list_s - listed))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
    kept, num = min(whole for whole, _ in times[1:]), len(atoms)
    print(
        f"{num:7d} {1e3 * kept:10.1f} {1e6 * kept / num:12.1f} {1e3 * times[0][1]:10.1f}"
        f" {peak / 1024:10.0f} {peak / num:12.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--model", choices=MODELS, default="mini")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--atoms", type=int, nargs="*", default=[102, 192, 1029, 3000, 10125])
    parser.add_argument("--only", type=int, help="one size of part 2, in this process")
    args = parser.parse_args()
    torch.set_num_threads(1)
    predictor = predictor_of(args.checkpoint, args.model)
    if args.only:
        second_part(predictor, args.only)
        return
    print(f"192 atoms of water, {args.steps} steps of 0.5 fs; ms of processor time a step")
    print(" skin pruned     whole     model   list  table   rest beyond/model%  rebuilds temp./K")
    for skin_A, prune in (
        (1.0, True),
        (1.0, False),
        (0.5, True),
        (1.5, True),
        (2.0, True),
        (0.0, True),
    ):
        first_part(predictor, args.steps, skin_A, prune)
    print("\n  atoms  step (ms)  us per atom  list (ms)  peak (MiB)  KiB per atom")
    with tempfile.TemporaryDirectory() as folder:
        for size in args.atoms:
            subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--only", str(size)],
                cwd=folder,
                check=False,
            )


if __name__ == "__main__":
    main()
