"""Levels of theory and noise in one run: each has a readout of its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import ROOT, load_file

import sciforge as sf
from sciforge.atoms import Denoise, EnergyForces, Structures
from sciforge.core.data.store import prepare
from sciforge.core.training.distributed import Engine
from sciforge.core.training.run import Run, Task
from sciforge.core.training.set_up import set_up
from sciforge.errors import ConfigError
from sciforge.structures.extxyz import write_extxyz

CONTRACT = load_file(ROOT / "tests" / "atoms" / "contract.py")


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path, Path]:
    """A run of the contract, and stores of two levels of theory whose energies are far apart."""
    folder = tmp_path_factory.mktemp("levels")
    _, run, _ = CONTRACT.tiny(folder)
    rng = np.random.default_rng(1)
    molecules = ["H2O", "NH3", "CH4", "CO2", "HCN", "CH3OH"]
    for level, shift in (("low", 0.0), ("high", -40.0)):
        found = CONTRACT.shaken(molecules, 6, rng, level)
        found = [replace(s, energy_eV=s.energy_eV + shift * len(s.numbers_N)) for s in found]
        write_extxyz(folder / f"{level}.xyz", found)
        shares = {"split": "random", "validation_share": 0.2, "test_share": 0.2}
        prepare(Structures(files=(folder / f"{level}.xyz",), **shares), folder / level)
    return run, folder / "low", folder / "high"


def tasks_of(run: Run, *tasks: Task) -> Run:
    return replace(run, data=None, objective=None, tasks=tasks)


def test_levels_of_two_stores_get_a_readout_each(levels, tmp_path):
    run, low, high = levels
    run = tasks_of(
        run,
        Task(data=low, objective=EnergyForces(), name="low"),
        Task(data=high, objective=EnergyForces(), name="high"),
    )
    with Engine.start(run.hardware) as engine:
        state = set_up(replace(run, out=tmp_path), engine)
    assert [task.objective.levels for task in state.tasks] == [("low", "high")] * 2
    assert state.model.levels_known.tolist()[:3] == [1.0, 1.0, 0.0]
    references = state.model.references_eV()
    assert float(references[0, 1]) - float(references[1, 1]) == pytest.approx(40.0, abs=5.0)
    batches = [state.data[0][number][0]["level"] for number in (0, 1)]
    assert set(batches[0].tolist()) == {0} and set(batches[1].tolist()) == {1}


def test_two_levels_train_and_load(levels, tmp_path):
    run, low, high = levels
    run = tasks_of(
        replace(run, out=tmp_path / "run"),
        Task(data=low, objective=EnergyForces(), name="low"),
        Task(data=high, objective=EnergyForces(), name="high"),
    )
    checkpoint = sf.train(run)
    metrics = [
        sf.load(checkpoint.path, task=name).evaluate(data)
        for name, data in zip(("low", "high"), (low, high), strict=True)
    ]
    assert all(m["energy_mae_meV_atom"] < 5e3 for m in metrics)  # 40 eV an atom lie between them


def test_a_score_is_not_learnt_by_the_readout_of_a_level(levels, tmp_path):
    run, low, _ = levels
    run = tasks_of(
        run, Task(data=low, objective=EnergyForces()), Task(data=low, objective=Denoise())
    )
    with Engine.start(run.hardware) as engine:
        state = set_up(replace(run, out=tmp_path), engine)
        assert [task.name for task in state.tasks] == ["energy-forces", "denoise"]
        assert state.tasks[1].objective.level == 1
        only = replace(state.tasks[1].source, share=state.tasks[1].share * 2)
        state.tasks = (replace(state.tasks[1], share=only.share),)
        state.data = replace(state.data, sources=(only,))
        state.gradient(state, 0, state.data[0])
    last = [readout[-1].weight.grad for readout in state.model.readout]
    assert all(torch.count_nonzero(grad[0]) == 0 for grad in last)
    assert any(torch.count_nonzero(grad[1]) for grad in last)


def test_tasks_that_number_levels_differently_are_refused(levels, fit):
    run, low, high = levels
    run = tasks_of(
        run,
        Task(data=low, objective=EnergyForces(levels=("low", "high")), name="a"),
        Task(data=high, objective=EnergyForces(levels=("high", "low")), name="b"),
    )
    with pytest.raises(ConfigError, match="number the levels of theory differently"):
        fit(run)


def test_a_model_without_room_for_the_noise_says_so(levels, fit):
    run, low, _ = levels
    run = tasks_of(
        replace(run, model=replace(run.model, levels=1)),
        Task(data=low, objective=EnergyForces()),
        Task(data=low, objective=Denoise()),
    )
    with pytest.raises(ConfigError, match="needs readout 1 .* pretrain with more model.levels"):
        fit(run)
