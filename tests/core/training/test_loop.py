"""The loop in trouble and under its flags: divergence, memory, locks, early stopping, precision,
forces.
"""

import json
import multiprocessing
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from tiny_runs import ROOT, largest_difference, load_file
from torch import nn

from sciforge.cli.main import main
from sciforge.core.data.store import Store
from sciforge.core.domain import Loss, Objective, seeded_model
from sciforge.core.files.atomic import try_lock
from sciforge.core.files.metrics_log import read_metrics
from sciforge.core.training import loop, stop_signals
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.checkpoint_formats import FORMAT
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import evaluate
from sciforge.core.training.run import Subset
from sciforge.errors import CheckpointError, ConfigError, DataError, DivergedError, StoppedError

CPU = Engine(torch.device("cpu"), "float64")


def spoil(monkeypatch: pytest.MonkeyPatch, objective: Objective, at: int, change) -> None:
    """Change the loss of the `at`-th training batch."""
    calls, plain = [], type(objective).loss

    def loss(self, model, batch):
        found = plain(self, model, batch)
        calls.append(torch.is_grad_enabled())
        return change(found) if sum(calls) == at else found

    monkeypatch.setattr(type(objective), "loss", loss)


def test_a_loss_that_is_not_finite_stops_and_names_the_records(tiny, fit, monkeypatch, tmp_path):
    spoil(
        monkeypatch, tiny.pretraining.objective, 4, lambda x: replace(x, total=x.total * torch.nan)
    )
    with pytest.raises(
        DivergedError, match=r"step 3: loss nan .* training records \d+, .* of .*genome; lower"
    ):
        fit(tiny.pretraining, schedule={"save_every": 2, "evaluate_every": 0})
    assert Checkpoint.open(tmp_path / "run").step == 2
    assert len(read_metrics(tmp_path / "run/metrics.jsonl")) == 3


def test_a_gradient_that_is_not_finite_stops(tiny, fit, monkeypatch, tmp_path):
    def infinite_slope(found: Loss) -> Loss:
        return replace(found, total=found.total + (found.total * 0).sqrt())  # + 0, with slope nan

    spoil(monkeypatch, tiny.pretraining.objective, 3, infinite_slope)
    with pytest.raises(DivergedError, match="step 2: the gradient is not finite"):
        fit(tiny.pretraining, schedule={"evaluate_every": 0})


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("x"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_too_little_memory_names_the_remedy(tiny, fit, monkeypatch, error):
    def loss(self, model, batch):
        raise error

    monkeypatch.setattr(type(tiny.pretraining.objective), "loss", loss)
    with pytest.raises(
        ConfigError,
        match="out of memory on cpu with 8 examples at once; set hardware.micro_batch 4",
    ):
        fit(tiny.pretraining)


def test_a_folder_belongs_to_one_run(tiny, fit, tmp_path):
    fit(tiny.pretraining, schedule={"steps": 2, "evaluate_every": 0})
    with pytest.raises(ConfigError, match="not empty; add --resume"):
        fit(tiny.pretraining)
    with pytest.raises(ConfigError, match="another schedule"):
        fit(tiny.pretraining, resume=True)
    with pytest.raises(ConfigError, match="another seed"):
        fit(tiny.pretraining, resume=True, schedule={"steps": 2, "evaluate_every": 0}, seed=8)
    again = fit(
        tiny.pretraining,
        resume=True,
        schedule={"steps": 2, "evaluate_every": 0},
        hardware={"micro_batch": 2},
    )
    assert again.step == 2
    lock = try_lock(tmp_path / "run")
    with pytest.raises(ConfigError, match="another process is training here"):
        fit(tiny.pretraining, resume=True)
    os.close(lock)


def test_resume_knows_the_run_under_other_paths(tiny, fit, tmp_path, monkeypatch):
    first = fit(tiny.pretraining, schedule={"steps": 2, "evaluate_every": 0})
    (tmp_path / "moved").symlink_to(tiny.store.path)
    monkeypatch.chdir(tmp_path)
    os.rename("run", "elsewhere")
    options = {
        "data": "moved",
        "model": tiny.checkpoint.model_config,
        "schedule": {"steps": 2, "evaluate_every": 0},
    }
    again = fit(tiny.pretraining, "elsewhere", resume=True, **options)
    assert largest_difference(again.weights(), again.weights()) == 0 and again.step == first.step


def test_a_torn_step_is_passed_over_and_a_damaged_one_reported(tiny, fit, tmp_path, monkeypatch):
    whole = fit(tiny.pretraining, "whole")
    out = tmp_path / "run"
    stop = {"schedule": {"save_every": 2}}
    plain = loop.take_step
    monkeypatch.setattr(
        loop, "take_step", lambda state, step, made: plain(state, step, made) if step < 5 else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        fit(tiny.pretraining, **stop)
    monkeypatch.setattr(loop, "take_step", plain)
    (out / "step-00000005").mkdir()  # without checkpoint.json: a removal that was cut short
    lines = (out / "metrics.jsonl").read_text()
    (out / "metrics.jsonl").write_text(lines + '{"step": 5, "lo')
    resumed = fit(tiny.pretraining, resume=True, **stop)
    assert largest_difference(resumed.weights(), whole.weights()) == 0
    assert read_metrics(out / "metrics.jsonl") == read_metrics(tmp_path / "whole/metrics.jsonl")
    assert sorted(f.name for f in out.iterdir()) == ["final", "metrics.jsonl"]
    os.rename(out / "final", out / "step-00000004")
    (out / "step-00000004/model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="digest"):
        fit(tiny.pretraining, resume=True, **stop)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_line(tiny, fit, tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="no permission"):
        fit(tiny.pretraining)


def test_a_file_in_place_of_the_folder_is_one_line(tiny, fit, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="a file is where a folder is needed"):
        fit(tiny.pretraining)


def test_early_stopping_restores_the_best(tiny, fit, tmp_path, monkeypatch):
    values = iter([0.1, 0.5, 0.4, 0.5, 0.9])
    monkeypatch.setattr(loop, "evaluate", lambda *args: {"loss": 1.0, "mcc": next(values)})
    stopped = fit(tiny.finetuning, schedule={"steps": 20, "evaluate_every": 1, "patience": 2})
    assert stopped.step == 2 and stopped.metrics["mcc"] == 0.5
    assert max(line["step"] for line in read_metrics(tmp_path / "run/metrics.jsonl")) == 3
    monkeypatch.undo()
    options = {"steps": 20, "evaluate_every": 0, "patience": 0, "save_every": 2}
    plain = loop.take_step
    monkeypatch.setattr(
        loop, "take_step", lambda state, step, made: plain(state, step, made) if step < 3 else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        fit(tiny.finetuning, "cut", schedule=options)
    at_best = Checkpoint.open(tmp_path / "cut")
    assert largest_difference(stopped.weights(), at_best.weights()) == 0


def test_settings_that_cannot_work_are_refused_before_training(tiny, fit):
    with pytest.raises(ConfigError, match="subset.count is 999"):
        fit(tiny.finetuning, "a", subset=Subset(999))
    with pytest.raises(ConfigError, match="subset chooses labelled records"):
        fit(tiny.pretraining, "b", subset=Subset(8))
    with pytest.raises(ConfigError, match="did you mean 'classify'"):
        fit(tiny.finetuning, "c", objective="clasify")
    with pytest.raises(ConfigError, match="no model 'minni'"):
        fit(tiny.pretraining, "d", model="minni")
    with pytest.raises(ConfigError, match="codec"):
        fit(tiny.finetuning, "e", codec=replace(tiny.checkpoint.codec, k=4))
    with pytest.raises((ConfigError, DataError)):
        fit(tiny.pretraining, "f", data=tiny.finetuning.data)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        fit(tiny.finetuning, "g", init="nowhere")
    with pytest.raises(ConfigError, match="needs processes"):
        fit(tiny.pretraining, "h", strategy="shard")


def test_training_leaves_the_global_generator_alone(tiny, fit):
    torch.manual_seed(11)
    wanted = torch.rand(3)
    torch.manual_seed(11)
    fit(tiny.pretraining, schedule={"steps": 2, "evaluate_every": 0})
    assert torch.equal(torch.rand(3), wanted)


def test_checkpointing_activations_changes_nothing(tiny, fit):
    options = {"steps": 3, "evaluate_every": 0}
    plain, again = (
        fit(tiny.pretraining, str(on), schedule=options, hardware={"checkpointing": on})
        for on in (False, True)
    )
    assert largest_difference(plain.weights(), again.weights()) == 0


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_bfloat16_runs_on_the_cpu_and_keeps_float32_weights(tiny, fit):
    found = fit(tiny.pretraining, hardware={"precision": "bfloat16"})
    assert {t.dtype for t in found.weights().values()} == {torch.float32}
    assert found.metrics["loss"] == pytest.approx(tiny.checkpoint.metrics["loss"], rel=0.05)


@pytest.mark.slow
def test_compiled_training_agrees(tiny, fit, monkeypatch):
    eager = torch.compile
    # no C++ compiler needed
    monkeypatch.setattr(torch, "compile", lambda model: eager(model, backend="eager"))
    options = {"steps": 2, "evaluate_every": 0}
    plain, again = (
        fit(tiny.pretraining, str(on), schedule=options, hardware={"compile": on})
        for on in (False, True)
    )
    assert largest_difference(plain.weights(), again.weights()) < 1e-10


def test_a_second_fine_tuning_keeps_the_head_of_the_same_objective(tiny, fit):
    first = fit(tiny.finetuning, "first")
    options = {"steps": 1, "lr": 0.0, "weight_decay": 0.0, "evaluate_every": 0, "patience": 0}
    second = fit(
        tiny.finetuning, "second", init=first.path, objective=first.objectives[0], schedule=options
    )
    same = {
        n: torch.equal(t.float(), first.weights()[n].float()) for n, t in second.weights().items()
    }
    assert all(same.values())
    other = replace(first.objectives[0], shift=1)
    third = fit(tiny.finetuning, "third", init=first.path, objective=other, schedule=options)
    heads = ("heads.class.weight_CF", "heads.class.place_CTR", "heads.class.project.weight")
    assert any(
        not torch.equal(third.weights()[n].float(), first.weights()[n].float()) for n in heads
    )


@dataclass(frozen=True)
class Force(Objective):
    """Learns minus the gradient of an energy, so both training and evaluation differentiate the
    model.
    """

    needs_grad: ClassVar[bool] = True

    def prepare(self, record, codec, rng, training):
        return record

    def forces(self, model: nn.Module, batch: dict) -> torch.Tensor:
        place = batch["place"].detach().requires_grad_(True)
        return -torch.autograd.grad(model(place).sum(), place, create_graph=True)[0]

    def loss(self, model, batch):
        error = self.forces(model, batch) - batch["force"]
        return Loss(error.square().sum(), torch.tensor(error.numel()))

    def predict(self, model, batch):
        return {"force": self.forces(model, batch)}

    def metrics(self, outputs, records):
        wanted = np.stack([r["force"].numpy() for r in records])
        return {"rmse": np.float32(np.sqrt(((outputs["force"] - wanted) ** 2).mean()))}


class Stack:
    @staticmethod
    def collate(examples):
        return {name: torch.stack([e[name] for e in examples]) for name in examples[0]}


def test_evaluation_of_forces_differentiates():
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    places = torch.randn(7, 3, dtype=torch.float64)
    records = [{"place": p, "force": -p} for p in places]
    metrics = evaluate(model, Force(), Stack, records, CPU, size=3)
    assert metrics["rmse"] == pytest.approx(metrics["loss"] ** 0.5, rel=1e-6)
    assert type(metrics["rmse"]) is float and all(p.grad is None for p in model.parameters())
    again = Stack.collate(records)
    Force().loss(model, again).total.backward()
    assert all(p.grad is not None for p in list(model.parameters())[:2])


class Graph:
    """Stands for a PyG batch: not a mapping, moved by `apply`."""

    def __init__(self, pos):
        self.pos = pos

    def apply(self, change):
        self.pos = change(self.pos)
        return self


def test_batches_of_any_kind_are_moved():
    assert CPU.move(Graph(torch.ones(2))).pos.dtype == torch.float64
    moved = CPU.move(
        {
            "x": torch.ones(2),
            "n": torch.ones(2, dtype=torch.int64),
            "inner": {"y": torch.ones(1)},
            "s": "a",
        }
    )
    assert moved["x"].dtype == moved["inner"]["y"].dtype == torch.float64
    assert moved["n"].dtype == torch.int64 and moved["s"] == "a"


def test_two_objectives_may_not_share_a_head_by_name(tiny, fit):
    made = fit(tiny.finetuning, schedule={"steps": 1, "evaluate_every": 0, "patience": 0})
    two = (made.objectives[0], replace(made.objectives[0], shift=1))
    with pytest.raises(ConfigError, match="both need the head 'class'"):
        seeded_model(made.model_config, made.codec, two, 0)


def test_killed_runs_resume_to_the_same_bits(tmp_path):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    seen = load_file(ROOT / "benchmarks/kill.py").measure(tmp_path, kills=5, seed=1)
    bad = (
        "unreadable checkpoints",
        "stale after the next start",
        "runs with other weights",
        "runs that failed",
    )
    assert seen["kills"] == 5 and not any(seen[name] for name in (*bad, "runs with other metrics"))


def test_ctrl_c_leaves_a_run_to_resume(tiny, fit, tmp_path, monkeypatch, request):
    # a suite started in the background of a shell inherits an ignored SIGINT
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    plain = loop.take_step

    def interrupted(state, step, made):
        if step == 3:
            signal.raise_signal(signal.SIGINT)
        return plain(state, step, made)

    monkeypatch.setattr(loop, "take_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny.pretraining, schedule={"save_every": 1})
    monkeypatch.setattr(loop, "take_step", plain)
    assert Checkpoint.open(tmp_path / "run").step == 3 and not list(tmp_path.rglob(".writing-*"))
    assert (
        largest_difference(
            fit(tiny.pretraining, resume=True, schedule={"save_every": 1}).weights(),
            tiny.checkpoint.weights(),
        )
        == 0
    )


def test_a_bad_record_in_a_worker_is_one_line(tiny, fit, tmp_path):
    wrong = replace(tiny.finetuning.objective, classes=("yes", "maybe"))
    with pytest.raises(DataError, match="label 'no' is none of yes, maybe") as caught:
        fit(tiny.finetuning, objective=wrong, hardware={"workers": 1})
    assert "\n" not in str(caught.value)


def test_provenance_says_where_a_model_comes_from(tiny, fit):
    child = fit(tiny.finetuning)
    about = child.provenance
    assert (
        about["data"] == Store.open(tiny.finetuning.data).digests()
        and about["seed"] == tiny.finetuning.seed
    )
    assert about["versions"]["torch"] == torch.__version__ and len(about["parent"]) == 64
    assert json.loads((Path(child.path) / "checkpoint.json").read_text())["format"] == FORMAT


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stopped_run_saves_the_step_in_progress_and_resumes_to_the_same_bits(tmp_path, sent):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    kill = load_file(ROOT / "benchmarks/kill.py")
    seen = kill.measure(tmp_path, kills=8, steps=24, seed=int(sent), sent=sent, save_every=0)
    assert seen["stopped with a checkpoint"] >= 3 and seen["steps lost"] == 0
    # the one in progress, and one logged before the signal came
    assert seen["steps after the signal, at most"] <= 2
    bad = (
        "unreadable checkpoints",
        "runs with other weights",
        "runs with other metrics",
        "runs that failed",
    )
    assert not any(seen[name] for name in bad)


def signal_at(monkeypatch, at: int, sent: int) -> None:
    """Send a signal to this process within a step."""
    plain = loop.take_step

    def step_with_signal(state, step, batches):
        if step == at:
            signal.raise_signal(sent)
        return plain(state, step, batches)

    monkeypatch.setattr(loop, "take_step", step_with_signal)


def test_a_stopped_run_says_how_to_go_on(tiny, fit, tmp_path, monkeypatch, caplog, capsys):
    caplog.set_level("INFO", "sciforge")
    with monkeypatch.context() as patch:
        signal_at(patch, 2, signal.SIGTERM)
        with pytest.raises(
            StoppedError, match="stopped by SIGTERM after step 3 of .*continue with --resume"
        ) as caught:
            fit(tiny.pretraining)
        assert caught.value.code == 75 and "\n" not in str(caught.value)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert fit(tiny.pretraining, resume=True).step == tiny.checkpoint.step
    assert "resuming from step 3" in caplog.text
    caplog.clear()
    fit(tiny.pretraining, resume=True)
    assert "finished already" in caplog.text
    fit(tiny.pretraining, "fresh", resume=True)
    assert "nothing to resume from, starting at step 0" in caplog.text

    def stopped(*_):
        raise StoppedError("run: stopped; continue")

    monkeypatch.setattr("sciforge.cli.main._dispatch", stopped)
    assert main(["train"]) == 75 and capsys.readouterr().err == "sciforge: run: stopped; continue\n"


def test_ctrl_c_saves_first_when_a_minute_is_at_stake(tiny, fit, tmp_path, monkeypatch, request):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    monkeypatch.setattr(stop_signals, "AT_STAKE", -1.0)
    with monkeypatch.context() as patch:
        signal_at(patch, 2, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt, match="stopped by SIGINT after step 3"):
            fit(tiny.pretraining)
    assert Checkpoint.open(tmp_path / "run").step == 3
    again = fit(tiny.pretraining, resume=True)
    assert largest_difference(again.weights(), tiny.checkpoint.weights()) == 0


def test_a_batch_beyond_reason_is_refused_at_once(tiny, fit):
    with pytest.raises(
        ConfigError, match="schedule.batch is 1000000000000; it must be between 1 and"
    ):
        replace(tiny.pretraining.schedule, batch=10**12)
    with pytest.raises(
        ConfigError, match=r"schedule.batch is 2000000000; .* has \d+ training records"
    ):
        fit(tiny.pretraining, schedule={"batch": 2 * 10**9})


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_constant_schedule_is_extended_to_the_same_bits(tiny, fit, ema):
    options = {
        "kind": "constant",
        "warmup": 0.25,
        "save_every": 3,
        "evaluate_every": 0,
        "ema_decay": ema,
    }
    whole = fit(tiny.pretraining, "whole", schedule={**options, "steps": 8})
    fit(tiny.pretraining, schedule={**options, "steps": 4, "warmup": 0.5})
    longer = fit(tiny.pretraining, resume=True, schedule={**options, "steps": 8})
    assert longer.step == 8 and largest_difference(longer.weights(), whole.weights()) == 0
    assert longer.body["loop"]["extended"] == [{"at": 4, "from": 4, "to": 8}]
    assert sorted(f.name for f in longer.path.parent.iterdir()) == ["final", "metrics.jsonl"]


def test_a_schedule_whose_past_would_differ_is_not_extended(tiny, fit):
    options = {"kind": "cosine", "save_every": 3, "evaluate_every": 0}
    fit(tiny.pretraining, schedule={**options, "steps": 4})
    with pytest.raises(
        ConfigError, match=r"another schedule \(more steps must leave the learning rate"
    ):
        fit(tiny.pretraining, resume=True, schedule={**options, "steps": 8})
    options = {"kind": "constant", "warmup": 0.0, "evaluate_every": 0}
    fit(tiny.pretraining, "unsaved", schedule={**options, "steps": 4})
    with pytest.raises(ConfigError, match="keeps nothing to extend the run from"):
        fit(tiny.pretraining, "unsaved", resume=True, schedule={**options, "steps": 8})
