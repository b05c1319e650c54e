"""How far a potential may be wrong: a committee, or the curvature it was trained with; and whether
either is believable.

A committee's spread is the standard deviation over its members (Schran et al. 2020, doi
10.1063/5.0016004). The Laplace approximation takes the weights as Gaussian about those trained,
with precision count * Fisher + prior (diagonal; Daxberger et al. 2021, arXiv 2106.14806), and the
variance of an output as J diag(1 / precision) J^T. Both are relative until one factor for energies
and one for forces are fitted on structures with labels (reliability.py), since the training data of
one level of theory are not independent draws.

Legend: S structures, N atoms of a structure, 3 x y z, D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciforge.atoms.inference.batching import batch_of
from sciforge.atoms.inference.calibration import Factors, Predictions, fit_factors
from sciforge.atoms.inference.file_frames import FileFrame
from sciforge.atoms.inference.predictions import level_name, need_potential, predicted, record_of
from sciforge.core.data.store import Store
from sciforge.core.training.model import Model
from sciforge.errors import CheckpointError, ConfigError, DataError
from sciforge.structures.structure import Structure

FISHER = "fisher-exact.safetensors"
ROWS = 16  # outputs differentiated in one batched backward pass
APART = 1e-3  # picks nearer than this share of the spread of all features count as one structure


def _framed(structures: Sequence[Structure | FileFrame]) -> list[FileFrame]:
    where = Path("structures")
    return [
        s if isinstance(s, FileFrame) else FileFrame(where, n, s)
        for n, s in enumerate(structures, 1)
    ]


@dataclass(frozen=True, eq=False)
class Committee:
    """Several potentials of one level of theory, trained from other seeds or on other subsets.

    Args:
        members: at least two; three to eight are usual.
        factors: of calibration, times the standard deviations.
        level: of theory, of potentials that know several.
    """

    members: tuple[Model, ...]
    factors: Factors = Factors()
    level: str = ""

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ConfigError(
                "a committee of one has no standard deviation; give another checkpoint with"
                " --members"
            )
        names = [level_name(need_potential(member), self.level) for member in self.members]
        for member, name in zip(self.members, names, strict=True):
            if name != names[0]:
                other = f"{member.checkpoint.path} is of the level of theory {name!r}"
                raise ConfigError(
                    f"{other}, the first member of {names[0]!r}; choose members of one level"
                )

    @classmethod
    def load(
        cls, paths: Sequence[Path], device: str = "auto", batch: int = 64, level: str = ""
    ) -> "Committee":
        """Open checkpoints; raises CheckpointError where one is missing or damaged."""
        return cls(tuple(Model.load(Path(path), device, batch) for path in paths), level=level)

    def predict(self, structures: Sequence[Structure | FileFrame]) -> Predictions:
        """Return the mean over members and the sample standard deviation, times its factor;
        raises as `record_of`.
        """
        frames = _framed(structures)
        by_member = [[s for _, s in predicted(m, frames, self.level)] for m in self.members]
        energy_MS = np.array([[s.energy_eV for s in structures] for structures in by_member])
        sizes_S = np.array([len(frame.structure) for frame in frames])
        forces = [
            np.stack([s.forces_eV_A_N3 for s in same]) for same in zip(*by_member, strict=True)
        ]
        energy_std_S = energy_MS.std(0, ddof=1) / sizes_S
        means, stds = [f.mean(0) for f in forces], [f.std(0, ddof=1) for f in forces]
        return Predictions(energy_MS.mean(0), energy_std_S, means, stds).scaled(self.factors)


@dataclass(frozen=True, eq=False)
class Laplace:
    """One potential with a Gaussian about its weights, from the Fisher information that its
    checkpoint holds.

    Args:
        model: the potential.
        variance: posterior variance of every weight that counts as uncertain.
        factors: of calibration, times the standard deviations.
        level: of theory, of a potential that knows several.
    """

    model: Model
    variance: Mapping[str, Tensor]
    factors: Factors = Factors()
    level: str = ""

    @classmethod
    def of(
        cls,
        model: Model,
        count: int | None = None,
        prior: float = 1.0,
        weights: Literal["readout", "all"] = "readout",
        level: str = "",
    ) -> "Laplace":
        """Return the approximation about a checkpoint's weights.

        Args:
            model: a potential for which `sciforge fisher` was run.
            count: training structures, by which the Fisher (a mean over structures) is multiplied;
                by default as recorded.
            prior: precision of every weight without data.
            weights: uncertain weights: the readouts only, or all.
            level: of theory.

        Raises:
            CheckpointError: the checkpoint holds no Fisher information, or that of another model.
            ConfigError: no potential, or the number of training structures is not known.
        """
        need_potential(model)
        if FISHER not in model.checkpoint.body["files"]:
            path = model.checkpoint.path
            raise CheckpointError(
                f"{path}: holds no {FISHER}; run `sciforge fisher {path} --data STORE`, or give"
                " --members"
            )
        if not prior > 0:
            raise ConfigError(f"prior is {prior}; it must be above 0")
        count = count or _trained_on(model)
        fisher = model.checkpoint.weights(FISHER)
        variance = {}
        for name, parameter in model.network.named_parameters():
            if weights == "all" or name.startswith("readout."):
                if name not in fisher or fisher[name].shape != parameter.shape:
                    raise CheckpointError(
                        f"{model.checkpoint.path}: the Fisher does not fit {name!r}; make it again"
                    )
                variance[name] = 1 / (count * fisher[name].to(parameter) + prior)
        return cls(model, variance, level=level)

    def predict(self, structures: Sequence[Structure | FileFrame]) -> Predictions:
        """Return the potential's own means and their standard deviations; one backward pass a force
        component.

        Raises:
            DataError, ConfigError: as `record_of`.
        """
        means, stds = [], []
        for frame in tqdm(
            _framed(structures), "Laplace", unit="structure", disable=None, leave=False
        ):
            batch = batch_of(self.model, [record_of(frame, self.model, self.level)])
            with torch.enable_grad():
                outputs = self.model.network(batch, create_graph=True)
            forces_F = outputs["forces_eV_A"].flatten(0, 1)[batch["number"].flatten() > 0].flatten()
            # above the references, which are exact
            energy = outputs["atomic_eV"].sum()[None] / len(frame.structure)
            sigma_F = (
                self._variance(torch.cat([energy, forces_F])).sqrt().cpu().numpy().astype(float)
            )
            forces_N3 = forces_F.detach().cpu().numpy().astype(float).reshape(-1, 3)
            means.append((float(outputs["energy_eV"].detach()), forces_N3))
            stds.append((sigma_F[0], sigma_F[1:].reshape(-1, 3)))
        energy_S, sigma_S = (np.array([pair[0] for pair in pairs]) for pairs in (means, stds))
        return Predictions(energy_S, sigma_S, [m[1] for m in means], [s[1] for s in stds]).scaled(
            self.factors
        )

    def _variance(self, output_F: Tensor) -> Tensor:
        """Return J diag(variance) J^T of each output."""
        known = dict(self.model.network.named_parameters())
        parameters = [known[name] for name in self.variance]
        eye_FF = torch.eye(len(output_F), dtype=output_F.dtype, device=output_F.device)
        parts = []
        for rows in eye_FF.split(ROWS):
            grads = torch.autograd.grad(
                output_F,
                parameters,
                rows,
                is_grads_batched=True,
                retain_graph=True,
                allow_unused=True,
            )
            parts.append(
                sum(
                    g.square().flatten(1) @ v.flatten()
                    for g, v in zip(grads, self.variance.values(), strict=True)
                    if g is not None
                )
            )
        return torch.cat(parts)


def _trained_on(model: Model) -> int:
    """Return how many structures the checkpoint was trained on."""
    run = model.checkpoint.run
    if run.subset is not None:
        return run.subset.count
    try:
        return len(model.objective.examples(Store.open(run.data, verify=False), "train"))
    except DataError:
        raise ConfigError(
            f"{run.data}, the training data, is not here; give their number with --count"
        ) from None


Method = Committee | Laplace


def calibrated(method: Method, structures: Sequence[Structure]) -> Method:
    """Return the method with its factors fitted by maximum likelihood to structures with labels
    (a validation split).
    """
    return replace(
        method, factors=method.factors * fit_factors(method.predict(structures), structures)
    )
