"""Folders that appear whole or not at all, and the digests that notice a flipped bit."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sciforge.errors import ConfigError, DataError, SciforgeError

TEMPORARY = ".writing-"


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sweep(parent: Path) -> None:
    """Remove temporaries whose writer is gone (left by kill -9): nobody holds their lock any more."""
    for stale in parent.glob(f"{TEMPORARY}*"):
        if (lock := try_lock(stale)) is not None:
            shutil.rmtree(stale, ignore_errors=True)
            os.close(lock)


def try_lock(path: Path) -> int | None:
    """Lock a file or folder until the descriptor is closed or the process ends; None where another holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def atomic_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success flush it to disk and rename it, on failure remove it.

    Raises:
        ConfigError: `path` exists and `replace` is false, or the place cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        if path.exists() and not replace:
            raise ConfigError(f"{path} exists already; remove it or choose another folder")
        work = path.parent / f"{TEMPORARY}{os.getpid()}-{path.name}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        lock = try_lock(work)
    except OSError as error:
        raise disk_error(error, path) from None
    try:
        yield work
        for file in sorted(work.rglob("*")):
            _flush(file)
        _flush(work)
        _install(work, path)
    except OSError as error:
        raise disk_error(error, path) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _install(work: Path, path: Path) -> None:
    """Rename `work` to `path`; a folder that is replaced is moved aside first, since rename cannot swap folders."""
    if path.exists():
        aside = path.parent / f"{TEMPORARY}{os.getpid()}-old-{path.name}"
        os.rename(path, aside)
        os.rename(work, path)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.rename(work, path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(error: OSError, path: Path) -> SciforgeError:
    """Turn an operating-system error into one line with a remedy."""
    if error.errno == errno.ENOSPC:
        return DataError("the disk is full; free some space and start again", path)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DataError("no permission to write here; choose another folder", path)
    return DataError(f"{error.strerror or error}; check the path and the disk", path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with a digest of its own content, so that a changed byte is noticed."""
    body = dict(value)
    body["digest"] = _digest(body)
    path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, error: type[SciforgeError]) -> dict[str, Any]:
    """Read JSON written by `write_json`; raises `error` where it is missing, not JSON, or changed."""
    try:
        body = json.loads(path.read_bytes())
        recorded = body.pop("digest")
    except FileNotFoundError:
        raise error(f"{path.parent}: no {path.name} here; give the folder that sciforge wrote") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise error(f"{path}: not a file that sciforge wrote, or damaged; write or fetch it again") from None
    except OSError as problem:
        raise error(f"{path}: {problem.strerror}; check the path") from None
    if _digest(body) != recorded:
        raise error(f"{path}: the digest does not match, the file was changed; write or fetch it again")
    return body


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def check_files(folder: Path, digests: dict[str, str], error: type[SciforgeError]) -> None:
    """Compare files with their recorded SHA-256; raises `error` naming the first that differs."""
    for name, recorded in digests.items():
        file = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or file.is_symlink():
            raise error(f"{folder}: refuses the file name {name!r}; it points outside the folder")
        if not file.is_file():
            raise error(f"{file}: missing; write or fetch the folder again")
        if sha256(file) != recorded:
            raise error(f"{file}: the digest does not match, the file is damaged; write or fetch it again")
