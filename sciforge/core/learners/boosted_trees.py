"""Gradient-boosted trees that live in a checkpoint: fitted by scikit-learn, stored and evaluated as tensors.

A net's features and hand-made ones interact in ways that a linear head misses and a few hundred labels cannot teach by
descent; trees find them. They are plain arrays here, so a checkpoint stays free of pickles.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.data import sampling

ROUNDS = 120
LEAVES = 15
NODES = 2 * LEAVES - 1


class Trees(nn.Module):
    """The summed leaf values of boosted trees; all zero until fitted.

    Args:
        outputs: C, scores of an example.
        rounds: trees for each output.
    """

    def __init__(self, outputs: int, rounds: int = ROUNDS):
        super().__init__()
        shape = (rounds, outputs, NODES)
        self.register_buffer("feature", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("left", torch.zeros(shape, dtype=torch.int16))  # 0 marks a leaf: the root is no child
        self.register_buffer("right", torch.zeros(shape, dtype=torch.int16))
        self.register_buffer("value", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("depth", torch.zeros((), dtype=torch.int32))
        self.register_buffer("baseline", torch.zeros(outputs, dtype=torch.float32))

    @torch.no_grad()
    def forward(self, features_BF: Tensor) -> Tensor:
        """Return the scores [B, C] of features [B, F]; no gradient flows through trees."""
        num = self.feature.numel() // NODES
        feature, threshold, value = (t.reshape(num, NODES) for t in (self.feature, self.threshold, self.value))
        left, right = self.left.reshape(num, NODES).long(), self.right.reshape(num, NODES).long()
        node_BR = torch.zeros(len(features_BF), num, dtype=torch.long, device=features_BF.device)
        tree_R = torch.arange(num, device=features_BF.device)
        for _ in range(int(self.depth)):
            seen_BR = features_BF.gather(1, feature[tree_R, node_BR].long())
            child_BR = torch.where(seen_BR <= threshold[tree_R, node_BR], left[tree_R, node_BR], right[tree_R, node_BR])
            node_BR = torch.where(left[tree_R, node_BR] > 0, child_BR, node_BR)
        leaf_BRC = value[tree_R, node_BR].view(len(features_BF), *self.feature.shape[:2])
        return (leaf_BRC.sum(1) + self.baseline).to(features_BF.dtype)

    @torch.no_grad()
    def load(self, model: Any) -> None:
        """Copy the trees of a fitted scikit-learn HistGradientBoosting model; for two classes the scores are (0, log-odds)."""
        self.value.zero_()
        self.left.zero_()
        offset = 1 if self.feature.shape[1] == 2 else 0  # scikit-learn grows one tree a round for two classes
        deepest = 0
        for turn, trees in enumerate(model._predictors):
            for output, tree in enumerate(trees, offset):
                nodes = tree.nodes
                size = len(nodes)
                inner = nodes["is_leaf"] == 0
                self.feature[turn, output, :size] = torch.from_numpy(
                    np.where(inner, nodes["feature_idx"], 0).astype(np.int32)
                )
                # scikit-learn compares in float64; the next float32 at or below keeps every comparison of float32 features
                self.threshold[turn, output, :size] = torch.from_numpy(_down(nodes["num_threshold"]))
                self.left[turn, output, :size] = torch.from_numpy(np.where(inner, nodes["left"], 0).astype(np.int16))
                self.right[turn, output, :size] = torch.from_numpy(np.where(inner, nodes["right"], 0).astype(np.int16))
                self.value[turn, output, :size] = torch.from_numpy(nodes["value"].astype(np.float32))
                deepest = max(deepest, int(nodes["depth"].max()))
        self.depth.fill_(deepest)
        self.baseline[offset:] = torch.from_numpy(np.ravel(model._baseline_prediction).astype(np.float32))


def _down(threshold: np.ndarray) -> np.ndarray:
    """Round to float32 towards minus infinity.

    >>> float(_down(np.array([0.1]))[0]) <= 0.1
    True
    """
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


def fit_classes(features_NF: np.ndarray, label_N: np.ndarray, seed: int) -> Any:
    """Fit boosted trees to classes; leaves are small where labels are few."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(**_options(len(label_N), seed)).fit(features_NF.astype(np.float32), label_N)


def fit_numbers(features_NF: np.ndarray, target_N: np.ndarray, seed: int) -> Any:
    """Fit boosted trees to numbers."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(**_options(len(target_N), seed)).fit(features_NF.astype(np.float32), target_N)


def _options(num: int, seed: int) -> dict:
    leaf = min(20, max(3, num // 10))
    return {"max_iter": ROUNDS, "max_leaf_nodes": LEAVES, "min_samples_leaf": leaf, "max_features": 0.3,
            "learning_rate": 0.1, "early_stopping": False, "random_state": sampling.short(seed)}  # fmt: skip
