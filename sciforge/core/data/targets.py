"""One label a record, as users hold it in memory: classes or numbers, and which are missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.data.store import SPLIT_NAMES
from sciforge.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Target:
    """The labels of one target.

    Args:
        name: of the column they came from.
        texts: each label as text, empty where it is missing.
        numeric: whether they are numbers to regress on, not classes.
    """

    name: str
    texts: tuple[str, ...]
    numeric: bool


def one_target(targets: "pd.DataFrame | None", domain: str) -> Target:
    """Return the only column of labels; floats are numbers to regress on; text, integers and
    booleans are classes.

    Args:
        targets: one column, NaN or None where a label is missing.
        domain: named in errors.

    Raises:
        ConfigError: there is no column, or more than one.
        DataError: a label is neither text nor a number, or is infinite.

    >>> import pandas as pd
    >>> one_target(pd.DataFrame({"class": [1, 0]}), "text")
    Target(name='class', texts=('1', '0'), numeric=False)
    >>> one_target(pd.DataFrame({"stars": [1.5, None]}), "text").texts
    ('1.5', '')
    """
    if targets is None or not targets.shape[1]:
        raise ConfigError(
            f"a model of {domain} is fitted to labels; give targets, one for each input"
        )
    if targets.shape[1] > 1:
        names = ", ".join(map(str, targets.columns))
        raise ConfigError(
            f"a model of {domain} learns one target, and there are {names}; choose one with"
            " target=..."
        )
    column = targets.iloc[:, 0]
    present = column[column.notna()]
    kinds = {type(value) for value in present}
    numeric = bool(kinds) and all(issubclass(kind, float | np.floating) for kind in kinds)
    missing = column.isna()
    texts = tuple("" if missing.iloc[i] else _text(value, i) for i, value in enumerate(column))
    return Target(str(targets.columns[0]), texts, numeric)


def _text(value: Any, place: int) -> str:
    if isinstance(value, str | bool | int | np.bool_ | np.integer):
        return str(value).strip()
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            raise DataError(f"label {place} is {value}; correct it, or leave it empty")
        return repr(float(value))
    raise DataError(f"label {place} is a {type(value).__name__}; give text, a number or a boolean")


def split_numbers(split: Sequence[str] | None, count: int) -> np.ndarray:
    """Return the number of each input's split, uint8 [N]: 0 train, 1 validation, 2 test; all 0
    where none is given.

    Raises:
        DataError: a split has an unknown name; names the input by its place.

    >>> split_numbers(["train", "dev", "test"], 3).tolist()
    [0, 1, 2]
    """
    numbers = np.zeros(count, np.uint8)
    for place, name in enumerate(split or ()):
        word = str(name).strip().lower()
        if word not in SPLIT_NAMES:
            raise DataError(f"input {place}: no split {name!r}; {did_you_mean(word, SPLIT_NAMES)}")
        numbers[place] = SPLIT_NAMES[word]
    return numbers
