"""What a molecule encoder learns without labels: computed descriptors, hidden atoms and bonds, or
both.

Legend of shape letters: B batch, N atoms, D width, P descriptors, M hidden atoms, E hidden bonds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import (
    Batch,
    Categorical,
    Example,
    Gaussian,
    Likelihood,
    Loss,
    Objective,
    Record,
    widened,
)
from sciforge.core.transfers import host_view, places
from sciforge.errors import ConfigError, DataError
from sciforge.molecules.chemistry.descriptors import descriptors_of_smiles
from sciforge.molecules.chemistry.valence import MAX_ORDER, TYPES
from sciforge.molecules.data.codec import MoleculeCodec
from sciforge.molecules.model.molecule_transformer import MAX_TYPES

HIDDEN_ATOM = MAX_TYPES - 1  # a row of the table of atom types that no atom has
HIDDEN_HYDROGENS = 8  # the last row of the table of hydrogens: no atom has so many
MAX_SPREADS = 6.0  # a target further out than this is taken for this
HEAD = "descriptors"
HIDDEN_UNITS = 256


class DescriptorHead(nn.Module):
    """Descriptors from the states of a molecule: of the molecule itself, the mean and the sum of
    its atoms.

    The sum is there because half of the descriptors grow with the molecule.
    """

    def __init__(self, width: int, outputs: int, hidden: int = HIDDEN_UNITS) -> None:
        super().__init__()
        self.inner = nn.Linear(3 * width, hidden)
        self.outer = nn.Linear(hidden, outputs)
        for linear in (self.inner, self.outer):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)

    def forward(self, pooled_BF: Tensor) -> Tensor:
        """Return [B, P], in units of std."""
        return self.outer(self.hidden(pooled_BF))

    def hidden(self, pooled_BF: Tensor) -> Tensor:
        """Return the hidden layer [B, H]."""
        return F.silu(self.inner(pooled_BF))


def pooled(x_BLD: Tensor, batch: Batch) -> Tensor:
    """Return the state of the molecule, the mean of its atoms and a tenth of their sum [B, 3 D];
    x_BLD as the net gives it.
    """
    real_BN1 = (batch["atom"] >= 0).unsqueeze(-1)
    sum_BD = (x_BLD[:, 1:] * real_BN1).sum(1)
    return torch.cat([x_BLD[:, 0], sum_BD / batch["num"][:, None], sum_BD / 10], -1)


@dataclass(frozen=True)
class PredictDescriptors(Objective):
    """Regression of RDKit's descriptors, each bent by an arcsinh and in units of its std over the
    pretraining set.

    Args:
        names: of the descriptors, in the order of the stored column; empty takes these and the
            scales from the data.
        centre, width: inside the arcsinh.
        mean, std: of the bent values; a std of 0 is not learnt.
    """

    names: tuple[str, ...] = ()
    centre: tuple[float, ...] = ()
    width: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    metric: ClassVar[str] = "explained"
    higher_is_better: ClassVar[bool] = True

    def resolve(self, store: Any) -> Self:
        """Take names and scales from the store; raises DataError where it holds no descriptors."""
        statistics = store.meta.get("descriptors")
        if statistics is None:
            raise DataError(
                "no descriptors in this store; prepare it with --descriptors", store.path
            )
        if self.names:
            if list(self.names) != statistics["names"]:
                raise DataError(
                    "its descriptors are of another RDKit release than the checkpoint's", store.path
                )
            return self
        return replace(self, **{name: tuple(column) for name, column in statistics.items()})

    def attach(self, model: nn.Module) -> None:
        """Add the descriptor head, unless another objective that reads it was first."""
        if HEAD not in model.heads or model.heads[HEAD].outer.out_features != len(self.names):
            model.heads[HEAD] = DescriptorHead(model.width, len(self.names))

    def bend(self, values_NP: Tensor) -> Tensor:
        """Return descriptors in units of std [N, P], clipped; NaN where unknown, 0 where not
        learnt.
        """
        centre, width, mean, std = _rows(
            (self.centre, self.width, self.mean, self.std), values_NP.device
        )
        bent_NP = (torch.asinh((values_NP - centre) / width) - mean) / torch.where(
            std > 0, std, 1.0
        )
        bent_NP = bent_NP.clamp(-MAX_SPREADS, MAX_SPREADS).masked_fill(
            ~values_NP.isfinite(), torch.nan
        )
        return torch.where(std > 0, bent_NP, 0.0)

    def unbend(self, bent_NP: Tensor) -> Tensor:
        """Return descriptors in their own units from units of std."""
        centre, width, mean, std = _rows(
            (self.centre, self.width, self.mean, self.std), bent_NP.device
        )
        return torch.sinh(bent_NP * std + mean) * width + centre

    def prepare(
        self, record: Record, codec: MoleculeCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode a molecule and its descriptors, computed here where they are not stored."""
        example = codec.encode(record)
        if "descriptor" in record or "smiles" in record:
            example["target_descriptors"] = torch.from_numpy(
                np.array(descriptors_of(record), np.float32)
            )
        return example

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return half the squared error summed over molecules, the mean over the descriptors
        learnt.
        """
        total = self.regression(
            self.predicted_descriptors(model, batch), self.bend(batch["target_descriptors"])
        )
        return Loss(total, torch.tensor(len(batch["num"])))

    def regression(self, predicted_BP: Tensor, target_BP: Tensor) -> Tensor:
        """Return half the squared error summed over molecules, each the mean over the
        descriptors learnt.
        """
        (std_P,) = _rows((self.std,), target_BP.device)
        learnt_P = std_P > 0
        error_BP = torch.where(
            target_BP.isfinite() & learnt_P, predicted_BP - target_BP.nan_to_num(), 0.0
        )
        return 0.5 * (error_BP**2).sum() / learnt_P.sum()

    def predicted_descriptors(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return what the net says of the descriptors, in units of std [B, P]."""
        return widened(model.heads[HEAD](pooled(model(batch), batch)))

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return a Gaussian of unit std about each descriptor that is known."""
        predicted_BP, target_BP = (
            self.predicted_descriptors(model, batch),
            self.bend(batch["target_descriptors"]),
        )
        (std_P,) = _rows((self.std,), target_BP.device)
        known_BP = target_BP.isfinite() & (std_P > 0)
        return Gaussian(
            predicted_BP[known_BP], torch.ones_like(predicted_BP[known_BP]), target_BP[known_BP]
        )

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the descriptors in units of std [B, P]; `unbend` gives their own units."""
        return {"descriptors": self.predicted_descriptors(model, batch)}

    def metrics(
        self, outputs: Mapping[str, np.ndarray], records: Sequence[Record]
    ) -> dict[str, float]:
        """Return the share of the variance explained: the mean and the median over the
        descriptors that vary here.
        """
        raw_NP = np.stack([descriptors_of(record) for record in records]).astype(np.float32)
        target_NP = self.bend(torch.from_numpy(raw_NP)).double().numpy()
        missing = ~np.isfinite(target_NP)
        target_NP[missing] = outputs["descriptors"][missing]
        variance_P = target_NP.var(0)
        vary = variance_P > 1e-6
        explained = (
            1 - ((outputs["descriptors"] - target_NP)[:, vary] ** 2).mean(0) / variance_P[vary]
        )
        return {
            "explained": float(np.clip(explained, -1, 1).mean()),
            "explained_median": float(np.median(explained)),
        }


@lru_cache(64)
def _rows(columns: tuple[tuple[float, ...], ...], device: torch.device) -> tuple[Tensor, ...]:
    """Return tuples as float32 tensors; remembered, for a loss asks for the same ones every
    step.
    """
    return tuple(torch.tensor(column, dtype=torch.float32, device=device) for column in columns)


def descriptors_of(record: Record) -> np.ndarray:
    """Return the descriptors of a record [P], stored or computed from its SMILES."""
    if "descriptor" in record:
        return np.asarray(record["descriptor"])
    return descriptors_of_smiles(record["smiles"])


class MaskedHead(nn.Module):
    """The type and hydrogens of a hidden atom from its state, the order of a hidden bond from
    those of its ends.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.atom = nn.Linear(width, len(TYPES))
        self.hydrogens = nn.Linear(width, HIDDEN_HYDROGENS)
        self.bond = nn.Linear(width, MAX_ORDER)
        for linear in (self.atom, self.hydrogens, self.bond):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)


@dataclass(frozen=True)
class MaskedAtoms(Objective):
    """Hidden atoms and bonds are guessed from the rest of the molecule.

    A hidden atom loses its type, hydrogens, aromaticity and ring size; so do the ends of a hidden
    bond, which is shown as a single bond whatever its order. Only degrees, and the orders of bonds
    not hidden, are left to tell.

    Args:
        mask_rate: share of the atoms, and of the bonds, that are hidden; one of each at least.
    """

    mask_rate: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_rate < 1:
            raise ConfigError(f"mask_rate is {self.mask_rate}; it must lie between 0 and 1")

    def attach(self, model: nn.Module) -> None:
        """Add the head that guesses."""
        model.heads["masked"] = MaskedHead(model.width)

    def prepare(
        self, record: Record, codec: MoleculeCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode a molecule and hide some of it."""
        return hide(codec.encode(record), self.mask_rate, rng)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the cross-entropies of hidden atoms (type and hydrogens) and bonds, summed;
        counted are both.
        """
        logits = self._logits(model, batch)
        sums = [F.cross_entropy(predicted, target, reduction="sum") for predicted, target in logits]
        atoms, bonds = len(logits[0][1]), len(logits[2][1])
        right = (logits[0][0].argmax(-1) == logits[0][1]).sum()
        parts = {"accuracy": (right, torch.tensor(atoms))}
        return Loss(sum(sums), torch.tensor(atoms + bonds), parts)

    def _logits(self, model: nn.Module, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Return (logits, targets) of the types, the hydrogens and the bonds hidden."""
        return guesses(model, batch, model(batch)[:, 1:])

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return the distribution over the types of the hidden atoms."""
        return Categorical(*self._logits(model, batch)[0])


def hide(example: Example, rate: float, rng: np.random.Generator) -> Example:
    """Return the example with atoms and bonds hidden, and what they were.

    `target_atom` and `target_hydrogens` [N] are -1 where an atom is shown, `target_bond` [E, 3] are
    the bonds hidden.
    """
    num, bond = len(example["atom"]), example["bond"].clone()
    hidden = np.zeros(num, bool)
    hidden[rng.choice(num, max(1, round(rate * num)), replace=False)] = True
    chosen = (
        rng.choice(len(bond), max(1, round(rate * len(bond))), replace=False)
        if len(bond)
        else np.zeros(0, int)
    )
    target_bond = bond[chosen].clone()
    bond[chosen, 2] = 1
    blind = hidden.copy()
    blind[target_bond[:, :2].flatten().numpy()] = True
    shown = {name: example[name].clone() for name in ("atom", "hydrogens", "flags")}
    shown["atom"][hidden] = HIDDEN_ATOM
    shown["hydrogens"][blind], shown["flags"][blind] = HIDDEN_HYDROGENS, 0
    seen = torch.from_numpy(~hidden)
    targets = {"target_atom": example["atom"].masked_fill(seen, -1)}
    targets["target_hydrogens"] = (
        example["hydrogens"].clamp(max=HIDDEN_HYDROGENS - 1).masked_fill(seen, -1)
    )
    return {**shown, "bond": bond, **targets, "target_bond": target_bond}


def guesses(model: nn.Module, batch: Batch, x_BND: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return (logits, targets) of types [M, T] and hydrogens [M, 8] of hidden atoms and orders
    [E, 3] of hidden bonds.
    """
    head, hidden = model.heads["masked"], places(host_view(batch["target_atom"]) >= 0, x_BND.device)
    x_MD = x_BND[hidden]
    row_E, i_E, j_E = places(host_view(batch["target_bond"]).triu(), x_BND.device)
    ends_ED = x_BND[row_E, i_E] + x_BND[row_E, j_E]
    return [
        (widened(head.atom(x_MD)), batch["target_atom"][hidden]),
        (widened(head.hydrogens(x_MD)), batch["target_hydrogens"][hidden]),
        (widened(head.bond(ends_ED)), batch["target_bond"][row_E, i_E, j_E] - 1),
    ]


@dataclass(frozen=True)
class DescriptorsAndMasked(PredictDescriptors):
    """Descriptors of whole molecules, and hidden atoms and bonds of others: each molecule is, each
    time, one of the two.

    A molecule with holes has no one set of descriptors, so the two are not asked of one reading.

    Args:
        names, centre, width, mean, std: as for PredictDescriptors.
        masked_share: of the molecules of which parts are hidden.
        mask_rate: as for MaskedAtoms.
        weight: of a nat of the guesses against half a squared std of the descriptors.
    """

    masked_share: float = 0.3
    mask_rate: float = 0.15
    weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.masked_share < 1 and 0 < self.mask_rate < 1 and self.weight >= 0):
            raise ConfigError(
                "masked_share and mask_rate must lie between 0 and 1, weight must not be negative"
            )

    def attach(self, model: nn.Module) -> None:
        """Add the heads of both."""
        super().attach(model)
        model.heads["masked"] = MaskedHead(model.width)

    def prepare(
        self, record: Record, codec: MoleculeCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode a molecule; in training some have holes and no descriptors."""
        example = super().prepare(record, codec, rng, training)
        if training and rng.random() < self.masked_share:
            blind = torch.full_like(example["target_descriptors"], torch.nan)
            return {**hide(example, self.mask_rate, rng), "target_descriptors": blind}
        none = torch.full_like(example["atom"], -1)
        return {
            **example,
            "target_atom": none,
            "target_hydrogens": none,
            "target_bond": example["bond"][:0],
        }

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the sum of both losses over molecules; the guesses of a molecule are averaged,
        as its descriptors are.
        """
        x_BLD = model(batch)
        regression = self.regression(
            widened(model.heads[HEAD](pooled(x_BLD, batch))), self.bend(batch["target_descriptors"])
        )
        logits = guesses(model, batch, x_BLD[:, 1:])
        nats = sum(
            F.cross_entropy(predicted, target, reduction="sum") for predicted, target in logits
        )
        guessed = torch.tensor(max(len(logits[0][1]) + len(logits[2][1]), 1))
        holes = (batch["target_atom"] >= 0).any(1).sum()
        total = regression + self.weight * nats * holes / guessed
        parts = {"descriptors": (regression, len(x_BLD) - holes), "masked": (nats, guessed)}
        return Loss(total, torch.tensor(len(x_BLD)), parts)
