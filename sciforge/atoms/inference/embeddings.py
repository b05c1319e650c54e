"""Embeddings of structures: the scalars after every block, of each atom or averaged over a
structure.

Legend of shape letters: B structures, N atoms, D scalars of all blocks.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sciforge.atoms.inference.batching import in_batches, on_device, split_atoms
from sciforge.atoms.model.potential import Potential
from sciforge.core.domain import Batch, Record
from sciforge.core.training.model import Model


def embed(network: Potential, batch: Batch) -> Tensor:
    """Return the scalars after every block, averaged over the atoms of a structure [B, D]."""
    _, scalars = network.features(batch)
    real_N = batch["number"].flatten() > 0
    x_ND, graph_N = torch.cat(scalars, 1)[real_N], batch["graph"][real_N]
    sums_BD = x_ND.new_zeros(len(batch["size"]), x_ND.shape[1]).index_add(0, graph_N, x_ND)
    return sums_BD / batch["size"][:, None]


@torch.no_grad()
def atom_features(model: Model, records: Sequence[Record]) -> list[np.ndarray]:
    """Return the scalars after every block of each atom, one array [N, D] a structure, in order."""
    features: list[np.ndarray] = [np.empty(0)] * len(records)
    for part in in_batches(records, model.batch):
        batch = model.codec.collate([model.codec.encode(records[place]) for place in part])
        batch = on_device(batch, model.network)
        scalars_ND = torch.cat(model.network.features(batch)[1], -1)
        by_structure = split_atoms(scalars_ND.view(*batch["number"].shape, -1), batch)
        for place, atoms_ND in zip(part, by_structure, strict=True):
            features[place] = atoms_ND
    return features
