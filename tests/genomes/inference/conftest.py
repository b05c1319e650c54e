"""Tiny checkpoints that tell windows with a motif from others, and a pretrained one."""

from dataclasses import replace

import numpy as np
import pytest
from genome_files import MOTIF, PLACE, WINDOW, changed, letters

from sciforge.core.data.store import prepare
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.genomes import Classify, DnaBertConfig, KmerCodec, Sequences


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Checkpoints that tell windows with a motif in its place from others: one for each strand,
    one strand-free.
    """
    folder, rng = tmp_path_factory.mktemp("outputs"), np.random.default_rng(1)
    rows = []
    for n in range(80):
        bases = letters(rng, WINDOW)
        rows.append(
            f"{changed(bases, PLACE, MOTIF) if n % 2 else bases}\t{'yes' if n % 2 else 'no'}"
        )
    (folder / "t.tsv").write_text("sequence\tlabel\n" + "\n".join(rows) + "\n")
    store = prepare(Sequences(files=(folder / "t.tsv",)), folder / "store")
    run = Run(
        data=store.path,
        out=folder / "stranded",
        model=DnaBertConfig(width=16, depth=1, heads=2, hidden=32),
        codec=KmerCodec(k=3),
        objective=Classify(bins=3),
        schedule=Schedule(steps=6, batch=16, lr=5e-3, kind="step"),
        hardware=Hardware(device="cpu", precision="float32", threads=1),
    )
    free = replace(
        run, out=folder / "free", objective=Classify(bins=3, strand_free=True, trees=False)
    )
    return train(run), train(free)


@pytest.fixture
def stranded(trained):
    return Model.load(trained[0].path, device="cpu")


@pytest.fixture
def free(trained):
    return Model.load(trained[1].path, device="cpu")


@pytest.fixture
def pretrained(tiny):
    return Model.load(tiny.checkpoint.path, device="cpu")
