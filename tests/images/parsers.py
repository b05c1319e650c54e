"""Valid files of images, and what reads them, for tests/core/test_hostile.py to damage."""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sciforge.images.data.annotations import read_box_table, read_coco, read_labels
from sciforge.images.data.readers import read_many, read_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
COCO = json.dumps(
    {
        "images": [{"id": 3, "file_name": "a.png", "width": 7, "height": 9}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 2, "bbox": [1, 2, 3.5, 4], "iscrowd": 0}
        ],
        "categories": [{"id": 2, "name": "cell"}],
    }
).encode()
LABELS = b'image,label,split\na.png,cell,train\nb.png,"no, cell",test\n'
BOXES = b"image,x0,y0,x1,y1,label\na.png,1,2,4.5,6,cell\na.png,0,0,3,3,debris\n"
IDX = b"\0\0\x08\x03" + struct.pack(">3I", 2, 3, 4) + bytes(range(24))


def picture(kind: str) -> bytes:
    """Return a small picture as a file."""
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind)
    return stream.getvalue()


def arrays() -> bytes:
    """Return pictures and labels as an .npz."""
    stream = io.BytesIO()
    np.savez(stream, images=PIXELS[None].repeat(2, 0), labels=np.array([0, 1]))
    return stream.getvalue()


# Name -> (a valid file, its ending, what reads it).
PARSERS: dict[str, tuple[bytes, str, Callable[[Path], Any]]] = {
    "png": (picture("PNG"), ".png", read_picture),
    "jpeg": (picture("JPEG"), ".jpg", read_picture),
    "tiff": (picture("TIFF"), ".tiff", read_picture),
    "arrays": (arrays(), ".npz", read_many),
    "idx": (IDX, ".idx", read_many),
    "coco": (COCO, ".json", read_coco),
    "picture labels": (LABELS, ".csv", lambda path: read_labels(path, "image", "label", "split")),
    "boxes": (BOXES, ".csv", lambda path: read_box_table(path, "image")),
}
