"""One description of a run: a frozen dataclass tree that Python builds, the command line parses and JSON stores."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sciforge.errors import ConfigError, did_you_mean

Shape = Literal["constant", "exponential", "step", "cosine", "trapezoid"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long to train and at what rate.

    Args:
        steps: optimiser steps.
        batch: examples a step, over all processes.
        rate: peak learning rate.
        warmup: share of the steps over which the rate rises linearly from 0.
        shape: `exponential` decay is the default of pretraining, `step` decay that of fine-tuning.
        final: the rate at the end as a share of the peak (exponential, cosine, trapezoid).
        factor: step decay multiplies the rate by this at each of `drops` equally spaced places.
        drops: number of drops of the step decay.
        cooldown: share of the steps in which the trapezoid falls.
        weight_decay: AdamW's; not applied to vectors (norms, biases).
        betas: AdamW's.
        clip: largest norm of the gradient; None for no clipping.
        evaluate_every: steps between evaluations on the development split; 0 for never.
        patience: stop after this many evaluations without improvement and restore the best; 0 for no early stop.
        save_every: steps between checkpoints from which a run can resume; 0 for the end only.
    """

    steps: int = 1000
    batch: int = 32
    rate: float = 1e-3
    warmup: float = 0.05
    shape: Shape = "exponential"
    final: float = 0.05
    factor: float = 0.3
    drops: int = 3
    cooldown: float = 0.2
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float | None = 1.0
    evaluate_every: int = 0
    patience: int = 0
    save_every: int = 0

    def __post_init__(self):
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"schedule.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("evaluate_every", "patience", "save_every", "drops", "rate", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"schedule.{name} is {getattr(self, name)}; it must not be negative")
        for name in ("warmup", "cooldown", "final"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"schedule.{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.shape == "exponential" and self.final == 0:
            raise ConfigError("schedule.final is 0; exponential decay never reaches 0: give a small positive share")
        if self.patience and not self.evaluate_every:
            raise ConfigError("schedule.patience needs schedule.evaluate_every; set both")

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step (0-based), a closed form of the step alone.

        >>> s = Schedule(steps=100, rate=1.0, warmup=0.0, shape="exponential", final=0.01)
        >>> [round(s.rate_at(t), 4) for t in (0, 50, 100)]
        [1.0, 0.1, 0.01]
        """
        warmup = round(self.warmup * self.steps)
        if step < warmup:
            return self.rate * (step + 1) / warmup
        span = max(self.steps - warmup, 1)
        done = (step - warmup) / span
        if self.shape == "exponential":
            return self.rate * self.final**done
        if self.shape == "step":
            return self.rate * self.factor ** math.floor(done * (self.drops + 1))
        if self.shape == "cosine":
            return self.rate * (self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2)
        if self.shape == "trapezoid":
            fall = max(0.0, (done - (1 - self.cooldown)) / self.cooldown) if self.cooldown else 0.0
            return self.rate * (1 - (1 - self.final) * min(fall, 1.0))
        return self.rate


@dataclass(frozen=True)
class All:
    """Every weight moves.

    Args:
        layer_decay: the rate of each block is this times the rate of the block above (1 for equal rates).
        frozen_steps: steps at the start in which only new heads move.
        trunk_rate: rate of the weights that came from `init` as a share of the rate of new heads.
    """

    layer_decay: float = 1.0
    frozen_steps: int = 0
    trunk_rate: float = 1.0


@dataclass(frozen=True)
class Only:
    """Only weights whose name matches the regular expression move, and new heads; the default is the heads alone."""

    pattern: str = r"^heads\."


@dataclass(frozen=True)
class LoRA:
    """Low-rank updates of the matching weight matrices, and new heads (Hu et al. 2021).

    Args:
        rank: rank of the update.
        alpha: the update is scaled by alpha / rank.
        pattern: regular expression over the names of weight matrices.
    """

    rank: int = 8
    alpha: float = 16.0
    pattern: str = r"\bblocks\..*\.weight$"


@dataclass(frozen=True)
class L2SP:
    """Pull towards the weights of `init`, equal for all weights (Li et al. 2018): strength/2 * |p - centre|^2.

    Args:
        strength: weight of the quadratic.
        step: add its gradient to the loss's, or take its implicit (proximal) step after the optimiser's, which is
            stable however strong the pull.
    """

    strength: float = 0.01
    step: Literal["gradient", "proximal"] = "gradient"


Estimator = Literal["exact", "sampled", "empirical"]


@dataclass(frozen=True)
class EWC:
    """Elastic weight consolidation (Kirkpatrick et al. 2017): a pull weighted by the Fisher information.

    Args:
        strength: the loss gains strength/2 * sum F (p - centre)^2.
        estimator: `exact` takes the expectation over the model's own labels, `sampled` one draw of them,
            `empirical` the true labels; always per example. Strengths are not comparable between estimators.
        examples: how many examples to estimate from, when the checkpoint holds no Fisher yet.
        data: the pretraining data; not needed when `init` carries the Fisher (`sciforge fisher`).
        step: as for L2SP; `proximal` where some directions are stiff.
    """

    strength: float = 100.0
    estimator: Estimator = "exact"
    examples: int = 256
    data: Path | None = None
    step: Literal["gradient", "proximal"] = "gradient"


@dataclass(frozen=True)
class Replay:
    """Mix a share of pretraining examples, with the pretraining objective, into every step."""

    data: Path
    share: float = 0.2

    def __post_init__(self):
        if not 0 < self.share < 1:
            raise ConfigError(f"replay.share is {self.share}; it must lie between 0 and 1")


@dataclass(frozen=True)
class Subset:
    """Train on few labels: `count` training examples, classes balanced, chosen by `seed`; nested in count."""

    count: int
    seed: int = 0


@dataclass(frozen=True)
class Hardware:
    """Where and how the arithmetic runs; never changes what is computed, rounding aside.

    Args:
        device: `auto` takes CUDA where there is one.
        precision: `auto` is bfloat16 autocast on CUDA and float32 on CPU; `float64` is for tests of exactness.
        micro_batch: largest number of examples in one forward pass of a process; None for the whole batch.
        workers: processes that prepare examples; 0 prepares them in the training process.
        compile: run the model through torch.compile.
        checkpointing: recompute activations in the backward pass to save memory.
        threads: CPU threads of torch; None leaves torch's choice.
    """

    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    micro_batch: int | None = None
    workers: int = 0
    compile: bool = False
    checkpointing: bool = False
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that decides a training run.

    Args:
        data: a prepared store.
        out: folder for checkpoints and the journal.
        objective: what to learn.
        schedule: how long, at what rate.
        model: a preset's name or a configuration, for a fresh model; excludes `init`.
        init: a checkpoint whose weights and codec to start from.
        codec: how records become tensors; None for the domain's default, or the codec of `init`.
        adapt: which weights move.
        anchor: a pull towards the weights of `init`.
        replay: pretraining data mixed in.
        subset: train on few labels.
        strategy: `replicate` keeps a copy on each process, `shard` is FSDP2.
        hardware: device, precision, micro-batches, workers.
        seed: of the initial weights, the order, and every corruption.
    """

    data: Path
    out: Path
    objective: Any
    schedule: Schedule = field(default_factory=Schedule)
    model: Any = None
    init: Path | None = None
    codec: Any = None
    adapt: All | Only | LoRA = All()
    anchor: L2SP | EWC | None = None
    replay: Replay | None = None
    subset: Subset | None = None
    strategy: Literal["replicate", "shard"] = "replicate"
    hardware: Hardware = Hardware()
    seed: int = 0

    def __post_init__(self):
        if (self.model is None) == (self.init is None):
            raise ConfigError("a run starts from a fresh model or from a checkpoint; give either --model or --init")
        if self.init is None and (self.anchor or self.replay):
            raise ConfigError("an anchor or replay needs what was learnt before; give --init")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must not be negative")


CORE_TYPES = {t.__name__: t for t in (Run, Schedule, All, Only, LoRA, L2SP, EWC, Replay, Subset, Hardware)}


def to_json(value: Any) -> Any:
    """Turn a dataclass tree into plain JSON values; each dataclass names its type.

    >>> to_json(Subset(32))
    {'type': 'Subset', 'count': 32, 'seed': 0}
    """
    if dataclasses.is_dataclass(value):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def from_json(data: Any, known: Mapping[str, type], where: str = "run") -> Any:
    """Rebuild a dataclass tree from JSON; only types in `known` can be named.

    Raises:
        ConfigError: an unknown type, an unknown or missing field, or a value of the wrong kind.
    """
    if isinstance(data, list):
        return tuple(from_json(v, known, where) for v in data)
    if not isinstance(data, dict):
        return data
    if "type" not in data:
        return {k: from_json(v, known, f"{where}.{k}") for k, v in data.items()}
    name = data["type"]
    if name not in known:
        raise ConfigError(f"{where}: unknown type {name!r}; {did_you_mean(str(name), known)}")
    cls = known[name]
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    values = {}
    for key, value in data.items():
        if key == "type":
            continue
        if key not in fields:
            raise ConfigError(f"{where}: {name} has no field {key!r}; {did_you_mean(key, fields)}")
        values[key] = _fit(from_json(value, known, f"{where}.{key}"), hints[key], f"{where}.{key}")
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {str(error).split('__init__() ')[-1]}") from None


def _fit(value: Any, hint: Any, where: str) -> Any:
    """Check a JSON value against a type hint and give it the hinted type (Path, tuple, float)."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for option in typing.get_args(hint):
            try:
                return _fit(value, option, where)
            except ConfigError:
                continue
        raise ConfigError(f"{where} is {value!r}; expected {hint}")
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(f"{where} is {value!r}; {did_you_mean(str(value), map(str, typing.get_args(hint)))}")
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = origin or hint
    if hint is types.NoneType:
        plain = type(None)
    if plain is int and isinstance(value, bool) or not isinstance(value, plain):
        raise ConfigError(f"{where} is {value!r}; expected {getattr(plain, '__name__', plain)}")
    return value
