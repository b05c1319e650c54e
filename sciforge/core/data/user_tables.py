"""What users give, inputs with or without labels, taken apart: inputs, labels, splits, and what
is left unused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.data.groups import group_names, split_by_group
from sciforge.core.data.store import SPLITS
from sciforge.core.domain import get_domain
from sciforge.core.files.results import SEPARATORS
from sciforge.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

# labels with at most so many values are kept in proportion when a test split is drawn
FEW_CLASSES = 20


@dataclass(frozen=True)
class UserTable:
    """Natural inputs with their labels.

    Args:
        inputs: a sequence of natural inputs, or a DataFrame of a domain that takes tables.
        labels: one column a target, NaN where a label is missing; None where there are none.
        splits: of each input; None where they were not given.
        remarks: what was given and is not used, one sentence each.
        groups: of each input; None where they were not given.
    """

    inputs: Any
    labels: "pd.DataFrame | None"
    splits: list[str] | None
    remarks: tuple[str, ...] = ()
    groups: list[Any] | None = None

    def with_test_split(self, share: float, seed: int) -> "UserTable":
        """Return the table with a random share of the inputs in the test split; equal inputs
        stay together, and groups where they were given.
        """
        if self.groups is not None:
            return self._with_test_groups(share, seed)
        groups = _groups(self.inputs)
        classes = np.zeros(len(groups), int)
        if self.labels is not None and self.labels.shape[1] == 1:
            column = self.labels.iloc[:, 0]
            if column.nunique() <= FEW_CLASSES:
                classes = column.astype(str).factorize()[0]
        rng = np.random.default_rng(seed)
        first_G = np.unique(groups, return_index=True)[1]
        test = np.zeros(len(first_G), bool)
        for label in np.unique(classes[first_G]):
            members = np.flatnonzero(classes[first_G] == label)
            test[rng.permutation(members)[: round(share * len(members))]] = True
        if not test.any() or test.all():
            raise ConfigError(
                f"{len(groups)} inputs are too few to hold some out for the test; give more, or"
                " split=..."
            )
        splits = ["test" if test[group] else "train" for group in groups]
        note = (
            f"{splits.count('test')} of {len(splits)} inputs held out at random for the test; name"
            " a split column to choose"
        )
        return replace(self, splits=splits, remarks=(*self.remarks, note))

    def _with_test_groups(self, share: float, seed: int) -> "UserTable":
        groups = group_names(self.groups, len(self.inputs)) or ()
        numbers = split_by_group(groups, (1 - share, 0.0, share), seed)
        if len(set(groups)) < 2:
            raise ConfigError(
                f"all inputs are of the group {groups[0]!r}, so none can be held out for the test;"
                " give more groups, or split=..."
            )
        splits = [SPLITS[number] for number in numbers.tolist()]
        held_out = len({g for g, split in zip(groups, splits, strict=True) if split == "test"})
        note = (
            f"{splits.count('test')} of {len(splits)} inputs held out for the test, {held_out} of"
            f" {len(set(groups))} groups; name a split column to choose"
        )
        return replace(self, splits=splits, remarks=(*self.remarks, note))

    def without_unlabelled(self) -> "UserTable":
        """Return the table without the inputs that have no label at all; they are counted in the
        remarks.
        """
        if self.labels is None or not len(self.labels):
            return self
        missing = self.labels.isna()
        remarks = list(self.remarks)
        kept = np.flatnonzero(~missing.all(axis=1).to_numpy())
        if dropped := len(missing) - len(kept):
            if not len(kept):
                raise DataError(
                    f"all {dropped} labels of {', '.join(map(str, self.labels))} are missing; give"
                    " some"
                )
            remarks.append(f"{dropped} inputs without a label dropped")
        for name, count in missing.iloc[kept].sum().items():
            if count:
                remarks.append(f"{count} labels of {name} missing")
        inputs = self.inputs
        if dropped:
            inputs = inputs.iloc[kept] if hasattr(inputs, "iloc") else [inputs[i] for i in kept]
        splits, groups = (
            None if column is None else [column[i] for i in kept]
            for column in (self.splits, self.groups)
        )
        labels = self.labels.iloc[kept].reset_index(drop=True)
        return UserTable(inputs, labels, splits, tuple(remarks), groups)


def _groups(inputs: Any) -> np.ndarray:
    """Return a group number for each input, int [N], equal for equal inputs where they can be
    compared cheaply.
    """
    if hasattr(inputs, "columns"):
        return np.arange(len(inputs))
    keys = [
        item if isinstance(item, str | Path | int | float) else place
        for place, item in enumerate(inputs)
    ]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(map(repr, keys)))}
    return np.array([numbers[repr(key)] for key in keys])


def read_user_table(path: Path | str) -> "pd.DataFrame":
    """Return a CSV or TSV file as a DataFrame; raises DataError where it cannot be read."""
    import pandas as pd

    path = Path(path)
    try:
        return pd.read_csv(path, sep=SEPARATORS[path.suffix.lower()])
    except FileNotFoundError:
        raise DataError("no such file; check the path", path) from None
    except (ValueError, OSError) as error:
        raise DataError(
            f"cannot be read as a table ({' '.join(str(error).split())}); correct the file", path
        ) from None


def split_table(
    data: Any,
    targets: Any,
    domain: str,
    input: str | None = None,
    target: str | Sequence[str] | None = None,
    split: str | Sequence[str] | None = None,
    group: str | Sequence[Any] | None = None,
) -> UserTable:
    """Return the inputs, labels and splits of what users give.

    Args:
        data: a DataFrame, the path of a table, or a sequence of natural inputs.
        targets: the labels of a sequence.
        domain: the domain's name; some take whole tables as inputs.
        input: the column of a table that holds the inputs.
        target: the column or columns of a table that hold the labels.
        split: the column of a table, or the split of each input.
        group: the column of a table, or the group of each input.

    Raises:
        ConfigError: a column is missing or not named, or lengths differ.
        DataError: the path is no table.
    """
    import pandas as pd

    names = [target] if isinstance(target, str) else list(target or ())
    if isinstance(data, str | Path) and Path(data).suffix.lower() in SEPARATORS:
        data = read_user_table(data)
    if isinstance(data, str | Path | bytes):
        raise ConfigError("give a list of inputs, not a single one: [...]")
    remarks: tuple[str, ...] = ()
    if isinstance(data, pd.DataFrame):
        whole = bool(getattr(get_domain(domain).inputs, "takes_tables", False)) and input is None
        column, groups = (name if isinstance(name, str) else None for name in (split, group))
        _require_columns(data, input, (column, groups), names, whole)
        split = data[column].astype(str).tolist() if column else split
        group = data[groups].tolist() if groups else group
        targets = data[names] if names else targets
        # of a whole table the group may be a quantity of the input too (a rig, say), and stays
        used = {column, *names} | (set() if whole else {groups})
        rest = data.drop(columns=[n for n in used if n is not None])
        remarks = () if whole else _unused([str(n) for n in rest.columns if n != input])
        data = rest if whole else rest[input].tolist()
    elif input is not None or isinstance(split, str) or isinstance(group, str):
        raise ConfigError(
            "input, split and group name columns of a table, which the data are not; leave them out"
        )
    if not isinstance(data, pd.DataFrame):
        data = list(data)
    splits = None if split is None else [str(name) for name in split]
    if splits is not None and len(splits) != len(data):
        raise ConfigError(
            f"there are {len(data)} inputs and {len(splits)} splits; give one split for each"
        )
    named = None if group is None else list(group)
    if named is not None and len(named) != len(data):
        raise ConfigError(
            f"there are {len(data)} inputs and {len(named)} groups; give one group for each"
        )
    labels = None if targets is None else _labels(targets, names, data)
    return UserTable(data, labels, splits, remarks, named).without_unlabelled()


def _require_columns(
    data: "pd.DataFrame",
    input: str | None,
    others: Sequence[str | None],
    names: Sequence[str],
    whole: bool,
) -> None:
    """Raise ConfigError where a named column is missing, or the inputs' column is not named."""
    for name in (n for n in (input, *others, *names) if n is not None):
        if name not in data.columns:
            raise ConfigError(
                f"the table has no column {name!r};"
                f" {did_you_mean(str(name), map(str, data.columns))}"
            )
    if input is None and not whole:
        raise ConfigError(
            "name the column that holds the inputs, input=...; the table has"
            f" {', '.join(map(str, data.columns))}"
        )


def _unused(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    hint = '; to use its splits, name it: split="split"' if "split" in names else ""
    return (f"columns not used: {', '.join(names)}{hint}",)


def _labels(targets: Any, names: Sequence[str], data: Any) -> "pd.DataFrame":
    import pandas as pd

    if isinstance(targets, Mapping) and not isinstance(targets, pd.DataFrame):
        targets = pd.DataFrame(dict(targets))
    if not isinstance(targets, pd.DataFrame):
        values = np.asarray(targets)
        if values.ndim > 1:
            columns = list(names) or [f"target_{i}" for i in range(values.shape[1])]
            targets = pd.DataFrame(values, columns=columns)
        else:
            name = names[0] if names else getattr(targets, "name", None) or "label"
            targets = pd.Series(list(targets), name=name).to_frame()
    if len(targets) != len(data):
        raise ConfigError(
            f"there are {len(data)} inputs and {len(targets)} labels; give one label for each"
        )
    return targets.reset_index(drop=True)
