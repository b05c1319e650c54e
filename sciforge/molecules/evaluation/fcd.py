"""Frechet ChemNet distance (Preuer et al., J. Chem. Inf. Model. 2018) by the net of the package
fcd_torch.

A small sample is far from its own source: 1,000 molecules of MOSES' training set lie at 1.27, so a
distance is only worth something beside that of real molecules of the same number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from sciforge.errors import DataError, MissingExtra

WIDTH, LENGTH = 512, 350  # activations of ChemNet; letters that it reads
BATCH = 256
LEAST = 2  # fewer molecules have no covariance


@dataclass(frozen=True)
class Moments:
    """Mean (512,) and covariance (512, 512) of ChemNet's activations over `count` molecules,
    float64.
    """

    mean_D: np.ndarray
    cov_DD: np.ndarray
    count: int

    def save(self, path: Path) -> None:
        """Write the moments, under the names that MOSES uses."""
        with open(path, "wb") as handle:
            np.savez(handle, mu=self.mean_D, sigma=self.cov_DD, count=self.count)

    @classmethod
    def load(cls, path: Path) -> "Moments":
        """Return moments from an .npz with arrays mu (512,) and sigma (512, 512); count is 0 where
        it has none.

        Raises:
            DataError: it does not hold those.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                moments = cls(
                    arrays["mu"].astype(float),
                    arrays["sigma"].astype(float),
                    int(arrays.get("count", 0)),
                )
        except FileNotFoundError:
            raise DataError("there is no such file; correct the path", path) from None
        except Exception:  # numpy raises a different error for each way of not being such a file
            moments = None
        fits = (
            moments is not None
            and moments.mean_D.shape == (WIDTH,)
            and moments.cov_DD.shape == (WIDTH, WIDTH)
        )
        if not fits or not (
            np.isfinite(moments.mean_D).all() and np.isfinite(moments.cov_DD).all()
        ):
            raise DataError(
                f"it does not hold mu ({WIDTH},) and sigma ({WIDTH}, {WIDTH}) as plain arrays", path
            )
        return moments


def require_fcd() -> Any:
    """Return the package fcd_torch; raises MissingExtra without it."""
    try:
        import fcd_torch
    except ImportError:
        raise MissingExtra("fcd_torch", "fcd") from None
    return fcd_torch


def activations(smiles: Sequence[str], device: str = "cpu") -> np.ndarray:
    """Return ChemNet's activations of canonical SMILES, float32 of shape (N, 512); about 500
    molecules a second on a core.

    Raises:
        MissingExtra: fcd_torch is not installed.
    """
    net = require_fcd().FCD(canonize=False).model.to(device).eval()
    from fcd_torch.utils import get_one_hot

    rows = [np.zeros((0, WIDTH), np.float32)]
    with (
        torch.inference_mode(),
        tqdm(total=len(smiles), desc="ChemNet", disable=None, leave=False) as bar,
    ):
        for start in range(0, len(smiles), BATCH):
            letters = [get_one_hot(one, LENGTH) for one in smiles[start : start + BATCH]]
            one_hot = (
                torch.from_numpy(np.stack(letters).astype(np.float32)).transpose(1, 2).to(device)
            )
            # The net was trained on one-hot letters divided by their number; fcd_torch does so in
            # its data set.
            rows.append(net(one_hot / one_hot.shape[1]).cpu().numpy())
            bar.update(len(letters))
    return np.concatenate(rows)


def moments(acts_ND: np.ndarray, weight_N: np.ndarray | None = None) -> Moments:
    """Return mean and unbiased covariance of activations, each molecule counted `weight_N` times.

    >>> moments(np.array([[0.0], [2.0]])).cov_DD.item()
    2.0
    """
    acts = acts_ND.astype(np.float64)
    weight = np.ones(len(acts)) if weight_N is None else weight_N
    count = weight.sum()
    mean = weight @ acts / count
    acts -= mean
    cov = (acts * weight[:, None]).T @ acts / max(count - 1, 1)
    return Moments(mean, cov, int(count))


class FrechetTo:
    """The Frechet distance to fixed moments.

    The trace of sqrtm(A B) is the sum of the roots of the eigenvalues of sqrt(B) A sqrt(B), which
    is symmetric: there is no imaginary part to drop where a covariance is singular (fewer than 512
    molecules), and it is 50 times quicker than sqrtm.
    """

    def __init__(self, reference: Moments) -> None:
        values, vectors = np.linalg.eigh(reference.cov_DD)
        self.reference = reference
        self.root_DD = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T

    def __call__(self, sample: Moments) -> float:
        """Return the squared Frechet distance, which is what is called FCD.

        >>> one = Moments(np.array([0.0]), np.array([[1.0]]), 9)
        >>> other = Moments(np.array([3.0]), np.array([[4.0]]), 9)
        >>> FrechetTo(one)(other)
        10.0
        """
        middle = self.root_DD @ sample.cov_DD @ self.root_DD
        shared = _sum_of_roots((middle + middle.T) / 2)
        return self._distance(sample.mean_D, float(np.trace(sample.cov_DD)), shared)

    def of_weighted(self, acts_ND: np.ndarray) -> Callable[[np.ndarray], float]:
        """Return the distance of activations as a function of the weight of each molecule; at least
        two must have one.

        It is that of their moments, but leaves out molecules without weight (a third of a bootstrap
        draw) and takes the smaller of the two matrices that have the same eigenvalues, so that
        small samples cost little.
        """
        middle_D = acts_ND.astype(np.float64).mean(0)
        shifted = acts_ND - middle_D
        turned, square_N = shifted @ self.root_DD, (shifted**2).sum(1)

        def distance(weight_N: np.ndarray) -> float:
            count, some = weight_N.sum(), weight_N > 0
            freedom = max(count - 1, 1)
            mean = weight_N @ shifted / count
            rows = (turned[some] - mean @ self.root_DD) * np.sqrt(weight_N[some] / freedom)[:, None]
            shared = _sum_of_roots(rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T)
            return self._distance(
                mean + middle_D, float(weight_N @ square_N - count * mean @ mean) / freedom, shared
            )

        return distance

    def _distance(self, mean_D: np.ndarray, trace: float, shared: float) -> float:
        apart = self.reference.mean_D - mean_D
        return float(max(apart @ apart + np.trace(self.reference.cov_DD) + trace - 2 * shared, 0.0))


def _sum_of_roots(symmetric_KK: np.ndarray) -> float:
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(symmetric_KK), 0)).sum())
