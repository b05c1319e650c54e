"""How good are the molecules that published generators released, by the same judge as ours? One
table.

    PYTHONPATH=. python benchmarks/molecules_score_peers.py [OURS.smi ...] --out FOLDER [--num
    10000] [--fcd-num 1000]
        [--reference-stats STATS.npz] [--moses-stats test_stats.npz]

JT-VAE (30,000 samples, github.com/wengong-jin/icml18-jtnn d4c425a) and DiGress (25,000,
github.com/cvignac/DiGress 780242b) on MOSES, and any .smi given, each line a sample. Published:
JT-VAE valid 1.0, FCD/Test 0.3954 of 30,000, SNN 0.5477, Frag 0.9965, Scaf 0.8964, IntDiv 0.8551,
Filters 0.976, novelty 0.9143 (MOSES' table); DiGress 85.7 % valid, by its largest fragment.

--moses-stats takes test_stats.npz out of the wheel of molsets 0.3.1 and uses its FCD moments of all
176,074 test molecules. It holds a pickle, which can run code when it is read: only give a file
whose origin you know.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from sciforge.molecules.evaluation.score import Score, table_of

SHARED = (
    Path(os.environ.get("SCIFORGE_SHARED", Path(__file__).parents[2] / "shared"))
    / "data"
    / "molecules"
)
PEERS = {"JT-VAE": "jtvae_moses_30k.smi.gz", "DiGress": "digress_moses_25k.smi.gz"}


def moments_of_moses(stats: Path, out: Path) -> Path:
    """Write mean and covariance of MOSES' statistics as plain arrays and return the path."""
    found = np.load(stats, allow_pickle=True)["stats"].item()["FCD"]
    np.savez(out, mu=found["mu"], sigma=found["sigma"], count=176_074)
    return out


def main() -> None:
    """Score every file, write a report of each beside the others and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument(
        "--data", type=Path, default=SHARED, help="holds moses/ and generated_by_peers/"
    )
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--fcd-num", type=int)
    parser.add_argument("--reference-num", type=int)
    parser.add_argument("--reference-stats", type=Path)
    parser.add_argument("--moses-stats", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only-given", action="store_true", help="leave the peers out")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    stats = args.reference_stats
    if args.moses_stats:
        stats = moments_of_moses(args.moses_stats, args.out / "moses_test_moments.npz")
    files = (
        {}
        if args.only_given
        else {name: args.data / "generated_by_peers" / file for name, file in PEERS.items()}
    )
    files |= {path.stem: path for path in args.files}
    reports = {}
    for name, file in files.items():
        start = time.perf_counter()
        score = Score(
            file=file,
            reference=args.data / "moses/test.csv.gz",
            training=args.data / "moses/train.csv.gz",
            num=args.num,
            fcd_num=args.fcd_num,
            reference_num=args.reference_num,
            reference_stats=stats,
            cache=args.cache,
            workers=args.workers,
        )
        result = score.run()
        result.save(args.out / f"{name}.json")
        reports[name] = result.report
        print(f"{name}: {time.perf_counter() - start:.0f} s\n", flush=True)
    print(table_of(reports).text())


if __name__ == "__main__":
    main()
