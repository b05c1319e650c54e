"""What flows through training, and what an objective supplies.

files -> records -> codec -> batch -> network -> objective -> loop -> checkpoint -> model in use
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.data.store import Store
from sciforge.core.files.settings import Settings
from sciforge.core.heads import heads_of
from sciforge.errors import ConfigError

if TYPE_CHECKING:
    from sciforge.core.training.checkpoint import Checkpoint
    from sciforge.core.training.distributed import Engine

Record = Mapping[str, Any]  # one stored thing: numpy arrays, numbers, strings
Example = dict[str, Any]  # one encoded thing, before collation: tensors by name
Batch = dict[str, Any]  # tensors by name


class Records(Protocol):
    """The records of a split, read when asked for; what `Objective.examples` returns."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...


@runtime_checkable
class LabelledRecords(Records, Protocol):
    """Records of which some can be chosen, with classes balanced."""

    def labels(self) -> np.ndarray:
        """Return what a choice of few records balances [N]."""

    def take(self, places: np.ndarray, /) -> "LabelledRecords":
        """Return the records at these places."""


@dataclass(frozen=True)
class Loss:
    """A sum and the number of things summed; only the loop divides, once, over the whole global
    batch.

    Args:
        total: scalar, the sum to descend on.
        count: scalar, how many things `total` sums (hidden bases, examples, atoms).
        parts: other metrics to log, each its own (sum, count).
    """

    total: Tensor
    count: Tensor
    parts: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


def widened(x: Tensor) -> Tensor:
    """Return logits or errors in float32 at least, for losses under autocast; float64 stays (tests
    of exactness).

    >>> [widened(torch.zeros(1, dtype=dtype)).dtype for dtype in (torch.bfloat16, torch.float64)]
    [torch.float32, torch.float64]
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True)
class Categorical:
    """The predictive distribution of each target: logits_NC over C classes, for the Fisher
    information.
    """

    logits_NC: Tensor
    target_N: Tensor


@dataclass(frozen=True)
class Gaussian:
    """The predictive distribution of each target: a mean and a standard deviation, for the
    Fisher information.
    """

    mean_N: Tensor
    scale_N: Tensor
    target_N: Tensor


Likelihood = Categorical | Gaussian


class Codec(Protocol):
    """Turns records into examples and examples into batches; a frozen dataclass that JSON can
    hold.
    """

    def fit(self, store: Store) -> Self:
        """Return a copy completed from the training split only (vocabulary, normalisation,
        reference energies).

        A codec may have `fit_all(stores)` too, for runs of several tasks; without it, the first
        task's store decides.
        """

    def encode(self, record: Record) -> Example:
        """Return the tensors of one record."""

    def collate(self, examples: Sequence[Example], /) -> Batch:
        """Return examples as one batch."""


class ModelConfig(Protocol):
    """Sizes of a model; a frozen dataclass that JSON can hold."""

    def build(self, codec: Any) -> nn.Module:
        """Return a new network with random weights and an empty `heads`."""


class Objective(Settings):
    """What to learn; subclasses are frozen dataclasses that JSON can hold, each field checked
    against its type.

    Only `prepare` and `loss` must be written; the rest has the meaning that most objectives want.

    Attributes:
        metric: the validation metric that early stopping watches; `loss` or a name that `metrics`
            returns.
        higher_is_better: whether a larger `metric` is better.
        fresh: names of the heads that start anew unless the checkpoint learnt the very same
            objective.
        needs_grad: whether `loss` and `predict` differentiate the model themselves (forces), also
            in evaluation.
    """

    metric: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False
    fresh: ClassVar[tuple[str, ...]] = ()
    needs_grad: ClassVar[bool] = False

    def where(self, name: str) -> str:
        """Return how an error names a field: objective.length."""
        return f"objective.{name}"

    @property
    def augments(self) -> tuple[str, ...]:
        """Names of the domain's augmentations that `prepare` draws at random for labelled
        records in training.
        """
        return ()

    def resolve(self, store: Store) -> Self:
        """Return a copy completed from the prepared data (class names, for instance)."""
        return self

    def alongside(self, objectives: "Sequence[Objective]") -> Self:
        """Return a copy completed from what the other tasks of a run learn (their levels of theory,
        for instance).

        Args:
            objectives: of all tasks, resolved, this one among them; those that go on as `init`
                learnt them come first.
        """
        return self

    def attach(self, model: nn.Module) -> None:
        """Add to `model.heads` the parts that this objective alone needs."""

    def start(
        self,
        model: nn.Module,
        codec: Any,
        records: Any,
        engine: "Engine",
        seed: int,
        parent: "Checkpoint | None",
    ) -> Mapping[str, Any] | None:
        """Set parts of the model from the training records before the first step (such as a solved
        linear head).

        `parent` is the checkpoint the weights came from, None for a fresh model. The checkpoint
        keeps what is returned (numbers, text).
        """

    def examples(self, store: Store, split: str) -> Records:
        """Return the records of a split; an objective that reads windows returns a view of them."""
        return store.split(split)

    def prepare(
        self, record: Record, codec: Any, rng: np.random.Generator, training: bool
    ) -> Example:
        """Crop, augment, encode and corrupt one record; all randomness comes from `rng`."""
        raise TypeError(f"{type(self).__name__} must define prepare")

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the summed loss of a batch and the count it sums over."""
        raise TypeError(f"{type(self).__name__} must define loss")

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return the predictive distribution behind the loss, for the Fisher information."""
        raise ConfigError(
            f"{type(self).__name__} has no likelihood; EWC needs one: use --regularization l2sp"
        )

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor | list[Tensor]]:
        """Return per-example outputs, first axis the example; ragged ones (forces) as a list,
        one tensor an example.
        """
        return {}

    def metrics(self, outputs: Mapping[str, np.ndarray], records: Any) -> dict[str, float]:
        """Return metrics from the outputs of `predict` over a whole split."""
        return {}


def seeded_model(
    config: ModelConfig,
    codec: Any,
    objectives: Sequence[Objective],
    seed: int,
    scopes: Sequence[str | None] = (),
) -> nn.Module:
    """Build a model and its heads from a seed, leaving torch's global generator as it was.

    Args:
        config: sizes of the model.
        codec: fitted.
        objectives: whose heads it gets.
        seed: of the weights.
        scopes: the task that each objective's heads stand under; empty or None for no task's.

    Raises:
        ConfigError: two objectives need a head of the same name.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = config.build(codec)
        whole: Any = model.heads
        for objective, scope in zip(objectives, scopes or [None] * len(objectives), strict=True):
            if scope is not None and scope not in whole:
                whole[scope] = nn.ModuleDict()
            with heads_of(model, scope):
                heads: Any = model.heads
                before = dict(heads.items())
                objective.attach(model)
                if clash := [name for name, head in before.items() if heads[name] is not head]:
                    kinds = " and ".join(type(o).__name__ for o in objectives)
                    raise ConfigError(
                        f"{kinds} both need the head {clash[0]!r}; make them tasks of their own"
                        " (Run.tasks), or replay a checkpoint of another objective"
                    )
    return model
