"""Overlap, suppression and average precision against cases worked by hand."""

import numpy as np
import pytest

from sciforge.images.data.boxes import (
    average_precision,
    interpolated,
    matched,
    mean_average_precision,
    overlaps,
    suppressed,
)


def found(
    boxes: list, scores: list | None = None, labels: list | None = None
) -> dict[str, np.ndarray]:
    labels = [0] * len(boxes) if labels is None else labels
    made = {"boxes": np.array(boxes, float).reshape(-1, 4), "labels": np.array(labels, int)}
    return made if scores is None else {**made, "scores": np.array(scores, float)}


BOX = [0, 0, 10, 10]
FAR = [50, 50, 60, 60]


def test_overlaps_by_hand():
    one = np.array([BOX, [5, 5, 15, 15]])
    other = np.array([BOX, [0, 0, 10, 5], [10, 0, 20, 10], [2, 2, 2, 2]])
    expected = [[1, 0.5, 0, 0], [25 / 175, 0, 25 / 175, 0]]
    assert np.allclose(overlaps(one, other), expected, atol=1e-15)
    assert overlaps(np.zeros((0, 4)), other).shape == (0, 4)
    assert overlaps(np.array([[3, 3, 3, 3]]), np.array([[3, 3, 3, 3]])).tolist() == [[0]]


def test_suppression_is_by_class_and_by_score():
    boxes = np.array([BOX, [1, 0, 11, 10], [2, 0, 12, 10], FAR])
    scores, labels = np.array([0.8, 0.9, 0.7, 0.1]), np.array([0, 0, 1, 0])
    assert suppressed(boxes, scores, labels, 0.5).tolist() == [1, 2, 3]
    assert suppressed(boxes, scores, np.zeros(4, int), 0.9).tolist() == [1, 0, 2, 3]
    assert suppressed(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)).tolist() == []


def test_perfect_and_hopeless():
    truth = [found([BOX, FAR])]
    assert average_precision([found([BOX, FAR], [0.9, 0.2])], truth) == 1.0
    assert mean_average_precision([found([BOX, FAR], [0.9, 0.2])], truth) == 1.0
    assert average_precision([found([], [])], truth) == 0.0
    assert average_precision([found([BOX, FAR], [0.9, 0.2], [1, 1])], truth) == 0.0
    assert np.isnan(average_precision([found([BOX], [0.9])], [found([])]))
    with pytest.raises(ValueError, match="1 predictions for 2"):
        average_precision([found([BOX], [0.9])], truth * 2)


def test_a_hand_worked_curve():
    # Right, wrong, right of 2 true boxes: precision 1 up to recall 1/2 (recalls 0 to .50, 51 of
    # them), then 2/3 (50).
    prediction = [found([BOX, [80, 80, 90, 90], FAR], [0.9, 0.8, 0.7])]
    expected = (51 * 1.0 + 50 * 2 / 3) / 101
    assert average_precision(prediction, [found([BOX, FAR])]) == pytest.approx(expected, abs=1e-15)
    # Only one of two is found: precision 1 at 51 recalls, then 0.
    assert average_precision([found([BOX], [0.9])], [found([BOX, FAR])]) == pytest.approx(
        51 / 101, abs=1e-15
    )


def test_the_second_detection_of_an_object_is_wrong():
    prediction = [found([BOX, BOX, FAR], [0.9, 0.8, 0.7])]
    assert average_precision(prediction, [found([BOX, FAR])]) == pytest.approx(
        (51 + 50 * 2 / 3) / 101, abs=1e-15
    )


def test_scores_are_ranked_over_all_pictures():
    truths = [found([BOX]), found([BOX])]
    good = [found([BOX], [0.9]), found([BOX, FAR], [0.8, 0.1])]
    bad = [found([BOX], [0.9]), found([BOX, FAR], [0.1, 0.95])]
    assert average_precision(good, truths) == 1.0
    # Wrong, right, right: the envelope of 0, 1/2, 2/3 is 2/3 everywhere.
    assert average_precision(bad, truths) == pytest.approx(2 / 3, abs=1e-15)


def test_thresholds():
    # Overlap of exactly 0.8: right at seven thresholds, .50 to .80, of ten.
    prediction = [found([[0, 0, 10, 8]], [0.5])]
    assert mean_average_precision(prediction, [found([BOX])]) == pytest.approx(0.7, abs=1e-12)
    assert average_precision(prediction, [found([BOX])], 0.8) == 1.0
    assert average_precision(prediction, [found([BOX])], 0.85) == 0.0


def test_classes_are_averaged_and_those_without_truth_left_out():
    truth = [found([BOX, FAR], labels=[0, 1])]
    prediction = [found([BOX, FAR, FAR], [0.9, 0.9, 0.9], [0, 2, 3])]
    assert average_precision(prediction, truth) == 0.5


def test_only_a_hundred_detections_of_a_picture_count():
    clutter = [[k * 20 + 100, 0, k * 20 + 110, 5] for k in range(100)]
    last = found([*clutter, BOX], [*np.linspace(1, 0.5, 100), 0.4])
    assert average_precision([last], [found([BOX])]) == 0.0
    fewer = found([*clutter[1:], BOX], [*np.linspace(1, 0.5, 99), 0.4])
    assert average_precision([fewer], [found([BOX])]) == pytest.approx(0.01, abs=1e-15)


def test_matching_takes_the_best_free_box():
    assert matched(np.array([[0.9, 0.6], [0.8, 0.55]]), 0.5).tolist() == [True, True]
    assert matched(np.array([[0.9, 0.6], [0.8, 0.45]]), 0.5).tolist() == [True, False]
    assert matched(np.zeros((2, 0)), 0.5).tolist() == [False, False]
    assert interpolated(np.zeros(0, bool), 3) == 0.0
