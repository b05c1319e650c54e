"""Sheets of images in one matplotlib Axes: rows of panels with titles, boxes and maps laid over
them.

Legend of shape letters: H rows, W columns, C channels, R rows of patches, S columns of patches.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.files.output_files import write_whole
from sciforge.core.files.results import Result, new_axes
from sciforge.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

INCHES = 1.5  # side of a panel
GAP, HEADING = 0.06, 0.14  # between panels and above one with a title, as shares of its side
# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#FFFFFF")


@dataclass(frozen=True)
class Box:
    """A box to draw: (x0, y0, x1, y1) in pixels, what to write at it, and the number of its
    colour; dashed for a true one.
    """

    corners: tuple[float, float, float, float]
    text: str = ""
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """An image uint8 [H, W, C], a title, boxes over it, and a map [R, S] laid over it from dark
    to light.
    """

    image: np.ndarray
    title: str = ""
    boxes: tuple[Box, ...] = ()
    map: np.ndarray | None = None


class ImageSheet(Result):
    """A table about images, and a sheet of panels that shows them.

    Args:
        frame: the table.
        rows: panels, row by row.
        names: of the rows, at their left.
        about: where they come from, as JSON values.
    """

    def __init__(
        self,
        frame: "pd.DataFrame",
        rows: Sequence[Sequence[Panel]],
        names: Sequence[str] = (),
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.frame, self.rows, self.names, self._about = (
            frame,
            rows,
            tuple(names),
            dict(about or {}),
        )

    @property
    def about(self) -> dict[str, Any]:
        """Where the images come from, as JSON values."""
        return self._about

    def to_pandas(self) -> "pd.DataFrame":
        """Return the table."""
        return self.frame

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the sheet; as `Result.plot`."""
        return draw_sheet(self.rows, self.names, ax)

    def save(self, path: Path | str) -> Path:
        """Write the table (.csv, .tsv) or the sheet (.png, .pdf, .svg); return the path."""
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix in (".csv", ".tsv"):
            return super().save(path)
        if suffix not in (".png", ".pdf", ".svg"):
            raise ConfigError(
                f"{path}: images are written as .png, .pdf or .svg, tables as .csv or .tsv;"
                " rename it"
            )
        return write_whole(path, lambda work: self._write(work, suffix[1:]))

    def _write(self, target: Any, kind: str) -> None:
        import matplotlib.pyplot as plt

        figure = self.plot().figure
        try:
            figure.savefig(target, dpi=150, format=kind)
        finally:
            plt.close(figure)

    def _repr_html_(self) -> str:
        picture = io.BytesIO()
        self._write(picture, "png")
        data = base64.b64encode(picture.getvalue()).decode()
        return f'<img alt="{len(self.frame)} rows" src="data:image/png;base64,{data}">'


def draw_sheet(
    rows: Sequence[Sequence[Panel]], names: Sequence[str] = (), ax: "Axes | None" = None
) -> "Axes":
    """Draw rows of panels in one Axes, each row with its name at the left.

    Raises:
        ConfigError: there is no panel.
    """
    panels = [panel for row in rows for panel in row]
    if not panels:
        raise ConfigError("there is no image to draw")
    height, width = (max(panel.image.shape[axis] for panel in panels) for axis in (0, 1))
    heading = HEADING * height if any(panel.title for panel in panels) else 0.0
    step_x, step_y = width * (1 + GAP), height * (1 + GAP) + heading
    columns = max(map(len, rows))
    ax = (
        new_axes(columns * INCHES + 0.3, len(rows) * INCHES * step_y / height) if ax is None else ax
    )
    for number, row in enumerate(rows):
        for column, panel in enumerate(row):
            _draw(ax, panel, column * step_x, number * step_y + heading)
        if number < len(names):
            middle = number * step_y + heading + height / 2
            ax.text(
                -GAP * width,
                middle,
                names[number],
                rotation=90,
                ha="right",
                va="center",
                fontsize=9,
            )
    ax.set(xlim=(-GAP * width, columns * step_x), ylim=(len(rows) * step_y, 0), aspect="equal")
    ax.axis("off")
    return ax


def _draw(ax: "Axes", panel: Panel, left: float, top: float) -> None:
    """Draw one panel with its upper left corner at (left, top), in pixels of the sheet."""
    from matplotlib.patches import Rectangle

    height, width, channels = panel.image.shape
    options = {"extent": (left, left + width, top + height, top), "interpolation": "nearest"}
    grey = {"cmap": "gray", "vmin": 0, "vmax": 255}
    if panel.map is None:
        colours = grey if channels == 1 else {}
        ax.imshow(panel.image[..., 0] if channels == 1 else panel.image, **options, **colours)
    else:
        ax.imshow(panel.image.mean(2), **options, **grey)
        shade = {"cmap": "inferno", "alpha": 0.7, "vmin": 0, "interpolation": "bilinear"}
        ax.imshow(panel.map, **{**options, **shade})
    if panel.title:
        ax.text(
            left + width / 2,
            top - GAP * height / 2,
            panel.title,
            ha="center",
            va="bottom",
            fontsize=8,
        )
    for box in panel.boxes:
        x0, y0, x1, y1 = box.corners
        colour = COLOURS[box.colour % len(COLOURS)]
        style = {"ls": "--" if box.dashed else "-", "lw": 1.4, "ec": colour, "fc": "none"}
        ax.add_patch(Rectangle((left + x0, top + y0), x1 - x0, y1 - y0, **style))
        if box.text:  # above the box, or below it at the image's upper rim
            above = y0 > height / 8
            at = {"y": top + (y0 if above else y1), "va": "bottom" if above else "top"}
            background = {"fc": colour, "ec": "none", "pad": 0.6}
            ax.text(
                left + x0,
                s=box.text,
                fontsize=5.5,
                color="black",
                clip_on=True,
                bbox=background,
                **at,
            )
