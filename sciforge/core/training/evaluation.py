"""A model's metrics on a split: the loss as the loop counts it, and the objective's own metrics."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.data import sampling
from sciforge.core.domain import Batch, Codec, Loss, Objective, Records
from sciforge.core.training.distributed import Engine
from sciforge.core.transfers import to_numbers, wide


class Tally:
    """Adds up losses and their parts by name, in float64, on the device that computed them.

    The host waits for the device when `pairs` is read, once for all names together.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, loss: Loss) -> None:
        """Add one batch's sums and counts."""
        for name, pair in {"loss": (loss.total, loss.count), **loss.parts}.items():
            total, count = (wide(torch.as_tensor(value)) for value in pair)
            if name in self._sums:
                total, count = self._sums[name][0] + total, self._sums[name][1] + count
            self._sums[name] = total, count

    @property
    def pairs(self) -> dict[str, tuple[float, float]]:
        """The sum and the count of each name."""
        numbers = iter(to_numbers([value for pair in self._sums.values() for value in pair]))
        return {name: (next(numbers), next(numbers)) for name in self._sums}


def means(pairs: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Divide sums by counts; 0 where nothing was counted.

    >>> means({"loss": (6.0, 3.0), "rare": (0.0, 0.0)})
    {'loss': 2.0, 'rare': 0.0}
    """
    return {name: total / count if count else 0.0 for name, (total, count) in pairs.items()}


@contextmanager
def evaluation(model: nn.Module, objective: Objective) -> Iterator[None]:
    """Put a model into evaluation mode and back; gradients only where the objective
    differentiates (forces).
    """
    training = model.training
    model.eval()
    try:
        with torch.set_grad_enabled(objective.needs_grad):
            yield
    finally:
        model.train(training)


def batches(
    objective: Objective,
    codec: Codec,
    records: Records,
    indices: Sequence[int],
    seed: int,
    size: int,
) -> Iterator[Batch]:
    """Yield collated batches; corruption is that of epoch 0, so every evaluation sees the same
    masks.
    """
    for part in sampling.micro_batches(list(indices), size):
        examples = []
        for index in part:
            rng = sampling.generator(seed, sampling.EVALUATE, 0, index)
            examples.append(objective.prepare(records[index], codec, rng, training=False))
        yield codec.collate(examples)


def evaluate(
    model: nn.Module,
    objective: Objective,
    codec: Codec,
    records: Records,
    engine: Engine,
    seed: int = 0,
    size: int = 32,
) -> dict[str, float]:
    """Return the mean loss, its parts and the objective's metrics over `records`, for any number of
    processes.

    Under `shard` every process computes everything, since all must run the same number of passes.
    """
    indices = list(range(len(records)))
    share = (
        indices
        if engine.shard
        else list(sampling.share_of_rank(indices, engine.part, engine.parts))
    )
    tally = Tally()
    outputs: dict[str, list[np.ndarray]] = {}
    with evaluation(model, objective):
        for batch in batches(objective, codec, records, share, seed, size):
            batch = engine.move(batch)
            with engine.autocast():
                tally.add(objective.loss(model, batch))
                predicted = objective.predict(model, batch)
            for name, value in predicted.items():
                outputs.setdefault(name, []).append(as_array(value))
    joined = {name: np.concatenate(parts) for name, parts in outputs.items()}
    pairs = tally.pairs
    if not engine.shard:
        pairs = engine.sum(pairs)
        joined = _in_order(engine.gather(joined), len(records))
    metrics = means(pairs)
    if joined:
        metrics |= {
            name: float(value) for name, value in objective.metrics(joined, records).items()
        }
    return metrics


def as_array(value: torch.Tensor | Sequence[torch.Tensor]) -> np.ndarray:
    """Return an output as an array, bfloat16 widened; a ragged one as an array of arrays, one an
    example.
    """
    if not isinstance(value, torch.Tensor):
        ragged = np.empty(len(value), object)
        if not len(value):
            return ragged
        flat = as_array(torch.cat([item.flatten() for item in value]))  # one copy from the device
        ends = np.cumsum([item.numel() for item in value])
        # assigned at once, equal shapes would become one array
        for place, item in enumerate(value):
            ragged[place] = (
                flat[ends[place] - item.numel() : ends[place]].reshape(item.shape).copy()
            )
        return ragged
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _in_order(shares: list[dict[str, np.ndarray]], num: int) -> dict[str, np.ndarray]:
    """Interleave the processes' outputs; with few records some processes have none, the first
    always has.
    """
    joined = {}
    for name, first in shares[0].items():
        joined[name] = np.empty((num, *first.shape[1:]), first.dtype)
        for rank, share in enumerate(shares):
            if name in share:
                joined[name][rank :: len(shares)] = share[name]
    return joined
