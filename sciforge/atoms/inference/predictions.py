"""What a potential says of the structures in files: energies, forces and stress (uncertainty.py and export.py hold the rest).

Legend: N atoms, 6 Voigt components xx yy zz yz xz xy. Units: eV, angstrom, eV/angstrom, eV/angstrom^3.
"""

import csv
import gzip
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciforge.atoms.model.potential import require_elements
from sciforge.atoms.objectives.energy_forces import EnergyForces
from sciforge.core.data import sampling
from sciforge.core.domain import Batch, Record
from sciforge.core.files.output_files import about, provenance, write_whole
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.structures.file_labels import Keys
from sciforge.structures.readers import _xyz_text, read_frames
from sciforge.structures.structure import Structure

EDGES = 100_000  # pairs in one batch; 100,000 of 64 channels take about 1 GB with their gradients
WINDOW = 16  # batches sorted by size together, so that like goes with like
VOIGT = [0, 5, 4, 5, 1, 3, 4, 3, 2]  # six components to nine


@dataclass(frozen=True, eq=False)
class Frame:
    """A structure and where it stands: the file, and its place in it from 1."""

    file: Path
    number: int
    structure: Structure

    @property
    def where(self) -> str:
        """The place, for messages."""
        return f"{self.file}: frame {self.number}: "


@dataclass(frozen=True, kw_only=True)
class FromFiles:
    """The options of an output that reads structures; see `Energies` for their meaning."""

    files: tuple[Path, ...]
    out: Path
    units: str = "eV angstrom"
    level: str = ""
    key_energy: str = ""
    key_forces: str = ""
    key_stress: str = ""
    key_charge: str = ""
    key_spin: str = ""

    def frames(self) -> Iterator[Frame]:
        """Yield the structures of all files, one at a time; raises DataError naming file and frame at the first bad one."""
        keys = Keys(self.key_energy, self.key_forces, self.key_stress, self.key_charge, self.key_spin)
        if not self.files:
            raise ConfigError("no file of structures; give at least one")
        for file in map(Path, self.files):
            for number, structure in read_frames(file, self.units, keys):
                if isinstance(structure, DataError):
                    raise structure
                yield Frame(file, number, structure)


def structure_of(record: Record) -> Structure:
    """Return a stored record as a structure, labels that are NaN left out."""
    energy, forces = float(record["energy_eV"]), np.asarray(record["forces_eV_A"], float)
    return Structure(
        np.asarray(record["numbers"], np.int64), np.asarray(record["pos_A"], float), np.asarray(record["cell_A"], float),
        np.asarray(record["pbc"], bool), energy_eV=energy if np.isfinite(energy) else None,
        forces_eV_A_N3=forces if np.isfinite(forces).all() else None, charge=int(record["charge"]),
        spin=int(record["spin"]), level=str(record["level"]), name=str(record["name"]),
    )  # fmt: skip


def need_potential(model: Model) -> EnergyForces:
    """Return the objective of a potential; raises ConfigError for a checkpoint that learnt no energies."""
    if not isinstance(model.objective, EnergyForces):
        kind = type(model.objective).__name__
        raise ConfigError(f"{model.checkpoint.path} was trained for {kind}, not for energies; fine-tune it first")
    return model.objective


def need_level(objective: EnergyForces, level: str, where: str) -> None:
    """Raise ConfigError where a potential of several levels of theory has none of that name."""
    if objective.levels and level not in objective.levels:
        hint = did_you_mean(level, objective.levels)
        raise ConfigError(f"{where}level of theory {level!r} is none of the potential's; {hint}; give it with --level")


def level_name(objective: EnergyForces, asked: str) -> str:
    """Return the level of theory that a potential's predictions have, "" where its training data named none."""
    return asked if objective.levels else objective.references[0][0] if len(objective.references) == 1 else ""


def record_of(frame: Frame, model: Model, level: str = "") -> dict[str, Any]:
    """Return the record of a frame at a level of theory ("" keeps the structure's own).

    Raises:
        DataError: atoms without finite positions, overlapping atoms, no element; names file and frame.
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


def batch_of(model: Model, records: Iterable[Record]) -> Batch:
    """Return the collated batch of records on the model's device, in the model's precision."""
    rng = sampling.generator(0, sampling.EVALUATE, 0, 0)  # nothing is drawn from it: energies are learnt as they are
    examples = [model.objective.prepare(record, model.codec, rng, training=False) for record in records]
    place = model.network.scale_eV
    batch = model.codec.collate(examples)
    return {k: v.to(place) if v.is_floating_point() else v.to(place.device) for k, v in batch.items()}


def windows(frames: Iterable[Frame], model: Model) -> Iterator[list[Frame]]:
    """Yield lists of frames, each worth a few batches."""
    waiting = iter(frames)
    while window := list(islice(waiting, WINDOW * model.batch)):
        yield window


def in_batches(records: Sequence[Record], most: int) -> Iterator[list[int]]:
    """Yield places of records of like size, at most `most` and about EDGES pairs at a time.

    >>> [list(b) for b in in_batches([{"numbers": [0] * n, "receiver": [0] * n} for n in (9, 2, 9, 3)], 2)]
    [[1, 3], [0, 2]]
    """
    part: list[int] = []
    pairs = 0
    for place in sorted(range(len(records)), key=lambda i: len(records[i]["numbers"])):
        more = len(records[place]["receiver"])
        if part and (len(part) == most or pairs + more > EDGES):
            yield part
            part, pairs = [], 0
        part.append(place)
        pairs += more
    if part:
        yield part


def split_atoms(value_BA: Tensor, batch: Batch) -> list[np.ndarray]:
    """Return per-atom values [B, A, ...] of either layout as one array a structure, ghosts left out."""
    real = value_BA.flatten(0, 1)[batch["number"].flatten() > 0]
    return [part.detach().cpu().numpy() for part in real.split(batch["size"].tolist())]


def predicted(
    model: Model, frames: Iterable[Frame], level: str = "", stress: bool = False
) -> Iterator[tuple[Frame, Structure]]:
    """Yield each frame, in order, with its structure relabelled by the potential; memory is that of a few batches.

    Args:
        predictor: of a potential.
        frames: what to label.
        level: of theory; "" for each structure's own.
        stress: also predict the stress of what is periodic in three directions.

    Raises:
        DataError, ConfigError: as `record_of`; or an energy or force comes out not finite.
    """
    objective, network = need_potential(model), model.network
    for window in windows(frames, model):
        records = [record_of(frame, model, level) for frame in window]
        found: list[Structure | None] = [None] * len(window)
        for part in in_batches(records, model.batch):
            batch = batch_of(model, (records[i] for i in part))
            outputs = network(batch, stress=stress, create_graph=False)
            energies = outputs["energy_eV"].detach().cpu().numpy()
            forces = split_atoms(outputs["forces_eV_A"], batch)
            stresses = outputs["stress_eV_A3"].detach().cpu().numpy().astype(float) if stress else [None] * len(part)
            for i, energy, force, tensor in zip(part, energies, forces, stresses, strict=True):
                if not np.isfinite(energy) or not np.isfinite(force).all():
                    raise DataError(f"frame {window[i].number}: the potential gives no finite energy and forces; "
                                    "the structure is far from all it learnt, leave it out", window[i].file)  # fmt: skip
                known = {"energy_eV": float(energy), "forces_eV_A_N3": force.astype(float)}
                known["stress_eV_A3_6"] = tensor if window[i].structure.pbc_3.all() else None
                found[i] = replace(window[i].structure, level=level_name(objective, records[i]["level"]), **known)
        yield from zip(window, found, strict=True)


def mean_features(model: Model, frames: Sequence[Frame], level: str = "") -> np.ndarray:
    """Return [S, D]: the scalars after every block, averaged over the atoms of each structure."""
    records = [record_of(frame, model, level) for frame in frames]
    found: list[np.ndarray] = [np.empty(0)] * len(frames)
    for part in in_batches(records, model.batch):
        batch = batch_of(model, [records[i] for i in part])
        with torch.no_grad():
            scalars_ND = torch.cat(model.network.features(batch)[1], -1)
        for i, atoms_ND in zip(part, split_atoms(scalars_ND.view(*batch["number"].shape, -1), batch), strict=True):
            found[i] = atoms_ND.mean(0)
    return np.stack(found)


@contextmanager
def _opened(work: Path) -> Iterator[IO[str]]:
    """Open a text file for writing, compressed where its name ends in .gz; equal contents make equal files."""
    with open(work, "wb") as raw:
        packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if work.name.lower().endswith(".gz") else raw
        text = io.TextIOWrapper(packed, encoding="utf-8", newline="\n")
        yield text
        text.flush()
        text.detach()
        if packed is not raw:
            packed.close()


def need_ending(out: Path, *endings: str) -> None:
    """Raise ConfigError where a file to write has none of the endings."""
    if not Path(out).name.lower().endswith(endings):
        raise ConfigError(f"{out}: the name decides the kind of file; end it with {' or '.join(endings)}")


def xyz_text(structure: Structure, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Return a frame of extended XYZ with more in its head and more columns; numbers keep every bit.

    Args:
        structure: with the labels to write under their usual names.
        info: text or numbers (arrays are flattened) by name.
        arrays: columns [N] or [N, K] by name.
    """
    count, head, *rows = _xyz_text(structure).splitlines()
    columns = {name: np.asarray(value, float).reshape(len(structure), -1) for name, value in arrays.items()}
    more = "".join(f":{name}:R:{value.shape[1]}" for name, value in columns.items())
    head = re.sub(r"Properties=\S+", lambda found: found[0] + more, head, count=1)
    for name, value in info.items():
        if isinstance(value, str):
            value = '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
        elif isinstance(value, np.ndarray):
            value = '"' + " ".join(map(repr, value.ravel().tolist())) + '"'
        head += f" {name}={value!s}"
    if columns:
        table = np.hstack(list(columns.values())).tolist()
        rows = [f"{row} {' '.join(map(repr, values))}" for row, values in zip(rows, table, strict=True)]
    return "\n".join([count, head, *rows]) + "\n"


def write_xyz(work: Path, texts: Iterable[str]) -> None:
    """Write frames one after another."""
    with _opened(work) as stream:
        stream.writelines(texts)


@dataclass(frozen=True, kw_only=True)
class Energies(FromFiles):
    """Energies, forces and stress of structures: extended XYZ with everything, or a table (CSV) of one row a structure.

    The table has file, frame, formula, atoms, energy_eV, max_force_eV_A and, where the structure has labels,
    energy_error_meV_atom (predicted less labelled) and force_mae_meV_A. Extended XYZ carries the predictions as energy,
    forces and stress; labels that the file had stay beside them as label_energy, label_forces and label_stress.

    Args:
        files: extended XYZ, HDF5, JSON of mlearn, ASE's trajectories and databases, or what ASE reads.
        out: the file to write: .xyz, .extxyz (each also .gz) or .csv.
        stress: also predict the stress (eV/angstrom^3, ASE's order and sign) of what is periodic in three directions.
        units: of the files.
        level: level of theory to predict, of a potential that knows several; by default each structure's own.
        key_energy, key_forces, key_stress: names of the labels in the files; found where not given.
        key_charge, key_spin: names of total charge and multiplicity.
    """

    stress: bool = False

    def write(self, model: Model) -> Path:
        """Write the predictions and return their path."""
        need_ending(self.out, ".xyz", ".extxyz", ".xyz.gz", ".extxyz.gz", ".csv")
        pairs = predicted(model, self.frames(), self.level, self.stress)
        pairs = tqdm(pairs, "energies", unit="structure", disable=None, leave=False)
        if Path(self.out).name.lower().endswith(".csv"):
            return write_whole(self.out, lambda work: self._write_table(work, pairs, model), self.files)
        source = about(self, model)
        info = {f"model_{name}": source[name] for name in ("checkpoint", "weights_sha256", "step")}
        texts = (xyz_text(found, {**info, **_labels(frame)}, _label_columns(frame)) for frame, found in pairs)
        return write_whole(self.out, lambda work: write_xyz(work, texts), self.files)

    def _write_table(self, work: Path, pairs: Iterable[tuple[Frame, Structure]], model: Model) -> None:
        with _opened(work) as stream:
            stream.write(f"# {provenance(self, model)}\n")
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(["file", "frame", "formula", "atoms", "energy_eV", "max_force_eV_A",
                            "energy_error_meV_atom", "force_mae_meV_A"])  # fmt: skip
            for frame, found in pairs:
                largest = np.linalg.norm(found.forces_eV_A_N3, axis=1).max()
                row = [frame.file, frame.number, formula(found.numbers_N), len(found), repr(found.energy_eV)]
                table.writerow([*row, f"{largest:.6g}", *_errors(frame.structure, found)])


def formula(numbers_N: np.ndarray) -> str:
    """Return the formula in Hill's order.

    >>> formula(np.array([8, 1, 6, 1, 1, 1]))
    'CH4O'
    """
    from ase.symbols import Symbols

    return Symbols(np.asarray(numbers_N, int)).get_chemical_formula("hill")


def _errors(true: Structure, found: Structure) -> list[str]:
    """Return the error of the energy per atom and the mean absolute error of the forces, "" where there is no label."""
    energy = forces = ""
    if true.energy_eV is not None:
        energy = f"{1e3 * (found.energy_eV - true.energy_eV) / len(found):.6g}"
    if true.forces_eV_A_N3 is not None:
        forces = f"{1e3 * np.abs(found.forces_eV_A_N3 - true.forces_eV_A_N3).mean():.6g}"
    return [energy, forces]


def _labels(frame: Frame) -> dict[str, Any]:
    """Return the labels of a frame under names that no reader takes for the prediction."""
    known: dict[str, Any] = {"source": f"{frame.file}#{frame.number}"}
    if frame.structure.energy_eV is not None:
        known["label_energy"] = float(frame.structure.energy_eV)
    if frame.structure.stress_eV_A3_6 is not None:
        known["label_stress"] = np.asarray(frame.structure.stress_eV_A3_6, float)[VOIGT]
    if frame.structure.level:
        known["label_level"] = frame.structure.level
    return known


def _label_columns(frame: Frame) -> dict[str, np.ndarray]:
    forces = frame.structure.forces_eV_A_N3
    return {} if forces is None else {"label_forces": forces}
