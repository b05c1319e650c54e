"""The scores of a scanned genome: as a table, as BED and bedGraph for genome browsers, and as a
picture.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.files.output_files import cell, whole_files
from sciforge.core.files.results import TableResult, new_axes
from sciforge.errors import ConfigError, did_you_mean
from sciforge.genomes.inference.region import Region

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

STRAND_NAMES = {"+": ".plus", "-": ".minus", ".": ""}
COLOURS = {"+": "#0072B2", "-": "#D55E00", ".": "#0072B2"}


class ScanResult(TableResult):
    """Probabilities of windows along a genome: chrom, start, end (from 0, end excluded), strand,
    probability.

    Args:
        frame: the table, in the order of the genome.
        about: where it comes from; `not_scanned` names contigs shorter than a window.
        name: of the class that was scored.
        step: bases from one window to the next.
        threshold: least probability of a region, where no other is given.
    """

    def __init__(
        self,
        frame: "pd.DataFrame",
        about: Mapping[str, Any],
        *,
        name: str,
        step: int,
        threshold: float,
    ) -> None:
        super().__init__(frame, about)
        self.name, self.step, self.threshold = name, step, threshold

    def regions(self, threshold: float | None = None) -> "pd.DataFrame":
        """Return the regions of windows at or above a threshold that touch, each with its best
        window.

        Args:
            threshold: least probability; None for that of the scan.

        Returns:
            chrom, start, end, name, score (1000 times the best probability), strand, best_start,
            best_end.
        """
        import pandas as pd

        least = self.threshold if threshold is None else threshold
        if not 0 <= least <= 1:
            raise ConfigError(f"threshold is {least}; it must be between 0 and 1")
        rows = []
        for strand, part in self._strands():
            high = part[part["probability"] >= least]
            if len(high):
                chrom, start, end = (high[name].to_numpy() for name in ("chrom", "start", "end"))
                new = np.ones(len(high), bool)
                new[1:] = (chrom[1:] != chrom[:-1]) | (start[1:] > end[:-1])
                first = np.flatnonzero(new)
                last = np.append(first[1:], len(high)) - 1
                best = [
                    a + int(high["probability"].to_numpy()[a : b + 1].argmax())
                    for a, b in zip(first, last, strict=True)
                ]
                score = np.round(1000 * high["probability"].to_numpy()[best]).astype(int)
                rows.append(
                    pd.DataFrame(
                        {
                            "chrom": high["chrom"].iloc[first].to_numpy(),
                            "start": start[first],
                            "end": end[last],
                            "name": cell(self.name).replace(" ", "_"),
                            "score": score,
                            "strand": strand,
                            "best_start": start[best],
                            "best_end": end[best],
                        }
                    )
                )
        if not rows:
            columns = ["chrom", "start", "end", "name", "score", "strand", "best_start", "best_end"]
            return pd.DataFrame(columns=columns)
        order = {name: place for place, name in enumerate(self.frame["chrom"].cat.categories)}
        table = pd.concat(rows, ignore_index=True)
        return table.sort_values(
            ["chrom", "start", "strand"], key=_in_order(order), ignore_index=True
        )

    def _strands(self) -> "Iterator[tuple[str, pd.DataFrame]]":
        for strand in self.frame["strand"].cat.categories:
            yield strand, self.frame[self.frame["strand"] == strand]

    def to_bed(self, path: Path | str, threshold: float | None = None) -> Path:
        """Write the regions as BED6+2, columns 7 and 8 (drawn thick by browsers) their best window;
        NAME.json says where from.

        Args:
            path: NAME.bed.
            threshold: least probability of a region; None for that of the scan.
        """
        path = Path(path)
        rows = self.regions(threshold)
        with whole_files(path, path.with_suffix(".json")) as (bed, beside):
            self._write_bed(bed, beside, rows)
        return path

    def _write_bed(self, bed: Any, beside: Any, rows: "pd.DataFrame") -> None:
        rows.to_csv(bed, sep="\t", header=False, index=False)
        beside.write(json.dumps(self.about, indent=1) + "\n")

    def to_bedgraph(self, path: Path | str) -> list[Path]:
        """Write the scores at the middle of their windows as bedGraph, a file a strand, and return
        the paths.

        Args:
            path: NAME.bedGraph; NAME.plus.bedGraph and NAME.minus.bedGraph are written where
                strands matter.
        """
        paths = self._bedgraph_paths(Path(path))
        with whole_files(*paths.values()) as files:
            self._write_bedgraphs(dict(zip(paths, files, strict=True)))
        return list(paths.values())

    def _bedgraph_paths(self, path: Path) -> dict[str, Path]:
        strands = self.frame["strand"].cat.categories
        return {
            strand: path.with_name(f"{path.stem}{STRAND_NAMES[strand]}.bedGraph")
            for strand in strands
        }

    def _write_bedgraphs(self, files: Mapping[str, Any]) -> None:
        name = cell(self.name).replace(" ", "_")
        for strand, part in self._strands():
            files[strand].write(f'track type=bedGraph name="{name} {strand}"\n')
            bedgraph_rows(part, self.step).to_csv(
                files[strand], sep="\t", header=False, index=False
            )

    def save(self, path: Path | str) -> Path:
        """Write NAME.bed (with the bedGraphs beside it), NAME.bedGraph, or the table as .csv or
        .tsv; return the path.

        Raises:
            ConfigError: another suffix, or the path is a folder.
            DataError: the disk is full or may not be written; then no file is changed.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind in (".bedgraph", ".bg"):
            return self.to_bedgraph(path)[0]
        if kind != ".bed":
            return super().save(path)
        rows, graphs = self.regions(), self._bedgraph_paths(path)
        with whole_files(path, path.with_suffix(".json"), *graphs.values()) as (
            bed,
            beside,
            *files,
        ):
            self._write_bed(bed, beside, rows)
            self._write_bedgraphs(dict(zip(graphs, files, strict=True)))
        return path

    def plot(self, region: "str | Axes | None" = None, ax: "Axes | None" = None) -> "Axes":
        """Draw the probabilities along a region.

        Args:
            region: `chr3` or `chr3:1000-19000` (from 1, both ends included); None for the first
                contig.
            ax: where to draw; None for axes of their own.

        Raises:
            ConfigError: the region is not in the scan.
        """
        if region is not None and not isinstance(region, str):
            region, ax = None, region
        contigs = list(self.frame["chrom"].cat.categories)
        place = Region.parse(region or str(self.frame["chrom"].iloc[0]))
        if place.contig not in contigs:
            raise ConfigError(
                f"no contig {place.contig!r} in the scan; {did_you_mean(place.contig, contigs)}"
            )
        ax = new_axes(9.0, 2.6) if ax is None else ax
        for strand, part in self._strands():
            middle = (part["start"] + part["end"]) // 2
            shown = (
                (part["chrom"] == place.contig)
                & (middle >= place.start)
                & (middle < (place.stop or np.inf))
            )
            label = {"+": "plus strand", "-": "minus strand", ".": "both strands"}[strand]
            ax.plot(
                middle[shown] + 1,
                part["probability"][shown],
                color=COLOURS[strand],
                lw=1.0,
                label=label,
            )
        ax.set(xlabel=f"{place.contig} (bp)", ylabel=f"probability of {self.name}", ylim=(0, 1.02))
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8)
        return ax


def _in_order(order: Mapping[str, int]) -> Any:
    """Return a sort key that puts contigs in the order of the genome."""
    return lambda column: column.map(order) if column.name == "chrom" else column


def bedgraph_rows(part: "pd.DataFrame", step: int) -> "pd.DataFrame":
    """Return chrom, start, end, score of one strand: each score stands a step wide about the
    middle of its window.
    """
    import pandas as pd

    chrom, start, end = (part[name].to_numpy() for name in ("chrom", "start", "end"))
    left = np.maximum((start + (end - start) // 2) - step // 2, 0)
    right = left + step
    if len(left):
        same = np.append(chrom[1:] == chrom[:-1], False)
        # the last window of a contig may come sooner than a step, and nothing reaches past the
        # contig's end
        right = np.minimum(right, np.where(same, np.append(left[1:], 0), np.maximum(end, left + 1)))
    rows = pd.DataFrame(
        {
            "chrom": chrom,
            "start": left,
            "end": right,
            "score": part["probability"].round(4).to_numpy(),
        }
    )
    return rows[rows["end"] > rows["start"]]
