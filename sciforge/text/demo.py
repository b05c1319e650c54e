"""The text section of `sciforge demo`: a few labels, beside no pretraining and classical rivals;
masked words filled in.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sciforge.core.files.tables import Section, Table
from sciforge.core.training.model import Model
from sciforge.core.training.run import Schedule

WORDS = ("mother", "government", "happy", "went", "three")
NEAREST = 5
SENTENCES = (
    "I do not [MASK] what you mean.",
    "The government said on [MASK] that it would.",
    "He was born in the [MASK] of 1823.",
)
TASK = (
    "The task: is the opening of a paragraph of Jane Austen speech or narration, with the quotation"
    " marks removed? The test chapters were in no training data, not in those of the network"
    " either. All methods see the same few labels, seed by seed. The heads of the networks read"
    " hidden states only and are solved in closed form. modern-mini-english is small ({step} steps"
    " on one CPU core): it has learnt which words keep the same company, hardly what they mean. On"
    " topics, TF-IDF is often better; see the benchmarks."
)


def demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    """Specialise modern-mini-english with few labels of Austen's paragraphs, and compare it with
    rivals.

    Args:
        folder: for everything that is made.
        find: gives the path of bundled data by name.
        full: more numbers of labels and seeds; takes minutes.
    """
    import sciforge as sf
    from sciforge.experiments.methods import Recipe
    from sciforge.text.objectives.document_labels import ClassifyDocuments

    place = folder / "paragraphs"
    documents = sf.text.Documents(
        files=(find("austen-speech"),),
        label_column="label",
        split_column="split",
        group_column="chapter",
    )
    task = sf.Dataset.open(place) if place.exists() else sf.prepare(documents, place)
    curve = sf.label_efficiency(
        task,
        init=find("modern-mini-english"),
        objective=ClassifyDocuments(length=128, grams=False),
        sizes=(16, 32, 64, 128) if full else (32,),
        seeds=5 if full else 3,
        methods=("pretrained", "untrained", "word_tfidf", "letter_tfidf"),
        metric="auroc",
        recipe=Recipe(Schedule(steps=1, batch=32, lr=0.0, kind="constant"), epochs=0.0),
        out=folder / "curve",
    )
    model = sf.load(find("modern-mini-english"), device="cpu")
    picture = curve.save(folder / "curve.png")
    caption = (
        "Area under the ROC curve on test paragraphs against the number of labels, with 95 %"
        " intervals."
    )
    text = TASK.format(step=f"{model.checkpoint.step:,}")
    tables = (curve.table(), filled(model), neighbours(model))
    return Section("Text: a small BERT from few labels", (text,), tables, ((picture, caption),))


def filled(model: Model) -> Table:
    """Return the likeliest words at the [MASK] of some sentences."""
    from sciforge.text.inference.fill_masks import fill

    rows = []
    for text in SENTENCES:
        (words,) = fill(model, text, top=NEAREST)
        rows.append((text, ", ".join(f"{word} {share:.2f}" for word, share in words)))
    return Table(("sentence", "likeliest words"), tuple(rows))


def neighbours(model: Model) -> Table:
    """Return the word pieces whose embeddings are nearest to those of some words."""
    table_VD = model.network.embeddings.word.weight.detach().double().numpy()
    table_VD /= np.linalg.norm(table_VD, axis=1, keepdims=True)
    rows = []
    for word in WORDS:
        token = int(model.codec.pieces(word)[0][0])
        order = np.argsort(-(table_VD @ table_VD[token]), kind="stable")
        near = [i for i in order if i != token][:NEAREST]
        rows.append((model.codec.token(token), ", ".join(model.codec.token(i) for i in near)))
    return Table(("word", "nearest word embeddings"), tuple(rows))
