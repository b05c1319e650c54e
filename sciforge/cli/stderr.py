"""What a command writes to standard error: the log, warnings, progress and the line of an error;
under torchrun each once, not by every process.
"""

import hashlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

LOGGER = logging.getLogger("sciforge")
# seconds that a process waits for the first one of its node to say what it would say too
FIRST_SPEAKS = 2.0
QUIET_CHILDREN = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}


class _Handler(logging.StreamHandler):
    """Writes to what is `sys.stderr` at the time, as programs that call `main` may replace it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("sciforge: %(message)s"))

    @property
    def stream(self) -> TextIO:
        """Standard error as it is now."""
        return sys.stderr


def is_first() -> bool:
    """Return whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def open_closed_streams() -> None:
    """Give standard output and error a file where the launcher closed them: both may be None
    then.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


@contextmanager
def messages(verbose: bool, quiet: bool) -> Iterator[None]:
    """Show the log, warnings and progress bars of a command as `--verbose` and `--quiet` say.

    Args:
        verbose: log what helps to find a fault too.
        quiet: hide all but errors, in this process and those that it starts.
    """
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    handler, before = _Handler(), LOGGER.level
    if not is_first():
        handler.setLevel(logging.DEBUG if verbose else logging.ERROR)
    LOGGER.setLevel(level)
    if not LOGGER.handlers:  # else a program that calls `main` shows the log its own way
        LOGGER.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            if not quiet:
                yield
                return
            warnings.simplefilter("ignore")
            with _quiet_libraries():
                yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Hide the progress bars and the warnings in the logs of all libraries."""
    from tqdm import std

    shown: Any = std.tqdm.__init__
    last, environment = logging.lastResort, dict(os.environ)
    level = logging.NOTSET if last is None else last.level

    def hidden(self: Any, *args: Any, **options: Any) -> None:
        shown(self, *args, **{**options, "disable": True})

    try:
        std.tqdm.__init__ = hidden
        os.environ.update(QUIET_CHILDREN)
        if last is not None:  # shows the warnings of libraries whose logs no one handles
            last.setLevel(logging.ERROR)
        yield
    finally:
        std.tqdm.__init__ = shown
        for name in QUIET_CHILDREN:
            os.environ.pop(name, None)
            if name in environment:
                os.environ[name] = environment[name]
        if last is not None:
            last.setLevel(level)


def _show_warning(
    message: Warning | str, category: type[Warning], *where: object, **more: object
) -> None:
    """Print a warning as one line; where in the code it arose helps nobody at a terminal."""
    if is_first():
        print(f"sciforge: warning: {' '.join(str(message).split())}", file=sys.stderr)


def complain(line: str, code: int) -> int:
    """Print the line of an error, where no other process of the node has, and return the exit
    code.
    """
    line = " ".join(line.split())
    if _claims(line):
        rank = "" if is_first() else f" (rank {os.environ['RANK']})"
        print(f"sciforge{rank}: {line}", file=sys.stderr, flush=True)
    return code


def _claims(line: str) -> bool:
    """Return whether this process is the one that says a line: of those of a node with the same
    line the first.

    torchrun gives each process the name of a file beside those of the others, in a folder that it
    removes at its end; whoever makes a file there says the line.
    """
    place = os.environ.get("TORCHELASTIC_ERROR_FILE", "")
    folder = Path(place).parents[1] if place.count(os.sep) > 1 else None
    if folder is None or not folder.is_dir():
        return True
    said = folder / f"sciforge-{hashlib.sha256(line.encode()).hexdigest()[:16]}"
    until = time.monotonic() + FIRST_SPEAKS
    while os.environ.get("LOCAL_RANK", "0") != "0" and time.monotonic() < until:
        if said.exists():
            return False
        time.sleep(0.02)
    with suppress(OSError):
        os.close(os.open(said, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return True
    return not said.exists()
