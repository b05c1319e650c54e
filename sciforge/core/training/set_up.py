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

from sciforge.core.data.batches import ExampleSource, StepData
from sciforge.core.data.store import Store
from sciforge.core.domain import Codec, Domain, ModelConfig, get_domain, seeded_model
from sciforge.core.files.atomic import disk_error, sha256, sweep, try_lock
from sciforge.core.heads import HEADS, heads_of
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
from sciforge.core.training.tasks import (
    TrainingTask,
    check_sharding,
    fit_codec,
    fresh_heads,
    inherited_weights,
    open_tasks,
    planned,
)
from sciforge.core.training.training_state import TrainingState
from sciforge.errors import CheckpointError, ConfigError

LOGGER = logging.getLogger("sciforge")


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
    stores, parent = engine.in_turn(lambda: _opened(run))
    engine.compare(_digests(run, stores) if engine.world > 1 else {})
    domain = _domain(run, stores)
    if engine.shard and not domain.shardable:
        raise ConfigError(
            f"models of {domain.name} cannot be sharded (double backward); use --strategy replicate"
        )
    codec, config = _codec_and_config(run, domain, stores, parent)
    tasks = open_tasks(run, domain, stores, parent)
    if engine.shard:
        check_sharding(run, tasks, engine.world)
    dp_sgd.check_records(run, tasks[0].records, stores[0], parent)
    objectives, scopes = [t.objective for t in tasks], [t.scope for t in tasks]
    model = seeded_model(config, codec, objectives, run.seed, scopes)
    fresh = load_parent(model, tasks, parent, run)
    notes = _start(run, engine, model, codec, tasks)
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
    data, mechanism = _step_data(run, engine, codec, tasks)
    gradient = mechanism.gradient if mechanism else mean_gradient
    state = TrainingState(
        run,
        engine,
        domain,
        tasks,
        parent,
        codec,
        config,
        model,
        call,
        data,
        optimizer,
        groups,
        gradient,
        start_notes=notes,
    )
    state.methods = tuple(_methods(state, fresh, mechanism))
    return state


def _step_data(
    run: Run, engine: Engine, codec: Codec, tasks: Sequence[TrainingTask]
) -> tuple[StepData, dp_sgd.Mechanism | None]:
    """Return the micro-batches of each step, under a teacher or DP-SGD in their own way, and the
    mechanism of DP-SGD.
    """
    sources: tuple[ExampleSource, ...] = tuple(task.source for task in tasks)
    batch_codec: Any = codec
    if run.teacher:
        teacher = Checkpoint.open(run.teacher.checkpoint)
        taught, batch_codec = with_teacher(sources[0], codec, run.teacher, teacher, engine)
        sources = (taught,)
    parts, batch = (engine.part, engine.parts), run.schedule.batch
    if not run.dp_sgd:
        return StepData(sources, batch_codec, batch, *parts, run.hardware.micro_batch), None
    mechanism = dp_sgd.Mechanism.of(run.dp_sgd, run, len(sources[0].records))
    poisson = mechanism.rate, mechanism.seed
    return StepData(sources, batch_codec, batch, *parts, 1, poisson), mechanism


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _opened(run: Run) -> tuple[list[Store], Checkpoint | None]:
    """Open the stores of all tasks, each once, and the parent."""
    stores: dict[Path, Store] = {}
    for task in planned(run):
        if task.data not in stores:
            stores[task.data] = Store.open(task.data)
    parent = None if run.init is None else Checkpoint.open(run.init)
    return [stores[task.data] for task in planned(run)], parent


def _domain(run: Run, stores: Sequence[Store]) -> Domain:
    for store in stores:
        if store.domain != stores[0].domain:
            raise ConfigError(
                f"{store.path} is of the domain {store.domain}, {run.data} of {stores[0].domain};"
                " tasks of one run share a domain"
            )
    return get_domain(stores[0].domain)


def _digests(run: Run, stores: Sequence[Store]) -> dict[str, dict[str, str]]:
    """Return one digest each of all data and of all checkpoints that a run names, for comparison
    over processes.
    """
    regularization = run.regularization.data if isinstance(run.regularization, EWC) else None
    digests = [
        *(store.digests() for store in stores),
        *(
            Store.open(place, verify=False).digests()
            for place in (regularization, run.retention)
            if place
        ),
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
        yield _regularization(run, state, fresh, state.parent)
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
    run: Run, domain: Domain, stores: Sequence[Store], parent: Checkpoint | None
) -> tuple[Codec, ModelConfig]:
    if parent is None:
        config = domain.model(run.model) if isinstance(run.model, str) else run.model
        given = domain.codec if run.codec is None else run.codec
        fitted = fit_codec(given, stores)
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


def _start(
    run: Run, engine: Engine, model: nn.Module, codec: Codec, tasks: Sequence[TrainingTask]
) -> dict[str, Any]:
    """Let each objective set parts of the model from its training records; return their notes.

    What goes on as the parent learnt it has started already.
    """
    single = replace(engine, precision="float32", rank=0, world=1, tensor=1)
    notes: dict[str, Any] = {}
    with dp_sgd.nothing_learnt(model, run):
        model.to(engine.device)
        for task in tasks:
            if task.inherited:
                continue
            with heads_of(model, task.scope):
                start = task.objective.start
                own = start(model, codec, task.records, single, run.seed, task.parent)
            suffix = f"_{task.name}" if task is not tasks[0] else ""
            notes |= {f"{name}{suffix}": value for name, value in (own or {}).items()}
    return {} if run.dp_sgd else notes  # under DP-SGD they could reveal records


def load_parent(
    model: nn.Module, tasks: Sequence[TrainingTask], parent: Checkpoint | None, run: Run
) -> set[str]:
    """Copy what the parent knows and return the names of the parameters that stay fresh.

    The heads an objective calls `fresh` are taken over only when the parent learnt the very same
    objective. Without a parent all are fresh; only a run that freezes weights then takes the random
    backbone for given.
    """
    names = {name for name, _ in model.named_parameters()}
    if parent is None:
        full = isinstance(run.finetuning, Full)
        return names if full else {name for name in names if name.startswith(HEADS)}
    state, new = model.state_dict(), fresh_heads(tasks)
    usable = {
        name: tensor
        for name, tensor in inherited_weights(tasks, Checkpoint.weights).items()
        if name in state and state[name].shape == tensor.shape and not name.startswith(new)
    }
    model.load_state_dict(usable, strict=False)
    if missing := sorted(name for name in set(state) - set(usable) if not name.startswith(HEADS)):
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
    run: Run, state: TrainingState, fresh: set[str], parent: Checkpoint
) -> regularization.QuadraticPenalty:
    kind, precision = run.regularization, None
    assert kind is not None
    weights = inherited_weights(state.tasks, Checkpoint.weights)
    centre = {name: tensor for name, tensor in weights.items() if name not in fresh}
    if isinstance(kind, EWC):
        information = _information(run, kind, parent, state.engine)

        def known(view: Checkpoint) -> dict[str, Tensor]:
            own = view.scope == parent.scope  # what the first task's heads matter for, is known
            return {n: t for n, t in information.items() if own or not n.startswith(HEADS)}

        precision = inherited_weights(state.tasks, known)
        if parent.tasks:  # heads of its other tasks are free
            centre = {n: t for n, t in centre.items() if n in precision or not n.startswith(HEADS)}
    return regularization.build(kind, state.model, centre, precision, state.engine)


def _information(run: Run, kind: EWC, parent: Checkpoint, engine: Engine) -> dict[str, Tensor]:
    """Return the Fisher information that the parent holds, or estimate it."""
    name = f"fisher-{kind.estimator}.safetensors"
    if name in parent.body["files"]:
        return parent.weights(name)
    if kind.data is None:
        raise ConfigError(
            f"{run.init} holds no {kind.estimator} Fisher; run `sciforge fisher` or give"
            " regularization.data"
        )
    return _parent_fisher(parent, kind, kind.data, engine, run.seed)


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
