"""The tasks of a run, opened: what each learns, from which records, and how much it counts.

A run with `data` and `objective` is one task without a name. Replay is a second one, which goes on
with what `init` learnt. `Run.tasks` are several, each with heads of its own under its name.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from torch import Tensor

from sciforge.core.data import sampling
from sciforge.core.data.batches import ExampleSource
from sciforge.core.data.store import Store
from sciforge.core.domain import Domain, LabelledRecords, Objective, Records
from sciforge.core.heads import HEADS, names_under
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import Run, Task
from sciforge.errors import ConfigError

LOGGER = logging.getLogger("sciforge")
REPLAY = "replay"  # the name of the task that replay is
# examples of a step that are always possible; repeats of a record in one step
MANY, MANY_EPOCHS = 2**20, 100
FINEST = 2**20  # denominators of shares; a share of any smaller batch is exact


@dataclass(frozen=True)
class TrainingTask:
    """A task of a run, its data opened.

    Args:
        name: in metrics; empty for the only task of a run.
        objective: resolved.
        store: the data.
        records: of the training split.
        validation: of the validation split; empty where the task is not evaluated.
        share: of the examples of a batch; those of all tasks add up to 1.
        weight: of an example's loss.
        seed: of the order and of every corruption.
        scope: under which its heads stand (`heads.SCOPE`); None for the common heads.
        parent: the checkpoint that the weights come from, as it is for this task; None for a fresh
            model.
        inherited: whether the objective is the parent's own, which needs no start.
    """

    name: str
    objective: Objective
    store: Store
    records: Records
    validation: Records
    share: Fraction
    weight: float
    seed: int
    scope: str | None
    parent: Checkpoint | None
    inherited: bool

    @property
    def source(self) -> ExampleSource:
        """What the batches are made from."""
        return ExampleSource(self.objective, self.records, self.seed, self.share)


def planned(run: Run) -> tuple[Task, ...]:
    """Return the tasks that a run consists of; without `tasks` its data and objective, and replay.

    >>> from sciforge.core.training.run import Replay
    >>> run = Run(data="a", objective="classify", out="c", init="b", replay=Replay("b", 0.25))
    >>> [(task.name, task.share) for task in planned(run)]
    [('', 0.75), ('replay', 0.25)]
    """
    if run.tasks:
        return run.tasks
    if not run.replay:
        return (Task(data=run.data, objective=run.objective),)
    new, old = sampling.replay_sizes(run.schedule.batch, run.replay.share)
    batch = new + old
    return (
        Task(data=run.data, objective=run.objective, share=new / batch),
        Task(data=run.replay.data, share=old / batch, name=REPLAY),
    )


def open_tasks(
    run: Run, domain: Domain, stores: Sequence[Store], parent: Checkpoint | None
) -> tuple[TrainingTask, ...]:
    """Return the tasks of a run with their objectives resolved and their records.

    Args:
        run: what was asked for.
        domain: of all stores.
        stores: one a task, in order.
        parent: the checkpoint that the weights come from.

    Raises:
        ConfigError: a task has no training records, or too few; two have one name.
    """
    tasks = planned(run)
    shares = [Fraction(task.share).limit_denominator(FINEST) for task in tasks]
    views, objectives = _objectives(run, domain, tasks, stores, parent)
    names = _names(run, domain, tasks, objectives)
    opened = []
    for number, task in enumerate(tasks):
        objective, store = objectives[number], stores[number]
        records = objective.examples(store, "train")
        if run.subset and not number:
            records = _subset(run, records, run.subset.count, run.subset.seed)
        entry = TrainingTask(
            names[number],
            objective,
            store,
            records,
            # what replay keeps is measured by retention, on few records and once
            () if run.replay and number else _validation(run, objective, store, number),
            shares[number] / sum(shares),
            task.weight,
            run.seed if run.replay else sampling.task_seed(run.seed, number),
            names[number] if run.tasks else None,
            views[number],
            inherited=task.objective is None,
        )
        _check_records(run, entry)
        opened.append(entry)
    return tuple(opened)


def _objectives(
    run: Run,
    domain: Domain,
    tasks: Sequence[Task],
    stores: Sequence[Store],
    parent: Checkpoint | None,
) -> tuple[list[Checkpoint | None], list[Objective]]:
    """Return the parent as it is for each task, and the objectives, completed by each other."""
    views: list[Checkpoint | None] = []
    objectives: list[Objective] = []
    for task, store in zip(tasks, stores, strict=True):
        if task.objective is None:
            assert parent is not None  # Run and Replay see to it
            view: Checkpoint | None = parent.for_task(task.name, None)
            objectives.append(view.objectives[0])  # type: ignore[union-attr]
        else:
            objectives.append(domain.objective(task.objective).resolve(store))
            view = parent and parent.for_task(task.name, objectives[-1])
        views.append(view)
    if len(tasks) == 1 or run.replay:
        return views, objectives
    ordered = sorted(zip(tasks, objectives, strict=True), key=lambda p: p[0].objective is not None)
    known = [objective for _, objective in ordered]
    return views, [
        objective if task.objective is None else objective.alongside(known)
        for task, objective in zip(tasks, objectives, strict=True)
    ]


def _names(
    run: Run, domain: Domain, tasks: Sequence[Task], objectives: Sequence[Objective]
) -> list[str]:
    """Return the names of tasks; where none is given, that of the objective.

    Raises:
        ConfigError: two tasks would have the same.
    """
    if len(tasks) == 1 and not run.tasks:
        return [""]
    kinds = {cls: name for name, cls in domain.objectives.items()}
    names = [
        task.name or kinds.get(type(objective), type(objective).__name__.lower())
        for task, objective in zip(tasks, objectives, strict=True)
    ]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"two tasks are called {twice[0]!r}; give each a name of its own")
    return names


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


def _validation(run: Run, objective: Objective, store: Store, number: int) -> Records:
    """Return the validation records of a task; the first must have some where it is evaluated."""
    records = objective.examples(store, "validation")
    if run.schedule.evaluate_every and not len(records):
        if not number:
            raise ConfigError(
                f"{store.path} has no validation records; set schedule.evaluate_every 0 or prepare"
                " a validation split"
            )
        LOGGER.info("%s has no validation records; its task is not evaluated", store.path)
    return records


def _check_records(run: Run, task: TrainingTask) -> None:
    count, place = len(task.records), task.store.path
    if not count:
        kind = type(task.objective).__name__
        raise ConfigError(f"{place}: no training records for {kind}; prepare another split")
    if run.schedule.batch * task.share > max(MANY, MANY_EPOCHS * count):
        raise ConfigError(
            f"schedule.batch is {run.schedule.batch}; {place} has {count} training records, a step"
            f" may hold each {MANY_EPOCHS} times at most: make it smaller"
        )


def check_sharding(run: Run, tasks: Sequence[TrainingTask], world: int) -> None:
    """Raise ConfigError where processes that shard the model would get unequal numbers of
    examples.
    """
    for task in tasks:
        examples = run.schedule.batch * task.share
        if examples % world:
            raise ConfigError(
                f"under shard {world} processes share {float(examples):g} examples"
                f"{f' of {task.name}' * bool(task.name)}; make it a multiple"
            )


def fit_codec(given: Any, stores: Sequence[Store]) -> Any:
    """Return a codec fitted to the stores of all tasks, by its `fit_all` where it has one, else to
    the first.
    """
    if len(stores) > 1 and hasattr(given, "fit_all"):
        return given.fit_all(stores)
    return given.fit(stores[0])


def inherited_weights(
    tasks: Sequence[TrainingTask], weights_of: Callable[[Checkpoint], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Return a parent's weights by the names that a run has for them: those of the backbone, and
    under each task's name the heads that it takes over.

    Args:
        tasks: with parents.
        weights_of: returns the weights of a parent by the names of one task.
    """
    tensors: dict[str, Tensor] = {}
    for scope in dict.fromkeys(task.scope for task in tasks):
        view = heads_from(tasks, scope)
        for name, tensor in names_under(weights_of(view), scope).items():
            tensors.setdefault(name, tensor)
    return tensors


def heads_from(tasks: Sequence[TrainingTask], scope: str | None) -> Checkpoint:
    """Return the parent whose heads the tasks of a scope take over; what goes on as it was comes
    first.
    """
    group = sorted((t for t in tasks if t.scope == scope), key=lambda task: not task.inherited)
    assert group[0].parent is not None
    return group[0].parent


def fresh_heads(tasks: Sequence[TrainingTask]) -> tuple[str, ...]:
    """Return the prefixes of heads that start anew: the parent learnt another objective."""
    return tuple(
        f"{HEADS}{task.scope}.{head}." if task.scope else f"{HEADS}{head}."
        for task in tasks
        for head in task.objective.fresh
        if task.objective not in heads_from(tasks, task.scope).objectives
    )


def recorded_run(run: Run, tasks: Sequence[TrainingTask]) -> Run:
    """Return a run with the objectives as the data completed them, as its checkpoint keeps it."""
    if not run.tasks:
        return replace(run, objective=tasks[0].objective)
    complete = tuple(
        replace(task, objective=None if opened.inherited else opened.objective)
        for task, opened in zip(run.tasks, tasks, strict=True)
    )
    return replace(run, tasks=complete, data=complete[0].data, objective=complete[0].objective)


def described(task: TrainingTask) -> dict[str, Any]:
    """Return what a checkpoint's provenance keeps of a task besides the first: its data."""
    return {
        "objective": type(task.objective).__name__,
        "store": task.store.path.name,
        "records": len(task.records),
        "data": task.store.digests(),
    }
