"""The class of every word of documents, from files or in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciforge.core.files.output_files import about, write_whole
from sciforge.core.files.results import TableResult
from sciforge.core.training.model import Model
from sciforge.text.data.readers import TAGGED
from sciforge.text.inference.inputs import records_of_texts
from sciforge.text.inference.reading import ReadsDocuments, need, predict_sorted
from sciforge.text.objectives.word_tags import TagWords

if TYPE_CHECKING:
    import pandas as pd


class TaggedWords(TableResult):
    """Words with their classes: document (its name), word, tag; saved as CSV, TSV or in the CoNLL
    form (.conll).

    Args:
        frame: the table, words in order.
        about: where it comes from.
        sources: files that were read, which `save` must not replace.
    """

    def __init__(
        self, frame: "pd.DataFrame", about: Mapping[str, Any], sources: Sequence[Path] = ()
    ) -> None:
        super().__init__(frame, about, sources=sources)

    def save(self, path: Path | str) -> Path:
        """Write the table, or as .conll a word, a tab and its class on a line and an empty line
        behind a document.

        Raises:
            ConfigError: another suffix, or the path is a folder.
            DataError: the disk is full or may not be written.
        """
        path = Path(path)
        if path.suffix.lower() not in TAGGED:
            return super().save(path)
        parts = []
        for _, words in self.frame.groupby("document", sort=False):
            parts.append(
                "".join(
                    f"{word}\t{tag}\n"
                    for word, tag in zip(words["word"], words["tag"], strict=True)
                )
            )
        text = "".join(part + "\n" for part in parts)
        return write_whole(path, lambda work: work.write_text(text, encoding="utf-8"), self.sources)


@dataclass(frozen=True, kw_only=True)
class WordTags(ReadsDocuments):
    """The class of every word, as a table (document, word, tag) or in the CoNLL form where it is
    saved as .conll.

    Words are those of .conll files; in other text whatever stands between spaces.

    Args:
        files: what to read; tags in it are not looked at.
        documents: of .txt, what one document is.
        text_column: column of tables, key of JSON lines.
        on_error: `skip` leaves bad documents out and lists them in the provenance; `stop` raises at
            the first.
    """

    def run(self, model: Model) -> TaggedWords:
        """Return the tagged words.

        Raises:
            ConfigError: the checkpoint was not trained to tag words, or there is no file.
            DataError: a bad document, with `on_error` stop; names file and line.
        """
        need(model, TagWords, "tags of words")
        rows = [row for group in self.groups(model) for row in tagged_rows(model, group)]
        return TaggedWords(_frame(rows), self.facts(model), self.files)


def tags(model: Model, texts: Sequence[Any]) -> TaggedWords:
    """Return the class of every word of some texts: document (its place), word, tag.

    Args:
        model: trained to tag words.
        texts: strings, whose words are what stands between spaces, or lists of words.

    Raises:
        ConfigError: the model was not trained to tag words.
        DataError: a text holds no word; names it by its place.
    """
    need(model, TagWords, "tags of words")
    records = [{**record, "name": place} for place, record in enumerate(records_of_texts(texts))]
    return TaggedWords(_frame(tagged_rows(model, records)), about({"texts": len(records)}, model))


def tagged_rows(model: Model, records: Sequence[dict[str, Any]]) -> list[tuple[Any, str, str]]:
    """Return document, word and class of every word of records."""
    rows = []
    for record, tags_W in zip(records, predict_sorted(model, records)["tag"], strict=True):
        words = [record["text"][start:stop] for start, stop in record["words"]]
        rows += [
            (record["name"], word, tag)
            for word, tag in zip(words, model.objective.names(tags_W), strict=True)
        ]
    return rows


def _frame(rows: Sequence[tuple[Any, str, str]]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(rows, columns=["document", "word", "tag"])
