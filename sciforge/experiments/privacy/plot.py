"""The picture of a privacy audit: ROC curves on logarithmic axes, where the few sure guesses show."""

from pathlib import Path
from typing import Any

import numpy as np

# Okabe and Ito's palette, told apart with every kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#009E73")


def draw(result: Any, path: Path) -> Path:
    """Draw the curves of a PrivacyResult down to the smallest false-positive rate resolved, and the promised bound."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.6), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    least = min(attack.smallest for attack in result.attacks)
    rate = np.geomspace(least, 1, 200)
    axes.plot(rate, rate, color="#7F7F7F", linestyle=":", linewidth=1, label="chance")
    for turn, (attack, colour) in enumerate(zip(result.attacks, COLOURS, strict=False)):
        fpr, tpr = attack.curve
        shown = fpr >= attack.smallest * (1 - 1e-9)
        axes.step(fpr[shown], tpr[shown], where="post", color=colour, linewidth=1.6, label=attack.name)
        for point in attack.points:
            aside = point.rate * 1.03 ** (turn - 1)  # a hair sideways, so that bars do not hide one another
            ends = [max(point.tpr.low, least), point.tpr.high]
            axes.plot([aside] * 2, ends, color=colour, linewidth=0.8, alpha=0.7)
    if promise := result.promise(result.attacks[0]):
        most = np.exp(min(promise["epsilon"], 700)) * rate + promise["delta"]
        axes.plot(rate, np.minimum(most, 1), color="#000000", linestyle="--", linewidth=1, label="promised bound")
    axes.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1.05))
    axes.set_xlabel("false-positive rate")
    axes.set_ylabel("true-positive rate")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(linewidth=0.5, alpha=0.35)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, format="png")
    return path
