"""Points of dimensionless groups as the features of a power law.

Legend of shape letters: N points, G groups (columns), F features, D coordinates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sciforge.core.domain import Batch, Example, Record
from sciforge.core.files.settings import Settings
from sciforge.core.transfers import constant
from sciforge.errors import DataError
from sciforge.heat.correlations.groups import GROUPS, Points

CHANNEL = tuple(GROUPS)
# b = 1 - alpha/90 is 0 for transverse ribs. angle_60 and angle_30 are the two parabolas through it
# that are 1 at 60 or at 30
# degrees and 0 at the other, so that each coefficient is the change of log Nu at that angle: heat
# transfer is highest near
# 60 degrees (Han & Park 1988), which no power of the angle can say. Re_angle lets the Reynolds
# exponent fall with the angle.
CHANNEL_FEATURES = ("level", "Re", "Pr", "e_D", "P_e", "W_H", "angle_60", "angle_30", "Re_angle")


@dataclass(frozen=True)
class HeatCodec(Settings):
    """Rows of groups and the features of the law: logarithms of group / reference, so that each
    coefficient is an exponent.

    The six groups of a ribbed channel have their own features (angles among them). Other columns
    are taken as they come: those that are positive in training enter by their logarithm, others
    linearly.

    Args:
        columns: names of the groups, in the order of a row.
        logged: for other columns, which enter by their logarithm.
        centres, widths: for other columns, of the training points, after the logarithm.
    """

    columns: tuple[str, ...] = CHANNEL
    logged: tuple[bool, ...] = ()
    centres: tuple[float, ...] = ()
    widths: tuple[float, ...] = ()

    @property
    def channel(self) -> bool:
        """Whether the columns are the groups of a channel, which published laws know."""
        return self.columns == CHANNEL

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        return CHANNEL_FEATURES if self.channel else ("level", *self.columns)

    def fit(self, store: Any) -> Self:
        """Return a copy completed from the training points; a channel needs nothing."""
        if self.channel:
            return self
        return self.fitted(
            np.stack([store.split("train").column(name) for name in self.columns], 1)
        )

    def fitted(self, x_NG: np.ndarray) -> Self:
        """Return a copy that knows the centres and widths of the columns of `x_NG`."""
        logged = tuple(bool((column > 0).all()) for column in x_NG.T)
        values_NG = np.where(logged, np.log(np.where(logged, x_NG, 1.0)), x_NG)
        widths = values_NG.std(0)
        return replace(
            self,
            logged=logged,
            centres=tuple(values_NG.mean(0).tolist()),
            widths=tuple(np.where(widths > 0, widths, 1.0).tolist()),
        )

    def points(self, x_NG: Tensor) -> Points:
        """Return the columns of rows [N, G] by name."""
        return dict(zip(self.columns, x_NG.unbind(-1), strict=True))

    def logs(self, x_NG: Tensor) -> Tensor:
        """Return log(group / reference) of each column [N, G]; 0 where a group stands for a
        smooth wall.
        """
        if self.channel:
            reference_G = constant(
                [GROUPS[name].reference for name in self.columns], x_NG.device, x_NG.dtype
            )
            present_NG = x_NG > 0
            return torch.where(
                present_NG, torch.where(present_NG, x_NG, 1.0) / reference_G, 1.0
            ).log()
        logged_G = constant(self.logged, x_NG.device)
        values_NG = torch.where(logged_G, torch.where(logged_G, x_NG, 1.0).log(), x_NG)
        return values_NG - constant(self.centres, x_NG.device, x_NG.dtype)

    def featured(self, x_NG: Tensor) -> Tensor:
        """Return the features [N, F] of rows of groups."""
        log_NG = self.logs(x_NG)
        one_N = torch.ones_like(log_NG[..., 0])
        if not self.channel:
            return torch.cat([one_N[..., None], log_NG], -1)
        b_N = 1 - x_NG[..., 4] / 90
        angles = [9 * b_N * (2 / 3 - b_N), 4.5 * b_N * (b_N - 1 / 3), b_N * log_NG[..., 0]]
        return torch.stack([one_N, *(log_NG[..., g] for g in (0, 1, 2, 3, 5)), *angles], -1)

    def coordinates(self, x_NG: Tensor) -> Tensor:
        """Return where rows lie [N, D], for distances: logarithms, and the angle as 1 -
        alpha/90; others in widths.
        """
        log_NG = self.logs(x_NG)
        if not self.channel:
            return log_NG / constant(self.widths, x_NG.device, x_NG.dtype)
        return torch.cat([log_NG[..., :4], 1 - x_NG[..., 4:5] / 90, log_NG[..., 5:]], -1)

    def row(self, record: Mapping[str, Any]) -> np.ndarray:
        """Return the groups of a record as a row float64 [G]; groups it lacks are those of a smooth
        wall.

        Raises:
            DataError: a group that must be given is missing.
        """
        values = []
        for name in self.columns:
            value = record.get(name, GROUPS[name].absent if name in GROUPS else None)
            if value is None:
                raise DataError(f"no {name} in this record; give {', '.join(self.columns)}")
            values.append(float(value))
        return np.array(values)

    def encode(self, record: Record) -> Example:
        """Return the row `x` [G] and, where known, `log_nu`, and `factor`, the noise as a
        multiple of the usual one.
        """
        example = {"x": torch.from_numpy(self.row(record))}
        if "value" in record:
            example["log_nu"] = torch.tensor(float(np.log(record["value"])), dtype=torch.float64)
        return example

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Stack points; campaigns of unequal length are padded, and `mask` [B, N] tells which
        points are there.
        """
        if examples[0]["x"].dim() == 1:
            return {
                name: torch.stack([example[name] for example in examples]) for name in examples[0]
            }
        most = max(len(example["x"]) for example in examples)
        batch: dict[str, list[Tensor]] = {"mask": []}
        for example in examples:
            size = len(example["x"])
            batch["mask"].append(torch.arange(most) < size)
            for name, value in example.items():
                if value.dim() and len(value) == size and name in ("x", "log_nu"):
                    value = torch.cat([value, value[-1:].expand(most - size, *value.shape[1:])])
                batch.setdefault(name, []).append(value)
        return {name: torch.stack(values) for name, values in batch.items()}
