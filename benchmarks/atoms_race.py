"""Who learns ethanol's forces best on a budget of CPU seconds? rMD17, 300 frames to train on, 500
held out.

    python benchmarks/atoms_race.py --peers tensornet=/path/to/python painn=/path/to/python ...
    --budget 75 --seeds 0 1 2

Each peer runs in its own interpreter (benchmarks/atoms_peers/README.md), one after the other. Batch
5, AdamW with amsgrad and no weight decay, cosine learning rate annealed to zero on consumed CPU
seconds, gradient clip 100, moving average of weights 0.995 evaluated, loss 0.1 E^2 + 100 F^2 in eV
and eV/angstrom, one learning rate each (--lr changes it). A seed sets the training frames, the
order and the weights; the frames held out are always the same. Graphs, batches and a warm-up that
changes nothing are off the clock.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
from atoms_peers import driver

TRAINING, TEST = 300, 500


def make_task(folder: Path, seed: int, budget: float) -> dict:
    source = driver.ATOMS / "botnet"
    train = driver.read_xyz(source / "dataset_ethanol_train.xyz.gz")
    test = driver.read_xyz(source / "dataset_ethanol_test_MD.xyz.gz")
    chosen = np.random.default_rng(seed).choice(len(train), TRAINING, replace=False)
    held_out = np.random.default_rng(0).choice(len(test), TEST, replace=False)
    return {
        "task": "race",
        "train_frames": driver.write_frames(folder / "train.npz", [train[i] for i in chosen]),
        "test_frames": driver.write_frames(folder / "test.npz", [test[i] for i in held_out]),
        "cutoff": 5.0,
        "threads": 1,
        "seed": seed,
        "budget": budget,
        "batch": 5,
        "clip": 100.0,
        "ema": 0.995,
        "energy_weight": 0.1,
        "force_weight": 100.0,
    }


def run_peers(
    peers: dict[str, str], task: dict, rates: dict[str, float], folder: Path, core: int
) -> dict[str, dict]:
    results = {}
    for name, python in peers.items():
        result = driver.Process(name, python, task | {"lr": rates.get(name)}, folder, core).finish()
        if result:
            results[name] = result
            print(_line(name, task["seed"], result), flush=True)
    return results


def _line(name: str, seed: int, result: dict) -> str:
    errors = f"F {result['force_mae_meV_A']:.1f} meV/A, E {result['energy_mae_meV']:.1f} meV"
    return f"{name}, seed {seed}: {result['steps']} steps in {result['cpu_s']:.1f} CPU s, {errors}"


def table(runs: list[dict[str, dict]]) -> str:
    """Means over seeds, the range of the force error, and the force error as multiple of the
    first peer's.
    """
    by_name = {name: [run[name] for run in runs if name in run] for run in runs for name in run}
    first = None
    rows = []
    for results in by_name.values():
        forces = [result["force_mae_meV_A"] for result in results]
        first = first or statistics.mean(forces)
        rows.append(
            [
                f"{results[0]['label']} (lr {results[0]['lr']:g})",
                f"{statistics.mean(result['steps'] for result in results):.0f}",
                f"{statistics.mean(forces):.1f} ({min(forces):.1f}-{max(forces):.1f})",
                f"x{statistics.mean(forces) / first:.2f}",
                f"{statistics.mean(result['energy_mae_meV'] for result in results):.1f}",
            ]
        )
    return driver.markdown(
        ["model", "steps", "F MAE meV/A (range)", "F to first", "E MAE meV"], rows
    )


def main() -> None:
    parser = driver.parser_with_peers(__doc__)
    parser.add_argument("--budget", type=float, default=75, help="CPU seconds of training each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--lr", nargs="+", default=[], metavar="NAME=RATE", help="instead of the adapter's own"
    )
    args = parser.parse_args()
    peers, rates = driver.peers_of(args), {}
    for pair in args.lr:
        name, rate = pair.split("=", 1)
        rates[name] = float(rate)
    runs = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            task = make_task(Path(folder), seed, args.budget)
            runs.append(run_peers(peers, task, rates, Path(folder), args.core))
    if any(runs):
        print(f"\n{args.budget:g} CPU s, seeds {args.seeds}\n\n{table(runs)}")
    driver.save(args.json, {str(seed): run for seed, run in zip(args.seeds, runs, strict=True)})


if __name__ == "__main__":
    main()
