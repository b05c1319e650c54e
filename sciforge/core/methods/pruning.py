"""Zeros in weight matrices: which are cut by magnitude, and how a run keeps them zero.

A zero stays a zero: which weights are held follows from the weights themselves, so a mask is
nothing that has to be saved, and resuming is bit-exact. Magnitude as the criterion: Han et al. 2015
(arXiv 1506.02626); the ramp: Zhu and Gupta 2017 (arXiv 1710.01878).
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sciforge.core.files.settings import Settings
from sciforge.core.heads import HEADS
from sciforge.core.methods.method import Method
from sciforge.errors import ConfigError

if TYPE_CHECKING:
    from sciforge.core.training.run import Run
    from sciforge.core.training.training_state import TrainingState


@dataclass(frozen=True)
class Pruning(Settings):
    """Cut weight matrices to zero where they are smallest, and keep every zero a zero while
    training.

    Args:
        share: of the weights in the matrices that match, to be cut; 0 cuts nothing and keeps the
            zeros of `init`.
        scope: rank the weights of all matrices together (`global`), or cut each `matrix` by the
            same share.
        pattern: regular expression over names of weight matrices; the default leaves heads out,
            which a new task makes anew. Embeddings never count.
        ramp: share of the steps over which the cut share rises, by the cubic of Zhu and Gupta 2017;
            0 cuts all before the first step.
        cuts: how many cuts the ramp has.
    """

    share: float = 0.0
    scope: Literal["global", "matrix"] = "global"
    pattern: str = r"^(?!heads\.).*\bweight$"
    ramp: float = 0.0
    cuts: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "cuts")
        if not 0 <= self.share < 1:
            raise ConfigError(f"pruning.share is {self.share}; it must be at least 0 and below 1")
        if not 0 <= self.ramp < 1:
            raise ConfigError(f"pruning.ramp is {self.ramp}; it must be at least 0 and below 1")


def matrices(model: nn.Module, pattern: str) -> list[str]:
    """Return the names of the weight matrices (2 dimensions or more) that match a pattern.

    Tables that are looked up (embeddings) never count: rows of rare inputs are small, so a ranking
    by magnitude would cut what is rare, and rows that no input has touched would flatter the share
    of zeros.

    Raises:
        ConfigError: the pattern is not a regular expression or matches no weight matrix.
    """
    try:
        matches = re.compile(pattern).search
    except re.error as error:
        raise ConfigError(
            f"pruning.pattern {pattern!r} is not a regular expression ({error}); correct it"
        ) from None
    tables = {name for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    names = []
    for name, parameter in model.named_parameters():
        inner = name.removeprefix(HEADS)
        looked_up = name.rpartition(".")[0] in tables or "embed" in inner
        if parameter.ndim > 1 and not looked_up and matches(name):
            names.append(name)
    if not names:
        raise ConfigError(
            f"pruning.pattern {pattern!r} matches no weight matrix of this {type(model).__name__}; "
            "give another, or leave a network without matrices dense"
        )
    return names


def smallest(
    weights: Mapping[str, Tensor], share: float, scope: str = "global"
) -> dict[str, Tensor]:
    """Return which weights to cut, bool of their shapes: the given share of all, smallest
    magnitudes first.

    With `global` they are ranked together, as torch.nn.utils.prune.global_unstructured does; with
    `matrix` each matrix loses the same share. What is zero already comes first and is cut whatever
    the share.

    >>> cut = smallest({"a": torch.tensor([[3.0, -1.0]]), "b": torch.tensor([[0.5, 2.0]])}, 0.5)
    >>> cut["a"].tolist(), cut["b"].tolist()
    ([[False, True]], [[True, False]])
    """
    if scope == "matrix":
        return {
            name: cut
            for name, tensor in weights.items()
            for cut in smallest({name: tensor}, share).values()
        }
    sizes = [tensor.numel() for tensor in weights.values()]
    magnitude_N = torch.cat([tensor.detach().abs().flatten() for tensor in weights.values()])
    cut_N = magnitude_N == 0
    cut_N[torch.topk(magnitude_N, round(share * len(magnitude_N)), largest=False).indices] = True
    return {
        n: cut.view_as(t) for (n, t), cut in zip(weights.items(), cut_N.split(sizes), strict=True)
    }


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
    # where the ramp has fewer steps than cuts, the later one counts
    for cut in range(pruning.cuts, 0, -1):
        if step == math.ceil(cut * last / pruning.cuts):
            return pruning.share * (1 - (1 - cut / pruning.cuts) ** 3)
    return None


@dataclass
class PruningMask(Method):
    """Cuts and holds the matrices of a run in progress.

    Args:
        pruning: how much, and when.
        steps: of the run.
        parameters: the matrices by name.
        averages: the moving averages of parameters by name, cut with them; empty without one.
        holds_from: the first step at which zeros are held; a fresh model's zeros are only where it
            starts.
    """

    name: ClassVar[str] = "pruning"

    pruning: Pruning
    steps: int
    parameters: Mapping[str, nn.Parameter]
    averages: Mapping[str, Tensor] = field(default_factory=dict)
    holds_from: int = 0
    held: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        pruning: Pruning,
        run: "Run",
        model: nn.Module,
        fresh: Iterable[str],
        averages: Mapping[str, Tensor],
    ) -> "PruningMask":
        """Return what cuts and holds the zeros of a run; `fresh` names the parameters that came
        from no checkpoint.
        """
        names, parameters, steps = (
            matrices(model, pruning.pattern),
            dict(model.named_parameters()),
            run.schedule.steps,
        )
        first = 0
        if run.init is None:
            first = next(
                (step for step in range(steps) if share_at(pruning, steps, step) is not None), steps
            )
        else:
            # a new head may start at zero, and must move
            names = [name for name in names if name not in set(fresh)]
        return cls(pruning, steps, {name: parameters[name] for name in names}, averages, first)

    @torch.no_grad()
    def before_step(self, state: "TrainingState | None", step: int) -> None:
        """Cut what is due before a step, of the moving average too, and note what is to stay
        zero.
        """
        share = share_at(self.pruning, self.steps, step)
        if share is not None:
            for name, cut in smallest(self.parameters, share, self.pruning.scope).items():
                self.parameters[name].masked_fill_(cut, 0.0)
                if name in self.averages:
                    self.averages[name].masked_fill_(cut, 0.0)
        training = [
            p for p in self.parameters.values() if p.requires_grad and step >= self.holds_from
        ]
        self.held = [(p, p == 0) for p in training]

    @torch.no_grad()
    def after_backward(self, state: "TrainingState | None", step: int) -> dict[str, float | Tensor]:
        """Take the gradient of what is held away, so that clipping does not count it."""
        for parameter, zero in self.held:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(zero, 0.0)
        return {}

    @torch.no_grad()
    def after_step(self, state: "TrainingState | None", step: int) -> None:
        """Put the zeros back: momentum and a pull to the old weights would move them."""
        for parameter, zero in self.held:
            parameter.masked_fill_(zero, 0.0)

    def summary(self, state: "TrainingState | None", *, final: bool) -> dict[str, Any]:
        """Return the share of zeros of the matrices of a finished model."""
        return {"sparsity": zero_share(self.parameters.values())} if final else {}
