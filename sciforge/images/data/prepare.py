"""What `sciforge prepare images` makes of pictures: uint8 arrays of one size, with classes,
numbers, boxes or label maps.

Columns: `image` uint8 [H, W, C], `name` text, `split` uint8 (places in SPLITS; LEFT_OUT is in
none), and where asked for `label` text or `value` float64, `boxes` float32 [K, 4] with `box_labels`
int64 [K], `segments` uint8 [H, W] (IGNORE is no class), `group` text. Pictures that are the same
byte for byte stay in one split: where a file list says otherwise the most held-out copy is kept and
the others are LEFT_OUT, and counted.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from sciforge.core.data import sampling
from sciforge.core.data.groups import UNDRAWN as OPEN
from sciforge.core.data.groups import groups_of, split_by_group
from sciforge.core.data.store import SPLIT_NAMES, Reject, ShardWriter, Store
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError
from sciforge.images.data import input_notes
from sciforge.images.data.annotations import (
    CORNERS,
    SPLIT_COLUMN,
    Boxes,
    ImageLabel,
    geometry_notes,
    label_array,
    label_text,
    number,
    of_name,
    read_boxes,
    read_labels,
    unmatched,
)
from sciforge.images.data.label_maps import IGNORE, classes_of_maps, read_label_map
from sciforge.images.data.readers import (
    FULL_WHITE,
    Fit,
    Rules,
    kind_of,
    pictures_in,
    read_many,
    read_picture,
)
from sciforge.images.data.splits import LEFT_OUT, UNDRAWN, digests, drawn_splits

OnReject = Callable[[Reject], None] | None
MEND = "correct it, or skip bad records with --on-error skip"
CHUNK = 1024  # picture files of a shard


@dataclass(frozen=True)
class Item:
    """One file: its name in tables, the split it was given for (None for none), and its label
    file if it holds many.
    """

    path: Path
    name: str
    split: int | None
    labels: Path | None = None


@dataclass(frozen=True)
class Chunk:
    """Files of one shard and the frame of the store; `missing` are names in tables that no
    picture bears.
    """

    items: tuple[Item, ...]
    size: tuple[int, int]
    channels: int
    missing: tuple[tuple[Path, str, int | None], ...] = ()

    def __str__(self) -> str:
        return str(self.items[0].path)


@dataclass(frozen=True, kw_only=True)
class Images(Settings):
    """Pictures from folders of PNG, JPEG, TIFF, BMP, GIF and WebP files, from arrays (.npy, .npz)
    and from IDX files.

    Args:
        files: folders, picture files, arrays, IDX files (plain or gzipped).
        validation, test: the same, for the development and test splits.
        labels: a CSV (columns of the names below), or for arrays and IDX files one file of labels
            each, in their order (files, then validation, then test); an .npz may hold its own, see
            `read_many`.
        folder_labels: the folder a picture lies in is its class; folders above it called train,
            validation (val) or test are its split.
        image_column, label_column, split_column: of CSV files; the column `split` may be missing.
        group_column: of CSV files, names what must not be in two splits (patient, slide); the
            splits are then drawn by groups, not class by class.
        classes: names of integer labels, 0 first.
        numeric: the labels are numbers (for regression), not classes.
        boxes: a CSV (image, x0, y0, x1, y1, label) or COCO JSON; a picture it does not name is
            rejected.
        masks: folder of label maps of 1 or 8 bits (PNG), each at the same place and of the same
            name as its picture but for the suffix; 255 is no class.
        mask_classes: the values of label maps that are the classes 0, 1, ... (0 255 for binary
            maps); by default a value is the number of its class.
        size: rows and columns; pictures of another size are scaled to fit and framed with the
            background. Without it pictures of another size than the first are rejected.
        channels: `grey` or `rgb`; by default as the first picture, and a colour picture in a grey
            store is rejected.
        alpha: `composite` lays transparent pictures on the background, `reject` refuses them.
        background: red, green, blue.
        white: the 16-bit value that becomes 255; the full range of 16 bits by default, 4095 for a
            12-bit camera.
        test_share, validation_share: drawn, class by class, for a split that nothing is named for.
        seed: of the splits.
    """

    files: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    labels: tuple[Path, ...] = ()
    folder_labels: bool = False
    image_column: str = "image"
    label_column: str = "label"
    split_column: str = SPLIT_COLUMN
    group_column: str = ""
    classes: tuple[str, ...] = ()
    numeric: bool = False
    boxes: Path | None = None
    masks: Path | None = None
    mask_classes: tuple[int, ...] = ()
    size: tuple[int, int] | None = None
    channels: Literal["grey", "rgb"] | None = None
    alpha: Literal["composite", "reject"] = "composite"
    background: tuple[int, int, int] = (255, 255, 255)
    white: int = FULL_WHITE
    test_share: float = 0.2
    validation_share: float = 0.1
    seed: int = 0

    domain: ClassVar[str] = "images"
    kind: ClassVar[str] = "images"

    @property
    def rules(self) -> Rules:
        """What becomes of transparency and of 16 bits."""
        return Rules(self.alpha, self.background, self.white)

    @property
    def table(self) -> Path | None:
        """The CSV of labels, if there is one."""
        return next(
            (Path(path) for path in self.labels if Path(path).suffix.lower() == ".csv"), None
        )

    @property
    def labelled(self) -> bool:
        """Whether every picture must have a label."""
        return bool(self.labels or self.folder_labels)

    # The units of work ----------------------------------------------------------------------------

    def sources(self) -> Sequence[Chunk]:
        """Return files in chunks, one shard each; raises ConfigError for settings that cannot
        be.
        """
        self._check()
        items = self._items()
        size, channels = self._frame(items)
        pictures = [item for item in items if kind_of(item.path) == "picture"]
        missing = self._missing([item.name for item in pictures])
        parts = [tuple(part) for part in sampling.micro_batches(pictures, CHUNK)]
        parts += [(item,) for item in items if kind_of(item.path) != "picture"]
        return [
            Chunk(part, size, channels, missing if not at else ()) for at, part in enumerate(parts)
        ]

    def _check(self) -> None:
        if not self.files:
            raise ConfigError("no picture; give folders, picture files, arrays or IDX files")
        if not (
            self.test_share >= 0
            and self.validation_share >= 0
            and self.test_share + self.validation_share < 1
        ):
            raise ConfigError("test_share + validation_share must leave something to train on")
        if self.labels and self.folder_labels:
            raise ConfigError("labels and folder_labels both say what the classes are; give one")
        if self.group_column and self.table is None:
            raise ConfigError("group_column is a column of a CSV of labels; give one (--labels)")
        if self.size is not None and not all(1 <= n <= 16384 for n in self.size):
            raise ConfigError(f"size is {self.size}; rows and columns lie between 1 and 16384")
        if not (1 <= self.white <= 65535 and all(0 <= x <= 255 for x in self.background)):
            raise ConfigError("white lies between 1 and 65535, background between 0 and 255")
        self._check_used()

    def _check_used(self) -> None:
        """Raise ConfigError for an option that changes nothing beside the others."""
        if self.numeric and self.classes:
            raise ConfigError("classes name labels that numeric takes for numbers; give one")
        needs = {
            "label_column": ("labels of a CSV", self.table is not None),
            "split_column": ("labels of a CSV", self.table is not None),
            "image_column": ("a CSV of labels or boxes", self._has_image_column),
            "mask_classes": ("masks", self.masks is not None),
        }
        for name, (what, given) in needs.items():
            if not given and getattr(self, name) != getattr(Images, name):
                raise ConfigError(f"{name} is not used without {what}; leave it out")
        values = self.mask_classes
        if values and (len(values) < 2 or len(set(values)) < len(values)):
            raise ConfigError(f"mask_classes are {values}; give two or more different values")
        if values and not 0 <= min(values) <= max(values) <= 255:
            raise ConfigError(f"mask_classes are {values}; label maps hold 0 to 255")

    @property
    def _has_image_column(self) -> bool:
        boxes = self.boxes is not None and Path(self.boxes).suffix.lower() != ".json"
        return boxes or self.table is not None

    def _items(self) -> list[Item]:
        """Return every file with the split it was given for, and with its labels where it holds
        many pictures.
        """
        items = [
            Item(path, name, split)
            for split, places in ((None, self.files), (1, self.validation), (2, self.test))
            for place in places
            for path, name in _listed(Path(place))
        ]
        if not items:
            raise DataError(
                f"no picture in {', '.join(map(str, self.files))}; PNG, JPEG, TIFF, BMP,"
                " GIF and WebP files are read"
            )
        names = Counter(item.name for item in items if kind_of(item.path) == "picture")
        twice = next((name for name, count in names.items() if count > 1), None)
        if twice is not None and (self.masks or self.boxes):
            raise DataError(
                f"several of the folders hold an image {twice!r}, of which masks and boxes hold"
                " one; give the folder above them"
            )
        many = [item for item in items if kind_of(item.path) != "picture"]
        arrays = [Path(path) for path in self.labels if Path(path) != self.table]
        if arrays and len(arrays) != len(many):
            raise ConfigError(
                f"{len(arrays)} files of labels for {len(many)} arrays or IDX files; give one for"
                " each"
            )
        if many and self.boxes:
            raise ConfigError("boxes belong to picture files; arrays and IDX files have no names")
        if len(many) < len(items) and self.labels and self.table is None:
            raise ConfigError("labels of picture files come in a CSV; give one")
        of = dict(zip(many, arrays, strict=False))
        return [Item(item.path, item.name, item.split, of.get(item)) for item in items]

    def _frame(self, items: Sequence[Item]) -> tuple[tuple[int, int], int]:
        """Return rows, columns and channels of the store: as asked for, else of the first
        picture that can be read.
        """
        channels = {"grey": 1, "rgb": 3, None: 0}[self.channels]
        if self.size and channels:
            return self.size, channels
        for item in items:
            try:
                single = kind_of(item.path) == "picture"
                first = (
                    read_picture(item.path, self.rules)
                    if single
                    else read_many(item.path, self.rules).images[0]
                )
            except DataError:
                continue  # rejected with its reason when its turn comes
            return self.size or first.shape[:2], channels or first.shape[2]
        return self.size or (1, 1), channels or 1

    def _missing(self, names: list[str]) -> tuple[tuple[Path, str, int | None], ...]:
        tables = [(self.table, self._table_labels())] if self.table else []
        tables += (
            [(self.boxes, read_boxes(Path(self.boxes), self.image_column)[0])] if self.boxes else []
        )
        return tuple(
            (path, name, line)
            for path, table in tables
            for name, line in unmatched(table, names, path)
        )

    def _table_labels(self) -> dict[str, ImageLabel]:
        if self.table is None:
            return {}
        columns = (self.label_column, self.split_column, self.group_column)
        return read_labels(self.table, self.image_column, *columns)

    # One shard ------------------------------------------------------------------------------------

    def write(self, source: Chunk, shard: ShardWriter, on_reject: OnReject) -> None:
        """Read the files of one chunk and append their pictures."""
        for path, name, line in source.missing:
            _refuse(DataError(f"no picture {name!r} among the files"), path, line, name, on_reject)
        labels = self._table_labels()
        boxes, names = read_boxes(Path(self.boxes), self.image_column) if self.boxes else ({}, [])
        numbers = {name: place for place, name in enumerate(names)}
        for item in source.items:
            if kind_of(item.path) == "picture":
                try:
                    self._add_picture(item, source, shard, labels, boxes, numbers)
                except DataError as error:
                    _refuse(error, item.path, None, item.name, on_reject)
            else:
                self._add_many(item, source, shard, on_reject)

    def _add_picture(
        self,
        item: Item,
        chunk: Chunk,
        shard: ShardWriter,
        labels: dict[str, ImageLabel],
        boxes: dict[str, Boxes],
        numbers: dict[str, int],
    ) -> None:
        """Append one picture file; raises DataError where it cannot be used."""
        pixels, split = read_picture(item.path, self.rules), item.split
        image, fit = self._framed(pixels, chunk)
        fixed: dict[str, Any] = {"image": image, "name": item.name}
        if self.folder_labels:
            folders = item.name.split("/")[:-1]
            if not folders:
                raise DataError("not in a folder of its class")
            if len(folders) == 1 and folders[0].lower() in SPLIT_NAMES:
                raise DataError(f"in the folder {folders[0]!r} of a split, in none of a class")
            fixed |= self._label(folders[-1])
            split = next(
                (SPLIT_NAMES[f.lower()] for f in folders[:-1] if f.lower() in SPLIT_NAMES), split
            )
        elif self.table is not None:
            if (entry := of_name(labels, item.name)) is None or not entry.label:
                raise DataError(f"no label in {self.table.name}")
            fixed |= self._label(entry.label) | ({"group": entry.group} if entry.group else {})
            split = split if entry.split is None else entry.split
        ragged = {}
        if self.boxes is not None:
            if (entry := of_name(boxes, item.name)) is None:
                raise DataError(
                    f"not named in {Path(self.boxes).name}; a row without corners says: no object"
                )
            box_K4, label_K = entry.arrays(numbers, pixels.shape[:2])
            ragged = {"boxes": fit.boxes(box_K4), "box_labels": label_K}
        if self.masks is not None:
            fixed["segments"] = fit.segments(self._mask(item, pixels.shape[:2]), IGNORE)
        shard.add(ragged, **fixed, split=np.uint8(UNDRAWN if split is None else split))

    def _add_many(self, item: Item, chunk: Chunk, shard: ShardWriter, on_reject: OnReject) -> None:
        """Append the pictures of one array or IDX file."""
        if kind_of(item.path) == "other":
            return _refuse(
                DataError("neither picture, array nor IDX file"),
                item.path,
                None,
                item.name,
                on_reject,
            )
        try:
            many = read_many(item.path, self.rules)
            labels = (
                many.labels if item.labels is None else label_array(item.labels, len(many.images))
            )
            if labels is None and self.labelled:
                raise DataError("no labels")
            if self.masks is not None:
                raise DataError("masks belong to picture files")
        except DataError as error:
            return _refuse(error, item.path, None, item.name, on_reject)
        given = UNDRAWN if item.split is None else item.split
        split_N = np.full(len(many.images), given) if many.splits is None else many.splits
        for at, pixels in enumerate(many.images):
            name = f"{item.path.name}[{at}]"
            try:
                fixed = {"image": self._framed(pixels, chunk)[0], "name": name}
                if labels is not None:
                    fixed |= self._label(label_text(labels[at]))
                shard.add({}, **fixed, split=np.uint8(split_N[at]))
            except DataError as error:
                _refuse(error, item.path, None, name, on_reject)

    def _framed(self, pixels: np.ndarray, chunk: Chunk) -> tuple[np.ndarray, Fit]:
        """Return a picture in the store's size and channels, and how it was laid there."""
        if self.size is None and pixels.shape[:2] != chunk.size:
            rows, columns = pixels.shape[:2]
            raise DataError(
                f"{columns} x {rows} pixels, the first has {chunk.size[1]} x {chunk.size[0]}; use"
                " --size"
            )
        fit = Fit.letterbox(pixels.shape[:2], chunk.size)
        return fit.picture(self._in_channels(pixels, chunk.channels), self.background), fit

    def _in_channels(self, pixels: np.ndarray, channels: int) -> np.ndarray:
        if pixels.shape[2] == channels:
            return pixels
        if channels == 3:
            return np.repeat(pixels, 3, axis=2)
        if self.channels == "grey":  # ITU-R 601, as Pillow's
            return np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]
        if (pixels == pixels[..., :1]).all():
            return pixels[..., :1]
        raise DataError("in colour, the first is grey; use --channels rgb or grey")

    def _label(self, text: str) -> dict[str, Any]:
        """Return the column of a label; raises DataError where it is no number, or none of the
        classes.
        """
        if self.numeric:
            return {"value": np.float64(number(text))}
        if not self.classes or text in self.classes:
            return {"label": text}
        if not text.isdecimal() or int(text) >= len(self.classes):
            raise DataError(f"label {text!r} is none of the {len(self.classes)} classes")
        return {"label": self.classes[int(text)]}

    def _mask(self, item: Item, size: tuple[int, int]) -> np.ndarray:
        """Return the label map of a picture; raises DataError where it is missing, of another
        size or not of 8 bits.
        """
        path = (Path(self.masks) / item.name).with_suffix(".png")
        return read_label_map(path, size, self.mask_classes)

    # All shards together --------------------------------------------------------------------------

    def finish(self, store: Store) -> dict[str, Any]:
        """Draw the splits and return size, channels, names of classes and what was left out."""
        columns = next(shard["columns"] for shard in store.index["shards"] if shard["num_records"])
        unlabelled = np.zeros(len(store), "U1")
        labels = np.array(store.column("label")) if "label" in columns else unlabelled
        split_N = drawn_splits(
            self._drawn_by_group(store),
            digests(store),
            labels,
            self.test_share,
            self.validation_share,
            self.seed,
        )
        store.rewrite("split", split_N)
        rows, columns_, channels = (int(n) for n in store[0]["image"].shape)
        meta: dict[str, Any] = {
            "size": [rows, columns_],
            "channels": channels,
            "background": list(self.background),
        }
        meta["classes"] = sorted(set(labels.tolist())) if "label" in columns else []
        if self.boxes is not None:
            meta["box_classes"] = read_boxes(Path(self.boxes), self.image_column)[1]
        notes = self._input_notes(store)
        if "label" in columns:
            notes += input_notes.class_notes(labels, split_N, self.classes)
        elif self.numeric and "value" not in columns or self.classes:
            what = "numeric" if self.numeric else "classes"
            raise ConfigError(f"{what} is about labels, and there are none; give labels")
        if self.masks is not None:
            meta["segment_classes"], mask_notes = classes_of_maps(
                store, self.mask_classes, Path(self.masks)
            )
            notes += mask_notes
        meta["left_out"] = int((split_N == LEFT_OUT).sum())
        if meta["left_out"]:
            notes.append(
                f"{meta['left_out']} images left out: copies of images in a more held-out split"
            )
        return meta | ({"notes": notes} if notes else {})

    def _input_notes(self, store: Store) -> list[str]:
        """Return what was given and not used: files, arrays, columns, folders."""
        places = [Path(place) for place in (*self.files, *self.validation, *self.test)]
        tables = [Path(path) for path in (*self.labels, *([self.boxes] if self.boxes else []))]
        notes = input_notes.unread_notes(places, tables)
        arrays = [place for place in places if not place.is_dir()]
        notes += input_notes.array_notes(arrays, arrays if set(self.labels) - {self.table} else ())
        if self.table is not None:
            used = (self.image_column, self.label_column, self.split_column, self.group_column)
            notes += input_notes.column_notes(self.table, used)
        if self.boxes is not None:
            used = (self.image_column, *CORNERS, "label")
            notes += input_notes.column_notes(Path(self.boxes), used)
            notes += geometry_notes(Path(self.boxes))
        if self.table is None and not self.validation and not self.test or self.folder_labels:
            names = list(store.column("name"))
            notes += input_notes.folder_notes(names, self.folder_labels)
        brightest = max(int(store[i]["image"].max(initial=0)) for i in range(len(store)))
        return notes + input_notes.brightness_note(brightest)

    def _drawn_by_group(self, store: Store) -> np.ndarray:
        """Return the named split of every picture, and where groups are named the drawn
        ones too.
        """
        named_N, group_N = np.asarray(store.column("split")), groups_of(store)
        if group_N is None:
            return named_N
        test, validation = (
            share * (split not in named_N)
            for split, share in ((2, self.test_share), (1, self.validation_share))
        )
        shares = (1 - test - validation, validation, test)
        given_N = np.where(named_N == UNDRAWN, OPEN, named_N.astype(int))
        return split_by_group(group_N, shares, self.seed, given_N)


def _listed(place: Path) -> list[tuple[Path, str]]:
    """Return (path, name in tables) of a file, or of the pictures below a folder."""
    if place.is_dir():
        return [(path, path.relative_to(place).as_posix()) for path in pictures_in(place)]
    return [(place, place.name)]


def _refuse(error: DataError, path: Path, line: int | None, name: str, on_reject: OnReject) -> None:
    """Report a record that cannot be used, or raise where bad records stop the work."""
    where = error.path if error.path is not None else path
    reason = str(error).removeprefix(f"{error.path}: ").removesuffix("; correct it")
    if on_reject is None:
        raise DataError(f"{reason}; {MEND}", where, line) from None
    on_reject(Reject(str(where), line, name, reason))
