"""The picture of a fitted law: parity, residuals against each group, and exponents with their
intervals.

Legend of shape letters: N points.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sciforge.core.files.output_files import write_whole
from sciforge.core.files.results import new_axes
from sciforge.errors import ConfigError, did_you_mean, printable
from sciforge.heat.correlations.groups import GROUPS
from sciforge.heat.inference.fitted_law import Fitted, FittedLaw
from sciforge.heat.inference.formula import Tangent, exponents
from sciforge.heat.model.mixture import quantile
from sciforge.heat.model.transfer_audit import FEWEST, leave_one_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with every kind of colour vision.
COLOURS = {"data": "#0072B2", "data and prior": "#009E73", "prior": "#D55E00"}
POINT, FAINT, BAND = "#0072B2", "#9AA5B1", 0.10
SUFFIXES = (".png", ".pdf", ".svg")
# points up to which each is predicted from the others: components are weighed anew for every one
MOST_LEFT_OUT = 150
LABELS = {
    "Re": "Re",
    "Pr": "Pr",
    "e_D": "e/D",
    "P_e": "P/e",
    "alpha_deg": "rib angle, degrees",
    "W_H": "W/H",
}
FEW_VALUES = 3  # of a group up to which the axis marks just these
MOST_GROUPS = 5  # of residuals; no more vary in a ribbed channel with one fluid


@dataclass(frozen=True)
class _Seen:
    """Measured and predicted Nusselt numbers of the points, with 90 % intervals, each [N]."""

    measured_N: np.ndarray
    value_N: np.ndarray
    low_N: np.ndarray
    high_N: np.ndarray
    left_out: bool


def draw_parity(law: Fitted | FittedLaw, ax: "Axes | None" = None) -> "Axes":
    """Draw predicted against measured Nusselt numbers with 90 % bars; each point predicted from the
    others where possible.

    Raises:
        ConfigError: a prior without measured points.
    """
    view = FittedLaw.of(law)
    if not len(view.x_NG):
        raise ConfigError("the law has no measured points to draw; fit it first")
    ax = new_axes(5.2, 5.2) if ax is None else ax
    _parity(ax, _seen(view))
    return ax


def draw_group(law: Fitted | FittedLaw, group: str, ax: "Axes | None" = None) -> "Axes":
    """Draw the Nusselt number against one group at the centre of the others: median, 90 % band and
    measured points.

    Measured points are moved to the centre of the other groups by the law, so that their distance
    from the curve is their residual.

    Args:
        law: fitted.
        group: name of the column, e.g. Re.
        ax: where to draw; None for axes of their own.

    Raises:
        ConfigError: no such group.
    """
    view = FittedLaw.of(law)
    if group not in view.columns:
        raise ConfigError(f"no group {group!r}; {did_you_mean(group, view.columns)}")
    place = view.columns.index(group)
    logged = view.logged(place)
    x_M = _span(view, place, logged)
    x_MG = view.centre().repeat(len(x_M), 1)
    x_MG[:, place] = torch.from_numpy(x_M)
    mixture = view.mixture(x_MG)
    middle_M = torch.einsum("c,cm->m", mixture[0], mixture[1]).exp().numpy()
    low_M, high_M = (quantile(*mixture, share).exp().numpy() for share in (0.05, 0.95))
    ax = new_axes() if ax is None else ax
    ax.fill_between(
        x_M, low_M, high_M, color=POINT, alpha=0.18, linewidth=0, label="90 % of new readings"
    )
    ax.plot(x_M, middle_M, color=POINT, label="law at the centre of the other groups")
    if len(view.x_NG):
        ax.plot(
            *_at_centre(view, place),
            "o",
            color="black",
            markersize=4,
            label="measured, moved to the centre",
        )
    if logged:
        ax.set_xscale("log")
        _log_ticks(ax.xaxis, float(x_M.min()), float(x_M.max()))
    ax.set_yscale("log")
    _log_ticks(ax.yaxis, *ax.get_ylim(), dense=True)
    ax.set_xlabel(LABELS.get(group, printable(group)), parse_math=False)
    ax.set_ylabel("Nu")
    ax.legend(frameon=False, fontsize=9)
    _clean(ax, "")
    return ax


def _at_centre(view: FittedLaw, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a group of the measured points, and their Nusselt numbers as the law moves them to
    the centre of the others.
    """
    x_NG = view.x_NG.double()
    moved_NG = view.centre().repeat(len(x_NG), 1)
    moved_NG[:, place] = x_NG[:, place]
    log_N = view.posterior.rows.log_N
    for rows_NG, sign in ((x_NG, -1), (moved_NG, 1)):
        weight_C, mean_CN, _ = view.mixture(rows_NG)
        log_N = log_N + sign * torch.einsum("c,cn->n", weight_C, mean_CN)
    return x_NG[:, place].numpy(), log_N.exp().numpy()


def _span(view: FittedLaw, place: int, logged: bool) -> np.ndarray:
    """Return 80 values of a group from somewhat below the measured points to somewhat above,
    within what physics allows.
    """
    column_N = (
        view.x_NG[:, place].numpy() if len(view.x_NG) else view.centre()[place : place + 1].numpy()
    )
    low, high = float(column_N.min()), float(column_N.max())
    if logged and low > 0:
        x_M = np.geomspace(low / 1.5, high * 1.5, 80)
    else:
        margin = 0.1 * (high - low) or 0.2 * abs(high) or 1.0
        x_M = np.linspace(low - margin, high + margin, 80)
    bounds = GROUPS.get(view.columns[place])
    if bounds is None:
        return x_M
    return x_M[(x_M > bounds.low if bounds.open_low else x_M >= bounds.low) & (x_M <= bounds.high)]


def save_figure(figure: "Figure", path: str | Path) -> Path:
    """Write a figure, .png, .pdf or .svg, and return its path; raises ConfigError for another
    suffix.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: the suffix is none of {', '.join(SUFFIXES)}; rename it")
    format_ = path.suffix[1:].lower()
    return write_whole(path, lambda work: figure.savefig(work, format=format_))


def draw_law(law: Fitted | FittedLaw) -> "Figure":
    """Return a figure of a fitted law: parity, residuals and exponents; of a prior without points
    the exponents only.

    Raises:
        ConfigError: as `exponents`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    view = FittedLaw.of(law)
    tangent = exponents(view)
    groups = [g for g in range(len(view.columns)) if len(view.x_NG) and view.varied(g)][
        :MOST_GROUPS
    ]
    height = max(4.2, 0.36 * len(tangent.numbers) + 1.6)
    if not len(view.x_NG):
        figure = Figure(figsize=(6.4, height), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        _forest(figure.add_subplot(), tangent)
        return figure
    rows = 1 + bool(groups)
    figure = Figure(figsize=(10.4, height + 2.9 * (rows - 1)), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    parts = figure.subfigures(rows, 1, height_ratios=[height, 2.9][:rows], squeeze=False)[:, 0]
    left, right = parts[0].subplots(1, 2, width_ratios=(1, 1.1))
    seen = _seen(view)
    _parity(left, seen)
    _forest(right, tangent)
    if groups:
        panels = parts[1].subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, g in zip(panels, groups, strict=True):
            _residuals(axes, seen, view.x_NG[:, g].numpy(), view.columns[g], view.logged(g))
        panels[0].set_ylabel("predicted / measured - 1, %")
        parts[1].suptitle("Residuals", x=0.01, ha="left", fontsize=11)
    return figure


def _seen(view: FittedLaw) -> _Seen:
    """Return the points beside their predictions: each from the others where that says
    something, else from all.
    """
    log_N = view.posterior.rows.log_N
    if FEWEST <= len(log_N) <= MOST_LEFT_OUT and not view.descended:
        left = leave_one_out(view.posterior.prior, view.posterior.rows)
        return _Seen(
            log_N.exp().numpy(), *(np.exp(v) for v in (left.log_N, left.low_N, left.high_N)), True
        )
    rig = view.rigs[0] if len(view.rigs) == 1 else None
    mixture = view.mixture(view.x_NG.double(), rig)
    low_N, high_N = (quantile(*mixture, share).exp().numpy() for share in (0.05, 0.95))
    value_N = torch.einsum("c,cn->n", mixture[0], mixture[1]).exp().numpy()
    return _Seen(log_N.exp().numpy(), value_N, low_N, high_N, False)


def _clean(axes: Any, title: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11)
    axes.tick_params(labelsize=9)


def _apart(marks: list[float], span: float) -> list[float]:
    """Drop marks whose labels would lie on one another.

    >>> _apart([0.042, 0.0625, 0.063], 0.4)
    [0.042, 0.0625]
    """
    kept = marks[:1]
    for mark in marks[1:]:
        if math.log(mark / kept[-1]) > 0.12 * span:
            kept.append(mark)
    return kept


def _log_ticks(
    axis: Any, low: float, high: float, dense: bool = False, only: np.ndarray | None = None
) -> None:
    """Set a logarithmic axis's marks to round numbers that a reader knows, or to `only`."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    span = high / low / (4 if dense else 1)
    steps = (1, 2, 5) if span < 8 else (1, 3) if span < 100 else (1,)
    if span < 2.5:
        steps = (1, 1.5, 2, 3, 5, 7) if dense else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    marks = [
        s * 10.0**p
        for p in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for s in steps
    ]
    marks = marks if only is None else _apart(only.tolist(), math.log(high / low))
    axis.set_major_locator(FixedLocator([m for m in marks if low * 0.999 <= m <= high * 1.001]))
    axis.set_major_formatter(lambda value, _: f"{value:,.6g}" if value < 1e6 else f"{value:.0e}")
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _parity(axes: Any, seen: _Seen) -> None:
    """Draw predicted over measured Nusselt numbers with 90 % bars and the lines of 10 %."""
    low = 0.9 * min(seen.low_N.min(), seen.measured_N.min())
    high = 1.1 * max(seen.high_N.max(), seen.measured_N.max())
    ends = np.array([low, high])
    axes.plot(ends, ends, color="black", linewidth=1.0, zorder=1)
    axes.fill_between(
        ends, ends * (1 - BAND), ends * (1 + BAND), color=FAINT, alpha=0.18, linewidth=0, zorder=0
    )
    for factor in (1 - BAND, 1 + BAND):
        axes.plot(ends, ends * factor, color=FAINT, linewidth=0.9, linestyle="--", zorder=1)
    bars = [seen.value_N - seen.low_N, seen.high_N - seen.value_N]
    axes.errorbar(
        seen.measured_N,
        seen.value_N,
        bars,
        fmt="o",
        color=POINT,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        elinewidth=1.0,
        ecolor="#7FB2D6",
        zorder=3,
    )
    axes.set(
        xscale="log",
        yscale="log",
        xlim=ends,
        ylim=ends,
        xlabel="measured Nu",
        ylabel="predicted Nu",
        aspect="equal",
    )
    for axis in (axes.xaxis, axes.yaxis):
        _log_ticks(axis, low, high, dense=True)
    error_N = np.abs(seen.value_N / seen.measured_N - 1) * 100
    inside = ((seen.low_N <= seen.measured_N) & (seen.measured_N <= seen.high_N)).mean()
    how = "each point predicted from the others" if seen.left_out else "points that were fitted"
    remark = (
        f"median error {np.median(error_N):.1f} %\n{100 * inside:.0f} % inside 90 % bars\ndashed:"
        " 10 %"
    )
    axes.text(0.04, 0.96, remark, transform=axes.transAxes, va="top", fontsize=9)
    _clean(axes, f"Parity: {how}")


def _residuals(axes: Any, seen: _Seen, x_N: np.ndarray, name: str, logged: bool) -> None:
    """Draw relative errors against one group."""
    away_N = (seen.value_N / seen.measured_N - 1) * 100
    bars = np.array([seen.value_N - seen.low_N, seen.high_N - seen.value_N]) / seen.measured_N * 100
    axes.axhspan(-100 * BAND, 100 * BAND, color=FAINT, alpha=0.18, linewidth=0, zorder=0)
    axes.axhline(0, color="black", linewidth=1.0, zorder=1)
    axes.errorbar(
        x_N,
        away_N,
        bars,
        fmt="o",
        color=POINT,
        markersize=4.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        elinewidth=0.9,
        ecolor="#7FB2D6",
        zorder=3,
    )
    axes.set_xlabel(LABELS.get(name, printable(name)), parse_math=False)
    if logged and (x_N > 0).all():
        low, high = x_N.min() / 1.15, x_N.max() * 1.15
        axes.set(xscale="log", xlim=(low, high))
        values = np.unique(x_N)
        _log_ticks(axes.xaxis, low, high, only=values if len(values) <= FEW_VALUES else None)
    _clean(axes, "")


def _forest(axes: Any, tangent: Tangent) -> None:
    """Draw exponents and logarithms of the factors with their intervals, coloured by where they
    are from.
    """
    shown = [n for n in tangent.numbers if n.kind != "level"]
    reaches = []
    for place, n in enumerate(shown):
        numbers = (n.low, n.value, n.high, n.prior_value)
        low, value, high, before = (math.log(v) if n.kind == "factor" else v for v in numbers)
        wide = 1.645 * n.prior_std
        reaches += [low, high, max(before - wide, -1.2), min(before + wide, 1.2)]
        axes.plot(
            [before - wide, before + wide],
            [place, place],
            color="#E3E7EB",
            linewidth=9,
            solid_capstyle="butt",
            zorder=1,
        )
        axes.plot(
            [low, high],
            [place, place],
            color=COLOURS[n.source],
            linewidth=2.2,
            solid_capstyle="butt",
            zorder=3,
        )
        axes.plot(
            [value],
            [place],
            "o",
            color=COLOURS[n.source],
            markersize=6,
            markeredgecolor="white",
            zorder=4,
        )
        digits = f"{n.value:.2f} [{n.low:.2f}, {n.high:.2f}]"
        axes.text(
            1.02, place, digits, transform=axes.get_yaxis_transform(), va="center", fontsize=9
        )
    names = [f"ln {n.name}" if n.kind == "factor" else LABELS.get(n.group, n.name) for n in shown]
    axes.set_yticks(range(len(shown)), names, parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    low, high = min([*reaches, 0.0]), max([*reaches, 0.5])
    axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    axes.axvline(0, color="black", linewidth=0.8, zorder=2)
    axes.set_xlabel("exponent, or ln of the factor; f(angle) is against the centre")
    used = [source for source in COLOURS if source in {n.source for n in shown}]
    handles = [
        axes.plot([], [], "o-", color=COLOURS[s], linewidth=2.2, label=f"from the {s}")[0]
        for s in used
    ]
    handles += axes.plot([], [], color="#E3E7EB", linewidth=9, label="before any point")
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    _clean(axes, "Exponents at the centre, 90 % intervals")
