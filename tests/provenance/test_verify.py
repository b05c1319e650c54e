"""A run is what it says it is, or `verify` says what is not: bytes, data, record, steps taken
again.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import Tiny, make_tiny

from sciforge.cli import main as cli
from sciforge.core.files.atomic import write_json
from sciforge.core.training import loop
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import LoRA, Replay, Teacher
from sciforge.errors import CheckpointError, ConfigError, DivergedError
from sciforge.provenance import model_card, replay
from sciforge.provenance.verify import Verification, verify


@pytest.fixture(scope="module", params=["genomes", "heat"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = make_tiny(request.param, tmp_path_factory.mktemp(request.param))
    model_card.write(loop.train(made.finetuning))
    return made


def states(found: Verification) -> dict[str, str]:
    return {finding.what: finding.state for finding in found.findings}


def said(found: Verification, what: str) -> str:
    return next(finding.detail for finding in found.findings if finding.what == what)


def rewrite(path: Path, change) -> None:
    """Change a file of JSON as a forger would, with a digest that fits."""
    body = json.loads(path.read_text())
    del body["digest"]
    change(body)
    write_json(path, body)


@pytest.mark.parametrize("kind", ["pretraining", "finetuning"])
def test_a_whole_run_is_bit_equal(house: Tiny, kind: str):
    run = getattr(house, kind)
    kept, threads = torch.random.get_rng_state(), torch.get_num_threads()
    found = verify(run.out, replay=100)
    assert found.sound and set(states(found).values()) == {"ok"}, found.table().text()
    assert found.replay.verdict == "bit-equal" and found.replay.steps == 6
    assert (
        found.replay.tensors == len(Checkpoint.open(run.out).weights())
        and found.replay.metrics >= 24
    )
    assert torch.equal(kept, torch.random.get_rng_state()) and torch.get_num_threads() == threads
    assert sorted(f.name for f in run.out.iterdir()) == ["final", "metrics.jsonl"]
    json.dumps(found.to_json(), allow_nan=False)


def test_lora_and_replay_are_taken_again(tiny, fit, tmp_path):
    for name, changes in {
        "lora": {"finetuning": LoRA()},
        "mixed": {"replay": Replay(tiny.pretraining.data, 0.5)},
    }.items():
        fit(tiny.finetuning, name, schedule={"patience": 0}, **changes)
        found = verify(tmp_path / name, replay=6)
        assert found.replay.verdict == "bit-equal" and found.replay.tensors, found.table().text()


def test_an_unfinished_run_goes_on_from_its_checkpoint(house: Tiny, fit, tmp_path, interrupted):
    with interrupted(5):
        fit(house.pretraining, "cut", schedule={"save_every": 3})
    found = verify(tmp_path / "cut", replay=9)
    assert (found.replay.start, found.replay.steps, found.replay.verdict) == (
        3,
        2,
        "bit-equal",
    ), found.table().text()
    shutil.rmtree(tmp_path / "cut/step-00000003/resume")
    found = verify(tmp_path / "cut", replay=4)
    assert (
        found.sound and (found.replay.start, found.replay.steps) == (0, 4) and found.replay.tensors
    )


def test_a_teacher_is_found_from_the_run(tiny, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    shutil.copytree(tiny.pretraining.out, "teacher")
    teacher = Teacher(Path("teacher"), temperature=1.0)
    loop.train(
        replace(
            tiny.pretraining,
            out=Path("student"),
            objective=tiny.checkpoint.objectives[0],
            teacher=teacher,
        )
    )
    monkeypatch.chdir(tmp_path)
    assert verify(Path("work/student"), replay=2).replay.verdict == "bit-equal"


@pytest.fixture
def copy(house: Tiny, tmp_path) -> Path:
    return Path(shutil.copytree(house.finetuning.out, tmp_path / "copy"))


def test_a_forged_record_is_named(copy: Path):
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    lines[1]["grad_norm"] *= 1.5
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = verify(copy, replay=3)
    assert (
        not found.sound
        and states(found)["replay"] == "wrong"
        and found.replay.verdict == "different"
    )
    assert "first at step 1, grad_norm" in said(found, "replay")
    assert found.replay.worst == pytest.approx(1 / 3)
    assert verify(copy, replay=1).sound  # the first step is as it was


def test_forged_weights_are_found_where_the_steps_reach_them(copy: Path):
    from safetensors.torch import save_file

    from sciforge.core.files.atomic import sha256

    weights = Checkpoint.open(copy).weights()
    name = next(
        name
        for name, tensor in weights.items()
        if tensor.is_floating_point() and tensor.numel() > 1
    )
    weights[name] = weights[name] + 0.5
    save_file(weights, copy / "final/model.safetensors")
    digest = sha256(copy / "final/model.safetensors")
    rewrite(
        copy / "final/checkpoint.json",
        lambda body: body["files"].update({"model.safetensors": digest}),
    )
    found = verify(copy, replay=6)
    assert states(found)["model.safetensors"] == "ok" and states(found)["replay"] == "wrong"
    assert name in said(found, "replay")


def test_rounding_is_no_forgery(copy: Path):
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    lines[0]["loss"] *= 1 + 3e-10
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = verify(copy)
    assert (
        found.sound
        and states(found)["replay"] == "differs"
        and "equal to 1e-9" in said(found, "replay")
    )


def test_a_gap_a_short_record_and_other_metrics_are_wrong(copy: Path):
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[1:]))
    assert "step 0 is missing" in said(verify(copy), "metrics.jsonl")
    (copy / "metrics.jsonl").write_text(lines[0])
    assert "ends at step 1" in said(found := verify(copy), "metrics.jsonl") and not found.sound
    (copy / "metrics.jsonl").write_text("".join(lines))
    rewrite(copy / "final/checkpoint.json", lambda body: body["metrics"].update(loss=0.0))
    assert (
        "in the checkpoint 0.0" in said(found := verify(copy), "metrics.jsonl") and not found.sound
    )
    (copy / "metrics.jsonl").write_text('not json\n{"step": "x"}\n[1]\n')
    assert states(verify(copy))["replay"] == "not checked"


def test_every_damaged_file_is_named(copy: Path):
    file = copy / "final/model.safetensors"
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 4
    file.write_bytes(whole)
    found = verify(copy)
    assert (
        states(found)["model.safetensors"] == "wrong" and states(found)["replay"] == "not checked"
    )
    (copy / "final/checkpoint.json").write_text("{}")
    assert states(verify(copy))["checkpoint.json"] == "wrong"


def test_a_changed_card_differs_and_is_not_wrong(copy: Path):
    card = copy / "final/README.md"
    text = card.read_bytes()
    for place in range(0, len(text), 97):
        card.write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        assert states(found := verify(copy, replay=0))["README.md"] == "differs" and found.sound
    card.unlink()
    assert "README.md" not in states(verify(copy, replay=0))


def test_data_and_parent_elsewhere_changed_or_gone(house: Tiny, copy: Path, tmp_path):
    rewrite(
        copy / "final/checkpoint.json",
        lambda b: b["run"].update(data=str(tmp_path / "a"), init=str(tmp_path / "b")),
    )
    found = verify(copy)
    assert (
        states(found)["data"] == states(found)["parent"] == states(found)["replay"] == "not checked"
        and found.sound
    )
    data = shutil.copytree(house.finetuning.data, tmp_path / "data")
    parent = shutil.copytree(house.pretraining.out, tmp_path / "parent")
    found = verify(copy, data=data, init=parent)
    assert found.sound and found.replay.verdict == "bit-equal", found.table().text()
    rewrite(parent / "final/checkpoint.json", lambda body: body.update(about={}))
    assert states(verify(copy, data=data, init=parent, replay=0))["parent"] == "differs"
    found = verify(copy, data=house.pretraining.data, init=parent)
    assert not found.sound and "not the recorded one" in said(found, "data")
    shard = next(f for f in data.glob("*.bin") if f.stat().st_size)
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    assert states(verify(copy, data=data, init=parent))["data"] == "wrong"


def test_relative_paths_are_found_from_the_run(house: Tiny, tmp_path, monkeypatch):
    shutil.copytree(house.finetuning.data, tmp_path / "work/new")
    shutil.copytree(house.pretraining.out, tmp_path / "work/runs/old")
    monkeypatch.chdir(tmp_path / "work")
    run = replace(house.finetuning, data=Path("new"), init=Path("runs/old"), out=Path("runs/child"))
    loop.train(run)
    monkeypatch.chdir(tmp_path)
    assert verify(Path("work/runs/child"), replay=2).replay.verdict == "bit-equal"


def test_the_environment_is_compared(copy: Path):
    def older(body):
        body["provenance"]["versions"]["torch"] = "2.9.0"
        body["provenance"].update(threads=7, git_commit="0" * 40, device="cuda:0")

    rewrite(copy / "final/checkpoint.json", older)
    found = verify(copy, replay=1)
    assert (
        found.environment["torch"] == ("2.9.0", torch.__version__)
        and "git_commit" in found.environment
    )
    assert (
        states(found)["environment"] == "differs"
        and found.sound
        and "torch 2.9.0 then" in said(found, "environment")
    )


def test_a_step_that_differs_elsewhere_says_why(copy: Path, monkeypatch):
    rewrite(
        copy / "final/checkpoint.json",
        lambda body: body["provenance"]["versions"].update(torch="2.9.0"),
    )
    take_step = replay.take_step
    monkeypatch.setattr(
        replay, "take_step", lambda *a: {k: v * (1 + 1e-9) for k, v in take_step(*a).items()}
    )
    found = verify(copy, replay=2)
    assert states(found)["replay"] == "differs" and "recorded elsewhere: torch" in said(
        found, "replay"
    )


def test_steps_that_diverge_where_the_record_goes_on_are_wrong(copy: Path, monkeypatch):
    def failing(*args):
        raise DivergedError("step 0: loss nan")

    monkeypatch.setattr(replay, "take_step", failing)
    found = verify(copy, replay=2)
    assert (
        states(found)["replay"] == "wrong"
        and "loss nan" in said(found, "replay")
        and not found.sound
    )


def test_bad_requests_are_one_line(copy: Path, tmp_path, capsys):
    with pytest.raises(ConfigError, match="replay is -1"):
        verify(copy, replay=-1)
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        verify(tmp_path)
    assert (
        cli.main(["verify", str(tmp_path / "nowhere")]) == 2
        and capsys.readouterr().err.count("\n") == 1
    )


def test_the_command_prints_and_exits_with_1(copy: Path, capsys):
    assert cli.main(["verify", str(copy), "--replay", "2"]) == 0
    assert "bit-equal" in capsys.readouterr().out
    (copy / "metrics.jsonl").write_text('{"step": 3}\n')
    assert cli.main(["verify", str(copy), "--json"]) == 1
    body = json.loads(capsys.readouterr().out)
    assert (
        body["sound"] is False
        and {"what": "metrics.jsonl", "state": "wrong"}.items() <= body["findings"][-3].items()
    )
