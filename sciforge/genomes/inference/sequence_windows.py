"""Sequences to predict on: FASTA, GenBank or a table, cut into windows of the length that a
model was trained on.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.genomes.data.sequences import (
    Piece,
    as_letters,
    encode_text,
    open_stream,
    read_sequences,
)

Window = tuple[str, int, np.ndarray, bool]  # contig, start, bases, whether it is the contig's last


def read_any(files: Sequence[Path]) -> Iterator[Piece]:
    """Yield the sequences of FASTA, GenBank, or tables with a column `sequence` (and `name` or
    `id`), in pieces.

    Raises:
        DataError: a file is unreadable, has no sequence, or a letter is not a nucleotide; names
            file and line.
        ConfigError: no file is given.
    """
    if not files:
        raise ConfigError("no file of sequences; give FASTA, GenBank, TSV or CSV files")
    for file in map(Path, files):
        with open_stream(file) as stream:
            first = stream.peek(8192)[:8192].lstrip().split(b"\n")[0]
        is_table = not first.startswith((b">", b"LOCUS")) and any(
            mark in first for mark in (b"\t", b",", b"sequence")
        )
        yield from _read_table(file) if is_table else read_sequences(file)


def _read_table(path: Path) -> Iterator[Piece]:
    with open_stream(path) as stream:
        first = stream.peek(8192)[:8192].split(b"\n")[0].decode("utf-8", "backslashreplace")
        delimiter = max("\t,;", key=first.count)
        rows = csv.reader(
            io.TextIOWrapper(stream, "utf-8", "backslashreplace", newline=""), delimiter=delimiter
        )
        empty = True
        try:
            header = [column.strip() for column in next(rows)]
            if header[0] in ("+", "-"):
                raise DataError("no header; write the first line as label,name,sequence", path, 1)
            if "sequence" not in header:
                raise DataError(
                    f"no column 'sequence' in the header; {did_you_mean('sequence', header)}",
                    path,
                    1,
                )
            at = header.index("sequence")
            name_at = next(
                (header.index(column) for column in ("name", "id") if column in header), None
            )
            for row in rows:
                if not any(text.strip() for text in row):
                    continue
                yield _row(row, at, name_at, path, rows.line_num)
                empty = False
        except csv.Error as error:
            raise DataError(f"not a table ({error}); correct it", path, rows.line_num) from None
    if empty:
        raise DataError("no row below the header; give sequences", path)


def _row(row: list[str], at: int, name_at: int | None, path: Path, line: int) -> Piece:
    if len(row) <= max(at, name_at or 0):
        raise DataError(
            f"the row has {len(row)} columns, fewer than the header; correct it", path, line
        )
    try:
        bases = encode_text(row[at])
    except DataError as error:
        raise DataError(str(error), path, line) from None
    name = row[name_at].strip() if name_at is not None else ""
    return Piece(name or f"line{line}", 0, bases, True, False)


def in_groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of up to `size` items.

    >>> list(in_groups("abc", 2))
    [['a', 'b'], ['c']]
    """
    items = iter(items)
    while group := list(islice(items, size)):
        yield group


def need_tokens(group: Sequence[Window], k: int) -> None:
    """Raise ConfigError naming the first sequence that is shorter than a token."""
    for name, _, bases, _ in group:
        if len(bases) < k:
            raise ConfigError(
                f"{name!r} ({as_letters(bases)}) is shorter than k = {k}; leave it out"
            )


def sliding(
    pieces: Iterable[Piece], window: int | None, step: int, short: bool
) -> Iterator[Window]:
    """Yield (contig, start, bases, whether it is the contig's last) windows, the last one flush
    with the contig's end.

    No window crosses two contigs, and no more than a piece and a window are held at a time.

    Args:
        pieces: consecutive pieces of contigs.
        window: bases of a window; None gives each contig whole.
        step: from one start to the next.
        short: yield a contig shorter than the window whole, rather than not at all.

    >>> piece = Piece("a", 0, np.zeros(10, np.uint8), True, False)
    >>> [(start, len(bases)) for _, start, bases, _ in sliding([piece], 4, 4, True)]
    [(0, 4), (4, 4), (6, 4)]
    """
    held, offset, start = np.empty(0, np.uint8), 0, 0
    for piece in pieces:
        held = np.concatenate([held, piece.bases]) if len(held) else piece.bases
        end = offset + len(held)
        size = end if window is None else window
        while window is not None and start + size <= end:
            final = piece.last and start + size == end
            yield piece.name, start, held[start - offset : start - offset + size], final
            start += step
        if piece.last:
            if end < size or window is None:
                if short:
                    yield piece.name, 0, held, True
            elif start - step + size < end:
                yield piece.name, end - size, held[len(held) - size :], True
            held, offset, start = np.empty(0, np.uint8), 0, 0
        elif window is not None:
            keep = min(max(start - step, offset), end)
            held, offset = held[keep - offset :], keep


def read_contigs(path: Path, wanted: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Return contig name -> uint8 codes, of the wanted contigs only where some are named."""
    parts: dict[str, list[np.ndarray]] = {}
    for piece in read_sequences(path):
        if not wanted or piece.name in wanted:
            parts.setdefault(piece.name, []).append(piece.bases)
    return {name: np.concatenate(pieces) for name, pieces in parts.items()}


def contig_lengths(path: Path) -> dict[str, int]:
    """Return contig name -> bases; reads the whole file, so that its faults show before any long
    work.
    """
    lengths: dict[str, int] = {}
    for piece in read_sequences(path):
        lengths[piece.name] = piece.start + len(piece.bases)
    return lengths
