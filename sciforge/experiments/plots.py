"""What the plots of experiments share: colours, axes, files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sciforge.core.files import results
from sciforge.core.files.output_files import write_whole

# Okabe and Ito's palette, distinguishable with every kind of colour vision.
ORANGE, BLUE, YELLOW, GREEN, PINK, SKY = (
    "#D55E00",
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
)
BLACK, GREY = "#000000", "#7F7F7F"
COLORS = (ORANGE, BLUE, GREEN, PINK, YELLOW, SKY, BLACK, GREY)
METHOD_COLORS = {
    "pretrained": ORANGE,
    "untrained": BLUE,
    "frozen": YELLOW,
    "adapted": GREEN,
    "adapted-control": PINK,
}
METRIC_NAMES = {"mcc": "MCC", "auroc": "AUROC", "r2": "R²", "rmse": "RMSE", "mae": "MAE"}


def new_axes(ax: Any = None, size: tuple[float, float] = (7.2, 4.2)) -> Any:
    """Return `ax`, or the axes of a new pyplot figure where it is None."""
    return results.new_axes(*size) if ax is None else ax


def frame(axes: Any, grid: str | None = "y") -> None:
    """Remove the upper and right spines, and draw a light grid along `x`, `y` or `both`."""
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(axis=grid, linewidth=0.5, alpha=0.35)


def save_figure(
    path: Path, *draws: Callable[[Any], Any], size: tuple[float, float] = (7.2, 4.2)
) -> Path:
    """Draw one or more panels side by side and write them to a file, whole or not at all,
    without pyplot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * len(draws), size[1]), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, draw in zip(figure.subplots(1, len(draws), squeeze=False)[0], draws, strict=True):
        draw(axes)
    return write_whole(
        Path(path), lambda work: figure.savefig(work, format=Path(path).suffix[1:] or "png")
    )
