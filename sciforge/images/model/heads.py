"""A linear head on means of patch states, solved from the labels before the first step.

Legend of shape letters: B batch, R rows of patches, S columns of patches, N patches (R S; in
`solve` records), D width, C scores, F features.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import Batch, Objective, Record
from sciforge.core.learners.linear_probe import block_scales
from sciforge.core.training.evaluation import evaluation
from sciforge.images.data.codec import ImageCodec

# numbers (records by features) from which a head is solved; descent sees the other records
MAX_SOLVED = 2 * 10**7


class ImageHead(nn.Module):
    """Linear scores of an image from its patches' states, averaged in a grid of `bins` by `bins`,
    of one or more layers.

    Where something is matters in most pictures; bins keep that, one mean loses it.

    Args:
        width: D.
        outputs: C.
        bins: of each axis.
        layers: how many layers are read.
    """

    def __init__(self, width: int, outputs: int, bins: int, layers: int) -> None:
        super().__init__()
        self.bins = bins
        self.blocks_F = [bins * bins * width] * layers
        self.weight_CF = nn.Parameter(torch.zeros(outputs, sum(self.blocks_F)))
        self.bias_C = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("centre_F", torch.zeros(sum(self.blocks_F)))
        self.register_buffer("scale_F", torch.ones(sum(self.blocks_F)))
        # starts near equal scores
        nn.init.normal_(self.weight_CF, std=0.1 * sum(self.blocks_F) ** -0.5)

    def features(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Return the features before centring [B, F] of the states of the layers read, each [B,
        N, D].
        """
        pooled = [
            F.adaptive_avg_pool2d(x.transpose(1, 2).unflatten(2, grid), self.bins).flatten(1)
            for x in layers
        ]
        return torch.cat(pooled, 1).to(self.weight_CF.dtype)

    def forward(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Return scores [B, C]."""
        return F.linear(
            (self.features(layers, grid) - self.centre_F) / self.scale_F,
            self.weight_CF,
            self.bias_C,
        )

    @torch.no_grad()
    def solve(
        self, features_NF: np.ndarray, linear: Callable[[np.ndarray], tuple[np.ndarray, Any]]
    ) -> None:
        """Set the head from the features of labelled records; `linear` fits scaled ones and
        returns weight and bias.
        """
        centre_F, scale_F = block_scales(features_NF, self.blocks_F)
        weight, bias = linear((features_NF - centre_F) / scale_F)
        slots = (
            (self.centre_F, centre_F),
            (self.scale_F, scale_F),
            (self.weight_CF, weight),
            (self.bias_C, bias),
        )
        for slot, value in slots:
            slot.copy_(torch.as_tensor(np.asarray(value)).reshape(slot.shape))


def states(model: nn.Module, batch: Batch, layers: tuple[int, ...]) -> list[Tensor]:
    """Return the states [B, N, D] of the layers asked for, 0 being the embedding and -1 the
    last.
    """
    if layers == (-1,):
        return [model(batch)]
    every = model(batch, layers=True)
    return [every[layer] for layer in layers]


def read_features(
    objective: Objective,
    model: nn.Module,
    codec: ImageCodec,
    records: Sequence[Record],
    engine: Any,
    seed: int,
    copies: int,
    read: Callable[[nn.Module, Batch], Tensor],
) -> np.ndarray:
    """Return features of records [copies * N, F], one pass of all after the other; views of them
    where there are several.
    """
    rows = []
    with evaluation(model, objective):
        for copy in range(copies):
            for start in range(0, len(records), 64):
                part = range(start, min(start + 64, len(records)))
                # every copy draws of its own, and none the draws of the steps
                features = [
                    objective.prepare(
                        records[i],
                        codec,
                        np.random.default_rng((seed, copy, i)),
                        training=copies > 1,
                    )
                    for i in part
                ]
                rows.append(read(model, engine.move(codec.collate(features))).cpu().numpy())
    return np.concatenate(rows)
