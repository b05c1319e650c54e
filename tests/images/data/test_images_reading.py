"""Readers of pictures, arrays and IDX files: what each mode becomes, and hostile files."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sciforge.errors import DataError
from sciforge.images.data.readers import Fit, Rules, read_idx, read_many, read_picture

NOISE = np.random.default_rng(0).integers(0, 256, (12, 16, 4)).astype(np.uint8)


def saved(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_lossless_files_come_back_as_they_were(tmp_path, suffix):
    for mode, pixels in (("L", NOISE[..., 0]), ("RGB", NOISE[..., :3])):
        found = read_picture(saved(Image.fromarray(pixels, mode), tmp_path / f"a{suffix}"))
        assert found.dtype == np.uint8 and np.array_equal(found, pixels.reshape(12, 16, -1))


def test_jpeg_is_read_as_pillow_reads_it(tmp_path):
    path = saved(Image.fromarray(NOISE[..., :3]), tmp_path / "a.jpg", quality=90)
    assert np.array_equal(read_picture(path), np.asarray(Image.open(path)))


def test_cmyk_palette_and_one_bit(tmp_path):
    cmyk = saved(Image.fromarray(NOISE[..., :3]).convert("CMYK"), tmp_path / "a.jpg")
    assert read_picture(cmyk).shape == (12, 16, 3)
    palette = Image.fromarray(NOISE[..., :3]).quantize(256)
    expected = np.asarray(palette.convert("RGB"))
    assert np.array_equal(read_picture(saved(palette, tmp_path / "p.png")), expected)
    bits = saved(Image.fromarray(NOISE[..., 0] > 127), tmp_path / "b.png")
    assert np.array_equal(read_picture(bits)[..., 0], np.where(NOISE[..., 0] > 127, 255, 0))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_by_the_full_range(tmp_path, suffix):
    values = np.array([[0, 257, 4095, 65535]], np.uint16)
    path = saved(Image.fromarray(values), tmp_path / f"a{suffix}")
    assert read_picture(path)[..., 0].tolist() == [[0, 1, 16, 255]]
    assert read_picture(path, Rules(white=4095))[..., 0].tolist() == [[0, 16, 255, 255]]


def test_alpha_is_laid_on_the_background_or_refused(tmp_path):
    colours = np.array([[[0, 0, 0, 0], [200, 100, 0, 255], [200, 100, 0, 51]]], np.uint8)
    path = saved(Image.fromarray(colours), tmp_path / "a.png")
    assert read_picture(path).tolist() == [[[255, 255, 255], [200, 100, 0], [244, 224, 204]]]
    assert read_picture(path, Rules(background=(0, 0, 10)))[0, 0].tolist() == [0, 0, 10]
    with pytest.raises(DataError, match="a.png: transparent"):
        read_picture(path, Rules(alpha="reject"))
    grey = saved(Image.fromarray(colours[..., [0, 3]], "LA"), tmp_path / "g.png")
    assert read_picture(grey).shape == (1, 3, 1)


def test_a_transparent_palette_counts_as_alpha(tmp_path):
    image = Image.fromarray(np.zeros((2, 2), np.uint8), "P")
    image.putpalette([10, 20, 30] * 256)
    path = saved(image, tmp_path / "a.png", transparency=0)
    assert (read_picture(path) == 255).all()


def test_a_turned_camera_is_followed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    path = saved(Image.fromarray(NOISE[..., :3]), tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_picture(path), np.rot90(NOISE[..., :3], -1))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_no_cut_and_no_flipped_byte_gets_out_but_as_one_line(tmp_path, suffix):
    whole = saved(Image.fromarray(NOISE[..., :3]), tmp_path / f"whole{suffix}").read_bytes()
    path, refused = tmp_path / f"a{suffix}", 0
    rng = np.random.default_rng(1)
    cuts = [whole[:size] for size in range(0, len(whole) - 20, max(1, len(whole) // 25))]
    flips = []
    for _ in range(60):
        changed = bytearray(whole)
        changed[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        flips.append(bytes(changed))
    for body in cuts + flips:
        path.write_bytes(body)
        try:
            assert read_picture(path).dtype == np.uint8
        except DataError as error:
            refused += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert refused > len(cuts) // 2


def test_bombs_animations_floats_and_nothing_are_refused(tmp_path, monkeypatch):
    frames = [Image.fromarray(NOISE[..., k]) for k in range(3)]
    saved(frames[0], tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="a.png: 3 frames"):
        read_picture(tmp_path / "a.png")
    saved(frames[0], tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="a.tif: 3 frames"):
        read_picture(tmp_path / "a.tif")
    saved(Image.fromarray(np.ones((4, 4), np.float32)), tmp_path / "f.tif")
    with pytest.raises(DataError, match="floating point"):
        read_picture(tmp_path / "f.tif")
    saved(frames[0], tmp_path / "big.png")
    for most in (100, 20):  # Pillow warns beyond its limit and stops beyond twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(DataError, match=f"more than {most} pixels"):
            read_picture(tmp_path / "big.png")
    (tmp_path / "e.png").write_bytes(b"")
    with pytest.raises(DataError, match="not a readable picture"):
        read_picture(tmp_path / "e.png")
    with pytest.raises(DataError, match="no such file"):
        read_picture(tmp_path / "none.png")


def test_another_format_under_a_png_name_is_refused(tmp_path):
    saved(Image.fromarray(NOISE[..., 0]), tmp_path / "a.ppm").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match="not a readable picture"):
        read_picture(tmp_path / "a.png")


# Arrays and IDX -----------------------------------------------------------------------------------


def idx(array: np.ndarray, code: int = 8) -> bytes:
    return (
        struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + array.tobytes()
    )


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_plain_and_gzipped(tmp_path, zipped):
    array = NOISE[..., :3].transpose(2, 0, 1).copy()
    path = tmp_path / "x-idx3-ubyte"
    path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    assert np.array_equal(read_idx(path), array)
    assert np.array_equal(read_many(path).images[..., 0], array)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x07\x01\0\0\0\1", "not an IDX file"),
        (b"\1\0\x08\x01\0\0\0\1a", "not an IDX file"),
        (b"\0\0\x08\x03\0\0\0\1", "ends early"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], "asks for 6 bytes of data, there are 5"),
        (idx(np.zeros((2, 3), np.uint8)) + b"x", "there are more"),
        (struct.pack(">BBBB4I", 0, 0, 14, 4, *[2**32 - 1] * 4), "there are 0"),
        (gzip.compress(idx(np.zeros((200, 3), np.uint8)))[:-9], "damaged"),
        (b"\x1f\x8bnot gzip at all", "damaged"),
    ],
)
def test_damaged_idx_files(tmp_path, body, match):
    path = tmp_path / "x-ubyte"
    path.write_bytes(body)
    with pytest.raises(DataError, match=match) as caught:
        read_idx(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_arrays_of_every_shape(tmp_path):
    for shape, expected in (
        ((5, 4), (1, 5, 4, 1)),
        ((2, 5, 4), (2, 5, 4, 1)),
        ((2, 5, 4, 3), (2, 5, 4, 3)),
    ):
        np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
        assert read_many(tmp_path / "a.npy").images.shape == expected
    np.save(tmp_path / "a.npy", np.full((1, 2, 2), 65535, np.uint16))
    assert (read_many(tmp_path / "a.npy").images == 255).all()
    clear = np.zeros((1, 2, 2, 4), np.uint8)
    np.save(tmp_path / "a.npy", clear)
    assert (read_many(tmp_path / "a.npy").images == 255).all()
    np.savez(tmp_path / "a.npz", images=clear[..., 0], labels=np.array(["x"]), splits=np.array([2]))
    found = read_many(tmp_path / "a.npz")
    assert found.labels.tolist() == ["x"] and found.splits.tolist() == [2]


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"images": np.zeros((2, 3, 3), np.float32)}, "float32 is not unsigned"),
        ({"images": np.zeros((2, 3, 3, 5), np.uint8)}, "is not pictures"),
        ({"images": np.zeros((0, 3, 3), np.uint8)}, "is not pictures"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": np.zeros(3)}, "give one for each"),
        ({"images": np.zeros((1, 3, 3), np.uint8), "splits": np.array([7])}, "splits other than"),
        ({"a": np.zeros(2), "b": np.zeros(2)}, "no array 'images'"),
        ({"images": np.array([{}], object)}, "not a readable array"),
    ],
)
def test_arrays_that_are_no_pictures(tmp_path, arrays, match):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=match):
        read_many(tmp_path / "a.npz")


def test_a_cut_npz_and_a_pickle_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=NOISE[..., 0])
    whole = (tmp_path / "a.npz").read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 5):
        (tmp_path / "a.npz").write_bytes(whole[:size])
        with pytest.raises(DataError, match="a.npz: not a readable array"):
            read_many(tmp_path / "a.npz")


def test_letterbox_keeps_the_picture_and_its_boxes():
    image = np.zeros((10, 20, 1), np.uint8)
    image[2:8, 4:12] = 200
    fit = Fit.letterbox((10, 20), (40, 40))
    found = fit.picture(image, (255, 255, 255))[..., 0]
    x0, y0, x1, y1 = fit.boxes(np.array([[4, 2, 12, 8]], np.float32))[0].astype(int)
    assert (found[:10] == 255).all() and (found[30:] == 255).all()
    assert (found[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] == 200).all()
    inside = found[10:30].astype(int)
    inside[y0 - 11 : y1 - 9, x0 - 1 : x1 + 1] = 0
    assert (inside == 0).all()
    labels = fit.segments(np.pad(np.ones((6, 8), np.uint8), ((2, 2), (4, 8))), 255)
    assert (labels[y0:y1, x0:x1] == 1).all() and (labels == 1).sum() == (y1 - y0) * (x1 - x0)
