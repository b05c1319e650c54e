"""Domain-adaptive pretraining in a curve: made once, beside its control of equal compute, on
paired seeds.
"""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny_runs import largest_difference, make_tiny

from sciforge.cli import main as cli
from sciforge.core.data.store import prepare
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import Hardware, Schedule
from sciforge.errors import ConfigError
from sciforge.experiments import methods as curves
from sciforge.experiments.label_efficiency import adaptation as module
from sciforge.experiments.label_efficiency.adaptation import Adaptation
from sciforge.experiments.label_efficiency.result import LabelEfficiencyResult, RunMetrics
from sciforge.experiments.label_efficiency.run import measure
from sciforge.experiments.label_efficiency.spec import LabelEfficiency
from sciforge.experiments.methods import Recipe
from sciforge.genomes import Classify, Genome

CPU = Hardware(device="cpu", precision="float32", threads=1)
SHORT = Recipe(Schedule(steps=2, batch=4, lr=1e-3, kind="step"), epochs=0.0)


@pytest.fixture(scope="module")
def organism(tmp_path_factory):
    """A genome of the user's own."""
    folder = tmp_path_factory.mktemp("organism")
    bases = "".join(np.random.default_rng(9).choice(list("ACGT"), 900, p=[0.4, 0.1, 0.1, 0.4]))
    (folder / "own.fa").write_text(f">own\n{bases}\n")
    return prepare(Genome(files=(folder / "own.fa",), validation=(), test=()), folder / "own")


@pytest.fixture
def spec(tiny, organism, tmp_path):
    return LabelEfficiency(
        data=tiny.labelled.path,
        out=tmp_path / "curve",
        init=tiny.checkpoint.path,
        objective=Classify(bins=3, warm_start=False),
        sizes=(8,),
        seeds=2,
        methods=("pretrained", "adapted", "adapted-control"),
        recipe=SHORT,
        hardware=CPU,
        adaptation=Adaptation(data=organism.path, control=tiny.store.path, steps=3, batch=4),
    )


@pytest.fixture
def trained(noted):
    """The runs handed to `train`: of adaptation, and of the curve."""
    return noted(module), noted(curves)


def test_adapted_once_and_compared_on_the_same_seeds(spec, trained, tiny):
    first = measure(spec)
    adapting, learning = trained
    assert [run.out.name for run in adapting] == ["adapted", "adapted-control"]
    own, control = adapting
    assert (
        own.schedule == control.schedule
        and own.objective == control.objective == tiny.checkpoint.objectives[0]
    )
    assert (own.seed, own.init) == (control.seed, control.init) and own.data != control.data
    starts = [run.init for run in learning]
    assert starts == [tiny.checkpoint.path, own.out / "final", control.out / "final"] * 2
    assert [run.subset.seed for run in learning] == [0] * 3 + [1] * 3 and len(
        {run.seed for run in learning[:3]}
    ) == 1
    weights = [
        Checkpoint.open(path).weights() for path in (tiny.checkpoint.path, own.out, control.out)
    ]
    assert min(largest_difference(weights[a], weights[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 0
    assert Checkpoint.open(own.out).step == 3
    names = [row[0] for row in first.table().rows]
    assert names == [*spec.methods, "adapted - pretrained", "adapted - adapted-control"]
    assert first.save(spec.out / "curve.png").stat().st_size > 5000
    assert measure(spec) == first and len(adapting) == 2 and len(learning) == 6
    measure(replace(spec, seeds=3))
    assert len(learning) == 9 and Checkpoint.open(own.out).step == 3  # the kept ones serve


def test_seeds_of_the_curve_take_adaptations_in_turn(spec, trained):
    measure(
        replace(
            spec,
            seeds=3,
            adaptation=replace(spec.adaptation, seeds=2),
            methods=("adapted", "adapted-control"),
        )
    )
    adapting, learning = trained
    made = {run.out.name: run.seed for run in adapting}
    assert made == {"adapted": 0, "adapted-1": 1, "adapted-control": 0, "adapted-control-1": 1}
    assert [run.init.parent.name for run in learning] == ["adapted", "adapted-control"] + [
        "adapted-1",
        "adapted-control-1",
        "adapted",
        "adapted-control",
    ]
    one, other = (Checkpoint.open(spec.out / name).weights() for name in ("adapted", "adapted-1"))
    assert largest_difference(one, other) > 0
    with pytest.raises(ConfigError, match="another adapted"):
        measure(
            replace(
                spec, seeds=3, adaptation=replace(spec.adaptation, seeds=3), methods=("adapted",)
            )
        )


def test_a_curve_may_gain_an_adaptation_and_then_its_control(spec, trained):
    adapting, learning = trained
    plain = replace(spec, methods=("pretrained",), adaptation=None)
    measure(plain)
    alone = replace(
        spec, methods=("pretrained", "adapted"), adaptation=replace(spec.adaptation, control=None)
    )
    found = measure(alone)
    assert "longer training alone" in found.table().note
    measure(spec)
    assert [run.out.name for run in adapting] == ["adapted", "adapted-control"] and len(
        learning
    ) == 6
    assert "longer training alone" not in measure(spec).table().note
    kept = json.loads((spec.out / "spec.json").read_text())
    assert kept["adapted"]["steps"] == 3 and "adapted-control" in kept


def test_an_adaptation_that_was_lost_is_made_again_alike(spec, trained):
    spec = replace(spec, methods=("adapted",), seeds=1)
    measure(spec)
    before = (spec.out / "adapted/final/model.safetensors").read_bytes()
    shutil.rmtree(spec.out / "adapted")
    measure(replace(spec, seeds=2))
    assert (spec.out / "adapted/final/model.safetensors").read_bytes() == before


def test_what_would_not_be_a_fair_comparison_is_refused(spec, trained, tiny, tmp_path):
    measure(replace(spec, methods=("adapted",)))
    with pytest.raises(ConfigError, match="another adapted"):
        measure(replace(spec, adaptation=replace(spec.adaptation, steps=4)))
    with pytest.raises(ConfigError, match="same data"):
        measure(replace(spec, adaptation=replace(spec.adaptation, control=spec.adaptation.data)))
    with pytest.raises(ConfigError, match="pretraining needs a store made by"):
        measure(replace(spec, adaptation=replace(spec.adaptation, data=tiny.labelled.path)))
    with pytest.raises(ConfigError, match="adapted needs data.*--adaptation.data"):
        measure(replace(spec, adaptation=None))
    with pytest.raises(ConfigError, match="steps is 0"):
        replace(spec.adaptation, steps=0)
    heat = make_tiny("heat", tmp_path)
    with pytest.raises(ConfigError, match="--adaptation.control .* is of the domain heat"):
        measure(replace(spec, adaptation=replace(spec.adaptation, control=heat.store.path)))


def test_other_domains_adapt_too(tmp_path, trained):
    tiny = make_tiny("molecules", tmp_path)
    found = measure(
        LabelEfficiency(
            data=tiny.labelled.path,
            out=tmp_path / "curve",
            init=tiny.checkpoint.path,
            objective="properties",
            sizes=(10,),
            seeds=1,
            methods=("frozen", "adapted", "adapted-control"),
            recipe=SHORT,
            hardware=CPU,
            adaptation=Adaptation(
                data=tiny.labelled.path, control=tiny.store.path, steps=2, batch=4
            ),
        )
    )
    assert [run.method for run in found.runs] == ["frozen", "adapted", "adapted-control"]
    assert all(np.isfinite(run.metrics[found.metric]) for run in found.runs)


def test_the_command_line(spec, trained, capsys):
    argv = [
        "label-efficiency",
        "classify",
        "--data",
        spec.data,
        "--init",
        spec.init,
        "--out",
        spec.out,
        "--sizes",
        8,
        "--seeds",
        1,
    ]
    argv += [
        "--adaptation.data",
        spec.adaptation.data,
        "--adaptation.control",
        spec.adaptation.control,
        "--adaptation.steps",
        2,
        "--adaptation.batch",
        4,
    ]
    argv += [
        "--bins",
        3,
        "--no-warm-start",
        "--recipe.schedule.steps",
        1,
        "--recipe.schedule.kind",
        "step",
    ]
    argv += ["--hardware.device", "cpu", "--methods", "adapted", "adapted-control", "gc_only"]
    assert cli.main([str(word) for word in argv]) == 0
    assert "adapted - adapted-control" in capsys.readouterr().out
    assert [run.schedule.steps for run in trained[0]] == [2, 2]


def test_the_difference_from_the_control_is_paired():
    curves_of = {"adapted": 0.6, "adapted-control": 0.5, "pretrained": 0.45}
    runs = [
        RunMetrics(m, 32, s, {"mcc": v + 0.1 * s}, ())
        for m, v in curves_of.items()
        for s in range(5)
    ]
    table = LabelEfficiencyResult(
        tuple(runs), "mcc", True, dict.fromkeys(curves_of, "network")
    ).table()
    cells = {row[0]: row[1] for row in table.rows}
    assert cells["adapted - pretrained"] == "+.15 [+.15, +.15]"
    assert cells["adapted - adapted-control"] == "+.10 [+.10, +.10]"
