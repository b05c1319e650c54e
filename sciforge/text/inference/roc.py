"""Pictures of a classifier of two classes: the ROC curve, and how the scores of the two classes lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sciforge.errors import DataError

DRAWS = 1000  # of the bootstrap
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"


@dataclass(frozen=True)
class Roc:
    """A ROC curve (false and true positive rates by falling threshold) and its area with a 95 % bootstrap interval."""

    false_T: np.ndarray
    true_T: np.ndarray
    threshold_T: np.ndarray
    auc: float
    low: float
    high: float


def roc(positive_N: np.ndarray, score_N: np.ndarray, seed: int = 0) -> Roc:
    """Return the ROC curve of scores; documents are redrawn within each class for the interval.

    Args:
        positive_N: bool.
        score_N: higher is more likely positive.
        seed: of the bootstrap.

    Raises:
        DataError: a class has no document.

    >>> roc(np.array([False, True, False, True]), np.array([0.1, 0.4, 0.35, 0.8])).auc
    1.0
    """
    from sklearn.metrics import roc_curve

    if not positive_N.any() or positive_N.all():
        raise DataError("a ROC curve needs documents of both classes; give labelled data of both")
    false_T, true_T, threshold_T = roc_curve(positive_N, score_N)
    rng = np.random.default_rng(seed)
    yes, no = np.sort(score_N[positive_N]), np.sort(score_N[~positive_N])
    drawn = [area(rng.choice(yes, len(yes)), np.sort(rng.choice(no, len(no)))) for _ in range(DRAWS)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Roc(false_T, true_T, threshold_T, area(yes, no), float(low), float(high))


def area(positive_N: np.ndarray, negative_M: np.ndarray) -> float:
    """Return the share of pairs in which the positive has the higher score, ties as half; negatives are sorted.

    >>> area(np.array([1.0, 3.0]), np.array([1.0, 2.0]))
    0.625
    """
    below = np.searchsorted(negative_M, positive_N, side="left") + np.searchsorted(negative_M, positive_N, side="right")
    return float(below.mean() / 2 / len(negative_M))


def draw_roc(path: Path, curve: Roc, positive_N: np.ndarray, score_N: np.ndarray, names: Sequence[str]) -> Path:
    """Draw the curve beside the distributions of the scores (probabilities) of both classes; PNG.

    Args:
        path: to write.
        curve: of these scores.
        positive_N: bool.
        score_N: probability of the positive class.
        names: of the negative and the positive class.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained", width_ratios=(1, 1.3))
    left.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    left.step(curve.false_T, curve.true_T, where="post", color=BLUE, lw=1.8)
    left.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal")
    left.text(0.97, 0.06, f"AUC {curve.auc:.3f}\n95 %: {curve.low:.3f} to {curve.high:.3f}", ha="right", fontsize=9)
    bins = np.linspace(0, 1, 26)
    for chosen, name, colour in ((~positive_N, names[0], ORANGE), (positive_N, names[1], BLUE)):
        label = f"{name} ({int(chosen.sum())})"
        right.hist(score_N[chosen], bins, color=colour, alpha=0.35, density=True)
        right.hist(score_N[chosen], bins, color=colour, histtype="step", lw=1.6, density=True, label=label)
    right.set(xlabel=f"probability of {names[1]!r}", ylabel="density of documents", xlim=(0, 1))
    right.legend(frameon=False, fontsize=9, loc="upper center")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, format="png")
    pyplot.close(figure)
    return path
