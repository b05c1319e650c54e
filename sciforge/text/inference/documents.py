"""What a Bert says of documents: classes or numbers, embeddings, ROC curves, tags of words, words for [MASK]."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from sciforge.core.data.store import Reject, Store
from sciforge.core.files.output_files import cell, provenance, whole_files, whole_paths, write_whole
from sciforge.core.training.evaluation import evaluation
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.text.data.lines import Document, Layout
from sciforge.text.data.readers import read_documents
from sciforge.text.data.vocabulary import MASK
from sciforge.text.inference.roc import draw_roc, roc
from sciforge.text.model.heads import pooled_mean, real_tokens
from sciforge.text.objectives.document_labels import ClassifyDocuments, RateDocuments
from sciforge.text.objectives.word_tags import TagWords

GROUP = 8  # batches of documents that are read before they are sorted by length


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What all outputs of files share."""

    files: tuple[Path, ...]
    out: Path
    documents: Literal["line", "paragraph", "file"] = "line"
    text_column: str = "text"
    on_error: Literal["stop", "skip"] = "stop"

    def groups(self, model: Model) -> Iterator[list[dict[str, Any]]]:
        """Yield the documents of all files as records, some at a time; bad ones go to <out>.rejected.jsonl where asked.

        Raises:
            ConfigError: there is no file.
            DataError: a bad document, with `on_error` stop.
        """
        if not self.files:
            raise ConfigError("no file; give .txt, .csv, .tsv, .jsonl or .conll files")
        layout = Layout(documents=self.documents, text=self.text_column)
        found: list[dict[str, Any]] = []
        bad: list[Reject] = []
        with tqdm(desc=type(self).__name__, unit="doc", disable=None, leave=False) as bar:
            for file in self.files:
                for document in read_documents(file, layout, bad.append if self.on_error == "skip" else None):
                    found.append(record_of(document, file))
                    if len(found) == GROUP * model.batch:
                        yield found
                        bar.update(len(found))
                        found = []
            if found:
                yield found
        if bad:
            lines = "".join(json.dumps(vars(reject), ensure_ascii=False) + "\n" for reject in bad)
            write_whole(self.out.with_suffix(".rejected.jsonl"), lambda work: work.write_text(lines, encoding="utf-8"))
            print(
                f"{len(bad)} bad documents left out, listed in {self.out.with_suffix('.rejected.jsonl')}",
                file=sys.stderr,
            )


def record_of(document: Document, file: Path) -> dict[str, Any]:
    """Return a document as a record; without a name it has that of its file and line."""
    words = document.words or [(m, m + len(w)) for m, w in _spaced(document.text)]
    name = document.name or f"{file.name}:{document.line}"
    return {"text": document.text, "name": name, "line": document.line, "words": np.array(words, np.int32)}


def _spaced(text: str) -> Iterator[tuple[int, str]]:
    """Yield words between spaces and where they begin.

    >>> list(_spaced("a  bc"))
    [(0, 'a'), (3, 'bc')]
    """
    at = 0
    for word in text.split():
        at = text.index(word, at)
        yield at, word
        at += len(word)


def need(model: Model, kind: type | tuple[type, ...], what: str) -> Any:
    """Return the checkpoint's objective; raises ConfigError where it was trained for something else."""
    if not isinstance(model.objective, kind):
        name = type(model.objective).__name__
        raise ConfigError(f"{model.checkpoint.path} was trained for {name}, not for {what}; fine-tune it first")
    return model.objective


def predict_sorted(model: Model, records: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return the outputs of records in their order, short and long ones computed apart so that little is padding."""
    order = np.argsort([len(record["text"]) for record in records], kind="stable")
    found = model.outputs(records[i] for i in order)
    back = np.argsort(order)
    return {name: values[back] for name, values in found.items()}


@dataclass(frozen=True, kw_only=True)
class DocumentScores(_Read):
    """Class probabilities, or the number, of every document, as a table (CSV): name, line, p(class)..., class or value.

    Args:
        files: what to read; labels are not needed.
        out: the table to write.
        documents: of .txt, what one document is.
        text_column: column of tables, key of JSON lines.
        on_error: `skip` leaves bad documents out and lists them in <out>.rejected.jsonl; `stop` raises at the first.
    """

    def write(self, model: Model) -> Path:
        """Write the table and return its path."""
        objective = need(model, (ClassifyDocuments, RateDocuments), "labels of documents")
        classes = objective.classes if isinstance(objective, ClassifyDocuments) else ()
        with whole_files(self.out, sources=self.files) as (table,):
            rows = _table(table, self, model)
            rows.writerow(["name", "line", *(f"p({cell(name)})" for name in classes), "class" if classes else "value"])
            for group in self.groups(model):
                found = predict_sorted(model, group)
                for place, record in enumerate(group):
                    if classes:
                        p_C = found["probability"][place]
                        said = [*(f"{p:.6f}" for p in p_C), classes[int(p_C.argmax())]]
                    else:
                        said = [cell(float(found["value"][place]))]
                    rows.writerow([record["name"], record["line"], *said])
        return self.out


def _table(file: IO, output: Any, model: Model) -> Any:
    """Return a CSV writer behind one line of provenance."""
    file.write(f"# {provenance(output, model)}\n")
    return csv.writer(file, lineterminator="\n")


@dataclass(frozen=True, kw_only=True)
class DocumentEmbeddings(_Read):
    """Mean hidden states of documents (.npz): `names` [N], and `layer_i` [N, D]. Works on pretraining checkpoints too.

    Args:
        files: what to read.
        out: the .npz file to write.
        documents: of .txt, what one document is.
        text_column: column of tables, key of JSON lines.
        on_error: `skip` leaves bad documents out and lists them in <out>.rejected.jsonl; `stop` raises at the first.
        layers: which hidden states, from 0 (the embedding) to the depth; negative numbers count from the last.
    """

    layers: tuple[int, ...] = (-1,)

    def write(self, model: Model) -> Path:
        """Write the arrays and return their path."""
        depth = model.network.depth
        if not self.layers or not all(-depth - 1 <= layer <= depth for layer in self.layers):
            raise ConfigError(f"layers are {self.layers}; give some of 0..{depth} (or -{depth + 1}..-1)")
        layers = list(dict.fromkeys(layer % (depth + 1) for layer in self.layers))
        names: list[str] = []
        rows: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
        with whole_files(self.out, binary=True, sources=self.files) as (file,), torch.no_grad():
            with evaluation(model.network, model.objective):
                for group in self.groups(model):
                    names += [record["name"] for record in group]
                    for start in range(0, len(group), model.batch):
                        part = group[start : start + model.batch]
                        batch = model.codec.collate([model.codec.encode(record) for record in part])
                        batch = model.engine.move(batch)
                        states, real_BL = model.network(batch, layers=True), real_tokens(batch)
                        for layer in layers:
                            rows[layer].append(pooled_mean(states[layer], real_BL).float().cpu().numpy())
            if not names:
                raise DataError(f"no document in {', '.join(map(str, self.files))}; there is nothing to embed")
            arrays = {f"layer_{layer}": np.concatenate(found) for layer, found in rows.items()}
            np.savez(file, names=np.array(names), provenance=np.array(provenance(self, model)), **arrays)
        return self.out


@dataclass(frozen=True, kw_only=True)
class RocCurve:
    """ROC curve with AUC and the score distributions of the two classes on labelled documents: a picture and two tables.

    Beside the PNG are written <out>.scores.csv (name, label, probability) and <out>.roc.csv (the curve's points).

    Args:
        data: a prepared store with labels.
        out: the picture to write, .png.
        split: whose documents; those trained on would flatter.
        positive: the class that is looked for; empty takes the second one.
    """

    data: Path
    out: Path
    split: Literal["train", "validation", "test"] = "test"
    positive: str = ""

    def write(self, model: Model) -> Path:
        """Write picture and tables and return the picture's path."""
        objective = need(model, ClassifyDocuments, "classes of documents")
        classes = objective.classes
        if not self.positive and len(classes) != 2:
            raise ConfigError(f"there are {len(classes)} classes; name one with --positive")
        positive = self.positive or classes[1]
        if positive not in classes:
            raise ConfigError(
                f"positive is {positive!r}, no class of the checkpoint; {did_you_mean(positive, classes)}"
            )
        store = Store.open(self.data)
        if store.domain != model.domain.name:
            raise ConfigError(f"{self.data} is of the domain {store.domain}, the checkpoint of {model.domain.name}")
        rows = objective.examples(store, self.split)
        if not len(rows):
            raise ConfigError(f"{self.data} has no {self.split} documents; choose another --split")
        records = [rows[i] for i in range(len(rows))]
        if "label" not in records[0]:
            raise ConfigError(f"{self.data} has no labels; prepare it with --label-column")
        yes_N = np.array([record["label"] == positive for record in records])
        p_N = predict_sorted(model, records)["probability"][:, classes.index(positive)].astype(float)
        curve = roc(yes_N, p_N)
        tables = [self.out.with_suffix(".scores.csv"), self.out.with_suffix(".roc.csv")]
        with whole_paths(self.out, *tables) as (picture, scores, points):
            other = next(name for name in classes if name != positive) if len(classes) == 2 else f"not {positive}"
            draw_roc(picture, curve, yes_N, p_N, (other, positive))
            with open(scores, "w", encoding="utf-8", newline="") as file:
                table = _table(file, self, model)
                table.writerow(["name", "label", f"p({cell(positive)})"])
                named = [record["name"] or f"line {record['line']}" for record in records]
                labels = [record["label"] for record in records]
                table.writerows((n, label, f"{p:.6f}") for n, label, p in zip(named, labels, p_N, strict=True))
            with open(points, "w", encoding="utf-8", newline="") as file:
                table = _table(file, self, model)
                table.writerow(["false_positive_rate", "true_positive_rate", "threshold"])
                table.writerows(np.stack([curve.false_T, curve.true_T, curve.threshold_T], 1).round(6).tolist())
        return self.out


@dataclass(frozen=True, kw_only=True)
class WordTags(_Read):
    """The class of every word in the CoNLL form: a word, a tab and its class on a line, an empty line behind a document.

    Words are those of .conll files; in other text whatever stands between spaces.

    Args:
        files: what to read; tags in it are not looked at.
        out: the table to write.
        documents: of .txt, what one document is.
        text_column: column of tables, key of JSON lines.
        on_error: `skip` leaves bad documents out and lists them in <out>.rejected.jsonl; `stop` raises at the first.
    """

    def write(self, model: Model) -> Path:
        """Write the table and return its path."""
        objective = need(model, TagWords, "tags of words")
        with whole_files(self.out, sources=self.files) as (table,):
            table.write(f"# {provenance(self, model)}\n")
            for group in self.groups(model):
                found = predict_sorted(model, group)["tag"]
                for record, tags_W in zip(group, found, strict=True):
                    words = [record["text"][a:b] for a, b in record["words"]]
                    lines = zip(words, objective.names(tags_W), strict=True)
                    table.write("".join(f"{word}\t{tag}\n" for word, tag in lines) + "\n")
        return self.out


@dataclass(frozen=True, kw_only=True)
class FillMasks:
    """The likeliest words for every [MASK] of some texts, as a table (CSV): text, mask, rank, word, probability.

    Works on pretraining checkpoints and on fine-tuned ones, whose language head stays as it was.

    Args:
        texts: each with one [MASK] at least.
        out: the table to write.
        top: words for each mask.
    """

    texts: tuple[str, ...]
    out: Path
    top: int = 5

    def write(self, model: Model) -> Path:
        """Write the table and return its path."""
        if not self.texts or self.top < 1:
            raise ConfigError("give at least one text with a [MASK], and --top of at least 1")
        with whole_files(self.out) as (table,), evaluation(model.network, model.objective), torch.no_grad():
            rows = _table(table, self, model)
            rows.writerow(["text", "mask", "rank", "word", "probability"])
            for text in self.texts:
                for mask, found in enumerate(fill(model, text, self.top), 1):
                    rows.writerows([text, mask, rank, word, f"{p:.6f}"] for rank, (word, p) in enumerate(found, 1))
        return self.out


@torch.no_grad()
def fill(model: Model, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
    """Return for each [MASK] of a text the likeliest pieces and their probabilities.

    Raises:
        ConfigError: there is no [MASK], or the text is longer than the checkpoint's rows.
    """
    codec = model.codec
    ids = codec.pieces(text, specials=True)[0]
    if not (ids == codec.mask).any():
        raise ConfigError(f"no {MASK} in {text[:60]!r}; put one where a word is asked for")
    if len(ids) > codec.length - 2:
        raise ConfigError(f"{text[:60]!r}... has {len(ids)} tokens; the checkpoint reads {codec.length - 2}")
    batch = model.engine.move(codec.collate([codec.row(ids)]))
    x_MD = model.network(batch, only=batch["ids"] == codec.mask)
    p_MV = model.network.word_logits(x_MD).softmax(-1)
    best = p_MV.topk(min(top, p_MV.shape[1]))
    return [
        [(codec.token(i), float(p)) for p, i in zip(row, places, strict=True)]
        for row, places in zip(best.values, best.indices.tolist(), strict=True)
    ]
