"""The text section of `sciforge demo`: a few labels, beside no pretraining and classical rivals; what the net knows of words."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sciforge.core.data import sampling
from sciforge.core.data.store import Store, prepare
from sciforge.core.files.tables import Section, Table
from sciforge.core.learners.metrics import classification_metrics
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule, Subset
from sciforge.text.data.documents import Documents
from sciforge.text.evaluation.baselines import letter_tfidf, word_tfidf
from sciforge.text.inference.documents import RocCurve, fill
from sciforge.text.objectives.document_labels import ClassifyDocuments

TITLE = "Text: a small BERT, and few labels"
MISSING = "The text demo needs the package tokenizers: pip install 'sciforge[text]'."
CHECKPOINT, DATA = "modern-mini-english", "austen-speech"
SIZES, SEEDS = (32,), 3
SOLVED = Schedule(steps=1, batch=32, lr=0.0, kind="constant")  # the head is solved; nothing descends
NETS = {"pretrained": True, "not pretrained": False}
RIVALS = {"TF-IDF of letters": letter_tfidf, "TF-IDF of words": word_tfidf}
WORDS = ("mother", "government", "happy", "went", "three")
NEAREST = 5
GAPS = (
    "I do not [MASK] what you mean.",
    "The government said on [MASK] that it would.",
    "He was born in the [MASK] of 1823.",
)
WHAT = (
    "The task: is the opening of a paragraph of Jane Austen spoken or narrated, quotation marks taken off? Chapters of the test "
    "were in no training, of the net neither. All methods see the same few labels, draw by draw; metrics are AUC on {test} test "
    "paragraphs, means over {seeds} draws with the standard error. The nets' heads read hidden states alone (no letters beside "
    "them) and are solved, not descended to. modern-mini-english is small: {step} steps on one CPU core; it knows which words keep "
    "the same company and turns of phrase, hardly what they say."
)


def demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    """Specialise modern-mini-english with few labels of Austen's paragraphs, compare, and draw its ROC curve.

    Args:
        folder: for everything that is made.
        find: gives the path of bundled data by name.
        full: more numbers of labels and seeds; takes minutes.
    """
    if importlib.util.find_spec("tokenizers") is None:
        return Section(TITLE, (MISSING,))
    store, plain = _store(folder, find(DATA)), Model.load(find(CHECKPOINT), device="cpu")
    metrics = compare(folder, store, plain)
    picture = folder / "roc.png"
    RocCurve(data=store.path, out=picture, positive="speech").write(
        Model.load(_solved(folder, store, plain, True, SIZES[-1], 0), device="cpu")
    )
    text = WHAT.format(test=len(store.split("test")), seeds=SEEDS, step=f"{plain.checkpoint.step:,}")
    caption = f"Spoken against narrated, the net with {SIZES[-1]} labels: ROC curve and the scores of both classes."
    return Section(
        TITLE, (text, said(metrics)), (table(metrics), filled(plain), neighbours(plain)), ((picture, caption),)
    )


def _store(folder: Path, file: Path) -> Store:
    place = folder / "paragraphs"
    options = {"label_column": "label", "split_column": "split", "group_column": "chapter"}
    return Store.open(place) if place.exists() else prepare(Documents(files=(file,), **options), place)


def _solved(folder: Path, store: Store, plain: Model, pretrained: bool, labels: int, seed: int) -> Path:
    """Return a checkpoint with its head solved on few labels, made where it is missing."""
    out = folder / f"{'pretrained' if pretrained else 'fresh'}-{labels}-{seed}"
    if not (out / "final").exists():
        begin = {"init": plain.checkpoint.path}
        if not pretrained:
            begin = {"model": plain.checkpoint.model_config, "codec": plain.codec}
        objective = ClassifyDocuments(length=128, grams=False)
        hardware = Hardware(device="cpu")
        run = {"data": store.path, "out": out, "objective": objective, "schedule": SOLVED, "hardware": hardware}
        train(Run(**run, **begin, subset=Subset(labels, seed), seed=seed))
    return out


def compare(folder: Path, store: Store, plain: Model) -> dict[str, dict[int, np.ndarray]]:
    """Return for each method and number of labels the AUC on the test split, one a draw of labels."""
    rows, test = store.split("train"), store.split("test")
    objective = ClassifyDocuments().resolve(store)
    label_N = objective.class_numbers(test)
    found: dict[str, dict[int, list[float]]] = {name: {n: [] for n in SIZES} for name in (*NETS, *RIVALS)}
    for labels in SIZES:
        for seed in range(SEEDS):
            for name, pretrained in NETS.items():
                judged = Model.load(_solved(folder, store, plain, pretrained, labels, seed), device="cpu")
                found[name][labels].append(judged.evaluate(store)["auroc"])
            chosen = rows.take(np.asarray(sampling.balanced_subset(rows.labels(), labels, seed)))
            for name, rival in RIVALS.items():
                outputs = rival(objective, chosen, test, seed)
                found[name][labels].append(classification_metrics(label_N, outputs["probability"])["auroc"])
    return {name: {n: np.array(values) for n, values in by.items()} for name, by in found.items()}


def table(metrics: dict[str, dict[int, np.ndarray]]) -> Table:
    """Return the comparison, best of the last column first."""
    names = sorted(metrics, key=lambda name: -metrics[name][SIZES[-1]].mean())
    rows = []
    for name in names:
        cells = (f"{v.mean():.3f} ± {v.std(ddof=1) / len(v) ** 0.5:.3f}" for v in metrics[name].values())
        rows.append((name, *cells))
    return Table(
        ("method", *(f"AUC, {n} labels" for n in SIZES)), tuple(rows), "mean ± standard error over draws of labels"
    )


def said(metrics: dict[str, dict[int, np.ndarray]]) -> str:
    """Return what pretraining gained, draw by draw, in a sentence."""
    with_it, without = metrics["pretrained"], metrics["not pretrained"]
    best = max(RIVALS, key=lambda name: metrics[name][SIZES[-1]].mean())
    parts = []
    for n in SIZES:
        gain, more = (with_it[n] - without[n]).mean(), (with_it[n] - metrics[best][n]).mean()
        parts.append(
            f"with {n} labels it changes the AUC by {gain:+.3f}, and the pretrained net differs from {best} by {more:+.3f}"
        )
    return f"What pretraining gained: {'; '.join(parts)}."


def filled(plain: Model) -> Table:
    """Return the likeliest words at the [MASK] of some sentences."""
    rows = []
    for text in GAPS:
        (found,) = fill(plain, text, top=NEAREST)
        rows.append((text, ", ".join(f"{word} {share:.2f}" for word, share in found)))
    return Table(("sentence", "likeliest words"), tuple(rows))


def neighbours(plain: Model) -> Table:
    """Return the pieces whose vectors are nearest to those of some words."""
    table_VE = plain.network.embeddings.word.weight.detach().double().numpy()
    table_VE /= np.linalg.norm(table_VE, axis=1, keepdims=True)
    rows = []
    for word in WORDS:
        here = int(plain.codec.pieces(word)[0][0])
        near = [i for i in np.argsort(-(table_VE @ table_VE[here]), kind="stable") if i != here][:NEAREST]
        rows.append((plain.codec.token(here), ", ".join(plain.codec.token(i) for i in near)))
    return Table(("word", "nearest by the net's vectors"), tuple(rows))
