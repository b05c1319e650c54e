"""What a property checkpoint says of molecules in files: a table of values with intervals, one row for each input row."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm import tqdm

from sciforge.core.files.output_files import provenance, whole_files
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError
from sciforge.molecules.chemistry.graph import canonical, graph_of_mol
from sciforge.molecules.data.codec import flags_of
from sciforge.molecules.data.readers import Entry, parts_of, read_part
from sciforge.molecules.objectives.properties import Properties

if TYPE_CHECKING:
    from rdkit import Chem

FEWEST_FOR_CALIBRATION = 20


def record_of(mol: "Chem.Mol") -> dict[str, Any]:
    """Return what a store would hold of a molecule; raises DataError where its graph cannot be stored.

    >>> from rdkit import Chem
    >>> record_of(Chem.MolFromSmiles("OCC"))["smiles"]
    'CCO'
    """
    smiles, plain = canonical(mol)
    graph = graph_of_mol(plain)
    hydrogens, flags = flags_of(plain)
    bond = np.concatenate([graph.pair_M2, graph.order_M[:, None]], axis=1)
    return {"smiles": smiles, "atom": graph.atom_N, "bond": bond, "hydrogens": hydrogens, "flags": flags}


def largest_part(mol: "Chem.Mol") -> "Chem.Mol":
    """Return the component with most heavy atoms; of equals that with the last SMILES, whatever the order of the input.

    >>> from rdkit import Chem
    >>> Chem.MolToSmiles(largest_part(Chem.MolFromSmiles("[Na+].CC(=O)[O-]")))
    'CC(=O)[O-]'
    """
    from rdkit import Chem

    parts = Chem.GetMolFrags(mol, asMols=True)
    return max(parts, key=lambda part: (part.GetNumHeavyAtoms(), Chem.MolToSmiles(part))) if len(parts) > 1 else mol


def need_properties(model: Model) -> Properties:
    """Return the objective of a property checkpoint; raises ConfigError for any other."""
    if not isinstance(model.objective, Properties):
        kind = type(model.objective).__name__
        raise ConfigError(f"{model.checkpoint.path} was trained for {kind}, not for properties; fine-tune it first")
    return model.objective


@dataclass(frozen=True, kw_only=True)
class PredictedProperties:
    """Predicted properties of molecules, as a CSV: for each task a value with its std and interval, or p(yes).

    Rows come in the order of the input, those that cannot be read too, with the reason in the column `problem`.

    Args:
        files: SMILES lists, tables or SDF.
        out: the CSV to write: name, smiles, for a number NAME, NAME_std, NAME_low, NAME_high, for a class p(NAME),
            and with several checkpoints NAME_disagreement; problem.
        smiles_column: its name in tables.
        also: further checkpoints of the same tasks (other seeds); values are averaged, stds take in how far they differ.
        level: of the intervals.
        calibrate: a table with a column for each task: labelled molecules that were not trained on, by which the intervals
            are scaled so that they cover `level` of such molecules (split conformal).
        components: of salts and mixtures, predict for the `largest` part or `stop` at them (which leaves the row without values).
    """

    files: tuple[Path, ...]
    out: Path
    smiles_column: str = "smiles"
    also: tuple[Path, ...] = ()
    level: float = 0.9
    calibrate: Path | None = None
    components: Literal["stop", "largest"] = "largest"

    def __post_init__(self):
        if not 0 < self.level < 1:
            raise ConfigError(f"level is {self.level}; it must lie between 0 and 1")

    def write(self, model: Model) -> Path:
        """Write the table and return its path."""
        objective = need_properties(model)
        crew = [model, *(Model.load(path, str(model.device), model.batch) for path in self.also)]
        for other in crew[1:]:
            if need_properties(other).tasks != objective.tasks:
                raise ConfigError(f"{other.checkpoint.path} predicts other tasks; average checkpoints of the same ones")
        width_K = self._widths(crew, objective)
        entries = chain.from_iterable(self._entries(file, ()) for file in self.files)
        with (
            whole_files(self.out, sources=self.files) as (file,),
            tqdm(desc="properties", unit="mol", disable=None) as bar,
        ):
            file.write(f"# {provenance(self, model)}\n")
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["name", "smiles", *self._header(objective), "problem"])
            for group in iter(lambda: list(islice(entries, 8 * model.batch)), []):
                self._write_group(table, group, crew, objective, width_K)
                bar.update(len(group))
        return self.out

    def _header(self, objective: Properties) -> list[str]:
        columns = []
        for task, yes_no in zip(objective.tasks, objective.yes_no, strict=True):
            columns += [f"p({task})"] if yes_no else [task, f"{task}_std", f"{task}_low", f"{task}_high"]
            columns += [f"{task}_disagreement"] if self.also else []
        return columns

    def _entries(self, file: Path, columns: Sequence[str]) -> Iterator[Entry]:
        for part in parts_of(file):
            yield from read_part(part, self.smiles_column, columns)

    def _record(self, entry: Entry) -> dict[str, Any]:
        mol = entry.mol()
        return record_of(largest_part(mol) if self.components == "largest" else mol)

    def _write_group(
        self, table: Any, group: Sequence[Entry], crew: Sequence[Model], objective: Properties, width_K: np.ndarray
    ) -> None:
        """Write the rows of some entries."""
        records, problems = [], []
        for entry in group:
            try:
                records.append(self._record(entry))
                problems.append("")
            except DataError as error:
                problems.append(str(error))
        found = together(crew, records) if records else None
        place, blank = 0, [""] * len(self._header(objective))
        for entry, problem in zip(group, problems, strict=True):
            if problem:
                table.writerow([entry.name, "" if entry.is_sdf else entry.text, *blank, problem])
                continue
            value_K, std_K, apart_K = (column[place] for column in found)
            cells = []
            for k, yes_no in enumerate(objective.yes_no):
                half = width_K[k] * std_K[k]
                numbers = (value_K[k],) if yes_no else (value_K[k], std_K[k], value_K[k] - half, value_K[k] + half)
                cells += [f"{number:.5g}" for number in (*numbers, *((apart_K[k],) if self.also else ()))]
            table.writerow([entry.name, records[place]["smiles"], *cells, ""])
            place += 1

    def _widths(self, crew: Sequence[Model], objective: Properties) -> np.ndarray:
        """Return how many stds an interval reaches to either side, of each task [K]."""
        normal = NormalDist().inv_cdf(0.5 + self.level / 2)
        width_K = np.full(len(objective.tasks), normal)
        if self.calibrate is None:
            return width_K
        numbers = [task for task, yes_no in zip(objective.tasks, objective.yes_no, strict=True) if not yes_no]
        records, label_NK = [], []
        for entry in self._entries(self.calibrate, numbers):
            try:
                label = [float(cell) if cell else np.nan for cell in entry.cells]
                records.append(self._record(entry))
            except (DataError, ValueError) as error:
                raise DataError(
                    f"{error}; calibration needs readable molecules and numbers", self.calibrate, entry.line
                ) from None
            label_NK.append(label)
        value_NK, std_NK, _ = together(crew, records) if records else (np.zeros((0, len(width_K))),) * 3
        for column, task in enumerate(numbers):
            k = objective.tasks.index(task)
            away_N = np.abs(np.array(label_NK)[:, column] - value_NK[:, k]) / std_NK[:, k] if records else np.zeros(0)
            away_N = away_N[np.isfinite(away_N)]
            if len(away_N) < FEWEST_FOR_CALIBRATION:
                needed = f"{len(away_N)} labels of {task!r}; calibration needs at least {FEWEST_FOR_CALIBRATION}"
                raise DataError(needed, self.calibrate)
            width_K[k] = conformal_width(away_N, self.level)
        return width_K


def conformal_width(away_N: np.ndarray, level: float) -> float:
    """Return the width that covers `level` of further molecules, from the distances of some in units of their std.

    The ceil((n + 1) level)-th smallest distance (Vovk; Papadopoulos 2002); the largest where n is too small for the level.

    >>> conformal_width(np.arange(1.0, 100.0), 0.9)
    90.0
    """
    rank = int(np.ceil((len(away_N) + 1) * level))
    return float(np.sort(away_N)[min(rank, len(away_N)) - 1])


def together(crew: Sequence[Model], records: Sequence[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean value, the std and the disagreement of several checkpoints, each [N, K].

    the variance is the mean of their variances and the variance of their values.
    """
    said = [member.outputs(records) for member in crew]
    value_CNK = np.stack([found["value"] for found in said]).astype(np.float64)
    std_CNK = np.stack([found["std"] for found in said]).astype(np.float64)
    apart_NK = value_CNK.std(0)
    return value_CNK.mean(0), np.sqrt((std_CNK**2).mean(0) + apart_NK**2), apart_NK
