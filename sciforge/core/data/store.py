"""Prepared data on disk: memory-mapped columns in shards, and an index.json that explains and
digests them.

A store holds records. A column is `fixed` (one row a record), `ragged` (any number of rows a
record) or `text`. Shard files are the little-endian arrays themselves; ragged and text columns have
an offsets file beside them.
"""

import bisect
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from sciforge.core.files.atomic import (
    atomic_folder,
    check_shape,
    one_line,
    read_json,
    sha256,
    write_json,
)
from sciforge.core.files.settings import to_json
from sciforge.core.files.verified_files import check_files_once
from sciforge.errors import ConfigError, DataError, MissingExtra

LOGGER = logging.getLogger("sciforge")
FORMAT = 1
SPLITS = ("train", "validation", "test")
# What files call the splits, in lower case.
SPLIT_NAMES = {
    "train": 0,
    "training": 0,
    "validation": 1,
    "valid": 1,
    "val": 1,
    "dev": 1,
    "development": 1,
}
SPLIT_NAMES |= {"test": 2, "testing": 2}
KINDS = ("fixed", "ragged", "text")


@dataclass(frozen=True)
class Reject:
    """A record that could not be used, and why; one line of rejected.jsonl."""

    path: str
    line: int | None
    name: str
    reason: str


class Preparer(Protocol):
    """Options of `sciforge prepare NAME`; a frozen, picklable dataclass."""

    domain: str  # class attribute: the domain's name
    kind: str  # class attribute: what sort of store this makes

    def sources(self) -> Sequence[Any]:
        """Return the units of work, one shard each (input files, usually)."""

    def write(
        self, source: Any, shard: "ShardWriter", on_reject: Callable[[Reject], None] | None
    ) -> None:
        """Read one source and append its records; with `on_reject` bad records are reported and
        skipped.
        """

    def finish(self, store: "Store") -> dict[str, Any]:
        """Look at all shards together and return the store's metadata (JSON); raise DataError
        where they disagree.
        """


class ShardWriter:
    """Appends records to the files of one shard, holding only a record's small columns in
    memory.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.columns: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []  # of what was left out or read otherwise, for the store's meta
        self.num_records = 0
        self._open: dict[str, Any] = {}
        self._rows: dict[str, int] = {}
        self._offsets: dict[str, list[int]] = {}

    def append(self, **ragged: np.ndarray) -> None:
        """Append rows to ragged columns of the current record; may be called many times for a
        long record.
        """
        for column, rows in ragged.items():
            rows = np.ascontiguousarray(rows)
            self._write(column, "ragged", rows, rows.shape[1:])
            self._rows[column] = self._rows.get(column, 0) + len(rows)

    def end(self, **fixed: Any) -> None:
        """Close the current record with its fixed columns: numbers, small arrays, strings."""
        for column, value in fixed.items():
            if isinstance(value, str):
                data = np.frombuffer(value.encode(), np.uint8)
                self._write(column, "text", data, ())
                self._rows[column] = self._rows.get(column, 0) + len(data)
            else:
                value = np.asarray(value, order="C")  # ascontiguousarray would make a scalar 1-D
                self._write(column, "fixed", value, value.shape)
                self._rows[column] = self._rows.get(column, 0) + 1
        self.num_records += 1
        for column, spec in self.columns.items():
            if spec["kind"] != "fixed":
                if column not in self._offsets:  # records before its first are empty
                    self._offsets[column] = [0] * self.num_records
                self._offsets[column].append(self._rows.get(column, 0))

    def add(self, ragged: Mapping[str, np.ndarray], **fixed: Any) -> None:
        """Append one whole record."""
        self.append(**ragged)
        self.end(**fixed)

    def _write(self, column: str, kind: str, data: np.ndarray, row_shape: tuple[int, ...]) -> None:
        dtype = data.dtype.newbyteorder("<").str
        spec = {"kind": kind, "dtype": dtype, "row_shape": list(row_shape)}
        if self.columns.setdefault(column, spec) != spec:
            raise DataError(
                f"column {column!r} changes from {self.columns[column]} to {spec}; records must"
                " agree"
            )
        if column not in self._open:
            self._open[column] = open(self.folder / f"{self.name}.{column}.bin", "wb")
        self._open[column].write(data.astype(dtype, copy=False).data if data.size else b"")

    def close(self) -> dict[str, Any]:
        """Write the offsets and return the shard's entry of the index, its files closed.

        Raises:
            DataError: a fixed column is missing from some records.
        """
        self.release()
        for column, spec in self.columns.items():
            if spec["kind"] != "fixed":
                offsets = np.asarray(self._offsets.get(column, [0]), "<i8")
                _write_array(self.folder / f"{self.name}.{column}.offsets.bin", offsets)
            elif self._rows[column] != self.num_records:
                share = f"{self._rows[column]} of {self.num_records} records"
                raise DataError(
                    f"column {column!r} is in {share} of {self.name}; give it to all or none"
                )
        files = sorted(f.name for f in self.folder.glob(f"{self.name}.*.bin"))
        digests = {name: sha256(self.folder / name) for name in files}
        return {
            "name": self.name,
            "num_records": self.num_records,
            "columns": self.columns,
            "files": digests,
        }

    def release(self) -> None:
        """Close the files."""
        for handle in self._open.values():
            handle.close()


def _write_array(path: Path, values: np.ndarray) -> None:
    """Write the bytes of an array; ndarray.tofile would not tell why it cannot."""
    with open(path, "wb") as handle:
        handle.write(np.ascontiguousarray(values).data.cast("B") if values.size else b"")


def _write_shard(
    numbered: tuple[int, Any], preparer: Preparer, folder: Path, skip: bool
) -> tuple[dict, list[Reject], list[str]]:
    number, source = numbered
    shard = ShardWriter(folder, f"shard-{number:05d}")
    rejected: list[Reject] = []
    try:
        preparer.write(source, shard, rejected.append if skip else None)
        return shard.close(), rejected, shard.notes
    finally:
        shard.release()


@contextmanager
def open_executor(executor: str, workers: int) -> Iterator[Executor | None]:
    """Yield `workers` spawned processes, a Dask cluster for `dask://host:port`, or None for this
    process.
    """
    if executor.startswith("dask://"):
        try:
            from distributed import Client
        except ImportError:
            raise MissingExtra("distributed", "dask") from None
        with Client(executor.replace("dask://", "tcp://")) as client:
            yield client.get_executor()
    elif executor != "processes":
        raise ConfigError(f"no executor {executor!r}; use processes or dask://host:port")
    elif workers <= 1:
        yield None
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            yield pool


def prepare(
    preparer: Preparer,
    out: Path,
    *,
    workers: int = 1,
    executor: str = "processes",
    on_error: str = "stop",
) -> "Store":
    """Turn files into a store; identical, byte for byte, for every executor and number of workers.

    Args:
        preparer: a domain's preparer with its options.
        out: the store's folder; appears whole or not at all.
        workers: processes; the unit of work is one input file.
        executor: `processes` or `dask://host:port` (workers must see the same disk).
        on_error: `stop` raises at the first bad record; `skip` writes it to rejected.jsonl and
            counts it.

    Raises:
        DataError: a bad record, or no record at all.
        ConfigError: `out` exists already.
    """
    if on_error not in ("stop", "skip"):
        raise ConfigError(f"on_error is {on_error!r}; use stop or skip")
    with atomic_folder(Path(out)) as work:
        sources = list(preparer.sources())
        state = partial(
            _write_shard, preparer=preparer, folder=work.resolve(), skip=on_error == "skip"
        )
        with open_executor(executor, min(workers, len(sources))) as pool:
            # Dask maps over lists only
            results = (map if pool is None else pool.map)(state, list(enumerate(sources)))
            done = list(
                tqdm(results, "prepare", len(sources), unit="file", disable=None, leave=False)
            )
        shards = [shard for shard, _, _ in done]
        rejected = [reject for _, rejects, _ in done for reject in rejects]
        notes = [note for _, _, notes in done for note in notes]
        if not sum(shard["num_records"] for shard in shards):
            raise DataError(
                f"no usable record in {', '.join(map(str, sources))}; nothing to prepare"
            )
        index: dict[str, Any] = {
            "format": FORMAT,
            "domain": preparer.domain,
            "kind": preparer.kind,
            "shards": shards,
            "meta": {"notes": notes},
        }
        index["preparer"] = to_json(preparer)
        index["rejected"] = len(rejected)
        index["meta"] = preparer.finish(Store(work, index))
        if notes := [*notes, *index["meta"].get("notes", ())]:
            index["meta"] = {**index["meta"], "notes": list(dict.fromkeys(notes))}
        if rejected:
            lines = [json.dumps(vars(reject), ensure_ascii=False) for reject in rejected]
            (work / "rejected.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        write_json(work / "index.json", index)
    return Store.open(out)


class Store:
    """A prepared store, read by memory mapping; `store[i]` is a record."""

    def __init__(self, path: Path, index: dict[str, Any]) -> None:
        self.path, self.index = Path(path), index
        self.domain: str = index["domain"]
        self.kind: str = index["kind"]
        self.meta: dict[str, Any] = index["meta"]
        self._ends = np.cumsum([shard["num_records"] for shard in index["shards"]]).tolist()
        self._arrays: dict[tuple[int, str], Any] = {}

    @classmethod
    def open(cls, path: Path, verify: bool | None = None) -> "Store":
        """Open a store and check every shard against its digest.

        Args:
            path: the store's folder.
            verify: None reads those shards that were not compared before or were touched since (by
                size and time stamps), True reads all, False none.

        Raises:
            DataError: not a store, written by a newer sciforge, or damaged.
        """
        index = read_json(Path(path) / "index.json", DataError)
        if index.get("format") != FORMAT:
            raise DataError(
                f"store format {index.get('format')!r} is unknown to this sciforge; prepare the"
                " data again",
                path,
            )
        _check_index(Path(path), index)
        if verify is not False:
            digests = {
                name: digest for shard in index["shards"] for name, digest in shard["files"].items()
            }
            check_files_once(Path(path), digests, DataError, everything=verify is True)
        _check_sizes(Path(path), index)
        store = cls(path, index)
        LOGGER.debug("%s: store of %s, %s, %d records", path, store.domain, store.kind, len(store))
        return store

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, i: int) -> dict[str, Any]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        shard = bisect.bisect_right(self._ends, i)
        row = i - (self._ends[shard - 1] if shard else 0)
        return {
            name: self._cell(shard, name, row) for name in self.index["shards"][shard]["columns"]
        }

    def column(self, name: str) -> np.ndarray | list[str]:
        """Return a fixed column over all records, or a text column as a list."""
        shards = [s for s, shard in enumerate(self.index["shards"]) if shard["num_records"]]
        kinds = {self.index["shards"][s]["columns"].get(name, {}).get("kind") for s in shards}
        if None in kinds:
            known = set.intersection(*(set(self.index["shards"][s]["columns"]) for s in shards))
            raise DataError(
                f"no column {name!r} in every shard; known: {', '.join(sorted(known))}", self.path
            )
        if kinds == {"fixed"}:
            return np.concatenate([self._array(s, name) for s in shards])
        return [
            self._cell(s, name, r)
            for s in shards
            for r in range(self.index["shards"][s]["num_records"])
        ]

    def lengths(self, name: str) -> np.ndarray:
        """Return the number of rows of a ragged column in every record, int64."""
        shards = [s for s, shard in enumerate(self.index["shards"]) if shard["num_records"]]
        return np.concatenate([np.diff(self._array(s, name, offsets=True)) for s in shards])

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of every shard file, for provenance."""
        return {
            name: digest
            for shard in self.index["shards"]
            for name, digest in shard["files"].items()
        }

    def split(self, name: str) -> "Rows":
        """Return the records of a split (`train`, `validation` or `test`); without a `split`
        column all are `train`.
        """
        if name not in SPLITS:
            raise ConfigError(f"no split {name!r}; known: {', '.join(SPLITS)}")
        if any(
            "split" in shard["columns"] for shard in self.index["shards"] if shard["num_records"]
        ):
            return Rows(self, np.flatnonzero(self.column("split") == SPLITS.index(name)))
        return Rows(self, np.arange(len(self) if name == "train" else 0))

    def rewrite(self, name: str, values_N: np.ndarray) -> None:
        """Replace a fixed column in every shard, for preparers that finish a store whose index
        is about to be written.
        """
        start = 0
        for shard in self.index["shards"]:
            stop = start + shard["num_records"]
            if stop > start:
                file = f"{shard['name']}.{name}.bin"
                dtype = shard["columns"][name]["dtype"]
                _write_array(self.path / file, values_N[start:stop].astype(dtype))
                shard["files"][file] = sha256(self.path / file)
            start = stop

    def _array(self, shard: int, name: str, offsets: bool = False) -> np.ndarray:
        key = (shard, name + (".offsets" if offsets else ""))
        if key not in self._arrays:
            entry = self.index["shards"][shard]
            spec = entry["columns"][name]
            file = self.path / f"{entry['name']}.{key[1]}.bin"
            dtype = np.dtype("<i8" if offsets else spec["dtype"])
            flat = np.memmap(file, dtype, "r") if file.stat().st_size else np.empty(0, dtype)
            self._arrays[key] = flat if offsets else flat.reshape(-1, *spec["row_shape"])
        return self._arrays[key]

    def _cell(self, shard: int, name: str, row: int) -> Any:
        kind = self.index["shards"][shard]["columns"][name]["kind"]
        values = self._array(shard, name)
        if kind == "fixed":
            return values[row]
        start, stop = self._array(shard, name, offsets=True)[row : row + 2]
        cell = values[start:stop]
        return cell.tobytes().decode("utf-8", "replace") if kind == "text" else cell

    def __getstate__(self) -> dict[str, Any]:
        # memory maps are opened anew in each process
        return {"path": self.path, "index": self.index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Store.__init__(self, state["path"], state["index"])


def _check_index(path: Path, index: dict[str, Any]) -> None:
    """Raise DataError where an index (which a stranger may have written) is not what `prepare`
    writes.
    """
    where = path / "index.json"
    check_shape(index, {"domain": str, "kind": str, "meta": dict, "shards": list}, where, DataError)
    for shard in index["shards"]:
        check_shape(
            shard,
            {"name": str, "num_records": int, "columns": dict, "files": dict},
            where,
            DataError,
        )
        for column, spec in shard["columns"].items():
            check_shape(spec, {"kind": str, "dtype": str, "row_shape": list}, where, DataError)
            needed = [f"{shard['name']}.{column}.bin"]
            needed += [] if spec["kind"] == "fixed" else [f"{shard['name']}.{column}.offsets.bin"]
            plain = type(shard["num_records"]) is int and 0 <= shard["num_records"] < 2**48
            plain = plain and all(type(n) is int and 0 < n < 2**32 for n in spec["row_shape"])
            plain = plain and re.fullmatch(r"[<|][biuf][1248]", spec["dtype"]) is not None
            if not plain or spec["kind"] not in KINDS or not set(needed) <= set(shard["files"]):
                raise DataError(
                    f"column {column!r} of {shard['name']!r} is not one that sciforge writes", where
                )


def _check_sizes(path: Path, index: dict[str, Any]) -> None:
    """Raise DataError where a file does not hold the rows that the index says it does."""
    for shard in index["shards"]:
        num = shard["num_records"]
        for column, spec in shard["columns"].items():
            row_bytes = np.dtype(spec["dtype"]).itemsize * math.prod(spec["row_shape"])
            stem = f"{shard['name']}.{column}"
            with one_line(path):
                size = (path / f"{stem}.bin").stat().st_size
                ends = (
                    None
                    if spec["kind"] == "fixed"
                    else (path / f"{stem}.offsets.bin").stat().st_size
                )
            whole = (
                size == num * row_bytes
                if ends is None
                else ends == 8 * (num + 1) and size % row_bytes == 0
            )
            if not whole:
                raise DataError(
                    f"column {column!r} of {shard['name']!r} has not {num} rows; prepare the data"
                    " again",
                    path,
                )


class Rows(Sequence[Mapping[str, Any]]):
    """Some records of a store, read when asked for."""

    def __init__(self, store: Store, indices: np.ndarray) -> None:
        self.store, self.indices = store, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> dict[str, Any]:  # type: ignore[override]  # no slices
        return self.store[int(self.indices[i])]

    def column(self, name: str) -> Any:
        """Return a column over these records."""
        values = self.store.column(name)
        return (
            values[self.indices]
            if isinstance(values, np.ndarray)
            else [values[i] for i in self.indices]
        )

    def labels(self) -> np.ndarray:
        """Return what a choice of few examples balances: the column `label`, or zeros where
        there is none.
        """
        shards = (shard for shard in self.store.index["shards"] if shard["num_records"])
        known = all("label" in shard["columns"] for shard in shards)
        return np.asarray(self.column("label")) if known else np.zeros(len(self))

    def take(self, places: np.ndarray) -> "Rows":
        """Return the records at these places."""
        return Rows(self.store, self.indices[places])


def describe_store(store: "Store") -> dict[str, Any]:
    """Return what a checkpoint keeps of its data beside their digests: how it was made, records
    a split, file names.
    """
    preparer = store.index.get("preparer") or {}
    files = preparer.get("files") if isinstance(preparer, dict) else None
    names = [Path(str(file)).name for file in files] if isinstance(files, list) else []
    description = {"kind": store.kind, "preparer": preparer.get("type"), "files": names[:100]}
    return description | {
        "records": {name: len(store.split(name)) for name in SPLITS},
        "rejected": store.index.get("rejected", 0),
    }
