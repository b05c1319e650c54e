"""Random changes of a picture that a user may hold to be without meaning: crop, flip, rotation,
colour jitter.

Each is a frozen object with a `strength` from 0 (nothing changes) to 1: `augmentation(image, rng)`
changes a picture, and `augmentation.apply(record, rng)` a record, whose boxes and label map move
with the picture. Boxes of a rotated picture are those around the turned corners, so they grow.

Legend of shape letters: H rows, W columns, C channels, K boxes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sciforge.core.domain import Augmentation, Record
from sciforge.core.files.settings import Settings

IGNORE = 255  # a label map's value where nothing is known
SEEN = 0.25  # share of a box that must stay in view for the box to stay

# [2, 3]: place in the picture (x, y) = matrix @ (x, y, 1) of a place in the changed one
Matrix = np.ndarray


@dataclass(frozen=True)
class Geometry(Settings):
    """What crop, flip and rotation share: a drawn affine map; None where nothing moves.

    Args:
        strength: 0 changes nothing, 1 most.
    """

    strength: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, 1, "strength")

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Matrix | None:
        """Return the map of one draw for a picture of these rows and columns."""
        raise TypeError(f"{type(self).__name__} must define draw")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a changed picture uint8 [H, W, C] of the same size."""
        matrix = self.draw(image.shape[:2], rng)
        return image if matrix is None else warped(image, matrix)

    def apply(self, record: Record, rng: np.random.Generator) -> dict[str, Any]:
        """Return a record whose picture, boxes and label map are changed together."""
        matrix = self.draw(np.shape(record["image"])[:2], rng)
        return dict(record) if matrix is None else moved(record, matrix)


@dataclass(frozen=True)
class Crop(Geometry):
    """A part of the picture, scaled up to the whole: its area at least 1 - 0.9 strength, its
    sides as 3:4 to 4:3.
    """

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Matrix | None:
        """Return the map of a window drawn at random (Szegedy et al. 2015, arXiv 1409.4842)."""
        if self.strength == 0:
            return None
        height, width = size
        area = height * width * rng.uniform(1 - 0.9 * self.strength, 1)
        aspect = np.exp(rng.uniform(-1, 1) * np.log(4 / 3) * self.strength)
        columns, rows = (
            min(np.sqrt(area * aspect * width / height), width),
            min(np.sqrt(area / aspect * height / width), height),
        )
        left, top = rng.uniform(0, width - columns), rng.uniform(0, height - rows)
        return np.array([[columns / width, 0, left], [0, rows / height, top]])


@dataclass(frozen=True)
class Flip(Geometry):
    """Left and right exchanged, with half the strength for a chance: at strength 1 in every
    second picture.
    """

    strength: float = 1.0

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Matrix | None:
        """Return the mirror map, or None."""
        return (
            np.array([[-1.0, 0, size[1]], [0, 1, 0]]) if rng.random() < self.strength / 2 else None
        )


@dataclass(frozen=True)
class Rotation(Geometry):
    """Turned about the middle by up to 180 degrees times the strength, either way; the edge goes
    on outside.
    """

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Matrix | None:
        """Return the map of a turn by a random angle."""
        if self.strength == 0:
            return None
        turn = rng.uniform(-np.pi, np.pi) * self.strength
        linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        middle = np.array([size[1] / 2, size[0] / 2])
        return np.concatenate([linear, (middle - linear @ middle)[:, None]], axis=1)


@dataclass(frozen=True)
class ColourJitter(Settings):
    """Brightness, contrast, saturation and hue, each changed at random, in this order.

    Args:
        strength: multiplies the four below.
        brightness, contrast, saturation: the factor lies within 1 - this and 1 + this.
        hue: the turn of the colour circle lies within - this and + this; 0.5 is every hue.
    """

    strength: float = 1.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, 1, "strength", "brightness", "contrast", "saturation")
        self.require(0, 0.5, "hue")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a picture uint8 [H, W, C] of other colours; grey pictures change in brightness
        and contrast alone.
        """
        strength_4 = (
            np.array([self.brightness, self.contrast, self.saturation, self.hue]) * self.strength
        )
        bright, contrast, saturation, hue = rng.uniform(-1, 1, 4) * strength_4
        if not strength_4.any():
            return image
        x_HWC = image.astype(np.float32) * np.float32(1 + bright)
        x_HWC = np.clip(x_HWC, 0, 255)
        middle = np.float32(luma(x_HWC).mean())
        x_HWC = np.clip(middle + (x_HWC - middle) * np.float32(1 + contrast), 0, 255)
        if image.shape[2] == 3:
            grey_HW1 = luma(x_HWC)[..., None]
            x_HWC = np.clip(grey_HW1 + (x_HWC - grey_HW1) * np.float32(1 + saturation), 0, 255)
            x_HWC = turned(x_HWC, hue) if hue else x_HWC
        return np.rint(x_HWC).astype(np.uint8)

    def apply(self, record: Record, rng: np.random.Generator) -> dict[str, Any]:
        """Return a record whose picture has other colours."""
        return {**record, "image": self(np.asarray(record["image"]), rng)}


# Places -------------------------------------------------------------------------------------------


def moved(record: Record, matrix: Matrix) -> dict[str, Any]:
    """Return a record with picture, boxes and label map moved by a map; boxes mostly out of view
    are left out.
    """
    size = np.shape(record["image"])[:2]
    changed = {**record, "image": warped(np.asarray(record["image"]), matrix)}
    if "segments" in record:
        changed["segments"] = _nearest(np.asarray(record["segments"]), matrix)
    if "boxes" in record:
        box_K4, kept = moved_boxes(
            np.asarray(record["boxes"], np.float32).reshape(-1, 4), matrix, size
        )
        changed |= {"boxes": box_K4[kept], "box_labels": np.asarray(record["box_labels"])[kept]}
    return changed


def moved_boxes(
    box_K4: np.ndarray, matrix: Matrix, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes around the moved corners, cut at the edges, and which keep a quarter of their
    area in view [K].

    >>> mirror = np.array([[-1.0, 0, 10], [0, 1, 0]])
    >>> moved_boxes(np.array([[1, 2, 4, 5]]), mirror, (10, 10))[0].tolist()
    [[6.0, 2.0, 9.0, 5.0]]
    """
    back = np.linalg.inv(matrix[:, :2])
    corners = box_K4[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2).astype(np.float64)
    corners = (corners - matrix[:, 2]) @ back.T
    whole = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    cut = np.clip(whole, 0, [size[1], size[0]] * 2)
    area, seen = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (whole, cut))
    return cut.astype(np.float32), seen > SEEN * area


def warped(image_HWC: np.ndarray, matrix: Matrix) -> np.ndarray:
    """Return a picture read at the places of a map, bilinear, its edge going on outside; uint8 [H,
    W, C].

    >>> row = np.array([[[1], [2], [4]]], np.uint8)
    >>> warped(row, np.array([[-1.0, 0, 3], [0, 1, 0]])).ravel().tolist()
    [4, 2, 1]
    """
    height, width = image_HWC.shape[:2]
    x_HW, y_HW = _places((height, width), matrix)
    x_HW, y_HW = np.clip(x_HW, 0, width - 1), np.clip(y_HW, 0, height - 1)
    left, top = x_HW.astype(np.intp), y_HW.astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    dx, dy = (x_HW - left).astype(np.float32)[..., None], (y_HW - top).astype(np.float32)[..., None]
    flat = image_HWC.reshape(height * width, -1).astype(np.float32)
    top, bottom = top * width, bottom * width
    upper = flat[top + left] * (1 - dx) + flat[top + right] * dx
    lower = flat[bottom + left] * (1 - dx) + flat[bottom + right] * dx
    return np.rint(upper * (1 - dy) + lower * dy).astype(np.uint8)


def _nearest(label_HW: np.ndarray, matrix: Matrix) -> np.ndarray:
    """Return a label map read at the nearest places of a map; IGNORE outside."""
    x_HW, y_HW = (np.rint(place).astype(np.intp) for place in _places(label_HW.shape, matrix))
    inside = (x_HW >= 0) & (x_HW < label_HW.shape[1]) & (y_HW >= 0) & (y_HW < label_HW.shape[0])
    labels = label_HW[np.where(inside, y_HW, 0), np.where(inside, x_HW, 0)]
    return np.where(inside, labels, IGNORE).astype(label_HW.dtype)


def _places(size: tuple[int, int], matrix: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """Return where each pixel of a changed picture lies in the picture, x [H, W] and y [H, W],
    middles of pixels whole.
    """
    x_W, y_H1 = np.arange(size[1]) + 0.5, (np.arange(size[0]) + 0.5)[:, None]
    (a, b, c), (d, e, f) = matrix
    return a * x_W + b * y_H1 + c - 0.5, d * x_W + e * y_H1 + f - 0.5


# Colours ------------------------------------------------------------------------------------------


def luma(x_HWC: np.ndarray) -> np.ndarray:
    """Return brightness [H, W] (ITU-R 601), of grey pictures their one channel."""
    if x_HWC.shape[2] == 1:
        return x_HWC[..., 0]
    return x_HWC @ np.array([0.299, 0.587, 0.114], np.float32)


def hue_saturation_value(rgb_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hue (0 to 1, red 0, green 1/3), saturation (0 to 1) and value (as the colours) of
    colours, each [H, W].

    >>> [round(float(x), 3) for x in hue_saturation_value(np.array([0.0, 200.0, 100.0]))]
    [0.417, 1.0, 200.0]
    """
    rgb = np.asarray(rgb_HW3, np.float32)
    value = rgb.max(-1)
    chroma = value - rgb.min(-1)
    safe = np.where(chroma > 0, chroma, 1)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    sixth = np.where(
        value == red,
        (green - blue) / safe % 6,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return np.where(chroma > 0, sixth / 6, 0), chroma / np.where(value > 0, value, 1), value


def colours(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return red, green and blue [..., 3] of hue, saturation and value: the inverse of
    `hue_saturation_value`.

    >>> colours(np.array(1 / 3), np.array(1.0), np.array(8.0)).tolist()
    [0.0, 8.0, 0.0]
    """
    place = (np.array([5, 3, 1], np.float32) + np.asarray(hue, np.float32)[..., None] * 6) % 6
    share = np.clip(np.minimum(place, 4 - place), 0, 1)
    return np.asarray(value, np.float32)[..., None] * (
        1 - np.asarray(saturation, np.float32)[..., None] * share
    )


def turned(rgb_HW3: np.ndarray, turn: float) -> np.ndarray:
    """Return colours whose hue is turned by this part of the colour circle."""
    hue, saturation, value = hue_saturation_value(rgb_HW3)
    return colours((hue + turn) % 1, saturation, value)


# What each scrambles ------------------------------------------------------------------------------


def tone(record: Record) -> np.ndarray:
    """Return mean and std of brightness and mean saturation [3], from 0 to 1.

    >>> tone({"image": np.full((2, 2, 1), 51, np.uint8)}).round(3).tolist()
    [0.2, 0.0, 0.0]
    """
    image = np.asarray(record["image"]).astype(np.float32) / 255
    bright = luma(image)
    saturation = hue_saturation_value(image)[1].mean() if image.shape[2] == 3 else 0.0
    return np.array([bright.mean(), bright.std(), saturation], np.float64)


def mean_hue(record: Record) -> np.ndarray:
    """Return the mean direction of hue on the colour circle, weighted by chroma [2]; 0 for grey
    pictures.

    >>> mean_hue({"image": np.array([[[200, 0, 0]]], np.uint8)}).tolist()
    [1.0, 0.0]
    """
    image = np.asarray(record["image"])
    if image.shape[2] == 1:
        return np.zeros(2)
    hue, saturation, value = hue_saturation_value(image)
    chroma, angle = saturation * value, 2 * np.pi * hue
    total = max(float(chroma.sum()), 1e-6)
    return np.array([float((chroma * f(angle)).sum()) / total for f in (np.cos, np.sin)])


def _weights(record: Record) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y (from -1/2 to 1/2) and how much is there: the distance from the median
    brightness, of sum 1.
    """
    bright = luma(np.asarray(record["image"]).astype(np.float32))
    height, width = bright.shape
    weight = np.abs(bright - np.median(bright)) + 1e-6
    x = (np.arange(width) + 0.5) / width - 0.5
    y = ((np.arange(height) + 0.5) / height - 0.5)[:, None]
    return x, y, weight / weight.sum()


def place_and_size(record: Record) -> np.ndarray:
    """Return where the picture's matter lies and how far it spreads: mean x, mean y, std in x,
    in y [4].
    """
    x, y, weight = _weights(record)
    mean_x, mean_y = (weight * x).sum(), (weight * y).sum()
    std = [
        np.sqrt((weight * (axis - mean) ** 2).sum()) for axis, mean in ((x, mean_x), (y, mean_y))
    ]
    return np.array([mean_x, mean_y, *std])


def handedness(record: Record) -> np.ndarray:
    """Return what changes its sign in the mirror [4]: the moments x, x y, x y^2 and x^3 of the
    picture's matter.
    """
    x, y, weight = _weights(record)
    return np.array([(weight * moment).sum() for moment in (x, x * y, x * y**2, x**3)])


def orientation(record: Record) -> np.ndarray:
    """Return which way the picture's matter points [4]: its mean place, and cos and sin of twice
    its long axis's angle, by length.
    """
    x, y, weight = _weights(record)
    mean_x, mean_y = (weight * x).sum(), (weight * y).sum()
    xx, yy = (weight * (x - mean_x) ** 2).sum(), (weight * (y - mean_y) ** 2).sum()
    xy = (weight * (x - mean_x) * (y - mean_y)).sum()
    return np.array([mean_x, mean_y, (xx - yy) / (xx + yy), 2 * xy / (xx + yy)])


AUGMENTATIONS = {
    "crop": Augmentation(
        Crop().apply, place_and_size, "a part of the picture, of 55 to 100 % of its area, scaled up"
    ),
    "flip": Augmentation(
        Flip().apply, handedness, "left and right exchanged, in every second picture"
    ),
    "rotation": Augmentation(
        Rotation().apply, orientation, "turned by up to 90 degrees either way"
    ),
    "jitter": Augmentation(
        ColourJitter(hue=0.0).apply, tone, "brightness, contrast and saturation by up to 40 %"
    ),
    "hue": Augmentation(
        ColourJitter(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.5).apply,
        mean_hue,
        "every hue, at random",
    ),
}
