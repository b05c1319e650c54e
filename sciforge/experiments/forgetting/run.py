"""The forgetting report: one fine-tuning done in every way that is to forget less, both tasks
measured before and after.

All ways have the same steps, batch size, learning rate, labels and seeds, and their heads start
alike; each has one strength that is varied.
"""

import math
import shutil
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from sciforge.core.data.store import Store
from sciforge.core.domain import Objective, get_domain, seeded_model
from sciforge.core.files.atomic import atomic_folder, read_json, replace_json, sha256, write_json
from sciforge.core.methods import finetuning, fisher
from sciforge.core.methods.retention import evenly, old_split, under_old_heads
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine, choose_device
from sciforge.core.training.loop import train
from sciforge.core.training.run import Run, Subset, to_json
from sciforge.errors import ConfigError, DivergedError
from sciforge.experiments.forgetting.methods import METHODS, START, Method, search_budget
from sciforge.experiments.forgetting.result import (
    BudgetAnswer,
    ForgettingResult,
    Point,
    Task,
    Trial,
    error_of,
    significant,
)
from sciforge.experiments.forgetting.spec import Forgetting, share_of
from sciforge.experiments.grid import Grid, Row, cell_name, open_folder, scratch
from sciforge.experiments.held_out import HeldOut, Scores
from sciforge.experiments.methods import open_parent
from sciforge.experiments.statistics import require_direction

# Fields of the spec that may change when a report continues.
MAY_CHANGE = {
    "init",
    "old",
    "new",
    "objective",
    "out",
    "methods",
    "l2sp",
    "ewc",
    "shares",
    "ranks",
    "seeds",
}
MAY_CHANGE |= {"budget", "halvings", "hardware", "keep", "type"}


def measure(spec: Forgetting) -> ForgettingResult:
    """Run what is not yet done of a report, search the budget, and return all of it.

    Raises:
        ConfigError: a method, metric or budget that is not possible, or `spec.out` holds another
            report.
        DataError, CheckpointError: a store or the parent is missing, damaged or of another domain.
    """
    report = ForgettingRun.open(spec)
    with open_folder(spec.out) as folder:
        report = replace(
            report,
            folder=folder,
            grid=Grid.open(folder, ("method", "strength", "seed"), report.settings(), "a report"),
        )
        before = report.before()
        if spec.budget is not None and before.value <= 0:
            value = significant(before.value)
            raise ConfigError(
                f"the old error is {value}, which has no relative growth; set --old-metric"
            )
        points = [
            (name, strength)
            for name, method in report.methods.items()
            for strength in method.values(spec)
        ]
        points = [(START, 0.0), *points]
        report.grid.run(
            [(*point, seed) for seed in range(spec.seeds) for point in points],
            report.fit,
            "forgetting",
        )
        result = report.result(points, before)
        if spec.budget is not None:
            result = report.within_budget(result, before)
        result.keep(folder, spec.out is None, {"spec": to_json(spec)})
    return result


@dataclass(frozen=True)
class ForgettingRun:
    """A report's parent, data and methods, opened once.

    Args:
        spec: what was asked for.
        parent: the checkpoint that is fine-tuned.
        objective: of the new task, resolved.
        device: of training and evaluation.
        old, new: the held-out records of both tasks.
        methods: that are compared.
        left_out: method -> why it cannot be used here.
        digests: of both stores.
        folder: of the results.
        grid: the runs.
    """

    spec: Forgetting
    parent: Checkpoint
    objective: Objective
    device: torch.device
    old: HeldOut
    new: HeldOut
    methods: dict[str, Method]
    left_out: dict[str, str]
    digests: dict[str, Any]
    folder: Path = Path()
    grid: Grid = field(default_factory=lambda: Grid(Path(), ()))

    @classmethod
    def open(cls, spec: Forgetting) -> "ForgettingRun":
        """Open what a report names, and check it before any work is done."""
        stores = {"old": Store.open(spec.old), "new": Store.open(spec.new)}
        for store in stores.values():
            parent = open_parent(spec.init, store.domain, store.path)
        objective = (
            get_domain(parent.body["domain"]).objective(spec.objective).resolve(stores["new"])
        )
        new = HeldOut.of(
            stores["new"], objective, metric=spec.new_metric, direction=spec.new_higher_is_better
        )
        split, records = old_split(parent.objectives[0], spec.old)
        old = HeldOut.on(
            parent.objectives[0], records, split, spec.old_metric, spec.old_higher_is_better
        )
        old = replace(old, records=old.records.take(evenly(len(records), spec.max_records)))
        methods, left_out = _usable(spec, parent, objective)
        digests = {name: store.digests() for name, store in stores.items()}
        device = choose_device(spec.hardware.device)
        return cls(spec, parent, objective, device, old, new, methods, left_out, digests)

    @property
    def engine(self) -> Engine:
        """A single-process engine for evaluation."""
        return Engine(self.device, "float32")

    def settings(self) -> dict[str, Any]:
        """Return what must not change between two calls for one report; methods, strengths,
        seeds and budget may.
        """
        kept = {key: value for key, value in to_json(self.spec).items() if key not in MAY_CHANGE}
        about = {
            "init": sha256(self.parent.path / "checkpoint.json"),
            "objective": to_json(self.objective),
        }
        return {**self.digests, **about, **kept}

    def before(self) -> Scores:
        """Return the error of the parent on the old task, measured once."""
        path = self.folder / "before.json"
        if not path.exists():
            network = under_old_heads(self.parent, {}, self.device)
            replace_json(
                path,
                vars(
                    errors(
                        self.old, self.old.evaluate(network, self.parent.codec, self.engine), "old"
                    )
                ),
            )
        body = read_json(path, ConfigError)
        return Scores(body["metrics"], body["value"], tuple(body["without"]))

    def fit(self, method: str, strength: float, seed: int) -> Row:
        """Fine-tune in one way and evaluate both tasks."""
        start, about = time.monotonic(), (method, strength, seed)
        try:
            with scratch(self.folder) as work:
                trial = self._evaluate(about, train(self.run(*about, work / "run")))
        except DivergedError as error:  # one strength may be too much; the others are worth knowing
            trial = Trial(*about, math.inf, math.inf, failed=str(error))
        return replace(trial, seconds=time.monotonic() - start).to_json()

    def _evaluate(self, about: tuple[str, float, int], checkpoint: Checkpoint) -> Trial:
        """Return both tasks after a fine-tuning, and keep its checkpoint where that is asked
        for.
        """
        new = errors(self.new, self.new.evaluate_checkpoint(checkpoint, self.engine), "new")
        network = under_old_heads(self.parent, checkpoint.weights(), self.device)
        old = errors(self.old, self.old.evaluate(network, self.parent.codec, self.engine), "old")
        if not all(map(math.isfinite, (new.value, old.value, *new.without, *old.without))):
            raise DivergedError(f"{about[0]} {about[1]:g}: an error is not finite")
        if self.spec.keep:
            place = self.folder / "checkpoints" / cell_name(about)
            shutil.copytree(checkpoint.path, place, dirs_exist_ok=True)
        metrics = {"new": new.metrics, "old": old.metrics}
        return Trial(*about, new.value, old.value, new.without, old.without, metrics)

    def run(self, method: str, strength: float, seed: int, out: Path) -> Run:
        """Return the run of a method; the start takes one step at learning rate 0."""
        spec, known = self.spec, METHODS.get(method)
        schedule = replace(spec.schedule, save_every=0)
        if known is None:
            schedule = replace(schedule, steps=1, lr=0.0, ema_decay=0.0)
        return Run(
            data=spec.new,
            out=out,
            objective=self.objective,
            init=self.parent_with(known.fisher) if known and known.fisher else self.parent.path,
            schedule=schedule,
            subset=Subset(spec.labels, seed) if spec.labels else None,
            hardware=spec.hardware,
            seed=seed,
            retention=spec.old if spec.keep else None,
            **(known.settings(spec, strength) if known else {}),
        )

    def parent_with(self, estimator: str) -> Path:
        """Return a copy of the parent that holds this Fisher information, estimated at the first
        call.
        """
        place, name = self.folder / "parent", f"fisher-{estimator}.safetensors"
        if not place.exists():
            # The parent may hold Fisher information of other examples or data: all estimators see
            # the same ones here.
            body = {key: value for key, value in self.parent.body.items() if key != "about"}
            body["files"] = {f: d for f, d in body["files"].items() if f == "model.safetensors"}
            with atomic_folder(place) as work:
                shutil.copyfile(self.parent.path / "model.safetensors", work / "model.safetensors")
                write_json(work / "checkpoint.json", body)
        parent = Checkpoint.open(place)
        if name not in parent.body["files"]:
            objective = parent.objectives[0]
            options: dict[str, Any] = {
                "estimator": estimator,
                "examples": self.spec.examples,
                "seed": 0,
            }
            records = objective.examples(Store.open(self.spec.old), "train")
            network = parent.build().to(self.device)
            diagonal = fisher.fisher_information(
                network, objective, parent.codec, records, **options
            )
            parent.with_file(name, diagonal, options)
        return place

    def result(
        self, points: list[Point], before: Scores, answers: tuple[BudgetAnswer, ...] = ()
    ) -> ForgettingResult:
        """Return the runs at some points."""
        cells = [
            (*point, seed) for point in dict.fromkeys(points) for seed in range(self.spec.seeds)
        ]
        runs = tuple(Trial.from_json(self.grid.rows[cell]) for cell in cells)
        tasks = task_of(self.new), task_of(self.old)
        return ForgettingResult(
            runs, before, *tasks, share_of(self.spec.budget), answers, dict(self.left_out)
        )

    def within_budget(self, result: ForgettingResult, before: Scores) -> ForgettingResult:
        """Search for the weakest strength of each method within the budget; return the result
        with all it tried.
        """
        points = list(result.points)

        def growth(name: str, strength: float) -> float:
            points.append((name, strength))
            cells = [(name, strength, seed) for seed in range(self.spec.seeds)]
            rows = self.grid.run(cells, self.fit, name)
            return float(np.mean([Trial.from_json(row).old for row in rows])) / before.value - 1

        plain = growth("plain", 0.0) if "plain" in self.methods else math.inf
        progress = tqdm(self.methods.items(), "budget", unit="method", disable=None, leave=False)
        answers = tuple(
            self._answer(name, method, partial(growth, name), plain) for name, method in progress
        )
        return self.result(points, before, answers)

    def _answer(self, name: str, method: Method, growth: Any, plain: float) -> BudgetAnswer:
        """Return the weakest strength of one method within the budget; `plain` is the growth
        under plain fine-tuning.
        """
        budget = share_of(self.spec.budget)
        assert budget is not None
        if not method.field:
            value = growth(0.0)
            text = (
                "within the budget"
                if value <= budget
                else f"beyond the budget: {100 * value:+.3g} %"
            )
            return BudgetAnswer(name, 0.0 if value <= budget else None, text)
        if method.plain and plain <= budget:
            return BudgetAnswer(name, None, "not needed: plain fine-tuning is within the budget")
        options = self.spec.halvings, partial(method.snap, self.spec), method.stride
        search = search_budget(growth, method.values(self.spec), budget, *options)
        if search.met:
            text = (
                "within the budget at the weakest tried" if search.weakest else "within the budget"
            )
            return BudgetAnswer(name, search.strength, text)
        strength = f"{method.parameter} {search.strength:g}"
        return BudgetAnswer(
            name,
            None,
            f"not possible: {100 * search.growth:+.3g} % at {strength}, the strongest tried",
        )


def task_of(held_out: HeldOut) -> Task:
    """Return what is measured on held-out records."""
    metric = held_out.metric
    error = f"1 - {metric}" if held_out.higher_is_better else metric
    return Task(metric, error, held_out.split, len(held_out.records))


def errors(held_out: HeldOut, scores: Scores, task: str) -> Scores:
    """Return scores as errors; raises ConfigError for a metric that no error can be made of."""
    higher = require_direction(
        held_out.higher_is_better, held_out.metric, f"{task}_higher_is_better"
    )
    if higher and scores.value > 1:
        value = significant(scores.value)
        raise ConfigError(
            f"{held_out.metric} is {value}, above 1; set {task}_metric to one whose best is 1"
        )
    error, *without = (error_of(x, higher) for x in (scores.value, *scores.without))
    return Scores(scores.metrics, error, tuple(without))


def _usable(
    spec: Forgetting, parent: Checkpoint, objective: Objective
) -> tuple[dict[str, Method], dict[str, str]]:
    """Return the methods that the model allows and why others are left out; raises ConfigError
    for one asked for by name.
    """
    names, left_out = set(parent.weights()), {}
    for name in spec.methods or METHODS:
        method = METHODS[name]
        network = seeded_model(parent.model_config, parent.codec, (objective,), 0)
        new = [weight for weight, _ in network.named_parameters() if weight not in names]
        settings = method.settings(spec, method.values(spec)[0])
        try:
            if method.fisher and type(parent.objectives[0]).likelihood is Objective.likelihood:
                raise ConfigError(
                    f"{type(parent.objectives[0]).__name__}, the parent's objective, has no"
                    " likelihood"
                )
            finetuning.apply(network, settings.get("finetuning") or finetuning.Full(), new)
        except ConfigError as error:
            if spec.methods:
                raise ConfigError(f"{name}: {error}") from None
            left_out[name] = str(error).partition(";")[0]
    return {
        name: METHODS[name] for name in spec.methods or METHODS if name not in left_out
    }, left_out
