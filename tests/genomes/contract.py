"""What tests/test_contract.py needs of this domain: a tiny store and two tiny runs on it."""

from pathlib import Path

import numpy as np

from sciforge.core.data.store import Store, prepare
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.genomes import Classify, DnaBertConfig, KmerCodec, MaskedKmers
from sciforge.genomes.data.genome import Genome
from sciforge.genomes.data.labelled_sequences import Sequences


def letters(rng: np.random.Generator, length: int) -> str:
    """Return random bases."""
    return "".join(rng.choice(list("ACGT"), length))


def tiny(folder: Path) -> tuple[Store, Run, Run]:
    """Return a store, a pretraining run on it, and a fine-tuning run from that run's checkpoint."""
    rng = np.random.default_rng(0)
    fasta = folder / "tiny.fa"
    fasta.write_text("".join(f">{name}\n{letters(rng, 900)}\n" for name in "abcd"))
    rows = [
        (letters(rng, 15) + ("TATAATG" if n % 2 else "GCCGGCA") + letters(rng, 18), n % 2)
        for n in range(60)
    ]
    table = folder / "tiny.tsv"
    table.write_text(
        "sequence\tlabel\n" + "".join(f"{bases}\t{'no' if y else 'yes'}\n" for bases, y in rows)
    )
    store = prepare(Genome(files=(fasta,), validation=("c",), test=("d",)), folder / "genome")
    prepare(Sequences(files=(table,), validation_share=0.2), folder / "labelled")
    common = {"hardware": Hardware(device="cpu", precision="float64", threads=1), "seed": 3}
    pretraining = Run(
        data=folder / "genome",
        out=folder / "pretraining",
        model=DnaBertConfig(width=16, depth=2, heads=2, hidden=32),
        codec=KmerCodec(k=3),
        objective=MaskedKmers(length=48),
        schedule=Schedule(steps=6, batch=8, lr=5e-3, evaluate_every=3),
        **common,
    )
    finetuning = Run(
        data=folder / "labelled",
        out=folder / "finetuning",
        init=pretraining.out,
        objective=Classify(bins=3, warm_start=False),
        schedule=Schedule(steps=6, batch=8, lr=5e-3, kind="step", evaluate_every=2, patience=3),
        **common,
    )
    return store, pretraining, finetuning
