"""Scenes: their boxes are around their objects, test scenes hold other objects, and each is a
function of seed and index.
"""

from pathlib import Path

import numpy as np
import pytest

from sciforge.core.data.store import Store, prepare
from sciforge.errors import ConfigError
from sciforge.images.data.boxes import overlaps
from sciforge.images.data.prepare import Images
from sciforge.images.data.scenes import Scenes, bounds, cut_out


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright bars before black; those of the test are brighter than all others."""
    folder, rng = tmp_path_factory.mktemp("objects"), np.random.default_rng(0)
    image, label, split = np.zeros((60, 12, 12), np.uint8), [], rng.permutation(60) % 3
    for number in range(60):
        low = (100, 150, 200)[split[number]]
        a, b = (slice(2, 10), slice(4, 7)) if number % 2 else (slice(4, 7), slice(2, 10))
        image[number, a, b] = low + number % 40
        label.append("upright" if number % 2 else "flat")
    np.savez(folder / "o.npz", images=image, labels=np.array(label), splits=split)
    prepare(Images(files=(folder / "o.npz",)), folder / "store")
    return folder / "store"


def make(store: Path, out: Path, **changes) -> Store:
    options = {
        "scenes": (20, 5, 10),
        "size": (32, 40),
        "noise": 0.0,
        "clutter": False,
        "scale": (1.0, 1.0),
    }
    return prepare(Scenes(images=store, **{**options, **changes}), out)


def test_boxes_are_tight_around_the_objects(objects, tmp_path):
    store = make(objects, tmp_path / "scenes", overlap=0.0)
    assert [len(store.split(s)) for s in ("train", "validation", "test")] == [20, 5, 10]
    assert store.meta["box_classes"] == ["flat", "upright"] and store.meta["size"] == [32, 40]
    total = 0
    for record in (store[i] for i in range(len(store))):
        covered = np.zeros((32, 40), bool)
        for (x0, y0, x1, y1), label in zip(
            record["boxes"].astype(int), record["box_labels"], strict=True
        ):
            assert (record["image"][y0:y1, x0:x1] >= 100).all()
            assert (x1 - x0, y1 - y0) == (
                (3, 8) if store.meta["box_classes"][label] == "upright" else (8, 3)
            )
            covered[y0:y1, x0:x1] = True
            total += 1
        assert (record["image"][..., 0][~covered] == 0).all()
    assert total > 40


def test_test_scenes_hold_objects_of_no_other_scene(objects, tmp_path):
    store = make(objects, tmp_path / "scenes")
    for split, low in (("train", 100), ("validation", 150), ("test", 200)):
        seen = np.concatenate([record["image"].ravel() for record in store.split(split)])
        assert low <= seen[seen > 0].min() and seen.max() < low + 40


def test_a_scene_is_a_function_of_seed_split_and_index(objects, tmp_path):
    changes = {"noise": 8.0, "clutter": True, "scale": (0.7, 1.5)}
    few = make(objects, tmp_path / "few", **changes)
    more = make(objects, tmp_path / "more", scenes=(600, 5, 10), **changes, seed=0)
    other = make(objects, tmp_path / "other", seed=1, **changes)
    for split in ("train", "validation", "test"):
        for a, b, c in zip(few.split(split), more.split(split), other.split(split), strict=False):
            assert all(
                np.array_equal(a[name], b[name]) for name in ("image", "boxes", "box_labels")
            )
            assert not np.array_equal(a["image"], c["image"])


def test_objects_overlap_no_more_than_asked(objects, tmp_path):
    store = make(objects, tmp_path / "scenes", objects=(6, 6), overlap=0.1)
    for record in (store[i] for i in range(len(store))):
        found = overlaps(record["boxes"], record["boxes"])
        assert (found[~np.eye(len(found), dtype=bool)] <= 0.1).all()


def test_scaled_objects_keep_their_boxes():
    image = np.zeros((20, 20, 1), np.uint8)
    image[5:15, 8:12] = 200
    for scale in (0.5, 1.0, 1.7, 3.0):
        box = bounds(cut_out(image, scale)[1])
        assert np.abs(box - np.array([8, 5, 12, 15]) * scale).max() <= 1
    assert bounds(cut_out(np.full((8, 8, 3), 9, np.uint8), 1.0)[1]) is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"scenes": (0, 0, 0)}, "give some scenes"),
        ({"objects": (3, 1)}, "from least to most"),
        ({"scale": (1.0, 4.0)}, "do not fit"),
        ({"noise": 200.0}, "between 0 and 128"),
    ],
)
def test_settings_that_cannot_be(objects, tmp_path, change, match):
    with pytest.raises(ConfigError, match=match):
        make(objects, tmp_path / "scenes", **change)


def test_objects_need_classes_and_splits(tmp_path):
    np.save(
        tmp_path / "o.npy", np.random.default_rng(0).integers(0, 255, (4, 8, 8)).astype(np.uint8)
    )
    prepare(
        Images(files=(tmp_path / "o.npy",), test_share=0, validation_share=0), tmp_path / "plain"
    )
    with pytest.raises(ConfigError, match="has no classes"):
        make(tmp_path / "plain", tmp_path / "scenes")
