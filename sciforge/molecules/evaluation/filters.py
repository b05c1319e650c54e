"""MOSES' filters of medicinal chemistry: no PAINS or MCF pattern, no ring of 8 or more, no charge,
C N S O F Cl Br only.

The MCF patterns are those of molsets 0.3.1 (metrics/mcf.csv; Copyright 2018 Insilico Medicine, Inc,
MIT licence). The PAINS patterns come with RDKit (Baell and Holloway, J. Med. Chem. 2010, as SMARTS
by R. Guha): the 480 of MOSES' own list. RDKit matches them without explicit hydrogens, 7 times
faster; of 3,183 molecules (MOSES test, DiGress' samples, Tox21) 3, all of them phenothiazines of
Tox21, pass here and not in MOSES.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rdkit import Chem
    from rdkit.Chem.FilterCatalog import FilterCatalog


ELEMENTS = frozenset({"C", "N", "S", "O", "F", "Cl", "Br", "H"})
LARGEST_RING = 7
MCF = (
    "[#6]=&!@[#6]-[#6]#[#7]",
    "[#6]=&!@[#6]-[#16](=[#8])=[#8]",
    "[#6]=&!@[#6&!H0]-&!@[#6](=[#8])-&!@[#7]",
    "[H]C([H])([#6])[F,Cl,Br,I]",
    "[#6]1-[#8]-[#6]-1",
    "[#6]-[#7]=[#6]=[#8]",
    "[#6&!H0]=[#8]",
    "[#6](=&!@[#7&!H0])-&!@[#6,#7,#8,#16]",
    "[#6]1-[#7]-[#6]-1",
    "[#6]~&!@[#7]~&!@[#7]~&!@[#6]",
    "[#7]=&!@[#7]",
    "[H][#6]-1=[#6]([H])-[#6]=[#6](-*)-[#8]-1",
    "[H][#6]-1=[#6]([H])-[#6]=[#6](-*)-[#16]-1",
    "[#17,#35,#53]-c(:*):[!#1!#6]:*",
    "[H][#7]([H])-[#6]-1=[#6]-[#6]=[#6]-[#6]=[#6]-1",
    "[#16]~[#16]",
    "[#7]~&!@[#7]~&!@[#7]",
    "[#7]-&!@[#6&!H0&!H1]-&!@[#7]",
    "[#6&!H0](-&!@[#8])-&!@[#8]",
    "[#35].[#35].[#35]",
    "[#17].[#17].[#17].[#17]",
    "[#9].[#9].[#9].[#9].[#9].[#9].[#9]",
)


@cache
def _patterns() -> "tuple[list[Chem.Mol], FilterCatalog]":
    from rdkit import Chem
    from rdkit.Chem.FilterCatalog import FilterCatalog, FilterCatalogParams

    kinds = FilterCatalogParams()
    kinds.AddCatalog(FilterCatalogParams.FilterCatalogs.PAINS)
    return [Chem.MolFromSmarts(smarts) for smarts in MCF], FilterCatalog(kinds)


def passes(mol: "Chem.Mol") -> bool:
    """Return whether a sanitised molecule passes MOSES' filters.

    >>> from rdkit import Chem
    >>> words = ("CCOC(C)=O", "CC=O", "C1CCCCCCC1", "C[N+](C)(C)C", "CI")
    >>> [passes(Chem.MolFromSmiles(smiles)) for smiles in words]
    [True, False, False, False, False]
    """
    from rdkit import Chem

    if any(len(ring) > LARGEST_RING for ring in mol.GetRingInfo().AtomRings()):
        return False
    if any(atom.GetFormalCharge() or atom.GetSymbol() not in ELEMENTS for atom in mol.GetAtoms()):
        return False
    mcf, pains = _patterns()
    hydrogens = Chem.AddHs(mol)  # four of the MCF patterns name hydrogens
    return not any(hydrogens.HasSubstructMatch(pattern) for pattern in mcf) and not pains.HasMatch(
        mol
    )
