"""What the columns of a table may be: names, aliases, units, and how groups are made of
dimensional quantities.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.errors import DataError, MissingExtra, SciforgeError
from sciforge.heat.correlations.dimensionless import (
    fanning_of_darcy,
    nusselt,
    prandtl,
    rectangle_diameter,
    reynolds,
    reynolds_of_mass_flow,
)

TEXT = "text"


@dataclass(frozen=True)
class Quantity:
    """A quantity that a column may hold.

    Args:
        unit: SI; "" for a group, `deg` for an angle, `text` for words.
        aliases: other names, without regard to case unless of one letter.
    """

    unit: str
    aliases: tuple[str, ...] = ()


QUANTITIES = {
    "Re": Quantity("", ("reynolds", "reynolds_number", "re_d", "re_dh")),
    "Pr": Quantity("", ("prandtl", "prandtl_number")),
    "e_D": Quantity("", ("e/d", "e/dh", "e_dh")),
    "P_e": Quantity("", ("p/e",)),
    "alpha_deg": Quantity("deg", ("alpha", "angle", "angle_deg", "rib_angle")),
    "W_H": Quantity("", ("w/h", "aspect_ratio")),
    "Nu": Quantity("", ("nu_r", "nu_ribbed", "nusselt", "nusselt_number")),
    "fanning": Quantity("", ("f_four_sided", "f_fanning", "fanning_four_sided")),
    "darcy": Quantity("", ("f_darcy", "darcy_four_sided")),
    "f": Quantity("", ("friction", "friction_factor")),
    "uncertainty": Quantity("", ("u_nu", "nu_uncertainty", "relative_uncertainty")),
    "velocity": Quantity("m/s", ("mean_velocity", "u")),
    "mass_flow": Quantity("kg/s", ("mdot", "m_dot", "mass_flow_rate")),
    "diameter": Quantity("m", ("hydraulic_diameter", "dh", "d_h", "D")),
    "width": Quantity("m", ("channel_width", "W")),
    "height": Quantity("m", ("channel_height", "H")),
    "area": Quantity("m^2", ("cross_section", "A")),
    "rib_height": Quantity("m", ("e",)),
    "rib_pitch": Quantity("m", ("pitch", "p")),
    "viscosity": Quantity("m^2/s", ("kinematic_viscosity",)),
    "dynamic_viscosity": Quantity("Pa*s", ("mu",)),
    "density": Quantity("kg/m^3", ("rho",)),
    "heat_capacity": Quantity("J/kg/K", ("cp",)),
    "h": Quantity("W/m^2/K", ("htc", "heat_transfer_coefficient")),
    "conductivity": Quantity("W/m/K", ("k",)),
    "temperature": Quantity("K", ("bulk_temperature", "T")),
    "pressure": Quantity("Pa", ()),
    "rig": Quantity(TEXT, ("source", "lab", "laboratory", "facility")),
    "fluid": Quantity(TEXT, ("gas", "coolant")),
    "split": Quantity(TEXT, ()),
}


def known_as(head: str, name: str) -> bool:
    """Return whether the head of a column is a name of a quantity; single letters keep their case
    (h and H differ).

    >>> known_as("NU_Ribbed", "Nu"), known_as("H", "h"), known_as("D", "diameter")
    (True, False, True)
    """
    names = (name, *QUANTITIES[name].aliases)
    return (
        head in names
        if len(head) == 1
        else head.lower() in [n.lower() for n in names if len(n) > 1]
    )


# Units --------------------------------------------------------------------------------------------

PLAIN = ("", "-", "1")  # of a pure number
FACTORS = {
    ("%", ""): 0.01,
    ("percent", ""): 0.01,
    ("rad", "deg"): 180 / np.pi,
    ("°", "deg"): 1.0,
    ("degrees", "deg"): 1.0,
}


def in_unit(
    values_N: np.ndarray, unit: str | None, name: str, path: Path | str, line: int
) -> np.ndarray:
    """Return a column in its SI unit (angles in degrees), float64 [N].

    Args:
        values_N: as the table has them.
        unit: in brackets in the header; None where none is stated.
        name: of the quantity.
        path: of the table, for messages.
        line: of the header.

    Raises:
        DataError: no unit where one is needed, an unknown one, or one of another dimension.
        MissingExtra: pint is not installed.

    >>> in_unit(np.array([6.8]), "%", "uncertainty", "a.csv", 1).round(3).tolist()
    [0.068]
    """
    wanted = QUANTITIES[name].unit
    if unit is None and wanted not in ("", "deg"):
        raise DataError(
            f"{name} has no unit; write it in brackets in the header, e.g. '{name} [{wanted}]'",
            path,
            line,
        )
    if unit is None or unit == wanted or (not wanted and unit in PLAIN):
        return values_N
    if (unit, wanted) in FACTORS:
        return values_N * FACTORS[unit, wanted]
    spelt = _spelt(unit)
    if spelt is None:
        raise DataError(
            f"no unit {unit[:40]!r} (of {name}); write it like {wanted or '%'}", path, line
        )
    pint, registry = _registry()
    try:
        return np.asarray(registry.Quantity(values_N, spelt).to(wanted).magnitude, np.float64)
    except pint.DimensionalityError:
        raise DataError(
            f"{name} cannot be in {unit!r}; it is in {wanted or 'no unit'}", path, line
        ) from None
    except (
        pint.PintError,
        AttributeError,
        ValueError,
        TypeError,
        AssertionError,
        SyntaxError,
    ):  # all that it raises for text
        raise DataError(
            f"no unit {unit[:40]!r} (of {name}); write it like {wanted or '%'}", path, line
        ) from None


def _spelt(unit: str) -> str | None:
    """Return a unit as pint reads it, None for what is no unit: text of strangers is never
    evaluated (10**10**10 would hang).

    >>> _spelt("W/(m2 K)"), _spelt("kg m^-1 s-1"), _spelt("10**10**10")
    ('W/(m**2 K)', 'kg m**-1 s**-1', None)
    """
    text = (
        unit.replace("·", "*")
        .replace("µ", "u")
        .replace("μ", "u")
        .replace("²", "2")
        .replace("³", "3")
        .replace("°C", "degC")
    )
    word = r"[A-Za-z_%°]+(?:(?:\^|\*\*)?\s*-?[1-4])?"
    if len(text) > 40 or not re.fullmatch(
        rf"\s*(?:1\s*/\s*)?\(*{word}(?:[\s*/.()]+{word})*\)*\s*", text
    ):
        return None
    return (
        re.sub(r"([A-Za-z_%°])(?:\^|\*\*)?\s*(-?[1-4])", r"\1**\2", text).replace(".", "*").strip()
    )


@cache
def _registry() -> tuple[Any, Any]:
    try:
        import pint
    except ImportError:
        raise MissingExtra("pint", "heat") from None
    return pint, pint.UnitRegistry()


# Groups of dimensional quantities -----------------------------------------------------------------


def _pitch(rib_pitch: np.ndarray, rib_height: np.ndarray) -> np.ndarray:
    return np.divide(
        rib_pitch, rib_height, out=np.full_like(rib_pitch, np.nan), where=rib_height > 0
    )


RULES: tuple[tuple[str, tuple[str, ...], Callable[..., Any]], ...] = (
    ("diameter", ("width", "height"), rectangle_diameter),
    ("area", ("width", "height"), np.multiply),
    ("viscosity", ("dynamic_viscosity", "density"), np.divide),
    ("Re", ("velocity", "diameter", "viscosity"), reynolds),
    ("Re", ("mass_flow", "diameter", "area", "dynamic_viscosity"), reynolds_of_mass_flow),
    ("Pr", ("heat_capacity", "dynamic_viscosity", "conductivity"), prandtl),
    ("e_D", ("rib_height", "diameter"), np.divide),
    ("P_e", ("rib_pitch", "rib_height"), _pitch),
    ("W_H", ("width", "height"), np.divide),
    ("Nu", ("h", "diameter", "conductivity"), nusselt),
    ("fanning", ("darcy",), fanning_of_darcy),
)
DISAGREE = 0.02  # relative; printed numbers are rounded


def complete(
    values: dict[str, np.ndarray], fluid: Sequence[str], reference: str, path: Path
) -> list[str]:
    """Add the groups that the dimensional columns make, in place, and return a line for each that
    they contradict.

    Args:
        values: quantity -> float64 [N] in SI.
        fluid: name of each row's, "" where it is not known.
        reference: bulk or film: what the temperature is.
        path: for errors.

    Raises:
        DataError: the fluid has no such state.
        MissingExtra: a fluid is named and CoolProp is not installed.
    """
    notes = []
    if "temperature" in values and any(fluid) and _wants_properties(values):
        _add_properties(values, fluid, reference, path)
    for target, needs, rule in RULES:
        if not set(needs) <= set(values):
            continue
        made = rule(*(values[name] for name in needs))
        if target not in values:
            values[target] = made
            continue
        apart = np.abs(made / np.where(values[target] != 0, values[target], np.nan) - 1)
        if len(apart) and np.nanmax(apart, initial=0) > DISAGREE:
            notes.append(
                f"{target} differs from {', '.join(needs)} by up to {np.nanmax(apart):.0%};"
                f" {target} is used"
            )
    return notes


def _wants_properties(values: dict[str, np.ndarray]) -> bool:
    return "Pr" not in values or ("Re" not in values) or ("Nu" not in values and "h" in values)


def _add_properties(
    values: dict[str, np.ndarray], fluid: Sequence[str], reference: str, path: Path
) -> None:
    """Add the properties of the named fluids where the table has none."""
    from sciforge.heat.correlations.fluids import properties

    names = np.array(fluid, object)
    pressure = values.get("pressure", np.full(len(names), 101325.0))
    found = {
        key: np.full(len(names), np.nan)
        for key in ("density", "dynamic_viscosity", "viscosity", "conductivity", "Pr")
    }
    for name in dict.fromkeys(n for n in fluid if n):
        rows = names == name
        try:
            state = properties(name, values["temperature"][rows], pressure[rows], reference)
        except MissingExtra:
            raise
        except SciforgeError as error:
            raise DataError(str(error), path) from None
        found["density"][rows] = state.density_kg_m3
        found["dynamic_viscosity"][rows] = state.viscosity_Pa_s
        found["viscosity"][rows] = state.kinematic_viscosity_m2_s
        found["conductivity"][rows] = state.conductivity_W_mK
        found["Pr"][rows] = state.prandtl
    for key, column in found.items():
        values.setdefault(key, column)
