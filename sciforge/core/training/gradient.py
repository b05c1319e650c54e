"""The gradient of a step: of the mean loss over the global batch, divided once, over all
processes and micro-batches.
"""

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import Parameter

from sciforge.core.domain import Batch, Objective
from sciforge.core.heads import heads_of
from sciforge.core.training.evaluation import Tally, means
from sciforge.core.training.training_state import TrainingState
from sciforge.errors import ConfigError, DivergedError


def mean_gradient(
    state: TrainingState, step: int, batches: Sequence[Sequence[Batch]]
) -> dict[str, float]:
    """Leave in `.grad` the gradient of the global mean loss; return the loss and its parts.

    Args:
        state: the run in progress.
        step: 0-based.
        batches: the micro-batches of each task. The loss of a task is its own sum over its own
            count; in the step it counts by its weight and its share of the step's examples.

    Raises:
        DivergedError: the loss is not finite or counts nothing; names the records.
    """
    metrics: dict[str, float] = {"loss": 0.0}
    parameters = [p for group in state.groups for p in group.parameters]
    gradients: list[Tensor | None] = [None] * len(parameters)
    state.optimizer.zero_grad()
    places = state.data.places(step)
    learnt = False
    for number, (task, micro) in enumerate(zip(state.tasks, batches, strict=True)):
        if not places[number]:  # its share is below one example a step, and this is not its turn
            continue
        with heads_of(state.model, task.scope):
            objective = state.data.sources[number].objective
            sums = state.engine.sum(_backward(state, objective, micro))
        total, count = sums.pop("loss")
        # few examples of a rare task may hold nothing to learn; a whole batch must
        if not math.isfinite(total) or not (count > 0 or (count == 0 and len(state.tasks) > 1)):
            raise _diverged(state, step, f"loss {total} over {count:g}")
        if count > 0:
            learnt = True
            state.engine.reduce_grads(parameters)
            weight = task.weight * (len(places[number]) / state.run.schedule.batch)
            _add(parameters, gradients, weight / count)
            metrics["loss"] += weight * total / count
            metrics |= {f"loss_{task.name}": total / count} if task.name else {}
            suffix = f"_{task.name}" if number else ""
            metrics |= {f"{name}{suffix}": value for name, value in means(sums).items()}
        for parameter in parameters:
            parameter.grad = None
    if not learnt:
        raise _diverged(state, step, "no task has anything to learn")
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
        if not loss.total.requires_grad:
            raise ConfigError(
                f"no weight that trains takes part in {type(objective).__name__}; leave its task"
                " out, or choose another finetuning"
            )
        loss.total.backward()
        tally.add(loss)
    return tally.pairs


def _add(parameters: Sequence[Parameter], gradients: list[Tensor | None], factor: float) -> None:
    """Add the gradients of parameters times a factor to those of the tasks before."""
    for i, parameter in enumerate(parameters):
        if parameter.grad is not None:
            grad, earlier = parameter.grad.mul_(factor), gradients[i]
            gradients[i] = grad if earlier is None else earlier.add_(grad)


def _diverged(state: TrainingState, step: int, what: str) -> DivergedError:
    where = f"step {step}: {what}; {state.records_of(step)}"
    return DivergedError(f"{where}; lower schedule.lr")
