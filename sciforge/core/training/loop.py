"""The training loop: pretraining and fine-tuning are the one function `train(Run)`.

A step: the methods' `before_step`; for each micro-batch the loss, backward on the sum; loss and
count summed over processes; stop if not finite; gradients reduced and divided by the global count;
`after_backward`; clip; the learning rate of the schedule; the optimiser; `after_step`; log;
evaluate and save when due.
"""

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from typing import Any

import torch
from torch import Tensor

from sciforge.core.data import sampling
from sciforge.core.domain import Batch
from sciforge.core.files.metrics_log import MetricsLog
from sciforge.core.heads import heads_of
from sciforge.core.training.agreement import settings, version
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import evaluate
from sciforge.core.training.run import Run
from sciforge.core.training.set_up import own_folder, set_up
from sciforge.core.training.stop_signals import StopSignals
from sciforge.core.training.training_state import TrainingState
from sciforge.core.transfers import as_numbers
from sciforge.errors import DivergedError, StoppedError

LOGGER = logging.getLogger("sciforge")


def train(run: Run, *, resume: bool = False) -> Checkpoint:
    """Train as `run` says and return the finished checkpoint (`run.out/final`).

    Args:
        run: everything that decides the result.
        resume: continue from the newest checkpoint in `run.out`; the result is bit-equal to a run
            never stopped.

    Raises:
        ConfigError: settings that contradict each other, or `run.out` is in use or holds another
            run.
        DataError, CheckpointError: `run.data` or `run.init` is missing or damaged, or the disk is
            full.
        DivergedError: the loss or gradient is not finite; names the records. The last checkpoint
            stays as it was.
        StoppedError: SIGTERM or SIGUSR1 came, and a checkpoint to resume from is saved; a
            SystemExit with code 75.
    """
    schedule, same_generator = run.schedule, torch.random.fork_rng(devices=[])
    with (
        StopSignals(run.out).handled() as stop,
        same_generator,
        _processes(run, resume) as engine,
        own_folder(run.out, engine, resume),
    ):
        state = set_up(run, engine)
        start = state.restore() if resume else 0
        engine.compare({"checkpoint to resume from": {"step": str(start)}})
        if start is None:
            LOGGER.info("%s: finished already, nothing to resume", run.out)
            return Checkpoint.open(run.out / "final")
        if resume:
            begin = (
                f"resuming from step {start}"
                if start
                else "nothing to resume from, starting at step 0"
            )
            LOGGER.info("%s: %s", run.out, begin)
        LOGGER.info(
            "%s: steps %d to %d of %s",
            run.out,
            start,
            schedule.steps,
            " and ".join(type(objective).__name__ for objective in state.objectives),
        )
        folder = run.out if engine.main else None
        options: dict[str, Any] = {
            "examples": schedule.batch,
            "device": engine.device,
            "tensorboard": run.log == "tensorboard",
        }
        with closing(MetricsLog(folder, schedule.steps, start, **options)) as metrics_log:
            stop.note_stepping()
            for step, batches in state.data.load(
                range(start, schedule.steps), run.hardware.workers, engine.device
            ):
                engine.note_step(step + 1)
                metrics = take_step(state, step, batches)
                metrics_log.step(step, **metrics)
                if _due(step + 1, schedule.evaluate_every) and stop_early(state, step, metrics_log):
                    break
                stopped = engine.any(stop.received is not None)
                if (stopped or _due(step + 1, schedule.save_every)) and step + 1 < schedule.steps:
                    metrics_log.sync()
                    state.save(run.out / f"step-{step + 1:08d}", step + 1, resume=True)
                    stop.note_saved()
                    if stopped:
                        raise _stopped(run, step + 1, stop.received)
            return state.finish()


def _stopped(run: Run, step: int, received: str | None) -> BaseException:
    """Return the error that ends a run which a signal stopped; Ctrl-C stays a KeyboardInterrupt."""
    done = (
        f"{run.out}: stopped by {received or 'a signal to another process'} after step {step} of"
        f" {run.schedule.steps}"
    )
    line = f"{done}; checkpoint saved, continue with --resume (in Python: resume=True)"
    return KeyboardInterrupt(line) if received == "SIGINT" else StoppedError(line)


def _processes(run: Run, resume: bool) -> AbstractContextManager[Engine]:
    """Start the engine; several processes must have been told the same, by the same version."""

    def must_agree() -> dict[str, dict[str, str]]:
        return {"run": {**settings(run), "resume": str(resume)}, "version": version()}

    return Engine.start(run.hardware, run.strategy, must_agree)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def take_step(
    state: TrainingState, step: int, batches: Sequence[Sequence[Batch]]
) -> dict[str, float]:
    """Take one optimiser step and return the metrics to log."""
    state.model.train()
    seed = sampling.generator(state.run.seed, sampling.ORDER, step, state.engine.part + 1).integers(
        2**62
    )
    torch.manual_seed(int(seed))  # for dropout
    for method in state.methods:
        method.before_step(state, step)
    with state.enough_memory():
        metrics: dict[str, float | Tensor] = {**state.gradient(state, step, batches)}
    for method in state.methods:
        metrics |= method.after_backward(state, step)
    training = [p for group in state.groups for p in group.parameters if p.grad is not None]
    metrics["grad_norm"] = state.engine.clip(training, state.run.schedule.clip or math.inf)
    numbers = as_numbers(metrics)
    norm = numbers.pop("grad_norm")
    if not math.isfinite(norm):
        where = f"step {step}: the gradient is not finite; {state.records_of(step)}"
        raise DivergedError(f"{where}; lower schedule.lr")
    lr = state.run.schedule.lr_at(step)
    for options, group in zip(state.optimizer.param_groups, state.groups, strict=True):
        options["lr"] = lr * group.factor
    state.optimizer.step()
    for method in state.methods:
        method.after_step(state, step)
    return {**numbers, "lr": lr, "grad_norm": norm}


def stop_early(state: TrainingState, step: int, metrics_log: MetricsLog) -> bool:
    """Evaluate on the validation split of each task; return whether to stop, by the first."""
    objective, stopping, run = state.objectives[0], state.early_stopping, state.run
    size = run.hardware.micro_batch or run.schedule.batch
    with state.enough_memory(), state.evaluated_weights():
        metrics: dict[str, float] = {}
        for number, task in enumerate(state.tasks):
            if number and not len(task.validation):
                continue
            learnt, records = (task.objective, state.codec), task.validation
            with heads_of(state.model, task.scope):
                own = evaluate(state.model, *learnt, records, state.engine, run.seed, size)
            suffix = f"_{task.name}" if number else ""
            metrics |= {f"{name}{suffix}": value for name, value in own.items()}
        stopping.metrics = dict(metrics)
        metrics_log.write(step, **{f"validation_{name}": value for name, value in metrics.items()})
        LOGGER.info(
            "step %d: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        )
        value = metrics[objective.metric] * (1 if objective.higher_is_better else -1)
        if (
            stopping.improves(-math.inf if math.isnan(value) else value, step + 1)
            and run.schedule.patience
        ):
            stopping.state = state.engine.full_state(state.model)
    return 0 < run.schedule.patience <= stopping.best["bad"]
