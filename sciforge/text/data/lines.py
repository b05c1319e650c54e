r"""What a document is, and the lines of text files, plain or gzipped, in bounded memory.

Text is tidied as it comes in: runs of spaces become one space, hard line breaks too, a blank line
inside a document becomes the paragraph break "\\n\\n". Nothing else is changed; lower-casing and
accents are the vocabulary's business.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

from sciforge.core.files.decompression import bounded
from sciforge.errors import DataError

MAX_BYTES_PER_LETTER = 4  # of UTF-8
WORD_BYTES = 256  # a cut waits so long for the end of a word
BOM = b"\xef\xbb\xbf"
MARKS = {
    b"\xff\xfe": "UTF-16; convert it (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "UTF-16; convert it (iconv -f UTF-16 -t UTF-8)",
    b"\x1f\x8b": "gzip; give the file the ending .gz",
    b"BZh": "bzip2; unpack it, or pack it with gzip",
    b"\xfd7zXZ": "xz; unpack it, or pack it with gzip",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"%PDF": "a PDF; extract its text first (pdftotext)",
}


@dataclass(frozen=True)
class Layout:
    """Where the parts of a document stand in a file; an empty name is a part that is not asked for.

    Args:
        documents: of plain text, what one document is: a `line`, a `paragraph` (ended by blank
            lines) or the `file`.
        text: column of tables, key of JSON lines.
        label: column of the class or number.
        tags: key of JSON lines with one tag a word; the text is then a list of words. CoNLL has
            them anyhow.
        split, group: columns of the split's name and of what must not be divided among splits.
        longest: most letters of a document.
        cut: cut a longer document of plain text in pieces, between words, instead of refusing it.
    """

    documents: Literal["line", "paragraph", "file"] = "paragraph"
    text: str = "text"
    label: str = ""
    tags: str = ""
    split: str = ""
    group: str = ""
    longest: int = 1_000_000
    cut: bool = False


@dataclass(frozen=True)
class Document:
    """One document and what its file says of it.

    Args:
        text: tidied; never empty.
        line: 1-based, where it begins.
        name: as the file gives it, else empty.
        label, split, group: text of the columns asked for.
        words: (start, stop) of each tagged word in the text.
        tags: one a word.
    """

    text: str
    line: int
    name: str = ""
    label: str = ""
    split: str = ""
    group: str = ""
    words: tuple[tuple[int, int], ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bad:
    """What could not be made a document, where it begins, and why."""

    line: int
    reason: str


def tidy(text: str) -> str:
    r"""Return text with single spaces, and "\n\n" where blank lines were.

    >>> tidy(" It  was\n late.\n \n\nHe left. ")
    'It was late.\n\nHe left.'
    """
    paragraphs = (" ".join(part.split()) for part in re.split(r"\r?\n[ \t\r]*\n", text))
    return "\n\n".join(part for part in paragraphs if part)


def word_places(text: str) -> tuple[tuple[int, int], ...]:
    """Return from where to where the words of a text stand, what stands between spaces.

    >>> word_places("a  bc")
    ((0, 1), (3, 5))
    """
    return tuple((match.start(), match.end()) for match in re.finditer(r"\S+", text))


def checked(document: Document, layout: Layout) -> Document | Bad:
    """Return the document with its text tidied, or why it cannot be used."""
    text = document.text if document.words else tidy(document.text)
    reason = ""
    if "\0" in text:
        reason = "the document holds the character NUL, as binary files do"
    elif not any(letter.isalnum() for letter in text):
        reason = "the document is empty, or has no letter or digit"
    elif len(text) > layout.longest + WORD_BYTES * layout.cut:
        reason = too_long(layout)
    elif any("\ud800" <= letter <= "\udfff" for letter in text):
        reason = "the document holds half a surrogate pair, which is no character"
    for name in ("label", "split", "group"):
        if getattr(layout, name) and not getattr(document, name).strip():
            reason = reason or f"the {name} is missing"
    return Bad(document.line, reason) if reason else replace(document, text=text)


def too_long(layout: Layout) -> str:
    """Return what to say of a document that is too long."""
    return (
        f"the document is longer than {layout.longest:,} letters; use --documents line, --cut, or a"
        " larger --longest"
    )


@contextmanager
def open_bytes(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Yield a file, gzipped or not, and the bytes of its byte order mark, taken off; failures
    become one-line DataErrors.
    """
    try:
        packed = path.suffix.lower() == ".gz"
        with bounded(gzip.open(path, "rb"), path) if packed else open(path, "rb") as raw:
            head = raw.peek(8)[:8]
            if not head:
                raise DataError("the file is empty; fetch it again", path)
            for mark, what in MARKS.items():
                if head.startswith(mark):
                    raise DataError(f"this is {what}", path)
            yield raw, len(raw.read(len(BOM)) if head.startswith(BOM) else b"")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"not a whole gzip file ({error}); fetch it again", path) from None
    except OSError as error:
        raise DataError(f"{error.strerror or error}; check the path", path) from None


@dataclass(frozen=True)
class Line:
    """One line, or a piece of a long one: its text, its number from 1, whether it ends here, and
    what is wrong with it.
    """

    text: str
    number: int
    ends: bool = True
    wrong: str = ""

    @property
    def blank(self) -> bool:
        """Whether there is nothing in it, and rightly so."""
        return self.ends and not self.wrong and not self.text.strip()


class Lines:
    """The lines of a UTF-8 file in bounded memory; `at` is the offset in bytes of the next one."""

    def __init__(
        self, stream: BinaryIO, layout: Layout, at: int = 0, path: Path | None = None
    ) -> None:
        self.stream, self.layout, self.at, self.path = stream, layout, at, path
        # a row of a table has other cells too
        self.max_bytes = (
            layout.longest if layout.cut else layout.longest * MAX_BYTES_PER_LETTER + 2**16
        )

    def __iter__(self) -> Iterator[Line]:
        number, within = 0, False
        while raw := self.stream.readline(self.max_bytes):
            number += not within
            start, wrong = self.at, ""
            ends = raw.endswith(b"\n") or len(raw) < self.max_bytes
            if not ends and self.layout.cut:
                raw += self._rest_of_word()
            self.at = start + len(raw)
            if not ends and not self.layout.cut:
                self._skip()
                raw, ends, wrong = b"", True, too_long(self.layout)
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                text, place = "", start + error.start
                wrong = (
                    f"the byte 0x{raw[error.start]:02x} at offset {place:,} is not UTF-8; convert"
                    " the file with iconv"
                )
            yield Line(text, number, ends, wrong)
            within = not ends

    def _rest_of_word(self) -> bytes:
        """Read on to the next space, or to the end of a letter (its later bytes begin with the
        bits 10).
        """
        more = b""
        while len(more) < WORD_BYTES and (byte := self.stream.peek(1)[:1]) and byte not in b" \t\n":
            more += self.stream.read(1)
        while (byte := self.stream.peek(1)[:1]) and byte[0] & 0xC0 == 0x80:
            more += self.stream.read(1)
        return more

    def _skip(self) -> None:
        while more := self.stream.readline(2**20):
            self.at += len(more)
            if more.endswith(b"\n"):
                return
