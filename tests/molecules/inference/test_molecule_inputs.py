"""Users' own molecules: SMILES, RDKit molecules and tables as records and stores, predictions as
columns of a table.
"""

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem
from tiny_runs import assert_saves_itself

from sciforge.core.data.dataset import as_dataset
from sciforge.core.data.store import prepare
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.errors import ConfigError, DataError
from sciforge.molecules import DOMAIN, MoleculeNetConfig, Molecules, PredictDescriptors

PARTS = ("C", "CC", "CO", "CN", "C(=O)O", "C#N", "c1ccccc1", "C1CC1")
SMILES = [f"C({a})CC{b}" for a in PARTS for b in PARTS]
TABLE = pd.DataFrame(
    {
        "smiles": SMILES,
        "size": [len(s) + 0.5 for s in SMILES],
        "ring": [int("1" in s) for s in SMILES],
    },
    index=[f"row {i}" for i in range(len(SMILES))],
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Model:
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "a.smi").write_text("\n".join(SMILES) + "\n")
    options = {"split": "random", "shares": (0.8, 0.2, 0.0), "descriptors": True}
    store = prepare(Molecules(files=folder / "a.smi", **options), folder / "store")
    run = Run(
        data=store.path,
        out=folder / "run",
        model=MoleculeNetConfig(width=16, depth=1, heads=2),
        objective=PredictDescriptors(),
        schedule=Schedule(steps=2, batch=16),
        hardware=Hardware(threads=1),
    )
    return Model.load(train(run).path, "cpu")


def test_molecules_in_memory_are_the_store_that_their_file_gives(tmp_path):
    table = TABLE.reset_index(drop=True)
    table.to_csv(tmp_path / "a.csv", index=False)
    options = {
        "labels": ("size", "ring"),
        "split": "none",
        "components": "largest",
        "isotopes": "remove",
    }
    expected = prepare(Molecules(files=tmp_path / "a.csv", **options), tmp_path / "files")
    preparer = DOMAIN.inputs.preparer(SMILES, table[["size", "ring"]], split=None, seed=0)
    store = prepare(preparer, tmp_path / "memory")
    for name in ("atom", "bond", "hydrogens", "flags", "smiles", "label", "split", "group"):
        assert all(
            np.array_equal(store[i][name], expected[i][name]) for i in range(len(expected))
        ), name
    assert store.meta == expected.meta


def test_smiles_molecules_and_rows_are_one_thing():
    forms = [
        "OCC",
        Chem.MolFromSmiles("CCO"),
        {"smiles": "C(O)C"},
        pd.Series({"smiles": "CCO", "id": 3}),
    ]
    assert {record["smiles"] for record in DOMAIN.inputs.records(forms)} == {"CCO"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("C(C", "cannot be parsed"),
        (None, "no SMILES"),
        (float("nan"), "no SMILES"),
        (7, "int"),
        ("[Pt]", "valence"),
    ],
)
def test_a_bad_molecule_is_named_by_its_place(value, message):
    with pytest.raises(DataError, match=f"input 1: .*{message}"):
        DOMAIN.inputs.records(["CCO", value])


def test_parts_of_a_salt_are_dropped_with_a_warning():
    with pytest.warns(UserWarning, match="1 of 2 inputs have several parts"):
        records = DOMAIN.inputs.records(["CCO", "CC(=O)[O-].[Na+]"])
    assert records[1]["smiles"] == "CC(=O)[O-]"


def test_what_is_not_used_is_counted_and_what_cannot_be_read_is_refused():
    smiles = ["CCO", "OCC", "C[Pt]", "CC(=O)[O-].[Na+]", "C[C@H](N)O", "CCN"]
    labels = pd.DataFrame({"y": [1.0, 2.0, 3.0, 4.0, 5.0, np.nan]})
    dataset = as_dataset(smiles, labels, domain="molecules")
    notes = "; ".join(dataset.notes)
    for part in (
        "1 molecule not used, the first: input 2",
        "1 left out: duplicate",
        "1 salts or mixtures",
    ):
        assert part in notes
    assert "stereochemistry of 1 molecules" in notes
    assert dataset.to_pandas("train")[["smiles", "y"]].values.tolist()[0] == ["CCO", 1.5]
    with pytest.raises(DataError, match="input 1: .*no valid SMILES"):
        as_dataset(["CCO", "C(C"], labels.iloc[:2], domain="molecules")
    with pytest.raises(DataError, match="input 1: label 'high' of 'y' is no number"):
        as_dataset(["CCO", "CCN"], pd.DataFrame({"y": [1, "high"]}), domain="molecules")


def test_fit_predict_evaluate_and_embed_keep_the_table(encoder, capsys, tmp_path):
    model = encoder.fit(TABLE, input="smiles", target=["size", "ring"], labels=30)
    printed = capsys.readouterr().out
    assert "30 of" in printed and "few-labels" in printed
    table = model.predict(TABLE, input="smiles")
    assert table.index.tolist() == TABLE.index.tolist()
    assert table.columns.tolist() == [
        "size",
        "size_lower",
        "size_upper",
        "ring",
        "ring_probability",
    ]
    assert (table["size_lower"] < table["size"]).all() and (
        table["size"] < table["size_upper"]
    ).all()
    assert (table["ring"] == (table["ring_probability"] > 0.5)).all()
    assert model.evaluate(TABLE, input="smiles", target=["size", "ring"])["ring/auroc"] > 0.9
    assert model.embed(SMILES[:5]).shape[0] == 5
    columns = {"input": "smiles", "target": ["size", "ring"]}
    assert_saves_itself(model, tmp_path / "saved", TABLE, TABLE, **columns)


def test_one_yes_or_no_property_has_a_label_and_a_probability(encoder):
    model = encoder.fit(SMILES, TABLE["ring"].to_numpy(), verbose=False)
    table = model.predict(SMILES)
    assert (
        table.columns.tolist() == ["label", "probability"]
        and (table["label"] == TABLE["ring"].to_numpy()).mean() > 0.9
    )


def test_recipes_refuse_what_they_cannot_use(encoder):
    with pytest.raises(ConfigError, match="there are no labels; give targets"):
        encoder.fit(SMILES, verbose=False)
    with pytest.raises(ConfigError, match="is no generator"):
        encoder.fit(SMILES, recipe="generator", verbose=False)


def test_an_encoder_predicts_descriptors_in_their_own_units(encoder):
    table = encoder.predict(["CCO"])
    assert "MolWt" in table.columns and np.isfinite(table["MolWt"]).all()
