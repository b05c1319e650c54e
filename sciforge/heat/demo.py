"""The heat section of `sciforge demo`: a law of ribbed channels from few measured points, beside
rivals.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.files.tables import Section, Table

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["Re", "Pr", "e_D", "P_e", "alpha_deg", "W_H"]
POINTS = 10
PRIORS = {
    "NusseltLaw, published laws as prior": "nusselt-ribbed",
    "NusseltLaw without pretraining": None,
}
RIVALS = {
    "Gaussian process on logarithms": "log_gp",
    "Han and Park 1988, as published": "han_park_1988",
}
TASK = (
    "Published correlations are the prior of a Nusselt law; {points} of {count} measured points of"
    " ribbed channels (one laboratory) specialise it in closed form. The table of sources says,"
    " from these {points} points alone, which published law helped. On the other {rest} points the"
    " median error is {error:.1f} %, and {inside:.0f} % lie in their 90 % intervals."
)
LIMIT = (
    "Random draws share plates between training and test, which flatters every method. For another"
    " laboratory the intervals are too narrow; see the benchmarks."
)


def demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    """Fit a law to a few measured points, and compare it with rivals on the points left over.

    Args:
        folder: for everything that is made.
        find: gives the path of bundled data by name.
        full: more numbers of points and draws; takes minutes.
    """
    import sciforge as sf

    place = folder / "points"
    measurements = sf.heat.Measurements(files=(find("ribbed-channel"),), shares=(1.0, 0.0, 0.0))
    points = (sf.Dataset.open(place) if place.exists() else sf.prepare(measurements, place)).split(
        "train"
    )
    drawn, rest = _draw(len(points), POINTS, seed=0)
    X, nu_N = _table(points), np.asarray(points.column("value"))
    law = _fitted(find("nusselt-ribbed"), X.iloc[drawn], nu_N[drawn], audit=True)
    low_N, high_N = law.predict_interval(X.iloc[rest])
    inside = 100 * ((low_N <= nu_N[rest]) & (nu_N[rest] <= high_N)).mean()
    error = _error(law.predict(X.iloc[rest]), nu_N[rest])
    text = TASK.format(points=POINTS, count=len(X), rest=len(rest), error=error, inside=inside)
    picture = folder / "nusselt-law.png"
    law.figure().savefig(picture)
    caption = (
        f"The law of {POINTS} points: each point predicted from the others, and the source of each"
        " exponent."
    )
    sources = (law.transfer_audit_.table(),) if law.transfer_audit_ else ()
    compared = _compared(points, find, (3, 5, 10, 20) if full else (5, 10), draws=20 if full else 5)
    paragraphs = (text, *law.formula().splitlines(), LIMIT)
    tables = (compared, *sources)
    return Section(
        "Heat: a Nusselt law from ten measured points", paragraphs, tables, ((picture, caption),)
    )


def _table(rows: Any) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame({name: np.asarray(rows.column(name)) for name in COLUMNS})


def _draw(count: int, points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of points drawn at random, and all others."""
    drawn = np.random.default_rng(seed).permutation(count)[:points]
    return drawn, np.setdiff1d(np.arange(count), drawn)


def _fitted(prior: Path | None, X: "pd.DataFrame", nu_N: np.ndarray, audit: bool = False) -> Any:
    import sciforge as sf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few points: columns that do not vary
        return sf.heat.NusseltLaw(prior=prior, columns=tuple(COLUMNS), audit=audit).fit(X, nu_N)


def _error(predicted_N: np.ndarray, nu_N: np.ndarray) -> float:
    return float(np.median(np.abs(predicted_N / nu_N - 1)) * 100)


def _compared(
    points: Any, find: Callable[[str], Path], sizes: tuple[int, ...], draws: int
) -> Table:
    """Return the median error in % on the points left over, mean over draws that all methods
    share.
    """
    from sciforge.heat.evaluation.baselines import BASELINES

    X, nu_N = _table(points), np.asarray(points.column("value"))
    errors: dict[str, list[list[float]]] = {name: [] for name in (*PRIORS, *RIVALS)}
    for size in sizes:
        for column in errors.values():
            column.append([])
        for seed in range(draws):
            drawn, rest = _draw(len(X), size, seed)
            for name, prior in PRIORS.items():
                law = _fitted(None if prior is None else find(prior), X.iloc[drawn], nu_N[drawn])
                errors[name][-1].append(_error(law.predict(X.iloc[rest]), nu_N[rest]))
            for name, rival in RIVALS.items():
                outputs = BASELINES[rival](None, points.take(drawn), points.take(rest), seed)
                errors[name][-1].append(_error(outputs["value"], nu_N[rest]))
    rows = tuple(
        (name, *(f"{np.mean(part):.1f}" for part in parts)) for name, parts in errors.items()
    )
    note = (
        f"Median error in % on the points left over, mean over {draws} draws that all methods"
        " share."
    )
    return Table(("method", *(f"{n} points" for n in sizes)), rows, note)
