"""Crop, flip, rotation and colour jitter: exact cases, boxes that follow their objects, and what
each scrambles.
"""

import colorsys
import warnings
from pathlib import Path

import numpy as np
import pytest

from sciforge.core.data.store import prepare
from sciforge.core.training.run import Run
from sciforge.errors import ConfigError
from sciforge.experiments.invariance.run import warn_before_training
from sciforge.images import ClassifyImages
from sciforge.images.data.augmentations import (
    AUGMENTATIONS,
    ColourJitter,
    Crop,
    Flip,
    Rotation,
    colours,
    hue_saturation_value,
    moved,
    warped,
)
from sciforge.images.data.prepare import Images

NOISE = np.random.default_rng(0).integers(0, 256, (9, 12, 3)).astype(np.uint8)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", [Crop, Flip, Rotation, ColourJitter])
@pytest.mark.parametrize("channels", [1, 3])
def test_strength_0_changes_nothing_and_draws_come_from_the_generator(kind, channels):
    image = NOISE[..., :channels]
    for seed in range(5):
        assert np.array_equal(kind(strength=0.0)(image, generator(seed)), image)
    found = [kind(strength=1.0)(image, generator(seed)) for seed in (1, 1, 2, 3, 4)]
    assert np.array_equal(found[0], found[1])
    assert any(not np.array_equal(found[0], other) for other in found[2:])
    assert all(x.shape == image.shape and x.dtype == np.uint8 for x in found)


def test_flips_are_exact_and_half_as_many_as_the_strength():
    flipped = [
        np.array_equal(Flip()(NOISE, generator(seed)), NOISE[:, ::-1]) for seed in range(400)
    ]
    assert 160 < sum(flipped) < 240
    assert sum(
        np.array_equal(Flip(0.5)(NOISE, generator(s)), NOISE[:, ::-1]) for s in range(400)
    ) in range(70, 130)


def test_a_quarter_turn_is_exact():
    square = NOISE[:, :9]
    quarter = np.array([[0.0, 1, 0], [-1, 0, 9]])  # x of the picture is y of the turned one
    assert np.array_equal(warped(square, quarter), np.rot90(square, -1))


def test_hue_is_colorsys_own():
    flat = NOISE.reshape(-1, 3)
    found = np.stack(hue_saturation_value(flat / 255.0), axis=1)
    expected = np.array([colorsys.rgb_to_hsv(*colour) for colour in flat / 255.0])
    assert np.abs(found - expected).max() < 1e-6
    assert np.abs(colours(*found.T) * 255 - flat).max() < 1e-3
    grey = np.full((1, 3), 7)
    assert np.array_equal(np.stack(hue_saturation_value(grey), 1), [[0, 0, 7]])


def test_a_turn_of_the_hue_leaves_value_and_saturation():
    only_hue = ColourJitter(brightness=0, contrast=0, saturation=0, hue=0.5)
    vivid = np.array([[[250, 40, 40], [40, 240, 60], [30, 30, 200]]], np.uint8)
    before, after = hue_saturation_value(vivid), hue_saturation_value(only_hue(vivid, generator(3)))
    turn = (after[0] - before[0]) % 1
    assert np.ptp(turn) < 0.01 and 0.02 < turn.mean() < 0.98
    assert np.abs(after[1] - before[1]).max() < 0.01 and np.abs(after[2] - before[2]).max() < 1
    grey = np.repeat(NOISE[..., :1], 3, axis=2)
    assert np.array_equal(only_hue(grey, generator(3)), grey)


def test_brightness_is_a_factor():
    only = ColourJitter(brightness=0.4, contrast=0, saturation=0, hue=0)
    image = np.full((4, 4, 1), 100, np.uint8)
    values = [int(only(image, generator(seed))[0, 0, 0]) for seed in range(200)]
    assert 60 <= min(values) < 70 and 130 < max(values) <= 140


def scene(seed: int) -> dict:
    """Return a dark picture with two bright boxes, their boxes and label map."""
    rng = generator(seed)
    image, segments = np.zeros((40, 60, 1), np.uint8), np.zeros((40, 60), np.uint8)
    boxes = []
    for label, left in ((1, 4), (2, 34)):
        top, height, width = (
            int(rng.integers(3, 15)),
            int(rng.integers(8, 20)),
            int(rng.integers(8, 20)),
        )
        image[top : top + height, left : left + width] = 100 * label
        segments[top : top + height, left : left + width] = label
        boxes.append([left, top, left + width, top + height])
    return {
        "image": image,
        "boxes": np.array(boxes, np.float32),
        "box_labels": np.array([1, 2]),
        "segments": segments,
    }


@pytest.mark.parametrize("change", [Crop(0.6), Flip(1.0)])
@pytest.mark.parametrize("seed", range(8))
def test_boxes_and_label_maps_follow_their_objects(change, seed):
    found = change.apply(scene(seed), generator(seed))
    for box, label in zip(found["boxes"], found["box_labels"], strict=True):
        rows, columns = np.nonzero(
            np.abs(found["image"][..., 0].astype(int) - 100 * int(label)) < 50
        )
        around = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        if label == 2:  # the rims of the brighter one are as bright as the other
            assert np.abs(box - around).max() <= 1.01
    assert (found["segments"][found["image"][..., 0] > 190] == 2).all()
    assert len(found["boxes"]) == len(found["box_labels"]) <= 2


def test_a_box_out_of_view_goes_with_its_label():
    left_half = np.array([[0.5, 0, 0], [0, 1, 0]])
    found = moved(scene(0), left_half)
    assert found["box_labels"].tolist() == [1]
    assert found["boxes"][0, 0] == 8  # twice as large
    assert scene(0)["box_labels"].tolist() == [1, 2]


def test_a_rotated_box_holds_its_object():
    record = scene(2)
    for seed in range(5):
        found = Rotation(0.2).apply(record, generator(seed))
        rows, columns = np.nonzero(found["image"][..., 0] > 190)
        box = found["boxes"][found["box_labels"] == 2][0]
        assert box[0] <= columns.min() + 1 and box[2] >= columns.max() - 1
        assert box[1] <= rows.min() + 1 and box[3] >= rows.max() - 1


def test_settings_that_cannot_be():
    for make in (
        lambda: Crop(1.1),
        lambda: Flip(-0.1),
        lambda: ColourJitter(hue=0.6),
        lambda: Rotation(float("nan")),
    ):
        with pytest.raises(ConfigError):
            make()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_change_scrambles_its_own_nuisance_more_than_the_others(name):
    def shifts(augmentation) -> dict[str, float]:
        rng, found = generator(1), {}
        records = []
        for _ in range(60):
            image = np.zeros((24, 24, 3), np.float32)
            y, x, h, w = (int(n) for n in rng.integers((2, 2, 5, 5), (10, 10, 13, 13)))
            image[y : y + h, x : x + w] = rng.uniform(60, 255, 3)
            records.append({"image": image.astype(np.uint8)})
        changed = [augmentation.apply(record, rng) for record in records]
        for other, a in AUGMENTATIONS.items():
            before, after = (np.stack([a.nuisance(r) for r in rows]) for rows in (records, changed))
            assert before.shape[1:] == after.shape[1:] and np.isfinite(after).all()
            found[other] = float(((after - before) ** 2).sum() / before.var(0).sum() / len(before))
        return found

    found = shifts(AUGMENTATIONS[name])
    assert found[name] > 0.2
    if name in ("jitter", "hue"):
        assert max(found[other] for other in ("crop", "flip", "rotation")) < 0.05
    else:
        assert found["hue"] < 0.05


@pytest.fixture(scope="module")
def tinted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bars that lie or stand, red or a violet as bright: the same pictures labelled by hue and
    by shape.
    """
    folder, rng = tmp_path_factory.mktemp("tinted"), generator(5)
    shape, hue = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    image = np.zeros((200, 12, 12), np.float32)
    for number, (stands, at) in enumerate(zip(shape, rng.integers(2, 8, 200), strict=True)):
        rows, columns = (
            (slice(1, 11), slice(at, at + 3)) if stands else (slice(at, at + 3), slice(1, 11))
        )
        image[number, rows, columns] = rng.uniform(150, 250)
    turn = np.broadcast_to(np.where(hue, 0.77, 0.0)[:, None, None], image.shape)
    pixels = np.rint(colours(turn, np.full_like(image, 0.8), image)).astype(np.uint8)
    stores = {}
    for name, label in (("hue", hue), ("shape", shape)):
        np.savez(folder / f"{name}.npz", images=pixels, labels=np.array(["no", "yes"])[label])
        stores[name] = prepare(Images(files=(folder / f"{name}.npz",)), folder / name).path
    return stores


def test_the_core_warns_of_hue_jitter_where_hue_is_the_label_and_only_there(tinted, tmp_path):
    def said(task: str, **strengths: float) -> list[str]:
        run = Run(
            data=tinted[task],
            out=tmp_path / "never",
            model="vit-mini",
            objective=ClassifyImages(**strengths),
        )
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            warn_before_training(run)
        return [str(warning.message) for warning in found]

    (line,) = said("hue", hue=0.5, jitter=0.2, flip=1.0)
    assert "hue" in line and "label" in line
    assert said("shape", hue=0.5, jitter=0.2) == []
    assert said("hue", jitter=0.2, flip=1.0, crop=0.3) == []
