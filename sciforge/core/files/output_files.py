"""Output files that appear whole or not at all, and their provenance."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from sciforge.core.files.atomic import TEMPORARY, _flush, one_line
from sciforge.core.files.settings import to_json
from sciforge.errors import ConfigError


@contextmanager
def whole_paths(*paths: Path, sources: Iterable[Path] = ()) -> Iterator[list[Path]]:
    """Yield one temporary path for each path; all are renamed at the end, or all removed on
    failure.

    Args:
        paths: the final names; missing folders are made.
        sources: files that are read meanwhile and must not be replaced.

    Raises:
        ConfigError: a path is a folder, comes twice, or is among the sources.
        DataError: the disk is full or may not be written.
    """
    paths = tuple(Path(path) for path in paths)
    with one_line(paths[0]):
        _require_files(paths, {Path(source).resolve() for source in sources})
    works = [path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}") for path in paths]
    with one_line(paths[0]):
        try:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            yield works
            for work in works:
                _flush(work)
            for path, work in zip(paths, works, strict=True):
                work.replace(path)
            for folder in {path.parent for path in paths}:
                _flush(folder)
        finally:
            for work in works:
                with suppress(OSError):
                    work.unlink(missing_ok=True)


def _require_files(paths: Sequence[Path], read: set[Path]) -> None:
    """Raise ConfigError where a path is a folder, comes twice, or is read from."""
    for path in paths:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; give the name of a file to write")
        if path.resolve() in read:
            raise ConfigError(f"{path} is also read from; give another name to write to")
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(f"{paths[0]} would be written twice; give another name")


@contextmanager
def whole_files(
    *paths: Path, binary: bool = False, sources: Iterable[Path] = ()
) -> Iterator[list[IO]]:
    """Yield one open file for each path, text in UTF-8 or binary; they appear as, and raise
    what, `whole_paths` says.
    """
    mode, encoding, newline = ("wb", None, None) if binary else ("w", "utf-8", "\n")
    with whole_paths(*paths, sources=sources) as works, ExitStack() as stack:
        yield [
            stack.enter_context(open(work, mode, encoding=encoding, newline=newline))
            for work in works
        ]


def write_whole(out: Path, write: Callable[[Path], Any], sources: Iterable[Path] = ()) -> Path:
    """Write one file by `write(temporary path)` and return its path; raises as `whole_paths`."""
    with whole_paths(out, sources=sources) as (work,):
        write(work)
    return Path(out)


def about(output: Any, model: Any) -> dict[str, Any]:
    """Return where an output comes from: checkpoint, digest of its weights, step, version,
    options.
    """
    checkpoint = model.checkpoint
    origin = {
        "checkpoint": str(checkpoint.path),
        "weights_sha256": checkpoint.body["files"]["model.safetensors"],
    }
    version = checkpoint.provenance.get("versions", {}).get("sciforge")
    return origin | {"step": checkpoint.step, "sciforge": version, "options": to_json(output)}


def provenance(output: Any, model: Any) -> str:
    """Return `about` as one line of JSON in ASCII."""
    return json.dumps(about(output, model))


def cell(value: Any) -> str:
    r"""Return a value as a cell of a table: numbers to 6 digits, no tab or line break in text.

    >>> cell(0.12345678), cell("a\tb")
    ('0.123457', 'a b')
    """
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split()) or "."
