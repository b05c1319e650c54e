"""The text section of `sciforge demo`: words for [MASK], then a few labels, beside no pretraining and classical rivals."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sciforge.core import order
from sciforge.core.loop import train
from sciforge.core.metrics import classification_metrics
from sciforge.core.predictor import Predictor
from sciforge.core.report import Section, Table
from sciforge.core.run import Hardware, Run, Schedule, Subset
from sciforge.core.store import Store, prepare
from sciforge.text.baselines import letter_tfidf, word_tfidf
from sciforge.text.documents import ClassifyDocuments
from sciforge.text.outputs import RocCurve, fill
from sciforge.text.prepare import PrepareDocuments

TITLE = "Text: a small BERT, and few labels"
MISSING = "The text demo needs the package tokenizers: pip install 'sciforge[text]'."
CHECKPOINT, DATA = "bert-mini-english", "austen-speech"
SIZES, SEEDS = (32,), 3
SOLVED = Schedule(steps=1, batch=32, rate=0.0, shape="constant")  # the head is solved; nothing descends
NETS = {"pretrained, states and letters": (True, True), "pretrained, states alone": (True, False)}
NETS |= {"not pretrained, states alone": (False, False)}
RIVALS = {"TF-IDF of letters": letter_tfidf, "TF-IDF of words": word_tfidf}
MASKED = (
    "She was the youngest of the two [MASK] of a most affectionate father.",
    "He was born in the [MASK] of 1823.",
    "I do not [MASK] what you mean.",
)
WHAT = (
    "The task: is the opening of a paragraph of Jane Austen spoken or narrated, quotation marks taken off? Chapters of the test "
    "were in no training, of the net neither. All methods see the same few labels, draw by draw; figures are AUC on {test} test "
    "paragraphs, means over {seeds} draws with the standard error. The net of {step} steps on one CPU core is small; with letters "
    "beside its states the head knows what TF-IDF knows."
)


def demo(folder: Path, find: Callable[[str], Path]) -> Section:
    """Fill masks with bert-mini-english, specialise it with few labels of Austen's paragraphs, and draw its ROC curve.

    Args:
        folder: for everything that is made.
        find: gives the path of bundled data by name.
    """
    if importlib.util.find_spec("tokenizers") is None:
        return Section(TITLE, (MISSING,))
    store, plain = _store(folder, find(DATA)), Predictor.load(find(CHECKPOINT), device="cpu")
    figures = compare(folder, store, plain)
    picture = folder / "roc.png"
    RocCurve(data=store.path, out=picture, positive="spoken").write(
        Predictor.load(_solved(folder, store, plain, (True, True), SIZES[-1], 0), device="cpu")
    )
    text = WHAT.format(test=len(store.split("test")), seeds=SEEDS, step=f"{plain.checkpoint.step:,}")
    caption = f"Spoken against narrated, the net with {SIZES[-1]} labels: ROC curve and the scores of both classes."
    return Section(TITLE, (text, said(figures)), (table(figures), masks(plain)), ((picture, caption),))


def _store(folder: Path, file: Path) -> Store:
    place = folder / "paragraphs"
    options = {"label_column": "label", "split_column": "split", "group_column": "chapter"}
    return Store.open(place) if place.exists() else prepare(PrepareDocuments(files=(file,), **options), place)


def _solved(folder: Path, store: Store, plain: Predictor, kind: tuple[bool, bool], labels: int, seed: int) -> Path:
    """Return a checkpoint with its head solved on few labels, made where it is missing."""
    pretrained, grams = kind
    out = folder / f"{'pretrained' if pretrained else 'fresh'}-{'letters' if grams else 'states'}-{labels}-{seed}"
    if not (out / "final").exists():
        begin = {"init": plain.checkpoint.path}
        if not pretrained:
            begin = {"model": plain.checkpoint.model_config, "codec": plain.codec}
        objective = ClassifyDocuments(length=128, grams=grams)
        hardware = Hardware(device="cpu")
        run = {"data": store.path, "out": out, "objective": objective, "schedule": SOLVED, "hardware": hardware}
        train(Run(**run, **begin, subset=Subset(labels, seed), seed=seed))
    return out


def compare(folder: Path, store: Store, plain: Predictor) -> dict[str, dict[int, np.ndarray]]:
    """Return for each method and number of labels the AUC on the test split, one a draw of labels."""
    rows, test = store.split("train"), store.split("test")
    objective = ClassifyDocuments().resolve(store)
    label_N = np.array([objective.index(label) for label in test.column("label")])
    found: dict[str, dict[int, list[float]]] = {name: {n: [] for n in SIZES} for name in (*NETS, *RIVALS)}
    for labels in SIZES:
        for seed in range(SEEDS):
            for name, kind in NETS.items():
                judged = Predictor.load(_solved(folder, store, plain, kind, labels, seed), device="cpu")
                found[name][labels].append(judged.evaluate(store)["auroc"])
            chosen = rows.take(np.asarray(order.balanced_subset(rows.labels(), labels, seed)))
            for name, rival in RIVALS.items():
                outputs = rival(objective, chosen, test, seed)
                found[name][labels].append(classification_metrics(label_N, outputs["probability"])["auroc"])
    return {name: {n: np.array(values) for n, values in by.items()} for name, by in found.items()}


def table(figures: dict[str, dict[int, np.ndarray]]) -> Table:
    """Return the comparison, best of the last column first."""
    names = sorted(figures, key=lambda name: -figures[name][SIZES[-1]].mean())
    rows = []
    for name in names:
        cells = (f"{v.mean():.3f} ± {v.std(ddof=1) / len(v) ** 0.5:.3f}" for v in figures[name].values())
        rows.append((name, *cells))
    return Table(
        ("method", *(f"AUC, {n} labels" for n in SIZES)), tuple(rows), "mean ± standard error over draws of labels"
    )


def said(figures: dict[str, dict[int, np.ndarray]]) -> str:
    """Return what pretraining gained, draw by draw, in a sentence."""
    with_it, without = figures["pretrained, states alone"], figures["not pretrained, states alone"]
    whole, rival = figures["pretrained, states and letters"], figures["TF-IDF of letters"]
    parts = []
    for n in SIZES:
        gain, more = (with_it[n] - without[n]).mean(), (whole[n] - rival[n]).mean()
        parts.append(
            f"with {n} labels pretraining changes the AUC of hidden states by {gain:+.3f}, and states and letters together differ "
            f"from TF-IDF of letters by {more:+.3f}"
        )
    return f"What pretraining gained: {'; '.join(parts)}."


def masks(plain: Predictor) -> Table:
    """Return the likeliest words for the masks of some sentences."""
    rows = []
    for text in MASKED:
        words = fill(plain, text, top=5)[0]
        rows.append((text, ", ".join(f"{word} {p:.2f}" for word, p in words)))
    return Table(("text", "likeliest words and their probability"), tuple(rows))
