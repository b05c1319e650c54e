"""How is the bundled generator `molecules-mini` made?

    python benchmarks/pretrain_molecules_mini.py --moses train.csv.gz --out runs/molecules-mini

prepares every third molecule of MOSES' training set (molsets 0.3.1, 528,221 molecules) and learns
to grow them, on one core.
"""

import argparse
from pathlib import Path

from sciforge import api
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.molecules import Grow, Molecules

STEPS, BATCH = 6500, 128


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moses", type=Path, required=True, help="MOSES' train.csv.gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--workers", type=int, default=2, help="processes that prepare the store")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    store = args.out / "store"
    if not store.exists():
        conditions = ("logp", "tpsa", "size")
        what = Molecules(
            files=(args.moses,),
            smiles_column="SMILES",
            split="random",
            shares=(0.99, 0.01, 0.0),
            properties=conditions,
            every=3,
        )
        api.prepare(what, store, workers=args.workers, on_error="skip")
    run = Run(
        data=store,
        out=args.out / "run",
        model="mini",
        objective=Grow(conditions=("logp", "tpsa", "size")),
        schedule=Schedule(
            steps=args.steps,
            batch=BATCH,
            lr=2e-3,
            warmup=0.04,
            min_lr_ratio=0.02,
            ema_decay=0.998,
            save_every=250,
            weight_decay=0.05,
        ),
        hardware=Hardware(precision="bfloat16", threads=1),
    )
    made = api.train(run, resume=args.resume)
    print(made.path, made.step)


if __name__ == "__main__":
    main()
