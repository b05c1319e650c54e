"""The plot of a privacy audit: ROC curves on logarithmic axes, which show the few sure guesses."""

from typing import Any

import numpy as np

from sciforge.experiments.plots import BLACK, BLUE, GREEN, GREY, ORANGE, YELLOW, frame, new_axes


def draw(result: Any, ax: Any = None) -> Any:
    """Draw the curves of a PrivacyResult down to the smallest false-positive rate resolved, and
    the promised bound.
    """
    axes = new_axes(ax, (5.2, 4.6))
    smallest = min(attack.smallest for attack in result.attacks)
    rate = np.geomspace(smallest, 1, 200)
    axes.plot(rate, rate, color=GREY, linestyle=":", linewidth=1, label="chance")
    for number, (attack, color) in enumerate(
        zip(result.attacks, (BLUE, ORANGE, YELLOW, GREEN), strict=False)
    ):
        fpr, tpr = attack.curve
        shown = fpr >= attack.smallest * (1 - 1e-9)
        axes.step(
            fpr[shown], tpr[shown], where="post", color=color, linewidth=1.6, label=attack.name
        )
        for point in attack.points:
            # a little sideways, so that bars do not hide one another
            shifted = point.rate * 1.03 ** (number - 1)
            ends = [max(point.tpr.low, smallest), point.tpr.high]
            axes.plot([shifted] * 2, ends, color=color, linewidth=0.8, alpha=0.7)
    if promise := result.promise(result.attacks[0]):
        bound = np.exp(min(promise["epsilon"], 700)) * rate + promise["delta"]
        axes.plot(
            rate,
            np.minimum(bound, 1),
            color=BLACK,
            linestyle="--",
            linewidth=1,
            label="promised bound",
        )
    axes.set(xscale="log", yscale="log", xlim=(smallest, 1), ylim=(smallest, 1.05))
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
    frame(axes, "both")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return axes
