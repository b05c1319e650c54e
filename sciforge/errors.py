"""Every error a user can meet: one line that says where, what and how to mend it.

SciforgeError
├── DataError         a file or record is not what it should be
├── ConfigError       a setting is unknown, contradictory or out of range
├── CheckpointError   a checkpoint is missing, damaged or of the wrong kind
├── DivergedError     training produced a loss or gradient that is not finite
└── MissingExtra      an optional package is needed; names the pip command
"""

import difflib
from collections.abc import Iterable
from pathlib import Path


class SciforgeError(Exception):
    """The root of all errors raised on purpose; the command line prints it as one line and exits
    with 2.

    Attributes:
        on_all_ranks: every process of the run raises it, so only the first prints it.
    """

    on_all_ranks = False


class DataError(SciforgeError, ValueError):
    """A file or record is not what it should be; a ValueError too, as scientific Python expects of
    bad values.

    Args:
        what: what is wrong, and after a semicolon how to mend it.
        path: the file, printed first.
        line: the line in the file (1-based), printed after the path.
    """

    def __init__(self, what: str, path: Path | str | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(where + what)
        self.path, self.line = path, line


class ConfigError(SciforgeError, ValueError):
    """A setting is unknown, contradictory or out of range; a ValueError too."""


class CheckpointError(SciforgeError):
    """A checkpoint is missing, damaged or of the wrong kind."""


class DivergedError(SciforgeError):
    """Training produced a loss or gradient that is not finite."""


class MissingExtra(SciforgeError):
    """An optional package is needed.

    Args:
        package: the package that could not be imported.
        extra: the extra of sciforge that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is not installed; pip install "sciforge[{extra}]"')


class StoppedError(SystemExit):
    """A signal stopped training after a step, and a checkpoint to resume from is saved; a script
    that does not catch it exits with code 75 (EX_TEMPFAIL: start again later).

    Args:
        line: what happened and how to go on.
    """

    def __init__(self, line: str) -> None:
        super().__init__(75)
        self.line = line

    def __str__(self) -> str:
        return self.line


def printable(text: str) -> str:
    r"""Return what a file says fit for an error: a damaged file must neither break the line nor
    steer the terminal.

    >>> print(printable("naïve"), printable("a\nb"))
    naïve 'a\nb'
    """
    return text if text.isprintable() else ascii(text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint naming the nearest known word, or all of them when none is near.

    >>> did_you_mean("mask_rat", ["mask_rate", "length"])
    "did you mean 'mask_rate'?"
    """
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    return (
        f"did you mean {near[0]!r}?"
        if near
        else f"known: {', '.join(map(printable, known)) or 'none'}"
    )
