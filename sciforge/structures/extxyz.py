"""Extended XYZ as sciforge writes it: every number keeps its bits, and equal structures make
equal files.
"""

import gzip
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from sciforge.core.files.output_files import write_whole
from sciforge.structures.structure import Structure

FULL = [0, 5, 4, 5, 1, 3, 4, 3, 2]  # six Voigt components to the nine of a matrix
SUFFIXES = (".xyz", ".extxyz", ".xyz.gz", ".extxyz.gz")


def write_extxyz(path: Path, structures: Iterable[Structure], sources: Iterable[Path] = ()) -> int:
    """Write structures so that reading them gives back every bit; ASE reads the file too.

    Args:
        path: .xyz or .extxyz, compressed where .gz is appended; it appears whole or not at all.
        structures: what to write.
        sources: files that are read meanwhile and must not be replaced.

    Returns:
        How many structures there were.

    Raises:
        DataError: the place cannot be written.
        ConfigError: the path is a folder or one of the sources.
    """
    return write_texts(path, (frame_text(structure) for structure in structures), sources)


def write_texts(path: Path, texts: Iterable[str], sources: Iterable[Path] = ()) -> int:
    """Write frames of `frame_text` one after another and return how many; raises as
    `write_extxyz`.
    """
    count = 0

    def write(work: Path) -> None:
        nonlocal count
        with _opened(work, packed=Path(path).name.lower().endswith(".gz")) as stream:
            for text in texts:
                stream.write(text)
                count += 1

    write_whole(Path(path), write, sources)
    return count


@contextmanager
def _opened(work: Path, packed: bool) -> Iterator[IO[str]]:
    with open(work, "wb") as raw:
        # no name and no time in the header: equal structures make equal files
        stream = gzip.GzipFile("", "wb", 6, raw, mtime=0) if packed else raw
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
        yield text
        text.flush()
        text.detach()
        if packed:
            stream.close()


def frame_text(
    structure: Structure,
    info: Mapping[str, Any] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> str:
    """Return a frame of extended XYZ.

    Args:
        structure: with its labels, under the names energy, forces and stress.
        info: more text or numbers (arrays are flattened) for the head, by name.
        arrays: more columns [N] or [N, K], by name.
    """
    blocks = {"pos": structure.pos_A_N3, "forces": structure.forces_eV_A_N3, **(arrays or {})}
    columns = {
        name: np.asarray(values, float).reshape(len(structure), -1)
        for name, values in blocks.items()
        if values is not None
    }
    properties = "".join(f":{name}:R:{values.shape[1]}" for name, values in columns.items())
    head = _head(structure, properties)
    head += [f"{name}={_header_value(value)}" for name, value in (info or {}).items()]
    lines = [str(len(structure)), " ".join(head)]
    lines += [
        f"{symbol} {' '.join(map(repr, values))}"
        for symbol, values in zip(
            _symbols(structure.numbers_N), np.hstack(list(columns.values())).tolist(), strict=True
        )
    ]
    return "\n".join(lines) + "\n"


def _symbols(numbers_N: np.ndarray) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[number] for number in numbers_N.tolist()]


def _head(structure: Structure, properties: str) -> list[str]:
    head = []
    if structure.cell_A_33.any() or structure.pbc_3.any():
        head.append(f"Lattice={_header_value(structure.cell_A_33)}")
    head.append(f"Properties=species:S:1{properties}")
    if structure.energy_eV is not None:
        head.append(f"energy={float(structure.energy_eV)!r}")
    if structure.stress_eV_A3_6 is not None:
        head.append(f"stress={_header_value(structure.stress_eV_A3_6[FULL])}")
    head += [f"charge={structure.charge}", f"spin={structure.spin}"]
    head += [
        f"{key}={_header_value(text)}"
        for key in ("level", "name", "group")
        if (text := getattr(structure, key))
    ]
    head.append('pbc="' + " ".join("T" if p else "F" for p in structure.pbc_3) + '"')
    return head


def _header_value(value: Any) -> str:
    if isinstance(value, str):
        return '"' + re.sub(r'(["\\])', r"\\\1", value).replace("\n", " ") + '"'
    if isinstance(value, np.ndarray):
        return '"' + " ".join(map(repr, np.asarray(value, float).ravel().tolist())) + '"'
    return str(value)
