"""A run in progress: what `Run` names, opened and placed; how it is saved, and taken up again."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciforge.core.data import sampling
from sciforge.core.data.batches import ExampleSource, StepData
from sciforge.core.data.store import Store, describe_store
from sciforge.core.domain import Domain, Objective, Record, get_domain, seeded_model
from sciforge.core.files.atomic import remove, sweep, try_lock
from sciforge.core.methods import finetuning, regularization
from sciforge.core.methods.distillation import with_teacher
from sciforge.core.methods.dp_sgd import Mechanism, check_codec, check_records, nothing_learnt
from sciforge.core.methods.ema import ExponentialMovingAverage
from sciforge.core.methods.pruning import PruningMask
from sciforge.core.methods.retention import old_data, retained
from sciforge.core.training import checkpoint
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.run import EWC, Full, Run, to_json
from sciforge.errors import CheckpointError, ConfigError


@contextmanager
def own_folder(out: Path, engine: Engine, resume: bool) -> Iterator[None]:
    """Lock `out` against a second run and refuse to mix two runs in it."""
    lock, problem = None, None
    if engine.main:
        try:
            out.mkdir(parents=True, exist_ok=True)
            if (lock := try_lock(out)) is None:
                problem = f"{out}: another process is training here; wait for it or choose another --out"
            elif not os.access(out, os.W_OK):
                problem = f"{out}: no permission to write here; choose another --out"
            else:
                sweep(out)
                if not resume and any(out.iterdir()):
                    problem = f"{out}: not empty; add --resume to continue that run, or choose another --out"
        except OSError as error:
            problem = f"{out}: {error.strerror}; choose another --out"
    try:
        if problem := engine.agree(problem):
            raise ConfigError(problem)
        yield
    finally:
        if lock is not None:
            os.close(lock)


RAW = "raw.safetensors"  # the weights of the last step, where the checkpoint's own are their average


@dataclass
class EarlyStopping:
    """What the validation split has shown so far; early stopping restores the best weights.

    Args:
        metrics: metrics of the last evaluation.
        best: the best value of the objective's metric (larger is better), its step and metrics, and the number of
            evaluations since.
        state: the model's state at the best step, kept only for early stopping.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=lambda: {"value": None, "step": None, "bad": 0})
    state: dict[str, Tensor] | None = None


@dataclass
class TrainingState:
    """A run in progress."""

    run: Run
    engine: Engine
    domain: Domain
    store: Store
    parent: Checkpoint | None
    codec: Any
    model_config: Any
    objectives: tuple[Objective, ...]
    model: nn.Module
    call: Any  # the model, compiled if asked for
    data: StepData
    validation: Sequence[Record]
    optimizer: torch.optim.Optimizer
    groups: list[finetuning.Group]
    anchor: regularization.QuadraticPenalty | None
    average: ExponentialMovingAverage | None
    watch: EarlyStopping
    notes: dict[str, Any]  # what the objective found before the first step
    private: Mechanism | None
    zeros: PruningMask | None

    @classmethod
    def set_up(cls, run: Run, engine: Engine) -> "TrainingState":
        """Open data and parent, build and place the model, the optimiser and the anchor."""
        store = Store.open(run.data)
        domain = get_domain(store.domain)
        if engine.shard and not domain.shardable:
            raise ConfigError(f"models of {domain.name} cannot be sharded (double backward); use --strategy replicate")
        parent = None if run.init is None else Checkpoint.open(run.init)
        codec, config = _codec_and_config(run, domain, store, parent)
        streams = _streams(run, domain, store, parent, engine)
        check_records(run, streams[0].records, store, parent)
        objectives = tuple(stream.objective for stream in streams)
        validation = objectives[0].examples(store, "validation")
        if run.schedule.evaluate_every and not len(validation):
            raise ConfigError(
                f"{run.data} has no validation records; set schedule.evaluate_every 0 or prepare a validation split"
            )
        model = seeded_model(config, codec, objectives, run.seed)
        fresh = _load_parent(model, objectives, parent, run)
        whole = replace(engine, precision="float32", rank=0, world=1, tensor=1)
        with nothing_learnt(model, run):
            notes = objectives[0].start(model.to(engine.device), codec, streams[0].records, whole, run.seed, parent)
        notes = None if run.dp_sgd else notes  # they may tell of the records
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            finetuning.apply(model, run.finetuning, fresh)
        _set_checkpointing(model, run)
        engine.place(model)
        groups = finetuning.groups(model, run.finetuning, fresh, run.schedule)
        options = [{"params": g.parameters, "lr": 0.0, "weight_decay": g.decay} for g in groups]
        way = {"foreach": True} if engine.splits else {"fused": True}
        optimizer = torch.optim.AdamW(options, betas=run.schedule.betas, **way)
        call = _compiled(model) if run.hardware.compile else model
        streams, read_by = with_teacher(run, streams, codec, engine)
        private = Mechanism.of(run, len(streams[0].records)) if run.dp_sgd else None
        size, chance = (1, (private.rate, private.seed)) if private else (run.hardware.micro_batch, None)
        data = StepData(streams, read_by, run.seed, engine.part, engine.parts, size, chance)
        pull = None if run.regularization is None else _anchor(run, model, fresh, parent, engine)
        return cls(run, engine, domain, store, parent, codec, config, objectives, model, call, data, validation, optimizer,
                   groups, pull, _average(run, groups), EarlyStopping(), dict(notes or {}), private,
                   PruningMask.of(run, model, fresh))  # fmt: skip

    def averaged(self) -> AbstractContextManager:
        """Return the context in which the model holds the weights to evaluate and save."""
        return self.average.in_place() if self.average else nullcontext()

    def save(self, path: Path, step: int, resume: bool) -> None:
        """Write a checkpoint and remove the older ones of this run."""
        raw = self.engine.full_state(self.model)
        with self.averaged():
            state = self.engine.full_state(self.model)
        extra = self._resume_state(raw) if resume else None
        beside = {RAW: finetuning.merged_state(self.model, raw)} if self.average and not resume else {}
        if self.engine.main:
            place = str(self.engine.device), self.engine.world
            checkpoint.save(
                path,
                domain=self.domain.name,
                run=replace(self.run, objective=self.objectives[0]),
                codec=self.codec,
                model_config=self.model_config,
                objectives=self.objectives,
                weights=finetuning.merged_state(self.model, state),
                step=step,
                metrics={**self.watch.metrics, **({"privacy": self.private.told()} if self.private else {})},
                provenance=checkpoint.provenance(self.run, *place, self.store.digests(), self.run.init)
                | ({} if resume else {"store": describe_store(self.store)}),
                tensors={**beside, **({checkpoint.RESUME: extra} if extra else {})},
                loop={"best": self.watch.best, "start": self.notes},
            )
            for old in self.run.out.glob("step-*"):
                if old != path:
                    (old / "checkpoint.json").unlink(missing_ok=True)  # first: a crash leaves no half checkpoint
                    remove(old)
        self.engine.barrier()

    def _resume_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {f"model.{name}": tensor for name, tensor in state.items()}
        for name, parameter in self._parameters():
            for key, value in self.optimizer.state[parameter].items():
                found[f"optimizer.{name}|{key}"] = self.engine.full(value)
        if self.average:
            found |= {f"average.{name}": self.engine.full(value) for name, value in self.average.values.items()}
        return found | {f"best.{name}": tensor for name, tensor in (self.watch.state or {}).items()}

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for group in self.groups:
            yield from zip(group.names, group.parameters, strict=True)

    def restore(self) -> int | None:
        """Load the newest checkpoint of `run.out` and return its step; 0 where there is none, None if finished.

        Raises:
            ConfigError: that checkpoint is of another run.
            CheckpointError: it is damaged.
        """
        if not any(self.run.out.glob("*/checkpoint.json")):
            return 0
        last = Checkpoint.open(self.run.out)
        if other := self._other_settings(last):
            raise ConfigError(
                f"{self.run.out} holds a run with another {other[0]}; resume it as it was, or choose another --out"
            )
        if last.path.name == "final":
            return None
        self.take_up(last)
        return last.step

    def take_up(self, last: Checkpoint) -> None:
        """Load weights, optimiser and what the validation split has shown from a checkpoint with resume state."""
        state: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}, "average": {}}
        for name, tensor in last.weights(checkpoint.RESUME).items():
            kind, _, rest = name.partition(".")
            state[kind][rest] = tensor
        self.engine.load_state(self.model, state["model"])
        self.watch = EarlyStopping(last.metrics, dict(last.body["loop"]["best"]), state["best"] or None)
        parameters = dict(self._parameters())
        for name, value in state["average"].items():
            self.average.values[name] = self.engine.like(parameters[name], value)
        for name, value in state["optimizer"].items():
            name, key = name.rsplit("|", 1)
            if key != "step":
                value = self.engine.like(parameters[name], value)
            elif not self.engine.splits:  # the fused optimiser counts on the device
                value = value.to(self.engine.device)
            self.optimizer.state[parameters[name]][key] = value

    def _other_settings(self, last: Checkpoint) -> list[str]:
        """Return which settings of the checkpoint's run differ from this one's; places, processes and hardware may."""
        mine, theirs = to_json(replace(self.run, objective=self.objectives[0])), to_json(last.run)
        free = {"data", "out", "init", "model", "codec", "strategy", "hardware"}
        other = [name for name in mine.keys() - free if mine[name] != theirs[name]]
        about = checkpoint.provenance(self.run, "", 1, self.store.digests(), self.run.init)
        checks = {
            "data": last.provenance.get("data") == about["data"],
            "init": mine["init"] == theirs["init"] or last.provenance.get("parent") == about["parent"],
            "model": last.model_config == self.model_config,
            "codec": last.codec == self.codec,
        }
        return sorted(other) + [name for name, same in checks.items() if not same]

    def finish(self) -> Checkpoint:
        """Restore the best weights if early stopping watched, write `final`, and drop the steps before it."""
        step = self.run.schedule.steps
        if self.watch.state is not None:
            self.engine.load_state(self.model, self.watch.state)
            self.average = None
            step, self.watch.metrics = self.watch.best["step"], self.watch.best["metrics"]
        self.model.eval()
        if self.zeros:
            self.watch.metrics = {**self.watch.metrics, **self.zeros.metrics(dict(self.model.named_parameters()))}
        if self.parent and (data := old_data(self.run)):
            with self.averaged():
                weights = finetuning.merged_state(self.model, self.engine.full_state(self.model))
            self.watch.metrics = {**self.watch.metrics, "retained": retained(self.parent, weights, data, self.engine)}
        self.save(self.run.out / "final", step, resume=False)
        return Checkpoint.open(self.run.out / "final")


def _codec_and_config(run: Run, domain: Domain, store: Store, parent: Checkpoint | None) -> tuple[Any, Any]:
    if parent is None:
        config = domain.model(run.model) if isinstance(run.model, str) else run.model
        given = domain.codec if run.codec is None else run.codec
        fitted = given.fit(store)
        check_codec(given, fitted, run)
        return fitted, config
    if parent.body["domain"] != domain.name:
        raise ConfigError(f"{run.init} is of the domain {parent.body['domain']}, {run.data} of {domain.name}")
    if run.codec not in (None, parent.codec):
        raise ConfigError(f"codec {run.codec} is not that of {run.init} ({parent.codec}); leave it out")
    return parent.codec, parent.model_config


def _streams(
    run: Run, domain: Domain, store: Store, parent: Checkpoint | None, engine: Engine
) -> tuple[ExampleSource, ...]:
    objective = domain.objective(run.objective).resolve(store)
    records = objective.examples(store, "train")
    if run.subset:
        records = _subset(run, records)
    streams = (ExampleSource(objective, records, run.schedule.batch),)
    if run.replay:
        new_size, old_size = sampling.replay_sizes(run.schedule.batch, run.replay.share)
        old = parent.objectives[0]
        old_records = old.examples(Store.open(run.replay.data), "train")
        streams = ExampleSource(objective, records, new_size), ExampleSource(old, old_records, old_size)
    for stream in streams:
        if not len(stream.records):
            raise ConfigError(
                f"{run.data}: no training records for {type(stream.objective).__name__}; prepare another split"
            )
        if engine.shard and stream.batch % engine.world:
            raise ConfigError(f"under shard {engine.world} processes share {stream.batch} examples; make it a multiple")
    return streams


def _subset(run: Run, records: Any) -> Any:
    if not hasattr(records, "take"):
        raise ConfigError(f"subset chooses labelled records; {run.data} holds none for this objective: leave it out")
    if run.subset.count > len(records):
        raise ConfigError(f"subset.count is {run.subset.count}; {run.data} has {len(records)} training records")
    return records.take(sampling.balanced_subset(records.labels(), run.subset.count, run.subset.seed))


def _average(run: Run, groups: Sequence[finetuning.Group]) -> ExponentialMovingAverage | None:
    moving = {name: p for group in groups for name, p in zip(group.names, group.parameters, strict=True)}
    return ExponentialMovingAverage(moving, run.schedule.ema_decay) if run.schedule.ema_decay else None


def _compiled(model: nn.Module) -> Any:
    """Compile a model, its own way where it has one: torch.compile cannot differentiate twice."""
    return model.compiled() if hasattr(model, "compiled") else torch.compile(model)


def _load_parent(model: nn.Module, objectives: tuple[Objective, ...], parent: Checkpoint | None, run: Run) -> set[str]:
    """Copy what the parent knows and return the names of the parameters that stay fresh.

    The heads an objective calls `fresh` are taken over only when the parent learnt the very same objective. Without a
    parent all are fresh; only a run that freezes weights then takes the random trunk for given.
    """
    names = {name for name, _ in model.named_parameters()}
    if parent is None:
        return (
            names if isinstance(run.finetuning, Full) else {name for name in names if name.startswith(finetuning.HEADS)}
        )
    own = model.state_dict()
    new = tuple(f"{finetuning.HEADS}{head}." for o in objectives if o not in parent.objectives for head in o.fresh)
    usable = {
        name: tensor
        for name, tensor in parent.weights().items()
        if name in own and own[name].shape == tensor.shape and not name.startswith(new)
    }
    model.load_state_dict(usable, strict=False)
    if stray := sorted(name for name in set(own) - set(usable) if not name.startswith(finetuning.HEADS)):
        raise CheckpointError(f"{parent.path}: no weight {stray[0]!r}; the checkpoint is of another model")
    return names - set(usable)


def _set_checkpointing(model: nn.Module, run: Run) -> None:
    if run.hardware.checkpointing:
        bricks = [module for module in model.modules() if hasattr(module, "checkpointing")]
        if not bricks:
            raise ConfigError("this model has no stack of blocks to checkpoint; leave hardware.checkpointing off")
        for brick in bricks:
            brick.checkpointing = True


def _anchor(
    run: Run, model: nn.Module, fresh: set[str], parent: Checkpoint, engine: Engine
) -> regularization.QuadraticPenalty:
    kind, fisher = run.regularization, None
    if isinstance(kind, EWC):
        name = f"fisher-{kind.estimator}.safetensors"
        if name in parent.body["files"]:
            fisher = parent.weights(name)
        elif kind.data is None:
            raise ConfigError(
                f"{run.init} holds no {kind.estimator} Fisher; run `sciforge fisher` or give regularization.data"
            )
        else:
            fisher = parent_fisher(parent, kind, engine, run.seed)
    centre = {name: tensor for name, tensor in parent.weights().items() if name not in fresh}
    return regularization.build(kind, model, centre, fisher, engine)


def parent_fisher(parent: Checkpoint, kind: EWC, engine: Engine, seed: int) -> dict[str, Tensor]:
    """Estimate the Fisher information of a checkpoint's first objective on the data it was trained for."""
    model = parent.build().to(engine.device)
    objective = parent.objectives[0]
    records = objective.examples(Store.open(kind.data), "train")
    options = {"estimator": kind.estimator, "examples": kind.examples, "seed": seed}
    return regularization.fisher_information(model, objective, parent.codec, records, **options)
