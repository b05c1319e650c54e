"""Intervals, paired differences and the direction of metrics, the same for every experiment.

Two sources of chance enter a 95 % interval:

- Seeds (which labels were drawn, how a network was initialised, the order of examples): Student's t
  over the seeds.
- Test records: the delete-a-group jackknife. A metric is computed again without each of `GROUPS`
  groups of records, the same groups for every model, so that differences of models are paired over
  records as well as over seeds.

`mean_interval` adds both in squares. `bootstrap` draws them jointly, for quantities that are not
means (label-saving factors). Of few seeds or groups a bootstrap is too narrow; `widening` corrects
it by Student's t.

Legend of shape letters: S seeds, G groups of records, D draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sciforge.core.data import sampling
from sciforge.core.domain import Objective
from sciforge.errors import ConfigError, did_you_mean

GROUPS = 20
DRAWS = 2000
LEVELS = (2.5, 97.5)
# Words in the names of metrics whose direction is beyond doubt.
HIGHER = {"accuracy", "mcc", "auroc", "precision", "r2", "pearson", "explained"}
LOWER = {"loss", "error", "rmse", "mae", "nats", "ece", "brier"}


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 2, sign: bool = False) -> str:
        """Return the value and the interval with a fixed number of decimals.

        >>> Interval(0.5, 0.4, 0.61).text()
        '.50 [.40, .61]'
        """
        value, low, high = (decimal(x, digits, sign) for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def significant(self, sign: bool = False) -> str:
        """Return the value and the interval with three significant digits; words where it is not
        finite.

        >>> Interval(0.5, 0.25, 0.75).significant()
        '0.500 [0.250, 0.750]'
        >>> Interval(12.5, 12.0, 13.0).significant(sign=True)
        '+12.5 [+12.0, +13.0]'
        """
        if not np.isfinite(self.value):
            return "not finite"
        digits = max(0, 2 - int(np.floor(np.log10(max(abs(self.value), 1e-3)))))
        digits, plus = min(digits, 3), "+" if sign else ""
        value, low, high = (f"{x:{plus}.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def columns(self, prefix: str = "") -> dict[str, float]:
        """Return the value and both ends as columns of a table.

        >>> Interval(0.5, 0.4, 0.6).columns("mcc")
        {'mcc': 0.5, 'mcc_low': 0.4, 'mcc_high': 0.6}
        """
        return {
            prefix or "value": self.value,
            f"{prefix}_low": self.low,
            f"{prefix}_high": self.high,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the value and the interval, None for what is not finite, which JSON lacks."""
        return {"value": finite(self.value), "interval": [finite(self.low), finite(self.high)]}


# Intervals ----------------------------------------------------------------------------------------


def mean_interval(values: ArrayLike, without: ArrayLike = ()) -> Interval:
    """Return the mean over seeds with its 95 % interval over seeds and groups of records.

    One seed leaves the records alone; one seed without groups has no interval (NaN), nor has a
    value that is not finite (a run diverged).

    Args:
        values: a metric of each seed [S].
        without: the metric of each seed without each group of records [S, G], the same groups for
            every seed.

    >>> interval = mean_interval([1.0, 2.0, 3.0], [[1.0, 1.0]] * 3)
    >>> round(interval.value, 3), round(interval.low, 2), round(interval.high, 2)
    (2.0, -0.48, 4.48)
    """
    value_S = np.asarray(values, float)
    if not np.isfinite(value_S).all():
        return Interval(float(np.inf), float("nan"), float("nan"))
    without_SG = np.asarray(without, float)
    half_widths = [student_half_width(value_S)] if len(value_S) > 1 else []
    if without_SG.size:
        half_widths.append(jackknife_half_width(without_SG.mean(axis=0)))
    mean, half = (
        float(value_S.mean()),
        (float(np.linalg.norm(half_widths)) if half_widths else float("nan")),
    )
    return Interval(mean, mean - half, mean + half)


def paired_difference(
    values: Sequence[float] | np.ndarray,
    others: Sequence[float] | np.ndarray,
    without: Sequence[Sequence[float]] | np.ndarray = (),
    others_without: Sequence[Sequence[float]] | np.ndarray = (),
) -> Interval:
    """Return the mean of `values` less `others`, paired over seeds and groups of records, with its
    95 % interval.

    >>> paired_difference([1.0, 2.0], [0.5, 1.5])
    Interval(value=0.5, low=0.5, high=0.5)
    """
    if not (np.isfinite(values).all() and np.isfinite(others).all()):
        return mean_interval([np.inf])
    both = len(without) == len(others_without) == len(values)
    groups = (
        [np.subtract(a, b) for a, b in zip(without, others_without, strict=True)] if both else []
    )
    return mean_interval(np.subtract(values, others), groups)


def student_half_width(values: np.ndarray) -> float:
    """Return half the 95 % interval of the mean of two or more values, by Student's t."""
    return _t(len(values)) * float(np.std(values, ddof=1)) / len(values) ** 0.5


def jackknife_half_width(without_G: np.ndarray) -> float:
    """Return half the 95 % interval of a metric from its values without each group of records."""
    num = len(without_G)
    std = ((num - 1) * float(np.var(without_G))) ** 0.5  # (G - 1) / G times the sum of squares
    return _t(num) * std if num > 1 else 0.0


def percentile_interval(value: float, draws: np.ndarray) -> Interval:
    """Return a value with the percentiles of its bootstrap draws, undefined ones (NaN) left out."""
    low, high = np.nanpercentile(draws, LEVELS)
    return Interval(float(value), float(low), float(high))


def bootstrap(
    values: Mapping[Any, Sequence[float]], without: Mapping[Any, Sequence[Sequence[float]]]
) -> dict[Any, np.ndarray]:
    """Return the bootstrap distribution [D] of the mean of each cell; draws are paired over cells.

    Seeds are resampled with replacement, the same draw for all cells; records enter by the
    infinitesimal jackknife over groups, the same draw of groups for all cells.

    Args:
        values: cell -> a metric of each seed [S].
        without: cell -> the same without each group of records [S, G].
    """
    rng = np.random.default_rng(0)
    num = max(len(value) for value in values.values())
    groups = max((len(rows[0]) for rows in without.values() if len(rows)), default=0)
    chosen = rng.integers(0, num, (DRAWS, num))
    weight_DS = np.stack([(chosen == s).sum(axis=1) for s in range(num)], axis=1) / num
    count_DG = (
        rng.multinomial(groups, np.full(groups, 1 / groups), DRAWS)
        if groups
        else np.zeros((DRAWS, 0))
    )
    draws = {}
    for cell, value in values.items():
        value_S = np.asarray(value, float)
        draws[cell] = value_S.mean() + widening(num) * (weight_DS @ value_S - value_S.mean())
        if groups:
            influence_G = (
                (value_S[:, None] - np.asarray(without[cell], float)).mean(axis=0)
                * (groups - 1)
                / groups
            )
            draws[cell] = draws[cell] + widening(groups) * (
                (count_DG - 1) @ (influence_G - influence_G.mean())
            )
    return draws


def widening(num: int) -> float:
    """Return by how much a bootstrap of so few is too narrow: Student's t against the normal, and a
    degree of freedom.

    >>> round(widening(5), 2), round(widening(20), 2), widening(1)
    (1.58, 1.1, 0.0)
    """
    return _t(num) / 1.96 * (num / (num - 1)) ** 0.5 if num > 1 else 0.0


def clopper_pearson(hits: int, num: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a proportion (Clopper and Pearson 1934).

    >>> [round(end, 4) for end in clopper_pearson(0, 100)]
    [0.0, 0.0362]
    """
    from scipy.stats import beta

    low = beta.ppf(LEVELS[0] / 100, hits, num - hits + 1) if hits else 0.0
    high = beta.ppf(LEVELS[1] / 100, hits + 1, num - hits) if hits < num else 1.0
    return float(low), float(high)


def _t(num: int) -> float:
    """Return the 97.5 % point of Student's t for so many values."""
    from scipy.stats import t

    return float(t.ppf(0.975, num - 1))


def jackknife_groups(num: int) -> list[np.ndarray]:
    """Return the places of the records in each group, the same at every call; nothing of a single
    record.

    >>> [len(group) for group in jackknife_groups(45)] == [3] * 5 + [2] * 15, jackknife_groups(1)
    (True, [])
    """
    parts = sampling.generator(0, sampling.EVALUATE).permutation(num) % min(GROUPS, max(num, 1))
    return [np.flatnonzero(parts == group) for group in range(min(GROUPS, num))] if num > 1 else []


# Direction of metrics -----------------------------------------------------------------------------


def higher_is_better(objective: Objective, metric: str, given: bool | None = None) -> bool | None:
    """Return whether a larger metric is better: as given, as the objective or the metric's name
    says; None if unknown.

    >>> higher_is_better(Objective(), "accuracy"), higher_is_better(Objective(), "force_mae_meV_A")
    (True, False)
    >>> higher_is_better(Objective(), "coverage") is None
    True
    """
    if given is not None:
        return given
    if metric == objective.metric:
        return objective.higher_is_better
    words = set(metric.rpartition("/")[2].split("_"))
    return None if bool(words & HIGHER) == bool(words & LOWER) else bool(words & HIGHER)


def require_direction(direction: bool | None, metric: str, field: str = "higher_is_better") -> bool:
    """Return a metric's direction; raises ConfigError where it is unknown."""
    if direction is None:
        raise ConfigError(f"it is unknown whether a larger {metric} is better; set {field}")
    return direction


def direction_text(direction: bool | None) -> str:
    """Return which way is better, for a note; nothing where it is unknown.

    >>> direction_text(True), direction_text(None)
    ('higher is better; ', '')
    """
    return "" if direction is None else f"{'higher' if direction else 'lower'} is better; "


def metric_of(metrics: Mapping[str, float], metric: str) -> float:
    """Return one of the metrics; raises ConfigError with the nearest name."""
    if metric not in metrics:
        raise ConfigError(
            f"no metric {metric!r} among those of the objective; {did_you_mean(metric, metrics)}"
        )
    return metrics[metric]


# Numbers as text ----------------------------------------------------------------------------------


def decimal(value: float, digits: int = 2, sign: bool = False) -> str:
    """Return a number with a fixed number of decimals, without the zero before the point.

    >>> decimal(0.456), decimal(-0.05), decimal(0.1, sign=True), decimal(12.3)
    ('.46', '-.05', '+.10', '12.30')
    """
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text.replace("0.", ".", 1) if abs(round(value, digits)) < 1 else text


def finite(value: float) -> float | None:
    """Return a number that JSON can hold.

    >>> finite(1.0), finite(float("inf"))
    (1.0, None)
    """
    return float(value) if np.isfinite(value) else None
