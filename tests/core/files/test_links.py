"""Checkpoints and stores whose files are links, as Hugging Face's cache and DVC keep them."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import Tiny, largest_difference

import sciforge as sf
from sciforge.cli import main as cli
from sciforge.core.data.store import Store
from sciforge.core.files.atomic import sha256
from sciforge.core.files.links import following_links
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.loop import train
from sciforge.errors import CheckpointError, DataError

Layout = Callable[[Path, Path], Path]


def hugging_face(source: Path, home: Path) -> Path:
    """Lay a folder out as `huggingface_hub.snapshot_download` does; return the snapshot."""
    repository = home / "hub" / "models--someone--model"
    snapshot = repository / "snapshots" / "0123abcd"
    (repository / "blobs").mkdir(parents=True)
    for file in sorted(source.rglob("*")):
        if file.is_file():
            place, blob = snapshot / file.relative_to(source), repository / "blobs" / sha256(file)
            shutil.copy(file, blob)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(os.path.relpath(blob, place.parent))
    return snapshot


def dvc(source: Path, home: Path) -> Path:
    """Lay a folder out as `dvc checkout` does with `cache.type symlink`: absolute links."""
    place, cache = home / "work" / "models" / "tuned", home / "work" / ".dvc" / "cache"
    for file in sorted(source.rglob("*")):
        if file.is_file():
            digest, target = sha256(file), place / file.relative_to(source)
            blob = cache / "files" / "md5" / digest[:2] / digest[2:]
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, blob)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(blob)
    return place


@pytest.mark.parametrize("layout", [hugging_face, dvc])
def test_links_into_a_cache_are_followed_when_asked(layout: Layout, tiny: Tiny, tmp_path, capsys):
    place = layout(tiny.checkpoint.path, tmp_path)
    with pytest.raises(CheckpointError, match="add --follow-links .*follow_links=True") as caught:
        sf.load(place)
    assert "\n" not in str(caught.value) and str(place) in str(caught.value)
    model = sf.load(place, device="cpu", follow_links=True)
    assert largest_difference(model.checkpoint.weights(), tiny.checkpoint.weights()) == 0
    command = ["check", str(place), "--device", "cpu"]
    assert cli.main(command) == 2 and "--follow-links" in capsys.readouterr().err
    assert cli.main([*command, "--follow-links"]) == 0
    copy = model.save(tmp_path / "copy")
    assert not any(file.is_symlink() for file in copy.rglob("*")) and Checkpoint.open(copy)


@pytest.mark.parametrize("layout", [hugging_face, dvc])
def test_a_linked_checkpoint_is_fine_tuned_on_a_linked_store(layout: Layout, tiny: Tiny, tmp_path):
    checkpoint = layout(tiny.checkpoint.path, tmp_path / "checkpoint")
    store = layout(tiny.finetuning.data, tmp_path / "store")
    with pytest.raises(DataError, match="--follow-links"):
        Store.open(store)
    run = replace(tiny.finetuning, init=checkpoint, data=store, out=tmp_path / "run")
    with following_links():
        tuned = train(run)
    plain = train(replace(tiny.finetuning, out=tmp_path / "plain"))
    assert largest_difference(tuned.weights(), plain.weights()) == 0
    model = sf.load(checkpoint, device="cpu", follow_links=True)
    schedule = replace(tiny.finetuning.schedule, steps=1, evaluate_every=0, patience=0)
    plan = {"schedule": schedule, "objective": tiny.finetuning.objective}
    assert model.fit(tiny.finetuning.data, verbose=False, **plan).checkpoint.step == 1


@pytest.mark.parametrize("layout", [hugging_face, dvc])
@pytest.mark.parametrize("file", ["model.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("hostile", ["absolute", "relative", "by a folder", "circle", "gone"])
def test_links_out_of_the_caches_are_always_refused(
    layout: Layout, file: str, hostile: str, tiny: Tiny, tmp_path: Path
):
    place = layout(tiny.checkpoint.path, tmp_path / "cache")
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = Path(shutil.copy(tiny.checkpoint.path / file, outside / "secret"))
    link = place / file
    link.unlink()
    if hostile == "absolute":
        link.symlink_to(secret)
    elif hostile == "relative":
        link.symlink_to(os.path.relpath(secret, place))
    elif hostile == "by a folder":  # the cache itself is the link
        cache = next(place.parents[1].glob("blobs"), place.parents[1] / ".dvc" / "cache")
        shutil.move(cache, outside / "moved")
        cache.symlink_to(outside / "moved")
        shutil.copy(secret, outside / "moved" / "stolen")
        link.symlink_to(cache / "stolen")
    elif hostile == "circle":
        link.symlink_to(link)
    else:
        link.symlink_to(outside / "nowhere")
    with pytest.raises(CheckpointError):
        Checkpoint.open(place)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(place, follow_links=True)
    line = str(caught.value)
    assert "\n" not in line and "--follow-links" not in line and str(place) in line
    assert "refuses a link" in line or (file == "checkpoint.json" and "no checkpoint here" in line)


def test_following_links_ends_with_the_block(tiny: Tiny, tmp_path: Path):
    place = hugging_face(tiny.checkpoint.path, tmp_path)
    with following_links():
        assert Checkpoint.open(place).follow_links
        with following_links(False):  # a part that does not ask takes back nothing
            assert Checkpoint.open(place)
    with pytest.raises(CheckpointError, match="--follow-links"):
        Checkpoint.open(place)
