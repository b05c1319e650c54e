"""On which wall, area, diameter and temperature a number stands, and conversion from one such basis
to another.

A Nusselt number alone says little: printed roughness functions differ by 67 % from convention
alone. A basis is stated with every table (`# basis: ribbed wall, projected area, smooth diameter`
in a CSV file), and what a conversion needs to know of the rig is stated too (`RigFacts`): nothing
is guessed. The wall of a friction factor is no part of the basis; `numbers.four_sided_fanning`
converts it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.heat.correlations.dimensionless import above_zero

if TYPE_CHECKING:
    from sciforge.heat.correlations.dimensionless import Value
    from sciforge.heat.correlations.fluids import FluidProperties

# For each part of a basis: the nouns that announce it in a text, and the words for its values.
WORDS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "wall": (
        ("wall", "walls"),
        {
            "ribbed": "ribbed",
            "rough": "ribbed",
            "average": "average",
            "all": "average",
            "four": "average",
        }
        | {"smooth": "smooth"},
    ),
    "area": (("area",), {"projected": "projected", "true": "true", "wetted": "true"}),
    "diameter": (("diameter",), {"smooth": "smooth", "actual": "actual", "open": "actual"}),
    "extent": (("extent",), {"mean": "mean", "local": "local", "developed": "developed"}),
    "properties": (("properties", "temperature"), {"bulk": "bulk", "film": "film"}),
    "friction": (("friction", "factor"), {"fanning": "fanning", "darcy": "darcy"}),
}
FILLERS = {
    "the",
    "of",
    "at",
    "on",
    "in",
    "and",
    "based",
    "basis",
    "channel",
    "hydraulic",
    "fully",
    "nu",
    "nusselt",
    "number",
}
PLAIN = (
    "plate",
    "smooth plate",
    "smooth duct",
    "smooth tube",
    "smooth channel",
)  # no ribs: wall, area, diameter are clear
MUST = ("wall", "area", "diameter")  # must be stated; the others have a default
# mean / local from x^(1/2) and x^(4/5): 1 / (exponent of Re)
PLATE = {"laminar": 2.0, "turbulent": 1.25}
# at the same e+; 1.10 to 1.41 between rigs
GBAR_OVER_G = {"han-1988": 4.5 / 3.7, "han-park-1988": 1.2}
QUANTITIES = ("Nu", "Re", "friction", "e_D")
# What every number of a channel is on: the published laws that models start from share it.
CHANNEL_BASIS = "ribbed wall, projected area, smooth-channel diameter, bulk properties"


@dataclass(frozen=True)
class Basis:
    """What a Nusselt number, a Reynolds number and a friction factor are based on.

    Args:
        wall: Nu of the `ribbed` wall, of the `smooth` wall, or the `average` over all walls by
            projected area.
        area: heat flux per `projected` area (as if there were no ribs) or per `true`, wetted, area;
            a smooth wall's are equal.
        diameter: hydraulic, of the `smooth` channel, or `actual`: then the velocity is that of the
            open cross-section too.
        extent: `mean` from the entrance or leading edge, `local`, or `developed`: far from the
            entrance.
        properties: at the `bulk` or the `film` temperature.
        friction: `fanning` or `darcy`, four times that.

    Raises:
        ConfigError: an unknown value.
    """

    wall: Literal["ribbed", "average", "smooth"]
    area: Literal["projected", "true"]
    diameter: Literal["smooth", "actual"]
    extent: Literal["mean", "local", "developed"] = "developed"
    properties: Literal["bulk", "film"] = "bulk"
    friction: Literal["fanning", "darcy"] = "fanning"

    def __post_init__(self) -> None:
        for name, (_, words) in WORDS.items():
            given = getattr(self, name)
            if given not in words.values():
                raise ConfigError(
                    f"no {name} {given!r} of a basis;"
                    f" {did_you_mean(str(given), set(words.values()))}"
                )

    @classmethod
    def parse(cls, text: str | Basis) -> Basis:
        """Read a basis from words between commas; raises ConfigError for an unknown, doubtful or
        missing part.

        `plate` and `smooth duct` state wall, area and diameter at once; what follows `over` ("mean
        over 20 D") is a remark.

        >>> text = "ribbed wall, projected area, smooth-channel diameter, Darcy friction"
        >>> Basis.parse(text).friction
        'darcy'
        """
        if isinstance(text, Basis):
            return text
        found: dict[str, str] = {}
        for clause in text.replace(";", ",").split(","):
            plain = " ".join(clause.lower().replace("-", " ").split()).split(" over ")[0]
            words = [word for word in plain.split() if word not in FILLERS]
            if plain in PLAIN:
                said = [("wall", "smooth"), ("area", "projected"), ("diameter", "smooth")]
            else:
                said = [_read(words, clause.strip())] if words else []
            for name, value in said:
                if name in found:
                    raise ConfigError(
                        f"two statements of the {name} in the basis {text!r}; give one"
                    )
                found[name] = value
        if missing := [name for name in MUST if name not in found]:
            example = "ribbed wall, projected area, smooth diameter"
            raise ConfigError(
                f"basis {text!r} does not state the {' and '.join(missing)}; for example: {example}"
            )
        return cls(**found)

    def __str__(self) -> str:
        """Return the short text: wall, area and diameter, and what differs from developed, bulk
        and Fanning.
        """
        nouns = {
            "wall": "wall",
            "area": "area",
            "diameter": "diameter",
            "extent": "",
            "properties": "properties",
        }
        nouns["friction"] = "friction"
        said = [
            field
            for field in fields(self)
            if field.name in MUST or getattr(self, field.name) != field.default
        ]
        return ", ".join(
            f"{getattr(self, field.name)} {nouns[field.name]}".strip() for field in said
        )


@dataclass(frozen=True, kw_only=True)
class RigFacts:
    """What a conversion may need to know; every ratio is a number or one number a point, and None
    where unknown.

    Args:
        true_projected: wetted / projected area of the ribbed wall, see `wetted_area_ratio`.
        true_projected_all: the same of all walls together, see `open_channel`.
        actual_smooth: hydraulic diameter of the ribbed / of the smooth channel, see `open_channel`.
        open_section: cross-section that the velocity of the actual basis is of / that of the smooth
            channel, see `open_channel`; 1 where the author kept the smooth one.
        average_ribbed: Nu averaged over all walls / Nu of the ribbed wall, projected areas, see
            `average_ribbed_of_law`.
        smooth_ribbed: Nu of the smooth wall / Nu of the ribbed wall, projected areas.
        plate: the boundary layer, `laminar` or `turbulent` from the leading edge.
        conductivity_film: at film / at bulk temperature.
        viscosity_film: the same of the kinematic viscosity (of the dynamic one where the mass flux
            is the given flow).
        density_film: the same of the density.

    Raises:
        ConfigError: an unknown plate.
        DataError: a ratio that is not above zero, or wetted areas below the projected ones.
    """

    true_projected: Value | None = None
    true_projected_all: Value | None = None
    actual_smooth: Value | None = None
    open_section: Value | None = None
    average_ribbed: Value | None = None
    smooth_ribbed: Value | None = None
    plate: Literal["laminar", "turbulent"] | None = None
    conductivity_film: Value | None = None
    viscosity_film: Value | None = None
    density_film: Value | None = None

    def __post_init__(self) -> None:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        plate = given.pop("plate")
        if plate is not None and plate not in PLATE:
            raise ConfigError(f"no plate {plate!r}; {did_you_mean(str(plate), PLATE)}")
        above_zero(**{name: value for name, value in given.items() if value is not None})


# Why a conversion wants a fact, printed where it is missing.
WANTED = {
    "true_projected": "wetted / projected area of the ribbed wall, see wetted_area_ratio",
    "true_projected_all": "wetted / projected area of all walls, see open_channel",
    "actual_smooth": "actual / smooth hydraulic diameter, see open_channel",
    "open_section": (
        "open / smooth cross-section, see open_channel; 1 if the velocity is of the smooth channel"
    ),
    "average_ribbed": (
        "Nu of all walls / Nu of the ribbed wall; rigs differ (Gbar/G 1.10 to 1.41), so it is not"
        " guessed"
    ),
    "smooth_ribbed": "Nu of the smooth wall / Nu of the ribbed wall",
    "plate": "laminar or turbulent, for a plate; in a duct it depends on the entrance",
    "conductivity_film": "conductivity at film / at bulk temperature, see film_facts",
    "viscosity_film": "kinematic viscosity at film / at bulk temperature, see film_facts",
    "density_film": "density at film / at bulk temperature, see film_facts",
}


def convert(
    values: Mapping[str, Value], source: Basis, target: Basis, facts: RigFacts | None = None
) -> dict[str, Value]:
    """Return Nu, Re, friction factor and rib height e_D of one basis on another; there and back
    gives the same numbers.

    Args:
        values: any of Nu, Re, friction, e_D, one number or one a point.
        source: the basis that they have.
        target: the basis that they get.
        facts: of the rig; only what these values and bases need.

    Raises:
        ConfigError: an unknown quantity, a missing fact, or a conversion that no fact allows; names
            it.

    >>> source = Basis("ribbed", "projected", "smooth")
    >>> target = Basis("ribbed", "true", "smooth", friction="darcy")
    >>> convert({"Nu": 120.0, "friction": 0.06}, source, target, RigFacts(true_projected=1.2))
    {'Nu': 100.0, 'friction': 0.24}
    """
    facts, found = facts or RigFacts(), {}
    for name, value in values.items():
        if name not in QUANTITIES:
            raise ConfigError(f"no conversion of {name!r}; {did_you_mean(name, QUANTITIES)}")
        up, down = _factors(name, source, target, facts)
        found[name] = value * math.prod(up) / math.prod(down) if up or down else value
    return found


def _factors(
    name: str, source: Basis, target: Basis, facts: RigFacts
) -> tuple[list[Value], list[Value]]:
    """Return what a quantity is multiplied with and divided by; swapped where source and target
    are.
    """
    up: list[Value] = []
    down: list[Value] = []

    def fact(wanted: str) -> Value:
        value = getattr(facts, wanted)
        if value is None:
            raise ConfigError(
                f"{name} from {source} to {target} needs {wanted} ({WANTED[wanted]}); state it in"
                " RigFacts"
            )
        return PLATE[value] if wanted == "plate" else value

    def step(part: str, forward: str, powers: Mapping[str, int]) -> None:
        """Multiply with facts to powers where the target has the value `forward` of a part and
        the source has not.
        """
        before, after = getattr(source, part), getattr(target, part)
        if before != after:
            for wanted, power in powers.items():
                (up if (power > 0) == (after == forward) else down).extend(
                    [fact(wanted)] * abs(power)
                )

    if name == "Nu" and (source.wall, source.area) != (target.wall, target.area):
        for basis, wetted, level in ((source, up, down), (target, down, up)):
            if basis.area == "true" and basis.wall != "smooth":  # through the projected area
                wetted.append(
                    fact("true_projected" if basis.wall == "ribbed" else "true_projected_all")
                )
            if basis.wall != "ribbed" and source.wall != target.wall:  # through the ribbed wall
                level.append(fact(f"{basis.wall}_ribbed"))
    diameters = {"actual_smooth": 1} if name != "e_D" else {"actual_smooth": -1}
    diameters |= {"Re": {"open_section": -1}, "friction": {"open_section": 2}}.get(name, {})
    step("diameter", "actual", diameters)
    if name in ("Nu", "friction") and source.extent != target.extent:
        if "developed" in (source.extent, target.extent):
            raise ConfigError(
                f"{name} cannot go from {source.extent} to {target.extent}: it depends on the"
                " entrance; use like data"
            )
        step("extent", "mean", {"plate": 1})
    film = {"Nu": "conductivity_film", "Re": "viscosity_film", "friction": "density_film"}
    step("properties", "film", {film[name]: -1} if name in film else {})
    if name == "friction" and source.friction != target.friction:
        (up if target.friction == "darcy" else down).append(4)
    return up, down


def wetted_area_ratio(P_e: Value, alpha_deg: float = 90.0) -> Value:
    """Return the wetted / projected area of a wall with full-span ribs of rectangular section;
    raises DataError.

    A rib's top stands for the floor under it, so that its width does not matter; each pitch P,
    taken along the flow, adds two sides of the height e and the length W / sin(alpha).

    >>> round(wetted_area_ratio(10.0), 6)
    1.2
    """
    _check_angle(alpha_deg)
    above_zero(P_e=P_e)
    return 1 + 2 / (P_e * math.sin(math.radians(alpha_deg)))


def open_channel(
    e_D: Value,
    P_e: Value,
    W_H: Value,
    *,
    width_e: float = 1.0,
    alpha_deg: float = 90.0,
    definition: Literal["volume", "crown"] = "volume",
) -> RigFacts:
    """Return areas and the actual hydraulic diameter of a channel with full-span ribs on its two
    walls of width W.

    With `volume` the diameter is 4 x open volume / wetted area of one pitch (rib sides added, the
    ends on the smooth walls taken off) and the cross-section is the open volume over the pitch;
    with `crown` both are of the section W x (H - 2e) between opposite ribs. The wetted areas are
    the same.

    Args:
        e_D: rib height / hydraulic diameter of the smooth channel.
        P_e: pitch along the flow / rib height.
        W_H: width of the ribbed walls / their distance.
        width_e: rib width, across the rib, / rib height; 1 is square.
        alpha_deg: of the ribs to the flow.
        definition: `volume` or `crown`.

    Raises:
        ConfigError: an unknown definition.
        DataError: ribs that touch each other, or fill the channel.

    >>> facts = open_channel(0.0625, 10.0, 1.0)
    >>> round(facts.true_projected, 4), round(facts.true_projected_all, 5)
    (1.2, 1.09375)
    >>> round(facts.actual_smooth, 4)
    0.9029
    """
    if definition not in ("volume", "crown"):
        raise ConfigError(
            f"no definition {definition!r} of the open channel;"
            f" {did_you_mean(definition, ('volume', 'crown'))}"
        )
    _check_angle(alpha_deg)
    above_zero(P_e=P_e, W_H=W_H, width_e=width_e)
    sine = math.sin(math.radians(alpha_deg))
    e_H = e_D * 2 * W_H / (W_H + 1)
    covered = width_e / (P_e * sine)  # share of the wall under ribs
    above_zero(
        **{"gap between neighbouring ribs": 1 - covered, "gap between opposite ribs": 1 - 2 * e_H}
    )
    wetted_all = 1 + 2 * (W_H - width_e * e_H) / (P_e * sine * (W_H + 1))
    if definition == "volume":
        section = 1 - 2 * e_H * covered
        diameter = section / wetted_all
    else:
        section = 1 - 2 * e_H
        diameter = section * (W_H + 1) / (W_H + section)
    return RigFacts(
        true_projected=wetted_area_ratio(P_e, alpha_deg),
        true_projected_all=wetted_all,
        actual_smooth=diameter,
        open_section=section,
    )


def average_ribbed_of_walls(smooth_ribbed: Value, W_H: Value) -> Value:
    """Return Nu averaged over all walls / Nu of the two ribbed walls, from the smooth walls' /
    ribbed walls', by projected area.

    >>> average_ribbed_of_walls(0.5, 1.0)
    0.75
    """
    return (W_H + smooth_ribbed) / (W_H + 1)


def average_ribbed_of_law(law: str, R: Value, G: Value, fanning: Value) -> Value:
    """Return Nu averaged over all walls / Nu of the ribbed wall where a law states Gbar/G; raises
    ConfigError.

    Both Stanton numbers are of Han's frame with the same R and four-sided Fanning factor (Han 1988,
    J. Heat Transfer 110, 321; Han and Park 1988, Int. J. Heat Mass Transfer 31, 183); so the ratio
    changes from point to point.

    >>> round(average_ribbed_of_law("han-1988", 3.2, 15.0, 0.057), 3)
    0.845
    """
    if law not in GBAR_OVER_G:
        raise ConfigError(f"no stated Gbar/G of the law {law!r}; {did_you_mean(law, GBAR_OVER_G)}")
    shear = (fanning / 2) ** 0.5
    return (1 + (G - R) * shear) / (1 + (GBAR_OVER_G[law] * G - R) * shear)


def film_facts(bulk: FluidProperties, film: FluidProperties) -> RigFacts:
    """Return the ratios of properties at film and bulk temperature for a given velocity; raises
    DataError for others.

    >>> from sciforge.heat.correlations.fluids import FluidProperties
    >>> bulk = FluidProperties("Air", 300.0, 1e5, "bulk", 1.2, 1.8e-5, 0.026, 1007.0)
    >>> film = FluidProperties("Air", 350.0, 1e5, "film", 1.0, 2.1e-5, 0.030, 1009.0)
    >>> round(film_facts(bulk, film).viscosity_film, 3)
    1.4
    """
    if (bulk.reference, film.reference) != ("bulk", "film"):
        raise DataError(
            f"properties of the {bulk.reference} and of the {film.reference}; give those of the"
            " bulk, then of the film"
        )
    return RigFacts(
        conductivity_film=film.conductivity_W_mK / bulk.conductivity_W_mK,
        viscosity_film=film.kinematic_viscosity_m2_s / bulk.kinematic_viscosity_m2_s,
        density_film=film.density_kg_m3 / bulk.density_kg_m3,
    )


def _check_angle(alpha_deg: float) -> None:
    if not 0 < alpha_deg <= 90:
        raise DataError(f"rib angle {alpha_deg} is not above 0 and at most 90 degrees; correct it")


def _read(words: list[str], clause: str) -> tuple[str, str]:
    """Return the part of a basis that a clause states, and its value.

    >>> _read(["ribbed", "wall"], "ribbed wall")
    ('wall', 'ribbed')
    """
    named = [name for name, (nouns, _) in WORDS.items() if any(word in nouns for word in words)]
    said = [word for word in words if not any(word in nouns for nouns, _ in WORDS.values())]
    fits = [
        name for name in named or WORDS if said and all(word in WORDS[name][1] for word in said)
    ]
    values = {WORDS[name][1][word] for name in fits for word in said}
    if len(fits) == 1 and len(values) == 1:
        return fits[0], values.pop()
    if len(fits) > 1:
        raise ConfigError(
            f"{clause!r} in the basis may be the {' or the '.join(fits)}; add that word"
        )
    known = {f"{value} {name}" for name in named or WORDS for value in set(WORDS[name][1].values())}
    raise ConfigError(
        f"cannot read {clause!r} in the basis; {did_you_mean(' '.join(words), known)}"
    )
