"""Decision trees as tensors, so that trees fitted by scikit-learn live in a checkpoint and need no
pickle.

Legend of shape letters: B batch, F features, G and H the two axes along which trees are counted, N
nodes, R = G H trees.
"""

import numpy as np
import torch
from torch import Tensor, nn


class TreeTables(nn.Module):
    """Binary trees [G, H] as tables of their nodes; without children and of value 0 until stored.

    Args:
        shape: G, H and the largest number of nodes of a tree.
        feature_dtype: of the numbers of features.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    depth: Tensor

    def __init__(self, shape: tuple[int, int, int], feature_dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("feature", torch.zeros(shape, dtype=feature_dtype))
        self.register_buffer("threshold", torch.zeros(shape, dtype=torch.float32))
        # 0 marks a leaf: the root is no child
        self.register_buffer("left", torch.zeros(shape, dtype=torch.int16))
        self.register_buffer("right", torch.zeros(shape, dtype=torch.int16))
        self.register_buffer("value", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("depth", torch.zeros((), dtype=torch.int32))

    def clear(self) -> None:
        """Forget all trees."""
        for table in (self.value, self.left, self.depth):
            table.zero_()

    def store(
        self,
        place: tuple[int, int],
        feature_N: np.ndarray,
        threshold_N: np.ndarray,
        children_N2: np.ndarray,
        value_N: np.ndarray,
        depth: int,
    ) -> None:
        """Copy one tree, its root first; children of 0 or below mark a leaf."""
        where, inner_N = (*place, slice(0, len(feature_N))), children_N2[:, 0] > 0
        # trees compare in float64; the next float32 at or below keeps every comparison of float32
        # features
        columns = {
            "feature": np.where(inner_N, feature_N, 0),
            "threshold": round_down(threshold_N),
            "left": np.where(inner_N, children_N2[:, 0], 0),
            "right": np.where(inner_N, children_N2[:, 1], 0),
            "value": value_N,
        }
        for name, column_N in columns.items():
            table = getattr(self, name)
            table[where] = torch.from_numpy(np.ascontiguousarray(column_N)).to(table.dtype)
        self.depth.fill_(max(depth, int(self.depth)))

    def leaf_values(self, x_BF: Tensor) -> Tensor:
        """Return the value [B, G, H] of the leaf that each example reaches in each tree."""
        num = self.feature[..., 0].numel()
        feature_RN, threshold_RN, value_RN, left_RN, right_RN = (
            table.reshape(num, -1)
            for table in (self.feature, self.threshold, self.value, self.left, self.right)
        )
        node_BR = torch.zeros(len(x_BF), num, dtype=torch.long, device=x_BF.device)
        tree_R = torch.arange(num, device=x_BF.device)
        for _ in range(int(self.depth)):
            x_BR = x_BF.gather(1, feature_RN[tree_R, node_BR].long())
            goes_left_BR = x_BR <= threshold_RN[tree_R, node_BR]
            child_BR = torch.where(
                goes_left_BR, left_RN[tree_R, node_BR], right_RN[tree_R, node_BR]
            ).long()
            node_BR = torch.where(left_RN[tree_R, node_BR] > 0, child_BR, node_BR)
        return value_RN[tree_R, node_BR].view(len(x_BF), *self.feature.shape[:2])


def round_down(threshold_N: np.ndarray) -> np.ndarray:
    """Round to float32 towards minus infinity.

    >>> float(round_down(np.array([0.1]))[0]) <= 0.1
    True
    """
    near_N = threshold_N.astype(np.float32)
    return np.where(near_N > threshold_N, np.nextafter(near_N, np.float32(-np.inf)), near_N)
