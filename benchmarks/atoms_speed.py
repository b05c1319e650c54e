"""How fast is a training step, and how fast are energies and forces, against other atomistic
networks? CPU ms, 1 thread.

    python benchmarks/atoms_speed.py --peers painn=/path/to/python mace=/path/to/python ...
    [--repeats 15]

Each peer runs in its own interpreter (benchmarks/atoms_peers/README.md); one repeat of each in
turn, so that noise of the machine hits all. Training step: 5 aspirin frames, energies and forces,
backward, Adam. Inference: energies and forces of the same batch, and of a periodic box of 64 water
molecules. Cutoff 5 angstrom, float32, graphs prepared beforehand. Ratios are to the first peer
named, so name the one of interest first.
"""

import statistics
import tempfile
from pathlib import Path

from atoms_peers import driver

PARTS = {
    "train_step": "train step",
    "inference": "E+F 5 aspirin",
    "box_inference": "E+F water 192",
    "graphs": "graphs 5 aspirin",
}


def make_task(folder: Path) -> dict:
    frames = driver.read_xyz(driver.ATOMS / "rmd17_aspirin" / "rmd17_aspirin_train.xyz.gz")[:5]
    return {
        "task": "speed",
        "train_frames": driver.write_frames(folder / "aspirin.npz", frames),
        "box": driver.write_frames(folder / "water.npz", [driver.water_box()]),
        "cutoff": 5.0,
        "threads": 1,
        "seed": 0,
        "energy_weight": 0.1,
        "force_weight": 100.0,
    }


def run_peers(
    peers: dict[str, str], task: dict, folder: Path, repeats: int, core: int
) -> dict[str, dict]:
    """Start all, one after the other; then one repeat of each in turn; then gather."""
    running = []
    for name, python in peers.items():
        process = driver.Process(name, python, task, folder, core)
        process.await_line("@@ready")
        running.append(process)
    for _ in range(repeats):
        for process in running:
            process.ask("@@answer")
    results = {process.name: process.finish() for process in running}
    return {name: result for name, result in results.items() if result}


def summary(result: dict, part: str) -> tuple[float, float]:
    """Best and median CPU ms."""
    times = [repeat[part] for repeat in result["repeats"]]
    return min(times), statistics.median(times)


def table(results: dict[str, dict]) -> str:
    """Best (median) and how many times the first peer's best."""
    first = next(iter(results.values()))
    rows = []
    for result in results.values():
        cells = [result["label"], f"{result['parameters'] / 1000:.0f}k"]
        for part in PARTS:
            best, median = summary(result, part)
            ratio = best / max(summary(first, part)[0], 1e-6)
            cells.append(
                f"{best:.2f} ({median:.2f}), x{ratio:.2f}"
                if best < 10
                else f"{best:.0f} ({median:.0f}), x{ratio:.2f}"
            )
        rows.append(cells)
    return driver.markdown(["model", "params", *PARTS.values()], rows)


def main() -> None:
    parser = driver.parser_with_peers(__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    peers = driver.peers_of(args)
    with tempfile.TemporaryDirectory() as folder:
        results = run_peers(peers, make_task(Path(folder)), Path(folder), args.repeats, args.core)
    if results:
        print(
            f"CPU ms, best of {args.repeats} (median), times the first's best\n\n{table(results)}"
        )
    driver.save(args.json, results)


if __name__ == "__main__":
    main()
