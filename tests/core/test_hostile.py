"""Files from strangers: damaged, forged, malicious. Each is refused in one line, and nothing of it
is ever executed.

By default a sample that takes seconds; `SCIFORGE_HOSTILE=full pytest tests/core/test_hostile.py`
flips 1,000 bytes and reads 100,000 damaged files (four minutes). What test_integrity.py tries one
by one is not repeated here.
"""

import bz2
import copy
import gzip
import json
import lzma
import os
import pickle
import random
import re
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import ROOT, Tiny, load_file, make_tiny

import sciforge
from sciforge import catalog
from sciforge.cli.registry import read_config
from sciforge.core.data.store import Store
from sciforge.core.domain import discover
from sciforge.core.files import atomic, decompression
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import Run
from sciforge.errors import CheckpointError, DataError, SciforgeError
from sciforge.structures.readers import read_structures

FULL = os.environ.get("SCIFORGE_HOSTILE") == "full"
FLIPS = 1000 if FULL else 60  # of each of a checkpoint and a store, of two domains
DAMAGED = 100_000 if FULL else 2_600  # files read, all parsers together

RUN = b"""{"type": "Run", "data": "d", "out": "o", "seed": 3, "model": "mini",
"objective": {"type": "Classify", "bins": 3, "classes": ["a", "b"]},
"schedule": {"type": "Schedule", "steps": 10, "betas": [0.9, 0.98], "lr": 1e-3, "clip": null},
"finetuning": {"type": "LoRA", "rank": 2},
"hardware": {"type": "Hardware", "device": "cpu", "threads": 1}}"""


Parser = tuple[bytes, str, Callable[[Path], Any]]  # a valid file, its ending, what reads it


def parsers() -> dict[str, Parser]:
    """Return what reads files from strangers: the domains' own (tests/<domain>/parsers.py), and
    the core's.
    """
    found: dict[str, Parser] = {"run": (RUN, ".json", lambda path: read_config(path, Run))}
    for name in discover():
        found |= load_file(ROOT / "tests" / name / "parsers.py").PARSERS
    return found


PARSERS = parsers()
TOKENS = [
    b"\0",
    b"\xff",
    b"\r",
    b"\n\n",
    b"\t",
    b'"',
    b"'",
    b",",
    b";",
    b"=",
    b"-1",
    b"1e999",
    b"nan",
    b"99999999999999",
]
TOKENS += [
    b"1_0",
    "٣".encode(),
    b"\xef\xbb\xbf",
    b">",
    b"//",
    b"{",
    b"]",
    b"%00",
    b"\\",
    b"#",
    b"\x1b[31m",
    b"",
    b"9" * 400,
]
TOKENS += [
    b"Properties=",
    b"type",
    b'{"type": "os.system"}',
    b"null",
    b"true",
    b"()",
    b"[Fe+9]",
    b"C%99",
    b"\x1f\x8b",
]


def damage(valid: bytes, chance: random.Random) -> bytes:
    """Return a file with one to four faults: bytes flipped, cut out, doubled, swapped with
    noise; or cut off.
    """
    text = bytearray(valid)
    for _ in range(chance.randint(1, 4)):
        place, other = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        kind = chance.randrange(7)
        if kind == 0 and text:
            text[min(place, len(text) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            text[place:place] = chance.choice(TOKENS)
        elif kind == 2:
            del text[place : min(other, place + 20)]
        elif kind == 3:
            text[place:place] = text[place : min(other, place + 60)]
        elif kind == 4:
            lines = bytes(text).split(b"\n")
            lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
            text = bytearray(b"\n".join(lines))
        elif kind == 5:
            words = bytes(text).split(b" ")
            words[chance.randrange(len(words))] = chance.choice(TOKENS)
            text = bytearray(b" ".join(words))
        elif chance.random() < 0.3:
            del text[place:]
    return bytes(text)


@pytest.mark.parametrize("name", PARSERS)
def test_valid_files_are_read(name: str, tmp_path: Path):
    valid, ending, read = PARSERS[name]
    (tmp_path / f"f{ending}").write_bytes(valid)
    read(tmp_path / f"f{ending}")


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_files_are_read_or_refused_in_one_line(name: str, tmp_path: Path):
    valid, ending, read = PARSERS[name]
    chance, path, refused = random.Random(name), tmp_path / f"f{ending}", 0
    count = DAMAGED // (len(PARSERS) + 2)
    for number in range(count):
        content = damage(valid, chance)
        path.write_bytes(content)
        with warnings.catch_warnings():
            # numpy's overflow of 1e999 is nobody's fault but the file's
            warnings.simplefilter("ignore")
            try:
                read(path)
            except SciforgeError as error:
                refused += 1
                # what it quotes must neither break the line nor steer the terminal
                text = str(error)
                assert len(text.splitlines()) == 1 and text.isprintable(), (text, content)
            except Exception as error:
                pytest.fail(
                    f"{name}, number {number}: {type(error).__name__}: {error}\n{content!r}"
                )
    assert refused > count // 20


# Checkpoints and stores ---------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["genomes", "heat"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(request.param, tmp_path_factory.mktemp(request.param))


def opens(path: Path) -> None:
    """Open and use whatever lies there."""
    if (path / "index.json").exists():
        store = Store.open(path)
        for number in range(len(store)):
            store[number]
        return
    made = Checkpoint.open(path)
    for value in (made.run, made.codec, made.objectives, made.metrics, made.provenance, made.step):
        assert value is not None
    made.build()


@pytest.mark.parametrize("kind", ["checkpoint", "store"])
def test_a_flipped_byte_is_always_noticed(house: Tiny, kind: str, tmp_path: Path):
    path = Path(shutil.copytree(getattr(house, kind).path, tmp_path / "copy"))
    chance, flips = random.Random(kind), 0
    files = [f for f in sorted(path.rglob("*")) if f.is_file() and f.stat().st_size]
    sizes = [f.stat().st_size for f in files]
    while flips < FLIPS:
        file = chance.choices(files, sizes)[0] if flips % 2 else chance.choice(files)
        place, bit = chance.randrange(file.stat().st_size), 1 << chance.randrange(8)
        with open(file, "r+b") as handle:
            handle.seek(place)
            byte = handle.read(1)[0]
            if file.suffix == ".json" and byte in b" \n":
                continue  # JSON is the same with other white space
            handle.seek(place)
            handle.write(bytes([byte ^ bit]))
        with pytest.raises(SciforgeError) as caught:
            (Store if kind == "store" else Checkpoint).open(path)
        assert len(str(caught.value).splitlines()) == 1
        with open(file, "r+b") as handle:
            handle.seek(place)
            handle.write(bytes([byte]))
        flips += 1
    opens(path)


STRANGE = [
    None,
    True,
    -1,
    0,
    3,
    100_000,
    2**40,
    1e308,
    float("nan"),
    2**70,
    "",
    "x",
    "../x",
    "os.system",
    "\0",
    "é" * 300,
    [],
    {},
    [[]],
    [1] * 9,
]
STRANGE += [{"type": "Run"}, {"type": "os.system", "command": "true"}, {"type": []}, {"": {}}]


def leaves(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of nested JSON."""
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        return [(value, key) for key in keys] + [
            pair for key in keys for pair in leaves(value[key])
        ]
    return []


@pytest.mark.parametrize("kind", ["checkpoint", "store"])
def test_forged_json_with_a_fitting_digest_is_one_line(house: Tiny, kind: str, tmp_path: Path):
    path = Path(shutil.copytree(getattr(house, kind).path, tmp_path / "copy"))
    file, chance = (
        path / ("checkpoint.json" if kind == "checkpoint" else "index.json"),
        random.Random(kind),
    )
    valid, refused = file.read_text(), 0
    for number in range(DAMAGED // (len(PARSERS) + 2) // 2):
        body = json.loads(valid)
        del body["digest"]
        for _ in range(chance.randint(1, 2)):
            container, key = chance.choice(leaves(body))
            if chance.random() < 0.15:
                container.pop(key) if isinstance(container, dict) else container.clear()
            elif isinstance(container, dict) and chance.random() < 0.1:
                container[chance.choice(["x", "type", "é"])] = copy.deepcopy(container[key])
            else:
                container[key] = copy.deepcopy(chance.choice(STRANGE))
        atomic.write_json(file, body)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                opens(path)
            except SciforgeError as error:
                refused += 1
                assert len(str(error).splitlines()) == 1 and str(error).isprintable(), str(error)
            except Exception as error:
                pytest.fail(
                    f"number {number}: {type(error).__name__}: {error}\n{key!r} in"
                    f" {json.dumps(container)[:600]}"
                )
    assert refused > number // 4


# What would run code, or write or read where it should not ----------------------------------------


@dataclass
class Bomb:
    """Pickled, it writes a file when it is loaded."""

    marker: Path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def test_a_pickle_is_never_loaded(house: Tiny, tmp_path: Path):
    marker = tmp_path / "it ran"
    payload = pickle.dumps(Bomb(marker))
    torch_file = tmp_path / "m.pt"
    torch.save({"weights": Bomb(marker)}, torch_file)
    # the payload is a live one
    assert not marker.exists() and pickle.loads(payload) is None and marker.exists()
    marker.unlink()
    for content in (payload, torch_file.read_bytes()):
        for _, ending, read in PARSERS.values():
            (tmp_path / f"f{ending}").write_bytes(content)
            with pytest.raises(SciforgeError) as caught:
                read(tmp_path / f"f{ending}")
            assert len(str(caught.value).splitlines()) == 1
        # by ASE and h5py
        for ending in (".traj", ".db", ".h5", ".cif", ".npz", ".pkl", ".bundle", ".nc"):
            (tmp_path / f"f{ending}").write_bytes(content)
            with pytest.raises(SciforgeError):
                list(read_structures(tmp_path / f"f{ending}"))
        made = Path(shutil.copytree(house.checkpoint.path, tmp_path / "copy", dirs_exist_ok=True))
        (made / "model.safetensors").write_bytes(content)
        body = json.loads((made / "checkpoint.json").read_text())
        del body["digest"]
        body["files"]["model.safetensors"] = atomic.sha256(made / "model.safetensors")
        atomic.write_json(made / "checkpoint.json", body)
        with pytest.raises(CheckpointError) as caught:
            opens(made)
        assert len(str(caught.value).splitlines()) == 1
        for name in ("checkpoint.json", "index.json"):
            (tmp_path / "json").mkdir(exist_ok=True)
            (tmp_path / "json" / name).write_bytes(content)
            with pytest.raises(SciforgeError):
                opens(tmp_path / "json")
            (tmp_path / "json" / name).unlink()
    assert not marker.exists()


def test_names_in_a_store_that_lead_outside_are_refused(house: Tiny, tmp_path: Path):
    path = Path(shutil.copytree(house.store.path, tmp_path / "store"))
    (tmp_path / "secret.bin").write_bytes(b"x")
    (path / "link.bin").symlink_to(tmp_path / "secret.bin")
    body = json.loads((path / "index.json").read_text())
    del body["digest"]
    files = dict(body["shards"][0]["files"])
    for name in (
        "../secret.bin",
        str(tmp_path / "secret.bin"),
        "sub/../../secret.bin",
        "link.bin",
        "nul\0.bin",
    ):
        body["shards"][0]["files"] = {**files, name: atomic.sha256(tmp_path / "secret.bin")}
        atomic.write_json(path / "index.json", body)
        with pytest.raises(DataError, match="refuses"):
            Store.open(path)


def archives(folder_: Path) -> list[Path]:
    """Write archives whose members would land outside, behind links, or be enormous."""
    made = []
    for name in ("../outside", "/tmp/sciforge-outside", "a/../../outside"):
        made.append(folder_ / f"{len(made)}.zip")
        with zipfile.ZipFile(made[-1], "w") as archive:
            archive.writestr(name, "x")
        made.append(folder_ / f"{len(made)}.tar.gz")
        with tarfile.open(made[-1], "w:gz") as archive:
            archive.add(__file__, name)
    made.append(folder_ / "link.tar")
    with tarfile.open(made[-1], "w") as archive:
        for kind, target in ((tarfile.SYMTYPE, "/etc"), (tarfile.LNKTYPE, "../../outside")):
            member = tarfile.TarInfo(f"link{kind!r}")
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return made


def test_archives_are_refused_and_nothing_is_unpacked(tmp_path: Path):
    room = tmp_path / "deep" / "room"
    room.mkdir(parents=True)
    for archive in archives(room):
        for _, ending, read in PARSERS.values():
            target = room / f"f{ending}{archive.suffix if archive.suffix == '.gz' else ''}"
            shutil.copy(archive, target)
            with pytest.raises(SciforgeError) as caught:
                read(target)
            assert len(str(caught.value).splitlines()) == 1
            target.unlink()
        for load in (Checkpoint.open, Store.open):
            with pytest.raises(SciforgeError):
                load(archive)
    assert sorted(f.name for f in tmp_path.rglob("*") if f.is_dir()) == ["deep", "room"]
    assert not list(tmp_path.rglob("outside*")) and not Path("/tmp/sciforge-outside").exists()


def test_no_archive_is_ever_unpacked():
    for path in Path(sciforge.__file__).parent.rglob("*.py"):
        found = re.findall(
            r"\b(?:tarfile|unpack_archive|extractall|Untar|Unzip)\b|ZipFile\(",
            path.read_text("utf-8"),
        )
        assert not found, path  # the members of an archive would need checks of their own


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
BOMBED = [
    (name, ".gz")
    for name, (_, end, _) in PARSERS.items()
    if end in (".xyz", ".csv", ".smi", ".sdf", ".json")
]
BOMBED += [
    (name, packer) for name in ("fasta", "gff", "bed", "vcf", "labelled") for packer in PACKERS
]


@pytest.mark.parametrize(("name", "packer"), [pair for pair in BOMBED if pair[0] != "run"])
def test_decompression_bombs_stop(name: str, packer: str, tmp_path: Path, monkeypatch):
    valid, ending, read = PARSERS[name]
    monkeypatch.setattr(decompression, "FLOOR_BYTES", 2**20)
    path = tmp_path / f"f{ending}{packer}"
    path.write_bytes(PACKERS[packer](valid))
    read(path)  # what is small is let through
    path.write_bytes(PACKERS[packer](valid + b" " * 2**24))  # one line without an end
    with pytest.raises(DataError, match="decompression bomb"):
        read(path)


def test_a_card_of_a_dataset_names_no_folder(tmp_path: Path, monkeypatch):
    lines = [
        'summary = "s"',
        'kind = "bundled"',
        'licence = "l"',
        'citation = "c"',
        'reader = "r"',
        'split = "s"',
    ]
    monkeypatch.setattr(catalog, "datasets_folder", lambda: tmp_path)
    for name in ("../x", "/etc/passwd", "a/b"):
        (tmp_path / "bad.toml").write_text("\n".join([*lines, f"file = {json.dumps(name)}"]))
        with pytest.raises(DataError, match="without folders"):
            catalog.cards()


def test_arrays_of_objects_are_not_read(house: Tiny, tmp_path: Path):
    marker = tmp_path / "it ran"
    np.save(tmp_path / "f.npy", np.array([Bomb(marker)], object), allow_pickle=True)
    path = Path(shutil.copytree(house.store.path, tmp_path / "store"))
    body = json.loads((path / "index.json").read_text())
    del body["digest"]
    shard = body["shards"][0]
    column = next(name for name, spec in shard["columns"].items() if spec["kind"] == "fixed")
    file = path / f"{shard['name']}.{column}.bin"
    shutil.copy(tmp_path / "f.npy", file)
    shard["files"][file.name] = atomic.sha256(file)
    for dtype in ("|O8", "object", "O", "<U8", "<f16"):
        shard["columns"][column]["dtype"] = dtype
        atomic.write_json(path / "index.json", body)
        with pytest.raises(DataError):
            opens(path)
    assert not marker.exists()
