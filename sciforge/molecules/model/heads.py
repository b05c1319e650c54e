"""The head that learns properties from few labels: three readers, solved before the first step, and
how far to trust each.

Legend of shape letters: N training molecules, B batch, D width, P descriptors, F features, K tasks,
C readers.
"""

from itertools import product
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.learners import calibration
from sciforge.core.learners.extra_trees import Forest
from sciforge.core.learners.gaussian_process import GaussianProcess
from sciforge.core.learners.linear_probe import block_scales
from sciforge.core.learners.supervised import COVERAGE
from sciforge.molecules.chemistry.descriptors import core_first
from sciforge.molecules.objectives.self_supervised import HIDDEN_UNITS

READERS = ("linear", "kernel", "said", "forest")
# Chosen on validation splits. With fewer labels than this trees, which do not extrapolate, took
# weight from the better readers of
# numbers, and for classes an even mix of all was better than one by evidence (BBBP, 50 and 200
# labels: .830 and .881 for .825 and .881; a random forest .817 and .872).
FEW_LABELS = 300
PENALTIES = 10.0 ** np.arange(-3, 3.1, 0.5)
GRID = 4  # weights of the readers are looked for in steps of 1 / GRID
MAX_LOGIT = 8.0


class PropertyHead(nn.Module):
    """Scores of molecules: numbers in units of the labels' std, or log-odds of yes.

    The readers: `linear` sees the encoder (states, and what its descriptor head makes of them) and
    moves with it in training; `kernel` is a Gaussian process on computed descriptors, `said` one on
    the descriptors that the encoder says, which are smoother and were better for classes (BBBP, 50
    labels: AUROC .81 for .78); `forest` are trees on computed ones. What each says of molecules
    that it has not seen (leave-one-out, other folds) decides its weight.

    Args:
        width: D of the encoder.
        yes_no: of each task, whether it is a class or a number.
        molecules: the most training molecules there can be.
        descriptors: P.
        support: the most molecules that the Gaussian process keeps.
    """

    def __init__(
        self, width: int, yes_no: tuple[bool, ...], molecules: int, descriptors: int, support: int
    ) -> None:
        super().__init__()
        outputs = len(yes_no)
        self.yes_no = yes_no
        self.blocks = [descriptors, HIDDEN_UNITS, 3 * width]  # what the encoder gives
        order, core = core_first()
        self.register_buffer("order_P", torch.tensor(order), persistent=False)
        # two weights in the kernel: with one FreeSolv's development error at 50 labels was 2.77 for
        # 2.20
        self.kernel_blocks = [core, descriptors - core]
        self.weight_KF = nn.Parameter(torch.zeros(outputs, sum(self.blocks)))
        self.bias_K = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("centre_F", torch.zeros(sum(self.blocks)))
        self.register_buffer("scale_F", torch.ones(sum(self.blocks)))
        for name in ("centre_P", "mean_P"):
            self.register_buffer(name, torch.zeros(descriptors))
        for name in ("width_P", "std_P"):
            self.register_buffer(name, torch.ones(descriptors))
        self.kernel = GaussianProcess(sum(self.kernel_blocks), outputs, min(support, molecules))
        self.said = GaussianProcess(sum(self.kernel_blocks), outputs, min(support, molecules))
        self.forest = Forest(outputs, molecules)
        self.register_buffer("target_mean_K", torch.zeros(outputs))
        self.register_buffer("target_std_K", torch.ones(outputs))
        start = torch.zeros(outputs, len(READERS))
        start[:, 0] = 1.0
        self.register_buffer("share_KC", start)
        self.register_buffer("slope_KC", torch.ones(outputs, len(READERS)))
        self.register_buffer("offset_KC", torch.zeros(outputs, len(READERS)))
        self.register_buffer("widen_K", torch.ones(outputs))

    def linear(self, encoded_BF: Tensor) -> Tensor:
        """Return the scores of the linear reader [B, K]."""
        with torch.autocast(encoded_BF.device.type, enabled=False):
            scaled_BF = (encoded_BF.to(self.weight_KF.dtype) - self.centre_F) / self.scale_F
            return nn.functional.linear(scaled_BF, self.weight_KF, self.bias_K)

    def forward(self, encoded_BF: Tensor, computed_BP: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores [B, K] of all readers together and standard deviations of numbers [B, K].

        Args:
            encoded_BF: what the encoder gives, in the order of `blocks`.
            computed_BP: descriptors in units of std.
        """
        kernel_BK, std_B = self.kernel(computed_BP[:, self.order_P])
        read_BK, read_std_B = self.said(encoded_BF[:, self.order_P])
        readers = [self.linear(encoded_BF), kernel_BK, read_BK, self.forest(computed_BP)]
        read_BKC = torch.stack(readers, -1)
        std_B = (std_B * read_std_B).sqrt()
        scores_BK = ((read_BKC * self.slope_KC + self.offset_KC) * self.share_KC).sum(-1)
        return scores_BK, std_B[:, None] * self.widen_K

    @torch.no_grad()
    def solve(
        self,
        encoded_NF: np.ndarray,
        computed_NP: np.ndarray,
        label_NK: np.ndarray,
        readers: tuple[str, ...],
        seed: int,
    ) -> dict[str, list]:
        """Set all readers and their weights from the training molecules; return the weights and the
        error on unseen ones.

        Args:
            encoded_NF: what the encoder says, as for `forward`.
            computed_NP: descriptors, as for `forward`.
            label_NK: numbers in units of std, or 0 and 1; NaN where missing.
            readers: which of READERS to use; for numbers the forest only where there are labels
                enough.
            seed: of the forest and of draws.
        """
        known_NK = np.isfinite(label_NK)
        count_K = np.maximum(known_NK.sum(0), 1)
        mean_K = np.where(known_NK, label_NK, 0).sum(0) / count_K
        std_K = np.sqrt(np.where(known_NK, (label_NK - mean_K) ** 2, 0).sum(0) / count_K)
        std_K = np.where(std_K > 0, std_K, 1.0)
        target_NK = (label_NK - mean_K) / std_K
        held = {"linear": self._solve_linear(encoded_NF, target_NK)}
        std_N, order_P = np.ones(len(label_NK)), self.order_P.cpu().numpy()
        for name, x_NP in (("kernel", computed_NP), ("said", encoded_NF)):
            if name in readers:
                fit = getattr(self, name).fit(x_NP[:, order_P], target_NK, self.kernel_blocks, seed)
                held[name], std_N = fit.held_NK, std_N * np.sqrt(fit.std_N)
        if "forest" in readers:
            held["forest"] = self.forest.fit(computed_NP, target_NK, self.yes_no, seed)
        few_K = known_NK.sum(0) < FEW_LABELS
        wanted = [
            [r for r in readers if not (r == "forest" and few and not yes_no and len(readers) > 1)]
            for few, yes_no in zip(few_K, self.yes_no, strict=True)
        ]
        notes = {"share": [], "held_out": []}
        for task, yes_no in enumerate(self.yes_no):
            rows = np.flatnonzero(known_NK[:, task])
            column = {name: held[name][rows, task] for name in READERS if name in wanted[task]}
            share, error = self._settle(
                task, column, label_NK[rows, task], mean_K[task], std_K[task], yes_no
            )
            if not yes_no and len(rows):
                self.widen_K[task] = std_K[task] * widening(error / (std_N[rows] * std_K[task]))
            notes["share"].append([round(float(v), 3) for v in share])
            notes["held_out"].append(
                round(float(np.sqrt((error**2).mean())), 4) if len(rows) else None
            )
        return notes

    def _solve_linear(self, encoded_NF: np.ndarray, target_NK: np.ndarray) -> np.ndarray:
        """Set the linear reader in the units of `target_NK` and return its leave-one-out
        predictions [N, K].
        """
        centre_F, scale_F = block_scales(encoded_NF.astype(np.float64), self.blocks)
        x_NF = (encoded_NF - centre_F) / scale_F
        self.centre_F.copy_(torch.as_tensor(centre_F))
        self.scale_F.copy_(torch.as_tensor(scale_F))
        held_NK = np.full(target_NK.shape, np.nan)
        for task in range(target_NK.shape[1]):
            rows = np.flatnonzero(np.isfinite(target_NK[:, task]))
            if len(rows):
                weight, bias, held_NK[rows, task] = ridge(x_NF[rows], target_NK[rows, task])
                self.weight_KF[task] = torch.as_tensor(weight)
                self.bias_K[task] = float(bias)
        return held_NK

    def _settle(
        self,
        task: int,
        held: dict[str, np.ndarray],
        label_N: np.ndarray,
        mean: float,
        std: float,
        yes_no: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Set slopes, offsets and shares of a task's readers; return the shares [C] and the errors
        on unseen molecules [N].

        A reader's output o becomes slope o + offset: the label itself for numbers, log-odds for
        classes.
        """
        share_C, slope_C, offset_C = np.zeros((3, len(READERS)))
        # so that training starts well without it too
        slope_C[0], offset_C[0] = (1.0, 0.0) if yes_no else (std, mean)
        names = [READERS.index(name) for name in held]
        for name, predicted_N in held.items():
            place = READERS.index(name)
            slope_C[place], offset_C[place] = platt(predicted_N, label_N) if yes_no else (std, mean)
        predicted_NC = np.stack([held[READERS[c]] * slope_C[c] + offset_C[c] for c in names], 1)
        even = yes_no and len(label_N) < FEW_LABELS
        share_C[names] = 1 / len(names) if even else shares(predicted_NC, label_N, yes_no)
        blended_N = predicted_NC @ share_C[names]
        # the linear reader takes its slope in, so that training moves it in the units of the loss
        self.weight_KF[task] *= slope_C[0]
        self.bias_K[task] = self.bias_K[task] * slope_C[0] + offset_C[0]
        slope_C[0], offset_C[0] = 1.0, 0.0
        for slot, values in (
            (self.share_KC, share_C),
            (self.slope_KC, slope_C),
            (self.offset_KC, offset_C),
        ):
            slot[task] = torch.as_tensor(values)
        predicted_N = 1 / (1 + np.exp(-blended_N)) if yes_no else blended_N
        return share_C, predicted_N - label_N


def widening(error_N: np.ndarray) -> float:
    """Return what stds are multiplied by, from errors on unseen molecules in units of their std.

    From MIN_LABELS labels on it makes the intervals of 90 % conformal: with `std` times this, 1.645
    stds hold as many molecules as they say, whatever the distribution. Of fewer, errors get an RMS
    of 1.

    >>> round(widening(np.linspace(-1, 1, 199)), 3), widening(np.array([-2.0, 2.0]))
    (0.553, 2.0)
    """
    if len(error_N) < calibration.MIN_LABELS:
        return float(np.sqrt((error_N**2).mean()))
    half_width = calibration.conformal_quantile(np.abs(error_N), COVERAGE)
    return half_width / NormalDist().inv_cdf(0.5 + COVERAGE / 2)


def ridge(x_NF: np.ndarray, target_N: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Return weights [F], bias and leave-one-out predictions [N] of a ridge regression of least
    leave-one-out error.

    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> weight, bias, held = ridge(x, 2 * x[:, 0] + 1)
    >>> round(float(weight[0]), 2), round(float(bias), 2)
    (2.0, 1.0)
    """
    mean_F, mean = x_NF.mean(0), target_N.mean()
    left_NR, singular_R, right_RF = np.linalg.svd(x_NF - mean_F, full_matrices=False)
    along_R = left_NR.T @ (target_N - mean)
    best = None
    for penalty in PENALTIES:
        shrink_R = singular_R**2 / (singular_R**2 + penalty)
        predicted_N = left_NR @ (shrink_R * along_R) + mean
        hat_N = (left_NR**2 * shrink_R).sum(1) + 1 / len(target_N)
        held_N = target_N - (target_N - predicted_N) / np.clip(1 - hat_N, 1e-3, None)
        error = ((held_N - target_N) ** 2).mean()
        if best is None or error < best[0]:
            weight_F = right_RF.T @ (singular_R / (singular_R**2 + penalty) * along_R)
            best = error, weight_F, float(mean - weight_F @ mean_F), held_N
    return best[1:]


def platt(predicted_N: np.ndarray, label_N: np.ndarray) -> tuple[float, float]:
    """Return slope and offset that turn scores into log-odds (Platt 1999), under a weak prior that
    keeps them finite.

    >>> slope, offset = platt(np.array([-1.0, 1.0, -1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0]))
    >>> slope > 0, abs(round(offset, 6))  # the sign of its zero is the optimiser's
    (True, 0.0)
    """
    yes, no = label_N.sum(), (1 - label_N).sum()
    smooth_N = np.where(label_N > 0.5, (yes + 1) / (yes + 2), 1 / (no + 2))  # Platt's targets
    theta = np.array([1.0, np.log((yes + 1) / (no + 1))])
    x_N2 = np.stack([predicted_N, np.ones_like(predicted_N)], 1)
    for _ in range(50):
        p_N = 1 / (1 + np.exp(-np.clip(x_N2 @ theta, -30, 30)))
        gradient = x_N2.T @ (p_N - smooth_N) + 1e-2 * theta
        hessian = (x_N2 * (p_N * (1 - p_N))[:, None]).T @ x_N2 + 1e-2 * np.eye(2)
        theta = theta - np.clip(np.linalg.solve(hessian, gradient), -2, 2)
    return max(float(theta[0]), 1e-3), float(theta[1])


def shares(predicted_NC: np.ndarray, label_N: np.ndarray, yes_no: bool) -> np.ndarray:
    """Return weights [C] of readers, which add up to 1, from what they say of molecules that they
    have not seen.

    Every mix on a grid counts by its likelihood, so few labels give an even mix and many give the
    best one.

    >>> value_NR, label_N = np.array([[0.0, 1.0], [1.0, 0.0]] * 50), np.array([0.0, 1.0] * 50)
    >>> shares(value_NR, label_N, False).round(2).tolist()
    [1.0, 0.0]
    """
    mixes_MC = (
        np.array(
            [
                mix
                for mix in product(range(GRID + 1), repeat=predicted_NC.shape[1])
                if sum(mix) == GRID
            ]
        )
        / GRID
    )
    score_NM = predicted_NC @ mixes_MC.T
    if yes_no:
        score_NM = np.clip(score_NM, -MAX_LOGIT, MAX_LOGIT)
        nats_M = np.logaddexp(0, np.where(label_N[:, None] > 0.5, -score_NM, score_NM)).sum(0)
    else:
        square_M = ((score_NM - label_N[:, None]) ** 2).mean(0) + 1e-12
        nats_M = 0.5 * len(label_N) * np.log(square_M)
    weight_M = np.exp(nats_M.min() - nats_M)
    return (weight_M / weight_M.sum()) @ mixes_MC
