"""Laws of smooth surfaces: the flat plate and the developed flow in a duct, and one law of each
without a jump.

Re is of the plate's length (or of the distance from its edge, where the Nusselt number is local) or
of the hydraulic diameter.
"""

from torch import Tensor

from sciforge.heat.correlations.correlation import Correlation, Formula
from sciforge.heat.correlations.groups import Points

ANY_PR = 1e6  # where a source sets no upper bound
RE_LAMINAR, RE_TURBULENT = 2300.0, 4000.0  # the ends of transition in a duct (Gnielinski 2013)
# developed laminar flow in a round tube: wall temperature or heat flux constant
NU_WALL, NU_FLUX = 3.66, 48 / 11


# --- the flat plate ---


def churchill_ozoe(Re: Tensor, Pr: Tensor) -> Tensor:
    """Return the mean Nusselt number of an isothermal plate in laminar flow, of any Pr (Churchill &
    Ozoe 1973).

    >>> round(churchill_ozoe(1e5, 0.7), 5)
    183.08601
    """
    return 0.6774 * Re**0.5 * Pr ** (1 / 3) / (1 + (0.0468 / Pr) ** (2 / 3)) ** 0.25


def schlichting(Re: Tensor, Pr: Tensor) -> Tensor:
    """Return the mean Nusselt number of a plate, turbulent from its edge (Petukhov & Popov;
    Schlichting; VDI Heat Atlas Gd).

    >>> round(schlichting(1e5, 0.7), 5)
    309.62005
    """
    return 0.037 * Re**0.8 * Pr / (1 + 2.443 * Re**-0.1 * (Pr ** (2 / 3) - 1))


def smooth_plate(Re: Tensor, Pr: Tensor) -> Tensor:
    """Return the mean Nusselt number of a plate, laminar and turbulent in one curve: the root of
    the sum of squares.

    It is for a stream with the disturbances of practice, and so lies above the laminar law well
    before Re 5e5.

    >>> round(smooth_plate(1e5, 0.7), 2) == round((186.44**2 + 309.62**2) ** 0.5, 2)
    True
    """
    return ((0.664 * Re**0.5 * Pr ** (1 / 3)) ** 2 + schlichting(Re, Pr) ** 2) ** 0.5


# --- the duct ---


def petukhov_fanning(Re: Tensor) -> Tensor:
    """Return the Fanning factor of turbulent flow in a smooth duct, a quarter of (0.79 ln Re -
    1.64)^-2 (Petukhov 1970).

    >>> import torch
    >>> round(4 * petukhov_fanning(torch.tensor(1e5, dtype=torch.float64)).item(), 6)
    0.017992
    """
    return (0.79 * Re.log() - 1.64) ** -2 / 4


def gnielinski(Re: Tensor, Pr: Tensor, fanning: Tensor) -> Tensor:
    """Return the Nusselt number (f/2)(Re - 1000) Pr / (1 + 12.7 sqrt(f/2) (Pr^(2/3) - 1)), Fanning
    f (Gnielinski 1976).

    >>> round(gnielinski(1e5, 1.2, 0.0185 / 4), 6)
    254.626827
    """
    return fanning / 2 * (Re - 1000) * Pr / (1 + 12.7 * (fanning / 2) ** 0.5 * (Pr ** (2 / 3) - 1))


def petukhov_kirillov_popov(Re: Tensor, Pr: Tensor, fanning: Tensor) -> Tensor:
    """Return the Nusselt number of Petukhov, Kirillov & Popov (1958, 1963), Fanning factor given.

    >>> round(petukhov_kirillov_popov(1e5, 1.2, 0.0185 / 4), 6)
    250.119351
    """
    below = (
        1.07 + 900 / Re - 0.63 / (1 + 10 * Pr) + 12.7 * (fanning / 2) ** 0.5 * (Pr ** (2 / 3) - 1)
    )
    return fanning / 2 * Re * Pr / below


def smooth_duct(Re: Tensor, Pr: Tensor, laminar: float = NU_WALL) -> Tensor:
    """Return the Nusselt number of developed flow of any Re: laminar, Gnielinski, and a C1 curve
    between Re 2300 and 4000.

    Gnielinski (2013) joins the two ends by a straight line in Re. This is the cubic with the values
    AND slopes of both ends, so that neither has a kink; near Re 2600 it lies below the line, by 20
    % for air and 38 % at Pr 10, where flow is intermittent and no law is surer than that. Turbulent
    values are taken at the end Re 4000, not at the local Re, which would suppress them twice (MOOSE
    issue 33357).

    >>> import torch
    >>> Re = torch.tensor([500.0, 2300.0, 3150.0, 4000.0], dtype=torch.float64)
    >>> [round(value, 2) for value in smooth_duct(Re, torch.full_like(Re, 0.7)).tolist()]
    [3.66, 3.66, 7.88, 13.49]
    """
    end = Re.new_tensor(RE_TURBULENT)
    turbulent = gnielinski(end, Pr, petukhov_fanning(end))
    slope = turbulent * _log_slope_at(end, Pr)
    width = RE_TURBULENT - RE_LAMINAR
    t = ((Re - RE_LAMINAR) / width).clamp(0, 1)
    between = (
        laminar + t * t * (3 - 2 * t) * (turbulent - laminar) + t * t * (t - 1) * width * slope
    )
    # Below the end the branch that is not chosen must have a finite gradient too: the formula
    # diverges at Re 8.
    beyond = Re.clamp(min=RE_TURBULENT)
    return gnielinski(beyond, Pr, petukhov_fanning(beyond)).where(Re > RE_TURBULENT, between)


def _log_slope_at(Re: Tensor, Pr: Tensor) -> Tensor:
    """Return d ln Nu / d Re of Gnielinski's formula with Petukhov's factor."""
    log_slope_of_fanning = -2 * 0.79 / (Re * (0.79 * Re.log() - 1.64))
    resistance = 12.7 * (petukhov_fanning(Re) / 2) ** 0.5 * (Pr ** (2 / 3) - 1)
    return log_slope_of_fanning * (1 - resistance / 2 / (1 + resistance)) + 1 / (Re - 1000)


def smooth_fanning(Re: Tensor) -> Tensor:
    """Return the Fanning factor of developed flow of any Re: 16/Re, Petukhov, and a C1 cubic
    between Re 2300 and 4000.

    >>> import torch
    >>> Re = torch.tensor([1000.0, 2300.0, 4000.0], dtype=torch.float64)
    >>> [round(value, 5) for value in smooth_fanning(Re).tolist()]
    [0.016, 0.00696, 0.01036]
    """
    start, end = Re.new_tensor(RE_LAMINAR), Re.new_tensor(RE_TURBULENT)
    width, low, high = end - start, 16 / start, petukhov_fanning(end)
    low_slope, high_slope = -low / start, -2 * 0.79 / (end * (0.79 * end.log() - 1.64)) * high
    t = ((Re - RE_LAMINAR) / width).clamp(0, 1)
    between = (
        low
        + t * t * (3 - 2 * t) * (high - low)
        + width * t * (t - 1) * ((t - 1) * low_slope + t * high_slope)
    )
    below, beyond = 16 / Re.clamp(max=RE_LAMINAR), petukhov_fanning(Re.clamp(min=RE_TURBULENT))
    return below.where(Re < RE_LAMINAR, beyond.where(Re > RE_TURBULENT, between))


# --- the laws by name ---


def _power(factor: float, Re_exponent: float, Pr_exponent: float, shift: float = 0.0) -> Formula:
    return lambda p: (factor * p["Re"] ** Re_exponent - shift) * p["Pr"] ** Pr_exponent


def _sieder_tate(p: Points) -> Tensor:
    return 0.027 * p["Re"] ** 0.8 * p["Pr"] ** (1 / 3) * p["mu_ratio"] ** 0.14


def _constant(value: float) -> Formula:
    return lambda p: value + 0 * p["Re"]  # keeps the shape, the device and the gradient


def _han_line(p: Points) -> Tensor:
    return 0.046 * p["Re"] ** -0.2


def _petukhov_line(p: Points) -> Tensor:
    return petukhov_fanning(p["Re"])


_INCROPERA = "Incropera & DeWitt, Fundamentals of Heat and Mass Transfer"
_MEAN = "plate, mean, film properties"
_LOCAL = "plate, local, film properties"
_BULK_MEAN = "plate, mean, bulk properties"
_DUCT = "smooth wall, projected area, smooth diameter, developed, bulk properties"
_TEXTBOOK_PR, _TURBULENT_RE = (0.6, 60.0), (5e5, 1e7)
# the sources only say above 1e4; 5e6 is where those of Gnielinski and Petukhov end
_DUCT_RE = (1e4, 5e6)
_LAMINAR_RE = (1e3, 5e5)  # below, a boundary layer is not thin

PLATE = (
    Correlation(
        "plate-laminar-mean",
        "0.664 Re^(1/2) Pr^(1/3)",
        "plate",
        _power(0.664, 0.5, 1 / 3),
        {"Re": _LAMINAR_RE, "Pr": (0.6, ANY_PR)},
        _MEAN,
        f"Pohlhausen 1921; {_INCROPERA}",
        "read",
    ),
    Correlation(
        "plate-laminar-local",
        "0.332 Re^(1/2) Pr^(1/3)",
        "plate",
        _power(0.332, 0.5, 1 / 3),
        {"Re": _LAMINAR_RE, "Pr": (0.6, ANY_PR)},
        _LOCAL,
        f"Pohlhausen 1921; {_INCROPERA}",
        "recalled",
    ),
    Correlation(
        "churchill-ozoe",
        "isothermal plate, laminar, any Pr",
        "plate",
        lambda p: churchill_ozoe(p["Re"], p["Pr"]),
        {"Re": _LAMINAR_RE, "Pr": (1e-3, ANY_PR)},
        _BULK_MEAN,
        "Churchill & Ozoe, J. Heat Transfer 95 (1973) 416",
        "read",
        conditions={"Re Pr > 100": lambda p: p["Re"] * p["Pr"] > 100},
    ),
    Correlation(
        "plate-turbulent-local",
        "0.0296 Re^0.8 Pr^(1/3)",
        "plate",
        _power(0.0296, 0.8, 1 / 3),
        {"Re": _TURBULENT_RE, "Pr": _TEXTBOOK_PR},
        _LOCAL,
        _INCROPERA,
        "recalled",
    ),
    Correlation(
        "plate-turbulent-mean",
        "0.037 Re^0.8 Pr^(1/3), turbulent from the edge",
        "plate",
        _power(0.037, 0.8, 1 / 3),
        {"Re": _TURBULENT_RE, "Pr": _TEXTBOOK_PR},
        _MEAN,
        _INCROPERA,
        "recalled",
    ),
    Correlation(
        "plate-mixed",
        "(0.037 Re^0.8 - 871) Pr^(1/3), transition at Re 5e5",
        "plate",
        _power(0.037, 0.8, 1 / 3, 871.0),
        {"Re": _TURBULENT_RE, "Pr": _TEXTBOOK_PR},
        _MEAN,
        _INCROPERA,
        "recalled",
    ),
    Correlation(
        "schlichting",
        "plate turbulent from its edge, friction analogy",
        "plate",
        lambda p: schlichting(p["Re"], p["Pr"]),
        {"Re": _TURBULENT_RE, "Pr": (0.6, 2000.0)},
        _BULK_MEAN,
        "Schlichting & Gersten 1997; VDI Heat Atlas, Gd",
        "read",
    ),
    Correlation(
        "smooth-plate",
        "laminar and turbulent in one curve",
        "plate",
        lambda p: smooth_plate(p["Re"], p["Pr"]),
        {"Re": (10.0, 1e7), "Pr": (0.6, 2000.0)},
        _BULK_MEAN,
        "Gnielinski, Forsch. Ing.-Wes. 41 (1975) 145; VDI Heat Atlas, Gd",
        "recalled",
    ),
)

DUCT = (
    Correlation(
        "laminar-wall",
        "3.66: constant temperature of the wall",
        "duct",
        _constant(NU_WALL),
        {"Re": (1.0, RE_LAMINAR), "Pr": (1e-3, ANY_PR)},
        _DUCT,
        "Graetz; VDI Heat Atlas",
        "read",
        friction=lambda p: 16 / p["Re"],
        accuracy_says="exact in a round tube",
    ),
    Correlation(
        "laminar-flux",
        "48/11 = 4.36: constant heat flux",
        "duct",
        _constant(NU_FLUX),
        {"Re": (1.0, RE_LAMINAR), "Pr": (1e-3, ANY_PR)},
        _DUCT,
        "Graetz; VDI Heat Atlas",
        "read",
        friction=lambda p: 16 / p["Re"],
        accuracy_says="exact in a round tube",
    ),
    Correlation(
        "dittus-boelter",
        "0.023 Re^0.8 Pr^0.4, heating",
        "duct",
        _power(0.023, 0.8, 0.4),
        {"Re": _DUCT_RE, "Pr": (0.7, 160.0)},
        _DUCT,
        "Dittus & Boelter, Univ. Calif. Publ. Eng. 2 (1930) 443, as McAdams wrote it",
        "recalled",
        friction=_han_line,
        accuracy=0.25,
        accuracy_says="within 25 %",
    ),
    Correlation(
        "dittus-boelter-cooling",
        "0.023 Re^0.8 Pr^0.3, cooling",
        "duct",
        _power(0.023, 0.8, 0.3),
        {"Re": _DUCT_RE, "Pr": (0.7, 160.0)},
        _DUCT,
        "Dittus & Boelter, Univ. Calif. Publ. Eng. 2 (1930) 443, as McAdams wrote it",
        "recalled",
        friction=_han_line,
        accuracy=0.25,
        accuracy_says="within 25 %",
    ),
    Correlation(
        "colburn",
        "0.023 Re^0.8 Pr^(1/3)",
        "duct",
        _power(0.023, 0.8, 1 / 3),
        {"Re": (1e4, 1e5), "Pr": (0.5, 3.0)},
        _DUCT,
        "Colburn 1933; IJHMT 7 (1964) 1359",
        "read",
        friction=_han_line,
    ),
    Correlation(
        "sieder-tate",
        "0.027 Re^0.8 Pr^(1/3) mu_ratio^0.14; mu_ratio = bulk / wall viscosity, 1 if absent",
        "duct",
        _sieder_tate,
        {"Re": _DUCT_RE, "Pr": (0.7, 16700.0)},
        _DUCT,
        "Sieder & Tate, Ind. Eng. Chem. 28 (1936) 1429",
        "recalled",
        friction=_han_line,
    ),
    Correlation(
        "gnielinski",
        "turbulent and late transition, Petukhov's friction factor",
        "duct",
        lambda p: gnielinski(p["Re"], p["Pr"], petukhov_fanning(p["Re"])),
        {"Re": (RE_LAMINAR, 5e6), "Pr": (0.5, 2000.0)},
        _DUCT,
        "Gnielinski, Int. Chem. Eng. 16 (1976) 359",
        "read",
        friction=_petukhov_line,
        accuracy=0.10,
        accuracy_says="within 10 %; many texts begin it at Re 3000",
    ),
    Correlation(
        "petukhov-kirillov-popov",
        "turbulent, Petukhov's friction factor",
        "duct",
        lambda p: petukhov_kirillov_popov(p["Re"], p["Pr"], petukhov_fanning(p["Re"])),
        {"Re": (RE_TURBULENT, 5e6), "Pr": (0.5, ANY_PR)},
        _DUCT,
        "Petukhov & Kirillov, Teploenergetika 4 (1958) 63; Petukhov & Popov, High Temp. 1"
        " (1963) 69",
        "read",
        friction=_petukhov_line,
    ),
    Correlation(
        "smooth-duct",
        "laminar 3.66, transition and Gnielinski in one C1 curve",
        "duct",
        lambda p: smooth_duct(p["Re"], p["Pr"]),
        {"Re": (1.0, 5e6), "Pr": (0.5, 2000.0)},
        _DUCT,
        "Gnielinski, IJHMT 63 (2013) 134, its straight line through transition made a cubic",
        "recalled",
        friction=lambda p: smooth_fanning(p["Re"]),
        accuracy=0.10,
        accuracy_says="within 10 % above Re 4000, not stated below",
    ),
    Correlation(
        "smooth-duct-flux",
        "laminar 4.36, transition and Gnielinski in one C1 curve",
        "duct",
        lambda p: smooth_duct(p["Re"], p["Pr"], NU_FLUX),
        {"Re": (1.0, 5e6), "Pr": (0.5, 2000.0)},
        _DUCT,
        "Gnielinski, IJHMT 63 (2013) 134, its straight line through transition made a cubic",
        "recalled",
        friction=lambda p: smooth_fanning(p["Re"]),
        accuracy=0.10,
        accuracy_says="within 10 % above Re 4000, not stated below",
    ),
)
