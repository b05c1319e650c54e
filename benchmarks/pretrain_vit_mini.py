"""The recipe of the bundled checkpoint vit-mini, as it was run (one shared CPU core), and of the
parents it is compared with.

    python benchmarks/pretrain_vit_mini.py inpaint    --data FOLDER --out runs/images
    python benchmarks/pretrain_vit_mini.py relative   --data FOLDER --out runs/images
    python benchmarks/pretrain_vit_mini.py supervised --data FOLDER --out runs/images

FOLDER holds the four IDX files of Fashion-MNIST: `apt install dataset-fashion-mnist` puts them into
/usr/share/datasets/fashion-mnist. `inpaint` and `relative` see the 54,000 training pictures (6,000
more are the development split, 10,000 the test) and no label. `supervised` sees pictures and labels
of the classes 0 to 4 alone (T-shirt, trouser, pullover, dress, coat: 27,000 of them), so that few
labels of the classes 5 to 9 are new to it.
"""

import argparse
from pathlib import Path

import numpy as np

import sciforge as sf
from sciforge.core.data.store import Store, prepare
from sciforge.images import ClassifyImages, ImageCodec, InpaintPatches
from sciforge.images.data.prepare import Images
from sciforge.images.data.readers import read_idx
from sciforge.images.objectives.relative_position import RelativePositions

CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
)
FOLDER = Path("/usr/share/datasets/fashion-mnist")
PARTS, KINDS = ("train", "t10k"), ("images-idx3", "labels-idx1")
OBJECTIVES = {
    "inpaint": (InpaintPatches(), {"steps": 2500, "batch": 128, "lr": 1.5e-3}),
    "relative": (RelativePositions(), {"steps": 400, "batch": 64, "lr": 1e-3}),
    "supervised": (ClassifyImages(warm_start=False), {"steps": 250, "batch": 64, "lr": 1e-3}),
}


def fashion(folder: Path, out: Path, classes: tuple[str, ...] = CLASSES, tests: int = 1) -> Store:
    """Return the store of some classes, made where it is missing; every `tests`-th test picture
    of a class is kept.
    """
    if out.exists():
        return Store.open(out)
    idx = {(part, kind): folder / f"{part}-{kind}-ubyte.gz" for part in PARTS for kind in KINDS}
    if classes == CLASSES and tests == 1:
        images, labels = (tuple(idx[part, kind] for part in PARTS) for kind in KINDS)
        return prepare(
            Images(files=images[:1], test=images[1:], labels=labels, classes=classes), out
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    files = {}
    for part, every in zip(PARTS, (1, tests), strict=True):
        image_NHW, label_N = (read_idx(idx[part, kind]) for kind in KINDS)
        kept = [np.flatnonzero(label_N == CLASSES.index(name))[::every] for name in classes]
        chosen = np.sort(np.concatenate(kept))
        files[part] = out.parent / f".{out.name}-{part}.npz"
        np.savez(files[part], images=image_NHW[chosen], labels=np.array(CLASSES)[label_N[chosen]])
    store = prepare(Images(files=(files["train"],), test=(files["t10k"],)), out)
    for file in files.values():
        file.unlink()
    return store


def main() -> None:
    """Prepare the pictures where they are missing and train, or go on with a run that was
    stopped.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=OBJECTIVES)
    parser.add_argument("--data", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, default=Path("runs/images"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    objective, sizes = OBJECTIVES[options.what]
    classes = CLASSES[:5] if options.what == "supervised" else CLASSES
    store = fashion(
        options.data,
        options.out / ("fashion-0-4" if options.what == "supervised" else "fashion"),
        classes,
    )
    run = sf.Run(
        data=store.path,
        out=options.out / options.what,
        model="vit-mini",
        codec=ImageCodec(patch=4),
        objective=objective,
        schedule=sf.Schedule(
            **sizes, kind="cosine", min_lr_ratio=0.02, weight_decay=0.05, save_every=250
        ),
        hardware=sf.Hardware(threads=options.threads),
    )
    checkpoint = sf.train(run, resume=True)
    print(f"{checkpoint.path}: step {checkpoint.step}")


if __name__ == "__main__":
    main()
