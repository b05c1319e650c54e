"""What tests/test_contract.py needs of this domain: a tiny store and two tiny runs on it."""

from pathlib import Path

import numpy as np
import pytest

from sciforge.core.data.store import Store, prepare
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.text import BertConfig, ClassifyDocuments, MaskedWords, TextCodec
from sciforge.text.data.documents import Documents

SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]


def sentence(rng: np.random.Generator, words: int) -> str:
    """Return random words of two syllables, a capital first and a stop last."""
    made = ["".join(rng.choice(SYLLABLES, 2)) for _ in range(words)]
    return " ".join(made).capitalize() + "."


def tiny(folder: Path) -> tuple[Store, Run, Run]:
    """Return a store, a pretraining run on it, and a fine-tuning run from that run's checkpoint."""
    pytest.importorskip(
        "tokenizers", reason="the domain text needs tokenizers: pip install 'sciforge[text]'"
    )
    rng = np.random.default_rng(0)
    plain = folder / "tiny.txt"
    plain.write_text(
        "\n\n".join(" ".join(sentence(rng, 6) for _ in range(5)) for _ in range(24)) + "\n"
    )
    table = folder / "tiny.csv"
    rows = [
        f"{sentence(rng, 4)} {'Koko' if n % 2 else 'Tata'}"
        f" {sentence(rng, 4)},{'no' if n % 2 else 'yes'}"
        for n in range(60)
    ]
    table.write_text("text,label\n" + "\n".join(rows) + "\n")
    store = prepare(Documents(files=(plain,), shares=(0.6, 0.2, 0.2)), folder / "plain")
    labelled = Documents(files=(table,), label_column="label", shares=(0.6, 0.2, 0.2))
    prepare(labelled, folder / "labelled")
    common = {"hardware": Hardware(device="cpu", precision="float64", threads=1), "seed": 3}
    pretraining = Run(
        data=folder / "plain",
        out=folder / "pretraining",
        model=BertConfig(width=16, depth=2, heads=2, hidden=32),
        codec=TextCodec(size=150, length=64),
        objective=MaskedWords(length=32, pairs=True, short_share=0.5),
        schedule=Schedule(steps=6, batch=8, lr=5e-3, evaluate_every=3),
        **common,
    )
    finetuning = Run(
        data=folder / "labelled",
        out=folder / "finetuning",
        init=pretraining.out,
        objective=ClassifyDocuments(length=32, warm_start=False),
        schedule=Schedule(steps=6, batch=8, lr=5e-3, kind="step", evaluate_every=2, patience=3),
        **common,
    )
    return store, pretraining, finetuning
