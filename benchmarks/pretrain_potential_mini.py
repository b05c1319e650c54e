"""Pretrain potential-mini: GFN2-xTB energies and forces of small organic molecules, in about an
hour of one CPU core.

The geometries are the bundled set `xtb-small` (RDKit conformers in thermal motion,
datasets/build.py) and, where given, the neutral des-monomers of SPICE, both labelled by `sciforge
label --method gfn2-xtb`. Molecules of the validation and test splits are in no training record.
Example:

    python benchmarks/pretrain_potential_mini.py --files xtb_small.extxyz xtb_des_neutral.extxyz
    --out runs/potential-mini
"""

import argparse
from pathlib import Path

from sciforge import api
from sciforge.atoms import EnergyForces, Structures
from sciforge.atoms.model.potential import MODELS
from sciforge.core.data.store import Store
from sciforge.core.training.run import Hardware, Run, Schedule

SCHEDULE = Schedule(
    steps=26_000,
    batch=16,
    lr=4e-3,
    kind="exponential",
    min_lr_ratio=0.01,
    warmup=0.02,
    weight_decay=0.0,
    betas=(0.9, 0.999),
    clip=10.0,
    ema_decay=0.999,
    evaluate_every=2000,
    save_every=500,
)


def main() -> None:
    """Prepare, train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", nargs="+", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    data = options.out / "store"
    if not data.exists():
        preparer = Structures(
            files=tuple(options.files), split="molecule", validation_share=0.03, test_share=0.03
        )
        api.prepare(preparer, data, workers=2)
    run = Run(
        data=data,
        out=options.out / "run",
        model=MODELS["mini"],
        objective=EnergyForces(energy=2.0, huber=0.3),
        schedule=SCHEDULE,
        hardware=Hardware(threads=1, compile=options.compile),
    )
    checkpoint = api.train(run, resume=True)
    print(
        {
            name: round(value, 2)
            for name, value in api.evaluate(checkpoint.path, data, split="test").items()
        }
    )
    print(len(Store.open(data)), "structures;", checkpoint.path)


if __name__ == "__main__":
    main()
