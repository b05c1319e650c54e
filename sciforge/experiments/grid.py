"""Resumable grids of runs: one line a run in a results log, so that an experiment that was stopped
continues.

A folder of results holds

- `spec.json`: the settings under which runs were made; a later call with other settings is refused,
- `runs.jsonl`: the results log, one JSON object a run, appended and flushed to disk as each run
  ends,
- `arrays/`: arrays of a run where an experiment keeps them (outputs on every test record),
- `.run-*`: scratch folders of the run in progress, removed afterwards.

The folder is locked while an experiment runs. A line that a kill cut short is dropped, and its run
is made again.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from sciforge.core.files.atomic import read_json, replace_json, results_folder
from sciforge.core.files.output_files import write_whole
from sciforge.errors import ConfigError

LOG, SETTINGS, SCRATCH = "runs.jsonl", "spec.json", ".run-"
Cell = tuple[Any, ...]  # what identifies a run, e.g. (method, labels, seed)
Row = dict[str, Any]  # one line of the results log


def temporary_folder() -> Path:
    """Return a new temporary folder, which belongs to the result (`ExperimentResult.keep`)."""
    return Path(tempfile.mkdtemp(prefix="sciforge-"))


@contextmanager
def open_folder(out: Path | None) -> Iterator[Path]:
    """Yield the folder of an experiment, made, swept of leftovers and locked; a new temporary one
    where `out` is None.

    A temporary folder is removed on failure; on success it belongs to the result.

    Raises:
        ConfigError: another process writes there, or the folder cannot be written.
    """
    folder = temporary_folder() if out is None else out
    try:
        with results_folder(folder):
            for stale in folder.glob(f"{SCRATCH}*"):
                shutil.rmtree(stale, ignore_errors=True)
            yield folder
    except BaseException:
        if out is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Yield a new folder inside `folder` and remove it afterwards; `open_folder` removes what a
    kill left.
    """
    path = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@dataclass
class Grid:
    """The runs of an experiment on disk.

    Args:
        folder: where they are.
        keys: names of the fields that identify a run.
        rows: cell -> its line of the results log.
    """

    folder: Path
    keys: tuple[str, ...]
    rows: dict[Cell, Row] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        folder: Path,
        keys: tuple[str, ...],
        settings: Mapping[str, Any],
        what: str,
        may_grow: bool = False,
    ) -> "Grid":
        """Read what is done.

        Args:
            folder: of the results.
            keys: names of the fields that identify a run.
            settings: what must not change between two calls, as JSON.
            what: how an error names the results.
            may_grow: settings may be added that earlier results did not have.

        Raises:
            ConfigError: the results were made under other settings, or a line is damaged.
        """
        _check_settings(folder, json.loads(json.dumps(settings)), what, may_grow)
        grid = cls(folder, keys)
        for row in _read_log(folder / LOG):
            grid.rows[grid._cell(row)] = row
        return grid

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells that have no run yet."""
        return [cell for cell in cells if cell not in self.rows]

    def run(self, cells: Sequence[Cell], measure: Callable[..., Row], label: str) -> list[Row]:
        """Measure the cells that have no run yet, and return the rows of all, in order.

        Args:
            cells: of the grid.
            measure: function(*cell) -> the run's results, without what identifies it. Arrays under
                `arrays` are kept in a file beside the log.
            label: of the progress bar.
        """
        progress = tqdm(self.missing(cells), label, unit="run", disable=None, leave=False)
        for cell in progress:
            progress.set_postfix_str(", ".join(map(str, cell)))
            self.add(cell, measure(*cell))
        return [self.rows[cell] for cell in cells]

    def add(self, cell: Cell, results: Row) -> Row:
        """Append one run to the log; it is on the disk before this returns."""
        results = dict(results)
        # first, so that a line is never without its arrays
        if arrays := results.pop("arrays", None):
            self._array_file(cell).parent.mkdir(exist_ok=True)
            write_whole(self._array_file(cell), lambda path: _write_arrays(path, arrays))
        row = {**dict(zip(self.keys, cell, strict=True)), **results}
        with open(self.folder / LOG, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        self.rows[cell] = json.loads(json.dumps(row))
        return self.rows[cell]

    def _array_file(self, cell: Cell) -> Path:
        return self.folder / "arrays" / f"{cell_name(cell)}.npz"

    def _cell(self, row: Row) -> Cell:
        try:
            return tuple(row[key] for key in self.keys)
        except KeyError as error:
            raise ConfigError(
                f"{self.folder / LOG}: a line without {error}; delete that line"
            ) from None


def cell_name(cell: Cell) -> str:
    """Return the file name of a run.

    >>> cell_name(("untrained:cnn", 32, 0)), cell_name(("ewc-exact", 1000.0, 0))
    ('untrained-cnn_32_0', 'ewc-exact_1000_0')
    """
    parts = (f"{part:g}" if isinstance(part, float) else str(part) for part in cell)
    return "_".join(
        "".join(c if c.isalnum() or c in "-+." else "-" for c in part) for part in parts
    )


def _check_settings(folder: Path, settings: Mapping[str, Any], what: str, may_grow: bool) -> None:
    """Write the settings of new results, or compare them with those of earlier ones."""
    path = folder / SETTINGS
    if not path.exists():
        if (folder / LOG).exists():
            raise ConfigError(f"{folder}: {LOG} without {SETTINGS}; choose another --out")
        replace_json(path, settings)
    before = read_json(path, ConfigError)
    for key, value in settings.items():
        if before.get(key) != value and (key in before or not may_grow):
            raise ConfigError(
                f"{folder} holds {what} with another {key}; use the same one or choose another"
                " --out"
            )
    if settings.keys() - before.keys():
        replace_json(path, {**before, **settings})


def _read_log(path: Path) -> Iterator[Row]:
    """Yield the lines of a results log, and drop a last one that was cut short."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            yield dict(json.loads(line))
        except (ValueError, TypeError):
            raise ConfigError(
                f"{path}:{number}: damaged; delete this line, and its run is made again"
            ) from None


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays; a ragged one becomes all its rows and the length of each item
    (`NAME.lengths`).
    """
    flat: dict[str, Any] = {}
    for name, values in arrays.items():
        ragged = values.dtype == object
        flat[name] = np.concatenate(values.tolist()) if ragged else values
        if ragged:
            flat[f"{name}.lengths"] = np.array([len(value) for value in values])
    with open(path, "wb") as handle:
        np.savez_compressed(handle, **flat)
