"""The plot of a forgetting report: the new task's error against the old one's, one line a
method.
"""

import math
from typing import Any

from sciforge.experiments.forgetting.methods import METHODS
from sciforge.experiments.plots import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    YELLOW,
    frame,
    new_axes,
)

# The variants of EWC share a colour and differ in dashes.
STYLES = {
    "start": (GREY, "P", "-"),
    "plain": (BLACK, "*", "-"),
    "frozen": (BLACK, "s", "-"),
    "l2sp": (GREEN, "v", "-"),
    "ewc-exact": (BLUE, "o", "-"),
    "ewc-sampled": (BLUE, "D", "--"),
    "ewc-empirical": (BLUE, "X", ":"),
    "replay": (ORANGE, "^", "-"),
    "lora": (PINK, "p", "-"),
    "ewc+replay": (YELLOW, "h", "-"),
}
WIDE = 20  # a ratio of largest to smallest error beyond which an axis is logarithmic


def draw(result: Any, ax: Any = None) -> Any:
    """Draw means with 95 % bars, lines from weak to strong, and the Pareto front ringed and
    stepped.
    """
    axes = new_axes(ax, (8.0, 4.8))
    errors = {p: (result.old_error(p), result.new_error(p)) for p in result.points}
    errors = {p: pair for p, pair in errors.items() if all(math.isfinite(x.value) for x in pair)}
    for method in dict.fromkeys(point[0] for point in errors):
        _draw_method(axes, method, {p: pair for p, pair in errors.items() if p[0] == method})
    front = sorted((old.value, new.value) for p, (old, new) in errors.items() if p in result.front)
    if front:
        xs, ys = zip(*front, strict=True)
        axes.step(xs, ys, where="post", color=GREY, linewidth=5, alpha=0.25, zorder=1)
        axes.scatter(
            xs, ys, s=130, facecolors="none", edgecolors=GREY, zorder=4, label="Pareto front"
        )
    lines = [result.before.value]
    axes.axvline(lines[0], color=GREY, linewidth=0.8, linestyle="--", label="parent, before")
    if result.budget is not None:
        lines.append(lines[0] * (1 + result.budget))
        label = f"budget +{100 * result.budget:g} %"
        axes.axvline(lines[1], color=ORANGE, linewidth=0.8, linestyle=":", label=label)
    _set_scale(axes.set_xscale, axes.set_xlim, [*lines, *(old.value for old, _ in errors.values())])
    _set_scale(axes.set_yscale, axes.set_ylim, [new.value for _, new in errors.values()])
    axes.set_xlabel(f"old task, {result.old.error} ({result.old.split}); lower is better")
    axes.set_ylabel(f"new task, {result.new.error} ({result.new.split}); lower is better")
    frame(axes, "both")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8.5, frameon=False)
    return axes


def _draw_method(axes: Any, method: str, errors: dict[tuple[str, float], Any]) -> None:
    """Draw the line of one method, from weak to strong, and name its ends by their strength."""
    color, marker, dashes = STYLES[method]
    bars = [
        [[x.value - x.low for x in side], [x.high - x.value for x in side]]
        for side in zip(*errors.values(), strict=True)
    ]
    xs, ys = [old.value for old, _ in errors.values()], [new.value for _, new in errors.values()]
    axes.errorbar(
        xs,
        ys,
        bars[1],
        bars[0],
        color=color,
        linestyle="none",
        elinewidth=0.5,
        alpha=0.35,
        zorder=2,
    )
    axes.plot(
        xs,
        ys,
        dashes,
        color=color,
        marker=marker,
        linewidth=1.4,
        markersize=6,
        label=method,
        zorder=3,
    )
    if method in METHODS and METHODS[method].field:
        points = list(errors)
        for point in {points[0], points[-1]}:
            place = tuple(error.value for error in errors[point])
            offset = {"xytext": (5, 4), "textcoords": "offset points"}
            axes.annotate(f"{point[1]:.3g}", place, fontsize=6.5, color=color, **offset)


def _set_scale(set_scale: Any, set_limits: Any, values: list[float]) -> None:
    """Show all means on a linear or logarithmic axis; bars of few seeds are long and may run out
    of the frame.
    """
    low, high = min(values), max(values)
    if low > 0 and high > WIDE * low:
        set_scale("log")
        set_limits(low * (low / high) ** 0.08, high * (high / low) ** 0.08)
    elif high > low:
        set_limits(low - 0.12 * (high - low), high + 0.12 * (high - low))
