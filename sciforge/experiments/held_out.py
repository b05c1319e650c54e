"""A model's metrics on held-out records, and one of them without each twentieth of the records.

What the figure does when a part of the records is left out tells how far chance among test examples can move it (the
delete-a-group jackknife); losses are left out exactly, other metrics are computed anew.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from sciforge.core.data import sampling
from sciforge.core.domain import Objective
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import Tally, as_array, batches, evaluation, means
from sciforge.errors import ConfigError, did_you_mean
from sciforge.experiments.label_efficiency.result import Interval

GROUPS = 20
# Words in the names of metrics whose sense is beyond doubt.
RISING = {"accuracy", "mcc", "auroc", "precision", "r2", "pearson", "explained"}
FALLING = {"loss", "error", "rmse", "mae", "nats"}


@dataclass(frozen=True)
class Judged:
    """Figures of a model on held-out records.

    Args:
        metrics: the loss, its parts and the objective's metrics.
        value: the figure that is compared.
        without: the same with each group of records left out.
    """

    metrics: Mapping[str, float]
    value: float
    without: tuple[float, ...]


def judge(
    model: nn.Module, objective: Objective, codec: Any, records: Sequence, engine: Engine, metric: str, size: int = 64
) -> Judged:
    """Return a model's metrics on `records`, which must have `take`; masks and groups are the same at every call.

    Raises:
        ConfigError: there is no such metric.
    """
    places = groups_of(len(records)) or [np.arange(len(records))]
    tallies, found = [], {}
    with evaluation(model, objective):
        for mine in places:
            tally = Tally()
            for batch in batches(objective, codec, records, mine.tolist(), 0, size):
                batch = engine.move(batch)
                tally.add(objective.loss(model, batch))
                for name, value in objective.predict(model, batch).items():
                    found.setdefault(name, []).append(as_array(value))
            tallies.append(tally.pairs)
    back = np.argsort(np.concatenate(places))
    outputs = {name: np.concatenate(values)[back] for name, values in found.items()}
    metrics = _metrics(tallies, objective, outputs, records)
    value, without = known_metric(metrics, metric), []
    for group in range(len(places)) if len(places) > 1 else ():
        rest = np.sort(np.concatenate(places[:group] + places[group + 1 :]))
        left = {name: values[rest] for name, values in outputs.items()}
        others = tallies[:group] + tallies[group + 1 :]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is left of few records may be of one class
            without.append(_metrics(others, objective, left, records.take(rest))[metric])
    return Judged(metrics, value, tuple(without))


def groups_of(num: int) -> list[np.ndarray]:
    """Return the places of the records in each group, the same at every call; nothing of a single record.

    >>> [len(group) for group in groups_of(45)] == [3] * 5 + [2] * 15, groups_of(1)
    (True, [])
    """
    parts = sampling.generator(0, sampling.EVALUATE).permutation(num) % min(GROUPS, max(num, 1))
    return [np.flatnonzero(parts == group) for group in range(min(GROUPS, num))] if num > 1 else []


def direction_of(objective: Objective, metric: str, told: bool | None = None) -> bool | None:
    """Return whether a larger figure is better: as told, as the objective or the figure's name says; None where nobody does.

    >>> direction_of(Objective(), "accuracy"), direction_of(Objective(), "force_mae_meV_A"), direction_of(Objective(), "coverage")
    (True, False, None)
    """
    if told is not None or metric == objective.metric:
        return objective.higher_is_better if told is None else told
    words = set(metric.rpartition("/")[2].split("_"))
    return None if bool(words & RISING) == bool(words & FALLING) else bool(words & RISING)


def known_direction(sense: bool | None, metric: str, where: str = "higher_is_better") -> bool:
    """Return a sense; raises ConfigError where nobody has told it."""
    if sense is None:
        raise ConfigError(f"nothing says whether a larger {metric} is better; set {where}")
    return sense


def known_metric(metrics: Mapping[str, float], metric: str) -> float:
    """Return one of the metrics; raises ConfigError with the nearest name."""
    if metric not in metrics:
        raise ConfigError(f"no metric {metric!r} among those of the objective; {did_you_mean(metric, metrics)}")
    return metrics[metric]


def _metrics(tallies: Sequence[Mapping], objective: Objective, outputs: Mapping, records: Sequence) -> dict[str, float]:
    pairs: dict[str, tuple[float, float]] = {}
    for tally in tallies:
        for name, (total, count) in tally.items():
            before = pairs.get(name, (0.0, 0.0))
            pairs[name] = before[0] + total, before[1] + count
    more = objective.metrics(outputs, records) if outputs else {}
    return means(pairs) | {name: float(value) for name, value in more.items()}


def interval(values: Sequence[float], without: Sequence[Sequence[float]]) -> Interval:
    """Return the mean over seeds with its 95 % interval: Student's t over seeds and over groups of records, in squares.

    One seed leaves the records alone; where something is not finite (a run diverged) there is no interval.

    Args:
        values: a figure for each seed [S].
        without: the figure of each seed without each group of records [S, G], the same groups for every seed.

    >>> found = interval([1.0, 2.0, 3.0], [[1.0, 1.0]] * 3)
    >>> round(found.value, 3), round(found.low, 2), round(found.high, 2)
    (2.0, -0.48, 4.48)
    """
    from scipy.stats import t as student

    value_S = np.asarray(values, float)
    if not np.isfinite(value_S).all():
        return Interval(float(np.inf), float("nan"), float("nan"))
    without_SG = np.asarray(without, float)
    num, halves = len(value_S), [0.0]
    if num > 1:
        halves.append(student.ppf(0.975, num - 1) * value_S.std(ddof=1) / num**0.5)
    if without_SG.size:
        mean_G = without_SG.mean(axis=0)
        spread = ((len(mean_G) - 1) * mean_G.var()) ** 0.5  # (G - 1) / G times the sum of squares
        halves.append(student.ppf(0.975, len(mean_G) - 1) * spread)
    half = float(np.linalg.norm(halves))
    return Interval(float(value_S.mean()), float(value_S.mean()) - half, float(value_S.mean()) + half)
