"""What each process does, told to the others every few seconds, so that one that hung or died is
named.

The notes lie in the store in which the processes met (torch.distributed.Store). A collective call
fails on the processes that wait; these then read who has not come to it.
"""

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from sciforge.errors import ConfigError, printable

# what collective calls raise where a process is missing
BROKEN = re.compile(
    r"timed? ?out|connection (closed|reset|refused)|broken pipe|gloo|nccl|remote process"
    r" exited|socket",
    re.IGNORECASE,
)
LONGEST_INTERVAL = 2.0  # seconds between the notes of a process
LONGEST_END = 30.0  # seconds that the last note may take, where the store does not answer


def broken_call(error: BaseException) -> RuntimeError | None:
    """Return the failure of a collective call that an error is, or that a signal interrupted; None
    for other errors.
    """
    for cause in (error, error.__context__):
        if isinstance(cause, RuntimeError) and BROKEN.search(str(cause)):
            return cause
    return None


@dataclass(frozen=True)
class Note:
    """What a process says of itself.

    Args:
        number: of its notes so far, which grows as long as it lives.
        calls: collective calls it has come to.
        awaits: what it waits for in a collective call; empty where it computes.
        step: in progress, counted from 1; None outside of training.
        failed: a collective call failed, because another process is missing.
        error: with which it stops on its own account; empty where none.
    """

    number: int = 0
    calls: int = 0
    awaits: str = ""
    step: int | None = None
    failed: bool = False
    error: str = ""


class RankWatch:
    """Publishes the notes of this process and reads those of the others.

    Args:
        store: where the processes met.
        rank: of this process.
        world: how many there are.
        timeout: of collective calls, seconds.

    Attributes:
        step: in progress, counted from 1; set by the training loop.
    """

    def __init__(self, store: Any, rank: int, world: int, timeout: float) -> None:
        self.rank, self.world, self.timeout = rank, world, timeout
        self.interval = min(LONGEST_INTERVAL, timeout / 4)
        self.step: int | None = None
        self._store = store.clone()  # a connection of its own: a call on one blocks the others
        self._calls, self._awaits, self._failed, self._error, self._number = 0, "", False, "", 0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._publish_often, daemon=True)

    def start(self) -> "RankWatch":
        """Begin to publish."""
        self._thread.start()
        return self

    def end(self) -> None:
        """Stop publishing; waits for a note in progress, for Python must not end within it."""
        self._ended.set()
        self._thread.join(LONGEST_END)

    @contextmanager
    def waiting(self, awaits: str) -> Iterator[None]:
        """Note a collective call; one that fails stays noted."""
        self._calls += 1
        self._awaits = awaits
        yield
        self._awaits = ""

    def note_error(self, error: BaseException) -> None:
        """Tell the others that this process stops on its own account, and why."""
        first = next(iter(str(error).splitlines()), "")
        self._error = f"{type(error).__name__}: {first[:300]}" if first else type(error).__name__
        self._publish()

    def blame(self, error: RuntimeError) -> ConfigError:
        """Return the error, in one line, that names the processes that did not come to the call
        that failed.

        Args:
            error: of the collective call.
        """
        self._failed = True
        self._publish()
        before = self._read()
        time.sleep(2.5 * self.interval)
        now = self._read()
        absent = self._absent(before, now)
        who = "; ".join(f"rank {rank} {what}" for rank, what in absent.items())
        if not who and not now:
            who = "the process that started torchrun's store, or its node, died"
        why = " ".join(str(error).split())[:160]
        step = "" if self.step is None else f" in step {self.step}"
        limit = f"hardware.timeout is {self.timeout:g} s"
        rest = "continue with --resume" if self.step is not None else "start again"
        problem = ConfigError(
            printable(
                f"{who or f'a process hung or died ({why})'}; rank {self.rank} waited{step} for"
                f" {self._awaits or 'a collective call'} ({limit}); see its log, {rest}"
            )
        )
        # all that wait raise it; the first of them says it
        present = [rank for rank in range(self.world) if rank not in absent]
        problem.on_all_ranks = self.rank != min(present, default=self.rank)
        return problem

    def _absent(self, before: Mapping[int, Note], now: Mapping[int, Note]) -> dict[int, str]:
        """Return rank -> what is known of it, of those that this process waits for."""
        others = [rank for rank in range(self.world) if rank != self.rank]
        absent = {}
        for rank in others:
            note = now.get(rank, Note())
            where = "" if note.step is None else f" in step {note.step}"
            if note.error:
                absent[rank] = f"stopped{where} ({note.error})"
            elif note.failed:
                continue
            elif rank not in now or note.number == before.get(rank, Note()).number:
                absent[rank] = "died or is frozen"
            elif note.calls < self._calls:
                absent[rank] = f"hangs{where}"
        if absent:
            return absent
        # models that communicate within a step on their own (shard) are not counted
        return {
            rank: "hangs" if now[rank].step is None else f"hangs in step {now[rank].step}"
            for rank in others
            if rank in now and not now[rank].failed and not now[rank].awaits
        }

    def _publish_often(self) -> None:
        with suppress(RuntimeError):  # the store went with the process that kept it
            self._publish()
            while not self._ended.wait(self.interval):
                self._publish()

    def _publish(self) -> None:
        with self._lock, suppress(RuntimeError):
            self._number += 1
            note = Note(
                self._number, self._calls, self._awaits, self.step, self._failed, self._error
            )
            self._store.set(f"sciforge/note/{self.rank}", json.dumps(asdict(note)))

    def _read(self) -> dict[int, Note]:
        notes = {}
        with self._lock, suppress(RuntimeError):
            for rank in range(self.world):
                key = f"sciforge/note/{rank}"
                if self._store.check([key]):
                    notes[rank] = Note(**json.loads(self._store.get(key)))
        return notes
