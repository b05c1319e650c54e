"""Cheap labels of one molecule in plenty: frames of its own dynamics under GFN2-xTB, from its
SMILES alone.

The forces that move the atoms are the labels, so a frame costs no calculation beyond those of the
steps to it (3 ms each for 15 atoms). Classical thermal motion about the minima of the labels' own
level is nearer to what is to be learnt than that of a force field (sampling.py), at the price of
frames that resemble each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError, MissingExtra
from sciforge.structures.labelling.geometries import charge_and_spin, find_wells, molecule, skeleton
from sciforge.structures.structure import Structure
from sciforge.structures.velocities import draw_momenta

FRICTION_PER_FS = 0.02
# MMFF94's minimum is not GFN2's: from there the first picoseconds would be far too hot
RELAXED_EV_A = 0.1


@dataclass(frozen=True)
class XtbDynamics(Settings):
    """Langevin dynamics under GFN2-xTB, one trajectory a temperature, from one conformer after
    another.

    Args:
        frames: kept of each trajectory.
        temperatures_K: of the trajectories; somewhat above the temperature of interest, so that it
            lies inside.
        every: steps between frames.
        settle: steps before the first frame.
        timestep_fs: of a step; 1 serves to sample, not to conserve energy.
        seed: of conformers, velocities and thermostat.
    """

    frames: int = 300
    temperatures_K: tuple[float, ...] = (400.0, 400.0, 500.0, 500.0)
    every: int = 10
    settle: int = 200
    timestep_fs: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.frames, self.every) < 1 or self.settle < 0 or self.timestep_fs <= 0:
            raise ConfigError(
                "XtbDynamics needs frames >= 1, every >= 1, settle >= 0 and timestep_fs > 0"
            )
        if not self.temperatures_K or min(self.temperatures_K) <= 0:
            raise ConfigError(
                f"temperatures_K is {self.temperatures_K}; give temperatures in kelvin above 0"
            )

    def of(self, smiles: str) -> Iterator[Structure]:
        """Yield structures with energy and forces at gfn2-xtb, trajectory by trajectory; seeded.

        Raises:
            MissingExtra: tblite or RDKit is not installed.
            DataError: no molecule, or a calculation fails on the way.
        """
        for package in ("rdkit", "tblite"):
            if find_spec(package) is None:
                raise MissingExtra(package, "label")
        mol = molecule(smiles)
        wells = find_wells(mol, len(self.temperatures_K), self.seed)
        random = np.random.default_rng(self.seed)
        for number, temperature_K in enumerate(self.temperatures_K):
            start_N3 = wells[number % len(wells)].pos_A_N3
            try:
                yield from self._trajectory(
                    mol, f"{smiles} walker {number}", start_N3, temperature_K, random
                )
            except RuntimeError as error:  # tblite's, where its iterations do not converge
                raise DataError(
                    f"{smiles!r} at {temperature_K:g} K: {error}; lower temperatures_K"
                ) from None

    def _trajectory(
        self,
        mol: Any,
        name: str,
        start_N3: np.ndarray,
        temperature_K: float,
        random: np.random.Generator,
    ) -> Iterator[Structure]:
        from ase import Atoms, units
        from ase.md.langevin import Langevin
        from ase.optimize import BFGS
        from tblite.ase import TBLite

        (charge, spin), group = charge_and_spin(mol), skeleton(mol)
        numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
        atoms = Atoms(numbers, start_N3)
        atoms.calc = TBLite(method="GFN2-xTB", charge=charge, multiplicity=spin, verbosity=0)
        BFGS(atoms, logfile=None).run(fmax=RELAXED_EV_A, steps=100)
        draw_momenta(atoms, temperature_K, random)
        bath = {
            "temperature_K": temperature_K,
            "friction": FRICTION_PER_FS / units.fs,
            "rng": random,
            "fixcm": False,
        }
        motion = Langevin(atoms, self.timestep_fs * units.fs, **bath)
        motion.run(self.settle)
        for _ in range(self.frames):
            motion.run(self.every)
            yield Structure(
                numbers,
                atoms.positions - atoms.positions.mean(0),
                energy_eV=float(atoms.get_potential_energy()),
                forces_eV_A_N3=np.array(atoms.get_forces()),
                charge=charge,
                spin=spin,
                level="gfn2-xtb",
                name=name,
                group=group,
            )
