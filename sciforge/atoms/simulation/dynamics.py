"""Relaxation and molecular dynamics in one call each, by ASE's optimisers and integrators."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

from sciforge.core.files.results import TableResult
from sciforge.errors import ConfigError, DivergedError
from sciforge.structures.ase_atoms import as_atoms
from sciforge.structures.structure import Structure
from sciforge.structures.velocities import draw_momenta

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

FRICTION_PER_FS = 0.01
# BFGS diagonalises its Hessian at every step: beyond this many atoms the limited-memory one is
# faster.
HESSIAN_ATOMS = 100


@dataclass(frozen=True)
class Relaxation:
    """Where a relaxation ended.

    Args:
        atoms: the relaxed atoms, with the calculator.
        converged: whether every force is below the threshold.
        steps: steps taken.
        fmax_eV_A: the largest force left (of atoms and, where it was free, of the cell).
    """

    atoms: Atoms
    converged: bool
    steps: int
    fmax_eV_A: float


def relax(
    structure: Structure | Atoms,
    calculator: Any,
    fmax: float = 0.05,
    cell: bool = False,
    steps: int = 1000,
) -> Relaxation:
    """Move a copy of the atoms to where forces vanish.

    Args:
        structure: where to start.
        calculator: any of ASE's.
        fmax: largest force that may be left, eV/angstrom.
        cell: also relax the lattice vectors, by the stress.
        steps: at most so many.

    Raises:
        ConfigError: a cell to relax that does not repeat in three directions.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS, LBFGS

    atoms = as_atoms(structure)
    if cell and not atoms.pbc.all():
        raise ConfigError(
            "cell=True needs a structure periodic in three directions; relax the positions only"
        )
    if not fmax > 0:
        raise ConfigError(f"fmax is {fmax}; it must be above 0 eV/angstrom")
    atoms.calc = calculator
    free = FrechetCellFilter(atoms) if cell else atoms
    optimiser = (BFGS if len(atoms) <= HESSIAN_ATOMS else LBFGS)(free, logfile=None)
    converged = bool(optimiser.run(fmax=fmax, steps=steps))
    largest = float(np.linalg.norm(free.get_forces(), axis=1).max())
    return Relaxation(atoms, converged, optimiser.nsteps, largest)


class MolecularDynamics(TableResult):
    """What was logged: time_fs, potential_eV, kinetic_eV, total_eV and temperature_K;
    `log["total_eV"]` is a column.
    """

    def __getitem__(self, name: str) -> np.ndarray:
        return self.frame[name].to_numpy()


def _draw_energies(frame: "pd.DataFrame", ax: "Axes") -> None:
    start = frame["total_eV"].iloc[0]
    for name, colour in (("potential", "#0072B2"), ("kinetic", "#D55E00"), ("total", "black")):
        above = frame[f"{name}_eV"] - (0 if name == "kinetic" else start)
        ax.plot(frame["time_fs"], above, color=colour, label=name)
    ax.set(xlabel="time, fs", ylabel="energy above the start, eV")
    ax.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))


def run_md(
    atoms: Atoms,
    calculator: Any,
    steps: int,
    temperature_K: float | None = 300.0,
    timestep_fs: float = 0.5,
    ensemble: Literal["nve", "nvt"] = "nve",
    interval: int = 1,
    seed: int = 0,
) -> MolecularDynamics:
    """Run molecular dynamics; the atoms move.

    Args:
        atoms: moved in place, so that a second call can go on from the first.
        calculator: any of ASE's.
        steps: how many.
        temperature_K: of the velocities drawn at the start, and of the thermostat; None keeps the
            velocities there are.
        timestep_fs: 0.5 suits structures with hydrogen.
        ensemble: `nve` (velocity Verlet) or `nvt` (Langevin, friction 0.01 per fs).
        interval: log every so many steps.
        seed: of velocities and thermostat.

    Returns:
        A table of time_fs, potential_eV, kinetic_eV, total_eV and temperature_K, 1 + steps //
        interval rows.

    Raises:
        ConfigError: a setting is out of range.
        DivergedError: the atoms fly apart.
    """
    _check_md(ensemble, steps, temperature_K, timestep_fs, interval)
    atoms.calc = calculator
    random = np.random.default_rng(seed)
    if temperature_K is not None:
        draw_momenta(atoms, temperature_K, random)
    integrator = _integrator(atoms, ensemble, temperature_K, timestep_fs, random)
    rows = []

    def log() -> None:
        potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
        if not np.isfinite(kinetic) or kinetic > 1e6 * len(atoms):
            raise DivergedError(
                f"the atoms fly apart at step {integrator.nsteps}; take a shorter time step"
            )
        time_fs = integrator.nsteps * timestep_fs
        rows.append((time_fs, potential, kinetic, potential + kinetic, atoms.get_temperature()))

    import pandas as pd

    integrator.attach(log, interval=interval)
    integrator.run(steps)
    names = ("time_fs", "potential_eV", "kinetic_eV", "total_eV", "temperature_K")
    settings = {"steps": steps, "temperature_K": temperature_K, "timestep_fs": timestep_fs}
    settings |= {"ensemble": ensemble, "seed": seed}
    frame = pd.DataFrame(np.array(rows), columns=list(names))
    return MolecularDynamics(frame, settings, _draw_energies)


def _check_md(
    ensemble: str, steps: int, temperature_K: float | None, timestep_fs: float, interval: int
) -> None:
    if ensemble not in ("nve", "nvt"):
        raise ConfigError(f"ensemble is {ensemble!r}; it must be 'nve' or 'nvt'")
    if ensemble == "nvt" and temperature_K is None:
        raise ConfigError("nvt needs a temperature_K")
    if (
        (temperature_K is not None and temperature_K < 0)
        or timestep_fs <= 0
        or steps < 0
        or interval < 1
    ):
        raise ConfigError(
            "run_md needs temperature_K >= 0, timestep_fs > 0, steps >= 0 and interval >= 1"
        )


def _integrator(
    atoms: Atoms,
    ensemble: str,
    temperature_K: float | None,
    timestep_fs: float,
    random: np.random.Generator,
) -> VelocityVerlet | Langevin:
    timestep = timestep_fs * units.fs
    if ensemble == "nve":
        return VelocityVerlet(atoms, timestep)
    friction = FRICTION_PER_FS / units.fs
    options = {"temperature_K": temperature_K, "friction": friction, "rng": random, "fixcm": False}
    return Langevin(atoms, timestep, **options)
