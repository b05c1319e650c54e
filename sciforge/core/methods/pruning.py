"""Zeros in weight matrices: which are cut by magnitude, and how a run keeps them zero.

A zero stays a zero: which weights are held follows from the weights themselves, so a mask is nothing that has to be
saved, and resuming is bit-exact. Magnitude as the criterion: Han et al. 2015 (arXiv 1506.02626); the ramp: Zhu and
Gupta 2017 (arXiv 1710.01878).
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sciforge.core.methods.ema import ExponentialMovingAverage
from sciforge.core.methods.finetuning import HEADS
from sciforge.core.training.run import Pruning, Run
from sciforge.errors import ConfigError


def matrices(model: nn.Module, pattern: str) -> list[str]:
    """Return the names of the weight matrices (2 dimensions or more) that match a pattern.

    Tables that are looked up (embeddings) never count: rows of rare inputs are small, so a ranking by magnitude would
    cut what is rare, and rows that no input has touched would flatter the share of zeros.

    Raises:
        ConfigError: the pattern is not a regular expression or matches no weight matrix.
    """
    try:
        matches = re.compile(pattern).search
    except re.error as error:
        raise ConfigError(f"pruning.pattern {pattern!r} is not a regular expression ({error}); correct it") from None
    tables = {name for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    found = []
    for name, parameter in model.named_parameters():
        inner = name.removeprefix(HEADS)
        looked_up = name.rpartition(".")[0] in tables or "embed" in inner
        if parameter.ndim > 1 and not looked_up and matches(name):
            found.append(name)
    if not found:
        raise ConfigError(f"pruning.pattern {pattern!r} matches no weight matrix of this {type(model).__name__}; "
                          "give another, or leave a net without matrices dense")  # fmt: skip
    return found


def smallest(weights: Mapping[str, Tensor], share: float, scope: str = "global") -> dict[str, Tensor]:
    """Return which weights to cut, bool of their shapes: the given share of all, smallest magnitudes first.

    With `global` they are ranked together, as torch.nn.utils.prune.global_unstructured does; with `matrix` each
    matrix loses the same share. What is zero already comes first and is cut whatever the share.

    >>> cut = smallest({"a": torch.tensor([[3.0, -1.0]]), "b": torch.tensor([[0.5, 2.0]])}, 0.5)
    >>> cut["a"].tolist(), cut["b"].tolist()
    ([[False, True]], [[True, False]])
    """
    if scope == "matrix":
        return {name: cut for name, tensor in weights.items() for cut in smallest({name: tensor}, share).values()}
    sizes = [tensor.numel() for tensor in weights.values()]
    magnitude_N = torch.cat([tensor.detach().abs().flatten() for tensor in weights.values()])
    cut_N = magnitude_N == 0
    cut_N[torch.topk(magnitude_N, round(share * len(magnitude_N)), largest=False).indices] = True
    return {n: cut.view_as(t) for (n, t), cut in zip(weights.items(), cut_N.split(sizes), strict=True)}


def zero_share(weights: Iterable[Tensor]) -> float:
    """Return the share of zeros in all tensors together.

    >>> zero_share([torch.tensor([0.0, 1.0]), torch.tensor([[0.0, 0.0]])])
    0.75
    """
    counts = [(int((tensor == 0).sum()), tensor.numel()) for tensor in weights]
    return sum(zeros for zeros, _ in counts) / max(sum(size for _, size in counts), 1)


def share_at(pruning: Pruning, steps: int, step: int) -> float | None:
    """Return to which share a run cuts before a step (0-based); None where it does not cut then.

    Along the ramp the share is s (1 - (1 - t)^3), t from 0 to 1: much while there is much to spare.

    >>> [share_at(Pruning(share=0.8, ramp=0.5, cuts=2), 8, step) for step in (0, 2, 4)]
    [None, 0.7000000000000001, 0.8]
    """
    last = min(round(pruning.ramp * steps), steps - 1)
    if not pruning.share or step > last:
        return None
    if not last:
        return pruning.share
    for cut in range(pruning.cuts, 0, -1):  # where the ramp has fewer steps than cuts, the later one counts
        if step == math.ceil(cut * last / pruning.cuts):
            return pruning.share * (1 - (1 - cut / pruning.cuts) ** 3)
    return None


@dataclass
class PruningMask:
    """Cuts and holds the matrices of a run in progress.

    Args:
        pruning: how much, and when.
        steps: of the run.
        parameters: the matrices by name.
        holds_from: the first step at which zeros are held; a fresh model's zeros are only where it starts.
    """

    pruning: Pruning
    steps: int
    parameters: Mapping[str, nn.Parameter]
    holds_from: int = 0
    held: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)

    @classmethod
    def of(cls, run: Run, model: nn.Module, fresh: Iterable[str]) -> "PruningMask | None":
        """Return what holds the zeros of a run; None where nothing was asked for."""
        if run.pruning is None:
            return None
        names, parameters = matrices(model, run.pruning.pattern), dict(model.named_parameters())
        if run.init is not None:
            names = [name for name in names if name not in set(fresh)]  # a new head may start at zero, and must move
        due = (
            step for step in range(run.schedule.steps) if share_at(run.pruning, run.schedule.steps, step) is not None
        )
        first = 0 if run.init is not None else next(due, run.schedule.steps)
        return cls(run.pruning, run.schedule.steps, {name: parameters[name] for name in names}, first)

    @torch.no_grad()
    def before(self, step: int, average: ExponentialMovingAverage | None) -> None:
        """Cut what is due before a step, of the moving average too, and note what is to stay zero."""
        share = share_at(self.pruning, self.steps, step)
        if share is not None:
            for name, cut in smallest(self.parameters, share, self.pruning.scope).items():
                self.parameters[name].masked_fill_(cut, 0.0)
                if average is not None and name in average.values:
                    average.values[name].masked_fill_(cut, 0.0)
        moving = [p for p in self.parameters.values() if p.requires_grad and step >= self.holds_from]
        self.held = [(p, p == 0) for p in moving]

    @torch.no_grad()
    def of_gradients(self) -> None:
        """Take the gradient of what is held away, so that clipping does not count it."""
        for parameter, zero in self.held:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(zero, 0.0)

    @torch.no_grad()
    def after(self) -> None:
        """Put the zeros back: momentum and a pull to the old weights would move them."""
        for parameter, zero in self.held:
            parameter.masked_fill_(zero, 0.0)

    def metrics(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the share of zeros of the matrices, and of all weights of the model."""
        return {"sparsity": zero_share(weights[name] for name in self.parameters)}
