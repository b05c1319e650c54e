"""The quadratic pull towards earlier weights (EWC and L2-SP), and the Fisher information that weighs it.

Both are strength/2 * sum precision (p - centre)^2; L2-SP has precision 1, EWC the diagonal of the Fisher. The Fisher
is per example: the squared gradient of a batch mean is many times too small (Avalanche #1224), and refused here by
construction, since every estimator below sees one example at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from sciforge.core import order
from sciforge.core.adapt import merged_name
from sciforge.core.domain import Categorical, Likelihood, Objective
from sciforge.core.engine import Engine
from sciforge.core.run import EWC, L2SP, Estimator
from sciforge.errors import ConfigError

# Rows of the output Jacobian per batched backward pass; 16 rows of a 3 M-parameter net are 200 MB.
ROWS = 16


@dataclass(frozen=True)
class Term:
    """One parameter's pull."""

    parameter: nn.Parameter
    centre: Tensor
    precision: Tensor | float


@dataclass(frozen=True)
class Anchor:
    """A quadratic pull on the parameters that came from a checkpoint; new heads are free."""

    terms: tuple[Term, ...]
    strength: float
    proximal: bool = False

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add the closed-form gradient, after reduction and outside autograd."""
        if not self.proximal:
            for t in self.terms:
                t.parameter.grad.add_((t.parameter - t.centre) * t.precision, alpha=self.strength)

    @torch.no_grad()
    def proximal_step(self, rate: float) -> None:
        """Move towards the centre by the implicit step, stable however stiff the precision."""
        if self.proximal:
            for t in self.terms:
                pull = rate * self.strength * t.precision
                t.parameter.copy_((t.parameter + pull * t.centre) / (1 + pull))

    @torch.no_grad()
    def penalty(self) -> Tensor:
        """Return the value of the quadratic."""
        sums = [((t.parameter - t.centre) ** 2 * t.precision).sum() for t in self.terms]
        sums = [s.full_tensor() if hasattr(s, "full_tensor") else s for s in sums]
        return 0.5 * self.strength * torch.stack(sums).sum()


def build(
    kind: L2SP | EWC, model: nn.Module, centre: Mapping[str, Tensor], fisher: Mapping[str, Tensor] | None, engine: Engine
) -> Anchor:
    """Return the pull of `kind` for the moving parameters that `centre` knows.

    Raises:
        ConfigError: nothing that moves came from the checkpoint.
    """
    terms = []
    for name, parameter in model.named_parameters():
        name = merged_name(name)
        if not parameter.requires_grad or name not in centre:
            continue
        precision = 1.0 if fisher is None else engine.like(parameter, fisher[name])
        terms.append(Term(parameter, engine.like(parameter, centre[name]), precision))
    if not terms:
        raise ConfigError("the anchor holds nothing: no moving weight came from the checkpoint; use adapt All without it")
    return Anchor(tuple(terms), kind.strength, kind.step == "proximal")


def fisher_information(
    model: nn.Module,
    objective: Objective,
    codec: object,
    records: Sequence,
    *,
    estimator: Estimator = "exact",
    examples: int = 256,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return the diagonal Fisher information of every weight, the mean over examples, in the model's precision.

    Args:
        model: in evaluation mode on any device.
        objective: gives the likelihood.
        codec: encodes and collates.
        records: the data to estimate on; the first `examples` of the seed's order are used.
        estimator: `exact` takes the expectation over the model's own predictive distribution in closed form (one
            backward pass per target and class), `sampled` one draw from it, `empirical` the true targets.
        examples: how many records.
        seed: of the order, the corruption and the sampled labels.
    """
    if estimator not in ("exact", "sampled", "empirical"):
        raise ConfigError(f"no Fisher estimator {estimator!r}; use exact, sampled or empirical")
    model.eval()
    names, parameters = zip(*model.named_parameters(), strict=True)
    device, dtype = parameters[0].device, parameters[0].dtype
    total = [torch.zeros_like(p) for p in parameters]
    engine = Engine(device, "float64" if dtype == torch.float64 else "float32")
    count = min(examples, len(records))
    chosen = order.step_indices(len(records), count, seed, 0)
    for _, index in tqdm(chosen, f"Fisher ({estimator})", unit="example", disable=None, leave=False):
        rng = order.generator(seed, order.CORRUPT, 0, index)
        example = objective.prepare(records[index], codec, rng, training=False)
        batch = engine.move(codec.collate([example]))
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no batched backward
            likelihood = objective.likelihood(model, batch)
            outputs, weights_RN = _rows(likelihood, estimator, seed, index)
            for rows in weights_RN.split(ROWS):
                rows = rows.view(-1, *outputs.shape)
                grads = torch.autograd.grad(
                    outputs, parameters, rows, is_grads_batched=True, retain_graph=True, allow_unused=True
                )
                for sum_, grad in zip(total, grads, strict=True):
                    if grad is not None:
                        sum_ += grad.square().sum(0)
    return {name: sum_ / count for name, sum_ in zip(names, total, strict=True)}


def _rows(likelihood: Likelihood, estimator: str, seed: int, index: int) -> tuple[Tensor, Tensor]:
    """Return the outputs and the vectors v whose squared vector-Jacobian products sum to the Fisher, flattened.

    For a softmax, sum_c p_c (d log p_c)^2 needs v_c = sqrt(p_c) (e_c - p) on the logits of each target; for one label
    y, drawn or true, v = e_y - p on all targets at once. For a Gaussian, v_n = e_n / scale_n.
    """
    rng = torch.Generator().manual_seed(int(order.generator(seed, order.EVALUATE, 0, index).integers(2**62)))
    if isinstance(likelihood, Categorical):
        logits_NC = likelihood.logits_NC
        p_NC = logits_NC.detach().softmax(-1)
        num, classes = p_NC.shape
        eye_CC = torch.eye(classes, device=p_NC.device, dtype=p_NC.dtype)
        if estimator == "exact":
            v_NCC = p_NC.sqrt()[:, :, None] * (eye_CC - p_NC[:, None, :])
            v_RNC = torch.zeros(num, classes, num, classes, device=p_NC.device, dtype=p_NC.dtype)
            v_RNC[torch.arange(num), :, torch.arange(num)] = v_NCC
            return logits_NC, v_RNC.reshape(num * classes, -1)
        label_N = likelihood.target_N
        if estimator == "sampled":
            label_N = torch.multinomial(p_NC.cpu(), 1, generator=rng)[:, 0].to(p_NC.device)
        return logits_NC, (eye_CC[label_N] - p_NC).reshape(1, -1)
    scale_N = likelihood.scale_N.detach()
    mean_N = likelihood.mean_N
    if estimator == "exact":
        return mean_N, torch.diag(1 / scale_N)
    noise_N = (likelihood.target_N - mean_N.detach()) / scale_N
    if estimator == "sampled":
        noise_N = torch.randn(noise_N.shape, generator=rng, dtype=noise_N.dtype).to(noise_N.device)
    return mean_N, (noise_N / scale_N)[None]
