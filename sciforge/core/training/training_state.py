"""A run in progress: its parts by name, how it is saved, and how it is restored."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciforge.core.data.batches import StepData
from sciforge.core.data.store import Store, describe_store
from sciforge.core.domain import Batch, Codec, Domain, ModelConfig, Objective
from sciforge.core.files.atomic import remove
from sciforge.core.files.settings import to_json
from sciforge.core.methods import finetuning
from sciforge.core.methods.method import Method
from sciforge.core.training import checkpoint
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.run import Run
from sciforge.core.training.tasks import TrainingTask, described, recorded_run
from sciforge.errors import ConfigError

Gradient = Callable[["TrainingState", int, Sequence[Sequence[Batch]]], dict[str, float]]


@dataclass
class EarlyStopping:
    """What the validation split has shown so far; early stopping restores the best weights.

    Args:
        metrics: metrics of the last evaluation.
        best: the best value of the objective's metric (larger is better), its step and metrics, and
            the number of evaluations since.
        state: the model's state at the best step, kept only for early stopping.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=lambda: {"value": None, "step": None, "bad": 0})
    state: dict[str, Tensor] | None = None

    def improves(self, value: float, step: int) -> bool:
        """Note the value of an evaluation (larger is better) after a step; return whether it is
        the best so far.
        """
        better = self.best["value"] is None or value > self.best["value"]
        if better:
            self.best = {"value": value, "step": step, "bad": 0, "metrics": self.metrics}
        else:
            self.best["bad"] += 1
        return bool(better)


@dataclass
class TrainingState:
    """A run in progress.

    Args:
        run: what was asked for.
        engine: where the arithmetic runs.
        domain: of the data.
        tasks: what is learnt, from which records; early stopping watches the first.
        parent: the checkpoint that the weights came from; None for a fresh model.
        codec: fitted.
        model_config: sizes of the model.
        model: the network, placed.
        call: the network, compiled if asked for.
        data: the micro-batches of each step.
        optimizer: AdamW over `groups`.
        groups: the parameters that train, with their rates.
        gradient: leaves the gradient of a step in `.grad` and returns metrics.
        methods: what changes a step besides, in the order in which they are called.
        early_stopping: what the validation split has shown.
        start_notes: what the objective returned of its start; the checkpoint keeps it.
        extensions: where `schedule.steps` grew on a resume: the step, the steps planned before and
            since.
    """

    run: Run
    engine: Engine
    domain: Domain
    tasks: tuple[TrainingTask, ...]
    parent: Checkpoint | None
    codec: Codec
    model_config: ModelConfig
    model: nn.Module
    call: Any
    data: StepData
    optimizer: torch.optim.Optimizer
    groups: list[finetuning.Group]
    gradient: Gradient
    methods: tuple[Method, ...] = ()
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    start_notes: dict[str, Any] = field(default_factory=dict)
    extensions: list[dict[str, int]] = field(default_factory=list)

    @property
    def store(self) -> Store:
        """The data of the first task."""
        return self.tasks[0].store

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is learnt, one objective a task."""
        return tuple(task.objective for task in self.tasks)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name."""
        return {
            name: p
            for group in self.groups
            for name, p in zip(group.names, group.parameters, strict=True)
        }

    @contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Hold in the model the weights to evaluate and save."""
        with ExitStack() as stack:
            for method in self.methods:
                if (context := method.evaluated_weights()) is not None:
                    stack.callback(self.engine.reshard, self.model)  # when the weights are back
                    stack.enter_context(context)
                    self.engine.reshard(self.model)
            yield

    def enough_memory(self) -> AbstractContextManager[None]:
        """Return the context in which an out-of-memory error becomes one line with a remedy."""
        return self.engine.enough_memory(self.run.hardware.micro_batch or self.run.schedule.batch)

    def records_of(self, step: int) -> str:
        """Name the training records of a step, over all processes."""
        parts = []
        for task, pairs in zip(self.tasks, self.data.indices(step), strict=True):
            indices = [str(index) for _, index in pairs]
            more = ", ..." if len(indices) > 8 else ""
            if indices:
                place = task.store.path
                parts.append(f"training records {', '.join(indices[:8])}{more} of {place}")
        return " and ".join(parts)

    def save(self, path: Any, step: int, resume: bool, extendable: bool = False) -> None:
        """Write a checkpoint and remove the older ones of this run.

        Args:
            path: of the checkpoint.
            step: optimiser steps taken.
            resume: whether the run goes on, from what lies in resume/.
            extendable: whether a finished run keeps resume/ too, from which more steps can start.
        """
        raw = self.engine.full_state(self.model)
        state = raw
        if any(method.evaluated_weights() is not None for method in self.methods):
            with self.evaluated_weights():
                state = self.engine.full_state(self.model)
        tensors = {checkpoint.RESUME: self._resume_state(raw)} if resume or extendable else {}
        if not resume and state is not raw:
            tensors[checkpoint.RAW] = finetuning.merged_state(self.model, raw)
        metrics = dict(self.early_stopping.metrics)
        for method in self.methods:
            metrics |= method.summary(self, final=not resume)
        if self.engine.main:
            place = str(self.engine.device), self.engine.world
            provenance = checkpoint.provenance(
                self.run, *place, self.store.digests(), self.run.init
            )
            provenance |= self._other_data()
            checkpoint.save(
                path,
                domain=self.domain.name,
                run=recorded_run(self.run, self.tasks),
                codec=self.codec,
                model_config=self.model_config,
                objectives=self.objectives,
                weights=finetuning.merged_state(self.model, state),
                step=step,
                metrics=metrics,
                provenance=provenance | ({} if resume else {"store": describe_store(self.store)}),
                tensors=tensors,
                loop={
                    "best": self.early_stopping.best,
                    "start": self.start_notes,
                    "extended": self.extensions,
                },
                tasks=[task.scope for task in self.tasks if task.scope is not None],
            )
            for older in self.run.out.glob("step-*"):
                if older != path:
                    # first: a crash leaves no half checkpoint
                    (older / "checkpoint.json").unlink(missing_ok=True)
                    remove(older)
        self.engine.barrier()

    def _other_data(self) -> dict[str, Any]:
        """Return what provenance keeps of the tasks besides the first, by name."""
        others = {task.name: described(task) for task in self.tasks[1:]}
        return {"tasks": others} if others else {}

    def _resume_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what a resumed run needs; the first process alone, which writes it, keeps it."""
        tensors = {f"model.{name}": tensor for name, tensor in state.items()}

        def keep(name: str, tensor: Tensor) -> None:
            whole = self.engine.full(tensor)  # a collective call where it is split
            if self.engine.main:
                tensors[name] = whole

        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                keep(f"optimizer.{name}|{key}", value)
        for method in self.methods:
            for name, tensor in method.tensors().items():
                keep(f"{method.name}.{name}", tensor)
        return tensors | {
            f"best.{name}": tensor for name, tensor in (self.early_stopping.state or {}).items()
        }

    def restore(self) -> int | None:
        """Load the newest checkpoint of `run.out` and return its step; 0 where there is none, None
        if finished.

        Raises:
            ConfigError: that checkpoint is of another run.
            CheckpointError: it is damaged.
        """
        if not any(self.run.out.glob("*/checkpoint.json")):
            return 0
        last = Checkpoint.open(self.run.out)
        longer = self.run.schedule.steps > last.run.schedule.steps
        if other := self._other_settings(last):
            hint = (
                ""
                if other[0] != "schedule" or not longer
                else (
                    " (more steps must leave the learning rate of the steps taken as it was: keep"
                    " the number of warmup steps, with schedule.kind constant or a trapezoid that"
                    " has not begun to fall)"
                )
            )
            raise ConfigError(
                f"{self.run.out} holds a run with another {other[0]}{hint}; resume it as it was, or"
                " choose another --out"
            )
        if last.path.name == "final":
            if not longer:
                return None
            if checkpoint.RESUME not in last.body["files"] or not (last.path / "resume").exists():
                raise ConfigError(
                    f"{last.path} keeps nothing to extend the run from, as runs with"
                    " schedule.save_every and without early stopping do; start a new run with"
                    f" --init {last.path}"
                )
        self.load(last)
        self.extensions = list(last.body["loop"].get("extended", []))
        if longer:
            self.extensions.append(
                {"at": last.step, "from": last.run.schedule.steps, "to": self.run.schedule.steps}
            )
            self.engine.barrier()
            if last.path.name == "final" and self.engine.main:  # now a step like others
                last.path.rename(self.run.out / f"step-{last.step:08d}")
        return last.step

    def load(self, last: Checkpoint) -> None:
        """Load weights, optimiser, methods and early stopping from a checkpoint with resume
        state.
        """
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in ("model", "best", "optimizer")}
        for name, tensor in last.weights(checkpoint.RESUME).items():
            kind, _, rest = name.partition(".")
            # as formats up to 2 called it
            parts.setdefault("ema" if kind == "average" else kind, {})[rest] = tensor
        self.engine.load_state(self.model, parts["model"])
        self.early_stopping = EarlyStopping(
            last.metrics, dict(last.body["loop"]["best"]), parts["best"] or None
        )
        parameters = self.parameters
        for method in self.methods:
            for name, tensor in method.tensors().items():
                tensor.copy_(self.engine.like(parameters[name], parts[method.name][name]))
        for name, value in parts["optimizer"].items():
            name, key = name.rsplit("|", 1)
            if key != "step":
                value = self.engine.like(parameters[name], value)
            elif not self.engine.splits:  # the fused optimiser counts on the device
                value = value.to(self.engine.device)
            self.optimizer.state[parameters[name]][key] = value

    def _other_settings(self, last: Checkpoint) -> list[str]:
        """Return which settings of the checkpoint's run differ from this one's; places,
        processes and hardware may.
        """
        wanted = to_json(_without_places(recorded_run(self.run, self.tasks)))
        recorded = to_json(_without_places(last.run))
        free = {"data", "out", "init", "model", "codec", "log", "strategy", "hardware"}
        if self._extends(last):
            free |= {"schedule"}
        other = [name for name in wanted.keys() - free if wanted[name] != recorded[name]]
        provenance = checkpoint.provenance(self.run, "", 1, self.store.digests(), self.run.init)
        others = _digests(self._other_data())
        checks = {
            "data": last.provenance.get("data") == provenance["data"],
            # steps saved before other tasks' digests were kept have none
            "data of another task": (_digests(last.provenance) or others) == others,
            "init": (
                wanted["init"] == recorded["init"]
                or last.provenance.get("parent") == provenance["parent"]
            ),
            "model": last.model_config == self.model_config,
            "codec": last.codec == self.codec,
        }
        return sorted(other) + [name for name, same in checks.items() if not same]

    def _extends(self, last: Checkpoint) -> bool:
        """Return whether this run is the checkpoint's with more steps, and bit-equal to one
        planned so from the start.
        """
        old, new = last.run.schedule, self.run.schedule
        same = replace(new, steps=old.steps, warmup=old.warmup, cooldown=old.cooldown) == old
        # these plan over all steps
        if not same or new.steps <= old.steps or self.run.dp_sgd or self.run.pruning:
            return False
        return all(old.lr_at(step) == new.lr_at(step) for step in range(last.step))

    def finish(self) -> Checkpoint:
        """Restore the best weights if early stopping kept them, write `final`, and drop the
        steps before it.
        """
        step, stopping = self.run.schedule.steps, self.early_stopping
        extendable = self.run.schedule.save_every > 0 and stopping.state is None
        if stopping.state is not None:
            self.engine.load_state(self.model, stopping.state)
            # the best state holds the evaluated weights already
            self.methods = tuple(
                method for method in self.methods if method.evaluated_weights() is None
            )
            step, stopping.metrics = stopping.best["step"], stopping.best["metrics"]
        self.model.eval()
        self.save(self.run.out / "final", step, resume=False, extendable=extendable)
        return Checkpoint.open(self.run.out / "final")


def _without_places(run: Run) -> Run:
    """Return a run whose tasks say nothing of where their data lie."""
    if not run.tasks:
        return run
    tasks = tuple(replace(task, data=Path("data")) for task in run.tasks)
    return replace(run, tasks=tasks, data=tasks[0].data)


def _digests(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the digests of the data of all tasks but the first, by name."""
    return {name: about["data"] for name, about in (provenance.get("tasks") or {}).items()}
