"""What tables and COCO JSON say of pictures: classes or numbers, splits, boxes.

A table is a CSV with a header. The column `image` names the picture: its path below the folder
given, or its bare file name. Boxes are (x0, y0, x1, y1) in pixels, x to the right, y down, the far
edges not included: a box around the whole of a picture of W x H pixels is (0, 0, W, H).

Legend of shape letters: K boxes of a picture.
"""

import csv
import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sciforge.core.data.groups import group_name
from sciforge.core.data.store import SPLIT_NAMES, SPLITS
from sciforge.core.files.decompression import bounded
from sciforge.errors import DataError, did_you_mean
from sciforge.images.data.readers import kind_of, read_arrays, read_idx

SPLIT_COLUMN = "split"
GEOMETRY = ("segmentation", "keypoints")  # of COCO's annotations, beside the box
CORNERS = ("x0", "y0", "x1", "y1")
OUTSIDE = 1.0  # pixels that a box may reach over the edge, for rounding; it is then cut there


@dataclass(frozen=True)
class ImageLabel:
    """The label and the split of one picture in a table.

    Args:
        label: class or number as text; empty where the source has none.
        split: place in SPLITS, None where the source has none.
        line: in the source.
        group: name of its group; empty where none is asked for.
    """

    label: str
    split: int | None
    line: int
    group: str = ""


@dataclass
class Boxes:
    """The boxes of one picture, in the order of the source; `problem` says why they cannot be
    used, `size` (rows, columns) is that of the picture as the source has it.
    """

    rows: list[tuple[float, float, float, float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    line: int | None = None
    problem: str = ""
    size: tuple[int, int] | None = None

    def arrays(
        self, classes: Mapping[str, int], size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes float32 [K, 4], cut at the edges, and classes int64 [K].

        Args:
            classes: name -> number.
            size: rows and columns of the picture.

        Raises:
            DataError: a box is empty, not finite, or more than a pixel outside the picture, or
                the source has the picture in another size.
        """
        if self.problem:
            raise DataError(self.problem)
        if self.size is not None and self.size != tuple(size):
            raise DataError(
                f"its boxes are of a picture of {self.size[1]} x {self.size[0]} pixels, the file"
                f" has {size[1]} x {size[0]}"
            )
        box_K4 = np.array(self.rows, np.float64).reshape(-1, 4)
        far = np.array([size[1], size[0]] * 2, np.float64)
        for box in box_K4:
            text = ", ".join(f"{x:g}" for x in box)
            if not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
                raise DataError(f"box ({text}) is empty: x0 < x1 and y0 < y1 must hold")
            if (box < -OUTSIDE).any() or (box > far + OUTSIDE).any():
                raise DataError(
                    f"box ({text}) reaches outside the picture of {size[1]} x {size[0]} pixels"
                )
        cut = np.clip(box_K4, 0, far).astype(np.float32)
        return cut, np.array([classes[name] for name in self.names], np.int64)


def split_number(text: str) -> int:
    """Return the place of a split's name in SPLITS; raises DataError with the nearest name.

    >>> split_number("Val")
    1
    """
    number = SPLIT_NAMES.get(text.strip().lower())
    if number is None:
        raise DataError(f"no split {text!r}; {did_you_mean(text.lower(), SPLITS)}")
    return number


def read_labels(
    path: Path, image_column: str, label_column: str, split_column: str, group_column: str = ""
) -> dict[str, ImageLabel]:
    """Return image name -> what a CSV says of it; the split column may be missing where it has
    its default name.

    Raises:
        DataError: a column is missing, a row is short, an image comes twice, or a split is unknown.
    """
    rows: dict[str, ImageLabel] = {}
    named = () if split_column == SPLIT_COLUMN else (split_column,)
    named = (*named, *((group_column,) if group_column else ()))
    for line, row in _rows(path, (image_column, label_column, *named)):
        name = row[image_column]
        if name in rows:
            raise DataError(
                f"image {name!r} is in line {rows[name].line} too; keep one", path, line
            )
        text = row.get(split_column, "")
        try:
            group = group_name(row[group_column]) if group_column else ""
            split = split_number(text) if text else None
            rows[name] = ImageLabel(row[label_column], split, line, group)
        except DataError as error:
            raise DataError(str(error), path, line) from None
    return rows


def read_boxes(path: Path, image_column: str) -> tuple[dict[str, Boxes], list[str]]:
    """Return image name -> boxes, and the names of classes, of a CSV or COCO JSON.

    A CSV has the columns x0, y0, x1, y1 and label; a row with all of them empty says that the
    picture has no object. Classes of COCO keep the order of their ids, those of a CSV are sorted.

    Raises:
        DataError: not such a file. What is wrong with one picture's boxes is told when they are
            used.
    """
    return read_coco(path) if path.suffix.lower() == ".json" else read_box_table(path, image_column)


def read_box_table(path: Path, image_column: str) -> tuple[dict[str, Boxes], list[str]]:
    """Return image name -> boxes, and the sorted names of classes, of a CSV; raises DataError."""
    tables: dict[str, Boxes] = {}
    for line, row in _rows(path, (image_column, *CORNERS, "label")):
        boxes = tables.setdefault(row[image_column], Boxes(line=line))
        cells = [row[name] for name in (*CORNERS, "label")]
        if not any(cells):
            continue
        try:
            corners = tuple(float(cell) for cell in cells[:4])
        except ValueError:
            boxes.problem = f"line {line} has a corner that is not a number"
            continue
        if not cells[4]:
            boxes.problem = f"line {line} has a box without a label"
        boxes.rows.append(corners)
        boxes.names.append(cells[4])
    return tables, sorted({name for boxes in tables.values() for name in boxes.names})


def read_coco(path: Path) -> tuple[dict[str, Boxes], list[str]]:
    """Return image name -> boxes, and the names of classes, of COCO's JSON (Lin et al. 2014, arXiv
    1405.0312).

    Pictures with a crowd region cannot be used: what is inside is neither object nor background.

    Raises:
        DataError: not JSON, or not COCO's fields.
    """
    body = _json(path)
    with _fields(path):
        names = {
            int(c["id"]): str(c["name"])
            for c in sorted(body["categories"], key=lambda c: int(c["id"]))
        }
        images = {entry["id"]: str(entry["file_name"]) for entry in body["images"]}
        _need_different(names.values(), "categories", path)
        _need_different([str(entry["file_name"]) for entry in body["images"]], "images", path)
        boxes_of = {str(e["file_name"]): Boxes(size=_size_of(e)) for e in body["images"]}
        for entry in body["annotations"]:
            boxes, kind = (
                boxes_of.get(images.get(entry["image_id"], "")),
                names.get(entry["category_id"]),
            )
            if boxes is None:
                raise DataError(
                    f"annotation {entry.get('id')!r} is of an image that is not listed; correct it",
                    path,
                )
            if kind is None or entry.get("iscrowd"):
                what = (
                    "a crowd region" if kind else f"the unknown category {entry['category_id']!r}"
                )
                boxes.problem = f"annotation {entry.get('id')!r} has {what}"
                continue
            x, y, width, height = map(float, entry["bbox"])
            boxes.rows.append((x, y, x + width, y + height))
            boxes.names.append(kind)
    return boxes_of, list(names.values())


def geometry_notes(path: Path) -> list[str]:
    """Return notes on what COCO's JSON holds beside boxes: it is not used."""
    if path.suffix.lower() != ".json":
        return []
    annotations = _json(path).get("annotations", ())
    counts = {what: sum(bool(entry.get(what)) for entry in annotations) for what in GEOMETRY}
    return [
        f"{what} of {count} annotations not used: boxes are"
        for what, count in counts.items()
        if count
    ]


def _size_of(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return rows and columns of an image of COCO, None where it does not say."""
    if "width" not in entry or "height" not in entry:
        return None
    return int(entry["height"]), int(entry["width"])


def _need_different(names: Iterable[str], what: str, path: Path) -> None:
    """Raise DataError where two entries of COCO have one name: their boxes would be mixed up."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"two {what} are called {twice[0]!r}; give each a name of its own", path)


class _fields:
    """Turns what a missing or odd field raises into a DataError of the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | AttributeError) and not isinstance(
            error, DataError
        ):
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"not COCO's JSON ({what}); correct it", self.path) from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, gzipped or not."""
    try:
        packed = path.suffix.lower() == ".gz"
        with bounded(gzip.open(path, "rb"), path) if packed else open(path, "rb") as raw:
            yield raw
    except FileNotFoundError:
        raise DataError("no such file; correct the path", path) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"not a whole gzip file ({error}); fetch it again", path) from None


def _json(path: Path) -> Any:
    with _opened(path) as raw:
        text = raw.read()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error}); correct it", path) from None


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, column -> stripped text) of the rows of a CSV that are not blank."""
    with _opened(path) as raw, TextIOWrapper(raw, "utf-8-sig", newline="") as handle:
        reader = csv.reader(handle)
        try:
            header = [cell.strip() for cell in next(reader, [])]
            if twice := [name for name in needed if header.count(name) > 1]:
                raise DataError(f"two columns are called {twice[0]!r}; rename one", path, 1)
            for name in needed:
                if name not in header:
                    raise DataError(
                        f"no column {name!r} in the header; {did_you_mean(name, header)}", path, 1
                    )
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"{len(cells)} cells under {len(header)} columns; correct the row",
                        path,
                        reader.line_num,
                    )
                yield (
                    reader.line_num,
                    dict(zip(header, (cell.strip() for cell in cells), strict=True)),
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"not a table in UTF-8 ({error}); correct it", path) from None


def header_of(path: Path) -> list[str]:
    """Return the names of the columns of a CSV."""
    with _opened(path) as raw, TextIOWrapper(raw, "utf-8-sig", newline="") as handle:
        return [cell.strip() for cell in next(csv.reader(handle), [])]


def of_name(table: Mapping[str, Any], name: str) -> Any | None:
    """Return what a table says of a picture: under its path, else under its bare file name.

    >>> of_name({"b.png": 1}, "a/b.png")
    1
    """
    matches = table.get(name)
    return table.get(name.rsplit("/", 1)[-1]) if matches is None else matches


def unmatched(
    table: Mapping[str, Any], names: list[str], path: Path
) -> list[tuple[str, int | None]]:
    """Return (name, line) of a table's entries that no picture bears; raises DataError where a
    name means two pictures, or a picture has two entries.
    """
    bare: dict[str, int] = {}
    for name in names:
        bare[name.rsplit("/", 1)[-1]] = bare.get(name.rsplit("/", 1)[-1], 0) + 1
    known, missing = set(names), []
    if twice := [name for name, count in Counter(names).items() if count > 1 and name in table]:
        raise DataError(
            f"several of the folders hold an image {twice[0]!r}; give the folder above them", path
        )
    by_path = {name.rsplit("/", 1)[-1] for name in table if "/" in name and name in known}
    for name, entry in table.items():
        line = getattr(entry, "line", None)
        if name in known:
            continue
        if bare.get(name, 0) > 1:
            raise DataError(
                f"{bare[name]} pictures are called {name!r}; give their paths below the folder",
                path,
                line,
            )
        if name in by_path:
            raise DataError(f"image {name!r} is there by its path too; keep one", path, line)
        if not bare.get(name):
            missing.append((name, line))
    return missing


def number(text: str) -> float:
    """Return a label as a finite number; raises DataError.

    >>> number("1.5")
    1.5
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"label {text!r} is not a finite number")
    return value


def label_text(label: Any) -> str:
    """Return the label of an array as text; the bytes of old numpy files as the text they hold.

    >>> label_text(np.bytes_(b"cat")), label_text(np.int64(3))
    ('cat', '3')
    """
    return label.decode(errors="replace") if isinstance(label, bytes) else str(label)


def label_array(path: Path, count: int) -> np.ndarray:
    """Return the labels [count] of an IDX, .npy or .npz file; raises DataError where there are
    not so many.
    """
    if kind_of(path) == "idx":
        labels = read_idx(path)
    else:
        arrays = read_arrays(path)
        labels = arrays.get("labels", next(iter(arrays.values())))
    if labels.shape != (count,):
        raise DataError(f"labels of shape {list(labels.shape)} for {count} pictures", path)
    return labels
