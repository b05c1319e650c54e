"""THE training loop: pretraining and fine-tuning are the one function `train(Run)`.

In words: take this step's examples; for each micro-batch compute the loss and go backward on the sum; sum loss and
count over processes; stop if not finite; reduce gradients; divide by the global count; add the anchor's closed-form
gradient; clip; set the schedule's rate; step; journal; evaluate and save when due.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sciforge.core import adapt, anchor, checkpoint, order
from sciforge.core.checkpoint import Checkpoint
from sciforge.core.domain import Batch, Loss, Objective, Record, get_domain, seeded_model
from sciforge.core.engine import Engine
from sciforge.core.evaluate import evaluate, frozen_dropout
from sciforge.core.folder import sweep, try_lock
from sciforge.core.journal import Journal
from sciforge.core.run import EWC, LoRA, Run
from sciforge.core.store import Store
from sciforge.errors import CheckpointError, ConfigError, DivergedError


@dataclass(frozen=True)
class Stream:
    """Examples and the objective that learns from them; replay is a second stream beside the first."""

    objective: Objective
    records: Sequence[Record]
    batch: int


@dataclass(frozen=True)
class StepData(Dataset):
    """The micro-batches of a step, for one process: a pure function of the step, so any worker may make them."""

    streams: tuple[Stream, ...]
    codec: Any
    seed: int
    rank: int
    world: int
    micro_batch: int | None

    def indices(self, stream: Stream, step: int) -> list[tuple[int, int]]:
        """Return this process's (epoch, index) pairs."""
        chosen = order.step_indices(len(stream.records), stream.batch, self.seed, step)
        return list(order.share_of_rank(chosen, self.rank, self.world))

    def __getitem__(self, step: int) -> list[list[Batch]]:
        batches = []
        for stream in self.streams:
            examples = []
            for epoch, index in self.indices(stream, step):
                rng = order.generator(self.seed, order.CORRUPT, epoch, index)
                examples.append(stream.objective.prepare(stream.records[index], self.codec, rng, training=True))
            batches.append([self.codec.collate(part) for part in order.micro_batches(examples, self.micro_batch)])
        return batches


def train(run: Run, *, resume: bool = False) -> Checkpoint:
    """Train as `run` says and return the finished checkpoint (`run.out/final`).

    Args:
        run: everything that decides the result.
        resume: continue from the newest checkpoint in `run.out`; the result is bit-equal to a run never stopped.

    Raises:
        ConfigError: settings that contradict each other, or `run.out` is in use or holds another run.
        DataError, CheckpointError: `run.data` or `run.init` is missing or damaged.
        DivergedError: the loss or gradient is not finite; names the records. The last checkpoint stays as it was.
    """
    with Engine.start(run.hardware, run.strategy) as engine, _own_folder(run, engine, resume):
        job = Job.set_up(run, engine)
        start = job.restore() if resume else 0
        if start is None:
            return Checkpoint.open(run.out / "final")
        journal = Journal(run.out / "metrics.jsonl" if engine.main else None, run.schedule.steps, start)
        try:
            for step, batches in _load(job.data, range(start, run.schedule.steps), run.hardware.workers):
                job.step(step, batches, journal)
                if job.due(step + 1, run.schedule.evaluate_every) and job.evaluate(step, journal):
                    break
                if job.due(step + 1, run.schedule.save_every) and step + 1 < run.schedule.steps:
                    journal.sync()
                    job.save(run.out / f"step-{step + 1:08d}", step + 1, resume=True)
            return job.finish()
        finally:
            journal.close()


@contextmanager
def _own_folder(run: Run, engine: Engine, resume: bool) -> Iterator[None]:
    """Lock `run.out` against a second run and refuse to mix two runs in it."""
    lock, problem = None, None
    if engine.main:
        try:
            run.out.mkdir(parents=True, exist_ok=True)
            sweep(run.out)
            if (lock := try_lock(run.out)) is None:
                problem = f"{run.out}: another process is training here; wait for it or choose another --out"
            elif not resume and any(run.out.iterdir()):
                problem = f"{run.out}: not empty; add --resume to continue that run, or choose another --out"
        except OSError as error:
            problem = f"{run.out}: {error.strerror}; choose another --out"
    try:
        if problem := engine.agree(problem):
            raise ConfigError(problem)
        yield
    finally:
        if lock is not None:
            import os

            os.close(lock)


def _load(data: StepData, steps: range, workers: int) -> Iterator[tuple[int, list[list[Batch]]]]:
    if not workers:
        yield from ((step, data[step]) for step in steps)
    elif len(steps):
        loader = DataLoader(data, batch_size=None, sampler=steps, num_workers=workers, multiprocessing_context="spawn")
        yield from zip(steps, loader, strict=True)


@dataclass
class Job:
    """A run in progress: what `Run` names, opened and placed."""

    run: Run
    engine: Engine
    domain: Any
    store: Store
    parent: Checkpoint | None
    codec: Any
    model_config: Any
    objectives: tuple[Objective, ...]
    model: nn.Module
    call: Any
    data: StepData
    dev: Sequence[Record]
    optimizer: torch.optim.Optimizer
    groups: list[adapt.Group]
    anchor: anchor.Anchor | None
    best: dict[str, Any]
    best_state: dict[str, Tensor] | None = None
    metrics: dict[str, Any] | None = None

    @classmethod
    def set_up(cls, run: Run, engine: Engine) -> "Job":
        """Open data and parent, build and place the model, the optimiser and the anchor."""
        store = Store.open(run.data)
        domain = get_domain(store.domain)
        if engine.shard and not domain.shardable:
            raise ConfigError(f"models of {domain.name} cannot be sharded (double backward); use --strategy replicate")
        parent = None if run.init is None else Checkpoint.open(run.init)
        codec, config = _codec_and_config(run, domain, store, parent)
        objectives, streams = _streams(run, domain, store, parent)
        for stream in streams:
            if not len(stream.records):
                raise ConfigError(f"{run.data}: no training records in the store; prepare it with another split")
        model = seeded_model(config, codec, objectives, run.seed)
        fresh = _load_parent(model, objectives, parent)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            adapt.apply(model, run.adapt, fresh)
        _set_checkpointing(model, run)
        engine.place(model)
        groups = adapt.groups(model, run.adapt, fresh, run.schedule)
        options = [{"params": g.parameters, "lr": 0.0, "weight_decay": g.decay} for g in groups]
        optimizer = torch.optim.AdamW(options, betas=run.schedule.betas, fused=not engine.shard)
        call = torch.compile(model) if run.hardware.compile else model
        data = StepData(streams, codec, run.seed, engine.rank, engine.world, run.hardware.micro_batch)
        if engine.shard and any(s.batch % engine.world for s in streams):
            raise ConfigError(f"schedule.batch {run.schedule.batch} must be a multiple of {engine.world} processes")
        dev = streams[0].objective.examples(store, "dev")
        job = cls(run, engine, domain, store, parent, codec, config, objectives, model, call, data, dev, optimizer,
                  groups, None, {"value": None, "step": None, "bad": 0})  # fmt: skip
        if run.anchor is not None:
            job.anchor = job._anchor()
        return job

    def _anchor(self) -> anchor.Anchor:
        kind, fisher = self.run.anchor, None
        if isinstance(self.run.adapt, LoRA):
            raise ConfigError("LoRA freezes the weights that an anchor would hold; choose one of them")
        if isinstance(kind, EWC):
            name = f"fisher-{kind.estimator}.safetensors"
            if name in self.parent.body["files"]:
                fisher = self.parent.weights(name)
            elif kind.data is None:
                raise ConfigError(f"{self.run.init} holds no {kind.estimator} Fisher; run `sciforge fisher`, or give anchor.data")
            else:
                fisher = parent_fisher(self.parent, kind, self.engine, self.run.seed)
        return anchor.build(kind, self.model, self.parent.weights(), fisher, self.engine)

    def step(self, step: int, batches: list[list[Batch]], journal: Journal) -> None:
        """Take one optimiser step."""
        engine, schedule = self.engine, self.run.schedule
        self.model.train()
        torch.manual_seed(int(order.generator(self.run.seed, order.ORDER, step, engine.rank + 1).integers(2**62)))
        figures = self.gradients(step, batches)
        if self.anchor:
            figures["penalty"] = float(self.anchor.penalty())
            self.anchor.add_gradient()
        parameters = [p for group in self.groups for p in group.parameters if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, schedule.clip or math.inf)
        norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if not math.isfinite(norm):
            raise DivergedError(f"step {step}: the gradient is not finite; {self._records(step)}; lower --schedule.rate")
        rate = schedule.rate_at(step)
        for options, group in zip(self.optimizer.param_groups, self.groups, strict=True):
            options["lr"] = 0.0 if step < group.frozen_steps else rate * group.factor
        self.optimizer.step()
        if self.anchor:
            self.anchor.proximal_step(rate)
        journal.write(step, **figures, rate=rate, grad_norm=norm)
        journal.advance(loss=figures["loss"])

    def gradients(self, step: int, batches: list[list[Batch]]) -> dict[str, float]:
        """Leave in `.grad` the gradient of the global mean loss, and return the figures to journal."""
        figures: dict[str, float] = {"loss": 0.0}
        kept: list[Tensor] | None = None
        parameters = [p for group in self.groups for p in group.parameters]
        total_batch = sum(stream.batch for stream in self.data.streams)
        for stream, micro in zip(self.data.streams, batches, strict=True):
            self.optimizer.zero_grad()
            sums = self.backward(stream.objective, micro)
            keys = sorted(sums)
            reduced = dict(zip(keys, zip(*[iter(self.engine.sum([v for k in keys for v in sums[k]]))] * 2), strict=True))
            total, count = reduced.pop("loss", (0.0, 0.0))
            if not math.isfinite(total) or not count > 0:
                raise DivergedError(f"step {step}: loss {total} over {count:g}; {self._records(step)}; lower --schedule.rate")
            weight = stream.batch / total_batch
            self.engine.reduce_grads(parameters)
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(weight / count)
            prefix = "" if stream is self.data.streams[0] else "replay_"
            figures["loss"] += weight * total / count
            figures |= {prefix + k: s / n if n else 0.0 for k, (s, n) in reduced.items()}
            if len(self.data.streams) > 1:
                kept = _add_grads(parameters, kept)
        if kept is not None:
            for parameter, grad in zip(parameters, kept, strict=True):
                parameter.grad = grad
        return figures

    def backward(self, objective: Objective, micro: list[Batch]) -> dict[str, list[Tensor]]:
        """Go backward on the summed loss of each micro-batch; return the (sum, count) of the loss and its parts."""
        sums: dict[str, list[Tensor]] = {}
        for batch in micro:
            try:
                with self.engine.autocast():
                    loss = objective.loss(self.call, self.engine.move(batch))
                loss.total.backward()
            except torch.OutOfMemoryError:
                size = self.run.hardware.micro_batch or self.run.schedule.batch
                hint = f"try --run.hardware.micro-batch {max(size // 2, 1)} or --run.hardware.checkpointing"
                raise ConfigError(f"out of memory on {self.engine.device} with {size} examples at once; {hint}") from None
            for name, (total, count) in {"loss": (loss.total, loss.count), **loss.parts}.items():
                pair = sums.setdefault(name, [torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)])
                for slot, value in zip(pair, (total, count), strict=True):
                    slot += torch.as_tensor(value).detach().double().cpu()
        return sums or {"loss": [torch.zeros(()), torch.zeros(())]}

    def _records(self, step: int) -> str:
        found = [i for s in self.data.streams for _, i in self.data.indices(s, step)]
        return f"records {', '.join(map(str, found[:8]))}{', ...' if len(found) > 8 else ''} of {self.run.data}"

    def due(self, step: int, every: int) -> bool:
        """Return whether something done every so many steps is due after `step` steps."""
        return every > 0 and step % every == 0

    def evaluate(self, step: int, journal: Journal) -> bool:
        """Evaluate on the development split; return whether to stop early."""
        if not len(self.dev):
            raise ConfigError(f"{self.run.data} has no development records; set schedule.evaluate_every 0 or prepare a dev split")
        objective = self.objectives[0]
        metrics = evaluate(self.model, objective, self.codec, self.dev, self.engine, self.run.seed, self._eval_batch())
        journal.write(step, **{f"dev_{k}": v for k, v in metrics.items()})
        self.metrics = metrics
        value = metrics[objective.metric] * (1 if objective.higher_is_better else -1)
        if self.best["value"] is None or value > self.best["value"]:
            self.best = {"value": value, "step": step + 1, "bad": 0, "metrics": metrics}
            if self.run.schedule.patience:
                self.best_state = self.engine.full_state(self.model)
        else:
            self.best["bad"] += 1
        return bool(self.run.schedule.patience) and self.best["bad"] >= self.run.schedule.patience

    def _eval_batch(self) -> int:
        return self.run.hardware.micro_batch or self.run.schedule.batch

    def save(self, path: Path, step: int, resume: bool) -> None:
        """Write a checkpoint and remove the older ones of this run."""
        state = self.engine.full_state(self.model)
        extra = self._resume_state(state) if resume else None
        if self.engine.main:
            files = {name: digest for name, digest in self.store.digests().items()}
            about = checkpoint.provenance(self.run, str(self.engine.device), self.engine.world, files, self.run.init)
            checkpoint.save(
                path,
                domain=self.domain.name,
                run=replace(self.run, objective=self.objectives[0]),
                codec=self.codec,
                model_config=self.model_config,
                objectives=self.objectives,
                weights=adapt.merged_state(self.model, state),
                step=step,
                metrics=self.metrics or {},
                provenance=about,
                resume=extra,
                loop={"best": self.best},
            )
            for old in self.run.out.glob("step-*"):
                if old != path:
                    _remove(old)
        self.engine.barrier()

    def _resume_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {f"model.{name}": tensor for name, tensor in state.items()}
        for options, group in zip(self.optimizer.param_groups, self.groups, strict=True):
            for name, parameter in zip(group.names, options["params"], strict=True):
                for key, value in self.optimizer.state[parameter].items():
                    found[f"optimizer.{name}|{key}"] = self.engine.full(value)
        if self.best_state is not None:
            found |= {f"best.{name}": tensor for name, tensor in self.best_state.items()}
        return found

    def restore(self) -> int | None:
        """Load the newest checkpoint of `run.out` and return its step; 0 where there is none, None if finished."""
        try:
            last = Checkpoint.open(self.run.out)
        except CheckpointError:
            if any(self.run.out.glob("step-*/checkpoint.json")) or (self.run.out / "final").exists():
                raise
            return 0
        if replace(last.run, hardware=self.run.hardware) != replace(self.run, objective=self.objectives[0]):
            raise ConfigError(f"{self.run.out} holds a run with other settings; resume with the same ones or choose another --out")
        if last.path.name == "final":
            return None
        state = last.weights(checkpoint.RESUME)
        pick = {p: {n.removeprefix(p): t for n, t in state.items() if n.startswith(p)} for p in ("model.", "best.", "optimizer.")}
        self.engine.load_state(self.model, pick["model."])
        self.best_state = pick["best."] or None
        self.best = dict(last.body["loop"]["best"])
        self.metrics = last.metrics or None
        for options, group in zip(self.optimizer.param_groups, self.groups, strict=True):
            for name, parameter in zip(group.names, options["params"], strict=True):
                for full_name, value in pick["optimizer."].items():
                    owner, key = full_name.rsplit("|", 1)
                    if owner == name:
                        placed = value if key == "step" else self.engine.like(parameter, value)
                        self.optimizer.state[parameter][key] = placed
        return last.step

    def finish(self) -> Checkpoint:
        """Restore the best weights if early stopping watched, write `final`, and drop the steps before it."""
        step = self.run.schedule.steps
        if self.best_state is not None:
            self.engine.load_state(self.model, self.best_state)
            step, self.metrics = self.best["step"], self.best["metrics"]
        self.model.eval()
        self.save(self.run.out / "final", step, resume=False)
        return Checkpoint.open(self.run.out / "final")


def _codec_and_config(run: Run, domain: Any, store: Store, parent: Checkpoint | None) -> tuple[Any, Any]:
    if parent is None:
        config = domain.model(run.model) if isinstance(run.model, str) else run.model
        return (run.codec or domain.codec).fit(store), config
    if parent.body["domain"] != domain.name:
        raise ConfigError(f"{run.init} is of the domain {parent.body['domain']}, {run.data} of {domain.name}")
    if run.codec not in (None, parent.codec):
        raise ConfigError(f"codec {run.codec} is not that of {run.init} ({parent.codec}); leave it out")
    return parent.codec, parent.model_config


def _streams(run: Run, domain: Any, store: Store, parent: Checkpoint | None) -> tuple[tuple[Objective, ...], tuple[Stream, ...]]:
    objective = run.objective
    if isinstance(objective, str):
        if objective not in domain.objectives:
            from sciforge.errors import did_you_mean

            raise ConfigError(f"no objective {objective!r} in {domain.name}; {did_you_mean(objective, domain.objectives)}")
        objective = domain.objectives[objective]()
    objective = objective.resolve(store)
    records = objective.examples(store, "train")
    if run.subset:
        labels = np.asarray(records.column("label"))
        if run.subset.count > len(labels):
            raise ConfigError(f"subset.count is {run.subset.count}; {run.data} has {len(labels)} training records")
        records = records.take(order.balanced_subset(labels, run.subset.count, run.subset.seed))
    if run.replay is None:
        return (objective,), (Stream(objective, records, run.schedule.batch),)
    old_store = Store.open(run.replay.data)
    old = parent.objectives[0]
    new_size, old_size = order.replay_sizes(run.schedule.batch, run.replay.share)
    streams = Stream(objective, records, new_size), Stream(old, old.examples(old_store, "train"), old_size)
    return (objective, old), streams


def _load_parent(model: nn.Module, objectives: tuple[Objective, ...], parent: Checkpoint | None) -> set[str]:
    """Copy what the parent knows and return the names of the parameters that stay fresh.

    The heads an objective calls `fresh` are taken over only when the parent learnt the very same objective.
    """
    names = {name for name, _ in model.named_parameters()}
    if parent is None:
        return names
    weights = parent.weights()
    own = model.state_dict()
    new = tuple(f"{adapt.HEADS}{head}." for o in objectives if o not in parent.objectives for head in o.fresh)
    usable = {
        name: tensor
        for name, tensor in weights.items()
        if name in own and own[name].shape == tensor.shape and not name.startswith(new)
    }
    model.load_state_dict(usable, strict=False)
    fresh = names - set(usable)
    if stray := sorted(name for name in fresh if not name.startswith(adapt.HEADS)):
        raise CheckpointError(f"{parent.path}: no weight {stray[0]!r}; the checkpoint is of another model")
    return fresh


def _set_checkpointing(model: nn.Module, run: Run) -> None:
    if run.hardware.checkpointing:
        bricks = [module for module in model.modules() if hasattr(type(module), "checkpointing") or "checkpointing" in vars(module)]
        if not bricks:
            raise ConfigError("this model has no stack of blocks to checkpoint; leave hardware.checkpointing off")
        for brick in bricks:
            brick.checkpointing = True


def _add_grads(parameters: Sequence[nn.Parameter], kept: list[Tensor] | None) -> list[Tensor]:
    """Hold the gradients of one stream aside while the next computes its own, and add them up."""
    grads = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    return grads if kept is None else [a + b for a, b in zip(kept, grads, strict=True)]


def _remove(folder: Path) -> None:
    import shutil

    (folder / "checkpoint.json").unlink(missing_ok=True)  # first, so that a crash leaves no half checkpoint
    shutil.rmtree(folder, ignore_errors=True)


def parent_fisher(parent: Checkpoint, kind: EWC, engine: Engine, seed: int) -> dict[str, Tensor]:
    """Estimate the Fisher information of a checkpoint's first objective on the data it was trained for."""
    store = Store.open(kind.data)
    model = parent.build().to(engine.device)
    objective = parent.objectives[0]
    records = objective.examples(store, "train")
    options = {"estimator": kind.estimator, "examples": kind.examples, "seed": seed}
    return anchor.fisher_information(model, objective, parent.codec, records, **options)
