"""What a potential learns without labels: to undo noise on the positions, and to name hidden
elements.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciforge.atoms.data.codec import AtomsCodec
from sciforge.atoms.model.potential import MASKED, NUM_ELEMENTS, Potential
from sciforge.atoms.objectives.energy_forces import EnergyForces
from sciforge.core.domain import Batch, Example, Loss, Objective, Record, widened
from sciforge.core.transfers import host_view, places
from sciforge.errors import ConfigError


@dataclass(frozen=True)
class Denoise(Objective):
    """Undo Gaussian noise on the positions (Zaidi et al. 2022, arXiv 2206.00133), label-free.

    The model's forces, in units of its scale, learn -noise / sigma: the score of the noised
    structures, which near relaxed geometries is the force field of springs. No head is needed, so
    all that is learnt is kept.

    Args:
        sigma_A: standard deviation of the noise.
        level: the readout that learns it; beside tasks with energies and forces, one that no level
            of theory has.
    """

    metric: ClassVar[str] = "loss"
    needs_grad: ClassVar[bool] = True

    sigma_A: float = 0.1
    level: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1e-4, 1.0, "sigma_A")
        self.require(0, 4095, "level")

    def alongside(self, objectives: Sequence[Objective]) -> Self:
        """Take a readout behind those of the levels of theory: a score is no force."""
        potentials = [o for o in objectives if isinstance(o, EnergyForces)]
        levels = {level for o in potentials for level in o.levels or dict(o.references)}
        return replace(self, level=max(len(levels), 1)) if potentials else self

    def attach(self, model: Potential) -> None:
        """Add nothing; raises ConfigError where the model has no such readout."""
        if self.level >= model.config.levels:
            raise ConfigError(
                f"the noise needs readout {self.level} beside the levels of theory, the model has"
                f" {model.config.levels}; pretrain with more model.levels"
            )

    def prepare(
        self, record: Record, codec: AtomsCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Displace the atoms; the mean displacement is nobody's force and is taken off."""
        noise = rng.normal(size=np.shape(record["pos_A"]))
        noise -= noise.mean(0)
        example = codec.encode(record, displaced_A=self.sigma_A * noise)
        example["forces_eV_A"] = torch.from_numpy(-noise)
        example["level"] = torch.tensor(self.level)
        return example

    def loss(self, model: Potential, batch: Batch) -> Loss:
        """Return the mean squared error of the unit noise, summed over structures."""
        found = model(batch)
        error_N3 = (found["forces_eV_A"] / model.scale_eV - batch["forces_eV_A"]).flatten(0, 1)
        per_B = torch.zeros(len(batch["size"]), dtype=error_N3.dtype, device=error_N3.device)
        per_B = per_B.index_add(0, batch["graph"], error_N3.square().sum(1)) / (3 * batch["size"])
        return Loss(per_B.sum(), torch.tensor(len(per_B)))


@dataclass(frozen=True)
class MaskedElements(Objective):
    """Name the hidden elements of a structure from where its atoms stand (as in Hu et al. 2020,
    arXiv 1905.12265).

    Args:
        share: probability that an atom is hidden; at least one always is.
    """

    metric: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    fresh: ClassVar[tuple[str, ...]] = ("element",)

    share: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0.01, 0.9, "share")

    def attach(self, model: Potential) -> None:
        """Add the classifier of elements, on the scalars of every block."""
        width = model.config.channels * model.config.blocks
        model.heads["element"] = nn.Linear(width, NUM_ELEMENTS)

    def prepare(
        self, record: Record, codec: AtomsCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Hide some elements."""
        example = codec.encode(record)
        size = len(example["number"])
        hidden = rng.random(size) < self.share
        hidden[rng.integers(size)] = True
        hidden_N = torch.from_numpy(hidden)
        example["target"] = torch.where(hidden_N, example["number"], 0)
        example["number"] = torch.where(hidden_N, MASKED, example["number"])
        # the label travels as a per-atom column, which collation lays out as it lays out forces
        example["forces_eV_A"] = example["target"][:, None].expand(-1, 3).double()
        return example

    def loss(self, model: Potential, batch: Batch) -> Loss:
        """Return the cross-entropy summed over hidden atoms."""
        _, scalars = model.features(batch)
        hidden = places(_hidden_elements(host_view(batch["forces_eV_A"])) > 0, scalars[0].device)
        target_M = _hidden_elements(batch["forces_eV_A"])[hidden]
        logits = widened(model.heads["element"](torch.cat(scalars, -1)[hidden]))
        total, count = (
            F.cross_entropy(logits, target_M, reduction="sum"),
            torch.tensor(len(target_M)),
        )
        return Loss(total, count, {"accuracy": ((logits.argmax(-1) == target_M).sum(), count)})


def _hidden_elements(target_BN3: Tensor) -> Tensor:
    """Return the element of each hidden atom [B N], 0 of others."""
    return target_BN3.flatten(0, 1)[:, 0].round().long()
