"""Sequences to predict on: FASTA, GenBank or a table, cut into windows of the length that a
model was trained on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.data.store import Reject
from sciforge.errors import ConfigError, DataError
from sciforge.genomes.data.labelled_tables import read_labelled
from sciforge.genomes.data.sequences import Piece, as_letters, open_stream, read_sequences

Window = tuple[str, int, np.ndarray, bool]  # contig, start, bases, whether it is the contig's last


OnReject = Callable[[Reject], None] | None


def read_any(files: Sequence[Path], on_reject: OnReject = None) -> Iterator[Piece]:
    """Yield the sequences of FASTA, GenBank, or tables with a column `sequence` (and `name` or
    `id`), in pieces.

    Args:
        files: what to read.
        on_reject: called with each bad sequence, which is then passed over.

    Raises:
        DataError: a file is unreadable, has no sequence, or (without `on_reject`) a letter is not a
            nucleotide; names file and line.
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
        if not is_table:
            yield from read_sequences(file, on_reject)
            continue
        empty = True
        for row in read_labelled(file, label_column="", on_reject=on_reject):
            empty = False
            yield Piece(row.name or f"line{row.line}", 0, row.bases, True, False)
        if empty:
            raise DataError("no usable row below the header; give sequences", file)


def in_groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of up to `size` items.

    >>> list(in_groups("abc", 2))
    [['a', 'b'], ['c']]
    """
    items = iter(items)
    while group := list(islice(items, size)):
        yield group


def with_tokens(
    group: Sequence[Window], k: int, on_reject: OnReject = None, path: str = ""
) -> list[Window]:
    """Return the windows that hold a token; raises ConfigError for a shorter one, unless there is
    `on_reject`.
    """
    kept = []
    for window in group:
        name, _, bases, _ = window
        if len(bases) >= k:
            kept.append(window)
            continue
        reason = f"{name!r} ({as_letters(bases)}) is shorter than k = {k}"
        if on_reject is None:
            raise ConfigError(f"{reason}; leave it out, or use --on-error skip")
        on_reject(Reject(path, None, name, reason))
    return kept


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
