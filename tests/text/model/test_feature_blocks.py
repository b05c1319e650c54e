"""Blocks of features solved apart and weighed: what is believed, and that nothing is lost by a
block of noise.
"""

import numpy as np
import pytest

from sciforge.core.learners.linear_probe import fit_logistic
from sciforge.text.model.feature_blocks import fit_fused, held_out_scores, weigh


def made(
    seed: int, count: int, strengths: tuple[float, ...], classes: int = 2
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return blocks of 20 columns, each carrying the class in so far, and balanced labels."""
    rng = np.random.default_rng(seed)
    label_N = np.arange(count) % classes
    return [
        rng.normal(size=(count, 20)) + s * np.eye(classes, 20)[label_N] for s in strengths
    ], label_N


def accuracy(
    weights: list[np.ndarray], bias: np.ndarray, blocks: list[np.ndarray], label_N: np.ndarray
) -> float:
    """Return the share of right answers of summed scores."""
    score_NC = sum(block @ weight.T for block, weight in zip(blocks, weights, strict=True)) + bias
    return float((score_NC.argmax(1) == label_N).mean())


@pytest.mark.parametrize("classes", [2, 3])
def test_two_informed_blocks_beat_either(classes: int):
    blocks, label_N = made(0, 300, (1.5, 1.5), classes)
    unseen, truth_N = made(1, 3000, (1.5, 1.5), classes)
    weights, bias = fit_fused(blocks, label_N, classes, seed=0)
    alone = [
        accuracy([w], b, [block], truth_N)
        for block, (w, b) in zip(
            unseen, (fit_logistic(block, label_N, classes, 0) for block in blocks), strict=True
        )
    ]
    assert accuracy(weights, bias, unseen, truth_N) > max(alone) + 0.02


def test_a_block_of_noise_is_hardly_believed():
    blocks, label_N = made(0, 120, (3.0, 0.0))
    unseen, truth_N = made(1, 3000, (3.0, 0.0))
    share_K = weigh(held_out_scores(blocks, label_N, 2, 0, fit_logistic), label_N)
    assert share_K[1] < 0.3 * share_K[0] and (share_K >= 0).all()
    weights, bias = fit_fused(blocks, label_N, 2, seed=0)
    weight, alone = fit_logistic(blocks[0], label_N, 2, 0)
    assert (
        accuracy(weights, bias, unseen, truth_N)
        > accuracy([weight], alone, unseen[:1], truth_N) - 0.01
    )


def test_one_block_is_the_plain_head():
    blocks, label_N = made(0, 40, (1.0,))
    weights, bias = fit_fused(blocks, label_N, 2, seed=3)
    weight, plain = fit_logistic(blocks[0], label_N, 2, 3)
    assert np.array_equal(weights[0], weight) and np.array_equal(bias, plain)


def test_scores_are_of_documents_not_seen():
    blocks, label_N = made(0, 60, (0.0,))
    seen = []
    held_out_scores(
        blocks,
        label_N,
        2,
        0,
        lambda x, y, c, s: (seen.append(len(x)), (np.zeros((c, 20)), np.zeros(c)))[1],
    )
    assert seen == [48] * 5


@pytest.mark.parametrize("label_N", [np.array([0, 1, 1, 1]), np.array([0, 0, 0]), np.array([1])])
def test_too_few_labels_to_weigh_by(label_N: np.ndarray):
    blocks = [np.random.default_rng(k).normal(size=(len(label_N), 5)) for k in range(2)]
    weights, bias = fit_fused(blocks, label_N, 2, seed=0)
    singles = [fit_logistic(block, label_N, 2, 0) for block in blocks]
    score_NC = sum(block @ weight.T for block, weight in zip(blocks, weights, strict=True)) + bias
    assert np.isfinite(score_NC).all()
    assert len(set(label_N.tolist())) > 1 or (score_NC.argmax(1) == label_N).all()
    # one example of a class: no fold can hold it out, and the shares are equal
    if len(label_N) in (1, 4):
        assert all(
            np.allclose(weight, single[0] / 2)
            for weight, single in zip(weights, singles, strict=True)
        )
