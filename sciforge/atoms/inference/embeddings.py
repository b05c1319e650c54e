"""Embeddings of structures: the scalars after every block, of each atom or averaged over a structure.

Legend of shape letters: B structures, N atoms, C channels of all blocks.
"""

import torch
from torch import Tensor

from sciforge.atoms.model.potential import Potential
from sciforge.core.domain import Batch


def embed(model: Potential, batch: Batch) -> Tensor:
    """Return the scalars after every block, averaged over the atoms of a structure [B, C]."""
    _, scalars = model.features(batch)
    real_N = batch["number"].flatten() > 0
    x_NC, graph_N = torch.cat(scalars, 1)[real_N], batch["graph"][real_N]
    return x_NC.new_zeros(len(batch["size"]), x_NC.shape[1]).index_add(0, graph_N, x_NC) / batch["size"][:, None]
