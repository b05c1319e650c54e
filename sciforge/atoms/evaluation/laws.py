"""Laws of mechanics that any potential must keep, run in float64 on the very model that a user
holds.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sciforge.atoms.data.codec import AtomsCodec
from sciforge.atoms.model.potential import Potential
from sciforge.nn.equivariant.radial import COVALENT_RADII_A
from sciforge.structures.structure import Structure

# of central differences: truncation and rounding are both near 1e-9 eV/angstrom there
STEP_A = 1e-4
KELVIN_EV = 8.617333262e-5
# Acceleration in angstrom/fs^2 of 1 eV/angstrom on 1 dalton.
ACCELERATION = 9.648533212e-3
# of the smallest distance at the start: nearer than any bond, where random weights may send atoms
TOUCHING = 0.75


def cluster(codec: AtomsCodec, rng: np.random.Generator, size: int = 8) -> Structure:
    """Return a random molecule of the codec's elements, bonded as loosely as dense matter is."""
    numbers = rng.choice(codec.elements or (1, 6, 8), size)
    radii = np.array(COVALENT_RADII_A)[numbers]
    pos = [np.zeros(3)]
    while len(pos) < size:
        new, old = len(pos), rng.integers(len(pos))
        direction = rng.normal(size=3)
        place = pos[old] + direction / np.linalg.norm(direction) * rng.uniform(1.0, 1.3) * (
            radii[old] + radii[new]
        )
        if all(
            np.linalg.norm(place - p) > 0.95 * (radii[new] + r)
            for p, r in zip(pos, radii, strict=False)
        ):
            pos.append(place)
    return Structure(numbers.astype(np.int64), np.array(pos))


def crystal(codec: AtomsCodec, rng: np.random.Generator) -> Structure:
    """Return a triclinic cell of two atoms, shorter than the cutoff, so that atoms see their own
    images.
    """
    numbers = rng.choice(codec.elements or (1, 6, 8), 2)
    length = 2.6 * float(np.array(COVALENT_RADII_A)[numbers].mean()) * 1.15
    cell = length * (
        np.array([[1.0, 0, 0], [0.35, 0.95, 0], [0.25, 0.3, 0.9]]) + 0.03 * rng.normal(size=(3, 3))
    )
    pos = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]) @ cell + 0.05 * rng.normal(size=(2, 3))
    return Structure(numbers.astype(np.int64), pos, cell, np.ones(3, bool))


def answer(
    model: Potential, codec: AtomsCodec, structure: Structure, stress: bool = False
) -> dict[str, np.ndarray]:
    """Return energy above the free atoms [], forces [N, 3] and stress [6] of one structure, in
    the model's precision.
    """
    batch = codec.collate([codec.encode(codec.record_of(structure))])
    place = model.scale_eV
    batch = {
        k: v.to(place) if v.is_floating_point() else v.to(place.device) for k, v in batch.items()
    }
    found = model(batch, stress=stress, create_graph=False)
    known = {"energy": found["atomic_eV"].sum(), "forces": found["forces_eV_A"][0]}
    if stress:
        known["stress"] = found["stress_eV_A3"][0]
    return {name: value.detach().cpu().numpy() for name, value in known.items()}


def _difference(a: dict, b: dict, turn: np.ndarray | None = None) -> float:
    """Return the larger of the relative differences of energy and of forces, the latter allowed
    ten times more.
    """
    turn = np.eye(3) if turn is None else turn
    energy = abs(a["energy"] - b["energy"]) / max(abs(a["energy"]), 1.0)
    force = np.abs(a["forces"] @ turn - b["forces"]).max() / max(np.abs(a["forces"]).max(), 1.0)
    return float(max(energy, force / 10))


def rotation(model: Potential, codec: AtomsCodec, rng: np.random.Generator) -> tuple[float, float]:
    """A rotated molecule has the same energy and rotated forces."""
    return _turned(model, codec, rng, 1.0)


def reflection(
    model: Potential, codec: AtomsCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """A mirrored molecule has the same energy and mirrored forces."""
    return _turned(model, codec, rng, -1.0)


def _turned(
    model: Potential, codec: AtomsCodec, rng: np.random.Generator, sign: float
) -> tuple[float, float]:
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn = turn * sign * np.sign(np.linalg.det(turn))
    one = cluster(codec, rng)
    return (
        _difference(
            answer(model, codec, one), answer(model, codec, one.moved(one.pos_A_N3 @ turn)), turn
        ),
        1e-10,
    )


def translation(
    model: Potential, codec: AtomsCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """A molecule has the same energy and forces anywhere."""
    one = cluster(codec, rng)
    return (
        _difference(answer(model, codec, one), answer(model, codec, one.moved(one.pos_A_N3 + 7.5))),
        1e-10,
    )


def permutation(
    model: Potential, codec: AtomsCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """The order in which atoms are listed changes nothing."""
    one = cluster(codec, rng)
    order = rng.permutation(len(one))
    a, b = (
        answer(model, codec, one),
        answer(model, codec, Structure(one.numbers_N[order], one.pos_A_N3[order])),
    )
    return _difference({**a, "forces": a["forces"][order]}, b), 1e-10


def forces(model: Potential, codec: AtomsCodec, rng: np.random.Generator) -> tuple[float, float]:
    """Forces are minus the derivative of the energy by the positions (central differences)."""
    one, worst = cluster(codec, rng), 0.0
    found = answer(model, codec, one)["forces"]
    for atom, axis in [(a, x) for a in range(len(one)) for x in range(3)]:
        step = np.zeros_like(one.pos_A_N3)
        step[atom, axis] = STEP_A
        ends = [
            float(answer(model, codec, one.moved(one.pos_A_N3 + s * step))["energy"])
            for s in (1, -1)
        ]
        worst = max(worst, abs((ends[0] - ends[1]) / (2 * STEP_A) + found[atom, axis]))
    return worst / max(np.abs(found).max(), 1.0), 1e-6


def stress(model: Potential, codec: AtomsCodec, rng: np.random.Generator) -> tuple[float, float]:
    """Stress is the derivative of the energy by the strain, per volume (central differences, all
    six components).
    """
    one, worst = crystal(codec, rng), 0.0
    found = answer(model, codec, one, stress=True)["stress"] * one.volume_A3
    for place, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        ends = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * STEP_A / 2
            strain[j, i] += sign * STEP_A / 2
            bent = replace(one, pos_A_N3=one.pos_A_N3 @ strain, cell_A_33=one.cell_A_33 @ strain)
            ends.append(float(answer(model, codec, bent)["energy"]))
        worst = max(worst, abs((ends[0] - ends[1]) / (2 * STEP_A) - found[place]))
    return worst / max(np.abs(found).max(), 1.0), 1e-6


def size_consistency(
    model: Potential, codec: AtomsCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """Two molecules far apart have the sum of their energies, and each its own forces."""
    one, two = cluster(codec, rng, 6), cluster(codec, rng, 5)
    far = np.array([4 * codec.cutoff_A + 20, 0, 0])
    both = Structure(
        np.concatenate([one.numbers_N, two.numbers_N]),
        np.concatenate([one.pos_A_N3, two.pos_A_N3 + far]),
    )
    a, b = answer(model, codec, one), answer(model, codec, two)
    apart = {
        "energy": a["energy"] + b["energy"],
        "forces": np.concatenate([a["forces"], b["forces"]]),
    }
    return _difference(apart, answer(model, codec, both)), 1e-10


def cutoff(model: Potential, codec: AtomsCodec, rng: np.random.Generator) -> tuple[float, float]:
    """An atom leaves the cutoff with energy, force and stiffness going to 0 smoothly."""
    numbers, reach = rng.choice(codec.elements or (1, 6, 8), 2), codec.cutoff_A

    def pull(distance: float) -> float:
        pair = Structure(numbers.astype(np.int64), np.array([[0.0, 0, 0], [distance, 0, 0]]))
        return float(answer(model, codec, pair)["forces"][1, 0])

    def stiffness(distance: float) -> float:
        return (pull(distance + STEP_A) - pull(distance - STEP_A)) / (2 * STEP_A)

    inside = max(abs(stiffness(reach - d)) for d in np.linspace(0.05, 1.0, 20)) or 1.0
    return (
        max(abs(stiffness(reach - 1e-3)), abs(stiffness(reach + 1e-3)), abs(pull(reach - 1e-3)))
        / inside,
        0.05,
    )


def supercell(model: Potential, codec: AtomsCodec, rng: np.random.Generator) -> tuple[float, float]:
    """A cell smaller than the cutoff gives per atom what its 2 x 2 x 2 supercell gives."""
    one = crystal(codec, rng)
    shifts = np.array(list(np.ndindex(2, 2, 2))) @ one.cell_A_33
    pos = (shifts[:, None] + one.pos_A_N3).reshape(-1, 3)
    large = Structure(np.tile(one.numbers_N, 8), pos, 2 * one.cell_A_33, one.pbc_3)
    a, b = answer(model, codec, one, stress=True), answer(model, codec, large, stress=True)
    spread = np.abs(b["forces"] - np.tile(a["forces"], (8, 1))).max() / max(
        np.abs(a["forces"]).max(), 1.0
    )
    strain = np.abs(a["stress"] - b["stress"]).max() / max(np.abs(a["stress"]).max(), 1.0)
    energy = abs(8 * a["energy"] - b["energy"]) / max(abs(b["energy"]), 1.0)
    return float(max(spread, strain, energy)), 1e-8


def isolated_atom(
    model: Potential, codec: AtomsCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """A free atom feels no force and has the same energy alone, in a wide cell, and beside
    another far away.
    """
    numbers = rng.choice(codec.elements or (1, 6, 8), 1).astype(np.int64)
    wide = 4 * codec.cutoff_A + 20
    alone = answer(model, codec, Structure(numbers, np.zeros((1, 3))))
    boxed = answer(
        model, codec, Structure(numbers, np.zeros((1, 3)), np.eye(3) * wide, np.ones(3, bool))
    )
    two = Structure(np.repeat(numbers, 2), np.array([[0.0, 0, 0], [wide, 0, 0]]))
    both = answer(model, codec, two)
    energies = np.array([boxed["energy"], both["energy"] / 2]) - alone["energy"]
    parts = [np.abs(energies).max() / max(abs(float(alone["energy"])), 1.0)]
    parts += [np.abs(found["forces"]).max() for found in (alone, boxed, both)]
    return float(max(parts)), 1e-10


def energy_conservation(
    model: Potential, codec: AtomsCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """Newtonian motion keeps the energy: the drift stays under 1 meV per atom and picosecond."""
    one = settled(model, codec, cluster(codec, rng, 6))
    mass_N1 = np.full((len(one), 1), 12.0)  # any masses do
    velocity = rng.normal(size=(len(one), 3)) * np.sqrt(300 * KELVIN_EV / mass_N1 * ACCELERATION)
    pull = np.abs(answer(model, codec, one)["forces"]).max()
    # So short that no atom moves by more than about 0.2 angstrom: an untrained potential may let
    # atoms fall into each other.
    span_fs = min(75.0, float(np.sqrt(0.3 * mass_N1[0, 0] / (max(pull, 1e-9) * ACCELERATION))))
    drift = np.inf
    for steps in (
        150,
        300,
        600,
        1200,
        2400,
    ):  # Verlet's own error falls as the square of the step, a wrong force's does not
        drift = min(drift, _drift(model, codec, one, velocity, mass_N1, span_fs / steps, steps))
        if drift <= 1.0:
            break
    return drift, 1.0


def _drift(
    model: Potential,
    codec: AtomsCodec,
    one: Structure,
    velocity: np.ndarray,
    mass_N1: np.ndarray,
    step_fs: float,
    steps: int,
) -> float:
    """Return how fast the total energy changes in so many steps of motion, meV per atom and
    picosecond.
    """
    pos, totals, found, closest = (
        one.pos_A_N3,
        [],
        answer(model, codec, one),
        TOUCHING * nearest(one.pos_A_N3),
    )
    for _ in range(steps):
        velocity = velocity + 0.5 * step_fs * ACCELERATION * found["forces"] / mass_N1
        pos = pos + step_fs * velocity
        # an untrained potential lets atoms fall into each other: judge the motion until then
        if nearest(pos) < closest:
            break
        found = answer(model, codec, one.moved(pos))
        velocity = velocity + 0.5 * step_fs * ACCELERATION * found["forces"] / mass_N1
        totals.append(
            float(found["energy"]) + 0.5 * float((mass_N1 * velocity**2).sum()) / ACCELERATION
        )
    if len(totals) < 10:
        return 0.0  # they touched at once: there was no motion to judge
    # the energy error of Verlet swings; means over fifths show what is left of it
    part = len(totals) // 5
    gained = np.mean(totals[-part:]) - np.mean(totals[:part])
    elapsed_ps = 0.8 * len(totals) * step_fs / 1000
    return abs(gained) * 1000 / len(one) / elapsed_ps


def settled(
    model: Potential, codec: AtomsCodec, structure: Structure, steps: int = 30
) -> Structure:
    """Return a structure after a few steps downhill, none longer than 0.02 angstrom."""
    closest = TOUCHING * nearest(structure.pos_A_N3)
    for _ in range(steps):
        pull = answer(model, codec, structure)["forces"]
        longest = np.linalg.norm(pull, axis=1).max()
        if longest < 0.05:
            break
        moved_N3 = structure.pos_A_N3 + pull * min(0.02, 0.02 / longest)
        if nearest(moved_N3) < closest:
            break
        structure = structure.moved(moved_N3)
    return structure


def nearest(pos_A_N3: np.ndarray) -> float:
    """Return the smallest distance between two atoms, angstrom.

    >>> nearest(np.array([[0.0, 0, 0], [0, 0, 1.1], [3, 0, 0]]))
    1.1
    """
    away_NN = np.linalg.norm(pos_A_N3[:, None] - pos_A_N3, axis=2)
    return float(away_NN[np.triu_indices(len(away_NN), 1)].min())


LAWS: dict[str, Callable[..., tuple[float, float]]] = {
    "rotation": rotation,
    "reflection": reflection,
    "translation": translation,
    "permutation": permutation,
    "forces": forces,
    "stress": stress,
    "size-consistency": size_consistency,
    "cutoff": cutoff,
    "supercell": supercell,
    "isolated-atom": isolated_atom,
    "energy-conservation": energy_conservation,
}
