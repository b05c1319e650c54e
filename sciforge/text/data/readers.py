"""Files of text -> documents, one at a time: .txt, tables, JSON lines, CoNLL; each plain or
gzipped.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from sciforge.core.data.store import Reject
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.text.data.lines import (
    WORD_BYTES,
    Bad,
    Document,
    Layout,
    Line,
    Lines,
    checked,
    open_bytes,
    too_long,
)

OnReject = Callable[[Reject], None] | None
TABLES = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
LINES = (".jsonl", ".ndjson")
TAGGED = (".conll", ".iob", ".bio")
PLAIN = (".txt", ".text", ".cor")
NAME_COLUMNS = ("name", "id")  # the first that is there names a document
MEND = "correct it, or skip bad records with --on-error skip"


def kind_of(path: Path) -> str:
    """Return the lower-case ending that says how a file is read, `.gz` taken off; raises
    ConfigError for an unknown one.

    >>> kind_of(Path("a.CSV.gz"))
    '.csv'
    """
    path = Path(path)
    suffix = (Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix).lower()
    if suffix not in (*TABLES, *LINES, *TAGGED, *PLAIN):
        known = ", ".join((*PLAIN, *TABLES, *LINES, *TAGGED))
        raise ConfigError(
            f"{path}: the ending {suffix!r} is not one of {known} (with or without .gz); rename the"
            " file"
        )
    return suffix


def read_documents(path: Path, layout: Layout, on_reject: OnReject = None) -> Iterator[Document]:
    """Yield the documents of a file, in order.

    Args:
        path: its ending says what it is.
        layout: where things stand.
        on_reject: told of each bad document, which is then passed over.

    Raises:
        DataError: unreadable, a column is missing, or (without `on_reject`) a document is empty,
            too long, unlabelled or not UTF-8.
        ConfigError: an unknown ending, or columns asked of plain text.
    """
    path, kind = Path(path), kind_of(path)
    asked = [name for name in (layout.label, layout.split, layout.group, layout.tags) if name]
    if kind in (*PLAIN, *TAGGED) and asked:
        raise ConfigError(
            f"{path}: a {kind} file has no column {asked[0]!r}; give a CSV, TSV or JSONL file"
        )
    with open_bytes(path) as (stream, at):
        lines = Lines(stream, layout, at, path)
        reader = _plain if kind in PLAIN else _tagged if kind in TAGGED else _json_lines
        items = (
            _table(lines, layout, TABLES[kind], path) if kind in TABLES else reader(lines, layout)
        )
        for item in items:
            document = item if isinstance(item, Bad) else checked(item, layout)
            if isinstance(document, Document):
                yield document
            elif on_reject is None:
                mend = "" if ";" in document.reason else f"; {MEND}"
                raise DataError(f"{document.reason}{mend}", path, document.line)
            else:
                on_reject(
                    Reject(
                        str(path),
                        document.line,
                        item.name if isinstance(item, Document) else "",
                        document.reason,
                    )
                )


def columns_of(path: Path) -> list[str]:
    """Return the columns of a table, the keys of the first JSON line, or nothing for text and
    tagged files.
    """
    path, kind = Path(path), kind_of(path)
    if kind not in TABLES and kind not in LINES:
        return []
    layout = Layout()
    with open_bytes(path) as (stream, at):
        texts = (line.text for line in Lines(stream, layout, at) if not line.blank)
        if kind in TABLES:
            delimiter = TABLES[kind]
            rows = _tab_rows(texts) if delimiter == "\t" else _csv_rows(texts, delimiter, 2**20)
            return [name.strip() for name in next(rows, (1, [], ""))[1]]
        try:
            row = json.loads(next(texts, "{}"))
        except (ValueError, RecursionError):  # a bad line is reported where it is read
            return []
        return list(row) if isinstance(row, dict) else []


class _Pile:
    """Gathers the lines of one document, and no more than may be kept."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._clear()

    def _clear(self) -> None:
        self.parts, self.size, self.begin, self.wrong = [], 0, 0, ""

    def add(self, line: Line) -> None:
        """Take a line; of a document that is bad already nothing is kept."""
        self.begin = self.begin or line.number
        self.size += len(line.text)
        over = self.size > self.layout.longest + WORD_BYTES and not self.layout.cut
        self.wrong = self.wrong or line.wrong or (too_long(self.layout) if over else "")
        self.parts.append(line.text)
        if self.wrong:
            self.parts.clear()

    def take(self) -> Iterator[Document | Bad]:
        """Yield what was gathered, if anything, and start anew."""
        if self.begin:
            yield (
                Bad(self.begin, self.wrong)
                if self.wrong
                else Document("".join(self.parts), self.begin)
            )
        self._clear()


def _is_header(line: str, column: str) -> bool:
    r"""Return whether the first line of a text file is the header of a table.

    >>> _is_header("text\tlabel", "text"), _is_header("a text, and more", "text")
    (True, False)
    """
    for delimiter in "\t,;":
        names = [name.strip().strip('"') for name in line.split(delimiter)]
        if len(names) > 1 and column in names and not any(" " in name for name in names):
            return True
    return False


def _plain(lines: Lines, layout: Layout) -> Iterator[Document | Bad]:
    pile = _Pile(layout)
    for line in lines:
        if line.number == 1 and _is_header(line.text, layout.text):
            raise DataError(
                "the first line is the header of a table; rename the file to .tsv or .csv",
                lines.path,
                1,
            )
        if layout.documents == "paragraph" and line.blank:
            yield from pile.take()
            continue
        if layout.cut and pile.size + len(line.text) > layout.longest:
            yield from pile.take()
        pile.add(line)
        if layout.documents == "line" and (line.ends or layout.cut):
            yield from pile.take()
    yield from pile.take()


def _table(lines: Lines, layout: Layout, delimiter: str, path: Path) -> Iterator[Document | Bad]:
    wrong: list[str] = []

    def texts() -> Iterator[str]:
        for line in lines:
            wrong.extend([line.wrong] if line.wrong else [])
            yield line.text

    rows = (
        _tab_rows(texts()) if delimiter == "\t" else _csv_rows(texts(), delimiter, lines.max_bytes)
    )
    header = [name.strip() for name in next(rows, (1, [], ""))[1]]
    if wrong:
        raise DataError(wrong[0], path, 1)
    names = {
        "text": layout.text,
        "label": layout.label,
        "split": layout.split,
        "group": layout.group,
    }
    places = {part: _place(header, name, part, path) for part, name in names.items() if name}
    named = next((header.index(name) for name in NAME_COLUMNS if name in header), None)
    for begin, row, problem in rows:
        problem = (wrong and wrong[0]) or problem
        wrong.clear()
        if problem:
            yield Bad(begin, problem)
        elif len(row) != len(header) and any(cell.strip() for cell in row):
            yield Bad(
                begin,
                f"the row has {len(row)} cells and the header {len(header)}; quote cells that hold"
                " a separator",
            )
        elif row:
            cells = {part: row[place].strip() for part, place in places.items()}
            yield Document(
                line=begin, name=row[named].strip() if named is not None else "", **cells
            )


def _place(header: list[str], name: str, part: str, path: Path) -> int:
    if name not in header:
        hint = f"{did_you_mean(name, header)} (choose with --{part}-column)"
        raise DataError(f"no column {name!r} in the header; {hint}", path, 1)
    if header.count(name) > 1:
        raise DataError(f"the header has {name!r} more than once; rename one", path, 1)
    return header.index(name)


def _tab_rows(texts: Iterator[str]) -> Iterator[tuple[int, list[str], str]]:
    """Yield rows of a TSV, which has no quoting, but that a cell wholly in quotes loses them."""
    for number, text in enumerate(texts, 1):
        text = text.rstrip("\r\n")
        yield number, [_unquoted(cell) for cell in text.split("\t")] if text else [], ""


def _unquoted(cell: str) -> str:
    r"""Return a cell without its quotes, if these are all around it and doubled within.

    >>> _unquoted('"He said ""no""."'), _unquoted('"Fine", he said, "but dear"')
    ('He said "no".', '"Fine", he said, "but dear"')
    """
    inner = cell[1:-1]
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else cell


def _csv_rows(
    texts: Iterator[str], delimiter: str, max_field: int
) -> Iterator[tuple[int, list[str], str]]:
    """Yield rows of a CSV with the line each begins on; a quote that is never closed is a
    problem, not a cell.
    """
    csv.field_size_limit(max(csv.field_size_limit(), max_field))
    first = next(texts, "")
    if first.count(";") > first.count(","):
        delimiter = ";"
    reader = csv.reader(chain([first], texts), delimiter=delimiter, strict=True)
    while True:
        begin = reader.line_num + 1
        try:
            yield begin, next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            yield begin, [], f"not a row of a table ({error})"


def _json_lines(lines: Lines, layout: Layout) -> Iterator[Document | Bad]:
    for line in lines:
        if not line.blank:
            yield Bad(line.number, line.wrong) if line.wrong else _json_document(line, layout)


def _json_document(line: Line, layout: Layout) -> Document | Bad:
    try:
        row = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        return Bad(line.number, f"not JSON ({str(error)[:80] or 'nested too deep'})")
    if not isinstance(row, dict):
        return Bad(line.number, f"a line is one JSON object; this is a {type(row).__name__}")
    if layout.text not in row:
        return Bad(
            line.number,
            f"no key {layout.text!r}; {did_you_mean(layout.text, map(str, row))} (--text-column)",
        )
    parts = {
        part: _cell(row.get(getattr(layout, part)))
        for part in ("label", "split", "group")
        if getattr(layout, part)
    }
    parts["name"] = _cell(row.get("name", row.get("id")))
    if layout.tags:
        return _words_document(row[layout.text], row.get(layout.tags), line.number, parts)
    if not isinstance(row[layout.text], str):
        return Bad(line.number, f"{layout.text!r} is a {type(row[layout.text]).__name__}, not text")
    return Document(row[layout.text], line.number, **parts)


def _cell(value: Any) -> str:
    """Return a JSON value as the text of a cell: nothing for null, lists and objects.

    >>> _cell(1), _cell(1.0), _cell(None), _cell(float("nan")), _cell(True), _cell("yes ")
    ('1', '1', '', '', 'true', 'yes')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):  # NaN is missing; 1.0 is 1, as tables of pandas have it
        return "" if math.isnan(value) else repr(int(value) if value.is_integer() else value)
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _words_document(words: Any, tags: Any, line: int, parts: dict[str, str]) -> Document | Bad:
    """Join words by spaces, noting where each one stands."""
    if not (
        isinstance(words, list)
        and isinstance(tags, list)
        and all(isinstance(w, str) for w in (*words, *tags))
    ):
        return Bad(line, "words and tags are not lists of text")
    if len(words) != len(tags):
        return Bad(line, f"{len(words)} words but {len(tags)} tags")
    if not words or any(w.split() != [w] for w in (*words, *tags)):
        return Bad(line, "a word or tag is empty or holds a space")
    ends = list(accumulate(len(word) + 1 for word in words))
    places = tuple((end - len(word) - 1, end - 1) for word, end in zip(words, ends, strict=True))
    return Document(" ".join(words), line, words=places, tags=tuple(tags), **parts)


def _tagged(lines: Lines, layout: Layout) -> Iterator[Document | Bad]:
    """Yield sentences of a file with a word and its tag (the first and the last column) on each
    line.
    """
    words, tags, begin, wrong, columns = [], [], 0, "", 0
    for line in chain(lines, [Line("", 0)]):
        cells = line.text.split()
        if line.blank or cells[:1] == ["-DOCSTART-"]:
            if begin:
                yield Bad(begin, wrong) if wrong else _words_document(words, tags, begin, {})
            words, tags, begin, wrong = [], [], 0, ""
            continue
        begin, columns = begin or line.number, columns or len(cells)
        wrong = wrong or line.wrong
        if len(cells) < 2 or len(cells) != columns:
            wrong = (
                wrong
                or f"line {line.number} has {len(cells)} columns; give a word and its tag,"
                f" {max(columns, 2)} in all"
            )
        elif sum(map(len, words)) + len(cells[0]) > layout.longest:
            wrong = wrong or too_long(layout)
        elif not wrong:
            words.append(cells[0])
            tags.append(cells[-1])
