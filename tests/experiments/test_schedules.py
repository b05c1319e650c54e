"""The comparison of schedules is fair, goes on where it was, and says no more than it found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from tiny_runs import Tiny, make_tiny

from sciforge.core.training.loop import train
from sciforge.core.training.run import Hardware, Schedule
from sciforge.errors import ConfigError
from sciforge.experiments.held_out import Scores
from sciforge.experiments.schedules import run as schedules
from sciforge.experiments.schedules.result import SchedulesResult
from sciforge.experiments.schedules.run import measure
from sciforge.experiments.schedules.spec import KINDS, Schedules, area, final_lr

EXACT = Hardware(device="cpu", precision="float64", threads=1)


def spec_of(first: str = "exponential", **options) -> Schedules:
    shapes = (first, *(s for s in KINDS if s != first))
    schedule = Schedule(steps=120, lr=1e-2, warmup=0.05, min_lr_ratio=0.02, kind=first)
    return Schedules(
        data=Path("d"),
        out=Path("o"),
        objective="x",
        model="y",
        kinds=shapes,
        schedule=schedule,
        **options,
    )


@pytest.mark.parametrize("first", ["exponential", "step", "cosine"])
def test_areas_and_final_lrs_are_equal(first):
    spec = spec_of(first)
    made = {shape: spec.schedule_of(shape) for shape in spec.kinds}
    areas = [area(schedule) for schedule in made.values()]
    assert np.allclose(areas, areas[0], rtol=1e-6)
    for shape, schedule in made.items():
        if shape != "constant":
            assert final_lr(schedule) == pytest.approx(0.02 * 1e-2, rel=1e-6)
            last = (
                schedule.lr_at(schedule.steps)
                if shape != "step"
                else schedule.lr_at(schedule.steps - 1)
            )
            assert last == pytest.approx(final_lr(schedule), rel=1e-6), shape


def test_equal_peaks_keep_the_peak():
    spec = spec_of(equal="peak")
    for shape in spec.kinds:
        assert spec.schedule_of(shape).lr == 1e-2
    assert spec.schedule_of("step").lr_at(119) == pytest.approx(2e-4)


@pytest.mark.parametrize("domain", ["genomes", "heat"])
def test_it_runs_on_tiny_stores_and_goes_on(domain, tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    tiny = make_tiny(domain, tmp_path / "tiny")
    run = tiny.finetuning
    spec = Schedules(
        data=run.data,
        out=tmp_path / "out",
        objective=run.objective,
        init=tiny.checkpoint.path,
        seeds=2,
        hardware=EXACT,
        kinds=("step", "constant"),
        schedule=Schedule(steps=3, batch=4, lr=1e-3, kind="step"),
        metric="loss",
    )
    found = measure(spec)
    assert {len(found.cell(kind)) for kind in spec.kinds} == {2}
    assert (
        tmp_path / "out/schedules.png"
    ).stat().st_size > 5000 and "less step" in found.table().text()

    def stop(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(schedules, "train", stop)
    assert measure(spec).scores == found.scores
    for change in (
        {"schedule": replace(spec.schedule, steps=4)},
        {"split": "validation"},
        {"init": other_weights(tiny, tmp_path)},
    ):
        with pytest.raises(
            ConfigError, match=f"holds a comparison with another {next(iter(change))}"
        ):
            measure(replace(spec, **change))
    (tmp_path / "out/spec.json").write_text('{"spec"')
    with pytest.raises(ConfigError, match="spec.json: not a file that sciforge wrote, or damaged"):
        measure(spec)


def other_weights(tiny: Tiny, folder: Path) -> Path:
    """Return a checkpoint that stands elsewhere and is another one."""
    return train(replace(tiny.pretraining, out=folder / "other", seed=7)).path


def test_the_sense_of_a_figure_is_known_or_asked_for(tiny, tmp_path):
    run = replace(tiny.finetuning, objective=replace(tiny.finetuning.objective, warm_start=False))
    spec = Schedules(
        data=run.data,
        out=tmp_path / "out",
        objective=run.objective,
        init=tiny.checkpoint.path,
        seeds=1,
        hardware=EXACT,
        kinds=("step", "cosine"),
        schedule=Schedule(steps=1, batch=4, kind="step"),
        metric="loss",
    )
    for metric, higher in (("loss", False), ("accuracy", True), ("mcc", True)):
        other = replace(spec, metric=metric, out=tmp_path / metric)
        assert measure(other).higher_is_better is higher
    with pytest.raises(
        ConfigError, match="unknown whether a larger collapsed is better; set higher_is_better"
    ):
        measure(replace(spec, metric="collapsed", out=None))
    assert not measure(
        replace(spec, metric="collapsed", higher_is_better=False, out=None)
    ).higher_is_better
    with pytest.raises(ConfigError, match="no metric 'acuracy'.*did you mean 'accuracy'"):
        measure(replace(spec, metric="acuracy", out=None))


def test_a_difference_is_told_only_where_its_interval_leaves_zero():
    values = {
        "exponential": [1.0, 1.1, 0.9, 1.0],
        "step": [0.5, 0.62, 0.4, 0.5],
        "cosine": [0.9, 1.2, 1.0, 0.9],
    }
    scores = {
        (k, seed): Scores({"loss": v}, v) for k, of in values.items() for seed, v in enumerate(of)
    }
    made = SchedulesResult(
        scores, {name: Schedule(kind=name) for name in values}, "loss", False, "area"
    )
    assert made.verdict("step") == "better" and made.verdict("cosine") == "undecided"
    assert replace(made, higher_is_better=True).verdict("step") == "worse"
    one = replace(made, scores={key: score for key, score in scores.items() if key[1] == 0})
    assert one.verdict("step") == "undecided"
    assert len(made.to_pandas()) == 12 and made.plot(Figure().add_subplot()).get_ylabel() == "loss"


@pytest.mark.parametrize(
    "options, said",
    [
        ({"kinds": ("step",)}, "at least two different"),
        ({"model": None}, "either --model or --init"),
        ({"seeds": 0}, "seeds"),
        ({"kinds": ("constant", "step")}, "name a falling kind first"),
        ({"schedule": Schedule(evaluate_every=1, patience=1)}, "without early stopping"),
        ({"kinds": ("step", "stair")}, "kinds"),
    ],
)
def test_bad_settings_are_refused(options, said):
    good = {"data": Path("d"), "out": Path("o"), "objective": "x", "model": "y"}
    with pytest.raises(ConfigError, match=said):
        Schedules(**{**good, **options})
