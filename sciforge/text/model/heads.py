"""What is put on a Bert for labels of documents and of words.

Legend of shape letters: B batch, L tokens, D width, S hidden states (depth + 1), C scores, F
features, G grams, N documents.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import Batch
from sciforge.core.learners.linear_probe import block_scales
from sciforge.text.data.ngrams import NUM_GRAMS

RANK_SHARE = 1e-9  # of the largest eigenvalue; smaller ones are rounding


def real_tokens(batch: Batch) -> Tensor:
    """Return which tokens are no padding, bool [B, L]."""
    return (
        torch.arange(batch["ids"].shape[1], device=batch["ids"].device) < batch["lengths"][:, None]
    )


def pooled_mean(x_BLD: Tensor, real_BL: Tensor) -> Tensor:
    """Return the mean of each row's real tokens [B, D]."""
    return torch.where(real_BL[..., None], x_BLD, 0).sum(1) / real_BL.sum(1, keepdim=True)


class DocumentHead(nn.Module):
    """Linear scores of a document from the means of every layer's states and, where asked for, its
    grams of letters.

    The linear part is solved before fine-tuning (core.linear_probe); inverse document frequencies
    are those of the labelled training documents.

    Args:
        width: D.
        states: S.
        outputs: C.
        grams: whether hashed grams are read too.
    """

    def __init__(self, width: int, states: int, outputs: int, grams: bool) -> None:
        super().__init__()
        self.blocks_F = [width * states] + [NUM_GRAMS] * grams
        self.weight_CF = nn.Parameter(torch.zeros(outputs, sum(self.blocks_F)))
        self.bias_C = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("centre_F", torch.zeros(sum(self.blocks_F)))
        self.register_buffer("scale_F", torch.ones(sum(self.blocks_F)))
        self.register_buffer("rarity_G", torch.ones(NUM_GRAMS * grams))

    def features(self, states: list[Tensor], batch: Batch) -> Tensor:
        """Return the features [B, F] before centring."""
        real_BL = real_tokens(batch)
        blocks = [pooled_mean(x_BLD, real_BL) for x_BLD in states]
        if len(self.rarity_G):
            blocks.append(self._grams(batch))
        return torch.cat([block.to(self.weight_CF.dtype) for block in blocks], dim=1)

    def _grams(self, batch: Batch) -> Tensor:
        """Return TF-IDF of hashed grams [B, G], each row of length 1."""
        weight_BK = batch["gram_weights"].to(self.rarity_G.dtype)
        counts_BG = weight_BK.new_zeros(len(weight_BK), NUM_GRAMS).scatter_add_(
            1, batch["grams"], weight_BK
        )
        return F.normalize(counts_BG * self.rarity_G, dim=1)

    def forward(self, states: list[Tensor], batch: Batch) -> Tensor:
        """Return scores [B, C]."""
        return F.linear(
            (self.features(states, batch) - self.centre_F) / self.scale_F,
            self.weight_CF,
            self.bias_C,
        )

    @torch.no_grad()
    def weigh(self, grams: list[np.ndarray]) -> None:
        """Set the inverse document frequencies of grams from the buckets of each training
        document.
        """
        seen_G = np.zeros(NUM_GRAMS)
        for bucket_K in grams:
            seen_G[bucket_K] += 1
        self.rarity_G.copy_(torch.from_numpy(np.log((1 + len(grams)) / (1 + seen_G)) + 1))

    @torch.no_grad()
    def solve(
        self,
        features_NF: np.ndarray,
        fit: Callable[[list[np.ndarray]], tuple[list[np.ndarray], Any]],
    ) -> None:
        """Set the linear part from features [N, F].

        `fit` gets the coordinates [N, R_k] of each block and returns weights [C, R_k] of each and a
        bias [C].
        """
        centre_F, scale_F = block_scales(features_NF, self.blocks_F)
        parts = np.split((features_NF - centre_F) / scale_F, np.cumsum(self.blocks_F)[:-1], axis=1)
        rotated = [rotate(part) for part in parts]
        weights, bias = fit([coordinates for coordinates, _ in rotated])
        weight_CF = np.concatenate(
            [np.atleast_2d(w) @ basis for w, (_, basis) in zip(weights, rotated, strict=True)], 1
        )
        slots = (
            (self.centre_F, centre_F),
            (self.scale_F, scale_F),
            (self.weight_CF, weight_CF),
            (self.bias_C, bias),
        )
        for slot, value in slots:
            slot.copy_(torch.as_tensor(np.asarray(value)).reshape(slot.shape))


def rotate(features_NF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates [N, R] in the span of the documents and its basis [R, F], from their Gram
    matrix.

    The penalised solution lies in that span; with 30,000 columns the Gram matrix takes seconds
    where a decomposition of the features takes minutes.

    >>> x = np.array([[3.0, 0.0, 4.0], [0.0, 2.0, 0.0]])
    >>> coordinates, basis = rotate(x)
    >>> bool(np.allclose(coordinates @ basis, x)), bool(np.allclose(basis @ basis.T, np.eye(2)))
    (True, True)
    """
    value_N, vector_NN = np.linalg.eigh(features_NF @ features_NF.T)
    kept = value_N > RANK_SHARE * max(value_N[-1], 0.0)
    root_R = np.sqrt(value_N[kept])
    if not kept.any():
        return np.zeros((len(features_NF), 1)), np.zeros((1, features_NF.shape[1]))
    return vector_NN[:, kept] * root_R, (vector_NN[:, kept] / root_R).T @ features_NF


class TagHead(nn.Module):
    """Linear scores of a word from its states, solved before fine-tuning.

    Args:
        features: F.
        classes: C.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight_CF = nn.Parameter(torch.zeros(classes, features))
        self.bias_C = nn.Parameter(torch.zeros(classes))
        self.register_buffer("centre_F", torch.zeros(features))
        self.register_buffer("scale_F", torch.ones(features))

    def forward(self, x_BWF: Tensor) -> Tensor:
        """Return scores [B, W, C]."""
        return F.linear((x_BWF - self.centre_F) / self.scale_F, self.weight_CF, self.bias_C)

    @torch.no_grad()
    def solve(
        self, features_NF: np.ndarray, fit: Callable[[np.ndarray], tuple[np.ndarray, Any]]
    ) -> None:
        """Set the head from states [N, F]; `fit` gets them scaled and returns weight [C, F] and
        bias [C].
        """
        centre_F, scale_F = features_NF.mean(0), features_NF.std(0).clip(1e-6)
        weight, bias = fit((features_NF - centre_F) / scale_F)
        slots = (
            (self.centre_F, centre_F),
            (self.scale_F, scale_F),
            (self.weight_CF, weight),
            (self.bias_C, bias),
        )
        for slot, value in slots:
            slot.copy_(torch.as_tensor(np.asarray(value)).reshape(slot.shape))
