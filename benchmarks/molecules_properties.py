"""Few labels on ESOL, FreeSolv, BBBP and Lipo, beside forests and boosting in the same run.

Balanced Bemis-Murcko splits 80/10/10; one split for each seed, and from its training part labels
drawn at random. All methods see the same molecules. `--splits 100 101 ...` with `--on validation`
is how the head was chosen; the metrics in RESULTS.md are of splits 0, 1, 2 on test. Example:

    python benchmarks/molecules_properties.py --data ../shared/data/molecules/moleculenet --init
    molecules-encoder-mini \
        --out runs/properties --sets esol freesolv bbbp --splits 0 1 2
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from sciforge import catalog
from sciforge.core.data.store import Store, prepare
from sciforge.core.training.run import Freeze, Full, Hardware, Schedule
from sciforge.experiments.label_efficiency.run import measure
from sciforge.experiments.label_efficiency.spec import LabelEfficiency
from sciforge.experiments.methods import Recipe
from sciforge.molecules.data.finalization import resplit
from sciforge.molecules.data.prepare import Molecules

SETS = {
    "esol": ("esol_delaney.csv", "measured log solubility in mols per litre", "rmse"),
    "freesolv": ("freesolv_sampl.csv", "expt", "rmse"),
    "bbbp": ("bbbp.csv", "p_np", "auroc"),
    "lipo": ("lipo.csv", "lipo", "rmse"),
}
METHODS = (
    "pretrained",
    "frozen",
    "untrained",
    "ecfp_forest",
    "descriptor_forest",
    "descriptor_boosting",
)
GENTLE = Recipe(
    Schedule(steps=16, batch=32, lr=5e-5, kind="step", warmup=0.1),
    Full(layer_decay=0.8),
    epochs=1.0,
)
FROZEN = Recipe(Schedule(steps=1, batch=32, lr=0.0, kind="step"), Freeze(), epochs=0.0)


def store_of(data: Path, out: Path, name: str, seed: int) -> Store:
    """Return a set's store under a split; descriptors are computed once."""
    file, label, _ = SETS[name]
    options = Molecules(
        files=(data / file,), labels=(label,), components="largest", descriptors=True
    )
    base, split = out / f"store-{name}", out / f"store-{name}-{seed}"
    if not base.exists():
        prepare(options, base, on_error="skip")
    return (
        Store.open(split)
        if split.exists()
        else resplit(Store.open(base), replace(options, seed=seed), split)
    )


def main() -> None:
    """Measure and print a table: mean and standard deviation over splits and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--init", type=catalog.locate, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--splits", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--sizes", nargs="+", type=int, default=[50, 100, 200, 0])
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    options = parser.parse_args()
    for name in options.sets:
        metric = SETS[name][2]
        found: dict[tuple[str, int], list[dict]] = {}
        for seed in options.splits:
            store = store_of(options.data, options.out, name, seed)
            sizes = tuple(options.sizes)
            curve = LabelEfficiency(
                data=store.path,
                out=options.out / f"curve-{name}-{seed}",
                init=options.init,
                objective="properties",
                sizes=sizes,
                seeds=options.draws,
                methods=tuple(options.methods),
                metric=metric,
                higher_is_better=metric == "auroc",
                recipe=GENTLE,
                frozen=FROZEN,
                hardware=Hardware(threads=1),
            )
            for run in measure(curve).runs:
                size = run.labels if run.labels in sizes else 0
                found.setdefault((run.method, size), []).append(run.metrics)
        table(name, metric, options.sizes, options.methods, found)


def table(name: str, metric: str, sizes: list[int], methods: list[str], found: dict) -> None:
    """Print one set's metrics."""
    print(f"\n{name} ({metric}, {len(found[methods[0], sizes[0]])} runs)")
    print(
        "|method|"
        + "|".join(str(size or "all") for size in sizes)
        + "|\n|-"
        + "|-" * len(sizes)
        + "|"
    )
    for method in methods:
        cells = []
        for size in sizes:
            values = [metrics[metric] for metrics in found[method, size]]
            cells.append(f"{np.mean(values):.3f} +- {np.std(values):.3f}")
        print(f"|{method}|" + "|".join(cells) + "|")
    covered = [
        f["coverage90"]
        for (m, _), runs in found.items()
        if m == "frozen"
        for f in runs
        if "coverage90" in f
    ]
    if covered:
        print(f"coverage of frozen's 90 % intervals on test: {np.mean(covered):.3f}", flush=True)


if __name__ == "__main__":
    main()
