"""Image files as a checkpoint wants them: its number of channels, and its size, from which boxes
find their way back.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sciforge.core.domain import Record
from sciforge.errors import ConfigError, DataError
from sciforge.images.data.codec import ImageCodec
from sciforge.images.data.readers import Fit, Rules, kind_of, pictures_in, read_many, read_picture


@dataclass(frozen=True)
class Picture:
    """One image of a file.

    Args:
        name: as in tables: the file, and the place in it where it holds many.
        image: uint8 [H, W, C] in the frame that the model sees.
        size: rows and columns in the file.
        fit: how it was laid into the frame.
    """

    name: str
    image: np.ndarray
    size: tuple[int, int]
    fit: Fit

    @property
    def record(self) -> Record:
        """What a codec encodes."""
        return {"image": self.image, "name": self.name}

    def in_file(self, box_K4: np.ndarray) -> np.ndarray:
        """Return boxes of the frame in pixels of the file, cut at its edges."""
        scale = np.array([self.fit.scale_x, self.fit.scale_y] * 2)
        back_K4 = (
            np.asarray(box_K4, np.float64) - np.array([self.fit.left, self.fit.top] * 2)
        ) / scale
        return np.clip(back_K4, 0, np.array([self.size[1], self.size[0]] * 2))

    def map_in_file(self, map_HW: np.ndarray) -> np.ndarray:
        """Return a label map of the frame in the size of the file: the nearest label of each of
        its pixels.
        """
        (height, width), fit = self.size, self.fit
        row = fit.top + ((np.arange(height) + 0.5) * fit.inner[0] / height).astype(int)
        column = fit.left + ((np.arange(width) + 0.5) * fit.inner[1] / width).astype(int)
        return map_HW[row[:, None], column]


def read_files(
    files: Iterable[Path], codec: ImageCodec, rules: Rules, size: tuple[int, int] | None = None
) -> Iterator[Picture]:
    """Yield the images of files and folders; those of another size are scaled to fit and framed
    with the background.

    Args:
        files: folders, pictures, arrays and IDX files.
        codec: whose channels, and size where none is given, they take.
        rules: of transparency and 16 bits.
        size: rows and columns of another frame; the positions are interpolated.

    Raises:
        DataError: a file is unreadable; ConfigError: nothing is there, or the size does not divide
            into patches.
    """
    frame = size or (codec.height, codec.width)
    codec.check_size(*frame)
    num = 0
    for path in map(Path, files):
        for name, image_in_file in _images(path, rules):
            fit = Fit.letterbox(image_in_file.shape[:2], frame)
            image = fit.picture(in_channels(image_in_file, codec.channels), rules.background)
            yield Picture(name, image, image_in_file.shape[:2], fit)
            num += 1
    if not num:
        raise ConfigError(
            "no image among the files; give pictures, folders of them, arrays or IDX files"
        )


def _images(path: Path, rules: Rules) -> Iterator[tuple[str, np.ndarray]]:
    if path.is_dir():
        for inner in pictures_in(path):
            yield inner.relative_to(path).as_posix(), read_picture(inner, rules)
    elif kind_of(path) == "picture":
        yield path.name, read_picture(path, rules)
    elif kind_of(path) == "other":
        raise DataError(
            "neither a picture, nor an array, nor an IDX file, nor a folder; correct the path", path
        )
    else:
        for at, image in enumerate(read_many(path, rules).images):
            yield f"{path.name}[{at}]", image


def in_channels(image_HWC: np.ndarray, channels: int) -> np.ndarray:
    """Return an image with 1 or 3 channels: grey repeated, colours mixed as ITU-R 601 does.

    >>> in_channels(np.array([[[255, 0, 0]]], np.uint8), 1).tolist()
    [[[76]]]
    """
    if image_HWC.shape[2] == channels:
        return image_HWC
    if channels == 3:
        return np.repeat(image_HWC, 3, axis=2)
    return np.rint(image_HWC @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]
