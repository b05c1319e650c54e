"""Properties of fluids by CoolProp (Bell et al., Ind. Eng. Chem. Res. 53, 2014, 2498), with the
temperature they belong to.

Only CoolProp is used: `fluids` and `ht` have correlations but no property of air or steam at a
given temperature and pressure (their standard atmosphere has no heat capacity), and their data for
it live in a further package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sciforge.errors import ConfigError, DataError, MissingExtra, did_you_mean

Array = float | np.ndarray
Reference = Literal["bulk", "film"]
REFERENCES = ("bulk", "film")
OUTPUTS = ["Dmass", "viscosity", "conductivity", "Cpmass"]


@dataclass(frozen=True)
class FluidProperties:
    """Properties of a fluid in SI units; arrays where temperature or pressure is one.

    Args:
        fluid: its name in CoolProp.
        temperature_K: at which the properties are.
        pressure_Pa: absolute.
        reference: what that temperature is: of the `bulk`, or of the `film`, the mean of wall and
            bulk.
        density_kg_m3: mass density.
        viscosity_Pa_s: dynamic.
        conductivity_W_mK: thermal.
        heat_capacity_J_kgK: at constant pressure.
    """

    fluid: str
    temperature_K: Array
    pressure_Pa: Array
    reference: Reference
    density_kg_m3: Array
    viscosity_Pa_s: Array
    conductivity_W_mK: Array
    heat_capacity_J_kgK: Array

    @property
    def kinematic_viscosity_m2_s(self) -> Array:
        """Dynamic viscosity over density."""
        return self.viscosity_Pa_s / self.density_kg_m3

    @property
    def prandtl(self) -> Array:
        """Heat capacity x dynamic viscosity / conductivity."""
        return self.heat_capacity_J_kgK * self.viscosity_Pa_s / self.conductivity_W_mK


def film_temperature(wall_K: Array, bulk_K: Array) -> Array:
    """Return the mean of the temperatures of wall and bulk, K.

    >>> film_temperature(400.0, 300.0)
    350.0
    """
    return (wall_K + bulk_K) / 2


def properties(
    fluid: str, temperature_K: Array, pressure_Pa: Array = 101325.0, reference: Reference = "bulk"
) -> FluidProperties:
    """Return the properties of a pure fluid, of air, or of a coolant such as `INCOMP::MEG[0.5]`, by
    CoolProp.

    Args:
        fluid: a name of CoolProp: Air, Water, CO2, Helium ...
        temperature_K: one or many [N]; NaN gives NaN.
        pressure_Pa: absolute, one or many [N].
        reference: what the temperature is; only remembered.

    Raises:
        MissingExtra: CoolProp is not installed.
        ConfigError: an unknown fluid or reference.
        DataError: outside the range of the equation of state, or no viscosity is known.
    """
    if reference not in REFERENCES:
        raise ConfigError(
            f"no reference temperature {reference!r}; {did_you_mean(reference, REFERENCES)}"
        )
    try:
        import CoolProp.CoolProp as coolprop
    except ImportError:
        raise MissingExtra("CoolProp", "heat") from None
    temperature, pressure = np.broadcast_arrays(
        np.asarray(temperature_K, float), np.asarray(pressure_Pa, float)
    )
    _check_range(coolprop, fluid, temperature, pressure)
    known = np.isfinite(temperature) & np.isfinite(pressure)
    found = np.full((*temperature.shape, len(OUTPUTS)), np.nan)
    if known.any():
        found[known] = _table(coolprop, fluid, temperature[known], pressure[known])
    columns = [found[..., number] for number in range(len(OUTPUTS))]
    if not temperature.ndim:
        columns = [float(column) for column in columns]
    return FluidProperties(fluid, temperature_K, pressure_Pa, reference, *columns)


def _table(
    coolprop: Any, fluid: str, temperature_K: np.ndarray, pressure_Pa: np.ndarray
) -> np.ndarray:
    """Return the outputs of finite states [N, 4]; raises DataError with CoolProp's reason for
    the first that has none.
    """
    try:
        found = coolprop.PropsSI(OUTPUTS, "T", temperature_K, "P", pressure_Pa, fluid)
        found = np.reshape(found, (-1, len(OUTPUTS)))
        # of many states, single ones without properties come back as inf
        wrong = ~np.isfinite(found).all(axis=1)
    except ValueError:
        wrong = np.ones(len(temperature_K), bool)
    for place in np.flatnonzero(wrong):
        temperature, pressure = float(temperature_K[place]), float(pressure_Pa[place])
        try:
            for output in OUTPUTS:
                coolprop.PropsSI(output, "T", temperature, "P", pressure, fluid)
        except ValueError as error:
            reason = " ".join(str(error).split(" : PropsSI(")[0].split())[:200].rstrip(". ")
            where = f"{fluid} at {temperature:g} K and {pressure:g} Pa"
            raise DataError(f"{where}: {reason}; choose another state or fluid") from None
    if wrong.any():
        raise DataError(f"{fluid}: CoolProp found no properties; choose another state or fluid")
    return found


def _check_range(coolprop: Any, fluid: str, temperature: np.ndarray, pressure: np.ndarray) -> None:
    """Raise for an unknown fluid and for states beyond the equation of state, where CoolProp
    extrapolates in silence.
    """
    try:
        low, high = coolprop.PropsSI("Tmin", fluid), coolprop.PropsSI("Tmax", fluid)
    except ValueError:
        raise ConfigError(
            f"CoolProp has no fluid {fluid!r}; {_nearest(fluid, coolprop.FluidsList())}"
        ) from None
    if np.any((temperature < low) | (temperature > high)):
        bad = temperature[(temperature < low) | (temperature > high)].flat[0]
        raise DataError(
            f"{fluid}: {bad:g} K is outside {low:g} to {high:g} K of its equation of state; is it"
            " in kelvin?"
        )
    if np.any((pressure <= 0) | np.isinf(pressure)):
        bad = pressure[(pressure <= 0) | np.isinf(pressure)].flat[0]
        raise DataError(
            f"{fluid}: pressure {bad:g} Pa is not above zero and finite; give the absolute pressure"
            " in Pa"
        )


def _nearest(fluid: str, names: list[str]) -> str:
    hint = did_you_mean(fluid, names)
    return (
        hint
        if hint.startswith("did")
        else "use a name of CoolProp such as Air, Water or CarbonDioxide"
    )
