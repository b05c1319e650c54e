"""Functions of distance: the cutoff, the radial basis, the repulsion of nuclei. All are twice
differentiable.
"""

import math

import torch
from torch import Tensor

# Ziegler, Biersack & Littmark 1985: universal screening, lengths in angstrom, energies in eV.
ZBL_WEIGHTS = (0.1818, 0.5099, 0.2802, 0.02817)
ZBL_DECAYS = (3.2, 0.9423, 0.4029, 0.2016)
ZBL_LENGTH_A = 0.8854 * 0.529177210903
COULOMB_EV_A = 14.399645478
# Cordero et al. 2008 (doi 10.1039/b801115j) by atomic number, 0.2 where it gives none; entry 0 is
# the ghost. fmt: off
COVALENT_RADII_A = (
    0.2,
    0.31,
    0.28,
    1.28,
    0.96,
    0.84,
    0.76,
    0.71,
    0.66,
    0.57,
    0.58,
    1.66,
    1.41,
    1.21,
    1.11,
    1.07,
    1.05,
    1.02,
    1.06,
    2.03,
    1.76,
    1.7,
    1.6,
    1.53,
    1.39,
    1.39,
    1.32,
    1.26,
    1.24,
    1.32,
    1.22,
    1.22,
    1.2,
    1.19,
    1.2,
    1.2,
    1.16,
    2.2,
    1.95,
    1.9,
    1.75,
    1.64,
    1.54,
    1.47,
    1.46,
    1.42,
    1.39,
    1.45,
    1.44,
    1.42,
    1.39,
    1.39,
    1.38,
    1.39,
    1.4,
    2.44,
    2.15,
    2.07,
    2.04,
    2.03,
    2.01,
    1.99,
    1.98,
    1.98,
    1.96,
    1.94,
    1.92,
    1.92,
    1.89,
    1.9,
    1.87,
    1.87,
    1.75,
    1.7,
    1.62,
    1.51,
    1.44,
    1.41,
    1.36,
    1.36,
    1.32,
    1.45,
    1.46,
    1.48,
    1.4,
    1.5,
    1.5,
    2.6,
    2.21,
    2.15,
    2.06,
    2,
    1.96,
    1.9,
    1.87,
    1.8,
    1.69,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
)
# fmt: on


def envelope(ratio: Tensor, power: int = 6) -> Tensor:
    """Return the polynomial cutoff of distance / cutoff: 1 at 0; value, slope and curvature 0 at 1
    and beyond.

    Source: Gasteiger, Gross & Guennemann 2020 (arXiv 2003.03123), equation 8.
    """
    p = power
    inner = 1 - ratio**p * (
        (p + 1) * (p + 2) / 2 - p * (p + 2) * ratio + p * (p + 1) / 2 * ratio * ratio
    )
    return torch.where(ratio < 1, inner, torch.zeros_like(inner))


def bessel(distance: Tensor, cutoff: float, num: int, dim: int) -> Tensor:
    """Return the radial basis sqrt(2 / cutoff) sin(k pi r / cutoff) / r, k = 1 to num, along a
    new axis `dim`.
    """
    k = torch.arange(1, num + 1, device=distance.device, dtype=distance.dtype) * (math.pi / cutoff)
    shape = [1] * (distance.ndim + 1)
    shape[dim] = num
    r = distance.unsqueeze(dim)
    return math.sqrt(2 / cutoff) * torch.sin(r * k.view(shape)) / r


def zbl(distance: Tensor, first: Tensor, second: Tensor, reach: Tensor) -> Tensor:
    """Return the screened repulsion of two nuclei in eV, switched off smoothly at `reach`.

    Args:
        distance: angstrom, any shape.
        first: atomic numbers of one side, broadcastable, real.
        second: of the other side.
        reach: where the repulsion ends, angstrom.
    """
    length = ZBL_LENGTH_A / (first**0.23 + second**0.23)
    x = distance / length
    screening = sum(w * torch.exp(-d * x) for w, d in zip(ZBL_WEIGHTS, ZBL_DECAYS, strict=True))
    return COULOMB_EV_A * first * second / distance * screening * envelope(distance / reach)
