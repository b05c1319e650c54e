"""What a checkpoint says of files: tables, boxes in the file's own pixels, label maps, pictures;
and what it refuses.
"""

import json
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
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
from sciforge.images.inference.outputs import (
    AttentionMaps,
    Detections,
    ImageEmbeddings,
    ImageLabels,
    Reconstructions,
    Segments,
)
from sciforge.images.inference.reconstruction import HIDDEN, reconstructed
from sciforge.images.objectives.detection import DetectObjects
from sciforge.images.objectives.segmentation import SegmentPatches


def learnt(
    store: Store, out: Path, objective, patch: int, steps: int = 2, lr: float = 1e-3
) -> Model:
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


def test_the_table_of_classes_is_what_predict_says(bars, folder):
    model = learnt(bars, folder / "classes", ClassifyImages(bins=2), 3)
    result = ImageLabels(files=folder / "bars.npy").run(model)
    # opens with defaults, provenance beside
    rows = pd.read_csv(result.save(folder / "classes.csv"))
    about = json.loads((folder / "classes.json").read_text())
    assert (
        about["options"]["files"] == [str(folder / "bars.npy")]
        and len(about["weights_sha256"]) == 64
    )
    pictures = np.load(folder / "bars.npy")
    probability_NC = model.outputs({"image": picture[..., None]} for picture in pictures)[
        "probability"
    ]
    assert rows["name"].tolist() == [f"bars.npy[{i}]" for i in range(len(pictures))]
    np.testing.assert_allclose(rows["probability"], probability_NC[:, 1], atol=1e-6)
    assert rows["label"].tolist() == [("lying", "standing")[i] for i in probability_NC.argmax(1)]
    pd.testing.assert_frame_equal(
        model.predict(list(pictures)), result.to_pandas().drop(columns="name")
    )


def test_embeddings_of_layers_do_not_depend_on_the_batch(filler, folder):
    result = ImageEmbeddings(files=(folder / "bars.npy",), layers=(0, -1, 2)).run(filler)
    out = result.save(folder / "e.npz")
    with np.load(out) as arrays:
        assert set(arrays.files) == {"names", "provenance", "layer_0", "layer_2"}
        embedding_ND = arrays["layer_2"]
    assert result.to_pandas().shape == (len(embedding_ND), 1 + 2 * embedding_ND.shape[1])
    with torch.no_grad():
        picture = torch.from_numpy(np.load(folder / "bars.npy")[9][None, ..., None])
        alone = filler.network({"image": picture}).mean(1)
    np.testing.assert_allclose(embedding_ND[9], alone[0].numpy(), atol=1e-5)
    with pytest.raises(ConfigError, match="layers 0 to 2"):
        ImageEmbeddings(files=(folder / "bars.npy",), layers=(3,)).run(filler)


def test_boxes_are_told_in_pixels_of_the_file(finder, folder):
    """A file of half the height is framed six rows lower; its boxes come back to the file's
    rows, cut at its edges.
    """
    with Image.open(folder / "pictures/003.png") as image:
        half = np.asarray(image)[:12]
    Image.fromarray(half).save(folder / "half.png")
    options = {"background": (0, 0, 0), "score": 0.05}
    rows = Detections(files=(folder / "half.png",), **options).run(finder).to_pandas()
    framed = np.zeros((24, 24, 1), np.uint8)
    framed[6:18, :, 0] = half
    direct_T6 = finder.outputs([{"image": framed}])["detections"][0]
    expected_K4 = (direct_T6[direct_T6[:, 4] > 0.05][:, :4] - [0, 6, 0, 6]).clip(
        0, [24, 12, 24, 12]
    )
    assert len(rows) and set(rows["image"]) == {"half.png"}
    np.testing.assert_allclose(rows[["x0", "y0", "x1", "y1"]], expected_K4, atol=1e-4)


@pytest.mark.parametrize("size", [(12, 24), (48, 60), (7, 5), (24, 24)])
def test_boxes_find_their_way_back_to_the_file(size):
    fit = Fit.letterbox(size, (24, 24))
    box_K4 = np.array([[0, 0, size[1], size[0]], [1.5, 2, 4, 6.25]])
    picture = Picture("a", np.zeros((24, 24, 1), np.uint8), size, fit)
    np.testing.assert_allclose(picture.in_file(fit.boxes(box_K4)), box_K4, atol=1e-4)


def test_detected_boxes_lie_on_the_bright_objects(finder, folder):
    rows = Detections(files=folder / "pictures", score=0.5).run(finder).to_pandas()
    inside, outside = [], []
    for _, row in rows.iterrows():
        with Image.open(folder / "pictures" / row["image"]) as image:
            bright = np.asarray(image) > 100
        x0, y0, x1, y1 = (round(row[k]) for k in ("x0", "y0", "x1", "y1"))
        inside.append(bright[y0:y1, x0:x1].mean())
        outside.append(bright.mean())
    assert len(rows) > 100 and np.mean(inside) > 0.6 > 3 * np.mean(outside)


def test_drawings_are_whole_pictures(finder, filler, folder):
    pictures, bars = {"files": folder / "pictures"}, {"files": folder / "bars.npy"}
    results = {
        "d.png": Detections(count=5, **pictures).run(finder),
        "attention.png": AttentionMaps(count=2, **pictures).run(finder),
        "filled.png": Reconstructions(count=4, mask_rate=0.5, **bars).run(filler),
    }
    open_before = plt.get_fignums()
    for name, result in results.items():
        with Image.open(result.save(folder / name)) as image:
            image.load()
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
        assert "<img" in result._repr_html_() and len(result.to_pandas())
    # an image; all heads and two, each over it
    assert len(results["attention.png"].plot().images) == 2 * (1 + 2 * 3)
    # only the figure that plot returned may stay open
    assert len(plt.get_fignums()) <= len(open_before) + 1
    plt.close("all")
    with pytest.raises(ConfigError, match=r"\.png"):
        results["d.png"].save(folder / "d.gif")
    assert not list(folder.glob(".*tmp*"))


def test_methods_of_models_take_arrays_and_paths(finder, filler, folder):
    path = folder / "pictures/003.png"
    with Image.open(path) as image:
        array = np.asarray(image)
        objects = [
            finder.detect([given], score=0.05).to_pandas()
            for given in (array, path, image, array / 255)
        ]
    assert len(objects[0]) and set(objects[0]["image"]) == {0}
    for frame in objects[1:]:
        pd.testing.assert_frame_equal(frame, objects[0])
    # corners are in pixels of what was given
    small = finder.detect([array[::2, ::2]], score=0.05).to_pandas()
    assert small[["x1", "y1"]].to_numpy().max() <= 12
    filled = filler.reconstruct([array[:12, :12]], seed=2)
    assert (
        filled.images.shape == filled.filled.shape == (1, 12, 12, 1)
        and filled.to_pandas()["rmse"].iloc[0] > 0
    )
    assert filler.attention([array]).to_pandas()["head"].tolist() == [
        "all heads",
        "head 1",
        "head 2",
    ]
    with pytest.raises(ConfigError, match=r"use model.detect\(images\)"):
        finder.predict([array])
    with pytest.raises(DataError, match="input 1: floats from 0 to 2; give 0"):
        filler.reconstruct([array, np.full((4, 4), 2.0) * (np.arange(4) > 1)])


def test_reconstructions_keep_what_was_seen_and_fill_the_rest(filler, bars):
    images, seen, filled = reconstructed(
        filler, filler.objective, [bars[i] for i in range(5)], seed=1
    )
    hidden = (seen == HIDDEN).all(-1)
    assert 0.7 < hidden.mean() < 0.8
    assert (seen[~hidden] == images[~hidden]).all() and (filled[~hidden] == images[~hidden]).all()
    assert (filled[hidden] != images[hidden]).mean() > 0.5
    # any weights: its flat patches must come back flat
    normalised = replace(filler.objective, normalise=True)
    flat = {"image": np.full((12, 12, 1), 90, np.uint8)}
    *_, filled = reconstructed(filler, normalised, [flat], seed=1)
    assert abs(filled.astype(int) - 90).max() <= 15


def test_label_maps_are_written_beside_each_other(scenes, folder):
    model = learnt(scenes, folder / "segmenter", SegmentPatches(), 4)
    result = Segments(files=folder / "pictures").run(model)
    out = result.save(folder / "maps")
    names = sorted(path.name for path in out.glob("*.png"))
    assert names == [f"{i:03d}.png" for i in range(160)] and (out / "provenance.json").exists()
    with Image.open(folder / "pictures/007.png") as image:
        picture = np.asarray(image)
    with Image.open(out / "007.png") as image:
        assert (
            np.asarray(image) == model.outputs([{"image": picture[..., None]}])["segments"][0]
        ).all()
    np.testing.assert_allclose(result.to_pandas().drop(columns="name").sum(axis=1), 1)
    assert len(result.plot().images) == 16
    plt.close("all")
    double = picture.repeat(2, 0).repeat(2, 1)
    assert model.segment([double])[0].shape == double.shape  # in the size of what was given
    with pytest.raises(ConfigError, match="exists already"):
        result.save(folder / "maps")


def test_an_image_of_another_size_keeps_its_size_if_asked(filler, folder):
    Image.fromarray(np.full((30, 24, 3), 200, np.uint8)).save(folder / "large.png")
    codec = filler.codec
    framed, kept = (
        next(read_files([folder / "large.png"], codec, Rules(), size)) for size in (None, (30, 24))
    )
    assert framed.image.shape == (12, 12, 1) and kept.image.shape == (30, 24, 1)
    assert framed.in_file(np.array([[1, 0, 11, 12]])).round().tolist() == [[0, 0, 24, 30]]
    with pytest.raises(ConfigError, match="do not divide into patches of 3"):
        next(read_files([folder / "large.png"], codec, Rules(), (31, 24)))


def test_what_outputs_refuse(filler, folder, tmp_path):
    bars = {"files": (folder / "bars.npy",)}
    for output in (ImageLabels, Detections, Segments):
        with pytest.raises(ConfigError, match="was trained for InpaintPatches, this output needs"):
            output(**bars).run(filler)
    with pytest.raises(ConfigError, match="at least one image"):
        Reconstructions(count=0, **bars).run(filler)
    with pytest.raises(ConfigError, match="detections.score is 'high'"):
        Detections(score="high", **bars)
    with pytest.raises(ConfigError, match="no image among the files"):
        ImageEmbeddings(files=(tmp_path,)).run(filler)
    (tmp_path / "torn.png").write_bytes((folder / "pictures/000.png").read_bytes()[:100])
    with pytest.raises(DataError, match="torn.png: not a readable picture"):
        ImageEmbeddings(files=(tmp_path / "torn.png",)).run(filler)
    with pytest.raises(DataError, match="neither a picture"):
        ImageEmbeddings(files=(Path(__file__),)).run(filler)


def test_one_bad_file_stops_an_output_or_is_skipped_and_listed(bars, folder, tmp_path, caplog):
    model = learnt(bars, folder / "skipping", ClassifyImages(bins=2), 3)
    for number in range(2):
        Image.fromarray(np.asarray(bars[number]["image"])[..., 0]).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="bad.png: not a readable picture"):
        ImageLabels(files=tmp_path).run(model)
    result = ImageLabels(files=tmp_path, on_error="skip").run(model)
    assert result.to_pandas()["name"].tolist() == ["0.png", "1.png"]
    assert [reject["name"] for reject in result.about["rejected"]] == ["bad.png"]
    assert "1 other files in the folders not read: 1 .txt" in result.about["notes"][0]
    assert "1 files that cannot be read left out" in caplog.text and ".txt" in caplog.text
    with pytest.raises(DataError, match="none of 1 files can be read"):
        ImageLabels(files=tmp_path / "bad.png", on_error="skip").run(model)
