"""What a Nusselt law says, with measured points or without, and points to ask it for: what its laws
are checked with.

A model without measured points answers with its prior: laws by their weights, each with the
correction that pretraining found.

Legend of shape letters: B points asked for, N measured points, L points of a line, G groups, F
features, K laws, C components.
"""

import copy
import math

import numpy as np
import torch
from torch import Tensor

from sciforge.core.domain import Batch
from sciforge.heat.data.campaigns import AIR, USUAL
from sciforge.heat.data.codec import HeatCodec
from sciforge.heat.model.nusselt_net import NusseltNet
from sciforge.heat.model.posterior import NEW_RIG, NOISE_CENTRE
from sciforge.heat.objectives.nusselt import HEAD, Nusselt, keep

CHUNK = 256  # points at a time: each costs components x measured points of memory
SIMULATED, PLATES = 8, 6
STEP = 1e-3  # of log Re and log W/H
# Where every group of a channel varies, the fluid and the shape of the channel too.
SPAN = USUAL | {"Pr": (0.5, 10.0), "P_e": (8.0, 25.0), "W_H": (0.5, 4.0)}


# --- what the model says ---


def measured(model: NusseltNet) -> int:
    """Return how many measured points a model holds."""
    return int(model.heads[HEAD].count) if HEAD in model.heads else 0


@torch.no_grad()
def mean_log_nu(model: NusseltNet, x_BG: Tensor, rig: int = 0) -> Tensor:
    """Return log Nu [B] as a model gives it to the points of a rig: its posterior's mean, or
    that of its prior.
    """
    if measured(model):
        return torch.cat([_mixture(model, part, rig)[0] for part in x_BG.split(CHUNK)])
    weight_K, delta_KF = model.law_K.double().softmax(0), model.delta_KF.double()
    return weight_K @ (model.bases(x_BG) + delta_KF @ model.codec.featured(x_BG.double()).T)


def _objective(model: NusseltNet) -> Nusselt:
    """Return the objective as the points were met: descent leaves no solved corrections behind."""
    head = model.heads[HEAD]
    return Nusselt(fit="descent" if torch.equal(head.solved_KF, head.centre_KF) else "exact")


def _batch(x_BG: Tensor, rig: int) -> Batch:
    rig_B = torch.full((len(x_BG),), rig, device=x_BG.device)
    return {"x": x_BG, "factor": torch.ones_like(x_BG[:, 0]), "rig": rig_B}


def _mixture(model: NusseltNet, x_BG: Tensor, rig: int) -> tuple[Tensor, Tensor]:
    """Return log Nu [B] and that of the model's laws alone, before anything was corrected [B]."""
    objective, head = _objective(model), model.heads[HEAD]
    mean_CB, _, weight_C = objective.mixture(model, _batch(x_BG, rig))
    base_CB = model.bases(x_BG)[head.posterior(model).components.law_C]
    return weight_C @ mean_CB, weight_C @ base_CB


@torch.no_grad()
def interval(model: NusseltNet, x_BG: Tensor, rig: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ends of the 90 % interval and the median, as logarithms [B]."""
    found = _objective(model).predict(model, _batch(x_BG, rig))
    return found["low"].log(), found["value"].log(), found["high"].log()


@torch.no_grad()
def laws_alone(model: NusseltNet, x_BG: Tensor) -> Tensor:
    """Return log Nu [B] of the laws by their weights, without corrections."""
    if measured(model):
        return _mixture(model, x_BG, 0)[1]
    return model.law_K.double().softmax(0) @ model.bases(x_BG)


def width_of(ends: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return the widths [B] of intervals, of log Nu."""
    return ends[2] - ends[0]


# --- points to ask for ---


def drawn(model: NusseltNet, rng: np.random.Generator, count: int, plates: int) -> Tensor:
    """Return points of a campaign that never was [count, G]: plates of the usual sizes in air;
    other columns as in training.
    """
    codec: HeatCodec = model.codec
    if codec.channel:
        low_G, high_G = np.array([USUAL[name] for name in codec.columns]).T
        x_NG = low_G * (high_G / low_G) ** rng.random((plates, len(low_G)))
        x_NG = x_NG[np.arange(count) % plates]
        x_NG[:, 0] = low_G[0] * (high_G[0] / low_G[0]) ** rng.random(count)
        x_NG[:, 1] = AIR
    else:
        x_NG = np.array(codec.centres) + np.array(codec.widths) * rng.standard_normal(
            (count, len(codec.columns))
        )
        x_NG = np.where(codec.logged, np.exp(np.where(codec.logged, x_NG, 0.0)), x_NG)
    return torch.from_numpy(x_NG).to(model.delta_KF.device)


def points_of(model: NusseltNet, rng: np.random.Generator) -> Tensor:
    """Return the measured points [N, G], or drawn ones."""
    size = measured(model)
    return model.heads[HEAD].x_NG[:size].double() if size else drawn(model, rng, 24, PLATES)


def plates_of(model: NusseltNet, rng: np.random.Generator) -> Tensor:
    """Return one point of each of a few plates [B, G]."""
    x_NG = points_of(model, rng)
    _, first = np.unique(x_NG[:, 2:].cpu().numpy(), axis=0, return_index=True)
    return x_NG[torch.from_numpy(np.sort(rng.permutation(first)[:PLATES]))]


def rigs_of(model: NusseltNet) -> list[int]:
    """Return a few of the rigs that were measured, and one that never was."""
    known = model.heads[HEAD].rig_N[: measured(model)].unique().tolist() if measured(model) else []
    return [*known[:3], NEW_RIG]


def line_of(plate_G: Tensor, column: int, values_L: Tensor) -> Tensor:
    """Return a plate with one of its groups at several values [L, G]."""
    x_LG = plate_G.repeat(len(values_L), 1)
    x_LG[:, column] = values_L
    return x_LG


def geometric(low: float, high: float, step: float = STEP) -> Tensor:
    """Return values [L] from `low` to `high`, a step of their logarithm apart.

    >>> len(geometric(1.0, 1.01))
    11
    """
    count = max(round(math.log(high / low) / step), 1) + 1
    return torch.logspace(math.log10(low), math.log10(high), count, dtype=torch.float64)


def fitted(model: NusseltNet, rng: np.random.Generator) -> NusseltNet:
    """Return the model if it holds measured points, else a copy that was given a few simulated
    ones.
    """
    if measured(model):
        return model
    model = copy.deepcopy(model)
    x_NG = drawn(model, rng, SIMULATED, 3)
    log_N = mean_log_nu(model, x_NG)
    log_N = log_N + NOISE_CENTRE * torch.from_numpy(rng.standard_normal(len(log_N))).to(log_N)
    return kept(model, x_NG, log_N, 1.0)


def kept(model: NusseltNet, x_NG: Tensor, log_N: Tensor, factor: float) -> NusseltNet:
    """Give points of one rig to a net; return it."""
    objective = Nusselt(points=len(log_N))
    objective.attach(model)
    model.heads[HEAD].to(x_NG)
    keep(
        model,
        objective,
        x_NG,
        log_N,
        torch.full_like(log_N, factor),
        torch.zeros_like(log_N, dtype=torch.long),
    )
    return model


def largest(values: Tensor) -> float:
    """Return the largest of values that are finite; 0 of none."""
    values = values[values.isfinite()]
    return float(values.max()) if len(values) else 0.0


def spread_out(net: NusseltNet, rng: np.random.Generator, count: int) -> Tensor:
    """Return points all of whose groups vary [count, G], for exponents to be told from one
    another.
    """
    if not net.codec.channel:
        return drawn(net, rng, count, count)
    low_G, high_G = np.array([SPAN[name] for name in net.codec.columns]).T
    return torch.from_numpy(low_G * (high_G / low_G) ** rng.random((count, len(low_G)))).to(
        net.delta_KF.device
    )
