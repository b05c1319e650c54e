"""What tests/test_contract.py needs of this domain: a tiny store and two tiny runs on it."""

from pathlib import Path

import numpy as np

from sciforge.core.data.store import Store, prepare
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.images import ClassifyImages, ImageCodec, InpaintPatches, VitConfig
from sciforge.images.data.prepare import Images


def shapes(folder: Path, num: int = 64, side: int = 12, seed: int = 0) -> tuple[Path, Path]:
    """Write grey images of bars that lie or stand, and their classes, as arrays."""
    rng = np.random.default_rng(seed)
    image_NHW = rng.integers(0, 40, (num, side, side)).astype(np.uint8)
    label_N = np.arange(num) % 2
    for image_HW, standing in zip(image_NHW, label_N, strict=True):
        at, start = rng.integers(1, side - 2), rng.integers(0, side // 2)
        bar = (slice(start, start + side // 2), slice(at, at + 2))
        image_HW[bar if standing else bar[::-1]] = rng.integers(150, 255)
    paths = folder / "bars.npy", folder / "bars-labels.npy"
    for path, array in zip(paths, (image_NHW, label_N), strict=True):
        np.save(path, array)
    return paths


def tiny(folder: Path) -> tuple[Store, Run, Run]:
    """Return a store, a pretraining run on it, and a fine-tuning run from that run's checkpoint."""
    images, labels = shapes(folder)
    options = {"classes": ("lying", "standing"), "test_share": 0.2, "validation_share": 0.2}
    store = prepare(Images(files=(images,), labels=(labels,), **options), folder / "store")
    common = {"hardware": Hardware(device="cpu", precision="float64", threads=1), "seed": 3}
    pretraining = Run(
        data=folder / "store",
        out=folder / "pretraining",
        model=VitConfig(width=16, depth=2, heads=2, hidden=32),
        codec=ImageCodec(patch=3),
        objective=InpaintPatches(decoder_width=16, decoder_depth=1, decoder_heads=2, flip=0.5),
        schedule=Schedule(steps=6, batch=8, lr=5e-3, evaluate_every=3),
        **common,
    )
    finetuning = Run(
        data=folder / "store",
        out=folder / "finetuning",
        init=pretraining.out,
        objective=ClassifyImages(bins=2, warm_start=False),
        schedule=Schedule(steps=6, batch=8, lr=5e-3, kind="step", evaluate_every=2, patience=3),
        **common,
    )
    return store, pretraining, finetuning
