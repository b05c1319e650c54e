"""A change of a record that means nothing to the molecule: another order of atoms; and what it
scrambles.

Legend of shape letters: B batch, N atoms, M bonds, F features.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from sciforge.core.domain import Augmentation, Batch, Record
from sciforge.molecules.chemistry.valence import TYPES
from sciforge.molecules.model.molecule_transformer import MoleculeNet
from sciforge.molecules.objectives.self_supervised import pooled


def embed(model: MoleculeNet, batch: Batch) -> Tensor:
    """Return the state of the molecule, the mean of its atoms and a tenth of their sum [B, F]."""
    return pooled(model(batch), batch)


def known_labels(records: Sequence[Record], meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return every column of labels by name, NaN where missing."""
    names = [entry["name"] for entry in meta.get("labels", [])]
    return {
        name: np.array([record["label"][k] for record in records], float)
        for k, name in enumerate(names)
    }


def reordered(record: Record, rng: np.random.Generator) -> dict[str, Any]:
    """Return the molecule with its atoms in a random order, as a random SMILES would list them;
    bonds follow.
    """
    order_N = rng.permutation(len(record["atom"]))
    place_N = np.argsort(order_N)
    bond_M3 = np.asarray(record["bond"]).astype(int).reshape(-1, 3)
    ends_M2 = np.sort(place_N[bond_M3[:, :2]], axis=1)
    changed = {name: np.asarray(record[name])[order_N] for name in ("atom", "hydrogens", "flags")}
    return {
        **record,
        **changed,
        "bond": np.concatenate([ends_M2, bond_M3[:, 2:]], 1).astype(np.uint8),
    }


def listing(record: Record) -> np.ndarray:
    """Return how the atoms are listed [10]: whether C, N, O begins and ends, and where N, O, other
    and aromatic atoms lie.

    Places run from -1/2 to 1/2, 0 for a kind that is not there: what the molecule holds should show
    as little as may be.

    >>> listing({"atom": [0, 0], "flags": [0, 1]}).tolist()
    [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5]
    """
    element_N = np.array([TYPES[int(kind)].symbol for kind in record["atom"]])
    place_N = (np.arange(len(element_N)) - (len(element_N) - 1) / 2) / max(len(element_N) - 1, 1)
    known = ("C", "N", "O")
    ends = [float(element_N[at] == symbol) for at in (0, -1) for symbol in known]
    kinds = [*(element_N == symbol for symbol in known[1:]), ~np.isin(element_N, known)]
    kinds.append((np.asarray(record["flags"]) & 1).astype(bool))
    return np.array(
        [*ends, *(float(place_N[kind].mean()) if kind.any() else 0.0 for kind in kinds)]
    )


AUGMENTATIONS = {
    "atom-order": Augmentation(
        reordered, listing, "the atoms in a random order, as of a random SMILES"
    )
}
