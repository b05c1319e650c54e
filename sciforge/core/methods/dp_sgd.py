"""Private training (DP-SGD, Abadi et al. 2016) in the shared loop: what replaces a step's gradient, and what it spends.

Every example joins a step by a coin of its own (Poisson sampling), its gradient is clipped to a norm, Gaussian noise is
added to the sum, and the sum is divided by the expected number of examples, never by the actual one. The accounting is
opacus's. Noise is a function of (seed, step), in floating point; that it is drawn from torch's generator, no
cryptographic one, and that rounding shows in its last bits (Mironov 2012) the metrics do not know.
"""

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from sciforge.core.data import sampling
from sciforge.core.data.store import Rows, Store
from sciforge.core.domain import Batch, Objective
from sciforge.core.training.run import DPSGD, Run
from sciforge.errors import ConfigError, DivergedError, MissingExtra

NUMBERS_AT_ONCE = 2**27  # of all gradients of one vectorised pass: 512 MiB in float32

# What the metrics do not cover; every private checkpoint says so.
UNCOVERED = (
    "The budget covers records of the training split, one added or left out. It does not cover the validation split "
    "(evaluation, early stopping), what preparation and objective take from the store (digests, class names, lengths, means, "
    "spreads, counts), metrics.jsonl, which tells training losses, nor several runs or a search over settings on the same "
    "records."
)


@dataclass
class Mechanism:
    """The private step of one run.

    Args:
        kind: the settings.
        noise: the noise multiplier: its standard deviation is `noise * kind.clip` before the division.
        rate: the chance of each record in each step.
        batch: the expected number of examples of a step, which divides the sum.
        seed: of sampling and noise.
        taken: steps so far.
        vectorised: whether vmap manages this model and objective; None until it was tried.
    """

    kind: DPSGD
    noise: float
    rate: float
    batch: int
    seed: int
    taken: int = 0
    vectorised: bool | None = None

    @classmethod
    def of(cls, run: Run, records: int) -> "Mechanism":
        """Return the mechanism of a run on so many training records.

        Raises:
            ConfigError: the batch is larger than the data, delta too large, or the budget cannot be met.
            MissingExtra: opacus is not installed.
        """
        kind, batch = run.dp_sgd, run.schedule.batch
        if batch > records:
            raise ConfigError(f"schedule.batch is {batch}, the training records are {records}; lower it")
        if kind.delta >= 1 / records:
            raise ConfigError(
                f"dp_sgd.delta is {kind.delta}; with {records} records it must be below {1 / records:.2g}, else "
                "giving a record away whole would be allowed"
            )
        rate = batch / records
        noise = kind.noise or noise_for(kind.epsilon, kind.delta, rate, run.schedule.steps, kind.accountant)
        spent(noise, kind.delta, rate, run.schedule.steps, kind.accountant)  # fail before training, not after it
        return cls(kind, noise, rate, batch, _secret(kind, run.seed))

    def told(self) -> dict[str, Any]:
        """Return what the checkpoint keeps: the privacy spent so far and how."""
        found = spent(self.noise, self.kind.delta, self.rate, self.taken, self.kind.accountant) if self.taken else 0.0
        source = "a secret key" if self.kind.key else "the run's seed, which this file tells"
        return {
            "epsilon": found, "delta": self.kind.delta, "noise_multiplier": self.noise, "clip": self.kind.clip,
            "sampling_rate": self.rate, "sampling": "poisson", "private_steps": self.taken,
            "accountant": f"opacus {self.kind.accountant}", "noise_from": source, "not_covered": UNCOVERED,
        }  # fmt: skip

    def take_gradient(self, state: Any, step: int, singles: Sequence[Batch]) -> dict[str, float]:
        """Leave in `.grad` the noisy mean of the clipped gradients of a step's examples; return metrics to journal.

        Args:
            job: the run in progress (core.job.Job).
            step: 0-based.
            singles: the step's examples, each a batch of its own.
        """
        objective = state.data.streams[0].objective
        moving = [p for group in state.groups if step >= group.frozen_steps for p in group.parameters]
        sums = [torch.zeros_like(p) for p in moving]
        singles = [state.engine.move(single) for single in singles]
        loss, clipped = 0.0, 0
        with state.engine.autocast():
            for grads, losses_B in self.of_examples(state.call, objective, singles, moving):
                factor_B = clip_factors(grads, self.kind.clip)
                for sum_, grad in zip(sums, grads, strict=True):
                    sum_ += torch.tensordot(factor_B.to(grad.dtype), grad, 1)
                loss += float(losses_B.sum())
                clipped += int((factor_B < 1).sum())
        state.optimizer.zero_grad()
        for parameter, sum_ in zip(moving, sums, strict=True):
            parameter.grad = sum_
        state.engine.reduce_grads(moving)
        found = state.engine.sum({"loss": (loss, len(singles)), "clipped": (clipped, len(singles))})
        if not math.isfinite(found["loss"][0]):
            raise DivergedError(f"step {step}: the loss of an example is not finite; lower schedule.lr")
        for parameter, noise in zip(moving, self.noises(step, moving), strict=True):
            parameter.grad = (parameter.grad + noise) / self.batch
        self.taken = step + 1
        count = found["loss"][1]
        means = {name: total / count if count else 0.0 for name, (total, _) in found.items()}
        return {**means, "examples": count}

    def noises(self, step: int, parameters: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the noise of a step for each parameter, the same in every process."""
        draw = torch.Generator().manual_seed(int(sampling.generator(self.seed, sampling.NOISE, step).integers(2**62)))
        for parameter in parameters:
            normal = torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype)
            yield normal.to(parameter.device) * (self.noise * self.kind.clip)

    def of_examples(
        self, model: nn.Module, objective: Objective, singles: Sequence[Batch], parameters: Sequence[nn.Parameter]
    ) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield the gradients of examples [B, *parameter], one for each parameter, and their losses [B], some at a time.

        Examples of one shape go through vmap together; where it cannot (control flow on data, derivatives inside the
        loss), each goes backward alone, which gives the same.
        """
        most = max(1, NUMBERS_AT_ONCE // max(1, sum(p.numel() for p in parameters)))
        for group in _alike(singles):
            for part in sampling.micro_batches(group, most):
                if self.vectorised is not False and len(part) > 1:
                    try:
                        made = vectorised_gradients(model, objective, part, parameters)
                        self.vectorised = True
                        yield made
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
    grads = (
        torch.autograd.grad(value, parameters, allow_unused=True) if value.requires_grad else [None] * len(parameters)
    )
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)]
    return [grad.detach()[None] for grad in filled], value.detach()[None]


def vectorised_gradients(
    model: nn.Module, objective: Objective, singles: Sequence[Batch], parameters: Sequence[nn.Parameter]
) -> tuple[list[Tensor], Tensor]:
    """Return the gradients of examples [B, *parameter] and their losses [B], by vmap over batches of one, alike in shape.

    What is equal in all (their length, say) is not mapped over, so that control flow may depend on it.

    Raises:
        RuntimeError, NotImplementedError, ValueError, TypeError: what torch says where vmap cannot.
    """
    shared = {k: v for k, v in singles[0].items() if all(torch.equal(v, other[k]) for other in singles[1:])}
    mapped = {k: torch.stack([single[k] for single in singles]) for k in singles[0].keys() - shared.keys()}
    wanted, module = {id(p) for p in parameters}, _LossOf(model, objective)
    named = {name: p.detach() for name, p in module.named_parameters() if id(p) in wanted}
    places = {id(p): name for name, p in module.named_parameters()}

    def loss(weights: Mapping[str, Tensor], own: Batch) -> Tensor:
        return functional_call(module, weights, ({**shared, **own},))

    if not mapped:  # examples that are all the same
        grads, value = grad_and_value(loss)(named, {})
        many = len(singles)
        return [grads[places[id(p)]].expand(many, *p.shape) for p in parameters], value.expand(many)
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no rule for vmap
        warnings.simplefilter("ignore")  # slow fallbacks inside vmap
        grads, losses_B = vmap(grad_and_value(loss), in_dims=(None, 0), randomness="different")(named, mapped)
    return [grads[places[id(p)]] for p in parameters], losses_B.detach()


class _LossOf(nn.Module):
    """A model whose call is the loss of one example, for functional_call."""

    def __init__(self, model: nn.Module, objective: Objective):
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Tensor:
        return _mean(self.objective.loss(self.model, batch))


def _mean(loss: Any) -> Tensor:
    """Return an example's loss over what it counts; 0 where it counts nothing."""
    count = torch.as_tensor(loss.count, device=loss.total.device).to(loss.total.dtype)
    return loss.total / torch.where(count > 0, count, torch.ones_like(count))


def _alike(singles: Sequence[Batch]) -> list[list[Batch]]:
    """Sort batches of one into groups that can be stacked; what is no mapping of tensors stays alone."""
    groups: dict[Any, list[Batch]] = {}
    for number, single in enumerate(singles):
        key: Any = number
        if isinstance(single, Mapping) and all(isinstance(value, Tensor) for value in single.values()):
            key = tuple(sorted((name, value.shape, value.dtype) for name, value in single.items()))
        groups.setdefault(str(key), []).append(single)
    return list(groups.values())


def clip_factors(grads: Sequence[Tensor], clip: float) -> Tensor:
    """Return by what [B] to multiply the gradients of each example so that their joint norm is at most `clip`.

    >>> clip_factors([torch.tensor([[3.0], [0.3]]), torch.tensor([[4.0], [0.4]])], 1.0)
    tensor([0.2000, 1.0000])
    """
    norm_B = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)
    return (clip / norm_B.clamp(min=1e-30)).clamp(max=1.0)


@contextmanager
def nothing_learnt(model: nn.Module, run: Run) -> Iterator[None]:
    """Refuse what a private run may not do before its first step: set weights from training records, without noise.

    Raises:
        ConfigError: the model's state is another one than before.
    """
    if not run.dp_sgd:
        yield
        return
    before = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    yield
    for name, value in model.state_dict().items():
        if not torch.equal(before[name], value.detach().cpu()):
            raise ConfigError(
                f"{type(run.objective).__name__} sets {name} from the training records before the first step, without "
                "noise; private training needs that off (--no-warm-start, where the objective has it)"
            )


def check_records(run: Run, records: Sequence, store: Store, parent: Any) -> None:
    """Refuse records for which the promise would not hold: parts of records, or what the start has learnt without noise.

    Raises:
        ConfigError: an example is not one whole record, or the parent learnt this very store.
    """
    if not run.dp_sgd:
        return
    if len(records) != len(store.split("train")) or not isinstance(records, Rows):
        raise ConfigError(f"{type(run.objective).__name__} learns from windows of records, which share what they tell; private "
                          "training protects whole records: fine-tune on labelled ones")  # fmt: skip
    if parent and parent.run.dp_sgd is None and parent.provenance.get("data") == store.digests():
        raise ConfigError(
            f"{run.init} learnt {run.data} without noise, which no later noise takes back; start from another"
        )


def check_codec(given: Any, fitted: Any, run: Run) -> None:
    """Refuse a codec fitted to the records that are to be private; raises ConfigError."""
    if run.dp_sgd and run.init is None and fitted != given:
        raise ConfigError(
            "the codec is fitted to the training records without noise; start private training from --init"
        )


def _secret(kind: DPSGD, seed: int) -> int:
    if kind.key is None:
        return seed
    try:
        secret = kind.key.read_bytes()
    except OSError as error:
        raise ConfigError(f"{kind.key}: {error.strerror}; dp_sgd.key is a file of secret bytes") from None
    if len(secret) < 16:
        raise ConfigError(f"{kind.key}: {len(secret)} bytes; a secret has at least 16 (head -c 32 /dev/urandom)")
    return int.from_bytes(hashlib.sha256(secret + seed.to_bytes(8, "big")).digest()[:8], "big")


@cache
def noise_for(epsilon: float, delta: float, rate: float, steps: int, accountant: str) -> float:
    """Return the noise multiplier with which so many steps spend at most epsilon at delta, by opacus.

    Args:
        epsilon, delta: the budget.
        rate: chance of a record in a step.
        steps: how many.
        accountant: `prv` or `rdp`.

    Raises:
        ConfigError: no noise meets the budget.
        MissingExtra: opacus is not installed.
    """
    with _opacus() as accountants:
        options = {"target_epsilon": epsilon, "target_delta": delta, "sample_rate": rate, "steps": steps}
        try:
            return float(accountants.utils.get_noise_multiplier(**options, accountant=accountant))
        except (ValueError, RuntimeError, OverflowError, MemoryError) as error:
            raise ConfigError(
                f"no noise for epsilon {epsilon} in {steps} steps ({error}); give another budget"
            ) from None


@cache
def spent(noise: float, delta: float, rate: float, steps: int, accountant: str) -> float:
    """Return the epsilon at delta that so many steps with this noise multiplier spend, by opacus; arguments as noise_for."""
    with _opacus() as accountants:
        counted = accountants.create_accountant(mechanism=accountant)
        counted.history = [(noise, rate, steps)]
        try:
            return float(counted.get_epsilon(delta=delta))
        except (ValueError, RuntimeError, OverflowError, MemoryError) as error:
            hint = "use dp_sgd.accountant rdp" if accountant == "prv" else "use more noise"
            raise ConfigError(f"opacus cannot account noise {noise:.3g} over {steps} steps ({error}); {hint}") from None


@contextmanager
def _opacus() -> Iterator[Any]:
    """Yield opacus's accountants, whose remarks on orders of Renyi divergence help nobody here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from opacus import accountants
            from opacus.accountants import utils  # noqa: F401  (an attribute of accountants)
        except ImportError:
            raise MissingExtra("opacus", "privacy") from None
        yield accountants
