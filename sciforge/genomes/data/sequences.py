"""Sequence files -> pieces of encoded bases: FASTA or GenBank, plain or compressed.

A base is one byte: the low three bits are A 0, C 1, G 2, T 3 (U reads as T) or N_CODE for N and
every IUPAC ambiguity code; the bit SOFT_MASK is set where the letter was lower case. FASTA is read
in large blocks without a loop over lines (bytes.translate and bytes.find), so memory does not grow
with the genome.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from sciforge.core.data.store import Reject
from sciforge.core.files.decompression import bounded
from sciforge.errors import DataError
from sciforge.genomes.data.genbank import MEND, locus_bp, parse_genbank, split_genbank

N_CODE = 4
SOFT_MASK = 8
BLOCK_BYTES = 2**20  # fits the second-level cache; larger blocks were no faster
PIECE_BASES = 2**20

_BLANK = b" \t\r\n\v\f"
_BAD = 255
_HEADER_LIMIT_BYTES = 2**20
_CIRCULAR_HEADER = re.compile(rb"topology=circular|circular=true", re.IGNORECASE)


def _letter_table() -> bytes:
    """Return the 256-byte table from ASCII letters to codes, _BAD where the letter is not a
    nucleotide.
    """
    table = bytearray([_BAD] * 256)
    for code, letters in enumerate(("A", "C", "G", "TU", "NRYSWKMBDHV")):
        for letter in letters:
            table[ord(letter)], table[ord(letter.lower())] = code, code | SOFT_MASK
    return bytes(table)


_CODE_OF = _letter_table()
_COMPLEMENT = np.array(
    [(code & ~7) | (3 - (code & 7)) if code & 7 < 4 else code for code in range(256)], np.uint8
)


@dataclass(frozen=True, eq=False)
class Piece:
    """A stretch of one contig: bases uint8 [length], start its 0-based offset, last where the
    contig ends.
    """

    name: str
    start: int
    bases: np.ndarray
    last: bool
    circular: bool


OnReject = Callable[[Reject], None]


def reverse_complement(codes: np.ndarray) -> np.ndarray:
    """Return the other strand, uint8 of the same length; N stays N and the soft mask stays with its
    base.

    >>> as_letters(reverse_complement(encode(b"AACgN")))
    'NcGTT'
    """
    return _COMPLEMENT[codes[::-1]]


def encode(letters: bytes) -> np.ndarray:
    """Return the codes, uint8 [length], of nucleotide letters; blanks are left out.

    Raises:
        DataError: a letter is not a nucleotide.
    """
    codes = letters.translate(_CODE_OF, _BLANK)
    if _BAD in codes:
        raise DataError(f"letter {_first_bad(letters)[1]!r} is not a nucleotide; correct it")
    return np.frombuffer(codes, np.uint8).copy()


def encode_text(text: str) -> np.ndarray:
    """Return the codes, uint8 [length], of one sequence as text, blanks around it aside.

    Raises:
        DataError: it is empty, a letter is not a nucleotide, or there are blanks within it, as
            between k-mers.
    """
    text = text.strip()
    if not text:
        raise DataError("the sequence is empty; leave it out")
    if len(words := text.split()) > 1:
        kind = (
            f"overlapping {len(words[0])}-mers"
            if len({*map(len, words)}) == 1
            else f"{len(words)} words"
        )
        raise DataError(
            f"there are blanks within the sequence ({kind}); give the plain bases, not k-mers"
        )
    return encode(text.encode())


def as_letters(codes: np.ndarray) -> str:
    """Return codes as text, lower case where soft-masked and N for every ambiguity.

    >>> as_letters(encode(b"acgURN"))
    'acgTNN'
    """
    return bytes(codes).translate(b"ACGTN..." + b"acgtn..." + bytes(range(16, 256))).decode("ascii")


def _first_bad(letters: bytes) -> tuple[int, str]:
    """Return the offset of the first byte that is neither a nucleotide nor blank, and the letter
    itself.
    """
    marks = np.frombuffer(letters.translate(_CODE_OF), np.uint8) == _BAD
    marks &= ~np.isin(np.frombuffer(letters, np.uint8), list(_BLANK))
    offset = int(marks.argmax())
    return offset, chr(letters[offset])


class _Guarded(io.RawIOBase):
    """A decompressor whose many kinds of failure come out as one DataError that names the file."""

    def __init__(self, inner: Any, path: Path) -> None:
        self._inner, self._path = inner, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._inner.readinto(buffer)
        except EOFError:
            raise DataError(
                "the compressed file ends too early; fetch it again", self._path
            ) from None
        except (OSError, zlib.error, lzma.LZMAError) as error:
            raise DataError(
                f"the file cannot be read ({error}); fetch it again", self._path
            ) from None

    def close(self) -> None:
        self._inner.close()
        super().close()


def open_stream(path: Path | str) -> BinaryIO:
    """Open a text file, plain or gzip (also bgzip and multi-member), bzip2 or xz by its first
    bytes, not by its name.

    Raises:
        DataError: the file is missing, not permitted, empty, damaged, or not text.
    """
    path = Path(path)
    openers = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    try:
        with open(path, "rb") as plain:
            magic = plain.read(6)
        opener = next((opener for mark, opener in openers.items() if magic.startswith(mark)), None)
        inner = (
            open(path, "rb", buffering=0) if opener is None else bounded(opener(path, "rb"), path)
        )
    except FileNotFoundError:
        raise DataError("no such file; check the path", path) from None
    except OSError as error:
        raise DataError(
            f"cannot be opened ({error.strerror}); check the path and its permissions", path
        ) from None
    stream = io.BufferedReader(_Guarded(inner, path), BLOCK_BYTES)
    try:
        head = stream.peek(8192)[:8192]
        if not head:
            raise DataError("the file is empty; fetch it again", path)
        if b"\0" in head:
            raise DataError(
                "this is a binary file; give text (FASTA, GenBank, BED, GFF, GTF, TSV or CSV)", path
            )
        if head.startswith(b"\xef\xbb\xbf"):  # the byte order mark that Windows editors put first
            stream.read(3)
    except BaseException:
        stream.close()
        raise
    return stream


class _Contig:
    """Joins the stretches of one contig into pieces of a fixed size, so that pieces do not
    depend on blocks.
    """

    def __init__(self, name: str, line: int, circular: bool, piece_bases: int) -> None:
        self.name, self.line, self._circular, self._piece_bases = name, line, circular, piece_bases
        self._start, self._parts, self.held_bases = 0, [], 0

    def add(self, codes: np.ndarray) -> Iterator[Piece]:
        self._parts.append(codes)
        self.held_bases += codes.size
        while self.held_bases > self._piece_bases:
            yield self._take(self._piece_bases, last=False)

    def finish(self) -> Piece:
        return self._take(self.held_bases, last=True)

    def _take(self, bases: int, last: bool) -> Piece:
        joined = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        piece = Piece(self.name, self._start, joined[:bases].copy(), last, self._circular)
        self._parts = [joined[bases:]]
        self._start, self.held_bases = self._start + bases, self.held_bases - bases
        return piece


def _fasta_chunks(
    stream: BinaryIO, path: Path, block_bytes: int
) -> Iterator[tuple[bool, bytes, int]]:
    """Cut FASTA into headers (True) and stretches of sequence lines (False), each with the line
    where it begins.
    """
    line, line_start, header = 1, True, None
    while block := stream.read(block_bytes):
        at = 0
        while at < len(block):
            if header is not None:
                end = block.find(b"\n", at)
                header += block[at:] if end < 0 else block[at:end]
                if len(header) > _HEADER_LIMIT_BYTES:
                    raise DataError(
                        "the header is over 1 MiB long; end lines with a newline", path, line
                    )
                at = len(block) if end < 0 else end + 1
                if end >= 0:
                    yield True, bytes(header), line
                    line, line_start, header = line + 1, True, None
            elif line_start and block[at] == ord(">"):
                header, at = bytearray(), at + 1
            else:
                end = block.find(b"\n>", at) + 1 or len(block)
                stretch = block[at:end]
                yield False, stretch, line
                line, line_start, at = line + stretch.count(b"\n"), stretch.endswith(b"\n"), end
    if header is not None:
        yield True, bytes(header), line


def _read_fasta(
    stream: BinaryIO,
    path: Path,
    skip: set[int],
    problem: Callable[[int, Reject], None],
    block_bytes: int,
    bases: int,
) -> Iterator[Piece]:
    """Yield the pieces of all records but those numbered in skip; a problem that returns drops its
    record's rest.

    Record 0 is whatever stands before the first header.
    """
    number, contig, names = 0, None, set()
    for is_header, text, line in _fasta_chunks(stream, path, block_bytes):
        if is_header:
            if contig is not None:
                yield from _finish(contig, path, number, names, problem)
            number, contig = number + 1, None
            if b"\r" in text.rstrip(b"\r"):
                what = "lines end with a carriage return alone; convert them to newlines"
                raise DataError(what, path, line)
            words = text.split(maxsplit=1)
            name = words[0].decode("utf-8", "backslashreplace") if words else ""
            if number in skip:
                continue
            if not name or name in names:
                reason = (
                    f"a second record is named {name!r}"
                    if name
                    else "the header has no name after '>'"
                )
                problem(number, Reject(str(path), line, name, reason))
                continue
            contig = _Contig(name, line, bool(_CIRCULAR_HEADER.search(text)), bases)
        elif contig is not None:
            codes = text.translate(_CODE_OF, _BLANK)
            if fault := _fault(text, codes):
                offset, reason = fault
                problem(
                    number,
                    Reject(str(path), line + text.count(b"\n", 0, offset), contig.name, reason),
                )
                contig = None
            elif codes:
                yield from contig.add(np.frombuffer(codes, np.uint8))
        elif number == 0 and 0 not in skip and text.strip():
            line += text.count(b"\n", 0, len(text) - len(text.lstrip()))
            problem(
                0,
                Reject(
                    str(path), line, "", "neither a FASTA header ('>name') nor a GenBank LOCUS line"
                ),
            )
            skip = skip | {0}
    if contig is not None:
        yield from _finish(contig, path, number, names, problem)
    if number == 0:
        raise DataError("no record in it; give a FASTA or GenBank file", path)


def _fault(text: bytes, codes: bytes) -> tuple[int, str] | None:
    """Return the offset and the reason where sequence lines cannot be read; None where they can.

    >>> _fault(b"ACGTAC CGTACA GTACAT", b"")
    (0, 'overlapping 6-mers are not a sequence; give the plain bases')
    """
    if _BAD in codes:
        offset, letter = _first_bad(text)
        return offset, f"letter {letter!r} is not a nucleotide"
    blank = max(text.find(b" "), text.find(b"\t"))
    if blank < 0:
        return None
    start = text.rfind(b"\n", 0, blank) + 1
    words = text[start : start + 4096].split(b"\n")[0].split()
    overlap = [one[1:] == two[:-1] for one, two in pairwise(words[:100])]
    if not overlap or not all(overlap) or len(words[0]) < 2:
        return None
    return start, f"overlapping {len(words[0])}-mers are not a sequence; give the plain bases"


def _finish(
    contig: _Contig,
    path: Path,
    number: int,
    names: set[str],
    problem: Callable[[int, Reject], None],
) -> Iterator[Piece]:
    """Yield the last piece of a contig; a contig never holds zero bases once it has any (see
    _Contig.add).
    """
    if contig.held_bases:
        # here and not at the header: a rejected record does not take its name
        names.add(contig.name)
        yield contig.finish()
    else:
        problem(
            number,
            Reject(str(path), contig.line, contig.name, f"record {contig.name!r} has no sequence"),
        )


def _refuse(number: int, reject: Reject) -> NoReturn:
    raise DataError(f"{reject.reason}; {MEND}", reject.path, reject.line)


def _genbank_bases(record: Any, text: str, path: Path, line: int) -> np.ndarray:
    """Return the codes of a GenBank record; its case means nothing, so nothing is soft-masked."""
    try:
        letters = bytes(record.seq).upper()
    except Exception:  # UndefinedSequenceError: a LOCUS with a length, and no ORIGIN
        letters = b""
    if not letters:
        raise DataError(
            "the GenBank record has no sequence; fetch it with its full sequence (gbwithparts)",
            path,
            line,
        )
    codes = letters.translate(_CODE_OF)
    if _BAD in codes:
        letter = _first_bad(letters)[1]
        lines = text.split("\n")
        origin = next((i for i, row in enumerate(lines) if row.startswith("ORIGIN")), 0)
        within = next((i for i in range(origin + 1, len(lines)) if letter in lines[i].upper()), 0)
        raise DataError(f"letter {letter!r} is not a nucleotide; {MEND}", path, line + within)
    declared = locus_bp(text)
    if declared is not None and declared != len(codes):
        raise DataError(
            f"LOCUS says {declared:,} bp but there are {len(codes):,}; fetch the file again",
            path,
            line,
        )
    return np.frombuffer(codes, np.uint8)


def _read_genbank(
    stream: BinaryIO, path: Path, on_reject: OnReject | None, piece_bases: int
) -> Iterator[Piece]:
    """Yield the pieces of every GenBank record; a record is checked whole before its first
    piece.
    """
    names: set[str] = set()
    for line, text in split_genbank(stream, path):
        name = ""
        try:
            record = parse_genbank(text, path, line, features=False)
            name = record.id
            if name in names:
                raise DataError(f"a second record is named {name!r}; {MEND}", path, line)
            codes = _genbank_bases(record, text, path, line)
        except DataError as error:
            if on_reject is None:
                raise
            reason = str(error).removeprefix(f"{path}:{error.line}: ").partition(";")[0]
            on_reject(Reject(str(path), error.line or line, name, reason))
            continue
        names.add(name)
        contig = _Contig(name, line, record.annotations.get("topology") == "circular", piece_bases)
        yield from contig.add(codes)
        yield contig.finish()


def read_sequences(
    path: Path | str,
    on_reject: OnReject | None = None,
    *,
    block_bytes: int = BLOCK_BYTES,
    piece_bases: int = PIECE_BASES,
) -> Iterator[Piece]:
    """Yield the contigs of a FASTA or GenBank file (told by content) as pieces of at most
    piece_bases, in order.

    With on_reject a bad record is skipped whole and reported; FASTA is then read twice, so that no
    piece of a bad record is ever yielded. Pieces do not depend on block_bytes. A GenBank record
    must fit in memory, a FASTA one not.

    Raises:
        DataError: the file is unreadable, or (without on_reject) a record is bad; names file and
            line.
    """
    path, usable = Path(path), False
    with contextlib.ExitStack() as files:
        stream = files.enter_context(open_stream(path))
        if stream.peek(8192).lstrip().startswith(b"LOCUS"):
            pieces = _read_genbank(stream, path, on_reject, piece_bases)
        else:
            rejected: set[int] = set()
            if on_reject is not None:
                rejected = _report_rejected(stream, path, on_reject, block_bytes)
                stream = files.enter_context(open_stream(path))
            pieces = _read_fasta(stream, path, rejected, _refuse, block_bytes, piece_bases)
        for piece in pieces:
            usable = True
            yield piece
    if not usable:
        raise DataError("every record was rejected; correct the file", path)


def _report_rejected(
    stream: BinaryIO, path: Path, on_reject: OnReject, block_bytes: int
) -> set[int]:
    """Read FASTA through once, report the bad records and return their numbers."""
    rejected: set[int] = set()

    def reject(number: int, what: Reject) -> None:
        rejected.add(number)
        on_reject(what)

    for _ in _read_fasta(stream, path, set(), reject, block_bytes, PIECE_BASES):
        pass
    return rejected
