"""Users' own texts as records, and what a checkpoint says of them as columns of a table."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.data.targets import one_target
from sciforge.core.domain import Inputs, Record
from sciforge.errors import DataError
from sciforge.text.data.documents_in_memory import DocumentsInMemory
from sciforge.text.data.lines import Bad, Document, Layout, checked, word_places
from sciforge.text.inference.document_scores import label_columns
from sciforge.text.inference.recipes import RECIPES
from sciforge.text.objectives.document_labels import ClassifyDocuments, RateDocuments
from sciforge.text.objectives.word_tags import TagWords

if TYPE_CHECKING:
    import pandas as pd

    from sciforge.core.training.model import Model


def document_of(value: Any) -> Document:
    """Return a string as a document, tidied as files are; or a list of words, joined by spaces.

    Raises:
        DataError: it is neither, is empty or has no letter, or a word is empty or holds a space.

    >>> document_of(" It  was late. ").text, document_of(["It", "was"]).words
    ('It was late.', ((0, 2), (3, 6)))
    """
    if isinstance(value, str):
        document = checked(Document(value, 0), Layout())
    elif isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        if any(word.split() != [word] for word in value):
            raise DataError("a word is empty or holds a space; give one word an entry")
        ends = list(accumulate(len(word) + 1 for word in value))
        places = tuple(
            (end - len(word) - 1, end - 1) for end, word in zip(ends, value, strict=True)
        )
        document = checked(Document(" ".join(value), 0, words=places), Layout())
    else:
        raise DataError(f"a {type(value).__name__} is no text; give a string, or a list of words")
    if isinstance(document, Bad):
        raise DataError(document.reason)
    return document


def documents_of(inputs: Sequence[Any]) -> list[Document]:
    """Return the document of each input; raises DataError naming a bad one by its place."""
    documents = []
    for place, value in enumerate(inputs):
        try:
            documents.append(document_of(value))
        except DataError as error:
            raise DataError(f"input {place}: {error}") from None
    return documents


def records_of_texts(inputs: Sequence[Any]) -> list[dict[str, Any]]:
    """Return a record for each text, with its words: those of a list, or what stands between
    spaces.
    """
    records = []
    for document in documents_of(inputs):
        words = document.words or word_places(document.text)
        records.append({"text": document.text, "words": np.array(words, np.int32)})
    return records


class TextInputs(Inputs):
    """Strings, or lists of words."""

    recipes = RECIPES

    def records(self, inputs: Sequence[Any]) -> list[Record]:
        """Return a record for each text; raises DataError naming a bad one by its place."""
        return list(records_of_texts(inputs))

    def preparer(
        self,
        inputs: Sequence[Any],
        targets: "pd.DataFrame | None",
        *,
        split: Sequence[str] | None,
        seed: int,
        group: Sequence[Any] | None = None,
    ) -> DocumentsInMemory:
        """Return a preparer of labelled texts, or of texts whose words are tagged; as
        `Inputs.preparer`.
        """
        documents = documents_of(inputs)
        if (
            targets is not None
            and targets.shape[1] == 1
            and isinstance(next(iter(targets.iloc[:, 0]), None), list | tuple)
        ):
            tags = targets.iloc[:, 0].tolist()
            return DocumentsInMemory.tagged(documents, tags, split, seed, group)
        return DocumentsInMemory.labelled(
            documents, one_target(targets, "text"), split, seed, group
        )

    def columns(
        self, model: "Model", outputs: Mapping[str, np.ndarray]
    ) -> dict[str, Sequence[Any]]:
        """Return `label` and `probability` (of the second of two classes, `probability_CLASS` of
        several), the number, or `tags`.
        """
        objective = model.objective
        if isinstance(objective, ClassifyDocuments | RateDocuments):
            return label_columns(objective, dict(outputs))
        if isinstance(objective, TagWords):
            return {"tags": [objective.names(tags_W) for tags_W in outputs["tag"]]}
        return super().columns(model, outputs)

    def frame(self, records: Sequence[Record], meta: Mapping[str, Any]) -> "pd.DataFrame":
        """Return name, text and the labels of records."""
        import pandas as pd

        rows = []
        for record in records:
            row = {"name": record["name"], "text": record["text"]}
            if "value" in record:
                row[meta.get("target") or "value"] = float(record["value"])
            elif "label" in record:
                row["label"] = record["label"]
            if "tags" in record:
                row["tags"] = record["tags"]
            rows.append(row)
        return pd.DataFrame(rows)
