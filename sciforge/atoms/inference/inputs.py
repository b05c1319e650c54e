"""Users' own structures: what `fit`, `evaluate`, `predict` and `embed` of a potential take and
give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sciforge.atoms.data.codec import AtomsCodec
from sciforge.atoms.data.in_memory import StructuresInMemory, as_structures
from sciforge.atoms.model.potential import Potential, require_elements
from sciforge.atoms.objectives.energy_forces import EnergyForces
from sciforge.core.domain import FitRecipe, Inputs, Record
from sciforge.core.training.run import Hardware, Schedule
from sciforge.errors import ConfigError, DataError
from sciforge.structures.structure import Structure

if TYPE_CHECKING:
    import pandas as pd

    from sciforge.core.data.store import Store
    from sciforge.core.training.checkpoint import Checkpoint
    from sciforge.core.training.model import Model

# Chosen on validation frames of acetylacetone (benchmarks/atoms_few_shot.py).
FEW_STEPS = 500
MANY_EPOCHS = 40


def _objective(store: "Store", parent: "Checkpoint") -> EnergyForces:
    """Return energies and forces with a readout for each level of theory, the parent's levels
    first.
    """
    known = next((o.levels for o in parent.objectives if isinstance(o, EnergyForces)), ())
    found = tuple(store.meta["levels"])
    if not known and len(found) < 2:
        return EnergyForces()
    return EnergyForces(levels=(*known, *(name for name in found if name not in known)))


def _schedule(steps: int, batch: int, lr: float) -> Schedule:
    return Schedule(
        steps=steps,
        batch=batch,
        lr=lr,
        kind="cosine",
        min_lr_ratio=0.02,
        warmup=0.05,
        weight_decay=0.0,
        betas=(0.9, 0.999),
        clip=10.0,
        ema_decay=0.99,
    )


def few_labels(store: "Store", parent: "Checkpoint", count: int) -> dict[str, Any]:
    """Return the settings for up to a few hundred frames; one thread is fastest for batches of
    small molecules.
    """
    return {
        "objective": _objective(store, parent),
        "schedule": _schedule(FEW_STEPS, 5, 5e-3),
        "hardware": Hardware(threads=1),
    }


def many_labels(store: "Store", parent: "Checkpoint", count: int) -> dict[str, Any]:
    """Return the settings for thousands of frames: epochs in place of a fixed number of steps."""
    steps = max(1000, MANY_EPOCHS * count // 10)
    return {"objective": _objective(store, parent), "schedule": _schedule(steps, 10, 4e-3)}


class StructureInputs(Inputs):
    """Natural inputs are ase.Atoms, Structure, or paths of files, whose structures all count.

    Args:
        codec: lists neighbours.
        network: whose elements inputs may have; None for any.
    """

    recipes: ClassVar[Mapping[str, FitRecipe]] = {
        "few-labels": FitRecipe(
            f"up to a few hundred frames: all weights move for {FEW_STEPS} steps of 5", few_labels
        ),
        "many-labels": FitRecipe(f"thousands of frames: {MANY_EPOCHS} epochs", many_labels),
    }

    def __init__(self, codec: AtomsCodec = AtomsCodec(), network: Potential | None = None) -> None:  # noqa: B008
        self.codec, self.network = codec, network

    def of(self, model: "Model") -> "StructureInputs":
        """Return the inputs with the cutoff and the elements of a model."""
        network = model.network if isinstance(model.network, Potential) else None
        return StructureInputs(model.codec, network)

    def records(self, inputs: Sequence[Any]) -> list[Record]:
        """Return the graph of each structure, without labels.

        Raises:
            DataError: not a structure, or not a physical one; names it by its place.
            ConfigError: an element that the potential was not trained on.
        """
        structures = as_structures(inputs)
        return [self._record(place, structure) for place, structure in enumerate(structures)]

    def _record(self, place: int, structure: Structure) -> Record:
        try:
            record = self.codec.record_of(structure.moved(structure.pos_A_N3))
        except DataError as error:
            raise DataError(f"input {place}: {error}") from None
        if self.network is not None:
            require_elements(self.network, record["numbers"], f"input {place}: ")
        return record

    def preparer(
        self,
        inputs: Sequence[Any],
        targets: "pd.DataFrame | None",
        *,
        split: Sequence[str] | None,
        seed: int,
        group: Sequence[Any] | None = None,
    ) -> StructuresInMemory:
        """Return a preparer of structures that carry their energies and forces.

        One column of targets holds energies in eV, in place of all labels that the structures
        carry.

        Raises:
            DataError: as `records`, or no structure has a label.
            ConfigError: several targets are given.
        """
        if targets is not None:
            inputs = _with_energies(inputs, targets)
        options = {"cutoff_A": self.codec.cutoff_A, "seed": seed}
        preparer = StructuresInMemory.of(inputs, split, group, **options)
        if not any(
            s.energy_eV is not None or s.forces_eV_A_N3 is not None for s in preparer.structures
        ):
            raise DataError("no structure has an energy or forces; set them on each ase.Atoms")
        return preparer

    def columns(
        self, model: "Model", outputs: Mapping[str, np.ndarray]
    ) -> dict[str, Sequence[Any]]:
        """Return energy_eV, forces_eV_A (an array [n, 3] each) and, of a potential that learnt
        it, stress_eV_A3.
        """
        columns: dict[str, Sequence[Any]] = {"energy_eV": outputs["energy_eV"]}
        for name in ("forces_eV_A", "stress_eV_A3"):
            if name in outputs:
                columns[name] = [np.asarray(value, float) for value in outputs[name]]
        return columns

    def frame(self, records: Sequence[Record], meta: Mapping[str, Any]) -> "pd.DataFrame":
        """Return a row for each structure: formula, size, charge, level of theory, energy and
        largest force.
        """
        import pandas as pd

        names = (
            "name",
            "formula",
            "atoms",
            "charge",
            "spin",
            "level",
            "energy_eV",
            "max_force_eV_A",
        )
        return pd.DataFrame([_row(record) for record in records], columns=names)


def _with_energies(inputs: Sequence[Any], targets: "pd.DataFrame") -> list[Structure]:
    """Return the structures with the energies of the only target, in eV, and no other label."""
    if targets.shape[1] != 1:
        raise ConfigError(
            "a target of structures is one energy in eV; forces are set on each ase.Atoms"
        )
    structures = as_structures(inputs)
    if len(structures) != len(targets):
        raise ConfigError(
            f"there are {len(structures)} structures and {len(targets)} energies; give one for each"
        )
    energies = targets.iloc[:, 0].to_numpy(float)
    unlabelled = {"forces_eV_A_N3": None, "stress_eV_A3_6": None}
    return [
        replace(structure, energy_eV=float(energy), **unlabelled)
        for structure, energy in zip(structures, energies, strict=True)
    ]


def _row(record: Record) -> dict[str, Any]:
    from sciforge.structures.structure import formula

    row = {name: record[name] for name in ("name", "charge", "spin", "level", "energy_eV")}
    largest = np.linalg.norm(np.asarray(record["forces_eV_A"], float), axis=1).max()
    numbers = np.asarray(record["numbers"])
    return {**row, "formula": formula(numbers), "atoms": len(numbers), "max_force_eV_A": largest}
