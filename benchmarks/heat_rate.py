"""How many points a second does a fitted law take, beside `ht`'s vectorised call? Both in one run,
in batch, on the same cores.

    python benchmarks/heat_rate.py [--points 10] [--threads 2] [--repeats 5]

The law is `nusselt-ribbed` fitted to some of the bundled points, as a float32 torch module, eager
and compiled; `ht` is its vectorised dispatcher (`ht.vectorized.Nu_conv_internal`, which loops over
points) and one of its formulas called with numpy arrays, which is one smooth-tube power law and no
fitted law at all.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

from sciforge import catalog
from sciforge.heat.data.codec import CHANNEL
from sciforge.heat.data.readers import read_table
from sciforge.heat.inference.estimator import NusseltLaw

BATCH = 65_536


def rate(function: Callable[[], object], points: int, repeats: int) -> float:
    """Return the best rate of several repeats, points/s, after one call to warm up."""
    function()
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begun)
    return points / best


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--points", type=int, default=10, help="measured points that the law was fitted to"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = read_table(catalog.fetch("ribbed-channel"), warn=False)
    order = np.random.default_rng(0).permutation(len(table))
    known, rng = order[: options.points], np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        law = NusseltLaw.pretrained("ribbed").fit(
            {n: table.points[n][known] for n in CHANNEL}, table.nu[known]
        )
    x_MG = np.stack([table.points[n][rng.integers(len(table), size=BATCH)] for n in CHANNEL], 1)
    x_MG[:, 0] *= rng.uniform(0.9, 1.0, BATCH)
    found: dict[str, float] = {}
    module, x32_MG = law.module().float(), torch.from_numpy(x_MG).float()
    away = np.abs(module(x32_MG[:4096]).numpy() / law.predict(x_MG[:4096]) - 1).max()
    compiled = torch.compile(module)
    with torch.no_grad():
        found["law, compiled, float32"] = rate(lambda: compiled(x32_MG), BATCH, options.repeats)
        found["law, eager, float32"] = rate(lambda: module(x32_MG), BATCH, options.repeats)
    found["NusseltLaw.predict, float64"] = rate(lambda: law.predict(x_MG), BATCH, options.repeats)
    few = x_MG[:4096]
    found["NusseltLaw.predict with return_std"] = rate(
        lambda: law.predict(few, return_std=True), 4096, 2
    )
    from ht.conv_internal import turbulent_Dittus_Boelter
    from ht.vectorized import Nu_conv_internal

    def dispatcher() -> object:
        return Nu_conv_internal(few[:, 0], few[:, 1], eD=0.001, Di=0.05, x=10.0)

    found["ht.vectorized.Nu_conv_internal"] = rate(dispatcher, 4096, options.repeats)
    found["ht Dittus-Boelter on numpy arrays"] = rate(
        lambda: turbulent_Dittus_Boelter(Re=x_MG[:, 0], Pr=x_MG[:, 1]), BATCH, options.repeats
    )
    print(
        f"{options.points} measured points, {options.threads} threads; float32 is off by at most"
        f" {away:.1e}\n"
    )
    print("| call | points/s | against ht's vectorised call |\n|---|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:.3g} | {value / found['ht.vectorized.Nu_conv_internal']:.3g} |")


if __name__ == "__main__":
    main()
