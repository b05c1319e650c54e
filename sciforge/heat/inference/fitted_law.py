"""FittedLaw: what the estimator and a checkpoint have in common, for formulas, exports, pictures
and plans.

Legend of shape letters: N measured points, M points asked for, G groups, F features, K laws, C
components.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sciforge.errors import ConfigError, DataError
from sciforge.heat.correlations.groups import GROUPS, check_points
from sciforge.heat.data.codec import HeatCodec
from sciforge.heat.model.nusselt_net import NusseltNet
from sciforge.heat.model.posterior import NEW_RIG, Posterior, Rows
from sciforge.heat.objectives.campaign_pretraining import CampaignEvidence
from sciforge.heat.objectives.nusselt import HEAD, Nusselt

if TYPE_CHECKING:
    from sciforge.core.training.model import Model

TRANSVERSE = 89.5  # degrees, from where ribs count as transverse
LARGEST_BLOCK = 4_000_000  # numbers of a covariance that predictions hold at a time


@dataclass(frozen=True, eq=False)
class FittedLaw:
    """What the estimator and a checkpoint have in common: a posterior, and the points it has seen.

    Args:
        net: the prior, in float64 on the CPU.
        posterior: of the points; of none it is the prior.
        x_NG: the measured points.
        prior_name: of the pretrained checkpoint; "" for none.
        rigs: names of the rigs of the points; with several, numbers are those of a rig never seen.
        moved_KF: what descent has added to the corrections since the solve.
        descended: whether the corrections are those of the descent instead of the posterior's.
    """

    net: NusseltNet = field(repr=False)
    posterior: Posterior = field(repr=False)
    x_NG: Tensor = field(repr=False)
    prior_name: str = ""
    rigs: tuple[str, ...] = ("",)
    moved_KF: Tensor | None = field(default=None, repr=False)
    descended: bool = False

    @classmethod
    def of(cls, law: "Fitted | FittedLaw") -> "FittedLaw":
        """Return the view of a fitted estimator (a view is returned as it is); raises
        NotFittedError.
        """
        return law if isinstance(law, FittedLaw) else law.fitted_law()

    @classmethod
    def of_predictor(cls, model: "Model") -> "FittedLaw":
        """Return the view of a checkpoint: of a prior it knows no points; raises ConfigError for
        another domain's, DataError.
        """
        if not isinstance(model.network, NusseltNet):
            raise ConfigError(
                f"{model.checkpoint.path} is no Nusselt law; give a checkpoint of heat"
            )
        net = copy.deepcopy(model.network).cpu().double().eval().requires_grad_(False)
        objective = model.objective
        if isinstance(objective, CampaignEvidence):
            empty_NG = torch.ones(0, len(net.codec.columns), dtype=torch.float64)
            name = Path(model.checkpoint.path).name
            return cls(net, Posterior.of(net.prior(), net.rows(empty_NG)), empty_NG, name)
        if not isinstance(objective, Nusselt):
            raise ConfigError(
                f"{model.checkpoint.path} was trained for {type(objective).__name__}; give a"
                " Nusselt law"
            )
        head = net.heads[HEAD]
        parent = model.checkpoint.body["run"].get("init") or ""
        return cls(
            net,
            head.posterior(net),
            head.x_NG[: int(head.count)],
            Path(parent).name,
            objective.rigs or ("",),
            (net.delta_KF - head.solved_KF).double(),
            objective.fit == "descent",
        )

    @property
    def codec(self) -> HeatCodec:
        """The codec of the points."""
        return self.net.codec

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the groups."""
        return self.codec.columns

    @property
    def laws(self) -> dict[str, float]:
        """The share of the evidence for each law, largest first; laws without any are left out."""
        c = self.posterior.components
        share_K = torch.zeros(len(self.net.laws), dtype=torch.float64).index_add(
            0, c.law_C, c.weight_C
        )
        found = {
            name: float(share)
            for name, share in zip(self.net.laws, share_K, strict=True)
            if share > 0
        }
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @property
    def residual_share(self) -> float:
        """The share of the evidence that asks for a residual."""
        c = self.posterior.components
        return float(c.weight_C @ (c.amplitude_C > 0).double())

    @property
    def noise(self) -> float:
        """The standard deviation of a reading's log Nu."""
        c = self.posterior.components
        return float(c.weight_C @ c.noise_C)

    @property
    def rig(self) -> int:
        """The number of the rig that is meant where none is named: that of the points, or with
        several a new one.
        """
        return 0 if len(self.rigs) == 1 else NEW_RIG

    def rows(self, x_MG: Tensor, rig: str | None = None) -> Rows:
        """Return points of a rig (None: `rig`, an unknown name: a new one) as the posterior sees
        them.
        """
        number = self.rig if rig is None else self.rigs.index(rig) if rig in self.rigs else NEW_RIG
        return self.net.rows(x_MG, rig_N=torch.full((len(x_MG),), number))

    def points_of(self, groups: Any) -> Tensor:
        """Return points given as columns by name (those of a square channel may be left out) or as
        rows, as rows [M, G].

        Raises:
            DataError: a column is missing, of another length, or holds what physics does not allow.
        """
        try:
            if isinstance(groups, Mapping) or hasattr(groups, "columns"):
                absent = {name: GROUPS[name].absent for name in self.columns if name in GROUPS}
                missing = [n for n in self.columns if n not in groups and absent.get(n) is None]
                if missing:
                    raise DataError(f"no column {missing[0]!r}; give {', '.join(self.columns)}")
                columns = [
                    np.asarray(groups[n] if n in groups else absent[n], float) for n in self.columns
                ]
                x_MG = np.stack(np.broadcast_arrays(*map(np.atleast_1d, columns)), 1)
            else:
                x_MG = np.asarray(groups, float)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"the points are not columns of numbers of one length ({error}); correct them"
            ) from None
        if x_MG.ndim != 2 or x_MG.shape[1] != len(self.columns) or not len(x_MG):
            raise DataError(
                f"the points have the shape {x_MG.shape}; give rows of {', '.join(self.columns)}"
            )
        if not np.isfinite(x_MG).all():
            raise DataError(
                f"row {int(np.argwhere(~np.isfinite(x_MG))[0, 0])} holds no finite number; correct"
                " or drop it"
            )
        check_points(x_MG, self.columns)
        return torch.from_numpy(np.ascontiguousarray(x_MG))

    def mixture(self, x_MG: Tensor, rig: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights [C], means and variances [C, M] of log Nu, noise included."""
        found, rows = self.posterior, self.rows(x_MG, rig)
        c = found.components
        size = max(1, LARGEST_BLOCK // (len(c.weight_C) * max(1, len(self.x_NG))))
        parts = [found.predict(rows.take(place)) for place in torch.arange(len(x_MG)).split(size)]
        mean_CM, variance_CM = (torch.cat(column, 1) for column in zip(*parts, strict=True))
        if self.descended:
            mean_CM = (rows.base_KN + self.net.delta_KF.double() @ rows.feature_NF.T)[c.law_C]
        elif self.moved_KF is not None:
            mean_CM = mean_CM + (self.moved_KF @ rows.feature_NF.T)[c.law_C]
        return c.weight_C, mean_CM, variance_CM

    def corrections(self, x_G: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean [C, F] and covariance [C, F, F] of the corrections of the plate that the
        row `x_G` names.
        """
        found, c = self.posterior, self.posterior.components
        mean_CF, covariance_CFF = found.corrections(
            found.prior.together(self.rows(x_G[None]), found.rows)[0]
        )
        if self.descended:
            mean_CF = self.net.delta_KF.double()[c.law_C]
        elif self.moved_KF is not None:
            mean_CF = mean_CF + self.moved_KF[c.law_C]
        return mean_CF, covariance_CFF

    def centre(self) -> Tensor:
        """Return the centre of the measured points [G]: geometric means; 90 degrees where it was
        measured, else the mean.
        """
        if not len(self.x_NG):
            return torch.tensor(
                [GROUPS[name].reference for name in self.columns], dtype=torch.float64
            )
        found = []
        for place, name in enumerate(self.columns):
            column_N = self.x_NG[:, place].double()
            if name == "alpha_deg" and self.codec.channel:
                found.append(
                    torch.tensor(90.0).double()
                    if bool((column_N > TRANSVERSE).any())
                    else column_N.mean()
                )
            elif self.logged(place) and bool((column_N > 0).any()):
                found.append(column_N[column_N > 0].log().mean().exp())
            else:
                found.append(column_N.mean())
        return torch.stack(found)

    def logged(self, place: int) -> bool:
        """Return whether a column enters by its logarithm."""
        return (
            self.columns[place] != "alpha_deg" if self.codec.channel else self.codec.logged[place]
        )

    def varied(self, place: int) -> bool:
        """Return whether the measured points tell something of a column: whether it takes more
        than one value.
        """
        return len(self.x_NG[:, place].unique()) > 1


class Fitted(Protocol):
    """Anything that was fitted to measured points, e.g. NusseltLaw."""

    def fitted_law(self) -> FittedLaw:
        """Return the law with its posterior."""
        ...
