"""Micro-batches of a step, made here or by worker processes, the same for any number of either."""

import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sciforge.core.data import sampling
from sciforge.core.domain import Batch, Objective, Records
from sciforge.errors import SciforgeError

T = TypeVar("T")
CPU = torch.device("cpu")
AHEAD = 2  # steps that wait for the GPU
LONG_RUN = 200  # steps from which processes are worth the seconds they take to start


@dataclass(frozen=True)
class ExampleSource:
    """The records of a task and the objective that learns from them.

    Args:
        objective: prepares the records and gives the loss.
        records: of the training split.
        seed: of the order and of every corruption.
        share: of the examples of all tasks, exact in the long run and rounded in a step.
    """

    objective: Objective
    records: Records
    seed: int
    share: Fraction = Fraction(1)


@dataclass(frozen=True)
class StepData(Dataset):
    """The micro-batches of a step, for one process: a pure function of the step, so any worker may
    make them.

    Args:
        sources: what is learnt from, one a task.
        codec: encodes and collates.
        batch: examples of a step, of all tasks and processes together.
        part: which part of the batch is this process's.
        parts: into how many parts a batch is cut.
        micro_batch: examples of a micro-batch at most; None for all.
        poisson: for DP-SGD, the chance of each example and the seed of the draw.
    """

    sources: tuple[ExampleSource, ...]
    codec: Any
    batch: int
    part: int
    parts: int
    micro_batch: int | None
    poisson: tuple[float, int] | None = None

    def places(self, step: int) -> list[range]:
        """Return the places in each source's own sequence of examples that all processes draw."""
        return sampling.task_places(self.batch, [source.share for source in self.sources], step)

    def indices(self, step: int) -> list[list[tuple[int, int]]]:
        """Return for each source the (epoch, index) pairs of all processes together."""
        if self.poisson:
            sizes = [len(source.records) for source in self.sources]
            return [sampling.poisson_indices(size, *self.poisson, step) for size in sizes]
        return [
            sampling.indices_at(len(source.records), places, source.seed)
            for source, places in zip(self.sources, self.places(step), strict=True)
        ]

    def __getitem__(self, step: int) -> list[list[Batch]]:
        batches, before = [], 0
        for source, indices in zip(self.sources, self.indices(step), strict=True):
            # processes share the batch as one list, so that none gets more than its part of it
            first = (self.part - before) % self.parts
            before += len(indices)
            examples = []
            for epoch, index in sampling.share_of_rank(indices, first, self.parts):
                rng = sampling.generator(source.seed, sampling.CORRUPT, epoch, index)
                examples.append(
                    source.objective.prepare(source.records[index], self.codec, rng, training=True)
                )
            pieces = sampling.micro_batches(examples, self.micro_batch)
            batches.append([self.codec.collate(piece) for piece in pieces])
        return batches

    def load(
        self, steps: range, workers: int | None, device: torch.device = CPU
    ) -> Iterator[tuple[int, list[list[Batch]]]]:
        """Yield the micro-batches of each step and source; workers prepare steps ahead.

        For a GPU a thread keeps AHEAD steps ready, in pinned memory, from which copies do not make
        the host wait.
        """
        if workers is None:
            workers = default_workers(device, len(steps))
        batches = (
            self._by_workers(steps, workers)
            if workers and steps
            else ((step, self[step]) for step in steps)
        )
        return _pinned_ahead(batches) if device.type == "cuda" else batches

    def _by_workers(self, steps: range, workers: int) -> Iterator[tuple[int, list[list[Batch]]]]:
        options: dict[str, Any] = {
            "batch_size": None,
            "collate_fn": _unchanged,
            "multiprocessing_context": "spawn",
        }
        options["worker_init_fn"] = _leave_signals
        loader = DataLoader(_ErrorsAsValues(self), sampler=steps, num_workers=workers, **options)
        for step, batches in zip(steps, loader, strict=True):
            if isinstance(batches, SciforgeError):
                raise batches
            yield step, batches


def default_workers(device: torch.device, steps: int) -> int:
    """Return how many processes prepare examples where the run does not say.

    They start by importing the main module again, which a script without a guard does not survive;
    so there are none but under sciforge's own command, and none where starting them would take
    longer than they save.
    """
    program = Path(getattr(sys.modules["__main__"], "__file__", None) or "").parts[-2:]
    ours = program[-1:] == ("sciforge",) or program == ("sciforge", "__main__.py")
    if device.type != "cuda" or steps < LONG_RUN or not ours:
        return 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return min(
        4,
        (
            len(os.sched_getaffinity(0)) // processes
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        ),
    )


def _pinned_ahead(batches: Iterator[T]) -> Iterator[T]:
    """Yield what an iterator yields, a few items ahead and in pinned memory."""
    end = object()
    with ThreadPoolExecutor(1, "sciforge-batches") as thread:  # one, so that the order stays
        ready = deque(thread.submit(lambda: pinned(next(batches, end))) for _ in range(AHEAD))
        try:
            while (item := ready.popleft().result()) is not end:
                ready.append(thread.submit(lambda: pinned(next(batches, end))))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)


def pinned(value: Any) -> Any:
    """Return batches with their tensors in pinned memory: mappings, sequences, and objects such
    as PyG's with `apply`.
    """
    if isinstance(value, Tensor):
        return value.pin_memory()
    if isinstance(value, Mapping):
        return {name: pinned(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(pinned(item) for item in value)
    return value.apply(pinned) if hasattr(value, "apply") else value


@dataclass(frozen=True)
class _ErrorsAsValues(Dataset):
    """Hands a worker's SciforgeError over as a value; DataLoader would wrap it in the worker's
    traceback.
    """

    data: StepData

    def __getitem__(self, step: int) -> Any:
        try:
            return self.data[step]
        except SciforgeError as error:
            return error


def _leave_signals(_: int) -> None:
    """Ignore what stops training: a signal to the whole group is the main process's to act on,
    with its workers alive.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _unchanged(value: Any) -> Any:
    return value
