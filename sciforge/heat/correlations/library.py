"""The library of published correlations, by name."""

from collections.abc import Iterable

from sciforge.core.files.tables import Table
from sciforge.errors import ConfigError, did_you_mean
from sciforge.heat.correlations.correlation import Correlation
from sciforge.heat.correlations.ribbed import RIBBED
from sciforge.heat.correlations.smooth import DUCT, PLATE

CORRELATIONS: dict[str, Correlation] = {law.name: law for law in (*PLATE, *DUCT, *RIBBED)}


def get_correlation(name: str) -> Correlation:
    """Return the correlation of a name; raises ConfigError, with the nearest name, for an unknown
    one.

    >>> get_correlation("gnielinski").kind
    'duct'
    """
    if name not in CORRELATIONS:
        raise ConfigError(f"no correlation {name!r}; {did_you_mean(name, CORRELATIONS)}")
    return CORRELATIONS[name]


def table(names: Iterable[str] = ()) -> Table:
    """Return name, kind, range, stated accuracy and source of correlations, of all by default;
    raises ConfigError.

    >>> print(table(["colburn"]).text())
    name     kind  range                      accuracy    source
    -------  ----  -------------------------  ----------  ---------------------------------
    colburn  duct  Re 10000-100000, Pr 0.5-3  not stated  Colburn 1933; IJHMT 7 (1964) 1359
    """
    laws = [get_correlation(name) for name in names] or list(CORRELATIONS.values())
    rows = tuple((law.name, law.kind, _range(law), law.accuracy_says, _source(law)) for law in laws)
    return Table(("name", "kind", "range", "accuracy", "source"), rows)


def _range(law: Correlation) -> str:
    spans = [
        f"{name} {low:g}" + (f"-{high:g}" if high > low else "")
        for name, (low, high) in law.box.items()
    ]
    return ", ".join([*spans, *law.conditions])


def _source(law: Correlation) -> str:
    return law.source if law.reliability == "read" else f"{law.source} (recalled)"
