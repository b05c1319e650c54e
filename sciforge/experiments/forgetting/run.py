"""The forgetting report: one fine-tuning done in every way that is to forget less, both tasks measured before and after.

All ways have the same steps, batch, rate, labels and seeds, and their heads start alike; each has one knob that is swept.
Every result is written down as it comes, so a report that was stopped goes on where it was.
"""

import json
import math
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sciforge.core.data.store import Store
from sciforge.core.domain import Objective, get_domain, seeded_model
from sciforge.core.files.atomic import atomic_folder, read_json, replace_json, results_folder, sha256, write_json
from sciforge.core.methods import finetuning, fisher
from sciforge.core.methods.retention import evenly, old_split, under_old_heads
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine, choose_device
from sciforge.core.training.loop import train
from sciforge.core.training.run import Run, Subset, to_json
from sciforge.errors import ConfigError, DivergedError
from sciforge.experiments.forgetting.methods import METHODS, START, Method, least_enough
from sciforge.experiments.forgetting.result import Answer, ForgettingResult, Task, Trial, error_of, figure
from sciforge.experiments.forgetting.results_log import ResultsLog
from sciforge.experiments.forgetting.spec import Forgetting, share_of
from sciforge.experiments.held_out import Judged, direction_of, judge, known_direction
from sciforge.experiments.label_efficiency.run import Held


def measure(spec: Forgetting) -> ForgettingResult:
    """Run what is not yet done of a report, search the budget, write forget.json, runs.csv, pareto.png; return all.

    Raises:
        ConfigError: a method, metric or budget that cannot be, or `spec.out` holds another report.
        DataError, CheckpointError: a store or the base is missing, damaged or of another domain.
    """
    work = ForgettingRun.open(spec)
    with results_folder(spec.out):
        work.diary = ResultsLog.open(spec.out, work.fingerprint())
        before = work.before()
        if spec.budget is not None and before.value <= 0:
            raise ConfigError(
                f"the old error is {figure(before.value)}, which has no relative growth; set --old-metric"
            )
        points = [(name, knob) for name, method in work.methods.items() for knob in method.values(spec)]
        jobs = [(name, knob, seed) for seed in range(spec.seeds) for name, knob in [(START, 0.0), *points]]
        bar = tqdm(
            [state for state in jobs if state not in work.diary.found], "forget", unit="run", disable=None, leave=False
        )
        for state in bar:
            bar.set_postfix_str("{} {:g}, seed {}".format(*state))
            work.run(*state)
        found = work.result([(START, 0.0), *points], before)
        if spec.budget is not None:
            found = work.within_budget(found, before)
        found.write_csv(spec.out / "runs.csv")
        found.plot(spec.out / "pareto.png")
        replace_json(spec.out / "forget.json", {"spec": to_json(spec), **found.to_json()})
    return found


@dataclass
class ForgettingRun:
    """A report's base, data and methods, opened once."""

    spec: Forgetting
    parent: Checkpoint
    objective: Objective
    engine: Engine
    old: "Side"
    new: "Side"
    methods: dict[str, Method]
    left_out: dict[str, str]
    digests: dict[str, Any]
    diary: "ResultsLog | None" = None

    @classmethod
    def open(cls, spec: Forgetting) -> "ForgettingRun":
        """Open what a report names, and check it before any work is done."""
        parent, stores = Checkpoint.open(spec.checkpoint), {"old": Store.open(spec.old), "new": Store.open(spec.new)}
        for name, store in stores.items():
            if store.domain != parent.body["domain"]:
                place = getattr(spec, name)
                raise ConfigError(
                    f"{spec.checkpoint} is of the domain {parent.body['domain']}, {place} of {store.domain}"
                )
        objective = get_domain(parent.body["domain"]).objective(spec.objective).resolve(stores["new"])
        names = ("test", "validation")
        held = {name: records for name in names if len(records := objective.examples(stores["new"], name))}
        if not held:
            raise ConfigError(f"{spec.new} has no test or validation records; prepare it with a test split")
        split = next(iter(held))
        new = Side.of(objective, split, Held(held[split]), spec.new_metric, spec.new_higher_is_better)
        split, records = old_split(parent.objectives[0], spec.old)
        few = Held(records).take(evenly(len(records), spec.most))
        old = Side.of(parent.objectives[0], split, few, spec.old_metric, spec.old_higher_is_better)
        methods, left_out = _usable(spec, parent, objective)
        digests = {name: store.digests() for name, store in stores.items()}
        engine = Engine(choose_device(spec.hardware.device), "float32")
        return cls(spec, parent, objective, engine, old, new, methods, left_out, digests)

    def fingerprint(self) -> dict[str, Any]:
        """Return what must not change between two runs of one report; methods, ladders, seeds and budget may."""
        free = ("checkpoint", "old", "new", "objective", "out", "methods", "l2sp", "ewc", "shares", "ranks", "seeds",
                "budget", "halvings", "hardware", "keep", "type")  # fmt: skip
        kept = {key: value for key, value in to_json(self.spec).items() if key not in free}
        about = {"base": sha256(self.parent.path / "checkpoint.json"), "objective": to_json(self.objective)}
        return json.loads(json.dumps({**self.digests, **about, **kept}))

    def before(self) -> Judged:
        """Return what the base makes of the old task, measured once."""
        path = self.spec.out / "before.json"
        if not path.exists():
            found = self.old.judged(
                under_old_heads(self.parent, {}, self.engine.device), self.parent.codec, self.engine
            )
            replace_json(path, vars(found))
        body = read_json(path, ConfigError)
        return Judged(body["metrics"], body["value"], tuple(body["without"]))

    def run(self, name: str, knob: float, seed: int) -> Trial:
        """Fine-tune in one way, judge both tasks, and write it down; what was done before is read."""
        if (name, knob, seed) in self.diary.found:
            return self.diary.found[name, knob, seed]
        begun, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix=".run-", dir=self.spec.out))
        try:
            made = train(self.run_of(name, knob, seed, folder / "run"))
            new = self.new.judged(made.build().to(self.engine.device), made.codec, self.engine)
            trunk = under_old_heads(self.parent, made.weights(), self.engine.device)
            old = self.old.judged(trunk, self.parent.codec, self.engine)
            values = (new.value, old.value, *new.without, *old.without)
            if not all(map(math.isfinite, values)):
                raise DivergedError(f"{name} {knob:g}: an error is not finite")
            errors = {"new_without": new.without, "old_without": old.without}
            metrics = {"new": new.metrics, "old": old.metrics}
            seconds = time.monotonic() - begun
            found = Trial(name, knob, seed, new.value, old.value, **errors, metrics=metrics, seconds=seconds)
            if self.spec.keep:
                place = self.spec.out / "checkpoints" / f"{name}_{knob:g}_{seed}"
                shutil.copytree(made.path, place, dirs_exist_ok=True)
        except DivergedError as error:  # a rung of the ladder may be too much; the others are worth knowing
            seconds = time.monotonic() - begun
            found = Trial(name, knob, seed, math.inf, math.inf, seconds=seconds, about=str(error))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.diary.add(found)
        return found

    def run_of(self, name: str, knob: float, seed: int, out: Path) -> Run:
        """Return the run of a method; the start takes one step at rate 0."""
        spec, method = self.spec, METHODS.get(name)
        schedule = replace(spec.schedule, save_every=0)
        if method is None:
            schedule = replace(schedule, steps=1, lr=0.0, ema_decay=0.0)
        init = self.base_with(method.fisher) if method and method.fisher else self.parent.path
        subset = Subset(spec.labels, seed) if spec.labels else None
        settings = {"retention": spec.old if spec.keep else None, **(method.settings(spec, knob) if method else {})}
        return Run(data=spec.new, out=out, objective=self.objective, init=init, schedule=schedule, subset=subset,
                   hardware=spec.hardware, seed=seed, **settings)  # fmt: skip

    def base_with(self, estimator: str) -> Path:
        """Return a copy of the base that holds this Fisher information, estimated at the first call."""
        place, name = self.spec.out / "base", f"fisher-{estimator}.safetensors"
        if not place.exists():
            # The base may hold Fisher information of other examples or data: all estimators see the same ones here.
            body = {key: value for key, value in self.parent.body.items() if key != "about"}
            body["files"] = {f: d for f, d in body["files"].items() if f == "model.safetensors"}
            with atomic_folder(place) as work:
                shutil.copyfile(self.parent.path / "model.safetensors", work / "model.safetensors")
                write_json(work / "checkpoint.json", body)
        base = Checkpoint.open(place)
        if name not in base.body["files"]:
            objective, options = base.objectives[0], {"estimator": estimator, "examples": self.spec.examples, "seed": 0}
            records = objective.examples(Store.open(self.spec.old), "train")
            model = base.build().to(self.engine.device)
            base.with_file(
                name, fisher.fisher_information(model, objective, base.codec, records, **options), options
            )
        return place

    def result(
        self, points: list[tuple[str, float]], before: Judged, answers: tuple[Answer, ...] = ()
    ) -> ForgettingResult:
        """Return what was found at some points."""
        seeds = range(self.spec.seeds)
        runs = tuple(self.diary.found[name, knob, seed] for name, knob in dict.fromkeys(points) for seed in seeds)
        start = before.value, before.without
        return ForgettingResult(
            runs, start, self.new.task, self.old.task, share_of(self.spec.budget), answers, dict(self.left_out)
        )

    def within_budget(self, swept: ForgettingResult, before: Judged) -> ForgettingResult:
        """Search for the least strength of each method that keeps to the budget; return the result with all it tried."""
        spec, points, answers = self.spec, list(swept.points), []
        budget = share_of(spec.budget)

        def growth(name: str, knob: float) -> float:
            points.append((name, knob))
            return float(np.mean([self.run(name, knob, seed).old for seed in range(spec.seeds)])) / before.value - 1

        plain = growth("plain", 0.0) if "plain" in self.methods else math.inf
        for name, method in tqdm(self.methods.items(), "budget", unit="method", disable=None, leave=False):
            if not method.ladder:
                grown = growth(name, 0.0)
                said = "kept to" if grown <= budget else f"not kept to: {100 * grown:+.3g} %"
                answers.append(Answer(name, 0.0 if grown <= budget else None, said))
                continue
            if method.plain and plain <= budget:
                answers.append(Answer(name, None, "not needed: plain fine-tuning keeps to it"))
                continue
            options = budget, spec.halvings, partial(method.snap, spec), method.stride
            found = least_enough(partial(growth, name), method.values(spec), *options)
            said = f"cannot be met: {100 * found.growth:+.3g} % at {method.knob} {found.knob:g}, the strongest tried"
            if found.met:
                said = "met at the weakest tried" if found.weakest else "met"
            answers.append(Answer(name, found.knob if found.met else None, said))
        return self.result(points, before, tuple(answers))


@dataclass(frozen=True)
class Side:
    """One of the two tasks: its objective, the records it is judged on, and the error."""

    objective: Objective
    records: Held
    higher_is_better: bool | None
    task: Task

    @classmethod
    def of(cls, objective: Objective, split: str, records: Held, metric: str | None, higher: bool | None) -> "Side":
        """Fill in what the objective says of itself."""
        metric = metric or objective.metric
        higher = direction_of(objective, metric, higher)
        task = Task(metric, f"1 - {metric}" if higher else metric, split, len(records))
        return cls(objective, records, higher, task)

    def judged(self, model: Any, codec: Any, engine: Engine) -> Judged:
        """Return errors of a model, and all metrics; raises ConfigError for a figure that no error can be made of."""
        found = judge(model, self.objective, codec, self.records, engine, self.task.metric)
        known_direction(self.higher_is_better, self.task.metric, "new_higher_is_better or old_higher_is_better")
        if self.higher_is_better and found.value > 1:
            raise ConfigError(f"{self.task.metric} is {figure(found.value)}, above 1; compare a figure whose best is 1")
        value, *without = (error_of(v, self.higher_is_better) for v in (found.value, *found.without))
        return Judged(found.metrics, value, tuple(without))


def _usable(spec: Forgetting, parent: Checkpoint, objective: Objective) -> tuple[dict[str, Method], dict[str, str]]:
    """Return the methods that the model allows and why others are left out; raises ConfigError for one asked for by name."""
    names, left_out = set(parent.weights()), {}
    for name in spec.methods or METHODS:
        method = METHODS[name]
        model = seeded_model(parent.model_config, parent.codec, (objective,), 0)
        fresh = [weight for weight, _ in model.named_parameters() if weight not in names]
        settings = method.settings(spec, method.values(spec)[0])
        try:
            if method.fisher and type(parent.objectives[0]).likelihood is Objective.likelihood:
                raise ConfigError(f"{type(parent.objectives[0]).__name__}, the base's objective, has no likelihood")
            finetuning.apply(model, settings.get("finetuning") or finetuning.Full(), fresh)
        except ConfigError as error:
            if spec.methods:
                raise ConfigError(f"{name}: {error}") from None
            left_out[name] = str(error).partition(";")[0]
    return {name: METHODS[name] for name in spec.methods or METHODS if name not in left_out}, left_out
