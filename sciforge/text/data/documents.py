"""What `sciforge prepare documents` makes of files of text: documents with their sentences, labels
and splits.

Columns: `text` and `name`, `sentences` int32 [S + 1] (offsets of letters where sentences begin, and
the end), `line` int64, `key` uint64 (of the letters and digits alone, lower case: documents of one
key are the same), `split` uint8 (3 is none), `group` text where groups are named,
and where asked for `label` text or
`value` float64; of tagged files `words` int32 [W, 2] (offsets of letters) and `tags` text, one a
word, between spaces.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from sciforge.core.data.groups import split_by_group
from sciforge.core.data.store import SPLIT_NAMES, SPLITS, Reject, ShardWriter, Store
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.text.data.lines import Document, Layout
from sciforge.text.data.readers import (
    MEND,
    NAME_COLUMNS,
    PLAIN,
    TAGGED,
    OnReject,
    columns_of,
    kind_of,
    read_documents,
)
from sciforge.text.data.sentences import sentence_offsets

NONE = len(SPLITS)  # in no split
# of schemes that mark the end of an entity and single words: BILOU, BIOES, BMEWO
FOREIGN_PREFIXES = ("L-", "U-", "E-", "S-", "M-", "W-")


@dataclass(frozen=True, kw_only=True)
class Documents(Settings):
    """Documents from .txt, .csv, .tsv, .jsonl and .conll files, each plain or gzipped; the
    vocabulary is fitted in training.

    Args:
        files: what to read; a shard each, so more workers help with many files.
        documents: of .txt, what one document is: a `line`, a `paragraph` (ended by blank lines) or
            the `file`.
        text_column: column of tables, key of JSON lines.
        label_column: of the class, or of the number with --numeric; empty for text without labels.
        numeric: the labels are numbers (for regression), not classes.
        tags_column: key of JSON lines with one tag a word, the text being a list of words; CoNLL
            files have both.
        split_column: column with train, validation or test; empty draws the splits by `shares`.
        group_column: rows of one group (author, chapter, patient) stay in one split.
        shares: of train, validation and test.
        seed: of the splits.
        longest: most letters of a document.
        cut: cut longer documents of .txt in pieces of `longest`, between words, instead of refusing
            them.
        exclude: files whose documents must not be used (test data, say), compared by their letters
            and digits alone; what is found of them is in no split, and counted.
    """

    files: tuple[Path, ...]
    documents: Literal["line", "paragraph", "file"] = "paragraph"
    text_column: str = "text"
    label_column: str = ""
    numeric: bool = False
    tags_column: str = ""
    split_column: str = ""
    group_column: str = ""
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    longest: int = 1_000_000
    cut: bool = False
    exclude: tuple[Path, ...] = ()

    domain: ClassVar[str] = "text"
    kind: ClassVar[str] = "documents"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "longest")
        self.require(0, math.inf, "seed")
        if min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-6 or self.shares[0] == 0:
            raise ConfigError(
                f"documents.shares is {self.shares}; give those of train, validation and test,"
                " which add up to 1"
            )
        if self.numeric and not self.label_column:
            raise ConfigError(
                "documents.numeric needs documents.label_column (--numeric needs --label-column)"
            )

    def sources(self) -> Sequence[Path]:
        """Return the files, one shard each; raises ConfigError for settings that cannot be."""
        if not self.files:
            raise ConfigError("no file; give .txt, .csv, .tsv, .jsonl or .conll files")
        tagged = {kind_of(file) in TAGGED or bool(self.tags_column) for file in self.files}
        if len(tagged) > 1:
            raise ConfigError(
                "some files have tagged words and others have not; prepare them apart"
            )
        for file in self.exclude:
            kind_of(file)
        if all(kind_of(file) not in PLAIN for file in (*self.files, *self.exclude)):
            for name in ("documents", "cut"):
                if getattr(self, name) != getattr(type(self), name):
                    raise ConfigError(
                        f"documents.{name} is for .txt files, and there is none; leave it out"
                    )
        return self.files

    @property
    def layout(self) -> Layout:
        """Where the parts of a document stand."""
        return Layout(
            documents=self.documents,
            text=self.text_column,
            label=self.label_column,
            tags=self.tags_column,
            split=self.split_column,
            group=self.group_column,
            longest=self.longest,
            cut=self.cut,
        )

    def write(self, source: Path, shard: ShardWriter, on_reject: OnReject) -> None:
        """Read one file and append its documents."""
        layout = replace(self.layout, label="", split="", group="")
        unwanted = keys_of(self.exclude, layout, on_reject is not None)
        for document in read_documents(source, self.layout, on_reject):
            try:
                self._add(document, shard, unwanted)
            except DataError as error:
                if on_reject is None:
                    raise DataError(f"{error}; {MEND}", source, document.line) from None
                on_reject(Reject(str(source), document.line, document.name, str(error)))

    def _add(self, document: Document, shard: ShardWriter, unwanted: frozenset[int]) -> None:
        split = _split_of(document.split) if self.split_column else 0
        if int(key_of(document.text)) in unwanted:
            split = NONE
        group = document.group if self.group_column else None
        labels: dict[str, Any] = {}
        if self.numeric:
            labels["value"] = _number(document.label)
        elif self.label_column:
            labels["label"] = document.label
        add_document(shard, document, split, labels, group)

    def finish(self, store: Store) -> dict[str, Any]:
        """Settle the splits over all files; return the classes, the tags and what was counted."""
        if not self.split_column:
            split_N = np.array(store.column("split"))
            used = split_N != NONE
            group_N = np.asarray(store.column("group" if self.group_column else "key"))
            split_N[used] = split_by_group(group_N[used], self.shares, self.seed)
            store.rewrite("split", split_N)
            store = Store(store.path, store.index)  # reads the splits anew
        meta = finished(store, self.label_column)
        if notes := [*self._notes(), *meta.get("notes", ())]:
            meta["notes"] = notes
        return meta

    def _notes(self) -> list[str]:
        """Return where the splits come from and the columns that were not used."""
        notes = []
        if self.split_column:
            notes.append(f"splits taken from the column {self.split_column}")
        used = {
            getattr(self, name) for name in type(self).__dataclass_fields__ if "_column" in name
        }
        columns = [column for file in self.files for column in columns_of(file)]
        used.add(next((name for name in NAME_COLUMNS if name in columns), ""))
        rest = [name for name in dict.fromkeys(columns) if name not in used]
        if rest:
            hint = "; --split-column split takes the splits from it" if "split" in rest else ""
            notes.append(f"columns not used: {', '.join(rest)}{hint}")
        return notes


def add_document(
    shard: ShardWriter,
    document: Document,
    split: int,
    labels: dict[str, Any],
    group: str | None = None,
) -> None:
    """Append a document.

    Args:
        shard: where to.
        document: its text, and words with tags where it has them.
        split: the number of its split.
        labels: fixed columns `label` or `value`.
        group: name of what must not be divided among splits; None for none.
    """
    key = key_of(document.text)
    fixed: dict[str, Any] = {
        "text": document.text,
        "name": document.name,
        "line": np.int64(document.line),
        "key": key,
        "split": np.uint8(split),
        **labels,
    }
    if group is not None:
        fixed["group"] = group.strip()
    ragged = {"sentences": sentence_offsets(document.text)}
    if document.words:
        ragged["words"] = np.array(document.words, np.int32)
        fixed["tags"] = " ".join(document.tags)
    shard.add(ragged, **fixed)


def finished(store: Store, target: str) -> dict[str, Any]:
    """Take copies of held-out documents out of earlier splits; return the classes, the tags and
    what was counted.
    """
    split_N = np.array(store.column("split"))
    excluded = int((split_N == NONE).sum())
    key_N = store.column("key")
    copies_N = copies_of_held_out(key_N, split_N)
    split_N[copies_N] = NONE
    store.rewrite("split", split_N)
    if not (split_N == 0).any():
        raise DataError(
            "no document is left for training; check the splits and --exclude", store.path
        )
    columns = next(shard["columns"] for shard in store.index["shards"] if shard["num_records"])
    classes = sorted(set(store.column("label"))) if "label" in columns else []
    tags = (
        sorted({tag for line in store.column("tags") for tag in line.split()})
        if "tags" in columns
        else []
    )
    _check_scheme(tags)
    used = split_N != NONE
    counts = {name: int((split_N == number).sum()) for number, name in enumerate(SPLITS)}
    counts |= {"excluded": excluded, "copies_of_held_out": int(copies_N.sum())}
    counts["repeated"] = int(used.sum() - len(np.unique(key_N[used])))
    sentences = int((store.lengths("sentences") - 1).sum())
    notes = []
    if excluded:
        notes.append(f"{excluded} documents excluded, as asked")
    if counts["copies_of_held_out"]:
        notes.append(
            f"{counts['copies_of_held_out']} copies of held-out documents left out of earlier"
            " splits"
        )
    meta = {
        "classes": classes,
        "tags": tags,
        "counts": counts,
        "sentences": sentences,
        "target": target,
    }
    return meta | ({"notes": notes} if notes else {})


def _check_scheme(tags: Sequence[str]) -> None:
    """Raise DataError where tags are of a scheme other than BIO, whose entities would be
    miscounted.
    """
    foreign = [
        tag
        for tag in tags
        if tag[:2] in FOREIGN_PREFIXES and {f"B-{tag[2:]}", f"I-{tag[2:]}"} & {*tags}
    ]
    prefixes = {tag[:2] for tag in tags if tag[1:2] == "-"}
    if foreign or prefixes and prefixes <= {*FOREIGN_PREFIXES}:
        example = foreign[0] if foreign else next(tag for tag in tags if tag[:2] in prefixes)
        raise DataError(
            f"tag {example!r} is of the scheme BILOU or BIOES; write the last word of an entity as"
            " I- and a single one as B-"
        )


def copies_of_held_out(key_N: np.ndarray, split_N: np.ndarray) -> np.ndarray:
    """Return which documents stand also in a split further from training, bool [N]: they must not
    be learnt from.

    >>> copies_of_held_out(np.array([1, 1, 2, 2, 3]), np.array([0, 2, 1, 0, 0])).tolist()
    [True, False, False, True, False]
    """
    copies_N = np.zeros(len(key_N), bool)
    for split in range(1, NONE):
        copies_N |= (split_N < split) & np.isin(key_N, key_N[split_N == split])
    return copies_N


def keys_of(files: tuple[Path, ...], layout: Layout, skip: bool = False) -> frozenset[int]:
    """Return the keys of all documents of some files; raises DataError for a bad one, unless they
    are to be skipped.
    """
    return frozenset().union(*(_keys_of(file, _stamp(file), layout, skip) for file in files))


def _stamp(file: Path) -> tuple[int, int]:
    """Return the time and size of a file, by which it is known to be the same; zeros where it
    cannot be opened.
    """
    try:
        stat = Path(file).stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


@cache
def _keys_of(file: Path, stamp: tuple[int, int], layout: Layout, skip: bool) -> frozenset[int]:
    bad: list[Reject] = []
    documents = read_documents(file, layout, bad.append if skip else None)
    return frozenset(int(key_of(document.text)) for document in documents)


def key_of(text: str) -> np.uint64:
    """Return 64 bits of a digest of the letters and digits: equal however a text is spaced, cased
    and punctuated.

    >>> int(key_of("The room wasn ' t clean.") - key_of("the room wasn't clean"))
    0
    """
    return _digest("".join(letter for letter in text.casefold() if letter.isalnum()))


def _digest(text: str) -> np.uint64:
    return np.uint64(
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    )


def _split_of(text: str) -> int:
    name = text.strip().lower()
    if name not in SPLIT_NAMES:
        raise DataError(f"split {text!r} is not known, {did_you_mean(name, SPLIT_NAMES)}")
    return SPLIT_NAMES[name]


def _number(text: str) -> np.float64:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(f"label {text!r} is not a number")
    return np.float64(value)
