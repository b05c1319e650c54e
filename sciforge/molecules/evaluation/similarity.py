"""Tanimoto similarity of many Morgan fingerprints: nearest neighbours in a large reference, and
diversity inside a sample.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

BITS = 1024  # radius 2, as MOSES
BLOCK = 4096


def _unpacked(packed_NB: np.ndarray, device: torch.device) -> Tensor:
    bits = np.unpackbits(np.ascontiguousarray(packed_NB), axis=1)
    return torch.from_numpy(bits).to(device).float()


def _blocks(
    query_QB: np.ndarray, stock_SB: np.ndarray, device: torch.device, say: str
) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows of the query, their intersection over the sum of bits with a block of the
    stock).
    """
    total = len(query_QB) * len(stock_SB)
    with tqdm(
        total=total, desc=say, unit="pair", unit_scale=True, disable=None, leave=False
    ) as bar:
        for start in range(0, len(query_QB), BLOCK):
            rows = slice(start, min(start + BLOCK, len(query_QB)))
            query = _unpacked(query_QB[rows], device)
            ones = query.sum(1, keepdim=True)
            for begin in range(0, len(stock_SB), BLOCK):
                stock = _unpacked(stock_SB[begin : begin + BLOCK], device)
                # 32-bit floats count bits exactly, and a matrix product counts them fastest.
                common = query @ stock.T
                yield rows, common.div_(ones + stock.sum(1)[None])
                bar.update(common.numel())


def nearest(query_QB: np.ndarray, stock_SB: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Return the Tanimoto similarity of each query to its nearest neighbour in the stock.

    Args:
        query_QB: packed bits, uint8, at least one bit set in each row.
        stock_SB: packed bits, uint8.
        device: that multiplies.

    Returns:
        float64 of shape (Q,), 0 to 1.

    >>> nearest(np.array([[3]], np.uint8), np.array([[1], [8]], np.uint8)).round(6).tolist()
    [0.5]
    """
    best = np.zeros(len(query_QB))
    for rows, share in _blocks(query_QB, stock_SB, torch.device(device), "nearest neighbours"):
        best[rows] = np.maximum(best[rows], share.amax(1).cpu().double().numpy())
    # Tanimoto c / (a + b - c) grows with c / (a + b), so only the largest share needs the second
    # division.
    return best / (1 - best)


def mean_similarity(packed_NB: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Return the mean Tanimoto similarity of each row to all rows, itself among them; float64 of
    shape (N,).

    >>> mean_similarity(np.array([[3], [1]], np.uint8)).round(6).tolist()
    [0.75, 0.75]
    """
    total = np.zeros(len(packed_NB))
    for rows, share in _blocks(packed_NB, packed_NB, torch.device(device), "diversity"):
        total[rows] += share.div_(1 - share).sum(1, dtype=torch.float64).cpu().numpy()
    return total / len(packed_NB)
