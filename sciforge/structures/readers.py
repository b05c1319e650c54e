"""Structures out of files: extended XYZ, ASE's formats, HDF5 of SPICE and ANI, and the JSON of
mlearn.

Everything leaves in eV, angstrom, eV/angstrom and eV/angstrom^3, the stress in ASE's order and
sign. A label that a frame does not have is None. A file that states its own units (HDF5 attributes)
is believed over the caller's.

The virial of mlearn (Zuo et al. 2020) is the stress VASP prints: order xx yy zz xy yz xz, kbar,
positive under compression. Found on the elastic frames: shearing a lattice vector along xy, yz or
xz moves the 4th, 5th or 6th number; the numbers are positive in the cells made smaller; and -V
times them, converted from kbar, is dE/d(strain) between neighbouring strains to a percent (so the
energies are in eV), which a test repeats.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from sciforge.core.files.decompression import bounded
from sciforge.errors import DataError, SciforgeError
from sciforge.structures.file_labels import Keys, Labels
from sciforge.structures.structure import Structure
from sciforge.structures.units import Units

Frame = tuple[int, Structure | DataError]
BROKEN = (OSError, EOFError, zlib.error, UnicodeDecodeError)
FIELD = re.compile(
    r"""([^\s=,"']+|"[^"]*")\s*=\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\{[^}]*\}|\[.*?\](?=\s|$)|[^\s"]+)"""
)


def read_structures(
    path: Path,
    units: Units | str = "eV angstrom",
    key_energy: str = "",
    key_forces: str = "",
    key_stress: str = "",
    level: str = "",
    key_charge: str = "",
    key_spin: str = "",
) -> Iterator[Structure]:
    """Yield the structures of a file, one at a time; the kind of file goes by its name.

    Args:
        path: .xyz/.extxyz, .h5/.hdf5, .json of mlearn (each also .gz, HDF5 aside), .traj, .db, or
            what ase.io reads.
        units: of the file, e.g. `hartree bohr`; not used where ASE knows them (CIF, POSCAR, OUTCAR
            ...).
        key_energy: the name of the energy in the file; "" looks for the usual ones.
        key_forces: of the forces, likewise.
        key_stress: of the stress; a key with `virial` in its name is a virial.
        level: level of theory of structures that name none.
        key_charge: of the total charge.
        key_spin: of the spin multiplicity.

    Raises:
        DataError: the file is damaged, a frame is none, or two keys could both be the label.
        MissingExtra: HDF5 without h5py.
    """
    keys = Keys(key_energy, key_forces, key_stress, key_charge, key_spin)
    for _, structure in read_frames(path, units, keys, level):
        if isinstance(structure, DataError):
            raise structure
        yield structure


def read_frames(
    path: Path, units: Units | str, keys: Keys | None = None, level: str = ""
) -> Iterator[Frame]:
    """Yield (frame number from 1, structure, or the DataError of a frame that can be stepped over).

    Raises:
        DataError: the file is missing, damaged or cut off, its keys are ambiguous, or it holds no
            structure.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("no such file; check the path", path)
    stem = path.name.lower().removesuffix(".gz")
    labels = Labels(keys or Keys(), Units.parse(units), level, path)
    count = 0
    for count, structure in enumerate(_reader(stem)(path, labels), 1):  # noqa: B007
        yield count, structure
    if not count:
        raise DataError("no structure in the file; give one that has some", path)
    labels.require_used()


def _reader(stem: str) -> Callable[[Path, Labels], Iterator[Structure | DataError]]:
    if stem.endswith((".xyz", ".extxyz")):
        return _read_xyz
    if stem.endswith((".h5", ".hdf5", ".hdf")):
        from sciforge.structures.hdf5 import read_hdf5

        return read_hdf5
    if stem.endswith(".json"):
        return _read_json
    return _read_database if stem.endswith(".db") else _read_ase


def _open_text(path: Path) -> TextIO:
    if not path.name.lower().endswith(".gz"):
        return open(path, encoding="utf-8")
    return io.TextIOWrapper(bounded(gzip.open(path, "rb"), path), encoding="utf-8")


def _read_xyz(path: Path, labels: Labels) -> Iterator[Structure | DataError]:
    line = frame = 0
    try:
        with _open_text(path) as stream:
            while head := stream.readline():
                line += 1
                if not head.strip():
                    continue
                if not head.strip().isdigit():
                    raise DataError(
                        f"{head.strip()[:40]!r} is not a number of atoms; correct the frame",
                        path,
                        line,
                    )
                frame, count = frame + 1, int(head)
                comment = stream.readline()
                rows = [row for _, row in zip(range(count), stream, strict=False)]
                if len(rows) < count or not comment:
                    raise DataError(f"the file ends within frame {frame}; get it again", path, line)
                try:
                    yield _xyz_frame(comment, rows, labels, frame)
                except (ValueError, KeyError, OverflowError) as error:
                    yield DataError(
                        f"frame {frame} is no structure ({error}); correct it", path, line
                    )
                except DataError as error:
                    if labels.ambiguous:
                        raise
                    yield DataError(str(error), path, line)
                line += 1 + count
    except BROKEN as error:
        raise DataError(
            f"cannot be read ({str(error) or 'cut off'}); get the file again", path
        ) from None


@lru_cache(64)
def _columns(properties: str) -> tuple[dict[str, tuple[str, int, int]], int]:
    """Return name -> (kind, first, end) of the columns that a Properties text announces, and how
    many there are.
    """
    parts = properties.split(":")
    if len(parts) % 3 or not properties:
        raise ValueError(f"Properties={properties!r} is no list of name:kind:columns")
    found, at = {}, 0
    for name, kind, width in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        found[name], at = (kind, at, at + int(width)), at + int(width)
    return found, at


def _xyz_frame(comment: str, rows: list[str], labels: Labels, frame: int) -> Structure:
    info = {key.strip('"'): _unquote(value) for key, value in FIELD.findall(comment)}
    columns, width = _columns(info.pop("Properties", "") or "species:S:1:pos:R:3")
    tokens = "".join(rows).split()
    if len(tokens) != len(rows) * width:
        if (
            "Properties" in comment
            or len(tokens) % max(len(rows), 1)
            or len(tokens) < 4 * len(rows)
        ):
            raise ValueError(
                f"{len(tokens)} values where {len(rows)} atoms with {width} columns need"
                f" {len(rows) * width}"
            )
        # a plain XYZ with more columns: only the first four are known
        width = len(tokens) // len(rows)
    table = (
        np.array(tokens, dtype=np.str_).reshape(len(rows), width)
        if rows
        else np.empty((0, width), "U1")
    )
    arrays = {
        name: table[:, a:b].astype(np.float64)
        for name, (kind, a, b) in columns.items()
        if kind in "RI" and labels.wanted(name)
    }
    kind, a, _ = columns.get("species") or columns.get("Z") or columns["numbers"]
    pos = arrays.get("pos", arrays.get("positions"))
    if pos is None:
        raise ValueError("no column pos")
    lattice = info.get("Lattice") or info.get("lattice")
    cell = _floats(lattice).reshape(3, 3) if lattice else np.zeros((3, 3))
    pbc = _truth(info["pbc"]) if "pbc" in info else np.full(3, bool(lattice))
    named = {
        key: text if key in ("name", "group", "level") else _value(text)
        for key, text in info.items()
    }
    return labels.structure(_numbers(table[:, a].tolist()), pos, cell, pbc, named, arrays, frame)


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if text[0] in "\"'" else text


def _floats(text: str) -> np.ndarray:
    return np.array(re.findall(r"[^\s,\[\]{}]+", text), dtype=np.float64)


def _truth(text: str) -> np.ndarray:
    known = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}
    flags = np.array([known[word.lower()] for word in re.findall(r"[^\s,\[\]{}]+", text)])
    return np.broadcast_to(flags, 3).copy()


def _value(text: str) -> Any:
    """Return a number or an array where the text is one, else the text."""
    try:
        numbers = _floats(text)
    except ValueError:
        return text
    return float(numbers[0]) if numbers.size == 1 else numbers


@lru_cache(1)
def _symbols() -> dict[str, int]:
    from ase.data import atomic_numbers

    return dict(atomic_numbers)


def _numbers(symbols: Iterable[str]) -> np.ndarray:
    table = _symbols()
    found = [
        table.get(symbol) if symbol in table else table.get(symbol.capitalize())
        for symbol in symbols
    ]
    for i, (number, symbol) in enumerate(zip(found, symbols, strict=True)):
        if number is None:
            if not symbol.isdigit():
                raise ValueError(f"atom {i + 1}: no element {symbol!r}")
            found[i] = int(symbol)
    return np.array(found, np.int64)


def _read_ase(path: Path, labels: Labels) -> Iterator[Structure | DataError]:
    from ase.io import iread

    # ASE converts the other formats
    labels = labels if path.name.endswith(".traj") else labels.in_units(Units())
    frame = 0
    try:
        for frame, atoms in enumerate(iread(path, ":"), 1):
            yield labels.of_atoms(atoms, frame)
    except SciforgeError:
        raise
    except Exception as error:  # every format of ASE has exceptions of its own
        what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        after = f" after frame {frame}" if frame else ""
        raise DataError(
            f"ASE cannot read it{after} ({what}); get the file again, or convert it", path
        ) from None


def _read_database(path: Path, labels: Labels) -> Iterator[Structure | DataError]:
    import sqlite3

    from ase.db import connect

    try:
        for frame, row in enumerate(connect(path).select(), 1):
            atoms = row.toatoms()
            atoms.info = {**dict(row.data), **row.key_value_pairs}
            if not atoms.info.get("charge"):
                # ASE's own column, 0 where no initial charges were set
                atoms.info.pop("charge", None)
            yield labels.of_atoms(atoms, frame)
    except (sqlite3.Error, KeyError, ValueError, OSError) as error:
        raise DataError(f"not a database of ASE ({error}); get the file again", path) from None


def _read_json(path: Path, labels: Labels) -> Iterator[Structure | DataError]:
    try:
        with _open_text(path) as stream:
            found = json.load(stream)
    except (*BROKEN, ValueError) as error:
        raise DataError(
            f"not JSON, or cut off ({str(error) or 'cut off'}); get the file again", path
        ) from None
    if (
        not isinstance(found, list)
        or not found
        or not isinstance(found[0], dict)
        or "structure" not in found[0]
    ):
        yield from _read_ase(path, labels)
        return
    labels = labels.in_units(Units(stress="kbar", stress_sign="vasp"))
    for frame, entry in enumerate(found, 1):
        try:
            yield _mlearn(entry, labels, frame)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            yield DataError(
                f"frame {frame} is not as mlearn writes them ({error}); correct it", path
            )


def _mlearn(entry: Mapping[str, Any], labels: Labels, frame: int) -> Structure:
    structure, outputs = entry["structure"], dict(entry.get("outputs", {}))
    numbers = _numbers([site["species"][0]["element"] for site in structure["sites"]])
    pos = np.array([site["xyz"] for site in structure["sites"]], np.float64).reshape(-1, 3)
    if (virial := outputs.pop("virial_stress", None)) is not None:
        # xx yy zz xy yz xz -> ASE's order
        outputs["stress"] = np.asarray(virial, np.float64)[[0, 1, 2, 4, 5, 3]]
    arrays = (
        {"forces": np.asarray(outputs.pop("forces"), np.float64)} if "forces" in outputs else {}
    )
    outputs["charge"] = structure.get("charge") or 0
    outputs["name"] = f"{labels.path.name}#{frame} {entry.get('description', '')}".strip()
    cell = np.array(structure["lattice"]["matrix"], np.float64)
    return labels.structure(numbers, pos, cell, np.ones(3, bool), outputs, arrays, frame)
