"""Distillation: a run learns what another checkpoint says of each training example, besides the labels.

The term is that of Hinton et al. 2015 (arXiv 1503.02531): for classes T^2 KL(teacher || student) of softmax(logits / T),
for numbers half the squared difference of the means in units of the likelihood's scale. What a checkpoint says is its
objective's likelihood, which pretraining objectives have too (hidden bases, hidden atoms, descriptors).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.data.batches import ExampleSource
from sciforge.core.domain import Batch, Categorical, Example, Likelihood, Loss, Objective, Record, widened
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.compression_settings import Teacher
from sciforge.core.training.distributed import Engine
from sciforge.core.training.run import Run
from sciforge.errors import ConfigError

TEACHER = "teacher"  # key of the teacher's batch beside the student's, where their codecs differ


@dataclass(frozen=True)
class Pair:
    """The codecs of a student and of its teacher, for one record read twice."""

    student: Any
    teacher: Any

    def collate(self, examples: Sequence[dict[str, Example]]) -> Batch:
        """Return the student's batch, the teacher's in it under `teacher`."""
        batch = self.student.collate([example["student"] for example in examples])
        return {**batch, TEACHER: self.teacher.collate([example[TEACHER] for example in examples])}


@dataclass(frozen=True)
class DistillationObjective(Objective):
    """An objective whose loss is shared with a teacher's term; the checkpoint keeps the plain objective.

    Args:
        objective: of student and teacher alike.
        teacher: how much the teacher counts.
        model: the teacher's, in evaluation mode; worker processes, which only prepare examples, do without it.
    """

    objective: Objective
    teacher: Teacher
    model: nn.Module | None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "model": None}

    def prepare(self, record: Record, codec: Any, rng: np.random.Generator, training: bool) -> Example:
        """Prepare a record; by two codecs from the same draw, so that both see the same crop and strand."""
        if not isinstance(codec, Pair):
            return self.objective.prepare(record, codec, rng, training)
        start = rng.bit_generator.state
        student = self.objective.prepare(record, codec.student, rng, training)
        rng.bit_generator.state = start
        return {"student": student, TEACHER: self.objective.prepare(record, codec.teacher, rng, training)}

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return (1 - weight) of the objective's loss plus weight times the teacher's term, summed over targets."""
        weight = self.teacher.weight
        found = self.objective.loss(model, batch) if weight < 1 else None
        if not weight:
            return found
        with torch.set_grad_enabled(self.objective.needs_grad):
            taught = self.objective.likelihood(self.model, batch.get(TEACHER, batch))
        term, count = teacher_term(self.objective.likelihood(model, batch), taught, self.teacher.temperature)
        parts = {"teacher": (term.detach(), count)}
        if found is None:
            return Loss(term, count, parts)
        return Loss((1 - weight) * found.total + weight * term, found.count, {**found.parts, **parts})


def teacher_term(said: Likelihood, taught: Likelihood, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the divergence of a student from its teacher summed over targets, and the number of targets.

    >>> from sciforge.core.domain import Gaussian
    >>> one = torch.ones(1)
    >>> term, count = teacher_term(Gaussian(3 * one, one, one), Gaussian(one, 2 * one, one), 1.0)
    >>> float(term), int(count)
    (0.5, 1)

    Raises:
        ConfigError: they do not speak of the same targets, as when codecs cut a sequence into other tokens.
    """
    mine, theirs = (x.logits_NC if isinstance(x, Categorical) else x.mean_N for x in (said, taught))
    if mine.shape != theirs.shape:
        shapes = f"{tuple(theirs.shape)} and {tuple(mine.shape)}"
        raise ConfigError(f"teacher and student speak of other targets, {shapes}; give the student the teacher's codec")
    mine, theirs = widened(mine), widened(theirs.detach())
    count = torch.tensor(len(mine))
    if not isinstance(said, Categorical):
        return 0.5 * ((mine - theirs) / taught.scale_N.detach()).square().sum(), count
    log_p, log_q = ((x / temperature).log_softmax(-1) for x in (theirs, mine))
    return temperature**2 * F.kl_div(log_q, log_p, reduction="sum", log_target=True), count


def with_teacher(
    run: Run, streams: tuple[ExampleSource, ...], codec: Any, engine: Engine
) -> tuple[tuple[ExampleSource, ...], Any]:
    """Return the streams that a run with a teacher learns from and the codec of their batches; unchanged without one.

    Raises:
        ConfigError: the teacher is of another domain or learnt another objective.
    """
    if run.teacher is None:
        return streams, codec
    teacher, (stream,) = Checkpoint.open(run.teacher.checkpoint), streams
    if stream.objective not in teacher.objectives:
        kinds = ", ".join(type(o).__name__ for o in teacher.objectives)
        raise ConfigError(f"teacher {run.teacher.checkpoint} did not learn this very objective, but {kinds} with settings of "
                          "its own; take its objective (`sciforge distill` does)")  # fmt: skip
    model = engine.place(teacher.build()).eval().requires_grad_(False)
    taught = replace(stream, objective=DistillationObjective(stream.objective, run.teacher, model))
    return (taught,), codec if codec == teacher.codec else Pair(codec, teacher.codec)
