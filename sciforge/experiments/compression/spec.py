"""What to prune or to distil, and how to evaluate it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sciforge.core.data.store import Store
from sciforge.core.files.settings import Settings
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine, choose_device
from sciforge.core.training.run import Hardware, Pruning, Schedule, Subset
from sciforge.errors import ConfigError
from sciforge.experiments.held_out import HeldOut


@dataclass(frozen=True, kw_only=True)
class Prune(Settings):
    """What to prune, how far, and how to evaluate it.

    Args:
        init: the parent checkpoint, a path or a name; several of them for a curve.
        out: a new folder for the pruned checkpoint, or of the curve, which continues there; None
            for a temporary one, which lives as long as the result.
        sparsity: share of the weights in the matrices to set to zero.
        scope: rank the weights of all matrices together (`global`), or prune each `matrix` by the
            same share.
        pattern: regular expression over names of weight matrices; the default leaves heads out.
            Embeddings never count.
        data: a prepared store to evaluate on and to fine-tune by; one of the checkpoint's own
            objective.
        tune: fine-tune with the zeros held, by this schedule.
        ramp: share of the fine-tuning over which the sparsity rises; 0 prunes all before the first
            step.
        cuts: in how many steps it rises.
        split: to evaluate on; None takes the test split, else the validation split.
        metric: the metric to compare; None for the objective's own.
        curve: measure quality against sparsity instead, of one or several checkpoints.
        sparsities: of the curve.
        groups: of the curve, a name for each checkpoint: those of one name are seeds of one recipe.
            By default checkpoints whose runs differ in nothing but the seed are of one group, named
            by what sets it apart.
        seed: of the fine-tuning.
        hardware: of the fine-tuning.
    """

    init: tuple[Path, ...]
    out: Path | None = None
    sparsity: float = 0.5
    scope: Literal["global", "matrix"] = "global"
    pattern: str = Pruning.pattern
    data: Path | None = None
    tune: Schedule | None = None
    ramp: float = 0.0
    cuts: int = 10
    split: Literal["test", "validation", "train"] | None = None
    metric: str | None = None
    curve: bool = False
    sparsities: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95)
    groups: tuple[str, ...] = ()
    seed: int = 0
    hardware: Hardware = Hardware()

    def __post_init__(self) -> None:
        super().__post_init__()
        for share in (self.sparsity, *self.sparsities):
            if not 0 <= share < 1:
                raise ConfigError(f"a sparsity is {share}; it must be at least 0 and below 1")
        if len(self.init) != 1 and not self.curve:
            raise ConfigError(
                f"{len(self.init)} checkpoints to prune; give one, or --curve to compare them"
            )
        if len(set(self.init)) < len(self.init):
            raise ConfigError("a checkpoint is given twice; give each once")
        if len(set(self.sparsities)) < 2 and self.curve:
            raise ConfigError("a curve needs at least two different --sparsities")
        if self.groups and len(self.groups) != len(self.init):
            raise ConfigError(
                f"{len(self.groups)} groups for {len(self.init)} checkpoints; give one name for"
                " each"
            )
        if self.data is None and (self.tune or self.curve):
            raise ConfigError(
                "a curve and fine-tuning need --data, a store of the checkpoint's own objective"
            )
        if self.ramp and not self.tune:
            raise ConfigError(
                "a ramp is a part of fine-tuning; give --tune.steps, or leave the ramp out"
            )

    def pruning(self, share: float) -> Pruning:
        """Return the settings of a run that prunes this share."""
        return Pruning(share, self.scope, self.pattern, self.ramp, self.cuts)


@dataclass(frozen=True, kw_only=True)
class Distill(Settings):
    """Which student learns from which teacher, on which data, how long.

    Args:
        checkpoint: the teacher, a path or a name.
        model: the student, a preset of the teacher's domain or a configuration.
        data: a prepared store of the teacher's own objective.
        out: folder of the students, where a comparison that was stopped continues; None for a
            temporary one, which lives as long as the result.
        schedule: of every student.
        weight: share of the teacher's term in the loss; at 1 the labels count for nothing.
        temperature: classes are compared by softmax(logits / temperature).
        codec: the student's; None for the teacher's, or the model's own where it has one.
        subset: learn from few labels.
        seeds: students with and without the teacher, each this many.
        split: to evaluate on; None takes the test split, else the validation split.
        metric: the metric to compare; None for the objective's own.
        hardware: of training and evaluation.
    """

    checkpoint: Path
    data: Path
    out: Path | None = None
    model: Any = None
    schedule: Schedule = Schedule(steps=300, batch=32, lr=1e-3, kind="exponential")
    weight: float = 0.5
    temperature: float = 2.0
    codec: Any = None
    subset: Subset | None = None
    seeds: int = 3
    split: Literal["test", "validation", "train"] | None = None
    metric: str | None = None
    hardware: Hardware = Hardware()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, 1000, "seeds")
        if self.model is None:
            raise ConfigError(
                "distillation needs a student; give --model, a preset of the teacher's domain"
            )


def open_held_out(spec: Prune | Distill, checkpoint: Checkpoint) -> tuple[Store, HeldOut, Engine]:
    """Return the store of a spec, its held-out records for a checkpoint's objective, and an
    engine; raises ConfigError.
    """
    assert spec.data is not None
    store = Store.open(spec.data)
    if store.domain != checkpoint.body["domain"]:
        raise ConfigError(
            f"{spec.data} is of the domain {store.domain}, the checkpoint of"
            f" {checkpoint.body['domain']}"
        )
    splits: Sequence[str] = (spec.split,) if spec.split else ("test", "validation")
    held_out = HeldOut.of(store, checkpoint.objectives[0], splits, spec.metric)
    return store, held_out, Engine(choose_device(spec.hardware.device), "float32")
