"""The images section of `sciforge demo`: hidden patches filled in, then few labels beside
rivals.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.files.tables import Section
from sciforge.core.training.run import Schedule

TASK = (
    "A Vision Transformer was pretrained by hiding three quarters of the patches of 54,000"
    " Fashion-MNIST images and filling them in; it saw no label. Here it learns ten classes from"
    " {labels} labelled images: a linear head is solved on the states of its patches. {tests} other"
    " images are the test. The same network with random weights and the rivals get the same labels,"
    " seed by seed. hog_linear is the classical rival: logistic regression on histograms of"
    " oriented gradients."
)
OBJECTS = (
    "The same network then learnt to find objects in {scenes} composed scenes, at an image size it"
    " was not pretrained at. In {tests} test scenes its average precision is {ap50:.2f} at an"
    " overlap of one half and {ap:.2f} over all overlaps."
)


def demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    """Fill in hidden patches and learn classes from few labels with vit-mini; find objects in
    scenes where `full`.

    Args:
        folder: for everything that is made.
        find: gives the path of bundled data by name.
        full: more numbers of labels and seeds, and objects in scenes; takes minutes.
    """
    import sciforge as sf
    from sciforge.experiments.methods import Recipe

    task = _dataset(folder / "images", sf.images.Images(files=(find("fashion-sample"),)))
    curve = sf.label_efficiency(
        task,
        init=find("vit-mini"),
        objective=sf.images.ClassifyImages(),
        sizes=(50, 100, 500) if full else (100,),
        seeds=5 if full else 3,
        methods=("pretrained", "untrained", "pixels_linear", "hog_linear"),
        recipe=Recipe(Schedule(steps=1, batch=32, lr=0.0, kind="constant"), epochs=0.0),
        out=folder / "curve",
    )
    test = task.split("test")
    shown = [test[i]["image"] for i in np.linspace(0, len(test) - 1, 8).astype(int)]
    model = sf.load(find("vit-mini"), device="cpu")
    filled = model.reconstruct(shown).save(folder / "filled.png")
    attended = model.attention(shown[:3]).save(folder / "attention.png")
    texts = [TASK.format(labels=500 if full else 100, tests=len(test))]
    pictures = [
        (
            filled,
            "Test images, the quarter of the patches that the network saw, and what it filled in.",
        ),
        (
            curve.save(folder / "curve.png"),
            "Test accuracy against the number of labels, with 95 % intervals.",
        ),
        (attended, "Where the last block looks: all heads, and each."),
    ]
    if full:
        text, picture = _objects(folder, task, find("vit-mini"))
        texts.append(text)
        pictures.append(picture)
    title = "Images: a Vision Transformer from hidden patches to few labels"
    return Section(title, tuple(texts), (curve.table(),), tuple(pictures))


def _dataset(place: Path, preparer: Any) -> Any:
    import sciforge as sf

    return sf.Dataset.open(place) if place.exists() else sf.prepare(preparer, place)


def _objects(folder: Path, images: Any, init: Path) -> tuple[str, tuple[Path, str]]:
    """Learn to find objects in scenes, measure how well, and draw some test scenes."""
    import sciforge as sf

    scenes = _dataset(
        folder / "scenes", sf.images.Scenes(images=images.path, scenes=(120, 0, 40), size=(48, 48))
    )
    model = sf.load(init, device="cpu").fit(scenes, verbose=False)
    metrics, test = model.evaluate(scenes), scenes.split("test")
    images = [test[i]["image"] for i in range(8)]
    picture = model.detect(images, score=0.2).save(folder / "objects.png")
    text = OBJECTS.format(
        scenes=len(scenes.split("train")), tests=len(test), ap50=metrics["ap50"], ap=metrics["ap"]
    )
    return text, (picture, "Test scenes with the detections and their scores.")
