"""What hue jitter erases: pictures whose hue and shape are independent labels, learnt with and
without hue turned at random.

    python benchmarks/images_hue.py --data FOLDER --out runs/hue [--seeds 3]

Objects of Fashion-MNIST (trouser, pullover, sneaker, bag) in one of four hues. Three questions,
each with hue jitter 0 and 0.5: `labels`: the net is trained on the labels themselves; `shape, then
probe`: it is pretrained on the shapes, then a linear head is solved for hue or shape on other
pictures as they are; `patches, then probe`: the same after masked-patch pretraining. The last
column is what `sciforge train` says before the first step. Chance is 0.25.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from pretrain_vit_mini import CLASSES, FOLDER

import sciforge as sf
from sciforge.core.data.store import Store, prepare
from sciforge.core.training.model import Model
from sciforge.images import ClassifyImages, ImageCodec, InpaintPatches, VitConfig
from sciforge.images.data.augmentations import colours
from sciforge.images.data.prepare import Images
from sciforge.images.data.readers import read_idx

SHAPES = ("trouser", "pullover", "sneaker", "bag")
HUES = {"red": 0.0, "green": 0.25, "cyan": 0.5, "violet": 0.75}
HILL_STD = 0.03  # of a hue within its class, as a share of the colour circle
COUNTS = {"train": 1600, "t10k": 1000}
NET = VitConfig(width=64, depth=3, heads=4, hidden=168)


def tinted(folder: Path, out: Path, what: str) -> Store:
    """Return the store of tinted objects labelled by `hue` or `shape`, made where it is missing;
    the pictures are the same.
    """
    if out.exists():
        return Store.open(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    files, rng = {}, np.random.default_rng(0)
    for part, count in COUNTS.items():
        image_NHW, label_N = (
            read_idx(folder / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")
        )
        shape_N = [CLASSES.index(name) for name in SHAPES]
        chosen = np.flatnonzero(np.isin(label_N, shape_N))[:count]
        hue_N = rng.integers(0, len(HUES), count)
        turn_N = np.array(list(HUES.values()))[hue_N] + rng.normal(0, HILL_STD, count)
        value_NHW = image_NHW[chosen].astype(np.float32)
        tint = [
            colours(np.full_like(v, t % 1), np.full_like(v, 0.8), v)
            for v, t in zip(value_NHW, turn_N, strict=True)
        ]
        names = np.array(list(HUES))[hue_N] if what == "hue" else np.array(CLASSES)[label_N[chosen]]
        files[part] = out.parent / f".{out.name}-{part}.npz"
        np.savez(files[part], images=np.rint(np.stack(tint)).astype(np.uint8), labels=names)
    store = prepare(Images(files=(files["train"],), test=(files["t10k"],)), out)
    for file in files.values():
        file.unlink()
    return store


def trained(run: sf.Run) -> tuple[Path, bool]:
    """Return the checkpoint of a run (of an earlier call, perhaps) and whether it was warned of
    before the first step.
    """
    mark = run.out / "warned"
    if not mark.exists():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            sf.train(run)
        mark.write_text("yes" if any("hue" in str(w.message) for w in said) else "no")
    return run.out / "final", mark.read_text() == "yes"


def accuracy(checkpoint: Path, store: Store) -> float:
    """Return the accuracy on the test pictures as they are."""
    return Model.load(checkpoint, "cpu", 256).evaluate(store, split="test")["accuracy"]


def main() -> None:
    """Train and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, default=Path("runs/hue"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    torch.set_num_threads(1)
    stores = {
        what: tinted(options.data, options.out / f"store-{what}", what) for what in ("hue", "shape")
    }
    schedule = sf.Schedule(steps=options.steps, batch=64, lr=2e-3, weight_decay=0.05)
    probe = sf.Schedule(steps=1, batch=32, lr=0.0, kind="step")
    fresh = {"model": NET, "codec": ImageCodec(patch=4), "schedule": schedule}
    hardware = sf.Hardware(device="cpu", threads=1)
    print(
        "| learnt how | judged on | without jitter | hue jitter 0.5 | difference | warned with"
        " jitter |\n|---|---|---|---|---|---|"
    )
    for how in ("labels", "shape, then probe", "patches, then probe"):
        for what, store in stores.items():
            found, warned = np.zeros((options.seeds, 2)), set()
            for seed in range(options.seeds):
                for place, hue in enumerate((0.0, 0.5)):
                    common = {"hardware": hardware, "seed": seed}
                    name = f"{how.split(',')[0]}-{hue:g}-{seed}"
                    if how == "labels":
                        run = sf.Run(
                            data=store.path,
                            out=options.out / f"{name}-{what}",
                            objective=ClassifyImages(hue=hue),
                            **fresh,
                            **common,
                        )
                        checkpoint, told = trained(run)
                    else:
                        objective = (
                            ClassifyImages(hue=hue)
                            if how.startswith("shape")
                            else InpaintPatches(hue=hue)
                        )
                        data = stores["shape"].path
                        parent, told = trained(
                            sf.Run(
                                data=data,
                                out=options.out / name,
                                objective=objective,
                                **fresh,
                                **common,
                            )
                        )
                        run = sf.Run(
                            data=store.path,
                            out=options.out / f"{name}-probe-{what}",
                            init=parent,
                            objective=ClassifyImages(),
                            finetuning=sf.Freeze(),
                            schedule=probe,
                            subset=sf.Subset(200, seed),
                            **common,
                        )
                        checkpoint, _ = trained(run)
                    found[seed, place] = accuracy(checkpoint, store)
                    warned |= {told} if hue else set()
            mean, gap = found.mean(0), found[:, 1] - found[:, 0]
            said = "yes" if warned == {True} else "no" if warned == {False} else "some"
            std = f" ± {gap.std(ddof=1):.3f}" if len(gap) > 1 else ""
            print(
                f"| {how} | {what} | {mean[0]:.3f} | {mean[1]:.3f} | {gap.mean():+.3f}{std} |"
                f" {said} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
