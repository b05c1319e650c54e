"""Tasks in spawned processes, one thread each; a task that fails or kills its process is
reported with a reason.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any
from unittest.mock import patch

from sciforge.errors import ConfigError

# More OpenMP threads than one only get in each other's way on molecules: ethanol 19 ms with one,
# 750 ms with two.
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
# A worker may die for reasons that are not the task's (another process takes the memory), so it
# gets a second try.
TRIES = 2
Task = tuple[int, Any]  # index, argument


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Answer each task that comes through the pipe with (result, "") or (None, reason), until
    the pipe closes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C too and closes the pipe
    pipe.send("ready")
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            answer = function(task), ""
        except Exception as error:
            answer = None, f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        pipe.send(answer)


class _Worker:
    """A spawned process with one OpenMP thread, and the task it is at."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=_serve, args=(end, function), daemon=True)
        # OpenMP reads its variables once, when the child loads it
        with patch.dict(os.environ, ONE_THREAD):
            self.process.start()
        end.close()
        self.send(None)
        try:
            self.pipe.recv()
        except (EOFError, ConnectionResetError):
            remedy = 'in a script, start it below `if __name__ == "__main__":`'
            raise ConfigError(
                f"a worker process died before its first structure; {remedy}"
            ) from None

    def send(self, task: Task | None, tries: int = 1) -> None:
        self.task, self.tries = task, tries
        if task is not None:
            # it died while idle: `take` sees the end of the pipe
            with suppress(BrokenPipeError, ConnectionResetError):
                self.pipe.send(task[1])

    def receive(self) -> tuple[Any, str] | None:
        """Return the answer, or None where the process died."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return None

    def stop(self) -> int | None:
        """End the process and return its exit code: its own, where it had died before."""
        self.pipe.close()
        self.process.join(0.2)
        self.process.kill()
        self.process.join()
        return self.process.exitcode


def scatter(
    function: Callable[[Any], Any], tasks: Iterable[Task], workers: int
) -> Iterator[tuple[int, Any, str]]:
    """Yield (index, result, reason) as tasks finish in spawned processes; a task that fails or
    kills one has a reason.

    Raises:
        ConfigError: the processes cannot start.
    """
    tasks = iter(tasks)
    processes: list[_Worker] = []
    try:
        for _, task in zip(range(workers), tasks, strict=False):
            processes.append(_Worker(function))
            processes[-1].send(task)
        while busy := [worker.pipe for worker in processes if worker.task is not None]:
            ready = set(wait(busy))
            for place, worker in enumerate(processes):
                if worker.pipe not in ready:
                    continue
                task, tries, answer = worker.task, worker.tries, worker.receive()
                if answer is None:
                    answer = None, f"the worker process died with exit code {worker.stop()}"
                    processes[place] = worker = _Worker(function)
                    if tries < TRIES:
                        worker.send(task, tries + 1)
                        continue
                worker.send(next(tasks, None))
                yield task[0], *answer
    finally:
        for worker in processes:
            worker.stop()
