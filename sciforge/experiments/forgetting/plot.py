"""The picture of a forgetting report: the new task's error against the old one's, one line a method."""

import math
from pathlib import Path
from typing import Any

from sciforge.core.files.output_files import write_whole
from sciforge.experiments.forgetting.methods import METHODS

# Okabe and Ito's palette, told apart with every kind of colour vision; the EWCs share a hue and differ in dashes.
STYLES = {
    "start": ("#7F7F7F", "P", "-"),
    "plain": ("#000000", "*", "-"),
    "frozen": ("#000000", "s", "-"),
    "l2sp": ("#009E73", "v", "-"),
    "ewc-exact": ("#0072B2", "o", "-"),
    "ewc-sampled": ("#0072B2", "D", "--"),
    "ewc-empirical": ("#0072B2", "X", ":"),
    "replay": ("#D55E00", "^", "-"),
    "lora": ("#CC79A7", "p", "-"),
    "ewc+replay": ("#E69F00", "h", "-"),
}
WIDE = 20  # a ratio of largest to smallest error beyond which an axis is logarithmic


def draw(result: Any, path: Path, title: str = "") -> Path:
    """Draw means with 95 % bars, lines from weak to strong, the Pareto front ringed and stepped."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(8.0, 4.8), dpi=200, layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.add_subplot()
    spots = {p: (result.old_error(p), result.new_error(p)) for p in result.points}
    spots = {p: pair for p, pair in spots.items() if all(math.isfinite(x.value) for x in pair)}
    for method in dict.fromkeys(p[0] for p in spots):
        colour, marker, dashes = STYLES[method]
        pairs = [pair for p, pair in spots.items() if p[0] == method]
        bars = [
            [[x.value - x.low for x in axis], [x.high - x.value for x in axis]] for axis in zip(*pairs, strict=True)
        ]
        xs, ys = [old.value for old, _ in pairs], [new.value for _, new in pairs]
        axes.errorbar(xs, ys, bars[1], bars[0], color=colour, linestyle="none", elinewidth=0.5, alpha=0.35, zorder=2)
        axes.plot(
            xs, ys, color=colour, marker=marker, linestyle=dashes, linewidth=1.4, markersize=6, label=method, zorder=3
        )
        _name_ends(axes, [p for p in spots if p[0] == method], spots, colour)
    front = sorted((old.value, new.value) for p, (old, new) in spots.items() if p in result.front)
    axes.step(*zip(*front, strict=True), where="post", color="#7F7F7F", linewidth=5, alpha=0.25, zorder=1)
    axes.scatter(
        *zip(*front, strict=True), s=130, facecolors="none", edgecolors="#7F7F7F", zorder=4, label="Pareto front"
    )
    axes.axvline(result.before[0], color="#7F7F7F", linewidth=0.8, linestyle="--", label="base, before")
    if result.budget is not None:
        limit = result.before[0] * (1 + result.budget)
        axes.axvline(limit, color="#D55E00", linewidth=0.8, linestyle=":", label=f"budget +{100 * result.budget:g} %")
    lines = [result.before[0], *([result.before[0] * (1 + result.budget)] if result.budget is not None else [])]
    _frame(axes.set_xscale, axes.set_xlim, [*lines, *(old.value for old, _ in spots.values())])
    _frame(axes.set_yscale, axes.set_ylim, [new.value for _, new in spots.values()])
    axes.set_xlabel(f"old task, {result.old.error} ({result.old.split})")
    axes.set_ylabel(f"new task, {result.new.error} ({result.new.split})")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(linewidth=0.5, alpha=0.35)
    axes.set_title(title or "Forgetting: lower left is better", loc="left", fontsize=11)
    drawing.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8.5, frameon=False)
    return write_whole(path, lambda work: drawing.savefig(work, format=Path(path).suffix[1:]))


def _frame(set_scale: Any, set_limits: Any, values: list[float]) -> None:
    """Show all means on a linear or logarithmic axis; bars of few seeds are long and may run out of the frame."""
    low, high = min(values), max(values)
    if low > 0 and high > WIDE * low:
        set_scale("log")
        set_limits(low * (low / high) ** 0.08, high * (high / low) ** 0.08)
    elif high > low:
        set_limits(low - 0.12 * (high - low), high + 0.12 * (high - low))


def _name_ends(axes: Any, points: list[tuple[str, float]], spots: Any, colour: str) -> None:
    """Write the knob's value at the weakest and the strongest point of a line."""
    if not METHODS.get(points[0][0]) or not METHODS[points[0][0]].ladder:
        return
    for point in {points[0], points[-1]}:
        old, new = spots[point]
        axes.annotate(f"{point[1]:.3g}", (old.value, new.value), (5, 4), textcoords="offset points", fontsize=6.5,
                      color=colour)  # fmt: skip
