"""Did pretraining help on the user's own points? Leave-one-out errors, exact, with each source and
without any.

Legend of shape letters: N points, C components, K laws.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sciforge.core.files.tables import Table
from sciforge.heat.model.mixture import moments, quantile
from sciforge.heat.model.nusselt_net import POWER, NusseltConfig, NusseltNet
from sciforge.heat.model.posterior import Posterior, Prior, Rows, weigh

Verdict = Literal["helped", "neutral", "harmed"]
# share of the evidence below which a component cannot come back when a point is left out
FAINT = 1e-9
FEWEST = 4  # points from which leaving one out says anything
EVERYTHING, NOTHING = "all sources", "no pretraining"


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Each point as the others predict it.

    Args:
        log_N: mean of log Nu.
        spread_N: standard deviation, noise included.
        low_N, high_N: the 90 % interval of log Nu.
        nats_N: log density of the measured log Nu.
    """

    log_N: np.ndarray
    spread_N: np.ndarray
    low_N: np.ndarray
    high_N: np.ndarray
    nats_N: np.ndarray


def leave_one_out(prior: Prior, rows: Rows) -> LeftOut:
    """Predict each point from all others, exactly: components are weighed anew without it, and
    nothing is fitted again.

    The evidence of all points is that of the others times the density of the one, so leaving one
    out divides by it.

    Raises:
        DataError: no law has a value at the points.
    """
    components = weigh(prior, rows, FAINT)
    found = Posterior.with_components(prior, rows, components)
    inverse_CN = torch.cholesky_inverse(found.factor_CNN).diagonal(dim1=-2, dim2=-1)
    mean_CN, variance_CN = rows.log_N - found.alpha_CN / inverse_CN, 1 / inverse_CN
    log_CN = -0.5 * (
        (rows.log_N - mean_CN) ** 2 / variance_CN + variance_CN.log() + math.log(2 * math.pi)
    )
    weight_CN = (components.weight_C.log()[:, None] - log_CN).softmax(0)
    nats_N = (weight_CN.log() + log_CN).logsumexp(0)
    parts: list[tuple[Tensor, ...]] = []
    for point in range(len(rows.log_N)):  # the mixture's weights differ from point to point
        weight_C, mean_C1, variance_C1 = (
            weight_CN[:, point],
            mean_CN[:, point, None],
            variance_CN[:, point, None],
        )
        tails = (quantile(weight_C, mean_C1, variance_C1, share) for share in (0.05, 0.95))
        parts.append((*moments(weight_C, mean_C1, variance_C1), *tails))
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    return LeftOut(*columns, nats_N.cpu().numpy())


def compare(
    model: NusseltNet,
    x_NG: Tensor,
    log_N: Tensor,
    factor_N: Tensor,
    rig_N: Tensor,
    used: tuple[str, ...] = (),
) -> "TransferAudit":
    """Leave out each point under every law of a net that was not fitted yet, all of them together,
    and no prior at all.

    Args:
        model: before its first point.
        x_NG: groups of the measured points, float64.
        log_N: logarithm of their Nusselt numbers.
        factor_N: their uncertainty factors.
        rig_N: number of the rig of each.
        used: names of the laws to compare; empty takes all.
    """
    bare = NusseltConfig((POWER,)).build(model.codec).to(x_NG).requires_grad_(False)
    found = {NOTHING: leave_one_out(bare.prior(), bare.rows(x_NG, log_N, factor_N, rig_N))}
    prior, rows = model.prior(), model.rows(x_NG, log_N, factor_N, rig_N)
    usable = [not used or name in used for name in model.laws]
    for k, name in enumerate(model.laws):
        if usable[k] and bool(rows.base_KN[k].isfinite().all()):
            alone_K = torch.full_like(prior.law_K, -torch.inf)
            alone_K[k] = 0.0
            found[name] = leave_one_out(replace(prior, law_K=alone_K), rows)
    law_K = torch.where(torch.tensor(usable, device=prior.law_K.device), prior.law_K, -torch.inf)
    found[EVERYTHING] = leave_one_out(replace(prior, law_K=law_K), rows)
    return TransferAudit.of(found, log_N.cpu().numpy())


@dataclass(frozen=True, eq=False)
class Entry:
    """One line of the transfer audit.

    Args:
        source: a law, all of them, or none.
        errors_N: |relative error| of each point as the others predict it.
        gain: geometric mean error without pretraining / with this source; above 1 it helped.
        low, high: its 90 % interval, from the spread over points.
        coverage: share of the points inside their 90 % interval.
        verdict: helped or harmed where the interval says so.
    """

    source: str
    errors_N: np.ndarray
    gain: float
    low: float
    high: float
    coverage: float
    verdict: Verdict

    @property
    def median(self) -> float:
        """Median error in %."""
        return float(np.median(self.errors_N) * 100)


@dataclass(frozen=True)
class TransferAudit:
    """What each source did to the leave-one-out error of the user's points."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, found: dict[str, LeftOut], log_N: np.ndarray) -> "TransferAudit":
        """Compare sources with NOTHING, which is among them."""
        errors = {name: np.abs(np.expm1(left.log_N - log_N)) for name, left in found.items()}
        entries = []
        for name, left in found.items():
            gain, low, high = _gain(errors[NOTHING], errors[name])
            verdict: Verdict = "helped" if low > 1 else "harmed" if high < 1 else "neutral"
            inside_N = (left.low_N <= log_N) & (log_N <= left.high_N)
            entries.append(
                Entry(name, errors[name], gain, low, high, float(inside_N.mean()), verdict)
            )
        return cls(tuple(entries))

    @property
    def harmful(self) -> tuple[str, ...]:
        """Names of the single sources that harmed."""
        return tuple(
            e.source for e in self.entries if e.verdict == "harmed" and e.source != EVERYTHING
        )

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the laws to use: empty where none harmed, so all; NOTHING alone where all
        did.
        """
        laws = [e.source for e in self.entries if e.source not in (NOTHING, EVERYTHING)]
        if not self.harmful:
            return ()
        return tuple(name for name in laws if name not in self.harmful) or (NOTHING,)

    def to_json(self) -> list[dict[str, Any]]:
        """Return every line but the errors of single points."""
        return [
            {n: v for n, v in vars(e).items() if n != "errors_N"} | {"median": e.median}
            for e in self.entries
        ]

    def table(self) -> Table:
        """Return the transfer audit as a table."""
        rows = []
        for e in self.entries:
            gain = "" if e.source == NOTHING else f"{e.gain:.2f} [{e.low:.2f}, {e.high:.2f}]"
            worst = f"{np.percentile(e.errors_N, 95) * 100:.1f}"
            said = "" if e.source == NOTHING else e.verdict
            rows.append((e.source, f"{e.median:.1f}", worst, f"{e.coverage * 100:.0f}", gain, said))
        columns = (
            "source",
            "median error %",
            "95th percentile %",
            "inside 90 % interval",
            "gain",
            "verdict",
        )
        return Table(
            columns,
            tuple(rows),
            f"leave-one-out on {len(self.entries[0].errors_N)} points; gain is against none",
        )


def _gain(without_N: np.ndarray, with_N: np.ndarray) -> tuple[float, float, float]:
    """Return how many times smaller errors are (geometric mean) and its 90 % interval by a
    paired t over points.
    """
    from scipy.stats import t

    floor = 0.005  # errors below half a per cent are all the same to a heat-transfer engineer
    log_N = np.log(np.maximum(without_N, floor)) - np.log(np.maximum(with_N, floor))
    reach = (
        t.ppf(0.95, len(log_N) - 1) * log_N.std(ddof=1) / math.sqrt(len(log_N))
        if len(log_N) > 1
        else math.inf
    )
    return tuple(float(np.exp(log_N.mean() + sign * reach)) for sign in (0, -1, 1))
