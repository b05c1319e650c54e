"""Geometries of molecules to be labelled: conformers, thermal motion about them, and a look at the
repulsive walls.

The thermal motion is the classical Boltzmann distribution of a harmonic well: mode by mode of the
Hessian H, a normal displacement of variance kT / k. Configurations of a classical system do not
depend on the masses, so none enter. H is that of the MMFF94 force field by central differences:
wrong by some ten percent for stiff modes, which is enough to put the labels where molecules are,
and 1000 times cheaper than quantum chemistry.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sciforge.errors import DataError
from sciforge.structures.structure import Structure

BOLTZMANN_EV_K = 8.617333262e-5
KCAL_MOL_EV = 0.0433641
HESSIAN_STEP_A = 0.005
# Torsions of methyl groups have less than 0.3 eV/A^2; straight-line motion along them stretches the
# bonds beyond it.
SOFTEST_EV_A2 = 0.5
# standard deviation of a coordinate; above 0.15 A most structures are torn apart
WILD_A = (0.03, 0.15)
# of the length of a bond; below 0.75 lie forces above 100 eV/A, above 1.6 is a broken bond
STRETCH = (0.75, 1.6)


@dataclass(frozen=True)
class Well:
    """A minimum of the force field: what thermal motion is drawn from.

    Args:
        pos_A_N3: the minimum.
        stiffness_eV_A2_M: eigenvalues of the Hessian without translation and rotation, softest
            first.
        modes_MN3: the unit vectors that belong to them.
    """

    pos_A_N3: np.ndarray
    stiffness_eV_A2_M: np.ndarray
    modes_MN3: np.ndarray

    def thermal(self, temperature_K: float, random: np.random.Generator) -> np.ndarray:
        """Return positions [N, 3] drawn at a temperature, modes softer than 0.5 eV/A^2 as if
        they had that.
        """
        spread = np.sqrt(
            BOLTZMANN_EV_K * temperature_K / np.maximum(self.stiffness_eV_A2_M, SOFTEST_EV_A2)
        )
        return self.pos_A_N3 + np.tensordot(
            spread * random.standard_normal(len(spread)), self.modes_MN3, 1
        )


def molecule(smiles: str) -> Any:
    """Return an RDKit molecule with explicit hydrogens; raises DataError where the SMILES is
    none.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or not mol.GetNumAtoms():
        raise DataError(f"{smiles!r} is no SMILES of a molecule; correct it")
    return Chem.AddHs(mol)


def skeleton(mol: Any) -> str:
    """Return the first block of the InChIKey: the molecule whatever its stereochemistry, isotopes
    or mobile hydrogens.

    >>> skeleton(molecule("CCO"))
    'LFQSCWFLJHTTHZ'
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        key = Chem.MolToInchiKey(Chem.RemoveHs(mol))
    return key.partition("-")[0] or Chem.MolToSmiles(Chem.RemoveHs(mol))


def charge_and_spin(mol: Any) -> tuple[int, int]:
    """Return the sum of the formal charges and the multiplicity with all radical electrons
    parallel.

    >>> charge_and_spin(molecule("CC(=O)[O-]")), charge_and_spin(molecule("[CH3]"))
    ((-1, 1), (0, 2))
    """
    radicals = sum(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
    return sum(atom.GetFormalCharge() for atom in mol.GetAtoms()), 1 + radicals


def find_wells(mol: Any, conformers: int, seed: int) -> list[Well]:
    """Return up to so many distinct minima of MMFF94 (UFF where it lacks parameters), starting from
    ETKDG.

    Raises:
        DataError: no three-dimensional structure is found.
    """
    from rdkit import rdBase
    from rdkit.Chem import AllChem

    parameters = AllChem.ETKDGv3()
    parameters.randomSeed, parameters.pruneRmsThresh, parameters.numThreads = seed, 0.1, 1
    with rdBase.BlockLogs():
        found = list(AllChem.EmbedMultipleConfs(mol, conformers, parameters))
        wells = []
        for conformer in found:
            field = _force_field(mol, conformer)
            for _ in range(10):  # of 500 steps each; RDKit returns 0 when converged
                if not field.Minimize(500, 1e-6, 1e-8):
                    break
            wells.append(_well(field, np.array(mol.GetConformer(conformer).GetPositions())))
    if not wells:
        raise DataError("no three-dimensional structure found; check the SMILES")
    return wells


def _force_field(mol: Any, conformer: int) -> Any:
    from rdkit.Chem import AllChem

    if AllChem.MMFFHasAllMoleculeParams(mol):
        return AllChem.MMFFGetMoleculeForceField(
            mol, AllChem.MMFFGetMoleculeProperties(mol), confId=conformer
        )
    if AllChem.UFFHasAllMoleculeParams(mol):
        return AllChem.UFFGetMoleculeForceField(mol, confId=conformer)
    raise DataError("neither MMFF94 nor UFF has parameters for it; sample it by other means")


def _well(field: Any, pos_A_N3: np.ndarray) -> Well:
    flat = pos_A_N3.ravel()
    hessian = np.empty((flat.size, flat.size))
    for coordinate in range(flat.size):
        rows = []
        for step in (HESSIAN_STEP_A, -HESSIAN_STEP_A):
            moved = flat.copy()
            moved[coordinate] += step
            # RDKit's gradient uses the distances that the last energy left behind
            field.CalcEnergy(moved.tolist())
            rows.append(np.array(field.CalcGrad(moved.tolist())))
        hessian[coordinate] = (rows[0] - rows[1]) * (KCAL_MOL_EV / (2 * HESSIAN_STEP_A))
    inner = internal_space(pos_A_N3)
    stiffness, vectors = np.linalg.eigh(inner.T @ (hessian + hessian.T) / 2 @ inner)
    modes = (inner @ vectors).T
    # the sign of an eigenvector is free: fix it, so that it does not hang on the linear algebra
    # library
    modes *= np.sign(modes[np.arange(len(modes)), np.abs(modes).argmax(1)])[:, None]
    return Well(pos_A_N3, stiffness, modes.reshape(-1, *pos_A_N3.shape))


def internal_space(pos_A_N3: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis [3N, M] of the displacements that neither move nor turn the
    whole.

    >>> internal_space(np.array([[0.0, 0, 0], [0, 0, 1]])).shape
    (6, 1)
    """
    centred = pos_A_N3 - pos_A_N3.mean(0)
    rigid = [np.tile(axis, (len(centred), 1)).ravel() for axis in np.eye(3)]
    rigid += [np.cross(axis, centred).ravel() for axis in np.eye(3)]
    _, size, basis = np.linalg.svd(np.array(rigid))
    return basis[int((size > 1e-4 * size[0]).sum()) :].T


def stretched(mol: Any, pos_A_N3: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the positions with one bond, of no ring, made 0.75 to 1.6 times as long, each side
    moved as a whole.
    """
    bonds = [bond for bond in mol.GetBonds() if not bond.IsInRing()]
    if not bonds:
        return pos_A_N3
    bond = bonds[random.integers(len(bonds))]
    first, second = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
    side, todo = {second}, [second]
    while todo:
        for atom in mol.GetAtomWithIdx(todo.pop()).GetNeighbors():
            if (index := atom.GetIdx()) != first and index not in side:
                side.add(index)
                todo.append(index)
    moved = pos_A_N3.copy()
    moved[sorted(side)] += (random.uniform(*STRETCH) - 1) * (pos_A_N3[second] - pos_A_N3[first])
    return moved


def dimer(
    first: Structure, second: Structure, closest_A: float, random: np.random.Generator
) -> Structure:
    """Return two molecules in one structure, turned at random, their closest atoms `closest_A`
    apart.
    """
    turned = [part.pos_A_N3 @ _rotation(random).T for part in (first, second)]
    centred = [pos - pos.mean(0) for pos in turned]
    away = random.standard_normal(3)
    away /= np.linalg.norm(away)

    def gap(shift: float) -> float:
        return float(
            np.linalg.norm(centred[0][:, None] - centred[1][None] - shift * away, axis=2).min()
        )

    # from afar inwards: the first contact is the one on the outside
    near, far = 0.0, sum(np.linalg.norm(pos, axis=1).max() for pos in centred) + closest_A
    for shift in np.arange(far, 0, -0.05):
        if gap(shift) < closest_A:
            near = shift
            break
        far = shift
    for _ in range(40):
        middle = (near + far) / 2
        near, far = (middle, far) if gap(middle) < closest_A else (near, middle)
    return Structure(
        np.concatenate([first.numbers_N, second.numbers_N]),
        np.concatenate([centred[0], centred[1] + far * away]),
        charge=first.charge + second.charge,
        spin=first.spin + second.spin - 1,
        name=f"{first.name} with {second.name}",
        group=".".join(sorted((first.group, second.group))),
    )


def _rotation(random: np.random.Generator) -> np.ndarray:
    """A uniformly random rotation, from a unit quaternion (Shoemake 1992)."""
    w, x, y, z = (q := random.standard_normal(4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
