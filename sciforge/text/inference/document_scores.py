"""Classes or numbers of documents in files."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sciforge.core.files.results import TableResult
from sciforge.core.learners.supervised import class_columns, number_columns
from sciforge.core.training.model import Model
from sciforge.errors import DataError
from sciforge.text.inference.reading import ReadsDocuments, need, predict_sorted
from sciforge.text.objectives.document_labels import ClassifyDocuments, RateDocuments


@dataclass(frozen=True, kw_only=True)
class DocumentScores(ReadsDocuments):
    """The class of every document with probabilities, or its number, as a table.

    The columns: name, line, then label and probability of the second of two classes
    (probability_CLASS of several), or the number.

    Args:
        files: what to read; labels are not needed.
        documents: of .txt, what one document is.
        text_column: column of tables, key of JSON lines.
        on_error: `skip` leaves bad documents out and lists them in the provenance; `stop` raises at
            the first.
    """

    def run(self, model: Model) -> TableResult:
        """Return the table.

        Raises:
            ConfigError: the checkpoint was not trained on labels of documents, or there is no file.
            DataError: a bad document, with `on_error` stop; names file and line.
        """
        import pandas as pd

        objective = need(model, (ClassifyDocuments, RateDocuments), "labels of documents")
        places: list[tuple[str, int]] = []
        parts: list[dict[str, np.ndarray]] = []
        for group in self.groups(model):
            parts.append(predict_sorted(model, group))
            places += [(record["name"], record["line"]) for record in group]
        if not parts:
            raise DataError(
                f"no document in {', '.join(map(str, self.files))}; there is nothing to score"
            )
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        frame = pd.DataFrame(places, columns=["name", "line"]).assign(
            **label_columns(objective, outputs)
        )
        return TableResult(frame, self.facts(model), sources=self.files)


def label_columns(
    objective: ClassifyDocuments | RateDocuments, outputs: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Return the columns of predicted classes or numbers."""
    if isinstance(objective, ClassifyDocuments):
        return dict(class_columns(objective.classes, outputs["probability"]))
    return dict(number_columns(objective.target_name or "value", outputs))
