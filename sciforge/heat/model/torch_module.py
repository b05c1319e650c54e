"""A fitted law as a plain torch module: for solvers that ask for millions of points, gradients or a
GPU.

Legend of shape letters: M points, N measured points, G groups, F features, W features in which
plates differ, D coordinates.
"""

import torch
from torch import Tensor, nn

from sciforge.heat.correlations.library import get_correlation
from sciforge.heat.data.codec import HeatCodec
from sciforge.heat.model.nusselt_net import POWER
from sciforge.heat.model.posterior import ROOT3, Posterior

FAINT = 1e-6  # weight of a law below which it cannot be seen in float32


class LawModule(nn.Module):
    """Rows of groups [M, G] -> Nusselt numbers [M], the median of the posterior for the rig that
    was measured.

    Differentiable, compilable, on any device and in any precision (`.float()`, `.cuda()`,
    `torch.compile`).

    Args:
        codec: gives features and coordinates.
        laws: names, in the order of the posterior's weights.
        posterior: of the measured points.
    """

    def __init__(self, codec: HeatCodec, laws: tuple[str, ...], posterior: Posterior) -> None:
        super().__init__()
        found = posterior.collapsed()
        self.codec = codec
        used = [place for place, weight in enumerate(found.law_K.tolist()) if weight > FAINT]
        self.laws = tuple(laws[place] for place in used)
        self.register_buffer("law_K", found.law_K[used] / found.law_K[used].sum())
        self.register_buffer("correction_F", found.correction_F)
        # rigs differ in a few features only: the others need no product
        self.ways = found.plate_NF.abs().sum(0).nonzero()[:, 0].tolist()
        self.register_buffer("plate_NW", found.plate_NF[:, self.ways])
        self.register_buffer("unit_N", found.unit_N)
        self.plates = [
            place for place, is_plate in enumerate(found.prior.plate_D.tolist()) if is_plate
        ]
        self.register_buffer("length_D", found.prior.length_D)
        self.register_buffer("place_ND", found.coordinate_ND / found.prior.length_D)

    def forward(self, x_MG: Tensor) -> Tensor:
        """Return Nusselt numbers [M]; NaN where a law of weight has no value."""
        points = self.codec.points(x_MG)
        log_M = torch.zeros_like(x_MG[:, 0])
        for name, weight in zip(self.laws, self.law_K.unbind(), strict=True):
            if name != POWER:
                nusselt_M = get_correlation(name).unchecked(points)
                log_M = log_M + weight * torch.where(nusselt_M > 0, nusselt_M, torch.nan).log()
        square_MND = (self.codec.coordinates(x_MG) / self.length_D).unsqueeze(1) - self.place_ND
        square_MND = square_MND.square()
        near_MN = _matern(square_MND[..., self.plates].sum(-1))
        feature_MF = self.codec.featured(x_MG)
        log_M = log_M + feature_MF @ self.correction_F
        for place, way in enumerate(
            self.ways
        ):  # sums, not products of matrices: the compiler then keeps nothing of size M x N
            log_M = log_M + (near_MN * self.plate_NW[:, place]).sum(-1) * feature_MF[:, way]
        return (log_M + (_matern(square_MND.sum(-1)) * self.unit_N).sum(-1)).exp()


def _matern(square: Tensor) -> Tensor:
    """Return the Matern-3/2 correlation at squared distances."""
    scaled = ROOT3 * (square + 1e-12).sqrt()
    return (1 + scaled) * torch.exp(-scaled)
