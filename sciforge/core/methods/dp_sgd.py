"""Differentially private training (DP-SGD, Abadi et al. 2016): the gradient it puts in place, and
what it spends.

Every example joins a step by a coin of its own (Poisson sampling), its gradient is clipped to a
norm, Gaussian noise is added to the sum, and the sum is divided by the expected number of examples,
never by the actual one. The accounting is opacus's. Noise is a function of (seed, step), in
floating point; that it is drawn from torch's generator, no cryptographic one, and that rounding
shows in its last bits (Mironov 2012) is not accounted for.
"""

import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sciforge.core.data import sampling
from sciforge.core.data.store import Rows, Store
from sciforge.core.domain import Batch, Records
from sciforge.core.files.settings import Settings
from sciforge.core.methods.example_gradients import ExampleGradients, clip_factors
from sciforge.core.methods.method import Method
from sciforge.core.transfers import to_numbers
from sciforge.errors import ConfigError, DivergedError, MissingExtra

if TYPE_CHECKING:
    from sciforge.core.training.checkpoint import Checkpoint
    from sciforge.core.training.run import Run
    from sciforge.core.training.training_state import TrainingState

# What the metrics do not cover; every private checkpoint holds this text.
UNCOVERED = (
    "The budget covers records of the training split, one added or left out. It does not cover the"
    " validation split (evaluation, early stopping), what preparation and objective take from the"
    " store (digests, class names, lengths, means, standard deviations, counts), metrics.jsonl,"
    " which holds training losses, nor several runs or a search over settings on the same records."
)


@dataclass(frozen=True)
class DPSGD(Settings):
    """Differentially private training (DP-SGD, Abadi et al. 2016): each example's gradient is
    clipped, noise is added.

    What is protected is one record of the training split (added or left out). `epsilon` or `noise`
    must be given.

    Args:
        epsilon: the privacy to spend over all steps; the noise is chosen for it.
        noise: the noise multiplier instead; what it spends is reported.
        delta: the chance allowed to leak more; below 1 / the number of training records.
        clip: largest norm of one example's gradient.
        accountant: opacus's, by privacy loss distributions (`prv`, the tighter) or by Renyi
            divergence (`rdp`).
        key: file of secret bytes from which sampling and noise are drawn. Without one they come
            from the run's seed, which the checkpoint holds: whoever reads it could take the noise
            away.
    """

    epsilon: float | None = None
    noise: float | None = None
    delta: float = 1e-5
    clip: float = 1.0
    accountant: Literal["prv", "rdp"] = "prv"
    key: Path | None = None

    def where(self, name: str) -> str:
        """Return how an error names a field: dp_sgd.epsilon."""
        return f"dp_sgd.{name}"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.epsilon is None) == (self.noise is None):
            raise ConfigError(
                "private training needs a budget or a noise; give either dp_sgd.epsilon or"
                " dp_sgd.noise"
            )
        for name in ("epsilon", "noise", "clip"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ConfigError(f"dp_sgd.{name} is {value}; it must be above 0 and finite")
        if not 0 < self.delta < 1:
            raise ConfigError(f"dp_sgd.delta is {self.delta}; it must lie between 0 and 1")


@dataclass
class Mechanism(Method):
    """The private step of one run: its gradient, and the budget spent.

    Args:
        settings: of the run.
        noise: the noise multiplier: its standard deviation is `noise * settings.clip` before the
            division.
        rate: the chance of each record in each step.
        batch: the expected number of examples of a step, which divides the sum.
        seed: of sampling and noise.
        steps: taken so far.
    """

    name: ClassVar[str] = "dp_sgd"

    settings: DPSGD
    noise: float
    rate: float
    batch: int
    seed: int
    steps: int = 0
    gradients: ExampleGradients = field(default_factory=ExampleGradients)

    @classmethod
    def of(cls, settings: DPSGD, run: "Run", records: int) -> "Mechanism":
        """Return the mechanism of a run on so many training records.

        Raises:
            ConfigError: the batch is larger than the data, delta too large, or the budget cannot be
                met.
            MissingExtra: opacus is not installed.
        """
        batch, steps, delta = run.schedule.batch, run.schedule.steps, settings.delta
        if batch > records:
            raise ConfigError(
                f"schedule.batch is {batch}, the training records are {records}; lower it"
            )
        if delta >= 1 / records:
            raise ConfigError(
                f"dp_sgd.delta is {delta}; with {records} records it must be below"
                f" {1 / records:.2g}, else giving a record away whole would be allowed"
            )
        rate, noise = batch / records, settings.noise
        if noise is None:
            assert settings.epsilon is not None  # DPSGD has one of both
            noise = noise_for(settings.epsilon, delta, rate, steps, settings.accountant)
        spent(noise, delta, rate, steps, settings.accountant)  # fail before training, not after it
        return cls(settings, noise, rate, batch, _secret(settings, run.seed))

    def summary(
        self, state: "TrainingState | None" = None, *, final: bool = False
    ) -> dict[str, Any]:
        """Return the privacy spent so far and how."""
        settings = self.settings
        epsilon = 0.0
        if self.steps:
            epsilon = spent(self.noise, settings.delta, self.rate, self.steps, settings.accountant)
        privacy = {
            "epsilon": epsilon,
            "delta": settings.delta,
            "noise_multiplier": self.noise,
            "clip": settings.clip,
            "sampling_rate": self.rate,
            "sampling": "poisson",
            "private_steps": self.steps,
            "accountant": f"opacus {settings.accountant}",
            "noise_from": (
                "a secret key" if settings.key else "the run's seed, which this file holds"
            ),
            "not_covered": UNCOVERED,
        }
        return {"privacy": privacy}

    def gradient(
        self, state: "TrainingState", step: int, batches: Sequence[Sequence[Batch]]
    ) -> dict[str, float]:
        """Leave in `.grad` the noisy mean of the clipped gradients of a step's examples; return
        metrics to log.

        Args:
            state: the run in progress.
            step: 0-based.
            batches: of one source, the step's examples, each a batch of its own.
        """
        (source,), (examples,) = state.data.sources, batches
        training = [
            p for group in state.groups if step >= group.frozen_steps for p in group.parameters
        ]
        sums = [torch.zeros_like(p) for p in training]
        singles = [state.engine.move(example) for example in examples]
        losses: list[Tensor] = []
        clipped: list[Tensor] = []
        with state.engine.autocast():
            for grads, losses_B in self.gradients.parts(
                state.call, source.objective, singles, training
            ):
                factor_B = clip_factors(grads, self.settings.clip)
                for total, grad in zip(sums, grads, strict=True):
                    total += torch.tensordot(factor_B.to(grad.dtype), grad, 1)
                losses.append(losses_B.sum())
                clipped.append((factor_B < 1).sum())
        state.optimizer.zero_grad()
        for parameter, total in zip(training, sums, strict=True):
            parameter.grad = total
        state.engine.reduce_grads(training)
        # one copy to the host
        numbers, many = to_numbers([*losses, *clipped]), len(singles)
        totals = {
            "loss": sum(numbers[: len(losses)]),
            "clipped": sum(numbers[len(losses) :]),
        }
        pairs = state.engine.sum({name: (total, many) for name, total in totals.items()})
        if not math.isfinite(pairs["loss"][0]):
            raise DivergedError(
                f"step {step}: the loss of an example is not finite; lower schedule.lr"
            )
        for parameter, noise in zip(training, self.noises(step, training), strict=True):
            assert parameter.grad is not None
            parameter.grad = (parameter.grad + noise) / self.batch
        self.steps = step + 1
        count = pairs["loss"][1]
        means = {name: total / count if count else 0.0 for name, (total, _) in pairs.items()}
        return {**means, "examples": count}

    def noises(self, step: int, parameters: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the noise of a step for each parameter, the same in every process."""
        draw = torch.Generator().manual_seed(
            int(sampling.generator(self.seed, sampling.NOISE, step).integers(2**62))
        )
        for parameter in parameters:
            normal = torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype)
            yield normal.to(parameter.device, non_blocking=True) * (self.noise * self.settings.clip)


@contextmanager
def nothing_learnt(model: nn.Module, run: "Run") -> Iterator[None]:
    """Refuse what a private run may not do before its first step: set weights from training
    records, without noise.

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
                f"{type(run.objective).__name__} sets {name} from the training records before the"
                " first step, without noise; private training needs that off (--no-warm-start,"
                " where the objective has it)"
            )


def check_records(run: "Run", records: Records, store: Store, parent: "Checkpoint | None") -> None:
    """Refuse records for which the promise would not hold: parts of records, or what the start has
    learnt without noise.

    Raises:
        ConfigError: an example is not one whole record, or the parent learnt this very store.
    """
    if not run.dp_sgd:
        return
    if len(records) != len(store.split("train")) or not isinstance(records, Rows):
        raise ConfigError(
            f"{type(run.objective).__name__} learns from windows of records, which share what they"
            " reveal; private training protects whole records: fine-tune on labelled ones"
        )
    if parent and parent.run.dp_sgd is None and parent.provenance.get("data") == store.digests():
        raise ConfigError(
            f"{run.init} learnt {run.data} without noise, which no later noise takes back; start"
            " from another"
        )


def check_codec(given: Any, fitted: Any, run: "Run") -> None:
    """Refuse a codec fitted to the records that are to be private; raises ConfigError."""
    if run.dp_sgd and run.init is None and fitted != given:
        raise ConfigError(
            "the codec is fitted to the training records without noise; start private training from"
            " --init"
        )


def _secret(settings: DPSGD, seed: int) -> int:
    if settings.key is None:
        return seed
    try:
        secret = settings.key.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{settings.key}: {error.strerror}; dp_sgd.key is a file of secret bytes"
        ) from None
    if len(secret) < 16:
        raise ConfigError(
            f"{settings.key}: {len(secret)} bytes; a secret has at least 16 (head -c 32"
            " /dev/urandom)"
        )
    return int.from_bytes(hashlib.sha256(secret + seed.to_bytes(8, "big")).digest()[:8], "big")


@cache
def noise_for(epsilon: float, delta: float, rate: float, steps: int, accountant: str) -> float:
    """Return the noise multiplier with which so many steps spend at most epsilon at delta, by
    opacus.

    Args:
        epsilon: the budget, at `delta`.
        delta: the probability that the bound may fail.
        rate: chance of a record in a step.
        steps: how many.
        accountant: `prv` or `rdp`.

    Raises:
        ConfigError: no noise meets the budget.
        MissingExtra: opacus is not installed.
    """
    with _opacus() as accountants:
        options = {
            "target_epsilon": epsilon,
            "target_delta": delta,
            "sample_rate": rate,
            "steps": steps,
        }
        try:
            return float(accountants.utils.get_noise_multiplier(**options, accountant=accountant))
        except (ValueError, RuntimeError, OverflowError, MemoryError) as error:
            raise ConfigError(
                f"no noise for epsilon {epsilon} in {steps} steps ({error}); give another budget"
            ) from None


@cache
def spent(noise: float, delta: float, rate: float, steps: int, accountant: str) -> float:
    """Return the epsilon at delta that so many steps with this noise multiplier spend, by
    opacus; arguments as noise_for.
    """
    with _opacus() as accountants:
        account = accountants.create_accountant(mechanism=accountant)
        account.history = [(noise, rate, steps)]
        try:
            return float(account.get_epsilon(delta=delta))
        except (ValueError, RuntimeError, OverflowError, MemoryError) as error:
            hint = "use dp_sgd.accountant rdp" if accountant == "prv" else "use more noise"
            raise ConfigError(
                f"opacus cannot account noise {noise:.3g} over {steps} steps ({error}); {hint}"
            ) from None


@contextmanager
def _opacus() -> Iterator[Any]:
    """Yield opacus's accountants, without their warnings on orders of Renyi divergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from opacus import accountants
            from opacus.accountants import utils  # noqa: F401  (an attribute of accountants)
        except ImportError:
            raise MissingExtra("opacus", "privacy") from None
        yield accountants
