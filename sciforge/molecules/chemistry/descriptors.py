"""Numbers that RDKit computes from a molecule: descriptors, quick properties, fingerprints,
scaffolds.

Descriptors are what the encoder is pretrained to predict and what the classical baselines read; the
list is that of the installed RDKit, kept by name in every store, so that a store made by another
release is noticed and not misread.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from rdkit import Chem

PROPERTIES = ("logp", "tpsa", "qed", "size")
FINGERPRINT_BITS = 2048
# what chemists would ask first: size, polarity, hydrogen bonds, flexibility
CORE = (
    "MolLogP",
    "MolMR",
    "TPSA",
    "MolWt",
    "LabuteASA",
    "HeavyAtomCount",
    "NumHDonors",
    "NumHAcceptors",
    "NHOHCount",
    "NOCount",
    "NumHeteroatoms",
    "NumRotatableBonds",
    "RingCount",
    "FractionCSP3",
    "qed",
)
LARGEST = np.float32(1e30)


@cache
def descriptor_names() -> tuple[str, ...]:
    """Return the names of RDKit's two-dimensional descriptors, in its own order.

    >>> "MolLogP" in descriptor_names(), len(descriptor_names()) > 200
    (True, True)
    """
    from rdkit.Chem import Descriptors

    return tuple(name for name, _ in Descriptors._descList)


def core_first() -> tuple[list[int], int]:
    """Return an order of the descriptors with those of CORE first, and how many these are.

    >>> order, num = core_first()
    >>> num, len(order) == len(descriptor_names()), descriptor_names()[order[0]]
    (15, True, 'MolLogP')
    """
    names = descriptor_names()
    core = [names.index(name) for name in CORE]
    return core + [place for place in range(len(names)) if place not in core], len(core)


def descriptors(mol: "Chem.Mol") -> np.ndarray:
    """Return the descriptors of a sanitised molecule, float32 [D]; NaN where one cannot be
    computed.

    >>> from rdkit import Chem
    >>> found = dict(zip(descriptor_names(), descriptors(Chem.MolFromSmiles("CCO")), strict=True))
    >>> round(float(found["MolWt"]), 2), float(found["NumHDonors"])
    (46.07, 1.0)
    """
    from rdkit import rdBase
    from rdkit.Chem import Descriptors

    with rdBase.BlockLogs():
        computed = Descriptors.CalcMolDescriptors(mol, missingVal=np.nan, silent=True)
    values = np.array([computed[name] for name in descriptor_names()], np.float64)
    return np.clip(values, -LARGEST, LARGEST).astype(np.float32)


@lru_cache(4096)
def descriptors_of_smiles(smiles: str) -> np.ndarray:
    """Return the descriptors of a canonical SMILES, float32 [D]; the last few thousand are
    remembered.
    """
    from rdkit import Chem

    return descriptors(Chem.MolFromSmiles(smiles))


def property_functions(names: Sequence[str]) -> list:
    """Return the functions of quick properties by name; raises ConfigError with the nearest
    name.
    """
    from rdkit.Chem import Crippen, rdMolDescriptors
    from rdkit.Chem.QED import qed

    functions = (
        Crippen.MolLogP,
        rdMolDescriptors.CalcTPSA,
        qed,
        lambda mol: mol.GetNumHeavyAtoms(),
    )
    known = dict(zip(PROPERTIES, functions, strict=True))
    for name in names:
        if name not in PROPERTIES:
            raise ConfigError(f"no property {name!r}; {did_you_mean(name, PROPERTIES)}")
    return [known[name] for name in names]


@cache
def _fingerprints() -> Any:
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=FINGERPRINT_BITS)


def fingerprint(smiles: str) -> np.ndarray:
    """Return the ECFP4 bits of a SMILES (Morgan, radius 2), uint8 [2048].

    >>> int(fingerprint("CCO").sum())
    6
    """
    from rdkit import Chem

    return _fingerprints().GetFingerprintAsNumPy(Chem.MolFromSmiles(smiles))


def scaffold(mol: "Chem.Mol") -> str:
    """Return the SMILES of the Bemis-Murcko scaffold, empty for a molecule without rings.

    >>> from rdkit import Chem
    >>> scaffold(Chem.MolFromSmiles("CCc1ccccc1C2CC2")), scaffold(Chem.MolFromSmiles("CCO"))
    ('c1ccc(C2CC2)cc1', '')
    """
    from rdkit.Chem.Scaffolds import MurckoScaffold

    return (
        MurckoScaffold.MurckoScaffoldSmiles(mol=mol, includeChirality=False)
        if mol.GetRingInfo().NumRings()
        else ""
    )


def connectivity_key(mol: "Chem.Mol") -> str:
    """Return the first 14 letters of the InChIKey: the same for tautomers with mobile hydrogens,
    stereoisomers, isotopes.

    >>> from rdkit import Chem
    >>> alanines = map(Chem.MolFromSmiles, ("OC(=O)[C@@H](C)N", "OC(=O)C(C)N"))
    >>> len({connectivity_key(mol) for mol in alanines})
    1
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        return Chem.MolToInchiKey(mol)[:14]
