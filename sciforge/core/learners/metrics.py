"""Metrics that several domains share."""

import numpy as np


def classification_metrics(labels_N: np.ndarray, probability_NC: np.ndarray) -> dict[str, float]:
    """Return accuracy, MCC at the largest probability and, for two classes, AUROC and average
    precision of the second.

    `collapsed` is 1 when every prediction is one class although the labels are not (DNABERT #78,
    DNABERT_2 #125).
    """
    # imported here, as everywhere: preparing data should not pay 90 MB for it
    from sklearn.metrics import (
        accuracy_score,
        average_precision_score,
        matthews_corrcoef,
        roc_auc_score,
    )

    predicted_N = probability_NC.argmax(-1)
    metrics = {
        "accuracy": float(accuracy_score(labels_N, predicted_N)),
        "mcc": float(matthews_corrcoef(labels_N, predicted_N)),
        "collapsed": float(len(np.unique(predicted_N)) == 1 < len(np.unique(labels_N))),
    }
    if probability_NC.shape[1] == 2 and len(np.unique(labels_N)) == 2:
        metrics["auroc"] = float(roc_auc_score(labels_N, probability_NC[:, 1]))
        metrics["average_precision"] = float(
            average_precision_score(labels_N, probability_NC[:, 1])
        )
    return metrics


def regression_metrics(target_N: np.ndarray, predicted_N: np.ndarray) -> dict[str, float]:
    """Return root mean squared error, mean absolute error, R2 and Pearson correlation."""
    error_N = predicted_N - target_N
    variation = float(((target_N - target_N.mean()) ** 2).sum())
    both_vary = len(target_N) > 1 and target_N.std() > 0 and predicted_N.std() > 0
    return {
        "rmse": float(np.sqrt((error_N**2).mean())),
        "mae": float(np.abs(error_N).mean()),
        "r2": 1 - float((error_N**2).sum()) / variation if variation else 0.0,
        "pearson": float(np.corrcoef(target_N, predicted_N)[0, 1]) if both_vary else 0.0,
    }
