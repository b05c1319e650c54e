"""A fitted law as an engineer writes it: level, exponents and factors of the angle, each with its
interval and where it is from.

It is the tangent of the law at the centre of the measured points: published laws are no power laws,
so away from there the exponents change. The residual, which predictions add, is left out.

Legend of shape letters: N points, G groups, F features, K laws, C components.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from sciforge.core.files.tables import Table
from sciforge.errors import ConfigError, printable
from sciforge.heat.correlations.groups import GROUPS
from sciforge.heat.data.reference_basis import CHANNEL_BASIS
from sciforge.heat.inference.fitted_law import Fitted, FittedLaw
from sciforge.heat.model.mixture import moments, quantile
from sciforge.heat.model.nusselt_net import POWER

if TYPE_CHECKING:
    import pandas as pd

TAILS = (0.05, 0.95)
LEARNT, UNLEARNT = (
    0.5,
    0.8,
)  # posterior / prior standard deviation below which the data speak, above which the prior does
ANGLES = (90.0, 60.0, 30.0)
RIBS = ("e_D", "P_e", "alpha_deg")  # mean nothing on a smooth wall

Kind = Literal["level", "exponent", "rate", "factor"]
Source = Literal["data", "data and prior", "prior"]


@dataclass(frozen=True)
class Exponent:
    """One number of the formula, with its 90 % interval over components, between laws too.

    Args:
        group: whose it is; "Nu" for the level at the centre.
        kind: `exponent`, `level`, the `rate` d log Nu / d x of a column that may be negative, or
            the `factor` at an angle.
        value, low, high: the number.
        std: standard deviation (of the logarithm, of levels and factors).
        prior_value, prior_std: what they were before any point.
        varied: whether the measured points vary in this group.
        angle: degrees, of a factor.
    """

    group: str
    kind: Kind
    value: float
    low: float
    high: float
    std: float
    prior_value: float
    prior_std: float
    varied: bool
    angle: float | None = None

    @property
    def ratio(self) -> float:
        """Posterior over prior standard deviation: 0 is all from the data, 1 all from the prior."""
        return self.std / self.prior_std if self.prior_std > 0 else 1.0

    @property
    def source(self) -> Source:
        """Where the number is from; a group that never varied has nothing from the data but
        which law they favour.
        """
        if not self.varied or self.ratio > UNLEARNT:
            return "prior"
        return "data" if self.ratio <= LEARNT else "data and prior"

    @property
    def name(self) -> str:
        """Return what a table or picture calls it.

        >>> Exponent("alpha_deg", "factor", 1.2, 1.1, 1.3, 0.05, 1.0, 0.4, True, 60.0).name
        'f(60)'
        """
        return f"f({self.angle:g})" if self.angle is not None else printable(self.group)


@dataclass(frozen=True)
class Tangent:
    """The numbers of the formula.

    Args:
        numbers: the level at the centre first, then exponents, then factors of angles.
        centre: value of each group there.
        ribs: whether there are any; without, groups of ribs are left out.
    """

    numbers: tuple[Exponent, ...]
    centre: dict[str, float]

    def of(self, kind: Kind) -> list[Exponent]:
        """Return the numbers of one kind."""
        return [number for number in self.numbers if number.kind == kind]

    def to_pandas(self) -> "pd.DataFrame":
        """Return a row for each number: group, kind, value, lower, upper, std_over_prior and
        source.
        """
        import pandas as pd

        rows = [
            {
                "group": n.name,
                "kind": n.kind,
                "value": n.value,
                "lower": n.low,
                "upper": n.high,
                "std_over_prior": n.ratio,
                "source": n.source,
            }
            for n in self.numbers
        ]
        return pd.DataFrame(rows)

    def table(self) -> Table:
        """Return the numbers as a table."""
        rows = []
        for n in self.numbers:
            digits = ".4g" if n.kind in ("level", "rate") else ".3f"
            cells = (
                f"{n.value:{digits}}",
                f"{n.low:{digits}} to {n.high:{digits}}",
                f"{n.ratio:.2f}",
                n.source,
            )
            rows.append((n.name, n.kind, *cells))
        note = "std / prior: 0 is known from the data alone, 1 from the prior alone"
        return Table(
            ("group", "kind", "value", "90 % interval", "std / prior", "from the"),
            tuple(rows),
            note,
        )


def exponents(law: Fitted | FittedLaw) -> Tangent:
    """Return level, exponents and angle factors of a fitted law at the centre of its points.

    Raises:
        ConfigError: no law that counts has a value at the centre.
    """
    view = FittedLaw.of(law)
    at_G = view.centre()
    ribbed = not view.codec.channel or bool(at_G[view.columns.index("e_D")] > 0)
    places = [
        g
        for g, name in enumerate(view.columns)
        if name != "alpha_deg" and (ribbed or name not in RIBS)
    ]
    if not view.codec.channel:
        places = list(range(len(view.columns)))
    # a group that never varied is in the level; nothing published gives it an exponent
    if view.net.laws == (POWER,):
        places = [g for g in places if view.varied(g)]
    measure = _Measure(view, at_G)
    slope_KG, slope_FG = _slopes(view, at_G)
    base_K, feature_F = _at(view, at_G)
    level = measure(base_K, feature_F)
    numbers = [Exponent("Nu", "level", *_exponential(level), bool(len(view.x_NG)))]
    for g in places:
        kind: Kind = "exponent" if view.logged(g) else "rate"
        numbers.append(
            Exponent(
                view.columns[g], kind, *measure(slope_KG[:, g], slope_FG[:, g]), view.varied(g)
            )
        )
    if view.codec.channel and ribbed:
        place = view.columns.index("alpha_deg")
        for angle in ANGLES:
            there_G = at_G.clone()
            there_G[place] = angle
            if abs(angle - float(at_G[place])) > 0.5:
                there_K, there_F = _at(view, there_G)
                found = measure(there_K - base_K, there_F - feature_F)
                numbers.append(
                    Exponent("alpha_deg", "factor", *_exponential(found), view.varied(place), angle)
                )
    kept = {
        name: float(v)
        for g, (name, v) in enumerate(zip(view.columns, at_G, strict=True))
        if ribbed or name not in RIBS
    }
    return Tangent(tuple(numbers), kept)


class _Measure:
    """Gives mean, ends of the interval and std, then prior mean and std, of what is linear in
    the corrections.
    """

    def __init__(self, view: FittedLaw, at_G: Tensor) -> None:
        self.components = view.posterior.components
        self.mean_CF, self.covariance_CFF = view.corrections(at_G)
        prior = view.posterior.prior
        usable_K = _at(view, at_G)[0].isfinite()
        if not bool(usable_K[self.components.law_C].all()):
            raise ConfigError(
                "a law that counts has no value at the centre of the points; choose others with"
                " `laws`"
            )
        self.law_K = torch.where(usable_K, prior.law_K, -torch.inf).softmax(0)
        self.prior = prior

    def __call__(self, fixed_K: Tensor, linear_F: Tensor) -> tuple[float, ...]:
        c, prior = self.components, self.prior
        mean_C = fixed_K[c.law_C] + self.mean_CF @ linear_F
        variance_C = torch.einsum("f,cfe,e->c", linear_F, self.covariance_CFF, linear_F).clamp(
            min=1e-18
        )
        mean, std = moments(c.weight_C, mean_C[:, None], variance_C[:, None])
        low, high = (
            quantile(c.weight_C, mean_C[:, None], variance_C[:, None], share) for share in TAILS
        )
        usable_K = self.law_K > 0
        before_K = torch.where(usable_K, fixed_K, 0.0) + prior.centre_KF @ linear_F
        before_LK = prior.scale_L[:, None] ** 2 * (prior.spread_KF**2 @ linear_F**2)
        before, wide = moments(self.law_K, before_K[:, None], before_LK.mean(0)[:, None])
        return float(mean), float(low), float(high), float(std), float(before), float(wide)


def _exponential(found: tuple[float, ...]) -> tuple[float, ...]:
    """Return the numbers of `_Measure` as those of the exponential; stds stay those of the
    logarithm.
    """
    mean, low, high, std, before, wide = found
    return math.exp(mean), math.exp(low), math.exp(high), std, math.exp(before), wide


def _at(view: FittedLaw, at_G: Tensor) -> tuple[Tensor, Tensor]:
    """Return log Nu by each law [K] and the features [F] at a point."""
    return view.net.bases(at_G), view.codec.featured(at_G)


def _slopes(view: FittedLaw, at_G: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slopes of log Nu by each law [K, G] and of the features [F, G] in log group, or
    in the group itself.
    """
    logged_G = torch.tensor([view.logged(g) and bool(at_G[g] > 0) for g in range(len(at_G))])

    def both(z_G: Tensor) -> Tensor:
        return torch.cat(
            _at(view, torch.where(logged_G, torch.where(logged_G, z_G, 0.0).exp(), z_G))
        )

    z_G = torch.where(logged_G, torch.where(logged_G, at_G, 1.0).log(), at_G)
    slope = torch.autograd.functional.jacobian(both, z_G)
    return slope[: len(view.net.laws)], slope[len(view.net.laws) :]


# --- in words -------------------------------------------------------------------------------------

WRITTEN = {"e_D": "(e/D)", "P_e": "(P/e)", "W_H": "(W/H)"}


def formula(law: Fitted | FittedLaw) -> str:
    """Return the formula in plain text: the power law, its intervals, and what it is; raises
    ConfigError as `exponents`.
    """
    view = FittedLaw.of(law)
    tangent = exponents(view)
    level, powers, rates = _rounded(tangent)
    terms = [f"{level:.3g}"]
    terms += [f"{WRITTEN.get(name, printable(name))}^{value:.2f}" for name, value in powers.items()]
    terms += [f"exp({rate:.3g} {printable(name)})" for name, rate in rates.items()]
    factors = tangent.of("factor")
    angles = ""
    if factors:
        terms.append("f(alpha)")
        said = [
            f"f({tangent.centre['alpha_deg']:g}) = 1",
            *(f"{n.name} = {n.value:.2f}" for n in factors),
        ]
        angles = ", " + ", ".join(said)
    spans = [f"{_written(n)} {n.low:.3g} to {n.high:.3g} ({n.source})" for n in tangent.numbers]
    return "\n".join(
        [
            f"Nu = {' '.join(terms)}{angles}",
            f"90 % intervals: {'; '.join(spans)}",
            *_what(view, tangent),
        ]
    )


def _written(number: Exponent) -> str:
    if number.kind == "level":
        return "Nu at the centre"
    return (
        number.name
        if number.kind == "factor"
        else WRITTEN.get(number.group, printable(number.group)).strip("()")
    )


def _rounded(tangent: Tangent) -> tuple[float, dict[str, float], dict[str, float]]:
    """Return level, exponents rounded to two digits and rates; the level is such that the
    formula is exact at the centre.
    """
    powers = {n.group: round(n.value, 2) for n in tangent.of("exponent")}
    rates = {n.group: float(f"{n.value:.3g}") for n in tangent.of("rate")}
    log_level = math.log(tangent.of("level")[0].value)
    log_level -= sum(value * math.log(tangent.centre[name]) for name, value in powers.items())
    log_level -= sum(value * tangent.centre[name] for name, value in rates.items())
    return math.exp(log_level), powers, rates


def _what(view: FittedLaw, tangent: Tangent) -> list[str]:
    """Return the lines that say what the formula is: of which points, laws and basis, and what
    it leaves out.
    """
    at = ", ".join(
        f"{WRITTEN.get(n, printable(n)).strip('()')} {v:.3g}" for n, v in tangent.centre.items()
    )
    count = len(view.x_NG)
    of = (
        f"{count} measured point{'s' if count > 1 else ''}"
        if count
        else "no measured point (the prior alone)"
    )
    believed = (
        "of the evidence asks for a residual" if count else "of the prior's weight is on a residual"
    )
    rest = (
        f"{100 * view.residual_share:.0f} % {believed}, which predictions add and this formula"
        " leaves out"
    )
    lines = [f"tangent of the fitted law at {at}; from {of}; {rest}"]
    if view.net.laws != (POWER,):
        shares = ", ".join(
            f"{name} {100 * share:.0f} %" for name, share in view.laws.items() if share >= 0.005
        )
        prior = f"; prior {printable(view.prior_name)}" if view.prior_name else ""
        lines.append(f"published laws behind it: {shares}{prior}; basis: {CHANNEL_BASIS}")
    return lines


_ESCAPED = {c: "\\" + c for c in "#$%&_{}"}
_ESCAPED |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def latex(law: Fitted | FittedLaw) -> str:
    """Return the formula as a LaTeX equation, what it is in comments above it; raises
    ConfigError as `exponents`.
    """
    view = FittedLaw.of(law)
    tangent = exponents(view)
    level, powers, rates = _rounded(tangent)
    mantissa, _, power = f"{level:.3g}".partition("e")
    terms = [mantissa + (rf"\times 10^{{{int(power)}}}" if power else "")]
    for name, value in powers.items():
        symbol = _symbol(name)
        terms.append(
            rf"\left({symbol}\right)^{{{value:.2f}}}"
            if "/" in symbol
            else rf"{symbol}^{{{value:.2f}}}"
        )
    terms += [rf"\exp\left({rate:.3g}\,{_symbol(name)}\right)" for name, rate in rates.items()]
    factors = tangent.of("factor")
    tail = ""
    if factors:
        terms.append(r"f(\alpha)")
        said = [(tangent.centre["alpha_deg"], 1.0), *((n.angle, n.value) for n in factors)]
        tail = r", \quad " + r",\; ".join(
            rf"f({angle:g}^\circ) = {value:.2f}" for angle, value in said
        )
    spans = "; ".join(
        f"{_written(n)} {n.low:.3g} to {n.high:.3g} ({n.source})" for n in tangent.numbers
    )
    comments = [f"% {line}" for line in (f"90 % intervals: {spans}", *_what(view, tangent))]
    body = r"  \mathrm{Nu} = " + r"\,".join(terms) + tail
    return "\n".join([*comments, r"\begin{equation}", body, r"\end{equation}"])


def _symbol(name: str) -> str:
    r"""Return a group's symbol in LaTeX; other names are escaped.

    >>> _symbol("W_H"), _symbol("x_1")
    ('W/H', '\\mathrm{x\\_1}')
    """
    if name in GROUPS:
        return GROUPS[name].symbol
    return rf"\mathrm{{{''.join(_ESCAPED.get(c, c) for c in printable(name))}}}"
