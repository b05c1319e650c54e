"""Users' own sequences: strings, Bio.Seq and arrays are one thing, and what is none of them is
named by its place.
"""

import numpy as np
import pandas as pd
import pytest
from genome_files import MOTIF, PLACE, WINDOW, changed, codes, letters
from tiny_runs import assert_saves_itself

from sciforge.core.data.store import Store, prepare
from sciforge.errors import ConfigError, DataError
from sciforge.genomes import Classify, Regress, Sequences, TagBases, Tracks
from sciforge.genomes.inference.inputs import SequenceInputs
from sciforge.genomes.inference.recipes import RECIPES

INPUTS = SequenceInputs()


def task(seed, count=40):
    """Return windows, every second one with a motif in its place, and whether it is there."""
    rng = np.random.default_rng(seed)
    sequences = [letters(rng, WINDOW) for _ in range(count)]
    return [changed(s, PLACE, MOTIF) if n % 2 else s for n, s in enumerate(sequences)], [
        n % 2 for n in range(count)
    ]


def test_strings_seqs_records_and_codes_are_one_record():
    from Bio.Seq import Seq
    from Bio.SeqRecord import SeqRecord

    kinds = [
        "ACGTnNacg",
        Seq("ACGTnNacg"),
        SeqRecord(Seq("ACGTnNacg"), id="x"),
        codes("ACGTnNacg"),
        " ACGTnNacg\n",
    ]
    records = INPUTS.records(kinds)
    assert all(np.array_equal(record["bases"], codes("ACGTnNacg")) for record in records)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("GTGGGG TGGGGA GGGGAG", "overlapping 6-mers"),
        ("the promoter", "blanks within"),
        ("ACGJ", "letter 'J'"),
        ("", "empty"),
        (None, "NoneType is no sequence"),
        (7, "int is no sequence"),
        (np.array([[0, 1]]), "one-dimensional"),
        (np.array([0, 7]), "codes"),
    ],
)
def test_what_is_no_sequence_is_named_by_its_place(value, fault):
    with pytest.raises(DataError, match=r"^input 1: ") as error:
        INPUTS.records(["ACGT", value])
    assert fault in str(error.value) and "\n" not in str(error.value)


def test_memory_and_file_give_the_same_store(tmp_path):
    sequences, labels = task(1)
    split = ["train"] * 20 + ["dev"] * 10 + ["test"] * 10
    rows = [
        f"input {n},{s},{y},{p}\n"
        for n, (s, y, p) in enumerate(zip(sequences, labels, split, strict=True))
    ]
    (tmp_path / "t.csv").write_text("name,sequence,label,split\n" + "".join(rows))
    filed = prepare(Sequences(files=tmp_path / "t.csv"), tmp_path / "file")
    targets = pd.DataFrame({"label": labels})
    held = prepare(INPUTS.preparer(sequences, targets, split=split, seed=0), tmp_path / "memory")
    assert held.digests() == filed.digests()
    assert held.meta["classes"] == filed.meta["classes"] == ["0", "1"]
    assert [len(held.split(name)) for name in ("train", "validation", "test")] == [20, 10, 10]


def test_missing_labels_are_left_out_and_counted(tmp_path):
    targets = pd.DataFrame({"strength": [0.5, np.nan, 2.5]})
    store = prepare(
        INPUTS.preparer(["ACGT", "CCCC", "GGGG"], targets, split=None, seed=0), tmp_path / "s"
    )
    assert store.column("value").tolist() == [0.5, 2.5] and store.meta["target"] == "strength"
    assert store.meta["notes"] == ["1 inputs without a label left out"]


def test_the_recipe_follows_the_labels(tmp_path):
    def objective(labels, recipe="few-labels"):
        out = tmp_path / f"{recipe}-{len(list(tmp_path.iterdir()))}"
        prepare(INPUTS.preparer(["ACGT"] * 4, pd.DataFrame({"y": labels}), split=None, seed=0), out)
        return RECIPES[recipe].settings(Store.open(out), None)["objective"]

    for labels in (["a", "b", "a", "b"], [0, 1, 0, 1], [True, False, True, False]):
        assert isinstance(objective(labels), Classify)
    assert isinstance(objective([0.5, 1.0, 1.5, 2.0]), Regress)
    assert objective([0, 1, 0, 1], "strand-free").strand_free
    with pytest.raises(ConfigError, match="one target"):
        INPUTS.preparer(["AC"], pd.DataFrame({"a": [1], "b": [2]}), split=None, seed=0)
    (tmp_path / "g.fa").write_text(">c\n" + "ACGT" * 200 + "\n")
    (tmp_path / "g.bed").write_text("c\t10\t90\n")
    tracks = Tracks(
        genome=tmp_path / "g.fa",
        annotation=tmp_path / "g.bed",
        kinds=("region",),
        length=40,
        block_bp=80,
    )
    store = prepare(tracks, tmp_path / "tracks")
    assert isinstance(RECIPES["few-labels"].settings(store, None)["objective"], TagBases)


def test_a_fitted_model_gives_a_row_for_each_input_and_keeps_the_index(pretrained, tmp_path):
    sequences, labels = task(2)
    model = pretrained.fit(sequences, labels, seed=0, out=tmp_path / "run", verbose=False)
    inputs = pd.Series(sequences[:5], index=list("vwxyz"))
    table = model.predict(inputs)
    assert table.index.tolist() == list("vwxyz") and list(table.columns) == ["label", "probability"]
    assert table["label"].dtype.kind == "i"  # whole numbers, as they were given
    assert table["label"].tolist() == (table["probability"] > 0.5).astype(int).tolist()
    assert model.embed(sequences[:3]).shape == (3, 16)
    assert model.evaluate(*task(3))["accuracy"] > 0.6
    assert_saves_itself(model, tmp_path / "saved", inputs, *task(3))


def test_numbers_come_back_under_their_name(pretrained):
    sequences, labels = task(4)
    data = pd.DataFrame({"sequence": sequences, "strength": [float(y) * 3 for y in labels]})
    model = pretrained.fit(data, input="sequence", target="strength", verbose=False)
    table = model.predict(sequences[:6])
    assert list(table.columns) == ["strength"]
    assert np.corrcoef(table["strength"], data["strength"][:6])[0, 1] > 0.8


def test_three_classes_have_a_column_each(pretrained):
    sequences, _ = task(5, 30)
    model = pretrained.fit(
        sequences, [("a", "b", "c")[n % 3] for n in range(30)], recipe="solved-head", verbose=False
    )
    table = model.predict(sequences[:4])
    assert list(table.columns) == ["label", "probability_a", "probability_b", "probability_c"]
    assert table.iloc[:, 1:].sum(axis=1).to_numpy() == pytest.approx(np.ones(4), abs=1e-6)
