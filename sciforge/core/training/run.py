"""One description of a run: a frozen dataclass tree that Python builds, the command line parses
and JSON stores.
"""

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from sciforge.core.files.settings import Settings, from_json, to_json
from sciforge.core.learners.calibration import ConformalInterval, Isotonic, Temperature
from sciforge.core.methods.distillation import Teacher
from sciforge.core.methods.dp_sgd import DPSGD
from sciforge.core.methods.finetuning import Freeze, Full, LoRA
from sciforge.core.methods.pruning import Pruning
from sciforge.core.methods.regularization import EWC, L2SP, Estimator
from sciforge.errors import ConfigError

__all__ = [
    "CORE_TYPES",
    "DPSGD",
    "EWC",
    "L2SP",
    "Estimator",
    "Freeze",
    "Full",
    "Hardware",
    "LoRA",
    "Pruning",
    "Replay",
]
__all__ += ["Run", "Schedule", "ScheduleKind", "Subset", "Task", "Teacher", "from_json", "to_json"]

ScheduleKind = Literal["constant", "exponential", "step", "cosine", "trapezoid"]


@dataclass(frozen=True, kw_only=True)
class Schedule(Settings):
    """How long to train and at what rate.

    Args:
        steps: optimiser steps.
        batch: examples a step, over all processes.
        lr: peak learning rate.
        warmup: share of the steps over which the rate rises linearly from 0.
        kind: None takes exponential decay for a fresh model and step decay where a run has an
            `init`.
        min_lr_ratio: learning rate at the end as a share of the peak (exponential, cosine,
            trapezoid).
        factor: step decay multiplies the rate by this at each of `drops` equally spaced places.
        drops: number of drops of the step decay.
        cooldown: share of the steps in which the trapezoid falls.
        weight_decay: AdamW's; not applied to vectors (norms, biases).
        betas: AdamW's.
        clip: largest norm of the gradient; None for no clipping.
        ema_decay: decay of an exponential moving average of the weights, which is then what is
            evaluated and saved, the raw weights beside it in raw.safetensors; 0 for none. The
            average of step t is over the last 10 t / 9 at most.
        evaluate_every: steps between evaluations on the validation split; 0 for never.
        patience: stop after this many evaluations without improvement and restore the best; 0 for
            no early stop.
        save_every: steps between checkpoints from which a run can resume; 0 for the end only.
    """

    steps: int = 1000
    batch: int = 32
    lr: float = 1e-3
    warmup: float = 0.05
    kind: ScheduleKind | None = None
    min_lr_ratio: float = 0.05
    factor: float = 0.3
    drops: int = 3
    cooldown: float = 0.2
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float | None = 1.0
    ema_decay: float = 0.0
    evaluate_every: int = 0
    patience: int = 0
    save_every: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "steps")
        self.require(1, 2**31 - 1, "batch")
        self.require(
            0,
            math.inf,
            "evaluate_every",
            "patience",
            "save_every",
            "drops",
            "lr",
            "weight_decay",
            "clip",
        )
        self.require(0, 1, "warmup", "cooldown", "min_lr_ratio", "ema_decay")
        if self.kind in (None, "exponential") and self.min_lr_ratio == 0:
            raise ConfigError(
                "schedule.min_lr_ratio is 0; exponential decay never reaches 0: give a small"
                " positive share"
            )
        if self.patience and not self.evaluate_every:
            raise ConfigError("schedule.patience needs schedule.evaluate_every; set both")

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step (0-based), a closed form of the step alone.

        >>> s = Schedule(steps=100, lr=1.0, warmup=0.0, kind="exponential", min_lr_ratio=0.01)
        >>> [round(s.lr_at(t), 4) for t in (0, 50, 100)]
        [1.0, 0.1, 0.01]
        """
        warmup = round(self.warmup * self.steps)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        span = max(self.steps - warmup, 1)
        done = (step - warmup) / span
        if self.kind in (None, "exponential"):
            return self.lr * self.min_lr_ratio**done
        if self.kind == "step":
            return self.lr * self.factor ** math.floor(done * (self.drops + 1))
        if self.kind == "cosine":
            return self.lr * (
                self.min_lr_ratio + (1 - self.min_lr_ratio) * (1 + math.cos(math.pi * done)) / 2
            )
        if self.kind == "trapezoid":
            fall = max(0.0, (done - (1 - self.cooldown)) / self.cooldown) if self.cooldown else 0.0
            return self.lr * (1 - (1 - self.min_lr_ratio) * min(fall, 1.0))
        return self.lr


@dataclass(frozen=True, kw_only=True)
class Task(Settings):
    """One of several things that a run learns with one network: an objective, its data, and how
    much they count.

    Args:
        data: a prepared store; in Python a Dataset too.
        objective: what to learn, by name or with its settings; None goes on with what `init` learnt
            (the task of the same name, else the first).
        share: of the examples of a batch, beside the shares of the other tasks.
        weight: of an example's loss, beside 1.
        name: of its heads in the checkpoint and of its metrics; empty for the objective's name.
    """

    data: Path
    objective: Any = None
    share: float = 1.0
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        if isinstance(place := getattr(self.data, "path", None), Path):
            # the object is kept: a temporary dataset goes with it
            object.__setattr__(self, "_dataset", self.data)
            object.__setattr__(self, "data", place)
        super().__post_init__()
        self.require(1e-6, 1e6, "share", "weight")
        if self.name and (problem := bad_task_name(self.name)):
            raise ConfigError(problem)


def bad_task_name(name: str) -> str | None:
    """Return one line that says why a task cannot be called so; None where it can."""
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        return f"task.name is {name!r}; use letters, digits, - and _"
    if hasattr(nn.ModuleDict(), name):
        return f"task.name is {name!r}, a word of torch's modules; add another to it"
    return None


@dataclass(frozen=True)
class Replay(Settings):
    """Mix a share of pretraining examples, with the pretraining objective, into every step.

    A task without heads of its own: it shares those of the new objective where both have them.

    Args:
        data: the prepared store that `init` was trained on.
        share: of pretraining examples in a batch, between 0 and 1.
    """

    data: Path
    share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ConfigError(f"replay.share is {self.share}; it must lie between 0 and 1")


@dataclass(frozen=True)
class Subset(Settings):
    """Train on few labels: a subset of the training examples with balanced classes, nested in its
    size.

    Args:
        count: number of training examples.
        seed: of the choice.
    """

    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "count")
        self.require(0, 2**63, "seed")


@dataclass(frozen=True)
class Hardware(Settings):
    """Where and how the arithmetic runs; never changes what is computed, rounding aside.

    Args:
        device: `auto` takes CUDA where there is one.
        precision: `auto` is bfloat16 autocast on CUDA and float32 on CPU; `float64` is for tests of
            exactness.
        micro_batch: largest number of examples in one forward pass of a process; None for the whole
            batch.
        tf32: on CUDA, multiply float32 matrices in TensorFloat-32, faster and with 10 bits of
            mantissa.
        workers: processes that prepare examples; 0 prepares them in the training process. None is 0
            on CPU, and on CUDA up to 4 for long runs that the command line started.
        compile: run the model through torch.compile.
        checkpointing: recompute activations in the backward pass to save memory.
        threads: CPU threads of torch; None leaves torch's choice.
        tensor: processes that hold one model together under the strategy `tensor`; None for those
            of a node.
        timeout: seconds that a process waits for the others before the run stops and names who did
            not answer.
    """

    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    micro_batch: int | None = None
    tf32: bool = False
    workers: int | None = None
    compile: bool = False
    checkpointing: bool = False
    threads: int | None = None
    tensor: int | None = None
    timeout: float = 1800.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "micro_batch", "threads", "tensor")
        self.require(1, 1e7, "timeout")
        self.require(0, math.inf, "workers")


@dataclass(frozen=True, kw_only=True)
class Run(Settings):
    """Everything that decides a training run.

    Args:
        data: a prepared store; with `tasks`, that of the first.
        out: folder for checkpoints and metrics.jsonl.
        objective: what to learn; with `tasks`, that of the first.
        tasks: several things to learn at once, in place of `data` and `objective`; early stopping
            watches the first, and `subset` is of the first.
        schedule: how long, at what rate.
        model: a preset's name or a configuration, for a fresh model; excludes `init`.
        init: a checkpoint whose weights and codec to start from.
        codec: how records become tensors; None for the domain's default, or the codec of `init`.
        finetuning: which weights move.
        regularization: a pull towards the weights of `init`.
        replay: pretraining data mixed in.
        retention: data of what `init` learnt: the checkpoint then keeps its metrics there before
            and after (forgetting). The data of replay or of the regularization serve where this is
            not given.
        subset: train on few labels.
        dp_sgd: bound by noise what the weights can reveal of any training record.
        pruning: zeros cut into the weight matrices, and held.
        teacher: a checkpoint to learn from besides the labels (distillation).
        log: `tensorboard` writes event files beside metrics.jsonl, for `tensorboard --logdir OUT`.
        strategy: `replicate` keeps a copy on each process, `shard` is FSDP2, `tensor` cuts each
            block over a node's processes.
        hardware: device, precision, micro-batches, workers.
        seed: of the initial weights, the order, and every corruption.
    """

    data: Path = None  # type: ignore[assignment]  # set from `tasks`, or refused
    out: Path
    objective: Any = None
    tasks: tuple[Task, ...] = ()
    schedule: Schedule = field(default_factory=Schedule)
    model: Any = None
    init: Path | None = None
    codec: Any = None
    finetuning: Full | Freeze | LoRA = Full()
    regularization: L2SP | EWC | None = None
    replay: Replay | None = None
    retention: Path | None = None
    subset: Subset | None = None
    dp_sgd: DPSGD | None = None
    pruning: Pruning | None = None
    teacher: Teacher | None = None
    log: Literal["tensorboard"] | None = None
    strategy: Literal["replicate", "shard", "tensor"] = "replicate"
    hardware: Hardware = Hardware()
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_tasks()
        super().__post_init__()
        self.require(0, 2**63, "seed")
        if (self.model is None) == (self.init is None):
            raise ConfigError(
                "a run starts from a fresh model or from a checkpoint; give either --model or"
                " --init"
            )
        if self.init is None and (self.regularization or self.replay or self.retention):
            raise ConfigError(
                "regularization, replay or retention needs what was learnt before; give --init"
            )
        if self.replay and self.schedule.batch < 2:
            raise ConfigError(
                "schedule.batch is 1; replay needs at least 2, one new and one old example"
            )
        if self.regularization and isinstance(self.finetuning, LoRA):
            raise ConfigError(
                "LoRA freezes the weights that regularization would hold; choose one of them"
            )
        if self.dp_sgd:
            self._check_dp_sgd()
        self._check_compression()
        if self.schedule.kind is None:
            kind: ScheduleKind = "exponential" if self.init is None else "step"
            object.__setattr__(self, "schedule", replace(self.schedule, kind=kind))

    def _check_tasks(self) -> None:
        """Let data and objective be those of the first task; raise ConfigError where neither or
        both are given.
        """
        if not self.tasks:
            missing = [name for name in ("data", "objective") if getattr(self, name) is None]
            if missing:
                raise ConfigError(f"run.{missing[0]} is missing; give data and objective, or tasks")
            return
        tasks = self.tasks
        if not isinstance(tasks, list | tuple) or not all(isinstance(t, Task) for t in tasks):
            raise ConfigError(f"run.tasks is {tasks!r}; expected Task, ...")
        for name in ("data", "objective"):
            first, given = getattr(tasks[0], name), getattr(self, name)
            if given is not None and (Path(given) if name == "data" else given) != first:
                raise ConfigError(
                    f"run.{name} is given beside tasks, whose first has another; leave it out"
                )
            object.__setattr__(self, name, first)
        names = [task.name for task in tasks if task.name]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"two tasks are called {min(twice)!r}; give each a name of its own")
        if self.init is None and any(task.objective is None for task in tasks):
            raise ConfigError("a task without objective goes on with what init learnt; give --init")
        self._check_with_tasks()

    def _check_with_tasks(self) -> None:
        """Raise ConfigError for what several tasks cannot go with."""
        if self.replay:
            raise ConfigError(
                "replay beside tasks: make it a task, Task(data=..., share=...) without objective"
            )
        if self.dp_sgd:
            raise ConfigError("dp_sgd has one source of examples; leave tasks out, give data")
        if self.teacher:
            raise ConfigError("a teacher teaches one objective; leave tasks out, give data")

    def _check_dp_sgd(self) -> None:
        """Raise ConfigError where a setting would undo what DP-SGD promises, or cannot go with
        it.
        """
        if self.subset:
            raise ConfigError(
                "subset looks at all labels, which dp_sgd does not protect; prepare a smaller store"
            )
        if self.replay:
            raise ConfigError(
                "dp_sgd has one source of examples; leave replay out, regularization may stand"
                " for it"
            )
        if self.strategy != "replicate" or self.hardware.compile:
            raise ConfigError(
                "dp_sgd needs each example's gradient; use strategy replicate, without compile"
            )

    def _check_compression(self) -> None:
        """Raise ConfigError where a setting would fill zeros again, or cannot go with a teacher."""
        if self.pruning and isinstance(self.finetuning, LoRA):
            raise ConfigError(
                "LoRA's update is dense, and merging it would fill the zeros; choose another"
                " finetuning"
            )
        if self.pruning and self.strategy != "replicate":
            raise ConfigError(
                "pruning ranks whole matrices, which other strategies split; use --strategy"
                " replicate"
            )
        if self.pruning and self.pruning.ramp and self.schedule.patience:
            raise ConfigError(
                "early stopping would bring back weights from before the last cut; set"
                " schedule.patience 0"
            )
        if self.teacher and (self.replay or self.dp_sgd):
            raise ConfigError(
                "a teacher goes neither with replay, a second source, nor with dp_sgd, which it may"
                " undo"
            )


CORE_TYPES = {
    t.__name__: t
    for t in (
        Run,
        Schedule,
        Full,
        Freeze,
        LoRA,
        L2SP,
        EWC,
        Replay,
        Subset,
        Task,
        DPSGD,
        Pruning,
        Teacher,
        Hardware,
        Temperature,
        Isotonic,
        ConformalInterval,
    )
}
