"""Stores of pictures: labels, splits, boxes, label maps, and what goes to the reject file."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sciforge.core.data.store import Store, prepare
from sciforge.errors import ConfigError, DataError
from sciforge.images.data.annotations import read_boxes, read_labels
from sciforge.images.data.prepare import Images

ROOT = Path(__file__).parents[3]


def picture(path: Path, seed: int, size: tuple[int, int] = (8, 6), mode: str = "L") -> Path:
    """Save noise of (rows, columns)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if mode == "RGB" else size
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of twenty pictures, each in the folder of its class."""
    for number in range(40):
        picture(
            tmp_path / "pictures" / ("cat" if number % 2 else "dog") / f"{number:02d}.png", number
        )
    return tmp_path / "pictures"


def rejects(store: Store) -> dict[str, str]:
    lines = (store.path / "rejected.jsonl").read_text().splitlines()
    return {entry["name"]: entry["reason"] for entry in map(json.loads, lines)}


def test_folders_become_classes_and_shares_are_drawn_class_by_class(folder, tmp_path):
    store = prepare(Images(files=(folder,), folder_labels=True), tmp_path / "store")
    assert store.meta == {
        "size": [8, 6],
        "channels": 1,
        "background": [255, 255, 255],
        "classes": ["cat", "dog"],
        "left_out": 0,
    }
    assert store[0]["name"] == "cat/01.png" and store[0]["image"].shape == (8, 6, 1)
    for split, count in (("train", 14), ("validation", 2), ("test", 4)):
        assert sorted(store.split(split).column("label")) == ["cat"] * count + ["dog"] * count
    again = prepare(Images(files=(folder,), folder_labels=True), tmp_path / "again", workers=2)
    assert again.digests() == store.digests()
    other = prepare(Images(files=(folder,), folder_labels=True, seed=1), tmp_path / "other")
    assert other.digests() != store.digests()


def test_folders_of_splits(tmp_path):
    for number, split in enumerate(["train", "val", "test", "train"]):
        picture(tmp_path / "p" / split / "a" / f"{number}.png", number)
    store = prepare(Images(files=(tmp_path / "p",), folder_labels=True), tmp_path / "store")
    assert dict(zip(store.column("name"), store.column("split").tolist(), strict=True)) == {
        "test/a/2.png": 2,
        "train/a/0.png": 0,
        "train/a/3.png": 0,
        "val/a/1.png": 1,
    }


def test_the_same_picture_is_never_in_two_splits(tmp_path):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (30, 4, 4)).astype(np.uint8)
    np.save(tmp_path / "a.npy", np.concatenate([base, base[::-1]]))
    store = prepare(Images(files=(tmp_path / "a.npy",)), tmp_path / "store")
    split = store.column("split")
    assert (split[:30] == split[30:][::-1]).all() and {0, 1, 2} == set(split.tolist())
    np.save(tmp_path / "t.npy", base[:3])
    store = prepare(
        Images(files=(tmp_path / "a.npy",), test=(tmp_path / "t.npy",)), tmp_path / "named"
    )
    assert len(store.split("test")) == 3 and store.meta["left_out"] == 6
    held = {record["image"].tobytes() for record in store.split("test")}
    assert not any(
        record["image"].tobytes() in held
        for name in ("train", "validation")
        for record in store.split(name)
    )


def test_a_table_of_labels_and_splits(folder, tmp_path):
    rows = [
        f"{p.relative_to(folder).as_posix()},{n}.5,{'test' if n % 4 == 0 else 'train'}"
        for n, p in enumerate(sorted(folder.rglob("*.png")))
    ]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["image,label,split", *rows]) + "\n")
    store = prepare(
        Images(files=(folder,), labels=(table,), numeric=True, validation_share=0.0),
        tmp_path / "store",
    )
    assert store.column("value").tolist() == [n + 0.5 for n in range(40)]
    assert store.column("split").tolist() == [2 * (n % 4 == 0) for n in range(40)]
    assert store.meta["classes"] == []


def test_bare_names_must_be_of_one_picture(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("image,label\na.png,x\n")
    picture(tmp_path / "p/one/a.png", 0)
    assert len(prepare(Images(files=(tmp_path / "p",), labels=(table,)), tmp_path / "store")) == 1
    picture(tmp_path / "p/two/a.png", 1)
    with pytest.raises(DataError, match="labels.csv:2: 2 pictures are called 'a.png'"):
        prepare(Images(files=(tmp_path / "p",), labels=(table,)), tmp_path / "other")


def test_everything_bad_is_told_in_the_reject_file(tmp_path):
    p = tmp_path / "p"
    picture(p / "a.png", 0)
    picture(p / "wide.png", 1, (8, 9))
    picture(p / "colour.png", 2, mode="RGB")
    picture(p / "unnamed.png", 3)
    picture(p / "nolabel.png", 4)
    (p / "cut.png").write_bytes((p / "a.png").read_bytes()[:60])
    (p / "empty.jpg").write_bytes(b"")
    names = ["a.png", "wide.png", "colour.png", "cut.png", "empty.jpg", "gone.png"]
    table = tmp_path / "labels.csv"
    table.write_text("image,label\n" + "".join(f"{name},x\n" for name in names) + "nolabel.png,\n")
    spec = Images(files=(p,), labels=(table,))
    store = prepare(spec, tmp_path / "store", on_error="skip")
    assert store.column("name") == ["a.png"] and store.index["rejected"] == 7
    found = rejects(store)
    assert "no picture 'gone.png'" in found["gone.png"]
    assert found["wide.png"] == "9 x 8 pixels, the first has 6 x 8; use --size"
    assert found["colour.png"] == "in colour, the first is grey; use --channels rgb or grey"
    assert found["unnamed.png"] == found["nolabel.png"] == "no label in labels.csv"
    assert (
        "not a readable picture" in found["cut.png"]
        and "not a readable picture" in found["empty.jpg"]
    )
    with pytest.raises(DataError, match="gone.png.*--on-error skip"):
        prepare(spec, tmp_path / "stopped")
    assert not (tmp_path / "stopped").exists()


def test_mixed_sizes_and_modes_become_one(tmp_path):
    picture(tmp_path / "p/a.png", 0, (8, 6))
    picture(tmp_path / "p/b.png", 1, (30, 50), "RGB")
    store = prepare(
        Images(files=(tmp_path / "p",), size=(12, 12), channels="rgb"), tmp_path / "rgb"
    )
    assert [store[i]["image"].shape for i in (0, 1)] == [(12, 12, 3)] * 2
    assert (store[0]["image"][..., 0] == store[0]["image"][..., 2]).all()
    grey = prepare(
        Images(files=(tmp_path / "p",), size=(12, 12), channels="grey"), tmp_path / "grey"
    )
    assert grey[1]["image"].shape == (12, 12, 1)


def test_a_corrupt_first_picture_does_not_set_the_size(tmp_path):
    picture(tmp_path / "p/b.png", 0)
    (tmp_path / "p/a.png").write_bytes(b"x")
    store = prepare(Images(files=(tmp_path / "p",)), tmp_path / "store", on_error="skip")
    assert store.column("name") == ["b.png"]


def test_nothing_usable_is_an_error(tmp_path):
    (tmp_path / "p").mkdir()
    with pytest.raises(DataError, match="no picture in"):
        prepare(Images(files=(tmp_path / "p",)), tmp_path / "store")
    (tmp_path / "p/a.png").write_bytes(b"x")
    with pytest.raises(DataError, match="no usable record"):
        prepare(Images(files=(tmp_path / "p",)), tmp_path / "store", on_error="skip")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"files": ()}, "no picture; give"),
        ({"test_share": 0.5, "validation_share": 0.5}, "must leave something"),
        ({"labels": (Path("a.csv"),), "folder_labels": True}, "give one"),
        ({"labels": (Path("a-ubyte"),)}, "files of labels for 0 arrays"),
        ({"size": (0, 4)}, "size is"),
        ({"white": 0}, "white lies between"),
    ],
)
def test_settings_that_cannot_be(folder, tmp_path, change, match):
    with pytest.raises(ConfigError, match=match):
        prepare(Images(**{"files": (folder,), **change}), tmp_path / "store")


# Many pictures in a file --------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray) -> Path:
    body = (
        struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        + array.astype(np.uint8).tobytes()
    )
    path.write_bytes(gzip.compress(body))
    return path


def test_idx_files_with_labels_names_and_a_test_file(tmp_path):
    rng = np.random.default_rng(0)
    images = {
        n: write_idx(tmp_path / f"{n}-images-idx3-ubyte.gz", rng.integers(0, 256, (20, 5, 4)))
        for n in "ab"
    }
    labels = {n: write_idx(tmp_path / f"{n}-labels-idx1-ubyte.gz", np.arange(20) % 2) for n in "ab"}
    spec = Images(
        files=(images["a"],),
        test=(images["b"],),
        labels=(labels["a"], labels["b"]),
        classes=("no", "yes"),
    )
    store = prepare(spec, tmp_path / "store")
    assert [len(store.split(s)) for s in ("train", "validation", "test")] == [18, 2, 20]
    assert store[1]["label"] == "yes" and store[0]["name"] == "a-images-idx3-ubyte.gz[0]"
    wrong = Images(files=(images["a"],), labels=(labels["a"],), classes=("only",))
    assert len(prepare(wrong, tmp_path / "half", on_error="skip")) == 10
    short = write_idx(tmp_path / "c-labels-idx1-ubyte.gz", np.arange(19) % 2)
    with pytest.raises(DataError, match=r"labels of shape \[19\] for 20 pictures"):
        prepare(Images(files=(images["a"],), labels=(short,)), tmp_path / "short")


def test_the_bundled_sample():
    from sciforge.images.data.readers import read_many

    found = read_many(ROOT / "datasets/fashion-sample.npz")
    assert found.images.shape == (2000, 28, 28, 1)
    for split, count in enumerate((120, 20, 60)):
        _, counts = np.unique(found.labels[found.splits == split], return_counts=True)
        assert counts.tolist() == [count] * 10


# Boxes and label maps -----------------------------------------------------------------------------


def test_boxes_of_a_table_move_into_the_frame(tmp_path):
    picture(tmp_path / "p/a.png", 0, (10, 20))
    picture(tmp_path / "p/b.png", 1, (10, 20))
    table = tmp_path / "boxes.csv"
    table.write_text(
        "image,x0,y0,x1,y1,label\na.png,0,0,20,10,dog\na.png,5,2,10,8.4,cat\nb.png,,,,,\n"
    )
    store = prepare(Images(files=(tmp_path / "p",), boxes=table, size=(40, 40)), tmp_path / "store")
    assert store.meta["box_classes"] == ["cat", "dog"]
    assert store[0]["boxes"].tolist() == [[0, 10, 40, 30], [10, 14, 20, pytest.approx(26.8)]]
    assert store[0]["box_labels"].tolist() == [1, 0]
    assert store[1]["boxes"].shape == (0, 4) and store[1]["box_labels"].shape == (0,)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.png,0,0,9,8,x", "reaches outside the picture of 6 x 8 pixels"),
        ("a.png,-2,0,5,5,x", "reaches outside"),
        ("a.png,3,3,3,5,x", "is empty"),
        ("a.png,nan,0,3,5,x", "is empty"),
        ("a.png,a,0,3,5,x", "line 2 has a corner that is not a number"),
        ("a.png,0,0,3,5,", "line 2 has a box without a label"),
        ("b.png,0,0,3,5,x", "not named in boxes.csv"),
    ],
)
def test_boxes_that_cannot_be(tmp_path, row, reason):
    for name in "abc":
        picture(tmp_path / f"p/{name}.png", ord(name))
    table = tmp_path / "boxes.csv"
    others = "".join(
        f"{n}.png,0,0,6.5,8,x\n"
        for n in "abc"
        if not row.startswith(n) and (n != "a" or "b" not in row[0])
    )
    table.write_text(f"image,x0,y0,x1,y1,label\n{row}\n{others}")
    store = prepare(
        Images(files=(tmp_path / "p",), boxes=table), tmp_path / "store", on_error="skip"
    )
    assert reason in rejects(store)["a.png"] and len(store) == 2
    assert [0, 0, 6, 8] in store[1]["boxes"].tolist()  # half a pixel over the edge is cut


def coco(tmp_path: Path, annotations: list[dict]) -> Path:
    path = tmp_path / "coco.json"
    images = [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}]
    categories = [{"id": 3, "name": "zebra"}, {"id": 1, "name": "yak"}]
    path.write_text(
        json.dumps({"images": images, "categories": categories, "annotations": annotations})
    )
    return path


def test_coco(tmp_path):
    for name in "abc":
        picture(tmp_path / f"p/{name}.png", ord(name))
    good = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}
    path = coco(tmp_path, [good, {**good, "image_id": 8, "iscrowd": 1}])
    store = prepare(
        Images(files=(tmp_path / "p",), boxes=path), tmp_path / "store", on_error="skip"
    )
    assert store.meta["box_classes"] == ["yak", "zebra"]
    assert store.column("name") == ["a.png"] and store[0]["boxes"].tolist() == [[1, 2, 4, 6]]
    assert store[0]["box_labels"].tolist() == [1]
    assert "crowd" in rejects(store)["b.png"] and "not named" in rejects(store)["c.png"]


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("{", "not JSON"),
        ("[]", "not COCO's JSON"),
        ('{"images": [], "annotations": []}', "no field 'categories'"),
        (
            '{"images": [], "categories": [], "annotations": [{"image_id": 1, "category_id": 1}]}',
            "not listed",
        ),
        (
            (
                '{"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1, "name": "x"}], '
                '"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1]}]}'
            ),
            "not COCO's JSON",
        ),
    ],
)
def test_json_that_is_not_coco(tmp_path, body, match):
    (tmp_path / "c.json").write_text(body)
    with pytest.raises(DataError, match=match):
        read_boxes(tmp_path / "c.json", "image")


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"image,lable\na,b\n", "no column 'label'.*did you mean 'lable'"),
        (b"image,label\na\n", "t.csv:2: 1 cells under 2 columns"),
        (b"image,label\na,b\na,c\n", "t.csv:3: image 'a' is in line 2 too"),
        (b"image,label,split\na,b,tset\n", "no split 'tset'; did you mean 'test'"),
        (b"image,label\n\xff,b\n", "not a table in UTF-8"),
        (b"", "no column 'image'"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, body, match):
    (tmp_path / "t.csv").write_bytes(body)
    with pytest.raises(DataError, match=match):
        read_labels(tmp_path / "t.csv", "image", "label", "split")


def test_label_maps(tmp_path):
    for name in "abc":
        picture(tmp_path / f"p/x/{name}.png", ord(name), (4, 4))
    (tmp_path / "m/x").mkdir(parents=True)
    map_HW = np.array([[0, 0, 2, 2]] * 4, np.uint8)
    Image.fromarray(map_HW).save(tmp_path / "m/x/a.png")
    Image.fromarray(map_HW[:3]).save(tmp_path / "m/x/b.png")
    spec = Images(files=(tmp_path / "p",), masks=tmp_path / "m", size=(4, 8))
    store = prepare(spec, tmp_path / "store", on_error="skip")
    assert store.meta["segment_classes"] == 3 and len(store) == 1
    assert store[0]["segments"].tolist() == [[255, 255, 0, 0, 2, 2, 255, 255]] * 4
    assert rejects(store) == {
        "x/b.png": "4 x 3 pixels, its picture 4 x 4",
        "x/c.png": "no label map of this name",
    }
