"""Kekulised graphs: SMILES to arrays and back, exactly.

Aromatic bond types lose the hydrogen of [nH] (98.8 % of such molecules cannot be rebuilt); element,
charge and bond order 1, 2, 3 lose nothing but stereochemistry and isotopes. Aromaticity is
perceived by RDKit at the end only.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sciforge.errors import DataError
from sciforge.molecules.chemistry.valence import TYPES, index_of

if TYPE_CHECKING:
    from rdkit import Chem

MAX_ATOMS = 255


@dataclass(frozen=True)
class Graph:
    """A kekulised molecule of N heavy atoms and M bonds, hydrogens implicit.

    Args:
        atom_N: places in valence.TYPES, uint8; in the order of the canonical SMILES.
        pair_M2: the two atoms of each bond, uint8, the earlier one first.
        order_M: bond orders 1 to 3, uint8.
    """

    atom_N: np.ndarray
    pair_M2: np.ndarray
    order_M: np.ndarray

    def __len__(self) -> int:
        return len(self.atom_N)


def graph_of_mol(mol: "Chem.Mol") -> Graph:
    """Return the kekulised graph of a sanitised RDKit molecule, its atoms in the molecule's order.

    Raises:
        DataError: an atom outside the valence table, a radical, an isotope or dummy atom, several
            components, too many atoms.
    """
    from rdkit import Chem

    atoms = []
    for atom in mol.GetAtoms():
        atoms.append(index_of(atom.GetSymbol(), atom.GetFormalCharge()))
        if atom.GetNumRadicalElectrons():
            raise DataError(
                f"atom {atom.GetIdx()} ({atom.GetSymbol()}) is a radical; molecules here have none"
            )
        if atom.GetIsotope():
            raise DataError(
                f"atom {atom.GetIdx()} is the isotope {atom.GetIsotope()}{atom.GetSymbol()}; remove"
                " the mass"
            )
        if atoms[-1] is None:
            what = (
                "a dummy atom"
                if atom.GetAtomicNum() == 0
                else f"{atom.GetSymbol()}{atom.GetFormalCharge():+d}"
            )
            raise DataError(
                f"atom {atom.GetIdx()} is {what}, which the valence table does not hold; leave"
                " it out"
            )
    if not 1 <= len(atoms) <= MAX_ATOMS:
        raise DataError(f"{len(atoms)} heavy atoms; 1 to {MAX_ATOMS} can be stored")
    if len(Chem.GetMolFrags(mol)) > 1:
        raise DataError(
            "several components (a salt or mixture); keep one, with --components largest for"
            " instance"
        )
    kekulised = Chem.Mol(mol)
    Chem.Kekulize(kekulised, clearAromaticFlags=True)
    bonds = []
    for bond in kekulised.GetBonds():
        order = int(bond.GetBondType())  # RDKit numbers single, double and triple bonds 1, 2 and 3
        if order not in (1, 2, 3):
            raise DataError(
                f"a bond of the type {bond.GetBondType()}; single, double and triple bonds can be"
                " stored"
            )
        bonds.append((*sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())), order))
    rows = np.array(sorted(bonds), np.uint8).reshape(-1, 3)
    return Graph(np.array(atoms, np.uint8), rows[:, :2], rows[:, 2])


def mol_of_smiles(smiles: str) -> "Chem.Mol":
    """Return a sanitised molecule; raises DataError with RDKit's own words where it cannot be read.

    >>> mol_of_smiles("c1ccccc1").GetNumAtoms()
    6
    """
    from rdkit import Chem, rdBase

    if not smiles.strip():
        raise DataError("no SMILES here; give one")
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        if mol is not None and mol.GetNumAtoms():
            return mol
        raw = Chem.MolFromSmiles(smiles, sanitize=False)
        problems = Chem.DetectChemistryProblems(raw) if raw is not None else ()
    why = problems[0].Message() if problems else "it cannot be parsed"
    raise DataError(f"{smiles!r} is no valid SMILES ({why}); correct it")


def canonical(mol: "Chem.Mol") -> "tuple[str, Chem.Mol]":
    """Return the canonical SMILES without stereochemistry and atom maps, and the molecule with its
    atoms in that order.

    >>> canonical(mol_of_smiles("OC(=O)C"))[0]
    'CC(=O)O'
    """
    from rdkit import Chem

    plain = Chem.Mol(mol)
    Chem.RemoveStereochemistry(plain)
    for atom in plain.GetAtoms():
        atom.SetAtomMapNum(0)
    smiles = Chem.MolToSmiles(plain)
    order = plain.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"]
    return smiles, Chem.RenumberAtoms(plain, list(order))


def mol_of_graph(graph: Graph) -> "Chem.Mol":
    """Return the sanitised RDKit molecule of a kekulised graph, hydrogens implicit, aromaticity
    perceived.

    Raises:
        DataError: RDKit refuses the graph, which a graph that keeps the valence rules never meets.
    """
    from rdkit import Chem, rdBase

    mol = Chem.RWMol()
    for kind in graph.atom_N.tolist():
        atom = Chem.Atom(TYPES[kind].symbol)
        atom.SetFormalCharge(TYPES[kind].charge)
        mol.AddAtom(atom)
    for (i, j), order in zip(graph.pair_M2.tolist(), graph.order_M.tolist(), strict=True):
        mol.AddBond(i, j, Chem.BondType.values[order])
    with rdBase.BlockLogs():
        try:
            Chem.SanitizeMol(mol)
        except Chem.MolSanitizeException as error:
            raise DataError(f"the graph breaks the valence rules ({error})") from None
    return mol.GetMol()


def smiles_of_graph(graph: Graph) -> str:
    """Return the canonical SMILES of a kekulised graph.

    >>> smiles_of_graph(graph_of_mol(mol_of_smiles("c1cc[nH]c1")))
    'c1cc[nH]c1'
    """
    from rdkit import Chem

    return Chem.MolToSmiles(mol_of_graph(graph))
