"""What `sciforge prepare images` is given is used, refused or named in the notes of the store."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sciforge.core.data.store import prepare
from sciforge.errors import ConfigError, DataError
from sciforge.images import DOMAIN
from sciforge.images.data.prepare import Images
from sciforge.images.data.readers import Rules, read_picture
from sciforge.images.objectives.segmentation import SegmentPatches

NOISE = np.random.default_rng(0).integers(0, 256, (40, 8, 6, 3), np.uint8)


def saved(path: Path, number: int = 0, pixels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(NOISE[number] if pixels is None else pixels).save(path)
    return path


def notes(tmp_path: Path, **options) -> str:
    """Prepare and return the notes of the store."""
    store = prepare(Images(**options), tmp_path / "store")
    return "\n".join(store.meta.get("notes", ()))


def masks(tmp_path: Path, value: int, mode: str = "L") -> dict[str, Path]:
    """Write four images, and label maps of 0 and another value."""
    for number in range(4):
        saved(tmp_path / f"images/{number}.png", number)
        map_HW = np.zeros((8, 6), np.uint8)
        map_HW[2:5, 1:4] = value
        path = tmp_path / f"masks/{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(map_HW).convert(mode).save(path)
    return {"files": tmp_path / "images", "masks": tmp_path / "masks"}


@pytest.mark.parametrize("size", [None, (16, 16)])
def test_binary_masks_of_0_and_255_are_no_loss_of_the_foreground(tmp_path, size):
    files = masks(tmp_path, 255)
    with pytest.raises(DataError, match="255 is no class; give --mask-classes 0 255"):
        prepare(Images(**files, size=size), tmp_path / "refused")
    store = prepare(Images(**files, size=size, mask_classes=(0, 255)), tmp_path / "store")
    assert store.meta["segment_classes"] == 2
    expected = 9 if size is None else 36
    assert (np.asarray(store[0]["segments"]) == 1).sum() == expected


def test_a_mask_value_that_is_no_class_is_rejected(tmp_path):
    files = masks(tmp_path, 7)
    with pytest.raises(DataError, match="the value 7 is none of the mask classes"):
        prepare(Images(**files, mask_classes=(0, 1)), tmp_path / "store")


def test_masks_of_one_bit_are_read(tmp_path):
    store = prepare(Images(**masks(tmp_path, 255, "1")), tmp_path / "store")
    assert store.meta["segment_classes"] == 2 and np.asarray(store[0]["segments"]).sum() == 9


def test_sparse_mask_values_are_told(tmp_path):
    said = notes(tmp_path, **masks(tmp_path, 127))
    assert "2 values (0, 127), taken for classes 0 to 127" in said


def test_files_of_a_folder_that_are_not_read_are_counted(tmp_path):
    saved(tmp_path / "p/a.png")
    saved(tmp_path / "p/._b.png", 1)
    (tmp_path / "p/x").mkdir()
    for name in ("c.heic", "x/d.heic", "e.npy"):
        (tmp_path / "p" / name).write_bytes(b"x")
    said = notes(tmp_path, files=tmp_path / "p")
    assert "3 other files in the folders not read: 2 .heic, 1 .npy" in said
    assert "1 hidden images not read" in said and "._b.png" in said


@pytest.mark.parametrize("suffix", ["bmp", "gif", "webp"])
def test_what_pillow_reads_is_read(tmp_path, suffix):
    image = Image.fromarray(NOISE[0, ..., 0])
    image.save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    store = prepare(Images(files=tmp_path / f"a.{suffix}", channels="grey"), tmp_path / "store")
    assert np.array_equal(store[0]["image"][..., 0], NOISE[0, ..., 0])


def test_an_animation_is_refused(tmp_path):
    frames = [Image.fromarray(picture) for picture in NOISE[:2]]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="2 frames"):
        read_picture(tmp_path / "a.gif")


def test_white_is_refused_where_it_cannot_be_kept(tmp_path):
    deep = (NOISE[0].astype(np.uint16) * 16).tobytes()  # 12 bits of a camera
    header = b"\x89PNG\r\n\x1a\n"
    rows = b"".join(
        b"\0" + np.frombuffer(deep, "<u2").astype(">u2").reshape(8, 18)[row].tobytes()
        for row in range(8)
    )
    (tmp_path / "a.png").write_bytes(
        header
        + _chunk(b"IHDR", np.array([6, 8], ">u4").tobytes() + bytes([16, 2, 0, 0, 0]))
        + _chunk(b"IDAT", _deflated(rows))
        + _chunk(b"IEND", b"")
    )
    assert read_picture(tmp_path / "a.png").shape == (8, 6, 3)
    with pytest.raises(DataError, match="16-bit colour.*white 4095"):
        read_picture(tmp_path / "a.png", Rules(white=4095))


def _deflated(data: bytes) -> bytes:
    import zlib

    return zlib.compress(data)


def _chunk(kind: bytes, data: bytes) -> bytes:
    import zlib

    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def test_twelve_bits_read_as_sixteen_are_told(tmp_path):
    np.save(tmp_path / "a.npy", NOISE[..., 0].astype(np.uint16) * 16)
    assert "--white 4095" in notes(tmp_path, files=tmp_path / "a.npy")


def test_arrays_of_an_npz_that_are_not_used_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", images=NOISE, label=np.zeros(40, int), train=np.ones(3))
    assert "arrays of a.npz not used: label, train" in notes(tmp_path, files=tmp_path / "a.npz")


def test_bytes_of_labels_are_text(tmp_path):
    np.savez(tmp_path / "a.npz", images=NOISE[:2], labels=np.array([b"cat", b"dog"]))
    store = prepare(
        Images(files=tmp_path / "a.npz", test_share=0, validation_share=0), tmp_path / "s"
    )
    assert store.meta["classes"] == ["cat", "dog"]


def test_numbers_taken_for_classes_are_told(tmp_path):
    np.savez(tmp_path / "a.npz", images=NOISE, labels=np.linspace(0, 1, 40))
    assert "for regression use --numeric" in notes(tmp_path, files=tmp_path / "a.npz")


def test_columns_and_classes_that_are_not_used_are_named(tmp_path):
    for number in range(3):
        saved(tmp_path / f"p/{number}.png", number)
    (tmp_path / "t.csv").write_text(
        "image,label,patient,split\n0.png,0,7,train\n1.png,0,7,train\n2.png,1,8,test\n"
    )
    said = notes(
        tmp_path, files=tmp_path / "p", labels=tmp_path / "t.csv", classes=("cat", "dog", "eel")
    )
    assert "columns of t.csv not used: patient" in said
    assert "classes without an image left out: eel" in said
    assert "classes without a training image: dog" in said


def test_folders_of_splits_and_groups_that_are_not_used_are_named(tmp_path):
    for number, name in enumerate(("train/a", "test/b")):
        saved(tmp_path / f"p/{name}.png", number)
    assert "folders named test, train" in notes(tmp_path, files=tmp_path / "p")
    for number, name in enumerate(("p1/cat/a", "p2/dog/b")):
        saved(tmp_path / f"q/{name}.png", number)
    store = prepare(Images(files=tmp_path / "q", folder_labels=True), tmp_path / "other")
    assert "folders above those of the classes not used: p1, p2" in store.meta["notes"][0]


def test_a_folder_of_a_split_is_no_class(tmp_path):
    for name in ("train/cat/a.png", "train/dog/b.png", "test/c.png"):
        saved(tmp_path / "p" / name, len(name) + ord(name[-5]) % 7)
    with pytest.raises(DataError, match="in the folder 'test' of a split"):
        prepare(Images(files=tmp_path / "p", folder_labels=True), tmp_path / "store")


def test_one_name_in_two_folders_is_not_one_label(tmp_path):
    for number, name in enumerate(("p/a.png", "q/a.png")):
        saved(tmp_path / name, number)
    (tmp_path / "t.csv").write_text("image,label\na.png,cat\n")
    files = (tmp_path / "p", tmp_path / "q")
    with pytest.raises(DataError, match="several of the folders hold an image 'a.png'"):
        prepare(Images(files=files, labels=tmp_path / "t.csv"), tmp_path / "store")
    saved(tmp_path / "m/a.png", pixels=np.ones((8, 6), np.uint8))
    with pytest.raises(DataError, match="several of the folders hold an image 'a.png'"):
        prepare(Images(files=files, masks=tmp_path / "m"), tmp_path / "store")


def test_a_picture_named_twice_and_a_column_named_twice_are_refused(tmp_path):
    saved(tmp_path / "p/x/a.png")
    (tmp_path / "t.csv").write_text("image,label\nx/a.png,cat\na.png,dog\n")
    spec = {"files": tmp_path / "p", "labels": tmp_path / "t.csv"}
    with pytest.raises(DataError, match="'a.png' is there by its path too"):
        prepare(Images(**spec), tmp_path / "store")
    (tmp_path / "t.csv").write_text("image,label,label\nx/a.png,cat,dog\n")
    with pytest.raises(DataError, match="two columns are called 'label'"):
        prepare(Images(**spec), tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"split_column": "fold"}, "split_column is not used"),
        ({"label_column": "y"}, "label_column is not used"),
        ({"image_column": "file"}, "image_column is not used"),
        ({"mask_classes": (0, 255)}, "mask_classes is not used"),
        ({"numeric": True, "classes": ("a", "b")}, "classes name labels"),
        ({"numeric": True}, "there are none"),
        ({"classes": ("a", "b")}, "there are none"),
        ({"masks": "m", "mask_classes": (0, 0)}, "two or more different"),
        ({"masks": "m", "mask_classes": (0, 256)}, "0 to 255"),
    ],
)
def test_options_that_would_change_nothing_are_refused(tmp_path, change, match):
    saved(tmp_path / "p/a.png")
    with pytest.raises(ConfigError, match=match):
        prepare(Images(files=tmp_path / "p", **change), tmp_path / "store")


def test_a_split_column_that_is_not_there_is_refused(tmp_path):
    saved(tmp_path / "p/a.png")
    (tmp_path / "t.csv").write_text("image,label\na.png,cat\n")
    spec = Images(files=tmp_path / "p", labels=tmp_path / "t.csv", split_column="fold")
    with pytest.raises(DataError, match="no column 'fold'"):
        prepare(spec, tmp_path / "store")


def coco(path: Path, **change) -> Path:
    body = {
        "images": [{"id": 1, "file_name": "a.png", "width": 6, "height": 8}],
        "categories": [{"id": 1, "name": "yak"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "segmentation": [[1, 1, 2, 2]]}
        ],
    }
    path.write_text(json.dumps(body | change))
    return path


def test_coco_of_another_size_or_with_names_that_mean_two_is_refused(tmp_path):
    saved(tmp_path / "p/a.png")
    good = coco(tmp_path / "c.json")
    said = notes(tmp_path, files=tmp_path / "p", boxes=good)
    assert "segmentation of 1 annotations not used" in said
    image = {"id": 1, "file_name": "a.png"}
    for change, match in (
        ({"images": [{**image, "width": 8, "height": 6}]}, "of a picture of 8 x 6 pixels"),
        ({"images": [image, {**image, "id": 2}]}, "two images are called 'a.png'"),
        ({"categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]}, "two categories"),
    ):
        spec = Images(files=tmp_path / "p", boxes=coco(tmp_path / "c.json", **change))
        with pytest.raises(DataError, match=match):
            prepare(spec, tmp_path / "refused")


def test_images_in_memory_are_neither_mixed_nor_scaled_in_silence(tmp_path):
    def prepared(inputs: list[np.ndarray], out: str):
        labels = pd.DataFrame({"kind": ["a", "b"]})
        preparer = DOMAIN.inputs.preparer(inputs, labels, split=None, seed=0)
        return prepare(preparer, tmp_path / out)

    with pytest.raises(DataError, match="input 1: in colour, the first image is grey"):
        prepared([NOISE[0, ..., 0], NOISE[1]], "mixed")
    store = prepared([NOISE[0], NOISE[1, :4]], "scaled")
    assert "1 images scaled to the 6 x 8 pixels of the first" in store.meta["notes"][0]


def test_overlap_over_no_pixel_is_refused():
    empty = [{"segments": np.full((4, 4), 255, np.uint8)}]
    with pytest.raises(DataError, match="no pixel of a class in 1 label maps"):
        SegmentPatches(classes=2).metrics({"segments": np.zeros((1, 4, 4), np.uint8)}, empty)
