"""Users' own texts: in memory as in files, and what is none of them is named by its place."""

import numpy as np
import pandas as pd
import pytest
from tiny_runs import assert_saves_itself, make_tiny

from sciforge.core.data.store import Store, prepare
from sciforge.core.training.model import Model
from sciforge.errors import DataError
from sciforge.text import ClassifyDocuments, Documents, RateDocuments, TagWords
from sciforge.text.inference.inputs import TextInputs
from sciforge.text.inference.recipes import RECIPES

INPUTS = TextInputs()
TEXTS = [
    f"The {'silver' if n % 2 else 'wooden'} spoon of number {n} lies there." for n in range(30)
]
LABELS = ["fine" if n % 2 else "plain" for n in range(30)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Model:
    """The tiny pretrained checkpoint."""
    return Model.load(
        make_tiny("text", tmp_path_factory.mktemp("inputs")).checkpoint.path, device="cpu"
    )


def test_memory_and_file_give_the_same_store(tmp_path):
    split = ["train"] * 20 + ["val"] * 5 + ["test"] * 5
    table = pd.DataFrame(
        {"id": [f"input {n}" for n in range(30)], "text": TEXTS, "label": LABELS, "split": split}
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    filed = prepare(
        Documents(files=tmp_path / "t.csv", label_column="label", split_column="split"),
        tmp_path / "file",
    )
    held = prepare(
        INPUTS.preparer(TEXTS, table[["label"]], split=split, seed=0), tmp_path / "memory"
    )
    assert filed.meta.pop("notes") == ["splits taken from the column split"]
    assert held.meta == filed.meta
    for one, other in zip(held, filed, strict=True):
        assert {k: v for k, v in one.items() if k not in ("line", "sentences")} == {
            k: v for k, v in other.items() if k not in ("line", "sentences")
        }
        assert np.array_equal(one["sentences"], other["sentences"])


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (" \n ", "empty"),
        ("...", "no letter"),
        (None, "NoneType is no text"),
        (b"a", "bytes is no text"),
        (["a", ""], "a word"),
    ],
)
def test_what_is_no_text_is_named_by_its_place(value, fault):
    with pytest.raises(DataError, match=r"^input 1: ") as error:
        INPUTS.records(["A room.", value])
    assert fault in str(error.value)


def test_the_recipe_follows_the_labels(tmp_path):
    kinds = {
        ClassifyDocuments: [n % 2 for n in range(30)],
        RateDocuments: [n / 2 for n in range(30)],
        TagWords: [["O"] * 8 for _ in range(30)],
    }
    for kind, labels in kinds.items():
        store = tmp_path / kind.__name__
        prepare(
            INPUTS.preparer(TEXTS, pd.Series(labels, name="y").to_frame(), split=None, seed=0),
            store,
        )
        assert isinstance(
            RECIPES["few-labels"].settings(Store.open(store), None)["objective"], kind
        )
    with pytest.raises(DataError, match="input 0: 8 words but 2 tags"):
        INPUTS.preparer(TEXTS[:1], pd.Series([["O", "O"]]).to_frame(), split=None, seed=0)


def test_a_fitted_model_gives_a_row_for_each_text(plain, tmp_path, capsys):
    model = plain.fit(
        pd.DataFrame({"t": TEXTS, "y": LABELS, "extra": 1}), input="t", target="y", verbose=False
    )
    table = model.predict(pd.Series(TEXTS[:4], index=[9, 8, 7, 6]))
    assert table.index.tolist() == [9, 8, 7, 6] and table["label"].tolist() == LABELS[:4]
    assert_saves_itself(model, tmp_path / "saved", TEXTS[:4], TEXTS, LABELS)
    shine = pd.Series([float(n % 2) for n in range(30)], name="shine")
    rated = plain.fit(TEXTS, shine.where(shine.index > 2))
    printed = capsys.readouterr().out
    assert "fit: 27 training records" in printed and "3 inputs without a label dropped" in printed
    assert list(rated.predict(TEXTS[:2]).columns) == ["shine"]
    assert plain.embed(TEXTS[:3]).shape == (3, 16)


def test_texts_without_a_label_are_left_out_and_counted(tmp_path):
    labels = pd.DataFrame({"y": ["a", None, "b"]})
    store = prepare(INPUTS.preparer(TEXTS[:3], labels, split=None, seed=0), tmp_path / "s")
    assert len(store) == 2 and "1 inputs without a label left out" in store.meta["notes"]
