"""NusseltNet: log Nu = log Nu_law(x) + corrections in the log groups + a residual that fades away
from the data.

Everything that pretraining learns is the prior of the next system: how much each law is off, and in
which exponents (`delta`, `log_spread`), how much each law is trusted (`law`), over which distances
what is left varies (`log_length`). The posterior of measured points is exact (posterior.py); its
points and weights live in the head `posterior`.

Legend of shape letters: B points of a batch, N points of a campaign or of the fit, G groups, F
features, D coordinates, K laws.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sciforge.core.files.settings import Settings
from sciforge.core.transfers import constant
from sciforge.errors import ConfigError
from sciforge.heat.correlations.groups import GEOMETRY
from sciforge.heat.correlations.library import get_correlation
from sciforge.heat.data.codec import CHANNEL, HeatCodec
from sciforge.heat.model import posterior
from sciforge.heat.model.posterior import Prior, Rows

POWER = "power"  # the law that knows nothing: log Nu = 0 before its corrections
# Standard deviations of the corrections before any pretraining: a factor of 1.6 in level, .2 in the
# Reynolds exponent.
VAGUE = {
    "level": 0.5,
    "Re": 0.2,
    "Pr": 0.2,
    "e_D": 0.4,
    "P_e": 0.4,
    "W_H": 0.3,
    "angle_60": 0.4,
    "angle_30": 0.5,
    "Re_angle": 0.2,
}
GAS_ONLY = 0.5  # of the Prandtl exponent of laws that were measured in air alone and leave it out
VAGUE_POWER = {name: 5.0 if name == "level" else max(1.0, spread) for name, spread in VAGUE.items()}
# of log Re, log Pr, log e/D, log P/e, 1 - alpha/90, log W/H
LENGTHS = (1.0, 1.0, 0.5, 0.5, 0.28, 0.5)


@dataclass(frozen=True)
class NusseltConfig(Settings):
    """Which laws explain a measurement.

    Args:
        laws: names from the library (`sciforge.heat.correlations.library`), and `power`, a bare
            power law with a vague prior.
        control: whether curves train it from scratch beside the pretrained net.
    """

    laws: tuple[str, ...]
    control: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.laws or len(set(self.laws)) < len(self.laws):
            raise ConfigError(f"laws are {self.laws}; give different names, at least one")
        for name in self.laws:
            if name != POWER:
                get_correlation(name)

    def build(self, codec: HeatCodec) -> "NusseltNet":
        """Return the fresh net, whose prior is vague."""
        return NusseltNet(self, codec)


MODELS = {
    "ribbed": NusseltConfig(
        ("dittus-boelter", "webb-1971", "ravigururajan-bergles-1996", "han-park-1988")
    ),
    "tubes": NusseltConfig(("dittus-boelter", "webb-1971", "ravigururajan-bergles-1996")),
    "smooth": NusseltConfig(("dittus-boelter",)),
    "power": NusseltConfig((POWER,), control=True),
}


def vague_spreads(law: str) -> dict[str, float]:
    """Return the standard deviations of the corrections of a law before pretraining, by feature;
    raises ConfigError.

    >>> vague_spreads("webb-1971")["Pr"], vague_spreads("han-park-1988")["Pr"]
    (0.2, 0.5)
    """
    if law == POWER:
        return VAGUE_POWER
    low, high = get_correlation(law).box.get("Pr", (0.0, 1.0))
    return {**VAGUE, "Pr": GAS_ONLY} if high < 1.2 * low else VAGUE


class NusseltNet(nn.Module):
    """The prior of a Nusselt law, and the heads that objectives attach.

    Args:
        config: which laws.
        codec: gives features and coordinates of points.
    """

    def __init__(self, config: NusseltConfig, codec: HeatCodec) -> None:
        super().__init__()
        self.laws, self.codec = config.laws, codec
        if not codec.channel and self.laws != (POWER,):
            raise ConfigError(
                f"published laws need the columns {', '.join(CHANNEL)}; use laws ('power',) for"
                " others"
            )
        for name, value in self.fresh_values().items():
            self.register_parameter(name, nn.Parameter(value))
        self.heads = nn.ModuleDict()

    def fresh_values(self) -> dict[str, Tensor]:
        """Return what every parameter starts from: a vague prior, about which pretraining
        learns.
        """
        vague = [vague_spreads(name) for name in self.laws]
        spread_KF = torch.tensor(
            [[table.get(name, 1.0) for name in self.codec.features] for table in vague]
        )
        lengths = LENGTHS if self.codec.channel else (1.0,) * len(self.codec.columns)
        noise_S = torch.tensor(posterior.NOISE_S)
        return {
            "delta_KF": torch.zeros(spread_KF.shape),
            "log_spread_KF": spread_KF.log(),
            "law_K": torch.zeros(len(self.laws)),
            "log_length_D": torch.tensor(lengths).log(),
            "noise_logit_S": (
                -0.5 * ((noise_S / posterior.NOISE_CENTRE).log() / posterior.NOISE_SPREAD) ** 2
            ),
            "amplitude_logit_A": torch.zeros(len(posterior.AMPLITUDE_A)),
        }

    def prior(self, centre_KF: Tensor | None = None) -> Prior:
        """Return the prior in float64, about `centre_KF` where it is given, differentiable in
        the parameters.
        """
        rig = {name: size for name, size in posterior.RIG_SHAPE.items()}
        device, kind = self.delta_KF.device, torch.float64
        return Prior(
            centre_KF=(self.delta_KF if centre_KF is None else centre_KF).double(),
            spread_KF=self.log_spread_KF.double().exp(),
            law_K=self.law_K.double(),
            length_D=self.log_length_D.double().exp(),
            noise_S=constant(posterior.NOISE_S, device, kind),
            noise_logit_S=self.noise_logit_S.double(),
            amplitude_A=constant(posterior.AMPLITUDE_A, device, kind),
            amplitude_logit_A=self.amplitude_logit_A.double(),
            rig_T=constant(posterior.RIG_T, device, kind),
            scale_L=constant(posterior.SCALE_L, device, kind),
            scaled_F=constant([name != "Pr" for name in self.codec.features], device),
            plate_D=constant([name in GEOMETRY for name in self.codec.columns], device),
            rig_F=constant([rig.get(name, 0.0) for name in self.codec.features], device, kind),
        )

    def bases(self, x_BG: Tensor) -> Tensor:
        """Return log Nu by each law at rows of groups, float64 [K, ...]; not finite where a law
        has no value.
        """
        points = self.codec.points(x_BG.double())
        found = []
        for name in self.laws:
            if name == POWER:
                found.append(torch.zeros_like(x_BG[..., 0], dtype=torch.float64))
            else:
                nusselt = get_correlation(name).unchecked(points)
                found.append(torch.where(nusselt > 0, nusselt, torch.nan).log())
        return torch.stack(found)

    def rows(
        self,
        x_NG: Tensor,
        log_N: Tensor | None = None,
        factor_N: Tensor | None = None,
        rig_N: Any = None,
    ) -> Rows:
        """Return what the posterior sees of rows of groups [N, G], in float64."""
        x_NG = x_NG.double()
        one_N = torch.ones_like(x_NG[:, 0])
        return Rows(
            feature_NF=self.codec.featured(x_NG),
            coordinate_ND=self.codec.coordinates(x_NG),
            base_KN=self.bases(x_NG),
            log_N=torch.zeros_like(one_N) if log_N is None else log_N.double(),
            factor_N=one_N if factor_N is None else factor_N.double(),
            rig_N=torch.zeros_like(one_N, dtype=torch.long) if rig_N is None else rig_N,
        )
