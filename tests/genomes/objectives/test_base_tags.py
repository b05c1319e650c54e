"""A class for every base: predictions are one row an input, each as long as its sequence."""

import numpy as np
import pytest

from sciforge.core.data.store import prepare
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.genomes import DnaBertConfig, KmerCodec, TagBases, Tracks


@pytest.mark.parametrize("stride", [1, 2])
def test_predictions_are_a_class_for_every_base_of_every_input(tmp_path, stride):
    rng = np.random.default_rng(0)
    (tmp_path / "g.fa").write_text(">a\n" + "".join(rng.choice(list("ACGT"), 2000)) + "\n")
    rows = "".join(f"a\tm\tCDS\t{s}\t{s + 40}\t.\t+\t0\tID=x{s}\n" for s in range(1, 1900, 90))
    (tmp_path / "a.gff").write_text("##gff-version 3\n" + rows)
    files = {"genome": tmp_path / "g.fa", "annotation": tmp_path / "a.gff"}
    store = prepare(Tracks(**files, length=50, block_bp=100), tmp_path / "store")
    run = Run(
        data=store.path,
        out=tmp_path / "run",
        model=DnaBertConfig(width=16, depth=1, heads=2, hidden=32),
        codec=KmerCodec(k=3, stride=stride),
        objective=TagBases(),
        schedule=Schedule(steps=2, batch=8, lr=5e-3, kind="step"),
        hardware=Hardware(device="cpu", precision="float32", threads=1),
    )
    model = Model.load(train(run).path, device="cpu")
    sequences = {"x": "ACGT" * 10, "y": "ACGTACGTACGT", "z": "GATTACA" * 5}
    table = model.predict(list(sequences.values()))
    assert list(table.columns) == ["track", "runs"]
    for track, runs, sequence in zip(
        table["track"], table["runs"], sequences.values(), strict=True
    ):
        covered = (len(sequence) - 3) // stride * stride + 3
        assert len(track) == len(sequence) and (track[covered:] == -1).all()
        assert set(track[:covered]) <= {0, 1}
        rebuilt = np.full(len(sequence), -1)
        for start, end, name in runs:
            rebuilt[start:end] = model.objective.classes.index(name)
        assert np.array_equal(rebuilt, track)
    alone = model.predict([sequences["y"]])["track"].iloc[0]
    assert np.array_equal(alone, table["track"].iloc[1])
