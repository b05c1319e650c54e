"""Molecules are near duplicates where they share most of their atoms' surroundings."""

from functools import cache
from typing import Any

import numpy as np

from sciforge.core.domain import Fingerprint, Record

RADIUS = 2  # bonds about an atom


@cache
def _generator() -> Any:
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS)


def features(record: Record) -> np.ndarray:
    """Return the Morgan environments with their counts, uint64: `n` equal ones are `n` features.

    >>> one, other = (features({"smiles": s}) for s in ("CCCCCCO", "CCCCCCCO"))
    >>> len(set(one) & set(other)) < len(other)
    True
    """
    from rdkit import Chem

    mol = Chem.MolFromSmiles(record["smiles"])
    counts = _generator().GetSparseCountFingerprint(mol).GetNonzeroElements()
    return np.array(
        [(code << 16) + number for code, count in counts.items() for number in range(count)],
        np.uint64,
    )


FINGERPRINT = Fingerprint(
    columns=("smiles",),
    features=features,
    similarity=0.7,
    summary="Morgan environments of radius 2, counted",
    kinds=("molecules",),
)
