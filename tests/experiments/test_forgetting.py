"""The forgetting report: equal runs of every method, resuming, the budget, and what a result
says of synthetic runs.
"""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import make_tiny

from sciforge import api
from sciforge.cli.main import main
from sciforge.core.methods import retention as retaining
from sciforge.core.methods.retention import retained
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import evaluate
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, LoRA, Schedule
from sciforge.errors import ConfigError, DivergedError
from sciforge.experiments.forgetting import run as module
from sciforge.experiments.forgetting.methods import METHODS, BudgetSearch, search_budget
from sciforge.experiments.forgetting.result import ForgettingResult, Task, Trial
from sciforge.experiments.forgetting.run import measure
from sciforge.experiments.forgetting.spec import Forgetting
from sciforge.experiments.held_out import Scores

CPU = Hardware(device="cpu", precision="float32", threads=1)
SHORT = Schedule(steps=3, batch=8, lr=5e-3, kind="step")


def spec_of(tiny, out, **changes) -> Forgetting:
    options = {
        "methods": ("plain", "ewc-empirical"),
        "ewc": (1e3,),
        "seeds": 1,
        "examples": 3,
        "schedule": SHORT,
        "hardware": CPU,
        "max_records": 8,
    }
    named = {
        "old": tiny.pretraining.data,
        "new": tiny.finetuning.data,
        "objective": tiny.finetuning.objective,
    }
    return Forgetting(init=tiny.checkpoint.path, out=out, **{**named, **options, **changes})


@pytest.fixture
def spec(tiny, tmp_path):
    return spec_of(tiny, tmp_path / "report")


@pytest.fixture
def trained(noted):
    """The runs handed to `train`."""
    return noted(module)


@pytest.fixture(scope="module")
def heat(tmp_path_factory):
    return make_tiny("heat", tmp_path_factory.mktemp("heat"))


def test_every_method_takes_the_same_steps_and_is_judged_on_both_tasks(spec, trained):
    spec = replace(
        spec, methods=(), l2sp=(1.0,), shares=(0.25,), ranks=(4,), labels=24, ewc=(10.0,)
    )
    found = measure(spec)
    assert [point[0] for point in found.points] == ["start", *METHODS] and len(trained) == 10
    first, *rest = trained
    assert (first.schedule.steps, first.schedule.lr) == (1, 0.0)
    assert {(r.schedule, r.seed, r.subset, r.objective, r.data) for r in rest} == {
        (SHORT, 0, rest[0].subset, rest[0].objective, spec.new)
    }
    assert [type(r.regularization).__name__ for r in rest].count("EWC") == 4 and sum(
        r.replay is not None for r in rest
    ) == 2
    assert [r.finetuning for r in rest if isinstance(r.finetuning, LoRA)] == [LoRA(4, 8.0)]
    assert {r.init for r in rest if r.regularization and r.regularization.step == "proximal"} >= {
        spec.out / "parent"
    }
    assert found.growth(("start", 0.0)).value == pytest.approx(0, abs=1e-6)
    assert found.growth(("frozen", 0.0)).value == pytest.approx(0, abs=1e-6)
    assert found.old_error(("plain", 0.0)).value != found.before.value
    base = Checkpoint.open(spec.out / "parent")
    assert sorted(f for f in base.body["files"] if "fisher" in f) == [
        f"fisher-{e}.safetensors" for e in ("empirical", "exact", "sampled")
    ]
    rows = list(csv.DictReader((spec.out / "runs.csv").read_text().splitlines()))
    assert len(rows) == 10 and float(rows[1]["old.loss"]) == pytest.approx(found.runs[1].old)
    assert (spec.out / "forgetting.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(spec.out.glob(".run-*")) and "* on the Pareto front" in found.text()


def test_the_old_error_is_the_retained_one(spec, tiny):
    found = measure(replace(spec, max_records=512, methods=("plain",), keep=True))
    kept = Checkpoint.open(spec.out / "checkpoints" / "plain_0_0")
    told = kept.metrics["retained"]
    assert told == retained(
        tiny.checkpoint, kept.weights(), spec.old, Engine(torch.device("cpu"), "float32")
    )
    assert found.before.value == pytest.approx(told["before"]["loss"], rel=1e-5)
    assert found.runs[-1].old == pytest.approx(told["after"]["loss"], rel=1e-5)


def test_few_old_records_are_judged_against_their_own_labels(spec, tiny, fit):
    base = fit(tiny.finetuning, "base", schedule={"steps": 1, "evaluate_every": 0, "patience": 0})
    work = module.ForgettingRun.open(
        replace(spec, init=base.path, old=tiny.finetuning.data, max_records=7)
    )
    assert module.task_of(work.old) == Task("mcc", "1 - mcc", "validation", 7)
    found = module.errors(work.old, work.old.evaluate_checkpoint(base, work.engine), "old")
    outputs = Model.load(base.path, "cpu").outputs(work.old.records)
    assert len(outputs["probability"]) == 7 and len(found.without) == 7
    assert found.value == pytest.approx(
        1 - work.old.objective.metrics(outputs, work.old.records)["mcc"]
    )


def test_what_is_retained_is_judged_all_over_the_split(tiny, fit, monkeypatch):
    base = fit(tiny.finetuning, "base", schedule={"steps": 1, "evaluate_every": 0, "patience": 0})
    monkeypatch.setattr(retaining, "MAX_RECORDS", 4)
    engine = Engine(torch.device("cpu"), "float32")
    told = retained(base, base.weights(), tiny.finetuning.data, engine)
    records = tiny.labelled.split("validation")
    spread = records.take(
        np.array([0, (len(records) - 1) // 3, 2 * (len(records) - 1) // 3, len(records) - 1])
    )
    assert told["before"] == evaluate(base.build(), base.objectives[0], base.codec, spread, engine)


def test_a_domain_without_heads_or_blocks_says_what_is_left_out(heat, tmp_path, trained):
    spec = spec_of(
        heat, tmp_path / "report", methods=(), l2sp=(1.0,), shares=(0.25,), ewc=(1.0,), seeds=2
    )
    found = measure(replace(spec, methods=("plain", "l2sp", "replay")))
    assert len(trained) == 8 and {r.seed for r in trained} == {0, 1}
    assert (
        found.before.value < 0
        and found.growth(("plain", 0.0)) is None
        and "not defined" in found.text()
    )
    with pytest.raises(ConfigError, match="no relative growth; set --old-metric"):
        measure(replace(spec, methods=("plain",), budget="10%"))
    work = module.ForgettingRun.open(spec)
    assert set(work.left_out) == {"frozen", "lora"} and "matches no weight" in work.left_out["lora"]
    with pytest.raises(ConfigError, match="lora: .*matches no weight matrix"):
        measure(replace(spec, methods=("plain", "lora")))


def test_a_stopped_report_goes_on_and_may_grow(spec, trained):
    first = measure(spec)
    assert len(trained) == 3
    trained.clear()
    assert measure(spec).to_json() == first.to_json() and not trained
    path = spec.out / "runs.jsonl"
    path.write_text(path.read_text()[:-20])  # the last line was cut short
    (spec.out / ".run-stale").mkdir()
    again = measure(spec)
    assert len(trained) == 1 and [r.old for r in again.runs] == [r.old for r in first.runs]
    trained.clear()
    measure(replace(spec, methods=("plain",), seeds=2))
    assert [r.seed for r in trained] == [1, 1]
    for change, key in (
        ({"labels": 8}, "labels"),
        ({"schedule": replace(SHORT, steps=4)}, "schedule"),
    ):
        with pytest.raises(ConfigError, match=f"another {key}"):
            measure(replace(spec, **change))


def test_the_fisher_is_estimated_once(spec, monkeypatch):
    measure(spec)
    monkeypatch.setattr(module.fisher, "fisher_information", None)
    assert len(measure(replace(spec, ewc=(1.0, 1e3))).points) == 4


def test_the_budget_is_searched_and_kept_to(spec, trained, monkeypatch):
    spec = replace(
        spec,
        methods=("plain", "frozen", "l2sp", "replay", "lora"),
        l2sp=(1e-3, 10.0),
        budget="10%",
        halvings=3,
    )
    monkeypatch.setattr(module.ForgettingRun, "fit", synthetic)
    found = measure(spec)
    assert not trained
    answers = {answer.method: answer for answer in found.answers}
    assert (
        answers["plain"].strength is None and answers["plain"].text == "beyond the budget: +100 %"
    )
    assert answers["frozen"].strength == 0.0
    assert (
        answers["l2sp"].strength == pytest.approx(1.0, rel=0.8) and answers["l2sp"].strength >= 1.0
    )
    assert found.growth(("l2sp", answers["l2sp"].strength)).value <= 0.1
    assert answers["replay"].strength is None and "not possible" in answers["replay"].text
    assert answers["lora"].strength == 5.0
    assert (
        "Budget" in found.text() and "chosen by the mean on these same old records" in found.text()
    )
    assert json.loads((spec.out / "forgetting.json").read_text())["budget"] == 0.1
    enough = measure(replace(spec, budget="100%"))
    assert {a.text for a in enough.answers if a.method in ("l2sp", "replay")} == {
        "not needed: plain fine-tuning is within the budget"
    }


def synthetic(self, name, strength, seed):
    """A run whose growth is known: 1 / 10 at L2-SP 1, at rank 5; replay grows by half whatever
    its share.
    """
    grown = {
        "start": 0.0,
        "plain": 1.0,
        "frozen": 0.0,
        "l2sp": 0.099 / max(strength, 1e-9),
        "replay": 0.5,
        "lora": 0.0198 * strength,
    }
    before = self.before()
    old = before.value * (1 + grown[name])
    old_without = tuple(w * (1 + grown[name]) for w in before.without)
    return Trial(name, strength, seed, 1 + strength, old, (1.0, 1.1), old_without).to_json()


def test_a_run_that_diverges_is_told_and_does_not_stop_the_report(spec, monkeypatch):
    def failing(run, *args):
        if run.regularization:
            raise DivergedError("step 1: loss nan")
        return original(run, *args)

    original = module.train
    monkeypatch.setattr(module, "train", failing)
    found = measure(replace(spec, budget="10%", seeds=1, halvings=1))
    assert (
        "Diverged: ewc-empirical 1000" in found.text() and ("ewc-empirical", 1e3) not in found.front
    )
    assert measure(spec).runs[-1].new == np.inf
    told = json.loads((spec.out / "forgetting.json").read_text())
    assert told["runs"][-1]["new"] is None and told["runs"][-1]["failed"] == "step 1: loss nan"


def test_what_cannot_be_is_refused_before_any_work(spec, heat, trained):
    for change, message in (
        ({"methods": ("ewc",)}, "no method 'ewc'; known: ewc.replay"),
        ({"budget": "much"}, "give a percentage such as 10%"),
        ({"budget": 10.0}, "give a percentage such as 10%"),
        ({"l2sp": ()}, "forgetting.l2sp is"),
        ({"shares": (1.0,)}, "between 0 and 1"),
        ({"schedule": replace(SHORT, evaluate_every=1)}, "without early stopping"),
        ({"objective": "clasify"}, "did you mean"),
        ({"old": heat.pretraining.data}, "is of the domain genomes, .* of heat"),
        ({"new_metric": "mc"}, "no metric 'mc'.*mcc"),
    ):
        with pytest.raises(ConfigError, match=message):
            measure(replace(spec, **change))
    assert len(trained) == 1  # an unknown metric shows after the first run only


def made_result(points, seeds=2, **options):
    runs = [
        Trial(name, knob, seed, new + 0.1 * seed, old + 0.1 * seed, (new, new), (old, old))
        for (name, knob), (new, old) in points.items()
        for seed in range(seeds)
    ]
    task = Task("rmse", "rmse", "test", 10)
    return ForgettingResult(tuple(runs), Scores({}, 1.0, (1.0, 1.0)), task, task, **options)


def test_a_result_marks_the_front_and_pairs_the_seeds():
    found = made_result(
        {
            ("plain", 0.0): (1, 3),
            ("l2sp", 1.0): (2, 2),
            ("l2sp", 9.0): (3, 2.5),
            ("lora", 8.0): (2, 1),
        }
    )
    assert found.front == {("plain", 0.0), ("lora", 8.0)}
    price = found.cost(("l2sp", 1.0))
    assert price.value == pytest.approx(1) and price.high - price.low < 1e-9  # seeds cancel
    assert found.growth(("lora", 8.0)).value == pytest.approx(0.05)
    ladders = made_result(
        {("lora", r): (1, 1) for r in (2.0, 32.0, 8.0)} | {("l2sp", s): (1, 1) for s in (9.0, 1.0)}
    )
    assert [p[1] for p in ladders.points] == [1.0, 9.0, 32.0, 8.0, 2.0]  # from weak to strong


@pytest.mark.parametrize("limit", [3e-3, 0.5, 40.0, 7e5])
def test_bisection_ends_near_the_threshold_wherever_it_lies(limit):
    found = search_budget(
        lambda s: 0.0 if s >= limit else 1.0, (0.1, 10.0, 1000.0), 0.1, 6, lambda s: s, 10.0
    )
    assert found.met and limit <= found.strength < limit * 1.11


def test_bisection_says_where_there_is_no_threshold():
    snap = lambda r: float(round(min(max(r, 1), 256)))  # noqa: E731
    assert search_budget(lambda r: 1.0, (32.0, 8.0), 0.1, 6, snap, 0.5) == BudgetSearch(
        1.0, 1.0, False
    )
    assert search_budget(lambda r: 0.0, (32.0, 8.0), 0.1, 6, snap, 0.5) == BudgetSearch(
        256.0, 0.0, True, weakest=True
    )
    assert (
        search_budget(lambda r: 0.0 if r <= 11 else 1.0, (32.0, 8.0), 0.1, 9, snap, 0.5).strength
        == 11.0
    )


def test_the_command_line_prints_the_tables(spec, tiny, capsys, monkeypatch):
    argv = [
        "forgetting",
        "--init",
        str(spec.init),
        "--old",
        str(spec.old),
        "--new",
        str(spec.new),
        "--out",
        str(spec.out),
    ]
    argv += [
        "--objective",
        "classify",
        "--bins",
        "3",
        "--no-warm-start",
        "--methods",
        "plain",
        "--seeds",
        "1",
    ]
    argv += [
        "--schedule.steps",
        "2",
        "--schedule.batch",
        "4",
        "--hardware.device",
        "cpu",
        "--budget",
        "500%",
    ]
    assert main(argv) == 0
    assert "within the budget" in capsys.readouterr().out
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["budget"] == 5.0
    assert (
        main(["forgetting", "--init", "nothing-like-it", *argv[3:]]) == 2
        and "no checkpoint" in capsys.readouterr().err
    )
    assert (
        main(["forgetting", "--init", str(spec.init)]) == 2
        and "needs an objective" in capsys.readouterr().err
    )
    assert api.forgetting(replace(spec, methods=("plain",), out=spec.out.parent / "python")).points[
        0
    ] == ("start", 0.0)
