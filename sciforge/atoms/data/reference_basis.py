"""Energies of the elements: a closed-form fit that takes the big, chemistry-free part out of total
energies.

They belong to one level of theory: the same carbon is -1025.28 eV in one functional and -1026.85 eV
in the next, so a fit never mixes levels and is never carried from one to another.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sciforge.errors import DataError

# a direction of composition that varies less than this is not seen by the data
RANK_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Reference:
    """Reference energies of one level of theory.

    Args:
        energies: atomic number -> eV.
        source: `isolated` where the fit leans on isolated atoms, `ridge` where on the mean energy
            per atom.
        rank: directions of composition that the data determine; below `num_elements` the rest is
            the prior's.
        num_elements: elements in the data.
        residual_meV_atom: RMS over structures of (E - sum of references) / N.
        offset_eV: energy that does not grow with the number of atoms, fitted beside the references;
            None where all structures have one size. Far from 0 for energies per atom given as
            totals.
        num_structures: energies fitted.
    """

    energies: dict[int, float]
    source: str
    rank: int
    num_elements: int
    residual_meV_atom: float
    offset_eV: float | None = None
    num_structures: int = 0

    @property
    def extensive(self) -> bool:
        """Whether the energies grow with the number of atoms, as far as the data can tell."""
        scale = max((abs(v) for v in self.energies.values()), default=0.0)
        return self.offset_eV is None or abs(self.offset_eV) < max(0.5 * scale, 5.0)

    def total_eV(self, numbers_N: np.ndarray) -> float:
        """Return the sum over atoms, eV; raises DataError for an element without a reference."""
        try:
            return float(sum(self.energies[int(z)] for z in numbers_N))
        except KeyError as missing:
            raise DataError(
                f"no reference energy of element {missing}; fit it at this level of theory"
            ) from None

    def report(self, level: str = "") -> str:
        """Return one line for people."""
        from ase.data import chemical_symbols

        shown = ", ".join(f"{chemical_symbols[z]} {e:.4f}" for z, e in self.energies.items())
        line = (
            f"reference energies{f' of {level}' if level else ''} [eV]: {shown}; {self.source},"
            f" rank {self.rank} of "
        )
        line += (
            f"{self.num_elements}, residual {self.residual_meV_atom:.1f} meV/atom over"
            f" {self.num_structures}"
        )
        return (
            line
            if self.extensive
            else f"{line}; NOT extensive (offset {self.offset_eV:.3g} eV): totals or per atom?"
        )


def fit_reference(
    compositions: np.ndarray,
    energies: np.ndarray,
    isolated: Mapping[int, float] | None = None,
    ridge: float = 1e-8,
) -> Reference:
    """Fit reference energies to the training split of ONE level of theory by ridge regression, in
    closed form.

    Minimises mean((sum_z x_z e_z - E/N)^2) + ridge |e - prior|^2 with the fractions x. What the
    compositions do not determine (a set of one molecule has rank 1) stays at the prior: the
    isolated atoms, else the mean energy per atom. Solved for e - prior by SVD in float64, so that
    energies of -1e4 eV keep their meV.

    Args:
        compositions: counts [M, Z]; column z is the element with atomic number z.
        energies: total energies [M] in eV.
        isolated: atomic number -> eV; elements it lacks lean on the mean of what is left over per
            atom.
        ridge: pull toward the prior; 1e-8 bends only directions narrower than 1e-4 in composition.

    Raises:
        DataError: no energy, an empty composition, or energies that are not finite.
    """
    counts, total = np.asarray(compositions, np.float64), np.asarray(energies, np.float64)
    if counts.ndim != 2 or len(counts) != len(total) or not len(total):
        raise DataError(
            f"compositions of shape {counts.shape} for {total.size} energies; give one row an"
            " energy"
        )
    if not np.isfinite(total).all() or (counts.sum(1) < 1).any():
        raise DataError(
            "an energy is not finite, or a composition has no atom; leave it out of the"
            " reference fit"
        )
    elements = np.flatnonzero(counts.any(0))
    counts = counts[:, elements]
    size = counts.sum(1)
    prior = _prior(counts, total, [int(z) for z in elements], isolated or {})
    fractions = counts / size[:, None] / np.sqrt(len(total))
    left = (total - counts @ prior) / size / np.sqrt(len(total))
    u, s, vt = np.linalg.svd(fractions, full_matrices=False)
    found = prior + vt.T @ (s / (s**2 + ridge) * (u.T @ left))
    residual = (total - counts @ found) / size
    return Reference(
        energies={int(z): float(e) for z, e in zip(elements, found, strict=True)},
        source="isolated" if isolated and set(isolated) & set(elements.tolist()) else "ridge",
        rank=int((s > RANK_TOLERANCE).sum()),
        num_elements=len(elements),
        num_structures=len(total),
        residual_meV_atom=float(np.sqrt(np.mean(residual**2)) * 1000),
        offset_eV=_offset(counts, total),
    )


def _prior(
    counts: np.ndarray, total: np.ndarray, elements: list[int], isolated: Mapping[int, float]
) -> np.ndarray:
    known = np.array([z in isolated for z in elements])
    prior = np.array([isolated.get(z, 0.0) for z in elements])
    if not known.all():
        rest = counts[:, ~known].sum(1)
        rows = rest > 0
        prior[~known] = (total[rows] - counts[rows] @ prior).sum() / rest[rows].sum()
    return prior


def _offset(counts: np.ndarray, total: np.ndarray) -> float | None:
    """Return the constant that least squares adds to the totals; None where composition alone
    can stand for it.
    """
    design = np.column_stack([counts, np.ones(len(total))])
    if len(np.unique(counts.sum(1))) < 2 or np.linalg.matrix_rank(design) == np.linalg.matrix_rank(
        counts
    ):
        return None
    scale = np.linalg.norm(design, axis=0)
    return float((np.linalg.lstsq(design / scale, total, rcond=1e-10)[0] / scale)[-1])
