"""Images that are in memory already: arrays, Pillow images and paths as pixels, and labelled
ones as a store.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.data.groups import group_names
from sciforge.core.data.store import Reject, ShardWriter, Store
from sciforge.core.data.targets import one_target, split_numbers
from sciforge.errors import DataError
from sciforge.images.data.image_files import in_channels
from sciforge.images.data.prepare import Images, OnReject
from sciforge.images.data.readers import Fit, Rules, composited, narrowed, pixels, read_picture

if TYPE_CHECKING:
    import pandas as pd


DEFAULT_RULES = Rules()


def pixels_of(value: Any, rules: Rules = DEFAULT_RULES) -> np.ndarray:
    """Return an image as uint8 [H, W, C].

    Args:
        value: an array (H, W) or (H, W, 1, 3 or 4), a Pillow image, or the path of a picture file.
            Arrays hold bytes, 16-bit integers (`rules.white` becomes 255), booleans, or floats from
            0 (black) to 1 (white).
        rules: of transparency and 16 bits.

    Raises:
        DataError: it is none of these.

    >>> pixels_of(np.array([[0.0, 0.5, 1.0]])).ravel().tolist()
    [0, 128, 255]
    >>> pixels_of(np.array([[True, False]])).ravel().tolist()
    [255, 0]
    """
    if isinstance(value, str | Path):
        return read_picture(Path(value), rules)
    if hasattr(value, "getbands") and hasattr(
        value, "mode"
    ):  # a Pillow image; Pillow itself is not imported for arrays
        from PIL import ImageOps

        return pixels(ImageOps.exif_transpose(value), rules)
    array = np.asarray(value)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise DataError(
            f"shape {list(np.shape(value))} is no image; give (H, W) or (H, W, 1, 3 or 4), channels"
            " last"
        )
    array = _bytes(array, rules)
    if array.shape[2] < 4:
        return array
    if rules.alpha == "reject":
        raise DataError("transparent (a fourth channel); use alpha composite, or leave it out")
    return composited(array, rules.background)


def _bytes(array: np.ndarray, rules: Rules) -> np.ndarray:
    """Return numbers of any kind as bytes; raises DataError where they are out of range."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DataError(
                "floats that are not finite; give 0 (black) to 1 (white), or bytes (uint8)"
            )
        if array.min() < 0 or array.max() > 1:
            low, high = array.min(), array.max()
            raise DataError(
                f"floats from {low:g} to {high:g}; give 0 (black) to 1 (white), or bytes (uint8)"
            )
        return np.rint(array * 255).astype(np.uint8)
    if array.dtype.kind not in "iu":
        raise DataError(f"numbers of the type {array.dtype} are no pixels; give uint8")
    if array.dtype == np.uint16:
        return narrowed(array, rules)
    if array.min() < 0 or array.max() > 255:
        raise DataError(
            f"integers from {array.min()} to {array.max()}; give bytes (0 to 255) as uint8, or"
            " uint16"
        )
    return array.astype(np.uint8)


@dataclass(frozen=True)
class _Batch:
    """All images of one call; the unit of work."""

    count: int

    def __str__(self) -> str:
        return "inputs"


@dataclass(frozen=True, kw_only=True)
class ImagesInMemory(Images):
    """Labelled images that are in memory, prepared as `Images` prepares files: one size, one number
    of channels.

    Images without a label are refused by name; copies of one image stay in one split.
    """

    files: tuple[Path, ...] = ()
    target: str = "label"
    inputs: tuple[Any, ...] = field(default=(), init=False, repr=False)
    texts: tuple[str, ...] = field(default=(), init=False, repr=False)
    splits_N: Any = field(default=None, init=False, repr=False)
    groups: tuple[str, ...] | None = field(default=None, init=False, repr=False)
    scaled: list[int] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def of(
        cls,
        inputs: Sequence[Any],
        targets: "pd.DataFrame | None",
        split: Sequence[str] | None,
        seed: int,
        size: tuple[int, int] | None,
        channels: int,
        group: Sequence[Any] | None = None,
    ) -> "ImagesInMemory":
        """Return the preparer of some images.

        Args:
            inputs: arrays, Pillow images or paths.
            targets: one column: floats are numbers to regress on, everything else classes; None
                without labels.
            split: name of each image's split; None for all in training.
            seed: kept with the store.
            size: rows and columns to bring images to; None takes those of the first.
            channels: 1 or 3; 0 takes those of the first.
            group: of each image; None for none.

        Raises:
            ConfigError: there are several targets.
            DataError: a label or a split is bad.
        """
        target = None if targets is None else one_target(targets, "images")
        options: dict[str, Any] = {
            "size": size,
            "channels": {0: None, 1: "grey", 3: "rgb"}[channels],
            "seed": seed,
        }
        if target is not None:
            options |= {"numeric": target.numeric, "target": target.name}
        preparer = cls(test_share=0.0, validation_share=0.0, **options)
        for place, text in enumerate(() if target is None else target.texts):
            if not text:
                raise DataError(f"input {place}: no label; leave the image out, or give one")
        object.__setattr__(preparer, "inputs", tuple(inputs))
        object.__setattr__(preparer, "texts", () if target is None else target.texts)
        object.__setattr__(preparer, "splits_N", split_numbers(split, len(preparer.inputs)))
        object.__setattr__(preparer, "groups", group_names(group, len(preparer.inputs)))
        return preparer

    def sources(self) -> Sequence[_Batch]:
        """Return all images as one unit; raises DataError where there are none."""
        if not self.inputs:
            raise DataError("there are no images; give at least one")
        return [_Batch(len(self.inputs))]

    def write(self, source: _Batch, shard: ShardWriter, on_reject: OnReject) -> None:
        """Append the images."""
        size, channels = self.size, {"grey": 1, "rgb": 3, None: 0}[self.channels]
        for place, value in enumerate(self.inputs):
            try:
                image = pixels_of(value, self.rules)
                size, channels = size or image.shape[:2], channels or image.shape[2]
                if self.channels is None and (channels, image.shape[2]) == (1, 3):
                    raise DataError("in colour, the first image is grey; convert one of them")
                if image.shape[:2] != size:
                    self.scaled.append(place)
                fit = Fit.letterbox(image.shape[:2], size)
                framed = fit.picture(in_channels(image, channels), self.background)
                label = self._label(self.texts[place]) if self.texts else {}
            except DataError as error:
                if on_reject is None:
                    raise DataError(f"input {place}: {error}") from None
                on_reject(Reject("inputs", place, "", str(error)))
                continue
            if self.groups is not None:
                label["group"] = self.groups[place]
            shard.add({}, image=framed, name=f"input {place}", **label, split=self.splits_N[place])

    def finish(self, store: Store) -> dict[str, Any]:
        """Return the metadata of the store, with the target's name and a note on scaled images."""
        meta = super().finish(store) | ({"target": self.target} if self.texts else {})
        if self.scaled and self.size is None:
            rows, columns = meta["size"]
            note = (
                f"{len(self.scaled)} images scaled to the {columns} x {rows} pixels of the first;"
                f" the first of them is input {self.scaled[0]}"
            )
            meta["notes"] = [note, *meta.get("notes", ())]
        return meta
