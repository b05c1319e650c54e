"""What a checkpoint says of files: tables, boxes in the file's own pixels, label maps, pictures; and what it refuses."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_stores import scenes_store, shapes_store
from PIL import Image

from sciforge.core.data.store import Store
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.errors import ConfigError, DataError
from sciforge.images import ClassifyImages, ImageCodec, InpaintPatches, VitConfig
from sciforge.images.data.image_files import Picture, read_files
from sciforge.images.data.readers import Fit, Rules
from sciforge.images.inference.panels import HIDDEN, reconstructed
from sciforge.images.inference.predictions import (
    AttentionMaps,
    Detections,
    ImageEmbeddings,
    ImageLabels,
    Reconstructions,
    Segments,
)
from sciforge.images.objectives.detection import DetectObjects
from sciforge.images.objectives.segmentation import SegmentPatches


def learnt(store: Store, out: Path, objective, patch: int, steps: int = 2, lr: float = 1e-3) -> Model:
    run = Run(
        data=store.path,
        out=out,
        objective=objective,
        model=VitConfig(width=32, depth=2, heads=2, hidden=48),
        codec=ImageCodec(patch=patch),
        schedule=Schedule(steps=steps, batch=16, lr=lr, kind="constant", weight_decay=0.0),
        hardware=Hardware(device="cpu", threads=1),
    )
    return Model.load(train(run).path, device="cpu", batch=7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def bars(folder) -> Store:
    return shapes_store(folder)


@pytest.fixture(scope="module")
def scenes(folder) -> Store:
    return scenes_store(folder, segments=True)


@pytest.fixture(scope="module")
def filler(bars, folder) -> Model:
    return learnt(bars, folder / "filler", InpaintPatches(decoder_width=16, decoder_heads=2), 3)


@pytest.fixture(scope="module")
def finder(scenes, folder) -> Model:
    return learnt(scenes, folder / "finder", DetectObjects(), 4, steps=120, lr=3e-3)


def table(path: Path) -> list[dict[str, str]]:
    text = path.read_text().splitlines()
    about = json.loads(text[0].removeprefix("# "))
    assert about["options"]["out"] == str(path) and len(about["weights_sha256"]) == 64
    return list(csv.DictReader(text[1:]))


def test_the_table_of_classes_is_what_predict_says(bars, folder):
    predictor = learnt(bars, folder / "classes", ClassifyImages(bins=2), 3)
    out = ImageLabels(files=(folder / "bars.npy",), out=folder / "classes.csv").write(predictor)
    rows = table(out)
    pictures = np.load(folder / "bars.npy")[..., None]
    probability_NC = predictor.outputs({"image": picture} for picture in pictures)["probability"]
    assert [row["name"] for row in rows] == [f"bars.npy[{i}]" for i in range(len(pictures))]
    found = np.array([[float(row["p(lying)"]), float(row["p(standing)"])] for row in rows])
    np.testing.assert_allclose(found, probability_NC, atol=1e-6)
    assert [row["class"] for row in rows] == [("lying", "standing")[i] for i in probability_NC.argmax(1)]


def test_embeddings_of_layers_do_not_depend_on_the_batch(filler, folder):
    out = ImageEmbeddings(files=(folder / "bars.npy",), out=folder / "e.npz", layers=(0, -1, 2)).write(filler)
    with np.load(out) as arrays:
        assert set(arrays.files) == {"names", "provenance", "layer_0", "layer_2"}
        found = arrays["layer_2"]
    with torch.no_grad():
        picture = torch.from_numpy(np.load(folder / "bars.npy")[9][None, ..., None])
        alone = filler.network({"image": picture}).mean(1)
    np.testing.assert_allclose(found[9], alone[0].numpy(), atol=1e-5)
    with pytest.raises(ConfigError, match="layers 0 to 2"):
        ImageEmbeddings(files=(folder / "bars.npy",), out=folder / "f.npz", layers=(3,)).write(filler)
    assert not (folder / "f.npz").exists()


def test_boxes_are_told_in_pixels_of_the_file(finder, folder):
    """A file of half the height is framed six rows lower; its boxes come back to the file's rows, cut at its edges."""
    with Image.open(folder / "pictures/003.png") as image:
        half = np.asarray(image)[:12]
    Image.fromarray(half).save(folder / "half.png")
    options = {"background": (0, 0, 0), "score": 0.05}
    rows = table(Detections(files=(folder / "half.png",), out=folder / "half.csv", **options).write(finder))
    framed = np.zeros((24, 24, 1), np.uint8)
    framed[6:18, :, 0] = half
    direct_T6 = finder.outputs([{"image": framed}])["detections"][0]
    expected_K4 = (direct_T6[direct_T6[:, 4] > 0.05][:, :4] - [0, 6, 0, 6]).clip(0, [24, 12, 24, 12])
    found_K4 = np.array([[float(row[k]) for k in ("x0", "y0", "x1", "y1")] for row in rows])
    assert len(rows) and {row["image"] for row in rows} == {"half.png"}
    np.testing.assert_allclose(found_K4, expected_K4, atol=0.006)


@pytest.mark.parametrize("size", [(12, 24), (48, 60), (7, 5), (24, 24)])
def test_boxes_find_their_way_back_to_the_file(size):
    fit = Fit.letterbox(size, (24, 24))
    box_K4 = np.array([[0, 0, size[1], size[0]], [1.5, 2, 4, 6.25]])
    picture = Picture("a", np.zeros((24, 24, 1), np.uint8), size, fit)
    np.testing.assert_allclose(picture.in_file(fit.boxes(box_K4)), box_K4, atol=1e-4)


def test_found_boxes_lie_on_the_bright_objects(finder, folder):
    rows = table(Detections(files=(folder / "pictures",), out=folder / "all.csv", score=0.5).write(finder))
    inside, outside = [], []
    for row in rows:
        with Image.open(folder / "pictures" / row["image"]) as image:
            bright = np.asarray(image) > 100
        x0, y0, x1, y1 = (round(float(row[k])) for k in ("x0", "y0", "x1", "y1"))
        inside.append(bright[y0:y1, x0:x1].mean())
        outside.append(bright.mean())
    assert len(rows) > 100 and np.mean(inside) > 0.6 > 3 * np.mean(outside)


def test_drawings_are_whole_pictures(finder, filler, folder):
    files = {"files": (folder / "pictures",)}
    Detections(out=folder / "d.csv", drawing=folder / "d.png", count=5, **files).write(finder)
    AttentionMaps(out=folder / "attention.png", count=2, **files).write(finder)
    bars = {"files": (folder / "bars.npy",)}
    Reconstructions(out=folder / "filled.png", count=4, mask_rate=0.5, **bars).write(filler)
    sizes = []
    for name in ("d.png", "attention.png", "filled.png"):
        with Image.open(folder / name) as image:
            image.load()
            sizes.append(image.size)
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
    assert sizes[1] == pytest.approx((4 * 225 + 45, 2 * 225), abs=3)  # an image, all heads and two heads, twice
    assert not list(folder.glob(".*tmp*"))


def test_reconstructions_keep_what_was_seen_and_fill_the_rest(filler, bars):
    images, seen, filled = reconstructed(filler, filler.objective, [bars[i] for i in range(5)], seed=1)
    hidden = (seen == HIDDEN).all(-1)
    assert 0.7 < hidden.mean() < 0.8
    assert (seen[~hidden] == images[~hidden]).all() and (filled[~hidden] == images[~hidden]).all()
    assert (filled[hidden] != images[hidden]).mean() > 0.5
    normalised = replace(filler.objective, normalise=True)  # any weights: its flat patches must come back flat
    flat = {"image": np.full((12, 12, 1), 90, np.uint8)}
    *_, told = reconstructed(filler, normalised, [flat], seed=1)
    assert abs(told.astype(int) - 90).max() <= 15


def test_label_maps_are_written_beside_each_other(scenes, folder):
    predictor = learnt(scenes, folder / "segmenter", SegmentPatches(), 4)
    out = Segments(files=(folder / "pictures",), out=folder / "maps").write(predictor)
    names = sorted(path.name for path in out.glob("*.png"))
    assert names == [f"{i:03d}.png" for i in range(160)] and (out / "provenance.json").exists()
    with Image.open(out / "007.png") as image:
        found = np.asarray(image)
    with Image.open(folder / "pictures/007.png") as image:
        told = predictor.outputs([{"image": np.asarray(image)[..., None]}])["segments"][0]
    assert (found == told).all()
    with pytest.raises(ConfigError, match="exists already"):
        Segments(files=(folder / "pictures",), out=folder / "maps").write(predictor)


def test_an_image_of_another_size_keeps_its_size_if_asked(filler, folder):
    Image.fromarray(np.full((30, 24, 3), 200, np.uint8)).save(folder / "large.png")
    codec = filler.codec
    framed, kept = (next(read_files([folder / "large.png"], codec, Rules(), size)) for size in (None, (30, 24)))
    assert framed.image.shape == (12, 12, 1) and kept.image.shape == (30, 24, 1)
    assert framed.in_file(np.array([[1, 0, 11, 12]])).round().tolist() == [[0, 0, 24, 30]]
    with pytest.raises(ConfigError, match="do not divide into patches of 3"):
        next(read_files([folder / "large.png"], codec, Rules(), (31, 24)))


def test_what_outputs_refuse(filler, folder, tmp_path):
    bars = {"files": (folder / "bars.npy",)}
    for output in (ImageLabels, Detections, Segments):
        with pytest.raises(ConfigError, match="was trained for InpaintPatches, this output needs"):
            output(out=tmp_path / "x", **bars).write(filler)
    with pytest.raises(ConfigError, match="at least one image"):
        Reconstructions(out=tmp_path / "x.png", count=0, **bars).write(filler)
    with pytest.raises(ConfigError, match="no image among the files"):
        ImageEmbeddings(files=(tmp_path,), out=tmp_path / "x.npz").write(filler)
    (tmp_path / "torn.png").write_bytes((folder / "pictures/000.png").read_bytes()[:100])
    with pytest.raises(DataError, match="torn.png: not a readable picture"):
        ImageEmbeddings(files=(tmp_path / "torn.png",), out=tmp_path / "x.npz").write(filler)
    with pytest.raises(DataError, match="neither a picture"):
        ImageEmbeddings(files=(Path(__file__),), out=tmp_path / "x.npz").write(filler)
    with pytest.raises(ConfigError, match="also read from"):
        ImageEmbeddings(out=folder / "bars.npy", **bars).write(filler)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["torn.png"]
