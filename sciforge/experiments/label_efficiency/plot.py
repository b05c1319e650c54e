"""The plot of a label-efficiency curve."""

from typing import Any

import numpy as np

from sciforge.experiments.plots import (
    BLACK,
    GREEN,
    GREY,
    METHOD_COLORS,
    METRIC_NAMES,
    PINK,
    SKY,
    frame,
    new_axes,
)

OTHERS = (GREEN, PINK, SKY, BLACK, GREY, "#B8A000", "#8C564B")
MARKERS = ("s", "^", "D", "v", "P", "X", "*")


def draw(result: Any, ax: Any = None) -> Any:
    """Draw means over the number of labels (log axis) with 95 % bands for networks and bars for
    the others.
    """
    axes = new_axes(ax)
    if len(result.sizes) == 1:
        return _draw_methods(result, axes)
    sizes = np.array(result.sizes, float)
    ends = []
    others = [
        color
        for color in OTHERS
        if color not in {METHOD_COLORS.get(method) for method in result.methods}
    ]
    number = 0
    for method in result.methods:
        intervals = [result.interval(method, n) for n in result.sizes]
        mean, low, high = (
            np.array([getattr(i, part) for i in intervals]) for part in ("value", "low", "high")
        )
        if method in METHOD_COLORS:
            color = METHOD_COLORS[method]
            axes.fill_between(sizes, low, high, color=color, alpha=0.16, linewidth=0, zorder=2)
            axes.plot(sizes, mean, color=color, marker="o", linewidth=2.2, markersize=5, zorder=4)
        else:
            color, marker = others[number % len(others)], MARKERS[number % len(MARKERS)]
            style = "--" if result.kinds[method] == "baseline" else "-."
            # a little sideways, so that bars do not hide one another
            shifted = sizes * 1.018 ** (number - 2)
            options = {
                "color": color,
                "marker": marker,
                "linestyle": style,
                "linewidth": 1.1,
                "markersize": 4,
            }
            axes.errorbar(
                shifted,
                mean,
                np.abs([mean - low, high - mean]),
                elinewidth=0.8,
                zorder=3,
                **options,
            )
            number += 1
        ends.append((mean[-1], method, color))
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{n:,}" for n in result.sizes])
    axes.minorticks_off()
    axes.set_xlabel("labels")
    axes.set_ylabel(f"test {METRIC_NAMES.get(result.metric, result.metric)}")
    frame(axes)
    _name_lines(axes, ends, sizes[-1])
    return axes


def _draw_methods(result: Any, axes: Any) -> Any:
    """Draw the mean of each method at the only number of labels, with its 95 % interval, one row
    a method.
    """
    labels = result.sizes[0]
    for row, method in enumerate(result.methods):
        interval = result.interval(method, labels)
        color = METHOD_COLORS.get(method, GREY)
        reach = np.abs([[interval.value - interval.low], [interval.high - interval.value]])
        width = 2.2 if method in METHOD_COLORS else 1.2
        axes.errorbar(
            [interval.value],
            [row],
            xerr=reach,
            color=color,
            marker="o",
            markersize=6,
            elinewidth=width,
        )
    axes.set_yticks(
        range(len(result.methods)), [method.replace("_", " ") for method in result.methods]
    )
    axes.set_ylim(len(result.methods) - 0.5, -0.5)
    axes.set_xlabel(f"test {METRIC_NAMES.get(result.metric, result.metric)}, {labels:,} labels")
    frame(axes)
    return axes


def _name_lines(axes: Any, ends: list[tuple[float, str, str]], last: float) -> None:
    """Write each method's name at the end of its line, moved apart where they would touch."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.052
    places = _spread([mean for mean, _, _ in ends], gap, low + gap / 2, high - gap / 2)
    for (mean, method, color), place in zip(ends, places, strict=True):
        name = method.replace("untrained:", "").replace("_", " ")
        weight = "bold" if method in METHOD_COLORS else "normal"
        line = {"arrowstyle": "-", "color": color, "lw": 0.5, "alpha": 0.6}
        options = {
            "color": color,
            "fontsize": 8.5,
            "fontweight": weight,
            "va": "center",
            "arrowprops": line,
        }
        position = (1.015, place)
        axes.annotate(
            name,
            (last, mean),
            position,
            textcoords=("axes fraction", "data"),
            annotation_clip=False,
            **options,
        )
    axes.set_ylim(low, high)


def _spread(values: list[float], gap: float, low: float, high: float) -> list[float]:
    """Move values up or down as little as needed for a gap between neighbours, within bounds.

    >>> _spread([0.5, 0.5], 0.1, 0.0, 1.0)
    [0.45, 0.55]
    """
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    placed: list[list[Any]] = []  # blocks [members, centre]
    for i in order:
        placed.append([[i], values[i]])
        while (
            len(placed) > 1
            and placed[-1][1] - placed[-2][1] < gap * (len(placed[-1][0]) + len(placed[-2][0])) / 2
        ):
            members, _ = placed.pop()
            joined = placed[-1][0] + members
            placed[-1] = [joined, sum(values[j] for j in joined) / len(joined)]
    moved = [0.0] * len(values)
    for members, centre in placed:
        half = gap * (len(members) - 1) / 2
        centre = min(max(centre, low + half), max(high - half, low + half))
        for rank, j in enumerate(members):
            moved[j] = round(centre - half + gap * rank, 10)
    return moved
