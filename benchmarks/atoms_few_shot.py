"""Few DFT frames of a molecule the potential has not met: potential-mini against the same net from
scratch and GDML.

    python benchmarks/atoms_few_shot.py acetylacetone --out runs/few-shot   # or aspirin,
    malonaldehyde python benchmarks/atoms_few_shot.py acetylacetone --out runs/few-shot --init
    runs/acac-gfn2/run --rate 2e-3 \
        --methods pretrained --curve adapted --beside acetylacetone-curve   # after atoms_adapt.py
    python benchmarks/atoms_few_shot.py acetylacetone --out runs/few-shot --choose 1e-3 2e-3 5e-3
    --sizes 50

Every method sees the same frames, seed by seed; the test frames are the published test file
(acetylacetone: another trajectory; aspirin: the file's own test part) and are used once, at the
end. Both nets take the same steps and the rate that was best for both on development frames of
acetylacetone (`--choose` looks at these alone). The molecules are in no tautomer among those of
pretraining. `--beside` adds the other methods of a curve of the same frames, for paired
differences.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sciforge import api, catalog
from sciforge.atoms import EnergyForces, Structures
from sciforge.core.data.store import Store
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import Full, Hardware, Run, Schedule, Subset
from sciforge.experiments.label_efficiency.result import LabelEfficiencyResult, RunMetrics
from sciforge.experiments.label_efficiency.spec import LabelEfficiency
from sciforge.experiments.methods import NETWORKS, Recipe

SHARED = (
    Path(os.environ.get("SCIFORGE_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "atoms"
)
BOTNET = SHARED / "botnet"
TASKS = {
    "acetylacetone": (
        (BOTNET / "dataset_acac_train_300K.xyz.gz",),
        (BOTNET / "dataset_acac_test_MD_300K.xyz.gz",),
    ),
    "aspirin": (
        (SHARED / "rmd17_aspirin" / "rmd17_aspirin_train.xyz.gz",),
        (SHARED / "rmd17_aspirin" / "rmd17_aspirin_test.xyz.gz",),
    ),
}
SCHEDULE = Schedule(
    steps=500,
    batch=5,
    lr=5e-3,
    kind="cosine",
    min_lr_ratio=0.02,
    warmup=0.05,
    weight_decay=0.0,
    betas=(0.9, 0.999),
    clip=10.0,
    ema_decay=0.99,
)


def task_store(name: str, out: Path) -> Store:
    """Prepare a task where it is missing: training frames, and the test file as the test split."""
    if (out / name).exists():
        return Store.open(out / name)
    if name == "malonaldehyde":
        files = (catalog.find("malonaldehyde-dft"),)
        return api.prepare(
            Structures(files=files, split="time", validation_share=0.05, test_share=0.35),
            out / name,
        )
    files, test = TASKS[name]
    return api.prepare(
        Structures(files=files, test=test, validation_share=0.1, split="time", level="pbe"),
        out / name,
    )


def choose(spec: LabelEfficiency, rates: list[float]) -> None:
    """Print the force error on development frames of each net at each rate; the test frames are
    not looked at.
    """
    parent = Checkpoint.open(catalog.locate(spec.init))
    starts = {
        "pretrained": {"init": parent.path},
        "untrained": {"model": parent.model_config, "codec": parent.codec},
    }
    fixed = {"data": spec.data, "objective": spec.objective, "hardware": spec.hardware}
    for labels in spec.sizes:
        for method in sorted(set(spec.methods) & set(starts)):
            for rate in rates:
                schedule = replace(spec.recipe.schedule, lr=rate)
                with TemporaryDirectory(dir=spec.data.parent) as folder:
                    out = Path(folder) / "run"
                    made = api.train(
                        Run(
                            out=out,
                            schedule=schedule,
                            subset=Subset(labels),
                            **starts[method],
                            **fixed,
                        )
                    )
                    metrics = api.evaluate(made.path, spec.data, split="validation")
                print(
                    f"dev: {method}, {labels} frames, rate {rate:g}:"
                    f" {metrics['force_mae_meV_A']:.1f} meV/A",
                    flush=True,
                )


def joined(result: LabelEfficiencyResult, beside: Path) -> LabelEfficiencyResult:
    """Return the curve with the other methods of a curve measured before, at the sizes and seeds
    of this one.
    """
    rows = map(json.loads, (beside / "runs.jsonl").read_text().splitlines())
    pairs = {(run.labels, run.seed) for run in result.runs}
    others = [run for run in map(RunMetrics.from_json, rows) if run.method not in result.methods]
    others = [run for run in others if (run.labels, run.seed) in pairs]
    kinds = {run.method: "network" if run.method in NETWORKS else "baseline" for run in others}
    return replace(result, runs=(*result.runs, *others), kinds={**result.kinds, **kinds})


def main() -> None:
    """Measure the curve and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=[*TASKS, "malonaldehyde"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", default="potential-mini")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=["pretrained", "untrained", "gdml"])
    parser.add_argument("--steps", type=int, default=SCHEDULE.steps)
    parser.add_argument("--rate", type=float, default=SCHEDULE.lr)
    parser.add_argument("--curve", help="name of the folder of results; TASK-curve where not given")
    parser.add_argument("--beside", help="name of a curve measured before")
    parser.add_argument(
        "--choose", type=float, nargs="+", help="rates to compare on development frames; then stop"
    )
    options = parser.parse_args()
    name = options.curve or f"{options.task}-curve"
    store = task_store(options.task, options.out)
    spec = LabelEfficiency(
        data=store.path,
        out=options.out / name,
        init=options.init,
        objective=EnergyForces(),
        sizes=tuple(options.sizes),
        seeds=options.seeds,
        methods=tuple(options.methods),
        recipe=Recipe(replace(SCHEDULE, steps=options.steps, lr=options.rate), Full(), epochs=0.0),
        hardware=Hardware(threads=1),
    )
    if options.choose:
        return choose(spec, options.choose)
    result = api.label_efficiency(spec)
    if options.beside:
        result = joined(result, options.out / options.beside)
    print(result.table().text())
    result.save(options.out / f"{name.removesuffix('-curve')}.png")


if __name__ == "__main__":
    main()
