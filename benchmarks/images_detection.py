"""Objects in few scenes: average precision of nets pretrained on single pictures against the same
net from scratch.

    python benchmarks/images_detection.py --data FOLDER --runs runs/images [--scenes 200] [--seeds
    3] [--steps 60] [--rate 1e-3]

Scenes of 48 x 48 pixels are composed of single objects of Fashion-MNIST, one to four, before noise
and fragments of others; those of the test scenes are test pictures, in no other scene and in no
pretraining. --runs holds the parents that pretrain_vit_mini.py made: `inpaint` and `relative` saw
54,000 training pictures without labels, `supervised` those of the classes 0 to 4 with labels. All
nets see the same scenes in the same order, with the same steps and rate. Of 16 steps at 2e-4 and 60
at 1e-3 the second was better on development scenes, for `inpaint` and for scratch.
"""

import argparse
import json
from pathlib import Path

import torch
from pretrain_vit_mini import FOLDER, fashion

from sciforge.core.data.store import Store, prepare
from sciforge.core.training.run import Full, Hardware, Schedule
from sciforge.experiments.label_efficiency.run import measure
from sciforge.experiments.label_efficiency.spec import LabelEfficiency
from sciforge.experiments.methods import Recipe
from sciforge.images.data.scenes import Scenes
from sciforge.images.objectives.detection import DetectObjects

PARTS = {
    "inpaint": ("pretrained", "untrained"),
    "supervised": ("pretrained",),
    "relative": ("pretrained",),
}


def main() -> None:
    """Compose the scenes, measure the curves part by part and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=FOLDER)
    parser.add_argument("--runs", type=Path, default=Path("runs/images"))
    parser.add_argument("--scenes", type=int, nargs="+", default=[200])
    parser.add_argument("--tests", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--only", choices=PARTS, nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(1)
    objects = fashion(options.data, options.runs / "fashion")
    place = options.runs / f"scenes-{max(options.scenes)}-{options.tests}"
    spec = Scenes(
        images=objects.path,
        scenes=(max(options.scenes), 0, options.tests),
        size=(48, 48),
        scale=(0.5, 0.9),
    )
    store = Store.open(place) if place.exists() else prepare(spec, place)
    recipe = Recipe(
        Schedule(steps=options.steps, batch=8, lr=options.rate, kind="cosine", warmup=0.1),
        Full(),
        epochs=0.0,
    )
    for part in options.only or PARTS:
        spec = LabelEfficiency(
            data=store.path,
            out=options.runs / f"detection-{options.steps}-{part}",
            init=options.runs / part / "final",
            objective=DetectObjects(flip=1.0),
            sizes=tuple(options.scenes),
            seeds=options.seeds,
            methods=PARTS[part],
            recipe=recipe,
            hardware=Hardware(device="cpu", threads=1),
        )
        result = measure(spec)
        table = result.table()
        print(f"\n{part}\n| " + " | ".join(table.columns) + " |\n|" + "---|" * len(table.columns))
        for row in table.rows:
            print("| " + " | ".join(row) + " |")
        for method in PARTS[part]:
            found = [
                (run.labels, run.seed, run.metrics) for run in result.runs if run.method == method
            ]
            for labels, seed, metrics in found:
                text = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
                print(f"  {method}, {labels} scenes, seed {seed}: {text}")
        (options.runs / f"detection-{part}.json").write_text(
            json.dumps(result.to_json(), indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
