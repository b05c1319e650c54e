"""A structure: atoms, perhaps a cell, perhaps labels; what every reader gives and every labeller
takes.

Units everywhere in this domain: angstrom, electronvolt, eV/angstrom, eV/angstrom^3.
Legend: N atoms, E edges, 3 x y z, 6 Voigt components xx yy zz yz xz xy (ASE's order).
"""

from dataclasses import dataclass, field, replace

import numpy as np

from sciforge.errors import DataError

# A separation below this is no chemistry but a broken file (H2+ at its repulsive wall is 0.4
# angstrom).
OVERLAP_A = 0.2
HEAVIEST = 118


def _empty_cell() -> np.ndarray:
    return np.zeros((3, 3))


@dataclass(frozen=True, eq=False)
class Structure:
    """Atoms with optional labels; a label that is not there is None.

    Args:
        numbers_N: atomic numbers.
        pos_A_N3: positions.
        cell_A_33: lattice vectors as rows; zeros for a molecule.
        pbc_3: along which lattice vectors the structure repeats.
        energy_eV: total energy.
        forces_eV_A_N3: forces.
        stress_eV_A3_6: stress in ASE's order and sign, sigma = (1/V) dE/d(strain), so that
            compression is negative.
        charge: total charge in units of e.
        spin: multiplicity, 2S + 1.
        level: level of theory of the labels, e.g. `gfn2-xtb`.
        name: where it comes from, for messages.
        group: what must not be torn apart by a split (a molecule, a block of a trajectory); "" lets
            the splitter decide.
    """

    numbers_N: np.ndarray
    pos_A_N3: np.ndarray
    cell_A_33: np.ndarray = field(default_factory=_empty_cell)
    pbc_3: np.ndarray = field(default_factory=lambda: np.zeros(3, bool))
    energy_eV: float | None = None
    forces_eV_A_N3: np.ndarray | None = None
    stress_eV_A3_6: np.ndarray | None = None
    charge: int = 0
    spin: int = 1
    level: str = ""
    name: str = ""
    group: str = ""

    def __len__(self) -> int:
        return len(self.numbers_N)

    @property
    def volume_A3(self) -> float:
        """Volume of the cell; 0 for a molecule."""
        return float(abs(np.linalg.det(self.cell_A_33)))

    def moved(self, pos_A_N3: np.ndarray) -> "Structure":
        """Return the same atoms elsewhere, without labels."""
        return replace(
            self, pos_A_N3=pos_A_N3, energy_eV=None, forces_eV_A_N3=None, stress_eV_A3_6=None
        )


def require_physical(structure: Structure) -> None:
    """Raise DataError where a structure cannot be one: no atoms, NaN, unknown element, a flat cell,
    stress of a molecule.

    Overlapping atoms need a neighbour list to see and are refused there
    (`neighbours.require_apart`).
    """
    where = structure.name or None
    numbers, pos = structure.numbers_N, structure.pos_A_N3
    if len(numbers) == 0:
        raise DataError("a structure without atoms; leave it out", where)
    if pos.shape != (len(numbers), 3):
        raise DataError(
            f"{len(numbers)} atoms but positions of shape {pos.shape}; correct the file", where
        )
    if numbers.min() < 1 or numbers.max() > HEAVIEST:
        bad = numbers[(numbers < 1) | (numbers > HEAVIEST)][0]
        raise DataError(f"no element has the atomic number {bad}; correct the file", where)
    if not np.isfinite(pos).all():
        atom = int(np.argmin(np.isfinite(pos).all(1)))
        raise DataError(f"atom {atom + 1} has no finite position; correct the file", where)
    _require_cell(structure, where)
    for name, value in (("energy", structure.energy_eV), ("forces", structure.forces_eV_A_N3)):
        if value is not None and not np.isfinite(value).all():
            raise DataError(
                f"the {name} are not finite; leave them out or compute them again", where
            )
    if structure.forces_eV_A_N3 is not None and structure.forces_eV_A_N3.shape != pos.shape:
        shape = structure.forces_eV_A_N3.shape
        raise DataError(
            f"{len(numbers)} atoms but forces of shape {shape}; correct the file", where
        )
    if structure.spin < 1:
        raise DataError(f"spin multiplicity {structure.spin}; it is 2S + 1, at least 1", where)


def _require_cell(structure: Structure, where: str | None) -> None:
    repeating = structure.cell_A_33[structure.pbc_3]
    if not np.isfinite(structure.cell_A_33).all():
        raise DataError("the cell is not finite; correct the file", where)
    if len(repeating):
        spanned = np.sqrt(max(np.linalg.det(repeating @ repeating.T), 0))
        if spanned < 1e-3 * np.prod(np.linalg.norm(repeating, axis=1)) or spanned == 0:
            raise DataError(
                "periodic along a lattice vector that is zero or lies in the plane of the others",
                where,
            )
    if structure.stress_eV_A3_6 is not None:
        if not structure.pbc_3.all():
            raise DataError(
                "stress of a structure that is not periodic in three directions; leave it out",
                where,
            )
        if (
            structure.stress_eV_A3_6.shape != (6,)
            or not np.isfinite(structure.stress_eV_A3_6).all()
        ):
            raise DataError("the stress must be six finite numbers; correct the file", where)


def formula(numbers_N: np.ndarray) -> str:
    """Return the formula in Hill's order.

    >>> formula(np.array([8, 1, 6, 1, 1, 1]))
    'CH4O'
    """
    from ase.symbols import Symbols

    return Symbols(np.asarray(numbers_N, int)).get_chemical_formula("hill")
