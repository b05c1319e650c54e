"""Labelled tables (TSV, CSV, the UCI promoters file) -> encoded sequences with their labels."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.errors import DataError, did_you_mean
from sciforge.genomes.data.genbank import MEND
from sciforge.genomes.data.sequences import OnReject, Reject, encode, open_stream


@dataclass(frozen=True, eq=False)
class LabelledSequence:
    """One row of a labelled table: bases uint8 [length]."""

    name: str
    bases: np.ndarray
    label: str
    line: int


def read_labelled(
    path: Path | str,
    sequence_column: str = "sequence",
    label_column: str = "label",
    on_reject: OnReject | None = None,
) -> Iterator[LabelledSequence]:
    """Yield the rows of a TSV or CSV with a header, or of the header-less UCI promoters file (label, name, sequence).

    A column 'name' or 'id' gives the name, else the line number does.

    Raises:
        DataError: the file is unreadable, a column is missing, or (without on_reject) a row is bad.
    """
    path = Path(path)
    with open_stream(path) as stream:
        first = stream.peek(8192)[:8192].split(b"\n")[0].decode("utf-8", "backslashreplace").rstrip("\r")
        uci = first.startswith(("+,", "-,"))
        delimiter = "," if uci else max("\t,;", key=first.count)
        reader = csv.reader(io.TextIOWrapper(stream, "utf-8", "backslashreplace", newline=""), delimiter=delimiter)
        if uci:
            label_at, name_at, sequence_at = 0, 1, 2
        else:
            header = [column.strip() for column in next(_rows(reader, path), [])]
            for column in (sequence_column, label_column):
                if column not in header:
                    raise DataError(f"no column {column!r} in the header; {did_you_mean(column, header)}", path, 1)
            label_at, sequence_at = header.index(label_column), header.index(sequence_column)
            name_at = next((header.index(column) for column in ("name", "id") if column in header), None)
        for row in _rows(reader, path):
            line, name = reader.line_num, f"line{reader.line_num}"
            try:
                if len(row) <= max(label_at, sequence_at, name_at or 0):
                    raise DataError(f"the row has {len(row)} columns, fewer than the header")
                name = row[name_at].strip() if name_at is not None else name
                bases, label = encode(row[sequence_at].encode()), row[label_at].strip()
                if not label or not bases.size:
                    raise DataError("the sequence or the label is empty")
            except DataError as error:
                reason = str(error).removesuffix("; correct it")
                if on_reject is None:
                    raise DataError(f"{reason}; {MEND}", path, line) from None
                on_reject(Reject(str(path), line, name, reason))
                continue
            yield LabelledSequence(name, bases, label, line)


def _rows(reader: Any, path: Path) -> Iterator[list[str]]:
    """Yield the rows of a csv reader that are not blank; its own error becomes a DataError."""
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield row
    except csv.Error as error:
        raise DataError(f"not a table ({error}); correct it", path, reader.line_num) from None
