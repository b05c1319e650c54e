"""GDML: forces are the energy's gradient, nothing turns with the molecule, training is
interpolated, more data help.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from sciforge.atoms.evaluation.baselines import BASELINES, Frames, Harmonic
from sciforge.atoms.evaluation.gdml import (
    GradientDomain,
    bond_permutations,
    find_permutations,
    force_kernel,
    inverse_distances,
    joined_permutations,
    pair_permutations,
    solve_ridge,
)
from sciforge.atoms.objectives.energy_forces import potential_metrics
from sciforge.errors import ConfigError

NUMBERS = np.array([7, 1, 1, 1], np.int16)
AMMONIA = np.array([[0, 0, 0.3], [0.94, 0, 0], [-0.47, 0.814, 0], [-0.47, -0.814, 0]])


def springs(pos_N3):
    """Anharmonic bonds and a repulsion between hydrogens, the same for all three: energy and
    forces.
    """
    first, second = np.triu_indices(len(pos_N3), 1)
    away = pos_N3[first] - pos_N3[second]
    r = np.linalg.norm(away, axis=1)
    bond = first == 0
    stretch = np.exp(-2 * (r - 1.0))
    energy = np.where(bond, 4 * (1 - stretch) ** 2, 2 / r)
    slope = np.where(bond, 16 * (1 - stretch) * stretch, -2 / r**2)
    forces = np.zeros_like(pos_N3)
    pull = (slope / r)[:, None] * away
    np.add.at(forces, first, -pull)
    np.add.at(forces, second, pull)
    return energy.sum() - 1500.0, forces


def make_frames(count, seed=0, wide=0.08, turn=False):
    random, records = np.random.default_rng(seed), []
    for _ in range(count):
        pos = AMMONIA + wide * random.normal(size=AMMONIA.shape)
        if turn:
            pos = pos[[0, *1 + random.permutation(3)]]
        energy, forces = springs(pos)
        records.append(
            {
                "numbers": NUMBERS,
                "pos_A": pos,
                "forces_eV_A": forces,
                "energy_eV": energy,
                "level": "toy",
            }
        )
    return records


class Records(list):
    def column(self, name):
        return [record[name] for record in self]


def fitted(count=12, permutations=None, **options):
    frames = Frames.of(make_frames(count))
    return frames, GradientDomain.fit(
        NUMBERS,
        frames.pos_A,
        frames.forces_eV_A,
        frames.energy_eV,
        permutations_GN=permutations,
        **options,
    )


GROUP = np.array(
    [[0, *p] for p in [(1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)]]
)


def models():
    frames, plain = fitted(sigma=1.0, ridge=1e-8)
    return {
        "gdml": plain,
        "permuted": fitted(permutations=GROUP, sigma=1.0, ridge=1e-8)[1],
        "harmonic": Harmonic.fit(frames, 10.0, 1e-8),
    }


MODELS = models()


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_forces_are_minus_the_gradient_of_the_energy(model):
    pos, step = make_frames(1, seed=9)[0]["pos_A"], 1e-4
    moved = pos + step * np.array([1, -1])[:, None, None, None] * np.eye(12).reshape(12, 4, 3)
    up, down = (model.predict(part)[0] for part in moved)
    assert np.abs(model.predict(pos[None])[1].ravel() + (up - down) / (2 * step)).max() < 1e-6


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_energy_does_not_turn_and_forces_turn_along(model):
    pos = make_frames(1, seed=9)[0]["pos_A"]
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    energy, forces = model.predict(np.stack([pos, pos @ turn + [3, -2, 1]]))
    assert abs(energy[0] - energy[1]) < 1e-9
    assert np.abs(forces[0] @ turn - forces[1]).max() < 1e-9


def test_like_atoms_may_be_exchanged():
    pos = make_frames(1, seed=9)[0]["pos_A"]
    energy, forces = MODELS["permuted"].predict(pos[GROUP])
    assert np.ptp(energy) < 1e-9
    assert np.abs(forces - forces[0][GROUP]).max() < 1e-9
    assert np.ptp(MODELS["gdml"].predict(pos[GROUP])[0]) > 1e-6


@pytest.mark.parametrize("permutations", [None, GROUP], ids=["plain", "permuted"])
def test_training_forces_come_back_without_a_ridge(permutations):
    frames, model = fitted(permutations=permutations, sigma=1.0, ridge=0.0)
    energy, forces = model.predict(frames.pos_A)
    assert np.abs(forces - frames.forces_eV_A).max() < 1e-6
    assert np.abs(energy - frames.energy_eV).max() < 0.1  # never fitted but for one constant
    assert energy.mean() == pytest.approx(frames.energy_eV.mean(), abs=1e-9)


def test_the_kernel_is_symmetric_and_not_negative():
    x, jacobian = inverse_distances(Frames.of(make_frames(5)).pos_A)
    for pairs in (np.arange(6)[None], pair_permutations(GROUP)):
        covariance = force_kernel(x, jacobian, 0.7, pairs)
        assert np.abs(covariance - covariance.T).max() < 1e-12
        assert np.linalg.eigvalsh(covariance).min() > -1e-10


def test_a_singular_matrix_is_solved_with_a_larger_ridge():
    slope = np.random.default_rng(0).normal(size=(3, 8))
    covariance = slope.T @ slope
    target = covariance @ np.ones(8)
    weights = solve_ridge(np.asfortranarray(covariance), target, 0.0)
    assert np.abs(covariance @ weights - target).max() < 1e-6


def test_the_symmetries_of_ammonia_are_found():
    pos = Frames.of(make_frames(30, turn=True)).pos_A
    assert find_permutations(NUMBERS, pos).tolist() == sorted(GROUP.tolist())
    assert len(find_permutations(NUMBERS, pos, most=3)) <= 3
    assert find_permutations(NUMBERS, pos[:1]).tolist() == [[0, 1, 2, 3]]
    assert find_permutations(np.array([7, 1, 9, 17]), pos).tolist() == [[0, 1, 2, 3]]


def test_the_bonds_of_a_single_frame_give_permutations():
    assert bond_permutations(NUMBERS, AMMONIA[None]).tolist() == sorted(GROUP.tolist())
    assert bond_permutations(NUMBERS, AMMONIA[None], most=5).tolist() == [[0, 1, 2, 3]]
    assert bond_permutations(np.array([7, 1, 1, 9]), AMMONIA[None]).tolist() == [
        [0, 1, 2, 3],
        [0, 2, 1, 3],
    ]
    turns, mirror = GROUP[[0, 3, 4]], GROUP[[0, 1]]
    assert joined_permutations(turns, mirror).tolist() == sorted(GROUP.tolist())
    assert joined_permutations(turns, mirror, most=5) is None


@pytest.mark.parametrize("name", BASELINES)
def test_the_error_falls_with_more_frames(name):
    test = Records(make_frames(40, seed=5, turn=True))
    errors = []
    for count in (1, 6, 40):
        outputs = BASELINES[name](SimpleNamespace(), make_frames(count, turn=True), test, 0)
        assert outputs["energy_eV"].dtype == np.float64 and outputs["forces_eV_A"].shape == (40,)
        errors.append(potential_metrics(outputs, test)["force_mae_meV_A"])
    assert errors[0] > errors[2], errors
    # the other is too simple for this potential, and stops to learn at 150 meV/A
    if name == "gdml":
        assert errors[0] > errors[1] > errors[2] and errors[2] < 20, errors


def test_labels_of_test_frames_are_not_read():
    train, test = make_frames(8), make_frames(3, seed=5)
    bare = [{"numbers": NUMBERS, "pos_A": record["pos_A"]} for record in test]
    for baseline in BASELINES.values():
        known, blind = baseline(None, train, test, 0), baseline(None, train, bare, 0)
        assert np.array_equal(known["energy_eV"], blind["energy_eV"])


def test_frames_without_labels():
    train = make_frames(8)
    for record in train[4:]:
        record["forces_eV_A"] = np.full((4, 3), np.nan)
    assert len(Frames.of(train)) == 4
    for record in train:
        record["energy_eV"] = np.nan
    outputs = BASELINES["gdml"](None, train, make_frames(2, seed=5), 0)
    assert np.isnan(outputs["energy_eV"]).all() and np.isfinite(outputs["forces_eV_A"][0]).all()
    with pytest.raises(ConfigError, match="no training record has them"):
        Frames.of(train[4:])


def test_what_is_no_single_molecule_is_refused(monkeypatch):
    train = make_frames(4)
    for change, words in [
        ({"numbers": NUMBERS[::-1]}, "one molecule"),
        ({"pbc": np.ones(3, np.uint8)}, "periodic"),
        ({"level": "other"}, "one level"),
    ]:
        with pytest.raises(ConfigError, match=words):
            BASELINES["gdml"](None, [*train, train[0] | change], train, 0)
    with pytest.raises(ConfigError, match="one molecule"):
        BASELINES["gdml"](None, train, [train[0] | {"numbers": NUMBERS[:2]}], 0)
    monkeypatch.setattr("sciforge.atoms.evaluation.gdml.MOST_EQUATIONS", 30)
    with pytest.raises(ConfigError, match="at most 2 frames"):
        fitted(count=3)
