"""A store is read whole once; whatever touches a file makes it read again, and a full check
reads all.
"""

import os
import shutil
from pathlib import Path

import pytest

from sciforge.core.data.store import Store
from sciforge.core.files import atomic, verified_files
from sciforge.errors import DataError

SETTLED = verified_files.SETTLED


@pytest.fixture
def store(tiny, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SCIFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verified_files, "SETTLED", -10.0)
    return Path(shutil.copytree(tiny.store.path, tmp_path / "store"))


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The files whose digest was computed."""
    names, plain = [], atomic.sha256

    def noting(path):
        names.append(path.name)
        return plain(path)

    monkeypatch.setattr(atomic, "sha256", noting)
    return names


def shard_file(store: Path) -> Path:
    return max(store.glob("*.bin"), key=lambda file: file.stat().st_size)


def flip(file: Path) -> None:
    """Change one byte in place and put the time of change back, as a careless tool could."""
    status, whole = file.stat(), bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_store_is_read_whole_once(store, read):
    Store.open(store)
    assert sorted(read) == sorted(Store.open(store).digests())
    read.clear()
    Store.open(store)
    assert read == []
    Store.open(store, verify=True)
    assert len(read) == len(list(store.glob("*.bin")))


def test_a_touched_file_is_read_again(store, read):
    Store.open(store)
    read.clear()
    os.utime(shard_file(store))
    Store.open(store)
    assert read == [shard_file(store).name]
    flip(shard_file(store))  # same size, same time of modification
    with pytest.raises(DataError, match="digest"):
        Store.open(store)


def test_a_full_check_trusts_no_stamp(store, monkeypatch):
    stamps = {}
    plain = verified_files._stamp
    monkeypatch.setattr(verified_files, "_stamp", lambda file: stamps.setdefault(file, plain(file)))
    Store.open(store)
    flip(shard_file(store))
    Store.open(store)  # a byte that changed under unchanged stamps is not seen at a start
    with pytest.raises(DataError, match="digest"):
        Store.open(store, verify=True)


def test_a_file_changed_just_now_is_read_each_time(store, read, monkeypatch):
    monkeypatch.setattr(verified_files, "SETTLED", 1e6)
    Store.open(store)
    read.clear()
    Store.open(store)
    assert len(read) == len(list(store.glob("*.bin")))


@pytest.mark.parametrize(("later", "is_read"), [(1.9, True), (2.1, False)])
def test_a_file_is_settled_two_seconds_after_its_change(store, read, monkeypatch, later, is_read):
    monkeypatch.setattr(verified_files, "SETTLED", SETTLED)
    changed = max(max(verified_files._stamp(file)[1:]) for file in store.glob("*.bin")) / 1e9
    monkeypatch.setattr(verified_files.time, "time", lambda: changed + later)
    Store.open(store)
    read.clear()
    Store.open(store)
    assert (shard_file(store).name in read) is is_read


def test_a_missing_file_and_a_cache_that_cannot_be_written(store, tmp_path):
    Store.open(store)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file in place of the folder")
    Store.open(store)
    shard_file(store).unlink()
    with pytest.raises(DataError, match="missing"):
        Store.open(store)


def test_disk_errors_name_the_file_that_the_user_asked_for(tmp_path):
    with pytest.raises(DataError) as caught, atomic.atomic_folder(tmp_path / "store") as work:
        (work / "no" / "index.json").write_text("")
    assert str(caught.value).startswith(f"{tmp_path / 'store' / 'no' / 'index.json'}: ")
