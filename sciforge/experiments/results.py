"""What the results of all experiments share: text, HTML, a tidy table, a plot, and saving with
the runs.
"""

import shutil
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from sciforge.core.files.atomic import one_line, replace_json
from sciforge.core.files.output_files import write_whole
from sciforge.core.files.results import SEPARATORS, Result, write_table
from sciforge.core.files.tables import Table, html_table
from sciforge.experiments.plots import save_figure

PICTURES = (".png", ".pdf", ".svg")


class ExperimentResult(Result):
    """A result with a short table, a tidy frame, a plot, and the folder of its runs.

    A subclass is a frozen dataclass with `name`, `table()`, `to_pandas()`, `to_json()` and
    `plot(ax)`.
    """

    name: ClassVar[str]  # of the files that are written: NAME.json, NAME.png
    folder: Path | None = None  # of the runs; not a field, so that equal runs make equal results
    _about: Mapping[str, Any] = {}

    @property
    def about(self) -> dict[str, Any]:
        """The settings, and what else the report says of where the result comes from."""
        return dict(self._about)

    def table(self) -> Table:
        """Return the result as a short table of text."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Return every number as plain values."""
        raise NotImplementedError

    def text(self) -> str:
        """Return the result for a terminal."""
        return self.table().text()

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return html_table(self.table())

    @property
    def panels(self) -> tuple[Callable[[Any], Any], ...]:
        """The plots of the picture that is written, left to right."""
        return (self.plot,)

    def keep(self, folder: Path | None, temporary: bool, about: Mapping[str, Any]) -> Self:
        """Attach the folder of the runs, write the report into it unless it is temporary, and
        return the result itself.

        Args:
            folder: of the runs; None where there is none.
            temporary: remove it when the result is deleted.
            about: the settings and other provenance, for the report.
        """
        object.__setattr__(self, "folder", folder)
        object.__setattr__(self, "_about", dict(about))
        if folder is not None and temporary:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        elif folder is not None:
            self._write_report(folder)
        return self

    def save(self, path: Path | str) -> Path:
        """Write the result: a table (.csv, .tsv), a picture (.png, .pdf, .svg), or a folder.

        A folder gets the report, the table of all runs, the picture, and a copy of the runs
        themselves: the experiment continues there when it is called with the same settings and this
        folder as `out`.

        Args:
            path: a file with one of these suffixes, or a folder.

        Raises:
            DataError: the disk is full or may not be written.
        """
        path = Path(path)
        if path.suffix.lower() in SEPARATORS:
            return write_table(path, self.to_pandas(), self.about)
        if path.suffix.lower() in PICTURES:
            return save_figure(path, *self.panels)
        with one_line(path):
            path.mkdir(parents=True, exist_ok=True)
            if self.folder is not None and self.folder.resolve() != path.resolve():
                shutil.copytree(self.folder, path, dirs_exist_ok=True)
            self._write_report(path)
        return path

    def _write_report(self, folder: Path) -> None:
        """Write NAME.json, runs.csv and NAME.png into a folder."""
        replace_json(folder / f"{self.name}.json", {**self.about, **self.to_json()})
        frame = self.to_pandas()
        write_whole(folder / "runs.csv", lambda work: frame.to_csv(work, index=False))
        save_figure(folder / f"{self.name}.png", *self.panels)
