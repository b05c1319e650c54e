"""Classical rivals of a potential in every label-efficiency curve: each is tuned inside the few
frames it is given.

Every function takes (objective, train records, test records, seed) and returns what
EnergyForces.predict does: {"energy_eV": float64 [M], "forces_eV_A": object [M] of [N, 3]}. They
know one molecule, its atoms in one order, at one level of theory; anything else is a ConfigError.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np

from sciforge.atoms.evaluation.gdml import (
    MATCHED,
    GradientDomain,
    bond_permutations,
    find_permutations,
    inverse_distances,
    joined_permutations,
    solve_ridge,
)
from sciforge.core.domain import Record
from sciforge.errors import ConfigError

Outputs = dict[str, np.ndarray]

TUNED = 48  # frames fitted while lengths and ridges are compared
JUDGED = 60  # frames they are judged on
SINGLY = 12  # frames up to which each is left out alone
FOLDED = 30  # frames up to which all of them are judged on, in five folds
# in units of the median distance of two training descriptors
LENGTHS = (3.0, 6.0, 12.0, 24.0, 48.0, 96.0, 192.0)
# what linear terms of the harmonic model weigh against quadratic ones
SHIFTS = (0.1, 1.0, 10.0, 100.0, 1000.0)
RIDGES = (1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
ROUNDS = 3  # of choosing one setting with the others held


@dataclass(frozen=True)
class Frames:
    """Labelled frames of one molecule: numbers [N], positions and forces [B, N, 3], energies [B]
    (NaN: unknown).
    """

    numbers_N: np.ndarray
    pos_A: np.ndarray
    forces_eV_A: np.ndarray
    energy_eV: np.ndarray

    @classmethod
    def of(cls, records: Sequence[Record], like: Self | None = None) -> Self:
        """Stack records; training records (without `like`) need forces, and those that have none
        are left out.
        """
        records = list(records)
        numbers_N = np.asarray(records[0]["numbers"]) if like is None else like.numbers_N
        for record in records:
            if not np.array_equal(record["numbers"], numbers_N):
                raise ConfigError(
                    "this baseline learns one molecule, its atoms always in one order; "
                    "the records hold others (leave it out of the curve's methods)"
                )
            if np.any(record.get("pbc", False)):
                raise ConfigError(
                    "this baseline learns molecules; a record is periodic (leave it out of the"
                    " methods)"
                )
        pos = np.array([record["pos_A"] for record in records], np.float64).reshape(
            -1, len(numbers_N), 3
        )
        if like is not None:
            return cls(numbers_N, pos, np.full_like(pos, np.nan), np.full(len(pos), np.nan))
        if len({record.get("level", "") for record in records}) > 1:
            raise ConfigError(
                "this baseline learns one level of theory; the training records mix several"
            )
        forces = np.array([record["forces_eV_A"] for record in records], np.float64).reshape(
            pos.shape
        )
        energy = np.array([record.get("energy_eV", np.nan) for record in records], np.float64)
        known = np.isfinite(forces).all(axis=(1, 2))
        if not known.any():
            raise ConfigError("this baseline learns forces; no training record has them")
        return cls(numbers_N, pos[known], forces[known], energy[known])

    def __len__(self) -> int:
        return len(self.pos_A)

    def take(self, places: np.ndarray) -> Self:
        """Return the frames at these places."""
        return type(self)(
            self.numbers_N, self.pos_A[places], self.forces_eV_A[places], self.energy_eV[places]
        )


def gdml(objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int) -> Outputs:
    """Kernel ridge regression in the gradient domain, averaged over permutations of like atoms (as
    sGDML).

    Length and ridge are those of the least force error on training frames left out; so is the group
    of permutations: that of the bonds, that which the frames show, both together, or none. With 10
    frames of acetylacetone the bonds halve the error: so few do not show every turn of its methyl
    groups.
    """
    frames = Frames.of(train)
    asked = Frames.of(test, frames)
    random = np.random.default_rng(seed)
    shown = random.permutation(len(frames))[:MATCHED]
    groups = _groups(frames.numbers_N, frames.pos_A[shown])
    plan = list(_left_out(len(frames), random))
    unit = _spread(frames.pos_A[shown])

    def fit(part: Frames, length: float, ridge: float, group: np.ndarray) -> GradientDomain:
        numbers, pos, forces, energy = part.numbers_N, part.pos_A, part.forces_eV_A, part.energy_eV
        return GradientDomain.fit(numbers, pos, forces, energy, length * unit, ridge, group)

    return _outputs(
        fit(frames, *_best(frames, plan, fit, (LENGTHS, RIDGES, groups), (3, 4, 0))), asked
    )


def harmonic(objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int) -> Outputs:
    """A quadratic form in the inverse distances fitted to forces by ridge regression: the best
    harmonic force field.
    """
    frames = Frames.of(train)
    asked = Frames.of(test, frames)
    plan = list(_left_out(len(frames), np.random.default_rng(seed)))
    return _outputs(
        Harmonic.fit(frames, *_best(frames, plan, Harmonic.fit, (SHIFTS, RIDGES), (2, 4))), asked
    )


BASELINES: Mapping[str, Callable[..., Outputs]] = {"gdml": gdml, "harmonic": harmonic}


@dataclass(frozen=True)
class Harmonic:
    """E = constant + linear.x + x.curvature.x / 2 over centred inverse distances x, [P] and [P,
    P].
    """

    centre_P: np.ndarray
    linear_P: np.ndarray
    curvature_PP: np.ndarray
    constant_eV: float

    @classmethod
    def fit(cls, frames: Frames, linear: float, ridge: float) -> Self:
        """Solve in the dual, as a Gaussian process of covariance (linear s + x.x')^2 / 2, s the
        mean of |x|^2.
        """
        x_BP, jacobian_BPC = inverse_distances(frames.pos_A)
        centre_P = x_BP.mean(0)
        x_BP = x_BP - centre_P
        size, num_pairs, width = jacobian_BPC.shape
        shift = linear * ((x_BP**2).sum(1).mean() or 1.0)
        flat = jacobian_BPC.transpose(0, 2, 1).reshape(-1, num_pairs)
        # x_j seen from the components of frame i
        towards = (flat @ x_BP.T).reshape(size, width, size)
        covariance = flat @ flat.T
        blocks = covariance.reshape(size, width, size, width)
        for i in range(size):
            blocks[i] *= (shift + x_BP @ x_BP[i])[:, None]
            blocks[i] += towards[i][:, :, None] * towards[:, :, i]
        weights = solve_ridge(covariance.T, -frames.forces_eV_A.reshape(-1), ridge).reshape(
            size, width
        )
        pull_BP = np.einsum("bpc,bc->bp", jacobian_BPC, weights)
        half = x_BP.T @ pull_BP
        raw = cls(centre_P, shift * pull_BP.sum(0), half + half.T, 0.0)
        rest = (frames.energy_eV - raw.predict(frames.pos_A)[0])[np.isfinite(frames.energy_eV)]
        return cls(
            centre_P,
            raw.linear_P,
            raw.curvature_PP,
            float(rest.mean()) if len(rest) else float("nan"),
        )

    def predict(self, pos_A_BN3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return energies [B] in eV and forces [B, N, 3] in eV/angstrom."""
        x_BP, jacobian_BPC = inverse_distances(pos_A_BN3)
        x_BP = x_BP - self.centre_P
        bent_BP = x_BP @ self.curvature_PP
        energy_B = self.constant_eV + x_BP @ self.linear_P + (x_BP * bent_BP).sum(1) / 2
        forces_BC = -np.einsum("bpc,bp->bc", jacobian_BPC, self.linear_P + bent_BP)
        return energy_B, forces_BC.reshape(pos_A_BN3.shape)


def _groups(numbers_N: np.ndarray, pos_A_BN3: np.ndarray) -> list[np.ndarray]:
    """Return the groups of permutations worth a try, each once."""
    bonds, shown = bond_permutations(numbers_N, pos_A_BN3), find_permutations(numbers_N, pos_A_BN3)
    both = joined_permutations(bonds, shown)
    groups = [bonds, shown, *(() if both is None else (both,)), bonds[:1]]
    return [
        group
        for i, group in enumerate(groups)
        if not any(np.array_equal(group, other) for other in groups[:i])
    ]


def _spread(pos_A_BN3: np.ndarray) -> float:
    """Return the median distance between two descriptors in 1/angstrom; of a single frame, a
    tenth of its norm.
    """
    x_BP = inverse_distances(pos_A_BN3)[0]
    if len(x_BP) == 1:
        return 0.1 * float(np.linalg.norm(x_BP))
    first, second = np.triu_indices(len(x_BP), 1)
    return float(np.median(np.linalg.norm(x_BP[first] - x_BP[second], axis=1))) or 1.0


def _left_out(frames: int, random: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (places to fit, places to judge): each of a few, five folds of more, one split of
    many.
    """
    order = random.permutation(frames)
    if frames <= FOLDED:
        for fold in np.array_split(order, frames if frames <= SINGLY else 5) if frames > 1 else ():
            yield np.setdiff1d(order, fold), fold
        return
    cut = min(TUNED, int(0.8 * frames))
    yield order[:cut], order[cut : cut + JUDGED]


def _best(
    frames: Frames, plan: Sequence, fit: Callable, grid: Sequence[Sequence], start: tuple[int, ...]
) -> list:
    """Return the settings of the least mean absolute force error on frames left out; those of
    `start` without any.

    One setting after the other moves along its axis of the grid, the others held, until a round
    changes nothing.
    """

    @cache
    def error(at: tuple[int, ...]) -> float:
        misses = []
        for inside, outside in plan:
            held = frames.take(outside)
            model = fit(frames.take(inside), *(axis[i] for axis, i in zip(grid, at, strict=True)))
            misses.append(np.abs(model.predict(held.pos_A)[1] - held.forces_eV_A).ravel())
        return float(np.concatenate(misses).mean())

    best = start
    for _ in range(ROUNDS if plan else 0):
        before = best
        for place, axis in enumerate(grid):
            best = min(
                ((*best[:place], i, *best[place + 1 :]) for i in range(len(axis))), key=error
            )
        if best == before:
            break
    return [axis[i] for axis, i in zip(grid, best, strict=True)]


def _outputs(model: GradientDomain | Harmonic, asked: Frames) -> Outputs:
    energy_M, forces_MN3 = model.predict(asked.pos_A)
    ragged = np.empty(len(forces_MN3), object)
    # assigned at once, equal shapes would become one array
    for place, forces in enumerate(forces_MN3):
        ragged[place] = forces
    return {"energy_eV": energy_M, "forces_eV_A": ragged}
