"""Laws of ribbed walls: tubes (Webb, Ravigururajan & Bergles) and channels with two ribbed walls
(Han and others).

Laws of channels give the roughness functions R and G of Han's law of the wall
(`sciforge.heat.correlations.dimensionless`): the Fanning factor is that of four ribbed walls, the
Nusselt number that of the ribbed wall on its projected area, with the hydraulic diameter of the
smooth channel and bulk properties. Their G carries no Prandtl number: they hold for gases near Pr
0.7. A ribbed law at e/D 0 is NaN: it does not become the smooth law.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciforge.heat.correlations.correlation import Correlation
from sciforge.heat.correlations.dimensionless import (
    fanning_of_roughness,
    roughness_reynolds,
    stanton_of_roughness,
)
from sciforge.heat.correlations.groups import Points
from sciforge.heat.correlations.smooth import petukhov_fanning

Roughness = Callable[[Points, Tensor], Tensor]  # of the points and of e+

TRANSVERSE = 90 * (1 - 1e-6)  # degrees; laws that say "at 90 degrees" mean it in float32 too
SQUARE = 1 + 1e-6
# of a law whose R depends on e+; each shrinks the error more than 15 times, so float64 is exhausted
PASSES = 12


@dataclass(frozen=True)
class WallLaw:
    """The roughness functions of a channel with two opposite ribbed walls.

    Args:
        R: friction roughness function of (points, e+).
        G: heat transfer roughness function of the ribbed wall.
        G_average: of the four walls; None where the source gives none.
        passes: how often R and e+ are found from one another; 1 where R ignores e+.
    """

    R: Roughness
    G: Roughness
    G_average: Roughness | None = None
    passes: int = 1

    def roughness(self, p: Points) -> tuple[Tensor, Tensor, Tensor]:
        """Return e+, R and the four-sided Fanning factor, each [N]."""
        e_D = _ribs(p)
        e_plus = torch.full_like(p["Re"], 300.0)
        for _ in range(self.passes):
            R = self.R(p, e_plus)
            fanning = fanning_of_roughness(R, e_D, p["W_H"])
            e_plus = roughness_reynolds(e_D, p["Re"], fanning)
        return e_plus, R, fanning

    def fanning(self, p: Points) -> Tensor:
        """Return the Fanning factor as if all four walls were ribbed [N]."""
        return self.roughness(p)[2]

    def nusselt(self, p: Points) -> Tensor:
        """Return the Nusselt number of the ribbed wall, projected area [N]."""
        return self._nusselt(p, self.G)

    def average(self, p: Points) -> Tensor:
        """Return the Nusselt number averaged over two ribbed and two smooth walls [N]."""
        return self._nusselt(p, self.G_average)

    def _nusselt(self, p: Points, function: Roughness) -> Tensor:
        e_plus, R, fanning = self.roughness(p)
        return stanton_of_roughness(R, function(p, e_plus), fanning) * p["Re"] * p["Pr"]


def _ribs(p: Points) -> Tensor:
    """Return e/D, NaN where there are no ribs."""
    return p["e_D"].masked_fill(p["e_D"] <= 0, float("nan"))


def _e_plus_above(law: WallLaw, least: float) -> Callable[[Points], Tensor]:
    return lambda p: law.roughness(p)[0] >= least


# --- tubes ---


def _webb_root(p: Points) -> Tensor:
    """Return sqrt(f/2) of a tube with transverse ribs."""
    return 1 / (-2.5 * (2 * _ribs(p)).log() - 3.75 + 0.95 * p["P_e"] ** 0.53)


def _webb_e_plus(p: Points) -> Tensor:
    return p["e_D"] * p["Re"] * _webb_root(p)


def _webb_fanning(p: Points) -> Tensor:
    return 2 * _webb_root(p) ** 2


def _webb_nusselt(p: Points) -> Tensor:
    root = _webb_root(p)
    G = 4.5 * _webb_e_plus(p) ** 0.28 * p["Pr"] ** 0.57
    return root**2 / (1 + root * (G - 0.95 * p["P_e"] ** 0.53)) * p["Re"] * p["Pr"]


def _bergles_nusselt(p: Points) -> Tensor:
    e_d, p_d, angle = _ribs(p), p["P_e"] * p["e_D"], p["alpha_deg"] / 90
    # Sources print Pr^0.024 and Pr^-0.024; for air the two differ by 1.7 %.
    ratio = 2.64 * p["Re"] ** 0.036 * e_d**0.212 * p_d**-0.21 * angle**0.29 * p["Pr"] ** 0.024
    half = petukhov_fanning(p["Re"]) / 2
    smooth = half * p["Re"] * p["Pr"] / (1 + 12.7 * half**0.5 * (p["Pr"] ** (2 / 3) - 1))
    return smooth * (1 + ratio**7) ** (1 / 7)


def _bergles_fanning(p: Points) -> Tensor:
    e_d, p_d, angle, Re = _ribs(p), p["P_e"] * p["e_D"], p["alpha_deg"] / 90, p["Re"]
    # Ribs of square section: two corners meet the flow and the contact angle is 90 degrees, where
    # (1 + 2.94/n) sin(beta) and 1 + 2.94 sin(beta)/n, both in print, agree.
    corners = 1 + 2.94 / 2
    powers = Re ** (0.67 - 0.06 * p_d - 0.49 * angle) * e_d ** (1.37 - 0.157 * p_d)
    powers = (
        powers * p_d ** (-1.66e-6 * Re - 0.33 * angle) * angle ** (4.59 + 4.11e-6 * Re - 0.15 * p_d)
    )
    return petukhov_fanning(Re) * (1 + (29.1 * powers * corners) ** (15 / 16)) ** (16 / 15)


def _bergles_pitch(p: Points) -> Tensor:
    pitch = p["P_e"] * p["e_D"]
    return (pitch >= 0.1) & (pitch <= 7)


# --- channels: the laws of Han's laboratory ---


def _han_park_R(p: Points, e_plus: Tensor) -> Tensor:
    angle, slanted = p["alpha_deg"] / 90, p["alpha_deg"] < TRANSVERSE
    width = (p["W_H"].clamp(max=2) ** 0.35).where(slanted, 1.0)
    return (12.31 - 27.07 * angle + 17.86 * angle**2) * (p["P_e"] / 10) ** 0.35 * width


def _han_park_G(p: Points, e_plus: Tensor) -> Tensor:
    square = (p["alpha_deg"] / 90) ** 0.35 * (p["P_e"] / 10) ** 0.1
    return 2.24 * p["W_H"] ** 0.1 * square.where(p["W_H"] <= SQUARE, 1.0) * e_plus**0.35


def _han_narrow_R(p: Points, e_plus: Tensor) -> Tensor:
    angle = p["alpha_deg"] / 90
    wide = 10.66 - 21.44 * angle + 15.50 * angle**2
    return wide.where(p["W_H"] >= 0.5, 8.799 - 14.77 * angle + 12.47 * angle**2)


def _han_narrow_G(p: Points, e_plus: Tensor) -> Tensor:
    level = torch.full_like(e_plus, 1.80).where(p["alpha_deg"] < TRANSVERSE, 2.24)
    narrow = p["W_H"] < 0.5
    level = (level * p["W_H"] ** -0.76).where(narrow, level)
    return level * e_plus ** (0.35 * (p["W_H"] ** 0.44).where(narrow, 1.0))


def _power(factor: float, exponent: float) -> Roughness:
    return lambda p, e_plus: factor * e_plus**exponent


def _of_pitch(factor: float) -> Roughness:
    return lambda p, e_plus: factor * (p["P_e"] / 10) ** 0.35


HAN_1988 = WallLaw(_of_pitch(3.2), _power(3.7, 0.28), _power(4.5, 0.28))
HAN_PARK = WallLaw(_han_park_R, _han_park_G, lambda p, e_plus: 1.2 * _han_park_G(p, e_plus))
HAN_NARROW = WallLaw(_han_narrow_R, _han_narrow_G)
RALLABANDI = WallLaw(
    lambda p, e_plus: 1.13 * _ribs(p) ** -0.17 * p["P_e"] ** 0.38,
    lambda p, e_plus: 1.24 * _ribs(p) ** 0.014 * p["P_e"] ** -0.02 * e_plus**0.42,
)

# --- channels: tables of laws, each of one rig ---

# Lau, Kukreja & McMillin, Table 2: name, angle, P/e, ribs, then (a, b) of R, G and the four-wall G,
# each a (e+)^b. The paper
# counts the angle of a reversed V on from 90 degrees (120, 135); each of its ribs lies at 60 or 45
# degrees to the flow.
LAU = (
    ("90", 90.0, 10.0, "transverse", (3.674, -0.0033), (4.218, 0.257), (5.450, 0.250)),
    ("v45", 45.0, 10.0, "V", (1.605, 0.0015), (1.819, 0.355), (2.656, 0.335)),
    ("v60", 60.0, 10.0, "V", (1.232, 0.0454), (1.299, 0.399), (2.163, 0.360)),
    ("v60-p20", 60.0, 20.0, "V", (3.687, -0.0571), (1.685, 0.376), (2.719, 0.336)),
    ("v120", 60.0, 10.0, "reversed V", (1.537, -0.0228), (1.983, 0.352), (3.460, 0.315)),
    ("v120-p20", 60.0, 20.0, "reversed V", (3.617, -0.0734), (2.739, 0.324), (4.351, 0.291)),
    ("v135", 45.0, 10.0, "reversed V", (2.070, -0.0384), (1.992, 0.362), (3.685, 0.313)),
)
# Han, Zhang & Lee, Table 2: angle, ribs, R, then (a, b) of G and of the four-wall G.
HAN_ZHANG_LEE = (
    (90.0, "transverse", 3.18, (3.97, 0.28), (4.86, 0.28)),
    (60.0, "parallel", 2.05, (1.52, 0.41), (2.41, 0.36)),
    (60.0, "crossed", 3.18, (3.24, 0.32), (4.57, 0.28)),
    (60.0, "V", 1.72, (1.35, 0.42), (1.76, 0.40)),
    (60.0, "Lambda", 1.42, (1.59, 0.43), (2.12, 0.41)),
    (45.0, "parallel", 3.05, (2.07, 0.36), (3.01, 0.32)),
    (45.0, "crossed", 4.40, (2.11, 0.37), (2.43, 0.37)),
    (45.0, "V", 2.04, (1.36, 0.43), (1.93, 0.40)),
    (45.0, "Lambda", 1.70, (1.83, 0.41), (2.49, 0.38)),
)

# of tubes, the bore's
_DEVELOPED = "ribbed wall, projected area, smooth-channel diameter, developed, bulk properties"
_ENTRANCE = "ribbed wall, projected area, smooth-channel diameter, mean, bulk properties"
_GAS = (0.68, 0.75)  # "Pr about 0.7": air, and its combustion products
_RIG = (0.062, 0.063)  # e/D 1/16 of both rigs, which papers round either way
_ONE = (1.0, 1.0)
_TRANSVERSE = (90.0, 90.0)


def _channel(
    name: str, summary: str, law: WallLaw, box: dict, source: str, **more: Any
) -> Correlation:
    average = law.average if law.G_average else None
    more = {
        "basis": _DEVELOPED,
        "reliability": "read",
        "friction": law.fanning,
        "average": average,
        **more,
    }
    return Correlation(
        name, summary, "ribbed channel", law.nusselt, {"Pr": _GAS, **box}, source=source, **more
    )


def _lau(
    name: str, angle: float, pitch: float, ribs: str, R: tuple, G: tuple, average: tuple
) -> Correlation:
    law = WallLaw(_power(*R), _power(*G), _power(*average), PASSES)
    box = {
        "Re": (1e4, 6e4),
        "e_D": _RIG,
        "P_e": (pitch, pitch),
        "alpha_deg": (angle, angle),
        "W_H": _ONE,
    }
    summary = (
        f"R = {R[0]:g} (e+)^{R[1]:g}, G = {G[0]:g} (e+)^{G[1]:g}; {ribs}, {angle:g} degrees, P/e"
        f" {pitch:g}"
    )
    source = "Lau, Kukreja & McMillin, IJHMT 34 (1991) 1605, Table 2"
    says = "uncertainty of its measurements: Stanton 5.8 %, friction 10.9 %, Re 2.9 %"
    return _channel(
        f"lau-1990-{name}", summary, law, box, source, accuracy=0.058, accuracy_says=says, ribs=ribs
    )


def _han_zhang_lee(angle: float, ribs: str, R: float, G: tuple, average: tuple) -> Correlation:
    law = WallLaw(lambda p, e_plus: torch.full_like(e_plus, R), _power(*G), _power(*average))
    box = {
        "Re": (1.5e4, 9e4),
        "e_D": _RIG,
        "P_e": (10.0, 10.0),
        "alpha_deg": (angle, angle),
        "W_H": _ONE,
    }
    name = f"han-zhang-lee-1991-{angle:g}" + ("" if ribs == "transverse" else f"-{ribs.lower()}")
    summary = (
        f"R = {R:g}, G = {G[0]:g} (e+)^{G[1]:g}; {ribs}, {angle:g} degrees; mean over X/D 0 to 20"
    )
    source = "Han, Zhang & Lee, J. Heat Transfer 113 (1991) 590, Table 2"
    says = "uncertainty of its measurements: Nu 8 %, friction 8 %"
    return _channel(
        name,
        summary,
        law,
        box,
        source,
        basis=_ENTRANCE,
        accuracy=0.08,
        accuracy_says=says,
        ribs=ribs,
    )


RIBBED = (
    Correlation(
        "webb-1971",
        "transverse ribs in tubes: R = 0.95 (p/e)^0.53, G = 4.5 (e+)^0.28 Pr^0.57",
        "ribbed tube",
        _webb_nusselt,
        # The paper's air is Pr 0.71; that of later tables is 0.70 to 0.71.
        {
            "Re": (6e3, 1e5),
            "Pr": (0.7, 37.6),
            "e_D": (0.01, 0.04),
            "P_e": (10.0, 40.0),
            "alpha_deg": _TRANSVERSE,
        },
        _DEVELOPED,
        "Webb, Eckert & Goldstein, IJHMT 14 (1971) 601",
        "recalled",
        friction=_webb_fanning,
        ribs="transverse",
        conditions={"e+ > 35": lambda p: _webb_e_plus(p) > 35},
    ),
    Correlation(
        "ravigururajan-bergles-1996",
        "spiral ribs in tubes: Nu of Petukhov x (1 + ratio^7)^(1/7); square ribs",
        "ribbed tube",
        _bergles_nusselt,
        {"Re": (5e3, 2.5e5), "Pr": (0.66, 37.6), "e_D": (0.01, 0.2), "alpha_deg": (27.0, 90.0)},
        _DEVELOPED,
        "Ravigururajan & Bergles, Exp. Therm. Fluid Sci. 13 (1996) 55",
        "read",
        friction=_bergles_fanning,
        accuracy=0.2,
        accuracy_says="Nu: 69 % of the data within 20 %, 99 % within 50 %; friction: 77 % and 96 %",
        ribs="parallel",
        conditions={"p/d 0.1 to 7": _bergles_pitch},
    ),
    _channel(
        "han-1988",
        "R = 3.2 (P/e/10)^0.35, G = 3.7 (e+)^0.28; transverse",
        HAN_1988,
        {
            "Re": (8e3, 8e4),
            "e_D": (0.021, 0.078),
            "P_e": (10.0, 20.0),
            "alpha_deg": _TRANSVERSE,
            "W_H": (1.0, 4.0),
        },
        "Han, J. Heat Transfer 110 (1988) 321, with the data of Han, J. Heat Transfer 106"
        " (1984) 774",
        accuracy=0.08,
        accuracy_says="95 % of the data within 6 % in R and 8 % in G",
        ribs="transverse",
        conditions={"e+ >= 50": _e_plus_above(HAN_1988, 50.0)},
    ),
    _channel(
        # As published, it jumps: R by 27.5 % (W/H 2 and more) at 90 degrees, G by up to 47 % (at 30
        # degrees) as W/H leaves 1. No source smooths it.
        "han-park-1988",
        "R quadratic in the angle, G = 2.24 (W/H)^0.1 ... (e+)^0.35; jumps at 90 degrees and at"
        " W/H 1",
        HAN_PARK,
        {
            "Re": (1e4, 6e4),
            "e_D": (0.047, 0.078),
            "P_e": (10.0, 20.0),
            "alpha_deg": (30.0, 90.0),
            "W_H": (1.0, 4.0),
        },
        "Han & Park, IJHMT 31 (1988) 183, as in Han, Dutta & Ekkad 2012, Eq. 4.17 and 4.18",
        ribs="parallel",
    ),
    _channel(
        # G is printed. R is only drawn (Fig. 4.48a): these parabolas are those that the combaero
        # project fitted to the line.
        "han-1989-narrow",
        "G = C (e+)^n with steps at 90 degrees and W/H 1/2; R read from a drawn line",
        HAN_NARROW,
        {
            "Re": (1e4, 6e4),
            "e_D": (0.047, 0.078),
            "P_e": (10.0, 20.0),
            "alpha_deg": (30.0, 90.0),
            "W_H": (0.25, 1.0),
        },
        "Han, Ou, Park & Lei, IJHMT 32 (1989) 1619, as in Han, Dutta & Ekkad 2012, Fig. 4.48",
        reliability="recalled",
        ribs="parallel",
    ),
    _channel(
        "rallabandi-2009",
        "R = 1.13 (e/D)^-0.17 (p/e)^0.38, G = 1.24 (e/D)^0.014 (p/e)^-0.02 (e+)^0.42; high Re",
        RALLABANDI,
        {
            "Re": (3e4, 4e5),
            "e_D": (0.1, 0.18),
            "P_e": (5.0, 10.0),
            "alpha_deg": (45.0, 45.0),
            "W_H": _ONE,
        },
        "Rallabandi, Yang & Han, J. Heat Transfer 131 (2009) 071703, Eq. 17 and 18 (a textbook"
        " misprints 0.014 as 0.14)",
        ribs="parallel",
    ),
    *(_lau(*row) for row in LAU),
    *(_han_zhang_lee(*row) for row in HAN_ZHANG_LEE),
)
