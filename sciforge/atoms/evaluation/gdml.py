"""Kernel ridge regression on forces: GDML (Chmiela et al. 2017, Sci. Adv. 3 e1603015) with the
symmetries of sGDML.

A molecule is its P inverse distances x. The energy is a Gaussian process over x whose covariance is
a Matern 5/2 kernel of length sigma, averaged over the group of atom permutations that the frames
show (Chmiela et al. 2018, Nat. Commun. 9 3887); it is fitted to forces alone, through the kernel's
second derivatives, and the forces predicted are exactly minus the gradient of the energy predicted.
One constant is fitted to the energies. Letters: B frames, N atoms, C = 3N, P pairs, G permutations.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import minimum_spanning_tree

from sciforge.errors import ConfigError

MOST_EQUATIONS = 30_000  # 7 GB of kernel matrix
MOST_PERMUTATIONS = 72  # acetylacetone: two methyl groups, and its two halves may change places
BONDED = 1.25  # times the sum of the covalent radii
MATCHED = 100  # frames that are compared with each other in the search for permutations
BLOCK = 64  # frames predicted at once


def inverse_distances(pos_A_BN3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the inverse distances [B, P] in 1/angstrom, pairs in the order of np.triu_indices, and
    dx/dr [B, P, 3N].

    >>> x, jacobian = inverse_distances(np.array([[[0, 0, 0], [0, 0, 2.0]]]))
    >>> x.tolist(), jacobian[0, 0].tolist() == [0, 0, 0.25, 0, 0, -0.25]
    ([[0.5]], True)
    """
    pos = np.asarray(pos_A_BN3, np.float64)
    size = pos.shape[1]
    first, second = np.triu_indices(size, 1)
    away_BP3 = pos[:, first] - pos[:, second]
    x_BP = 1.0 / np.linalg.norm(away_BP3, axis=2)
    slope_BP3 = away_BP3 * x_BP[:, :, None] ** 3
    jacobian = np.zeros((len(pos), len(first), size, 3))
    pairs = np.arange(len(first))
    jacobian[:, pairs, first] = -slope_BP3
    jacobian[:, pairs, second] = slope_BP3
    return x_BP, jacobian.reshape(len(pos), len(first), 3 * size)


def pair_permutations(permutations_GN: np.ndarray) -> np.ndarray:
    """Return what permutations of atoms (pos[permutation]) do to pairs: x[of_pairs], int [G, P].

    >>> pair_permutations(np.array([[0, 1, 2], [1, 0, 2]])).tolist()  # pairs 01, 02, 12
    [[0, 1, 2], [0, 2, 1]]
    """
    size = permutations_GN.shape[1]
    first, second = np.triu_indices(size, 1)
    place = np.zeros((size, size), np.int64)
    place[first, second] = place[second, first] = np.arange(len(first))
    return place[permutations_GN[:, first], permutations_GN[:, second]]


def find_permutations(
    numbers_N: np.ndarray, pos_A_BN3: np.ndarray, most: int = MOST_PERMUTATIONS
) -> np.ndarray:
    """Return the group of permutations of like atoms that the frames show, the identity first, int
    [G, N].

    As sGDML: atoms of each two frames are matched by the eigenvectors of their distance matrices;
    of these matches the minimum spanning tree over frames is kept, and closed to a group. The
    commonest generators come first, and one that would make the group larger than `most` is left
    out.
    """
    size, frames = len(numbers_N), len(pos_A_BN3)
    identity = np.arange(size)
    distance_BNN = np.linalg.norm(pos_A_BN3[:, :, None] - pos_A_BN3[:, None], axis=3)
    vectors_BNN = np.abs(np.linalg.eigh(distance_BNN)[1])
    unlike_NN = 1e6 * (numbers_N[:, None] != numbers_N)
    cost = np.zeros((frames, frames))
    matches = {}
    for i in range(frames):
        for j in range(i + 1, frames):
            _, match = linear_sum_assignment(unlike_NN - vectors_BNN[j] @ vectors_BNN[i].T)
            before = np.linalg.norm(distance_BNN[i] - distance_BNN[j])
            after = np.linalg.norm(distance_BNN[i][np.ix_(match, match)] - distance_BNN[j])
            if after < 0.999 * before:
                matches[i, j] = tuple(match.tolist())
            cost[i, j] = min(before, after) + 1e-12  # an edge of cost 0 is no edge
    tree = zip(*minimum_spanning_tree(cost).nonzero(), strict=True)
    found = [matches[edge] for edge in ((int(i), int(j)) for i, j in tree) if edge in matches]
    group = {tuple(identity.tolist())}
    for generator in sorted(set(found), key=lambda match: (-found.count(match), match)):
        group = _closed(group | {generator}, most) or group
    return np.array(sorted(group))


def bond_permutations(
    numbers_N: np.ndarray, pos_A_BN3: np.ndarray, most: int = MOST_PERMUTATIONS
) -> np.ndarray:
    """Return the automorphisms of the bonds that most frames have, the identity first, int [G, N].

    They hold more than a few frames can show, the turn of every methyl group. Where there are more
    than `most`, only the identity is returned.
    """
    from ase.data import covalent_radii

    size = len(numbers_N)
    reach_NN = BONDED * (covalent_radii[numbers_N][:, None] + covalent_radii[numbers_N])
    distance_NN = np.median(
        np.linalg.norm(pos_A_BN3[:, :, None] - pos_A_BN3[:, None], axis=3), axis=0
    )
    bonded_NN = (distance_NN < reach_NN) & ~np.eye(size, dtype=bool)
    kind = [(int(z), int(degree)) for z, degree in zip(numbers_N, bonded_NN.sum(1), strict=True)]
    partial: list[list[int]] = [[]]
    found = []
    while partial:
        images = partial.pop()
        place = len(images)
        if place == size:
            found.append(images)
            if len(found) > most:
                return np.arange(size)[None]
            continue
        for image in range(size):
            if image not in images and kind[image] == kind[place]:
                if np.array_equal(bonded_NN[place, :place], bonded_NN[image, images]):
                    partial.append([*images, image])
    return np.array(sorted(found))


def joined_permutations(
    first_GN: np.ndarray, second_GN: np.ndarray, most: int = MOST_PERMUTATIONS
) -> np.ndarray | None:
    """Return the group that two groups generate together, or None where it has more than `most`
    elements.
    """
    group = _closed(
        {tuple(element) for element in np.concatenate([first_GN, second_GN]).tolist()}, most
    )
    return None if group is None else np.array(sorted(group))


def _closed(elements: set[tuple[int, ...]], most: int) -> set[tuple[int, ...]] | None:
    """Return the group that permutations generate, or None where it has more than `most`
    elements.
    """
    group, fresh = set(elements), set(elements)
    while fresh:
        fresh = {tuple(a[i] for i in b) for a in fresh for b in elements} - group
        group |= fresh
        if len(group) > most:
            return None
    return group


def force_kernel(
    x_BP: np.ndarray, jacobian_BPC: np.ndarray, sigma: float, pairs_GP: np.ndarray
) -> np.ndarray:
    """Return the covariance of all force components [BC, BC], in Fortran order.

    It is J_i^T [mean over g of H(x_i, g x_j) g] J_j, where H = exp(-q) ((1 + q) 1 - (5 / sigma^2) u
    u^T) is the second derivative of the Matern kernel, 5 / (3 sigma^2) left out, with u = x_i - g
    x_j and q = sqrt(5) |u| / sigma.
    """
    frames, num_pairs, width = jacobian_BPC.shape
    group = len(pairs_GP)
    covariance = np.zeros((frames * width, frames * width), order="F")
    transposed_BCP = jacobian_BPC.transpose(0, 2, 1)
    for j in range(frames):
        moved_GPC = jacobian_BPC[j][pairs_GP]
        u_MGP = x_BP[j:, None] - x_BP[j][pairs_GP]
        decay, bend = _matern(np.linalg.norm(u_MGP, axis=2), sigma)
        along_GMC = u_MGP.transpose(1, 0, 2) @ moved_GPC
        inner = (decay @ moved_GPC.reshape(group, -1)).reshape(-1, num_pairs, width)
        inner -= u_MGP.transpose(0, 2, 1) @ (bend[:, :, None] * along_GMC.transpose(1, 0, 2))
        column = (transposed_BCP[j:] @ inner).reshape(-1, width) / group
        covariance[j * width :, j * width : (j + 1) * width] = column
        covariance[j * width : (j + 1) * width, j * width :] = column.T
    return covariance


def _matern(distance: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (1 + q) exp(-q) and (5 / sigma^2) exp(-q)."""
    q = np.sqrt(5.0) / sigma * distance
    fall = np.exp(-q)
    return (1 + q) * fall, 5 / sigma**2 * fall


def solve_ridge(covariance: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    """Solve (covariance + ridge * its mean diagonal) weights = target; the lower triangle of
    `covariance` is lost.

    No energy explains forces that move or turn a molecule as a whole, so the matrix is singular;
    where rounding makes it indefinite, the ridge grows tenfold until Cholesky's method succeeds.
    """
    diagonal = np.diagonal(covariance).copy()
    scale = float(diagonal.mean())
    for _ in range(12):
        np.fill_diagonal(covariance, diagonal + ridge * scale)
        try:
            factor = cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
            return cho_solve(factor, target, check_finite=False)
        except LinAlgError:
            ridge = max(10 * ridge, 1e-15)
        for place in range(len(covariance)):  # the upper triangle is still whole
            covariance[place + 1 :, place] = covariance[place, place + 1 :]
    raise ConfigError(
        "the kernel matrix of these frames has no Cholesky factor; are forces or positions not"
        " finite?"
    )


@dataclass(frozen=True)
class GradientDomain:
    """A fitted GDML: energies and forces of one molecule.

    Args:
        numbers_N: atomic numbers, in the order of every frame.
        sigma: length of the kernel in 1/angstrom.
        centre_P: mean descriptor of training, taken off for the sake of rounding.
        known_KP: training descriptors and their permuted copies, K = B G.
        weights_KP: what each of them pulls by in descriptor space, permuted alike.
        constant_eV: added to every energy; NaN where no training frame had an energy.
    """

    numbers_N: np.ndarray
    sigma: float
    centre_P: np.ndarray
    known_KP: np.ndarray
    weights_KP: np.ndarray
    constant_eV: float

    @classmethod
    def fit(
        cls,
        numbers_N: np.ndarray,
        pos_A_BN3: np.ndarray,
        forces_eV_A_BN3: np.ndarray,
        energy_eV_B: np.ndarray | None = None,
        sigma: float = 10.0,
        ridge: float = 1e-10,
        permutations_GN: np.ndarray | None = None,
    ) -> Self:
        """Fit all force components exactly (but for the ridge) and the constant of the energies
        that are finite.

        Args:
            numbers_N: atomic numbers of the molecule.
            pos_A_BN3: positions of each frame, angstrom.
            forces_eV_A_BN3: forces of each frame, eV/angstrom.
            energy_eV_B: energy of each frame, eV; NaN or None where it is not known.
            sigma: length of the kernel in 1/angstrom.
            ridge: added to the diagonal, in units of its mean.
            permutations_GN: a group of atom permutations; None for none.

        Raises:
            ConfigError: more force components than the memory of an ordinary machine allows.
        """
        frames, size = np.shape(pos_A_BN3)[:2]
        if 3 * frames * size > MOST_EQUATIONS:
            raise ConfigError(
                f"gdml solves {3 * frames * size} equations here, {MOST_EQUATIONS} at most; "
                f"give at most {MOST_EQUATIONS // (3 * size)} frames"
            )
        pairs_GP = pair_permutations(
            np.arange(size)[None] if permutations_GN is None else permutations_GN
        )
        x_BP, jacobian_BPC = inverse_distances(pos_A_BN3)
        slope = -np.asarray(forces_eV_A_BN3, np.float64).reshape(-1)
        weights_BC = solve_ridge(
            force_kernel(x_BP, jacobian_BPC, sigma, pairs_GP), slope, ridge
        ).reshape(frames, -1)
        weights_BP = np.einsum("bpc,bc->bp", jacobian_BPC, weights_BC) / len(pairs_GP)
        centre_P = x_BP.mean(0)
        known_KP = x_BP[:, pairs_GP].reshape(-1, x_BP.shape[1]) - centre_P
        spread_KP = weights_BP[:, pairs_GP].reshape(-1, x_BP.shape[1])
        raw = cls(np.asarray(numbers_N), sigma, centre_P, known_KP, spread_KP, 0.0)
        missing = (
            np.full(frames, np.nan) if energy_eV_B is None else np.asarray(energy_eV_B, np.float64)
        )
        rest = (missing - raw.predict(pos_A_BN3)[0])[np.isfinite(missing)]
        constant = float(rest.mean()) if len(rest) else float("nan")
        return cls(raw.numbers_N, sigma, centre_P, known_KP, spread_KP, constant)

    def predict(self, pos_A_BN3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return energies [B] in eV and forces [B, N, 3] in eV/angstrom, float64."""
        pos = np.asarray(pos_A_BN3, np.float64)
        parts = [self._predict(pos[i : i + BLOCK]) for i in range(0, len(pos), BLOCK)]
        energies, forces = (
            zip(*parts, strict=True) if parts else ([np.zeros(0)], [np.zeros_like(pos)])
        )
        return np.concatenate(energies) + self.constant_eV, np.concatenate(forces)

    def _predict(self, pos_A_BN3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum over copies k: E = (1 + q) exp(-q) u.w, with dE/dx = (1 + q) exp(-q) w - (5 /
        sigma^2) exp(-q) (u.w) u.
        """
        x_BP, jacobian_BPC = inverse_distances(pos_A_BN3)
        x_BP = x_BP - self.centre_P
        squared_BK = (
            (x_BP**2).sum(1)[:, None] + (self.known_KP**2).sum(1) - 2 * x_BP @ self.known_KP.T
        )
        decay_BK, bend_BK = _matern(np.sqrt(np.maximum(squared_BK, 0)), self.sigma)
        along_BK = x_BP @ self.weights_KP.T - (self.known_KP * self.weights_KP).sum(1)
        bend_BK *= along_BK
        slope_BP = (
            decay_BK @ self.weights_KP - bend_BK.sum(1)[:, None] * x_BP + bend_BK @ self.known_KP
        )
        forces_BC = -np.einsum("bpc,bp->bc", jacobian_BPC, slope_BP)
        return (decay_BK * along_BK).sum(1), forces_BC.reshape(pos_A_BN3.shape)
