"""Real spherical harmonics and the couplings of natural-parity irreps, 0e + 1o + 2e, in e3nn's
conventions.

An equivariant tensor here is [..., M, ..., C] with M = (L + 1)^2 components: index 0 is the scalar,
1 to 3 the vector (x, y, z), 4 to 8 the second-order harmonic in e3nn's order xy, yz, 3y^2-1 ...
about the y axis. Normalisation is e3nn's `component`: the squares of the 2l + 1 components of a
harmonic sum to 2l + 1 on the unit sphere.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

MAX_ORDER = 2


def components(order: int) -> int:
    """Return how many components the irreps 0 to `order` have together."""
    return (order + 1) ** 2


def span(l: int) -> slice:  # noqa: E741  the field's own letter
    """Return where the components of one irrep lie."""
    return slice(l * l, (l + 1) ** 2)


def harmonics(x: Tensor, y: Tensor, z: Tensor, order: int) -> list[Tensor]:
    """Return the real spherical harmonics of unit vectors up to `order`, one tensor a component.

    The first harmonic is left out as it is 1 everywhere.
    """
    components = []
    if order >= 1:
        components += [math.sqrt(3) * x, math.sqrt(3) * y, math.sqrt(3) * z]
    if order >= 2:
        root = math.sqrt(15)
        components += [root * x * z, root * x * y, math.sqrt(5) * (y * y - 0.5 * (x * x + z * z))]
        components += [root * y * z, 0.5 * root * (z * z - x * x)]
    return components


def _sphere(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points [Q, 3] and weights [Q] that integrate polynomials of that degree over the
    unit sphere exactly.
    """
    cosine, weight = np.polynomial.legendre.leggauss(degree // 2 + 1)
    phi = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
    sine = np.sqrt(1 - cosine**2)
    points = np.stack(
        [
            np.outer(sine, np.cos(phi)),
            np.outer(sine, np.sin(phi)),
            np.outer(cosine, np.ones_like(phi)),
        ]
    )
    return points.reshape(3, -1).T, np.repeat(weight / 2 / len(phi), len(phi))


@cache
def _gaunt(order: int) -> np.ndarray:
    """Return the mean over the sphere of Y_a Y_b Y_c for all components up to `order`, [M, M,
    M].
    """
    points, weights = _sphere(3 * order + 1)
    columns = torch.from_numpy(points).T
    values = torch.stack(
        [torch.ones(len(points), dtype=torch.float64), *harmonics(*columns, order)]
    ).numpy()
    return np.einsum("q,aq,bq,cq->abc", weights, values, values, values)


def paths(order: int, out: int) -> list[tuple[int, int, int]]:
    """Return the couplings (l1, l2, l3) that keep natural parity, l1, l2 <= order and l3 <= out,
    sorted by l3.

    >>> paths(1, 1)
    [(0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, 1)]
    """
    every = range(order + 1)
    return [
        (a, b, c)
        for c in range(out + 1)
        for a in every
        for b in every
        if abs(a - b) <= c <= a + b and (a + b + c) % 2 == 0
    ]


@cache
def coupling(order: int, out: int) -> np.ndarray:
    """Return the matrix [P, M * M] of all couplings of two tensors, rows grouped by l3, path,
    component.

    Each row is sqrt(2 l3 + 1) times a Wigner 3j symbol, up to the sign of a path, so that
    components keep their scale. For natural parity (l1 + l2 + l3 even) the symbols are proportional
    to the Gaunt integrals.
    """
    gaunt, rows = _gaunt(max(order, out)), []
    size = components(order)
    for a, b, c in paths(order, out):
        block = np.zeros((2 * c + 1, gaunt.shape[0], gaunt.shape[0]))
        block[:, span(a), span(b)] = gaunt[span(a), span(b), span(c)].transpose(2, 0, 1)
        block *= np.sqrt(2 * c + 1) / np.linalg.norm(block)
        rows.append(block[:, :size, :size].reshape(2 * c + 1, -1))
    return np.concatenate(rows)
