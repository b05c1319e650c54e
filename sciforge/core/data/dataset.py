"""Prepared data as users hold it: a store with a table of its splits, from files or from objects
in memory.
"""

import html
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.data.store import SPLITS, Store, prepare
from sciforge.core.data.summary import Checks, label_sentences, split_counts
from sciforge.core.data.user_tables import split_table
from sciforge.core.domain import Inputs, Record, get_domain
from sciforge.core.files.atomic import TemporaryFolder, copy_folder
from sciforge.core.files.results import SEPARATORS, Result, new_axes
from sciforge.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

CLASSES_SHOWN = 12


class Dataset(Result):
    """A prepared dataset: records with their splits and labels.

    Args:
        store: what was prepared.
        folder: a temporary folder that lives as long as the dataset; None for a store that stays.
        remarks: what was given and is not used, one sentence each.
    """

    def __init__(
        self, store: Store, folder: TemporaryFolder | None = None, remarks: Sequence[str] = ()
    ) -> None:
        self.store, self._folder, self.remarks = store, folder, tuple(remarks)

    @classmethod
    def open(cls, path: Path | str) -> "Dataset":
        """Open a prepared folder; raises DataError where it is none or damaged."""
        return cls(Store.open(Path(path)))

    @property
    def path(self) -> Path:
        """The store's folder."""
        return self.store.path

    @property
    def domain(self) -> str:
        """The name of the domain."""
        return self.store.domain

    def __len__(self) -> int:
        return len(self.store)

    def split(self, name: str) -> Sequence[Record]:
        """Return the records of a split: `train`, `validation` or `test`."""
        return self.store.split(name)

    def to_pandas(self, split: str | None = None) -> "pd.DataFrame":
        """Return the records as a table of the domain's natural columns.

        Args:
            split: `train`, `validation` or `test`; None for all, with a column `split`.
        """
        import pandas as pd

        inputs = get_domain(self.domain).inputs
        frames = []
        for name in SPLITS if split is None else (split,):
            frame = (inputs or Inputs()).frame(self.split(name), self.store.meta)
            frames.append(frame if split else frame.assign(split=name))
        return pd.concat([f for f in frames if len(f)] or frames[:1], ignore_index=True)

    def summary(self) -> "pd.DataFrame":
        """Return a row for each split: records, and the count of each class or the mean and std
        of each number.
        """
        import pandas as pd

        rows = []
        labels = get_domain(self.domain).labels
        for name in SPLITS:
            records = self.split(name)
            row: dict[str, Any] = {"split": name, "records": len(records)}
            for target, values_N in (
                labels(records, self.store.meta) if len(records) else {}
            ).items():
                row |= _described(target, np.asarray(values_N))
            rows.append(row)
        return pd.DataFrame(rows)

    @cached_property
    def checks(self) -> Checks:
        """What was dropped, which records are the same or nearly so, which groups span splits."""
        return Checks.of(self.store)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped, left unused, or stands twice, one sentence each."""
        notes = self.checks.dropped_sentences
        more = self.store.meta.get("notes", ())
        return (*notes, *self.remarks, *more, *self.checks.sentences)

    def describe(self) -> list[str]:
        """Return what commands print before they rely on the data: records, splits, labels, and
        the notes.
        """
        counts = ", ".join(f"{count} {name}" for name, count in split_counts(self.store).items())
        labels = label_sentences([dict(row) for _, row in self.summary().iterrows()])
        return [f"{len(self)} records: {counts}", *labels, *self.notes]

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        splits = json.loads(self.summary().to_json(orient="records"))
        counts = {"records": len(self), "counts": split_counts(self.store)}
        about = {"domain": self.domain, "kind": self.store.kind, "path": str(self.path)}
        checks = {"checks": self.checks.to_json(), "notes": list(self.notes)}
        return {**about, **counts, "splits": splits, **checks}

    @property
    def about(self) -> dict[str, Any]:
        """How the dataset was prepared."""
        return {
            "domain": self.domain,
            "kind": self.store.kind,
            "preparer": self.store.index.get("preparer"),
        }

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the labels of each split: counts of classes, or a histogram of numbers.

        Raises:
            ConfigError: the dataset has no labels.
        """
        labels = get_domain(self.domain).labels
        parts = {
            name: labels(self.split(name), self.store.meta)
            for name in SPLITS
            if len(self.split(name))
        }
        target = next((target for values in parts.values() for target in values), None)
        if target is None:
            raise ConfigError("the dataset has no labels to draw; use to_pandas()")
        ax = new_axes() if ax is None else ax
        values = {name: np.asarray(part[target]) for name, part in parts.items()}
        if all(_is_number(values_N) for values_N in values.values()):
            finite = {name: values_N[np.isfinite(values_N)] for name, values_N in values.items()}
            ax.hist(list(finite.values()), bins=20, label=list(finite), stacked=True)
            ax.set(xlabel=target, ylabel="records")
        else:
            _draw_classes(ax, values)
            ax.set(xlabel=target, ylabel="records")
        ax.legend()
        return ax

    def save(self, path: Path | str) -> Path:
        """Write the table to NAME.csv or NAME.tsv; any other path becomes a folder that `sciforge`
        commands read.

        Raises:
            ConfigError: the folder exists already.
            DataError: the disk is full or may not be written.
        """
        path = Path(path)
        return (
            super().save(path)
            if path.suffix.lower() in SEPARATORS
            else copy_folder(self.path, path)
        )

    def __repr__(self) -> str:
        head = f"Dataset({self.domain}, {self.store.kind}, {len(self)} records)"
        return "\n".join([head, self.summary().to_string(index=False, na_rep=""), *self.notes])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        head = (
            f"<p>{html.escape(self.domain)}, {html.escape(self.store.kind)}: {len(self)}"
            " records</p>"
        )
        return head + self.summary().to_html(index=False, na_rep="") + notes


def _is_number(values_N: np.ndarray) -> bool:
    """Return whether labels are numbers and not codes of a few classes."""
    whole = values_N.dtype.kind in "iu"
    return values_N.dtype.kind in "fiu" and not (
        whole and len(np.unique(values_N)) <= CLASSES_SHOWN
    )


def _draw_classes(ax: "Axes", values: Mapping[str, np.ndarray]) -> None:
    classes = sorted({str(value) for values_N in values.values() for value in values_N})
    below = np.zeros(len(classes))
    for name, values_N in values.items():
        counts = np.array([np.sum(values_N.astype(str) == label) for label in classes])
        ax.bar(classes, counts, bottom=below, label=name)
        below += counts


def _described(target: str, values_N: np.ndarray) -> dict[str, Any]:
    """Return columns of a summary for the labels of one target."""
    if _is_number(values_N):
        known = values_N[np.isfinite(values_N)] if values_N.dtype.kind == "f" else values_N
        cell = f"{known.mean():.4g} ± {known.std():.3g}" if len(known) else "none"
        return {target: cell if len(known) == len(values_N) else f"{cell} ({len(known)} known)"}
    names, counts = np.unique(values_N.astype(str), return_counts=True)
    cells = [f"{name}: {count}" for name, count in zip(names, counts, strict=True)]
    more = ["..."] if len(cells) > CLASSES_SHOWN else []
    return {target: ", ".join([*cells[:CLASSES_SHOWN], *more])}


def prepare_dataset(preparer: Any, out: Path | str | None = None, **options: Any) -> Dataset:
    """Prepare files or objects; without `out` in a temporary folder that lives as long as the
    dataset.

    Args:
        preparer: a preparer of a domain with its options.
        out: the store's folder.
        options: of core.data.store.prepare.
    """
    if out is not None:
        return Dataset(prepare(preparer, Path(out), **options))
    folder = TemporaryFolder()
    return Dataset(prepare(preparer, Path(folder.name) / "store", **options), folder)


def is_prepared(data: Any) -> bool:
    """Return whether data are prepared: a Dataset, a Store, or a path that is no table."""
    return isinstance(data, Dataset | Store) or (
        isinstance(data, str | Path) and not _is_table(data)
    )


def _is_table(data: Any) -> bool:
    return isinstance(data, str | Path) and Path(data).suffix.lower() in SEPARATORS


def as_dataset(
    data: Any,
    targets: Any = None,
    *,
    domain: str,
    input: str | None = None,
    target: str | Sequence[str] | None = None,
    split: str | Sequence[str] | None = None,
    group: str | Sequence[Any] | None = None,
    seed: int = 0,
    held_out: float = 0.0,
    model: Any = None,
) -> Dataset:
    """Return what users give as a dataset of a domain.

    Args:
        data: a Dataset, a Store, the folder of one, a DataFrame, the path of a table (.csv, .tsv),
            or a sequence of natural inputs.
        targets: labels of a sequence: an array [N], a Series, or a DataFrame of several targets.
        domain: the domain's name.
        input: the column of a table that holds the inputs.
        target: the column or columns of a table that hold the labels.
        split: the column of a table, or the split of each input; None puts all in train.
        group: the column of a table, or the group of each input, of which none is divided where
            splits are drawn; None for none.
        seed: of whatever preparing draws.
        held_out: share of inputs without splits that goes to the test split, drawn by `seed`; equal
            inputs stay together.
        model: the Model that the data are for, whose wishes (an image size) natural inputs follow.

    Raises:
        ConfigError: a column is missing, lengths differ, or the dataset is of another domain.
        DataError: an input is bad; names it by its place.
    """
    if is_prepared(data):
        given = (
            data
            if isinstance(data, Dataset)
            else Dataset(data if isinstance(data, Store) else Store.open(Path(data)))
        )
        if given.domain != domain:
            raise ConfigError(
                f"the data are of the domain {given.domain}, the model of {domain}; give other data"
            )
        if targets is not None or input or target or split is not None or group is not None:
            raise ConfigError(
                "prepared data hold their labels and splits; leave out targets, input, target,"
                " split and group"
            )
        return given
    reader = get_domain(domain).inputs
    if reader is None:
        raise ConfigError(f"the domain {domain} takes prepared data only; use prepare")
    table = split_table(data, targets, domain, input, target, split, group)
    if table.splits is None and held_out:
        table = table.with_test_split(held_out, seed)
    reader = reader if model is None else reader.of(model)
    options: dict[str, Any] = {"split": table.splits, "seed": seed}
    if table.groups is not None:
        options["group"] = table.groups
    dataset = prepare_dataset(reader.preparer(table.inputs, table.labels, **options))
    dataset.remarks = table.remarks
    return dataset
