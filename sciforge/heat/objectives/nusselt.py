"""Specialising a Nusselt law to measured points: in closed form, or by descent through the shared
loop.

Legend of shape letters: B points of a batch, N measured points, G groups, F features, K laws, C
components.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.domain import Batch, Example, Gaussian, Loss, Objective, Record
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.heat.data.codec import HeatCodec
from sciforge.heat.model.mixture import moments, quantile
from sciforge.heat.model.nusselt_net import NusseltNet
from sciforge.heat.model.posterior import NEW_RIG, NOISE_CENTRE, Posterior, Prior
from sciforge.heat.model.transfer_audit import FEWEST, NOTHING, compare

HEAD = "posterior"
COVERAGE = 0.9  # of the interval that `predict` gives and `metrics` counts


class Measured(nn.Module):
    """The measured points that a checkpoint keeps, and the prior they met: together they are the
    posterior.

    Args:
        points: the most of them.
        groups: columns of a point.
        laws, features: sizes of the corrections.
    """

    def __init__(self, points: int, groups: int, laws: int, features: int) -> None:
        super().__init__()
        self.register_buffer("x_NG", torch.ones(points, groups))
        self.register_buffer("log_N", torch.zeros(points))
        self.register_buffer("factor_N", torch.ones(points))
        self.register_buffer("rig_N", torch.zeros(points, dtype=torch.long))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("centre_KF", torch.zeros(laws, features))
        self.register_buffer("solved_KF", torch.zeros(laws, features))
        self.register_buffer("used_K", torch.ones(laws, dtype=torch.bool))
        self._found: tuple[Any, Posterior] | None = None

    @torch.no_grad()
    def posterior(self, model: NusseltNet) -> Posterior:
        """Return the posterior of the points, computed in float64 when first asked for; raises
        DataError without points.
        """
        if not int(self.count):
            raise DataError("this law was given no measured points; fit it first")
        key = [
            (t.data_ptr(), t._version, t.dtype)
            for t in (*model.parameters(recurse=False), *self.buffers())
        ]
        if self._found is None or self._found[0] != key:
            size = int(self.count)
            rows = model.rows(
                self.x_NG[:size], self.log_N[:size], self.factor_N[:size], self.rig_N[:size]
            )
            self._found = key, Posterior.of(self.prior(model), rows)
        return self._found[1]

    def prior(self, model: NusseltNet) -> Prior:
        """Return the prior that the points met, without the laws that are not used."""
        prior = model.prior(self.centre_KF)
        return replace(prior, law_K=torch.where(self.used_K, prior.law_K, -torch.inf))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_found": None}


@dataclass(frozen=True)
class Nusselt(Objective):
    """The Nusselt number of measured points, from a law and what it is off by.

    `exact` solves the posterior before the first step, so a run needs 1 step at rate 0. `descent`
    moves the corrections of each law by gradient; with `--regularization ewc
    --regularization.strength 1/N` on N points it comes to rest at the same corrections.

    Args:
        fit: `exact` or `descent`.
        laws: names of the model's laws to use; empty takes all.
        noise: standard deviation of log Nu in the loss that is descended on; the exact fit finds
            its own.
        points: the most measured points; 0 takes their number from the data.
        rigs: names of rigs in the data, whose ways of being off are told apart.
        usual: uncertainty of the usual point, where the data state uncertainties; 0 takes their
            median. A point that is said to be twice as uncertain counts as twice as noisy; how
            noisy the usual point is, the fit finds.
        audit: keep a transfer audit of leave-one-out errors with each law and without any prior,
            and leave out laws that harm.
    """

    fit: Literal["exact", "descent"] = "exact"
    laws: tuple[str, ...] = ()
    noise: float = NOISE_CENTRE
    points: int = 0
    rigs: tuple[str, ...] = ()
    usual: float = 0.0
    audit: bool = True

    metric: ClassVar[str] = "median_error"
    fresh: ClassVar[tuple[str, ...]] = (HEAD,)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1e-4, 10, "noise")
        self.require(0, 10, "usual")

    def resolve(self, store: Any) -> Self:
        """Take the number of points and the names of rigs; raises DataError for a store of
        another kind.
        """
        if store.kind != "measurements":
            raise DataError(
                "this objective learns from measured points; prepare them with `prepare"
                " measurements`",
                store.path,
            )
        train = store.split("train")
        rigs = self.rigs or tuple(sorted(set(train.column("rig"))))
        stated_N = np.asarray(train.column("uncertainty"), float)
        known_N = stated_N[np.isfinite(stated_N) & (stated_N > 0)]
        usual = self.usual or (float(np.median(known_N)) if len(known_N) else 0.0)
        return replace(self, points=self.points or len(train), rigs=rigs, usual=usual)

    def attach(self, model: NusseltNet) -> None:
        """Add the head that keeps the points; raises ConfigError for a law that the model does
        not have.
        """
        for name in self.laws:
            if name not in model.laws:
                raise ConfigError(
                    f"the model has no law {name!r}; {did_you_mean(name, model.laws)}"
                )
        laws, features = model.delta_KF.shape
        model.heads[HEAD] = Measured(max(self.points, 1), len(model.codec.columns), laws, features)

    def start(
        self,
        model: NusseltNet,
        codec: HeatCodec,
        records: Sequence[Record],
        engine: Any,
        seed: int,
        parent: Any,
    ) -> Mapping[str, Any] | None:
        """Keep the points and, unless `fit` is `descent`, solve the corrections; return what was
        found.

        Raises:
            DataError: no law has a value at the points.
        """
        if parent is not None and self in parent.objectives:
            return None
        made = [
            self.prepare(record, codec, np.random.default_rng(0), training=False)
            for record in records
        ]
        batch = engine.move(codec.collate(made))
        points = (
            batch["x"].double(),
            batch["log_nu"].double(),
            batch["factor"].double(),
            batch["rig"],
        )
        if not self.audit or len(records) < FEWEST:
            return keep(model, self, *points)
        with torch.no_grad():
            audit = compare(model, *points, self.laws)
        laws = () if audit.kept == (NOTHING,) else audit.kept  # a net cannot lose its last law
        notes = keep(model, replace(self, laws=laws or self.laws), *points)
        return notes | {"audit": audit.to_json(), "harmful": list(audit.harmful)}

    def prepare(
        self, record: Record, codec: HeatCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode a point, the number of its rig and how noisy it is beside the usual point."""
        example = codec.encode(record)
        name = record.get("rig", "")
        known = self.rigs.index(name) if name in self.rigs else NEW_RIG
        example["rig"] = torch.tensor(0 if not name and len(self.rigs) < 2 else known)
        stated = float(record.get("uncertainty", np.nan))
        factor = stated / self.usual if self.usual and stated > 0 else 1.0  # NaN is not above 0
        example["factor"] = torch.tensor(factor, dtype=torch.float64)
        return example

    def loss(self, model: NusseltNet, batch: Batch) -> Loss:
        """Return half the squared errors of each law's corrected log Nu in units of the noise; else
        minus log density.

        In training the sum is over all laws, each for itself. In evaluation it is that of the
        predictive mixture, in nats.
        """
        if not model.training:
            mean_CB, variance_CB, weight_C = self.mixture(model, batch)
            left_CB = batch["log_nu"].double() - mean_CB
            log_CB = -0.5 * left_CB**2 / variance_CB - 0.5 * (2 * torch.pi * variance_CB).log()
            log_B = (log_CB + weight_C.log()[:, None]).logsumexp(0)
            return Loss(-log_B.sum(), torch.tensor(len(log_B)))
        base_KB, phi_BF = model.bases(batch["x"]), model.codec.featured(batch["x"].double())
        left_KB = batch["log_nu"].double() - base_KB - model.delta_KF.double() @ phi_BF.T
        usable_KB = base_KB.isfinite() & model.heads[HEAD].used_K[:, None]
        size_B = self.noise * batch["factor"].double()
        error_KB = torch.where(usable_KB, torch.where(usable_KB, left_KB, 0.0) / size_B, 0.0)
        return Loss(0.5 * error_KB.square().sum(), torch.tensor(len(size_B)))

    def likelihood(self, model: NusseltNet, batch: Batch) -> Gaussian:
        """Return what each law's corrections say of log Nu."""
        base_KB, phi_BF = model.bases(batch["x"]), model.codec.featured(batch["x"].double())
        mean_KB = base_KB + model.delta_KF.double() @ phi_BF.T
        usable_KB = base_KB.isfinite() & model.heads[HEAD].used_K[:, None]
        scale_KB = (self.noise * batch["factor"].double()).expand_as(mean_KB)
        target_KB = batch["log_nu"].double().expand_as(mean_KB)
        return Gaussian(mean_KB[usable_KB], scale_KB[usable_KB], target_KB[usable_KB])

    def mixture(self, model: NusseltNet, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and variance of log Nu [C, B], noise included, and weights [C] of the
        predictive mixture.

        What descent has added to the corrections since the solve is added to the mean.
        """
        head: Measured = model.heads[HEAD]
        found = head.posterior(model)
        rows = model.rows(batch["x"], factor_N=batch["factor"], rig_N=batch["rig"])
        mean_CB, variance_CB = found.predict(rows)
        moved_KF = (model.delta_KF - head.solved_KF).double()
        if self.fit == "descent":
            mean_KB = rows.base_KN + model.delta_KF.double() @ rows.feature_NF.T
            return mean_KB[found.components.law_C], variance_CB, found.components.weight_C
        mean_CB = mean_CB + (moved_KF @ rows.feature_NF.T)[found.components.law_C]
        return mean_CB, variance_CB, found.components.weight_C

    def predict(self, model: NusseltNet, batch: Batch) -> dict[str, Tensor]:
        """Return `value` (the Nusselt number, as a median), `std` (of log Nu), `low` and `high`
        (the 90 % interval) [B].
        """
        mean_CB, variance_CB, weight_C = self.mixture(model, batch)
        mean_B, std_B = moments(weight_C, mean_CB, variance_CB)
        tails = ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2)
        low_B, high_B = (quantile(weight_C, mean_CB, variance_CB, share).exp() for share in tails)
        return {"value": mean_B.exp(), "std": std_B, "low": low_B, "high": high_B}

    def metrics(
        self, outputs: Mapping[str, np.ndarray], records: Sequence[Record]
    ) -> dict[str, float]:
        """Return median and 95th percentile of the relative error in %, bias in %, and, with
        intervals, coverage and width.
        """
        true_N = np.asarray(records.column("value"), float)
        away_N = outputs["value"] / true_N - 1
        metrics = {
            "median_error": float(np.median(np.abs(away_N)) * 100),
            "p95_error": float(np.percentile(np.abs(away_N), 95) * 100),
            "bias": float(np.expm1(np.log(outputs["value"] / true_N).mean()) * 100),
        }
        if "low" in outputs:
            inside_N = (outputs["low"] <= true_N) & (true_N <= outputs["high"])
            metrics["coverage"] = float(inside_N.mean() * 100)
            metrics["half_width"] = float(np.median(np.log(outputs["high"] / outputs["low"])) * 50)
        return metrics


@torch.no_grad()
def keep(
    model: NusseltNet,
    objective: Nusselt,
    x_NG: Tensor,
    log_N: Tensor,
    factor_N: Tensor,
    rig_N: Tensor,
) -> dict[str, Any]:
    """Give measured points to a model's head, solve its corrections, and return what was found, as
    JSON takes it.

    Raises:
        DataError: no law has a value at the points.
    """
    head: Measured = model.heads[HEAD]
    size = len(log_N)
    for name, value in (("x_NG", x_NG), ("log_N", log_N), ("factor_N", factor_N), ("rig_N", rig_N)):
        getattr(head, name)[:size] = value.to(getattr(head, name))
    head.count.fill_(size)
    head.centre_KF.copy_(model.delta_KF)
    head.solved_KF.copy_(model.delta_KF)
    head.used_K.copy_(
        torch.tensor([not objective.laws or name in objective.laws for name in model.laws])
    )
    found = head.posterior(model)
    law_K = found.collapsed().law_K
    if objective.fit == "exact":
        solved_KF = law_means(found)
        model.delta_KF.copy_(solved_KF)
        head.solved_KF.copy_(model.delta_KF)
    c = found.components
    return {
        "laws": {name: float(weight) for name, weight in zip(model.laws, law_K, strict=True)},
        "noise": float((c.weight_C * c.noise_C).sum()),
        "residual": float((c.weight_C * (c.amplitude_C > 0)).sum()),
        "between_rigs": float((c.weight_C * c.rig_C).sum()),
        "scale": float((c.weight_C * c.scale_C).sum()),
    }


def law_means(found: Posterior) -> Tensor:
    """Return the posterior mean of each law's corrections [K, F], averaged over the measured
    plates; of an unused law the prior's.
    """
    mean_CF, _ = found.corrections(found.prior.together(found.rows, found.rows).mean(0))
    mean_KF = found.prior.centre_KF.clone()
    for law in found.components.law_C.unique():
        of_law = found.components.law_C == law
        weight_C = found.components.weight_C[of_law]
        mean_KF[law] = weight_C @ mean_CF[of_law] / weight_C.sum()
    return mean_KF
