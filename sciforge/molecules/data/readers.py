"""Files of molecules -> rows: SMILES lists, tables (CSV, TSV) and SDF, plain or gzipped, whole or
in ranges of rows.

A big file is read by several workers, each a range of its rows, so that preparation is parallel
over one file; the ranges depend on the file alone, never on the number of workers.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sciforge.core.files.decompression import bounded
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.molecules.chemistry.graph import mol_of_smiles

if TYPE_CHECKING:
    from rdkit import Chem

TABLES = {".csv": ",", ".tsv": "\t"}
LISTS = (".smi", ".smiles", ".txt", ".ism")
SDF = (".sdf", ".sd")
END_OF_RECORD = "$$$$"
NAMES = ("name", "id", "compound id", "molecule id", "compound", "molecule chembl id")
ROWS = 10_000  # of a range, at least
MAX_RANGES = 32  # a gzipped file is decompressed once for each


@dataclass(frozen=True)
class Part:
    """A range of the rows of one file (lines below the header of a table, records of an SDF)."""

    path: Path
    start: int
    stop: int

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Entry:
    """One row: a SMILES or an SDF record, its name, its line in the file, and the cells asked for.

    Args:
        number: of the row in the file, from 0.
        text: SMILES, or the whole SDF record.
        is_sdf: which of the two.
        name: as the file gives it; may be empty.
        line: 1-based.
        cells: text of the columns asked for, in their order.
        fields: every column of the table or property of the SDF by name, as the file has it.
        problem: why the row cannot be used; empty where it can.
    """

    number: int
    text: str
    is_sdf: bool
    name: str
    line: int
    cells: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    problem: str = ""

    def mol(self) -> "Chem.Mol":
        """Return the sanitised molecule; raises DataError with RDKit's own words."""
        from rdkit import Chem, rdBase

        if self.problem:
            raise DataError(self.problem)
        if not self.is_sdf:
            return mol_of_smiles(self.text)
        with rdBase.BlockLogs():
            mol = Chem.MolFromMolBlock(self.text)
            if mol is not None and mol.GetNumAtoms():
                return mol
            raw = Chem.MolFromMolBlock(self.text, sanitize=False)
            problems = (
                Chem.DetectChemistryProblems(raw) if raw is not None and raw.GetNumAtoms() else ()
            )
        why = problems[0].Message() if problems else "no atoms, or not a mol block"
        raise DataError(f"no valid SDF record ({why}); correct it")


def kind_of(path: Path) -> str:
    """Return the lower-case suffix that says how a file is read, `.gz` taken off; raises
    ConfigError for an unknown one.

    >>> kind_of(Path("a.CSV.gz"))
    '.csv'
    """
    path = Path(path)
    suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    if suffix.lower() not in (*TABLES, *LISTS, *SDF):
        known = ", ".join((*LISTS, *TABLES, *SDF))
        raise ConfigError(
            f"{path}: the ending {suffix!r} is not one of {known} (with or without .gz); rename the"
            " file"
        )
    return suffix.lower()


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a text file, gzipped or not; failures of either become one-line DataErrors."""
    try:
        raw = (
            bounded(gzip.open(path, "rb"), path)
            if Path(path).suffix.lower() == ".gz"
            else open(path, "rb")
        )
        with raw, io.TextIOWrapper(raw, "utf-8-sig", "backslashreplace", newline="") as text:
            yield text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"not a whole gzip file ({error}); fetch it again", path) from None
    except OSError as error:
        raise DataError(f"{error.strerror or error}; check the path", path) from None


def parts_of(path: Path, rows: int = ROWS) -> list[Part]:
    """Return the ranges of a file; one range where a quoted cell may run over several lines."""
    path, kind = Path(path), kind_of(path)
    with open_text(path) as text:
        if kind in SDF:
            count, whole = sum(line.startswith(END_OF_RECORD) for line in text) + 1, True
        elif kind in TABLES:
            next(text, None)
            odd = [line.count('"') & 1 for line in text]
            count, whole = len(odd), not any(odd)
        else:
            count, whole = sum(1 for _ in text), True
    size = max(rows, -(-count // MAX_RANGES)) if whole else max(count, 1)
    return [Part(path, start, min(start + size, count)) for start in range(0, max(count, 1), size)]


def read_part(part: Part, smiles_column: str, columns: Sequence[str]) -> Iterator[Entry]:
    """Yield the rows of a range; blank lines are passed over.

    Args:
        part: which rows of which file.
        smiles_column: of tables.
        columns: further columns of a table, or properties of an SDF.

    Raises:
        DataError: unreadable, or a column is missing.
        ConfigError: columns are asked of a list of SMILES, which has none.
    """
    kind = kind_of(part.path)
    if kind in LISTS and columns:
        raise ConfigError(
            f"{part.path}: a list of SMILES has no column {columns[0]!r}; give a CSV or TSV with a"
            " header"
        )
    with open_text(part.path) as text:
        if kind in TABLES:
            yield from _table_rows(text, part, TABLES[kind], smiles_column, columns)
        elif kind in SDF:
            yield from _sdf_records(text, part, columns)
        else:
            yield from _list_rows(text, part)


def _list_rows(text: IO[str], part: Part) -> Iterator[Entry]:
    for number, line in enumerate(islice(text, part.start, part.stop), part.start):
        words = line.split(None, 1)
        if not words or (number == 0 and words[0].lower() == "smiles"):
            continue
        text, name = words[0], words[1].strip() if len(words) > 1 else ""
        if name.startswith("|") and "|" in name[1:]:
            # a CXSMILES: radicals and stereochemistry stand between bars
            extension, name = name[1:].split("|", 1)
            text = f"{text} |{extension}|"
        yield Entry(number, text, False, name.strip(), number + 1)


def _table_rows(
    text: IO[str], part: Part, delimiter: str, smiles: str, columns: Sequence[str]
) -> Iterator[Entry]:
    header, delimiter = _header(next(text, ""), delimiter)
    smiles = smiles_column_in(header, smiles)
    places = []
    for column in (smiles, *columns):
        if header.count(column) > 1:
            raise DataError(f"two columns are called {column!r}; rename one", part.path, 1)
        if column not in header:
            option = " (choose with --smiles-column)" if column == smiles else ""
            raise DataError(
                f"no column {column!r} in the header; {did_you_mean(column, header)}{option}",
                part.path,
                1,
            )
        places.append(header.index(column))
    named = name_column_in(header)
    reader = csv.reader(islice(text, part.start, part.stop), delimiter=delimiter)
    try:
        for number, row in enumerate(reader, part.start):
            line = part.start + 1 + reader.line_num
            if not any(cell.strip() for cell in row):
                continue
            while len(row) > len(header) and not row[-1].strip():
                row.pop()
            problem = ""
            if len(row) > len(header) or len(row) <= max(places):
                problem = f"{len(row)} cells under {len(header)} columns; correct the row"
            row = [*row, *[""] * (len(header) - len(row))]
            cells = [row[place].strip() for place in places]
            fields = dict(zip(header, row, strict=False))
            name = "" if named is None else fields[named]
            yield Entry(number, cells[0], False, name, line, tuple(cells[1:]), fields, problem)
    except csv.Error as error:
        line = part.start + 1 + reader.line_num
        raise DataError(f"not a table ({error}); correct it", part.path, line) from None


def _header(first: str, delimiter: str) -> tuple[list[str], str]:
    """Return the names of the columns and the delimiter of a table's first line."""
    if delimiter == "," and first.count(";") > first.count(","):
        delimiter = ";"
    return [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])], delimiter


def smiles_column_in(header: Sequence[str], column: str) -> str:
    """Return the column of SMILES: SMILES, Smiles too where only one of them is there.

    >>> smiles_column_in(["ID", "SMILES"], "smiles")
    'SMILES'
    """
    alike = [name for name in header if name.lower() == column.lower()]
    return alike[0] if column not in header and len(alike) == 1 else column


def name_column_in(header: Sequence[str]) -> str | None:
    """Return the column of names: the first called name, id, compound id or alike; None without
    one.

    >>> name_column_in(["Compound ID", "smiles"])
    'Compound ID'
    """
    for wanted in NAMES:
        for name in header:
            if name.lower().replace("_", " ") == wanted:
                return name
    return None


def columns_of(path: Path) -> list[str]:
    """Return the columns of a table, or the properties of the first record of an SDF; none of a
    list.
    """
    kind = kind_of(path)
    with open_text(path) as text:
        if kind in TABLES:
            return _header(next(text, ""), TABLES[kind])[0]
        if kind in SDF:
            return [
                name
                for entry in islice(_sdf_records(text, Part(path, 0, 1), ()), 1)
                for name in entry.fields
            ]
    return []


def _sdf_records(text: IO[str], part: Part, columns: Sequence[str]) -> Iterator[Entry]:
    number, begin, block = 0, 1, []
    for line_number, line in enumerate(text, 1):
        if not line.startswith(END_OF_RECORD):
            if number >= part.start:
                block.append(line.rstrip("\r\n"))
            continue
        if number >= part.start:
            yield _sdf_entry(number, begin, block, columns)
        number, begin, block = number + 1, line_number + 1, []
        if number >= part.stop:
            return
    if any(line.strip() for line in block):  # a last record without its end mark
        yield _sdf_entry(number, begin, block, columns)


def _sdf_entry(number: int, line: int, block: list[str], columns: Sequence[str]) -> Entry:
    fields: dict[str, str] = {}
    for place, text in enumerate(block):
        if text.startswith(">") and "<" in text and ">" in text[text.index("<") :]:
            name = text[text.index("<") + 1 : text.rindex(">")]
            value = list(takewhile(str.strip, block[place + 1 :]))
            fields[name] = "\n".join(value).strip()
    cells = tuple(fields.get(column, "") for column in columns)
    name = block[0].strip() if block else ""
    return Entry(number, "\n".join(block), True, name, line, cells, fields)
