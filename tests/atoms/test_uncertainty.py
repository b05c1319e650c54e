"""Spreads: a committee's is its members', a Laplace approximation's is the propagated variance; and their calibration."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.io import read
from test_outputs_atoms import frames, tiny_checkpoint

from sciforge.atoms.laws import answer
from sciforge.atoms.reading import read_structures, write_extxyz
from sciforge.atoms.uncertainty import (
    COVERAGE_L,
    FISHER,
    Committee,
    Laplace,
    Predictions,
    Reliability,
    Uncertain,
    calibrated,
    fit_factor,
    pick,
    plot_reliability,
    reliabilities,
)
from sciforge.core.anchor import fisher_information
from sciforge.core.predictor import Predictor
from sciforge.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three potentials that differ, the first with its Fisher information."""
    folder = tmp_path_factory.mktemp("members")
    for seed in range(3):
        tiny_checkpoint(folder / str(seed), seed)
    first = Predictor.load(folder / "0", "cpu")
    records = [first.codec.record_of(s) for s in frames(5)[1:4]]
    found = fisher_information(first.model, first.objective, first.codec, records)
    first.checkpoint.with_file(FISHER, found, {"examples": 3})
    return folder


def load(folder, *seeds):
    return [Predictor.load(folder / str(seed), "cpu", batch=4) for seed in seeds]


def test_a_committee_spreads_as_its_members_do(folder):
    members, given = load(folder, 0, 1, 2), frames()
    found = Committee(tuple(members), factor=2.0).predict(given)
    for i, structure in enumerate(given):
        alone = np.stack([answer(m.model, m.codec, structure)["forces"] for m in members])
        np.testing.assert_allclose(found.forces_eV_A[i], alone.mean(0), atol=1e-3)
        np.testing.assert_allclose(found.force_sigma_eV_A[i], 2 * alone.std(0, ddof=1), atol=1e-3)
        energy = [float(answer(m.model, m.codec, structure)["energy"]) for m in members]
        assert found.energy_sigma_eV_atom_S[i] == pytest.approx(2 * np.std(energy, ddof=1) / len(structure), abs=1e-3)
    same = Committee(tuple(load(folder, 1, 1))).predict(given)
    assert same.energy_sigma_eV_atom_S.max() == 0 and same.score_S.max() == 0
    with pytest.raises(ConfigError, match="committee of one"):
        Committee(tuple(members[:1]))


@pytest.mark.parametrize("weight", ["readout.1.2.weight", "blocks.0.gather.weight"])
def test_laplace_propagates_a_weight_s_variance(folder, weight):
    """With one uncertain weight, sigma is |d output / d weight| times its standard deviation: by finite differences."""
    (predictor,) = load(folder, 0)
    predictor.model.double()
    parameter = dict(predictor.model.named_parameters())[weight]
    variance = torch.zeros_like(parameter)
    variance.view(-1)[3] = 0.04
    water = frames()[1]
    found = Laplace(predictor, {weight: variance}).predict([water])
    answers = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            parameter.view(-1)[3] += step
        answers.append(answer(predictor.model, predictor.codec, water))
    slope = {name: np.abs(answers[0][name] - answers[1][name]) / 2e-5 for name in ("energy", "forces")}
    assert slope["forces"].max() > 1e-4
    np.testing.assert_allclose(found.force_sigma_eV_A[0], 0.2 * slope["forces"], rtol=1e-4, atol=1e-8)
    assert found.energy_sigma_eV_atom_S[0] == pytest.approx(0.2 * slope["energy"] / 3, rel=1e-4)


def test_laplace_takes_precision_from_the_fisher_and_count(folder):
    first, other = load(folder, 0, 1)
    fisher = first.checkpoint.weights(FISHER)
    found = Laplace.of(first, prior=0.5)
    assert set(found.variance) == {name for name in fisher if name.startswith("readout.")}
    for name, variance in found.variance.items():
        torch.testing.assert_close(variance, 1 / (10 * fisher[name] + 0.5))  # the run trained on 10 structures
    more = Laplace.of(first, count=1000, prior=0.5, weights="all")
    assert set(more.variance) == set(fisher)
    assert all((more.variance[name] <= variance).all() for name, variance in found.variance.items())
    with pytest.raises(CheckpointError, match="sciforge fisher"):
        Laplace.of(other)
    with pytest.raises(ConfigError, match="prior"):
        Laplace.of(first, prior=0.0)


def synthetic(rng, wrong=1.0):
    """Return predictions whose errors are `wrong` times as large as they say, and the true structures."""
    true = [replace(s, energy_eV=0.0, forces_eV_A_N3=np.zeros((len(s), 3))) for s in frames() for _ in range(60)]
    sigma = [np.exp(rng.normal(size=(len(s), 3))) for s in true]
    sizes = np.array([len(s) for s in true])
    spread = np.exp(rng.normal(size=len(true)))
    energy = wrong * rng.normal(size=len(true)) * spread * sizes
    return Predictions(energy, spread, [wrong * rng.normal(size=x.shape) * x for x in sigma], sigma), true


def test_calibration_finds_the_factor_and_then_coverage_is_nominal(tmp_path):
    found, true = synthetic(np.random.default_rng(0), wrong=3.0)
    factor = fit_factor(found, true)
    assert factor == pytest.approx(3.0, rel=0.03)
    before, after = reliabilities(found, true), reliabilities(found.scaled(factor), true)
    for kind, most in (("forces", 0.02), ("energy", 0.04)):
        assert before[kind].expected_error > 0.2 and after[kind].expected_error < most
        assert after[kind].spearman == before[kind].spearman > 0.5
        assert after[kind].figures()["nominal_L"] == COVERAGE_L.tolist()
    picture = plot_reliability(tmp_path / "plot.png", {"before": before, "after": after})
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="no structure has a label"):
        fit_factor(found, [replace(s, energy_eV=None, forces_eV_A_N3=None) for s in true])


def test_reliability_of_a_constant_sigma_has_no_rank():
    found = Reliability.of(np.array([0.5, -1.5, 0.1]), np.ones(3))
    assert np.isnan(found.spearman) and found.observed_L[-1] == 1.0 and found.count == 3


def test_calibrated_methods_have_errors_of_unit_size(folder):
    given = frames()[:4]
    for method in (Committee(tuple(load(folder, 0, 1, 2))), Laplace.of(*load(folder, 0))):
        fitted = calibrated(method, given)
        assert fit_factor(fitted.predict(given), given) == pytest.approx(1.0, rel=1e-3)


def test_picks_are_uncertain_and_apart():
    feature_SD = np.array([[0.0, 0], [0, 1e-9], [5, 0], [5, 1e-9], [0, 1]])
    assert pick(np.array([10.0, 9.9, 5.0, 4.9, 1.0]), feature_SD, 3) == [0, 2, 4]
    assert pick(np.array([10.0, 9.9, 5.0, 4.9, 1.0]), feature_SD, 5) == [0, 2, 4]  # copies are never picked
    assert pick(np.array([1.0, 2.0]), np.zeros((2, 1)), 2) == [1] and pick(np.zeros(0), np.zeros((0, 1)), 2) == []


@pytest.mark.parametrize("members", [(1, 2), ()])
def test_uncertain_writes_the_picked_frames_without_predictions(folder, tmp_path, members):
    given = frames(labelled=False)
    write_extxyz(tmp_path / "in.xyz", [*given, *given])
    (predictor,) = load(folder, 0)
    wanted = {"members": tuple(folder / str(seed) for seed in members), "top": 4}
    out = Uncertain(files=(tmp_path / "in.xyz",), out=tmp_path / "out.extxyz", **wanted).write(predictor)
    method = Committee(tuple(load(folder, 0, *members))) if members else Laplace.of(predictor)
    score = method.predict(given).score_S
    picked = read(out, ":")
    places = [int(atoms.info["source"].split("#")[1]) - 1 for atoms in picked]
    assert places[0] % len(given) == score.argmax() and len({place % len(given) for place in places}) == 4
    for rank, (place, atoms) in enumerate(zip(places, picked, strict=True), 1):
        place %= len(given)
        assert atoms.info["rank"] == rank and atoms.calc is None
        assert atoms.info["uncertainty"] == pytest.approx(score[place], rel=1e-2)
        assert atoms.arrays["force_sigma"].max() == pytest.approx(atoms.info["uncertainty"])
        assert (atoms.positions == given[place].pos_A_N3).all()
    assert all(s.energy_eV is None and s.forces_eV_A_N3 is None for s in read_structures(out))
    with pytest.raises(ConfigError, match="top"):
        Uncertain(files=(tmp_path / "in.xyz",), out=out, top=0).write(predictor)
