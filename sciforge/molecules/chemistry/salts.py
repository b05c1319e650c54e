"""Which part of a salt or mixture is meant: counter-ions and solvents are known, and go.

The largest part is not always the drug (pamoates, lactobionates: datamol-io/datamol#201), and the
lists that come with RDKit hold few organic counter-ions.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rdkit import Chem

# Uncharged, without stereochemistry.
_ACIDS = """
OC=O CC(=O)O OC(=O)C(F)(F)F OC(=O)C(=O)O OC(=O)CC(=O)O OC(=O)CCC(=O)O OC(=O)C=CC(=O)O
OC(=O)CC(O)C(=O)O OC(=O)C(O)C(O)C(=O)O OC(=O)CC(O)(C(=O)O)CC(=O)O CC(O)C(=O)O OCC(=O)O
OCC(O)C(O)C(O)C(O)C(=O)O OC(=O)C1OC(O)C(O)C(O)C1O OCC(O)C(OC1OC(CO)C(O)C(O)C1O)C(O)C(O)C(=O)O
OC(=O)c1cc2ccccc2c(Cc2c(O)c(C(=O)O)cc3ccccc23)c1O OC(=O)c1ccccc1 OC(=O)c1ccccc1O
OC(=O)CNC(=O)c1ccccc1 OC(=O)C(O)c1ccccc1 OC(=O)CCCCC(=O)O CS(=O)(=O)O CCS(=O)(=O)O
OCCS(=O)(=O)O OS(=O)(=O)CCS(=O)(=O)O OS(=O)(=O)c1ccccc1 Cc1ccc(S(=O)(=O)O)cc1
CC1(C)C2CCC1(CS(=O)(=O)O)C(=O)C2 OS(=O)(=O)c1ccc2ccccc2c1 OS(=O)(=O)c1cccc2c(S(=O)(=O)O)cccc12
OC(=O)c1ccc2ccccc2c1O CCCCCCCCCCCCOS(=O)(=O)O CCCCCCCCCCCCCCCC(=O)O CCCCCCCCCCCCCCCCCC(=O)O
CCCCCCCCC=CCCCCCCCC(=O)O OC(=O)c1cc(=O)[nH]c(=O)[nH]1 O=C1NS(=O)(=O)c2ccccc12
OS(=O)(=O)NC1CCCCC1 OC(=O)c1cccnc1 OC(=O)C(N)CC(=O)O OC(=O)C(N)CCC(=O)O OC(=O)C1CCC(=O)N1
Oc1c([N+](=O)[O-])cc([N+](=O)[O-])cc1[N+](=O)[O-] COS(=O)(=O)O OS(=O)(=O)C(F)(F)F
"""
_BASES = """
CN CCN CNC CN(C)C CCNCC CCN(CC)CC NCCO OCCNCCO OCCN(CCO)CCO NC(CO)(CO)CO CC(C)(C)N NCCN
CNCC(O)C(O)C(O)C(O)CO C[N+](C)(C)CCO C1CNCCN1 C1COCCN1 c1c[nH]cn1 NCCCCC(N)C(=O)O
NC(=N)NCCCC(N)C(=O)O c1ccc(CNCCNCc2ccccc2)cc1 C1CCC(NC2CCCCC2)CC1 CCCC[N+](CCCC)(CCCC)CCCC
"""
_SOLVENTS = """
CO CCO CC(C)O CCCCO CC(C)=O CS(C)=O CN(C)C=O CC#N C1CCOC1 C1COCCO1 CCOC(C)=O COC(C)(C)C CCOCC
Cc1ccccc1 ClCCl ClC(Cl)Cl c1ccncc1 CCCCCC OCCO CC(O)CO
"""


@cache
def _known() -> frozenset[str]:
    from rdkit import Chem

    words = (_ACIDS + _BASES + _SOLVENTS).split()
    return frozenset(_uncharged(Chem.MolFromSmiles(word)) for word in words)


def _uncharged(mol: "Chem.Mol") -> str:
    """Return the SMILES of a part without charges, isotopes and stereochemistry."""
    from rdkit import Chem, rdBase
    from rdkit.Chem.MolStandardize import rdMolStandardize

    with rdBase.BlockLogs():
        plain = rdMolStandardize.Uncharger().uncharge(mol)
    Chem.RemoveStereochemistry(plain)
    for atom in plain.GetAtoms():
        atom.SetIsotope(0)
        atom.SetAtomMapNum(0)
    return Chem.MolToSmiles(plain)


def parent_part(mol: "Chem.Mol") -> "tuple[Chem.Mol, bool]":
    """Return the part of a salt or mixture that is meant, and whether that is in doubt.

    Counter-ions, solvents and parts without carbon are left out where others are there; of the
    rest the part with most heavy atoms is taken, of equals the heavier, then that with the last
    SMILES, whatever the order of the input. It is in doubt where the rest are several molecules.

    >>> from rdkit import Chem
    >>> part, doubtful = parent_part(Chem.MolFromSmiles("[Na+].CC(=O)[O-]"))
    >>> Chem.MolToSmiles(part), doubtful
    ('CC(=O)[O-]', False)
    """
    from rdkit import Chem

    parts = Chem.GetMolFrags(mol, asMols=True)
    if len(parts) < 2:
        return mol, False
    organic = [part for part in parts if any(a.GetAtomicNum() == 6 for a in part.GetAtoms())]
    candidates = [part for part in organic if _uncharged(part) not in _known()]
    candidates = candidates or organic or list(parts)
    best = max(candidates, key=lambda m: (m.GetNumHeavyAtoms(), _mass(m), Chem.MolToSmiles(m)))
    return best, len({_uncharged(part) for part in candidates}) > 1


def _mass(mol: "Chem.Mol") -> float:
    return sum(atom.GetMass() for atom in mol.GetAtoms())
