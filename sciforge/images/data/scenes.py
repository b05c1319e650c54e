"""Scenes composed of single objects: several to a picture, at random places and sizes, before noise
and clutter.

Each scene is a function of (seed, split, index) and the objects alone. Scenes of a split are made
of objects of that split: those of the test scenes are in no other scene.

Legend of shape letters: H rows, W columns, C channels, K objects of a scene.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sciforge.core.data import sampling
from sciforge.core.data.store import SPLITS, Reject, ShardWriter, Store
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError
from sciforge.images.data.boxes import overlaps

CHUNK = 500  # scenes of a shard
TRIES = 20  # places tried for an object before the scene does without it
THIN = 16  # bytes from the border's colour that are still its noise
SOLID = 48  # bytes from which nothing shines through
PIECES = 6  # most fragments of clutter in a scene


@dataclass(frozen=True)
class Part:
    """The scenes of one shard."""

    split: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Scenes(Settings):
    """Detection scenes composed of the single objects of a prepared store of pictures with classes.

    Args:
        images: a store that `sciforge prepare images` wrote, one object a picture before a plain
            border.
        scenes: how many of train, validation and test.
        size: rows and columns of a scene.
        objects: least and most objects of a scene; fewer where there is no room.
        scale: least and most size of an object, of that of its picture.
        overlap: the most that two objects' boxes overlap (intersection over union).
        noise: standard deviation of the background, in bytes; also of its slow changes.
        clutter: lay fragments of other objects into the background.
        seed: of everything drawn.
    """

    images: Path
    scenes: tuple[int, int, int] = (1000, 200, 500)
    size: tuple[int, int] = (64, 64)
    objects: tuple[int, int] = (1, 4)
    scale: tuple[float, float] = (0.6, 1.2)
    overlap: float = 0.1
    noise: float = 12.0
    clutter: bool = True
    seed: int = 0

    domain: ClassVar[str] = "images"
    kind: ClassVar[str] = "images"

    def sources(self) -> Sequence[Part]:
        """Return ranges of scenes, one shard each; raises ConfigError for settings that cannot
        be.
        """
        if (
            min(self.scenes) < 0
            or not sum(self.scenes)
            or not all(8 <= n <= 4096 for n in self.size)
        ):
            raise ConfigError(
                f"scenes are {self.scenes}, size {self.size}; give some scenes of 8 to 4096 pixels"
                " a side"
            )
        if not 0 <= self.objects[0] <= self.objects[1] or not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(
                f"objects {self.objects} and scale {self.scale} go from least to most"
            )
        if not (0 <= self.overlap <= 1 and 0 <= self.noise <= 128):
            raise ConfigError("overlap lies between 0 and 1, noise between 0 and 128")
        store = _opened(self.images)
        if not store.meta.get("classes"):
            raise ConfigError(f"{self.images} has no classes; prepare it with --labels")
        sides = [round(side * self.scale[1]) for side in store.meta["size"]]
        if any(side > room for side, room in zip(sides, self.size, strict=True)):
            raise ConfigError(
                f"objects of {sides[1]} x {sides[0]} pixels do not fit; make scale smaller or size"
                " larger"
            )
        for split, count in zip(SPLITS, self.scenes, strict=True):
            if count and not len(store.split(split)):
                raise ConfigError(
                    f"{self.images} has no {split} pictures for {count} {split} scenes"
                )
        return [
            Part(split, start, min(start + CHUNK, count))
            for split, count in enumerate(self.scenes)
            for start in range(0, count, CHUNK)
        ]

    def write(
        self, source: Part, shard: ShardWriter, on_reject: Callable[[Reject], None] | None
    ) -> None:
        """Compose the scenes of one range."""
        store = _opened(self.images)
        classes, rows = store.meta["classes"], store.split(SPLITS[source.split])
        for index in range(source.start, source.stop):
            # the stream of a scene holds its split, so that a longer split changes no other
            rng = sampling.generator(self.seed, sampling.SAMPLE, source.split, index)
            image, box_K4, names = self.scene(rows, store.meta["channels"], rng)
            ragged = {
                "boxes": box_K4,
                "box_labels": np.array([classes.index(name) for name in names], np.int64),
            }
            name = f"{SPLITS[source.split]}-{index:06d}"
            shard.add(ragged, image=image, name=name, split=np.uint8(source.split))

    def finish(self, store: Store) -> dict[str, Any]:
        """Return size, channels, the objects' classes and the digests of what they were taken
        from.
        """
        objects = _opened(self.images)
        meta = {"size": list(self.size), "channels": objects.meta["channels"], "classes": []}
        return meta | {"box_classes": objects.meta["classes"], "objects": objects.digests()}

    def scene(
        self, objects: Sequence[Any], channels: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return a scene uint8 [H, W, C], the boxes of its objects float32 [K, 4], and their
        classes.
        """
        canvas = self.background(channels, rng)
        for _ in range(int(rng.integers(0, PIECES + 1)) if self.clutter else 0):
            self._fragment(canvas, objects[int(rng.integers(len(objects)))]["image"], rng)
        boxes, names = np.zeros((0, 4), np.float32), []
        for _ in range(int(rng.integers(self.objects[0], self.objects[1] + 1))):
            record = objects[int(rng.integers(len(objects)))]
            colour, solid = cut_out(record["image"], rng.uniform(*self.scale))
            inner = bounds(solid)
            if inner is None:  # a picture of nothing
                continue
            for _ in range(TRIES):
                left, top = (
                    int(rng.integers(0, room - side + 1)) for room, side in self._rooms(solid)
                )
                box = inner + np.array([left, top, left, top], np.float32)
                if not (overlaps(box[None], boxes) > self.overlap).any():
                    paste(canvas, colour, solid, left, top)
                    boxes, names = np.concatenate([boxes, box[None]]), [*names, record["label"]]
                    break
        return np.rint(np.clip(canvas, 0, 255)).astype(np.uint8), boxes, names

    def background(self, channels: int, rng: np.random.Generator) -> np.ndarray:
        """Return slow changes of brightness and noise, float32 [H, W, C]."""
        height, width = self.size
        coarse = rng.normal(2 * self.noise, self.noise, (4, 4, channels)).astype(np.float32)
        slow = _resized(coarse, height, width)
        return np.clip(slow + rng.normal(0, self.noise, (height, width, channels)), 0, 255).astype(
            np.float32
        )

    def _rooms(self, solid: np.ndarray) -> list[tuple[int, int]]:
        return [(self.size[1], solid.shape[1]), (self.size[0], solid.shape[0])]

    def _fragment(self, canvas: np.ndarray, image: np.ndarray, rng: np.random.Generator) -> None:
        """Lay a piece of an object, a quarter of its sides, somewhere on the canvas."""
        colour, solid = cut_out(image, 1.0)
        height, width = (max(2, side // 4) for side in solid.shape)
        y, x = (
            int(rng.integers(0, side - part + 1))
            for side, part in zip(solid.shape, (height, width), strict=True)
        )
        colour, solid = colour[y : y + height, x : x + width], solid[y : y + height, x : x + width]
        left, top = (int(rng.integers(0, room - side + 1)) for room, side in self._rooms(solid))
        paste(canvas, colour, solid, left, top)


@lru_cache(maxsize=2)
def _opened(path: Path) -> Store:
    store = Store.open(path)
    if store.domain != "images":
        raise ConfigError(
            f"{path} is a store of {store.domain}; give one that sciforge prepare images wrote"
        )
    return store


def cut_out(image_HWC: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return an object's colours float32 [H, W, C] and how solid it is, 0 to 1 [H, W], scaled.

    What differs from the middle colour of the picture's border is object.

    >>> image = np.zeros((6, 6, 1), np.uint8)
    >>> image[2:4, 2:4] = 200
    >>> cut_out(image, 1.0)[1].sum()
    np.float32(4.0)
    """
    image = np.asarray(image_HWC, np.float32)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    away = np.abs(image - np.median(border, axis=0)).max(-1)
    solid = np.clip((away - THIN) / (SOLID - THIN), 0, 1)
    height, width = (max(1, round(side * scale)) for side in solid.shape)
    if (height, width) == solid.shape:
        return image, solid
    return _resized(image, height, width), _resized(solid[..., None], height, width)[..., 0]


def bounds(solid_HW: np.ndarray) -> np.ndarray | None:
    """Return the box float32 [4] around what is at least half solid; None where nothing is.

    >>> bounds(np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.6]])).tolist()
    [1.0, 1.0, 3.0, 2.0]
    """
    rows, columns = (np.flatnonzero((solid_HW >= 0.5).any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def paste(
    canvas_HWC: np.ndarray, colour: np.ndarray, solid: np.ndarray, left: int, top: int
) -> None:
    """Lay an object over a canvas, in place."""
    window = canvas_HWC[top : top + solid.shape[0], left : left + solid.shape[1]]
    window += (colour - window) * solid[..., None]


def _resized(image_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return an array of floats at another size, by area-aware bilinear filtering of each
    channel.
    """
    from PIL import Image

    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(plane)).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
        for plane in np.moveaxis(np.asarray(image_HWC, np.float32), -1, 0)
    ]
    return np.stack(planes, axis=-1)
