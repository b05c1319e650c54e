"""Image files as a checkpoint wants them: its number of channels, and its size, from which boxes
find their way back.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sciforge.core.data.store import Reject
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
    files: Iterable[Path],
    codec: ImageCodec,
    rules: Rules,
    size: tuple[int, int] | None = None,
    on_reject: Callable[[Reject], None] | None = None,
) -> Iterator[Picture]:
    """Yield the images of files and folders; those of another size are scaled to fit and framed
    with the background.

    Args:
        files: folders, pictures, arrays and IDX files.
        codec: whose channels, and size where none is given, they take.
        rules: of transparency and 16 bits.
        size: rows and columns of another frame; the positions are interpolated.
        on_reject: called for a file that cannot be read, which is then left out.

    Raises:
        DataError: a file is unreadable, without `on_reject`.
        ConfigError: nothing is there, or the size does not divide into patches.
    """
    frame = size or (codec.height, codec.width)
    codec.check_size(*frame)
    num, rejects = 0, []

    def note(reject: Reject) -> None:
        rejects.append(reject)
        on_reject(reject)

    for path in map(Path, files):
        for name, image_in_file in _images(path, rules, None if on_reject is None else note):
            fit = Fit.letterbox(image_in_file.shape[:2], frame)
            image = fit.picture(in_channels(image_in_file, codec.channels), rules.background)
            yield Picture(name, image, image_in_file.shape[:2], fit)
            num += 1
    if rejects and not num:
        first = rejects[0]
        raise DataError(
            f"none of {len(rejects)} files can be read; the first: {first.reason}", Path(first.path)
        )
    if not num:
        raise ConfigError(
            "no image among the files; give pictures, folders of them, arrays or IDX files"
        )


def _images(
    path: Path, rules: Rules, on_reject: Callable[[Reject], None] | None
) -> Iterator[tuple[str, np.ndarray]]:
    if path.is_dir():
        for inner in pictures_in(path):
            name = inner.relative_to(path).as_posix()
            try:
                yield name, read_picture(inner, rules)
            except DataError as error:
                _refuse(error, inner, name, on_reject)
        return
    try:
        if kind_of(path) == "other":
            raise DataError(
                "neither a picture, nor an array, nor an IDX file, nor a folder; correct the path",
                path,
            )
        if kind_of(path) == "picture":
            yield path.name, read_picture(path, rules)
            return
        images = read_many(path, rules).images
    except DataError as error:
        return _refuse(error, path, path.name, on_reject)
    for at, image in enumerate(images):
        yield f"{path.name}[{at}]", image


def _refuse(
    error: DataError, path: Path, name: str, on_reject: Callable[[Reject], None] | None
) -> None:
    if on_reject is None:
        raise error
    on_reject(Reject(str(path), None, name, str(error).removeprefix(f"{error.path}: ")))


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
