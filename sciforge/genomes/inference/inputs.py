"""Users' own sequences as records, and what a checkpoint says of them as columns of a table."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.data.targets import one_target
from sciforge.core.domain import Inputs, Record
from sciforge.core.learners.supervised import class_columns, number_columns
from sciforge.errors import DataError
from sciforge.genomes.data.labelled_sequences import SequencesInMemory
from sciforge.genomes.data.sequences import as_letters, encode_text
from sciforge.genomes.inference.recipes import RECIPES
from sciforge.genomes.objectives.base_tags import TagBases
from sciforge.genomes.objectives.sequence_labels import Classify, Regress

if TYPE_CHECKING:
    import pandas as pd

    from sciforge.core.training.model import Model

STRANDS = {1: "+", -1: "-", 0: "."}
CODES = frozenset((*range(5), *range(8, 13)))  # bases and N, as they are and soft-masked


def bases_of_input(value: Any) -> np.ndarray:
    """Return the codes, uint8 [L], of a string, a Bio.Seq or SeqRecord, or an array of codes (A 0,
    C 1, G 2, T 3, N 4).

    Raises:
        DataError: it is none of these, is empty, or holds anything but nucleotides (k-mers divided
            by blanks, for instance).

    >>> bases_of_input("acGN").tolist()
    [8, 9, 2, 4]
    """
    if isinstance(value, np.ndarray):
        codes_known = (
            value.ndim == 1 and value.dtype.kind in "iu" and set(np.unique(value).tolist()) <= CODES
        )
        if not codes_known or not len(value):
            raise DataError(
                "an array of bases is one-dimensional and holds codes: A 0, C 1, G 2, T 3, N 4"
            )
        return value.astype(np.uint8)
    value = getattr(value, "seq", value)  # of a SeqRecord
    if not isinstance(value, str) and type(value).__name__ not in ("Seq", "MutableSeq"):
        raise DataError(
            f"a {type(value).__name__} is no sequence; give a string, a Bio.Seq or an array of"
            " codes"
        )
    return encode_text(str(value))


def sequences_of_inputs(inputs: Sequence[Any]) -> list[np.ndarray]:
    """Return the codes of each input; raises DataError naming a bad one by its place."""
    sequences = []
    for place, value in enumerate(inputs):
        try:
            sequences.append(bases_of_input(value))
        except DataError as error:
            raise DataError(f"input {place}: {error}") from None
    return sequences


class SequenceInputs(Inputs):
    """DNA strings, Bio.Seq, SeqRecord, or arrays of codes."""

    recipes = RECIPES

    def records(self, inputs: Sequence[Any]) -> list[Record]:
        """Return a record for each sequence; raises DataError naming a bad one by its place."""
        return [{"bases": bases} for bases in sequences_of_inputs(inputs)]

    def preparer(
        self,
        inputs: Sequence[Any],
        targets: "pd.DataFrame | None",
        *,
        split: Sequence[str] | None,
        seed: int,
        group: Sequence[Any] | None = None,
    ) -> SequencesInMemory:
        """Return a preparer of labelled sequences; as `Inputs.preparer`."""
        return SequencesInMemory.of(
            sequences_of_inputs(inputs), one_target(targets, "genomes"), split, seed, group
        )

    def columns(
        self, model: "Model", outputs: Mapping[str, np.ndarray]
    ) -> dict[str, Sequence[Any]]:
        """Return `label` and `probability` (of the second of two classes, `probability_CLASS` of
        several), or the number and its interval where there is one, or `track` (the class number
        of every base) and `runs` (the stretches of each class: start, end, class).
        """
        objective = model.objective
        if isinstance(objective, Classify):
            return dict(class_columns(objective.classes, outputs["probability"]))
        if isinstance(objective, Regress):
            return number_columns(objective.target_name or "value", outputs)
        if isinstance(objective, TagBases):
            tracks = [np.asarray(track_L) for track_L in outputs["track"]]
            return {"track": tracks, "runs": [objective.runs(track_L) for track_L in tracks]}
        return super().columns(model, outputs)

    def frame(self, records: Sequence[Record], meta: Mapping[str, Any]) -> "pd.DataFrame":
        """Return chrom, start, end, strand of windows, or name and sequence, or the contigs of a
        genome, and the labels.
        """
        import pandas as pd

        rows = [_row(record, meta) for record in records]
        return pd.DataFrame(rows)


def _row(record: Record, meta: Mapping[str, Any]) -> dict[str, Any]:
    if "unknown_runs" in record:
        return {
            "chrom": record["name"],
            "length": int(record["length"]),
            "circular": bool(record["circular"]),
        }
    row: dict[str, Any] = {"name": record.get("name", "")}
    if "contig" in record:
        start, strand = int(record["start"]), int(record.get("strand", 0))
        end = start + len(record["bases"])
        row = {
            "chrom": record["contig"],
            "start": start,
            "end": end,
            "strand": STRANDS[strand],
            **row,
        }
    else:
        row["sequence"] = as_letters(np.asarray(record["bases"]))
    if "value" in record:
        row[meta.get("target", "value")] = float(record["value"])
    elif "label" in record:
        row["label"] = record["label"]
    return row
