"""Preparation: bad input is named and nothing is lost; duplicates, splits, leaks; the same bytes
for any worker count.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from sciforge.core.data.store import Store, prepare
from sciforge.errors import ConfigError, DataError
from sciforge.molecules.chemistry.graph import Graph, mol_of_smiles, smiles_of_graph
from sciforge.molecules.data.codec import flags_of
from sciforge.molecules.data.finalization import LEFT_OUT
from sciforge.molecules.data.prepare import Molecules

SHARED = Path(__file__).parents[4] / "shared/data/molecules"
BAD = {
    "C(C": "cannot be parsed",
    "C(C)(C)(C)(C)C": "valence",
    "c1cccc1": "kekulize",
    "CCO.Cl": "several components",
    "[13CH4]": "isotope",
    "*CC": "dummy atom",
    "[Pt]": "Pt",
    "[CH3]": "radical",
    "CC#N>>CC": "cannot be parsed",
}


def made(folder: Path, text: str, name: str = "a.csv", on_error: str = "stop", **options) -> Store:
    file = folder / name
    file.write_text(text)
    options = {"split": "none", **options}
    return prepare(
        Molecules(files=(file,), **options),
        folder / f"store-{len(list(folder.iterdir()))}",
        on_error=on_error,
    )


def rejected(store: Store) -> list[dict]:
    return [json.loads(line) for line in (store.path / "rejected.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("smiles", BAD)
def test_each_bad_molecule_stops_with_its_line_and_reason(tmp_path, smiles):
    with pytest.raises(DataError, match="a.csv:3: .*--on-error skip") as caught:
        made(tmp_path, f"smiles\nCC\n{smiles}\n")
    assert BAD[smiles] in str(caught.value) and "\n" not in str(caught.value)


def test_bad_molecules_are_skipped_into_a_file_and_the_others_kept(tmp_path):
    text = "smiles,note\nCC,\n" + "\n".join(BAD) + "\n,x\n\nCCO\n"
    store = made(tmp_path, text, on_error="skip")
    assert store.column("smiles") == ["CC", "CCO"] and store.column("line").tolist() == [2, 14]
    found = rejected(store)
    assert [r["line"] for r in found] == [*range(3, 3 + len(BAD)), 12]
    assert all(
        reason in record["reason"] for reason, record in zip(BAD.values(), found, strict=False)
    )
    assert "no SMILES here" in found[-1]["reason"]


def test_salts_keep_their_largest_part_and_isotopes_their_element_where_asked(tmp_path):
    store = made(
        tmp_path,
        "smiles\n[Cl].CCN\n[2H]C([2H])([2H])O\n[13CH3]CC\n",
        components="largest",
        isotopes="remove",
    )
    assert store.column("smiles") == ["CCN", "CO", "CCC"]


def test_stereo_is_taken_off_and_counted(tmp_path):
    store = made(tmp_path, "smiles\nC[C@H](N)C(=O)O\nF/C=C/F\nCC\n")
    assert (
        store.column("smiles") == ["CC(N)C(=O)O", "FC=CF", "CC"]
        and store.meta["stereo_removed"] == 2
    )


def test_text_in_a_label_and_an_unknown_split_are_named(tmp_path):
    with pytest.raises(DataError, match="a.csv:3: label 'high' in the column 'y' is no number"):
        made(tmp_path, "smiles,y\nCC,1\nCCC,high\n", labels=("y",))
    for text in ("inf", "1e60"):
        with pytest.raises(DataError, match="is no number"):
            made(tmp_path, f"smiles,y\nCC,{text}\n", labels=("y",))
    with pytest.raises(
        DataError, match="a.csv:3: split 'trian' is not known; did you mean 'train'"
    ):
        made(tmp_path, "smiles,split\nCC,train\nCCC,trian\n", split="column")
    store = made(tmp_path, "smiles,split\nCC,train\nCCC,valid\nCCCC,test\n", split="column")
    assert store.column("split").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "rule, expected, left",
    [
        (
            "first",
            [[1, 0], [2, 1], [1, np.nan], [4, 1]],
            ["", "", "", "", "duplicate", "duplicate"],
        ),
        (
            "mean",
            [[1, np.nan], [3, 1], [1, np.nan], [4, 1]],
            ["", "", "", "", "duplicate", "duplicate"],
        ),
        (
            "drop",
            [[1, np.nan]],
            ["conflicting duplicate"] * 2 + ["", ""] + ["conflicting duplicate"] * 2,
        ),
    ],
)
def test_duplicates_by_rule(tmp_path, rule, expected, left):
    text = "smiles,y,c\nCCO,1,0\nCC,2,1\nCCC,1,\nCCCC,4,1\nOCC,1,1\nC-C,4,1\n"
    store = made(tmp_path, text, labels=("y", "c"), duplicates=rule)
    assert [LEFT_OUT[i] for i in store.column("left_out")] == left
    kept = store.column("label")[store.column("split") == 0]
    if rule == "drop":
        assert kept.tolist()[1] == [4.0, 1.0] and np.isnan(kept[0, 1])
    else:
        np.testing.assert_array_equal(kept, np.array(expected, np.float32))
    assert (
        len(store) == 6
        and sum(store.meta["counts"].values()) + sum(store.meta["left_out"].values()) == 6
    )


def test_molecules_without_any_label_and_leaks_stay_in_the_store_but_in_no_split(tmp_path):
    (tmp_path / "test.csv").write_text("smiles\nCC(=O)[O-].[Na+]\nnonsense\n")
    text = "smiles,y\nCC(=O)O,1\nCCC,\nCCCC,2\n"
    store = made(tmp_path, text, labels=("y",), exclude=(tmp_path / "test.csv",))
    assert [LEFT_OUT[i] for i in store.column("left_out")] == ["excluded", "no label", ""]
    assert [r["smiles"] for r in store.split("train")] == ["CCCC"]
    assert store.meta["left_out"] == {"excluded": 1, "no label": 1}
    with pytest.raises(DataError, match="every molecule is left out"):
        made(tmp_path, "smiles\nCC(O)=O\n", exclude=(tmp_path / "test.csv",))


def test_columns_hold_what_they_say(tmp_path):
    text = "smiles,y\nOC(=O)c1ccccc1,2\n"
    store = made(tmp_path, text, labels=("y",), properties=("size", "logp"), descriptors=True)
    record = store[0]
    mol = mol_of_smiles(record["smiles"])
    hydrogens, flags = flags_of(mol)
    np.testing.assert_array_equal(record["hydrogens"], hydrogens)
    np.testing.assert_array_equal(record["flags"], flags)
    assert record["property"].tolist() == pytest.approx([9, 1.3848])
    names = store.meta["descriptors"]["names"]
    assert record["descriptor"][names.index("MolWt")] == pytest.approx(122.123, abs=1e-3)
    assert record["label"].dtype == np.float32 and store.meta["labels"][0]["name"] == "y"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"files": ()}, "no file"),
        ({"shares": (0.5, 0.5, 0.5)}, "add up to 1"),
        ({"every": 0}, "every is 0"),
        ({"labels": ("y", "y")}, "name each column once"),
        ({"properties": ("logP",)}, "did you mean 'logp'"),
    ],
)
def test_settings_that_cannot_be(tmp_path, options, message):
    (tmp_path / "a.csv").write_text("smiles,y\nCC,1\n")
    with pytest.raises(ConfigError, match=message):
        prepare(Molecules(**{"files": (tmp_path / "a.csv",), **options}), tmp_path / "out")


def test_samples_of_rows(tmp_path):
    text = "smiles\n" + "".join("C" * i + "\n" for i in range(1, 21))
    assert made(tmp_path, text, every=5).column("line").tolist() == [2, 7, 12, 17]
    assert made(tmp_path, text, every=5, limit=2).column("line").tolist() == [2, 7]
    assert made(tmp_path, text, limit=3).column("line").tolist() == [2, 3, 4]


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_workers(tmp_path, monkeypatch):
    chains = ["C" * i + "O" * (i % 2) + "c1ccccc1" * (i % 3 == 0) for i in range(1, 40)]
    for name, rows in (("a", chains[:20]), ("b", chains[10:])):
        with gzip.open(tmp_path / f"{name}.csv.gz", "wt") as file:
            file.write("smiles,y\n" + "".join(f"{s},{len(s)}\n" for s in rows))
    files = (tmp_path / "a.csv.gz", tmp_path / "b.csv.gz")
    preparer = Molecules(files=files, labels=("y",), seed=1)
    one, two = (prepare(preparer, tmp_path / f"w{w}", workers=w) for w in (1, 2))
    assert one.index == two.index and one.digests() == two.digests()
    assert one.meta["left_out"] == {"duplicate": 10}


@pytest.mark.parametrize(
    "name, every",
    [("moleculenet/lipo.csv", 20), ("moleculenet/tox21.csv", 40), ("qm9_smiles.csv.gz", 700)],
)
def test_graphs_give_their_smiles_back(tmp_path, name, every):
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not at hand")
    store = prepare(
        Molecules(files=(SHARED / name,), every=every, components="largest", split="none"),
        tmp_path / "store",
        on_error="skip",
    )
    assert len(store) > 150
    for i in range(len(store)):
        record = store[i]
        graph = Graph(record["atom"], record["bond"][:, :2], record["bond"][:, 2])
        assert smiles_of_graph(graph) == record["smiles"]
