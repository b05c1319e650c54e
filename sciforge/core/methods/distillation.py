"""Distillation: a run learns what another checkpoint predicts for each training example, besides
the labels.

The term is that of Hinton et al. 2015 (arXiv 1503.02531): for classes T^2 KL(teacher || student) of
softmax(logits / T), for numbers half the squared difference of the means in units of the
likelihood's scale. What a checkpoint predicts is its objective's likelihood, which pretraining
objectives have too (hidden bases, hidden atoms, descriptors).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.data.batches import ExampleSource
from sciforge.core.domain import (
    Batch,
    Categorical,
    Codec,
    Example,
    Likelihood,
    Loss,
    Objective,
    Record,
    widened,
)
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError

if TYPE_CHECKING:
    from sciforge.core.training.checkpoint import Checkpoint
    from sciforge.core.training.distributed import Engine

TEACHER = "teacher"  # key of the teacher's batch beside the student's, where their codecs differ


@dataclass(frozen=True)
class Teacher(Settings):
    """Learn what another checkpoint of the same objective predicts (Hinton et al. 2015, arXiv
    1503.02531).

    Args:
        checkpoint: the teacher.
        weight: share of the teacher's term in the loss; at 1 the labels count for nothing.
        temperature: classes are compared by softmax(logits / temperature), and the term is scaled
            by its square; means of numbers are compared as they are.
    """

    checkpoint: Path
    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, 1, "weight")
        self.require(1e-3, 1e3, "temperature")


@dataclass(frozen=True)
class CodecPair:
    """The codecs of a student and of its teacher, for one record read twice."""

    student: Codec
    teacher: Codec

    def collate(self, examples: Sequence[dict[str, Example]]) -> Batch:
        """Return the student's batch, the teacher's in it under `teacher`."""
        batch = self.student.collate([example["student"] for example in examples])
        return {**batch, TEACHER: self.teacher.collate([example[TEACHER] for example in examples])}


@dataclass(frozen=True)
class DistillationObjective(Objective):
    """An objective whose loss is shared with a teacher's term; the checkpoint keeps the plain
    objective.

    Args:
        objective: of student and teacher alike.
        teacher: how much the teacher counts.
        model: the teacher's, in evaluation mode; worker processes, which only prepare examples, do
            without it.
    """

    objective: Objective
    teacher: Teacher
    model: nn.Module | None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "model": None}

    def prepare(
        self, record: Record, codec: Any, rng: np.random.Generator, training: bool
    ) -> Example:
        """Prepare a record; by two codecs from the same draw, so that both see the same crop."""
        if not isinstance(codec, CodecPair):
            return self.objective.prepare(record, codec, rng, training)
        start = rng.bit_generator.state
        student = self.objective.prepare(record, codec.student, rng, training)
        rng.bit_generator.state = start
        return {
            "student": student,
            TEACHER: self.objective.prepare(record, codec.teacher, rng, training),
        }

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return (1 - weight) of the objective's loss plus weight times the teacher's term,
        summed over targets.
        """
        weight = self.teacher.weight
        loss = self.objective.loss(model, batch) if weight < 1 else None
        if loss is not None and not weight:
            return loss
        assert self.model is not None  # worker processes compute no loss
        with torch.set_grad_enabled(self.objective.needs_grad):
            taught = self.objective.likelihood(self.model, batch.get(TEACHER, batch))
        term, count = teacher_term(
            self.objective.likelihood(model, batch), taught, self.teacher.temperature
        )
        parts = {"teacher": (term.detach(), count)}
        if loss is None:
            return Loss(term, count, parts)
        return Loss((1 - weight) * loss.total + weight * term, loss.count, {**loss.parts, **parts})


def teacher_term(
    student: Likelihood, teacher: Likelihood, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the divergence of a student from its teacher summed over targets, and the number of
    targets.

    >>> from sciforge.core.domain import Gaussian
    >>> one = torch.ones(1)
    >>> term, count = teacher_term(Gaussian(3 * one, one, one), Gaussian(one, 2 * one, one), 1.0)
    >>> float(term), int(count)
    (0.5, 1)

    Raises:
        ConfigError: they predict other targets, as when codecs cut a sequence into other tokens.
    """
    predicted, taught = (
        x.logits_NC if isinstance(x, Categorical) else x.mean_N for x in (student, teacher)
    )
    if type(student) is not type(teacher) or predicted.shape != taught.shape:
        shapes = f"{tuple(taught.shape)} and {tuple(predicted.shape)}"
        raise ConfigError(
            f"teacher and student predict other targets, {shapes}; give the student the teacher's"
            " codec"
        )
    predicted, taught = widened(predicted), widened(taught.detach())
    count = torch.tensor(len(predicted))
    if not isinstance(teacher, Categorical):
        return 0.5 * ((predicted - taught) / teacher.scale_N.detach()).square().sum(), count
    log_p, log_q = ((x / temperature).log_softmax(-1) for x in (taught, predicted))
    return temperature**2 * F.kl_div(log_q, log_p, reduction="sum", log_target=True), count


def with_teacher(
    source: ExampleSource, codec: Codec, settings: Teacher, teacher: "Checkpoint", engine: "Engine"
) -> tuple[ExampleSource, Any]:
    """Return the examples that a run with a teacher learns from, and the codec of their batches.

    Args:
        source: the examples without a teacher.
        codec: the student's.
        settings: how much the teacher counts.
        teacher: its checkpoint, opened.
        engine: places the teacher's network.

    Raises:
        ConfigError: the teacher learnt another objective.
    """
    if source.objective not in teacher.objectives:
        kinds = ", ".join(type(o).__name__ for o in teacher.objectives)
        raise ConfigError(
            f"teacher {settings.checkpoint} did not learn this very objective, but {kinds} with"
            " settings of its own; take its objective (`sciforge distill` does)"
        )
    model = engine.place(teacher.build()).eval().requires_grad_(False)
    distilled = replace(source, objective=DistillationObjective(source.objective, settings, model))
    return distilled, codec if codec == teacher.codec else CodecPair(codec, teacher.codec)
