"""The linear head on frozen features, solved instead of descended to: where every fine-tuning with
labels starts.

Starting from the solved probe and only then moving the net keeps pretrained features whole while
the head is still random (LP-FT, Kumar et al. 2022), and with few labels the probe is most of the
result.
"""

import warnings
from typing import Any

import numpy as np

from sciforge.core.data import sampling

# inverse strength of the ridge penalty, chosen inside the given labels
PENALTIES = 10.0 ** np.arange(-1, 4, 0.5)
FOLDS = 5
# Above this many examples a single fold of a coarser grid decides: the optimum is flat there, the
# solves are not cheap.
MANY = 2000


def block_scales(features_NF: np.ndarray, blocks: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return centre [F] and scale [F] that give every block of columns a total variance of 1.

    One scale a block, not a column: the variance of a column from 32 examples is mostly noise.

    >>> centre, scale = block_scales(np.array([[0.0, 2.0, 7.0], [2.0, 4.0, 7.0]]), [2, 1])
    >>> centre.tolist(), scale.round(3).tolist()
    ([1.0, 3.0, 7.0], [1.414, 1.414, 1.0])
    """
    centre_F = features_NF.mean(0)
    variance_F = features_NF.var(0)
    scale_F = np.ones_like(centre_F)
    start = 0
    for size in blocks:
        total = float(np.sqrt(variance_F[start : start + size].sum()))
        scale_F[start : start + size] = total if total > 0 else 1.0
        start += size
    return centre_F, scale_F


def fit_logistic(
    features_NF: np.ndarray, label_N: np.ndarray, num_classes: int, seed: int, copies: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights [C, F] and biases [C] of a ridge-penalised softmax regression.

    Args:
        features_NF: scaled features.
        label_N: integer classes; a class without an example gets the lowest score.
        num_classes: C.
        seed: of the folds that choose the penalty by log-loss.
        copies: the rows are so many views of the same examples, one after the other (both strands,
            say); views of one example stay in one fold.
    """
    present = np.unique(label_N)
    weight_CF = np.zeros((num_classes, features_NF.shape[1]))
    bias_C = np.full(num_classes, 0.0 if len(present) == num_classes else -5.0)
    if len(present) < 2:
        bias_C[present] = 5.0
        return weight_CF, bias_C
    rotated_NR, basis_RF = _rotate(features_NF)
    model = _fit(rotated_NR, label_N, _choose_penalty(rotated_NR, label_N, seed, copies))
    weight = model.coef_ @ basis_RF
    bias = model.intercept_
    if len(present) == 2:  # scikit-learn stores one row for two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight_CF[present], bias_C[present] = weight, bias
    return weight_CF, bias_C


def fit_ridge(features_NF: np.ndarray, target_N: np.ndarray) -> tuple[np.ndarray, float]:
    """Return weights [F] and bias of a ridge regression, its penalty chosen by leave-one-out
    error.
    """
    from sklearn.linear_model import RidgeCV

    rotated_NR, basis_RF = _rotate(features_NF)
    model = RidgeCV(alphas=1 / PENALTIES).fit(rotated_NR, target_N)
    return model.coef_ @ basis_RF, float(model.intercept_)


def _rotate(features_NF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates [N, R] in the span of the examples and its basis [R, F]: the penalised
    solution lies in it.
    """
    if features_NF.shape[0] >= features_NF.shape[1]:
        return features_NF, np.eye(features_NF.shape[1])
    left, singular, right = np.linalg.svd(features_NF, full_matrices=False)
    return left * singular, right


def _fit(features_NR: np.ndarray, label_N: np.ndarray, penalty: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # a nearly converged start is good enough to descend from
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=penalty, max_iter=100).fit(features_NR, label_N)


def _choose_penalty(
    features_NR: np.ndarray, label_N: np.ndarray, seed: int, copies: int = 1
) -> float:
    from sklearn.model_selection import StratifiedKFold

    num = len(label_N) // copies
    smallest = np.bincount(label_N[:num])[np.unique(label_N)].min()
    if smallest < 2:
        return 1.0
    many = len(label_N) > MANY
    grid = PENALTIES[2::2] if many else PENALTIES
    folds = StratifiedKFold(
        min(FOLDS, int(smallest)), shuffle=True, random_state=sampling.short(seed)
    )
    losses = np.zeros(len(grid))
    for once, out in list(folds.split(features_NR[:num], label_N[:num]))[: 1 if many else None]:
        fit, held = (
            np.concatenate([part + copy * num for copy in range(copies)]) for part in (once, out)
        )
        for i, penalty in enumerate(grid):
            model = _fit(features_NR[fit], label_N[fit], penalty)
            probability = model.predict_proba(features_NR[held])
            column = np.searchsorted(model.classes_, label_N[held])
            losses[i] -= np.log(probability[np.arange(len(held)), column].clip(1e-4)).sum()
    return float(grid[losses.argmin()])
