"""What `sciforge prepare molecules` is given is used, refused or named in the store's
notes.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from sciforge.core.data.dataset import as_dataset
from sciforge.core.data.store import Store, prepare
from sciforge.errors import ConfigError, DataError
from sciforge.molecules.chemistry.salts import parent_part
from sciforge.molecules.data.prepare import Molecules


def stored(folder: Path, text: str, name: str = "a.csv", **options) -> Store:
    (folder / name).write_text(text)
    options = {"split": "none", **options}
    return prepare(Molecules(files=folder / name, **options), folder / "store")


def notes(folder: Path, text: str, name: str = "a.csv", **options) -> str:
    return "\n".join(stored(folder, text, name, **options).meta.get("notes", ()))


@pytest.mark.parametrize("values", ["0 1 2 2", "-1 1 1 -1", "0 1 -1 1"])
def test_classes_as_whole_numbers_are_told(tmp_path, values):
    rows = "".join(f"{'C' * (i + 1)},{v}\n" for i, v in enumerate(values.split()))
    assert "y holds" in notes(tmp_path, f"smiles,y\n{rows}", labels=("y",))


@pytest.mark.parametrize("values", ["0 1 1 0", "0.0 1.0 0.0 1.0", "1 2 3 4", "0.5 1.5 2.5 0.5"])
def test_yes_or_no_and_quantities_are_not_questioned(tmp_path, values):
    rows = "".join(f"{'C' * (i + 1)},{v}\n" for i, v in enumerate(values.split()))
    assert notes(tmp_path, f"smiles,y\n{rows}", labels=("y",)) == ""


def test_classes_as_text_say_how_to_write_them(tmp_path):
    with pytest.raises(DataError, match="'active'.*yes and no are 1 and 0"):
        stored(tmp_path, "smiles,y\nCC,active\n", labels=("y",))


def test_nan_is_a_missing_label_and_counted(tmp_path):
    text = "smiles,y,z\nCC,NaN,1.5\nCCC,2.5,\nCCCC,1.5,2.5\n"
    store = stored(tmp_path, text, labels=("y", "z"))
    assert np.isnan(store.column("label")).sum() == 2
    assert {"1 labels of y missing", "1 labels of z missing"} <= set(store.meta["notes"])


def test_labels_of_duplicates_that_differ_are_counted(tmp_path):
    text = "smiles,y\nC[C@H](N)O,1.5\nC[C@@H](N)O,9.5\nCC,3.5\nCC,3.5\n"
    for rule, done in (("mean", "averaged"), ("first", "first is used"), ("drop", "left out")):
        folder = tmp_path / rule
        folder.mkdir()
        told = notes(folder, text, labels=("y",), duplicates=rule)
        assert "1 molecules come several times with labels that differ" in told and done in told


def test_columns_that_are_not_used_are_named(tmp_path):
    text = "smiles,id,y,assay,split\nCC,a,1.5,x,train\nCCC,b,2.5,x,test\n"
    told = notes(tmp_path, text, labels=("y",))
    assert "columns of a.csv not used: assay, split; to use its splits: --split column" in told


def record(smiles: str, **properties: str) -> str:
    block = Chem.MolToMolBlock(Chem.MolFromSmiles(smiles))
    fields = "".join(f">  <{name}>\n{value}\n\n" for name, value in properties.items())
    return f"{block}{fields}$$$$\n"


def test_properties_of_an_sdf_are_named_and_a_misspelt_label_is_refused(tmp_path):
    text = record("CC", logS="1.5", source="x") + record("CCC", logS="2.5", source="y")
    assert "columns of a.sdf not used: source" in notes(tmp_path, text, "a.sdf", labels=("logS",))
    with pytest.raises(DataError, match="2 no label.*no value of 'LogS': did you mean 'logS'"):
        prepare(Molecules(files=tmp_path / "a.sdf", labels=("LogS",)), tmp_path / "refused")


def test_a_shifted_row_and_a_column_named_twice_are_refused(tmp_path):
    with pytest.raises(DataError, match="a.csv:2: 4 cells under 3 columns"):
        stored(tmp_path, "smiles,name,y\nCC,a, b,1\n", labels=("y",))
    with pytest.raises(DataError, match="a.csv:3: 1 cells under 2 columns"):
        stored(tmp_path, "smiles,y\nCC,1\nCCC\n", labels=("y",))
    with pytest.raises(DataError, match="two columns are called 'smiles'"):
        stored(tmp_path, "smiles,smiles\nCC,CCC\n")


def test_an_extended_smiles_of_a_list_keeps_its_radical(tmp_path):
    with pytest.raises(DataError, match="radical"):
        stored(tmp_path, "CC |^1:0| ethyl\n", "a.smi")
    assert stored(tmp_path, "CC |c:0| ethane\n", "b.smi").column("name") == ["ethane"]


def test_atom_maps_do_not_make_another_molecule(tmp_path):
    store = stored(tmp_path, "smiles\n[CH3:1][CH2:2]O\nCCO\n")
    assert store.column("smiles") == ["CCO", "CCO"] and store.meta["left_out"] == {"duplicate": 1}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"split_column": "fold"}, "split_column is not used"),
        ({"split": "column", "shares": (0.5, 0.5, 0.0)}, "shares is not used"),
    ],
)
def test_options_that_would_change_nothing_are_refused(tmp_path, options, match):
    with pytest.raises(ConfigError, match=match):
        stored(tmp_path, "smiles,split\nCC,train\n", **options)
    with pytest.raises(ConfigError, match="smiles_column is not used"):
        stored(tmp_path, "CC\n", "a.smi", smiles_column="structure")


def test_salts_and_isotopes_are_counted(tmp_path):
    text = "smiles\nCCN.Cl\nCC(=O)[O-].[Na+]\nc1ccc2ccccc2c1.c1ccsc1\n[13CH3]CC\nCC\n"
    told = notes(tmp_path, text, components="largest", isotopes="remove")
    assert "3 salts or mixtures" in told and "1 mixtures of several molecules" in told
    assert "1 molecules with isotopes" in told


@pytest.mark.parametrize(
    ("mixture", "part", "doubtful"),
    [
        ("CN1CCCN=C1C=Cc1cccs1.OC(=O)c1cc2ccccc2c(Cc2c(O)c(C(O)=O)cc3ccccc23)c1O", 0, False),
        ("CC(N)Cc1ccccc1.CC(N)Cc1ccccc1.OS(=O)(=O)O", 0, False),
        ("CCN(CC)CC.CC(C)Cc1ccc(cc1)C(C)C(O)=O", 1, False),
        ("[Na+].[O-]C(=O)c1ccccc1", 1, False),
        ("C[NH+](C)CCc1ccccc1.[O-]C(=O)/C=C/C(=O)O", 0, False),
        ("O.OCC.CCO", 1, False),
        ("CC(=O)Nc1ccc(O)cc1.Cn1cnc2c1c(=O)n(C)c(=O)n2C", 1, True),
    ],
)
def test_the_part_that_is_no_counter_ion_is_meant(mixture, part, doubtful):
    kept, in_doubt = parent_part(Chem.MolFromSmiles(mixture))
    expected = Chem.MolFromSmiles(mixture.split(".")[part])
    assert (Chem.MolToSmiles(kept), in_doubt) == (Chem.MolToSmiles(expected), doubtful)


def test_an_infinite_label_in_memory_is_refused():
    with pytest.raises(DataError, match="input 1: label .*inf.* of 'y' is no number"):
        as_dataset(["CC", "CCC"], pd.DataFrame({"y": [1.0, np.inf]}), domain="molecules")
