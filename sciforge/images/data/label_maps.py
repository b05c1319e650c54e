"""Label maps of pictures: a class for every pixel, as PNG files of 1 or 8 bits."""

from pathlib import Path

import numpy as np

from sciforge.core.data.store import Store
from sciforge.errors import DataError
from sciforge.images.data import input_notes

IGNORE = 255  # value of a label map that is no class


def read_label_map(
    path: Path, size: tuple[int, int], mask_classes: tuple[int, ...] = ()
) -> np.ndarray:
    """Return a label map, uint8 [H, W].

    Args:
        path: PNG.
        size: rows and columns of its picture.
        mask_classes: the values that are the classes 0, 1, ...; empty where a value is its class.

    Raises:
        DataError: it is missing, of another size, not of 1 or 8 bits, or holds another value.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode not in ("1", "L", "P"):
                raise DataError(f"mode {image.mode}; a label map has one channel of 8 bits", path)
            label_map = np.asarray(image).astype(np.uint8)
    except FileNotFoundError:
        raise DataError("no label map of this name", path) from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"not a readable label map ({error})", path) from None
    if label_map.shape != size:
        raise DataError(
            f"{label_map.shape[1]} x {label_map.shape[0]} pixels, its picture {size[1]} x"
            f" {size[0]}",
            path,
        )
    if not mask_classes:
        return label_map
    numbers = np.full(256, -1)
    numbers[IGNORE] = IGNORE
    numbers[list(mask_classes)] = np.arange(len(mask_classes))
    if (strange := label_map[numbers[label_map] < 0]).size:
        raise DataError(f"the value {strange[0]} is none of the mask classes", path)
    return numbers[label_map].astype(np.uint8)


def classes_of_maps(
    store: Store, mask_classes: tuple[int, ...], folder: Path
) -> tuple[int, list[str]]:
    """Return the number of classes of the label maps of a store, and notes on their values.

    Args:
        store: with the column `segments`.
        mask_classes: as for `read_label_map`.
        folder: of the maps, for errors.

    Raises:
        DataError: they hold 0 and 255 only: their foreground would be no class.
    """
    count_V = np.zeros(256, np.int64)
    for i in range(len(store)):
        map_HW = np.asarray(store[i]["segments"])
        # the frame around a scaled map is 255 too, in whole rows or columns
        framed_HW = (map_HW == IGNORE).all(1)[:, None] | (map_HW == IGNORE).all(0)
        count_V += np.bincount(map_HW[~framed_HW], minlength=256)
    values = np.flatnonzero(count_V[:IGNORE])
    if mask_classes:
        return len(mask_classes), []
    if values.tolist() in ([], [0]) and count_V[IGNORE]:
        raise DataError(
            "the label maps hold 0 and 255 only, and 255 is no class; give --mask-classes 0 255"
            " where 255 is the foreground",
            folder,
        )
    return int(values.max(initial=0)) + 1, input_notes.mask_notes(count_V)
