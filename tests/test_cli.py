"""The command line: flags out of types, one line for each error, little imported."""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sciforge import api
from sciforge.cli import commands
from sciforge.cli import main as cli
from sciforge.core.domain import offers
from sciforge.core.files import tables
from sciforge.core.training.laws import CheckResult, LawResult
from sciforge.core.training.run import EWC, LoRA, Replay, Run, Schedule, Subset, to_json
from sciforge.genomes import Classify, KmerCodec, MaskedKmers

ROOT = Path(cli.__file__).resolve().parents[2]
CHECKPOINT = SimpleNamespace(path=Path("run/final"), step=3, metrics={"loss": 0.25})


@pytest.fixture
def called(monkeypatch):
    """Replace a function of the API by one that notes its arguments; returns the notes."""
    notes = {}

    def replace(verb: str, result: object) -> dict:
        @functools.wraps(getattr(api, verb))
        def note(**values):
            notes.update(values)
            if isinstance(result, BaseException):
                raise result
            return result

        monkeypatch.setattr(api, verb, note)
        return notes

    return replace


def fails(capsys, *argv: str) -> str:
    """Run a command that must fail with exit code 2 and one line on stderr; return that line."""
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("sciforge: ") and err.count("\n") == 1
    return err


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    path = {"PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **path}
    )


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["datasets", "list"]])
def test_light_commands_import_no_torch(argv):
    code = (
        f"import sys; from sciforge.cli.main import main; assert main({argv}) == 0; assert 'torch'"
        " not in sys.modules"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_importing_sciforge_is_light():
    code = "import sys, time; t = time.perf_counter(); import sciforge; d = time.perf_counter() - t"
    code += "; print(d, 'torch' in sys.modules)"
    seconds, torch = python(code).stdout.split()
    assert torch == "False" and float(seconds) < 0.2


def test_overview_names_every_verb(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in cli.VERBS) and set(cli.summaries()) == set(cli.VERBS)
    assert all(cli.summaries().values())


def test_pretraining(called, capsys):
    notes = called("train", CHECKPOINT)
    argv = (
        "train masked --data s --out o --model mini --mask-rate 0.2 --schedule.steps 7 --codec.k 5"
        " --seed 3 --resume"
    )
    assert cli.main(argv.split()) == 0
    run = notes["run"]
    assert run == Run(
        data=Path("s"),
        out=Path("o"),
        objective=MaskedKmers(mask_rate=0.2),
        model="mini",
        codec=KmerCodec(k=5),
        schedule=Schedule(steps=7),
        seed=3,
    )
    assert run.schedule.kind == "exponential" and notes["resume"]
    assert capsys.readouterr().out == "checkpoint  run/final\nstep        3\nloss        0.25\n"


def test_sizes_of_a_preset(called):
    notes = called("train", CHECKPOINT)
    assert cli.main("train masked --data s --out o --model=small --model.depth 1".split()) == 0
    assert (notes["run"].model.depth, notes["run"].model.width, notes["run"].codec) == (
        1,
        512,
        None,
    )


def test_fine_tuning_reaches_every_union(called):
    notes = called("train", CHECKPOINT)
    argv = (
        "train classify --data s --out o --init dna --finetuning lora --finetuning.rank 2"
        " --subset.count 32"
    )
    argv += " --replay.data r --no-resume"
    assert cli.main(argv.split()) == 0
    run = notes["run"]
    assert (run.finetuning, run.subset, run.replay) == (LoRA(rank=2), Subset(32), Replay(Path("r")))
    assert (run.schedule.kind, run.init, run.objective, run.codec) == (
        "step",
        Path("dna"),
        Classify(),
        None,
    )
    assert (
        cli.main(
            "train classify --data s --out o --init d --regularization ewc"
            " --regularization.strength 5 --schedule.kind cosine".split()
        )
        == 0
    )
    assert (
        notes["run"].regularization == EWC(strength=5.0) and notes["run"].schedule.kind == "cosine"
    )


def test_config_is_the_same_run(called, tmp_path):
    notes = called("train", CHECKPOINT)
    run = Run(
        data=Path("s"),
        out=Path("o"),
        objective=MaskedKmers(length=64),
        init=Path("x"),
        finetuning=LoRA(rank=3),
        subset=Subset(8),
    )
    (tmp_path / "run.json").write_text(json.dumps(to_json(run)))
    assert cli.main(["train", "--config", str(tmp_path / "run.json")]) == 0
    assert notes["run"] == run
    assert (
        cli.main(
            [
                "train",
                f"--config={tmp_path / 'run.json'}",
                "--out",
                "p",
                "--finetuning.alpha",
                "2",
                "--mask-rate",
                "0.3",
            ]
        )
        == 0
    )
    assert notes["run"].finetuning == LoRA(rank=3, alpha=2.0) and notes["run"].out == Path("p")
    assert notes["run"].objective == MaskedKmers(length=64, mask_rate=0.3) and notes[
        "run"
    ].subset == Subset(8)


def test_label_efficiency(called, capsys):
    table = tables.Table(("a",), (("1",),))
    notes = called(
        "label_efficiency", SimpleNamespace(table=lambda: table, to_json=lambda: {"x": 1})
    )
    argv = "label-efficiency classify --data s --out o --init d --sizes 32 0 --json"
    argv += " --recipe.finetuning lora --recipe.schedule.steps 9"
    assert cli.main(argv.split()) == 0
    spec = notes["spec"]
    assert (spec.sizes, spec.recipe.finetuning, spec.recipe.schedule.steps, spec.objective) == (
        (32, 0),
        LoRA(),
        9,
        Classify(),
    )
    assert json.loads(capsys.readouterr().out) == {"x": 1}


def test_prepare_takes_files_in_a_row(called, capsys):
    fake = type("Fake", (SimpleNamespace,), {"__len__": lambda self: 5})
    shard = {"num_records": 4, "columns": {"split": {}}}
    store = fake(
        path=Path("o"),
        domain="genomes",
        kind="genome",
        index={"rejected": 2, "shards": [shard]},
        column={"split": np.array([0, 0, 0, 1])}.__getitem__,
    )
    lines = ["4 records", "2 dropped (rejected.jsonl)", "columns not used: a"]
    notes = called("prepare", SimpleNamespace(store=store, describe=lambda: lines))
    assert (
        cli.main(
            "prepare genome a.fa b.fa --out o --test IV XV --workers 2 --on-error skip".split()
        )
        == 0
    )
    what = notes["preparer"]
    assert (what.files, what.test, notes["workers"], notes["on_error"]) == (
        (Path("a.fa"), Path("b.fa")),
        ("IV", "XV"),
        2,
        "skip",
    )
    out = capsys.readouterr().out
    assert (
        "rejected    2 (see o/rejected.jsonl)" in out
        and "train       3\n" in out
        and "columns not used: a" in out
    )


def test_check_exits_with_1_where_a_law_is_broken(called, capsys):
    called(
        "check",
        CheckResult([LawResult("a", "A law", 1e-9, 1e-6), LawResult("b", "Another", 1.0, 1e-6)]),
    )
    assert cli.main(["check", "c"]) == 1
    out = capsys.readouterr().out
    assert "1.000000e-09" in out and "False" in out and "Another" in out
    assert cli.main(["check", "c", "--json"]) == 1
    assert [law["holds"] for law in json.loads(capsys.readouterr().out)] == [True, False]


def test_evaluate_prints_lines_or_json(called, capsys):
    called("evaluate", {"loss": 0.5, "mcc": 1 / 3})
    assert cli.main(["evaluate", "c", "--data", "s"]) == 0
    assert capsys.readouterr().out == "loss  0.5\nmcc   0.333333\n"
    assert cli.main(["evaluate", "c", "--data", "s", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mcc"] == 1 / 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trian", "did you mean 'train'"),
        ("train maskd --data s", "did you mean 'masked'"),
        ("train", "needs an objective"),
        (
            "train masked --data s --out o --model mini --mask-rat 1",
            "unknown option --mask-rat; did you mean '--mask-rate'",
        ),
        ("train masked --data s --out o --model mini --steps 1", "did you mean '--schedule.steps'"),
        ("train masked --data s --out o --model minni", "no model 'minni'; did you mean 'mini'"),
        ("train masked --data s --out o --model mini --schedule.steps x", "--schedule.steps"),
        ("train masked --data s --out o --model mini --schedule.steps 0", "steps"),
        ("train masked --data s --out o", "either --model or --init"),
        ("train masked --model mini", "missing: --data, --out"),
        ("train classify --data s --out o --init d --finetuning lorra", "did you mean 'lora'"),
        ("train --config nowhere.json", "nowhere.json"),
        ("prepare genom x.fa", "did you mean 'genome'"),
        ("prepare genome x.fa --out o --workers many", "--workers"),
        ("evaluate --data s", "missing"),
        ("evaluate nosuch --data s", "nosuch"),
        ("predict nosuch classes", "nosuch"),
        ("datasets fetch uci-promotors", "did you mean 'uci-promoters'"),
        ("datasets fetsh", "datasets list"),
    ],
)
def test_bad_input_is_one_line(capsys, line, said):
    assert said in fails(capsys, *line.split())


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "x/y"), 2, "x/y: the disk is full"),
        (PermissionError(13, "Permission denied", "x"), 2, "x: no permission"),
    ],
)
def test_interrupts_and_disks(called, capsys, error, code, said):
    called("train", error)
    assert cli.main("train masked --data s --out o --model mini".split()) == code
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_only_rank_0_prints(called, capsys, monkeypatch):
    called("evaluate", {"loss": 0.5})
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["evaluate", "c", "--data", "s"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err.startswith("sciforge (rank 1): ")


@pytest.mark.parametrize("verb", [v for v in cli.VERBS if v != "predict"])
def test_help_of_every_verb(verb, capsys):
    try:
        assert cli.main([verb, "--help"]) == 0
    except SystemExit as stop:
        assert not stop.code
    assert f"sciforge {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["preparers", "objectives", "outputs", "audits"])
def test_help_of_every_offer(kind, capsys):
    verb = {"preparers": "prepare", "objectives": "train", "outputs": "predict", "audits": "audit"}[
        kind
    ]
    for name, (_, cls) in offers(kind).items():
        with pytest.raises(SystemExit) as stop:
            if kind == "outputs":
                commands._offered("predict", name, cls, "output", ["c", "--help"])
            else:
                cli.main([verb, name, "--help"])
        assert not stop.value.code
        assert name in capsys.readouterr().out


def test_closed_pipe_is_quiet():
    code = "import sys; from sciforge.cli.main import main; sys.exit(main(['datasets', 'list']))"
    command = f'"{sys.executable}" -c "{code}" | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_manual_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == module.manual(), (
        "run python docs/make_cli.py"
    )
