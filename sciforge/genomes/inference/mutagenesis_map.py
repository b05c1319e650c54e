"""A map of base changes: a row a base as a table, or a heat map."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.files.output_files import whole_files
from sciforge.core.files.results import TableResult, new_axes
from sciforge.genomes.data.sequences import as_letters, reverse_complement

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ROW_BASES = 100  # of a picture; letters stay readable


class MutagenesisMap(TableResult):
    """Effects of base changes: contig, pos (from 1), strand, ref, and the effect of A, C, G and T.

    Args:
        frame: the table, in the direction of the strand.
        about: where it comes from.
        title: what the effects are.
    """

    def __init__(self, frame: "pd.DataFrame", about: Mapping[str, Any], title: str) -> None:
        super().__init__(frame, about)
        self.title = title

    @classmethod
    def of(
        cls,
        contig: str,
        start: int,
        strand: int,
        bases: np.ndarray,
        effect_L4: np.ndarray,
        title: str,
        about: Mapping[str, Any],
    ) -> "MutagenesisMap":
        """Return the map of a stretch of a contig, its bases as on the + strand, effects in the
        direction of the strand.
        """
        import pandas as pd

        letters = as_letters(reverse_complement(bases) if strand < 0 else bases).upper()
        place = np.arange(start, start + len(bases))[::strand] + 1
        columns = {
            "contig": contig,
            "pos": place,
            "strand": "+" if strand > 0 else "-",
            "ref": list(letters),
        }
        effects = {letter: effect_L4[:, number].round(5) for number, letter in enumerate("ACGT")}
        return cls(pd.DataFrame({**columns, **effects}), about, title)

    @property
    def effect_L4(self) -> np.ndarray:
        """Effect of A, C, G and T at each base [L, 4]."""
        return self.frame[list("ACGT")].to_numpy()

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the heat map in one row: blue lowers, red raises, dots mark the reference."""
        ax = new_axes(min(2.0 + 0.12 * len(self.frame), 16.0), 2.2) if ax is None else ax
        _draw_heat(ax, self.effect_L4, "".join(self.frame["ref"]), np.abs(self.effect_L4).max())
        ticks = np.linspace(0, len(self.frame) - 1, min(len(self.frame), 8)).astype(int)
        if len(self.frame) > ROW_BASES:
            ax.set_xticks(ticks, [f"{self.frame['pos'].iloc[tick]:,}" for tick in ticks])
        ax.set_title(self.title, fontsize=9)
        return ax

    def save(self, path: Path | str) -> Path:
        """Write the heat map in rows of 100 bases as .png with the table as NAME.tsv beside it, or
        the table as .csv or .tsv.

        Raises:
            ConfigError: another suffix, or the path is a folder.
            DataError: the disk is full or may not be written; then no file is changed.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            return super().save(path)
        first, last = self.frame["pos"].iloc[[0, -1]].sort_values()
        title = (
            f"{self.title}\n{self.frame['contig'].iloc[0]}:{first:,}-{last:,}"
            f" ({self.frame['strand'].iloc[0]})"
        )
        with whole_files(path, binary=True) as (picture,):
            draw(
                picture,
                self.effect_L4,
                "".join(self.frame["ref"]),
                self.frame["pos"].to_numpy(),
                title,
            )
            super().save(path.with_suffix(".tsv"))
        return path


def _draw_heat(ax: "Axes", effect_L4: np.ndarray, letters: str, limit: float) -> Any:
    """Draw one row of a heat map and return its image."""
    limit = max(float(limit), 1e-9)
    image = ax.imshow(
        effect_L4.T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    base_L = np.array(["ACGT".find(letter) for letter in letters])
    ax.plot(np.flatnonzero(base_L >= 0), base_L[base_L >= 0], ".", color="0.15", markersize=3)
    ax.set_yticks(range(4), list("ACGT"), fontsize=7)
    ax.set_xticks(range(len(letters)), list(letters), fontsize=6, family="monospace")
    ax.tick_params(length=0, pad=2)
    return image


def draw(file: Any, effect_L4: np.ndarray, letters: str, place_L: np.ndarray, title: str) -> None:
    """Draw the heat map as PNG in rows of 100 bases; the bars above it are the mean effect of
    the three changes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    length = len(letters)
    rows = -(-length // ROW_BASES)
    wide = min(length, ROW_BASES)
    limit = float(np.abs(effect_L4).max())
    mean_L = effect_L4.sum(1) / 3
    figure = Figure(
        figsize=(max(5.0, 1.6 + 0.15 * wide), 0.7 + 1.75 * rows), dpi=150, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        2 * rows, 1, squeeze=False, gridspec_kw={"height_ratios": [1, 1.4] * rows}
    )[:, 0]
    image = None
    for row in range(rows):
        part = slice(row * ROW_BASES, min((row + 1) * ROW_BASES, length))
        _draw_mean(axes[2 * row], mean_L[part], place_L[part], (mean_L.min(), mean_L.max()))
        image = _draw_heat(axes[2 * row + 1], effect_L4[part], letters[part], limit)
        for axis in axes[2 * row : 2 * row + 2]:
            axis.set_xlim(-0.5, wide - 0.5)
            axis.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=9)
    bar = figure.colorbar(image, ax=list(axes), fraction=0.015, pad=0.01, aspect=min(40, 12 * rows))
    bar.ax.tick_params(labelsize=6)
    figure.savefig(file, format="png", metadata={"Software": "sciforge"})


def _draw_mean(
    ax: "Axes", mean_L: np.ndarray, place_L: np.ndarray, bounds: tuple[float, float]
) -> None:
    """Draw bars of the mean effect of the changes of each base, and a ruler of places above
    them.
    """
    ax.bar(
        np.arange(len(mean_L)), mean_L, width=0.9, color=np.where(mean_L < 0, "#2166ac", "#b2182b")
    )
    ax.axhline(0, color="0.3", linewidth=0.6)
    ax.set_ylim(1.1 * min(bounds[0], 0) - 1e-9, 1.1 * max(bounds[1], 0) + 1e-9)
    ax.set_ylabel("mean", fontsize=7)
    ax.tick_params(labelsize=6, labelbottom=False, bottom=False)
    tens = [i for i, place in enumerate(place_L.tolist()) if place % 10 == 0]
    ruler = ax.secondary_xaxis("top")
    ruler.set_xticks(tens, [f"{int(place_L[i]):,}" for i in tens], fontsize=6)
    ruler.tick_params(length=2, pad=1)
