"""The first steps of a recorded run, taken again and compared with its metrics log and weights,
bit by bit.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from sciforge.core.files.metrics_log import TIMING
from sciforge.core.methods import finetuning
from sciforge.core.training import checkpoint as checkpoints
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine, choose_device
from sciforge.core.training.loop import stop_early, take_step
from sciforge.core.training.run import Hardware, Run, to_json
from sciforge.core.training.set_up import set_up
from sciforge.core.training.tasks import REPLAY
from sciforge.core.training.training_state import TrainingState
from sciforge.errors import ConfigError

# Float32 sums in another order agree to 1e-7 a sum, and a few optimiser steps multiply that; in a
# trial two processes
# against one were 5e-7 apart in loss after 40 steps. A step with another batch or seed is off by
# more than 1e-2; with bfloat16, whose rounding is 4e-3, only a gross difference shows.
CLOSE = {"float64": 1e-6, "float32": 1e-3, "bfloat16": 5e-2}
Lines = Mapping[int, Mapping[str, Any]]


@dataclass
class StepReplay:
    """How steps taken again compare with their record.

    Args:
        start: the step they began at, 0 for the beginning of the run.
        close: the relative difference that rounding may cause.
        steps: how many were taken.
        metrics: how many metrics were compared (losses, gradient norms, learning rates, validation
            metrics).
        tensors: how many tensors of weights were compared with a checkpoint at the same step.
        worst: the largest relative difference; 0 where all is bit-equal, infinite where a metric is
            missing or not finite.
        first: the first step and quantity that differs, with both values; "" where all is
            bit-equal.
    """

    start: int
    close: float
    steps: int = 0
    metrics: int = 0
    tensors: int = 0
    worst: float = 0.0
    first: str = ""

    @property
    def verdict(self) -> Literal["bit-equal", "equal", "different"]:
        """Whether every bit is the same, or rounding explains the difference, or not."""
        return (
            "bit-equal" if not self.first else "equal" if self.worst <= self.close else "different"
        )

    def text(self) -> str:
        """Return one line: what was compared and how it came out."""
        where = f"from step {self.start}" if self.start else "from the beginning"
        what = f"{self.steps} steps {where}: {self.metrics} metrics"
        what += f" and {self.tensors} tensors of weights" if self.tensors else ""
        if self.verdict == "different":
            return f"{what} differ, first at {self.first}"
        return (
            f"{what} are bit-equal"
            if not self.first
            else f"{what} are {agreement(self.worst)}, first at {self.first}"
        )

    def note(self, relative: float, where: str) -> None:
        """Keep the largest difference and the first place that differs."""
        if relative:
            self.worst, self.first = max(self.worst, relative), self.first or where


def agreement(relative: float) -> str:
    """Return a relative difference as the power of ten that bounds it.

    >>> agreement(0.0), agreement(3e-8), agreement(1e-7)
    ('bit-equal', 'equal to 1e-7', 'equal to 1e-7')
    """
    return (
        "bit-equal" if relative == 0 else f"equal to 1e{math.ceil(math.log10(relative) - 1e-9):d}"
    )


def difference(then: Any, now: Any) -> float:
    """Return the relative difference of two metrics; 0 only where they are the same, NaN being the
    same as NaN.

    >>> difference(2.0, 2.0), difference(float("nan"), float("nan"))
    (0.0, 0.0)
    >>> difference(1.0, None), difference(4.0, 3.0)
    (inf, 0.25)
    """
    numbers = all(isinstance(value, float | int) for value in (then, now))
    if then == now or (numbers and then != then and now != now):
        return 0.0
    if not numbers or not (math.isfinite(then) and math.isfinite(now)):
        return math.inf
    return abs(then - now) / max(abs(then), abs(now))


def read_lines(path: Path) -> Lines:
    """Return step -> all metrics that a metrics.jsonl holds of it, timing aside; damaged lines
    are passed over.
    """
    steps: dict[int, dict[str, Any]] = {}
    for text in (
        path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ()
    ):
        try:
            line = dict(json.loads(text))
            step = steps.setdefault(int(line.pop("step")), {})
            step.update({name: value for name, value in line.items() if name != TIMING})
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return steps


def recorded_hardware(run: Run, provenance: Mapping[str, Any], device: str) -> Hardware:
    """Return the hardware to take the steps on: as recorded where this machine has it, with the
    same precision.
    """
    before = str(provenance.get("device", "cpu"))
    if device == "auto":
        device = before.partition(":")[0] if torch.cuda.is_available() else "cpu"
    precision = run.hardware.precision
    if precision == "auto":
        precision = "bfloat16" if before.startswith("cuda") else "float32"
    threads = run.hardware.threads or provenance.get("threads")
    threads = threads if isinstance(threads, int) and threads > 0 else None
    return replace(
        run.hardware,
        device=str(choose_device(device)),
        precision=precision,
        threads=threads,
        workers=0,
    )


@contextmanager
def _same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class _MemoryLog:
    """What the loop would have written to its metrics log."""

    lines: dict[int, dict[str, Any]] = field(default_factory=dict)

    def write(self, step: int, **metrics: Any) -> None:
        self.lines.setdefault(step, {}).update(metrics)


def replay_steps(
    checkpoint: Checkpoint, run: Run, steps: int, lines: Lines, saved: Mapping[int, Checkpoint]
) -> StepReplay:
    """Take steps of a run again and compare them with its record.

    The steps follow those of `checkpoint` where that has resume state and the record knows later
    steps; else they are the first of the run.

    Args:
        checkpoint: a checkpoint of the run.
        run: its run, with data, init and hardware as they are here.
        steps: at most so many.
        lines: the record, of `read_lines`.
        saved: step -> checkpoint of the run; where the steps reach one, its weights are compared
            too.

    Raises:
        ConfigError: the codec fitted on the data is another than the checkpoint's.
        DataError, CheckpointError: the data or the parent cannot be opened.
    """
    run = replace(run, strategy="replicate")
    with _same_threads(), torch.random.fork_rng(devices=[]), Engine.start(run.hardware) as engine:
        state = set_up(run, engine)
        if state.codec != checkpoint.codec:
            raise ConfigError(
                f"{run.data}: the codec fitted on it is another than that of {checkpoint.path};"
                " find the data"
            )
        start = 0
        if (checkpoint.path / checkpoints.RESUME).exists() and any(
            step >= checkpoint.step for step in lines
        ):
            state.load(checkpoint)
            start = checkpoint.step
        replay, log = StepReplay(start, CLOSE[engine.precision]), _MemoryLog()
        if not start:
            recorded = checkpoint.body["loop"].get("start", {})
            for name, value in to_json(dict(state.start_notes)).items():
                replay.note(difference(recorded.get(name, value), value), f"the start, {name}")
        last = max(lines, default=-1)
        todo = tqdm(
            range(start, min(start + steps, last + 1)),
            "verify",
            unit="step",
            disable=None,
            leave=False,
        )
        old = run.replay is not None and "tasks" not in checkpoint.provenance
        for step, batches in state.data.load(todo, 0):
            metrics = take_step(state, step, batches)
            log.write(step, **(_as_before_tasks(metrics) if old else metrics))
            every, stop = run.schedule.evaluate_every, False
            if every and (step + 1) % every == 0:
                stop = stop_early(state, step, log)  # type: ignore[arg-type]
            replay.steps += 1
            _compare_metrics(replay, step, lines.get(step, {}), log.lines[step])
            if step + 1 in saved:
                _compare_weights(replay, state, step, saved[step + 1].tensors())
            if stop:
                break
    return replay


def _as_before_tasks(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics by the names that runs with replay wrote before replay was a task.

    >>> _as_before_tasks({"loss": 1.0, "loss_replay": 2.0, "accuracy_replay": 0.5})
    {'loss': 1.0, 'replay_accuracy': 0.5}
    """
    end = f"_{REPLAY}"
    return {
        f"replay_{name.removesuffix(end)}" if name.endswith(end) else name: value
        for name, value in metrics.items()
        if not name.startswith("loss_")
    }


def _compare_metrics(
    replay: StepReplay, step: int, then: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    now = {name: value for name, value in now.items() if name != TIMING}
    for name in {**then, **now}:  # in the order they were written
        one, other = then.get(name), now.get(name)
        replay.metrics += 1
        replay.note(difference(one, other), f"step {step}, {name}: {one} then, {other} now")


def _compare_weights(
    replay: StepReplay, state: TrainingState, step: int, then: Mapping[str, Tensor]
) -> None:
    with state.evaluated_weights():
        now = finetuning.merged_state(state.model, state.engine.full_state(state.model))
    for name in {**then, **now}:
        one, other = then.get(name), now.get(name)
        replay.tensors += 1
        if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
            replay.note(math.inf, f"the weights after step {step}, {name}: of another shape")
        elif not torch.equal(one, other):
            apart, size = (
                float(x.double().abs().max()) for x in (one.double() - other.double(), one)
            )
            relative = apart / size if size else math.inf
            relative = relative if math.isfinite(relative) else math.inf
            replay.note(relative, f"the weights after step {step}, {name}: up to {apart:.2g} apart")
