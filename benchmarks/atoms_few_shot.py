"""Few DFT frames of a molecule the potential has not met: potential-mini against the same net from scratch and GDML.

    python benchmarks/atoms_few_shot.py acetylacetone --out runs/few-shot   # or aspirin, malonaldehyde

Every method sees the same frames, seed by seed; the test frames are the published test file (acetylacetone: another
trajectory; aspirin: the file's own test part) and are used once, at the end. Both nets take the same steps and the rate
that was best for both on development frames of acetylacetone. The molecules are in no tautomer among those of pretraining.
"""

import argparse
import os
from pathlib import Path

from sciforge import api, catalog
from sciforge.atoms import EnergyForces, PrepareAtoms
from sciforge.core.curve import Curve, Recipe
from sciforge.core.run import All, Hardware, Schedule
from sciforge.core.store import Store

SHARED = Path(os.environ.get("SCIFORGE_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "atoms"
BOTNET = SHARED / "botnet"
TASKS = {
    "acetylacetone": ((BOTNET / "dataset_acac_train_300K.xyz.gz",), (BOTNET / "dataset_acac_test_MD_300K.xyz.gz",)),
    "aspirin": (
        (SHARED / "rmd17_aspirin" / "rmd17_aspirin_train.xyz.gz",),
        (SHARED / "rmd17_aspirin" / "rmd17_aspirin_test.xyz.gz",),
    ),
}
SCHEDULE = Schedule(
    steps=500, batch=5, rate=5e-3, shape="cosine", final=0.02, warmup=0.05, weight_decay=0.0, betas=(0.9, 0.999), clip=10.0,
    average=0.99,
)  # fmt: skip


def task_store(name: str, out: Path) -> Store:
    """Prepare a task where it is missing: training frames, and the test file as the test split."""
    if (out / name).exists():
        return Store.open(out / name)
    if name == "malonaldehyde":
        files = (catalog.find("malonaldehyde-dft"),)
        return api.prepare(PrepareAtoms(files=files, split="time", dev_share=0.05, test_share=0.35), out / name)
    files, test = TASKS[name]
    return api.prepare(PrepareAtoms(files=files, test=test, dev_share=0.1, split="time", level="pbe"), out / name)


def main() -> None:
    """Measure the curve and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=[*TASKS, "malonaldehyde"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", default="potential-mini")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=["pretrained", "scratch", "gdml"])
    options = parser.parse_args()
    store = task_store(options.task, options.out)
    spec = Curve(
        data=store.path,
        out=options.out / f"{options.task}-curve",
        init=options.init,
        objective=EnergyForces(),
        sizes=tuple(options.sizes),
        seeds=options.seeds,
        methods=tuple(options.methods),
        recipe=Recipe(SCHEDULE, All(), epochs=0.0),
        hardware=Hardware(threads=1),
    )
    result = api.curve(spec)
    print(result.table().text())
    result.plot(options.out / f"{options.task}.png", f"{options.task}: force error against DFT frames")


if __name__ == "__main__":
    main()
