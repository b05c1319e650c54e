"""The heat section of `sciforge demo`: a law of ribbed channels from few measured points, and what pretraining was worth."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sciforge.core.files.tables import Section, Table
from sciforge.heat.correlations.library import get_correlation
from sciforge.heat.data.readers import MeasuredTable, read_table
from sciforge.heat.inference.estimator import HeatWarning, NusseltLaw
from sciforge.heat.inference.formula import formula
from sciforge.heat.inference.plot import plot

POINTS, SEED = 10, 0
SIZES, SEEDS = (5, 10), 10
PRIORS = {
    "published ribbed laws (nusselt-ribbed)": "nusselt-ribbed",
    "published smooth laws (nusselt-smooth)": "nusselt-smooth",
    "no pretraining, the same form": None,
}
AS_PUBLISHED = ("han-park-1988", "dittus-boelter")
WHAT = (
    "Published correlations are the prior of a Nusselt law; {points} of {count} measured points of ribbed channels (Han's "
    "laboratory) specialise it in closed form. The ledger says, from these {points} points alone, which published law helped."
)


def demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    """Fit a law to a few measured points, and compare pretraining with none on the points left over.

    Args:
        folder: for everything that is made.
        find: gives the path of bundled data by name.
        full: more numbers of labels and seeds; takes minutes.
    """
    data = read_table(find("ribbed-channel"), warn=False)
    x_NG = np.stack([data.points[name] for name in data.points], 1)
    chosen = _draw(len(data), POINTS, SEED)
    law = NusseltLaw(prior=find("nusselt-ribbed"), columns=tuple(data.points))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        law.fit(x_NG[chosen], data.nu[chosen])
    notes = [str(w.message) for w in said if issubclass(w.category, HeatWarning)]
    rest = np.setdiff1d(np.arange(len(data)), chosen)
    low, high = law.predict_interval(x_NG[rest])
    inside = ((low <= data.nu[rest]) & (data.nu[rest] <= high)).mean()
    away = np.abs(law.predict(x_NG[rest]) / data.nu[rest] - 1) * 100
    judged = (
        f"On the other {len(rest)} points its median error is {np.median(away):.1f} %, and {100 * inside:.0f} % lie in their 90 % "
        f"intervals. {' '.join(f'Said of the {POINTS} points: {note}.' for note in notes)}"
    ).strip()
    errors = compare(x_NG, data.nu, find)
    table, gained = _table(errors, _published(data))
    picture = plot(law, folder / "nusselt-law.png")
    caption = f"The law of {POINTS} points: each point predicted from the others, and where each exponent is from."
    text = WHAT.format(points=POINTS, count=len(data))
    paragraphs = (text, judged, *formula(law).splitlines(), gained)
    return Section(
        "Heat: a Nusselt law from ten measured points",
        paragraphs,
        (*((law.ledger_.table(),) if law.ledger_ else ()), table),
        ((picture, caption),),
    )


def _draw(count: int, points: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count)[:points]


def compare(x_NG: np.ndarray, nusselt_N: np.ndarray, find: Callable[[str], Path]) -> dict[str, dict[int, np.ndarray]]:
    """Return for each prior and number of points the median error in % on the rest, one a seed; all see the same points."""
    errors: dict[str, dict[int, np.ndarray]] = {}
    for words, name in PRIORS.items():
        prior = None if name is None else find(name)
        for points in SIZES:
            found = []
            for seed in range(SEEDS):
                chosen = _draw(len(nusselt_N), points, seed)
                rest = np.setdiff1d(np.arange(len(nusselt_N)), chosen)
                law = NusseltLaw(prior=prior, columns=("Re", "Pr", "e_D", "P_e", "alpha_deg", "W_H"), audit=False)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", HeatWarning)
                    law.fit(x_NG[chosen], nusselt_N[chosen])
                found.append(np.median(np.abs(law.predict(x_NG[rest]) / nusselt_N[rest] - 1)) * 100)
            errors.setdefault(words, {})[points] = np.array(found)
    return errors


def _published(data: MeasuredTable) -> dict[str, float]:
    """Return the median error of published laws as they are, in %."""
    points = {name: torch.from_numpy(np.array(column)) for name, column in data.points.items()}
    found = {}
    for name in AS_PUBLISHED:
        value_N = get_correlation(name).unchecked(points).numpy()
        found[name] = float(np.median(np.abs(value_N / data.nu - 1)) * 100)
    return found


def _table(errors: dict[str, dict[int, np.ndarray]], published: dict[str, float]) -> tuple[Table, str]:
    """Return the comparison as a table, and a sentence of what pretraining gained."""
    rows = [(words, *(f"{by[n].mean():.1f}" for n in SIZES)) for words, by in errors.items()]
    rows += [(f"{name} as published", *[f"{error:.1f}"] * len(SIZES)) for name, error in published.items()]
    note = f"median relative error in % on the points left over, mean over {SEEDS} draws that all methods share"
    table = Table(("prior", *(f"{n} points" for n in SIZES)), tuple(rows), note)
    ribbed, smooth, none = errors.values()
    parts = []
    for n in SIZES:
        wins, gain = int((ribbed[n] < none[n]).sum()), none[n].mean() / ribbed[n].mean()
        parts.append(
            f"with {n} points the error is {ribbed[n].mean():.1f} % instead of {none[n].mean():.1f} % without pretraining"
            f" ({gain:.2f} times smaller, better in {wins} of {SEEDS} draws; smooth laws give {smooth[n].mean():.1f} %)"
        )
    best = min(published, key=published.get)
    told = f"What pretraining gained: {'; '.join(parts)}. {best} as published, without any measured point,"
    flattered = "draws at random share plates between training and test, which flatters every method"
    return table, f"{told} has {published[best]:.1f} %; {flattered}."
