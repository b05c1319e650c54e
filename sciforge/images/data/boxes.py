"""Boxes: how far two overlap, which of many detections to keep, and average precision by COCO's
rule.

Boxes are (x0, y0, x1, y1) in pixels, far edges not included. Detections of a picture are a mapping
of `boxes` [K, 4], `scores` [K] and `labels` [K]; the truth has `boxes` and `labels`.

Legend of shape letters: K boxes of a picture, N and M boxes, D detections of all pictures.
Source: Lin et al. 2014 (arXiv 1405.0312) and the rules of its evaluation, pycocotools.
"""

from collections.abc import Mapping, Sequence

import numpy as np

MOST = 100  # detections of a picture that count, those of the highest scores
RECALLS = np.linspace(0.0, 1.0, 101)
THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())

Found = Mapping[str, np.ndarray]


def areas(box_N4: np.ndarray) -> np.ndarray:
    """Return the area of boxes [N], 0 where the corners are the wrong way round.

    >>> areas(np.array([[0, 0, 2, 3], [1, 1, 0, 0]])).tolist()
    [6, 0]
    """
    return np.maximum(box_N4[:, 2] - box_N4[:, 0], 0) * np.maximum(box_N4[:, 3] - box_N4[:, 1], 0)


def overlaps(one_N4: np.ndarray, other_M4: np.ndarray) -> np.ndarray:
    """Return intersection over union [N, M] in float64; 0 where both are empty.

    >>> others = np.array([[0, 0, 2, 1], [1, 1, 3, 3], [5, 5, 6, 6]])
    >>> overlaps(np.array([[0, 0, 2, 2]]), others).round(3).tolist()
    [[0.5, 0.143, 0.0]]
    """
    one, other = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (one_N4, other_M4))
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    union = areas(one)[:, None] + areas(other)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def suppressed(
    box_N4: np.ndarray, score_N: np.ndarray, label_N: np.ndarray, threshold: float = 0.5
) -> np.ndarray:
    """Return the places of detections to keep, best first: each that overlaps no better one of its
    class by more.

    Greedy non-maximum suppression; equal scores keep their order.

    >>> boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 5], [9, 9, 12, 12]])
    >>> suppressed(boxes, np.array([0.5, 0.9, 0.1]), np.array([0, 0, 0])).tolist()
    [1, 2]
    """
    order = np.argsort(-np.asarray(score_N, np.float64), kind="stable")
    clash_NN = (overlaps(box_N4, box_N4) > threshold) & (label_N[:, None] == label_N[None])
    kept: list[int] = []
    for place in order:
        if not clash_NN[place, kept].any():
            kept.append(int(place))
    return np.array(kept, np.int64)


def average_precision(
    predictions: Sequence[Found], truths: Sequence[Found], threshold: float = 0.5
) -> float:
    """Return average precision at an overlap, the mean over the classes of which there is a true
    box; NaN without any.

    Precision is read at 101 recalls, made non-increasing first.

    Raises:
        ValueError: predictions and truths are not as many.
    """
    precisions = [
        _class_precision(predictions, truths, label, (threshold,))[0]
        for label in _classes(predictions, truths)
    ]
    return float(np.mean(precisions)) if precisions else float("nan")


def mean_average_precision(
    predictions: Sequence[Found], truths: Sequence[Found], thresholds: Sequence[float] = THRESHOLDS
) -> float:
    """Return COCO's AP: average precision, the mean over overlaps from 0.5 to 0.95 as well; NaN
    without true boxes.
    """
    precisions = [
        _class_precision(predictions, truths, label, thresholds)
        for label in _classes(predictions, truths)
    ]
    return float(np.mean(precisions)) if precisions else float("nan")


def _classes(predictions: Sequence[Found], truths: Sequence[Found]) -> list[int]:
    if len(predictions) != len(truths):
        raise ValueError(
            f"{len(predictions)} predictions for {len(truths)} pictures; give one for each"
        )
    return sorted({int(label) for truth in truths for label in truth["labels"]})


def _class_precision(
    predictions: Sequence[Found], truths: Sequence[Found], label: int, thresholds: Sequence[float]
) -> list[float]:
    """Return the average precision of one class at each overlap."""
    scores, hits, total = [], [], 0
    for predicted, truth in zip(predictions, truths, strict=True):
        true_K4 = np.asarray(truth["boxes"]).reshape(-1, 4)[np.asarray(truth["labels"]) == label]
        own = np.flatnonzero(np.asarray(predicted["labels"]) == label)
        best = own[np.argsort(-np.asarray(predicted["scores"], np.float64)[own], kind="stable")][
            :MOST
        ]
        overlap = overlaps(np.asarray(predicted["boxes"]).reshape(-1, 4)[best], true_K4)
        scores.append(np.asarray(predicted["scores"], np.float64)[best])
        hits.append(
            np.array([matched(overlap, threshold) for threshold in thresholds]).reshape(
                len(thresholds), -1
            )
        )
        total += len(true_K4)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return [interpolated(hit_D[order], total) for hit_D in np.concatenate(hits, axis=1)]


def matched(overlap_NM: np.ndarray, threshold: float) -> np.ndarray:
    """Return which detections, best first, are right [N]: each takes the free true box that it
    overlaps most.

    >>> matched(np.array([[0.6, 0.7], [0.9, 0.8], [0.5, 0.0]]), 0.5).tolist()
    [True, True, False]
    """
    free = np.ones(overlap_NM.shape[1], bool)
    right = np.zeros(len(overlap_NM), bool)
    for place, row in enumerate(overlap_NM):
        open_M = np.where(free, row, -1.0)
        if len(open_M) and open_M.max() >= threshold - 1e-10:
            # of equal overlaps the last, as pycocotools
            free[len(open_M) - 1 - int(open_M[::-1].argmax())] = False
            right[place] = True
    return right


def interpolated(hit_D: np.ndarray, total: int) -> float:
    """Return the mean over 101 recalls of the best precision at that recall or beyond.

    Args:
        hit_D: whether each detection is right, best score first.
        total: true boxes.

    >>> round(interpolated(np.array([True, False, True]), 2), 6)
    0.834983
    """
    right = np.cumsum(hit_D)
    recall, precision = right / total, right / np.arange(1, len(hit_D) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    return float(np.where(places < len(precision), np.append(precision, 0.0)[places], 0.0).mean())
