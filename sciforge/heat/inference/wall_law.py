"""Friction and heat transfer fitted together, through the law of the wall.

In Han's frame St = sqrt(f/2) / (G(e+) - c) with c = 2.5 ln[(2e/D)(2W/(W+H))] + 2.5 and e+ = (e/D)
Re sqrt(f/2): a wall that drags more also heats more, by s = d log Nu / d log f = (1 - n (g + c)/g)
/ 2 where g = sqrt(f/2)/St and G grows as e+^n. So log f = log f_k + phi . delta_f and log Nu = log
Nu_k + s phi . delta_f + phi . delta_G are one linear model of two outputs, whose posterior is exact
as that of Nu alone: a measured f narrows Nu, and a measured Nu narrows f. (Dipprey & Sabersky 1963;
Han 1988.)

Legend of shape letters: N points, G groups, F features, D coordinates, K laws.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sciforge.errors import DataError
from sciforge.heat.correlations.correlation import filled
from sciforge.heat.correlations.library import get_correlation
from sciforge.heat.inference.estimator import NusseltLaw
from sciforge.heat.model.mixture import moments, quantile
from sciforge.heat.model.nusselt_net import POWER, NusseltNet
from sciforge.heat.model.posterior import Posterior, Prior, Rows
from sciforge.heat.objectives.nusselt import HEAD

GROWTH = 0.3  # n: G grows as e+^.28 (Webb 1971, Han 1988) to e+^.35 (Han & Park 1988)
# Corrections of friction: Ravigururajan and Bergles' law has 77 % of its data within 20 %.
FRICTION = {
    "level": 0.25,
    "Re": 0.1,
    "Pr": 1e-3,
    "e_D": 0.3,
    "P_e": 0.3,
    "W_H": 0.2,
    "angle_60": 0.3,
    "angle_30": 0.4,
    "Re_angle": 0.1,
}
LEAST = 0.3  # of a pretrained spread is left to G when f takes its share
# length along the axis that tells the two outputs apart: their residuals have nothing in common
APART = 1e-3


class WallNusseltLaw(NusseltLaw):
    """A NusseltLaw that also takes measured friction factors and predicts them.

    Laws without a friction formula cannot be coupled and are left out. Parameters as NusseltLaw;
    `audit` has no meaning here.
    """

    def fit(
        self,
        X: Any,
        y: Any,
        rig: Sequence[str] | None = None,
        factor: Any = None,
        fanning: Any = None,
    ) -> Self:
        """Solve the joint posterior.

        Args:
            X: points, as for NusseltLaw.
            y: measured Nusselt numbers.
            rig: name of the rig of each point.
            factor: uncertainty factor of each point.
            fanning: four-sided Fanning factor of each point, NaN where it was not measured.

        Raises:
            DataError: as NusseltLaw, no friction factor at all, or none of the laws knows friction.
        """
        audit, self.audit = self.audit, False
        try:
            super().fit(X, y, rig=rig, factor=factor)
        finally:
            self.audit = audit
        x_NG, log_N, factor_N, rig_N = self._points
        f_N = (
            torch.full_like(log_N, torch.nan)
            if fanning is None
            else torch.tensor(np.asarray(fanning, float))
        )
        if f_N.shape != log_N.shape or not bool((f_N > 0).any()):
            raise DataError(
                "fanning holds no friction factor above 0; give four-sided Fanning factors, NaN"
                " where there is none"
            )
        if bool((f_N <= 0).any()):
            raise DataError(
                f"fanning is {float(f_N[f_N <= 0][0]):g} at a point; it must be above 0, or NaN"
                " where unknown"
            )
        known_N = f_N.isfinite()
        both = _joined(
            _heat_rows(self.model_, x_NG, log_N, factor_N, rig_N),
            _friction_rows(
                self.model_, x_NG[known_N], f_N[known_N].log(), factor_N[known_N], rig_N[known_N]
            ),
        )
        self.joint_ = Posterior.of(
            _joint_prior(self.model_, self.model_.heads[HEAD].prior(self.model_)), both
        )
        return self

    @property
    def posterior_(self) -> Posterior:
        """The joint posterior; its features are those of friction, then those of G."""
        return self.joint_

    def rows(self, X: Any, rig: Any = None) -> Rows:
        """Return points as the joint posterior sees their Nusselt numbers; raises DataError as
        `fit`.
        """
        plain = super().rows(X, rig)
        return _heat_rows(
            self.model_, torch.from_numpy(self._groups(X)), plain.log_N, plain.factor_N, plain.rig_N
        )

    def _middle(self, rows: Rows) -> np.ndarray:
        return moments(*self._mixture(rows))[0].exp().numpy()

    def predict_friction(self, X: Any, coverage: float | None = None) -> Any:
        """Return four-sided Fanning factors [M] (medians), or the ends of the interval that
        holds a reading with `coverage`.
        """
        x_MG = torch.from_numpy(self._groups(X))
        one_M = torch.ones(len(x_MG), dtype=torch.float64)
        rows = _friction_rows(
            self.model_,
            x_MG,
            torch.zeros_like(one_M),
            one_M,
            torch.zeros(len(x_MG), dtype=torch.long),
        )
        mixture = self._mixture(rows)
        if coverage is None:
            return moments(*mixture)[0].exp().numpy()
        tails = ((1 - coverage) / 2, (1 + coverage) / 2)
        return tuple(quantile(*mixture, share).exp().numpy() for share in tails)


def slope(points: Any, nusselt_N: Tensor, fanning_N: Tensor) -> Tensor:
    """Return d log Nu / d log f [N] by the law of the wall, of points with a law's Nusselt number
    and four-sided Fanning factor.

    >>> points = {"Re": torch.tensor([3e4]), "Pr": 0.703, "e_D": 0.0625, "P_e": 10.0}
    >>> points |= {"alpha_deg": 90.0, "W_H": 1.0}
    >>> round(float(slope(points, torch.tensor([190.0]), torch.tensor([0.0578]))), 2)
    0.37
    """
    whole = filled(points)
    shift_N = 2.5 * (2 * whole["e_D"] * 2 * whole["W_H"] / (whole["W_H"] + 1)).log() + 2.5
    g_N = (fanning_N / 2).sqrt() * whole["Re"] * whole["Pr"] / nusselt_N
    return (1 - GROWTH * (g_N + shift_N) / g_N) / 2


def _friction_bases(model: NusseltNet, x_NG: Tensor) -> Tensor:
    """Return log f by each law [K, N], NaN where it has none."""
    points = model.codec.points(x_NG)
    found = []
    for name in model.laws:
        law = None if name == POWER else get_correlation(name)
        known = law is not None and law.friction is not None and law.ribs != ""
        found.append(law.fanning(points).log() if known else torch.full_like(x_NG[:, 0], torch.nan))
    if not bool(torch.stack(found).isfinite().any()):
        raise DataError(
            "none of the laws knows the friction of these points; choose a prior of ribbed walls"
        )
    return torch.stack(found)


def _outputs(coordinate_ND: Tensor, number: float) -> Tensor:
    return torch.cat([coordinate_ND, torch.full_like(coordinate_ND[:, :1], number)], 1)


def _friction_rows(
    model: NusseltNet, x_NG: Tensor, log_N: Tensor, factor_N: Tensor, rig_N: Tensor
) -> Rows:
    plain = model.rows(x_NG, log_N, factor_N, rig_N)
    feature_NF = torch.cat([plain.feature_NF, torch.zeros_like(plain.feature_NF)], 1)
    coordinate_ND = _outputs(plain.coordinate_ND, 1.0)
    return replace(
        plain,
        feature_NF=feature_NF,
        coordinate_ND=coordinate_ND,
        base_KN=_friction_bases(model, x_NG),
    )


def _heat_rows(
    model: NusseltNet, x_NG: Tensor, log_N: Tensor, factor_N: Tensor, rig_N: Tensor
) -> Rows:
    plain = model.rows(x_NG, log_N, factor_N, rig_N)
    friction_KN = _friction_bases(model, x_NG)
    slope_KN = slope(model.codec.points(x_NG), plain.base_KN.exp(), friction_KN.exp())
    slope_N = slope_KN.nanmedian(0).values  # laws hardly differ in it
    feature_NF = torch.cat([slope_N[:, None] * plain.feature_NF, plain.feature_NF], 1)
    base_KN = torch.where(friction_KN.isfinite(), plain.base_KN, torch.nan)
    return replace(
        plain,
        feature_NF=feature_NF,
        coordinate_ND=_outputs(plain.coordinate_ND, 0.0),
        base_KN=base_KN,
    )


def _joined(a: Rows, b: Rows) -> Rows:
    values = {
        name: torch.cat([getattr(a, name), getattr(b, name)], int(name == "base_KN"))
        for name in vars(a)
    }
    return Rows(**values)


def _joint_prior(model: NusseltNet, prior: Prior) -> Prior:
    """Return the prior of both outputs: the pretrained spread of Nu is shared out between
    friction and G.
    """
    friction_F = torch.tensor(
        [FRICTION.get(name, 0.3) for name in model.codec.features], dtype=torch.float64
    )
    taken_KF = (0.38 * friction_F).expand_as(prior.spread_KF)  # the slope at a usual point
    left_KF = (prior.spread_KF**2 - taken_KF**2).clamp(min=0).sqrt()
    left_KF = torch.maximum(left_KF, LEAST * prior.spread_KF)
    none_KF = torch.zeros_like(prior.centre_KF)
    return replace(
        prior,
        centre_KF=torch.cat([none_KF, prior.centre_KF], 1),
        spread_KF=torch.cat([friction_F.expand_as(left_KF), left_KF], 1),
        length_D=torch.cat([prior.length_D, prior.length_D.new_tensor([APART])]),
        rig_F=torch.cat([torch.zeros_like(prior.rig_F), prior.rig_F]),
        scaled_F=torch.cat([prior.scaled_F, prior.scaled_F]),
        plate_D=torch.cat([prior.plate_D, prior.plate_D.new_tensor([False])]),
    )
