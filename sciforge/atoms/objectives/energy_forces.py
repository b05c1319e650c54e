"""What a potential learns from labels: energies, forces and stress."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.atoms.data.codec import AtomsCodec, joined_energy
from sciforge.atoms.model.potential import NUM_ELEMENTS, Potential
from sciforge.atoms.objectives.initialization import start_potential
from sciforge.core.domain import Batch, Example, Gaussian, Likelihood, Loss, Objective, Record
from sciforge.errors import ConfigError, DataError, did_you_mean

References = tuple[tuple[str, tuple[tuple[int, float], ...]], ...]


@dataclass(frozen=True)
class EnergyForces(Objective):
    """Energies, forces and stress, whichever of them each structure has.

    The loss of a structure is energy * (dE / N)^2 + forces * mean |dF|^2 + stress * mean (V dS /
    N)^2 in units of eV per atom, eV/angstrom and eV per atom, so that neither large structures nor
    small ones count more.

    Args:
        energy: weight of the squared energy error per atom.
        forces: weight of the mean squared force component.
        stress: weight of the mean squared component of the virial per atom; 0 leaves stress out.
        huber: errors beyond this (eV/angstrom for the force on an atom, eV for the energy per atom)
            count linearly, so that few violent structures do not rule the rest; 0 counts all
            squared.
        levels: names of the levels of theory, each with a readout of its own; empty for one level,
            whatever its name.
        energy_sigma_eV: standard deviation of the energy per atom in the likelihood behind the
            Fisher information.
        force_sigma_eV_A: of a force component.
        refit: fit reference energies to the training records at the start of fine-tuning, in closed
            form.
        guard: stop before training where the model explains less than this share of the forces'
            spread; 0 for no guard.
        references: energies of free atoms by level, from the prepared data.
    """

    metric: ClassVar[str] = "force_mae_meV_A"
    needs_grad: ClassVar[bool] = True

    energy: float = 0.1
    forces: float = 1.0
    stress: float = 0.0
    huber: float = 0.0
    levels: tuple[str, ...] = ()
    energy_sigma_eV: float = 0.005
    force_sigma_eV_A: float = 0.05
    refit: bool = True
    guard: float = 0.1
    references: References = field(default=())

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, float("inf"), "energy", "forces", "stress", "guard", "huber")
        for name in ("energy_sigma_eV", "force_sigma_eV_A"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"energyforces.{name} must be above 0")
        if not self.energy and not self.forces and not self.stress:
            raise ConfigError(
                "energyforces has all weights 0; give at least one of energy, forces, stress"
            )

    def resolve(self, store: Any) -> Self:
        """Take the reference energies of the store; raises where it has no labels or levels that
        are not named.
        """
        from ase.data import atomic_numbers

        found = store.meta["levels"]
        wanted = {"energies": self.energy, "forces": self.forces, "stresses": self.stress}
        if not any(store.meta[name] for name, weight in wanted.items() if weight):
            raise DataError(
                "no structure has a label that the objective learns; label the structures",
                store.path,
            )
        if not self.levels and len(found) > 1:
            raise ConfigError(
                f"{store.path} mixes levels of theory; give --levels {' '.join(found)}"
            )
        for name in found if self.levels else ():
            self.slot(name)
        references = tuple(
            (
                name,
                tuple(
                    sorted((atomic_numbers[s], float(e)) for s, e in fitted["energies_eV"].items())
                ),
            )
            for name, fitted in store.meta["reference"].items()
        )
        return replace(self, references=references)

    def alongside(self, objectives: Sequence[Objective]) -> Self:
        """Give the levels of theory of all tasks a readout each; raises where tasks number them
        differently.
        """
        potentials = [o for o in objectives if isinstance(o, EnergyForces)]
        named = [o.levels for o in potentials if o.levels]
        known = [tuple(level for level, _ in o.references) for o in potentials if not o.levels]
        levels = tuple(dict.fromkeys(level for part in (*named, *known) for level in part))
        for part in named:
            if part != levels[: len(part)]:
                raise ConfigError(
                    f"tasks number the levels of theory differently ({' '.join(named[0])}; "
                    f"{' '.join(part)}); give all the same levels"
                )
        return self if self.levels or len(levels) < 2 else replace(self, levels=levels)

    def slot(self, level: str) -> int:
        """Return which readout a level of theory has."""
        if not self.levels:
            return 0
        if level not in self.levels:
            raise ConfigError(
                f"level of theory {level!r} is not among the objective's; "
                f"{did_you_mean(level, self.levels)}"
            )
        return self.levels.index(level)

    def start(
        self,
        model: Potential,
        codec: AtomsCodec,
        records: Sequence[Record],
        engine: Any,
        seed: int,
        parent: Any,
    ) -> dict[str, Any]:
        """Set reference energies, and refuse labels that the pretrained model cannot be of
        (wrong units).
        """
        if len(self.levels) > model.config.levels:
            raise ConfigError(
                f"{len(self.levels)} levels of theory, the model has room for"
                f" {model.config.levels}; pretrain with more model.levels"
            )
        known = {self.slot(name): dict(pairs) for name, pairs in self.references}
        return start_potential(model, self, codec, records, engine, known, parent)

    def prepare(
        self, record: Record, codec: AtomsCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Return the graph and labels of a structure."""
        example = codec.encode(record)
        example["level"] = torch.tensor(self.slot(record.get("level", "")))
        return example

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the weighted squared errors summed over the structures that have any label."""
        found = model(batch, stress=self.stress > 0)
        size_B, graph_N = batch["size"], batch["graph"]
        energy_B = (found["energy_eV"] - joined_energy(batch["energy_eV"])) / size_B
        energy_B = torch.where(batch["energy_known"], energy_B, 0.0).to(found["forces_eV_A"].dtype)
        known_N = batch["forces_known"][graph_N]
        error_N3 = (found["forces_eV_A"] - batch["forces_eV_A"]).flatten(0, 1)
        error_N3 = torch.where(known_N[:, None], error_N3, 0.0)
        squared_N = self._softened(error_N3.square().sum(1))
        squared_B = squared_N.new_zeros(len(size_B)).index_add(0, graph_N, squared_N) / (3 * size_B)
        total = (self.energy * self._softened(energy_B.square()) + self.forces * squared_B).sum()
        labelled_B = batch["energy_known"] | batch["forces_known"]
        if self.stress:
            error_B6 = (found["stress_eV_A3"] - batch["stress_eV_A3"]) * (
                batch["volume_A3"] / size_B
            )[:, None]
            error_B6 = torch.where(batch["stress_known"][:, None], error_B6, 0.0)
            total = total + self.stress * error_B6.square().mean(1).sum()
            labelled_B = labelled_B | batch["stress_known"]
        components = 3 * (size_B * batch["forces_known"]).sum()
        parts = {
            "force_mae_meV_A": (1e3 * error_N3.detach().abs().sum(), components),
            "energy_mae_meV_atom": (
                1e3 * energy_B.detach().abs().sum(),
                batch["energy_known"].sum(),
            ),
        }
        return Loss(total, labelled_B.sum(), parts)

    def _softened(self, squared: Tensor) -> Tensor:
        """Return squared errors, those beyond `huber` growing linearly (pseudo-Huber, twice
        differentiable).
        """
        if not self.huber:
            return squared
        return 2 * self.huber**2 * ((1 + squared / self.huber**2).sqrt() - 1)

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return Gaussians of the energy per atom and of every force component; labels are
        needed by `empirical` only.
        """
        found = model(batch, create_graph=True)
        real_N = batch["number"].flatten() > 0
        forces = found["forces_eV_A"].flatten(0, 1)[real_N].flatten()
        energy = ((found["energy_eV"] - joined_energy(batch["energy_eV"])) / batch["size"]).to(
            forces.dtype
        )
        known_F = batch["forces_known"][batch["graph"]][real_N].repeat_interleave(3)
        target_F = torch.where(
            known_F, batch["forces_eV_A"].flatten(0, 1)[real_N].flatten(), forces.detach()
        )
        target_B = torch.where(batch["energy_known"], torch.zeros_like(energy), energy.detach())
        scales = [
            torch.full_like(energy, self.energy_sigma_eV),
            torch.full_like(forces, self.force_sigma_eV_A),
        ]
        return Gaussian(
            torch.cat([energy, forces]), torch.cat(scales), torch.cat([target_B, target_F]).detach()
        )

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor | list[Tensor]]:
        """Return total energies [B] in eV (float64) and the forces of each structure [n, 3] in
        eV/angstrom.
        """
        found = model(batch, stress=self.stress > 0)
        real_N = batch["number"].flatten() > 0
        forces = found["forces_eV_A"].detach().flatten(0, 1)[real_N].split(batch["size"].tolist())
        known = {"stress_eV_A3": found["stress_eV_A3"].detach()} if self.stress else {}
        return {"energy_eV": found["energy_eV"].detach(), "forces_eV_A": list(forces), **known}

    def metrics(
        self, outputs: Mapping[str, np.ndarray], records: Sequence[Record]
    ) -> dict[str, float]:
        """Return errors of forces (meV/angstrom), energy (meV/atom, also after the best
        references), stress (GPa).
        """
        return potential_metrics(outputs, records)


def potential_metrics(
    outputs: Mapping[str, np.ndarray], records: Sequence[Any]
) -> dict[str, float]:
    """Return the errors of energies, forces and stress over the records that have them; NaN where
    none has.

    `relative_energy_mae_meV_atom` is what is left after the best reference energies for these very
    records: the error of energy differences, which is what a change of the level of theory leaves
    to judge.
    """
    true_F = np.concatenate([np.asarray(f).reshape(-1) for f in records.column("forces_eV_A")])
    error_F = np.concatenate([np.asarray(f).reshape(-1) for f in outputs["forces_eV_A"]]) - true_F
    error_F = error_F[np.isfinite(error_F)]
    numbers = list(records.column("numbers"))
    sizes = np.array([len(z) for z in numbers])
    error_B = (outputs["energy_eV"] - np.asarray(records.column("energy_eV"), float)) / sizes
    kept = np.isfinite(error_B)
    metrics = {
        "force_mae_meV_A": 1e3 * _mean(np.abs(error_F)),
        "force_rmse_meV_A": 1e3 * _mean(error_F**2) ** 0.5,
        "energy_mae_meV_atom": 1e3 * _mean(np.abs(error_B[kept])),
    }
    if kept.any():
        shares = np.stack(
            [
                np.bincount(z, minlength=NUM_ELEMENTS) / len(z)
                for z, k in zip(numbers, kept, strict=True)
                if k
            ]
        )
        shares = shares[:, shares.any(0)]
        rest = error_B[kept] - shares @ np.linalg.lstsq(shares, error_B[kept], rcond=1e-6)[0]
        metrics["relative_energy_mae_meV_atom"] = 1e3 * _mean(np.abs(rest))
    if "stress_eV_A3" in outputs:
        error_S = outputs["stress_eV_A3"] - np.stack(list(records.column("stress_eV_A3")))
        metrics["stress_mae_GPa"] = 160.21766208 * _mean(np.abs(error_S[np.isfinite(error_S)]))
    return metrics


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
