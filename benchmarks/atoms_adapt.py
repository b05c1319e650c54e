"""Adapt potential-mini to one molecule by plentiful cheap labels: GFN2-xTB dynamics from its
SMILES, then more pretraining.

    python benchmarks/atoms_adapt.py "C/C(O)=C/C(C)=O" --out runs/acac-gfn2
    python benchmarks/atoms_few_shot.py acetylacetone --init runs/acac-gfn2/run --out
    runs/few-shot-adapted

No DFT label and no geometry of the DFT files is used: conformers are RDKit's, the dynamics GFN2's
own. A step of it costs 3 ms for 15 atoms, energies and forces come with it, and every tenth frame
is kept. The SMILES is the tautomer that the DFT frames show. Prints the error on held-out GFN2
frames (blocks of the walks) and the cost of both parts.
"""

import argparse
import time
from pathlib import Path

from sciforge import api
from sciforge.atoms import EnergyForces, Structures
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.structures.extxyz import write_extxyz
from sciforge.structures.labelling.xtb_dynamics import XtbDynamics


def main() -> None:
    """Move, label, prepare, train, and print what it cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("smiles")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", default="potential-mini")
    parser.add_argument(
        "--temperature", type=float, nargs="+", default=[*[500.0] * 4, *[400.0] * 8]
    )
    parser.add_argument("--frames", type=int, default=355, help="of each walker")
    parser.add_argument("--steps", type=int, default=15_000)
    parser.add_argument("--rate", type=float, default=4e-3)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    frames, data = options.out / "gfn2.extxyz", options.out / "store"
    begun = time.process_time()
    if not frames.exists():
        write_extxyz(
            frames,
            list(XtbDynamics(options.frames, options.temperature, seed=1).of(options.smiles)),
        )
        print(f"labels: {(time.process_time() - begun) / 60:.1f} CPU minutes", flush=True)
    if not data.exists():
        api.prepare(
            Structures(files=(frames,), split="time", validation_share=0.04, test_share=0.0), data
        )
    schedule = Schedule(
        steps=options.steps,
        batch=8,
        lr=options.rate,
        kind="cosine",
        min_lr_ratio=0.005,
        warmup=0.02,
        weight_decay=0.0,
        betas=(0.9, 0.999),
        clip=10.0,
        ema_decay=0.999,
        save_every=1000,
    )
    run = Run(
        data=data,
        out=options.out / "run",
        init=Path(options.init),
        objective=EnergyForces(energy=1.0),
        schedule=schedule,
        hardware=Hardware(threads=1, compile=True),
    )
    begun = time.process_time()
    made = api.train(run, resume=True)
    print(f"training: {(time.process_time() - begun) / 60:.1f} CPU minutes", flush=True)
    print(
        {
            name: round(value, 2)
            for name, value in api.evaluate(made.path, data, split="validation").items()
        }
    )


if __name__ == "__main__":
    main()
