"""Distillation: the teacher's term is what it says, the student's checkpoint is an ordinary one,
and runs are paired.
"""

import json
from dataclasses import replace

import pytest
import torch
from tiny_runs import Tiny, largest_difference, make_tiny

from sciforge.core.data.store import Store
from sciforge.core.domain import Categorical, Gaussian
from sciforge.core.methods.distillation import teacher_term
from sciforge.core.training import loop
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.model import Model
from sciforge.core.training.run import Replay, Schedule, Teacher
from sciforge.errors import ConfigError
from sciforge.experiments.compression import distillation as distilling
from sciforge.experiments.compression.distillation import ALONE, DISTILLED, distill, student_run
from sciforge.experiments.compression.spec import Distill
from sciforge.genomes.data.codec import KmerCodec
from sciforge.genomes.model.cnn import SmallCnnConfig

SHORT = Schedule(steps=3, batch=8, lr=3e-3)


@pytest.fixture(scope="module", params=["genomes", "molecules"])
def domain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def teacher(domain: Tiny) -> Checkpoint:
    return loop.train(domain.finetuning)


def spec_of(domain: Tiny, teacher: Checkpoint, out, **changes) -> Distill:
    sizes = {"width": 8, "depth": 1, "heads": 2}
    fixed = {"hardware": domain.finetuning.hardware, "schedule": SHORT, "seeds": 1}
    options = {
        "data": domain.finetuning.data,
        "model": replace(teacher.model_config, **sizes),
        **fixed,
        **changes,
    }
    return Distill(checkpoint=teacher.path, out=out, **options)


def test_the_term_of_classes_is_hintons():
    one, other = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.5, 0.5, 0.0]])
    none = torch.zeros(1, dtype=torch.long)
    for temperature in (1.0, 3.0):
        p, q = (other / temperature).softmax(-1), (one / temperature).softmax(-1)
        expected = temperature**2 * float((p * (p / q).log()).sum())
        term, count = teacher_term(Categorical(one, none), Categorical(other, none), temperature)
        assert float(term) == pytest.approx(expected, rel=1e-5) and int(count) == 1
    assert float(
        teacher_term(Categorical(one, none), Categorical(one, none), 2.0)[0]
    ) == pytest.approx(0, abs=1e-7)
    with pytest.raises(ConfigError, match="other targets"):
        teacher_term(Categorical(one, none), Categorical(other[:, :2], none), 1.0)


def test_no_gradient_reaches_the_teacher():
    mean = torch.ones(2, requires_grad=True)
    term, _ = teacher_term(
        Gaussian(2 * torch.ones(2), mean, mean), Gaussian(mean, torch.ones(2), mean), 1.0
    )
    assert not term.requires_grad


@pytest.mark.parametrize("kind", ["pretraining", "finetuning"])
def test_a_teacher_without_weight_changes_nothing_and_with_weight_something(
    domain: Tiny, teacher, fit, kind: str
):
    known, run = (
        {"pretraining": domain.checkpoint, "finetuning": teacher}[kind],
        getattr(domain, kind),
    )
    start = {"init": None, "model": known.model_config, "codec": known.codec}
    options = {**start, "objective": known.objectives[0], "schedule": {"steps": 3, "patience": 0}}
    plain = fit(run, "plain", **options)
    silent = fit(run, "silent", **options, teacher=Teacher(known.path, weight=0.0))
    taught = fit(run, "taught", **options, teacher=Teacher(known.path, weight=1.0))
    assert largest_difference(plain.weights(), silent.weights()) == 0
    assert largest_difference(plain.weights(), taught.weights()) > 1e-5
    # the plain objective: it opens where the teacher does
    assert taught.objectives == known.objectives
    assert taught.run == replace(plain.run, out=taught.run.out, teacher=taught.run.teacher)


def test_a_student_comes_near_its_teacher_with_labels_unseen(domain: Tiny, teacher, fit):
    known = domain.checkpoint
    store = Store.open(domain.pretraining.data)
    start = {
        "init": None,
        "model": known.model_config,
        "codec": known.codec,
        "objective": known.objectives[0],
        "seed": 9,
    }
    schedule = {"steps": 60, "lr": 1e-2, "evaluate_every": 0, "ema_decay": 0.0, "kind": "constant"}
    taught = fit(
        domain.pretraining,
        **start,
        schedule=schedule,
        teacher=Teacher(known.path, weight=1.0, temperature=1.0),
    )
    lines = [
        json.loads(line) for line in (taught.path.parent / "metrics.jsonl").read_text().splitlines()
    ]
    assert (
        sum(line["teacher"] for line in lines[-10:])
        < 0.5 * sum(line["teacher"] for line in lines[:3]) * 10 / 3
    )
    assert Model.load(taught.path, device="cpu").evaluate(store, split="validation")


def test_micro_batches_and_workers_change_nothing(domain: Tiny, teacher, fit):
    start = {
        "init": None,
        "model": teacher.model_config,
        "codec": teacher.codec,
        "objective": teacher.objectives[0],
    }
    options = {**start, "teacher": Teacher(teacher.path), "schedule": {"steps": 2, "patience": 0}}
    whole = fit(domain.finetuning, "whole", **options)
    pieces = fit(domain.finetuning, "pieces", **options, hardware={"micro_batch": 3, "workers": 1})
    assert largest_difference(whole.weights(), pieces.weights()) < 1e-10


def test_side_by_side(domain: Tiny, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(distilling, "SECONDS", 0.01)
    spec = spec_of(domain, teacher, tmp_path / "students", seeds=2)
    found = distill(spec)
    before = (tmp_path / "students" / "distilled-1" / "metrics.jsonl").stat().st_mtime_ns
    again = distill(spec)  # what is there is not trained again
    assert (tmp_path / "students" / "distilled-1" / "metrics.jsonl").stat().st_mtime_ns == before
    assert again.interval(DISTILLED) == found.interval(DISTILLED)
    assert found.interval(DISTILLED, ALONE).value == pytest.approx(
        found.interval(DISTILLED).value - found.interval(ALONE).value
    )
    sizes = found.sizes
    assert (
        sizes[DISTILLED]["parameters"]
        == sizes[ALONE]["parameters"]
        < sizes["teacher"]["parameters"]
    )
    assert all(size["records_s_64"] > 0 and size["bytes"] > 0 for size in sizes.values())
    assert "2 paired seeds" in found.table().text()
    report = json.loads((tmp_path / "students" / "distill.json").read_text())
    assert len(report["models"]) == 5 and report["metric"] == teacher.objectives[0].metric
    one, other = (
        Checkpoint.open(tmp_path / "students" / f"{kind}-0")
        for kind in ("distilled", "student-alone")
    )
    assert replace(one.run, teacher=None, out=other.run.out) == other.run
    with pytest.raises(ConfigError, match="another teacher"):
        distill(replace(spec, temperature=5.0))


def test_a_student_with_a_codec_of_its_own(tiny, tmp_path):
    teacher = loop.train(replace(tiny.finetuning, out=tmp_path / "teacher"))
    run = student_run(
        spec_of(tiny, teacher, tmp_path / "s", model=SmallCnnConfig(width=8, kernels=(5,))),
        teacher,
        DISTILLED,
        0,
        tmp_path / "s",
    )
    assert run.codec == KmerCodec(k=1) != teacher.codec
    student = loop.train(run)
    assert student.codec.k == 1 and student.objectives == teacher.objectives
    records = Store.open(run.data).split("test")
    assert len(Model.load(student.path, device="cpu").outputs(records)["probability"]) == len(
        records
    )


def test_what_cannot_be_taught_is_refused(tiny, fit, tmp_path):
    with pytest.raises(ConfigError, match="did not learn this very objective, but MaskedKmers"):
        fit(tiny.finetuning, teacher=Teacher(tiny.checkpoint.path))
    with pytest.raises(ConfigError, match="replay"):
        replace(tiny.finetuning, teacher=Teacher("a"), replay=Replay("b"))
    with pytest.raises(ConfigError, match="teacher.weight"):
        Teacher("a", weight=2.0)
    with pytest.raises(ConfigError, match="--model"):
        Distill(checkpoint="a", data="b", out="c")
    masked = spec_of(
        tiny, tiny.checkpoint, tmp_path / "s", data=tiny.pretraining.data, codec=KmerCodec(k=2)
    )
    with pytest.raises(ConfigError, match="other targets"):
        distill(masked)
