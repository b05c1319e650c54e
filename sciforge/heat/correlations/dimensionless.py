"""The dimensionless numbers of heat transfer in channels, and Han's law-of-the-wall frame of ribbed
walls.

Every function takes floats, numpy arrays or torch tensors alike (tensors keep their gradients).
Quantities with a unit have it in their name and are SI. The two friction factors are never called
f: `fanning` is wall shear / (density velocity^2 / 2), `darcy` is four times that. A number that
must be above zero raises DataError where it is not; functions of the law-of-the-wall frame, which a
fit calls for thousands of points, give NaN where the frame has no solution.

Han's frame (J. Heat Transfer 106, 1984, 774; 110, 1988, 321) is of a channel W wide and H high
whose two walls of width W are ribbed. Its Fanning factor is that of a channel with FOUR ribbed
walls, its Stanton number that of a ribbed wall on the projected area (as if there were no ribs),
its diameter the hydraulic one of the smooth channel, its properties those of the bulk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.errors import DataError

if TYPE_CHECKING:  # torch takes seconds to import, and floats do not need it
    from torch import Tensor

    Value = float | np.ndarray | Tensor


# --- definitions ---


def above_zero(**values: Value) -> None:
    """Raise DataError naming the first value that is not above zero; NaN, a missing cell, may pass.

    >>> above_zero(diameter_m=0.05)
    """
    for name, value in values.items():
        wrong = value <= 0
        if bool(wrong.any()) if hasattr(wrong, "any") else wrong:
            raise DataError(f"{name} must be above zero; correct it")


def reynolds(velocity_m_s: Value, diameter_m: Value, kinematic_viscosity_m2_s: Value) -> Value:
    """Return the Reynolds number: mean velocity x hydraulic diameter / kinematic viscosity; raises
    DataError.

    The mean is over the open cross-section; the diameter is the smooth channel's unless you say
    otherwise; bulk properties.

    >>> round(reynolds(10.0, 0.05, 2e-5))
    25000
    """
    above_zero(diameter_m=diameter_m, kinematic_viscosity_m2_s=kinematic_viscosity_m2_s)
    return velocity_m_s * diameter_m / kinematic_viscosity_m2_s


def reynolds_of_mass_flow(
    mass_flow_kg_s: Value, diameter_m: Value, area_m2: Value, viscosity_Pa_s: Value
) -> Value:
    """Return the Reynolds number: mass flow x hydraulic diameter / (cross-section x dynamic
    viscosity); raises DataError.

    >>> round(reynolds_of_mass_flow(0.03, 0.05, 0.0025, 2e-5))
    30000
    """
    above_zero(diameter_m=diameter_m, area_m2=area_m2, viscosity_Pa_s=viscosity_Pa_s)
    return mass_flow_kg_s * diameter_m / (area_m2 * viscosity_Pa_s)


def prandtl(heat_capacity_J_kgK: Value, viscosity_Pa_s: Value, conductivity_W_mK: Value) -> Value:
    """Return the Prandtl number: heat capacity at constant pressure x dynamic viscosity /
    conductivity; raises DataError.

    >>> round(prandtl(1007.0, 1.846e-5, 0.0263), 3)
    0.707
    """
    above_zero(conductivity_W_mK=conductivity_W_mK)
    return heat_capacity_J_kgK * viscosity_Pa_s / conductivity_W_mK


def nusselt(coefficient_W_m2K: Value, diameter_m: Value, conductivity_W_mK: Value) -> Value:
    """Return the Nusselt number: heat transfer coefficient x hydraulic diameter / conductivity of
    the fluid; raises DataError.

    It is local or mean, of one wall or of all, on the projected or the wetted area, as the
    coefficient is: see `basis.Basis`.

    >>> round(nusselt(100.0, 0.05, 0.025), 6)
    200.0
    """
    above_zero(diameter_m=diameter_m, conductivity_W_mK=conductivity_W_mK)
    return coefficient_W_m2K * diameter_m / conductivity_W_mK


def coefficient_of_nusselt(nusselt: Value, diameter_m: Value, conductivity_W_mK: Value) -> Value:
    """Return the heat transfer coefficient, W/(m^2 K), of a Nusselt number; raises DataError.

    >>> round(coefficient_of_nusselt(200.0, 0.05, 0.025), 6)
    100.0
    """
    above_zero(diameter_m=diameter_m, conductivity_W_mK=conductivity_W_mK)
    return nusselt * conductivity_W_mK / diameter_m


def stanton(nusselt: Value, Re: Value, Pr: Value) -> Value:
    """Return the Stanton number Nu / (Re Pr), on the same area and properties; raises DataError.

    >>> round(stanton(62.49, 8314.0, 0.703), 6)
    0.010692
    """
    above_zero(Re=Re, Pr=Pr)
    return nusselt / (Re * Pr)


def nusselt_of_stanton(stanton: Value, Re: Value, Pr: Value) -> Value:
    """Return the Nusselt number St Re Pr.

    >>> round(nusselt_of_stanton(0.010692, 8314.0, 0.703), 2)
    62.49
    """
    return stanton * Re * Pr


def hydraulic_diameter(area_m2: Value, perimeter_m: Value) -> Value:
    """Return four times the open cross-section over the wetted perimeter, m; raises DataError.

    >>> hydraulic_diameter(2.0, 6.0)
    1.3333333333333333
    """
    above_zero(perimeter_m=perimeter_m)
    return 4 * area_m2 / perimeter_m


def rectangle_diameter(width_m: Value, height_m: Value) -> Value:
    """Return the hydraulic diameter of a smooth rectangular duct, 2 W H / (W + H), m; raises
    DataError.

    >>> rectangle_diameter(2.0, 1.0)
    1.3333333333333333
    """
    above_zero(width_m=width_m, height_m=height_m)
    return 2 * width_m * height_m / (width_m + height_m)


# --- friction factors ---


def fanning_of_pressure_drop(
    pressure_drop_Pa: Value,
    length_m: Value,
    diameter_m: Value,
    density_kg_m3: Value,
    velocity_m_s: Value,
) -> Value:
    """Return the Fanning friction factor, pressure drop x diameter / (4 length x density velocity^2
    / 2); raises DataError.

    It is the mean over all walls of the channel: with two ribbed walls it is `fanning_bar`, see
    `four_sided_fanning`.

    >>> round(fanning_of_pressure_drop(40.0, 1.0, 0.05, 1.2, 10.0), 6)
    0.008333
    """
    above_zero(length_m=length_m, density_kg_m3=density_kg_m3, velocity_m_s=velocity_m_s)
    return pressure_drop_Pa * diameter_m / (2 * length_m * density_kg_m3 * velocity_m_s**2)


def darcy_of_fanning(fanning: Value) -> Value:
    """Return the Darcy friction factor, four times Fanning's.

    >>> darcy_of_fanning(0.0625)
    0.25
    """
    return 4 * fanning


def fanning_of_darcy(darcy: Value) -> Value:
    """Return the Fanning friction factor, a quarter of Darcy's.

    >>> fanning_of_darcy(0.25)
    0.0625
    """
    return darcy / 4


def four_sided_fanning(fanning_bar: Value, fanning_smooth: Value, W_H: Value) -> Value:
    """Return the Fanning factor of a channel with four ribbed walls from one measured with two.

    Each wall's shear counts by its width: (W + H) fanning_bar = W four_sided + H fanning_smooth
    (Han 1984).

    Args:
        fanning_bar: measured from the pressure drop of the channel with two opposite ribbed walls.
        fanning_smooth: of the smooth channel at the same Reynolds number.
        W_H: width of the ribbed walls over their distance.

    >>> round(four_sided_fanning(0.035, 0.007, 1.0), 6)
    0.063
    """
    return fanning_bar + _over(fanning_bar - fanning_smooth, W_H)


def ribbed_pair_fanning(four_sided: Value, fanning_smooth: Value, W_H: Value) -> Value:
    """Return the Fanning factor of a channel with two ribbed walls, the inverse of
    `four_sided_fanning`.

    >>> round(ribbed_pair_fanning(0.063, 0.007, 1.0), 6)
    0.035
    """
    return (W_H * four_sided + fanning_smooth) / (W_H + 1)


# --- Han's law-of-the-wall frame ---


def roughness_reynolds(e_D: Value, Re: Value, fanning: Value) -> Value:
    """Return the roughness Reynolds number e+ = (e/D) Re sqrt(fanning / 2), with the four-sided
    Fanning factor.

    >>> round(roughness_reynolds(0.063, 8314.0, 0.06245), 2)
    92.56
    """
    return e_D * Re * _root(fanning / 2)


def reynolds_of_roughness(e_plus: Value, e_D: Value, fanning: Value) -> Value:
    """Return the Reynolds number of a roughness Reynolds number, the inverse of
    `roughness_reynolds`.

    >>> round(reynolds_of_roughness(92.5528, 0.063, 0.062448))
    8314
    """
    return _over(e_plus, e_D * _root(fanning / 2))


def roughness_function(fanning: Value, e_D: Value, W_H: Value) -> Value:
    """Return R = sqrt(2 / fanning) + 2.5 ln[(2 e/D)(2 W / (W + H))] + 2.5 of the four-sided Fanning
    factor (Han 1988).

    >>> round(roughness_function(0.062448, 0.063, 1.0), 3)
    2.981
    """
    return _over(1.0, _root(fanning / 2)) + _wall_term(e_D, W_H)


def fanning_of_roughness(R: Value, e_D: Value, W_H: Value) -> Value:
    """Return the four-sided Fanning factor of a roughness function, the inverse of
    `roughness_function`.

    NaN where R is too small for the frame: sqrt(2 / fanning) would not be above zero (a rib that
    fills the channel).

    >>> round(fanning_of_roughness(2.9806, 0.063, 1.0), 5)
    0.06245
    """
    return 2 * _over(1.0, R - _wall_term(e_D, W_H)) ** 2


def heat_transfer_roughness(R: Value, stanton: Value, fanning: Value) -> Value:
    """Return G = R + (fanning / (2 St) - 1) / sqrt(fanning / 2), St of the ribbed wall, Fanning
    four-sided (Han 1988).

    With the Stanton number averaged over the four walls it is Gbar.

    >>> round(heat_transfer_roughness(2.9806, 0.010692, 0.062448), 2)
    13.85
    """
    return R + _over(_over(fanning / 2, stanton) - 1, _root(fanning / 2))


def stanton_of_roughness(R: Value, G: Value, fanning: Value) -> Value:
    """Return the Stanton number (fanning / 2) / (1 + (G - R) sqrt(fanning / 2)), the inverse of
    `heat_transfer_roughness`.

    It is the ribbed wall's on the projected area where G is, and the four walls' where Gbar is
    given; `fanning` is four-sided. NaN where the denominator is not above zero.

    >>> round(stanton_of_roughness(2.9806, 13.84782, 0.062448), 6)
    0.010692
    """
    return _over(fanning / 2, 1 + (G - R) * _root(fanning / 2))


@dataclass(frozen=True)
class WallPoint:
    """One measured or predicted point of a ribbed channel, in the numbers a designer uses.

    Args:
        Re: on the hydraulic diameter of the smooth channel.
        fanning: of a channel with four ribbed walls.
        stanton: of the ribbed wall, projected area.
        nusselt: of the ribbed wall, projected area.
    """

    Re: Value
    fanning: Value
    stanton: Value
    nusselt: Value


def point_of_roughness(
    e_plus: Value, R: Value, G: Value, e_D: Value, W_H: Value, Pr: Value
) -> WallPoint:
    """Return Re, the four-sided Fanning factor, St and Nu of a point published as (e+, R, G).

    NASA CR-3837, appendix 7.3:

    >>> point = point_of_roughness(92.5528, 2.9806, 13.84782, 0.063, 1.0, 0.703)
    >>> round(point.Re), round(point.fanning, 5), round(point.stanton, 6), round(point.nusselt, 2)
    (8314, 0.06245, 0.010692, 62.49)
    """
    fanning = fanning_of_roughness(R, e_D, W_H)
    Re = reynolds_of_roughness(e_plus, e_D, fanning)
    number = stanton_of_roughness(R, G, fanning)
    return WallPoint(Re, fanning, number, nusselt_of_stanton(number, Re, Pr))


def roughness_of_point(point: WallPoint, e_D: Value, W_H: Value) -> tuple[Value, Value, Value]:
    """Return (e+, R, G) of a point, the inverse of `point_of_roughness`.

    >>> point = point_of_roughness(92.5528, 2.9806, 13.84782, 0.063, 1.0, 0.703)
    >>> [round(value, 4) for value in roughness_of_point(point, 0.063, 1.0)]
    [92.5528, 2.9806, 13.8478]
    """
    R = roughness_function(point.fanning, e_D, W_H)
    e_plus = roughness_reynolds(e_D, point.Re, point.fanning)
    return e_plus, R, heat_transfer_roughness(R, point.stanton, point.fanning)


def thermal_performance(nusselt_ratio: Value, friction_ratio: Value) -> Value:
    """Return (Nu/Nu0) / (fanning/fanning0)^(1/3): the gain at equal pumping power; raises
    DataError.

    Nu0 and fanning0 are of the smooth channel at the same Reynolds number: name their law beside
    the figure, since Dittus-Boelter and Gnielinski lie some 10 % apart. Both ratios are of the same
    walls (all four, for a whole channel).

    >>> round(thermal_performance(3.0, 8.0), 6)
    1.5
    """
    above_zero(friction_ratio=friction_ratio)
    return nusselt_ratio / friction_ratio ** (1 / 3)


# --- what floats, arrays and tensors do differently ---


def _wall_term(e_D: Value, W_H: Value) -> Value:
    return 2.5 * _log(2 * e_D * (2 * W_H / (W_H + 1))) + 2.5


def _log(value: Any) -> Any:
    if hasattr(value, "log"):
        return value.log()
    # a smooth wall: minus infinity, and a Fanning factor of zero
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(value)
    return found if np.ndim(found) else float(found)


def _root(value: Any) -> Any:
    if hasattr(value, "sqrt"):
        return value.sqrt()
    with np.errstate(invalid="ignore"):
        found = np.sqrt(value)
    return found if np.ndim(found) else float(found)


def _over(top: Any, below: Any) -> Any:
    """Return top / below where below is above zero, elsewhere NaN, through which no gradient
    flows.
    """
    if hasattr(below, "masked_fill"):
        return (top / below).masked_fill(~(below > 0), float("nan"))
    allowed = np.where(np.greater(below, 0), below, np.nan)
    return top / (allowed if allowed.ndim else float(allowed))
