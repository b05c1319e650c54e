"""Micro-batches of a step, made here or by worker processes, the same for any number of either."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from sciforge.core.data import sampling
from sciforge.core.domain import Batch, Objective, Records
from sciforge.errors import SciforgeError


@dataclass(frozen=True)
class ExampleSource:
    """Records and the objective that learns from them; replay is a second source beside the first.

    Args:
        objective: prepares the records and gives the loss.
        records: of the training split.
        batch: examples of a step.
    """

    objective: Objective
    records: Records
    batch: int


@dataclass(frozen=True)
class StepData(Dataset):
    """The micro-batches of a step, for one process: a pure function of the step, so any worker may make them.

    Args:
        sources: what is learnt from.
        codec: encodes and collates.
        seed: of the order and of every corruption.
        part: which part of the batch is this process's.
        parts: into how many parts a batch is cut.
        micro_batch: examples of a micro-batch at most; None for all.
        poisson: for DP-SGD, the chance of each example and the seed of the draw.
    """

    sources: tuple[ExampleSource, ...]
    codec: Any
    seed: int
    part: int
    parts: int
    micro_batch: int | None
    poisson: tuple[float, int] | None = None

    def indices(self, source: ExampleSource, step: int) -> list[tuple[int, int]]:
        """Return the (epoch, index) pairs of all processes together."""
        if self.poisson:
            return sampling.poisson_indices(len(source.records), *self.poisson, step)
        return sampling.step_indices(len(source.records), source.batch, self.seed, step)

    def __getitem__(self, step: int) -> list[list[Batch]]:
        batches = []
        for source in self.sources:
            examples = []
            for epoch, index in sampling.share_of_rank(self.indices(source, step), self.part, self.parts):
                rng = sampling.generator(self.seed, sampling.CORRUPT, epoch, index)
                examples.append(source.objective.prepare(source.records[index], self.codec, rng, training=True))
            batches.append([self.codec.collate(part) for part in sampling.micro_batches(examples, self.micro_batch)])
        return batches

    def load(self, steps: range, workers: int) -> Iterator[tuple[int, list[list[Batch]]]]:
        """Yield the micro-batches of each step and source; workers prepare steps ahead."""
        if not workers or not steps:
            yield from ((step, self[step]) for step in steps)
            return
        options: dict[str, Any] = {"batch_size": None, "collate_fn": _unchanged, "multiprocessing_context": "spawn"}
        options["worker_init_fn"] = _leave_signals
        loader = DataLoader(_ErrorsAsValues(self), sampler=steps, num_workers=workers, **options)
        for step, batches in zip(steps, loader, strict=True):
            if isinstance(batches, SciforgeError):
                raise batches
            yield step, batches


@dataclass(frozen=True)
class _ErrorsAsValues(Dataset):
    """Hands a worker's SciforgeError over as a value; DataLoader would wrap it in the worker's traceback."""

    data: StepData

    def __getitem__(self, step: int) -> Any:
        try:
            return self.data[step]
        except SciforgeError as error:
            return error


def _leave_signals(_: int) -> None:
    """Ignore what stops training: a signal to the whole group is the main process's to act on, with its workers alive."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _unchanged(value: Any) -> Any:
    return value
