"""Spreads: a committee's is its members', a Laplace approximation's is the propagated variance;
and their calibration.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.io import read
from test_outputs_atoms import frames, tiny_checkpoint

from sciforge.atoms.evaluation.laws import answer
from sciforge.atoms.inference.active_learning import Uncertain, pick
from sciforge.atoms.inference.calibration import (
    COVERAGE_L,
    Factors,
    Predictions,
    Reliability,
    draw_reliability,
    fit_factors,
    reliabilities,
)
from sciforge.atoms.inference.uncertainty import FISHER, Committee, Laplace, calibrated
from sciforge.core.files.results import new_axes
from sciforge.core.methods.fisher import fisher_information
from sciforge.core.training.model import Model
from sciforge.errors import CheckpointError, ConfigError
from sciforge.structures.extxyz import write_extxyz
from sciforge.structures.readers import read_structures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three potentials that differ, the first with its Fisher information."""
    folder = tmp_path_factory.mktemp("members")
    for seed in range(3):
        tiny_checkpoint(folder / str(seed), seed)
    first = Model.load(folder / "0", "cpu")
    records = [first.codec.record_of(s) for s in frames(5)[1:4]]
    found = fisher_information(first.network, first.objective, first.codec, records)
    first.checkpoint.with_file(FISHER, found, {"examples": 3})
    return folder


def load(folder, *seeds):
    return [Model.load(folder / str(seed), "cpu", batch=4) for seed in seeds]


def test_a_committee_spreads_as_its_members_do(folder):
    members, given = load(folder, 0, 1, 2), frames()
    found = Committee(tuple(members), factors=Factors(energy=3.0, forces=2.0)).predict(given)
    for i, structure in enumerate(given):
        alone = np.stack([answer(m.network, m.codec, structure)["forces"] for m in members])
        np.testing.assert_allclose(found.forces_eV_A[i], alone.mean(0), atol=1e-3)
        np.testing.assert_allclose(found.force_std_eV_A[i], 2 * alone.std(0, ddof=1), atol=1e-3)
        energy = [float(answer(m.network, m.codec, structure)["energy"]) for m in members]
        assert found.energy_std_eV_atom_S[i] == pytest.approx(
            3 * np.std(energy, ddof=1) / len(structure), abs=1e-3
        )
    same = Committee(tuple(load(folder, 1, 1))).predict(given)
    assert same.energy_std_eV_atom_S.max() == 0 and same.score_S.max() == 0
    with pytest.raises(ConfigError, match="committee of one"):
        Committee(tuple(members[:1]))


@pytest.mark.parametrize("weight", ["readout.1.2.weight", "blocks.0.gather.weight"])
def test_laplace_propagates_a_weight_s_variance(folder, weight):
    """With one uncertain weight, sigma is |d output / d weight| times its standard deviation: by
    finite differences.
    """
    (predictor,) = load(folder, 0)
    predictor.network.double()
    parameter = dict(predictor.network.named_parameters())[weight]
    variance = torch.zeros_like(parameter)
    variance.view(-1)[3] = 0.04
    water = frames()[1]
    found = Laplace(predictor, {weight: variance}).predict([water])
    answers = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            parameter.view(-1)[3] += step
        answers.append(answer(predictor.network, predictor.codec, water))
    slope = {
        name: np.abs(answers[0][name] - answers[1][name]) / 2e-5 for name in ("energy", "forces")
    }
    assert slope["forces"].max() > 1e-4
    np.testing.assert_allclose(found.force_std_eV_A[0], 0.2 * slope["forces"], rtol=1e-4, atol=1e-8)
    assert found.energy_std_eV_atom_S[0] == pytest.approx(0.2 * slope["energy"] / 3, rel=1e-4)


def test_laplace_takes_precision_from_the_fisher_and_count(folder):
    first, other = load(folder, 0, 1)
    fisher = first.checkpoint.weights(FISHER)
    found = Laplace.of(first, prior=0.5)
    assert set(found.variance) == {name for name in fisher if name.startswith("readout.")}
    for name, variance in found.variance.items():
        # the run trained on 10 structures
        torch.testing.assert_close(variance, 1 / (10 * fisher[name] + 0.5))
    more = Laplace.of(first, count=1000, prior=0.5, weights="all")
    assert set(more.variance) == set(fisher)
    assert all((more.variance[name] <= variance).all() for name, variance in found.variance.items())
    with pytest.raises(CheckpointError, match="sciforge fisher"):
        Laplace.of(other)
    with pytest.raises(ConfigError, match="prior"):
        Laplace.of(first, prior=0.0)


def synthetic(rng, forces=1.0, energy=1.0):
    """Return predictions whose errors are so many times as large as they say, and the true
    structures.
    """
    true = [
        replace(s, energy_eV=0.0, forces_eV_A_N3=np.zeros((len(s), 3)))
        for s in frames()
        for _ in range(60)
    ]
    sigma = [np.exp(rng.normal(size=(len(s), 3))) for s in true]
    sizes = np.array([len(s) for s in true])
    spread = np.exp(rng.normal(size=len(true)))
    errors = energy * rng.normal(size=len(true)) * spread * sizes
    return (
        Predictions(errors, spread, [forces * rng.normal(size=x.shape) * x for x in sigma], sigma),
        true,
    )


def test_calibration_finds_both_factors_and_then_coverage_is_nominal():
    found, true = synthetic(np.random.default_rng(0), forces=3.0, energy=0.2)
    factors = fit_factors(found, true)
    assert factors.forces == pytest.approx(3.0, rel=0.03) and factors.energy == pytest.approx(
        0.2, rel=0.1
    )
    before, after = reliabilities(found, true), reliabilities(found.scaled(factors), true)
    for kind, most in (("forces", 0.02), ("energy", 0.04)):
        assert before[kind].expected_error > 0.2 and after[kind].expected_error < most
        assert after[kind].spearman == before[kind].spearman > 0.5
        assert after[kind].metrics()["nominal_L"] == COVERAGE_L.tolist()
    axes = draw_reliability(
        new_axes(), {"before": before["forces"], "after": after["forces"]}, "forces"
    )
    assert [len(line.get_xdata()) for line in axes.lines] == [2, len(COVERAGE_L), len(COVERAGE_L)]
    with pytest.raises(ConfigError, match="no structure has a label"):
        fit_factors(found, [replace(s, energy_eV=None, forces_eV_A_N3=None) for s in true])
    with pytest.raises(ConfigError, match="sigma of energy is 0"):
        fit_factors(found.scaled(Factors(energy=0.0)), true)


def test_without_energies_their_factor_stays_one():
    found, true = synthetic(np.random.default_rng(1), forces=2.0)
    true = [replace(s, energy_eV=None) for s in true]
    factors = fit_factors(found, true)
    assert factors.energy == 1.0 and factors.forces == pytest.approx(2.0, rel=0.03)
    assert set(reliabilities(found, true)) == {"forces"}


def test_reliability_of_a_constant_sigma_has_no_rank():
    found = Reliability.of(np.array([0.5, -1.5, 0.1]), np.ones(3))
    assert np.isnan(found.spearman) and found.observed_L[-1] == 1.0 and found.count == 3


def test_calibrated_methods_have_errors_of_unit_size(folder):
    given = frames()[:4]
    for method in (Committee(tuple(load(folder, 0, 1, 2))), Laplace.of(*load(folder, 0))):
        fitted = calibrated(method, given)
        again = fit_factors(fitted.predict(given), given)
        assert (again.energy, again.forces) == pytest.approx((1.0, 1.0), rel=1e-3)
        assert fitted.factors.energy != pytest.approx(fitted.factors.forces, rel=0.01)


def test_picks_are_uncertain_and_apart():
    feature_SD = np.array([[0.0, 0], [0, 1e-9], [5, 0], [5, 1e-9], [0, 1]])
    assert pick(np.array([10.0, 9.9, 5.0, 4.9, 1.0]), feature_SD, 3) == [0, 2, 4]
    # copies are never picked
    assert pick(np.array([10.0, 9.9, 5.0, 4.9, 1.0]), feature_SD, 5) == [0, 2, 4]
    assert (
        pick(np.array([1.0, 2.0]), np.zeros((2, 1)), 2) == [1]
        and pick(np.zeros(0), np.zeros((0, 1)), 2) == []
    )


@pytest.mark.parametrize("members", [(1, 2), ()])
def test_uncertain_writes_the_picked_frames_without_predictions(folder, tmp_path, members):
    given = frames(labelled=False)
    write_extxyz(tmp_path / "in.xyz", [*given, *given])
    (predictor,) = load(folder, 0)
    wanted = {"members": tuple(folder / str(seed) for seed in members), "top": 4}
    result = Uncertain(files=(tmp_path / "in.xyz",), **wanted).run(predictor)
    out = result.save(tmp_path / "out.extxyz")
    method = Committee(tuple(load(folder, 0, *members))) if members else Laplace.of(predictor)
    score = method.predict(given).score_S
    picked = read(out, ":")
    places = [int(atoms.info["source"].split("#")[1]) - 1 for atoms in picked]
    assert (
        places[0] % len(given) == score.argmax()
        and len({place % len(given) for place in places}) == 4
    )
    for rank, (place, atoms) in enumerate(zip(places, picked, strict=True), 1):
        place %= len(given)
        assert atoms.info["rank"] == rank and atoms.calc is None
        assert atoms.info["uncertainty"] == pytest.approx(score[place], rel=1e-2)
        assert atoms.arrays["force_std"].max() == pytest.approx(atoms.info["uncertainty"])
        assert (atoms.positions == given[place].pos_A_N3).all()
    assert all(s.energy_eV is None and s.forces_eV_A_N3 is None for s in read_structures(out))
    with pytest.raises(ConfigError, match="top"):
        Uncertain(files=(tmp_path / "in.xyz",), top=0)
    table = result.to_pandas()
    assert (
        table["rank"].tolist() == [1, 2, 3, 4] and (table["frame"] == [p + 1 for p in places]).all()
    )
    with pytest.raises(ConfigError, match="--labelled"):
        result.plot()


@pytest.mark.parametrize("members", [(1, 2), ()])
def test_uncertain_calibrates_on_the_first_half_and_judges_on_the_second(folder, tmp_path, members):
    """Labels of the first half are 4 times as wrong in the second: factors of the first,
    coverage of the second.
    """
    (predictor,) = load(folder, 0)
    method = Committee(tuple(load(folder, 0, *members))) if members else Laplace.of(predictor)
    given, rng = (
        [replace(s, level="") for s in frames() for _ in range(4)],
        np.random.default_rng(3),
    )
    found, true = method.predict(given), []
    for i, structure in enumerate(given):
        wrong = 2.0 if i < len(given) // 2 else 8.0
        sigma = found.force_std_eV_A[i]
        forces = found.forces_eV_A[i] + wrong * sigma * rng.normal(size=sigma.shape)
        energy = (
            found.energy_eV_S[i]
            + 0.5 * wrong * len(structure) * found.energy_std_eV_atom_S[i] * rng.normal()
        )
        true.append(replace(structure, energy_eV=float(energy), forces_eV_A_N3=forces))
    write_extxyz(tmp_path / "labelled.xyz", true)
    write_extxyz(tmp_path / "pool.xyz", frames(1, labelled=False))
    wanted = {
        "members": tuple(folder / str(seed) for seed in members),
        "top": 3,
        "files": (tmp_path / "pool.xyz",),
    }
    Uncertain(**wanted).run(predictor).save(tmp_path / "raw.xyz")
    result = Uncertain(**wanted, labelled=(tmp_path / "labelled.xyz",)).run(predictor)
    result.save(tmp_path / "out.xyz")
    assert result.save(tmp_path / "sub" / "coverage.png").read_bytes().startswith(b"\x89PNG")
    result.save(tmp_path / "sub" / "picks.csv")
    about = json.loads((tmp_path / "sub" / "picks.json").read_text())
    assert about["factors"]["forces"] == pytest.approx(2.0, rel=0.15)
    assert about["factors"]["energy"] == pytest.approx(1.0, rel=0.5)
    raw, calibrated_ = (about["metrics"][name]["forces"] for name in ("uncalibrated", "calibrated"))
    size = sum(3 * len(s) for s in true[len(true) // 2 :])
    assert calibrated_["count"] == size and raw["rmse"] == calibrated_["rmse"]
    assert calibrated_["mean_std"] == pytest.approx(about["factors"]["forces"] * raw["mean_std"])
    # too sure still, as the second half is worse
    assert raw["expected_error"] > calibrated_["expected_error"] > 0.2
    pair = zip(read(tmp_path / "raw.xyz", ":"), read(tmp_path / "out.xyz", ":"), strict=True)
    for before, after in pair:
        assert after.info["source"] == before.info["source"]
        for name, kind in (("uncertainty", "forces"), ("energy_std_eV_atom", "energy")):
            assert after.info[name] == pytest.approx(
                about["factors"][kind] * before.info[name], rel=1e-3
            )


def test_calibration_needs_labels(folder, tmp_path):
    write_extxyz(tmp_path / "in.xyz", frames(labelled=False))
    (predictor,) = load(folder, 0)
    files = (tmp_path / "in.xyz",)
    with pytest.raises(ConfigError, match="no structure has a label"):
        Uncertain(files=files, labelled=files).run(predictor)
    with pytest.raises(ConfigError, match="above 0"):
        Uncertain(files=files, factor_forces=0.0)
