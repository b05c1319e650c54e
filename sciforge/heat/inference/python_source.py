"""A fitted law as Python source that needs nothing but the standard library.

Published laws are written by tracing their torch formulas, so there is one formula of each; the
corrections follow from the posterior's mean, which is linear in the measured points (a Gaussian
process's).

Legend of shape letters: N points, F features, K laws, C components, D coordinates.
"""

import keyword
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from sciforge.errors import ConfigError, printable
from sciforge.heat.correlations.groups import GROUPS
from sciforge.heat.correlations.library import get_correlation
from sciforge.heat.data.codec import CHANNEL_FEATURES
from sciforge.heat.data.reference_basis import CHANNEL_BASIS
from sciforge.heat.inference.fitted_law import Fitted, FittedLaw
from sciforge.heat.inference.tracing import quoted, written
from sciforge.heat.model.nusselt_net import POWER

TAKEN = {"math", "float", "nusselt"}  # names that a parameter would hide


@dataclass(frozen=True)
class Mean:
    """The posterior's mean log Nu, spelt out.

    log Nu(x) = sum_k share_k log Nu_k(x) + phi(x) . (shared + sum_p near(x, p) own_p) + sum_n
    near(x, n) unit_n.

    Args:
        share_K: of each law.
        shared_F: corrections that all plates share.
        plates: coordinates of each measured plate and its own corrections [F], of the rig of the
            points.
        units: coordinates of each measured point and the weight of its radial unit.
        length_D: distances over which both fade.
        plate_D: which coordinates tell plates apart.
    """

    share_K: Tensor
    shared_F: Tensor
    plates: dict[tuple[float, ...], Tensor]
    units: tuple[tuple[tuple[float, ...], float], ...]
    length_D: Tensor
    plate_D: Tensor

    @classmethod
    def of(cls, view: FittedLaw) -> "Mean":
        """Return the mean of a fitted law; of several rigs that of a rig never seen."""
        mean, moved_KF = view.posterior.collapsed(), view.moved_KF
        prior, places = mean.prior, mean.coordinate_ND
        if view.descended:
            shared_F = mean.law_K @ view.net.delta_KF.double()
            return cls(mean.law_K, shared_F, {}, (), prior.length_D, prior.plate_D)
        shared_F = (
            mean.correction_F if moved_KF is None else mean.correction_F + mean.law_K @ moved_KF
        )
        plates: dict[tuple[float, ...], Tensor] = {}
        if len(view.rigs) == 1:
            for place, own_F in zip(places[:, prior.plate_D].tolist(), mean.plate_NF, strict=True):
                plates[tuple(place)] = plates.get(tuple(place), torch.zeros_like(own_F)) + own_F
        pairs = zip(places.tolist(), mean.unit_N.tolist(), strict=True)
        units = tuple((tuple(place), unit) for place, unit in pairs if unit)
        return cls(mean.law_K, shared_F, plates, units, prior.length_D, prior.plate_D)


def to_python(law: Fitted | FittedLaw) -> str:
    """Return the source of `nusselt(Re, Pr, ...)`, which gives the fitted law's median Nusselt
    number, with `math` alone.

    Raises:
        ConfigError: a published law has an operation that cannot be written.
    """
    view = FittedLaw.of(law)
    mean = Mean.of(view)
    names = parameters(view.columns)
    parts = [_head(view), _HELPERS]
    used = [
        (name, float(share))
        for name, share in zip(view.net.laws, mean.share_K, strict=True)
        if share > 0
    ]
    calls = []
    for name, share in used:
        if name == POWER:
            continue
        function = f"_{re.sub('[^0-9a-z]', '_', name)}"
        parts.append(written(function, get_correlation(name)))
        calls.append(f"    total += {share!r} * _log(max({function}({', '.join(names)}), 1e-300))")
    parts += [_numbers(view, mean), _body(view, mean, names, calls), _entry(view, names)]
    return "\n\n\n".join(parts)


def parameters(columns: tuple[str, ...]) -> list[str]:
    """Return a Python name for each column; what is no plain name of its own becomes x1, x2 ...

    >>> parameters(("Re", "class", 'a"b', "math", "x_1"))
    ['Re', 'x2', 'x3', 'x4', 'x_1']
    """
    found: list[str] = []
    for place, name in enumerate(columns, 1):
        good = (
            re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name)
            and not keyword.iskeyword(name)
            and name not in TAKEN
        )
        found.append(name if good else f"x{place}")
    if len(set(found)) < len(found):  # a column is called x2 and another became x2
        return [f"x{place}" for place in range(1, len(columns) + 1)]
    return found


# --- the text around ------------------------------------------------------------------------------

_HELPERS = '''
def _log(value):
    if value > 0:
        return math.log(value)
    return -math.inf if value == 0 else math.nan


def _root(value):
    return math.nan if value < 0 else math.sqrt(value)


def _power(base, exponent):
    if base < 0 and exponent != math.floor(exponent):
        return math.nan
    if base == 0 and exponent < 0:
        return math.inf
    try:
        return base**exponent
    except OverflowError:
        return math.inf


def _over(top, below):
    if below != 0:
        return top / below
    return math.copysign(math.inf, top) * math.copysign(1.0, below) if top else math.nan


def _near(here, there, lengths):
    """Matern-3/2 correlation of two places."""
    away = 1e-12
    for a, b, length in zip(here, there, lengths):
        away += (a / length - b / length) ** 2
    away = math.sqrt(3.0 * away)
    return (1.0 + away) * math.exp(-away)
'''.strip()


def _head(view: FittedLaw) -> str:
    """Return the module's docstring: where the law is from and where it was measured."""
    import sciforge

    count = len(view.x_NG)
    lines = [
        (
            f"The Nusselt number of a law fitted by sciforge {sciforge.__version__} to {count}"
            " measured points."
        ),
        "",
    ]
    if view.net.laws != (POWER,):
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in view.laws.items())
        lines += [
            f"Published laws and their shares: {shares}",
            f"Prior: {printable(view.prior_name) or 'none'}",
        ]
        lines.append(f"Basis: {CHANNEL_BASIS}")
    else:
        lines.append(
            "A power law without published laws; basis: that of the measured Nusselt numbers"
        )
    if count:
        spans = zip(
            view.columns, view.x_NG.amin(0).tolist(), view.x_NG.amax(0).tolist(), strict=True
        )
        lines += ["Measured (elsewhere it is extrapolated):"]
        lines += [f"    {printable(name)} {low:.6g} to {high:.6g}" for name, low, high in spans]
    lines.append(f"Standard deviation of a reading: {100 * view.noise:.1f} %")
    if len(view.rigs) > 1:
        lines.append(f"Of {len(view.rigs)} rigs; these are the numbers of a rig never seen")
    return f'"""{quoted(lines)}\n"""\n\nimport math'


def _numbers(view: FittedLaw, mean: Mean) -> str:
    """Return the constants: corrections, plates and radial units."""
    changed = [
        place
        for place in range(len(mean.shared_F))
        if any(float(own[place]) for own in mean.plates.values())
    ]
    names = ", ".join(printable(name) for name in view.codec.features)
    lines = [f"# corrections of: {names}", f"_SHARED = {mean.shared_F.tolist()!r}"]
    lines.append(f"_LENGTHS = {mean.length_D.tolist()!r}")
    lines.append(
        f"_PLATE = {[place for place, yes in enumerate(mean.plate_D.tolist()) if yes]!r}  #"
        " coordinates of a plate"
    )
    lines.append("# each measured plate's place, and its own corrections of the features in _OWN")
    lines.append(f"_OWN = {changed!r}")
    rows = [
        f"    ({list(place)!r}, {[float(own[f]) for f in changed]!r}),"
        for place, own in mean.plates.items()
    ]
    lines += ["_PLATES = [", *(rows if changed else []), "]"]
    lines.append("# each measured point's place, and the weight of its radial unit")
    lines += [
        "_UNITS = [",
        *(f"    ({list(place)!r}, {unit!r})," for place, unit in mean.units),
        "]",
    ]
    return "\n".join(lines)


def _body(view: FittedLaw, mean: Mean, names: list[str], calls: list[str]) -> str:
    """Return the function of log Nu."""
    lines = [
        f"def _log_nusselt({', '.join(names)}):",
        *_features(view, names),
        "    total = 0.0",
        *calls,
    ]
    lines += [
        "    corrections = list(_SHARED)",
        "    plate = [places[i] for i in _PLATE]",
        "    for there, own in _PLATES:",
        "        near = _near(plate, there, [_LENGTHS[i] for i in _PLATE])",
        "        for i, value in zip(_OWN, own):",
        "            corrections[i] += near * value",
        "    total += sum(a * b for a, b in zip(features, corrections))",
        "    return total + sum(unit * _near(places, there, _LENGTHS) for there, unit in _UNITS)",
    ]
    return "\n".join(lines)


def _features(view: FittedLaw, names: list[str]) -> list[str]:
    """Return the lines that make features and places of the groups (codec.py)."""
    if not view.codec.channel:
        logs = [
            f"{f'math.log({name})' if logged else name} - {centre!r}"
            for name, logged, centre in zip(
                names, view.codec.logged, view.codec.centres, strict=True
            )
        ]
        widths = view.codec.widths
        return [
            f"    logs = [{', '.join(logs)}]",
            f"    places = [a / b for a, b in zip(logs, {list(widths)!r})]",
            "    features = [1.0, *logs]",
        ]
    if view.codec.features != CHANNEL_FEATURES or len(CHANNEL_FEATURES) != 9:
        raise ConfigError("the features of this codec cannot be written; use the estimator itself")
    logs = [
        f"math.log({name} / {GROUPS[name].reference!r})"
        for name in names
        if name not in ("alpha_deg", "e_D")
    ]
    return [
        f"    re, pr, pitch, width = {', '.join(logs)}",
        f"    height = math.log(e_D / {GROUPS['e_D'].reference!r}) if e_D > 0 else 0.0",
        "    slant = 1 - alpha_deg / 90",
        "    places = [re, pr, height, pitch, slant, width]",
        "    features = [1.0, re, pr, height, pitch, width]",
        "    features += [9 * slant * (2 / 3 - slant), 4.5 * slant * (slant - 1 / 3), slant * re]",
    ]


def _entry(view: FittedLaw, names: list[str]) -> str:
    """Return the function that is called: it checks the groups, which the others trust."""
    given, checks, said = [], [], []
    low_G, high_G = (
        (view.x_NG.amin(0).tolist(), view.x_NG.amax(0).tolist()) if len(view.x_NG) else ([], [])
    )
    for place, (name, column) in enumerate(zip(names, view.columns, strict=True)):
        group = GROUPS.get(column)
        default = group.absent if group and view.codec.channel else None
        if column == "e_D" and view.codec.channel and low_G:
            # the one height that was measured, if it is one: a forgotten height must not mean a
            # smooth wall
            default = low_G[place] if low_G[place] == high_G[place] else None
        given.append(name if default is None else f"{name}={default!r}")
        said.append(f"    {name}: {printable(column) if group is None else group.meaning}")
        if group is not None and view.codec.channel:
            least = f"{group.low!r} {'<' if group.open_low else '<='} {name} <= {group.high!r}"
            checks.append((least, f"{name} must lie in {group.low:g} to {group.high:g}"))
        elif view.codec.logged[place]:
            checks.append((f"0 < {name} < math.inf", f"{name} must be above 0"))
    lines = [f"def nusselt({', '.join(given)}):"]
    summary = ["Return the median Nusselt number; NaN where a law has no value.", "", *said]
    lines.append(f'    """{quoted(summary)}\n    """')
    for check, what in checks:
        lines += [f"    if not {check}:", f'        raise ValueError("{what}")']
    return "\n".join([*lines, f"    return math.exp(_log_nusselt({', '.join(names)}))"]) + "\n"
