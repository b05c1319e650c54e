"""Datasets and checkpoints by name: `sf.datasets.find("solubility")`, `list()`, `fetch(...)`."""

from sciforge.catalog import fetch, find
from sciforge.core.files.results import TableResult

__all__ = ["fetch", "find", "list"]


def list() -> TableResult:
    """Return all datasets and checkpoints as a table: name, kind, size, whether it is here,
    licence, summary.
    """
    import pandas as pd

    from sciforge.catalog import table

    cards = table()
    return TableResult(pd.DataFrame(cards.rows, columns=cards.columns))
