"""Laws of heat transfer that any Nusselt law must keep, run in float64 on the very model that a
user holds.

Laws about intervals and about measured points run, on a model that has none, on a copy that was
given a few simulated ones. Columns that are no channel have no Reynolds number, no plates and no
published laws: what is said about those holds of them trivially. Points at which a published law
has no value are passed over.

Legend of shape letters: B points asked for, N measured points, L points of a line, G groups, F
features, C components.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sciforge.heat.correlations import dimensionless
from sciforge.heat.correlations.correlation import Correlation
from sciforge.heat.correlations.groups import GROUPS
from sciforge.heat.correlations.library import CORRELATIONS, get_correlation
from sciforge.heat.data.campaigns import USUAL
from sciforge.heat.data.codec import HeatCodec
from sciforge.heat.evaluation.probing import (
    drawn,
    fitted,
    geometric,
    interval,
    kept,
    largest,
    laws_alone,
    line_of,
    mean_log_nu,
    measured,
    plates_of,
    points_of,
    rigs_of,
    spread_out,
    width_of,
)
from sciforge.heat.model.nusselt_net import POWER, NusseltConfig, NusseltNet
from sciforge.heat.model.posterior import NEW_RIG
from sciforge.heat.objectives.nusselt import HEAD

EXACT = 1e-9
ROUNDING = 1e-6  # of sums over many points of nearly singular matrices
JUMP = 0.01  # of log Nu
# Re at which ducts and plates change from laminar to turbulent flow
REGIMES = (2300.0, 4000.0, 1e4, 5e5)
# Where published laws change their formula: Han & Park 1988 at 90 degrees and W/H 1, Han et al.
# 1989 at W/H 1/2 too.
BORDERS = (
    ("alpha_deg", 90 * (1 - 2e-6), 90.0),
    ("W_H", 1.0, 1 + 2e-6),
    ("W_H", 0.5 * (1 - 2e-6), 0.5),
)
FAR = 5.0  # lengths of the residual: Matern-3/2 has fallen to 0.2 % there
REACH = (
    "Re",
    "P_e",
    "W_H",
)  # groups that can go so far: the angle ends before, ribs would fill the channel, Pr leaves gases


def dimensions(
    model: NusseltNet, codec: HeatCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """Nu is a number, the same in any system of units, and features are logarithms of groups: ten
    times a group is 2.3 more.

    Velocity, diameter, viscosity and the rest are drawn, measured in SI and in units of random
    size, and made groups of; what comes out is a heat transfer coefficient, back in SI.
    """
    if not codec.channel:
        return 0.0, EXACT
    x_BG = points_of(model, rng)
    Re_B, Pr_B, e_D_B, P_e_B, _, W_H_B = x_BG.unbind(1)
    # A channel with these groups; the quantities that they leave free are drawn.
    diameter, heat_capacity, conductivity = (
        torch.from_numpy(rng.uniform(0.5, 2, len(x_BG))).to(x_BG) for _ in "abc"
    )
    viscosity = Pr_B * conductivity / heat_capacity  # dynamic; the density is 1
    velocity = Re_B * viscosity / diameter
    rib, height = e_D_B * diameter, diameter * (1 + W_H_B) / (2 * W_H_B)
    found = []
    # SI, and another system
    for length, mass, time, kelvin in (np.ones(4), rng.uniform(0.1, 10, 4)):
        seen, conducts = diameter * length, conductivity * (mass * length / time**3 / kelvin)
        again = {
            "Re": dimensionless.reynolds(
                velocity * (length / time), seen, viscosity * (length**2 / time)
            ),
            "Pr": dimensionless.prandtl(
                heat_capacity * (length**2 / time**2 / kelvin),
                viscosity * (mass / length / time),
                conducts,
            ),
            "e_D": rib * length / seen,
            "P_e": torch.where(rib > 0, P_e_B * rib * length / (rib * length), P_e_B),
            "W_H": W_H_B * height * length / (height * length),
        }
        groups_BG = torch.stack(
            [again.get(name, x_BG[:, g]) for g, name in enumerate(codec.columns)], 1
        )
        coefficient = dimensionless.coefficient_of_nusselt(
            mean_log_nu(model, groups_BG).exp(), seen, conducts
        )
        found.append((coefficient * (time**3 * kelvin / mass)).log())
    if not bool(torch.stack(found).isfinite().all()):
        return math.inf, EXACT
    worst = largest((found[0] - found[1]).abs())
    for place, name in enumerate(codec.columns):
        if name != "alpha_deg" and name in codec.features:
            tenfold_BG = x_BG.clone()
            tenfold_BG[:, place] *= 10
            moved_BF = codec.featured(tenfold_BG) - codec.featured(x_BG)
            away_B = moved_BF[:, codec.features.index(name)] - math.log(10)
            worst = max(worst, largest(away_B[x_BG[:, place] > 0].abs()))
    return worst, EXACT


def monotone(model: NusseltNet, codec: HeatCodec, rng: np.random.Generator) -> tuple[float, float]:
    """Nu never falls as Re rises, on any plate and rig, from half the lowest measured Re to twice
    the highest.

    The figure is how far d log Nu / d log Re is below 0.
    """
    if not codec.channel:
        return 0.0, EXACT
    Re_N = points_of(model, rng)[:, 0]
    low, high = (float(Re_N.min()), float(Re_N.max())) if measured(model) else USUAL["Re"]
    Re_L = geometric(low / 2, high * 2, 0.02).to(Re_N)
    worst = 0.0
    for plate_G in plates_of(model, rng):
        for rig in rigs_of(model):
            log_L = mean_log_nu(model, line_of(plate_G, 0, Re_L), rig)
            worst = max(worst, largest(-log_L.diff() / Re_L.log().diff()))
    return worst, EXACT


def limits(model: NusseltNet, codec: HeatCodec, rng: np.random.Generator) -> tuple[float, float]:
    """Smooth laws reach their limits, and far from the points a model is its laws times a power of
    Re and of Pr.

    In a duct Nu is 3.66 (or 48/11) in laminar flow and Gnielinski's from Re 4000; on a plate it
    goes to 2 / sqrt(pi) sqrt(Re Pr) as Pr falls, the conduction into a stream of one velocity. So a
    model that was built on `smooth-duct` has 3.66 times what measured points say of the level and
    the Reynolds exponent. Dittus-Boelter and the ribbed laws are of turbulent flow alone and have
    no laminar limit. The figure is relative.
    """
    worst = _smooth_limits()
    if not codec.channel:
        return worst, 1e-3
    plate_G = plates_of(model, rng)[0]
    for column, values in ((0, (1e9, 1e10, 1e11)), (1, (1e-6, 1e-5, 1e-4))):
        x_LG = line_of(plate_G, column, plate_G.new_tensor(values))
        added_L = mean_log_nu(model, x_LG) - laws_alone(model, x_LG)
        worst = max(worst, largest((added_L[2] - 2 * added_L[1] + added_L[0]).abs()[None]))
    return worst, 1e-3


def _smooth_limits() -> float:
    """Return how far the smooth laws of the library are from their limits, relative."""
    low, high = (
        torch.tensor(values, dtype=torch.float64)
        for values in ((1.0, 100.0, 2300.0), (4000.0, 1e5, 1e6))
    )
    stated = [
        ("smooth-duct", {"Re": low, "Pr": 0.7}, low * 0 + 3.66),
        ("smooth-duct-flux", {"Re": low, "Pr": 0.7}, low * 0 + 48 / 11),
        (
            "smooth-duct",
            {"Re": high, "Pr": 0.7},
            get_correlation("gnielinski").unchecked({"Re": high, "Pr": 0.7}),
        ),
        (
            "churchill-ozoe",
            {"Re": high, "Pr": 1e-12},
            2 / math.sqrt(math.pi) * (high * 1e-12) ** 0.5,
        ),
    ]
    return max(
        largest((get_correlation(name).unchecked(at) / nu - 1).abs()) for name, at, nu in stated
    )


def continuity(
    model: NusseltNet, codec: HeatCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """Nothing jumps by 1 %: Nu across the Reynolds numbers of transition, nor between the borders
    of angle and W/H.

    The library's laws are looked at too, each in its range. At 90 degrees, W/H 1 and W/H 1/2 some
    published laws jump, and a model that is built on them with them: `published-jumps` says by how
    much.
    """
    if not codec.channel:
        return 0.0, JUMP
    worst = max(
        largest(_law_steps(law, line)) for law in CORRELATIONS.values() for line in _lines()
    )
    for plate_G in plates_of(model, rng)[:3]:
        for column, values_L in _lines():
            worst = max(
                worst,
                largest(
                    mean_log_nu(model, line_of(plate_G, column, values_L.to(plate_G))).diff().abs()
                ),
            )
    return worst, JUMP


def _lines() -> Iterator[tuple[int, Tensor]]:
    """Yield columns and values along which nothing may jump."""
    columns = list(GROUPS)
    for border in REGIMES:
        yield columns.index("Re"), geometric(border * 0.99, border * 1.01)
    yield columns.index("alpha_deg"), torch.arange(30, 90, 0.1, dtype=torch.float64)
    for low, high in ((0.25, 0.499), (0.501, 0.999), (1.001, 4.0)):
        yield columns.index("W_H"), geometric(low, high)


def _law_steps(law: Correlation, line: tuple[int, Tensor]) -> Tensor:
    """Return the steps of log Nu along a line in a law's range [L - 1]; nothing where it is
    outside.
    """
    column, values_L = line
    points = {name: torch.full_like(values_L, group.reference) for name, group in GROUPS.items()}
    for name, (low, high) in law.box.items():
        points[name] = points[name].clamp(low, high)
    points[list(GROUPS)[column]] = values_L
    log_L = law.unchecked(points).log()
    return torch.where(law.inside(points), log_L, torch.nan).diff().abs()


def published_jumps(
    model: NusseltNet, codec: HeatCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """At 90 degrees, W/H 1 and W/H 1/2 Nu jumps by no more than the published laws it is built on,
    by their weights.

    The figure is the model's own jump of log Nu there, the tolerance what its laws say as they were
    published, and 1 %: no source smooths them, and a design that rests on either side of a border
    deserves to know that the two sides differ so much.
    """
    if not codec.channel:
        return 0.0, JUMP
    jump, published = 0.0, 0.0
    x_BG = torch.cat([plates_of(model, rng), drawn(model, rng, 64, 64)])
    for name, before, beyond in BORDERS:
        sides = [x_BG.clone(), x_BG.clone()]
        for side_BG, value in zip(sides, (before, beyond), strict=True):
            side_BG[:, codec.columns.index(name)] = value
        own_B, laws_B = (
            (of(model, sides[1]) - of(model, sides[0])).abs() for of in (mean_log_nu, laws_alone)
        )
        jump, published = max(jump, largest(own_B)), max(published, largest(laws_B))
    return jump, published + JUMP


def recovery(model: NusseltNet, codec: HeatCodec, rng: np.random.Generator) -> tuple[float, float]:
    """A power law without noise is found again from 40 points: its exponents, and Nu at 20 more.

    Between plates of a channel the prior expects differences of 3 % at least, so 40 different
    plates leave about 0.01 open.
    """
    net = (
        NusseltConfig((POWER,))
        .build(codec)
        .to(model.delta_KF.device)
        .double()
        .requires_grad_(False)
    )
    x_BG = spread_out(net, rng, 60)
    true_F = torch.from_numpy(rng.uniform(-0.5, 1.0, len(codec.features))).to(x_BG)
    true_F[0] += 4.6  # Nu near 100
    log_B = codec.featured(x_BG) @ true_F
    kept(net, x_BG[:40], log_B[:40], 1e-3)
    exponents_F = (net.delta_KF[0] - true_F).abs()
    nusselt_B = (mean_log_nu(net, x_BG[40:]) - log_B[40:]).abs()
    return float(max(exponents_F.max(), nusselt_B.max())), 0.02 if codec.channel else 1e-6


@torch.no_grad()
def extrapolation(
    model: NusseltNet, codec: HeatCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """Far from all points the residual fades and the interval is no narrower than at the nearest
    one.

    Far is 5 lengths of the residual outside in Re, P/e and W/H (a column each, where there is no
    channel). The figure is what the residual leaves of log Nu there, or by what share the interval
    is narrower.
    """
    model = fitted(model, rng)
    found = model.heads[HEAD].posterior(model)
    c, worst = found.components, 0.0
    bare = replace(found, components=replace(c, amplitude_C=torch.zeros_like(c.amplitude_C)))
    for near_BG, far_BG, rig in _outside(model, codec):
        rows = model.rows(far_BG, rig_N=torch.full((len(far_BG),), rig, device=far_BG.device))
        left_B = c.weight_C @ (found.predict(rows)[0] - bare.predict(rows)[0])
        share_B = width_of(interval(model, far_BG, rig)) / width_of(interval(model, near_BG, rig))
        worst = max(worst, largest(left_B.abs()), largest(1 - share_B))
    return worst, JUMP


def _outside(model: NusseltNet, codec: HeatCodec) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Yield a point at the edge of the measured ones, one far outside of it along one column,
    both [1, G], and its rig.
    """
    head, size = model.heads[HEAD], measured(model)
    x_NG, length_D = head.x_NG[:size].double(), head.prior(model).length_D
    for column, name in enumerate(codec.columns):
        if codec.channel and name not in REACH:
            continue
        place = int(x_NG[:, column].argmax())
        near_BG = x_NG[place : place + 1]
        far_BG = near_BG.clone()
        reach = FAR * float(length_D[column])
        if codec.channel or codec.logged[column]:
            far_BG[:, column] *= math.exp(reach * (1.0 if codec.channel else codec.widths[column]))
        else:
            far_BG[:, column] += reach * codec.widths[column]
        yield near_BG, far_BG, int(head.rig_N[place])


def intervals(model: NusseltNet, codec: HeatCodec, rng: np.random.Generator) -> tuple[float, float]:
    """Low < median < high; where a rig was measured, a rig that never was has intervals no narrower
    than its own.

    Elsewhere they can be narrower, by a few per cent: what is common to rigs and what is a rig's
    own are told apart by the points, and errors in the two may add. The figure is by what share (1
    where the order is wrong).
    """
    model = fitted(model, rng)
    x_NG, rig_N = points_of(model, rng)[:100], model.heads[HEAD].rig_N[: measured(model)][:100]
    new_N, worst = width_of(interval(model, x_NG, NEW_RIG)), 0.0
    x_BG = torch.cat([x_NG, drawn(model, rng, 50, 25)])
    for rig in (*rig_N.unique().tolist(), NEW_RIG):
        low_B, middle_B, high_B = interval(model, x_BG, rig)
        ordered_B = (low_B < middle_B) & (middle_B < high_B)
        worst = max(worst, float((~ordered_B & middle_B.isfinite()).any()))
        own_N = width_of((low_B, middle_B, high_B))[: len(x_NG)]
        worst = max(worst, largest((1 - new_N / own_N)[rig_N == rig]))
    return worst, EXACT


def permutation(
    model: NusseltNet, codec: HeatCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """The order of the measured points changes nothing, nor does asking for points one by one."""
    model = fitted(model, rng)
    x_BG = torch.cat([points_of(model, rng)[:20], drawn(model, rng, 20, 10)])
    again, size = copy.deepcopy(model), measured(model)
    head, order = again.heads[HEAD], torch.from_numpy(rng.permutation(size))
    for values in (head.x_NG, head.log_N, head.factor_N, head.rig_N):
        values[:size] = values[:size][order.to(values.device)].clone()
    worst = 0.0
    for rig in rigs_of(model):
        together = torch.stack(interval(model, x_BG, rig))
        moved = torch.stack(interval(again, x_BG, rig))
        alone = torch.cat(
            [torch.stack(interval(model, x_BG[[row]], rig)) for row in range(0, len(x_BG), 8)], 1
        )
        worst = max(
            worst, largest((together - moved).abs()), largest((together[:, ::8] - alone).abs())
        )
    return worst, ROUNDING


LAWS: dict[str, Callable[..., tuple[float, float]]] = {
    "dimensions": dimensions,
    "monotone": monotone,
    "limits": limits,
    "continuity": continuity,
    "published-jumps": published_jumps,
    "recovery": recovery,
    "extrapolation": extrapolation,
    "intervals": intervals,
    "permutation": permutation,
}
