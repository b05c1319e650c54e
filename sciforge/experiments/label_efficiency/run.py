"""Label-efficiency curves: pretrained, scratch and frozen nets and classical baselines on the same few labels.

Seeds are paired: for one (number of labels, seed) every method sees the same subset in the same order, and every net
starts with the same head. Each result is written down as it comes, so a curve that was stopped goes on where it was.
"""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sciforge.core.data import sampling
from sciforge.core.data.store import Rows, Store
from sciforge.core.domain import Objective, Record, get_domain
from sciforge.core.files.atomic import replace_json, results_folder, sha256
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import evaluate
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Freeze, Full, Hardware, LoRA, Run, Schedule, Subset, to_json
from sciforge.errors import ConfigError, DivergedError, did_you_mean
from sciforge.experiments.held_out import direction_of, groups_of, known_direction, known_metric
from sciforge.experiments.label_efficiency.adaptation import ADAPTED, Adaptation
from sciforge.experiments.label_efficiency.result import LabelEfficiencyResult, RunMetrics
from sciforge.experiments.label_efficiency.results_log import ResultsLog, name_of

NETS = ("pretrained", "scratch", "frozen")
CONTROL = "scratch:"  # prefix of a model preset that is trained from scratch


@dataclass(frozen=True)
class Recipe:
    """How a net learns few labels; gentle by default, since objectives solve their heads before the first step.

    Args:
        schedule: steps and rate; no early stopping, for the validation split holds more labels than the curve allows.
        finetuning: which weights move.
        epochs: train longer than `schedule.steps` where so many passes over the labels need it.
        lrs: peak learning rates to choose among, by the loss on a quarter of the same few labels after training on the
            rest; then all of them are learnt at the rate chosen. Empty keeps `schedule.lr`.
    """

    schedule: Schedule = Schedule(steps=16, batch=32, lr=2e-4, kind="step", warmup=0.1)
    finetuning: Full | Freeze | LoRA = Full(layer_decay=0.8)
    epochs: float = 2.0
    lrs: tuple[float, ...] = ()

    def __post_init__(self):
        if self.schedule.evaluate_every:
            raise ConfigError(
                "a curve has no early stopping: the validation split's labels would not be few; set evaluate_every 0"
            )

    def schedule_for(self, labels: int) -> Schedule:
        """Return the schedule for a number of labels.

        >>> Recipe(Schedule(steps=10, batch=4, kind="step"), epochs=2).schedule_for(100).steps
        50
        """
        needed = math.ceil(self.epochs * labels / self.schedule.batch)
        return replace(self.schedule, steps=max(self.schedule.steps, needed))


@dataclass(frozen=True, kw_only=True)
class LabelEfficiency:
    """What to compare, on which data, at which numbers of labels.

    Args:
        data: a prepared store with labels and a test split.
        out: folder of the results; a curve started again there goes on.
        init: the pretrained checkpoint, a path or a name.
        objective: what to learn, a name or an objective.
        sizes: numbers of labels; 0 means all.
        seeds: how many subsets of each size.
        methods: of pretrained, scratch, frozen, scratch:PRESET and the domain's baselines; empty for all of them. With
            `adaptation` also adapted and adapted-control.
        recipe: of pretrained and scratch alike, so that both have the same steps and the same search.
        frozen: recipe of the frozen probe; by default the solved head as it is.
        metric: the figure to compare; None for the objective's own.
        higher_is_better: the sense of `metric`; None for what the objective or the figure's name says.
        hardware: of the nets.
        adaptation: pretrain `init` further on data of the task's domain first, and compare that too.
        keep: keep the checkpoint of every run under `out`/checkpoints.
    """

    data: Path
    out: Path
    init: Path | str
    objective: Any = "classify"
    sizes: tuple[int, ...] = (32, 128, 512)
    seeds: int = 5
    methods: tuple[str, ...] = ()
    recipe: Recipe = Recipe()
    frozen: Recipe = Recipe(Schedule(steps=1, batch=32, lr=0.0, kind="step"), Freeze(), epochs=0.0)
    metric: str | None = None
    higher_is_better: bool | None = None
    hardware: Hardware = Hardware()
    adaptation: Adaptation | None = None
    keep: bool = False

    def __post_init__(self):
        if not self.sizes or min(self.sizes) < 0 or len(set(self.sizes)) < len(self.sizes):
            raise ConfigError(f"sizes are {self.sizes}; give different numbers of labels, 0 for all")
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}; it must be at least 1")


def measure(spec: LabelEfficiency) -> LabelEfficiencyResult:
    """Run what is not yet done of a curve and return all of it.

    Raises:
        ConfigError: unknown method or metric, too few labels, or `spec.out` holds a curve of another kind.
    """
    work = CurveRun.open(spec)
    with results_folder(spec.out):
        done = ResultsLog.open(spec.out, work.fingerprint())
        jobs = [(m, n, s) for n in work.sizes for s in range(spec.seeds) for m in work.methods]
        waiting = [state for state in jobs if state not in done.found]
        for method, seed in sorted({(m, s % spec.adaptation.seeds) for m, _, s in waiting if m in ADAPTED}):
            spec.adaptation.make(method, work.parent, spec.out, spec.hardware, seed)
        bar = tqdm(waiting, "curve", unit="run", disable=None, leave=False)
        for method, labels, seed in bar:
            bar.set_postfix_str(f"{method} {labels} labels, seed {seed}")
            done.add(work.run(method, labels, seed))
        runs = tuple(done.found[state] for state in jobs)
    result = LabelEfficiencyResult(runs, work.metric, work.higher_is_better, work.kinds)
    replace_json(spec.out / "curve.json", {"spec": to_json(spec), **result.to_json()})
    return result


@dataclass(frozen=True)
class CurveRun:
    """A curve's data, checkpoint and methods, opened once."""

    spec: LabelEfficiency
    store: Store
    domain: Any
    parent: Checkpoint
    objective: Objective
    train: Rows
    test: "Held"
    labels: np.ndarray

    @classmethod
    def open(cls, spec: LabelEfficiency) -> "CurveRun":
        """Open what a curve names, and check it before any work is done."""
        store = Store.open(spec.data)
        domain, parent = get_domain(store.domain), Checkpoint.open(Path(spec.init))
        if parent.body["domain"] != store.domain:
            raise ConfigError(f"{spec.init} is of the domain {parent.body['domain']}, {spec.data} of {store.domain}")
        objective = domain.objective(spec.objective).resolve(store)
        records, test = objective.examples(store, "train"), Held(objective.examples(store, "test"))
        if not len(test):
            raise ConfigError(f"{spec.data} has no test records; prepare it with a test split")
        if spec.adaptation:
            spec.adaptation.check(parent)
        work = cls(spec, store, domain, parent, objective, records, test, records.labels())
        if max(work.sizes) > len(records):
            raise ConfigError(f"{spec.data} has {len(records)} training labels; sizes ask for {max(work.sizes)}")
        for method in work.methods:
            work.kind(method)
        return work

    @property
    def sizes(self) -> list[int]:
        """Numbers of labels, ascending; 0 stands for all."""
        return sorted({n or len(self.train) for n in self.spec.sizes})

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods asked for; by default every one."""
        presets = [CONTROL + name for name, config in self.domain.models.items() if getattr(config, "control", False)]
        adapted = self.spec.adaptation.methods if self.spec.adaptation else ()
        return self.spec.methods or (*NETS, *adapted, *presets, *self.domain.baselines)

    @property
    def kinds(self) -> dict[str, str]:
        """Whether a method is a `net`, a `control` (a net from scratch) or a `baseline`."""
        return {method: self.kind(method) for method in self.methods}

    @property
    def metric(self) -> str:
        """The figure compared."""
        return self.spec.metric or self.objective.metric

    @property
    def higher_is_better(self) -> bool:
        """The sense of the figure; raises ConfigError where nobody tells it."""
        return known_direction(direction_of(self.objective, self.metric, self.spec.higher_is_better), self.metric)

    def kind(self, method: str) -> str:
        """Return the kind of a method; raises ConfigError with the nearest name."""
        adapted = self.spec.adaptation.methods if self.spec.adaptation else ()
        if method in (*NETS, *adapted):
            return "net"
        if method in ADAPTED:
            raise ConfigError(f"{method} needs data to adapt to; give {ADAPTED[method]}")
        if method in self.domain.baselines:
            return "baseline"
        if method.startswith(CONTROL) and method.removeprefix(CONTROL) in self.domain.models:
            return "control"
        known = (*NETS, *adapted, *self.domain.baselines, *(CONTROL + name for name in self.domain.models))
        raise ConfigError(f"no method {method!r} in {self.domain.name}; {did_you_mean(method, known)}")

    def fingerprint(self) -> dict[str, Any]:
        """Return what must not change between two runs of one curve; sizes, seeds and methods may grow."""
        spec = to_json(self.spec)
        kept = {key: spec[key] for key in ("recipe", "frozen")}
        about = {"objective": to_json(self.objective), "metric": self.metric, "data": self.store.digests()}
        about |= self.spec.adaptation.fingerprint() if self.spec.adaptation else {}
        return json.loads(json.dumps({**about, **kept, "init": sha256(self.parent.path / "checkpoint.json")}))

    def subset(self, labels: int, seed: int) -> Rows:
        """Return the training records every method sees: those the loop takes for `Subset(labels, seed)`."""
        return self.train.take(sampling.balanced_subset(self.labels, labels, seed))

    def run(self, method: str, labels: int, seed: int) -> RunMetrics:
        """Train or fit one method on one subset and judge it on the test split."""
        begun, about = time.monotonic(), {}
        if self.kind(method) == "baseline":
            outputs = self.domain.baselines[method](self.objective, self.subset(labels, seed), self.test, seed)
        else:
            outputs, about = self.net_outputs(method, labels, seed)
        metrics = self.objective.metrics(outputs, self.test)
        known_metric(metrics, self.metric)
        _ = self.higher_is_better  # asked now, not when all is trained
        without = []
        for mine in groups_of(len(self.test)):
            rest = np.setdiff1d(np.arange(len(self.test)), mine)
            remaining = self.objective.metrics({k: v[rest] for k, v in outputs.items()}, self.test.take(rest))
            without.append(remaining[self.metric])
        seconds = time.monotonic() - begun
        return RunMetrics(method, labels, seed, metrics, tuple(without), seconds, about, outputs)

    def net_outputs(self, method: str, labels: int, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Fine-tune a net and return its outputs on the test split and what was searched."""
        folder = Path(tempfile.mkdtemp(prefix=".run-", dir=self.spec.out))
        recipe = self.spec.frozen if method == "frozen" else self.spec.recipe
        try:
            tried = {}
            if len(recipe.lrs) > 1:
                part = max(labels * 3 // 4, 1)
                for rate in recipe.lrs:
                    run = self.net_run(method, part, seed, folder / f"rate-{rate:g}", recipe, rate, labels)
                    tried[rate] = self.tried_loss(run, part, labels, seed)
            rate = min(tried, key=tried.get) if tried else (*recipe.lrs, recipe.schedule.lr)[0]
            run = self.net_run(method, labels, seed, folder / "all", recipe, rate, labels)
            checkpoint = train(run)
            outputs = self.model(checkpoint).outputs(self.test)
            if self.spec.keep:
                shutil.copytree(
                    checkpoint.path, self.spec.out / "checkpoints" / name_of(method, labels, seed), dirs_exist_ok=True
                )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return outputs, {
            "lr": rate,
            "tried": {f"{r:g}": loss if math.isfinite(loss) else None for r, loss in tried.items()},
            "steps": run.schedule.steps,
        }

    def net_run(self, method: str, labels: int, seed: int, out: Path, recipe: Recipe, rate: float, budget: int) -> Run:
        """Return the run of a net on so many labels, with the steps that `budget` labels allow."""
        start: dict[str, Any] = {"init": self.parent.path}
        if method in ADAPTED:
            start = {"init": self.spec.adaptation.folder(method, self.spec.out, seed) / "final"}
        elif method == "scratch":
            start = {"model": self.parent.model_config, "codec": self.parent.codec}
        elif method.startswith(CONTROL):
            config = self.domain.models[method.removeprefix(CONTROL)]
            start = {"model": config, "codec": getattr(config, "codec", None)}
        schedule = replace(recipe.schedule_for(budget), lr=rate, save_every=0)
        fixed = {"data": self.spec.data, "objective": self.objective, "hardware": self.spec.hardware}
        finetuning = recipe.finetuning if "init" in start or isinstance(recipe.finetuning, Full) else Full()
        return Run(
            out=out, schedule=schedule, finetuning=finetuning, subset=Subset(labels, seed), seed=seed, **start, **fixed
        )

    def model(self, checkpoint: Checkpoint) -> Model:
        """Return a checkpoint as a predictor on the curve's hardware."""
        return Model.load(checkpoint.path, self.spec.hardware.device, 256)

    def tried_loss(self, run: Run, part: int, labels: int, seed: int) -> float:
        """Return the held-out loss of a rate that is tried; infinite where it diverges, which is no reason to stop."""
        try:
            loss = self.held_out_loss(train(run), part, labels, seed)
        except DivergedError:
            return math.inf
        return loss if math.isfinite(loss) else math.inf

    def held_out_loss(self, checkpoint: Checkpoint, part: int, labels: int, seed: int) -> float:
        """Return the loss on the labels after the first `part`; subsets are nested, so these were not learnt."""
        found = self.model(checkpoint)
        places = sampling.balanced_subset(self.labels, labels, seed)[part:]
        engine: Engine = found.engine
        return evaluate(found.network, self.objective, found.codec, self.train.take(places), engine, seed, 256)["loss"]


class Held(Sequence):
    """Records with their columns read once: the test split is judged many times."""

    def __init__(self, records: Sequence[Record], places: np.ndarray | None = None, base: "Held | None" = None):
        self.records, self.places, self.base = records, places, base
        self.cache: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.records) if self.places is None else len(self.places)

    def __getitem__(self, i: int) -> Record:
        return self.records[i if self.places is None else int(self.places[i])]

    def column(self, name: str) -> np.ndarray:
        """Return a column over these records."""
        if self.base is not None:
            return self.base.column(name)[self.places]
        if name not in self.cache:
            self.cache[name] = _as_array(self.records.column(name))
        return self.cache[name]

    def take(self, places: np.ndarray) -> "Held":
        """Return the records at these places."""
        places = np.asarray(places)
        return Held(self.records, places if self.places is None else self.places[places], self.base or self)


def _as_array(column: Any) -> np.ndarray:
    """Return a column as an array that places can be taken of; a ragged one as an array of arrays."""
    if isinstance(column, np.ndarray) or not column or not isinstance(column[0], np.ndarray):
        return np.asarray(column)
    ragged = np.empty(len(column), object)
    for place, item in enumerate(column):
        ragged[place] = item
    return ragged
