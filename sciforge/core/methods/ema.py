"""A moving average of the weights, evaluated and saved in place of the raw ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sciforge.core.training.distributed import local


class ExponentialMovingAverage:
    """An exponential moving average of the parameters that move; early steps count less (Polyak, as in EMA of TF)."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float):
        self.parameters, self.decay = parameters, decay
        self.values = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step (0-based)."""
        keep = min(self.decay, (1 + step) / (10 + step))
        mine, new = ([local(t) for t in tensors.values()] for tensors in (self.values, self.parameters))
        torch._foreach_lerp_(mine, new, 1 - keep)

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """Put the averaged weights into the model, and the raw ones back."""
        raw = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._set(self.values)
        try:
            yield
        finally:
            self._set(raw)

    @torch.no_grad()
    def _set(self, values: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])
