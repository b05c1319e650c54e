"""Several tasks in one run: what each draws, how its loss counts, and that resuming, processes and
micro-batches are as exact as with one task.
"""

import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import Tiny, largest_difference, make_tiny

import sciforge as sf
from sciforge.cli.main import main
from sciforge.core.data import sampling
from sciforge.core.data.store import Store, prepare
from sciforge.core.domain import Loss
from sciforge.core.files.atomic import read_json, write_json
from sciforge.core.files.metrics_log import read_metrics
from sciforge.core.methods.retention import retained
from sciforge.core.training.agreement import settings
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.model import Model
from sciforge.core.training.run import (
    CORE_TYPES,
    DPSGD,
    EWC,
    L2SP,
    Freeze,
    LoRA,
    Pruning,
    Replay,
    Run,
    Subset,
    Task,
    Teacher,
    from_json,
    to_json,
)
from sciforge.core.training.set_up import set_up
from sciforge.errors import CheckpointError, ConfigError, DivergedError
from sciforge.genomes.data.labelled_sequences import Sequences
from sciforge.provenance import model_card
from sciforge.provenance.verify import verify

QUARTERS = [Fraction(3, 4), Fraction(1, 4)]


@pytest.fixture(autouse=True)
def same_handlers() -> Iterator[None]:
    """Take away what `main` logs to: the test's stream, which is closed after it."""
    logger = logging.getLogger("sciforge")
    before, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = before
    logger.setLevel(level)


@pytest.fixture(scope="module")
def both(tiny: Tiny) -> Run:
    """Hidden k-mers and classes from a fresh network, three to one."""
    tasks = (
        Task(data=tiny.pretraining.data, objective=tiny.pretraining.objective, share=0.75),
        Task(data=tiny.finetuning.data, objective=tiny.finetuning.objective, share=0.25),
    )
    run = replace(tiny.pretraining, data=None, objective=None, tasks=tasks)
    return replace(run, schedule=replace(run.schedule, ema_decay=0.5))


@pytest.fixture(scope="module")
def learnt(both: Run, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sf.train(replace(both, out=tmp_path_factory.mktemp("both") / "run"))


def lines(checkpoint: Checkpoint) -> list[dict]:
    return read_metrics(checkpoint.path.parent / "metrics.jsonl")


# What is drawn ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 3, 8, 32])
@pytest.mark.parametrize("shares", [(3, 1), (1, 1, 1), (100, 1), (1, 999), (5, 3, 2, 1)])
def test_shares_are_exact_in_the_long_run(batch: int, shares: tuple[int, ...]):
    parts = [Fraction(share, sum(shares)) for share in shares]
    had = [0] * len(parts)
    for step in range(400):
        places = sampling.task_places(batch, parts, step)
        assert sum(map(len, places)) == batch
        assert [p.start for p in places] == had  # a function of the step that leaves nothing out
        had = [p.stop for p in places]
        ideal = [(step + 1) * batch * part for part in parts]
        assert all(abs(a - b) <= 1 for a, b in zip(had, ideal, strict=True))


def test_steps_far_away_cost_nothing_and_stay_exact():
    step = 10**15
    before, after = (sampling.task_places(7, QUARTERS, s) for s in (step - 1, step))
    assert [p.stop for p in before] == [p.start for p in after]
    assert sampling.task_counts(4 * step, QUARTERS) == [3 * step, step]


def test_what_a_step_draws_is_a_function_of_seed_and_step(both: Run, tmp_path):
    def drawn(run: Run, step: int) -> list:
        with Engine.start(run.hardware) as engine:
            return set_up(replace(run, out=tmp_path), engine).data.indices(step)

    first = [drawn(both, step) for step in (3, 0, 3)]
    assert first[0] == first[2] != first[1]
    assert drawn(replace(both, seed=4), 3) != first[0]
    assert [len(pairs) for pairs in first[0]] == [6, 2]


def test_a_small_store_goes_round_with_epochs_of_its_own(both: Run, tmp_path):
    """Labels repeat every 40 / 2 steps or so, windows of the genome on a count of their own."""
    with Engine.start(both.hardware) as engine:
        state = set_up(replace(both, out=tmp_path), engine)
    labelled = len(state.tasks[1].records)
    pairs = [pair for step in range(labelled) for pair in state.data.indices(step)[1]]
    assert Counter(epoch for epoch, _ in pairs) == {0: labelled, 1: labelled}
    assert sorted(index for epoch, index in pairs if epoch == 1) == list(range(labelled))


def test_tasks_on_the_same_data_draw_in_orders_of_their_own(tiny: Tiny, both: Run, tmp_path):
    twice = (both.tasks[0], replace(both.tasks[0], name="again", share=0.75))
    with Engine.start(both.hardware) as engine:
        one, other = set_up(replace(both, tasks=twice, out=tmp_path), engine).data.indices(0)
    assert len(one) == len(other) and one != other


# How it counts ------------------------------------------------------------------------------------


def gradient(run: Run, folder: Path, step: int = 0, micro: int | None = None) -> dict:
    """Return the gradient of a step by name, and its metrics."""
    hardware = replace(run.hardware, micro_batch=micro)
    with Engine.start(hardware) as engine:
        state = set_up(replace(run, out=folder, hardware=hardware), engine)
        metrics = state.gradient(state, step, state.data[step])
        return {
            n: p.grad.clone() for n, p in state.parameters.items() if p.grad is not None
        }, metrics


@pytest.mark.parametrize("micro", [1, 2])
def test_micro_batches_give_the_same_gradient(both: Run, tmp_path, micro: int):
    whole, metrics = gradient(both, tmp_path)
    pieces, again = gradient(both, tmp_path, micro=micro)
    assert largest_difference(whole, pieces) < 1e-12
    assert again == pytest.approx(metrics, rel=1e-12)
    assert any(name.startswith("heads.classify.") for name in whole)


def test_the_loss_is_the_weighted_mean_of_the_tasks(both: Run, tmp_path):
    heavy = (both.tasks[0], replace(both.tasks[1], weight=3.0))
    plain, metrics = gradient(both, tmp_path)
    weighted, changed = gradient(replace(both, tasks=heavy), tmp_path)
    assert metrics["loss"] == pytest.approx(
        0.75 * metrics["loss_masked"] + 0.25 * metrics["loss_classify"], rel=1e-12
    )
    assert changed["loss"] == pytest.approx(
        0.75 * metrics["loss_masked"] + 0.75 * metrics["loss_classify"], rel=1e-12
    )
    for name in (n for n in plain if n.startswith("heads.classify.")):
        assert torch.allclose(weighted[name], 3 * plain[name], rtol=1e-10, atol=1e-14), name


def test_a_task_without_examples_in_a_step_is_left_alone(both: Run, fit):
    rare = (replace(both.tasks[0], share=11.0), replace(both.tasks[1], share=1.0))
    run = replace(both, tasks=rare)
    checkpoint = fit(run, schedule={"batch": 1, "steps": 24, "evaluate_every": 0, "ema_decay": 0.0})
    steps = lines(checkpoint)
    assert sum("loss_classify" in line for line in steps) == 2
    assert all(np.isfinite(line["loss"]) for line in steps)
    assert all(("loss_classify" in line) != ("loss_masked" in line) for line in steps)


def counting(kind: type, value: float, total: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loss of an objective count so many things, and sum to so much."""
    loss = kind.loss

    def other(self, model, batch):
        plain = loss(self, model, batch)
        return Loss(total * plain.total, torch.tensor(value), plain.parts)

    monkeypatch.setattr(kind, "loss", other)


def test_a_task_that_counts_nothing_in_a_step_adds_nothing(both: Run, tmp_path, monkeypatch):
    alone, _ = gradient(replace(both, tasks=both.tasks[:1]), tmp_path)
    counting(type(both.tasks[1].objective), 0.0, 1.0, monkeypatch)
    grads, metrics = gradient(both, tmp_path)
    assert "loss_classify" not in metrics
    assert not any(name.startswith("heads.classify") for name in grads)
    assert metrics["loss"] == pytest.approx(0.75 * metrics["loss_masked"], rel=1e-12)
    assert set(grads) == set(alone)


def test_a_step_in_which_no_task_learns_stops_the_run(both: Run, fit, monkeypatch):
    for task in both.tasks:
        counting(type(task.objective), 0.0, 1.0, monkeypatch)
    with pytest.raises(DivergedError, match="step 0: no task has anything to learn; training rec"):
        fit(both)


def test_a_task_that_is_not_finite_names_the_records_of_all(both: Run, fit, monkeypatch):
    counting(type(both.tasks[1].objective), 1.0, float("nan"), monkeypatch)
    with pytest.raises(DivergedError, match="loss nan over .*genome and .*labelled;"):
        fit(both)


def test_losses_and_evaluations_stand_under_the_names_of_tasks(learnt: Checkpoint):
    step = lines(learnt)[0]
    assert {"loss", "loss_masked", "loss_classify", "accuracy_classify"} <= set(step)
    evaluation = next(line for line in lines(learnt) if "validation_loss" in line)
    assert {"validation_nats_per_base", "validation_auroc_classify"} <= set(evaluation)
    assert {"nats_per_base", "loss_classify", "auroc_classify"} <= set(learnt.metrics)


# Exactness ----------------------------------------------------------------------------------------


def test_resume_is_bit_equal(both: Run, fit, tmp_path, interrupted):
    often = {"save_every": 2}
    whole = fit(both, "whole", schedule=often)
    with interrupted(5):
        fit(both, "cut", schedule=often)
    resumed = fit(both, "cut", resume=True, schedule=often)
    assert (resumed.path / "model.safetensors").read_bytes() == (
        whole.path / "model.safetensors"
    ).read_bytes()
    assert lines(resumed) == lines(whole) and resumed.metrics == whole.metrics


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tasks: (replace(tasks[0], share=0.5), tasks[1]), "another tasks"),
        (lambda tasks: (tasks[0], replace(tasks[1], weight=2.0)), "another tasks"),
        (lambda tasks: tasks[::-1], "another data"),
    ],
)
def test_resume_refuses_other_tasks(both: Run, fit, interrupted, change, words):
    with interrupted(5):
        fit(both, schedule={"save_every": 2})
    other = change(both.tasks)
    changed = replace(both, tasks=other, data=other[0].data, objective=other[0].objective)
    with pytest.raises(ConfigError, match="holds a run with another (tasks|data|objective)"):
        fit(changed, resume=True, schedule={"save_every": 2})


def test_resume_looks_at_the_data_of_every_task(both: Run, fit, interrupted, tmp_path):
    with interrupted(5):
        fit(both, schedule={"save_every": 2})
    text = (both.tasks[1].data.parent / "tiny.tsv").read_text()
    table = tmp_path / "other.tsv"
    table.write_text(text.replace("\nA", "\nT", 1).replace("\nC", "\nG", 1))
    prepare(Sequences(files=(table,), validation_share=0.2), tmp_path / "other")
    moved = (both.tasks[0], replace(both.tasks[1], data=tmp_path / "other"))
    with pytest.raises(ConfigError, match="another data of another task"):
        fit(replace(both, tasks=moved), resume=True, schedule={"save_every": 2})


def test_workers_change_nothing(both: Run, learnt: Checkpoint, fit):
    helped = fit(both, hardware={"workers": 2})
    assert largest_difference(helped.tensors(), learnt.tensors()) == 0


WORKER = """
import os
import sys
from dataclasses import replace
from pathlib import Path
from torch import distributed
from sciforge.core.training.loop import train
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.errors import ConfigError

distributed.init_process_group("gloo")
rank = distributed.get_rank()
run = Checkpoint.open(Path(sys.argv[1])).run
out = Path(sys.argv[2])
train(replace(run, out=out / "two"))
train(replace(run, out=out / "shard", strategy="shard"))
first, second = run.tasks
for name, other in {
    "share": replace(second, share=0.25 + 0.5 * rank),
    "data": replace(second, data=first.data if rank else second.data),
}.items():
    try:
        train(replace(run, out=out / name, tasks=(first, other)))
    except ConfigError as error:
        (out / f"{name}-{rank}.txt").write_text(str(error))
distributed.destroy_process_group()
os._exit(0)  # gloo may abort while Python takes itself down
"""


@pytest.fixture(scope="module")
def two(learnt: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the same on two processes, and try what they disagree about."""
    out = tmp_path_factory.mktemp("two")
    (out / "worker.py").write_text(WORKER)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
    ]
    words = [*launch, str(out / "worker.py"), str(learnt.path), str(out)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.parametrize("name", ["two", "shard"])
def test_two_processes_are_one(learnt: Checkpoint, two: Path, name: str):
    checkpoint = Checkpoint.open(two / name)
    assert checkpoint.provenance["world_size"] == 2
    assert largest_difference(checkpoint.tensors(), learnt.tensors()) < 1e-10
    assert checkpoint.metrics == pytest.approx(learnt.metrics, abs=1e-10)


@pytest.mark.parametrize(("name", "words"), [("share", "tasks.1.share"), ("data", "another data")])
def test_processes_must_agree_on_every_task(two: Path, name: str, words: str):
    assert words in (two / f"{name}-0.txt").read_text()


def test_paths_of_tasks_may_differ_between_nodes(both: Run):
    moved = tuple(replace(task, data=Path("elsewhere") / task.data.name) for task in both.tasks)
    assert settings(replace(both, tasks=moved, data=moved[0].data)) == settings(both)


# Checkpoints --------------------------------------------------------------------------------------


def test_a_checkpoint_keeps_all_heads_and_opens_as_each_task(learnt: Checkpoint, both: Run):
    assert learnt.tasks == ("masked", "classify") and learnt.all_objectives[0] == both.objective
    labelled = Store.open(both.tasks[1].data)
    model = sf.load(learnt.path, device="cpu")
    assert type(model.objective) is type(both.tasks[0].objective)
    tuned = sf.load(learnt.path, device="cpu", task="classify")
    assert type(tuned.objective) is type(both.tasks[1].objective)
    assert "class" in tuned.network.heads and "class" not in model.network.heads
    frame = tuned.predict(labelled, split="validation")
    assert model.task("classify").predict(labelled, split="validation").equals(frame)
    metrics = tuned.evaluate(labelled, split="validation", seed=both.seed)
    assert metrics["auroc"] == pytest.approx(learnt.metrics["auroc_classify"], abs=1e-6)
    assert "classify of masked, classify" in tuned._repr_html_()
    with pytest.raises(ConfigError, match="no task 'clasify'; did you mean 'classify'"):
        model.task("clasify")


def test_a_checkpoint_of_one_objective_has_no_tasks(tiny: Tiny):
    with pytest.raises(ConfigError, match="no task 'masked'; it learnt one objective only"):
        sf.load(tiny.checkpoint.path, task="masked")


def test_the_task_survives_pickling(learnt: Checkpoint):
    import pickle

    model = Model.load(learnt.path, "cpu", task="classify")
    assert pickle.loads(pickle.dumps(model)).checkpoint.scope == "classify"


def test_names_of_tasks_that_were_forged_are_refused(learnt: Checkpoint, tmp_path):
    import shutil

    for number, names in enumerate((["masked"], ["a", "a"], ["train", "a.b"], "masked", [1, 2])):
        copy = tmp_path / str(number)
        shutil.copytree(learnt.path, copy)
        body = read_json(copy / "checkpoint.json", CheckpointError)
        write_json(copy / "checkpoint.json", {**body, "tasks": names})
        with pytest.raises(CheckpointError, match="not one name an objective"):
            Checkpoint.open(copy)


def test_a_run_of_tasks_round_trips(learnt: Checkpoint):
    known = {**CORE_TYPES, **learnt.domain.types()}
    assert from_json(json.loads(json.dumps(to_json(learnt.run))), known) == learnt.run


def test_verify_takes_every_task_again(learnt: Checkpoint):
    found = verify(learnt.path, replay=6)
    text = found.table().text()
    assert found.sound and found.replay.verdict == "bit-equal", text
    assert found.replay.tensors == len(learnt.tensors())
    assert "data of classify" in text and "MaskedKmers and Classify" in text


def test_verify_sees_that_the_data_of_a_second_task_are_others(learnt: Checkpoint, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(learnt.path.parent, copy)
    body = read_json(copy / "final/checkpoint.json", CheckpointError)
    digests = body["provenance"]["tasks"]["classify"]["data"]
    digests[next(iter(digests))] = "0" * 64
    write_json(copy / "final/checkpoint.json", body)
    found = {finding.what: finding.state for finding in verify(copy, replay=0).findings}
    assert found["data of classify"] == "wrong" and found["data"] == "ok"


def test_the_model_card_names_all_tasks(learnt: Checkpoint):
    card = model_card.write(learnt).read_text()
    for words in (
        "objective of task masked",
        "objective of task classify",
        "store of task classify",
    ):
        assert words in card
    assert "- task classify: share 0.25 of the examples, weight 1" in card


# From a parent, and with methods ------------------------------------------------------------------


@pytest.fixture(scope="module")
def onward(tiny: Tiny, both: Run) -> Run:
    """New labels while the pretraining objective goes on as it was learnt."""
    tasks = (
        Task(data=tiny.finetuning.data, objective=tiny.finetuning.objective, share=0.5),
        Task(data=tiny.pretraining.data, share=0.5, name="old"),
    )
    return replace(tiny.finetuning, data=None, objective=None, tasks=tasks)


def test_a_task_goes_on_with_what_the_parent_learnt(tiny: Tiny, onward: Run, fit):
    checkpoint = fit(onward)
    assert checkpoint.of_task("old").objectives == tiny.checkpoint.objectives
    assert checkpoint.run.tasks[1].objective is None
    assert verify(checkpoint.path, replay=3).replay.verdict == "bit-equal"


def test_replay_is_a_task(tiny: Tiny, onward: Run, fit):
    """The same examples at the same share: only where the old heads stand is another."""
    mixed = fit(tiny.finetuning, "mixed", replay=Replay(tiny.pretraining.data, 0.5))
    step = lines(mixed)[0]
    assert {"loss", "loss_classify", "loss_replay", "nats_per_base_replay"} <= set(step)
    assert step["loss"] == pytest.approx(
        0.5 * step["loss_classify"] + 0.5 * step["loss_replay"], rel=1e-12
    )
    assert mixed.tasks == () and len(mixed.objectives) == 2
    assert set(mixed.provenance["tasks"]) == {"replay"}
    own = lines(fit(onward, "own"))[0]
    assert own["loss_classify"] == pytest.approx(step["loss_classify"], rel=1e-12)


def test_resuming_with_replay_looks_at_the_old_data(tiny: Tiny, fit, interrupted):
    run, often = tiny.finetuning, {"save_every": 2}
    with interrupted(5):
        fit(run, schedule=often, replay=Replay(tiny.pretraining.data, 0.5))
    whole = fit(run, "whole", schedule=often, replay=Replay(tiny.pretraining.data, 0.5))
    resumed = fit(run, resume=True, schedule=often, replay=Replay(tiny.pretraining.data, 0.5))
    assert largest_difference(whole.tensors(), resumed.tensors()) == 0


def test_heads_of_a_task_come_from_the_parents_task(learnt: Checkpoint, both: Run, fit, tmp_path):
    run = replace(both, model=None, codec=None, init=learnt.path)
    with Engine.start(run.hardware) as engine:
        state = set_up(replace(run, out=tmp_path), engine)
    start = {name: tensor for name, tensor in state.model.state_dict().items()}
    assert largest_difference(start, learnt.tensors()) < 1e-6  # loaded in single precision


def test_one_objective_from_a_parent_of_several(tiny: Tiny, learnt: Checkpoint, fit):
    """The very same objective takes over its own head, found among the parent's tasks."""
    again = learnt.of_task("classify")
    run = replace(tiny.finetuning, init=learnt.path)
    checkpoint = fit(run, schedule={"lr": 0.0, "patience": 0})
    assert largest_difference(checkpoint.tensors(), again.weights()) < 1e-6
    tuned = Model.load(learnt.path, "cpu", task="classify").fit(
        tiny.labelled, schedule=run.schedule, hardware=run.hardware, verbose=False
    )
    assert tuned.tasks == ()


@pytest.mark.parametrize(
    "method",
    [
        {"regularization": L2SP(0.1)},
        {"regularization": EWC(1.0, examples=4)},
        {"finetuning": LoRA(rank=2)},
        {"finetuning": Freeze("encoder")},
        {"pruning": Pruning(share=0.5), "schedule": {"patience": 0}},
        {"schedule": {"ema_decay": 0.5}},
        {"subset": Subset(8)},
    ],
    ids=["l2sp", "ewc", "lora", "freeze", "pruning", "ema", "subset"],
)
def test_methods_work_with_tasks(tiny: Tiny, onward: Run, fit, interrupted, method: dict):
    if isinstance(method.get("regularization"), EWC):
        ewc = replace(method["regularization"], data=tiny.pretraining.data)
        method = {"regularization": ewc}
    schedule = {"save_every": 2, **method.get("schedule", {})}
    changes = {**method, "schedule": schedule, "retention": tiny.pretraining.data}
    whole = fit(onward, "whole", **changes)
    with interrupted(5):
        fit(onward, "cut", **changes)
    resumed = fit(onward, "cut", resume=True, **changes)
    assert largest_difference(whole.tensors(), resumed.tensors()) == 0
    assert whole.metrics["retained"] == resumed.metrics["retained"]
    if "subset" in method:
        with Engine.start(onward.hardware) as engine:
            assert len(set_up(replace(onward, **method), engine).tasks[0].records) == 8


def test_ewc_from_a_parent_of_several_tasks_holds_its_backbone(learnt: Checkpoint, both: Run, fit):
    ewc = EWC(1e9, examples=4, data=both.data, step="proximal")
    run = replace(both, model=None, codec=None, init=learnt.path, regularization=ewc)
    free = fit(replace(run, regularization=None), "free", schedule={"ema_decay": 0.0})
    held = fit(run, "held", schedule={"ema_decay": 0.0})
    before = learnt.tensors()
    moved = [
        largest_difference(
            {n: t for n, t in c.tensors().items() if n.startswith("encoder")},
            {n: t for n, t in before.items() if n.startswith("encoder")},
        )
        for c in (free, held)
    ]
    assert moved[1] < moved[0]


def test_retention_sees_the_old_head_where_a_task_kept_it(tiny: Tiny, onward: Run, fit):
    checkpoint = fit(onward, retention=tiny.pretraining.data)
    engine = Engine(torch.device("cpu"), "float32")
    old = checkpoint.of_task("old").weights()
    expected = retained(tiny.checkpoint, old, tiny.pretraining.data, engine)
    assert checkpoint.metrics["retained"]["after"] == pytest.approx(expected["after"], rel=1e-5)


def test_a_task_in_which_nothing_trains_is_refused(onward: Run, fit):
    with pytest.raises(ConfigError, match="no weight that trains takes part in MaskedKmers"):
        fit(onward, finetuning=Freeze(r"classify"))


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dp_sgd": DPSGD(noise=1.0)}, "dp_sgd has one source of examples"),
        ({"teacher": Teacher(Path("t"))}, "a teacher teaches one objective"),
        ({"data": Path("elsewhere")}, "run.data is given beside tasks"),
        ({"model": None, "init": Path("p"), "replay": Replay(Path("r"))}, "replay beside tasks"),
    ],
)
def test_what_does_not_go_with_tasks_is_refused(both: Run, changes: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        replace(both, **changes)


def test_a_run_needs_data_or_tasks(both: Run):
    with pytest.raises(ConfigError, match="run.data is missing; give data and objective, or tasks"):
        replace(both, tasks=(), data=None)
    with pytest.raises(ConfigError, match="run.objective is missing"):
        replace(both, tasks=(), objective=None)
    with pytest.raises(ConfigError, match="run.tasks is 'a.toml'; expected Task"):
        replace(both, tasks="a.toml")


@pytest.mark.parametrize(
    ("name", "words"), [("a.b", "use letters"), ("train", "torch"), ("keys", "torch"), (" ", "use")]
)
def test_bad_names_are_refused(name: str, words: str):
    with pytest.raises(ConfigError, match=words):
        Task(data=Path("d"), objective="masked", name=name)


@pytest.mark.parametrize("field", ["share", "weight"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_shares_and_weights_are_positive(field: str, value: float):
    with pytest.raises(ConfigError, match=f"task.{field} is"):
        Task(data=Path("d"), **{field: value})


def test_tasks_of_one_name_and_of_two_domains_are_refused(both: Run, fit, tmp_path):
    twice = (both.tasks[0], both.tasks[0])
    with pytest.raises(ConfigError, match="two tasks are called 'masked'; give each a name"):
        fit(replace(both, tasks=twice))
    (tmp_path / "heat").mkdir()
    heat = make_tiny("heat", tmp_path / "heat")
    other = (both.tasks[0], Task(data=heat.store.path, objective=heat.pretraining.objective))
    with pytest.raises(ConfigError, match="is of the domain heat, .* share a domain"):
        fit(replace(both, tasks=other), "domains")
    alone = (replace(both.tasks[0], objective=None), both.tasks[1])
    with pytest.raises(ConfigError, match="without objective goes on with what init learnt"):
        replace(both, tasks=alone, objective=None)


# The command line ---------------------------------------------------------------------------------


def test_a_file_of_tasks_is_the_run_in_python(both: Run, tiny: Tiny, monkeypatch, tmp_path, capsys):
    (tmp_path / "tasks.toml").write_text(f"""
[[tasks]]
data = "{both.tasks[0].data}"
objective = {{name = "masked", length = 48}}
share = 0.75

[[tasks]]
data = "{both.tasks[1].data}"
objective = {{name = "classify", bins = 3, warm_start = false}}
share = 0.25
""")
    (tmp_path / "tasks.json").write_text(json.dumps(to_json(both.tasks)))
    runs: list[Run] = []
    monkeypatch.setattr("sciforge.api.loop.train", lambda run, resume: runs.append(run) or 1 / 0)
    for suffix in ("toml", "json"):
        words = f"train --tasks {tmp_path / 'tasks'}.{suffix} --model small --out run --seed 3"
        with pytest.raises(ZeroDivisionError):
            main(words.split())
    expected = Run(tasks=both.tasks, model="small", out=Path("run"), seed=3)
    assert runs == [expected, expected]


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("", "", "holds no tasks; begin each with [[tasks]]"),
        ("tasks = 3", "", "holds no tasks"),
        ("[[tasks]", "", "cannot be read"),
        ("[[tasks]]\ndata = 'nowhere'", "", "no store at 'nowhere'"),
        ("[[tasks]]\ndata = 'DATA'\nobjective = 'maskd'", "", "no objective 'maskd'"),
        ("[[tasks]]\ndata = 'DATA'\nshares = 3", "", "Task has no field 'shares'"),
        (
            "[[tasks]]\ndata = 'DATA'\nobjective = {name = 'masked', lengths = 3}",
            "",
            "MaskedKmers has no field 'lengths'",
        ),
        ("[[tasks]]\ndata = 'DATA'\nobjective = 'masked'", "--data x", "leave one of them out"),
    ],
)
def test_a_bad_file_of_tasks_is_one_line(tiny: Tiny, tmp_path, capsys, text, more, words):
    file = tmp_path / "tasks.toml"
    file.write_text(text.replace("DATA", str(tiny.pretraining.data)))
    command = ["train", "--tasks", str(file), "--model", "small", "--out", str(tmp_path / "run")]
    assert main([*command, *more.split()]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1


def test_train_takes_datasets_and_a_list_of_tasks(tiny: Tiny, both: Run, tmp_path):
    stores = [Store.open(task.data) for task in both.tasks]
    tasks = [
        sf.Task(data=store, objective=task.objective, share=task.share)
        for store, task in zip(stores, both.tasks, strict=True)
    ]
    options = {"hardware": both.hardware, "seed": both.seed, "codec": both.codec}
    checkpoint = sf.train(
        tasks=tasks, model=both.model, schedule=both.schedule, out=tmp_path / "run", **options
    )
    assert [task.data for task in checkpoint.run.tasks] == [task.data for task in both.tasks]
    assert (
        main(
            [
                "train",
                "--config",
                str(checkpoint.path / "checkpoint.json"),
                "--out",
                str(tmp_path / "again"),
            ]
        )
        == 0
    )
    again = Checkpoint.open(tmp_path / "again")
    assert largest_difference(checkpoint.tensors(), again.tensors()) == 0
