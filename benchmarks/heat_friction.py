"""Does a measured friction factor help Nu, and how few points tell friction? The 33 bundled points
with measured friction.

    python benchmarks/heat_friction.py [--prior ribbed] [--seeds 20]

NusseltLaw (Nu alone) against WallNusseltLaw (Nu and friction through the law of the wall) with the
same laws, which all know friction, on the same N points; the rest is tested. |relative error| in %,
median / 95th percentile over all seeds, and coverage.
"""

import argparse
import warnings
from collections import defaultdict

import numpy as np

from sciforge import catalog
from sciforge.heat.correlations.library import get_correlation
from sciforge.heat.data.codec import CHANNEL
from sciforge.heat.data.readers import read_table
from sciforge.heat.inference.estimator import NusseltLaw
from sciforge.heat.inference.wall_law import WallNusseltLaw
from sciforge.heat.model.nusselt_net import MODELS

SIZES = (3, 5, 10, 20)
PUBLISHED = "ravigururajan-bergles-1996"


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", choices=("ribbed", "tubes"), default="ribbed")
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    table = read_table(catalog.fetch("ribbed-channel"), warn=False)
    known = np.flatnonzero(np.isfinite(table.fanning))
    laws = [name for name in MODELS[options.prior].laws if name != "dittus-boelter"]
    found: dict[tuple[str, int], list[np.ndarray]] = defaultdict(list)
    inside: dict[tuple[str, int], list[np.ndarray]] = defaultdict(list)

    def part(places: np.ndarray) -> dict[str, np.ndarray]:
        return {name: table.points[name][places] for name in CHANNEL}

    for size in SIZES:
        for seed in range(options.seeds):
            order = np.random.default_rng(seed).permutation(known)
            few, rest = order[:size], order[size:]
            true, friction = table.nu[rest], table.fanning[rest]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                alone = NusseltLaw.pretrained(options.prior, audit=False, laws=laws).fit(
                    part(few), table.nu[few]
                )
                both = WallNusseltLaw.pretrained(options.prior, laws=laws)
                both.fit(part(few), table.nu[few], fanning=table.fanning[few])
            for name, law in (("Nu alone", alone), ("Nu with friction", both)):
                low, high = law.predict_interval(part(rest))
                found[name, size].append(np.abs(law.predict(part(rest)) / true - 1))
                inside[name, size].append((low <= true) & (true <= high))
            low, high = both.predict_friction(part(rest), coverage=0.9)
            found["friction", size].append(np.abs(both.predict_friction(part(rest)) / friction - 1))
            inside["friction", size].append((low <= friction) & (friction <= high))
            by_law = get_correlation(PUBLISHED).fanning(part(rest)).numpy()
            found[f"friction, {PUBLISHED}", size].append(np.abs(by_law / friction - 1))
    print(
        "| | "
        + " | ".join(f"N={size}" for size in SIZES)
        + " |\n"
        + "|---" * (len(SIZES) + 1)
        + "|"
    )
    for name in dict.fromkeys(name for name, _ in found):
        cells = []
        for size in SIZES:
            error = 100 * np.concatenate(found[name, size])
            held = (
                f" [{100 * np.concatenate(inside[name, size]).mean():.0f}]"
                if inside[name, size]
                else ""
            )
            cells.append(f"{np.median(error):.1f} / {np.percentile(error, 95):.0f}{held}")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
