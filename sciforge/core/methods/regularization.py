"""The quadratic pull towards earlier weights: EWC and L2-SP.

Both are strength/2 * sum precision (p - centre)^2; L2-SP has precision 1, EWC the diagonal of the
Fisher information.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from sciforge.core.files.settings import Settings
from sciforge.core.methods.finetuning import merged_name
from sciforge.core.methods.method import Method
from sciforge.core.transfers import to_numbers
from sciforge.errors import ConfigError

if TYPE_CHECKING:
    from sciforge.core.training.distributed import Engine
    from sciforge.core.training.training_state import TrainingState

Estimator = Literal["exact", "sampled", "empirical"]


@dataclass(frozen=True)
class L2SP(Settings):
    """Pull towards the weights of `init`, equal for all weights (Li et al. 2018): strength/2 * |p -
    centre|^2.

    Args:
        strength: weight of the quadratic.
        step: add its gradient to the loss's, or take its implicit (proximal) step after the
            optimiser's, which is stable however strong the pull.
    """

    strength: float = 0.01
    step: Literal["gradient", "proximal"] = "gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, math.inf, "strength")


@dataclass(frozen=True)
class EWC(Settings):
    """Elastic weight consolidation (Kirkpatrick et al. 2017): a pull weighted by the Fisher
    information.

    Args:
        strength: the loss gains strength/2 * sum F (p - centre)^2.
        estimator: `exact` takes the expectation over the model's own labels, `sampled` one draw of
            them, `empirical` the true labels; always per example. Strengths are not comparable
            between estimators.
        examples: how many examples to estimate from, when the checkpoint holds no Fisher yet.
        data: the pretraining data; not needed when `init` carries the Fisher (`sciforge fisher`).
        step: as for L2SP; `proximal` where some directions are stiff.
    """

    strength: float = 100.0
    estimator: Estimator = "exact"
    examples: int = 256
    data: Path | None = None
    step: Literal["gradient", "proximal"] = "gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, math.inf, "strength")
        self.require(1, math.inf, "examples")


@dataclass(frozen=True)
class Term:
    """The pull on one parameter."""

    parameter: nn.Parameter
    centre: Tensor
    precision: Tensor | float


@dataclass(frozen=True)
class QuadraticPenalty(Method):
    """A quadratic pull on the parameters that came from a checkpoint; new heads are free.

    A weight without a gradient (no example touched it, or it is still frozen) stands at its centre
    and stays there.

    Args:
        terms: one for each parameter that is pulled.
        strength: of the quadratic.
        proximal: take the implicit step after the optimiser's instead of adding the gradient.
        steps: how many the optimiser has taken with each parameter, as far as was asked; proximal
            only.
    """

    name: ClassVar[str] = "regularization"

    terms: tuple[Term, ...]
    strength: float
    proximal: bool = False
    steps: dict[nn.Parameter, float] = field(default_factory=dict, repr=False, compare=False)

    def after_backward(self, state: "TrainingState", step: int) -> dict[str, float | Tensor]:
        """Add the gradient of the quadratic and return its value."""
        penalty = self.penalty()
        self.add_gradient()
        return {"penalty": penalty}

    def after_step(self, state: "TrainingState", step: int) -> None:
        """Take the proximal step."""
        self.proximal_step(state.optimizer)

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add the closed-form gradient, after reduction and outside autograd."""
        if not self.proximal:
            for term in self.terms:
                if term.parameter.grad is not None:
                    pull = (term.parameter - term.centre) * term.precision
                    term.parameter.grad.add_(pull, alpha=self.strength)

    @torch.no_grad()
    def proximal_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Move towards the centre by the implicit step, stable however stiff the precision.

        The step is taken in AdamW's own metric, lr / (sqrt(v) + eps) for each weight, since only
        then do loss and pull come to rest where their gradients cancel (proximal Adam, Yun et al.
        2021, arXiv 2007.07484). Clipping sees the loss's gradient alone; where it bites at the
        resting point, the pull is the stronger.
        """
        if not self.proximal:
            return
        options = {
            p: (g["lr"], g["betas"][1], g["eps"])
            for g in optimizer.param_groups
            for p in g["params"]
        }
        terms = [term for term in self.terms if term.parameter.grad is not None]
        self._count(optimizer, [term.parameter for term in terms])
        for term in terms:
            lr, beta, eps = options[term.parameter]
            variance = optimizer.state[term.parameter]["exp_avg_sq"]
            scale = (variance / (1 - beta ** self.steps[term.parameter])).sqrt() + eps
            pull = lr * self.strength * term.precision / scale
            term.parameter.copy_((term.parameter + pull * term.centre) / (1 + pull))

    def _count(self, optimizer: torch.optim.Optimizer, moved: list[nn.Parameter]) -> None:
        """Count a step of parameters; the optimiser's own counts lie on the device and are read
        once.
        """
        fresh = [p for p in moved if p not in self.steps]
        self.steps.update({p: self.steps[p] + 1 for p in moved if p in self.steps})
        counts = to_numbers([optimizer.state[p]["step"] for p in fresh])
        self.steps.update(zip(fresh, counts, strict=True))

    @torch.no_grad()
    def penalty(self) -> Tensor:
        """Return the value of the quadratic."""
        sums = [((t.parameter - t.centre) ** 2 * t.precision).sum() for t in self.terms]
        sums = [s.full_tensor() if hasattr(s, "full_tensor") else s for s in sums]
        return 0.5 * self.strength * torch.stack(sums).sum()


def build(
    kind: L2SP | EWC,
    model: nn.Module,
    centre: Mapping[str, Tensor],
    fisher: Mapping[str, Tensor] | None,
    engine: "Engine",
) -> QuadraticPenalty:
    """Return the pull on the training parameters that `centre` (the earlier weights without the
    fresh ones) knows.

    Raises:
        ConfigError: nothing that trains came from the checkpoint.
    """
    terms = []
    for parameter_name, parameter in model.named_parameters():
        name = merged_name(parameter_name)
        if not parameter.requires_grad or name is None or name not in centre:
            continue
        if fisher is not None and name not in fisher:
            raise ConfigError(
                f"the Fisher knows no weight {name!r}; run `sciforge fisher` on the checkpoint"
                " again"
            )
        precision = 1.0 if fisher is None else engine.like(parameter, fisher[name])
        terms.append(Term(parameter, engine.like(parameter, centre[name]), precision))
    if not terms:
        raise ConfigError(
            "regularization holds nothing: no training weight came from the checkpoint; leave"
            " it out"
        )
    return QuadraticPenalty(tuple(terms), kind.strength, kind.step == "proximal")
