"""Membership inference: how well scores of records separate members from others (Yeom et al. 2018;
LiRA, Carlini et al. 2022).

Legend of shape letters: N examples, K shadow models, T targets, C canaries.

A score is larger where an attacker believes more that the example was learnt. The statistic behind
it is minus the example's loss, or the logit of its probability where the loss is that of classes,
which is nearer a Gaussian.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sciforge.core.data import sampling
from sciforge.experiments.statistics import LEVELS, Interval, clopper_pearson, percentile_interval

RATES = (0.001, 0.01, 0.1)  # false-positive rates at which true-positive rates are reported
# shadows from which on each example has a variance of its own (Carlini et al. 2022, section VI-B)
OWN_VARIANCE = 64
DRAWS = 1000


def statistic(loss_N: np.ndarray, classes: bool) -> np.ndarray:
    """Return minus the loss, or for classes log(p / (1 - p)) with p = exp(-loss), any shape.

    >>> statistic(np.array([np.log(1.25), np.log(4)]), classes=True).round(4).tolist()
    [1.3863, -1.0986]
    """
    return -np.log(np.expm1(np.maximum(loss_N, 1e-15))) if classes else -loss_N


def halves(num: int, shadows: int, seed: int) -> np.ndarray:
    """Return which examples each shadow learns, bool [K, N]: every example is in exactly half of
    them.

    Shadows come in pairs that share nothing: without a pair, still half of the rest has learnt each
    example, so that a shadow may be a target of the others without mere counting revealing its
    members.

    >>> halves(6, 4, seed=0).sum(0).tolist(), halves(6, 4, seed=0).sum(1).tolist()
    ([2, 2, 2, 2, 2, 2], [3, 3, 3, 3])
    """
    in_KN = np.zeros((shadows, num), bool)
    for pair in range(shadows // 2):
        chosen = sampling.generator(seed, sampling.SAMPLE, pair).permutation(num)[
            : num // 2 + (num % 2) * (pair % 2)
        ]
        in_KN[2 * pair, chosen] = True
        in_KN[2 * pair + 1] = ~in_KN[2 * pair]
    return in_KN


def lira(target_N: np.ndarray, stat_KN: np.ndarray, in_KN: np.ndarray, online: bool) -> np.ndarray:
    """Return LiRA's scores [N] of a target from shadows that did and did not learn each example.

    Online: the log-likelihood ratio of two Gaussians. Offline: how far the target lies above what
    shadows say that did not learn the example, in standard deviations. Below OWN_VARIANCE shadows
    one variance serves all examples.

    Args:
        target_N: the target's statistics.
        stat_KN: the shadows'.
        in_KN: who learnt what; at least two of each kind for every example.
        online: use the shadows that learnt the example too.
    """
    inside, outside = (_gaussians(stat_KN, chosen_KN) for chosen_KN in (in_KN, ~in_KN))
    away_out = (target_N - outside[0]) / outside[1]
    if not online:
        return away_out
    away_in = (target_N - inside[0]) / inside[1]
    return 0.5 * (away_out**2 - away_in**2) + np.log(outside[1] / inside[1])


def _gaussians(stat_KN: np.ndarray, chosen_KN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation [N] of the chosen shadows' statistics."""
    count_N = chosen_KN.sum(0)
    mean_N = np.where(chosen_KN, stat_KN, 0).sum(0) / count_N
    variance_N = (np.where(chosen_KN, stat_KN - mean_N, 0) ** 2).sum(0) / (count_N - 1)
    if len(stat_KN) < OWN_VARIANCE:
        variance_N = np.full_like(variance_N, variance_N.mean())
    return mean_N, np.sqrt(np.maximum(variance_N, 1e-12))


def leave_one_out(stat_KN: np.ndarray, in_KN: np.ndarray, online: bool) -> np.ndarray:
    """Return LiRA's scores [K, N] of each shadow in turn as the target, without it and its
    counterpart of `halves`.
    """
    scores_KN = np.empty_like(stat_KN)
    for k in range(len(stat_KN)):
        rest = np.delete(np.arange(len(stat_KN)), [k, k ^ 1])
        scores_KN[k] = lira(stat_KN[k], stat_KN[rest], in_KN[rest], online)
    return scores_KN


class Ranks:
    """Scores sorted once, for metrics under many weights; ties are no help to the attacker.

    Args:
        score: any shape.
        member: whether the score is of a member, same shape.
    """

    def __init__(self, score: np.ndarray, member: np.ndarray) -> None:
        # levels count down: level 0 is the highest score
        _, level = np.unique(-np.ravel(score), return_inverse=True)
        self.level, self.member = level, np.ravel(member)
        self.num = int(level.max()) + 1

    def counts(self, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return weighted numbers of members and of non-members at each level."""
        weight = np.ones(len(self.level)) if weight is None else np.ravel(weight)
        members, others = (
            np.bincount(self.level, weight * part, self.num) for part in (self.member, ~self.member)
        )
        return members, others

    def auc(self, weight: np.ndarray | None = None) -> float:
        """Return the area under the ROC curve, half a win for a tie; NaN without members or
        non-members.

        >>> Ranks(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False])).auc()
        0.875
        """
        yes, no = self.counts(weight)
        below = no.sum() - np.cumsum(no)
        total = yes.sum() * no.sum()
        return float((yes * (below + no / 2)).sum() / total) if total else math.nan

    def levels(self, fpr: float, weight: np.ndarray | None = None) -> int:
        """Return how many levels, from the highest score down, have at most `fpr` false
        positives.
        """
        no = np.cumsum(self.counts(weight)[1])
        return int(np.searchsorted(no, fpr * no[-1] * (1 + 1e-9), side="right"))

    def shares(self, levels: int, weight: np.ndarray | None = None) -> tuple[float, float]:
        """Return the true- and false-positive rate where so many levels are called members."""
        yes, no = self.counts(weight)
        return float(yes[:levels].sum() / yes.sum()), float(no[:levels].sum() / no.sum())

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return false- and true-positive rates of every threshold, ascending."""
        yes, no = (np.concatenate([[0.0], np.cumsum(part)]) for part in self.counts())
        return no / no[-1], yes / yes[-1]


@dataclass(frozen=True)
class Point:
    """One point of a ROC curve.

    Args:
        rate: the false-positive rate allowed.
        tpr: share of members found.
        fpr: share of non-members taken for members at this threshold, at most `rate`.
    """

    rate: float
    tpr: Interval
    fpr: Interval

    def epsilon(self, delta: float) -> float:
        """Return the epsilon that this point proves to be spent, at the ends of both intervals
        (Jagielski et al. 2020).
        """
        return max(0.0, math.log(max(self.tpr.low - delta, 1e-300) / self.fpr.high))


@dataclass(frozen=True)
class Attack:
    """What one attack finds.

    Args:
        name: `loss`, `lira online` or `lira offline`.
        auc: area under the ROC curve.
        points: at RATES, as far as the sample resolves them.
        curve: false- and true-positive rates, for the plot.
        smallest: the smallest false-positive rate that the sample resolves, 1 / number of
            non-members.
    """

    name: str
    auc: Interval
    points: tuple[Point, ...]
    curve: tuple[np.ndarray, np.ndarray]
    smallest: float

    @classmethod
    def of(cls, name: str, score_TN: np.ndarray, member_TN: np.ndarray, seed: int) -> "Attack":
        """Return the metrics of scores of T targets, with intervals.

        One target's shares have Clopper-Pearson intervals. Several targets have their examples in
        common, so theirs are widened to those of a bootstrap over targets and examples, which also
        gives the interval of the area.
        """
        score_TN, member_TN = np.atleast_2d(score_TN), np.atleast_2d(member_TN)
        ranks = Ranks(score_TN, member_TN)
        members, others = int(member_TN.sum()), int((~member_TN).sum())
        rates = [rate for rate in RATES if rate * others >= 1 - 1e-9]
        drawn = _drawn(ranks, score_TN.shape, rates, seed)
        points = []
        for place, rate in enumerate(rates, 1):
            several: Any = (
                drawn[:, [place, place + len(rates)]].T if len(score_TN) > 1 else ([], [])
            )
            pairs = zip(ranks.shares(ranks.levels(rate)), (members, others), several, strict=True)
            points.append(
                Point(rate, *(_interval(share, num, draws) for share, num, draws in pairs))
            )
        return cls(
            name,
            percentile_interval(ranks.auc(), drawn[:, 0]),
            tuple(points),
            ranks.curve(),
            1 / others,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the metrics without the curve."""
        points = [{"rate": p.rate, "tpr": vars(p.tpr), "fpr": vars(p.fpr)} for p in self.points]
        return {
            "attack": self.name,
            "auc": vars(self.auc),
            "points": points,
            "smallest_fpr": self.smallest,
        }


def _interval(share: float, num: int, draws: np.ndarray) -> Interval:
    """Return a share of `num` with the wider ends of its exact interval and of its draws, if
    there are any.
    """
    low, high = clopper_pearson(round(share * num), num)
    if len(draws):
        ends = np.nanpercentile(draws, LEVELS)
        low, high = min(low, ends[0]), max(high, ends[1])
    return Interval(share, float(low), float(high))


def _drawn(ranks: Ranks, shape: tuple[int, int], rates: list[float], seed: int) -> np.ndarray:
    """Return metrics of targets and examples drawn with replacement [draws, 1 + 2 rates].

    They are the area, the true-positive rates at each draw's own thresholds, and the false-positive
    rates at the thresholds of the whole sample.
    """
    rng = sampling.generator(seed, sampling.EVALUATE, 0, 1)
    targets, num = shape
    draws = np.empty((DRAWS, 1 + 2 * len(rates)))
    levels = [ranks.levels(rate) for rate in rates]
    for row in draws:
        weight_T = np.bincount(rng.integers(targets, size=targets), minlength=targets)
        weight_N = np.bincount(rng.integers(num, size=num), minlength=num)
        weight = np.outer(weight_T, weight_N)
        row[:] = np.nan
        if all(part.any() for part in ranks.counts(weight)):
            row[0] = ranks.auc(weight)
            own = [ranks.shares(ranks.levels(rate, weight), weight)[0] for rate in rates]
            row[1:] = [*own, *(ranks.shares(level, weight)[1] for level in levels)]
    return draws


@dataclass(frozen=True)
class Exposure:
    """How exposed canaries are: log2 of their number less log2 of their rank by loss (Carlini et
    al. 2019).

    Args:
        canaries: how many.
        mean: over canaries and the shadows that learnt them, in bits; the reference is the canaries
            not learnt.
        chance: its expectation where nothing is memorised.
        maximum: where every canary learnt ranks first.
    """

    canaries: int
    mean: Interval
    chance: float
    maximum: float

    @classmethod
    def of(cls, loss_KC: np.ndarray, in_KC: np.ndarray, seed: int) -> "Exposure":
        """Return the exposure from each shadow's losses of the canaries; the interval is a
        bootstrap over shadows and canaries.
        """
        bits_KC = np.full(loss_KC.shape, np.nan)
        chance: list[float] = []
        maximum: list[float] = []
        for loss_C, in_C, bits_C in zip(loss_KC, in_KC, bits_KC, strict=True):
            unseen = np.sort(loss_C[~in_C])
            places = len(unseen) + 1
            bits_C[in_C] = np.log2(places) - np.log2(1 + np.searchsorted(unseen, loss_C[in_C]))
            chance += [np.log2(places) - np.log2(np.arange(1, places + 1)).mean()] * int(in_C.sum())
            maximum += [np.log2(places)] * int(in_C.sum())
        rng = sampling.generator(seed, sampling.EVALUATE, 0, 2)
        shadows, canaries = loss_KC.shape[0], loss_KC.shape[1]
        means = np.full(DRAWS, np.nan)
        for draw in range(DRAWS):
            drawn = bits_KC[rng.integers(shadows, size=shadows)][
                :, rng.integers(canaries, size=canaries)
            ]
            if np.isfinite(drawn).any():  # of a few canaries no shadow drawn may have learnt one
                means[draw] = np.nanmean(drawn)
        mean = percentile_interval(float(np.nanmean(bits_KC)), means)
        return cls(canaries, mean, float(np.mean(chance)), float(np.mean(maximum)))
