"""Output files that appear whole or not at all, and what each says of where it comes from."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sciforge.core.folder import disk_error
from sciforge.core.run import to_json
from sciforge.errors import ConfigError


@contextmanager
def whole_files(*paths: Path, binary: bool = False) -> Iterator[list[IO]]:
    """Yield one open file for each path; all are renamed to their final names at the end, or all removed on failure.

    Raises:
        ConfigError: a path is a folder, or comes twice.
        DataError: the disk is full or may not be written.
    """
    paths = tuple(Path(path) for path in paths)
    for path in paths:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; give the name of a file to write")
    if len(set(paths)) < len(paths):
        raise ConfigError(f"{paths[0]} would be written twice; give another name")
    temporaries = [path.with_name(f".writing-{os.getpid()}-{path.name}") for path in paths]
    handles: list[IO] = []
    try:
        for path, temporary in zip(paths, temporaries, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            handles.append(open(temporary, "wb") if binary else open(temporary, "w", encoding="utf-8", newline="\n"))
        yield handles
        for handle in handles:
            handle.flush()
            os.fsync(handle.fileno())
            handle.close()
        for path, temporary in zip(paths, temporaries, strict=True):
            temporary.replace(path)
    except OSError as error:
        raise disk_error(error, paths[0]) from None
    finally:
        for handle in handles:
            handle.close()
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def provenance(output: Any, predictor: Any) -> str:
    """Return one line of JSON: the output's options, the checkpoint, its weights' digest and its step."""
    checkpoint = predictor.checkpoint
    about = {"checkpoint": str(checkpoint.path), "weights_sha256": checkpoint.body["files"]["model.safetensors"]}
    versions = checkpoint.provenance.get("versions", {})
    about |= {"step": checkpoint.step, "sciforge": versions.get("sciforge"), "options": to_json(output)}
    return json.dumps(about, ensure_ascii=True)


def cell(value: Any) -> str:
    r"""Return a value as a cell of a table: numbers to 6 digits, no tab or line break in text.

    >>> cell(0.12345678), cell("a\tb")
    ('0.123457', 'a b')
    """
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split()) or "."
