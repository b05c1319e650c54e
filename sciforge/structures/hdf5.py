"""HDF5 of SPICE (a group a molecule, units in attributes) and of ANI (a group a formula)."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.errors import DataError, MissingExtra, SciforgeError
from sciforge.structures.file_labels import KNOWN, Keys, Labels
from sciforge.structures.structure import Structure
from sciforge.structures.units import Units, unit_factor

POSITIONS = ("conformations", "coordinates", "coord", "positions")
SPECIES = ("atomic_numbers", "species", "numbers", "atNUM")


def read_hdf5(path: Path, labels: Labels) -> Iterator[Structure | DataError]:
    """Yield the structures of every group that has positions, in the order of the names.

    SPICE: `conformations`, `dft_total_energy`, `dft_total_gradient` (forces are its negative),
    `smiles`; where `atomic_numbers` are missing, they come from the atom maps of the SMILES. ANI:
    `coordinates`, `species` or `atomic_numbers`, energies and forces under any usual key or one
    that ends in `.energy` or `.forces`. Units in the datasets' attributes win over the caller's.

    Raises:
        DataError: damaged or cut off, no elements, or several energies to choose from.
        MissingExtra: h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingExtra("h5py", "label") from None
    frame = 0
    try:
        with h5py.File(path, "r") as file:
            for group in _groups(file, h5py.Group):
                for structure in _read_group(group, labels, frame + 1):
                    frame += 1
                    yield structure
    except SciforgeError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        what = str(error).splitlines()[0][:160]
        raise DataError(
            f"not HDF5 as SPICE or ANI write it, or cut off ({what}); get the file again", path
        ) from None


def _groups(group: Any, kind: type) -> Iterator[Any]:
    if any(name in group for name in POSITIONS):
        yield group
        return
    for name in group:
        if isinstance(child := group[name], kind):
            yield from _groups(child, kind)


@lru_cache(1000)
def mapped_elements(smiles: str) -> tuple[tuple[int, ...] | None, int, int]:
    """Return the atomic numbers in the order of the atom maps (None without maps), the charge and
    the lowest multiplicity.

    >>> mapped_elements("[O-:2][H:1]")
    ((1, 8), -1, 1)
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles, sanitize=False)
    if mol is None:
        return None, 0, 1
    atoms = sorted(mol.GetAtoms(), key=lambda atom: atom.GetAtomMapNum())
    complete = [atom.GetAtomMapNum() for atom in atoms] == list(range(1, len(atoms) + 1))
    charge = sum(atom.GetFormalCharge() for atom in atoms)
    electrons = sum(atom.GetAtomicNum() for atom in atoms) - charge
    return (
        tuple(atom.GetAtomicNum() for atom in atoms) if complete else None,
        charge,
        1 + electrons % 2,
    )


def _read_group(group: Any, labels: Labels, first: int) -> Iterator[Structure | DataError]:
    place = next(name for name in POSITIONS if name in group)
    smiles = _text(group["smiles"]) if "smiles" in group else ""
    mapped, charge, spin = mapped_elements(smiles) if smiles else (None, 0, 1)
    label = group.name.strip("/") or labels.path.stem
    pos = _in_units(group[place], labels.units.length_A)
    pos = pos[None] if pos.ndim == 2 else pos
    key = next((name for name in SPECIES if name in group), None)
    if key is None and mapped is None:
        raise DataError(
            f"{label} has neither atomic_numbers nor a SMILES with atom maps; add them", labels.path
        )
    numbers = np.array(mapped, np.int64) if key is None else _elements(group[key])
    if numbers.shape[-1] != pos.shape[1]:
        yield DataError(
            f"{label} has {numbers.shape[-1]} elements for {pos.shape[1]} atoms; correct it",
            labels.path,
        )
        return
    held = _held(group, labels)
    # from here on everything is in our units and names
    plain = Labels(Keys(), Units(), labels.level, labels.path)
    for i in range(len(pos)):
        info: dict[str, Any] = {
            "charge": charge,
            "spin": spin,
            "name": f"{label}#{i + 1}",
            "group": smiles,
        }
        info |= {k: v.reshape(-1)[i if v.size > 1 else 0] for k, v in held.items() if k != "forces"}
        rows = numbers if numbers.ndim == 1 else numbers[i]
        real = rows > 0  # batches pad with -1 or 0
        arrays = {"forces": held["forces"].reshape(pos.shape)[i][real]} if "forces" in held else {}
        yield plain.structure(
            rows[real], pos[i][real], np.zeros((3, 3)), np.zeros(3, bool), info, arrays, first + i
        )


def _held(group: Any, labels: Labels) -> dict[str, np.ndarray]:
    """Return the labels of a group by kind, in eV and angstrom, a gradient turned into forces."""
    factors = {"energy": labels.units.energy_eV, "forces": labels.units.force_eV_A}
    held = {}
    for kind in ("energy", "forces", "charge", "spin"):
        if (name := _find(group, labels, kind)) is not None:
            held[kind] = _in_units(group[name], factors.get(kind, 1.0)) * (
                -1.0 if "gradient" in name else 1.0
            )
            if labels.chosen.setdefault(kind, name) != name:
                raise DataError(
                    f"{kind} under {labels.chosen[kind]!r} and {name!r}; choose one with"
                    f" --key-{kind}",
                    labels.path,
                )
    return held


def _in_units(dataset: Any, default: float) -> np.ndarray:
    unit = dataset.attrs.get("units", "")
    unit = unit.decode() if isinstance(unit, bytes) else str(unit)
    return np.asarray(dataset[...], np.float64) * (unit_factor(unit) if unit else default)


def _text(dataset: Any) -> str:
    value = np.asarray(dataset[...]).reshape(-1)[0]
    return value.decode() if isinstance(value, bytes) else str(value)


def _elements(dataset: Any) -> np.ndarray:
    from ase.data import atomic_numbers

    values = np.asarray(dataset[...])
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    words = [v.decode() if isinstance(v, bytes) else str(v) for v in values.reshape(-1)]
    return np.array([atomic_numbers[word] for word in words], np.int64).reshape(values.shape)


def _find(group: Any, labels: Labels, kind: str) -> str | None:
    """Return the dataset of a label, None where there is none; raises DataError where several
    could be it.
    """
    if asked := getattr(labels.keys, kind):
        return asked if asked in group else None
    known = (*KNOWN[kind], "energies") if kind == "energy" else KNOWN[kind]
    found = [name for name in group if name in known or name.endswith(f".{kind}")]
    if len(found) > 1:
        raise DataError(
            f"{kind} under {found[0]!r} and {found[1]!r}; choose one with --key-{kind}", labels.path
        )
    return found[0] if found else None
