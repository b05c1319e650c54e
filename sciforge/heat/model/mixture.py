"""Means and quantiles of mixtures of normal distributions.

Legend of shape letters: C components, M points.
"""

import torch
from torch import Tensor


def moments(weight_C: Tensor, mean_CM: Tensor, variance_CM: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation [M] of a mixture.

    >>> halves, ends = torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]])
    >>> mean, std = moments(halves, ends, torch.zeros(2, 1))
    >>> float(mean), float(std)
    (0.0, 1.0)
    """
    mean_M = weight_C @ mean_CM
    return mean_M, (weight_C @ (variance_CM + (mean_CM - mean_M) ** 2)).sqrt()


def quantile(weight_C: Tensor, mean_CM: Tensor, variance_CM: Tensor, share: float) -> Tensor:
    """Return the point [M] below which `share` of a mixture lies, by bisection to 1e-9 of its
    width.

    >>> x = quantile(torch.ones(1), torch.zeros(1, 1), torch.ones(1, 1), 0.95)
    >>> round(float(x), 4)
    1.6449
    """
    spread_CM = variance_CM.sqrt()
    low_M, high_M = (mean_CM - 9 * spread_CM).amin(0), (mean_CM + 9 * spread_CM).amax(0)
    for _ in range(36):
        middle_M = (low_M + high_M) / 2
        below_M = weight_C @ torch.special.ndtr((middle_M - mean_CM) / spread_CM)
        low_M, high_M = (
            torch.where(below_M < share, middle_M, low_M),
            torch.where(below_M < share, high_M, middle_M),
        )
    return (low_M + high_M) / 2
