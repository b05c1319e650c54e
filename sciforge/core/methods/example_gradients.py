"""Gradients of single examples, which DP-SGD clips one by one: by vmap where it can, else one
backward pass for each.

Legend of shape letters: B examples.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from sciforge.core.data import sampling
from sciforge.core.domain import Batch, Loss, Objective
from sciforge.core.transfers import host_view

MAX_NUMBERS = 2**27  # of all gradients of one vectorised pass: 512 MiB in float32


@dataclass
class ExampleGradients:
    """How the gradients of examples are computed.

    Args:
        vectorised: whether vmap manages this model and objective; None until it was tried.
    """

    vectorised: bool | None = None

    def parts(
        self,
        model: nn.Module,
        objective: Objective,
        singles: Sequence[Batch],
        parameters: Sequence[nn.Parameter],
    ) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield the gradients of examples [B, *parameter], one for each parameter, and their losses
        [B], some at a time.

        Examples of one shape go through vmap together; where it cannot (control flow on data,
        derivatives inside the loss), each goes backward alone, which gives the same.

        Args:
            model: the network.
            objective: gives the loss.
            singles: each example as a batch of its own.
            parameters: whose gradients are wanted.
        """
        size = max(1, MAX_NUMBERS // max(1, sum(p.numel() for p in parameters)))
        for group in _alike(singles):
            for part in sampling.micro_batches(group, size):
                if self.vectorised is not False and len(part) > 1:
                    try:
                        gradients = vectorised_gradients(model, objective, part, parameters)
                        self.vectorised = True
                        yield gradients
                        continue
                    except torch.OutOfMemoryError:
                        raise
                    except (RuntimeError, NotImplementedError, ValueError, TypeError):
                        self.vectorised = False
                for single in part:
                    yield single_gradients(model, objective, single, parameters)


def single_gradients(
    model: nn.Module, objective: Objective, single: Batch, parameters: Sequence[nn.Parameter]
) -> tuple[list[Tensor], Tensor]:
    """Return one example's gradients [1, *parameter] and its loss [1], by going backward."""
    value = _mean(objective.loss(model, single))
    grads: Sequence[Tensor | None] = [None] * len(parameters)
    if value.requires_grad:
        grads = torch.autograd.grad(value, parameters, allow_unused=True)
    filled = [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)
    ]
    return [grad.detach()[None] for grad in filled], value.detach()[None]


def vectorised_gradients(
    model: nn.Module,
    objective: Objective,
    singles: Sequence[Batch],
    parameters: Sequence[nn.Parameter],
) -> tuple[list[Tensor], Tensor]:
    """Return the gradients of examples [B, *parameter] and their losses [B], by vmap over batches
    of one, alike in shape.

    What is equal in all (such as their length) is not mapped over, so that control flow may depend
    on it.

    Raises:
        RuntimeError, NotImplementedError, ValueError, TypeError: what torch raises where vmap
            cannot.
    """
    shared = {
        k: v
        for k, v in singles[0].items()
        if all(torch.equal(host_view(v), host_view(other[k])) for other in singles[1:])
    }
    mapped = {
        k: torch.stack([single[k] for single in singles]) for k in singles[0].keys() - shared.keys()
    }
    wanted, module = {id(p) for p in parameters}, _LossOf(model, objective)
    named = {name: p.detach() for name, p in module.named_parameters() if id(p) in wanted}
    places = {id(p): name for name, p in module.named_parameters()}

    def loss(weights: dict[str, Tensor], own: Batch) -> Tensor:
        return functional_call(module, weights, ({**shared, **own},))

    if not mapped:  # examples that are all the same
        grads, value = grad_and_value(loss)(named, {})
        many = len(singles)
        return [grads[places[id(p)]].expand(many, *p.shape) for p in parameters], value.expand(many)
    # the fused kernels have no rule for vmap
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")  # slow fallbacks inside vmap
        grads, losses_B = vmap(grad_and_value(loss), in_dims=(None, 0), randomness="different")(
            named, mapped
        )
    return [grads[places[id(p)]] for p in parameters], losses_B.detach()


class _LossOf(nn.Module):
    """A model whose call is the loss of one example, for functional_call."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Tensor:
        return _mean(self.objective.loss(self.model, batch))


def _mean(loss: Loss) -> Tensor:
    """Return an example's loss over what it counts; 0 where it counts nothing."""
    count = torch.as_tensor(loss.count).to(loss.total, non_blocking=True)
    return loss.total / torch.where(count > 0, count, torch.ones_like(count))


def _alike(singles: Sequence[Batch]) -> list[list[Batch]]:
    """Sort batches of one into groups that can be stacked; what is no mapping of tensors stays
    alone.
    """
    groups: dict[Any, list[Batch]] = {}
    for number, single in enumerate(singles):
        key: Any = number
        if isinstance(single, Mapping) and all(
            isinstance(value, Tensor) for value in single.values()
        ):
            key = tuple(sorted((name, value.shape, value.dtype) for name, value in single.items()))
        groups.setdefault(str(key), []).append(single)
    return list(groups.values())


def clip_factors(grads: Sequence[Tensor], clip: float) -> Tensor:
    """Return by what [B] to multiply the gradients of each example so that their joint norm is at
    most `clip`.

    >>> clip_factors([torch.tensor([[3.0], [0.3]]), torch.tensor([[4.0], [0.4]])], 1.0)
    tensor([0.2000, 1.0000])
    """
    norm_B = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)
    return (clip / norm_B.clamp(min=1e-30)).clamp(max=1.0)
