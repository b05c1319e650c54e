"""Few labels of Fashion-MNIST: masked patches and relative positions against scratch, supervised
pretraining and rivals.

    python benchmarks/images_few_labels.py ten  --data FOLDER --runs runs/images [--labels 10 50
    200] [--seeds 5] python benchmarks/images_few_labels.py five --data FOLDER --runs runs/images
    --labels 10

`ten`: all classes, so many labels of each; the parents saw no label. `five`: classes 5 to 9 alone,
so that the supervised parent, which saw labels of the classes 0 to 4, meets new ones. --runs holds
the parents that pretrain_vit_mini.py made. Every method sees the same labels, seed by seed; a
stopped run goes on where it was. The head (means of patches in a grid of 7 by 7, of the last layer)
was chosen on the validation split, for all nets alike.
"""

import argparse
import json
from pathlib import Path

import torch
from pretrain_vit_mini import CLASSES, FOLDER, fashion

from sciforge.core.training.run import Full, Hardware, Schedule
from sciforge.experiments.label_efficiency.run import measure
from sciforge.experiments.label_efficiency.spec import LabelEfficiency
from sciforge.experiments.methods import Recipe
from sciforge.images import ClassifyImages

# Gentle steps from the solved head, for pretrained and scratch alike.
NETS = Recipe(
    Schedule(steps=16, batch=32, lr=2e-4, kind="step", warmup=0.1),
    Full(layer_decay=0.8),
    epochs=1.0,
)
PARTS = {
    "inpaint": ("inpaint", ("pretrained", "untrained", "frozen")),
    "relative": ("relative", ("pretrained",)),
    "supervised": ("supervised", ("pretrained",)),
    "baselines": ("inpaint", ("pixels_linear", "hog_linear", "small_cnn")),
}


def main() -> None:
    """Measure the curves part by part and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=("ten", "five"))
    parser.add_argument("--data", type=Path, default=FOLDER)
    parser.add_argument("--runs", type=Path, default=Path("runs/images"))
    parser.add_argument(
        "--labels", type=int, nargs="+", default=[10, 50, 200], help="of each class"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--tests", type=int, default=1, help="judge by every so many-th test picture"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=PARTS, nargs="+", help="measure these parts only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    classes = CLASSES if options.task == "ten" else CLASSES[5:]
    name = f"{options.task}-every-{options.tests}"
    store = fashion(options.data, options.runs / f"store-{name}", classes, options.tests)
    for part in options.only or PARTS:
        if part == "supervised" and options.task == "ten":
            continue  # it saw labels of half of these classes
        parent, methods = PARTS[part]
        spec = LabelEfficiency(
            data=store.path,
            out=options.runs / f"curve-{name}-{part}",
            init=options.runs / parent / "final",
            objective=ClassifyImages(bins=7),
            sizes=tuple(n * len(classes) for n in options.labels),
            seeds=options.seeds,
            methods=methods,
            recipe=NETS,
            hardware=Hardware(device="cpu", threads=options.threads),
        )
        result = measure(spec)
        table = result.table()
        print(
            f"\n{part}, {len(store.split('test'))} test pictures\n| "
            + " | ".join(table.columns)
            + " |"
        )
        print("|" + "---|" * len(table.columns))
        for row in table.rows:
            print("| " + " | ".join(row) + " |")
        (options.runs / f"curve-{name}-{part}.json").write_text(
            json.dumps(result.to_json(), indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
