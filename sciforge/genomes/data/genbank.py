"""GenBank files -> Biopython records, one at a time, each with the line where it begins.

Biopython alone says neither at which line a record begins nor fails in one kind of error; both are
needed to tell a user what to mend, so the file is cut at '//' here and each record is parsed by
itself.
"""

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sciforge.errors import DataError, printable

MEND = "use --on-error skip, or correct it"


def split_genbank(stream: BinaryIO, path: Path) -> Iterator[tuple[int, str]]:
    """Yield each GenBank record's first line number and its text up to '//'.

    Raises:
        DataError: a record does not begin with LOCUS or is not closed.
    """
    lines: list[bytes] = []
    first = 1
    for number, raw in enumerate(stream, 1):
        if not lines:
            first = number
            if not raw.strip():
                continue
            if not raw.startswith(b"LOCUS"):
                raise DataError("a GenBank record begins with LOCUS; correct it", path, number)
        lines.append(raw)
        if raw.startswith(b"//"):
            yield first, b"".join(lines).decode("utf-8", "backslashreplace").replace("\r\n", "\n")
            lines = []
    if lines:
        raise DataError("the last record is not closed by '//'; fetch the file again", path, first)


def parse_genbank(text: str, path: Path, line: int, features: bool) -> Any:
    """Return one GenBank record as a Bio.SeqRecord; features (slow) only when asked for.

    Raises:
        DataError: Biopython cannot read the record.
    """
    from Bio.GenBank.Scanner import GenBankScanner

    try:
        with warnings.catch_warnings():
            # what matters of Biopython's warnings is checked by the callers
            warnings.simplefilter("ignore")
            record = next(
                iter(GenBankScanner().parse_records(io.StringIO(text), do_features=features))
            )
    # Biopython has no error class of its own: damaged records raise nearly every kind
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(
            f"GenBank record cannot be read ({printable(reason)}); {MEND}", path, line
        ) from None
    if not record.id or record.id == "<unknown id>":
        record.id = record.name
    return record


def locus_bp(text: str) -> int | None:
    """Return the length that a GenBank record's LOCUS line declares, in bases, or None when it
    declares none.
    """
    match = re.match(r"LOCUS\s+\S+\s+(\d{1,12})\s+bp", text, re.ASCII)
    return int(match[1]) if match else None
