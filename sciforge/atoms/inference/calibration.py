"""Whether errors are as large as they were said to be: coverage, rank correlation, factors of
calibration, a picture.

Legend: S structures, N atoms of a structure, L levels of coverage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sciforge.errors import ConfigError
from sciforge.structures.structure import Structure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COVERAGE_L = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True)
class Factors:
    """What standard deviations are multiplied by: energies and forces err for different reasons,
    so each has its own.
    """

    energy: float = 1.0
    forces: float = 1.0

    def __mul__(self, other: "Factors") -> "Factors":
        """Return one after the other."""
        return Factors(self.energy * other.energy, self.forces * other.forces)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Means and standard deviations of structures.

    Args:
        energy_eV_S: total energies.
        energy_std_eV_atom_S: standard deviation of the energy per atom.
        forces_eV_A: forces [N, 3] of each structure.
        force_std_eV_A: standard deviation of each component, [N, 3].
    """

    energy_eV_S: np.ndarray
    energy_std_eV_atom_S: np.ndarray
    forces_eV_A: list[np.ndarray]
    force_std_eV_A: list[np.ndarray]

    def scaled(self, factors: Factors) -> "Predictions":
        """Return the same means with the standard deviations times their factors."""
        forces = [factors.forces * sigma for sigma in self.force_std_eV_A]
        energy_S = factors.energy * self.energy_std_eV_atom_S
        return replace(self, energy_std_eV_atom_S=energy_S, force_std_eV_A=forces)

    def part(self, start: int, stop: int) -> "Predictions":
        """Return those of some structures."""
        return Predictions(*(values[start:stop] for values in vars(self).values()))

    @property
    def score_S(self) -> np.ndarray:
        """The largest standard deviation of any atom's force vector, eV/angstrom (as DP-GEN,
        Zhang et al. 2020).
        """
        return np.array([np.linalg.norm(sigma, axis=1).max() for sigma in self.force_std_eV_A])


@dataclass(frozen=True, eq=False)
class Reliability:
    """Whether errors are as large as they were said to be.

    Args:
        observed_L: share of errors within the central interval of each nominal coverage,
            COVERAGE_L.
        expected_error: mean |observed - nominal| (expected calibration error; Kuleshov et al. 2018,
            arXiv 1807.00263).
        spearman: rank correlation of sigma with |error|.
        rmse: of the errors, in eV/atom or eV/angstrom.
        mean_std: in the same unit.
        count: errors looked at.
    """

    observed_L: np.ndarray
    expected_error: float
    spearman: float
    rmse: float
    mean_std: float
    count: int

    @classmethod
    def of(cls, error: np.ndarray, sigma: np.ndarray) -> "Reliability":
        """Compare errors with the standard deviations said of them, both flat."""
        from scipy.stats import rankdata

        size = np.abs(error)
        within = torch.special.erf(
            torch.from_numpy(size / np.maximum(sigma, 1e-300) / np.sqrt(2))
        ).numpy()
        observed_L = (within[None] <= COVERAGE_L[:, None]).mean(1)
        ranks = rankdata(size), rankdata(sigma)
        constant = len(size) < 2 or np.ptp(ranks[0]) == 0 or np.ptp(ranks[1]) == 0
        spearman = float("nan") if constant else float(np.corrcoef(*ranks)[0, 1])
        rmse, gap = float(np.sqrt(np.mean(error**2))), float(np.abs(observed_L - COVERAGE_L).mean())
        return cls(observed_L, gap, spearman, rmse, float(sigma.mean()), len(error))

    def metrics(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {
            **vars(self),
            "nominal_L": COVERAGE_L.tolist(),
            "observed_L": self.observed_L.tolist(),
        }


def errors_of(
    found: Predictions, true: Sequence[Structure]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return (errors, sigmas), flat, of `energy` (eV/atom) and `forces` (eV/angstrom), of the
    structures with labels.
    """
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    kept = [i for i, s in enumerate(true) if s.energy_eV is not None]
    if kept:
        error = [(found.energy_eV_S[i] - true[i].energy_eV) / len(true[i]) for i in kept]
        pairs["energy"] = np.array(error), found.energy_std_eV_atom_S[kept]
    kept = [i for i, s in enumerate(true) if s.forces_eV_A_N3 is not None]
    if kept:
        error = [(found.forces_eV_A[i] - true[i].forces_eV_A_N3).ravel() for i in kept]
        pairs["forces"] = (
            np.concatenate(error),
            np.concatenate([found.force_std_eV_A[i].ravel() for i in kept]),
        )
    if not pairs:
        raise ConfigError(
            "no structure has a label to compare with; give structures with energies or forces"
        )
    return pairs


def reliabilities(found: Predictions, true: Sequence[Structure]) -> dict[str, Reliability]:
    """Return the reliability of energies and forces; raises ConfigError without labels."""
    return {name: Reliability.of(*pair) for name, pair in errors_of(found, true).items()}


def fit_factors(found: Predictions, true: Sequence[Structure]) -> Factors:
    """Return the factors under which the errors are likeliest, sqrt(mean((error / sigma)^2)); 1 for
    what has no labels.

    Raises:
        ConfigError: no labels, or a sigma of 0 everywhere.
    """
    factors = {}
    for kind, (error, sigma) in errors_of(found, true).items():
        if not (sigma > 0).any():
            raise ConfigError(
                f"every sigma of {kind} is 0; the members are one and the same checkpoint"
            )
        factors[kind] = float(np.sqrt(np.mean((error[sigma > 0] / sigma[sigma > 0]) ** 2)))
    return Factors(**factors)


def draw_reliability(axes: "Axes", curves: Mapping[str, Reliability], kind: str) -> "Axes":
    """Draw observed against nominal coverage, one curve a method.

    Args:
        axes: where to draw.
        curves: reliability by the name of the method.
        kind: `forces` or `energy`, for the title.
    """
    axes.plot([0, 1], [0, 1], color="0.6", lw=1, label="ideal")
    for name, reliability in curves.items():
        error, rank = reliability.expected_error, reliability.spearman
        label = f"{name}: off by {error:.3f}, rank {rank:.2f}"
        axes.plot(COVERAGE_L, reliability.observed_L, marker="o", ms=3, label=label)
    axes.set(xlabel="nominal coverage", ylabel="observed coverage", xlim=(0, 1), ylim=(0, 1))
    axes.set(title=kind, aspect=1)
    # below the picture: inside, it would hide a curve
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return axes
