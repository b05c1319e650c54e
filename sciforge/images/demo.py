"""The images section of `sciforge demo`: hidden patches filled in, few labels, and objects found in scenes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from sciforge.core.data import sampling
from sciforge.core.data.store import Store, prepare
from sciforge.core.files.tables import Section, Table
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Run, Schedule, Subset
from sciforge.images.data.prepare import Images
from sciforge.images.data.scenes import Scenes
from sciforge.images.evaluation.baselines import BASELINES
from sciforge.images.inference.outputs import attention, box_panel, reconstruct
from sciforge.images.inference.sheets import ImageSheet
from sciforge.images.model.center_maps import clearest
from sciforge.images.objectives.detection import DetectObjects
from sciforge.images.objectives.supervised import ClassifyImages

LABELS = 100  # ten of each class
SEEDS = 3
# The head alone: gentle steps after it add little with so few labels.
SOLVED = Schedule(steps=1, batch=32, lr=0.0, kind="constant")
FIND = Schedule(steps=30, batch=8, lr=1e-3, kind="cosine", warmup=0.1)
SCENES = (120, 0, 40)  # train, validation, test
RIVALS = ("pixels_linear", "hog_linear")
WHAT = (
    "A Vision Transformer was pretrained by hiding three quarters of the patches of 54,000 training pictures of Fashion-MNIST and "
    "filling them in; it saw no label. Here it learns classes from {labels} labelled pictures, ten of each class: a linear head is "
    "solved on the states of its patches. It is judged on {tests} test pictures. The same net with random weights and the rivals get "
    "the same labels, seed by seed."
)
FOUND = (
    "The same net then learnt to find objects in {scenes} scenes composed of training pictures, at a size it was not pretrained at "
    "(its places are interpolated). In {tests} scenes of objects it has never seen its average precision is {ap50:.2f} at an overlap "
    "of one half and {ap:.2f} over all overlaps; from scratch, with the same {steps} steps, {scratch50:.2f} and {scratch:.2f}. "
    "One seed."
)


def demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    """Fill in hidden patches, learn classes from few labels and find objects, with the bundled checkpoint vit-mini.

    Args:
        folder: for everything that is made.
        find: gives the path of bundled data by name.
        full: more numbers of labels and seeds; takes minutes.
    """
    init = find("vit-mini")
    objects = _made(folder / "pictures", lambda: Images(files=(find("fashion-sample"),)))
    model = Model.load(init, device="cpu")
    test = objects.split("test")
    shown = [test[i] for i in np.linspace(0, len(test) - 1, 8).astype(int)]
    pictures = [record["image"] for record in shown]
    filled = reconstruct(model, pictures).save(folder / "filled.png")
    attended = attention(model, pictures[:3]).save(folder / "attention.png")
    accuracy = {name: [compared(name, objects, folder, init, seed) for seed in range(SEEDS)] for name in _methods()}
    scenes = _made(folder / "scenes", lambda: Scenes(images=objects.path, scenes=SCENES, size=(48, 48)))
    metrics, detections = _detection(scenes, folder, init)
    paragraphs = (WHAT.format(labels=LABELS, tests=len(test)), metrics)
    captioned = (
        (filled, "Test pictures, the quarter of the patches that the encoder saw, and what was filled in."),
        (
            detections,
            "Test scenes: the clearest detections, as many as there are objects, with scores in hundredths; true boxes are dashed.",
        ),
        (attended, "Where the last block looks, all heads and each."),
    )
    return Section(
        "Images: a Vision Transformer from hidden patches to few labels", paragraphs, (_table(accuracy),), captioned
    )


def _made(place: Path, what: Callable[[], Images | Scenes]) -> Store:
    return Store.open(place) if place.exists() else prepare(what(), place)


def _methods() -> tuple[str, ...]:
    return ("pretrained", "scratch", *RIVALS)


def compared(method: str, store: Store, folder: Path, init: Path, seed: int) -> float:
    """Return the test accuracy of a method that learnt from a draw of the labels."""
    test = store.split("test")
    if method in RIVALS:
        objective, train_rows = ClassifyImages().resolve(store), store.split("train")
        few = train_rows.take(sampling.balanced_subset(train_rows.labels(), LABELS, seed))
        return objective.metrics(BASELINES[method](objective, few, test, seed), test)["accuracy"]
    return _learnt(store, folder / f"{method}-{seed}", init, method, ClassifyImages(), SOLVED, seed)["accuracy"]


def _learnt(
    store: Store,
    out: Path,
    init: Path,
    method: str,
    objective: ClassifyImages | DetectObjects,
    schedule: Schedule,
    seed: int = 0,
) -> dict[str, float]:
    """Return the test metrics of the bundled net, or of the same net from scratch, after a fine-tuning."""
    if not (out / "final").exists():
        subset = Subset(LABELS, seed) if isinstance(objective, ClassifyImages) else None
        run = Run(data=store.path, out=out, init=init, objective=objective, schedule=schedule, subset=subset, seed=seed)
        if method == "scratch":
            parent = Model.load(init, device="cpu").checkpoint
            run = replace(run, init=None, model=parent.model_config, codec=parent.codec)
        train(run)
    return Model.load(out, device="cpu").evaluate(store, split="test")


def _table(accuracy: dict[str, list[float]]) -> Table:
    names = {
        "pretrained": "ViT, pretrained on hidden patches",
        "scratch": "the same ViT, random weights",
        "pixels_linear": "logistic regression on pixels",
        "hog_linear": "logistic regression on HOG",
    }
    rows = tuple(
        (names[name], f"{np.mean(found):.3f}", " ".join(f"{x:.3f}" for x in found)) for name, found in accuracy.items()
    )
    better = np.subtract(accuracy["pretrained"], accuracy["scratch"])
    note = f"Pretrained less random weights, seed by seed: {' '.join(f'{x:+.3f}' for x in better)}."
    return Table((f"{LABELS} labels", "test accuracy", "each seed"), rows, note)


def _detection(scenes: Store, folder: Path, init: Path) -> tuple[str, Path]:
    """Learn to find objects, say how well, and draw some test scenes."""
    objective = DetectObjects(flip=1.0)
    metrics = {name: _learnt(scenes, folder / f"find-{name}", init, name, objective, FIND) for name in _methods()[:2]}
    model, test = Model.load(folder / "find-pretrained", device="cpu"), scenes.split("test")
    records = [test[i] for i in range(8)]
    detections = model.outputs(records)["detections"]
    import pandas as pd

    panels = [
        box_panel(
            record["image"], clearest(detection_T6, len(record["boxes"])), model.objective.classes, record["boxes"]
        )
        for record, detection_T6 in zip(records, detections, strict=True)
    ]
    picture = ImageSheet(pd.DataFrame(), [panels[:4], panels[4:]]).save(folder / "detections.png")
    best, scratch = metrics["pretrained"], metrics["scratch"]
    text = FOUND.format(
        scenes=SCENES[0],
        steps=FIND.steps,
        tests=SCENES[2],
        ap50=best["ap50"],
        ap=best["ap"],
        scratch50=scratch["ap50"],
        scratch=scratch["ap"],
    )
    return text, picture
