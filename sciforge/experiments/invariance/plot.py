"""The picture of an invariance report: how far each augmentation moves the embedding, and what it leaves of the labels."""

from pathlib import Path
from typing import Any

from sciforge.experiments.privacy.plot import COLOURS

LEAST = 1e-17  # what did not move at all is drawn here, on the logarithmic axis
# Part of a LabelInformation -> how it is told and drawn: filled as the records are, hollow as the augmentation draws them.
DRAWN = {
    "nuisance": ("in what is scrambled", "o", COLOURS[0], True),
    "nuisance_after": ("the same, afterwards", "o", COLOURS[0], False),
    "embedding": ("in the embedding", "s", COLOURS[1], True),
    "embedding_after": ("the same, afterwards", "s", COLOURS[1], False),
}


def draw(result: Any, path: Path) -> Path:
    """Draw an InvarianceResult: shifts on the left, on the right the share of each label that a linear reader explains."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [(found, label) for found in result.metrics for label in found.labels or (None,)]
    figure = Figure(figsize=(8.6, 1.9 + 0.62 * len(rows)), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 3))
    for place, (found, label) in enumerate(rows):
        shift = found.shift
        left.plot([max(shift.low, LEAST), max(shift.high, LEAST)], [place] * 2, color="#000000", linewidth=1)
        left.plot(max(shift.value, LEAST), place, "o", color="#000000", markersize=5)
        if label is not None:
            _label(right, place, label)
    left.set(xscale="log", xlabel="shift of the embedding\n(in distances between two records)")
    left.set_xlim(min(LEAST, left.get_xlim()[0]), max(10, left.get_xlim()[1]))
    left.axvline(1, color="#7F7F7F", linestyle=":", linewidth=1)
    names = [found.name if label is None else f"{found.name}\n({label.label})" for found, label in rows]
    left.set_yticks(range(len(rows)), names, fontsize=8, parse_math=False)
    left.set_ylim(len(rows) - 0.5, -0.5)
    right.set_xlabel("share of the label that a linear reader explains")
    right.axvline(0, color="#7F7F7F", linestyle=":", linewidth=1)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", linewidth=0.5, alpha=0.35)
    if any(label is not None for _, label in rows):
        figure.legend(*right.get_legend_handles_labels(), loc="outside upper right", frameon=False, fontsize=8, ncols=3)
    figure.savefig(path, format="png")
    return path


def _label(axes: Any, place: int, label: Any) -> None:
    """Draw the four shares of one label with their intervals, and what chance gives."""
    first = not axes.get_legend_handles_labels()[0]
    for turn, (part, (said, marker, colour, filled)) in enumerate(DRAWN.items()):
        found, at = getattr(label, part), place + 0.16 * (turn - 1.5)
        axes.plot([found.low, found.high], [at] * 2, color=colour, linewidth=1)
        face = colour if filled else "#FFFFFF"
        axes.plot(found.value, at, marker, color=colour, markerfacecolor=face, label=said if first else None)
    for part, at in (("nuisance", place - 0.16), ("embedding", place + 0.16)):
        chance = getattr(label, part).chance
        axes.plot(
            [chance] * 2,
            [at - 0.14, at + 0.14],
            color="#7F7F7F",
            label="chance" if first and part == "nuisance" else None,
        )
