"""Results in memory: tables that pandas opens with its defaults, provenance beside them, short
text, and a picture where there is one.
"""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sciforge.core.files.results import ROWS_SHOWN, ArrayResult, Metrics, Result, TableResult
from sciforge.errors import ConfigError

FRAME = pd.DataFrame({"name": ["a,b", 'c"d', "é"], "value": [0.1, 1 / 3, np.nan], "n": [1, 2, 3]})
ABOUT = {"checkpoint": "dna-bert-mini", "options": {"length": 200}}


@pytest.mark.parametrize(("ending", "separator"), [(".csv", ","), (".tsv", "\t"), (".CSV", ",")])
def test_a_saved_table_opens_in_pandas_with_defaults(tmp_path, ending, separator):
    path = TableResult(FRAME, ABOUT).save(tmp_path / "deep" / f"t{ending}")
    again = pd.read_csv(path) if separator == "," else pd.read_csv(path, sep=separator)
    pd.testing.assert_frame_equal(again, FRAME)
    assert json.loads((tmp_path / "deep" / "t.json").read_text()) == ABOUT


def test_an_index_is_kept_where_it_is_more_than_row_numbers(tmp_path):
    named = FRAME.set_index(pd.Index(["x", "y", "z"], name="id"))
    again = pd.read_csv(TableResult(named).save(tmp_path / "a.csv"), index_col="id")
    pd.testing.assert_frame_equal(again, named)
    numbered = FRAME.rename_axis("row")
    assert pd.read_csv(TableResult(numbered).save(tmp_path / "b.csv")).columns[0] == "row"
    chosen = FRAME.iloc[[2, 0]]
    assert pd.read_csv(TableResult(chosen).save(tmp_path / "c.csv")).iloc[:, 0].tolist() == [2, 0]


def test_a_table_replaces_neither_its_source_nor_another_kind_of_file(tmp_path):
    source = tmp_path / "input.csv"
    source.write_text("mine")
    result = TableResult(FRAME, sources=[source])
    with pytest.raises(ConfigError, match="input.csv"):
        result.save(source)
    with pytest.raises(ConfigError, match="written as .csv or .tsv"):
        result.save(tmp_path / "t.parquet")
    assert source.read_text() == "mine" and [p.name for p in tmp_path.iterdir()] == ["input.csv"]


def test_long_tables_are_short_in_notebooks():
    for rows in (ROWS_SHOWN, ROWS_SHOWN + 1):
        result = TableResult(pd.DataFrame({"n": range(1000, 1000 + rows)}))
        for text in (repr(result), result._repr_html_()):
            assert str(999 + ROWS_SHOWN) in text and str(1000 + ROWS_SHOWN) not in text
            assert (f"{rows} rows in all" in text) == (rows > ROWS_SHOWN)
        assert len(result) == rows


def test_a_table_is_drawn_on_the_given_axes_or_on_its_own():
    result = TableResult(FRAME, draw=lambda frame, ax: ax.plot(frame["n"]))
    axes = Figure().add_subplot()
    assert result.plot(axes) is axes and axes.lines[0].get_ydata().tolist() == [1, 2, 3]
    own = result.plot()
    assert own is not axes and len(own.lines) == 1
    with pytest.raises(ConfigError, match="has no picture"):
        TableResult(FRAME).plot()
    with pytest.raises(TypeError, match="must define to_pandas"):
        Result().to_pandas()
    assert Result().about == {}


def test_arrays_are_saved_whole_and_the_last_one_as_a_table(tmp_path):
    arrays = {"layer_1": np.arange(4.0).reshape(2, 2), "layer_2": np.ones((2, 3), np.float32)}
    result = ArrayResult(["p", "q"], arrays, ABOUT)
    assert len(result) == 2 and result["layer_1"] is arrays["layer_1"] and result.about == ABOUT
    saved = np.load(result.save(tmp_path / "e.npz"))
    assert saved["names"].tolist() == ["p", "q"] and json.loads(str(saved["provenance"])) == ABOUT
    for name, values in arrays.items():
        np.testing.assert_array_equal(saved[name], values)
        assert saved[name].dtype == values.dtype
    table = pd.read_csv(result.save(tmp_path / "e.csv"))
    assert table.columns.tolist() == ["name", "layer_2_0", "layer_2_1", "layer_2_2"]
    assert table["name"].tolist() == ["p", "q"]


def test_metrics_are_a_dict_and_a_table(tmp_path):
    metrics = Metrics({"loss": 0.25, "<b>": 3.0})
    assert metrics == {"loss": 0.25, "<b>": 3.0} and repr(metrics) == "{'loss': 0.25, '<b>': 3.0}"
    again = pd.read_csv(metrics.save(tmp_path / "m.csv"))
    assert again.values.tolist() == [["loss", 0.25], ["<b>", 3.0]]
    assert "&lt;b&gt;" in metrics._repr_html_() and "<td>0.25</td>" in metrics._repr_html_()
