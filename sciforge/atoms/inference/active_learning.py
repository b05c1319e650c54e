"""The structures that a potential is least sure of, for labelling next, and whether its
intervals are right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm.auto import tqdm

from sciforge.atoms.inference.batching import windows
from sciforge.atoms.inference.calibration import (
    Factors,
    Predictions,
    Reliability,
    draw_reliability,
    fit_factors,
    reliabilities,
)
from sciforge.atoms.inference.file_frames import FileFrame, FromFiles
from sciforge.atoms.inference.predictions import mean_features
from sciforge.atoms.inference.uncertainty import Committee, Laplace, Method
from sciforge.core.files.output_files import about, write_whole
from sciforge.core.files.results import Result, new_axes
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError
from sciforge.structures.extxyz import SUFFIXES, frame_text, write_texts
from sciforge.structures.structure import formula

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

APART = 1e-3  # picks nearer than this share of the width of all features count as one structure
PICTURES = (".png", ".pdf", ".svg")


def pick(score_S: np.ndarray, feature_SD: np.ndarray, top: int) -> list[int]:
    """Return up to `top` places, the most uncertain first, then greedily the largest score *
    distance to those picked.

    It is farthest-point sampling weighted by the score, so that of near-duplicates one is picked;
    fewer come back where nothing else is left.

    >>> pick(np.array([3.0, 2.9, 1.0]), np.array([[0.0], [0.0], [1.0]]), 3)
    [0, 2]
    """
    if not len(score_S):
        return []
    width = float(np.sqrt(((feature_SD - feature_SD.mean(0)) ** 2).sum(1).mean()))
    chosen = [int(np.argmax(score_S))]
    distance_S = np.full(len(score_S), np.inf)
    while len(chosen) < min(top, len(score_S)):
        distance_S = np.minimum(
            distance_S, np.linalg.norm(feature_SD - feature_SD[chosen[-1]], axis=1)
        )
        gain_S = np.where(distance_S > APART * width, score_S * distance_S, -1.0)
        if gain_S.max() < 0:
            break
        chosen.append(int(np.argmax(gain_S)))
    return chosen


@dataclass(frozen=True, kw_only=True)
class Uncertain(FromFiles):
    """The structures that a potential is least sure of, for labelling next (active learning).

    The score is the largest standard deviation of a force among the atoms, of a committee with
    --members, else of the Laplace approximation (`sciforge fisher` first); near-duplicates are not
    picked twice. Saved as .xyz or .extxyz (each also .gz), the predictions are not written, lest
    they be taken for labels: only uncertainty (eV/angstrom), energy_std_eV_atom, rank and source,
    and the column force_std (eV/angstrom, norm of the standard deviation of each atom's force).
    Also saved as a table (.csv, .tsv) or, with labelled frames, as a picture of the coverage (.png,
    .pdf, .svg).

    Args:
        members: further checkpoints, which form a committee with this one.
        top: how many structures to pick.
        count: structures that the potential was trained on (Laplace); by default as its run
            recorded.
        weights: uncertain weights (Laplace): those of the readouts, or all.
        factor_energy: of calibration, times every standard deviation of an energy.
        factor_forces: of calibration, times every standard deviation of a force; the order of the
            picks hangs on neither.
        labelled: files of frames with labels that were not trained on, in the order of their
            trajectory: both factors are fitted on the first half, and judged on the second.
    """

    members: tuple[Path, ...] = ()
    top: int = 20
    count: int | None = None
    weights: Literal["readout", "all"] = "readout"
    factor_energy: float = 1.0
    factor_forces: float = 1.0
    labelled: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, float("inf"), "top")
        if min(self.factor_energy, self.factor_forces) <= 0:
            raise ConfigError("a factor of calibration is not above 0; give positive ones")

    def run(self, model: Model) -> "PickedStructures":
        """Return the picked structures, the first pick first.

        Raises:
            DataError: a frame is bad; names file and frame.
            ConfigError: no potential, no labels to calibrate on, or members of several levels of
                theory.
            CheckpointError: the Laplace approximation needs the Fisher information first.
        """
        method, judged = self._calibrated(self._method(model))
        scores, features = [], []
        with tqdm(desc="uncertainty", unit="structure", disable=None, leave=False) as bar:
            for window in windows(self.frames(), model):
                scores.append(method.predict(window).score_S)
                features.append(mean_features(model, window, self.level))
                bar.update(len(window))
        chosen = pick(np.concatenate(scores), np.concatenate(features), self.top)
        wanted = set(chosen)
        by_place = {place: frame for place, frame in enumerate(self.frames()) if place in wanted}
        frames = [by_place[place] for place in chosen]
        return PickedStructures(
            frames,
            method.predict(frames),
            method,
            judged,
            about(self, model),
            (*self.files, *self.labelled),
        )

    def _method(self, model: Model) -> Method:
        factors = Factors(self.factor_energy, self.factor_forces)
        if not self.members:
            laplace = Laplace.of(model, self.count, weights=self.weights, level=self.level)
            return replace(laplace, factors=factors)
        others = [Model.load(path, str(model.device), model.batch) for path in self.members]
        return Committee((model, *others), factors, self.level)

    def _calibrated(self, method: Method) -> tuple[Method, dict[str, dict[str, Reliability]]]:
        """Return the method with factors of the labelled frames, and how it does on their second
        half without and with them.
        """
        if not self.labelled:
            return method, {}
        frames = list(replace(self, files=self.labelled).frames())
        half = len(frames) // 2
        if not half:
            raise ConfigError(
                f"{len(frames)} frame with labels cannot be halved; give at least 2 by --labelled"
            )
        structures = [frame.structure for frame in frames]
        predictions = method.predict(frames)
        factors = fit_factors(predictions.part(0, half), structures[:half])
        rest = predictions.part(half, len(frames))
        judged = {
            "uncalibrated": reliabilities(rest, structures[half:]),
            "calibrated": reliabilities(rest.scaled(factors), structures[half:]),
        }
        return replace(method, factors=method.factors * factors), judged


class PickedStructures(Result):
    """The structures that a potential is least sure of, the first pick first.

    Args:
        frames: the picked frames.
        predictions: of these frames.
        method: what gave the standard deviations.
        judged: `uncalibrated` and `calibrated` -> reliability of energy and forces; empty without
            labelled frames.
        about: where the picks come from.
        sources: files that must not be replaced.
    """

    def __init__(
        self,
        frames: Sequence[FileFrame],
        predictions: Predictions,
        method: Method,
        judged: Mapping[str, Mapping[str, Reliability]],
        about: dict[str, Any],
        sources: Sequence[Path] = (),
    ) -> None:
        self.frames, self.predictions, self.method = list(frames), predictions, method
        self.judged, self._about, self.sources = judged, about, tuple(sources)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def about(self) -> dict[str, Any]:
        """Where the picks come from, and with labelled frames the factors and metrics of
        calibration.
        """
        body: dict[str, Any] = {
            "method": type(self.method).__name__,
            "factors": vars(self.method.factors),
        }
        if self.judged:
            body["metrics"] = {
                name: {kind: r.metrics() for kind, r in by_kind.items()}
                for name, by_kind in self.judged.items()
            }
        return {**self._about, **body}

    def to_pandas(self) -> "pd.DataFrame":
        """Return a row for each pick: rank, file, frame, formula, uncertainty and
        energy_std_eV_atom.
        """
        import pandas as pd

        rows = [
            {
                "rank": rank,
                "file": str(frame.file),
                "frame": frame.number,
                "formula": formula(frame.structure.numbers_N),
                "uncertainty_eV_A": self.predictions.score_S[rank - 1],
                "energy_std_eV_atom": self.predictions.energy_std_eV_atom_S[rank - 1],
            }
            for rank, frame in enumerate(self.frames, 1)
        ]
        return pd.DataFrame(rows)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw observed against nominal coverage of the forces, on labelled frames.

        Raises:
            ConfigError: no frames with labels were given.
        """
        if not self.judged:
            raise ConfigError(
                "a plot compares standard deviations with errors; give frames with labels by"
                " --labelled"
            )
        kind = "forces" if "forces" in self.judged["calibrated"] else "energy"
        ax = new_axes(4.6, 4.8) if ax is None else ax
        title = type(self.method).__name__
        curves = {f"{title}, {name}": by_kind[kind] for name, by_kind in self.judged.items()}
        return draw_reliability(ax, curves, kind)

    def save(self, path: Path | str) -> Path:
        """Write the picks (.xyz, .extxyz, each also .gz), their table (.csv, .tsv) or the coverage
        (.png, .pdf, .svg).

        Raises:
            ConfigError: another suffix, a picture without labelled frames, or a file that was read.
            DataError: the disk is full or may not be written.
        """
        path = Path(path)
        if path.name.lower().endswith(SUFFIXES):
            write_texts(path, self._texts(), self.sources)
            return path
        if path.suffix.lower() not in PICTURES:
            return super().save(path)
        figure = self.plot().figure
        write_whole(
            path,
            lambda work: figure.savefig(work, format=path.suffix[1:].lower(), dpi=150),
            self.sources,
        )
        return path

    def _texts(self) -> list[str]:
        source = {
            f"model_{name}": self._about[name] for name in ("checkpoint", "weights_sha256", "step")
        }
        texts = []
        for place, frame in enumerate(self.frames):
            info = {
                "uncertainty": float(self.predictions.score_S[place]),
                "rank": place + 1,
                "source": f"{frame.file}#{frame.number}",
                "energy_std_eV_atom": float(self.predictions.energy_std_eV_atom_S[place]),
                "method": type(self.method).__name__,
            }
            std_N = np.linalg.norm(self.predictions.force_std_eV_A[place], axis=1)
            texts.append(frame_text(frame.structure, {**info, **source}, {"force_std": std_N}))
        return texts
