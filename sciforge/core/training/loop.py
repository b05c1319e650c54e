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
from sciforge.core.files.metrics_log import Journal
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import Tally, evaluate, means
from sciforge.core.training.run import Run
from sciforge.core.training.training_state import Job, own_folder
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
        job = Job.set_up(run, engine)
        start = job.restore() if resume else 0
        if start is None:
            return Checkpoint.open(run.out / "final")
        with closing(Journal(run.out / "metrics.jsonl" if engine.main else None, schedule.steps, start)) as journal:
            for step, batches in job.data.load(range(start, schedule.steps), run.hardware.workers):
                figures = take_step(job, step, batches)
                journal.write(step, **figures)
                journal.advance(loss=figures["loss"])
                if _due(step + 1, schedule.evaluate_every) and stop_early(job, step, journal):
                    break
                if _due(step + 1, schedule.save_every) and step + 1 < schedule.steps:
                    journal.sync()
                    job.save(run.out / f"step-{step + 1:08d}", step + 1, resume=True)
            return job.finish()


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def take_step(job: Job, step: int, batches: list[list[Batch]]) -> dict[str, float]:
    """Take one optimiser step and return the figures to journal."""
    job.model.train()
    seed = sampling.generator(job.run.seed, sampling.ORDER, step, job.engine.part + 1).integers(2**62)
    torch.manual_seed(int(seed))  # for dropout
    if job.zeros:
        job.zeros.before(step, job.average)
    if job.private:
        with _enough_memory(job):
            figures = job.private.take_gradient(job, step, *batches)
    else:
        figures = _gradients(job, step, batches)
    if job.anchor:
        figures["penalty"] = float(job.anchor.penalty())
        job.anchor.add_gradient()
    if job.zeros:
        job.zeros.of_gradients()
    moving = [p for group in job.groups for p in group.parameters if p.grad is not None]
    norm = job.engine.clip(moving, job.run.schedule.clip or math.inf)
    if not math.isfinite(norm):
        raise DivergedError(f"step {step}: the gradient is not finite; {_records(job, step)}; lower schedule.rate")
    rate = job.run.schedule.rate_at(step)
    for options, group in zip(job.optimizer.param_groups, job.groups, strict=True):
        options["lr"] = rate * group.factor
    job.optimizer.step()
    if job.anchor:
        job.anchor.proximal_step(job.optimizer)
    if job.zeros:
        job.zeros.after()
    if job.average:
        job.average.update(step)
    return {**figures, "rate": rate, "grad_norm": norm}


def _gradients(job: Job, step: int, batches: list[list[Batch]]) -> dict[str, float]:
    """Leave in `.grad` the gradient of the global mean loss; of two streams, by their share of the batch."""
    figures: dict[str, float] = {"loss": 0.0}
    parameters = [p for group in job.groups for p in group.parameters]
    held: list[Tensor | None] = [None] * len(parameters)
    job.optimizer.zero_grad()
    for stream, micro in zip(job.data.streams, batches, strict=True):
        sums = job.engine.sum(_backward(job, stream.objective, micro))
        total, count = sums.pop("loss")
        if not math.isfinite(total) or not count > 0:
            raise DivergedError(f"step {step}: loss {total} over {count:g}; {_records(job, step)}; lower schedule.rate")
        job.engine.reduce_grads(parameters)
        weight = stream.batch / job.run.schedule.batch
        for i, parameter in enumerate(parameters):
            if parameter.grad is not None:
                grad = parameter.grad.mul_(weight / count)
                held[i] = grad if held[i] is None else held[i].add_(grad)
            parameter.grad = None
        figures["loss"] += weight * total / count
        prefix = "" if stream is job.data.streams[0] else "replay_"
        figures |= {prefix + name: value for name, value in means(sums).items()}
    frozen = [step < group.frozen_steps for group in job.groups for _ in group.parameters]
    for parameter, grad, still in zip(parameters, held, frozen, strict=True):
        parameter.grad = None if still else grad
    return figures


def _backward(job: Job, objective: Objective, micro: Sequence[Batch]) -> dict[str, tuple[float, float]]:
    """Go backward on the summed loss of each micro-batch; return the (sum, count) of the loss and its parts."""
    tally = Tally()
    with _enough_memory(job):
        for batch in micro:
            with job.engine.autocast():
                loss = objective.loss(job.call, job.engine.move(batch))
            loss.total.backward()
            tally.add(loss)
    return tally.pairs


@contextmanager
def _enough_memory(job: Job) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of which torch.OutOfMemoryError is one; the CPU's allocator has no type of its own
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        size = job.run.hardware.micro_batch or job.run.schedule.batch
        hint = f"set hardware.micro_batch {max(size // 2, 1)} or hardware.checkpointing"
        raise ConfigError(f"out of memory on {job.engine.device} with {size} examples at once; {hint}") from None


def _records(job: Job, step: int) -> str:
    """Name the records of a step, over all processes."""
    named = []
    for stream in job.data.streams:
        found = [index for _, index in job.data.indices(stream, step)]
        more = ", ..." if len(found) > 8 else ""
        place = job.run.data if stream is job.data.streams[0] else job.run.replay.data
        named.append(f"training records {', '.join(map(str, found[:8]))}{more} of {place}")
    return " and ".join(named)


def stop_early(job: Job, step: int, journal: Journal) -> bool:
    """Evaluate on the development split; return whether to stop."""
    objective, watch, patience = job.objectives[0], job.watch, job.run.schedule.patience
    size = job.run.hardware.micro_batch or job.run.schedule.batch
    with _enough_memory(job), job.averaged():
        watch.metrics = evaluate(job.model, objective, job.codec, job.dev, job.engine, job.run.seed, size)
    journal.write(step, **{f"dev_{name}": value for name, value in watch.metrics.items()})
    value = watch.metrics[objective.metric] * (1 if objective.higher_is_better else -1)
    value = -math.inf if math.isnan(value) else value
    if watch.best["value"] is None or value > watch.best["value"]:
        watch.best = {"value": value, "step": step + 1, "bad": 0, "metrics": watch.metrics}
        if patience:
            with job.averaged():
                watch.state = job.engine.full_state(job.model)
    else:
        watch.best["bad"] += 1
    return 0 < patience <= watch.best["bad"]
