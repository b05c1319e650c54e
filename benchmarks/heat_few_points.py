"""How well do few measured points specialise a Nusselt law? Four ways to hold points back, beside
every rival.

    python benchmarks/heat_few_points.py --out runs/heat-few-points [--seeds 20] [--workers 2]

The points are the bundled `ribbed-channel` (83 of one laboratory). Errors are |relative error| in
%, median / 95th percentile over all held-back points of all seeds; coverage is that of 90 %
intervals. Ways to hold back:

- random: N points at random, the rest is tested. Test and training share rigs and plates, which
  flatters flexible models.
- reynolds: N points below Re 30,000; tested are those above 45,000.
- angle: N points of other rib angles; one angle is tested (each in turn).
- rig: N points of other rigs, whose names the net is told; one rig is tested as one that was never
  seen (each in turn).

Priors are pretrained on published laws alone (pretrain_nusselt.py). Writes results.json and prints
Markdown tables.
"""

import argparse
import json
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.stats import t as student
from tqdm import tqdm

from sciforge import catalog
from sciforge.heat.data.codec import CHANNEL
from sciforge.heat.data.readers import MeasuredTable, read_table
from sciforge.heat.evaluation.baselines import BASELINES
from sciforge.heat.inference.estimator import NusseltLaw
from sciforge.heat.objectives.nusselt import Nusselt

OURS: dict[str, Callable[[], NusseltLaw]] = {
    "nusselt-ribbed": lambda: NusseltLaw.pretrained("ribbed"),
    "nusselt-tubes": lambda: NusseltLaw.pretrained("tubes"),
    "nusselt-smooth": lambda: NusseltLaw.pretrained("smooth"),
    "dittus-boelter, vague prior": lambda: NusseltLaw(columns=CHANNEL, laws=["dittus-boelter"]),
    "library, vague prior": lambda: NusseltLaw(
        columns=CHANNEL,
        laws=["dittus-boelter", "webb-1971", "ravigururajan-bergles-1996", "han-park-1988"],
    ),
    "power law, vague prior": lambda: NusseltLaw(columns=CHANNEL),
}
SIZES = {
    "random": (3, 5, 10, 20, 50),
    "reynolds": (5, 10, 20),
    "angle": (5, 10, 20),
    "rig": (5, 10, 20),
}


@dataclass(frozen=True)
class Points:
    """Some measured points, as baselines and metrics read them."""

    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns["value"])

    def column(self, name: str) -> np.ndarray:
        """Return a column."""
        return self.columns[name]

    def labels(self) -> np.ndarray:
        """Return zeros: all points are of one class."""
        return np.zeros(len(self))

    def take(self, places: np.ndarray) -> "Points":
        """Return the points at these places."""
        return Points({name: column[places] for name, column in self.columns.items()})

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """The six groups."""
        return {name: self.columns[name] for name in CHANNEL}


def load() -> Points:
    """Return the bundled points."""
    table: MeasuredTable = read_table(catalog.fetch("ribbed-channel"), warn=False)
    return Points({**table.points, "value": table.nu, "rig": np.array(table.rig)})


def splits(
    points: Points, way: str, num: int, seeds: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield places of training and test points."""
    everything = np.arange(len(points))
    if way == "random":
        held = [(everything, None)]
    elif way == "reynolds":
        re = points.column("Re")
        held = [(np.flatnonzero(re < 3e4), np.flatnonzero(re > 4.5e4))]
    else:
        column = points.column("alpha_deg" if way == "angle" else "rig")
        held = [
            (np.flatnonzero(column != one), np.flatnonzero(column == one))
            for one in sorted(set(column.tolist()))
        ]
    for seed in range(seeds if len(held) == 1 else max(seeds // 4, 1)):
        for known, test in held:
            order = np.random.default_rng(seed).permutation(known)
            yield order[:num], np.setdiff1d(everything, order[:num]) if test is None else test


def run(state: tuple[str, int, int, np.ndarray, np.ndarray]) -> list[dict]:
    """Fit every method on one split and return its errors and whether intervals held."""
    way, num, place, known, test = state
    points = load()
    train, held = points.take(known), points.take(test)
    made = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = {}
        for name, make in OURS.items():
            rig = train.column("rig") if way == "rig" else None
            law = make().fit(train.groups, train.column("value"), rig=rig)
            asked = "new" if way == "rig" else None
            low, high = law.predict_interval(held.groups, rig=asked)
            outputs[name] = {"value": law.predict(held.groups, rig=asked), "low": low, "high": high}
        for name, baseline in BASELINES.items():
            outputs[name] = baseline(Nusselt(), train, held, place)
    true = held.column("value")
    for name, found in outputs.items():
        row = {"method": name, "way": way, "num": num, "place": place, "test": test.tolist()}
        row["error"] = (np.abs(found["value"] / true - 1) * 100).tolist()
        if "low" in found:
            row["inside"] = ((found["low"] <= true) & (true <= found["high"])).tolist()
            row["half_width"] = (np.log(found["high"] / found["low"]) * 50).tolist()
        made.append(row)
    return made


def cell(rows: list[dict]) -> str:
    """Return median / 95th percentile and, in brackets, coverage."""
    error = np.concatenate([row["error"] for row in rows])
    worst = np.percentile(error, 95)
    text = (
        f"{np.median(error):.1f} / {worst:.0f}"
        if worst < 1000
        else f"{np.median(error):.1f} / huge"
    )
    if all("inside" in row for row in rows):
        text += f" [{100 * np.mean(np.concatenate([row['inside'] for row in rows])):.0f}]"
    return text


def table(results: list[dict], way: str) -> str:
    """Return the Markdown table of one way to hold back."""
    grouped = defaultdict(list)
    for row in results:
        if row["way"] == way:
            grouped[row["method"], row["num"]].append(row)
    sizes = SIZES[way]
    lines = [
        f"| {way}: method | " + " | ".join(f"N={n}" for n in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    for name in (*OURS, *BASELINES):
        lines.append(f"| {name} | " + " | ".join(cell(grouped[name, n]) for n in sizes) + " |")
    return "\n".join(lines)


def gains(results: list[dict]) -> str:
    """Return how many times smaller the median error is than without pretraining, paired by
    seed, with 95 % intervals.
    """
    found = {(r["method"], r["way"], r["num"], r["place"]): np.median(r["error"]) for r in results}
    lines = [
        "| gain, random splits | against | " + " | ".join(f"N={n}" for n in SIZES["random"]) + " |",
        "|---" * 7 + "|",
    ]
    for name in ("nusselt-smooth", "nusselt-tubes", "nusselt-ribbed"):
        for other in (
            "power law, vague prior",
            "dittus-boelter, vague prior",
            "library, vague prior",
        ):
            cells = []
            for num in SIZES["random"]:
                places = sorted({p for m, w, n, p in found if (m, w, n) == (name, "random", num)})
                logs = np.array(
                    [
                        np.log(found[other, "random", num, p] / found[name, "random", num, p])
                        for p in places
                    ]
                )
                reach = (
                    student.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
                    if len(logs) > 1
                    else np.inf
                )
                middle, low, high = (np.exp(logs.mean() + sign * reach) for sign in (0, -1, 1))
                cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]")
            lines.append(f"| {name} | {other} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run every method on every split and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of results.json")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    points, jobs = load(), []
    for way, sizes in SIZES.items():
        for num in sizes:
            for place, (known, test) in enumerate(splits(points, way, num, options.seeds)):
                jobs.append((way, num, place, known, test))
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        results = [
            row for rows in tqdm(pool.map(run, jobs), total=len(jobs), disable=None) for row in rows
        ]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results))
    for way in SIZES:
        print(table(results, way) + "\n")
    print(gains(results))


if __name__ == "__main__":
    main()
