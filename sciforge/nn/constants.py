"""Small tables of numbers where a model's other tensors are."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def constant(
    values: Sequence[Any] | float, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Return numbers as a tensor on a device; the host does not wait for the device, as torch.tensor would.

    >>> constant((1.5, 2.0), dtype=torch.float64).tolist()
    [1.5, 2.0]
    """
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
