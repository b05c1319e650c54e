"""Labels by the names that files give them: found, never guessed between two, and turned to the
units of this domain.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.errors import DataError
from sciforge.structures.structure import Structure
from sciforge.structures.units import Units

KNOWN = {
    "energy": (
        (
            "energy",
            "REF_energy",
            "ref_energy",
            "Energy",
            "dft_energy",
            "DFT_energy",
            "dft_total_energy",
        )
        + ("total_energy", "TotEnergy", "energy_dft", "potential_energy")
    ),
    "forces": (
        (
            "forces",
            "force",
            "REF_forces",
            "ref_forces",
            "Forces",
            "dft_forces",
            "DFT_forces",
            "forces_dft",
        )
        + ("dft_total_gradient", "gradient", "gradients")
    ),
    "stress": (
        (
            "stress",
            "REF_stress",
            "ref_stress",
            "Stress",
            "dft_stress",
            "DFT_stress",
            "virial",
            "virials",
        )
        + ("REF_virial", "REF_virials", "ref_virial", "dft_virial", "DFT_virial")
    ),
    "charge": ("charge", "total_charge", "Charge"),
    "spin": ("spin", "multiplicity", "spin_multiplicity", "total_spin"),
}
PER_ATOM = {"pos", "positions", *KNOWN["forces"]}


@dataclass(frozen=True)
class Keys:
    """Names of the labels in a file; "" looks for the usual ones.

    Args:
        energy: total energy.
        forces: forces; a name with `gradient` in it is their negative.
        stress: stress; a name with `virial` in it is a virial.
        charge: total charge.
        spin: multiplicity, 2S + 1.
        group: what names the group of a frame.
    """

    energy: str = ""
    forces: str = ""
    stress: str = ""
    charge: str = ""
    spin: str = ""
    group: str = "group"


class Labels:
    """Turns what a frame holds into a Structure; remembers the keys, since one file may not change
    them midway.

    Args:
        keys: names asked for.
        units: of the file.
        level: level of theory of structures that name none.
        path: the file, for messages.
    """

    def __init__(self, keys: Keys, units: Units, level: str, path: Path) -> None:
        self.keys, self.units, self.level, self.path = keys, units, level, path
        self.chosen: dict[str, str] = {}
        self.ambiguous = False

    def in_units(self, units: Units) -> "Labels":
        """Return the same labels read in other units."""
        other = Labels(self.keys, units, self.level, self.path)
        other.chosen = self.chosen  # shared: what was found counts for both
        return other

    def wanted(self, name: str) -> bool:
        """Return whether a column of atoms is read at all."""
        return name in PER_ATOM or name == self.keys.forces

    def pick(self, kind: str, held: Mapping[str, Any]) -> str | None:
        """Return the key of a label, None where the frame has none.

        Raises:
            DataError: two keys could be it and differ, or an earlier frame had it under another.
        """
        asked = getattr(self.keys, kind)
        found = [asked] if asked else [k for k in KNOWN[kind] if k in held]
        found = [
            k for k in found if k in held and held[k] is not None and not isinstance(held[k], str)
        ]
        if not found:
            return None
        one = np.asarray(held[found[0]])
        before = self.chosen.setdefault(kind, found[0])
        other = next((k for k in found[1:] if not np.array_equal(held[k], one)), None)
        other = before if other is None and before not in found else other
        if other:
            self.ambiguous = True
            pair = f"{min(found[0], other)!r} and {max(found[0], other)!r}"
            raise DataError(f"{kind} under {pair}; choose one with --key-{kind}", self.path)
        return before

    def require_used(self) -> None:
        """Raise DataError where a key was asked for that no frame has."""
        for kind in ("energy", "forces", "stress", "charge", "spin"):
            if (asked := getattr(self.keys, kind)) and kind not in self.chosen:
                raise DataError(f"no frame has {asked!r}; correct --key-{kind}", self.path)

    def of_atoms(self, atoms: Any, frame: int) -> Structure:
        """Return an ASE Atoms as a Structure; the labels of its calculator are taken as they
        were stored.
        """
        results = (
            {}
            if atoms.calc is None
            else {k: v for k, v in atoms.calc.results.items() if v is not None}
        )
        arrays = {
            k: v
            for k, v in {**atoms.arrays, **results}.items()
            if self.wanted(k) and k != "positions"
        }
        info = {**atoms.info, **{k: v for k, v in results.items() if k not in arrays}}
        pos, pbc = np.array(atoms.positions, np.float64), np.array(atoms.pbc, bool)
        cell = np.array(atoms.cell.array, np.float64)
        return self.structure(
            np.array(atoms.numbers, np.int64), pos, cell, pbc, info, arrays, frame
        )

    def structure(
        self,
        numbers: np.ndarray,
        pos: np.ndarray,
        cell: np.ndarray,
        pbc: np.ndarray,
        info: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        frame: int,
    ) -> Structure:
        """Return a Structure; NaN in a label means that it is missing.

        Raises:
            DataError: an ambiguous key, a stress that is no symmetric tensor, or a charge that is
                no whole number.
        """
        units = self.units
        found = Structure(
            numbers,
            pos * units.length_A,
            cell * units.length_A,
            pbc,
            charge=self._whole("charge", info, 0),
            spin=self._whole("spin", info, 1),
            level=str(info.get("level") or self.level),
            group=self._group(info),
            name=str(info.get("name") or f"{self.path.name}#{frame}"),
        )
        energy = self._label("energy", info)
        forces = self._label("forces", arrays)
        labels: dict[str, Any] = {}
        if energy is not None:
            labels["energy_eV"] = float(energy.reshape(())) * units.energy_eV
        if forces is not None:
            sign = -1.0 if "gradient" in self.chosen["forces"] else 1.0
            labels["forces_eV_A_N3"] = forces * (sign * units.force_eV_A)
        if (stress := self._label("stress", info)) is not None:
            labels["stress_eV_A3_6"] = self._stress(stress, found.volume_A3)
        return replace(found, **labels) if labels else found

    def _group(self, info: Mapping[str, Any]) -> str:
        name = info.get(self.keys.group)
        return "" if name is None or name is False else str(name).strip()

    def _label(self, kind: str, held: Mapping[str, Any]) -> np.ndarray | None:
        key = self.pick(kind, held)
        if key is None:
            return None
        value = np.asarray(held[key], np.float64)
        return None if np.isnan(value).all() else value

    def _whole(self, kind: str, info: Mapping[str, Any], default: int) -> int:
        key = self.pick(kind, info)
        if key is None:
            return default
        value = float(np.asarray(info[key]).reshape(()))
        if value != round(value):
            raise DataError(f"{kind} {value} is not a whole number; correct it", self.path)
        return int(value)

    def _stress(self, value: np.ndarray, volume_A3: float) -> np.ndarray:
        """Return Voigt xx yy zz yz xz xy in ASE's sign, eV/angstrom^3, from six numbers or a
        symmetric 3x3.
        """
        key = self.chosen["stress"]
        if value.size == 9:
            full = value.reshape(3, 3)
            if np.abs(full - full.T).max() > 1e-4 * max(np.abs(full).max(), 1e-12):
                raise DataError(f"{key!r} is not symmetric; correct it, or leave it out", self.path)
            full = (full + full.T) / 2
            value = full[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        if value.size != 6:
            raise DataError(
                f"{key!r} has {value.size} numbers; a stress has 6 (xx yy zz yz xz xy) or 9",
                self.path,
            )
        if "virial" not in key.lower():
            return value.reshape(6) * self.units.stress_eV_A3
        if volume_A3 == 0:
            raise DataError(
                f"{key!r} but no cell to divide it by; give a cell, or leave it out", self.path
            )
        return value.reshape(6) * (-self.units.energy_eV / volume_A3)
