"""Classical rivals in every label-efficiency curve of heat: power laws, a Gaussian process,
boosting, a net, published laws.

Every function takes (objective, train records, test records, seed) and returns {"value": [N]},
Nusselt numbers, and, where the method knows how far it may be off, `std` (of log Nu), `low` and
`high` (the 90 % interval), as `Nusselt.predict` does.

Legend of shape letters: N points, F features.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from sciforge.core.domain import Record
from sciforge.heat.correlations.groups import GROUPS
from sciforge.heat.correlations.library import get_correlation
from sciforge.heat.objectives.nusselt import COVERAGE

Outputs = dict[str, np.ndarray]
SMOOTH_LAW = "dittus-boelter"
SMOOTH_WALL = 1e-3  # e/D that stands for a smooth wall, whose logarithm is not finite
LARGEST = 30.0  # of log Nu: a power law with few points may say anything
# singular value over the largest below which a direction does not vary (0.0625 and 0.063 are one
# e/D)
FAINT = 1e-2
SINGLE = 1e-3  # spread of a logarithm below which a column is one value
STRENGTHS = np.logspace(-2, 3, 21)  # of ridge
# How much log Re, log Pr, log e/D, log P/e, 1 - alpha/90 and log W/H vary over rigs: an exponent of
# a group that varies more costs more.
WIDTHS = np.array([0.8, 0.8, 0.5, 0.4, 0.27, 0.5])


def least_squares(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """A power law by least squares, of least norm where the points leave exponents open;
    t-intervals from 8 points.
    """
    train_NF, test_NF, log_N = _logs(train), _logs(test), _log_nu(train)
    centre_F = train_NF.mean(0)
    left, size, right = np.linalg.svd(train_NF - centre_F, full_matrices=False)
    told = size > FAINT * max(size.max(initial=0), SINGLE)
    left, size, right = left[:, told], size[told], right[told]
    mean = log_N.mean()
    # in units of the training points' own directions
    seen_N = (test_NF - centre_F) @ right.T / size
    left_N = log_N - mean - left @ (left.T @ (log_N - mean))
    free = len(log_N) - 1 - len(size)
    spread_N = None
    if len(log_N) > 1 + len(GROUPS):  # with fewer some draws have an interval and some none
        noise = max(math.sqrt(float(left_N @ left_N) / free), 1e-6)
        spread_N = noise * np.sqrt(1 + 1 / len(log_N) + (seen_N**2).sum(1))
    return _outputs(mean + seen_N @ (left.T @ (log_N - mean)), spread_N, free)


def ridge_power_law(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """A power law whose exponents are drawn towards those of Dittus-Boelter, how hard by
    leave-one-out on the training points.

    Drawn towards 0 instead it is worse everywhere: 20 % instead of 11 % from 5 points of
    datasets/ribbed-channel.csv.
    """
    train_NF, test_NF = _logs(train) / WIDTHS, _logs(test) / WIDTHS
    log_N = _log_nu(train) - _log_law(SMOOTH_LAW, train)
    centre_F, mean = train_NF.mean(0), log_N.mean()
    left_N = log_N - mean
    u, size, right = np.linalg.svd(train_NF - centre_F, full_matrices=False)
    found = []
    for strength in STRENGTHS:
        hat_NN = (u * (size**2 / (size**2 + strength))) @ u.T + 1 / len(log_N)
        out_N = (left_N - hat_NN @ left_N) / np.maximum(1 - np.diag(hat_NN), 1e-9)
        found.append(float(out_N @ out_N))
    best = STRENGTHS[int(np.argmin(found))]
    exponent_F = right.T @ (size / (size**2 + best) * (u.T @ left_N))
    return _outputs(mean + (test_NF - centre_F) @ exponent_F + _log_law(SMOOTH_LAW, test))


def log_gp(objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int) -> Outputs:
    """A Gaussian process on log Nu/Nu0: a power law and a Matern residual with a length a group;
    the best of three starts.

    Noise is kept to 2 to 20 %, the residual to 10 % and more, lengths to 0.5 to 5 usual spreads:
    without such bounds the evidence of few points makes either nothing or everything noise
    (scikit-learn issue 19189). On log Nu itself errors from 5 points are twice as large, and 60 %
    at Reynolds numbers above the training points.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

    train_NF, test_NF = _logs(train) / WIDTHS, _logs(test) / WIDTHS
    centre_F, log_N = train_NF.mean(0), _log_nu(train) - _log_law(SMOOTH_LAW, train)
    residual = ConstantKernel(0.02, (1e-2, 1.0)) * Matern(
        np.full(len(WIDTHS), 2.0), (0.5, 5.0), nu=1.5
    )
    power_law = ConstantKernel(0.01, (1e-3, 0.25)) * DotProduct(0.1, "fixed")
    kernel = residual + power_law + WhiteKernel(2e-3, (4e-4, 4e-2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parameters at a bound are what few points give
        model = GaussianProcessRegressor(kernel, n_restarts_optimizer=2, random_state=seed)
        model.fit(train_NF - centre_F, log_N - log_N.mean())
        mean_N, spread_N = model.predict(test_NF - centre_F, return_std=True)
    return _outputs(log_N.mean() + mean_N + _log_law(SMOOTH_LAW, test), spread_N)


def boosting_nu(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """Boosted trees on log Nu."""
    return _outputs(_boosted(train, test, _log_nu(train), seed))


def boosting_ratio(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """Boosted trees on log Nu/Nu0, Nu0 of Dittus and Boelter."""
    found_N = _boosted(train, test, _log_nu(train) - _log_law(SMOOTH_LAW, train), seed)
    return _outputs(found_N + _log_law(SMOOTH_LAW, test))


def mlp(objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int) -> Outputs:
    """A plain net of two layers of 16 on standardised logarithms."""
    from sklearn.neural_network import MLPRegressor

    train_NF, test_NF, log_N = _logs(train), _logs(test), _log_nu(train)
    centre_F, width_F = train_NF.mean(0), train_NF.std(0)
    width_F = np.where(width_F > SINGLE, width_F, 1.0)
    scale = max(float(log_N.std()), 0.05)
    model = MLPRegressor(
        hidden_layer_sizes=(16, 16),
        activation="tanh",
        solver="lbfgs",
        alpha=0.1,
        max_iter=500,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        model.fit((train_NF - centre_F) / width_F, (log_N - log_N.mean()) / scale)
    return _outputs(log_N.mean() + scale * model.predict((test_NF - centre_F) / width_F))


def constant_dittus_boelter(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """A constant x Dittus-Boelter, with t-intervals."""
    ratio_N = _log_nu(train) - _log_law(SMOOTH_LAW, train)
    free, spread = len(ratio_N) - 1, None
    if free:
        spread = np.full(
            len(test), max(ratio_N.std(ddof=1), 1e-6) * math.sqrt(1 + 1 / len(ratio_N))
        )
    return _outputs(ratio_N.mean() + _log_law(SMOOTH_LAW, test), spread, free)


def published(
    law: str, objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """A published law as it stands, whatever the training points say; Dittus-Boelter where it
    has no value (no ribs).
    """
    return _outputs(_log_law(law, test))


BASELINES: Mapping[str, Callable[..., Outputs]] = {
    "least_squares": least_squares,
    "ridge_power_law": ridge_power_law,
    "log_gp": log_gp,
    "boosting_nu": boosting_nu,
    "boosting_ratio": boosting_ratio,
    "mlp": mlp,
    "constant_dittus_boelter": constant_dittus_boelter,
    "han_park_1988": partial(published, "han-park-1988"),
    "ravigururajan_bergles_1996": partial(published, "ravigururajan-bergles-1996"),
    "webb_1971": partial(published, "webb-1971"),
    "dittus_boelter": partial(published, "dittus-boelter"),
}


def _logs(records: Sequence[Record]) -> np.ndarray:
    """Return the logarithms of the groups [N, F], and of the angle 1 - alpha/90, in which Nu is
    closer to a power law.
    """
    columns = [np.asarray(records.column(name), float) for name in GROUPS]
    return np.stack(
        [
            1 - column / 90 if name == "alpha_deg" else np.log(np.maximum(column, SMOOTH_WALL))
            for name, column in zip(GROUPS, columns, strict=True)
        ],
        1,
    )


def _log_nu(records: Sequence[Record]) -> np.ndarray:
    return np.log(np.asarray(records.column("value"), float))


def _log_law(name: str, records: Sequence[Record]) -> np.ndarray:
    """Return log Nu by a law of the library [N]."""
    points = {group: torch.from_numpy(np.array(records.column(group), float)) for group in GROUPS}
    nusselt, smooth = (get_correlation(law).unchecked(points) for law in (name, SMOOTH_LAW))
    return torch.where(nusselt > 0, nusselt, smooth).log().numpy()


def _boosted(
    train: Sequence[Record], test: Sequence[Record], target_N: np.ndarray, seed: int
) -> np.ndarray:
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=300, learning_rate=0.05, max_features=0.5, random_state=seed
    )
    return model.fit(_logs(train), target_N).predict(_logs(test))


def _outputs(
    log_N: np.ndarray, spread_N: np.ndarray | None = None, free: float = math.inf
) -> Outputs:
    """Return what `Nusselt.predict` does, of log Nu [N] and its spread with so many degrees of
    freedom.
    """
    from scipy.stats import t

    log_N = np.clip(log_N, -LARGEST, LARGEST)
    found = {"value": np.exp(log_N)}
    if spread_N is not None:
        reach_N = np.minimum(t.ppf((1 + COVERAGE) / 2, free) * spread_N, LARGEST)
        found |= {"std": spread_N, "low": np.exp(log_N - reach_N), "high": np.exp(log_N + reach_N)}
    return found
