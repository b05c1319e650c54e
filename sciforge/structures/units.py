"""Units of files and of this domain (eV, angstrom, eV/angstrom, eV/angstrom^3), and a guard
against a wrong unit.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sciforge.errors import ConfigError, did_you_mean
from sciforge.structures.structure import Structure

ENERGY_NAMES = {
    "ev": "eV",
    "hartree": "hartree",
    "ha": "hartree",
    "eh": "hartree",
    "kcal/mol": "kcal/mol",
}
ENERGY_NAMES |= {"kj/mol": "kJ/mol", "ry": "Ry", "rydberg": "Ry", "mev": "meV"}
LENGTH_NAMES = {
    "angstrom": "angstrom",
    "a": "angstrom",
    "ang": "angstrom",
    "angstroms": "angstrom",
    "å": "angstrom",
}
LENGTH_NAMES |= {"bohr": "bohr", "a0": "bohr", "nm": "nm", "nanometer": "nm", "nanometers": "nm"}
STRESS_NAMES = {
    "ev/a^3": "eV/A^3",
    "ev/a3": "eV/A^3",
    "ev/angstrom^3": "eV/A^3",
    "gpa": "GPa",
    "kbar": "kbar",
}
STRESS_NAMES |= {"kb": "kbar"}
SIGNS = ("ase", "vasp")

# Total energies of free atoms, eV (exact to a percent for any all-electron method): enough to tell
# hartree from eV.
FREE_ATOM_EV = {
    1: -13.6,
    5: -670.0,
    6: -1029.0,
    7: -1485.0,
    8: -2042.0,
    9: -2713.0,
    14: -7874.0,
    15: -9285.0,
}
FREE_ATOM_EV |= {16: -10830.0, 17: -12520.0}
# eV/A; heated molecules and crystals lie near 1, kcal/mol/A misread near 25
FORCE_HIGH, FORCE_LOW = 15.0, 0.005
# shortest distance over the sum of covalent radii; near 1 for matter, 1.9 for bohr misread as
# angstrom
BOND_HIGH = 1.5


@dataclass(frozen=True)
class Units:
    """The units of a file; forces are energy per length, a virial is an energy.

    A stress is taken in Voigt order xx yy zz yz xz xy (or 3x3) where the format does not fix
    another. Its sign is `ase`: sigma = (1/V) dE/d(strain), positive under tension, or `vasp`: the
    opposite, positive under compression. A virial is always -V sigma(ase), the convention of QUIP,
    GAP and MACE: positive under compression.

    Args:
        energy: eV, hartree, kcal/mol, kJ/mol, Ry or meV.
        length: angstrom, bohr or nm.
        stress: eV/A^3, GPa or kbar; "" is the energy over the cubed length.
        stress_sign: ase or vasp.

    Raises:
        ConfigError: an unknown unit or sign.
    """

    energy: str = "eV"
    length: str = "angstrom"
    stress: str = ""
    stress_sign: str = "ase"

    def __post_init__(self) -> None:
        for name, known in (
            ("energy", ENERGY_NAMES),
            ("length", LENGTH_NAMES),
            ("stress", {**STRESS_NAMES, "": ""}),
        ):
            given = getattr(self, name)
            if given.lower() not in known:
                raise ConfigError(
                    f"no unit of {name} {given!r};"
                    f" {did_you_mean(given, set(known.values()) - {''})}"
                )
            object.__setattr__(self, name, known[given.lower()])
        if self.stress_sign not in SIGNS:
            raise ConfigError(f"no stress sign {self.stress_sign!r}; known: {', '.join(SIGNS)}")

    @classmethod
    def parse(cls, text: "str | Units") -> "Units":
        """Read units from words in any order; raises ConfigError for an unknown word or two units
        of one kind.

        >>> Units.parse("kcal/mol angstrom kbar vasp")
        Units(energy='kcal/mol', length='angstrom', stress='kbar', stress_sign='vasp')
        """
        if isinstance(text, Units):
            return text
        found: dict[str, str] = {}
        kinds = {"energy": ENERGY_NAMES, "length": LENGTH_NAMES, "stress": STRESS_NAMES}
        kinds["stress_sign"] = {sign: sign for sign in SIGNS}
        for word in text.replace(",", " ").split():
            kind = next((kind for kind, names in kinds.items() if word.lower() in names), None)
            if kind is None:
                known = {name for names in kinds.values() for name in names.values()}
                raise ConfigError(f"no unit {word!r} in {text!r}; {did_you_mean(word, known)}")
            if kind in found:
                raise ConfigError(f"two units of {kind} in {text!r}; give one")
            found[kind] = word
        return cls(**found)

    @cached_property
    def energy_eV(self) -> float:
        """One unit of energy in eV (CODATA, by ase.units)."""
        return energy_factor(self.energy)

    @cached_property
    def length_A(self) -> float:
        """One unit of length in angstrom."""
        return length_factor(self.length)

    @cached_property
    def force_eV_A(self) -> float:
        """One unit of force in eV/angstrom."""
        return self.energy_eV / self.length_A

    @cached_property
    def stress_eV_A3(self) -> float:
        """One unit of stress in eV/angstrom^3, its sign turned to ASE's."""
        from ase import units

        sizes = {
            "eV/A^3": 1.0,
            "GPa": units.GPa,
            "kbar": 0.1 * units.GPa,
            "": self.energy_eV / self.length_A**3,
        }
        return sizes[self.stress] * (1.0 if self.stress_sign == "ase" else -1.0)


def energy_factor(name: str) -> float:
    """Return one unit of energy in eV; raises ConfigError for an unknown one."""
    from ase import units

    sizes = {"eV": 1.0, "meV": 1e-3, "hartree": units.Hartree, "Ry": units.Rydberg}
    sizes |= {"kcal/mol": units.kcal / units.mol, "kJ/mol": units.kJ / units.mol}
    if name.lower() not in ENERGY_NAMES:
        raise ConfigError(f"no unit of energy {name!r}; {did_you_mean(name, sizes)}")
    return sizes[ENERGY_NAMES[name.lower()]]


def length_factor(name: str) -> float:
    """Return one unit of length in angstrom; raises ConfigError for an unknown one."""
    from ase import units

    sizes = {"angstrom": 1.0, "bohr": units.Bohr, "nm": 10.0}
    if name.lower() not in LENGTH_NAMES:
        raise ConfigError(f"no unit of length {name!r}; {did_you_mean(name, sizes)}")
    return sizes[LENGTH_NAMES[name.lower()]]


def unit_factor(text: str) -> float:
    """Return what a unit written in a file (`hartree/bohr`, `kJ/mol/nm`) is in eV and angstrom.

    >>> unit_factor("nanometers")
    10.0
    """
    energy = re.fullmatch(r"(k?[a-zA-Z]+(?:/mol)?)(?:/([a-zA-Z0]+))?", text.strip())
    if text.strip().lower() in LENGTH_NAMES:
        return length_factor(text.strip())
    if energy is None:
        raise ConfigError(f"no unit {text!r}; did you mean hartree/bohr, or eV/angstrom?")
    return energy_factor(energy[1]) / (length_factor(energy[2]) if energy[2] else 1.0)


class UnitGuard:
    """Collects what tells a wrong unit over many structures; `warnings` says it in one line
    each.
    """

    def __init__(self) -> None:
        self.squares, self.components = 0.0, 0
        self.energy_ratios: list[float] = []
        self.bond_ratios: list[float] = []

    def add(self, structure: Structure, bond_ratio: float | None = None) -> None:
        """Look at one structure; `bond_ratio` is its shortest distance over the sum of the
        covalent radii.
        """
        if structure.forces_eV_A_N3 is not None and len(structure) > 1:
            self.squares += float((structure.forces_eV_A_N3**2).sum())
            self.components += structure.forces_eV_A_N3.size
        if structure.energy_eV is not None and not structure.charge:
            free = [FREE_ATOM_EV.get(int(z)) for z in structure.numbers_N]
            if None not in free:
                self.energy_ratios.append(structure.energy_eV / sum(free))
        if bond_ratio is not None:
            self.bond_ratios.append(bond_ratio)

    def warnings(self) -> list[str]:
        """Return one line for each unit that looks wrong."""
        found = []
        if self.components:
            rms = (self.squares / self.components) ** 0.5
            if rms > FORCE_HIGH:
                found.append(
                    f"the forces are {rms:.3g} eV/angstrom RMS, usually near 1; are they in"
                    " kcal/mol?"
                )
            elif rms < FORCE_LOW:
                found.append(
                    f"the forces are {rms:.2g} eV/angstrom RMS, usually near 1; check the unit of"
                    " energy"
                )
        if self.energy_ratios:
            ratio = float(np.median(self.energy_ratios))
            for name in ("hartree", "kcal/mol", "kJ/mol", "Ry"):
                if abs(ratio * energy_factor(name) - 1) < 0.03:
                    found.append(
                        f"the energies are {ratio:.3g} of those of the free atoms in eV; are they"
                        f" in {name}?"
                    )
        if self.bond_ratios and (bond := float(np.median(self.bond_ratios))) > BOND_HIGH:
            found.append(
                f"the shortest distances are {bond:.2g} bond lengths; are the positions in bohr?"
            )
        return found


def suspect_units(structures: Iterable[Structure]) -> list[str]:
    """Return a line for each unit that looks wrong: forces, all-electron energies or distances
    off by a known factor.
    """
    from sciforge.structures.splits import nearest_bond

    guard = UnitGuard()
    for structure in structures:
        guard.add(structure, nearest_bond(structure))
    return guard.warnings()
