"""Structures as ase.Atoms."""

from typing import TYPE_CHECKING

from sciforge.structures.structure import Structure

if TYPE_CHECKING:
    from ase import Atoms


def as_atoms(structure: "Structure | Atoms") -> "Atoms":
    """Return a copy as ASE's atoms, without labels and calculator; charge and spin in `info`."""
    if not isinstance(structure, Structure):
        return structure.copy()
    from ase import Atoms

    return Atoms(
        numbers=structure.numbers_N,
        positions=structure.pos_A_N3,
        cell=structure.cell_A_33,
        pbc=structure.pbc_3,
        info={"charge": structure.charge, "spin": structure.spin},
    )


def labelled_atoms(structure: Structure) -> "Atoms":
    """Return ASE's atoms whose calculator holds the labels of a structure."""
    from ase.calculators.singlepoint import SinglePointCalculator

    labels = {
        "energy": structure.energy_eV,
        "forces": structure.forces_eV_A_N3,
        "stress": structure.stress_eV_A3_6,
    }
    atoms = as_atoms(structure)
    texts = {"level": structure.level, "name": structure.name, "group": structure.group}
    atoms.info |= {name: text for name, text in texts.items() if text}
    known = {name: value for name, value in labels.items() if value is not None}
    atoms.calc = SinglePointCalculator(atoms, **known)
    return atoms
