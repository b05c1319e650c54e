"""Copies between the host and a device that make the host wait as seldom as can be."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def constant(
    values: Sequence[Any] | float,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return numbers as a tensor on a device; the host does not wait for the device, as
    torch.tensor would.

    >>> constant((1.5, 2.0), dtype=torch.float64).tolist()
    [1.5, 2.0]
    """
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor on a device, with the host's copy remembered: `host_view` then looks
    without waiting.
    """
    moved = tensor.to(device, dtype, non_blocking=True)
    if moved.device != tensor.device:
        moved.host_copy = tensor  # type: ignore[attr-defined]
    return moved


def host_view(tensor: Tensor) -> Tensor:
    """Return the host's copy of a tensor that `to_device` has moved, else the tensor itself."""
    return getattr(tensor, "host_copy", tensor)


def places(mask: Tensor, device: torch.device) -> tuple[Tensor, ...]:
    """Return the indices at which a mask is true, on a device; `x[places(mask, x.device)]` is
    `x[mask]`.

    From a mask on the host (`host_view`) it does not make the host wait, as a mask on the device
    does.

    >>> mask = torch.tensor([[False, True], [True, False]])
    >>> [index.tolist() for index in places(mask, torch.device("cpu"))]
    [[0, 1], [1, 0]]
    """
    return tuple(index.to(device, non_blocking=True) for index in mask.nonzero(as_tuple=True))


def wide(value: Tensor) -> Tensor:
    """Return a detached tensor in float64, or in float32 on MPS, which has no float64."""
    return value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64)


def to_numbers(values: Sequence[Tensor]) -> list[float]:
    """Return scalars as numbers; those of a device come in one copy.

    >>> to_numbers([torch.tensor(1.5), torch.tensor(2)])
    [1.5, 2.0]
    """
    numbers = [0.0] * len(values)
    for on_device in (False, True):
        places = [i for i, value in enumerate(values) if (value.device.type != "cpu") == on_device]
        if places:
            copied = torch.stack([wide(values[i]) for i in places]).tolist()
            for place, number in zip(places, copied, strict=True):
                numbers[place] = number
    return numbers


def as_numbers(metrics: Mapping[str, float | Tensor]) -> dict[str, float]:
    """Return metrics as numbers, in their order; those that lie on a device are copied together.

    >>> as_numbers({"loss": 2.0, "penalty": torch.tensor(0.5)})
    {'loss': 2.0, 'penalty': 0.5}
    """
    names = [name for name, value in metrics.items() if isinstance(value, Tensor)]
    numbers = dict(
        zip(names, to_numbers([torch.as_tensor(metrics[name]) for name in names]), strict=True)
    )
    return {
        name: numbers[name] if name in numbers else float(value) for name, value in metrics.items()
    }
