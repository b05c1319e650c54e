"""Prepared data as users hold it: a store with a table of its splits, from files or from objects in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.data.store import SPLITS, Store, prepare
from sciforge.core.domain import Inputs, Record, get_domain
from sciforge.core.files.results import Result
from sciforge.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

CLASSES_SHOWN = 12


class Dataset(Result):
    """A prepared dataset: records with their splits and labels.

    Args:
        store: what was prepared.
        folder: a temporary folder that lives as long as the dataset; None for a store that stays.
        unused: names of columns that were given and are not used.
    """

    def __init__(self, store: Store, folder: "TemporaryDirectory[str] | None" = None, unused: Sequence[str] = ()):
        self.store, self._folder, self.unused = store, folder, tuple(unused)

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
        """Return a row for each split: records, and the count of each class or the mean and std of each number."""
        import pandas as pd

        rows = []
        labels = get_domain(self.domain).labels
        for name in SPLITS:
            records = self.split(name)
            row: dict[str, Any] = {"split": name, "records": len(records)}
            for target, values_N in (labels(records, self.store.meta) if len(records) else {}).items():
                row |= _described(target, np.asarray(values_N))
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped or left unused, one sentence each."""
        rejected = self.store.index.get("rejected", 0)
        notes = [f"{rejected} bad records dropped (rejected.jsonl says which and why)"] if rejected else []
        if self.unused:
            notes.append(f"columns not used: {', '.join(self.unused)}")
        return (*notes, *self.store.meta.get("notes", ()))

    @property
    def about(self) -> dict[str, Any]:
        """How the dataset was prepared."""
        return {"domain": self.domain, "kind": self.store.kind, "preparer": self.store.index.get("preparer")}

    def __repr__(self) -> str:
        head = f"Dataset({self.domain}, {self.store.kind}, {len(self)} records)"
        return "\n".join([head, self.summary().to_string(index=False, na_rep=""), *self.notes])

    def _repr_html_(self) -> str:
        import html

        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        head = f"<p>{html.escape(self.domain)}, {html.escape(self.store.kind)}: {len(self)} records</p>"
        return head + self.summary().to_html(index=False, na_rep="") + notes


def _described(target: str, values_N: np.ndarray) -> dict[str, Any]:
    """Return columns of a summary for the labels of one target."""
    if values_N.dtype.kind in "fiu" and not (values_N.dtype.kind in "iu" and len(np.unique(values_N)) <= CLASSES_SHOWN):
        known = values_N[np.isfinite(values_N)] if values_N.dtype.kind == "f" else values_N
        cell = f"{known.mean():.4g} ± {known.std():.3g}" if len(known) else "none"
        return {target: cell if len(known) == len(values_N) else f"{cell} ({len(known)} known)"}
    names, counts = np.unique(values_N.astype(str), return_counts=True)
    cells = [f"{name}: {count}" for name, count in zip(names, counts, strict=True)]
    more = ["..."] if len(cells) > CLASSES_SHOWN else []
    return {target: ", ".join([*cells[:CLASSES_SHOWN], *more])}


def prepare_dataset(preparer: Any, out: Path | str | None = None, **options: Any) -> Dataset:
    """Prepare files or objects; without `out` in a temporary folder that lives as long as the dataset.

    Args:
        preparer: a preparer of a domain with its options.
        out: the store's folder.
        options: of core.data.store.prepare.
    """
    if out is not None:
        return Dataset(prepare(preparer, Path(out), **options))
    folder = TemporaryDirectory(prefix="sciforge-")
    return Dataset(prepare(preparer, Path(folder.name) / "store", **options), folder)


def as_dataset(
    data: Any,
    targets: Any = None,
    *,
    domain: str,
    input: str | None = None,
    target: str | Sequence[str] | None = None,
    split: str | Sequence[str] | None = None,
    seed: int = 0,
    model: Any = None,
) -> Dataset:
    """Return what users give as a dataset of a domain.

    Args:
        data: a Dataset, a Store, the folder of one, a DataFrame, or a sequence of natural inputs.
        targets: labels of a sequence: an array [N], a Series, or a DataFrame of several targets.
        domain: the domain's name.
        input: the column of a DataFrame that holds the inputs.
        target: the column or columns of a DataFrame that hold the labels.
        split: the column of a DataFrame, or the split of each input; None puts all in train.
        seed: of whatever preparing draws.
        model: the Model that the data are for, whose wishes (an image size) natural inputs follow.

    Raises:
        ConfigError: a column is missing, lengths differ, or the dataset is of another domain.
        DataError: an input is bad; names it by its place.
    """
    if isinstance(data, Store):
        data = Dataset(data)
    if isinstance(data, str | Path) and (Path(data) / "index.json").exists():
        data = Dataset.open(data)
    if isinstance(data, Dataset):
        if data.domain != domain:
            raise ConfigError(f"the data are of the domain {data.domain}, the model of {domain}; give other data")
        return data
    inputs, labels, splits, unused = split_table(data, targets, domain, input, target, split)
    reader = get_domain(domain).inputs
    if reader is None:
        raise ConfigError(f"the domain {domain} takes prepared data only; use prepare")
    reader = reader if model is None else reader.of(model)
    dataset = prepare_dataset(reader.preparer(inputs, labels, split=splits, seed=seed))
    dataset.unused = tuple(unused)
    return dataset


def split_table(
    data: Any,
    targets: Any,
    domain: str,
    input: str | None,
    target: str | Sequence[str] | None,
    split: str | Sequence[str] | None,
) -> "tuple[Any, pd.DataFrame | None, list[str] | None, list[str]]":
    """Return inputs, labels (one column a target), splits and the names of unused columns of what users give."""
    import pandas as pd

    names = [target] if isinstance(target, str) else list(target or ())
    splits = None if split is None or isinstance(split, str) else [str(name) for name in split]
    unused: list[str] = []
    if isinstance(data, pd.DataFrame):
        tables = bool(getattr(get_domain(domain).inputs, "takes_tables", False))
        column = split if isinstance(split, str) else None
        for name in [n for n in (input, column, *names) if n is not None]:
            if name not in data.columns:
                raise ConfigError(f"the table has no column {name!r}; it has {', '.join(map(str, data.columns))}")
        if input is None and not tables:
            raise ConfigError("name the column of a DataFrame that holds the inputs: input=...")
        used = [n for n in (input, column, *names) if n is not None]
        splits = data[column].astype(str).tolist() if column else splits
        targets = data[names] if names else targets
        rest = data.drop(columns=[n for n in used if n != input])
        unused = [] if input is None else [str(n) for n in rest.columns if n != input]
        data = rest if input is None else data[input]
    labels = None if targets is None else _labels(targets, names, data)
    return data, labels, splits, unused


def _labels(targets: Any, names: Sequence[str], data: Any) -> "pd.DataFrame":
    import pandas as pd

    if isinstance(targets, Mapping) and not isinstance(targets, pd.DataFrame):
        targets = pd.DataFrame(dict(targets))
    if not isinstance(targets, pd.DataFrame):
        name = names[0] if names else getattr(targets, "name", None) or "label"
        targets = pd.Series(list(targets), name=name).to_frame()
    if len(targets) != len(data):
        raise ConfigError(f"there are {len(data)} inputs and {len(targets)} labels; give one label for each")
    return targets.reset_index(drop=True)
