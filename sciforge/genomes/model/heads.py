"""Small nets on top of a DnaBert's hidden states.

Legend of shape letters: B batch, T tokens, D width, C classes, F frames, P kinds of points.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import Batch
from sciforge.core.learners.boosted_trees import Trees
from sciforge.core.learners.linear_probe import block_scales
from sciforge.genomes.data.codec import torch_kmer_ids
from sciforge.genomes.model.dna_bert import bin_weights
from sciforge.genomes.objectives.reading_frames import NUM_DISTANCES, NUM_FRAMES, NUM_POINTS


class FrameHead(nn.Module):
    """Reading frame of each token's first base, and the distance classes to the nearest start
    and stop codons.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frame = nn.Linear(width, NUM_FRAMES)
        self.distance = nn.Linear(width, NUM_POINTS * NUM_DISTANCES)
        for linear in (self.frame, self.distance):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of the frame [B, T, 7] and of the distances [B, T, 4, 12]."""
        return self.frame(x_BTD), self.distance(x_BTD).unflatten(-1, (NUM_POINTS, NUM_DISTANCES))

    def summary(self, x_BTD: Tensor) -> Tensor:
        """Return probabilities [B, T, 51]: no frame, this strand, the other strand, and the
        distance classes.
        """
        frame_BTF, distance_BTPC = self(x_BTD)
        frame_BTF = frame_BTF.softmax(-1)
        strands = [part.sum(-1, keepdim=True) for part in frame_BTF.split((1, 3, 3), dim=-1)]
        return torch.cat([*strands, distance_BTPC.softmax(-1).flatten(-2)], dim=-1)


# Trees need labels: with 32 the linear head alone is best, from 512 on the trees are. Chosen on
# chromosome VII of yeast, which is a training chromosome of the benchmark.
LABELS_OF_EQUAL_WEIGHT = 256
MAX_TREE_WEIGHT = 4.0
NUM_SUMMARY = 3 + NUM_POINTS * NUM_DISTANCES
LONGEST_KMER = 4
NUM_KMERS = sum(4**k for k in range(1, LONGEST_KMER + 1))


class SequenceHead(nn.Module):
    """Linear scores of a sequence from four blocks of features, and a low-rank look at every token
    in its place.

    The blocks: hidden states averaged in positional bins; the frame head's probabilities in the
    same bins; square roots of k-mer counts, k = 1 to 4; and the base at every place. The last two
    need no pretraining, so the head is never worse informed than the classical baselines. The
    linear part is solved before fine-tuning (core.linear_probe), and boosted trees on all but the
    hidden states are added to the scores, by a weight that grows with the labels. The token part
    starts at zero and is learnt with the net, since bins blur the exact distance to a start site.

    Args:
        width: D.
        outputs: C.
        length: longest sequence in bases; longer ones are read up to here by the place-wise parts.
        bins: positional bins.
        stride: of the codec.
        rank: width of the token part.
    """

    def __init__(
        self, width: int, outputs: int, length: int, bins: int, stride: int, rank: int = 16
    ) -> None:
        super().__init__()
        self.bins, self.length = bins, length
        self.blocks_F = [bins * width, bins * NUM_SUMMARY, NUM_KMERS, length * 4]
        self.weight_CF = nn.Parameter(torch.zeros(outputs, sum(self.blocks_F)))
        self.bias_C = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("centre_F", torch.zeros(sum(self.blocks_F)))
        self.register_buffer("scale_F", torch.ones(sum(self.blocks_F)))
        self.trees = Trees(outputs)
        self.register_buffer("tree_weight", torch.zeros(()))
        self.project = nn.Linear(width, rank, bias=False)
        self.place_CTR = nn.Parameter(torch.zeros(outputs, length // stride + 1, rank))
        nn.init.normal_(self.project.weight, std=width**-0.5)

    def features(self, x_BTD: Tensor, frames: FrameHead, batch: Batch) -> Tensor:
        """Return the features before centring [B, F]."""
        bins_BST = bin_weights(batch["lengths"], x_BTD.shape[1], self.bins).to(x_BTD.dtype)
        pooled = [bins_BST @ x_BTD, bins_BST @ frames.summary(x_BTD).to(x_BTD.dtype)]
        hand_made = [_kmer_roots(batch["bases"]), _one_hot(batch["bases"], self.length)]
        dtype = self.weight_CF.dtype
        return torch.cat(
            [*(p.flatten(1).to(dtype) for p in pooled), *(h.to(dtype) for h in hand_made)], dim=1
        )

    def forward(self, x_BTD: Tensor, frames: FrameHead, batch: Batch) -> Tensor:
        """Return scores [B, C] of hidden states [B, T, D]; in training without the trees, which
        descent cannot move.
        """
        features_BF = self.features(x_BTD, frames, batch)
        tokens = min(x_BTD.shape[1], self.place_CTR.shape[1])
        real_BT = torch.arange(tokens, device=x_BTD.device) < batch["lengths"][:, None]
        seen_BTR = self.project(x_BTD[:, :tokens]).to(self.place_CTR.dtype) * real_BT[..., None]
        # of each row, not of the batch
        root_B1 = batch["lengths"].clamp(max=tokens)[:, None].to(seen_BTR.dtype).sqrt()
        by_place_BC = torch.einsum("btr,ctr->bc", seen_BTR, self.place_CTR[:, :tokens]) / root_B1
        scores_BC = (
            F.linear((features_BF - self.centre_F) / self.scale_F, self.weight_CF, self.bias_C)
            + by_place_BC
        )
        if self.training or not self.tree_weight:
            return scores_BC
        return scores_BC + self.tree_weight * self.trees(self.of_trees(features_BF))

    def of_trees(self, features: Any) -> Any:
        """Return the columns that trees see: all but the hidden states, whose many directions a
        few labels cannot sort.
        """
        return features[:, self.blocks_F[0] :]

    @torch.no_grad()
    def solve(
        self,
        features_NF: np.ndarray,
        linear: Callable[[np.ndarray], tuple[np.ndarray, Any]],
        trees: Callable[[np.ndarray], Any] | None,
        blend: bool = False,
    ) -> None:
        """Set the linear part and the trees from features [N, F].

        Args:
            features_NF: of the training examples.
            linear: fits scaled features and returns weight [C, F] and bias [C].
            trees: fits the columns of `of_trees` and returns a scikit-learn model; None leaves the
                trees out.
            blend: average the two parts (numbers) where log-odds would be added up (classes).
        """
        centre_F, scale_F = block_scales(features_NF, self.blocks_F)
        weight, bias = linear((features_NF - centre_F) / scale_F)
        tree_weight = (
            0.0
            if trees is None
            else min(len(features_NF) / LABELS_OF_EQUAL_WEIGHT, MAX_TREE_WEIGHT)
        )
        if blend:
            weight, bias, tree_weight = (
                part / (1 + tree_weight) for part in (weight, bias, tree_weight)
            )
        slots = (
            (self.centre_F, centre_F),
            (self.scale_F, scale_F),
            (self.weight_CF, weight),
            (self.bias_C, bias),
        )
        for slot, value in slots:
            slot.copy_(torch.as_tensor(np.asarray(value)).reshape(slot.shape))
        if trees is not None:
            self.trees.load(trees(self.of_trees(features_NF)))
            self.tree_weight.fill_(tree_weight)


def _kmer_roots(bases_BL: Tensor) -> Tensor:
    """Return square roots of the counts of k-mers without N, k = 1 to 4 [B, 340]."""
    columns = []
    for k in range(1, LONGEST_KMER + 1):
        # all that hold an N share one column, left out
        ids_BT = torch_kmer_ids(bases_BL, k, 1).clamp(max=4**k)
        ones_BT = torch.ones_like(ids_BT, dtype=torch.float32)
        columns.append(
            ones_BT.new_zeros(len(bases_BL), 4**k + 1).scatter_add_(1, ids_BT, ones_BT)[:, :-1]
        )
    return torch.cat(columns, dim=1).sqrt()


def _one_hot(bases_BL: Tensor, length: int) -> Tensor:
    """Return the base at each of the first `length` places [B, 4 length]; zeros where unknown or
    beyond the end.
    """
    codes_BL = F.pad(
        (bases_BL & 7)[:, :length], (0, max(0, length - bases_BL.shape[1])), value=4
    ).long()
    return F.one_hot(codes_BL.clamp(max=4), 5)[..., :4].flatten(1).float()
