"""Images as batches of bytes: one size, one number of channels, and what the training split's
pixels are like.

Legend of shape letters: B batch, H height, W width, C channels, R rows of patches, S columns of
patches, N patches (R S, row by row), P numbers of a patch (patch * patch * C, row by row, channels
last).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError

MAX_IMAGES = 10_000  # from which mean and std are taken; beyond, their third digit no longer moves


@dataclass(frozen=True)
class ImageCodec(Settings):
    """Images of bytes (the codec of the images domain; JSON-able); pixels stay bytes until the
    model normalises them.

    Args:
        patch: side of a square patch in pixels; must divide height and width.
        height: H of the training images; 0 takes it from the data, as all below.
        width: W.
        channels: C, 1 or 3.
        mean: of each channel over the training split, in bytes (0 to 255).
        std: of each channel, in bytes.

    Raises:
        ConfigError: the patch does not divide the image.
    """

    patch: int = 4
    height: int = 0
    width: int = 0
    channels: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, 1024, "patch")
        self.require(0, 2**16, "height", "width")
        self.require(0, 3, "channels")
        self.check_size(self.height, self.width)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of an image of the training size."""
        return self.height // self.patch, self.width // self.patch

    @property
    def patch_numbers(self) -> int:
        """P, the numbers in a patch."""
        return self.patch * self.patch * self.channels

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError where an image of this size cannot be cut into whole patches."""
        if height % self.patch or width % self.patch:
            raise ConfigError(
                f"images of {height} x {width} pixels do not divide into patches of {self.patch}; "
                "choose another --codec.patch, or prepare with another --size"
            )

    def fit(self, store: Any) -> Self:
        """Return the codec with size, channels, mean and std of the training split (at most 10,000
        images of it).

        Raises:
            DataError: there is no training image.
        """
        records = store.split("train")
        if not len(records):
            raise DataError(
                "no training image; prepare with a larger share for training", store.path
            )
        step = -(-len(records) // MAX_IMAGES)
        total, squares, count = 0, 0, 0
        for i in range(0, len(records), step):
            pixels_PC = (
                np.asarray(records[i]["image"])
                .reshape(-1, np.shape(records[i]["image"])[-1])
                .astype(np.int64)
            )
            # of integers: exact
            total, squares = total + pixels_PC.sum(0), squares + (pixels_PC**2).sum(0)
            count += len(pixels_PC)
        height, width, channels = np.shape(records[0]["image"])
        mean_C = total / count
        std_C = np.sqrt(np.maximum(squares / count - mean_C**2, 0.0))
        return replace(
            self,
            height=height,
            width=width,
            channels=channels,
            mean=tuple(mean_C.tolist()),
            std=tuple(np.where(std_C > 0, std_C, 1.0).tolist()),  # a constant channel says nothing
        )

    def encode(self, record: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return {"image": uint8 [H, W, C]} of a record; other columns are the objectives' to
        encode.

        Raises:
            DataError: the image is missing, of another type, or has other channels than were
                trained on.
            ConfigError: its size does not divide into patches.
        """
        image = record.get("image")
        if (
            not isinstance(image, np.ndarray | Tensor)
            or image.ndim != 3
            or str(image.dtype).split(".")[-1] != "uint8"
        ):
            raise DataError(
                "a record of images needs 'image', an array of bytes [height, width, channels]"
            )
        if image.shape[2] != self.channels:
            raise DataError(
                f"the image has {image.shape[2]} channels, the training images have"
                f" {self.channels}; convert it"
            )
        self.check_size(*image.shape[:2])
        # memory maps may not be written to, flipped arrays have strides that torch refuses: a copy
        # is neither
        return {
            "image": (
                torch.from_numpy(np.array(image, order="C"))
                if isinstance(image, np.ndarray)
                else image
            )
        }

    def collate(self, examples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Stack examples [B, ...] of images of one size and the same columns.

        Raises:
            DataError: there is no example, or sizes or columns differ.
        """
        if not examples:
            raise DataError("a batch needs at least one example")
        if any(example.keys() != examples[0].keys() for example in examples):
            raise DataError(
                "the examples of a batch must have the same columns; are labelled and unlabelled"
                " ones mixed?"
            )
        for name, first in examples[0].items():
            if any(example[name].shape != first.shape for example in examples):
                raise DataError(
                    f"the images of a batch differ in the size of {name!r}; give images of one size"
                )
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


def to_patches(image_BHWC: Tensor, patch: int) -> Tensor:
    """Return the patches of images [B, N, P], row by row.

    >>> image = torch.arange(16).view(1, 4, 4, 1)
    >>> to_patches(image, 2)[0].tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    """
    B, H, W, C = image_BHWC.shape
    x = image_BHWC.reshape(B, H // patch, patch, W // patch, patch, C)
    return x.transpose(2, 3).reshape(B, (H // patch) * (W // patch), patch * patch * C)


def from_patches(patches_BNP: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Return images [B, H, W, C] of patches: the inverse of `to_patches`.

    >>> image = torch.arange(48).view(1, 4, 4, 3)
    >>> bool((from_patches(to_patches(image, 2), (2, 2), 2) == image).all())
    True
    """
    B, _, P = patches_BNP.shape
    x = patches_BNP.reshape(B, *grid, patch, patch, P // patch**2)
    return x.transpose(2, 3).reshape(B, grid[0] * patch, grid[1] * patch, P // patch**2)
