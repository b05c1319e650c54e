"""Whether probabilities are frequencies and intervals hold what they should: measured and
corrected.

The expected calibration error (Guo et al. 2017, arXiv 1706.04599) bins records by the probability
of their most probable class and averages, over bins, how far the mean probability is from the share
of hits. Its plug-in estimate is never 0: of few records even perfect probabilities seem to err.
`chance_error` is what they would show on the same records, so an error near it is none that
can be seen. About the cube root of the number of records is the number of bins.

Corrections are learnt from held-out predictions. A temperature divides the log-probabilities by one
number and leaves the order of classes as it is; a weak prior holds it near 1. Isotonic regression
follows any monotone curve, for two classes, and needs hundreds of labels more.

Legend of shape letters: N records, B batch, C classes, K knots, F folds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from torch import Tensor

from sciforge.core.data import sampling
from sciforge.core.files.settings import Settings
from sciforge.core.transfers import constant
from sciforge.errors import ConfigError

Calibrate = Literal["auto", "temperature", "isotonic", "none"]
Binning = Literal["mass", "width"]

MIN_LABELS = 50  # held-out labels below which nothing is calibrated
MIN_RECORDS = 50  # labelled records below which no calibration is measured
ISOTONIC_LABELS = 1000  # from here on `auto` takes isotonic regression for two classes
FOLDS = 5
MAX_FOLDS_OF_GROUPS = 10
MAX_BINS = 15
PRIOR_STD = 1.0  # of the logarithm of the temperature
MAX_LOG_TEMPERATURE = 4.0
SMALLEST = 1e-30  # probability whose logarithm is taken
GROUPS, DRAWS = 20, 200  # of the jackknife; of labels for what chance shows


# Measures of classes ------------------------------------------------------------------------------


def num_bins(num: int) -> int:
    """Return how many bins so many records are put in.

    >>> num_bins(50), num_bins(400), num_bins(10_000)
    (4, 7, 15)
    """
    return max(2, min(MAX_BINS, round(num ** (1 / 3))))


def bin_numbers(confidence_N: np.ndarray, bins: int, binning: Binning = "mass") -> np.ndarray:
    """Return the bin of each record [N]; equal probabilities share one, in whatever order they
    come.

    Args:
        confidence_N: probabilities.
        bins: how many bins; fewer are left where many records are equal.
        binning: `mass` for bins of as many records each, `width` for bins of equal width.

    >>> bin_numbers(np.array([0.1, 0.2, 0.3, 0.9]), 2).tolist()
    [0, 0, 1, 1]
    >>> bin_numbers(np.array([0.1, 0.2, 0.3, 0.9]), 2, "width").tolist()
    [0, 0, 0, 1]
    """
    if binning == "width":
        return np.minimum((confidence_N * bins).astype(int), bins - 1)
    sorted_N = np.sort(confidence_N)
    first = [round(b * len(sorted_N) / bins) for b in range(1, bins)]
    edges = np.unique(sorted_N[[place for place in first if place < len(sorted_N)]])
    return np.unique(np.searchsorted(edges, confidence_N, side="right"), return_inverse=True)[1]


def top_label(p_NC: np.ndarray, label_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of the most probable class [N] and whether it is the label [N]."""
    p_NC = np.asarray(p_NC, np.float64)
    return p_NC.max(1), (p_NC.argmax(1) == label_N).astype(float)


def expected_calibration_error(
    confidence_N: np.ndarray, hit_N: np.ndarray, bins: int = 0, binning: Binning = "mass"
) -> float:
    """Return the mean over records of |mean probability - share of hits| of their bin (plug-in
    estimate).

    Args:
        confidence_N: probability of the predicted class, or of a yes.
        hit_N: 1 where it was right, else 0.
        bins: how many; 0 takes `num_bins`.
        binning: `mass` or `width`.

    >>> expected_calibration_error(np.full(4, 0.75), np.array([1, 1, 1, 0]))
    0.0
    """
    number_N = bin_numbers(confidence_N, bins or num_bins(len(hit_N)), binning)
    # sorted, so that the rounding of sums does not depend on the order of records
    order = np.lexsort((hit_N, confidence_N, number_N))
    gaps = np.bincount(number_N[order], (confidence_N - hit_N)[order])
    return float(np.abs(gaps).sum() / len(hit_N))


def chance_error(
    confidence_N: np.ndarray, bins: int = 0, binning: Binning = "mass", draws: int = DRAWS
) -> float:
    """Return the expected calibration error that perfect probabilities show on so many records.

    It is the bias of the plug-in estimate where there is no error, by drawing hits from the
    probabilities.

    >>> round(chance_error(np.full(100, 0.5), 1), 2)
    0.04
    """
    rng = sampling.generator(0, sampling.EVALUATE, 2)
    sorted_N = np.sort(confidence_N)
    hits_DN = rng.random((draws, len(sorted_N))) < sorted_N
    errors = [expected_calibration_error(sorted_N, hit_N, bins, binning) for hit_N in hits_DN]
    return float(np.mean(errors))


def brier_score(p_NC: np.ndarray, label_N: np.ndarray) -> float:
    """Return the mean over records of the squared errors of all classes' probabilities, summed.

    >>> brier_score(np.array([[0.5, 0.5]]), np.array([1]))
    0.5
    """
    hit_NC = np.eye(p_NC.shape[1])[label_N]
    return float(((np.asarray(p_NC, np.float64) - hit_NC) ** 2).sum(1).mean())


def brier_parts(p_NC: np.ndarray, label_N: np.ndarray, bins: int = 0) -> dict[str, float]:
    """Return the parts of the Brier score, summed over classes (Murphy 1973; Stephenson 2008).

    Args:
        p_NC: probabilities.
        label_N: classes.
        bins: of equal mass, of each class' probability; 0 takes `num_bins`.

    Returns:
        `reliability` (squared calibration error, 0 at best) - `resolution` (what the predictions
        tell, large at best) + `uncertainty` (of the labels alone) + `within_bins` (variation inside
        bins) is the score.
    """
    parts = dict.fromkeys(("reliability", "resolution", "uncertainty", "within_bins"), 0.0)
    for place, p_N in enumerate(np.asarray(p_NC, np.float64).T):
        hit_N = (label_N == place).astype(float)
        number_N = bin_numbers(p_N, bins or num_bins(len(p_N)))
        count_B = np.bincount(number_N)
        mean_B, rate_B = (np.bincount(number_N, x) / count_B for x in (p_N, hit_N))
        share_B, base = count_B / len(p_N), hit_N.mean()
        away_N = p_N - mean_B[number_N]
        parts["reliability"] += float(share_B @ (mean_B - rate_B) ** 2)
        parts["resolution"] += float(share_B @ (rate_B - base) ** 2)
        parts["uncertainty"] += float(base * (1 - base))
        parts["within_bins"] += float((away_N**2 - 2 * away_N * (hit_N - rate_B[number_N])).mean())
    return parts


def jackknife_interval(
    metric: Callable[[np.ndarray], float], num: int
) -> tuple[float, float, float]:
    """Return a metric of records with its 95 % interval by the delete-a-group jackknife.

    Args:
        metric: places of records -> its value.
        num: how many records there are.
    """
    from scipy.stats import t

    groups = min(GROUPS, num)
    parts = sampling.generator(0, sampling.EVALUATE).permutation(num) % groups
    value = metric(np.arange(num))
    without_G = [metric(np.flatnonzero(parts != group)) for group in range(groups)]
    half = float(t.ppf(0.975, groups - 1) * ((groups - 1) * np.var(without_G)) ** 0.5)
    return value, max(0.0, value - half), value + half


def probability_metrics(label_N: np.ndarray, p_NC: np.ndarray) -> dict[str, float]:
    """Return `ece` and `brier` of predicted classes; empty of fewer than MIN_RECORDS records."""
    if len(label_N) < MIN_RECORDS:
        return {}
    return {
        "ece": expected_calibration_error(*top_label(p_NC, label_N)),
        "brier": brier_score(p_NC, label_N),
    }


# Corrections of classes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Temperature(Settings):
    """Probabilities of the same order, made surer (below 1) or less sure (above 1).

    Args:
        temperature: what log-probabilities are divided by.
        labels: how many held-out labels it was learnt from.
    """

    temperature: float
    labels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        limit = math.exp(MAX_LOG_TEMPERATURE)
        self.require(1 / limit, limit, "temperature")

    @classmethod
    def fit(cls, p_NC: np.ndarray, label_N: np.ndarray) -> Self:
        """Return the temperature of least log-loss on held-out predictions, under a prior about
        1.
        """
        from scipy.optimize import minimize_scalar

        order = np.lexsort((label_N, *np.asarray(p_NC).T))  # sums do not depend on the order
        log_NC = np.log(np.clip(np.asarray(p_NC, np.float64)[order], SMALLEST, None))
        at = np.arange(len(label_N)), label_N[order]

        def nats(log_temperature: float) -> float:
            score_NC = log_NC * math.exp(-log_temperature)
            largest_N1 = score_NC.max(1, keepdims=True)
            norm_N = np.log(np.exp(score_NC - largest_N1).sum(1)) + largest_N1[:, 0]
            return float((norm_N - score_NC[at]).sum() + 0.5 * (log_temperature / PRIOR_STD) ** 2)

        bounds = -MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE
        solution = minimize_scalar(nats, bounds=bounds, method="bounded")
        return cls(round(math.exp(float(solution.x)), 4), len(label_N))

    def apply(self, p_BC: Tensor) -> Tensor:
        """Return calibrated probabilities [B, C]."""
        return (p_BC.clamp(min=SMALLEST).log() / self.temperature).softmax(-1)

    @property
    def text(self) -> str:
        """What it is, for a line of a summary."""
        return f"temperature {self.temperature:.2f}"


@dataclass(frozen=True)
class Isotonic(Settings):
    """A monotone, piecewise linear map of the log-odds of the second of two classes.

    Args:
        knots: log-odds [K], increasing.
        values: calibrated log-odds of the knots [K]; beyond the outer ones the map goes on with a
            slope of `1 / temperature`, so that the order of extreme records is kept.
        temperature: of the same labels.
        labels: how many held-out labels it was learnt from.
    """

    knots: tuple[float, ...]
    values: tuple[float, ...]
    temperature: float
    labels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = all(a < b for a, b in zip(self.knots, self.knots[1:], strict=False))
        if not self.knots or len(self.knots) != len(self.values) or not rising:
            raise ConfigError("isotonic.knots must increase, with a value for each; fit it again")

    @classmethod
    def fit(cls, p_N2: np.ndarray, label_N: np.ndarray) -> Self:
        """Return scikit-learn's isotonic regression on held-out predictions, linear between the
        middles of its steps.
        """
        from sklearn.isotonic import IsotonicRegression

        log_N2 = np.log(np.clip(np.asarray(p_N2, np.float64), SMALLEST, None))
        score_N = log_N2[:, 1] - log_N2[:, 0]
        step_N = IsotonicRegression().fit_transform(score_N, label_N.astype(float))
        rates, number_N = np.unique(step_N, return_inverse=True)
        count_K = np.bincount(number_N)
        knots = np.bincount(number_N, score_N) / count_K
        # half a hit and half a miss: no step says 0 or 1
        smooth_K = (rates * count_K + 0.5) / (count_K + 1)
        values = np.maximum.accumulate(np.log(smooth_K / (1 - smooth_K)))
        temperature = Temperature.fit(p_N2, label_N).temperature
        return cls(tuple(knots.tolist()), tuple(values.tolist()), temperature, len(label_N))

    def apply(self, p_B2: Tensor) -> Tensor:
        """Return calibrated probabilities [B, 2]."""
        log_B2 = p_B2.clamp(min=SMALLEST).log()
        score_B = log_B2[:, 1] - log_B2[:, 0]
        inner = np.diff(self.values) / np.diff(self.knots)
        slope_K = np.diff([1 / self.temperature, *inner, 1 / self.temperature])
        # a sum of bends, which every export format knows
        knot_K, bend_K = (
            constant(array.tolist(), p_B2.device, p_B2.dtype)
            for array in (np.array(self.knots), slope_K)
        )
        start = self.values[0] - self.knots[0] / self.temperature
        bent_B = ((score_B[:, None] - knot_K).clamp(min=0) * bend_K).sum(1)
        yes_B = (score_B / self.temperature + start + bent_B)[:, None]
        return (yes_B * constant([-0.5, 0.5], p_B2.device, p_B2.dtype)).softmax(-1)

    @property
    def text(self) -> str:
        """What it is, for a line of a summary."""
        return f"isotonic regression of {len(self.knots)} steps"


Calibration = Temperature | Isotonic


def fit_classes(p_NC: np.ndarray, label_N: np.ndarray, choice: Calibrate = "auto") -> Calibration:
    """Return the correction of held-out predictions.

    Args:
        p_NC: probabilities of records that the head has not seen.
        label_N: their classes.
        choice: `auto` takes isotonic regression for two classes from ISOTONIC_LABELS labels on,
            else a temperature.

    Raises:
        ConfigError: isotonic regression of more than two classes.
    """
    two = p_NC.shape[1] == 2
    if choice == "isotonic" and not two:
        raise ConfigError(
            f"calibrate is isotonic, which is for two classes; there are {p_NC.shape[1]}: use"
            " temperature"
        )
    many = two and len(label_N) >= ISOTONIC_LABELS
    isotonic = choice == "isotonic" or (choice == "auto" and many)
    return Isotonic.fit(p_NC, label_N) if isotonic else Temperature.fit(p_NC, label_N)


# Intervals of numbers -----------------------------------------------------------------------------


@dataclass(frozen=True)
class ConformalInterval(Settings):
    """A conformal interval: as wide as the errors of held-out predictions ask for.

    Args:
        half_width: in the unit of the labels.
        coverage: share of new records of the same kind whose number it holds.
        labels: how many held-out labels it was learnt from.
    """

    half_width: float
    coverage: float
    labels: int

    @classmethod
    def fit(cls, error_N: np.ndarray, coverage: float) -> Self:
        """Return the interval of the errors of held-out predictions."""
        return cls(conformal_quantile(np.abs(error_N), coverage), coverage, len(error_N))


def conformal_quantile(size_N: np.ndarray, coverage: float) -> float:
    """Return the smallest size that holds at least `coverage` of exchangeable new ones (Vovk et al.
    2005): the ceil((N + 1) coverage)-th smallest; infinite of too few.

    >>> conformal_quantile(np.arange(1.0, 20.0), 0.9), conformal_quantile(np.ones(5), 0.9)
    (18.0, inf)
    """
    rank = math.ceil(round((len(size_N) + 1) * coverage, 9))
    return float(np.sort(size_N)[rank - 1]) if rank <= len(size_N) else math.inf


# Held-out folds -----------------------------------------------------------------------------------


def assign_folds(
    label_N: np.ndarray, group_N: np.ndarray | None, seed: int, folds: int = FOLDS
) -> np.ndarray:
    """Return the fold of each record [N], classes spread evenly, a group whole in one fold.

    Args:
        label_N: classes; zeros for numbers.
        group_N: what may not be divided (patient, laboratory); None for single records. Up to
            MAX_FOLDS_OF_GROUPS groups are left out one by one.
        seed: of the draw.
        folds: how many.

    >>> np.bincount(assign_folds(np.array([0] * 8 + [1] * 2), None, 0)).tolist()
    [2, 2, 2, 2, 2]
    """
    rng = np.random.default_rng(seed)
    if group_N is not None:
        unit_G, unit_N = np.unique(group_N, return_inverse=True)
        num = len(unit_G) if len(unit_G) <= MAX_FOLDS_OF_GROUPS else folds
        size_G = np.bincount(unit_N)
        order = rng.permutation(len(unit_G))
        load, fold_G = np.zeros(num), np.zeros(len(unit_G), int)
        for unit in order[np.argsort(-size_G[order], kind="stable")]:  # the largest first
            fold_G[unit] = load.argmin()
            load[fold_G[unit]] += size_G[unit]
        return fold_G[unit_N]
    order = rng.permutation(len(label_N))
    order = order[np.argsort(label_N[order], kind="stable")]
    fold_N = np.empty(len(label_N), int)
    fold_N[order] = np.arange(len(label_N)) % folds
    return fold_N


def cross_fitted(
    fold_N: np.ndarray, fit_and_apply: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return what corrections fitted on the other folds make of each fold, so that they can be
    judged [N, ...].

    Args:
        fold_N: of each record.
        fit_and_apply: (places to learn from, places to correct) -> corrected values.
    """
    held = [np.flatnonzero(fold_N == fold) for fold in np.unique(fold_N)]
    parts = [fit_and_apply(np.setdiff1d(np.arange(len(fold_N)), places), places) for places in held]
    corrected = np.concatenate(parts)
    return corrected[np.argsort(np.concatenate(held))]
