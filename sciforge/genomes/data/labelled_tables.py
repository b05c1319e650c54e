"""Labelled tables (TSV, CSV, the UCI promoters file) -> encoded sequences with their labels."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.data.groups import group_name
from sciforge.core.data.store import SPLIT_NAMES, Reject
from sciforge.errors import DataError, did_you_mean
from sciforge.genomes.data.genbank import MEND
from sciforge.genomes.data.sequences import encode_text, open_stream

NAME_COLUMNS = ("name", "id")
UCI_COLUMNS = ("label", "name", "sequence")  # of the UCI promoters file, which has no header


@dataclass(frozen=True, eq=False)
class LabelledSequence:
    """One row of a labelled table: bases uint8 [length], its line, and the number of its split
    and the name of its group where they are named.
    """

    name: str
    bases: np.ndarray
    label: str
    line: int
    split: int = 0
    group: str = ""


def read_labelled(
    path: Path | str,
    sequence_column: str = "sequence",
    label_column: str = "label",
    split_column: str = "",
    group_column: str = "",
    on_reject: Callable[[Reject], None] | None = None,
    numeric: bool = False,
) -> Iterator[LabelledSequence]:
    """Yield the rows of a TSV or CSV with a header, or of the header-less UCI promoters file
    (label, name, sequence).

    A column 'name' or 'id' gives the name, else the line number does. An empty label_column reads
    sequences without labels; with `numeric` every label must be a finite number.

    Raises:
        DataError: the file is unreadable, a column is missing, or (without on_reject) a row is bad.
    """
    path = Path(path)
    with _open_table(path) as (header, reader):
        if header == list(UCI_COLUMNS):
            sequence_column, label_column = "sequence", label_column and "label"
        columns = {"sequence": sequence_column, "label": label_column, "split": split_column}
        columns["group"] = group_column
        places = {part: _place(column, header, path) for part, column in columns.items() if column}
        if named := next((column for column in NAME_COLUMNS if column in header), None):
            places["name"] = header.index(named)
        for row in _rows(reader, path):
            line, name = reader.line_num, f"line{reader.line_num}"
            try:
                filled = max((at + 1 for at, cell in enumerate(row) if cell.strip()), default=0)
                if len(row) <= max(places.values()) or filled > len(header):
                    kind = "more" if filled > len(header) else "fewer"
                    raise DataError(f"the row has {len(row)} columns, {kind} than the header")
                cells = {part: row[place].strip() for part, place in places.items()}
                name = cells.get("name", name)
                group = group_name(cells["group"]) if group_column else ""
                bases = encode_text(cells["sequence"])
                label = _label(cells, numeric) if label_column else ""
                yield LabelledSequence(name, bases, label, line, _split(cells), group)
            except DataError as error:
                reason = str(error).removesuffix("; correct it")
                if on_reject is None:
                    raise DataError(f"{reason}; {MEND}", path, line) from None
                on_reject(Reject(str(path), line, name, reason))


def header_of(path: Path) -> list[str]:
    """Return the names of a table's columns."""
    with _open_table(Path(path)) as (header, _):
        return header


@contextmanager
def _open_table(path: Path) -> Iterator[tuple[list[str], Any]]:
    """Yield the header of a table and a csv reader of the rows behind it."""
    with open_stream(path) as stream:
        first = (
            stream.peek(8192)[:8192]
            .split(b"\n")[0]
            .decode("utf-8", "backslashreplace")
            .rstrip("\r")
        )
        uci = first.startswith(("+,", "-,"))
        delimiter = "," if uci else max("\t,;", key=first.count)
        reader = csv.reader(
            io.TextIOWrapper(stream, "utf-8", "backslashreplace", newline=""),
            delimiter=delimiter,
            strict=True,  # else a quote that is never closed takes all rows below it
        )
        header = (
            list(UCI_COLUMNS)
            if uci
            else [column.strip() for column in next(_rows(reader, path), [])]
        )
        yield header, reader


def _place(column: str, header: Sequence[str], path: Path) -> int:
    if column not in header:
        raise DataError(
            f"no column {column!r} in the header; {did_you_mean(column, header)}", path, 1
        )
    if header.count(column) > 1:
        raise DataError(f"the header has {column!r} more than once; rename one", path, 1)
    return header.index(column)


def _label(cells: dict[str, str], numeric: bool) -> str:
    label = cells["label"]
    if not label:
        raise DataError("the label is empty")
    if numeric:
        number_of(label)
    return label


def number_of(label: str) -> float:
    """Return a label as a number; raises DataError where it is none, or not finite."""
    try:
        value = float(label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"label {label!r} is not a number; correct it or leave --numeric out")
    return value


def _split(cells: dict[str, str]) -> int:
    if "split" not in cells:
        return 0
    if cells["split"].lower() not in SPLIT_NAMES:
        raise DataError(
            f"no split {cells['split']!r}, {did_you_mean(cells['split'].lower(), SPLIT_NAMES)}"
        )
    return SPLIT_NAMES[cells["split"].lower()]


def _rows(reader: Any, path: Path) -> Iterator[list[str]]:
    """Yield the rows of a csv reader that are not blank; its own error becomes a DataError."""
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield row
    except csv.Error as error:
        raise DataError(f"not a table ({error}); correct it", path, reader.line_num) from None
