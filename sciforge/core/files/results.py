"""What verbs return: a table, a picture and a file, the same for every domain and experiment."""

import html
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciforge.core.files.output_files import whole_files, whole_paths
from sciforge.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
ROWS_SHOWN = 10


class Result:
    """What a verb returns: subclasses give `to_pandas`, and a picture where there is one.

    A result is in memory; nothing is on disk until `save`.

    Attributes:
        sources: files that were read, which `save` must not replace.
    """

    sources: tuple[Path, ...] = ()

    @property
    def about(self) -> dict[str, Any]:
        """Where the result comes from, as JSON values; written beside a saved table."""
        return {}

    def to_pandas(self) -> "pd.DataFrame":
        """Return the result as a DataFrame, one row a record, run or cell."""
        raise TypeError(f"{type(self).__name__} must define to_pandas")

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the result.

        Args:
            ax: where to draw; None for axes of their own.

        Returns:
            The axes, to go on with.

        Raises:
            ConfigError: there is nothing to draw.
        """
        raise ConfigError(f"{type(self).__name__} has no picture; use to_pandas()")

    def save(self, path: Path | str) -> Path:
        """Write the table, CSV or TSV by its suffix, and its provenance as JSON beside it; return
        the table's path.

        Args:
            path: NAME.csv or NAME.tsv; the provenance is NAME.json.

        Raises:
            ConfigError: another suffix, or the path is a folder.
            DataError: the disk is full or may not be written.
        """
        return write_table(Path(path), self.to_pandas(), self.about, self.sources)

    def __repr__(self) -> str:
        frame = self.to_pandas()
        more = "" if len(frame) <= ROWS_SHOWN else f"\n... {len(frame)} rows in all"
        return f"{type(self).__name__}\n{frame.head(ROWS_SHOWN).to_string()}{more}"

    def _repr_html_(self) -> str:
        frame = self.to_pandas()
        more = "" if len(frame) <= ROWS_SHOWN else f"<p>{len(frame)} rows in all</p>"
        return frame.head(ROWS_SHOWN).to_html() + more


class TableResult(Result):
    """A table with its provenance, and a picture of it where `draw` is given.

    Args:
        frame: the table.
        about: where it comes from, as JSON values.
        draw: function(frame, axes) that draws the table.
        sources: files that were read, which `save` must not replace.
    """

    def __init__(
        self,
        frame: "pd.DataFrame",
        about: Mapping[str, Any] | None = None,
        draw: "Callable[[pd.DataFrame, Axes], None] | None" = None,
        sources: Sequence[Path] = (),
    ) -> None:
        self.frame, self._about, self._draw, self.sources = (
            frame,
            dict(about or {}),
            draw,
            tuple(sources),
        )

    @property
    def about(self) -> dict[str, Any]:
        """Where the table comes from, as JSON values."""
        return self._about

    def to_pandas(self) -> "pd.DataFrame":
        """Return the table."""
        return self.frame

    def __len__(self) -> int:
        return len(self.frame)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the table; as `Result.plot`."""
        if self._draw is None:
            return super().plot(ax)
        ax = new_axes() if ax is None else ax
        self._draw(self.frame, ax)
        return ax


class ArrayResult(Result):
    """Arrays with a name for each row: embeddings of several layers, say.

    Args:
        names: of the rows [N].
        arrays: name -> [N, D]; the last is the one that `to_pandas` returns.
        about: where they come from, as JSON values.
    """

    def __init__(
        self,
        names: Sequence[str],
        arrays: "Mapping[str, np.ndarray]",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.names, self.arrays, self._about = list(names), dict(arrays), dict(about or {})

    @property
    def about(self) -> dict[str, Any]:
        """Where the arrays come from, as JSON values."""
        return self._about

    def __getitem__(self, name: str) -> "np.ndarray":
        return self.arrays[name]

    def __len__(self) -> int:
        return len(self.names)

    def to_pandas(self) -> "pd.DataFrame":
        """Return the last array as a DataFrame, indexed by the names of the rows."""
        import pandas as pd

        name, values_ND = list(self.arrays.items())[-1]
        columns = [f"{name}_{place}" for place in range(values_ND.shape[1])]
        return pd.DataFrame(values_ND, index=pd.Index(self.names, name="name"), columns=columns)

    def save(self, path: Path | str) -> Path:
        """Write all arrays as .npz (`names`, `provenance`, and each array), or the last one as .csv
        or .tsv; return the path.

        Raises:
            ConfigError: another suffix, or the path is a folder.
            DataError: the disk is full or may not be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".npz":
            return super().save(path)
        import numpy as np

        with whole_files(path, binary=True) as (file,):
            arrays: dict[str, Any] = {
                "names": np.array(self.names),
                "provenance": np.array(json.dumps(self.about)),
            }
            np.savez(file, **(arrays | dict(self.arrays)))
        return path


class Metrics(dict[str, float], Result):
    """Metrics by name: a dict that notebooks show as a table."""

    __repr__ = dict.__repr__

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a metric: metric, value."""
        import pandas as pd

        return pd.DataFrame({"metric": list(self), "value": list(self.values())})

    def _repr_html_(self) -> str:
        rows = (f"<tr><td>{html.escape(k)}</td><td>{v:.4g}</td></tr>" for k, v in self.items())
        return f"<table><tr><th>metric</th><th>value</th></tr>{''.join(rows)}</table>"


def new_axes(width: float = 6.4, height: float = 4.0) -> "Axes":
    """Return axes of a figure of their own; sizes in inches."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def write_table(
    path: Path, frame: "pd.DataFrame", about: Mapping[str, Any], sources: Sequence[Path] = ()
) -> Path:
    """Write a table that pandas and spreadsheets open with their defaults, and NAME.json beside it;
    whole or not at all.

    The index is written where it is more than row numbers.

    Raises:
        ConfigError: the suffix is neither .csv nor .tsv, or the table would replace one of the
            sources.
        DataError: the disk is full or may not be written.
    """
    separator = SEPARATORS.get(path.suffix.lower())
    if separator is None:
        raise ConfigError(f"{path}: a table is written as .csv or .tsv; give another name")
    import pandas as pd

    numbered = frame.index.equals(pd.RangeIndex(len(frame))) and frame.index.name is None
    with whole_paths(path, path.with_suffix(".json"), sources=sources) as (table, beside):
        frame.to_csv(table, sep=separator, index=not numbered)
        beside.write_text(json.dumps(dict(about), indent=1) + "\n", encoding="utf-8")
    return path
