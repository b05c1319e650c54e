"""The contract between the core and a domain: what flows, and the few functions a domain supplies.

files -> records -> codec -> batch -> model -> objective -> loop -> checkpoint -> predictor
"""

import importlib
import pkgutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, did_you_mean

Record = Mapping[str, Any]  # one stored thing: numpy arrays, numbers, strings
Example = dict[str, Tensor]  # one encoded thing, before collation
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Loss:
    """A sum and the number of things summed; only the loop divides, once, over the whole global batch.

    Args:
        total: scalar, the sum to descend on.
        count: scalar, how many things `total` sums (hidden bases, examples, atoms).
        parts: other metrics to journal, each its own (sum, count).
    """

    total: Tensor
    count: Tensor
    parts: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


def widened(x: Tensor) -> Tensor:
    """Return logits or errors in float32 at least, for losses under autocast; float64 stays (tests of exactness).

    >>> widened(torch.zeros(1, dtype=torch.bfloat16)).dtype, widened(torch.zeros(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True)
class Categorical:
    """What an objective's model says of each target: logits_NC over C classes, for the Fisher information."""

    logits_NC: Tensor
    target_N: Tensor


@dataclass(frozen=True)
class Gaussian:
    """What an objective's model says of each target: a mean and a standard deviation, for the Fisher information."""

    mean_N: Tensor
    scale_N: Tensor
    target_N: Tensor


Likelihood = Categorical | Gaussian


class Codec(Protocol):
    """Turns records into examples and examples into batches; a frozen dataclass that JSON can hold."""

    def fit(self, store: Any) -> Self:
        """Return a copy completed from the training split only (vocabulary, normalisation, reference energies)."""

    def encode(self, record: Record) -> Example: ...

    def collate(self, examples: Sequence[Example]) -> Batch: ...


class ModelConfig(Protocol):
    """Sizes of a model; a frozen dataclass that JSON can hold."""

    def build(self, codec: Any) -> nn.Module: ...


class Objective(Settings):
    """What to learn; subclasses are frozen dataclasses that JSON can hold, each field checked against its type.

    Only `prepare` and `loss` must be written; the rest has the meaning that most objectives want.

    Attributes:
        metric: the development metric that early stopping watches; `loss` or a name that `metrics` returns.
        higher_is_better: the sense of `metric`.
        fresh: names of the heads that start anew unless the checkpoint learnt the very same objective.
        needs_grad: whether `loss` and `predict` differentiate the model themselves (forces), also in evaluation.
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
        """Names of the domain's augmentations that `prepare` draws at random for labelled records in training."""
        return ()

    def resolve(self, store: Any) -> Self:
        """Return a copy completed from the prepared data (class names, for instance)."""
        return self

    def attach(self, model: nn.Module) -> None:
        """Add to `model.heads` the parts that this objective alone needs."""

    def start(
        self, model: nn.Module, codec: Any, records: Sequence[Record], engine: Any, seed: int, parent: Any
    ) -> Mapping[str, Any] | None:
        """Set parts of the model from the training records before the first step (a solved linear head, say).

        `parent` is the checkpoint the weights came from, None for a fresh model. What is returned (numbers, text) the
        checkpoint keeps.
        """

    def examples(self, store: Any, split: str) -> Sequence[Record]:
        """Return the records of a split; an objective that reads windows returns a view of them."""
        return store.split(split)

    def prepare(self, record: Record, codec: Any, rng: np.random.Generator, training: bool) -> Example:
        """Crop, augment, encode and corrupt one record; all randomness comes from `rng`."""
        raise TypeError(f"{type(self).__name__} must define prepare")

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the summed loss of a batch and the count it sums over."""
        raise TypeError(f"{type(self).__name__} must define loss")

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return the predictive distribution behind the loss, for the Fisher information."""
        raise ConfigError(f"{type(self).__name__} has no likelihood; EWC needs one: use --regularization l2sp")

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor | list[Tensor]]:
        """Return per-example outputs, first axis the example; ragged ones (forces) as a list, one tensor an example."""
        return {}

    def metrics(self, outputs: Mapping[str, np.ndarray], records: Sequence[Record]) -> dict[str, float]:
        """Return metrics of merit from the outputs of `predict` over a whole split."""
        return {}


def plain_labels(records: Sequence[Record], meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return name -> labels of the records: numbers in `value`, else classes or a number in `label`; empty without labels.

    >>> plain_labels([{"label": "yes"}, {"label": "no"}], {})["label"].tolist()
    ['yes', 'no']
    """
    name = next((name for name in ("value", "label") if records and name in records[0]), None)
    return {} if name is None else {name: np.array([record[name] for record in records])}


@dataclass(frozen=True)
class Augmentation:
    """A random change of a record that a user may hold to be without meaning, and what it scrambles.

    Args:
        apply: (record, generator) -> the changed record, one draw as training would make it; labels that turn with the record
            (forces) turn too.
        nuisance: record -> 1-D array, always of one length: the numbers that the change scrambles.
        summary: one sentence.
    """

    apply: Callable[[Record, np.random.Generator], Record]
    nuisance: Callable[[Record], np.ndarray]
    summary: str


@dataclass(frozen=True)
class FitRecipe:
    """A named recommendation for `Model.fit`.

    Args:
        summary: when to use it, one sentence.
        settings: function(prepared store, parent checkpoint) -> fields of Run: `objective`, and `schedule`,
            `finetuning`, `regularization` and others where they differ from Run's defaults.
    """

    summary: str
    settings: Callable[[Any, Any], Mapping[str, Any]]


class Inputs:
    """How users' own objects become records, and outputs become columns; one instance a domain.

    Attributes:
        takes_tables: whether a whole DataFrame is an input (one row a record), not only a column of one.
        recipes: recommended recipes by name; the first is the default of `Model.fit`.
    """

    takes_tables: ClassVar[bool] = False
    recipes: ClassVar[Mapping[str, FitRecipe]] = {}

    def of(self, model: Any) -> "Inputs":
        """Return the inputs as this model wants them (images of its size, for instance); by default for any model."""
        return self

    def records(self, inputs: Sequence[Any]) -> list[Record]:
        """Return a record without labels for each input, in order.

        Raises:
            DataError: an input is bad; names it by its place, `input 3: ...`.
        """
        raise TypeError(f"{type(self).__name__} must define records")

    def preparer(self, inputs: Sequence[Any], targets: Any, *, split: Sequence[str] | None, seed: int) -> Any:
        """Return a preparer of labelled inputs that makes the same store as files would.

        Args:
            inputs: natural inputs.
            targets: DataFrame, one column a target, NaN where a label is missing; None where inputs carry their labels.
            split: `train`, `validation` or `test` of each input; None puts all in train.
            seed: of whatever preparing draws.
        """
        raise TypeError(f"{type(self).__name__} must define preparer")

    def columns(self, model: Any, outputs: Mapping[str, np.ndarray]) -> dict[str, Sequence[Any]]:
        """Return the columns of the user's table from the outputs of the model's objective."""
        return {name: list(values) for name, values in outputs.items()}

    def frame(self, records: Sequence[Record], meta: Mapping[str, Any]) -> Any:
        """Return records as a DataFrame of natural columns; by default numbers and text, and not arrays."""
        import pandas as pd

        rows = [{k: v for k, v in record.items() if np.ndim(v) == 0 and k != "split"} for record in records]
        return pd.DataFrame(rows)


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A scientific domain as a value; found by folder or by the entry-point group `sciforge.domains`.

    Args:
        name: the folder's name.
        summary: one line for `sciforge --help`.
        preparers: name -> frozen dataclass whose fields are the options of `sciforge prepare NAME` and that
            turns files into a store (see core.store.Preparer).
        codec: the default codec.
        models: preset name -> model configuration.
        objectives: name -> objective dataclass.
        outputs: name -> frozen dataclass whose fields are options of `sciforge predict CHECKPOINT NAME`, with
            `write(predictor) -> Path`.
        laws: name -> function(model in float64, codec, numpy generator) -> (largest violation, tolerance); its
            docstring's first line states the law.
        baselines: name -> function(objective, train records, test records, seed) -> outputs as `Objective.predict`
            gives them; run beside the net in every label-efficiency curve.
        audits: name -> frozen dataclass whose fields are options of `sciforge audit NAME`, with `run() -> AuditReport`.
        tools: verb -> frozen dataclass whose fields are options of `sciforge VERB`, with `run() -> Path`: what makes data
            without a checkpoint (`label`, `sample`).
        demo: function(folder, find, full) -> Section for `sciforge demo`; `find(name)` is the path of a bundled dataset
            or checkpoint; at most 40 CPU seconds, or minutes where `full`.
        augmentations: name -> Augmentation, for `sciforge invariance`.
        embed: function(model, batch of codec.collate) -> [B, D], what the net makes of whole records.
        labels: function(records, the store's meta) -> name -> labels [N] of records: text for classes, NaN for missing.
        inputs: how users' own objects become records; None where only prepared data are taken.
        methods: name -> function(model, ...): methods that a Model of this domain has besides those that all have.
        shardable: whether FSDP2 may shard its models (double backward may not).
    """

    name: str
    summary: str
    preparers: Mapping[str, type]
    codec: Any
    models: Mapping[str, Any]
    objectives: Mapping[str, type[Objective]]
    outputs: Mapping[str, type] = field(default_factory=dict)
    laws: Mapping[str, Callable] = field(default_factory=dict)
    baselines: Mapping[str, Callable] = field(default_factory=dict)
    audits: Mapping[str, type] = field(default_factory=dict)
    tools: Mapping[str, type] = field(default_factory=dict)
    demo: Callable | None = None
    augmentations: Mapping[str, Augmentation] = field(default_factory=dict)
    embed: Callable[[nn.Module, Batch], Tensor] | None = None
    labels: Callable[[Sequence[Record], Mapping[str, Any]], Mapping[str, np.ndarray]] = plain_labels
    inputs: Inputs | None = None
    methods: Mapping[str, Callable] = field(default_factory=dict)
    shardable: bool = True

    def types(self) -> dict[str, type]:
        """Return every dataclass of the domain that the JSON of a run may name, by class name."""
        found = [type(self.codec), *map(type, self.models.values()), *self.objectives.values()]
        return {t.__name__: t for t in found}

    def objective(self, given: "str | Objective") -> Objective:
        """Return an objective, by name with its defaults or as given; raises ConfigError with the nearest name."""
        if not isinstance(given, str):
            return given
        if given not in self.objectives:
            raise ConfigError(f"no objective {given!r} in {self.name}; {did_you_mean(given, self.objectives)}")
        return self.objectives[given]()

    def model(self, name: str) -> Any:
        """Return the preset of that name; raises ConfigError with the nearest name."""
        if name not in self.models:
            raise ConfigError(f"no model {name!r} in {self.name}; {did_you_mean(name, self.models)}")
        return self.models[name]


# Packages of sciforge that hold no domain.
_ROOMS = ("cli", "core", "experiments", "nn", "provenance", "structures")


def domain_names() -> list[str]:
    """Return the names of all domains, sorted, without importing any: folders of sciforge and entry points."""
    import sciforge

    folders = {m.name for m in pkgutil.iter_modules(sciforge.__path__) if m.ispkg and not m.name.startswith("_")}
    return sorted({*(folders - {*_ROOMS}), *(entry.name for entry in entry_points(group="sciforge.domains"))})


@cache
def discover() -> dict[str, Domain]:
    """Return every domain that can be imported; a warning names one that cannot, and the others work."""
    domains = {}
    for name in domain_names():
        try:
            domains[name] = get_domain(name)
        except ConfigError as error:
            warnings.warn(str(error), stacklevel=2)
    return domains


def get_domain(name: str) -> Domain:
    """Return the domain of that name, importing it alone.

    Raises:
        ConfigError: there is no such domain, or a package it needs is broken; names the nearest, or the cause.
    """
    if name not in domain_names():
        raise ConfigError(f"no domain {name!r}; {did_you_mean(name, domain_names())}")
    outside = {entry.name: entry for entry in entry_points(group="sciforge.domains")}
    try:
        domain = outside[name].load() if name in outside else importlib.import_module(f"sciforge.{name}").DOMAIN
    except (ImportError, AttributeError) as error:
        cause = " ".join(str(error).split())
        raise ConfigError(f"the domain {name} cannot be imported: {cause}; install that package again") from error
    if not isinstance(domain, Domain):
        raise ConfigError(f"the domain {name} is a {type(domain).__name__}, not a Domain; correct its package")
    return domain


def offers(kind: str, domain: str | None = None) -> dict[str, tuple[Domain, type]]:
    """Return name -> (domain, class) of what all domains, or one, offer of a kind (`objectives`, `preparers`, ...).

    `domain/name` is always a name; the bare name too, unless two domains share it.
    """
    domains = list(discover().values()) if domain is None else [get_domain(domain)]
    pairs = [(name, home, cls) for home in domains for name, cls in getattr(home, kind).items()]
    names = [name for name, _, _ in pairs]
    bare = {name: (home, cls) for name, home, cls in pairs if names.count(name) == 1}
    return bare | {f"{home.name}/{name}": (home, cls) for name, home, cls in pairs}


def find_offer(kind: str, name: str, domain: str | None = None) -> tuple[Domain, type]:
    """Return the domain and the class of an offer; only the domain that `name` or `domain` names is imported.

    Args:
        kind: `objectives`, `preparers`, `outputs`, `audits` or `tools`.
        name: `masked`, or with its domain `genomes/masked`.
        domain: the domain that is meant, where it is known.

    Raises:
        ConfigError: there is no such offer, or two domains have one of that name; names the nearest.
    """
    if domain is None and name.partition("/")[0] in domain_names() and "/" in name:
        domain = name.partition("/")[0]
    known = offers(kind, domain)
    if name in known:
        return known[name]
    what = kind.removesuffix("s")
    shared = [other for other in known if other.endswith(f"/{name}")]
    hint = f"name its domain: {' or '.join(shared)}" if shared else did_you_mean(name, known)
    raise ConfigError(f"no {what} {name!r}{f' in {domain}' if domain else ''}; {hint}")


def seeded_model(config: ModelConfig, codec: Any, objectives: Sequence[Objective], seed: int) -> nn.Module:
    """Build a model and its heads from a seed, leaving torch's global generator as it was.

    Raises:
        ConfigError: two objectives need a head of the same name.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = config.build(codec)
        for objective in objectives:
            before = dict(model.heads.items())
            objective.attach(model)
            if clash := [name for name, head in before.items() if model.heads[name] is not head]:
                kinds = " and ".join(type(o).__name__ for o in objectives)
                raise ConfigError(f"{kinds} both need the head {clash[0]!r}; replay a checkpoint of another objective")
    return model
