"""Small stores of drawn images, for tests of this domain."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_runs import ROOT, load_file

from sciforge.core.data.store import Store, prepare
from sciforge.images.data.prepare import Images

SHARES = {"test_share": 0.25, "validation_share": 0.1}


def shapes_store(folder: Path, num: int = 60, labels: bool = True) -> Store:
    """Prepare bars that lie or stand."""
    images, classes = load_file(ROOT / "tests/images/contract.py").shapes(folder, num)
    given = {"labels": (classes,), "classes": ("lying", "standing")} if labels else {}
    return prepare(Images(files=(images,), **given, **SHARES), folder / "bars")


def coloured(folder: Path, num: int = 160, numeric: bool = False) -> Store:
    """Prepare red and green discs anywhere before grey noise; the class is the colour, or a
    number that it stands for.
    """
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:12, :12]
    pictures = rng.integers(90, 110, (num, 12, 12, 1)).repeat(3, 3).astype(np.uint8)
    for i, picture in enumerate(pictures):
        y, x = rng.uniform(3, 9, 2)
        disc = (row - y) ** 2 + (column - x) ** 2 < rng.uniform(6, 9)
        picture[disc] = (20, 20, 20)
        picture[disc, i % 2] = rng.integers(180, 250)
    label_N = np.arange(num) % 2
    np.savez(
        folder / "discs.npz", images=pictures, labels=20.0 + 6.0 * label_N if numeric else label_N
    )
    asked = {"numeric": True} if numeric else {"classes": ("red", "green")}
    return prepare(Images(files=(folder / "discs.npz",), **asked, **SHARES), folder / "discs")


def scenes_store(folder: Path, num: int = 160, segments: bool = False) -> Store:
    """Prepare one or two objects an image before noise, lying bars and squares, with their boxes
    (and label maps).
    """
    rng = np.random.default_rng(0)
    for name in ("pictures", "masks"):
        (folder / name).mkdir()
    with open(folder / "boxes.csv", "w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["image", "x0", "y0", "x1", "y1", "label"])
        for i in range(num):
            picture, mask = (
                rng.integers(0, 30, (24, 24)).astype(np.uint8),
                np.zeros((24, 24), np.uint8),
            )
            for half in range(int(rng.integers(1, 3))):
                kind = int(rng.integers(2))
                high, wide = (4, 10) if kind == 0 else (7, 7)
                top, left = (
                    int(rng.integers(0, 12 - high)) + 12 * half,
                    int(rng.integers(0, 24 - wide)),
                )
                picture[top : top + high, left : left + wide] = 200
                mask[top : top + high, left : left + wide] = kind + 1
                rows.writerow(
                    [f"{i:03d}.png", left, top, left + wide, top + high, ("bar", "square")[kind]]
                )
            Image.fromarray(picture).save(folder / f"pictures/{i:03d}.png")
            Image.fromarray(mask).save(folder / f"masks/{i:03d}.png")
    asked = {"boxes": folder / "boxes.csv"} | ({"masks": folder / "masks"} if segments else {})
    return prepare(Images(files=(folder / "pictures",), **asked, **SHARES), folder / "scenes")
