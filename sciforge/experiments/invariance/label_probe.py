"""How much of a label a linear probe explains from some features, cross-validated, against chance.

`explained` is the share of the label's variance that ridge regression explains on records it was
not fitted to (of classes: of their indicators, that is, of the Gini impurity); 0 is what guessing
the mean explains, and worse than that is below 0. One number for classes and numbers, linear in the
label, so that a thousand permuted labels cost one decomposition.

Legend of shape letters: N records, F features, C columns of the label, P permutations, R rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sciforge.core.learners.linear_probe import block_scales

FOLDS = 5
PENALTIES = 10.0 ** np.arange(-6, 1.5, 0.5)  # as shares of the total variance of the features
DRAWS = 1000
MIN_RECORDS = 40  # below, five folds say nothing


@dataclass(frozen=True)
class Explained:
    """A cross-validated share with its 95 % interval over records, and what chance reaches.

    Args:
        value, low, high: of the share.
        chance: what 97.5 % of permuted labels stay below.
        error_N, base_N: squared errors of the probe and of guessing the mean, by record.
    """

    value: float
    low: float
    high: float
    chance: float
    error_N: np.ndarray = field(repr=False, compare=False)
    base_N: np.ndarray = field(repr=False, compare=False)

    @property
    def informative(self) -> bool:
        """Whether it is beyond chance."""
        return self.value > max(self.chance, 0.0)


def indicators(label_N: np.ndarray) -> np.ndarray:
    """Return columns for a linear probe [N, C]: a number as it is, classes as one column each.

    >>> indicators(np.array(["b", "a", "b"])).tolist()
    [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    """
    if label_N.dtype.kind not in "OSU":
        return np.asarray(label_N, float)[:, None]
    return (label_N[:, None] == np.unique(label_N)[None]).astype(float)


def explain(
    views: Sequence[np.ndarray],
    target_NC: np.ndarray,
    seed: int = 0,
    permutations: int = 200,
    scaled: bool = False,
) -> Explained:
    """Return how much of a label some features explain on held-out records.

    Args:
        views: features [N, F]; the share is the mean over several views of the same records, each
            with a probe of its own.
        target_NC: columns of the label (`indicators`).
        seed: of folds, permutations and the interval.
        permutations: of the labels over the records.
        scaled: give every feature the same variance; else only their total is set.

    >>> x = np.arange(60.0)[:, None]
    >>> explained = explain([x], 3 * x)
    >>> explained.value > 0.99, explained.informative
    (True, True)
    """
    rng = np.random.default_rng(seed)
    num = len(target_NC)
    orders = [np.arange(num), *(rng.permutation(num) for _ in range(permutations))]
    target_NPC = np.stack([target_NC[order] for order in orders], 1)
    fold_N = rng.permutation(num) % FOLDS
    error_NP, base_NP = np.zeros((num, len(orders))), np.zeros((num, len(orders)))
    for view_NF, fold in ((view, fold) for view in views for fold in range(FOLDS)):
        out = fold_N == fold
        centre_F, scale_F = _scales(view_NF[~out], scaled)
        middle_PC = target_NPC[~out].mean(0)
        weights = _ridge((view_NF[~out] - centre_F) / scale_F, target_NPC[~out] - middle_PC)
        target_MPC = target_NPC[out] - middle_PC
        predicted_NPC = ((view_NF[out] - centre_F) / scale_F @ weights).reshape(target_MPC.shape)
        base_NP[out] += (target_MPC**2).sum(2)
        error_NP[out] += ((target_MPC - predicted_NPC) ** 2).sum(2)
    share_P = 1 - error_NP.sum(0) / np.maximum(base_NP.sum(0), 1e-300)
    chance = float(np.percentile(share_P[1:], 97.5)) if permutations else 0.0
    error_N, base_N = error_NP[:, 0], base_NP[:, 0]
    low, high = np.percentile(_drawn_shares(error_N, base_N, seed), (2.5, 97.5))
    return Explained(float(share_P[0]), float(low), float(high), chance, error_N, base_N)


def lost(before: Explained, after: Explained, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of before less after, over the same draws of records."""
    one, two = (_drawn_shares(e.error_N, e.base_N, seed) for e in (before, after))
    low, high = np.percentile(one - two, (2.5, 97.5))
    return float(low), float(high)


def erases(before: Explained, after: Explained) -> bool:
    """Return whether more than half of an informative share is lost, beyond chance."""
    return before.informative and after.value < before.value / 2 and lost(before, after)[0] > 0


def _drawn_shares(error_N: np.ndarray, base_N: np.ndarray, seed: int) -> np.ndarray:
    times = np.random.default_rng(seed).multinomial(
        len(error_N), np.full(len(error_N), 1 / len(error_N)), DRAWS
    )
    return 1 - (times @ error_N) / np.maximum(times @ base_N, 1e-300)


def _scales(fit_MF: np.ndarray, scaled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return centre and scale under which the features have a total variance of 1; constant ones
    stay 0.
    """
    blocks = [1] * fit_MF.shape[1] if scaled else [fit_MF.shape[1]]
    centre_F, scale_F = block_scales(fit_MF, blocks)
    varied = max(int((fit_MF.var(0) > 0).sum()), 1)
    return centre_F, scale_F * (varied**0.5 if scaled else 1.0)


def _ridge(features_MF: np.ndarray, wanted_MPC: np.ndarray) -> np.ndarray:
    """Return weights [F, P * C] of ridge regressions, each label's penalty chosen by its
    leave-one-out error.
    """
    left_MR, singular_R, right_RF = np.linalg.svd(features_MF, full_matrices=False)
    flat_MQ = wanted_MPC.reshape(len(wanted_MPC), -1)
    turned_RQ = left_MR.T @ flat_MQ
    worst_P, best_RQ = np.full(wanted_MPC.shape[1], np.inf), np.zeros_like(turned_RQ)
    for penalty in PENALTIES * len(features_MF):
        keep_R = singular_R**2 / (singular_R**2 + penalty)
        lever_M = (left_MR**2 * keep_R).sum(1) + 1 / len(left_MR)
        missed_MQ = (flat_MQ - left_MR @ (keep_R[:, None] * turned_RQ)) / np.maximum(
            1 - lever_M, 1e-6
        )[:, None]
        error_P = (missed_MQ**2).sum(0).reshape(wanted_MPC.shape[1:]).sum(1)
        better_Q = np.repeat(error_P < worst_P, wanted_MPC.shape[2])
        worst_P = np.minimum(error_P, worst_P)
        weights_RQ = (singular_R / (singular_R**2 + penalty))[:, None] * turned_RQ
        best_RQ = np.where(better_Q, weights_RQ, best_RQ)
    return right_RF.T @ best_RQ
