"""What `check` returns: every law with its violation, as a sequence, a table and a file."""

import math

import pandas as pd
import pytest

from sciforge.core.training.laws import CheckResult, LawResult
from sciforge.errors import ConfigError

KEPT = LawResult("symmetry", "Mirrored inputs have mirrored outputs.", 1e-9, 1e-8)
BROKEN = LawResult("balance", "What goes in comes out.", 0.5, 1e-3)


def test_a_law_holds_up_to_its_tolerance_and_never_for_nan():
    assert LawResult("a", "", 1e-8, 1e-8).holds and not LawResult("a", "", 1.1e-8, 1e-8).holds
    assert not LawResult("a", "", math.nan, 1e-8).holds
    assert CheckResult([KEPT]).holds and not CheckResult([KEPT, BROKEN]).holds


def test_a_check_is_a_sequence_and_a_table(tmp_path):
    result = CheckResult([KEPT, BROKEN])
    assert len(result) == 2 and list(result) == [KEPT, BROKEN] and result[1] is BROKEN
    table = result.to_pandas()
    assert table.columns.tolist() == ["law", "violation", "tolerance", "holds", "what it says"]
    assert table.values.tolist() == [
        ["symmetry", 1e-9, 1e-8, True, KEPT.summary],
        ["balance", 0.5, 1e-3, False, BROKEN.summary],
    ]
    assert "balance" in repr(result) and "<table" in result._repr_html_()
    assert [law["holds"] for law in result.to_json()] == [True, False]
    assert result.to_json()[1]["violation"] == 0.5
    again = pd.read_csv(result.save(tmp_path / "laws.csv"))
    pd.testing.assert_frame_equal(again, table)
    with pytest.raises(ConfigError, match="CheckResult has no picture"):
        result.plot()
