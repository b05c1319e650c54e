"""A moving average of the weights, evaluated and saved in place of the raw ones."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from sciforge.core.methods.method import Method
from sciforge.core.training.distributed import local

if TYPE_CHECKING:
    from sciforge.core.training.training_state import TrainingState


class ExponentialMovingAverage(Method):
    """An exponential moving average of the parameters that train; early steps count less (as
    TensorFlow's EMA).

    Args:
        parameters: by name.
        decay: of the average; at step t it is (1 + t) / (10 + t) at most.
    """

    name: ClassVar[str] = "ema"

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = dict(parameters), decay
        self.values = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def after_step(self, state: "TrainingState | None", step: int) -> None:
        """Take in the weights after a step (0-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        average = [local(tensor) for tensor in self.values.values()]
        weights = [local(parameter) for parameter in self.parameters.values()]
        torch._foreach_lerp_(average, weights, 1 - decay)

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Return the context in which the model holds the averaged weights."""
        return self._swapped()

    def tensors(self) -> dict[str, Tensor]:
        """Return the averages by parameter name."""
        return self.values

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        raw = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._set(self.values)
        try:
            yield
        finally:
            self._set(raw)

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])
