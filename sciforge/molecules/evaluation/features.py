"""What metrics compare of molecules: fingerprints, BRICS fragments, Murcko scaffolds,
properties, ring sizes; kept on disk.
"""

import importlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.molecules.evaluation.filters import passes
from sciforge.molecules.evaluation.generated_files import in_chunks
from sciforge.molecules.evaluation.metrics import Bag
from sciforge.molecules.evaluation.similarity import BITS

if TYPE_CHECKING:
    from rdkit import Chem

VERSION = 1  # of what is kept; part of the key of every cached file
LEAST_RINGS = 2  # MOSES takes a scaffold of one ring for none
# units: 1, 1, 1 (1 easy to 10 hard), g/mol, heavy atoms
PROPERTIES = ("logP", "QED", "SA", "weight", "atoms")
CHUNK = 250  # molecules at a time for a process: about half a second


@dataclass(frozen=True)
class Features:
    """Features of N molecules.

    Args:
        bits_NB: Morgan fingerprints of radius 2, 1024 bits packed in 128 bytes, uint8.
        fragments: BRICS fragments as SMILES.
        scaffolds: Murcko scaffolds of at least two rings as SMILES; at most one for a molecule.
        rings: sizes of rings, as words.
        values_NP: PROPERTIES, float64; NaN in the column SA where RDKit came without its Contrib
            folder.
        passed_N: whether MOSES' filters let it pass; empty where that was not asked for.
    """

    bits_NB: np.ndarray
    fragments: Bag
    scaffolds: Bag
    rings: Bag
    values_NP: np.ndarray
    passed_N: np.ndarray

    def __len__(self) -> int:
        return len(self.bits_NB)

    def save(self, path: Path) -> None:
        """Write the features as arrays."""
        bags = {"fragments": self.fragments, "scaffolds": self.scaffolds, "rings": self.rings}
        arrays: dict[str, Any] = {
            "bits": self.bits_NB,
            "values": self.values_NP,
            "passed": self.passed_N,
        }
        for name, bag in bags.items():
            words = np.frombuffer("\n".join(bag.words).encode(), np.uint8)
            arrays |= {
                f"{name}_words": words,
                f"{name}_word": bag.word_M,
                f"{name}_owner": bag.owner_M,
            }
        with open(path, "wb") as handle:
            np.savez(handle, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Features":
        """Return what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            bags = [_load_bag(arrays, name) for name in ("fragments", "scaffolds", "rings")]
            return cls(arrays["bits"], *bags, arrays["values"], arrays["passed"])


def _load_bag(arrays: Any, name: str) -> Bag:
    text = arrays[f"{name}_words"].tobytes().decode()
    return Bag(
        tuple(text.split("\n")) if text else (), arrays[f"{name}_word"], arrays[f"{name}_owner"]
    )


@cache
def sascorer() -> ModuleType | None:
    """Return RDKit's scorer of synthetic accessibility (Ertl and Schuffenhauer 2009); None where
    Contrib is not installed.
    """
    try:
        return importlib.import_module("rdkit.Contrib.SA_Score.sascorer")
    except ImportError:
        return None


@cache
def _morgan() -> Any:
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=BITS)


def fragments_of(mol: "Chem.Mol") -> list[str]:
    """Return the pieces that BRICS bonds leave (Degen et al. 2008), as SMILES with dummy atoms.

    >>> from rdkit import Chem
    >>> sorted(fragments_of(Chem.MolFromSmiles("CCOC")))
    ['[3*]OC', '[4*]CC']
    """
    from rdkit import Chem
    from rdkit.Chem import AllChem

    return Chem.MolToSmiles(AllChem.FragmentOnBRICSBonds(mol)).split(".")


def scaffold_of(mol: "Chem.Mol") -> str:
    """Return the Murcko scaffold as SMILES; empty where it has fewer than two rings.

    >>> from rdkit import Chem
    >>> mols = map(Chem.MolFromSmiles, ("Cc1ccc2ccccc2c1", "Cc1ccccc1"))
    >>> tuple(scaffold_of(mol) for mol in mols)
    ('c1ccc2ccccc2c1', '')
    """
    from rdkit import Chem
    from rdkit.Chem.Scaffolds import MurckoScaffold

    try:
        scaffold = MurckoScaffold.GetScaffoldForMol(mol)
    except (ValueError, RuntimeError):  # as MOSES does; RDKit fails on some exotic rings
        return ""
    return Chem.MolToSmiles(scaffold) if scaffold.GetRingInfo().NumRings() >= LEAST_RINGS else ""


def _describe(texts: Sequence[str], filters: bool) -> list[tuple[Any, ...]]:
    from rdkit import Chem
    from rdkit.Chem import QED, Crippen, Descriptors

    scorer, rows = sascorer(), []
    for text in texts:
        mol = Chem.MolFromSmiles(text)
        scaffold = scaffold_of(mol)
        accessibility = scorer.calculateScore(mol) if scorer else np.nan
        values = (
            Crippen.MolLogP(mol),
            QED.qed(mol),
            accessibility,
            Descriptors.MolWt(mol),
            mol.GetNumHeavyAtoms(),
        )
        bits = np.packbits(_morgan().GetFingerprintAsNumPy(mol))
        rings = [str(len(ring)) for ring in mol.GetRingInfo().AtomRings()]
        passed = (passes(mol),) if filters else ()
        rows.append(
            (bits, fragments_of(mol), [scaffold] if scaffold else [], rings, values, passed)
        )
    return rows


def features_of(smiles: Sequence[str], filters: bool, pool: Executor | None = None) -> Features:
    """Return the features of valid molecules.

    Args:
        smiles: of valid molecules, at least one.
        filters: whether to run the filters, half of the time.
        pool: processes that do it.
    """
    work = partial(_describe, filters=filters)
    rows = [row for chunk in in_chunks(work, smiles, pool, "features", CHUNK) for row in chunk]
    bits, fragments, scaffolds, rings, values, passed = zip(*rows, strict=True)
    return Features(
        np.stack(bits),
        Bag.of(fragments),
        Bag.of(scaffolds),
        Bag.of(rings),
        np.array(values, np.float64),
        np.array([one for some in passed for one in some], bool),
    )
