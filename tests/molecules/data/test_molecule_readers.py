"""Files of molecules: every format, ranges that join to the whole, and what is said of damaged
ones.
"""

import gzip
from pathlib import Path

import pytest
from rdkit import Chem

from sciforge.errors import ConfigError, DataError
from sciforge.molecules.data.readers import Part, kind_of, parts_of, read_part


def whole(path: Path, *columns: str, smiles: str = "smiles"):
    return [entry for part in parts_of(path) for entry in read_part(part, smiles, columns)]


def test_lists_of_smiles_with_names_blank_lines_and_a_header(tmp_path):
    path = tmp_path / "a.smi"
    path.write_text("SMILES\nCCO ethanol\n\nc1ccccc1\tbenzene ring\n")
    entries = whole(path)
    assert [(e.text, e.name, e.line) for e in entries] == [
        ("CCO", "ethanol", 2),
        ("c1ccccc1", "benzene ring", 4),
    ]


@pytest.mark.parametrize("delimiter, suffix", [(",", ".csv"), ("\t", ".tsv"), (";", ".csv")])
def test_tables_with_any_delimiter(tmp_path, delimiter, suffix):
    path = tmp_path / f"a{suffix}"
    rows = [["name", "Smiles", "y"], ["one", "CCO", "1.5"], ["two", "CC", ""]]
    path.write_text(
        "\ufeff" + "\n".join(delimiter.join(row) for row in rows) + "\n", encoding="utf-8"
    )
    entries = whole(path, "y")
    assert [(e.name, e.text, e.cells, e.line) for e in entries] == [
        ("one", "CCO", ("1.5",), 2),
        ("two", "CC", ("",), 3),
    ]


def test_ranges_join_to_the_whole_and_a_cell_over_lines_keeps_a_file_whole(tmp_path):
    path = tmp_path / "a.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("smiles\n" + "".join(f"{'C' * (i % 9 + 1)}\n" for i in range(100)))
    assert [part.start for part in parts_of(path, rows=30)] == [0, 30, 60, 90]
    found = [entry for part in parts_of(path, rows=30) for entry in read_part(part, "smiles", ())]
    assert found == whole(path) and len(found) == 100 and found[-1].line == 101
    quoted = tmp_path / "b.csv"
    quoted.write_text('smiles,note\nCC,"two\nlines"\nCCC,plain\n')
    assert len(parts_of(quoted, rows=1)) == 1
    assert [e.text for e in whole(quoted, "note")] == ["CC", "CCC"]


def test_sdf_with_properties_and_without_a_last_end_mark(tmp_path):
    path = tmp_path / "a.sdf.gz"
    blocks = []
    for smiles, value in (("CCO", "1.5"), ("c1ccccc1", "2")):
        mol = Chem.MolFromSmiles(smiles)
        mol.SetProp("_Name", smiles)
        blocks.append(Chem.MolToMolBlock(mol) + f"> <y>\n{value}\n\n")
    with gzip.open(path, "wt") as file:
        file.write("$$$$\n".join(blocks))
    entries = whole(path, "y")
    assert [(e.name, e.cells) for e in entries] == [("CCO", ("1.5",)), ("c1ccccc1", ("2",))]
    assert [Chem.MolToSmiles(e.mol()) for e in entries] == ["CCO", "c1ccccc1"]
    with pytest.raises(DataError, match="no valid SDF record"):
        next(read_part(Part(_written(tmp_path / "bad.sdf", "x\n$$$$\n"), 0, 1), "smiles", ())).mol()


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_what_cannot_be_read_is_said_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="'.xlsx' is not one of"):
        kind_of(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match="No such file"):
        parts_of(tmp_path / "none.smi")
    table = _written(tmp_path / "a.csv", "structure,y\nCC,1\n")
    with pytest.raises(DataError, match="a.csv:1: no column 'smiles' in the header"):
        whole(table)
    with pytest.raises(DataError, match="known: structure, y"):
        whole(table, "Y", smiles="structure")
    with pytest.raises(ConfigError, match="has no column 'y'"):
        whole(_written(tmp_path / "a.smi", "CC\n"), "y")
    cut = tmp_path / "cut.smi.gz"
    cut.write_bytes(gzip.compress(b"CC\n" * 1000)[:-9])
    with pytest.raises(DataError, match="not a whole gzip file"):
        whole(cut)
