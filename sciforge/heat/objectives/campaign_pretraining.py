"""Learning the prior of the next rig from campaigns of rigs that obey published laws.

Hyperparameters of a Gaussian process are pretrained on many tasks by their evidence (Wang et al.
2024, "Pre-trained Gaussian processes for Bayesian optimization", JMLR 25); here a task is a
campaign, and the law it was drawn from is not among those that may explain it. So what is learnt is
how far the published laws are from a system that none of them describes.

Legend of shape letters: B campaigns, N points, G groups, F features, K laws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from sciforge.core.data.sampling import micro_batches
from sciforge.core.domain import Batch, Example, Gaussian, Loss, Objective, Record
from sciforge.errors import DataError
from sciforge.heat.correlations.library import CORRELATIONS
from sciforge.heat.data.codec import HeatCodec
from sciforge.heat.model import posterior
from sciforge.heat.model.nusselt_net import NusseltNet

# Hyperprior: how far learnt values may be from where they start, in logarithms; a library holds few
# systems.
CENTRE_SPREAD, SPREAD_SPREAD, LENGTH_SPREAD, WEIGHT_SPREAD = 0.3, 1.0, 0.3, 1.0


@dataclass(frozen=True)
class CampaignEvidence(Objective):
    """The evidence of campaigns under the prior, which is what is learnt, in nats a campaign.

    Args:
        rig: between-rig standard deviation of the level; those of the exponents follow
            (posterior.RIG_SHAPE).
        noise: of the readings, one standard deviation; campaigns vary around it.
        noise_spread: standard deviation of log noise from campaign to campaign.
        level: more of the same for the level alone, for a prior that is to serve walls of another
            kind (0.8 when smooth ducts are to be followed by ribs, which double or treble heat
            transfer).
        systems: how many systems the data hold; 0 takes it from the data. The hyperprior counts
            once, campaigns as one a system.
    """

    rig: float = 0.12
    noise: float = posterior.NOISE_CENTRE
    noise_spread: float = 0.4
    level: float = 0.0
    systems: int = 0

    metric: ClassVar[str] = "loss"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, 3, "rig", "noise_spread", "level")
        self.require(1e-4, 1, "noise")

    def resolve(self, store: Any) -> Self:
        """Take the number of systems; raises DataError for a store of another kind."""
        if store.kind != "campaigns":
            raise DataError(
                "this objective learns from campaigns; make them with `sciforge prepare campaigns`",
                store.path,
            )
        return replace(self, systems=self.systems or len(store.meta["systems"]))

    def start(
        self,
        model: NusseltNet,
        codec: HeatCodec,
        records: Sequence[Record],
        engine: Any,
        seed: int,
        parent: Any,
    ) -> None:
        """Look once whether the laws can explain every campaign; raises DataError."""
        model.eval()
        rng = np.random.default_rng(0)
        with torch.no_grad():
            for indices in micro_batches(range(len(records)), 256):
                examples = [self.prepare(records[i], codec, rng, training=False) for i in indices]
                self._seen(model, engine.move(codec.collate(examples)))

    def prepare(
        self, record: Record, codec: HeatCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Draw the rig's own deviation and the noise of its readings."""
        x_NG = torch.from_numpy(np.array(record["x"], np.float64))
        log_N = np.array(record["log_nu"], np.float64)
        feature_NF = codec.featured(x_NG).numpy()
        shape_F = np.array([posterior.RIG_SHAPE.get(name, 0.0) for name in codec.features])
        log_N = log_N + feature_NF @ (self.rig * shape_F * rng.standard_normal(len(shape_F)))
        log_N = log_N + self.level * rng.standard_normal()
        noise = self.noise * np.exp(self.noise_spread * rng.standard_normal())
        log_N = log_N + noise * rng.standard_normal(len(log_N))
        drawn_from = torch.tensor([name in record["system"].split("+") for name in CORRELATIONS])
        return {"x": x_NG, "log_nu": torch.from_numpy(log_N), "drawn_from": drawn_from}

    def loss(self, model: NusseltNet, batch: Batch) -> Loss:
        """Return minus the log evidence summed over campaigns, and their number; the hyperprior
        counts once a system.
        """
        feature_BNF, away_BKN, law_BK = self._seen(model, batch)
        prior = model.prior()
        coordinate_BND = model.codec.coordinates(batch["x"].double())
        log_B = posterior.evidence(
            prior, feature_BNF, coordinate_BND, away_BKN, batch["mask"], law_BK
        )
        num = len(log_B)
        nats = -log_B.sum()
        parts = {"nats_a_reading": (nats.detach(), batch["mask"].sum())}
        return Loss(
            nats + num / max(self.systems, 1) * _hyperprior(model), torch.tensor(num), parts
        )

    def _seen(self, model: NusseltNet, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return features [B, N, F], log Nu less each law's [B, K, N], and which laws may
        explain a campaign [B, K].
        """
        x_BNG, mask_BN = batch["x"].double(), batch["mask"]
        base_BKN = model.bases(x_BNG).transpose(0, 1)
        names = list(CORRELATIONS)
        own_BK = torch.stack(
            [_drawn(batch, names.index(law) if law in names else None) for law in model.laws], 1
        )
        usable_BK = (base_BKN.isfinite() | ~mask_BN[:, None]).all(-1)
        away_BKN = torch.where(
            usable_BK[..., None] & mask_BN[:, None],
            batch["log_nu"].double()[:, None] - base_BKN,
            0.0,
        )
        # `start` has looked at those of training
        if not model.training and not (usable_BK & ~own_BK).any(1).all():
            raise DataError(
                "a campaign is explained by no law but its own; give the model more laws, or drop"
                " the system"
            )
        return model.codec.featured(x_BNG), away_BKN, usable_BK & ~own_BK

    def likelihood(self, model: NusseltNet, batch: Batch) -> Gaussian:
        """Return the population of corrections: each campaign is one draw of them, so its Fisher is
        1 / spread^2.

        It is the precision that EWC pulls a new rig's corrections with; that of single readings
        would be far too tight, since readings of a law can be drawn without end.
        """
        prior = model.prior()
        feature_BNF, away_BKN, law_BK = self._seen(model, batch)
        found = []
        for feature_NF, away_KN, mask_N, law_K in zip(
            feature_BNF, away_BKN, batch["mask"], law_BK, strict=True
        ):
            for law, (centre_F, spread_F) in enumerate(
                zip(prior.centre_KF, prior.spread_KF, strict=True)
            ):
                # a law that may not explain it learns nothing from it
                phi_NF = feature_NF[mask_N] * law_K[law]
                gram_FF = phi_NF.T @ phi_NF / self.noise**2 + torch.diag(spread_F**-2)
                left_N = away_KN[law][mask_N] - phi_NF @ centre_F
                shift_F = torch.linalg.solve(gram_FF, phi_NF.T @ left_N / self.noise**2)
                found.append((centre_F, spread_F, (centre_F + shift_F).detach()))
        mean_N, scale_N, target_N = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Gaussian(mean_N, scale_N, target_N)


def _drawn(batch: Batch, place: int | None) -> Tensor:
    """Return which campaigns were drawn from the law at `place` of the library [B]."""
    return batch["drawn_from"][:, place] if place is not None else batch["drawn_from"][:, 0] & False


def _hyperprior(model: NusseltNet) -> Tensor:
    """Return minus the log density of learnt values about those they start from; a library holds
    few systems.
    """
    fresh = {
        name: value.to(model.delta_KF.device, non_blocking=True)
        for name, value in model.fresh_values().items()
    }
    widths = {
        "delta_KF": CENTRE_SPREAD,
        "log_spread_KF": SPREAD_SPREAD,
        "log_length_D": LENGTH_SPREAD,
    }
    parts = []
    for name, value in fresh.items():
        parts.append(
            0.5
            * ((getattr(model, name) - value) / widths.get(name, WEIGHT_SPREAD))
            .double()
            .square()
            .sum()
        )
    return torch.stack(parts).sum()
