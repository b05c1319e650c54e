"""Folders that appear whole or not at all, and the digests that notice a flipped bit."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sciforge.core.files.links import require_own_file
from sciforge.errors import ConfigError, DataError, SciforgeError

TEMPORARY = ".writing-"
ASIDE = "-old-"
# what an error of the operating system means to a user, and how to mend it
REASONS = dict.fromkeys(
    (errno.ENOSPC, errno.EDQUOT), "the disk is full; free some space and start again"
)
REASONS |= dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS),
    "no permission to read or write here; choose another folder",
)
REASONS |= dict.fromkeys(
    (errno.ENOTDIR, errno.EEXIST), "a file is where a folder is needed; choose another place"
)
REASONS |= {
    errno.EISDIR: "this is a folder; give the name of a file",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EFBIG: "larger than the disk or the account allows (see ulimit -f); choose another disk",
}


class TemporaryFolder:
    """A folder that is removed with this object; unlike tempfile's, without a warning, since no one
    need close it.

    Attributes:
        name: its path.
    """

    def __init__(self) -> None:
        self.name = tempfile.mkdtemp(prefix="sciforge-")
        weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sweep(parent: Path) -> None:
    """Remove temporaries whose writer is gone (left by kill -9): no process holds their lock any
    more.
    """
    for stale in parent.glob(f"{TEMPORARY}*"):
        if (lock := try_lock(stale)) is None:
            continue
        final = parent / stale.name.partition(ASIDE)[2]
        if ASIDE in stale.name and not final.exists():
            # killed between the two renames of a replacement: the old folder is the good one
            stale.rename(final)
        remove(stale)
        os.close(lock)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def try_lock(path: Path) -> int | None:
    """Lock a file or folder until the descriptor is closed or the process ends; None where it is
    gone or held.

    Raises:
        OSError: it may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def atomic_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success flush it to disk and rename it, on failure
    remove it.

    Raises:
        ConfigError: `path` exists and `replace` is false.
        DataError: the place cannot be written, or the disk is full.
    """
    path = Path(path)
    work = path.parent / f"{TEMPORARY}{os.getpid()}-{path.name}"
    lock = None
    with one_line(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent)
            if path.exists() and not replace:
                raise ConfigError(f"{path} exists already; remove it or choose another folder")
            work.mkdir()
            lock = try_lock(work)
            yield work
            for file in sorted(work.rglob("*")):
                _flush(file)
            _flush(work)
            _install(work, path)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if lock is not None:
                os.close(lock)


def copy_folder(source: Path, out: Path) -> Path:
    """Copy a folder to a place that appears whole or not at all, and return it; raises as
    `atomic_folder`.
    """
    with atomic_folder(out) as work:
        shutil.copytree(source, work, dirs_exist_ok=True)
    return out


def _install(work: Path, path: Path) -> None:
    """Rename `work` to `path`; a folder that is replaced is moved aside first, since rename
    cannot swap folders.
    """
    aside = path.parent / f"{TEMPORARY}{os.getpid()}{ASIDE}{path.name}"
    if path.exists():
        os.rename(path, aside)
    os.rename(work, path)
    _flush(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under a temporary name, flush it and rename it to `path`.

    Raises:
        DataError: the disk is full, or the place cannot be written.
    """
    work = path.parent / f"{TEMPORARY}{os.getpid()}-{path.name}"
    with one_line(path):
        try:
            write(work)
            _flush(work)
            os.replace(work, path)
            _flush(path.parent)
        finally:
            with suppress(OSError):
                work.unlink(missing_ok=True)


def replace_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON as `write_json` does, whole or not at all: a kill leaves what was there before."""
    replace_file(path, lambda work: write_json(work, value))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def asked_for(path: Path) -> Path:
    """Return the path that the user asked for where a path lies in a temporary file or folder.

    >>> str(asked_for(Path("runs/.writing-123-final/model.safetensors")))
    'runs/final/model.safetensors'
    """
    names = [re.sub(rf"^{re.escape(TEMPORARY)}\d+-", "", name) for name in path.parts]
    return Path(*names)


def disk_error(error: OSError, path: Path) -> SciforgeError:
    """Turn an operating-system error into one line with a remedy; it names its own file where it
    has one.
    """
    if isinstance(error, shutil.Error):  # of copytree: a list of (from, to, why)
        error = _first_of(error)
    path = asked_for(Path(error.filename) if isinstance(error.filename, str | Path) else path)
    reason = f"{error.strerror or error}; check the path and the disk"
    return DataError(REASONS.get(error.errno or 0, reason), path)


def _first_of(errors: shutil.Error) -> OSError:
    """Return the first error of several that a copy of a folder met."""
    try:
        _, to, why = errors.args[0][0]
        number = re.match(r"\[Errno (\d+)\]", why)
        return OSError(int(number[1]) if number else 0, why, to)
    except (LookupError, TypeError, ValueError):
        return errors


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Turn the operating system's errors inside the block into one-line DataErrors."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON with a digest of its own content, so that a changed byte is noticed."""
    body = dict(value)
    body["digest"] = _digest(body)
    path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, error: type[SciforgeError]) -> dict[str, Any]:
    """Read JSON written by `write_json`; raises `error` where it is missing, not JSON, or
    changed.
    """
    require_own_file(path.parent, path.name, error)
    try:
        body = json.loads(path.read_bytes())
        recorded = body.pop("digest")
        actual = _digest(body)
    except FileNotFoundError:
        raise error(
            f"{path.parent}: no {path.name} here; give the folder that sciforge wrote"
        ) from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise error(
            f"{path}: not a file that sciforge wrote, or damaged; write or fetch it again"
        ) from None
    except OSError as problem:
        raise error(f"{path}: {problem.strerror}; check the path") from None
    if actual != recorded:
        raise error(
            f"{path}: the digest does not match, the file was changed; write or fetch it again"
        )
    return body


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def check_shape(
    body: Any, shape: Mapping[str, type], path: Path, error: type[SciforgeError]
) -> None:
    """Check that JSON holds these fields with these types; raises `error` naming the first that
    does not fit.
    """
    for name, kind in shape.items():
        if not isinstance(body, dict) or not isinstance(body.get(name), kind):
            raise error(
                f"{path}: {name!r} is missing or no {kind.__name__}; write or fetch it again"
            )


def check_files(
    folder: Path,
    digests: dict[str, str],
    error: type[SciforgeError],
    unchanged: Collection[str] = (),
) -> None:
    """Compare files with their recorded SHA-256; raises `error` naming the first that differs.

    Those `unchanged` since they were compared must only be there.
    """
    for name, recorded in digests.items():
        require_own_file(folder, name, error)
        file = folder / name
        if not file.is_file():
            raise error(f"{file}: missing; write or fetch the folder again")
        if name not in unchanged and sha256(file) != recorded:
            raise error(
                f"{file}: the digest does not match, the file is damaged; write or fetch it again"
            )


@contextmanager
def results_folder(out: Path) -> Iterator[None]:
    """Hold a folder of results that grow run by run: made, swept of what a kill left, and locked
    against other processes.

    Raises:
        ConfigError: another process writes there.
        DataError: the folder cannot be written, or the disk is full.
    """
    lock = None
    with one_line(out):
        try:
            out.mkdir(parents=True, exist_ok=True)
            sweep(out)
            if (lock := try_lock(out)) is None:
                raise ConfigError(
                    f"{out}: another process measures here; wait for it or choose another --out"
                )
            yield
        finally:
            if lock is not None:
                os.close(lock)
