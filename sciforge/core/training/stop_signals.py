"""Signals that stop training after the step in progress, with a checkpoint to resume from.

SIGTERM and SIGUSR1 are what clusters send before they take a machine back. Ctrl-C asks for the same
when more than a minute of work would be lost; a second Ctrl-C stops at once.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOGGER = logging.getLogger("sciforge")
AT_STAKE = 60.0  # seconds of work since the last checkpoint for which Ctrl-C waits


class StopSignals:
    """Whether a signal asked training to stop.

    Attributes:
        received: the signal's name; None where none came.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.saved = time.monotonic()

    def note_saved(self) -> None:
        """Note that nothing is at stake now."""
        self.saved = time.monotonic()

    @contextmanager
    def handled(self) -> Iterator["StopSignals"]:
        """Handle the signals inside the block, those excepted that the caller handles or
        ignores.
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
            for number, before in replaced.items():
                signal.signal(number, before)

    def _handle(self, number: int, _: Any) -> None:
        if number == signal.SIGINT:
            if self.received or time.monotonic() - self.saved < AT_STAKE:
                raise KeyboardInterrupt
            LOGGER.warning(
                "stopping after this step and saving; press Ctrl-C again to stop at once"
            )
        self.received = self.received or signal.Signals(number).name
