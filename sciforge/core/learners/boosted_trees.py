"""Gradient-boosted trees that live in a checkpoint: fitted by scikit-learn, stored and evaluated as
tensors.

A network's features and hand-made ones interact in ways that a linear head misses and a few hundred
labels cannot teach by descent; trees learn them.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciforge.core.data import sampling
from sciforge.core.learners.tree_tables import TreeTables

ROUNDS = 120
LEAVES = 15
NODES = 2 * LEAVES - 1


class Trees(TreeTables):
    """The summed leaf values of boosted trees; all zero until fitted.

    Args:
        outputs: C, scores of an example.
        rounds: trees for each output.
    """

    baseline: Tensor

    def __init__(self, outputs: int, rounds: int = ROUNDS) -> None:
        super().__init__((rounds, outputs, NODES), torch.int32)
        self.register_buffer("baseline", torch.zeros(outputs, dtype=torch.float32))

    @torch.no_grad()
    def forward(self, features_BF: Tensor) -> Tensor:
        """Return the scores [B, C] of features [B, F]; no gradient flows through trees."""
        return (self.leaf_values(features_BF).sum(1) + self.baseline).to(features_BF.dtype)

    @torch.no_grad()
    def load(self, model: Any) -> None:
        """Copy a fitted HistGradientBoosting model of scikit-learn; for two classes the scores
        are (0, log-odds).
        """
        self.clear()
        # scikit-learn grows one tree a round for two classes
        offset = 1 if self.feature.shape[1] == 2 else 0
        for number, trees in enumerate(model._predictors):
            for output, tree in enumerate(trees, offset):
                nodes = tree.nodes
                children_N2 = np.where(nodes["is_leaf"] == 0, [nodes["left"], nodes["right"]], 0).T
                depth = int(nodes["depth"].max())
                columns = nodes["feature_idx"], nodes["num_threshold"], children_N2, nodes["value"]
                self.store((number, output), *columns, depth)
        self.baseline[offset:] = torch.from_numpy(
            np.ravel(model._baseline_prediction).astype(np.float32)
        )


def fit_classes(features_NF: np.ndarray, label_N: np.ndarray, seed: int) -> Any:
    """Fit boosted trees to classes; leaves are small where labels are few."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(**_options(len(label_N), seed)).fit(
        features_NF.astype(np.float32), label_N
    )


def fit_numbers(features_NF: np.ndarray, target_N: np.ndarray, seed: int) -> Any:
    """Fit boosted trees to numbers."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(**_options(len(target_N), seed)).fit(
        features_NF.astype(np.float32), target_N
    )


def _options(num: int, seed: int) -> dict[str, Any]:
    return {
        "max_iter": ROUNDS,
        "max_leaf_nodes": LEAVES,
        "min_samples_leaf": min(20, max(3, num // 10)),
        "max_features": 0.3,
        "learning_rate": 0.1,
        "early_stopping": False,
        "random_state": sampling.short(seed),
    }
