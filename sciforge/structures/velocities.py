"""Initial velocities for molecular dynamics."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms


def draw_momenta(atoms: "Atoms", temperature_K: float, random: np.random.Generator) -> None:
    """Draw momenta from the Maxwell-Boltzmann distribution; without constraints the total momentum
    is removed.

    Args:
        atoms: ASE's atoms, changed in place.
        temperature_K: of the distribution.
        random: source of the draws.
    """
    from ase import units

    masses = atoms.get_masses()[:, None]
    momenta = np.sqrt(masses * units.kB * temperature_K) * random.standard_normal((len(atoms), 3))
    if len(atoms) > 1 and not atoms.constraints:
        momenta -= masses * momenta.sum(0) / masses.sum()
    atoms.set_momenta(momenta)
