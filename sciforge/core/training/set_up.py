"""How a run begins: what `Run` names is opened, checked, built and placed."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciforge.core.data import sampling
from sciforge.core.data.batches import ExampleSource, StepData
from sciforge.core.data.store import Store
from sciforge.core.domain import (
    Codec,
    Domain,
    LabelledRecords,
    ModelConfig,
    Objective,
    Records,
    get_domain,
    seeded_model,
)
from sciforge.core.files.atomic import disk_error, sha256, sweep, try_lock
from sciforge.core.methods import dp_sgd, finetuning, fisher, regularization
from sciforge.core.methods.distillation import with_teacher
from sciforge.core.methods.ema import ExponentialMovingAverage
from sciforge.core.methods.method import Method
from sciforge.core.methods.pruning import PruningMask
from sciforge.core.methods.retention import Retention, old_data
from sciforge.core.training.agreement import digest, weights_digest
from sciforge.core.training.checkpoint import Checkpoint, resolve
from sciforge.core.training.distributed import Engine
from sciforge.core.training.gradient import mean_gradient
from sciforge.core.training.run import EWC, Full, Run
from sciforge.core.training.training_state import TrainingState
from sciforge.errors import CheckpointError, ConfigError

LOGGER = logging.getLogger("sciforge")
# examples of a step that are always possible; repeats of a record in one step
MANY, MANY_EPOCHS = 2**20, 100


@contextmanager
def own_folder(out: Path, engine: Engine, resume: bool) -> Iterator[None]:
    """Lock `out` against a second run and refuse to mix two runs in it."""
    lock, problem = None, None
    if engine.main:
        try:
            out.mkdir(parents=True, exist_ok=True)
            if (lock := try_lock(out)) is None:
                problem = (
                    f"{out}: another process is training here; wait for it or choose another --out"
                )
            elif not os.access(out, os.W_OK):
                problem = f"{out}: no permission to write here; choose another --out"
            else:
                sweep(out)
                if not resume and any(out.iterdir()):
                    problem = (
                        f"{out}: not empty; add --resume to continue that run, or choose another"
                        " --out"
                    )
        except OSError as error:
            problem = str(disk_error(error, out))
    try:
        if problem := engine.agree(problem):
            raise ConfigError(problem)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def set_up(run: Run, engine: Engine) -> TrainingState:
    """Open data and parent, build and place the model, the optimiser and the methods of a run.

    Raises:
        ConfigError: settings that contradict each other, the data or the parent.
        DataError, CheckpointError: the data or the parent is missing or damaged.
    """
    store, parent = engine.in_turn(lambda: _opened(run))
    engine.compare(_digests(run, store) if engine.world > 1 else {})
    domain = get_domain(store.domain)
    if engine.shard and not domain.shardable:
        raise ConfigError(
            f"models of {domain.name} cannot be sharded (double backward); use --strategy replicate"
        )
    codec, config = _codec_and_config(run, domain, store, parent)
    sources = _sources(run, domain, store, parent, engine)
    dp_sgd.check_records(run, sources[0].records, store, parent)
    objectives = tuple(source.objective for source in sources)
    validation = _validation_records(run, objectives[0], store)
    model = seeded_model(config, codec, objectives, run.seed)
    fresh = _load_parent(model, objectives, parent, run)
    notes = _start(run, engine, model, codec, sources[0], parent)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        finetuning.apply(model, run.finetuning, fresh)
    _set_checkpointing(model, run)
    engine.compare({"weights": weights_digest(model.state_dict())} if engine.world > 1 else {})
    engine.place(model)
    groups = finetuning.groups(model, run.finetuning, fresh, run.schedule.weight_decay)
    optimizer = _optimizer(run, engine, groups)
    trained = sum(p.numel() for group in groups for p in group.parameters)
    LOGGER.debug("%s: %d parameters, %d of them train", run.out, _size(model), trained)
    call = _compiled(model) if run.hardware.compile else model
    batch_codec: Any = codec
    if run.teacher:
        teacher = Checkpoint.open(run.teacher.checkpoint)
        taught, batch_codec = with_teacher(sources[0], codec, run.teacher, teacher, engine)
        sources = (taught,)
    mechanism = (
        dp_sgd.Mechanism.of(run.dp_sgd, run, len(sources[0].records)) if run.dp_sgd else None
    )
    size, poisson = (
        (1, (mechanism.rate, mechanism.seed)) if mechanism else (run.hardware.micro_batch, None)
    )
    data = StepData(sources, batch_codec, run.seed, engine.part, engine.parts, size, poisson)
    gradient = mechanism.gradient if mechanism else mean_gradient
    state = TrainingState(
        run,
        engine,
        domain,
        store,
        parent,
        codec,
        config,
        objectives,
        model,
        call,
        data,
        validation,
        optimizer,
        groups,
        gradient,
        start_notes=notes,
    )
    state.methods = tuple(_methods(state, fresh, mechanism))
    return state


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _opened(run: Run) -> tuple[Store, Checkpoint | None]:
    return Store.open(run.data), None if run.init is None else Checkpoint.open(run.init)


def _digests(run: Run, store: Store) -> dict[str, dict[str, str]]:
    """Return one digest each of all data and of all checkpoints that a run names, for comparison
    over processes.
    """
    regularization = run.regularization.data if isinstance(run.regularization, EWC) else None
    places = [run.replay and run.replay.data, regularization, run.retention]
    digests = [
        store.digests(),
        *(Store.open(place, verify=False).digests() for place in places if place),
    ]
    parents = [run.init, run.teacher and run.teacher.checkpoint]
    opened = [sha256(resolve(place) / "checkpoint.json") for place in parents if place]
    return {"data": digest({"stores": digests}), "parent": digest({"checkpoints": opened})}


def _methods(
    state: TrainingState, fresh: set[str], mechanism: dp_sgd.Mechanism | None
) -> Iterator[Method]:
    """Yield the methods of a run in the order in which the loop calls them."""
    run, decay = state.run, state.run.schedule.ema_decay
    average = ExponentialMovingAverage(state.parameters, decay) if decay else None
    if run.regularization and state.parent:
        yield _regularization(run, state.model, fresh, state.parent, state.engine)
    if run.pruning:
        yield PruningMask.of(
            run.pruning, run, state.model, fresh, average.values if average else {}
        )
    if average:
        yield average
    if mechanism:
        yield mechanism
    if state.parent and (data := old_data(run)):
        yield Retention(state.parent, data)


def _codec_and_config(
    run: Run, domain: Domain, store: Store, parent: Checkpoint | None
) -> tuple[Codec, ModelConfig]:
    if parent is None:
        config = domain.model(run.model) if isinstance(run.model, str) else run.model
        given = domain.codec if run.codec is None else run.codec
        fitted = given.fit(store)
        dp_sgd.check_codec(given, fitted, run)
        return fitted, config
    if parent.body["domain"] != domain.name:
        raise ConfigError(
            f"{run.init} is of the domain {parent.body['domain']}, {run.data} of {domain.name}"
        )
    if run.codec not in (None, parent.codec):
        raise ConfigError(
            f"codec {run.codec} is not that of {run.init} ({parent.codec}); leave it out"
        )
    return parent.codec, parent.model_config


def _sources(
    run: Run, domain: Domain, store: Store, parent: Checkpoint | None, engine: Engine
) -> tuple[ExampleSource, ...]:
    """Return the training examples, and the replayed ones beside them."""
    objective = domain.objective(run.objective).resolve(store)
    records = objective.examples(store, "train")
    if run.subset:
        records = _subset(run, records, run.subset.count, run.subset.seed)
    sources: tuple[ExampleSource, ...] = (ExampleSource(objective, records, run.schedule.batch),)
    if run.replay and parent:
        new_size, old_size = sampling.replay_sizes(run.schedule.batch, run.replay.share)
        old = parent.objectives[0]
        old_records = old.examples(Store.open(run.replay.data), "train")
        sources = (
            ExampleSource(objective, records, new_size),
            ExampleSource(old, old_records, old_size),
        )
    for source in sources:
        if not len(source.records):
            kind = type(source.objective).__name__
            raise ConfigError(f"{run.data}: no training records for {kind}; prepare another split")
        if source.batch > max(MANY, MANY_EPOCHS * len(source.records)):
            raise ConfigError(
                f"schedule.batch is {run.schedule.batch}; {run.data} has {len(source.records)}"
                f" training records, a step may hold each {MANY_EPOCHS} times at most: make it"
                " smaller"
            )
        if engine.shard and source.batch % engine.world:
            raise ConfigError(
                f"under shard {engine.world} processes share {source.batch} examples; make it a"
                " multiple"
            )
    return sources


def _subset(run: Run, records: Records, count: int, seed: int) -> Records:
    if not isinstance(records, LabelledRecords):
        raise ConfigError(
            f"subset chooses labelled records; {run.data} holds none for this objective: leave"
            " it out"
        )
    if count > len(records):
        raise ConfigError(
            f"subset.count is {count}; {run.data} has {len(records)} training records"
        )
    return records.take(sampling.balanced_subset(records.labels(), count, seed))


def _validation_records(run: Run, objective: Objective, store: Store) -> Records:
    records = objective.examples(store, "validation")
    if run.schedule.evaluate_every and not len(records):
        raise ConfigError(
            f"{run.data} has no validation records; set schedule.evaluate_every 0 or prepare a"
            " validation split"
        )
    return records


def _start(
    run: Run,
    engine: Engine,
    model: nn.Module,
    codec: Codec,
    source: ExampleSource,
    parent: Checkpoint | None,
) -> dict[str, Any]:
    """Let the objective set parts of the model from the training records; return its notes."""
    single = replace(engine, precision="float32", rank=0, world=1, tensor=1)
    with dp_sgd.nothing_learnt(model, run):
        model.to(engine.device)
        notes = source.objective.start(model, codec, source.records, single, run.seed, parent)
    return {} if run.dp_sgd else dict(notes or {})  # under DP-SGD they could reveal records


def _load_parent(
    model: nn.Module, objectives: tuple[Objective, ...], parent: Checkpoint | None, run: Run
) -> set[str]:
    """Copy what the parent knows and return the names of the parameters that stay fresh.

    The heads an objective calls `fresh` are taken over only when the parent learnt the very same
    objective. Without a parent all are fresh; only a run that freezes weights then takes the random
    backbone for given.
    """
    names = {name for name, _ in model.named_parameters()}
    if parent is None:
        full = isinstance(run.finetuning, Full)
        return names if full else {name for name in names if name.startswith(finetuning.HEADS)}
    state = model.state_dict()
    new = tuple(
        f"{finetuning.HEADS}{head}."
        for o in objectives
        if o not in parent.objectives
        for head in o.fresh
    )
    usable = {
        name: tensor
        for name, tensor in parent.weights().items()
        if name in state and state[name].shape == tensor.shape and not name.startswith(new)
    }
    model.load_state_dict(usable, strict=False)
    if missing := sorted(
        name for name in set(state) - set(usable) if not name.startswith(finetuning.HEADS)
    ):
        raise CheckpointError(
            f"{parent.path}: no weight {missing[0]!r}; the checkpoint is of another model"
        )
    return names - set(usable)


def _set_checkpointing(model: nn.Module, run: Run) -> None:
    if run.hardware.checkpointing:
        stacks: list[Any] = [
            module for module in model.modules() if hasattr(module, "checkpointing")
        ]
        if not stacks:
            raise ConfigError(
                "this model has no stack of blocks to checkpoint; leave hardware.checkpointing off"
            )
        for stack in stacks:
            stack.checkpointing = True


def _optimizer(
    run: Run, engine: Engine, groups: Sequence[finetuning.Group]
) -> torch.optim.Optimizer:
    options: list[dict[str, Any]] = [
        {"params": g.parameters, "lr": 0.0, "weight_decay": g.decay} for g in groups
    ]
    # the fused kernel takes no split weights
    return torch.optim.AdamW(
        options, betas=run.schedule.betas, foreach=engine.splits, fused=not engine.splits
    )


def _compiled(model: nn.Module) -> Any:
    """Compile a model, its own way where it has one: torch.compile cannot differentiate twice."""
    compiled = getattr(model, "compiled", None)
    return compiled() if compiled else torch.compile(model)


def _regularization(
    run: Run, model: nn.Module, fresh: set[str], parent: Checkpoint, engine: Engine
) -> regularization.QuadraticPenalty:
    kind, precision = run.regularization, None
    assert kind is not None
    if isinstance(kind, EWC):
        name = f"fisher-{kind.estimator}.safetensors"
        if name in parent.body["files"]:
            precision = parent.weights(name)
        elif kind.data is None:
            raise ConfigError(
                f"{run.init} holds no {kind.estimator} Fisher; run `sciforge fisher` or give"
                " regularization.data"
            )
        else:
            precision = _parent_fisher(parent, kind, kind.data, engine, run.seed)
    centre = {name: tensor for name, tensor in parent.weights().items() if name not in fresh}
    return regularization.build(kind, model, centre, precision, engine)


def _parent_fisher(
    parent: Checkpoint, kind: EWC, data: Path, engine: Engine, seed: int
) -> dict[str, Tensor]:
    """Estimate the Fisher information of a checkpoint's first objective on the data it was
    trained for.
    """
    model = parent.build().to(engine.device)
    objective = parent.objectives[0]
    records = objective.examples(Store.open(data), "train")
    return fisher.fisher_information(
        model,
        objective,
        parent.codec,
        records,
        estimator=kind.estimator,
        examples=kind.examples,
        seed=seed,
    )
