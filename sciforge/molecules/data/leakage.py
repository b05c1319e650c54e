"""Molecules that must not be met again: the test sets that a pretraining set leaves out.

Two molecules are the same when the first 14 letters of their InChIKeys are (connectivity, so
stereoisomers, isotopes, mobile hydrogens and protonation do not matter). InChI costs a millisecond,
so it is asked only where the heavy atoms agree in element and degree, which InChI never changes.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciforge.errors import DataError
from sciforge.molecules.chemistry.descriptors import connectivity_key
from sciforge.molecules.chemistry.graph import Graph
from sciforge.molecules.chemistry.valence import TYPES
from sciforge.molecules.data.readers import TABLES, Part, kind_of, parts_of, read_part

if TYPE_CHECKING:
    from rdkit import Chem


@dataclass(frozen=True)
class KnownMolecules:
    """Keys of molecules and the skeletons that they have."""

    keys: frozenset[str]
    skeletons: frozenset[str]

    def holds(self, graph: Graph, mol: "Chem.Mol") -> bool:
        """Return whether a molecule is among them."""
        return (
            bool(self.keys)
            and skeleton(graph) in self.skeletons
            and connectivity_key(mol) in self.keys
        )


def skeleton(graph: Graph) -> str:
    """Return the sorted elements and degrees of the heavy atoms: equal for equal InChIKeys.

    >>> from sciforge.molecules.chemistry.graph import graph_of_mol, mol_of_smiles
    >>> graphs = [graph_of_mol(mol_of_smiles(smiles)) for smiles in ("CC(=O)[O-]", "CC(=O)O")]
    >>> skeleton(graphs[0]) == skeleton(graphs[1])
    True
    """
    degree_N = np.bincount(graph.pair_M2.ravel(), minlength=len(graph)).tolist()
    atoms = zip((TYPES[kind].symbol for kind in graph.atom_N.tolist()), degree_N, strict=True)
    return " ".join(sorted(f"{symbol}{degree}" for symbol, degree in atoms))


@lru_cache(2)
def known_molecules(files: tuple[Path, ...], smiles_column: str) -> KnownMolecules:
    """Return the molecules of files, every component of a mixture by itself; unreadable rows are no
    molecules.

    The column of a table is `smiles_column`, else the first that looks like one (smiles, SMILES,
    mol).

    Raises:
        DataError: a file is unreadable or a table has no column of SMILES.
    """
    from rdkit import Chem

    keys, skeletons = set(), set()
    for file in files:
        column = _smiles_column(Path(file), smiles_column)
        whole = Part(Path(file), 0, max(part.stop for part in parts_of(file)))
        for entry in read_part(whole, column, ()):
            try:
                mol = entry.mol()
            except DataError:
                continue
            for part in Chem.GetMolFrags(mol, asMols=True):
                keys.add(connectivity_key(part))
                skeletons.add(_skeleton_of_mol(part))
    return KnownMolecules(frozenset(keys), frozenset(skeletons))


def _skeleton_of_mol(mol: "Chem.Mol") -> str:
    return " ".join(sorted(f"{atom.GetSymbol()}{atom.GetDegree()}" for atom in mol.GetAtoms()))


def _smiles_column(file: Path, wanted: str) -> str:
    if kind_of(file) not in TABLES:
        return wanted
    for name in dict.fromkeys((wanted, "smiles", "SMILES", "mol")):
        try:
            next(read_part(Part(file, 0, 1), name, ()), None)
        except DataError:
            continue
        return name
    next(read_part(Part(file, 0, 1), wanted, ()), None)
    return wanted
