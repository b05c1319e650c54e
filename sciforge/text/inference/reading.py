"""Files of documents that an output reads, a few batches at a time, and what it needs of a
checkpoint.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from sciforge.core.data.store import Reject
from sciforge.core.files.output_files import about
from sciforge.core.files.settings import Settings
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError
from sciforge.text.data.lines import Document, Layout, word_places
from sciforge.text.data.readers import read_documents

GROUP = 8  # batches of documents that are read before they are sorted by length
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReadsDocuments(Settings):
    """What all outputs of files share."""

    files: tuple[Path, ...]
    documents: Literal["line", "paragraph", "file"] = "line"
    text_column: str = "text"
    on_error: Literal["stop", "skip"] = "stop"
    rejected: list[Reject] = field(default_factory=list, init=False, repr=False, compare=False)

    def groups(self, model: Model) -> Iterator[list[dict[str, Any]]]:
        """Yield the documents of all files as records, some at a time; bad ones are kept in
        `rejected` where asked.

        Raises:
            ConfigError: there is no file.
            DataError: a bad document, with `on_error` stop.
        """
        if not self.files:
            raise ConfigError("no file; give .txt, .csv, .tsv, .jsonl or .conll files")
        layout = Layout(documents=self.documents, text=self.text_column)
        self.rejected.clear()
        group: list[dict[str, Any]] = []
        with tqdm(desc=type(self).__name__, unit="doc", disable=None, leave=False) as bar:
            for file in self.files:
                skip = self.rejected.append if self.on_error == "skip" else None
                for document in read_documents(file, layout, skip):
                    group.append(record_of(document, file))
                    if len(group) == GROUP * model.batch:
                        yield group
                        bar.update(len(group))
                        group = []
            if group:
                yield group
        if self.rejected:
            log.warning(
                "%d bad documents left out; the result's about lists them", len(self.rejected)
            )

    def facts(self, model: Model) -> dict[str, Any]:
        """Return where the result comes from, and the documents that were left out."""
        rejected = {"rejected": [vars(reject) for reject in self.rejected]} if self.rejected else {}
        return about(self, model) | rejected


def record_of(document: Document, file: Path) -> dict[str, Any]:
    """Return a document as a record; without a name it has that of its file and line."""
    words = document.words or word_places(document.text)
    name = document.name or f"{file.name}:{document.line}"
    return {
        "text": document.text,
        "name": name,
        "line": document.line,
        "words": np.array(words, np.int32),
    }


def need(model: Model, kind: type | tuple[type, ...], what: str) -> Any:
    """Return the checkpoint's objective; raises ConfigError where it was trained for something
    else.
    """
    if not isinstance(model.objective, kind):
        name = type(model.objective).__name__
        raise ConfigError(
            f"{model.checkpoint.path} was trained for {name}, not for {what}; fine-tune it first"
        )
    return model.objective


def predict_sorted(model: Model, records: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return the outputs of records in their order, short and long ones computed apart so that
    little is padding.
    """
    order = np.argsort([len(record["text"]) for record in records], kind="stable")
    outputs = model.outputs(records[i] for i in order)
    back = np.argsort(order)
    return {name: values[back] for name, values in outputs.items()}
