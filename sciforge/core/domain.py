"""The contract between the core and a domain: a domain is a value, found by folder or entry
point.
"""

import importlib
import pkgutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor, nn

from sciforge.core.data.store import Preparer, Store
from sciforge.core.objective import (
    Batch,
    Categorical,
    Codec,
    Example,
    Gaussian,
    LabelledRecords,
    Likelihood,
    Loss,
    ModelConfig,
    Objective,
    Record,
    Records,
    seeded_model,
    widened,
)
from sciforge.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from sciforge.core.training.checkpoint import Checkpoint
    from sciforge.core.training.model import Model

# A domain needs one import for all that it is made of.
__all__ = [
    "Augmentation",
    "Batch",
    "Categorical",
    "Codec",
    "Domain",
    "Example",
    "FitRecipe",
    "Gaussian",
    "Inputs",
]
__all__ += [
    "Fingerprint",
    "LabelledRecords",
    "Likelihood",
    "Loss",
    "ModelConfig",
    "Objective",
    "Record",
    "Records",
    "discover",
]
__all__ += [
    "domain_names",
    "find_offer",
    "get_domain",
    "offers",
    "plain_labels",
    "seeded_model",
    "widened",
]


def plain_labels(records: Sequence[Record], meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return name -> labels of the records: numbers in `value`, else classes or a number in
    `label`; empty without labels.

    >>> plain_labels([{"label": "yes"}, {"label": "no"}], {})["label"].tolist()
    ['yes', 'no']
    """
    name = next((name for name in ("value", "label") if records and name in records[0]), None)
    return {} if name is None else {name: np.array([record[name] for record in records])}


@dataclass(frozen=True)
class Augmentation:
    """A random change of a record that a user may hold to be without meaning, and what it
    scrambles.

    Args:
        apply: (record, generator) -> the changed record, one draw as training would make it; labels
            that turn with the record (forces) turn too.
        nuisance: record -> 1-D array, always of one length: the numbers that the change scrambles.
        summary: one sentence.
    """

    apply: Callable[[Record, np.random.Generator], Record]
    nuisance: Callable[[Record], np.ndarray]
    summary: str


@dataclass(frozen=True)
class Fingerprint:
    """When records are the same, and when they are nearly so.

    Args:
        columns: two records of a store are the same where these columns are.
        features: record -> uint64 [F], hashes of what the record consists of; near duplicates share
            most of them.
        similarity: features in common, of all that either has, from which two records are near
            duplicates.
        summary: what the features are, a phrase.
        kinds: kinds of stores whose records are compared.
    """

    columns: tuple[str, ...]
    features: Callable[[Record], np.ndarray]
    similarity: float
    summary: str
    kinds: tuple[str, ...]

    def applies(self, store: Store) -> bool:
        """Return whether the records of a store can be compared."""
        shards = [shard for shard in store.index["shards"] if shard["num_records"]]
        return store.kind in self.kinds and all(
            set(self.columns) <= set(shard["columns"]) for shard in shards
        )


@dataclass(frozen=True)
class FitRecipe:
    """A named recommendation for `Model.fit`.

    Args:
        summary: when to use it, one sentence.
        function: (prepared store, parent checkpoint, number of records trained on) -> fields of
            Run: `objective`, and `schedule`, `finetuning`, `regularization` and others where they
            differ from Run's defaults.
    """

    summary: str
    function: Callable[[Store, "Checkpoint", int], Mapping[str, Any]]

    def settings(
        self, store: Store, parent: "Checkpoint", labels: int | None = None
    ) -> Mapping[str, Any]:
        """Return the fields of Run for training on so many records of a store; None for all of
        its training split.
        """
        count = len(store.split("train")) if labels is None else labels
        return self.function(store, parent, count)


class Inputs:
    """How users' own objects become records, and outputs become columns; one instance a domain.

    Attributes:
        takes_tables: whether a whole DataFrame is an input (one row a record), not only a column of
            one.
        recipes: recommended recipes by name; the first is the default of `Model.fit`.
        coverage: nominal share of true values between the columns NAME_lower and NAME_upper.
    """

    takes_tables: ClassVar[bool] = False
    coverage: ClassVar[float] = 0.9
    recipes: ClassVar[Mapping[str, FitRecipe]] = {}

    def of(self, model: Any) -> "Inputs":
        """Return the inputs as this model wants them (images of its size, for instance); by
        default for any model.
        """
        return self

    def records(self, inputs: Sequence[Any]) -> list[Record]:
        """Return a record without labels for each input, in order.

        Raises:
            DataError: an input is bad; names it by its place, `input 3: ...`.
        """
        raise TypeError(f"{type(self).__name__} must define records")

    def preparer(
        self,
        inputs: Sequence[Any],
        targets: "pd.DataFrame | None",
        *,
        split: Sequence[str] | None,
        seed: int,
        group: Sequence[Any] | None = None,
    ) -> Preparer:
        """Return a preparer of labelled inputs that makes the same store as files would.

        Args:
            inputs: natural inputs.
            targets: DataFrame, one column a target, NaN where a label is missing; None where inputs
                carry their labels.
            split: `train`, `validation` or `test` of each input; None puts all in train.
            seed: of whatever preparing draws.
            group: of each input, what must not be in two splits (a patient); None for none. The
                store keeps their names in the text column `group`.
        """
        raise TypeError(f"{type(self).__name__} must define preparer")

    def columns(
        self, model: "Model", outputs: Mapping[str, np.ndarray]
    ) -> dict[str, Sequence[Any]]:
        """Return the columns of the user's table from the outputs of the model's objective."""
        return {name: list(values) for name, values in outputs.items()}

    def frame(self, records: Sequence[Record], meta: Mapping[str, Any]) -> "pd.DataFrame":
        """Return records as a DataFrame of natural columns; by default numbers and text, and not
        arrays.
        """
        import pandas as pd

        rows = [
            {k: v for k, v in record.items() if np.ndim(v) == 0 and k != "split"}
            for record in records
        ]
        return pd.DataFrame(rows)


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A scientific domain as a value; found by folder or by the entry-point group
    `sciforge.domains`.

    Args:
        name: the folder's name.
        summary: one line for `sciforge --help`.
        preparers: name -> frozen dataclass whose fields are the options of `sciforge prepare NAME`
            and that turns files into a store (see core.data.store.Preparer).
        codec: the default codec.
        models: preset name -> model configuration.
        objectives: name -> objective dataclass.
        outputs: name -> frozen dataclass whose fields are options of `sciforge predict CHECKPOINT
            NAME`, with `write(predictor) -> Path`.
        laws: name -> function(model in float64, codec, numpy generator) -> (largest violation,
            tolerance); its docstring's first line states the law.
        baselines: name -> function(objective, train records, test records, seed) -> outputs as
            `Objective.predict` gives them; run beside the net in every label-efficiency curve.
        audits: name -> frozen dataclass whose fields are options of `sciforge audit NAME`, with
            `run() -> AuditReport`.
        tools: verb -> frozen dataclass whose fields are options of `sciforge VERB`, with `run() ->
            Path`: what makes data without a checkpoint (`label`, `sample`).
        demo: function(folder, find, full) -> Section for `sciforge demo`; `find(name)` is the path
            of a bundled dataset or checkpoint; at most 40 CPU seconds, or minutes where `full`.
        augmentations: name -> Augmentation, for `sciforge invariance`.
        embed: function(model, batch of codec.collate) -> [B, D], what the net makes of whole
            records.
        labels: function(records, the store's meta) -> name -> labels [N] of records: text for
            classes, NaN for missing.
        fingerprint: when records are the same, and when nearly so; None where they are not
            compared.
        inputs: how users' own objects become records; None where only prepared data are taken.
        methods: name -> function(model, ...): methods that a Model of this domain has besides those
            that all have.
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
    fingerprint: Fingerprint | None = None
    inputs: Inputs | None = None
    methods: Mapping[str, Callable] = field(default_factory=dict)
    shardable: bool = True

    def types(self) -> dict[str, type]:
        """Return every dataclass of the domain that the JSON of a run may name, by class name."""
        types = [type(self.codec), *map(type, self.models.values()), *self.objectives.values()]
        return {t.__name__: t for t in types}

    def objective(self, objective: "str | Objective") -> Objective:
        """Return an objective, by name with its defaults or as given; raises ConfigError with
        the nearest name.
        """
        if not isinstance(objective, str):
            return objective
        if objective not in self.objectives:
            raise ConfigError(
                f"no objective {objective!r} in {self.name};"
                f" {did_you_mean(objective, self.objectives)}"
            )
        return self.objectives[objective]()

    def model(self, name: str) -> Any:
        """Return the preset of that name; raises ConfigError with the nearest name."""
        if name not in self.models:
            raise ConfigError(
                f"no model {name!r} in {self.name}; {did_you_mean(name, self.models)}"
            )
        return self.models[name]


# Packages of sciforge that hold no domain.
_ROOMS = ("cli", "core", "experiments", "nn", "provenance", "structures")


def domain_names() -> list[str]:
    """Return the names of all domains, sorted, without importing any: folders of sciforge and
    entry points.
    """
    import sciforge

    folders = {
        m.name
        for m in pkgutil.iter_modules(sciforge.__path__)
        if m.ispkg and not m.name.startswith("_")
    }
    return sorted(
        {*(folders - {*_ROOMS}), *(entry.name for entry in entry_points(group="sciforge.domains"))}
    )


@cache
def discover() -> dict[str, Domain]:
    """Return every domain that can be imported; a warning names one that cannot, and the others
    work.
    """
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
        ConfigError: there is no such domain, or a package it needs is broken; names the nearest, or
            the cause.
    """
    if name not in domain_names():
        raise ConfigError(f"no domain {name!r}; {did_you_mean(name, domain_names())}")
    outside = {entry.name: entry for entry in entry_points(group="sciforge.domains")}
    try:
        domain = (
            outside[name].load()
            if name in outside
            else importlib.import_module(f"sciforge.{name}").DOMAIN
        )
    except (ImportError, AttributeError) as error:
        cause = " ".join(str(error).split())
        raise ConfigError(
            f"the domain {name} cannot be imported: {cause}; install that package again"
        ) from error
    if not isinstance(domain, Domain):
        raise ConfigError(
            f"the domain {name} is a {type(domain).__name__}, not a Domain; correct its package"
        )
    return domain


def offers(kind: str, domain: str | None = None) -> dict[str, tuple[Domain, type]]:
    """Return name -> (domain, class) of what all domains, or one, offer of a kind (`objectives`,
    `preparers`, ...).

    `domain/name` is always a name; the bare name too, unless two domains share it.
    """
    domains = list(discover().values()) if domain is None else [get_domain(domain)]
    pairs = [(name, home, cls) for home in domains for name, cls in getattr(home, kind).items()]
    names = [name for name, _, _ in pairs]
    bare = {name: (home, cls) for name, home, cls in pairs if names.count(name) == 1}
    return bare | {f"{home.name}/{name}": (home, cls) for name, home, cls in pairs}


def find_offer(kind: str, name: str, domain: str | None = None) -> tuple[Domain, type]:
    """Return the domain and the class of an offer; only the domain that `name` or `domain` names is
    imported.

    Args:
        kind: `objectives`, `preparers`, `outputs`, `audits` or `tools`.
        name: `masked`, or with its domain `genomes/masked`.
        domain: the domain that is meant, where it is known.

    Raises:
        ConfigError: there is no such offer, or two domains have different ones of that name; names
            the nearest.
    """
    if domain is None and name.partition("/")[0] in domain_names() and "/" in name:
        domain = name.partition("/")[0]
    known = offers(kind, domain)
    if name in known:
        return known[name]
    what = kind.removesuffix("s")
    shared = [other for other in known if other.endswith(f"/{name}")]
    if shared and len({known[other][1] for other in shared}) == 1:
        return known[shared[0]]  # one class for all domains, which learns from the data which it is
    hint = f"name its domain: {' or '.join(shared)}" if shared else did_you_mean(name, known)
    raise ConfigError(f"no {what} {name!r}{f' in {domain}' if domain else ''}; {hint}")
