"""Labelled texts that are in memory; the store is the one that their file would give."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from sciforge.core.data.groups import group_names
from sciforge.core.data.store import ShardWriter, Store
from sciforge.core.data.targets import Target, split_numbers
from sciforge.core.files.settings import Settings
from sciforge.errors import DataError
from sciforge.text.data.documents import add_document, finished
from sciforge.text.data.lines import Document, word_places
from sciforge.text.data.readers import OnReject


@dataclass(frozen=True, kw_only=True)
class DocumentsInMemory(Settings):
    """Texts with a class or number each, or with a tag for every word.

    Args:
        target: name of the labels; empty where words are tagged.
        numeric: the labels are numbers (for regression), not classes.
        seed: kept with the store.
    """

    target: str = ""
    numeric: bool = False
    seed: int = 0
    documents: tuple[Document, ...] = field(default=(), init=False, repr=False)
    splits: tuple[int, ...] = field(default=(), init=False, repr=False)
    unlabelled: int = field(default=0, init=False)

    domain: ClassVar[str] = "text"
    kind: ClassVar[str] = "documents"

    @classmethod
    def labelled(
        cls,
        documents: Sequence[Document],
        target: Target,
        split: Sequence[str] | None,
        seed: int,
        group: Sequence[Any] | None = None,
    ) -> "DocumentsInMemory":
        """Return the preparer of texts with their labels; those without a label are left out and
        counted.

        Args:
            documents: one a text.
            target: their labels.
            split: name of each one's split; None for all in training.
            seed: kept with the store.
            group: of each text; None for none.
        """
        documents = _grouped(documents, group)
        preparer = cls(target=target.name, numeric=target.numeric, seed=seed)
        texts = [
            replace(d, label=label, words=())
            for d, label in zip(documents, target.texts, strict=True)
        ]
        return preparer._holding(texts, split, [bool(document.label) for document in texts])

    @classmethod
    def tagged(
        cls,
        documents: Sequence[Document],
        tags: Sequence[Any],
        split: Sequence[str] | None,
        seed: int,
        group: Sequence[Any] | None = None,
    ) -> "DocumentsInMemory":
        """Return the preparer of texts with a tag for every word; as `labelled`.

        Raises:
            DataError: words and tags are not equally many, or a tag is empty or holds a space;
                names the input.
        """
        texts, documents = [], _grouped(documents, group)
        for place, (document, row) in enumerate(zip(documents, tags, strict=True)):
            words = document.words or word_places(document.text)
            if not isinstance(row, list | tuple) or len(row) != len(words):
                count = len(row) if isinstance(row, list | tuple) else "no"
                raise DataError(
                    f"input {place}: {len(words)} words but {count} tags; give one tag for each"
                    " word"
                )
            if any(not isinstance(tag, str) or tag.split() != [tag] for tag in row):
                raise DataError(
                    f"input {place}: a tag is empty, holds a space or is no text; correct it"
                )
            texts.append(replace(document, words=words, tags=tuple(row)))
        return cls(seed=seed)._holding(texts, split, [True] * len(texts))

    def _holding(
        self, documents: Sequence[Document], split: Sequence[str] | None, kept: Sequence[bool]
    ) -> "DocumentsInMemory":
        """Fill this preparer with the documents that are kept, named by their places."""
        numbers_N = split_numbers(split, len(documents))
        places = [place for place, keep in enumerate(kept) if keep]
        named = tuple(
            replace(documents[place], name=f"input {place}", line=place) for place in places
        )
        object.__setattr__(self, "documents", named)
        object.__setattr__(self, "splits", tuple(int(numbers_N[place]) for place in places))
        object.__setattr__(self, "unlabelled", len(documents) - len(places))
        return self

    def sources(self) -> Sequence[str]:
        """Return one unit of work."""
        return ["inputs"]

    def write(self, source: str, shard: ShardWriter, on_reject: OnReject) -> None:
        """Append all documents."""
        for document, split in zip(self.documents, self.splits, strict=True):
            labels: dict[str, Any] = {}
            if self.numeric:
                labels["value"] = np.float64(document.label)
            elif self.target:
                labels["label"] = document.label
            add_document(shard, document, split, labels, document.group or None)

    def finish(self, store: Store) -> dict[str, Any]:
        """Return the classes, the tags and what was counted."""
        meta = finished(store, self.target)
        notes = [f"{self.unlabelled} inputs without a label left out"] if self.unlabelled else []
        notes += meta.get("notes", [])
        return meta | ({"notes": notes} if notes else {})


def _grouped(documents: Sequence[Document], group: Sequence[Any] | None) -> Sequence[Document]:
    """Return the documents with the names of their groups."""
    names = group_names(group, len(documents))
    if names is None:
        return documents
    return [replace(d, group=name) for d, name in zip(documents, names, strict=True)]
