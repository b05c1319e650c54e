"""What a property checkpoint predicts for molecules in files: a table of values with intervals,
one row for each input row.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sciforge.core.data.store import Reject
from sciforge.core.files.output_files import about
from sciforge.core.files.results import TableResult
from sciforge.core.files.settings import Settings
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError
from sciforge.molecules.chemistry.salts import parent_part
from sciforge.molecules.data.readers import Entry, parts_of, read_part
from sciforge.molecules.inference.inputs import property_columns, record_of
from sciforge.molecules.objectives.properties import Properties

if TYPE_CHECKING:
    import pandas as pd

MIN_CALIBRATION = 20
log = logging.getLogger(__name__)


def need_properties(model: Model) -> Properties:
    """Return the objective of a property checkpoint; raises ConfigError for any other."""
    if not isinstance(model.objective, Properties):
        kind = type(model.objective).__name__
        raise ConfigError(
            f"{model.checkpoint.path} was trained for {kind}, not for properties; fine-tune it"
            " first"
        )
    return model.objective


@dataclass(frozen=True, kw_only=True)
class PredictedProperties(Settings):
    """Predicted properties of molecules in files: values with intervals, or probabilities of yes.

    Rows come in the order of the input, those that cannot be read too, with the reason in the
    column `problem`, which is there where a row has one and tells doubts about mixtures too.
    Columns: name, smiles as given, canonical_smiles of the part that is used, with
    stereochemistry; the other columns of the file (NAME_given where a predicted one has the name);
    for a number NAME, NAME_lower, NAME_upper and NAME_std; for a single yes-or-no property label
    and probability, for one of several NAME and NAME_probability; with several checkpoints
    NAME_disagreement; problem.

    Args:
        files: SMILES lists, tables or SDF.
        smiles_column: its name in tables.
        also: further checkpoints of the same tasks (other seeds); values are averaged, stds include
            how far they differ.
        level: share of molecules that the intervals are to cover.
        calibrate: a table with a column for each task: labelled molecules that were not trained on,
            by which the intervals are scaled so that they cover `level` of such molecules (split
            conformal).
        components: of salts and mixtures, predict for the `largest` part but counter-ions and
            solvents, or `stop` at them (which leaves the row without values).
        on_error: of `calibrate`, `skip` leaves rows out that cannot be used and counts them in the
            provenance; `stop` raises at the first.
    """

    files: tuple[Path, ...]
    smiles_column: str = "smiles"
    also: tuple[Path, ...] = ()
    level: float = 0.9
    calibrate: Path | None = None
    components: Literal["stop", "largest"] = "largest"
    on_error: Literal["stop", "skip"] = "stop"
    rejected: list[Reject] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.level < 1:
            raise ConfigError(f"level is {self.level}; it must lie between 0 and 1")

    def run(self, model: Model) -> TableResult:
        """Compute the table.

        Raises:
            ConfigError: the checkpoint predicts no properties, or one of `also` predicts others.
            DataError: a file cannot be read, or there are too few labels to calibrate by.
        """
        objective = need_properties(model)
        ensemble = [
            model,
            *(Model.load(path, str(model.device), model.batch) for path in self.also),
        ]
        for member in ensemble[1:]:
            if need_properties(member).tasks != objective.tasks:
                raise ConfigError(
                    f"{member.checkpoint.path} predicts other tasks; average checkpoints of the"
                    " same ones"
                )
        width_K = self._widths(ensemble, objective)
        entries = [entry for file in self.files for entry in self._entries(file, ())]
        rejected = [vars(reject) for reject in self.rejected]
        facts = about(self, model) | ({"rejected": rejected} if rejected else {})
        return TableResult(self._table(entries, ensemble, objective, width_K), facts)

    def _entries(self, file: Path, columns: Sequence[str]) -> Iterator[Entry]:
        for part in parts_of(file):
            yield from read_part(part, self.smiles_column, columns)

    def _record(self, entry: Entry) -> tuple[dict[str, Any], str]:
        """Return the record of a row, its SMILES with stereochemistry, and what is in doubt."""
        from rdkit import Chem

        mol, doubtful = entry.mol(), False
        if self.components == "largest":
            mol, doubtful = parent_part(mol)
        record = record_of(mol)
        record["canonical_smiles"] = Chem.MolToSmiles(mol)
        return record, "a mixture of several parts: the largest is used" if doubtful else ""

    def _table(
        self,
        entries: Sequence[Entry],
        ensemble: Sequence[Model],
        objective: Properties,
        width_K: np.ndarray,
    ) -> "pd.DataFrame":
        """Return a row for each entry, without values where it cannot be used."""
        import pandas as pd

        records, places, problems = [], [], []
        for place, entry in enumerate(entries):
            try:
                record, doubt = self._record(entry)
                records.append(record)
                places.append(place)
                problems.append(doubt)
            except DataError as error:
                problems.append(str(error))
        canonical: list[str | None] = [None] * len(entries)
        for place, record in zip(places, records, strict=True):
            canonical[place] = record.pop("canonical_smiles")
        head = given_columns(entries, canonical)
        if not records:
            return head.assign(problem=problems)
        value_NK, std_NK, disagreement_NK = ensemble_outputs(ensemble, records)
        columns = property_columns(objective, value_NK, std_NK, width_K)
        for k, (name, yes_no) in enumerate(zip(objective.tasks, objective.yes_no, strict=True)):
            columns |= {} if yes_no else {f"{name}_std": std_NK[:, k]}
            columns |= {f"{name}_disagreement": disagreement_NK[:, k]} if self.also else {}
        values = pd.DataFrame(columns, index=places).reindex(range(len(entries)))
        taken = {*values.columns, "problem"} & set(head.columns)
        head = head.rename(columns={name: f"{name}_given" for name in taken})
        # an empty column is read back as one of numbers, all of them missing
        reasons = {"problem": problems} if any(problems) else {}
        return pd.concat([head, values], axis=1).assign(**reasons)

    def _widths(self, ensemble: Sequence[Model], objective: Properties) -> np.ndarray:
        """Return how many standard deviations an interval reaches to either side, of each task
        [K].
        """
        normal = NormalDist().inv_cdf(0.5 + self.level / 2)
        width_K = np.full(len(objective.tasks), normal)
        if all(objective.yes_no) and (self.calibrate or self.level != type(self).level):
            raise ConfigError(
                "level and calibrate are about intervals of numbers, and all tasks are yes or no;"
                " leave them out"
            )
        if self.calibrate is None:
            return width_K
        numbers = [
            task
            for task, yes_no in zip(objective.tasks, objective.yes_no, strict=True)
            if not yes_no
        ]
        records, label_NK = self._labelled(self.calibrate, numbers)
        if records:
            value_NK, std_NK, _ = ensemble_outputs(ensemble, records)
        for column, task in enumerate(numbers):
            k = objective.tasks.index(task)
            error_N = (
                np.abs(label_NK[:, column] - value_NK[:, k]) / std_NK[:, k]
                if records
                else np.zeros(0)
            )
            error_N = error_N[np.isfinite(error_N)]
            if len(error_N) < MIN_CALIBRATION:
                needed = (
                    f"{len(error_N)} labels of {task!r}; calibration needs at least"
                    f" {MIN_CALIBRATION}"
                )
                raise DataError(needed, self.calibrate)
            width_K[k] = conformal_width(error_N, self.level)
        return width_K

    def _labelled(
        self, file: Path, columns: Sequence[str]
    ) -> tuple[list[dict[str, Any]], np.ndarray]:
        """Return records and labels [N, K] of a table; raises DataError at the first row that
        cannot be used, unless such rows are skipped.
        """
        records, labels = [], []
        self.rejected.clear()
        for entry in self._entries(file, columns):
            try:
                label = [float(cell) if cell else np.nan for cell in entry.cells]
                records.append(self._record(entry)[0])
            except (DataError, ValueError) as error:
                message = f"{error}; calibration needs readable molecules and numbers"
                if self.on_error == "stop":
                    raise DataError(message, file, entry.line) from None
                self.rejected.append(Reject(str(file), entry.line, entry.name, str(error)))
                continue
            labels.append(label)
        if self.rejected:
            log.warning(
                "%d rows of %s left out; the result's about lists them", len(self.rejected), file
            )
        return records, np.array(labels, float).reshape(-1, len(columns))


def given_columns(entries: Sequence[Entry], canonical: Sequence[str | None]) -> "pd.DataFrame":
    """Return name, SMILES as given, canonical SMILES, and every other column of the files."""
    import pandas as pd

    texts = [None if entry.is_sdf else entry.text for entry in entries]
    columns: dict[str, Any] = {"name": [entry.name for entry in entries], "smiles": texts}
    columns["canonical_smiles"] = canonical
    others = dict.fromkeys(name for entry in entries for name in entry.fields if name)
    for name in others:
        values = [entry.fields.get(name) for entry in entries]
        if name in columns and values != columns[name]:
            columns[f"{name}_given"] = values
        elif values != texts:  # the column of SMILES is there already, under its common name
            columns[name] = values
    return pd.DataFrame(columns)


def conformal_width(error_N: np.ndarray, level: float) -> float:
    """Return the width that covers `level` of further molecules, from the errors of some in units
    of their std.

    The ceil((n + 1) level)-th smallest error (Vovk; Papadopoulos 2002); the largest where n is too
    small for the level.

    >>> conformal_width(np.arange(1.0, 100.0), 0.9)
    90.0
    """
    rank = int(np.ceil((len(error_N) + 1) * level))
    return float(np.sort(error_N)[min(rank, len(error_N)) - 1])


def ensemble_outputs(
    ensemble: Sequence[Model], records: Sequence[dict]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean value, the std and the disagreement of several checkpoints, each [N, K].

    The variance is the mean of their variances plus the variance of their values.
    """
    outputs = [member.outputs(records) for member in ensemble]
    value_CNK = np.stack([output["value"] for output in outputs]).astype(np.float64)
    std_CNK = np.stack([output["std"] for output in outputs]).astype(np.float64)
    disagreement_NK = value_CNK.std(0)
    return value_CNK.mean(0), np.sqrt((std_CNK**2).mean(0) + disagreement_NK**2), disagreement_NK
