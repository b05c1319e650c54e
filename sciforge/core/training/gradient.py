"""The gradient of a step: of the mean loss over the global batch, divided once, over all
processes and micro-batches.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from sciforge.core.domain import Batch, Objective
from sciforge.core.training.evaluation import Tally, means
from sciforge.core.training.training_state import TrainingState
from sciforge.errors import DivergedError


def mean_gradient(
    state: TrainingState, step: int, batches: Sequence[Sequence[Batch]]
) -> dict[str, float]:
    """Leave in `.grad` the gradient of the global mean loss; return the loss and its parts.

    Args:
        state: the run in progress.
        step: 0-based.
        batches: the micro-batches of each source of examples; two sources count by their share of
            the batch.

    Raises:
        DivergedError: the loss is not finite or counts nothing; names the records.
    """
    metrics: dict[str, float] = {"loss": 0.0}
    parameters = [p for group in state.groups for p in group.parameters]
    gradients: list[Tensor | None] = [None] * len(parameters)
    state.optimizer.zero_grad()
    for number, (source, micro) in enumerate(zip(state.data.sources, batches, strict=True)):
        sums = state.engine.sum(_backward(state, source.objective, micro))
        total, count = sums.pop("loss")
        if not math.isfinite(total) or not count > 0:
            where = f"step {step}: loss {total} over {count:g}; {state.records_of(step)}"
            raise DivergedError(f"{where}; lower schedule.lr")
        state.engine.reduce_grads(parameters)
        weight = source.batch / state.run.schedule.batch
        for i, parameter in enumerate(parameters):
            if parameter.grad is not None:
                grad, earlier = parameter.grad.mul_(weight / count), gradients[i]
                gradients[i] = grad if earlier is None else earlier.add_(grad)
            parameter.grad = None
        metrics["loss"] += weight * total / count
        metrics |= {
            ("replay_" if number else "") + name: value for name, value in means(sums).items()
        }
    frozen = [step < group.frozen_steps for group in state.groups for _ in group.parameters]
    for parameter, gradient, is_frozen in zip(parameters, gradients, frozen, strict=True):
        parameter.grad = None if is_frozen else gradient
    return metrics


def _backward(
    state: TrainingState, objective: Objective, micro: Sequence[Batch]
) -> dict[str, tuple[float, float]]:
    """Go backward on the summed loss of each micro-batch; return the (sum, count) of the loss
    and its parts.
    """
    tally = Tally()
    for batch in micro:
        with state.engine.autocast():
            loss = objective.loss(state.call, state.engine.move(batch))
        loss.total.backward()
        tally.add(loss)
    return tally.pairs
