"""How far a potential may be wrong: a committee, or the curvature it was trained with; and whether either is believable.

A committee's spread is the standard deviation over its members (Schran et al. 2020, doi 10.1063/5.0016004). The Laplace
approximation takes the weights as Gaussian about those trained, with precision count * Fisher + prior (diagonal; Daxberger
et al. 2021, arXiv 2106.14806), and the variance of an output as J diag(1 / precision) J^T. Both are relative until one
factor for energies and one for forces are fitted on structures with labels (reliability.py), since the training data of
one level of theory are not independent draws.

Legend: S structures, N atoms of a structure, 3 x y z, D features.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciforge.atoms.inference import predictions
from sciforge.atoms.inference.calibration import (
    Factors,
    Predictions,
    Reliability,
    fit_factors,
    plot_reliability,
    reliabilities,
)
from sciforge.atoms.inference.predictions import Frame, FromFiles, mean_features, need_potential, predicted, record_of
from sciforge.core.data.store import Store
from sciforge.core.files.output_files import about, write_whole
from sciforge.core.training.model import Model
from sciforge.errors import CheckpointError, ConfigError, DataError
from sciforge.structures.structure import Structure

FISHER = "fisher-exact.safetensors"
ROWS = 16  # outputs differentiated in one batched backward pass
APART = 1e-3  # picks nearer than this share of the spread of all features count as one structure


def _framed(structures: Sequence[Structure | Frame]) -> list[Frame]:
    where = Path("structures")
    return [s if isinstance(s, Frame) else Frame(where, n, s) for n, s in enumerate(structures, 1)]


@dataclass(frozen=True, eq=False)
class Committee:
    """Several potentials of one level of theory, trained from other seeds or on other subsets.

    Args:
        members: at least two; three to eight are usual.
        factors: of calibration, times the spreads.
        level: of theory, of potentials that know several.
    """

    members: tuple[Model, ...]
    factors: Factors = Factors()
    level: str = ""

    def __post_init__(self):
        if len(self.members) < 2:
            raise ConfigError("a committee of one has no spread; give another checkpoint with --members")
        names = [predictions.level_name(need_potential(member), self.level) for member in self.members]
        for member, name in zip(self.members, names, strict=True):
            if name != names[0]:
                other = f"{member.checkpoint.path} is of the level of theory {name!r}"
                raise ConfigError(f"{other}, the first member of {names[0]!r}; choose members of one level")

    @classmethod
    def load(cls, paths: Sequence[Path], device: str = "auto", batch: int = 64, level: str = "") -> "Committee":
        """Open checkpoints; raises CheckpointError where one is missing or damaged."""
        return cls(tuple(Model.load(Path(path), device, batch) for path in paths), level=level)

    def predict(self, structures: Sequence[Structure | Frame]) -> Predictions:
        """Return the mean over members and the sample standard deviation, times its factor; raises as `record_of`."""
        frames = _framed(structures)
        found = [[s for _, s in predicted(member, frames, self.level)] for member in self.members]
        energy_MS = np.array([[s.energy_eV for s in row] for row in found])
        sizes_S = np.array([len(frame.structure) for frame in frames])
        forces = [np.stack([s.forces_eV_A_N3 for s in same]) for same in zip(*found, strict=True)]
        sigma_S = energy_MS.std(0, ddof=1) / sizes_S
        spread = [f.std(0, ddof=1) for f in forces]
        return Predictions(energy_MS.mean(0), sigma_S, [f.mean(0) for f in forces], spread).scaled(self.factors)


@dataclass(frozen=True, eq=False)
class Laplace:
    """One potential with a Gaussian about its weights, from the Fisher information that its checkpoint holds.

    Args:
        predictor: the potential.
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
        cls, model: Model, count: int | None = None, prior: float = 1.0,
        weights: Literal["readout", "all"] = "readout", level: str = "",
    ) -> "Laplace":  # fmt: skip
        """Return the approximation about a checkpoint's weights.

        Args:
            predictor: of a potential for which `sciforge fisher` was run.
            count: training structures, by which the Fisher (a mean over structures) is multiplied; by default as recorded.
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
                f"{path}: holds no {FISHER}; run `sciforge fisher {path} --data STORE`, or give --members"
            )
        if not prior > 0:
            raise ConfigError(f"prior is {prior}; it must be above 0")
        count = count or _trained_on(model)
        fisher = model.checkpoint.weights(FISHER)
        variance = {}
        for name, parameter in model.network.named_parameters():
            if weights == "all" or name.startswith("readout."):
                if name not in fisher or fisher[name].shape != parameter.shape:
                    raise CheckpointError(f"{model.checkpoint.path}: the Fisher does not fit {name!r}; make it again")
                variance[name] = 1 / (count * fisher[name].to(parameter) + prior)
        return cls(model, variance, level=level)

    def predict(self, structures: Sequence[Structure | Frame]) -> Predictions:
        """Return the potential's own means and their standard deviations; one backward pass a force component.

        Raises:
            DataError, ConfigError: as `record_of`.
        """
        means, spreads = [], []
        for frame in tqdm(_framed(structures), "Laplace", unit="structure", disable=None, leave=False):
            batch = predictions.batch_of(self.model, [record_of(frame, self.model, self.level)])
            with torch.enable_grad():
                found = self.model.network(batch, create_graph=True)
            forces_F = found["forces_eV_A"].flatten(0, 1)[batch["number"].flatten() > 0].flatten()
            energy = found["atomic_eV"].sum()[None] / len(frame.structure)  # above the references, which are exact
            sigma_F = self._variance(torch.cat([energy, forces_F])).sqrt().cpu().numpy().astype(float)
            forces_N3 = forces_F.detach().cpu().numpy().astype(float).reshape(-1, 3)
            means.append((float(found["energy_eV"].detach()), forces_N3))
            spreads.append((sigma_F[0], sigma_F[1:].reshape(-1, 3)))
        energy_S, sigma_S = (np.array([pair[0] for pair in pairs]) for pairs in (means, spreads))
        return Predictions(energy_S, sigma_S, [m[1] for m in means], [s[1] for s in spreads]).scaled(self.factors)

    def _variance(self, output_F: Tensor) -> Tensor:
        """Return J diag(variance) J^T of each output."""
        known = dict(self.model.network.named_parameters())
        parameters = [known[name] for name in self.variance]
        eye_FF = torch.eye(len(output_F), dtype=output_F.dtype, device=output_F.device)
        parts = []
        for rows in eye_FF.split(ROWS):
            grads = torch.autograd.grad(
                output_F, parameters, rows, is_grads_batched=True, retain_graph=True, allow_unused=True
            )
            parts.append(sum(
                g.square().flatten(1) @ v.flatten()
                for g, v in zip(grads, self.variance.values(), strict=True) if g is not None
            ))  # fmt: skip
        return torch.cat(parts)


def _trained_on(model: Model) -> int:
    """Return how many structures the checkpoint was trained on."""
    run = model.checkpoint.run
    if run.subset is not None:
        return run.subset.count
    try:
        return len(model.objective.examples(Store.open(run.data, verify=False), "train"))
    except DataError:
        raise ConfigError(f"{run.data}, the training data, is not here; give their number with --count") from None


Method = Committee | Laplace


def calibrated(method: Method, structures: Sequence[Structure]) -> Method:
    """Return the method with its factors fitted by maximum likelihood to structures with labels (a validation split)."""
    return replace(method, factors=method.factors * fit_factors(method.predict(structures), structures))


def pick(score_S: np.ndarray, feature_SD: np.ndarray, top: int) -> list[int]:
    """Return up to `top` places, the most uncertain first, then greedily the largest score * distance to those picked.

    It is farthest-point sampling weighted by the score, so that of near-duplicates one is picked; fewer come back where
    nothing else is left.

    >>> pick(np.array([3.0, 2.9, 1.0]), np.array([[0.0], [0.0], [1.0]]), 3)
    [0, 2]
    """
    if not len(score_S):
        return []
    spread = float(np.sqrt(((feature_SD - feature_SD.mean(0)) ** 2).sum(1).mean()))
    chosen = [int(np.argmax(score_S))]
    far_S = np.full(len(score_S), np.inf)
    while len(chosen) < min(top, len(score_S)):
        far_S = np.minimum(far_S, np.linalg.norm(feature_SD - feature_SD[chosen[-1]], axis=1))
        worth_S = np.where(far_S > APART * spread, score_S * far_S, -1.0)
        if worth_S.max() < 0:
            break
        chosen.append(int(np.argmax(worth_S)))
    return chosen


@dataclass(frozen=True, kw_only=True)
class Uncertain(FromFiles):
    """The structures that a potential is least sure of, for labelling next (active learning), as extended XYZ.

    The score is the largest spread of a force among the atoms, of a committee with --members, else of the Laplace
    approximation (`sciforge fisher` first); near-duplicates are not picked twice. The predictions themselves are not
    written, lest they be taken for labels: only uncertainty (eV/angstrom), energy_sigma_eV_atom, rank and source, and
    the column force_sigma (eV/angstrom, norm of the spread of each atom's force).

    Args:
        files: extended XYZ, HDF5, JSON of mlearn, ASE's trajectories and databases, or what ASE reads.
        out: the file to write: .xyz or .extxyz (each also .gz).
        members: further checkpoints, which form a committee with this one.
        top: how many structures to pick.
        count: structures that the potential was trained on (Laplace); by default as its run recorded.
        weights: uncertain weights (Laplace): those of the readouts, or all.
        factor_energy: of calibration, times every spread of an energy.
        factor_forces: times every spread of a force; the order of the picks hangs on neither.
        labelled: files of frames with labels that were not trained on, in the order of their trajectory: both factors are
            fitted on the first half, and whether the spreads are then right is judged on the second.
        plot: picture (.png, .pdf, .svg) of the coverage before and after calibration on that second half; the factors and
            metrics go beside it as .json.
        units: of the files.
        level: level of theory to predict, of a potential that knows several; by default each structure's own.
        key_energy, key_forces, key_stress: names of the labels in the files; found where not given.
        key_charge, key_spin: names of total charge and multiplicity.
    """

    members: tuple[Path, ...] = ()
    top: int = 20
    count: int | None = None
    weights: Literal["readout", "all"] = "readout"
    factor_energy: float = 1.0
    factor_forces: float = 1.0
    labelled: tuple[Path, ...] = ()
    plot: Path | None = None

    def write(self, model: Model) -> Path:
        """Write the picked structures, the first pick first, and return their path."""
        self._check()
        method = self._calibrated(self._method(model), model)
        scores, features = [], []
        with tqdm(desc="uncertainty", unit="structure", disable=None, leave=False) as bar:
            for window in predictions.windows(self.frames(), model):
                scores.append(method.predict(window).score_S)
                features.append(mean_features(model, window, self.level))
                bar.update(len(window))
        chosen = pick(np.concatenate(scores), np.concatenate(features), self.top)
        held = {place: frame for place, frame in enumerate(self.frames()) if place in set(chosen)}
        texts = self._texts(method, [held[place] for place in chosen], about(self, model))
        return write_whole(self.out, lambda work: predictions.write_xyz(work, texts), self.files)

    def _check(self) -> None:
        predictions.need_ending(self.out, ".xyz", ".extxyz", ".xyz.gz", ".extxyz.gz")
        if self.top < 1:
            raise ConfigError(f"top is {self.top}; it must be at least 1")
        if min(self.factor_energy, self.factor_forces) <= 0:
            raise ConfigError("a factor of calibration is not above 0; give positive ones")
        if self.plot is not None:
            predictions.need_ending(self.plot, ".png", ".pdf", ".svg")
            if not self.labelled:
                raise ConfigError("a plot compares spreads with errors; give frames with labels by --labelled")

    def _calibrated(self, method: Method, model: Model) -> Method:
        """Return the method with factors of the labelled frames, and write the plot; as it is where there are none."""
        if not self.labelled:
            return method
        frames = list(replace(self, files=self.labelled).frames())
        half = len(frames) // 2
        if not half:
            raise ConfigError(f"{len(frames)} frame with labels cannot be halved; give at least 2 by --labelled")
        held = [frame.structure for frame in frames]
        found = method.predict(frames)
        factors = fit_factors(found.part(0, half), held[:half])
        made = replace(method, factors=method.factors * factors)
        if self.plot is not None:
            rest = found.part(half, len(frames))
            judged = {"as it comes": reliabilities(rest, held[half:])}
            judged["calibrated"] = reliabilities(rest.scaled(factors), held[half:])
            self._write_plot(made, judged, about(self, model))
        return made

    def _write_plot(self, method: Method, judged: Mapping[str, Mapping[str, Reliability]], source: Mapping) -> None:
        title = type(method).__name__
        plot_reliability(self.plot, {f"{title}, {name}": found for name, found in judged.items()}, self.labelled)
        metrics = {name: {kind: r.metrics() for kind, r in found.items()} for name, found in judged.items()}
        body = {"method": title, "factors": vars(method.factors), "metrics": metrics, "about": source}
        text = json.dumps(body, indent=1) + "\n"
        write_whole(
            Path(self.plot).with_suffix(".json"), lambda work: work.write_text(text, encoding="utf-8"), self.labelled
        )

    def _method(self, model: Model) -> Method:
        factors = Factors(self.factor_energy, self.factor_forces)
        if not self.members:
            found = Laplace.of(model, self.count, weights=self.weights, level=self.level)
            return replace(found, factors=factors)
        others = [Model.load(path, str(model.device), model.batch) for path in self.members]
        return Committee((model, *others), factors, self.level)

    def _texts(self, method: Method, frames: list[Frame], source: Mapping[str, Any]) -> Iterator[str]:
        found = method.predict(frames)
        model = {f"model_{name}": source[name] for name in ("checkpoint", "weights_sha256", "step")}
        for rank, frame in enumerate(frames):
            info = {
                "uncertainty": float(found.score_S[rank]),
                "rank": rank + 1,
                "source": f"{frame.file}#{frame.number}",
            }
            info["energy_sigma_eV_atom"] = float(found.energy_sigma_eV_atom_S[rank])
            info |= {"method": type(method).__name__, **model}
            sigma_N = np.linalg.norm(found.force_sigma_eV_A[rank], axis=1)
            yield predictions.xyz_text(frame.structure, info, {"force_sigma": sigma_N})
