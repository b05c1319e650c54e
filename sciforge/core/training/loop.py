"""THE training loop: pretraining and fine-tuning are the one function `train(Run)`.

In words: take this step's examples; for each micro-batch compute the loss and go backward on the sum; sum loss and
count over processes; stop if not finite; reduce gradients; divide by the global count; add the anchor's closed-form
gradient; clip; set the schedule's rate; step; journal; evaluate and save when due.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import torch
from torch import Tensor

from sciforge.core.data import sampling
from sciforge.core.domain import Batch, Objective
from sciforge.core.files.metrics_log import MetricsLog
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import Tally, evaluate, means
from sciforge.core.training.run import Run
from sciforge.core.training.training_state import TrainingState, own_folder
from sciforge.errors import ConfigError, DivergedError


def train(run: Run, *, resume: bool = False) -> Checkpoint:
    """Train as `run` says and return the finished checkpoint (`run.out/final`).

    Args:
        run: everything that decides the result.
        resume: continue from the newest checkpoint in `run.out`; the result is bit-equal to a run never stopped.

    Raises:
        ConfigError: settings that contradict each other, or `run.out` is in use or holds another run.
        DataError, CheckpointError: `run.data` or `run.init` is missing or damaged, or the disk is full.
        DivergedError: the loss or gradient is not finite; names the records. The last checkpoint stays as it was.
    """
    schedule, kept_rng = run.schedule, torch.random.fork_rng(devices=[])
    with kept_rng, Engine.start(run.hardware, run.strategy) as engine, own_folder(run.out, engine, resume):
        state = TrainingState.set_up(run, engine)
        start = state.restore() if resume else 0
        if start is None:
            return Checkpoint.open(run.out / "final")
        with closing(
            MetricsLog(run.out / "metrics.jsonl" if engine.main else None, schedule.steps, start)
        ) as metrics_log:
            for step, batches in state.data.load(range(start, schedule.steps), run.hardware.workers):
                metrics = take_step(state, step, batches)
                metrics_log.write(step, **metrics)
                metrics_log.advance(loss=metrics["loss"])
                if _due(step + 1, schedule.evaluate_every) and stop_early(state, step, metrics_log):
                    break
                if _due(step + 1, schedule.save_every) and step + 1 < schedule.steps:
                    metrics_log.sync()
                    state.save(run.out / f"step-{step + 1:08d}", step + 1, resume=True)
            return state.finish()


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def take_step(state: TrainingState, step: int, batches: list[list[Batch]]) -> dict[str, float]:
    """Take one optimiser step and return the metrics to journal."""
    state.model.train()
    seed = sampling.generator(state.run.seed, sampling.ORDER, step, state.engine.part + 1).integers(2**62)
    torch.manual_seed(int(seed))  # for dropout
    if state.zeros:
        state.zeros.before(step, state.average)
    if state.private:
        with _enough_memory(state):
            metrics = state.private.take_gradient(state, step, *batches)
    else:
        metrics = _gradients(state, step, batches)
    if state.anchor:
        metrics["penalty"] = float(state.anchor.penalty())
        state.anchor.add_gradient()
    if state.zeros:
        state.zeros.of_gradients()
    moving = [p for group in state.groups for p in group.parameters if p.grad is not None]
    norm = state.engine.clip(moving, state.run.schedule.clip or math.inf)
    if not math.isfinite(norm):
        raise DivergedError(f"step {step}: the gradient is not finite; {_records(state, step)}; lower schedule.lr")
    lr = state.run.schedule.lr_at(step)
    for options, group in zip(state.optimizer.param_groups, state.groups, strict=True):
        options["lr"] = lr * group.factor
    state.optimizer.step()
    if state.anchor:
        state.anchor.proximal_step(state.optimizer)
    if state.zeros:
        state.zeros.after()
    if state.average:
        state.average.update(step)
    return {**metrics, "lr": lr, "grad_norm": norm}


def _gradients(state: TrainingState, step: int, batches: list[list[Batch]]) -> dict[str, float]:
    """Leave in `.grad` the gradient of the global mean loss; of two streams, by their share of the batch."""
    metrics: dict[str, float] = {"loss": 0.0}
    parameters = [p for group in state.groups for p in group.parameters]
    held: list[Tensor | None] = [None] * len(parameters)
    state.optimizer.zero_grad()
    for stream, micro in zip(state.data.streams, batches, strict=True):
        sums = state.engine.sum(_backward(state, stream.objective, micro))
        total, count = sums.pop("loss")
        if not math.isfinite(total) or not count > 0:
            raise DivergedError(f"step {step}: loss {total} over {count:g}; {_records(state, step)}; lower schedule.lr")
        state.engine.reduce_grads(parameters)
        weight = stream.batch / state.run.schedule.batch
        for i, parameter in enumerate(parameters):
            if parameter.grad is not None:
                grad = parameter.grad.mul_(weight / count)
                held[i] = grad if held[i] is None else held[i].add_(grad)
            parameter.grad = None
        metrics["loss"] += weight * total / count
        prefix = "" if stream is state.data.streams[0] else "replay_"
        metrics |= {prefix + name: value for name, value in means(sums).items()}
    frozen = [step < group.frozen_steps for group in state.groups for _ in group.parameters]
    for parameter, grad, still in zip(parameters, held, frozen, strict=True):
        parameter.grad = None if still else grad
    return metrics


def _backward(state: TrainingState, objective: Objective, micro: Sequence[Batch]) -> dict[str, tuple[float, float]]:
    """Go backward on the summed loss of each micro-batch; return the (sum, count) of the loss and its parts."""
    tally = Tally()
    with _enough_memory(state):
        for batch in micro:
            with state.engine.autocast():
                loss = objective.loss(state.call, state.engine.move(batch))
            loss.total.backward()
            tally.add(loss)
    return tally.pairs


@contextmanager
def _enough_memory(state: TrainingState) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of which torch.OutOfMemoryError is one; the CPU's allocator has no type of its own
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        size = state.run.hardware.micro_batch or state.run.schedule.batch
        hint = f"set hardware.micro_batch {max(size // 2, 1)} or hardware.checkpointing"
        raise ConfigError(f"out of memory on {state.engine.device} with {size} examples at once; {hint}") from None


def _records(state: TrainingState, step: int) -> str:
    """Name the records of a step, over all processes."""
    named = []
    for stream in state.data.streams:
        found = [index for _, index in state.data.indices(stream, step)]
        more = ", ..." if len(found) > 8 else ""
        place = state.run.data if stream is state.data.streams[0] else state.run.replay.data
        named.append(f"training records {', '.join(map(str, found[:8]))}{more} of {place}")
    return " and ".join(named)


def stop_early(state: TrainingState, step: int, metrics_log: MetricsLog) -> bool:
    """Evaluate on the validation split; return whether to stop."""
    objective, watch, patience = state.objectives[0], state.watch, state.run.schedule.patience
    size = state.run.hardware.micro_batch or state.run.schedule.batch
    with _enough_memory(state), state.averaged():
        watch.metrics = evaluate(
            state.model, objective, state.codec, state.validation, state.engine, state.run.seed, size
        )
    metrics_log.write(step, **{f"validation_{name}": value for name, value in watch.metrics.items()})
    value = watch.metrics[objective.metric] * (1 if objective.higher_is_better else -1)
    value = -math.inf if math.isnan(value) else value
    if watch.best["value"] is None or value > watch.best["value"]:
        watch.best = {"value": value, "step": step + 1, "bad": 0, "metrics": watch.metrics}
        if patience:
            with state.averaged():
                watch.state = state.engine.full_state(state.model)
    else:
        watch.best["bad"] += 1
    return 0 < patience <= watch.best["bad"]
