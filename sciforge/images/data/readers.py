"""Image files (PNG, JPEG, TIFF, BMP, GIF, WebP), arrays (.npy, .npz) and IDX files -> uint8
pictures of 1 or 3 channels.

One policy for every file. 16-bit grey is scaled so that `white` (by default 65535, the full range
of the format, not of the picture) becomes 255; 16-bit colour is cut to its upper 8 bits by Pillow,
so that another `white` is refused for it.
Transparent pictures are laid on a background colour or refused. Palettes, CMYK and other colour
spaces become RGB, 1-bit pictures grey. A camera's note that the picture is turned (EXIF) is
followed. Floating point, several frames and pictures over Pillow's limit of pixels are refused.

Legend of shape letters: N pictures, H rows, W columns, C channels (1 grey, 3 red, green, blue; 4
with alpha).
"""

import gzip
import math
import struct
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sciforge.core.files import decompression
from sciforge.errors import DataError, printable

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")
ARRAYS = (".npy", ".npz")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
ARRAY_NAMES = ("images", "labels", "splits")  # of an .npz, that are used
FULL_WHITE = 65535
# Types of Yann LeCun's IDX format, big-endian (http://yann.lecun.com/exdb/mnist).
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


@dataclass(frozen=True)
class Rules:
    """What becomes of transparency and of 16 bits.

    Args:
        alpha: `composite` lays transparent pictures on `background`, `reject` refuses them.
        background: red, green, blue, 0 to 255.
        white: the 16-bit value that becomes 255; larger ones too.
    """

    alpha: Literal["composite", "reject"] = "composite"
    background: tuple[int, int, int] = (255, 255, 255)
    white: int = FULL_WHITE


def kind_of(path: Path) -> str:
    """Return `picture`, `array`, `idx` or `other`, by the file's name alone.

    >>> names = ("a.PNG", "a.npz", "train-images-idx3-ubyte.gz", "a.txt")
    >>> tuple(kind_of(Path(name)) for name in names)
    ('picture', 'array', 'idx', 'other')
    """
    name = path.name.lower()
    if name.endswith(PICTURES):
        return "picture"
    if name.endswith(ARRAYS):
        return "array"
    stem = name.removesuffix(".gz")
    return "idx" if stem.endswith((".idx", "-ubyte", ".ubyte")) else "other"


def read_picture(path: Path, rules: Rules = Rules()) -> np.ndarray:
    """Return a picture file as uint8 [H, W, C].

    Raises:
        DataError: unreadable, truncated, too large, of several frames, or against the rules.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata is no reason to refuse the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                frames = getattr(image, "n_frames", 1)
                if frames > 1 and image.format != "MPO":  # a camera's JPEG with a preview after it
                    raise DataError(f"{frames} frames; save the one to use as a picture of its own")
                if rules.white != FULL_WHITE and _is_deep_colour(image):
                    raise DataError(
                        f"16-bit colour, of which the upper 8 bits are read; white {rules.white}"
                        " cannot be kept: scale it and save it as 8 bits"
                    )
                image.load()
                return pixels(ImageOps.exif_transpose(image), rules)
    except DataError as error:
        raise DataError(str(error), path) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(
            f"more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller", path
        ) from None
    except FileNotFoundError:
        raise DataError("no such file; correct the path", path) from None
    except Exception as error:
        # Decoders of damaged files raise whatever comes: SyntaxError, struct.error, zlib.error...
        reason = " ".join(str(error).split()).replace(str(path), "the file") or type(error).__name__
        raise DataError(f"not a readable picture ({reason}); correct it", path) from None


def _is_deep_colour(image: Any) -> bool:
    """Return whether a file that is not decoded yet holds several channels of 16 bits."""
    deep = any("16" in str(tile[3]) for tile in image.tile)
    return deep and len(image.getbands()) > 1


def pixels(image: Any, rules: Rules = Rules()) -> np.ndarray:
    """Return a Pillow image as uint8 [H, W, C], as the rules say; raises DataError for floating
    point and transparency.
    """
    if min(image.size) < 1:
        raise DataError(f"{image.size[0]} x {image.size[1]} pixels; there is nothing in it")
    mode = image.mode
    if mode == "F":
        raise DataError("floating point; scale it to 0..255 and save it as 8 bits")
    if mode.startswith("I"):
        return narrowed(np.asarray(image), rules)[..., None]
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        if rules.alpha == "reject":
            raise DataError(
                "transparent (an alpha channel); use alpha composite, or save it without"
            )
        grey = mode in ("L", "1", "LA", "La")
        rgb_HW3 = composited(np.asarray(image.convert("RGBA")), rules.background)
        return rgb_HW3[..., :1] if grey and len(set(rules.background)) == 1 else rgb_HW3
    if mode in ("1", "L"):
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(image.convert("RGB"))


def composited(rgba_HW4: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """Return colours laid over a background, uint8 [H, W, 3].

    >>> composited(np.array([[[0, 0, 0, 0], [9, 8, 7, 255]]], np.uint8), (255, 255, 255)).tolist()
    [[[255, 255, 255], [9, 8, 7]]]
    """
    share_HW1 = rgba_HW4[..., 3:].astype(np.float32) / 255
    mixed = rgba_HW4[..., :3] * share_HW1 + np.asarray(background, np.float32) * (1 - share_HW1)
    return np.rint(mixed).astype(np.uint8)


def narrowed(values: np.ndarray, rules: Rules) -> np.ndarray:
    """Return integers of more than 8 bits as uint8, `white` and above as 255."""
    if values.size and not 0 <= int(values.min()) <= int(values.max()) <= 65535:
        raise DataError(f"values from {values.min()} to {values.max()}; 16 bits hold 0 to 65535")
    return np.rint(np.minimum(values.astype(np.float64) / rules.white, 1) * 255).astype(np.uint8)


# Files of many pictures ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Many:
    """Pictures uint8 [N, H, W, C] of one file, and its labels [N] and splits [N] where an .npz
    holds them.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    splits: np.ndarray | None = None


def read_many(path: Path, rules: Rules = Rules()) -> Many:
    """Return all pictures of a .npy, .npz or IDX file.

    A .npy of two axes is one grey picture, of three axes N grey pictures, of four N pictures with
    channels last; an .npz holds the same under `images` (or as its only array), and may hold
    `labels` and `splits` (0 train, 1 validation, 2 test).

    Raises:
        DataError: damaged, of another shape, or of other numbers than unsigned 8 or 16 bits.
    """
    if kind_of(path) == "idx":
        return Many(_shaped(read_idx(path), path, rules))
    arrays = read_arrays(path)
    if "images" not in arrays and len(arrays) != 1:
        raise DataError(
            f"no array 'images' among {', '.join(sorted(arrays))}; rename the one to use", path
        )
    images = _shaped(arrays.get("images", next(iter(arrays.values()))), path, rules)
    labels, splits = arrays.get("labels"), arrays.get("splits")
    for name, array in (("labels", labels), ("splits", splits)):
        if array is not None and array.shape != (len(images),):
            raise DataError(
                f"{name} of shape {list(array.shape)} for {len(images)} pictures; give one for"
                " each",
                path,
            )
    if splits is not None and not np.isin(splits, (0, 1, 2)).all():
        raise DataError(
            "splits other than 0 (train), 1 (validation) and 2 (test); correct them", path
        )
    return Many(images, labels, splits)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a .npy (as `images`) or .npz by name; raises DataError where it is
    neither, or damaged.
    """
    try:
        # numpy leaves a file that it opened itself open where it is damaged
        with open(path, "rb") as handle:
            loaded = np.load(handle, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"images": loaded}
            max_bytes = max(
                decompression.FLOOR_BYTES, decompression.LARGEST_RATIO * path.stat().st_size
            )
            # numpy reads no more than it says
            if sum(member.file_size for member in loaded.zip.infolist()) > max_bytes:
                raise DataError(
                    f"unpacks to more than {max_bytes:,} bytes, as a decompression bomb; save it"
                    " with np.savez",
                    path,
                )
            arrays = {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise DataError("no such file; correct the path", path) from None
    except DataError:
        raise
    except (
        OSError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        KeyError,
        NotImplementedError,
        MemoryError,
    ) as error:
        raise DataError(
            f"not a readable array ({' '.join(str(error).split())}); correct it", path
        ) from None
    if strange := [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]:
        raise DataError(f"{printable(strange[0])} is no array; correct it", path)
    return arrays


def array_names(path: Path) -> tuple[str, ...]:
    """Return the names of the arrays of an .npz, without reading them; none where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return tuple(archive.files)
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile):  # or a single array
        return ()


def read_idx(path: Path) -> np.ndarray:
    """Return the array of an IDX file, plain or gzipped; raises DataError where header and
    length disagree.
    """
    try:
        with open(path, "rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else open(path, "rb") as stream:
            head = stream.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not head[3]:
                raise DataError("not an IDX file (its first bytes say so); correct it", path)
            sizes = stream.read(4 * head[3])
            if len(sizes) < 4 * head[3]:
                raise DataError("the header ends early; the file is cut off", path)
            shape = struct.unpack(f">{head[3]}I", sizes)
            dtype = np.dtype(IDX_TYPES[head[2]])
            needed = math.prod(shape) * dtype.itemsize
            data = _at_most(stream, needed + 1)
    except FileNotFoundError:
        raise DataError("no such file; correct the path", path) from None
    except (OSError, EOFError) as error:
        raise DataError(f"damaged ({' '.join(str(error).split())}); fetch it again", path) from None
    if len(data) != needed:
        than = "more" if len(data) > needed else f"{len(data)}"
        raise DataError(
            f"the header {list(shape)} asks for {needed} bytes of data, there are {than}; fetch it"
            " again",
            path,
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _at_most(stream: Any, size: int) -> bytes:
    """Return up to `size` bytes; in pieces, for a header may ask for more than there is memory."""
    pieces, left = [], size
    while left and (piece := stream.read(min(left, 1 << 24))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _shaped(array: np.ndarray, path: Path, rules: Rules) -> np.ndarray:
    """Return an array as uint8 [N, H, W, C], or raise DataError saying what it is instead."""
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3, 4) or not array.size:
        raise DataError(
            f"shape {list(array.shape)} is not pictures [N, H, W] or [N, H, W, 1, 3 or 4];"
            " reshape it",
            path,
        )
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise DataError(
            f"{array.dtype} is not unsigned 8 or 16 bits; scale to 0..255 and save as uint8", path
        )
    if array.dtype.itemsize == 2:
        array = np.stack([narrowed(picture, rules) for picture in array])
    if array.shape[-1] == 4:
        if rules.alpha == "reject":
            raise DataError(
                "transparent (a fourth channel); use alpha composite, or save it without", path
            )
        array = np.stack([composited(picture, rules.background) for picture in array])
    return array


# One size -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """How a picture was laid into a frame: scaled by `scale`, then put at (left, top) pixels.

    Args:
        size: rows and columns of the frame.
        inner: rows and columns of the scaled picture.
        left, top: where it begins in the frame.
        scale_x, scale_y: frame pixels per picture pixel.
    """

    size: tuple[int, int]
    inner: tuple[int, int]
    left: int
    top: int
    scale_x: float
    scale_y: float

    @classmethod
    def letterbox(cls, picture_size: tuple[int, int], size: tuple[int, int]) -> "Fit":
        """Return the largest fit of a picture (rows, columns) that shows all of it, in the middle
        of the frame.

        >>> Fit.letterbox((50, 100), (20, 20))
        Fit(size=(20, 20), inner=(10, 20), left=0, top=5, scale_x=0.2, scale_y=0.2)
        """
        scale = min(size[0] / picture_size[0], size[1] / picture_size[1])
        height, width = (max(1, min(size[i], round(picture_size[i] * scale))) for i in (0, 1))
        left, top = (size[1] - width) // 2, (size[0] - height) // 2
        return cls(
            size, (height, width), left, top, width / picture_size[1], height / picture_size[0]
        )

    def picture(self, image_HWC: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
        """Return the picture in its frame, resampled by area-aware bilinear filtering,
        background around it.
        """
        from PIL import Image

        if image_HWC.shape[:2] == self.size:
            return image_HWC
        channels = image_HWC.shape[2]
        colour = (
            np.asarray(background, np.uint8)
            if channels == 3
            else np.uint8(round(sum(background) / 3))
        )
        out = np.empty((*self.size, channels), np.uint8)
        out[:] = colour
        source = Image.fromarray(image_HWC if channels == 3 else image_HWC[..., 0])
        scaled = np.asarray(source.resize(self.inner[::-1], Image.Resampling.BILINEAR))
        out[self.window] = scaled.reshape(*self.inner, channels)
        return out

    def segments(self, label_HW: np.ndarray, ignore: int) -> np.ndarray:
        """Return a label map in its frame: the nearest label, `ignore` around it."""
        out = np.full(self.size, ignore, np.uint8)
        rows, columns = (
            ((np.arange(n) + 0.5) * length / n).astype(int)
            for n, length in zip(self.inner, label_HW.shape, strict=True)
        )
        out[self.window] = label_HW[rows[:, None], columns]
        return out

    def boxes(self, box_K4: np.ndarray) -> np.ndarray:
        """Return boxes (x0, y0, x1, y1) in pixels of the frame."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        return box_K4 * scale + np.array([self.left, self.top] * 2, np.float32)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the frame that the picture covers."""
        return slice(self.top, self.top + self.inner[0]), slice(
            self.left, self.left + self.inner[1]
        )


def pictures_in(folder: Path) -> Iterator[Path]:
    """Yield the picture files below a folder, sorted by name; hidden files and folders are
    passed over.
    """
    yield from (path for path in _visible(folder) if kind_of(path) == "picture")


def unread_in(folder: Path) -> list[Path]:
    """Return the files below a folder that `pictures_in` does not yield, hidden ones left out."""
    return [path for path in _visible(folder) if kind_of(path) != "picture"]


def hidden_in(folder: Path) -> list[Path]:
    """Return the hidden picture files below a folder, and those in hidden folders."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in files if _is_hidden(path, folder) and kind_of(path) == "picture"]


def _visible(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if not _is_hidden(path, folder) and path.is_file():
            yield path


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
