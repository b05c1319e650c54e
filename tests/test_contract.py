"""What every domain must keep, checked for each that is discovered on the tiny runs of
tests/<domain>/contract.py.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import GOLDEN, Tiny, golden_metrics, largest_difference, make_tiny

from sciforge.core.data import sampling
from sciforge.core.data.store import Store
from sciforge.core.domain import discover, get_domain, seeded_model
from sciforge.core.files.metrics_log import read_metrics
from sciforge.core.training import loop
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import Tally, evaluate
from sciforge.core.training.model import Model
from sciforge.core.training.run import CORE_TYPES, Replay, Run, Task, from_json, to_json

GOLDEN_DOMAINS = (
    "atoms",
    "genomes",
    "heat",
    "images",
    "molecules",
    "text",
)  # a new one gets its files with a new format
EXACT = Engine(torch.device("cpu"), "float64")


@pytest.fixture(scope="module", params=sorted(discover()))
def domain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def finetuned(domain: Tiny) -> Checkpoint:
    return loop.train(domain.finetuning)


@pytest.fixture(params=["pretraining", "finetuning"])
def learnt(request: pytest.FixtureRequest, domain: Tiny, finetuned: Checkpoint) -> Checkpoint:
    """A finished checkpoint of either kind."""
    return domain.checkpoint if request.param == "pretraining" else finetuned


def examples(checkpoint: Checkpoint, split: str = "train", count: int = 8) -> list:
    objective = checkpoint.objectives[0]
    records = objective.examples(Store.open(checkpoint.run.data), split)
    rngs = [sampling.generator(0, sampling.CORRUPT, 0, i) for i in range(count)]
    return [
        objective.prepare(records[i], checkpoint.codec, rng, training=True)
        for i, rng in enumerate(rngs)
    ]


@pytest.mark.parametrize("kind", ["pretraining", "finetuning"])
def test_the_same_seed_gives_the_values_it_gave(domain: Tiny, finetuned: Checkpoint, kind: str):
    """Every metric of every step of the tiny runs, in float64, is what it was when the golden files
    were written.

    With other vector instructions (ATEN_CPU_CAPABILITY=default) sums in another order and initial
    weights, which are drawn in float32, leave relative differences of 3e-6 at most; 1e-5 has room
    for them and for nothing else.
    """
    now: dict[tuple[int, str], float] = {}
    for line in read_metrics(getattr(domain, kind).out / "metrics.jsonl"):
        now |= {(line["step"], name): value for name, value in line.items()}
    files = sorted(GOLDEN.glob(f"{domain.store.domain}-v*/{kind}.jsonl"))
    for file in files:
        then = golden_metrics(file)
        assert not set(then) - set(now), (
            "a metric is gone; if it was renamed, say so in RENAMED_METRICS of tiny_runs.py"
        )
        for place, value in then.items():
            assert now[place] == pytest.approx(value, rel=1e-5, abs=1e-8), (file.parent.name, place)
    assert files or domain.store.domain not in GOLDEN_DOMAINS


def test_json_round_trip(learnt: Checkpoint):
    known = {**CORE_TYPES, **learnt.domain.types()}
    for value in (learnt.run, learnt.codec, learnt.model_config, learnt.objectives):
        assert from_json(json.loads(json.dumps(to_json(value))), known) == value


def test_defaults_round_trip(domain: Tiny):
    house = get_domain(domain.store.domain)
    for value in (
        house.codec,
        *house.models.values(),
        *(kind() for kind in house.objectives.values()),
    ):
        assert from_json(json.loads(json.dumps(to_json(value))), house.types()) == value


def test_a_batch_equals_its_singles(learnt: Checkpoint):
    objective, codec, model = learnt.objectives[0], learnt.codec, learnt.build().double()
    made = examples(learnt)
    together, singles = Tally(), Tally()
    together.add(objective.loss(model, EXACT.move(codec.collate(made))))
    for example in made:
        singles.add(objective.loss(model, EXACT.move(codec.collate([example]))))
    for name, pair in together.pairs.items():
        assert pair == pytest.approx(singles.pairs[name], rel=1e-10, abs=1e-10), name


def test_overfits_eight_examples(learnt: Checkpoint):
    objective, model = learnt.objectives[0], learnt.build().train()
    batch = learnt.codec.collate(examples(learnt))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    values = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = objective.loss(model, batch)
        (loss.total / loss.count).backward()
        optimizer.step()
        values.append(float((loss.total / loss.count).detach()))
    assert values[-1] < 0.2 * values[0]


@pytest.mark.parametrize("kind", ["pretraining", "finetuning"])
def test_resume_is_bit_equal(domain: Tiny, fit, tmp_path, interrupted, kind: str):
    run, often = getattr(domain, kind), {"save_every": 2}
    whole = fit(run, "whole", schedule=often)
    with interrupted(5):
        fit(run, "cut", schedule=often)
    assert sorted(f.name for f in (tmp_path / "cut").iterdir()) == [
        "metrics.jsonl",
        "step-00000004",
    ]
    resumed = fit(run, "cut", resume=True, schedule=often)
    assert (resumed.path / "model.safetensors").read_bytes() == (
        whole.path / "model.safetensors"
    ).read_bytes()
    assert read_metrics(tmp_path / "cut/metrics.jsonl") == read_metrics(
        tmp_path / "whole/metrics.jsonl"
    )
    assert resumed.metrics == whole.metrics and resumed.step == whole.step


def test_a_checkpoint_predicts_as_it_did(domain: Tiny, fit):
    trained = fit(domain.finetuning, hardware={"precision": "float32"}, schedule={"patience": 0})
    predictor = Model.load(trained.path, device="cpu", batch=5)
    again = predictor.evaluate(
        Store.open(domain.finetuning.data), split="validation", seed=trained.run.seed
    )
    assert again == pytest.approx(trained.metrics, rel=1e-6, abs=1e-5)
    objective = trained.objectives[0]
    records = objective.examples(Store.open(domain.finetuning.data), "test")
    once, twice = (Model.load(trained.path, device="cpu").outputs(records) for _ in range(2))
    assert once and all(len(once[name]) == len(records) for name in once)
    for name in once:
        assert all(np.array_equal(a, b) for a, b in zip(once[name], twice[name], strict=True)), name


def test_laws_hold_on_a_fresh_model(domain: Tiny):
    house = get_domain(domain.store.domain)
    seed = domain.pretraining.seed
    model = (
        seeded_model(domain.checkpoint.model_config, domain.checkpoint.codec, (), seed)
        .double()
        .eval()
    )
    for number, law in enumerate(house.laws.values()):
        violation, tolerance = law(
            model, domain.checkpoint.codec, sampling.generator(0, sampling.EVALUATE, 1, number)
        )
        assert violation <= tolerance, law


@pytest.mark.parametrize("kind", ["pretraining", "finetuning"])
def test_micro_batches_change_nothing(domain: Tiny, fit, kind: str):
    run = getattr(domain, kind)
    whole, pieces = fit(run, "whole"), fit(run, "pieces", hardware={"micro_batch": 3})
    assert largest_difference(whole.weights(), pieces.weights()) < 1e-10
    assert pieces.metrics == pytest.approx(whole.metrics, abs=1e-10)


def test_workers_change_nothing(domain: Tiny, fit):
    helped = fit(domain.pretraining, hardware={"workers": 2})
    assert largest_difference(helped.weights(), domain.checkpoint.weights()) == 0


def test_evaluation_does_not_depend_on_the_batch(learnt: Checkpoint):
    objective, model = learnt.objectives[0], learnt.build().double()
    records = objective.examples(Store.open(learnt.run.data), "validation")
    metrics = [
        evaluate(model, objective, learnt.codec, records, EXACT, size=size) for size in (1, 4)
    ]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-10)


def test_replay_keeps_the_old_objective(domain: Tiny, finetuned: Checkpoint, fit):
    mixed = fit(domain.finetuning, replay=Replay(domain.pretraining.data, 0.5))
    assert mixed.objectives == (finetuned.objectives[0], domain.checkpoint.objectives[0])
    assert replace(mixed.run, replay=None, out=finetuned.run.out) == finetuned.run


@pytest.fixture(scope="module")
def together(domain: Tiny) -> Run:
    """The pretraining objective and the labelled one in one run, from a fresh network."""
    runs = {"old": domain.pretraining, "new": domain.finetuning}
    tasks = tuple(
        Task(data=run.data, objective=run.objective, share=0.5, name=name)
        for name, run in runs.items()
    )
    schedule = replace(domain.pretraining.schedule, lr=1e-4)
    return replace(domain.pretraining, data=None, objective=None, tasks=tasks, schedule=schedule)


def test_two_tasks_in_one_run_train_resume_and_load(
    domain: Tiny, together: Run, fit, tmp_path, interrupted
):
    often = {"save_every": 2}
    whole = fit(together, "whole", schedule=often)
    with interrupted(5):
        fit(together, "cut", schedule=often)
    resumed = fit(together, "cut", resume=True, schedule=often)
    assert largest_difference(resumed.tensors(), whole.tensors()) == 0
    logs = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut")]
    assert logs[0] == logs[1] and {"loss", "loss_old", "loss_new"} <= set(logs[0][0])
    for task, name in zip(whole.run.tasks, whole.tasks, strict=True):
        model = Model.load(whole.path, device="cpu", task=name)
        assert model.checkpoint.scope == name and type(model.objective) is type(task.objective)
        assert len(model.objective.examples(Store.open(task.data), "validation"))
    labelled = Store.open(domain.finetuning.data)
    outputs = model.outputs(model.objective.examples(labelled, "validation"))
    assert outputs and all(len(values) for values in outputs.values())
    again = replace(domain.finetuning, init=whole.path)
    assert fit(again, "after", schedule={"patience": 0}).tasks == ()


def test_micro_batches_of_two_tasks_change_nothing(together: Run, fit):
    whole, pieces = fit(together, "whole"), fit(together, "pieces", hardware={"micro_batch": 3})
    assert largest_difference(whole.tensors(), pieces.tensors()) < 1e-10
    assert pieces.metrics == pytest.approx(whole.metrics, rel=1e-8, abs=1e-8)
