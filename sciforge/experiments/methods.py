"""The methods that experiments on labels compare: networks, pretrained and not, and the domain's
classical baselines.

`pretrained` starts from the checkpoint, `untrained` (the control) from random weights of the same
architecture, `frozen` trains heads on the checkpoint alone, `untrained:PRESET` is another
architecture of the domain. All learn the same records in the same order, and the heads of all
networks start alike.
"""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.data import sampling
from sciforge.core.data.store import Store
from sciforge.core.domain import Domain, Objective
from sciforge.core.files.settings import Settings
from sciforge.core.objective import LabelledRecords
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.evaluation import evaluate
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Freeze, Full, Hardware, LoRA, Run, Schedule, Subset
from sciforge.errors import ConfigError, DivergedError, did_you_mean

NETWORKS = ("pretrained", "untrained", "frozen")
CONTROL = "untrained:"  # prefix of a model preset that is trained from random weights
BATCH = 256  # records in one forward pass of evaluation
Predict = Callable[[Any], dict[str, np.ndarray]]  # records -> outputs, first axis the record


@dataclass(frozen=True)
class Recipe(Settings):
    """How a network learns few labels; gentle by default, since objectives solve their heads before
    the first step.

    Args:
        schedule: steps and learning rate; no early stopping, for the validation split holds more
            labels than allowed.
        finetuning: which weights are trained.
        epochs: train longer than `schedule.steps` where so many passes over the labels need it.
        lrs: peak learning rates to choose among, by the loss on a quarter of the same few labels
            after training on the rest; then all of them are learnt at the one chosen. Empty keeps
            `schedule.lr`.
    """

    schedule: Schedule = Schedule(steps=16, batch=32, lr=2e-4, kind="step", warmup=0.1)
    finetuning: Full | Freeze | LoRA = Full(layer_decay=0.8)
    epochs: float = 2.0
    lrs: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, math.inf, "epochs")
        if self.schedule.evaluate_every:
            raise ConfigError(
                "experiments on few labels have no early stopping, since the validation split holds"
                " more labels; set evaluate_every 0"
            )

    def schedule_for(self, labels: int) -> Schedule:
        """Return the schedule for a number of labels.

        >>> Recipe(Schedule(steps=10, batch=4, kind="step"), epochs=2).schedule_for(100).steps
        50
        """
        needed = math.ceil(self.epochs * labels / self.schedule.batch)
        return replace(self.schedule, steps=max(self.schedule.steps, needed))


# the solved head as it is
PROBE = Recipe(Schedule(steps=1, batch=32, lr=0.0, kind="step"), Freeze(), epochs=0.0)


@dataclass(frozen=True)
class TrainingSet:
    """The labelled records that a method learns.

    Args:
        data: their store, whose training records of the objective are `records`.
        records: all training records.
        labels: how many of them are learnt.
        seed: chooses them, and orders and initialises.
    """

    data: Path
    records: LabelledRecords
    labels: int
    seed: int

    @property
    def places(self) -> np.ndarray:
        """The places of the records learnt, as the loop takes them for `Subset(labels, seed)`;
        subsets are nested.
        """
        return sampling.balanced_subset(self.records.labels(), self.labels, self.seed)


@dataclass(frozen=True)
class Methods:
    """The methods of a domain, opened for one checkpoint and objective.

    Args:
        domain: of the data.
        parent: the pretrained checkpoint.
        objective: what is learnt, resolved.
        recipe: of all networks but the probe, so that they take the same steps and the same search.
        frozen: of the probe.
        hardware: of the networks.
        adapted: method -> function(seed) -> another checkpoint to start from.
    """

    domain: Domain
    parent: Checkpoint
    objective: Objective
    recipe: Recipe
    frozen: Recipe
    hardware: Hardware
    adapted: Mapping[str, Callable[[int], Path]] = field(default_factory=dict)

    @property
    def defaults(self) -> tuple[str, ...]:
        """Every method that is compared where none is named."""
        presets = (
            CONTROL + name
            for name, config in self.domain.models.items()
            if getattr(config, "control", False)
        )
        return (*NETWORKS, *self.adapted, *presets, *self.domain.baselines)

    def kind(self, method: str) -> str:
        """Return `network`, `control` (another untrained architecture) or `baseline`; raises
        ConfigError for no method.
        """
        if method in (*NETWORKS, *self.adapted):
            return "network"
        if method in self.domain.baselines:
            return "baseline"
        presets = [CONTROL + name for name in self.domain.models]
        if method in presets:
            return "control"
        known = (*NETWORKS, *self.adapted, *self.domain.baselines, *presets)
        raise ConfigError(
            f"no method {method!r} in {self.domain.name}; {did_you_mean(method, known)}"
        )

    def fit(
        self, method: str, training: TrainingSet, work: Path, keep: Path | None = None
    ) -> tuple[Predict, dict[str, Any]]:
        """Train or fit one method, and return a function from test records to outputs, and what was
        searched.

        Args:
            method: name.
            training: what it learns.
            work: a scratch folder.
            keep: where to copy the checkpoint of a network, if anywhere.
        """
        if self.kind(method) == "baseline":
            records, baseline = (
                training.records.take(training.places),
                self.domain.baselines[method],
            )
            return lambda test: baseline(self.objective, records, test, training.seed), {}
        recipe = self.frozen if method == "frozen" else self.recipe
        lr, losses = self._search(method, training, recipe, work)
        run = self.run(method, training, recipe, lr, work / "all")
        checkpoint = train(run)
        model = Model.load(checkpoint.path, self.hardware.device, BATCH)
        if keep is not None:
            shutil.copytree(checkpoint.path, keep, dirs_exist_ok=True)
        tried = {
            f"{rate:g}": loss if math.isfinite(loss) else None for rate, loss in losses.items()
        }
        return model.outputs, {"lr": lr, "tried": tried, "steps": run.schedule.steps}

    def run(
        self,
        method: str,
        training: TrainingSet,
        recipe: Recipe,
        lr: float,
        out: Path,
        labels: int | None = None,
    ) -> Run:
        """Return the run of a network on `labels` of the training set, all by default, with the
        steps that all allow.
        """
        start: dict[str, Any] = {"init": self.parent.path}
        if method in self.adapted:
            start = {"init": self.adapted[method](training.seed)}
        elif method == "untrained":
            start = {"model": self.parent.model_config, "codec": self.parent.codec}
        elif method.startswith(CONTROL):
            config = self.domain.models[method.removeprefix(CONTROL)]
            start = {"model": config, "codec": getattr(config, "codec", None)}
        return Run(
            data=training.data,
            out=out,
            objective=self.objective,
            schedule=replace(recipe.schedule_for(training.labels), lr=lr, save_every=0),
            finetuning=(
                recipe.finetuning
                if "init" in start or isinstance(recipe.finetuning, Full)
                else Full()
            ),
            subset=Subset(labels or training.labels, training.seed),
            hardware=self.hardware,
            seed=training.seed,
            **start,
        )

    def _search(
        self, method: str, training: TrainingSet, recipe: Recipe, work: Path
    ) -> tuple[float, dict[float, float]]:
        """Return the learning rate with the least loss on the last quarter of the labels, and
        the loss of each.
        """
        losses: dict[float, float] = {}
        if len(recipe.lrs) > 1:
            part = max(training.labels * 3 // 4, 1)
            for lr in recipe.lrs:
                run = self.run(method, training, recipe, lr, work / f"lr-{lr:g}", part)
                losses[lr] = self._loss(run, training, part)
        return (
            min(losses, key=losses.__getitem__) if losses else (*recipe.lrs, recipe.schedule.lr)[0]
        ), losses

    def _loss(self, run: Run, training: TrainingSet, part: int) -> float:
        """Return the loss on the labels after the first `part`, which the run has not learnt;
        infinite if it diverges.
        """
        try:
            model = Model.load(train(run).path, self.hardware.device, BATCH)
        except DivergedError:  # one learning rate is too large, which is no reason to stop
            return math.inf
        records = training.records.take(training.places[part:])
        options = (records, model.engine, training.seed, BATCH)
        loss = evaluate(model.network, self.objective, model.codec, *options)["loss"]
        return loss if math.isfinite(loss) else math.inf


def training_records(objective: Objective, store: Store) -> LabelledRecords:
    """Return the training records of an objective; raises ConfigError where it does not learn
    whole records.
    """
    records = objective.examples(store, "train")
    if not isinstance(records, LabelledRecords):
        kind = type(objective).__name__
        raise ConfigError(f"{kind} does not learn whole records; choose an objective of labels")
    return records


def resolve_objective(objective: Any, store: Store, parent: Checkpoint) -> Objective:
    """Return an objective by name or as given, or that of the domain's first recipe, with what it
    takes from the store.

    Raises:
        ConfigError: there is no such objective, or none is given and the domain has no recipe.
    """
    domain = parent.domain
    if objective is None:
        recipes = domain.inputs.recipes if domain.inputs else {}
        if not recipes:
            raise ConfigError(
                f"the domain {domain.name} recommends no objective; give one of"
                f" {', '.join(domain.objectives)}"
            )
        objective = next(iter(recipes.values())).settings(store, parent)["objective"]
    return domain.objective(objective).resolve(store)


def open_parent(init: Path, domain: str, data: Path) -> Checkpoint:
    """Open the checkpoint to start from; raises ConfigError where it is of another domain than
    the data.
    """
    parent = Checkpoint.open(init)
    if parent.body["domain"] != domain:
        raise ConfigError(f"{init} is of the domain {parent.body['domain']}, {data} of {domain}")
    return parent
