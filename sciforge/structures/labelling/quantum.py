"""Energies and forces of structures by quantum chemistry: GFN-xTB (tblite) and density functionals
(pyscf).

Every structure is computed from scratch: a warm start would make a label depend on the structures
before it, and so on the number of workers and on where a killed run was resumed.
"""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np

from sciforge.errors import ConfigError, DataError, MissingExtra, did_you_mean
from sciforge.structures.neighbours import find_neighbours, require_apart
from sciforge.structures.structure import OVERLAP_A, Structure, require_physical

HARTREE_EV, BOHR_A = 27.211386245988, 0.529177210903  # CODATA 2018
XTB = {"gfn1-xtb": "GFN1-xTB", "gfn2-xtb": "GFN2-xTB"}
# rMD17's forces of ethanol come out within 0.00024 eV/A at this level, at half the time of pyscf's
# default of 3.
GRID_LEVEL = 2
Labels = tuple[float, np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class LevelOfTheory:
    """A way to label: `name` is recorded with every label; pyscf takes a functional and a basis,
    tblite neither.

    >>> LevelOfTheory.parse("PBE/def2-SVP")
    LevelOfTheory(name='pbe/def2-svp', functional='pbe', basis='def2-svp')
    """

    name: str
    functional: str = ""
    basis: str = ""

    @classmethod
    def parse(cls, method: str) -> "LevelOfTheory":
        """Read `gfn2-xtb` or `functional/basis`; raises ConfigError for neither, MissingExtra
        without the package.
        """
        name = method.strip().lower()
        functional, slash, basis = name.partition("/")
        if not slash and name not in XTB:
            hint = did_you_mean(name, [*XTB, "pbe/def2-svp"])
            raise ConfigError(
                f"method {method!r} is neither of {', '.join(XTB)} nor functional/basis; {hint}"
            )
        package = "pyscf" if slash else "tblite"
        if find_spec(package) is None:
            raise MissingExtra(package, "label")
        if slash:
            _require_known(functional, basis)
        return cls(name, functional, basis) if slash else cls(name)


def _require_known(functional: str, basis: str) -> None:
    from pyscf.dft import libxc
    from pyscf.gto.basis import load

    try:
        libxc.parse_xc(functional)
    except (KeyError, ValueError):
        raise ConfigError(
            f"pyscf knows no functional {functional!r}; try pbe, r2scan, b3lyp or wb97x"
        ) from None
    try:
        with warnings.catch_warnings(action="ignore"):
            load(basis, "H")
    except Exception:  # pyscf raises a different error for each way of not being a basis
        raise ConfigError(f"pyscf knows no basis {basis!r}; try def2-svp or def2-tzvp") from None


def single_point(structure: Structure, level: LevelOfTheory) -> Structure:
    """Return the structure with energy (eV), forces (eV/A), with tblite stress (eV/A^3) of a 3D
    cell, and the level.

    Raises:
        DataError: no structure can look like this, or the method cannot treat it, or did not
            converge.
    """
    require_physical(structure)
    place = structure.pos_A_N3, structure.cell_A_33, structure.pbc_3
    require_apart(structure, find_neighbours(*place, 2 * OVERLAP_A))
    compute = _density_functional if level.functional else _tight_binding
    energy, forces, stress = compute(structure, level)
    if not (math.isfinite(energy) and np.isfinite(forces).all()):
        raise DataError(
            f"{level.name} gave an energy or force that is not finite", structure.name or None
        )
    return replace(
        structure, energy_eV=energy, forces_eV_A_N3=forces, stress_eV_A3_6=stress, level=level.name
    )


def _tight_binding(structure: Structure, level: LevelOfTheory) -> Labels:
    """GFN-xTB; a periodic cell is seen at the Gamma point only, so a small one needs repeating
    first.
    """
    from tblite.interface import Calculator

    cell = (
        {"lattice": structure.cell_A_33 / BOHR_A, "periodic": structure.pbc_3}
        if structure.pbc_3.any()
        else {}
    )
    calculator = Calculator(
        XTB[level.name],
        structure.numbers_N,
        structure.pos_A_N3 / BOHR_A,
        charge=structure.charge,
        uhf=structure.spin - 1,
        **cell,
    )
    calculator.set("verbosity", 0)
    result = calculator.singlepoint()
    stress = None
    if structure.pbc_3.all():  # tblite's virial is dE/d(strain): the same sign as ASE's stress
        sigma = result.get("virial") * HARTREE_EV / structure.volume_A3
        stress = sigma[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return (
        float(result.get("energy")) * HARTREE_EV,
        -result.get("gradient") * HARTREE_EV / BOHR_A,
        stress,
    )


def _density_functional(structure: Structure, level: LevelOfTheory) -> Labels:
    """Kohn-Sham with density fitting, unrestricted where the spin is not 1."""
    from pyscf import dft, gto, lib

    if structure.pbc_3.any():
        raise DataError(
            "functional/basis labels molecules only; use gfn2-xtb for a cell",
            structure.name or None,
        )
    lib.num_threads(1)
    atoms = list(zip(structure.numbers_N.tolist(), structure.pos_A_N3 / BOHR_A, strict=True))
    molecule = gto.M(
        atom=atoms,
        unit="Bohr",
        basis=level.basis,
        ecp=_core_potentials(structure.numbers_N, level.basis),
        charge=structure.charge,
        spin=structure.spin - 1,
        verbose=0,
    )
    field_of = (dft.RKS if structure.spin == 1 else dft.UKS)(
        molecule, xc=level.functional
    ).density_fit()
    field_of.grids.level = GRID_LEVEL
    energy = field_of.kernel()
    # atoms and broken bonds oscillate; the second-order solver is slower and surer
    if not field_of.converged:
        field_of = field_of.newton()
        energy = field_of.kernel()
    if not field_of.converged:
        raise DataError(f"{level.name} did not converge", structure.name or None)
    gradient = field_of.nuc_grad_method()
    # Without the response of the grid the forces add up to 3 meV/A and are not the slope of the
    # energy.
    gradient.grid_response = True
    return float(energy) * HARTREE_EV, -np.asarray(gradient.kernel()) * HARTREE_EV / BOHR_A, None


def _core_potentials(numbers_N: np.ndarray, basis: str) -> dict[str, str]:
    """Return the elements whose basis is made for an effective core: pyscf leaves it out unless
    asked, silently.
    """
    from pyscf.data.elements import ELEMENTS
    from pyscf.gto.basis import load_ecp

    return {ELEMENTS[z]: basis for z in set(numbers_N.tolist()) if load_ecp(basis, ELEMENTS[z])}


def isolated_atoms(elements: Iterable[int], method: str = "gfn2-xtb") -> dict[int, float]:
    """Return the energy in eV of single atoms in their ground-state multiplicity.

    GFN-xTB has no spin polarisation: it fills the unpaired electrons but gains no exchange energy
    from them, so its atoms lie above those of a spin-polarised method by up to 3 eV (nitrogen).
    They are consistent with its own labels of molecules, but atomisation energies from them are too
    large.

    Raises:
        ConfigError: no such method.
        MissingExtra: the package for it is not installed.
        DataError: the method cannot treat an element.
    """
    from ase.data import ground_state_magnetic_moments as unpaired

    level = LevelOfTheory.parse(method)

    def energy_eV(z: int) -> float:
        atom = Structure(
            np.array([z]),
            np.zeros((1, 3)),
            spin=round(unpaired[z]) + 1,
            name=f"the isolated atom {z}",
        )
        return single_point(atom, level).energy_eV

    return {z: energy_eV(z) for z in sorted(set(elements))}
