"""Micro-batches of a step, made here or by worker processes, the same for any number of either."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from sciforge.core.data import sampling
from sciforge.core.domain import Batch, Objective, Record
from sciforge.errors import SciforgeError


@dataclass(frozen=True)
class ExampleSource:
    """Examples and the objective that learns from them; replay is a second stream beside the first."""

    objective: Objective
    records: Sequence[Record]
    batch: int


@dataclass(frozen=True)
class StepData(Dataset):
    """The micro-batches of a step, for one process: a pure function of the step, so any worker may make them."""

    streams: tuple[ExampleSource, ...]
    codec: Any
    seed: int
    rank: int
    world: int
    micro_batch: int | None
    poisson: tuple[float, int] | None = None  # chance of each example and the seed of the draw, for private training

    def indices(self, stream: ExampleSource, step: int) -> list[tuple[int, int]]:
        """Return the (epoch, index) pairs of all processes together."""
        if self.poisson:
            return sampling.poisson_indices(len(stream.records), *self.poisson, step)
        return sampling.step_indices(len(stream.records), stream.batch, self.seed, step)

    def __getitem__(self, step: int) -> list[list[Batch]]:
        batches = []
        for stream in self.streams:
            examples = []
            for epoch, index in sampling.share_of_rank(self.indices(stream, step), self.rank, self.world):
                rng = sampling.generator(self.seed, sampling.CORRUPT, epoch, index)
                examples.append(stream.objective.prepare(stream.records[index], self.codec, rng, training=True))
            batches.append([self.codec.collate(part) for part in sampling.micro_batches(examples, self.micro_batch)])
        return batches

    def load(self, steps: range, workers: int) -> Iterator[tuple[int, list[list[Batch]]]]:
        """Yield the micro-batches of each step and stream; workers prepare steps ahead."""
        if not workers or not steps:
            yield from ((step, self[step]) for step in steps)
            return
        options = {"batch_size": None, "collate_fn": _unchanged, "multiprocessing_context": "spawn"}
        for step, made in zip(
            steps, DataLoader(_Told(self), sampler=steps, num_workers=workers, **options), strict=True
        ):
            if isinstance(made, SciforgeError):
                raise made
            yield step, made


@dataclass(frozen=True)
class _Told(Dataset):
    """Hands a worker's SciforgeError over as a value; DataLoader would wrap it in the worker's traceback."""

    data: StepData

    def __getitem__(self, step: int) -> Any:
        try:
            return self.data[step]
        except SciforgeError as error:
            return error


def _unchanged(value: Any) -> Any:
    return value
