"""The exact posterior of a corrected law: which law, which exponents, how noisy, in closed form.

For law k of the library   log Nu = log Nu_k(x) + phi(x) . delta + r(x) + noise,   delta ~
N(centre_k, diag spread_k^2). r is a network of radial units, one at each measured point, whose
output weights have the prior of a Gaussian process (Matern-3/2, amplitude a): it fades to 0 away
from the points, and the amplitude 0 is among the choices. Law, noise, amplitude and the spread
between rigs are summed over by their evidence (MacKay 1992), so a part counts as much as the data
pay for it.

Legend of shape letters: N, M points, F features, D coordinates, K laws, S noises, A amplitudes, T
spreads between rigs, C components (a choice of each), B campaigns.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sciforge.errors import DataError

# Rigs state 5.8 to 8 % at odds of 20 to 1 (Han & Park 1988; Lau et al. 1991; Han, Zhang & Lee
# 1991), 3 to 4 % of one sigma.
NOISE_S = (0.015, 0.025, 0.035, 0.05, 0.07, 0.1, 0.15)
NOISE_CENTRE, NOISE_SPREAD = 0.035, 0.5  # of the prior of log noise
AMPLITUDE_A = (0.0, 0.03, 0.06, 0.12)
# How far a system is from the laws, as a multiple of how far the laws are from each other: the data
# say which.
SCALE_L = (0.2, 0.4, 0.7, 1.0)
# Laboratories differ by 12 to 13 % in R, by .06 in the Reynolds exponent and by .08 in that of e/D.
RIG_T = (0.03, 0.06, 0.12)
RIG_SHAPE = {"level": 1.0, "Re": 0.5, "e_D": 0.67}
ROOT3 = math.sqrt(3.0)
NEGLIGIBLE = 1e-3  # share of the evidence below which a component is left out
# points from which the evidence is computed; components hardly change beyond
MOST_FOR_WEIGHTS = 300
NEW_RIG = -1


@dataclass(frozen=True)
class Rows:
    """What a fit sees of points.

    Args:
        feature_NF: features of the law.
        coordinate_ND: where the points lie.
        base_KN: log Nu by each law.
        log_N: measured log Nu (zeros where it is to be predicted).
        factor_N: the noise of each point as a multiple of the usual one.
        rig_N: number of the rig, int64; NEW_RIG for one that was never seen.
    """

    feature_NF: Tensor
    coordinate_ND: Tensor
    base_KN: Tensor
    log_N: Tensor
    factor_N: Tensor
    rig_N: Tensor

    def take(self, places: Tensor) -> "Rows":
        """Return some of the points."""
        values = {name: value[places] for name, value in vars(self).items() if name != "base_KN"}
        return Rows(base_KN=self.base_KN[:, places], **values)


@dataclass(frozen=True)
class Prior:
    """What is known before the first measurement; all that pretraining learns.

    Args:
        centre_KF, spread_KF: mean and standard deviation of the corrections of each law.
        law_K: log weight of each law.
        length_D: distances over which the residual varies.
        noise_S, amplitude_A, rig_T: the choices, and
        noise_logit_S, amplitude_logit_A: their log weights.
        rig_F: shape of the spread between rigs over the features.
        scale_L: choices of how far a system is from the laws, as multiples of `spread_KF`, and
        scaled_F: the features they are of: all but the Prandtl number, of which a rig in air says
            nothing.
        plate_D: which coordinates tell plates apart, bool.
    """

    centre_KF: Tensor
    spread_KF: Tensor
    law_K: Tensor
    length_D: Tensor
    noise_S: Tensor
    noise_logit_S: Tensor
    amplitude_A: Tensor
    amplitude_logit_A: Tensor
    rig_T: Tensor
    rig_F: Tensor
    scale_L: Tensor
    scaled_F: Tensor
    plate_D: Tensor

    def linear(self, a_NF: Tensor, b_MF: Tensor) -> Tensor:
        """Return the covariance [..., K, N, M] that uncertain corrections give to points of one
        rig.
        """
        return torch.einsum("...nf,kf,...mf->...knm", a_NF, self.spread_KF**2, b_MF)

    def variances(self, law_C: Tensor, rig_C: Tensor, scale_C: Tensor) -> tuple[Tensor, Tensor]:
        """Return the variance [C, F] of the corrections, and of its part that plates far apart
        do not share.
        """
        whole_CF = (torch.where(self.scaled_F, scale_C[:, None], 1.0) * self.spread_KF[law_C]) ** 2
        return whole_CF, torch.minimum((rig_C[:, None] * self.rig_F) ** 2, whole_CF)

    def together(self, a: "Rows", b: "Rows") -> Tensor:
        """Return how much points share the ways of one plate of one rig [N, M], 1 to 0: plates
        differ the more, the less alike.
        """
        same_NM = (a.rig_N[:, None] == b.rig_N) & (a.rig_N != NEW_RIG)[:, None]
        plate_D = self.plate_D
        return same_NM * self.correlation(
            a.coordinate_ND[:, plate_D], b.coordinate_ND[:, plate_D], self.length_D[plate_D]
        )

    def residual(self, a_ND: Tensor, b_MD: Tensor) -> Tensor:
        """Return the correlation [..., N, M] of the residual: Matern-3/2 in units of `length_D`."""
        return self.correlation(a_ND, b_MD, self.length_D)

    @staticmethod
    def correlation(a_ND: Tensor, b_MD: Tensor, length_D: Tensor) -> Tensor:
        """Return the Matern-3/2 correlation [..., N, M] of places."""
        away = (a_ND / length_D).unsqueeze(-2) - (b_MD / length_D).unsqueeze(-3)
        scaled = ROOT3 * (away.square().sum(-1) + 1e-12).sqrt()
        return (1 + scaled) * torch.exp(-scaled)

    def weights(self) -> Tensor:
        """Return the log prior weight [K, S, A] of each choice of law, noise and amplitude."""
        parts = (self.law_K[:, None, None], self.noise_logit_S[:, None], self.amplitude_logit_A)
        return sum(part - part.logsumexp(tuple(range(part.dim()))) for part in parts)


def evidence(
    prior: Prior,
    feature_BNF: Tensor,
    coordinate_BND: Tensor,
    away_BKN: Tensor,
    mask_BN: Tensor,
    law_BK: Tensor,
) -> Tensor:
    """Return the log evidence [B] of campaigns, each of one rig, over all choices; differentiable,
    for pretraining.

    Args:
        prior: is trained.
        feature_BNF: of the points.
        coordinate_BND: of the points.
        away_BKN: log Nu minus that of each law.
        mask_BN: which points are there.
        law_BK: which laws may explain a campaign: not the one it was drawn from.
    """
    pair_BNM = mask_BN[:, :, None] & mask_BN[:, None]
    shared_BKNM = prior.linear(feature_BNF, feature_BNF)[:, :, None, None]
    radial_BNM = prior.residual(coordinate_BND, coordinate_BND)
    eye_NM = torch.eye(mask_BN.shape[1], dtype=away_BKN.dtype, device=away_BKN.device)
    noise_SANM = (prior.noise_S**2)[:, None, None, None] * eye_NM
    full = (
        shared_BKNM
        + prior.amplitude_A[:, None, None] ** 2 * radial_BNM[:, None, None, None]
        + noise_SANM
    )
    full = torch.where(pair_BNM[:, None, None, None], full, eye_NM)
    left_BKN = away_BKN - torch.einsum("bnf,kf->bkn", feature_BNF, prior.centre_KF)
    left_BKN = torch.where(mask_BN[:, None], left_BKN, 0.0)
    count_B = mask_BN.sum(-1)[:, None, None, None]
    found = _log_normal(_cholesky_or_nan(full), left_BKN[:, :, None, None], count_B)
    found = found + prior.weights() + torch.where(law_BK, 0.0, -torch.inf)[:, :, None, None]
    return found.flatten(1).logsumexp(-1)


def _cholesky_or_nan(covariance: Tensor) -> Tensor:
    """Return Cholesky factors, NaN where there is none: in training the host need not wait, the
    loss tells.
    """
    factor, failed = torch.linalg.cholesky_ex(covariance)
    return torch.where(failed[..., None, None] == 0, factor, torch.nan)


def _log_normal(factor: Tensor, left: Tensor, count: Tensor) -> Tensor:
    """Return log N(left; 0, factor factor^T) over the last axis, broadcasting."""
    half = torch.linalg.solve_triangular(
        factor, left[..., None].expand(*factor.shape[:-1], 1), upper=False
    )[..., 0]
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * half.square().sum(-1) - log_det - 0.5 * count * math.log(2 * math.pi)


@dataclass(frozen=True)
class Components:
    """Some choices of everything, with weights that sum to 1; each a Gaussian posterior.

    Args:
        weight_C: of each component.
        law_C: its law, int64; `noise_C`, `amplitude_C`, `rig_C`: its noise, amplitude, spread
            between rigs; `scale_C`: the corrections' spread as a multiple of the prior's.
    """

    weight_C: Tensor
    law_C: Tensor
    noise_C: Tensor
    amplitude_C: Tensor
    rig_C: Tensor
    scale_C: Tensor

    def take(self, places: Tensor) -> "Components":
        """Return some of them, reweighted to sum to 1."""
        part = Components(*(value[places] for value in vars(self).values()))
        return replace(part, weight_C=part.weight_C / part.weight_C.sum())


@dataclass(frozen=True)
class Posterior:
    """The posterior given measured points.

    Args:
        prior: what was known before.
        rows: the points.
        components: the choices that the data left.
        factor_CNN: lower Cholesky factors of their covariances.
        alpha_CN: what predictions weigh the points with.
    """

    prior: Prior
    rows: Rows
    components: Components
    factor_CNN: Tensor = field(repr=False)
    alpha_CN: Tensor = field(repr=False)

    @classmethod
    def of(cls, prior: Prior, rows: Rows, seed: int = 0) -> "Posterior":
        """Return the posterior of points; of many, the evidence is computed from
        MOST_FOR_WEIGHTS drawn by `seed`.
        """
        few = rows
        if len(rows.log_N) > MOST_FOR_WEIGHTS:
            draw = torch.Generator().manual_seed(seed)
            few = rows.take(
                in_order(rows)[torch.randperm(len(rows.log_N), generator=draw)[:MOST_FOR_WEIGHTS]]
            )
        components = weigh(prior, few)
        if len(rows.log_N) > MOST_FOR_WEIGHTS:
            components = components.take(
                components.weight_C.topk(min(8, len(components.weight_C))).indices
            )
        return cls.with_components(prior, rows, components)

    @classmethod
    def with_components(cls, prior: Prior, rows: Rows, components: Components) -> "Posterior":
        """Return the posterior under given components."""
        covariance_CNM = covariance(prior, components, rows, rows)
        noise_CN = (components.noise_C[:, None] * rows.factor_N) ** 2
        factor_CNN = torch.linalg.cholesky(covariance_CNM + torch.diag_embed(noise_CN))
        left_CN = (
            rows.log_N
            - rows.base_KN[components.law_C]
            - prior.centre_KF[components.law_C] @ rows.feature_NF.T
        )
        alpha_CN = torch.cholesky_solve(left_CN[..., None], factor_CNN)[..., 0]
        return cls(prior, rows, components, factor_CNN, alpha_CN)

    def predict(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return mean and variance (noise included) of log Nu [C, M] at the points of `rows`, by
        each component.
        """
        c, prior = self.components, self.prior
        cross_CMN = covariance(prior, c, rows, self.rows)
        centre_CM = rows.base_KN[c.law_C] + prior.centre_KF[c.law_C] @ rows.feature_NF.T
        half_CNM = torch.linalg.solve_triangular(self.factor_CNN, cross_CMN.mT, upper=False)
        own_CM = (
            prior.variances(c.law_C, c.rig_C, c.scale_C)[0] @ (rows.feature_NF**2).T
            + c.amplitude_C[:, None] ** 2
        )
        noise_CM = (c.noise_C[:, None] * rows.factor_N) ** 2 + self._strangeness(rows)
        mean_CM = centre_CM + torch.einsum("cmn,cn->cm", cross_CMN, self.alpha_CN)
        return mean_CM, (own_CM - half_CNM.square().sum(1)).clamp(min=0) + noise_CM

    def _strangeness(self, rows: Rows) -> Tensor:
        """Return the variance [C, M] that points of a new rig have besides, where only one rig was
        measured.

        Its plates say how plates differ, not how laboratories do; then what laboratories have
        published of each other holds.
        """
        c, prior = self.components, self.prior
        if len(self.rows.rig_N.unique()) > 1:
            return torch.zeros(1, 1, dtype=rows.log_N.dtype, device=rows.log_N.device)
        _, unshared_CF = prior.variances(c.law_C, c.rig_C, c.scale_C)
        missing_CF = ((prior.rig_T.max() * prior.rig_F) ** 2 - unshared_CF).clamp(min=0)
        return (missing_CF @ (rows.feature_NF**2).T) * (rows.rig_N == NEW_RIG)

    def corrections(self, near_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean [C, F] and covariance [C, F, F] of the corrections of a plate, as near to
        the points' as `near_N` (0 to 1).
        """
        c, prior = self.components, self.prior
        whole_CF, unshared_CF = prior.variances(c.law_C, c.rig_C, c.scale_C)
        cross_CFN = (
            whole_CF[..., None] - unshared_CF[..., None] * (1 - near_N)
        ) * self.rows.feature_NF.T
        mean_CF = prior.centre_KF[c.law_C] + torch.einsum("cfn,cn->cf", cross_CFN, self.alpha_CN)
        half_CNF = torch.linalg.solve_triangular(self.factor_CNN, cross_CFN.mT, upper=False)
        return mean_CF, torch.diag_embed(whole_CF) - half_CNF.mT @ half_CNF

    def collapsed(self) -> "Collapsed":
        """Return the mean of the mixture as one law, for points of the first rig."""
        c, prior, rows = self.components, self.prior, self.rows
        law_K = torch.zeros_like(prior.law_K).index_add(0, c.law_C, c.weight_C)
        whole_CF, unshared_CF = prior.variances(c.law_C, c.rig_C, c.scale_C)
        far_CF = prior.centre_KF[c.law_C] + (whole_CF - unshared_CF) * (
            self.alpha_CN @ rows.feature_NF
        )
        plate_NF = (
            torch.einsum("c,cf,cn->nf", c.weight_C, unshared_CF, self.alpha_CN) * rows.feature_NF
        )
        plate_NF = plate_NF * (rows.rig_N == 0)[:, None]
        unit_N = torch.einsum("c,cn->n", c.weight_C * c.amplitude_C**2, self.alpha_CN)
        return Collapsed(prior, rows.coordinate_ND, law_K, c.weight_C @ far_CF, plate_NF, unit_N)


@dataclass(frozen=True)
class Collapsed:
    """The mean of a posterior as one law; an engineer's formula and a fast function.

    log Nu = sum_k law_k log Nu_k + phi . (correction + sum_n near(x, n) plate_n) + sum_n
    residual(x, n) unit_n, where `near` is the correlation of plates (Prior.plate_D) and `residual`
    that of all coordinates.

    Args:
        prior: gives the correlations.
        coordinate_ND: of the measured points.
        law_K: weights of the laws.
        correction_F: of plates far from all measured ones.
        plate_NF: what each point adds to the corrections of plates like its own.
        unit_N: weights of the radial units.
    """

    prior: Prior
    coordinate_ND: Tensor
    law_K: Tensor
    correction_F: Tensor
    plate_NF: Tensor
    unit_N: Tensor

    def near(self, coordinate_MD: Tensor) -> Tensor:
        """Return the correlation [M, N] of plates with the measured ones."""
        plate_D = self.prior.plate_D
        lengths = self.prior.length_D[plate_D]
        return self.prior.correlation(
            coordinate_MD[:, plate_D], self.coordinate_ND[:, plate_D], lengths
        )

    def mean(self, rows: Rows) -> Tensor:
        """Return the mean of log Nu [M]."""
        used_K = self.law_K > 0  # a law without weight may have no value here
        base_M = self.law_K[used_K] @ rows.base_KN[used_K]
        corrections_MF = self.correction_F + self.near(rows.coordinate_ND) @ self.plate_NF
        residual_M = self.prior.residual(rows.coordinate_ND, self.coordinate_ND) @ self.unit_N
        return base_M + (corrections_MF * rows.feature_NF).sum(-1) + residual_M


def in_order(rows: Rows) -> Tensor:
    """Return the places of points in an order that depends on the points alone, so that a draw
    does not on theirs.
    """
    keys_NQ = torch.cat([rows.feature_NF, rows.log_N[:, None]], 1)
    order = torch.arange(len(keys_NQ), device=keys_NQ.device)
    for column_N in keys_NQ.flip(1).unbind(1):  # the least important key first
        order = order[column_N[order].argsort(stable=True)]
    return order


def weigh(prior: Prior, rows: Rows, negligible: float = NEGLIGIBLE) -> Components:
    """Return every component whose weight by evidence is not below `negligible` times that of
    the best; raises DataError.
    """
    feature_NF, apart_NM = rows.feature_NF, 1 - prior.together(rows, rows)
    radial_ANM = prior.amplitude_A[:, None, None] ** 2 * prior.residual(
        rows.coordinate_ND, rows.coordinate_ND
    )
    noise_SNM = torch.diag_embed((prior.noise_S[:, None] * rows.factor_N) ** 2)
    left_KN = rows.base_KN.neg() + rows.log_N - prior.centre_KF @ feature_NF.T
    count = torch.tensor(len(rows.log_N))
    found = []
    laws_K = torch.arange(len(prior.law_K), device=feature_NF.device)
    choices_R2 = torch.cartesian_prod(prior.rig_T, prior.scale_L)
    for rig, scale in choices_R2:  # one at a time, for memory
        whole_KF, unshared_KF = prior.variances(
            laws_K, rig.expand(len(laws_K)), scale.expand(len(laws_K))
        )
        linear_KNM = torch.einsum("nf,kf,mf->knm", feature_NF, whole_KF, feature_NF)
        linear_KNM = (
            linear_KNM
            - torch.einsum("nf,kf,mf->knm", feature_NF, unshared_KF, feature_NF) * apart_NM
        )
        full = linear_KNM[:, None, None] + noise_SNM[:, None] + radial_ANM
        found.append(
            _log_normal(torch.linalg.cholesky(full), left_KN[:, None, None], count)
            + prior.weights()
        )
    log_RKSA = torch.stack(found)
    if not bool(log_RKSA.isfinite().any()):
        raise DataError(
            "no law of the library has a value at these points; check the groups, or choose other"
            " laws"
        )
    weight = log_RKSA.nan_to_num(nan=-torch.inf).flatten().softmax(0)
    kept = (weight > negligible * weight.max()).nonzero()[:, 0]
    r, k, s, a = torch.unravel_index(kept, log_RKSA.shape)
    rig_C, scale_C = choices_R2[r].unbind(1)
    weight_C = weight[kept] / weight[kept].sum()
    return Components(weight_C, k, prior.noise_S[s], prior.amplitude_A[a], rig_C, scale_C)


def covariance(prior: Prior, components: Components, a: Rows, b: Rows) -> Tensor:
    """Return the covariance [C, N, M] of log Nu at points under each component, without noise."""
    whole_CF, unshared_CF = prior.variances(components.law_C, components.rig_C, components.scale_C)
    linear_CNM = torch.einsum("nf,cf,mf->cnm", a.feature_NF, whole_CF, b.feature_NF)
    apart_CNM = torch.einsum("nf,cf,mf->cnm", a.feature_NF, unshared_CF, b.feature_NF) * (
        1 - prior.together(a, b)
    )
    linear_CNM = linear_CNM - apart_CNM
    radial_NM = prior.residual(a.coordinate_ND, b.coordinate_ND)
    return linear_CNM + components.amplitude_C[:, None, None] ** 2 * radial_NM
