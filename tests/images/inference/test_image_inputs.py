"""Users' own images: arrays, Pillow images and paths as records and stores, predictions as
columns of a table.
"""

import numpy as np
import pandas as pd
import pytest
from image_stores import shapes_store
from PIL import Image
from tiny_runs import assert_saves_itself

from sciforge.core.data.dataset import as_dataset
from sciforge.core.data.store import prepare
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.errors import ConfigError, DataError
from sciforge.images import DOMAIN, ImageCodec, Images, InpaintPatches, VitConfig
from sciforge.images.data.in_memory import pixels_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="module")
def filler(folder) -> Model:
    run = Run(
        data=shapes_store(folder).path,
        out=folder / "filler",
        codec=ImageCodec(patch=3),
        model=VitConfig(width=32, depth=2, heads=2, hidden=48),
        objective=InpaintPatches(decoder_width=16, decoder_heads=2),
        schedule=Schedule(steps=2, batch=16),
        hardware=Hardware(device="cpu", threads=1),
    )
    return Model.load(train(run).path, device="cpu")


@pytest.fixture(scope="module")
def bars(folder, filler) -> np.ndarray:
    return np.load(folder / "bars.npy")


def test_every_form_of_an_image_is_the_same_bytes(folder):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(folder / "a.png")
    forms = [
        rgb,
        rgb.astype(np.int64),
        rgb / 255,
        rgb.astype(np.float32) / 255,
        Image.fromarray(rgb),
    ]
    forms += [
        folder / "a.png",
        str(folder / "a.png"),
        np.dstack([rgb, np.full((5, 7), 255, np.uint8)]),
    ]
    for form in forms:
        assert np.array_equal(pixels_of(form), rgb)
    grey = rgb[..., 0]
    for form in (grey, grey[..., None], Image.fromarray(grey), grey.astype(np.uint16) * 257):
        assert np.array_equal(pixels_of(form), grey[..., None])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((2, 2), 1.5), "floats from 1.5 to 1.5; give 0"),
        (np.full((2, 2), np.nan), "floats"),
        (np.full((2, 2), -1), "integers from -1"),
        (np.zeros((2, 2, 5), np.uint8), "channels last"),
        (np.zeros(4, np.uint8), r"shape \[4\] is no image"),
        (np.array([["a"]]), "no pixels"),
        ("missing.png", "no such file"),
    ],
)
def test_a_bad_image_is_named_by_its_place(value, message):
    with pytest.raises(DataError, match=f"input 1: .*{message}"):
        DOMAIN.inputs.records([np.zeros((2, 2), np.uint8), value])


def test_images_in_memory_are_the_store_that_their_file_gives(bars, tmp_path):
    labels = np.array(["a", "b"])[np.arange(len(bars)) % 2]
    np.savez(tmp_path / "all.npz", images=bars, labels=labels)
    options = {"test_share": 0.0, "validation_share": 0.0}
    expected = prepare(Images(files=tmp_path / "all.npz", **options), tmp_path / "files")
    preparer = DOMAIN.inputs.preparer(
        list(bars), pd.DataFrame({"kind": labels}), split=None, seed=0
    )
    store = prepare(preparer, tmp_path / "memory")
    for name in ("image", "label", "split"):
        assert all(
            np.array_equal(store[i][name], expected[i][name]) for i in range(len(expected))
        ), name
    assert store.meta == expected.meta | {"target": "kind"}


def test_fit_takes_images_of_any_size_and_names_its_classes(filler, capsys, tmp_path):
    rng = np.random.default_rng(0)
    bright = np.arange(60) % 2 == 0
    images = [
        rng.uniform(0.5, 1, (24, 24)) if light else rng.uniform(0, 0.5, (8, 8, 3))
        for light in bright
    ]
    model = filler.fit(images[:40], bright[:40])
    assert "40 training records" in capsys.readouterr().out
    table = model.predict(pd.Series(images[40:50], index=list("abcdefghij")))
    assert table.index.tolist() == list("abcdefghij") and table.columns.tolist() == [
        "label",
        "probability",
    ]
    assert table["label"].tolist() == bright[40:50].tolist()
    assert model.evaluate(images[40:], bright[40:])["accuracy"] == 1
    assert model.embed(images[:3]).shape == (3, 32)
    assert_saves_itself(model, tmp_path / "saved", images[40:], images[40:], bright[40:])


def test_floats_are_numbers_to_regress_on(filler):
    brightness = np.random.default_rng(0).uniform(0.1, 0.9, 60)
    pictures = [np.full((12, 12), value) for value in brightness]
    model = filler.fit(pictures[:40], pd.Series(brightness[:40], name="brightness"), verbose=False)
    table = model.predict(pictures[40:])
    assert table.columns.tolist() == ["brightness"]
    assert np.corrcoef(table["brightness"], brightness[40:])[0, 1] > 0.9


def test_what_cannot_be_learnt_is_refused(filler, bars):
    pictures = list(bars[:4])
    with pytest.raises(ConfigError, match="the images have no labels"):
        filler.fit(pictures, verbose=False)
    with pytest.raises(ConfigError, match="one target"):
        filler.fit(pictures, pd.DataFrame({"a": [0, 1, 0, 1], "b": [0, 1, 0, 1]}), verbose=False)
    with pytest.raises(DataError, match="at least two classes"):
        filler.fit(pictures, ["a"] * 4, verbose=False)


def test_copies_in_another_split_are_counted(bars):
    pictures = [bars[0], bars[1], bars[0]]
    dataset = as_dataset(
        pictures, ["a", "b", "a"], domain="images", split=["train", "train", "test"]
    )
    assert (
        "1 images left out: copies" in "; ".join(dataset.notes) and len(dataset.split("train")) == 1
    )
