"""Signals that stop training after the step in progress, with a checkpoint to resume from.

SIGTERM and SIGUSR1 are what clusters send before they take a machine back. Ctrl-C asks for the same
when more than a minute of work would be lost; a second Ctrl-C stops at once. Before the first step
there is nothing to save, and all three stop at once.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sciforge.errors import StoppedError

LOGGER = logging.getLogger("sciforge")
AT_STAKE = 60.0  # seconds of work since the last checkpoint for which Ctrl-C waits


class StopSignals:
    """Whether a signal asked training to stop.

    Args:
        out: the folder of the run, for the message.

    Attributes:
        received: the signal's name; None where none came.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.received = out, None  # type: Path, str | None
        self.saved = time.monotonic()
        self._stepping = False

    def note_stepping(self) -> None:
        """Note that steps are taken from here on: a signal waits for the one in progress."""
        self._stepping = True
        self.note_saved()

    def note_saved(self) -> None:
        """Note that nothing is at stake now."""
        self.saved = time.monotonic()

    @contextmanager
    def handled(self) -> Iterator["StopSignals"]:
        """Handle the signals inside the block, those excepted that the caller handles or
        ignores.

        Raises:
            StoppedError: SIGTERM or SIGUSR1 came before the first step.
        """
        defaults: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGUSR1: signal.SIG_DFL}
        defaults[signal.SIGINT] = signal.default_int_handler
        replaced = {}
        try:
            # Python lets no other thread handle signals
            if threading.current_thread() is threading.main_thread():
                for number, default in defaults.items():
                    if signal.getsignal(number) == default:
                        replaced[number] = signal.signal(number, self._handle)
            yield self
        finally:
            # torchrun signals again as soon as one of its processes ends: the others are to end too
            if self.received is None or int(os.environ.get("WORLD_SIZE", 1)) == 1:
                for number, before in replaced.items():
                    signal.signal(number, before)

    def _handle(self, number: int, _: Any) -> None:
        name, again = signal.Signals(number).name, self.received is not None
        if number == signal.SIGINT:
            if again or not self._stepping or time.monotonic() - self.saved < AT_STAKE:
                raise KeyboardInterrupt
            LOGGER.warning(
                "stopping after this step and saving; press Ctrl-C again to stop at once"
            )
        self.received = self.received or name
        if not self._stepping and not again:
            raise StoppedError(
                f"{self.out}: stopped by {name} before a step; start again with --resume (in"
                " Python: resume=True)"
            )


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore the signals of clusters inside the block, for a process that is about to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
