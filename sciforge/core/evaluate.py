"""A model's figures on a split: the loss as the loop counts it, and the objective's own metrics."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core import order
from sciforge.core.domain import Batch, Objective, Record
from sciforge.core.engine import Engine


@contextmanager
def frozen_dropout(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode and back."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def batches(
    objective: Objective, codec: Any, records: Sequence[Record], indices: Sequence[int], seed: int, size: int
) -> Iterator[Batch]:
    """Yield collated batches; corruption is that of epoch 0, so every evaluation sees the same masks."""
    for part in order.micro_batches(list(indices), size):
        examples = []
        for index in part:
            rng = order.generator(seed, order.EVALUATE, 0, index)
            examples.append(objective.prepare(records[index], codec, rng, training=False))
        yield codec.collate(examples)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    objective: Objective,
    codec: Any,
    records: Sequence[Record],
    engine: Engine,
    seed: int = 0,
    size: int = 32,
) -> dict[str, float]:
    """Return the mean loss, its parts and the objective's metrics over `records`, the same for any number of processes."""
    indices = list(range(len(records)))
    mine = indices if engine.shard else list(order.share_of_rank(indices, engine.rank, engine.world))
    sums: dict[str, list[Tensor]] = {}
    outputs: dict[str, list[np.ndarray]] = {}
    with frozen_dropout(model):
        for batch in batches(objective, codec, records, mine, seed, size):
            batch = engine.move(batch)
            with engine.autocast():
                loss = objective.loss(model, batch)
                predicted = objective.predict(model, batch)
            for name, (total, count) in {"loss": (loss.total, loss.count), **loss.parts}.items():
                pair = sums.setdefault(name, [torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)])
                for slot, value in zip(pair, (total, count), strict=True):
                    slot += torch.as_tensor(value).detach().double().cpu()
            for name, value in predicted.items():
                outputs.setdefault(name, []).append(value.float().cpu().numpy())
    figures = _mean(sums, engine)
    if outputs:
        joined = {name: np.concatenate(parts) for name, parts in outputs.items()}
        figures |= objective.metrics(_in_order(joined, engine, len(records)), records)
    return figures


def _mean(sums: dict[str, list[Tensor]], engine: Engine) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for share in [{k: [float(v) for v in pair] for k, pair in sums.items()}] if engine.shard else engine.gather(
        {k: [float(v) for v in pair] for k, pair in sums.items()}
    ):
        for name, (total, count) in share.items():
            pair = found.setdefault(name, [0.0, 0.0])
            pair[0] += total
            pair[1] += count
    return {name: total / count if count else 0.0 for name, (total, count) in found.items()}


def _in_order(outputs: dict[str, np.ndarray], engine: Engine, num: int) -> dict[str, np.ndarray]:
    if engine.shard or engine.world == 1:
        return outputs
    shares = engine.gather(outputs)
    joined = {}
    for name, mine in outputs.items():
        whole = np.empty((num, *mine.shape[1:]), mine.dtype)
        for rank, share in enumerate(shares):
            if name in share:
                whole[rank :: engine.world] = share[name]
        joined[name] = whole
    return joined
