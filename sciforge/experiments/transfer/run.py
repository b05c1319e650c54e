"""Transfer between sources of data: train on each, test on every other, and leave one out.

Seeds are paired: for one (source, seed) every method learns the same records in the same order. The
objective takes its classes and scales from the records it is trained on.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.data.store import SPLITS, Store
from sciforge.core.domain import Objective, get_domain
from sciforge.core.files.atomic import sha256
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import to_json
from sciforge.errors import ConfigError
from sciforge.experiments.grid import Grid, Row, open_folder, scratch
from sciforge.experiments.held_out import HeldOut
from sciforge.experiments.methods import (
    Methods,
    TrainingSet,
    open_parent,
    resolve_objective,
    training_records,
)
from sciforge.experiments.statistics import higher_is_better, require_direction
from sciforge.experiments.subsets import write_store
from sciforge.experiments.transfer.result import TransferResult, TransferScore
from sciforge.experiments.transfer.spec import Transfer

HELD_OUT = ("test", "validation")  # splits that no method learns


def measure(spec: Transfer) -> TransferResult:
    """Run what is not yet done and return all of it.

    Raises:
        ConfigError: stores of other domains or classes, too few labels, an unknown method or
            metric, or `spec.out` holds results of other settings.
        CheckpointError, DataError: the checkpoint or a store is missing or damaged.
    """
    with open_folder(spec.out) as folder, scratch(folder) as work:
        run = TransferRun.open(spec, work)
        grid = Grid.open(folder, ("method", "source", "seed"), run.settings(), "a transfer matrix")
        trained_on = [*run.sources, *(name_without(name) for name in run.sources)]
        cells = [
            (m, source, seed)
            for source in trained_on
            for seed in range(spec.seeds)
            for m in run.names
        ]
        rows = grid.run(cells, run.run, "transfer")
        scores = tuple(score for row in rows for score in TransferScore.from_json(row))
        direction = require_direction(run.higher_is_better, run.metric)
        kinds = {name: run.methods(run.objective).kind(name) for name in run.names}
        return TransferResult(scores, run.metric, direction, kinds, tuple(run.sources)).keep(
            folder, spec.out is None, {"spec": to_json(spec)}
        )


def name_without(source: str) -> str:
    """Return how the training set of all sources but one is called in the results log.

    >>> name_without("yeast")
    'all but yeast'
    """
    return f"all but {source}"


@dataclass(frozen=True)
class TransferRun:
    """The sources of an experiment, opened once.

    Args:
        spec: what was asked for.
        work: a scratch folder, for stores of several sources.
        parent: the pretrained checkpoint.
        sources: name -> its store, and
        training: the same with the stores of all sources but one.
        objective: resolved on the first source, for its metric.
    """

    spec: Transfer
    work: Path
    parent: Checkpoint
    sources: Mapping[str, Store]
    training: Mapping[str, Store]
    objective: Objective

    @classmethod
    def open(cls, spec: Transfer, work: Path) -> "TransferRun":
        """Open what is named, and check it before any training."""
        sources = open_sources(spec, work)
        first = next(iter(sources.values()))
        parent = open_parent(spec.init, first.domain, first.path)
        resolved = {
            name: resolve_objective(spec.objective, store, parent)
            for name, store in sources.items()
        }
        _check_same(sources, resolved)
        training = dict(sources)
        for name in sources:
            others = (store.split("train") for other, store in sources.items() if other != name)
            path = work / f"without-{len(training)}"
            training[name_without(name)] = write_store(
                path, {"train": chain.from_iterable(others)}, first
            )
        run = cls(spec, work, parent, sources, training, next(iter(resolved.values())))
        for method in run.names:
            run.methods(run.objective).kind(method)
        for name, store in sources.items():
            if (count := len(training_records(resolved[name], store))) < max(spec.labels, 1):
                raise ConfigError(
                    f"{name} has {count} training labels; labels asks for {spec.labels or 'all'}"
                )
        return run

    @property
    def names(self) -> tuple[str, ...]:
        """The methods asked for; by default every one."""
        return self.spec.methods or self.methods(self.objective).defaults

    @property
    def metric(self) -> str:
        """The metric compared."""
        return self.spec.metric or self.objective.metric

    @property
    def higher_is_better(self) -> bool | None:
        """The direction of the metric; None where it is unknown."""
        return higher_is_better(self.objective, self.metric, self.spec.higher_is_better)

    def methods(self, objective: Objective) -> Methods:
        """Return the methods for an objective, resolved on its training set."""
        spec, domain = self.spec, get_domain(self.parent.body["domain"])
        return Methods(domain, self.parent, objective, spec.recipe, spec.frozen, spec.hardware)

    def settings(self) -> dict[str, Any]:
        """Return what must not change between two calls; seeds and methods may grow."""
        body = to_json(self.spec)
        about = {name: body[name] for name in ("groups", "labels", "recipe", "frozen")}
        about |= {
            "objective": to_json(self.objective),
            "metric": self.metric,
            "init": sha256(self.parent.path / "checkpoint.json"),
        }
        return {**about, "data": {name: store.digests() for name, store in self.sources.items()}}

    def targets(self, source: str) -> list[str]:
        """Return the sources that a training set is tested on."""
        left_out = [name for name in self.sources if name_without(name) == source]
        return left_out or list(self.sources)

    def run(self, method: str, source: str, seed: int) -> Row:
        """Train or fit one method on one training set and evaluate it on its targets."""
        start, store = time.monotonic(), self.training[source]
        objective = resolve_objective(self.spec.objective, store, self.parent)
        records = training_records(objective, store)
        training = TrainingSet(store.path, records, self.spec.labels or len(records), seed)
        targets = {}
        with scratch(self.work) as work:
            predict, about = self.methods(objective).fit(method, training, work)
            for target in self.targets(source):
                splits = HELD_OUT if target == source else (*HELD_OUT, "train")
                store = self.sources[target]
                if target == source and not any(
                    len(objective.examples(store, split)) for split in splits
                ):
                    continue  # trained on all of it
                options = self.spec.metric, self.spec.higher_is_better
                held_out = HeldOut.of(store, objective, splits, *options)
                require_direction(held_out.higher_is_better, held_out.metric)
                scores = held_out.evaluate_outputs(predict(held_out.records))
                targets[target] = {
                    **vars(scores),
                    "split": held_out.split,
                    "records": len(held_out.records),
                }
        return {
            "labels": training.labels,
            "targets": targets,
            "seconds": time.monotonic() - start,
            "about": about,
        }


def open_sources(spec: Transfer, work: Path) -> dict[str, Store]:
    """Return name -> store of each source; groups of one store are written as stores of their
    own.
    """
    stores = [Store.open(path) for path in spec.data]
    if not spec.groups:
        names = [path.name for path in spec.data]
        names = names if len(set(names)) == len(names) else [str(path) for path in spec.data]
        return dict(zip(names, stores, strict=True))
    (store,) = stores
    group_N = np.asarray([str(value) for value in store.column(spec.groups)])
    groups = np.unique(group_N)
    if len(groups) < 2:
        raise ConfigError(
            f"{store.path}: {spec.groups!r} has one value, {groups[0]!r}; transfer needs two groups"
            " or more"
        )
    sources = {}
    for number, group in enumerate(groups):
        splits = {}
        for split in SPLITS:
            rows = store.split(split)
            splits[split] = rows.take(np.flatnonzero(group_N[rows.indices] == group))
        sources[str(group)] = write_store(work / f"group-{number}", splits, store)
    return sources


def _check_same(sources: Mapping[str, Store], resolved: Mapping[str, Objective]) -> None:
    """Raise ConfigError where sources are of other domains or kinds, or learn other classes or
    tasks.
    """
    (first, store), *others = sources.items()
    for name, other in others:
        if (other.domain, other.kind) != (store.domain, store.kind):
            raise ConfigError(
                f"{name} is a store of {other.domain} {other.kind}, {first} of {store.domain}"
                f" {store.kind}"
            )
        for field in ("classes", "tasks"):
            one, two = (getattr(resolved[key], field, None) for key in (first, name))
            if one != two:
                raise ConfigError(
                    f"{name} has the {field} {two}, {first} {one}; prepare them with the same"
                )
