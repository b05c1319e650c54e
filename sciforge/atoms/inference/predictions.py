"""What a potential says of structures: energies, forces and stress, in memory.

Legend: N atoms, 6 Voigt components xx yy zz yz xz xy. Units: eV, angstrom, eV/angstrom,
eV/angstrom^3.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sciforge.atoms.inference.batching import batch_of, in_batches, split_atoms, windows
from sciforge.atoms.inference.embeddings import atom_features
from sciforge.atoms.inference.file_frames import FileFrame
from sciforge.atoms.model.potential import require_elements
from sciforge.atoms.objectives.energy_forces import EnergyForces
from sciforge.core.domain import Record
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.structures.structure import Structure


def structure_of(record: Record) -> Structure:
    """Return a stored record as a structure, labels that are NaN left out."""
    energy, forces = float(record["energy_eV"]), np.asarray(record["forces_eV_A"], float)
    return Structure(
        np.asarray(record["numbers"], np.int64),
        np.asarray(record["pos_A"], float),
        np.asarray(record["cell_A"], float),
        np.asarray(record["pbc"], bool),
        energy_eV=energy if np.isfinite(energy) else None,
        forces_eV_A_N3=forces if np.isfinite(forces).all() else None,
        charge=int(record["charge"]),
        spin=int(record["spin"]),
        level=str(record["level"]),
        name=str(record["name"]),
    )


def need_potential(model: Model) -> EnergyForces:
    """Return the objective of a potential; raises ConfigError for a checkpoint that learnt no
    energies.
    """
    if not isinstance(model.objective, EnergyForces):
        kind = type(model.objective).__name__
        raise ConfigError(
            f"{model.checkpoint.path} was trained for {kind}, not for energies; fine-tune it first"
        )
    return model.objective


def need_level(objective: EnergyForces, level: str, where: str) -> None:
    """Raise ConfigError where a potential of several levels of theory has none of that name."""
    if objective.levels and level not in objective.levels:
        hint = did_you_mean(level, objective.levels)
        raise ConfigError(
            f"{where}level of theory {level!r} is none of the potential's; {hint}; give it with"
            " --level"
        )


def level_name(objective: EnergyForces, asked: str) -> str:
    """Return the level of theory of a potential's predictions, "" where its training data named
    none.
    """
    if objective.levels:
        return asked
    return objective.references[0][0] if len(objective.references) == 1 else ""


def record_of(frame: FileFrame, model: Model, level: str = "") -> dict[str, Any]:
    """Return the record of a frame at a level of theory ("" keeps the structure's own).

    Raises:
        DataError: atoms without finite positions, overlapping atoms, no element; names file and
            frame.
        ConfigError: an element or a level of theory that the potential does not know.
    """
    try:
        record = model.codec.record_of(replace(frame.structure, name=""))
    except DataError as error:
        raise DataError(f"frame {frame.number}: {error}", frame.file) from None
    require_elements(model.network, record["numbers"], frame.where)
    record["level"] = level or frame.structure.level
    need_level(need_potential(model), record["level"], frame.where)
    return record


def predicted(
    model: Model, frames: Iterable[FileFrame], level: str = "", stress: bool = False
) -> Iterator[tuple[FileFrame, Structure]]:
    """Yield each frame, in order, with its structure relabelled by the potential.

    Args:
        model: a potential.
        frames: what to label.
        level: of theory; "" for each structure's own.
        stress: also predict the stress of what is periodic in three directions.

    Raises:
        DataError, ConfigError: as `record_of`; or an energy or force comes out not finite.
    """
    for window in windows(frames, model):
        records = [record_of(frame, model, level) for frame in window]
        structures: list[Structure | None] = [None] * len(window)
        for part in in_batches(records, model.batch):
            chosen = [window[place] for place in part]
            labelled = _labelled(model, chosen, [records[place] for place in part], stress)
            for place, structure in zip(part, labelled, strict=True):
                structures[place] = structure
        yield from zip(window, structures, strict=True)


def _labelled(
    model: Model, frames: Sequence[FileFrame], records: Sequence[Record], stress: bool
) -> Iterator[Structure]:
    """Yield the structures of one batch with the potential's labels."""
    objective, batch = need_potential(model), batch_of(model, records)
    outputs = model.network(batch, stress=stress, create_graph=False)
    energies = outputs["energy_eV"].detach().cpu().numpy()
    forces = split_atoms(outputs["forces_eV_A"], batch)
    stresses: list[Any] = [None] * len(frames)
    if stress:
        stresses = list(outputs["stress_eV_A3"].detach().cpu().numpy().astype(float))
    rows = zip(frames, records, energies, forces, stresses, strict=True)
    for frame, record, energy, force, tensor in rows:
        if not np.isfinite(energy) or not np.isfinite(force).all():
            raise DataError(
                f"frame {frame.number}: the potential gives no finite energy and forces; "
                "the structure is far from all it learnt, leave it out",
                frame.file,
            )
        yield replace(
            frame.structure,
            level=level_name(objective, record["level"]),
            energy_eV=float(energy),
            forces_eV_A_N3=force.astype(float),
            stress_eV_A3_6=tensor if frame.structure.pbc_3.all() else None,
        )


def mean_features(model: Model, frames: Sequence[FileFrame], level: str = "") -> np.ndarray:
    """Return the scalars after every block, averaged over the atoms of each structure [S, D]."""
    records = [record_of(frame, model, level) for frame in frames]
    return np.stack([atoms_ND.mean(0) for atoms_ND in atom_features(model, records)])
