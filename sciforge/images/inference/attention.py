"""Where the last block of a Vision Transformer looks.

Legend of shape letters: B batch, H heads, N patches, R rows of patches, S columns of patches, D
width.
"""

import torch
from torch import Tensor

from sciforge.core.domain import Batch
from sciforge.images.model.vit import VisionTransformer


@torch.no_grad()
def attention_weights(model: VisionTransformer, batch: Batch) -> Tensor:
    """Return the attention of the last block [B, H, N, N]: how much each patch (third axis)
    reads of each (last axis).
    """
    attention = model.encoder.blocks[-1].attention
    seen: list[Tensor] = []
    hook = attention.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        model(batch)
    finally:
        hook.remove()
    (x_BND,) = seen
    query_BHNK, key_BHNK = (
        part(x_BND).unflatten(-1, (-1, attention.head_width)).transpose(1, 2)
        for part in (attention.query, attention.key)
    )
    return (query_BHNK @ key_BHNK.transpose(2, 3) * attention.head_width**-0.5).softmax(-1)


def attention_maps(model: VisionTransformer, batch: Batch) -> Tensor:
    """Return what share of all reading goes to each patch, head by head [B, H, R, S]; each map adds
    up to 1.

    Heads read means of patch states, so the mean over the reading patches takes the place of a
    class token's row.
    """
    return attention_weights(model, batch).mean(2).unflatten(-1, model.grid_of(batch))
