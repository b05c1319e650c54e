"""Error against processor time: rMD17 ethanol or aspirin, 1000 training frames, mini from scratch,
ever longer schedules.

    python benchmarks/atoms_converge.py ethanol --out runs/converge --steps 2000 6000 18000

Each number of steps is a run of its own with its whole schedule. Training frames: the published
training file (aspirin: the first 1000 frames by seed), test: the published test file. MACE at
convergence, as published: ethanol 2.1, aspirin 6.6 meV/A.
"""

import argparse
import os
import shutil
import time
from pathlib import Path

from sciforge import api
from sciforge.atoms import EnergyForces, Structures
from sciforge.core.training.run import Hardware, Run, Schedule, Subset

SHARED = (
    Path(os.environ.get("SCIFORGE_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "atoms"
)
FILES = {
    "ethanol": ("botnet/dataset_ethanol_train.xyz.gz", "botnet/dataset_ethanol_test_MD.xyz.gz"),
    "aspirin": (
        "rmd17_aspirin/rmd17_aspirin_train.xyz.gz",
        "rmd17_aspirin/rmd17_aspirin_test.xyz.gz",
    ),
}


def main() -> None:
    """Train with each number of steps and print one row of a table each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("molecule", choices=list(FILES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[2000, 6000, 18000])
    parser.add_argument("--model", default="mini")
    options = parser.parse_args()
    data = options.out / options.molecule
    if not data.exists():
        train, test = (SHARED / name for name in FILES[options.molecule])
        preparer = Structures(
            files=(train,), test=(test,), validation_share=0.0, split="random", level="pbe"
        )
        api.prepare(preparer, data)
    print(
        "| steps | CPU minutes | F MAE meV/A | E MAE meV/molecule |\n|---|---|---|---|", flush=True
    )
    for steps in options.steps:
        out = options.out / f"{options.molecule}-{steps}"
        shutil.rmtree(out, ignore_errors=True)
        schedule = Schedule(
            steps=steps,
            batch=5,
            lr=5e-3,
            kind="cosine",
            min_lr_ratio=0.001,
            warmup=0.02,
            weight_decay=0.0,
            betas=(0.9, 0.999),
            clip=10.0,
            ema_decay=0.995,
        )
        begun = time.process_time()
        made = api.train(
            Run(
                data=data,
                out=out,
                model=options.model,
                objective=EnergyForces(),
                schedule=schedule,
                subset=Subset(1000),
                hardware=Hardware(threads=1),
            )
        )
        minutes = (time.process_time() - begun) / 60
        found = api.evaluate(made.path, data)
        size = {"ethanol": 9, "aspirin": 21}[options.molecule]
        print(
            f"| {steps} | {minutes:.1f} | {found['force_mae_meV_A']:.1f} |"
            f" {found['energy_mae_meV_atom'] * size:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
