"""A potential as an ASE calculator: relaxation, molecular dynamics, phonons, and whatever else ASE
can do.

What a step costs beyond the model is kept small: pairs are listed anew only when needed
(verlet_list.py), and the batch is made from them without a record in between. Legend: N atoms.
"""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators import calculator as ase_calculator
from ase.outputs import Properties, all_outputs
from torch import Tensor

from sciforge import catalog
from sciforge.atoms.data.codec import DENSE_ATOMS
from sciforge.atoms.model.potential import Potential, require_elements
from sciforge.atoms.objectives.energy_forces import EnergyForces
from sciforge.atoms.simulation.verlet_list import VerletList, all_pairs
from sciforge.core.training.model import Model
from sciforge.errors import CheckpointError, ConfigError, DataError, DivergedError, did_you_mean
from sciforge.structures.structure import Structure, require_physical

DTYPES = {"float32": torch.float32, "float64": torch.float64}
Source = str | Path | Model


@dataclass(frozen=True)
class Member:
    """One potential of a committee: its own frozen copy of the model, and which readout answers."""

    model: Potential
    slot: int


class Calculator(ase_calculator.Calculator):
    """Energies, forces and stress of a potential, or the mean of a committee of them.

    Properties: energy and free_energy (eV, with reference energies), energies (eV, of each atom,
    with its reference), forces (eV/angstrom; their sum is 0) and, where the structure repeats in
    three directions, stress (eV/angstrom^3, in ASE's order and sign). `results` of a committee also
    hold energy_std and forces_std [N, 3], the sample standard deviation over its members. Total
    charge and multiplicity are read from `atoms.info["charge"]` and `["spin"]`.

    Args:
        checkpoint: a checkpoint's folder or its name in the catalogue, or a Model; several make a
            committee.
        device: `auto`, `cpu` or `cuda`; a Model's weights are copied there too.
        dtype: of the arithmetic, `float32` or `float64`; energies are summed in float64 either way.
        skin_A: how much further than the cutoff pairs are listed, so that the list lasts for
            several steps.
        level: level of theory, for a potential with several.
        warn_fmax_eV_A: warn once where a force exceeds this, as it does far from all training data;
            0 for never.

    Raises:
        CheckpointError: a checkpoint is missing, damaged, of another domain or gives no energies.
        ConfigError: a setting is wrong or the level of theory is unknown.
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
    ]
    default_parameters: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        checkpoint: Source | Sequence[Source],
        device: str = "auto",
        dtype: str = "float32",
        skin_A: float = 1.0,
        level: str | None = None,
        warn_fmax_eV_A: float = 100.0,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ConfigError(f"dtype is {dtype!r}; {did_you_mean(dtype, DTYPES)}")
        if not 0 <= skin_A <= 10:
            raise ConfigError(f"skin_A is {skin_A}; it must be between 0 and 10 angstrom")
        sources = [checkpoint] if isinstance(checkpoint, Source) else list(checkpoint)
        if not sources:
            raise ConfigError("a committee without members; give at least one checkpoint")
        self.dtype, self.warn_fmax_eV_A = DTYPES[dtype], warn_fmax_eV_A
        opened = [_open(source, device) for source in sources]
        self.device = opened[0].device
        self.members = [_member(model, level, self.device, self.dtype) for model in opened]
        self.cutoff_A = max(member.model.cutoff_A for member in self.members)
        self.pairs = VerletList(self.cutoff_A, skin_A, self.device)
        self.evaluations = 0
        self._fixed: tuple[Any, dict[str, Tensor]] = (None, {})

    @property
    def rebuilds(self) -> int:
        """How often the neighbour list has been made."""
        return self.pairs.rebuilds

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what has changed since the last calculation, total charge and spin included; `tol`
        is not needed.

        ASE's own comparison within 1e-15 takes as long as making the batch, and does not look at
        the charge.
        """
        before = self.atoms
        if before is None:
            return list(ase_calculator.all_changes)
        same = {
            "positions": np.array_equal(before.positions, atoms.positions),
            "numbers": np.array_equal(before.numbers, atoms.numbers),
            "cell": np.array_equal(before.cell.array, atoms.cell.array),
            "pbc": np.array_equal(before.pbc, atoms.pbc),
            "info": _charge_and_spin(before) == _charge_and_spin(atoms),
        }
        return [name for name, equal in same.items() if not equal]

    def export_properties(self) -> Properties:
        """Return the results that ASE has names for."""
        return Properties(
            {name: value for name, value in self.results.items() if name in all_outputs}
        )

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(ase_calculator.all_changes),
    ) -> None:
        """Fill `results`.

        Raises:
            PropertyNotImplementedError: stress of a structure that does not repeat in three
                directions.
            DataError: the structure is not physical (no atoms, NaN, a flat cell, overlapping
                atoms).
            ConfigError: an element the potential was not trained on.
            DivergedError: the potential gives no finite numbers.
        """
        super().calculate(atoms, properties, system_changes)
        repeats = bool(self.atoms.pbc.all())
        if "stress" in properties and not repeats:
            raise ase_calculator.PropertyNotImplementedError(
                "stress is defined for structures periodic in three directions only; set the cell"
                " and pbc=True"
            )
        batch = self._batch(self.atoms)
        answers = [self._answer(member, batch, repeats) for member in self.members]
        self.evaluations += 1
        self.results = {name: np.mean([a[name] for a in answers], 0) for name in answers[0]}
        self.results["energy"] = self.results["free_energy"] = float(self.results["energy"])
        if len(answers) > 1:
            for name in ("energy", "forces"):
                self.results[f"{name}_std"] = np.std([a[name] for a in answers], 0, ddof=1)
        self._judge()

    def _judge(self) -> None:
        """Refuse numbers that are not finite; warn once of forces that no training data can have
        had.
        """
        forces = self.results["forces"]
        if not (np.isfinite(self.results["energy"]) and np.isfinite(forces).all()):
            self.results = {}
            raise DivergedError(
                "the potential gives no finite energy or forces here; look at the structure"
            )
        largest = np.sqrt((forces**2).sum(1).max())
        if 0 < self.warn_fmax_eV_A < largest:
            self.warn_fmax_eV_A = 0.0
            warnings.warn(
                f"the largest force is {largest:.0f} eV/angstrom; the structure is far from any"
                " training data",
                stacklevel=2,
            )

    def _batch(self, atoms: Atoms) -> dict[str, Tensor]:
        """Return the atoms as the codec's collation would, save for labels."""
        numbers, pos = atoms.numbers, atoms.positions
        cell, pbc = atoms.cell.array, atoms.pbc
        charge, spin = _charge_and_spin(atoms)
        key = (numbers.tobytes(), pbc.tobytes(), cell.tobytes(), charge, spin)
        if self._fixed[0] != key:
            require_physical(Structure(numbers, pos, cell, pbc, charge=charge, spin=spin))
            for member in self.members:
                require_elements(member.model, numbers)
            self._fixed = key, self._constants(numbers, cell, charge, spin)
        if not np.isfinite(pos).all():
            atom = int(np.argmin(np.isfinite(pos).all(1)))
            raise DataError(
                f"atom {atom + 1} has no finite position; take a shorter time step, or mend the"
                " structure"
            )
        if len(numbers) <= DENSE_ATOMS and not pbc.any():
            return {
                **self._fixed[1],
                "edge_A": all_pairs(pos, self.cutoff_A, self.dtype, self.device),
            }
        self.pairs.update(pos, cell, pbc)
        edge_A, sender = self.pairs.table(pos, cell, self.dtype)
        return {**self._fixed[1], "edge_A": edge_A, "sender": sender}

    def _constants(
        self, numbers: np.ndarray, cell: np.ndarray, charge: int, spin: int
    ) -> dict[str, Tensor]:
        """Return what stays from step to step: elements, volume, charge and spin."""
        held = {
            "number": torch.from_numpy(numbers.astype(np.int64))[None],
            "graph": torch.zeros(len(numbers), dtype=torch.int64),
            "size": torch.tensor([len(numbers)]),
            "volume_A3": torch.tensor([abs(np.linalg.det(cell)) or 1.0], dtype=torch.float64),
            "charge": torch.tensor([charge]),
            "spin": torch.tensor([spin]),
        }
        return {name: value.to(self.device) for name, value in held.items()}

    def _answer(self, member: Member, batch: dict[str, Tensor], stress: bool) -> dict[str, Any]:
        """Return one member's results in float64."""
        batch = {**batch, "level": torch.full_like(batch["charge"], member.slot)}
        found = member.model(batch, stress=stress, create_graph=False)
        reference = member.model.references_eV()[member.slot, batch["number"][0]]
        forces = found["forces_eV_A"][0].detach().double()
        results = {
            "energy": found["energy_eV"][0],
            "energies": found["atomic_eV"][0].double() + reference,
            # The sum of forces is 0 but for rounding, which would make a long trajectory drift.
            "forces": forces - forces.mean(0),
        }
        if stress:
            results["stress"] = found["stress_eV_A3"][0].double()
        return {name: value.detach().cpu().numpy() for name, value in results.items()}


def _charge_and_spin(atoms: Atoms) -> tuple[int, int]:
    """Return total charge and multiplicity; raises ConfigError where one is no whole number."""
    found = {name: atoms.info.get(name, usual) for name, usual in (("charge", 0), ("spin", 1))}
    for name, value in found.items():
        if not np.isscalar(value) or isinstance(value, str) or value != round(value):
            raise ConfigError(f"atoms.info[{name!r}] is {value!r}; give a whole number")
    return int(found["charge"]), int(found["spin"])


def _open(source: Source, device: str) -> Model:
    """Return a predictor of energies; raises CheckpointError where the checkpoint gives none."""
    if isinstance(source, Model):
        model = source
    else:
        model = Model.load(catalog.locate(source), device)
    where = model.checkpoint.path
    if not isinstance(model.network, Potential):
        raise CheckpointError(
            f"{where}: a checkpoint of the domain {model.domain.name}; give one of atoms"
        )
    if not isinstance(model.objective, EnergyForces):
        kind = type(model.objective).__name__
        raise CheckpointError(
            f"{where}: was trained for {kind}, which gives no energies; fine-tune it first"
        )
    return model


def _member(model: Model, level: str | None, device: torch.device, dtype: torch.dtype) -> Member:
    """Copy the model, so that a Model in use elsewhere keeps its precision and its gradients."""
    levels = model.objective.levels
    if level is None and len(levels) > 1:
        raise ConfigError(
            f"{model.checkpoint.path} knows several levels of theory; give level, "
            f"one of {', '.join(levels)}"
        )
    if level is not None and levels and level not in levels:
        raise ConfigError(f"level is {level!r}; {did_you_mean(level, levels)}")
    network = copy.deepcopy(model.network).to(device, dtype).eval().requires_grad_(False)
    return Member(network, levels.index(level) if level and levels else 0)
