"""Energies, forces and stress of structures in files: a table, extended XYZ, or a plot against
labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from sciforge.atoms.inference.file_frames import FileFrame, FromFiles
from sciforge.atoms.inference.predictions import predicted
from sciforge.core.files.output_files import about
from sciforge.core.files.results import Result, new_axes
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError
from sciforge.structures.extxyz import FULL, SUFFIXES, frame_text, write_texts
from sciforge.structures.structure import Structure, formula

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms
    from matplotlib.axes import Axes

COLUMNS = (
    "file",
    "frame",
    "formula",
    "atoms",
    "energy_eV",
    "max_force_eV_A",
    "energy_error_meV_atom",
    "force_mae_meV_A",
)


@dataclass(frozen=True, kw_only=True)
class Energies(FromFiles):
    """Energies, forces and stress of structures.

    The table has file, frame, formula, atoms, energy_eV, max_force_eV_A and, where the structure
    has labels, energy_error_meV_atom (predicted less labelled) and force_mae_meV_A. Extended XYZ
    carries the predictions as energy, forces and stress; labels that the file had stay beside them
    as label_energy, label_forces and label_stress. Saved as .csv or .tsv, or as .xyz or .extxyz
    (each also .gz).

    Args:
        stress: also predict the stress (eV/angstrom^3, ASE's order and sign) of what is periodic in
            three directions.
    """

    stress: bool = False

    def run(self, model: Model) -> "PredictedStructures":
        """Return the predictions.

        Raises:
            DataError: a frame is bad; names file and frame.
            ConfigError: the checkpoint is no potential, or does not know an element or a level of
                theory.
        """
        pairs = predicted(model, self.frames(), self.level, self.stress)
        bar = tqdm(pairs, "energies", unit="structure", disable=None, leave=False)
        return PredictedStructures(list(bar), about(self, model), self.files)


class PredictedStructures(Result):
    """Structures beside what a potential says of them.

    Args:
        pairs: the frame as it was read, and its structure with the potential's labels.
        about: where the predictions come from.
        sources: files that must not be replaced.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[FileFrame, Structure]],
        about: dict[str, Any],
        sources: Sequence[Path] = (),
    ) -> None:
        self.pairs, self._about, self.sources = list(pairs), about, tuple(sources)

    @property
    def about(self) -> dict[str, Any]:
        """Where the predictions come from, as JSON values."""
        return self._about

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def structures(self) -> list[Structure]:
        """The structures with the potential's labels."""
        return [structure for _, structure in self.pairs]

    def to_atoms(self) -> "list[Atoms]":
        """Return ase.Atoms whose calculators hold the predictions."""
        from sciforge.structures.ase_atoms import labelled_atoms

        return [labelled_atoms(structure) for structure in self.structures]

    def to_pandas(self) -> "pd.DataFrame":
        """Return a row for each structure."""
        import pandas as pd

        return pd.DataFrame([_row(*pair) for pair in self.pairs], columns=list(COLUMNS))

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw predicted against labelled force components.

        Raises:
            ConfigError: no structure has forces to compare with.
        """
        pairs = [
            (frame.structure.forces_eV_A_N3.ravel(), structure.forces_eV_A_N3.ravel())
            for frame, structure in self.pairs
            if frame.structure.forces_eV_A_N3 is not None
        ]
        if not pairs:
            raise ConfigError("no structure has forces to compare with; use to_pandas()")
        true_F, predicted_F = (np.concatenate(values) for values in zip(*pairs, strict=True))
        ax = new_axes(4.6, 4.4) if ax is None else ax
        ends = [min(true_F.min(), predicted_F.min()), max(true_F.max(), predicted_F.max())]
        ax.plot(ends, ends, color="0.6", linewidth=1)
        ax.plot(true_F, predicted_F, ".", markersize=3, color="#0072B2")
        error = 1e3 * np.abs(predicted_F - true_F).mean()
        ax.set(xlabel="labelled force, eV/Å", ylabel="predicted force, eV/Å", aspect="equal")
        ax.set_title(f"{len(pairs)} structures: MAE {error:.0f} meV/Å", loc="left", fontsize=10)
        return ax

    def save(self, path: Path | str) -> Path:
        """Write a table (.csv, .tsv) or the structures (.xyz, .extxyz, each also .gz); return the
        path.

        Raises:
            ConfigError: another suffix, or the path is one of the files that were read.
            DataError: the disk is full or may not be written.
        """
        path = Path(path)
        if not path.name.lower().endswith(SUFFIXES):
            return super().save(path)
        names = ("checkpoint", "weights_sha256", "step")
        source = {f"model_{name}": self.about[name] for name in names}
        texts = (
            frame_text(structure, {**source, **_labels(frame)}, _label_columns(frame))
            for frame, structure in self.pairs
        )
        write_texts(path, texts, self.sources)
        return path


def _row(frame: FileFrame, structure: Structure) -> tuple[Any, ...]:
    true = frame.structure
    energy_error = force_error = np.nan
    if true.energy_eV is not None:
        energy_error = 1e3 * (structure.energy_eV - true.energy_eV) / len(structure)
    if true.forces_eV_A_N3 is not None:
        force_error = 1e3 * np.abs(structure.forces_eV_A_N3 - true.forces_eV_A_N3).mean()
    largest = float(np.linalg.norm(structure.forces_eV_A_N3, axis=1).max())
    head = (str(frame.file), frame.number, formula(structure.numbers_N), len(structure))
    return (*head, structure.energy_eV, largest, energy_error, force_error)


def _labels(frame: FileFrame) -> dict[str, Any]:
    """Return the labels of a frame under names that no reader takes for the prediction."""
    labels: dict[str, Any] = {"source": f"{frame.file}#{frame.number}"}
    if frame.structure.energy_eV is not None:
        labels["label_energy"] = float(frame.structure.energy_eV)
    if frame.structure.stress_eV_A3_6 is not None:
        labels["label_stress"] = np.asarray(frame.structure.stress_eV_A3_6, float)[FULL]
    if frame.structure.level:
        labels["label_level"] = frame.structure.level
    return labels


def _label_columns(frame: FileFrame) -> dict[str, np.ndarray]:
    forces = frame.structure.forces_eV_A_N3
    return {} if forces is None else {"label_forces": forces}
