"""Make the bundled pictures anew out of Fashion-MNIST; run it as `python datasets/build_images.py
FOLDER`.

FOLDER holds the four IDX files: `apt install dataset-fashion-mnist` puts them into
/usr/share/datasets/fashion-mnist. Prints size and SHA-256 of the file; one that differs from what
its card records is an error.
"""

import argparse
import hashlib
import io
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np

from sciforge.images.data.readers import read_idx

HERE = Path(__file__).resolve().parent
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
# pictures of each class; those of the test come from the 10,000 test pictures
TRAIN, DEV, TEST = 120, 20, 60


def first_of_each(label_N: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return the places of the pictures `start` to `stop` of every class, ascending."""
    return np.sort(
        np.concatenate(
            [np.flatnonzero(label_N == number)[start:stop] for number in range(len(CLASSES))]
        )
    )


def sample(folder: Path) -> bytes:
    """Return an .npz of images, labels and splits."""
    images, labels, splits = [], [], []
    for part, ranges in (
        ("train", ((0, 0, TRAIN), (1, TRAIN, TRAIN + DEV))),
        ("t10k", ((2, 0, TEST),)),
    ):
        picture_NHW = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
        label_N = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
        for split, start, stop in ranges:
            chosen = first_of_each(label_N, start, stop)
            images.append(picture_NHW[chosen])
            labels.append(np.array(CLASSES)[label_N[chosen]])
            splits.append(np.full(len(chosen), split, np.uint8))
    arrays = {"images": images, "labels": labels, "splits": splits}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:  # as np.savez_compressed, at the highest level
        for name, parts in arrays.items():
            array = io.BytesIO()
            np.save(array, np.concatenate(parts), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, array.getvalue(), compresslevel=9)
    return out.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    data = sample(parser.parse_args().folder)
    card = tomllib.loads((HERE / "fashion-sample.toml").read_text(encoding="utf-8"))
    (HERE / card["file"]).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    same = digest == card.get("sha256")
    print(
        "fashion-sample",
        len(data),
        digest,
        "as its card says" if same else "NOT what its card says",
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
