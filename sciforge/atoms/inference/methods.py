"""What a Model of this domain can do besides what every Model can: simulation and embeddings."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

    from sciforge.atoms.inference.calculator import Calculator
    from sciforge.atoms.simulation.dynamics import MolecularDynamics, Relaxation
    from sciforge.core.training.model import Model
    from sciforge.structures.structure import Structure


def calculator(model: "Model", **options: Any) -> "Calculator":
    """Return the potential as a calculator of ASE.

    Args:
        model: a potential.
        options: of `sciforge.atoms.Calculator`: dtype, skin_A, level, warn_fmax_eV_A.
    """
    from sciforge.atoms.inference.calculator import Calculator

    return Calculator(model, **{"device": str(model.device), **options})


def relax(model: "Model", structure: "Structure | Atoms", **options: Any) -> "Relaxation":
    """Move a copy of the atoms to where forces vanish.

    Args:
        model: a potential.
        structure: where to start.
        options: of `sciforge.atoms.relax`: fmax, cell, steps.
    """
    from sciforge.atoms.simulation import dynamics

    return dynamics.relax(structure, calculator(model), **options)


def run_md(model: "Model", atoms: "Atoms", steps: int, **options: Any) -> "MolecularDynamics":
    """Run molecular dynamics with the potential; the atoms move.

    Args:
        model: a potential.
        atoms: moved in place.
        steps: how many.
        options: of `sciforge.atoms.run_md`: temperature_K, timestep_fs, ensemble, interval, seed.
    """
    from sciforge.atoms.simulation import dynamics

    return dynamics.run_md(atoms, calculator(model), steps, **options)


def embed(model: "Model", inputs: Sequence[Any], *, per_atom: bool = False) -> np.ndarray:
    """Return the scalars after every block of the network, float32.

    Args:
        model: any network of this domain.
        inputs: structures, as for `predict`.
        per_atom: a row for each atom, structure after structure, in place of the mean over each
            structure.

    Returns:
        Array [structures, D], or [atoms of all structures, D].
    """
    from sciforge.atoms.inference.embeddings import atom_features

    features = atom_features(model, model.inputs.records(list(inputs)))
    return (
        np.concatenate(features)
        if per_atom
        else np.stack([atoms_ND.mean(0) for atoms_ND in features])
    )
