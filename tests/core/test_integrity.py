"""Damaged, foreign and malicious checkpoints and stores: each is noticed, each with one line."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from sciforge.core.data.store import Store
from sciforge.core.files import atomic
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.errors import CheckpointError, ConfigError, DataError, SciforgeError


@pytest.fixture
def checkpoint(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny.checkpoint.path, tmp_path / "copy"))


@pytest.fixture
def store(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny.store.path, tmp_path / "store"))


def rewrite(path: Path, **changes) -> None:
    """Change fields as an attacker would, with a digest that fits."""
    body = {**json.loads(path.read_text()), **changes}
    del body["digest"]
    atomic.write_json(path, body)


def opens(path: Path):
    """Open and use whatever lies there."""
    if (path / "index.json").exists():
        opened = Store.open(path)
        return [opened[i] for i in range(len(opened))]
    opened = Checkpoint.open(path)
    return opened.run, opened.codec, opened.objectives, opened.build()


@pytest.mark.parametrize("kind", ["checkpoint", "store"])
def test_every_flipped_byte_is_noticed(kind: str, request):
    path, chance = request.getfixturevalue(kind), random.Random(1)
    files = [f for f in sorted(path.rglob("*")) if f.is_file()]
    flips = 0
    for _ in range(60):
        file = (
            chance.choices(files, [f.stat().st_size for f in files])[0]
            if chance.random() < 0.5
            else chance.choice(files)
        )
        whole = bytearray(file.read_bytes())
        if not whole:
            continue
        place = chance.randrange(len(whole))
        if file.suffix == ".json" and whole[place] in b" \n":
            continue  # JSON is the same with other white space
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(SciforgeError) as caught:
            opens(path)
        assert "\n" not in str(caught.value)
        file.write_bytes(whole)
        flips += 1
    assert flips > 40 and opens(path)


@pytest.mark.parametrize("kind", ["checkpoint", "store"])
def test_truncated_and_missing_files_are_noticed(kind: str, request):
    path = request.getfixturevalue(kind)
    for file in [f for f in path.rglob("*") if f.is_file() and f.stat().st_size]:
        whole = file.read_bytes()
        for size in (0, 1, len(whole) // 2, len(whole) - 2):
            file.write_bytes(whole[:size])
            with pytest.raises(SciforgeError):
                opens(path)
        file.unlink()
        with pytest.raises(SciforgeError, match=r"missing|no .* here"):
            opens(path)
        file.write_bytes(whole)
    assert opens(path)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "sub/../../secret", "link", "room/secret", "nul\0"]
)
def test_names_that_lead_outside_are_refused(checkpoint: Path, tmp_path: Path, name: str):
    (tmp_path / "secret").write_text("x")
    (checkpoint / "link").symlink_to(tmp_path / "secret")
    (checkpoint / "room").symlink_to(tmp_path)
    files = Checkpoint.open(checkpoint).body["files"]
    rewrite(
        checkpoint / "checkpoint.json", files={**files, name: atomic.sha256(tmp_path / "secret")}
    )
    with pytest.raises(CheckpointError, match="refuses"):
        Checkpoint.open(checkpoint)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 99),
        ("format", "1"),
        ("domain", "alchemy"),
        ("domain", 7),
        ("files", []),
        ("files", {}),
        ("model", {"type": "os.system", "command": "true"}),
        ("model", {"type": ["DnaBertConfig"]}),
        ("model", {"type": "DnaBertConfig", "width": "wide"}),
        ("model", {"type": "DnaBertConfig", "width": -4}),
        ("model", {"type": "KmerCodec"}),
        ("model", {}),
        ("codec", {"type": "KmerCodec", "k": 99}),
        ("codec", {"type": "KmerCodec", "kk": 3}),
        ("objectives", [{"type": "DnaBertConfig"}]),
        ("objectives", [["MaskedKmers"]]),
        ("run", {"type": "Run"}),
        ("run", {"type": "Schedule"}),
        ("step", "many"),
        ("loop", None),
    ],
)
def test_foreign_json_is_one_line(checkpoint: Path, key: str, value):
    rewrite(checkpoint / "checkpoint.json", **{key: value})
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        opens(checkpoint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [500, 100_000])
def test_a_deep_nest_of_json_is_one_line(checkpoint: Path, depth: int):
    (checkpoint / "checkpoint.json").write_text('{"run":' * depth + "1" + "}" * depth)
    with pytest.raises(CheckpointError):
        Checkpoint.open(checkpoint)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "\x00\xff", '{"digest": 1}', "not json"])
def test_what_is_not_ours_is_one_line(checkpoint: Path, store: Path, text: str):
    (checkpoint / "checkpoint.json").write_text(text)
    (store / "index.json").write_text(text)
    with pytest.raises(CheckpointError):
        Checkpoint.open(checkpoint)
    with pytest.raises(DataError):
        Store.open(store)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../shard-00000"},
        {"num_records": "4"},
        {"columns": {"bases": {"kind": "ragged", "dtype": "|O8", "row_shape": []}}},
        {"columns": {"bases": {"kind": "pickled", "dtype": "|u1", "row_shape": []}}},
        {"columns": {"bases": {"kind": "ragged", "dtype": "|u1", "row_shape": ["x"]}}},
        {"columns": []},
        {"files": {}},
    ],
)
def test_a_foreign_index_is_one_line(store: Path, change: dict):
    shards = Store.open(store).index["shards"]
    rewrite(store / "index.json", shards=[{**shards[0], **change}])
    with pytest.raises(DataError):
        Store.open(store)


def test_weights_of_another_model_are_named(checkpoint: Path):
    body = Checkpoint.open(checkpoint).body
    rewrite(checkpoint / "checkpoint.json", model={**body["model"], "width": 32})
    with pytest.raises(CheckpointError, match="another size"):
        Checkpoint.open(checkpoint).build()
    rewrite(checkpoint / "checkpoint.json", model={**body["model"], "depth": 3})
    with pytest.raises(CheckpointError, match="no weight"):
        Checkpoint.open(checkpoint).build()


def test_a_failed_write_leaves_the_old_folder(tmp_path: Path):
    with atomic.atomic_folder(tmp_path / "kept") as work:
        (work / "file").write_text("old")
    for problem in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(problem), atomic.atomic_folder(tmp_path / "kept", replace=True) as work:
            (work / "file").write_text("new")
            raise problem
    assert (tmp_path / "kept" / "file").read_text() == "old" and os.listdir(tmp_path) == ["kept"]
    with atomic.atomic_folder(tmp_path / "kept", replace=True) as work:
        (work / "file").write_text("new")
    assert (tmp_path / "kept" / "file").read_text() == "new" and os.listdir(tmp_path) == ["kept"]


def test_sweeping_takes_the_dead_spares_the_living_and_restores_the_replaced(tmp_path: Path):
    dead, living, aside = (tmp_path / f".writing-{n}" for n in ("1-a", "2-b", "3-old-c"))
    for made in (dead, living, aside):
        made.mkdir()
        (made / "file").write_text(made.name)
    (tmp_path / ".writing-4-file").write_text("half")
    lock = atomic.try_lock(living)
    atomic.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".writing-2-b", "c"]
    os.close(lock)
    atomic.sweep(tmp_path)
    assert os.listdir(tmp_path) == ["c"]


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of 256 kB; skipped where this user may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place],
        capture_output=True,
        check=False,
    )
    if mount.returncode:
        pytest.skip("no permission to mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_leaves_the_last_checkpoint(tiny, small_disk: Path):
    from dataclasses import replace

    from sciforge.core.training.loop import train

    run = replace(tiny.pretraining, out=small_disk / "run")
    run = replace(run, schedule=replace(run.schedule, save_every=1, steps=20))
    (small_disk / "ballast").write_bytes(b"0" * 20_000)
    with pytest.raises(SciforgeError) as caught:
        train(run)
        pytest.fail("the disk was not small enough")
    assert "\n" not in str(caught.value) and (
        "full" in str(caught.value) or "free on the disk" in str(caught.value)
    )
    assert not list(small_disk.rglob(".writing-*"))
    left = list((small_disk / "run").glob("step-*"))
    assert all(Checkpoint.open(step) for step in left)


def test_tied_weights_are_saved_under_each_name(tiny, tmp_path: Path):
    from sciforge.core.training.checkpoint import write_tensors

    shared = torch.arange(6.0).reshape(2, 3)
    write_tensors(tmp_path / "tied.safetensors", {"a": shared, "b": shared.T})
    from safetensors.torch import load_file

    found = load_file(tmp_path / "tied.safetensors")
    assert torch.equal(found["a"], shared) and np.array_equal(found["b"], shared.T)
