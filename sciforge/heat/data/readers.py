"""Tables of measurements (CSV or TSV, plain or gzipped) -> dimensionless groups, Nusselt numbers
and what they are based on.

A table has a header. A column is found by its name or a usual alias, or is named by `ours=theirs`.
Its unit stands in brackets (`D [mm]`); the groups need none (angles are in degrees), dimensional
columns do, and the groups are made of them. Lines that begin with # are remarks, except `# basis:
ribbed wall, projected area, smooth diameter`, `# rig: NAME` and `# fluid: NAME`.
"""

import csv
import gzip
import io
import math
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciforge.core.data.groups import group_name
from sciforge.core.files.decompression import bounded
from sciforge.errors import ConfigError, DataError, did_you_mean, printable
from sciforge.heat.correlations.groups import GROUPS
from sciforge.heat.data.quantities import QUANTITIES, TEXT, complete, in_unit, known_as
from sciforge.heat.data.reference_basis import Basis
from sciforge.heat.data.table_checks import OnReject, Rows, suspicions

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".csv", ".tsv")
IN_MEMORY = Path("table")  # stands for the file of a table in memory
SMALLEST_ANGLE = math.pi / 2  # degrees; a table whose angles all lie below is in radians


@dataclass(frozen=True)
class MeasuredTable:
    """Points of a table, one row a measurement.

    Args:
        points: group name -> float64 [N], all groups of groups.py.
        nu: Nusselt number, float64 [N]; NaN where the table need not have one.
        fanning: four-sided Fanning friction factor, float64 [N]; NaN where unknown.
        uncertainty: relative standard uncertainty of Nu (0.05 is 5 %), float64 [N]; NaN where
            unknown.
        rig: name of the laboratory or rig of each point; the file's name where none is given.
        line: of the file, int64 [N].
        basis: of Nu in the words of `Basis`; "" where it was not asked for. Friction is always
            Fanning's.
        split: what the column `split` says of each point; "" where there is none.
        group: the group of each point; "" where no column was named.
        notes: what was taken for granted, one line each.
    """

    points: Mapping[str, np.ndarray]
    nu: np.ndarray
    fanning: np.ndarray
    uncertainty: np.ndarray
    rig: tuple[str, ...]
    line: np.ndarray
    basis: str
    split: tuple[str, ...]
    group: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.line)


def read_table(
    path: Path,
    columns: Sequence[str] = (),
    on_reject: OnReject = None,
    *,
    basis: str = "",
    measured: bool = True,
    warn: bool = True,
    group_column: str = "",
) -> MeasuredTable:
    """Read a table of measurements.

    Args:
        path: .csv or .tsv, with or without .gz; semicolons and tabs are understood, decimal commas
            are not.
        columns: `ours=theirs` where a column is not found by itself, e.g. `Nu=Nu_r` or
            `alpha_deg=angle [rad]`.
        on_reject: is told of each bad row, which is then left out; without it the first bad row
            raises.
        basis: of Nu, where no line `# basis:` of the file states it.
        measured: whether the table must have Nu and its basis; a table of points to predict need
            not.
        warn: whether to warn of repeated points, of columns that never change and of what was taken
            for granted.
        group_column: whose text names the group of each row; empty for none.

    Raises:
        DataError: unreadable, a column is missing, of an unknown unit or found twice, no basis, or
            a bad row (with its line).
        ConfigError: the file's ending, or a text in `columns`.
        MissingExtra: a unit needs pint, or a fluid CoolProp.
    """
    path = Path(path)
    table = _measured(_read_cells(path), path, columns, on_reject, basis, measured, group_column)
    if warn:
        for note in (
            *table.notes,
            *(suspicions(table.points, table.rig, table.nu) if measured else ()),
        ):
            warnings.warn(f"{path}: {note}", stacklevel=2)
    return table


def read_frame(
    frame: "pd.DataFrame",
    columns: Sequence[str] = (),
    *,
    basis: str = "",
    measured: bool = True,
) -> MeasuredTable:
    """Read a table in memory as `read_table` reads a file; lines count the rows from 0.

    Args:
        frame: columns by their names or aliases, with units in brackets; `attrs` may hold basis,
            rig and fluid.
        columns: `ours=theirs` where a column is not found by itself.
        basis: of Nu, where `frame.attrs["basis"]` does not state it.
        measured: whether the table must have Nu and its basis.

    Raises:
        DataError: a column is missing or found twice, no basis, or a bad row, named by its place.
    """
    header = tuple(str(name).strip() for name in frame.columns)
    cells = [
        "" if value is None else str(value) for value in frame.to_numpy(object).ravel().tolist()
    ]
    cells = ["" if cell in ("nan", "<NA>", "NaT") else cell for cell in cells]
    width = len(header)
    rows = tuple(
        (place, tuple(cells[place * width : (place + 1) * width])) for place in range(len(frame))
    )
    if not rows:
        raise DataError("there are no rows; give at least one")
    remarks = {
        name: str(frame.attrs[name]) for name in ("basis", "rig", "fluid") if name in frame.attrs
    }
    try:
        return _measured(
            _Table(header, 0, rows, remarks), IN_MEMORY, columns, None, basis, measured
        )
    except DataError as error:
        message = str(error).removeprefix(f"{IN_MEMORY}: ")
        row = re.match(rf"{IN_MEMORY}:(\d+): ", message)
        at_header = row and error.line == 0 and ("header" in message or "column" in message)
        place = "the table: " if at_header or not row else f"input {row[1]}: "
        raise DataError(place + message[row.end() if row else 0 :]) from None


def _measured(
    table: "_Table",
    path: Path,
    columns: Sequence[str],
    on_reject: OnReject,
    basis: str,
    measured: bool,
    group_column: str = "",
) -> MeasuredTable:
    """Return what the cells of a table say, bad rows left out; raises as `read_table`."""
    places = _find_columns(table, columns, path)
    stated = _basis_of(table, basis, path, required=measured)
    places = _settle_friction(places, table, basis or table.remarks.get("basis", ""), path)
    report = Rows(path, on_reject)
    numeric = {name: place for name, place in places.items() if QUANTITIES[name].unit != TEXT}
    cells, lines = report.numbers(
        table.rows, len(table.header), {name: place for name, (place, _) in numeric.items()}
    )
    values = {
        name: in_unit(column, unit, name, path, table.header_line)
        for column, (name, (_, unit)) in zip(cells.T, numeric.items(), strict=True)
    }
    texts = {name: _texts(table, places, name, lines) for name in ("rig", "fluid", "split")}
    texts["group"] = _groups(table, group_column, lines, path)
    keep = report.positive(values, lines)
    values, lines = {name: column[keep] for name, column in values.items()}, lines[keep]
    texts = {name: tuple(np.array(column, object)[keep]) for name, column in texts.items()}
    notes = complete(values, texts["fluid"], stated.properties if stated else "bulk", path)
    points = _points(values, notes, path, len(lines))
    nu = values.get("Nu")
    if nu is None and measured:
        raise DataError(
            f"no column Nu (nor h, diameter, conductivity); {_offer(table, 'Nu')}",
            path,
            table.header_line,
        )
    blank = np.full(len(lines), np.nan)
    nu, fanning, uncertainty = (
        values.get(name, blank) for name in ("Nu", "fanning", "uncertainty")
    )
    keep = report.plausible(points, nu if measured else None, fanning, uncertainty, lines)
    if not keep.any():
        raise DataError("no usable row below the header; correct the table", path)
    points = {name: column[keep] for name, column in points.items()}
    rig, split, group = (
        [name for name, kept in zip(texts[key], keep, strict=True) if kept]
        for key in ("rig", "split", "group")
    )
    rig = tuple(name or table.remarks.get("rig") or _stem(path) for name in rig)
    kept = (column[keep] for column in (nu, fanning, uncertainty))
    texts = tuple(split), tuple(group), tuple(notes)
    return MeasuredTable(points, *kept, rig, lines[keep], str(stated or ""), *texts)


# Cells --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    header: tuple[str, ...]
    header_line: int
    rows: tuple[tuple[int, tuple[str, ...]], ...]  # line and cells
    remarks: Mapping[str, str]


def _stem(path: Path) -> str:
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def _read_text(path: Path) -> str:
    try:
        with (
            bounded(gzip.open(path, "rb"), path)
            if path.suffix.lower() == ".gz"
            else open(path, "rb")
        ) as handle:
            return handle.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("not UTF-8 text; save the table as CSV UTF-8", path) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"not a whole gzip file ({error}); fetch it again", path) from None
    except OSError as error:
        raise DataError(f"{error.strerror or error}; check the path", path) from None


def _read_cells(path: Path) -> _Table:
    """Split a file into remarks, header and rows; raises DataError where it is no table."""
    suffix = Path(
        _stem(path) + path.suffix if path.suffix.lower() != ".gz" else path.stem
    ).suffix.lower()
    if suffix not in TABLES:
        raise ConfigError(
            f"{path}: the ending {suffix!r} is not one of .csv, .tsv (with or without .gz); rename"
            " the file"
        )
    lines = list(io.StringIO(_read_text(path), newline=""))
    remarks = {}
    for number, line in enumerate(lines):
        if line.lstrip('" ').startswith("#"):
            # a spreadsheet adds quotes and commas
            key, _, text = line.strip(' "#,;\t\r\n').partition(":")
            if key.strip().lower() in ("basis", "rig", "fluid") and text.strip():
                remarks[key.strip().lower()] = text.strip()
            lines[number] = "\n"  # line numbers stay
    first = next((line for line in lines if line.strip(" ,;\t\r\n")), None)
    if first is None:
        raise DataError("an empty table; give a header and rows", path)
    bare = re.sub(r"\[[^\]]*\]", "", first)
    delimiter = "\t" if suffix == ".tsv" else max(",;\t", key=bare.count)
    reader, rows = csv.reader(lines, delimiter=delimiter), []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                rows.append((reader.line_num, tuple(cells)))
    except csv.Error as error:
        raise DataError(f"not a table ({error}); correct it", path, reader.line_num) from None
    (line, header), *rows = rows
    if all(_is_number(cell) for cell in header if cell):
        raise DataError(
            "no header; name the columns in the first line, e.g. Re,Pr,e_D,Nu", path, line
        )
    header = header[: max(place for place, cell in enumerate(header) if cell) + 1]
    if twice := [name for name, count in Counter(filter(None, header)).items() if count > 1]:
        raise DataError(f"the header names {twice[0]!r} twice; rename one", path, line)
    if not rows:
        raise DataError("a header and no rows; add measurements", path, line)
    return _Table(tuple(header), line, tuple(rows), remarks)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


# Columns ------------------------------------------------------------------------------------------

Place = tuple[int, str | None]  # where a column is, and its unit; None where none is stated


def _parted(text: str) -> tuple[str, str | None]:
    """Return the name and the unit of a head.

    >>> _parted("D [mm]"), _parted("Re")
    (('D', 'mm'), ('Re', None))
    """
    found = re.fullmatch(r"(.*?)\s*\[([^\]]*)\]", text.strip())
    return (found[1], found[2].strip()) if found else (text.strip(), None)


def _offer(table: _Table, ours: str) -> str:
    heads = ", ".join(map(printable, table.header))
    return f"say which with --columns {ours}=THEIRS; the header has {heads[:200]}"


def _find_columns(table: _Table, columns: Sequence[str], path: Path) -> dict[str, Place]:
    """Return where each quantity is: as told, else by its name or an alias."""
    heads = [_parted(text) for text in table.header]
    found: dict[str, Place] = {}
    for text in columns:
        ours, equals, theirs = (part.strip() for part in text.partition("="))
        if not equals or not theirs:
            raise ConfigError(f"columns {text!r}; give OURS=THEIRS, e.g. Nu=Nu_ribbed")
        if ours not in QUANTITIES or ours in found:
            what = "names it twice" if ours in found else did_you_mean(ours, QUANTITIES)
            raise ConfigError(f"no column {ours!r} to fill with {theirs!r}; {what}")
        name, unit = _parted(theirs)
        places = [p for p, head in enumerate(heads) if table.header[p] == theirs or head[0] == name]
        if len(places) != 1:
            said = f"{len(places)} columns {name!r}" if places else f"no column {name!r}"
            hint = did_you_mean(name, [h for h, _ in heads if h])
            raise DataError(
                f"{said} in the header; {hint} (asked for by --columns)", path, table.header_line
            )
        stated = heads[places[0]][1]
        if unit is not None and stated is not None and unit != stated:
            raise DataError(
                f"{name} is in [{stated}] in the header and [{unit}] in --columns; keep one",
                path,
                table.header_line,
            )
        found[ours] = (places[0], stated if unit is None else unit)
    taken = {place for place, _ in found.values()}
    for ours in QUANTITIES:
        places = [p for p, (name, _) in enumerate(heads) if p not in taken and known_as(name, ours)]
        if len(places) > 1 and ours not in found:
            names = ", ".join(table.header[p] for p in places)
            raise DataError(
                f"{len(places)} columns may be {ours} ({names}); choose with --columns"
                f" {ours}={table.header[places[0]]}",
                path,
                table.header_line,
            )
        if places and ours not in found:
            found[ours] = (places[0], heads[places[0]][1])
    return found


def _settle_friction(
    places: dict[str, Place], table: _Table, said: str, path: Path
) -> dict[str, Place]:
    """Return the columns with a bare `f` named: it is Fanning's or Darcy's, which differ four
    times.
    """
    if "f" not in places:
        return places
    found = dict(places)
    place = found.pop("f")
    kind = next((name for name in ("fanning", "darcy") if name in said.lower()), None)
    if kind is None:
        if {"fanning", "darcy"} & set(found):
            return found
        what = (
            "a friction factor f may be Fanning's or Darcy's, 4 times as large; add 'Fanning"
            " friction' to the basis, or"
        )
        raise DataError(f"{what} --columns fanning=f (or darcy=f)", path, table.header_line)
    return found if kind in found else {**found, kind: place}


def _texts(table: _Table, places: Mapping[str, Place], name: str, lines: np.ndarray) -> list[str]:
    """Return the text of each kept row; where there is no such column, what the remarks say, or
    nothing.
    """
    if name not in places:
        return [table.remarks.get(name, "")] * len(lines)
    wanted = dict(table.rows)
    return [wanted[line][places[name][0]] for line in lines.tolist()]


def _groups(table: _Table, column: str, lines: np.ndarray, path: Path) -> list[str]:
    """Return the group of each kept row; raises DataError where there is no such column, or a cell
    of it is empty.
    """
    if not column:
        return [""] * len(lines)
    if column not in table.header:
        hint = did_you_mean(column, table.header)
        raise DataError(f"no column {column!r}; {hint}", path, table.header_line)
    cells = dict(table.rows)
    names = []
    for line in lines.tolist():
        try:
            names.append(group_name(cells[line][table.header.index(column)]))
        except DataError as error:
            raise DataError(str(error), path, line) from None
    return names


def _basis_of(table: _Table, given: str, path: Path, required: bool) -> Basis | None:
    """Return the basis of Nu, its friction Fanning's; raises DataError where it is missing or
    stated in two ways.
    """
    stated = table.remarks.get("basis", "")
    if not (given or stated):
        if not required:
            return None
        example = "ribbed wall, projected area, smooth diameter"
        raise DataError(
            f"no basis of Nu; put '# basis: {example}' in the first line, or give --basis"
            f' "{example}"',
            path,
        )
    try:
        found = [Basis.parse(text) for text in (given, stated) if text]
    except ConfigError as error:
        raise DataError(str(error), path) from None
    if len(found) == 2 and found[0] != found[1]:
        raise DataError(
            f"its basis is {found[1]}, and {found[0]} was given; drop the option, or correct the"
            " file",
            path,
        )
    return replace(found[0], friction="fanning")


def _points(
    values: Mapping[str, np.ndarray], notes: list[str], path: Path, count: int
) -> dict[str, np.ndarray]:
    """Return all groups, those that may be absent filled; raises DataError for the others."""
    if "e_D" not in values and {"P_e", "alpha_deg", "rib_pitch"} & set(values):
        raise DataError(
            "ribs without a height; add a column e_D (0 is smooth), or rib_height and diameter",
            path,
        )
    for name in ("Re", "Pr"):
        if name not in values:
            made = "velocity, diameter, viscosity" if name == "Re" else "fluid and temperature"
            raise DataError(
                f"no column {name} (nor {made} to make it); name it with --columns {name}=THEIRS",
                path,
            )
    smooth = values.get("e_D", np.zeros(count)) == 0
    filled = {name: group.absent for name, group in GROUPS.items() if name not in values}
    if not smooth.all() and filled:
        notes.append(
            f"no column {', '.join(filled)}; {', '.join(f'{value:g}' for value in filled.values())}"
            " taken"
        )
    points = {}
    for name, group in GROUPS.items():
        column = values.get(name, np.full(count, group.absent, np.float64))
        # they mean nothing on a smooth wall, and may be left empty there
        if name in ("P_e", "alpha_deg"):
            column = np.where(smooth & np.isnan(column), group.absent, column)
        points[name] = column
    angles = points["alpha_deg"][~smooth]
    if (
        len(angles)
        and 0 < np.nanmin(angles, initial=90)
        and np.nanmax(angles, initial=0) <= SMALLEST_ANGLE
    ):
        raise DataError(
            "every angle is below 1.6 degrees; if they are in radians, write --columns"
            " 'alpha_deg=THEIRS [rad]'",
            path,
        )
    return points
