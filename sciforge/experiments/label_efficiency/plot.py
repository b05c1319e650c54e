"""The picture of a label-efficiency curve."""

from pathlib import Path
from typing import Any

import numpy as np

# Okabe and Ito's palette, told apart with every kind of colour vision; grey is left to the baselines.
COLOURS = {"pretrained": "#D55E00", "scratch": "#0072B2", "frozen": "#E69F00"}
COLOURS |= {"adapted": "#009E73", "adapted-control": "#CC79A7"}
OTHERS = ("#009E73", "#CC79A7", "#56B4E9", "#000000", "#7F7F7F", "#B8A000", "#8C564B")
MARKERS = ("s", "^", "D", "v", "P", "X", "*")
WORDS = {"mcc": "MCC", "auroc": "AUROC", "r2": "R²", "rmse": "RMSE", "mae": "MAE"}


def draw(result: Any, path: Path, title: str = "") -> Path:
    """Draw means over the number of labels (log axis) with 95 % bands for nets and bars for the others."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    sizes = np.array(result.sizes, float)
    ends = []
    plain = 0
    others = [c for c in OTHERS if c not in {COLOURS.get(method) for method in result.methods}]
    for method in result.methods:
        found = [result.interval(method, n) for n in result.sizes]
        mean, low, high = (np.array([getattr(f, part) for f in found]) for part in ("value", "low", "high"))
        if method in COLOURS:
            colour = COLOURS[method]
            axes.fill_between(sizes, low, high, color=colour, alpha=0.16, linewidth=0, zorder=2)
            axes.plot(sizes, mean, color=colour, marker="o", linewidth=2.2, markersize=5, zorder=4)
        else:
            colour, marker = others[plain % len(others)], MARKERS[plain % len(MARKERS)]
            style = "--" if result.kinds[method] == "baseline" else "-."
            # Methods are set apart sideways by a hair, so that their bars do not hide one another.
            aside = sizes * 1.018 ** (plain - 2)
            axes.errorbar(aside, mean, np.abs([mean - low, high - mean]), color=colour, marker=marker, linestyle=style,
                          linewidth=1.1, markersize=4, elinewidth=0.8, zorder=3)  # fmt: skip
            plain += 1
        ends.append((mean[-1], method, colour))
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{n:,}" for n in result.sizes])
    axes.minorticks_off()
    axes.set_xlabel("labels")
    axes.set_ylabel(f"test {WORDS.get(result.metric, result.metric)}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.5, alpha=0.35)
    if title:
        axes.set_title(title, loc="left", fontsize=11)
    _name_ends(axes, ends, sizes[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _name_ends(axes: Any, ends: list[tuple[float, str, str]], last: float) -> None:
    """Write each method's name at the end of its line, moved apart where they would touch."""
    low, high = axes.get_ylim()
    apart = (high - low) * 0.052
    places = _apart([mean for mean, _, _ in ends], apart, low + apart / 2, high - apart / 2)
    for (mean, method, colour), place in zip(ends, places, strict=True):
        name = method.replace("scratch:", "").replace("_", " ")
        weight = "bold" if method in COLOURS else "normal"
        axes.annotate(name, (last, mean), (1.015, place), textcoords=("axes fraction", "data"), color=colour, fontsize=8.5,
                      fontweight=weight, va="center", annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.6})  # fmt: skip
    axes.set_ylim(low, high)


def _apart(values: list[float], gap: float, low: float, high: float) -> list[float]:
    """Move values up or down as little as needed for a gap between neighbours, within bounds.

    >>> _apart([0.5, 0.5], 0.1, 0.0, 1.0)
    [0.45, 0.55]
    """
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    placed: list[list[Any]] = []  # blocks [members, centre]
    for i in order:
        placed.append([[i], values[i]])
        while len(placed) > 1 and placed[-1][1] - placed[-2][1] < gap * (len(placed[-1][0]) + len(placed[-2][0])) / 2:
            members, _ = placed.pop()
            joined = placed[-1][0] + members
            placed[-1] = [joined, sum(values[j] for j in joined) / len(joined)]
    found = [0.0] * len(values)
    for members, centre in placed:
        half = gap * (len(members) - 1) / 2
        centre = min(max(centre, low + half), max(high - half, low + half))
        for rank, j in enumerate(members):
            found[j] = round(centre - half + gap * rank, 10)
    return found
