"""Grids of runs continue where they stopped, and refuse what was made under other settings."""

import json

import numpy as np
import pytest

from sciforge.core.files.atomic import try_lock
from sciforge.errors import ConfigError
from sciforge.experiments.grid import Grid, cell_name, open_folder, scratch

CELLS = [("a", 1), ("a", 2), ("b", 1)]


def square(name, number):
    return {"value": number**2, "without": (1.0, float("nan"))}


def test_runs_are_made_once_and_read_in_order(tmp_path):
    grid = Grid.open(tmp_path, ("name", "number"), {"x": 1}, "a test")
    first = grid.run(CELLS, square, "test")
    assert [row["value"] for row in first] == [1, 4, 1] and first[0]["without"][0] == 1.0
    again = Grid.open(tmp_path, ("name", "number"), {"x": 1}, "a test")
    assert again.missing([*CELLS, ("b", 2)]) == [("b", 2)]
    rows = again.run([("b", 1), ("a", 2)], lambda *cell: pytest.fail("made again"), "test")
    assert [(row["name"], row["number"]) for row in rows] == [("b", 1), ("a", 2)]
    assert np.isnan(rows[0]["without"][1])


def test_a_kill_at_any_byte_loses_at_most_one_run(tmp_path):
    grid = Grid.open(tmp_path, ("name", "number"), {}, "a test")
    grid.run(CELLS, square, "test")
    whole = (tmp_path / "runs.jsonl").read_bytes()
    for length in range(len(whole) + 1):
        (tmp_path / "runs.jsonl").write_bytes(whole[:length])
        again = Grid.open(tmp_path, ("name", "number"), {}, "a test")
        assert len(again.rows) == whole[:length].count(b"\n")
        again.run(CELLS, square, "test")
        assert (tmp_path / "runs.jsonl").read_bytes() == whole


def test_other_settings_are_refused_unless_they_are_added(tmp_path):
    Grid.open(tmp_path, ("n",), {"x": 1, "y": [1, 2]}, "a curve").add((0,), {})
    with pytest.raises(ConfigError, match="holds a curve with another y; use the same one"):
        Grid.open(tmp_path, ("n",), {"x": 1, "y": [1]}, "a curve")
    with pytest.raises(ConfigError, match="another z"):
        Grid.open(tmp_path, ("n",), {"x": 1, "z": 3}, "a curve")
    Grid.open(tmp_path, ("n",), {"x": 1, "z": 3}, "a curve", may_grow=True)
    assert json.loads((tmp_path / "spec.json").read_text())["z"] == 3
    (tmp_path / "spec.json").unlink()
    with pytest.raises(ConfigError, match="runs.jsonl without spec.json"):
        Grid.open(tmp_path, ("n",), {"x": 1}, "a curve")


def test_a_damaged_line_is_named(tmp_path):
    Grid.open(tmp_path, ("n",), {}, "a curve").add((0,), {"x": 1})
    log = tmp_path / "runs.jsonl"
    log.write_text("{]\n" + log.read_text())
    with pytest.raises(ConfigError, match="runs.jsonl:1: damaged; delete this line"):
        Grid.open(tmp_path, ("n",), {}, "a curve")
    log.write_text('{"m": 1}\n')
    with pytest.raises(ConfigError, match="a line without 'n'"):
        Grid.open(tmp_path, ("n",), {}, "a curve")


def test_arrays_are_written_beside_the_log(tmp_path):
    ragged = np.empty(2, object)
    ragged[:] = [np.arange(3), np.arange(2)]
    results = {"arrays": {"p": np.eye(2), "r": ragged}, "v": 1}
    row = Grid.open(tmp_path, ("n",), {}, "a curve").add(("x:y",), results)
    assert row == {"n": "x:y", "v": 1} and "arrays" in results  # the caller's own stays as it is
    assert "arrays" not in (tmp_path / "runs.jsonl").read_text()
    with np.load(tmp_path / "arrays" / "x-y.npz") as stored:
        assert (stored["p"] == np.eye(2)).all()
        assert stored["r"].tolist() == [0, 1, 2, 0, 1] and stored["r.lengths"].tolist() == [3, 2]


def test_a_folder_is_locked_and_swept(tmp_path):
    out = tmp_path / "out"
    (out / ".run-stale").mkdir(parents=True)
    with open_folder(out) as folder:
        assert folder == out and not list(out.glob(".run-*")) and try_lock(out) is None
        with pytest.raises(ConfigError, match="another process"), open_folder(out):
            pass
        with scratch(folder) as work:
            (work / "file").write_text("x")
        assert not work.exists()
    with pytest.raises(KeyError), open_folder(None) as folder:
        raise KeyError
    assert not folder.exists()


def test_names_of_cells_are_file_names():
    assert cell_name(("a/b:c", 1e4, 0)) == "a-b-c_10000_0"
