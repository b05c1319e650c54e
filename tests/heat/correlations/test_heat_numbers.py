"""Dimensionless numbers against NASA CR-3837, conversions between bases there and back, and
properties of fluids.
"""

import csv
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from sciforge.errors import ConfigError, DataError, MissingExtra
from sciforge.heat.correlations import dimensionless, fluids
from sciforge.heat.data import reference_basis
from sciforge.heat.data.reference_basis import Basis, RigFacts, convert, open_channel

SHARED = Path(__file__).parents[4] / "shared/data/heat/nasa_cr3837_square_duct.csv"
SQUARE = Basis("ribbed", "projected", "smooth")
# Rows of NASA CR-3837, appendix 7.3 (e+, R, G), whose Reynolds numbers other tables of the report
# quote.
QUOTED = [
    (92.5528, 2.9806, 13.84782, 8314),
    (176.5097, 3.22622, 15.41176, 16544),
    (69.6764, 3.00047, 8.52833, 6281),
    (89.9123, 1.79517, 9.80892, 6385),
    (72.9356, 2.99718, 7.49428, 6571),
    (92.704, 3.87045, 8.71075, 9637),
    (408.4026, 5.38246, 16.10369, 52257),
]
FACTS = RigFacts(
    true_projected=1.2,
    true_projected_all=1.09,
    actual_smooth=0.9,
    open_section=0.98,
    average_ribbed=0.83,
    smooth_ribbed=0.61,
    plate="turbulent",
    conductivity_film=1.07,
    viscosity_film=1.19,
    density_film=0.91,
)


@pytest.mark.parametrize(("e_plus", "R", "G", "Re"), QUOTED)
def test_inversion_gives_the_reynolds_numbers_that_the_report_quotes(e_plus, R, G, Re):
    assert round(dimensionless.point_of_roughness(e_plus, R, G, 0.063, 1.0, 0.703).Re) == Re


def test_nusselt_number_of_the_report_within_half_a_percent():
    assert dimensionless.point_of_roughness(
        *QUOTED[0][:3], 0.063, 1.0, 0.703
    ).nusselt == pytest.approx(62.6, rel=5e-3)


@pytest.mark.skipif(
    not SHARED.exists(), reason="the table of NASA CR-3837 is not beside the repository"
)
def test_every_row_of_the_table_within_printed_rounding_and_back():
    with SHARED.open() as file:
        rows = list(csv.DictReader(file))
    table = {
        name: np.array([float(row[name]) for row in rows])
        for name in rows[0]
        if name not in ("source", "kind")
    }
    shape = table["e_D"], table["W_H"]
    point = dimensionless.point_of_roughness(
        table["e_plus"], table["R"], table["G"], *shape, table["Pr"]
    )
    assert len(rows) == 33
    np.testing.assert_allclose(point.Re, table["Re"], rtol=0, atol=0.5)
    np.testing.assert_allclose(point.fanning, table["f_four_sided"], rtol=0, atol=0.5e-5)
    np.testing.assert_allclose(point.stanton, table["St_r"], rtol=0, atol=0.5e-6)
    np.testing.assert_allclose(point.nusselt, table["Nu_ribbed"], rtol=0, atol=0.5e-2)
    for found, name in zip(
        dimensionless.roughness_of_point(point, *shape), ("e_plus", "R", "G"), strict=True
    ):
        np.testing.assert_allclose(found, table[name], rtol=1e-12)


def test_floats_arrays_and_tensors_give_the_same():
    given = (2.9806, 0.063, 2.0)
    expected = dimensionless.fanning_of_roughness(*given)
    assert type(expected) is float
    array = dimensionless.fanning_of_roughness(np.full(2, given[0]), *given[1:])
    tensor = dimensionless.fanning_of_roughness(
        torch.full((2,), given[0], dtype=torch.float64), given[1], torch.tensor(2.0)
    )
    mixed = dimensionless.fanning_of_roughness(
        given[0], torch.tensor(given[1], dtype=torch.float64), given[2]
    )
    np.testing.assert_allclose(array, expected)
    np.testing.assert_allclose(tensor, expected, rtol=1e-7)
    np.testing.assert_allclose(mixed, expected)


def test_gradients_of_the_frame_are_right():
    def nusselt(R, G, e_D, W_H, Re):
        fanning = dimensionless.fanning_of_roughness(R, e_D, W_H)
        e_plus = dimensionless.roughness_reynolds(e_D, Re, fanning)
        return dimensionless.stanton_of_roughness(R, G * e_plus**0.28, fanning) * Re

    given = [
        torch.tensor([value], dtype=torch.float64, requires_grad=True)
        for value in (3.2, 3.7, 0.06, 1.5, 3e4)
    ]
    assert torch.autograd.gradcheck(nusselt, given, eps=1e-7)


@pytest.mark.parametrize("kind", [float, np.float64, np.array, torch.tensor])
def test_frame_without_a_solution_gives_nan_and_a_smooth_wall_no_friction(kind):
    def is_nan(value):
        return bool(value != value)

    # ribs that fill the channel
    assert is_nan(dimensionless.fanning_of_roughness(kind(1.0), kind(0.5), kind(1.0)))
    # at the very border
    assert is_nan(dimensionless.fanning_of_roughness(kind(2.5), kind(0.5), kind(1.0)))
    assert is_nan(dimensionless.fanning_of_roughness(kind(float("nan")), kind(0.06), kind(1.0)))
    assert is_nan(dimensionless.stanton_of_roughness(kind(40.0), kind(1.0), kind(0.06)))
    assert is_nan(dimensionless.stanton_of_roughness(kind(3.0), kind(1.0), kind(-0.06)))
    assert is_nan(dimensionless.roughness_function(kind(0.0), kind(0.06), kind(1.0)))
    assert is_nan(dimensionless.heat_transfer_roughness(kind(3.0), kind(0.0), kind(0.06)))
    assert is_nan(dimensionless.roughness_reynolds(kind(0.06), kind(1e4), kind(-0.06)))
    assert is_nan(dimensionless.four_sided_fanning(kind(0.03), kind(0.007), kind(0.0)))
    assert dimensionless.fanning_of_roughness(kind(3.2), kind(0.0), kind(1.0)) == 0


def test_points_without_a_solution_spoil_no_gradient():
    R = torch.tensor([3.2, 1.0], dtype=torch.float64, requires_grad=True)
    fanning = dimensionless.fanning_of_roughness(R, torch.tensor([0.06, 0.5]), 1.0)
    fanning.nansum().backward()
    assert torch.isfinite(R.grad).all() and R.grad[0] < 0 and R.grad[1] == 0


def test_four_sided_friction_there_and_back_and_square_case():
    four = dimensionless.four_sided_fanning(0.03, 0.007, 1.0)
    assert four == pytest.approx(2 * 0.03 - 0.007)
    wide = dimensionless.four_sided_fanning(0.03, 0.007, 4.0)
    assert 0.03 < wide < four  # the wider the ribbed walls, the nearer to what was measured
    assert dimensionless.ribbed_pair_fanning(wide, 0.007, 4.0) == pytest.approx(0.03, rel=1e-14)


def test_pressure_drop_gives_the_blasius_line_of_a_smooth_tube():
    # water, 20 C, D 50 mm, 1 m/s: Darcy 0.0211 and 211 Pa a metre (Blasius, 0.3164 Re^-0.25)
    Re = dimensionless.reynolds(1.0, 0.05, 1.004e-6)
    darcy = 0.3164 * Re**-0.25
    fanning = dimensionless.fanning_of_pressure_drop(
        darcy / 0.05 * 998.2 / 2, 1.0, 0.05, 998.2, 1.0
    )
    assert dimensionless.darcy_of_fanning(fanning) == pytest.approx(darcy, rel=1e-12)
    assert dimensionless.fanning_of_darcy(darcy) == pytest.approx(fanning, rel=1e-12)


def test_mass_flow_and_velocity_give_one_reynolds_number():
    by_velocity = dimensionless.reynolds(10.0, 0.05, 1.8e-5 / 1.2)
    assert dimensionless.reynolds_of_mass_flow(
        1.2 * 10.0 * 0.0025, 0.05, 0.0025, 1.8e-5
    ) == pytest.approx(by_velocity)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.array([1.0, 0.0]), torch.tensor([-1.0, 2.0])])
def test_divisors_must_be_above_zero(bad):
    with pytest.raises(DataError, match="diameter_m must be above zero"):
        dimensionless.nusselt(100.0, bad, 0.025)
    assert np.isnan(dimensionless.nusselt(100.0, float("nan"), 0.025))


def test_rectangle_is_the_general_diameter():
    assert dimensionless.rectangle_diameter(0.06, 0.02) == pytest.approx(
        dimensionless.hydraulic_diameter(0.0012, 0.16)
    )


# --- bases ---


def every_basis() -> list[Basis]:
    values = [sorted(set(words.values())) for _, words in reference_basis.WORDS.values()]
    return [Basis(*choice) for choice in product(*values)]


def test_text_of_every_basis_reads_back():
    for one in every_basis():
        assert Basis.parse(str(one)) == one
    assert str(SQUARE) == "ribbed wall, projected area, smooth diameter"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "ribbed wall, projected area, smooth-channel diameter, developed, bulk properties",
            SQUARE,
        ),
        ("Ribbed-wall Nu; projected; smooth hydraulic diameter; fully developed", SQUARE),
        (
            "four-wall average, wetted area, actual diameter, mean",
            Basis("average", "true", "actual", "mean"),
        ),
        (
            "plate, mean over its length, film properties",
            Basis("smooth", "projected", "smooth", "mean", "film"),
        ),
        ("Smooth duct", Basis("smooth", "projected", "smooth")),
        (
            "smooth wall, true area, open diameter, Darcy",
            Basis("smooth", "true", "actual", friction="darcy"),
        ),
    ],
)
def test_texts_that_people_write(text, expected):
    assert Basis.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not state the wall and area and diameter; for example: ribbed wall"),
        ("ribbed wall", "does not state the area and diameter"),
        (
            "ribbed, projected, smooth",
            "'smooth' in the basis may be the wall or the diameter; add that word",
        ),
        ("ribbed wall, smooth wall, true area, actual diameter", "two statements of the wall"),
        ("ribbed wall, projectd area, smooth diameter", "did you mean 'projected area'"),
        ("ribbed smooth wall, projected area, smooth diameter", "cannot read 'ribbed smooth wall'"),
        ("wall, projected area, smooth diameter", "cannot read 'wall'"),
    ],
)
def test_doubtful_texts_stop_with_one_line(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        Basis.parse(text)
    assert "\n" not in str(error.value)


def test_unknown_values_stop():
    with pytest.raises(ConfigError, match="no wall 'rib' of a basis"):
        Basis("rib", "projected", "smooth")
    with pytest.raises(ConfigError, match="no plate 'mixed'"):
        RigFacts(plate="mixed")
    with pytest.raises(DataError, match="actual_smooth must be above zero"):
        RigFacts(actual_smooth=0.0)
    with pytest.raises(ConfigError, match="no conversion of 'nu'; known: Nu, Re"):
        convert({"nu": 1.0}, SQUARE, SQUARE)


def test_every_conversion_is_exact_there_and_back():
    values = {"Nu": 162.49, "Re": 8314.0, "friction": 0.06245, "e_D": 0.063}
    many = [one for one in every_basis() if one.extent != "developed"]
    for source, target in product(many[::7], many[::5]):
        there = convert(values, source, target, FACTS)
        back = convert(there, target, source, FACTS)
        assert back == pytest.approx(values, rel=4e-16)
        if source == target:
            assert there == values


def test_a_detour_ends_where_the_straight_way_does():
    values = {"Nu": 162.49, "Re": 8314.0, "friction": 0.06245, "e_D": 0.063}
    many = [one for one in every_basis() if one.extent != "developed"]
    for source, middle, target in zip(many, many[13:], many[5:], strict=False):
        straight = convert(values, source, target, FACTS)
        detour = convert(convert(values, source, middle, FACTS), middle, target, FACTS)
        assert detour == pytest.approx(straight, rel=1e-14)


def test_known_factors():
    darcy, wetted = (
        Basis("ribbed", "projected", "smooth", friction="darcy"),
        Basis("ribbed", "true", "smooth"),
    )
    assert convert({"friction": 0.06}, SQUARE, darcy)["friction"] == 0.24
    facts = RigFacts(true_projected=reference_basis.wetted_area_ratio(10.0))
    assert convert({"Nu": 120.0}, SQUARE, wetted, facts)["Nu"] == pytest.approx(100.0)
    for plate, ratio in (("laminar", 0.664 / 0.332), ("turbulent", 0.037 / 0.0296)):
        local, mean = (
            Basis("smooth", "projected", "smooth", extent) for extent in ("local", "mean")
        )
        assert convert({"Nu": 100.0}, local, mean, RigFacts(plate=plate))["Nu"] == pytest.approx(
            100 * ratio
        )
    average = Basis("average", "projected", "smooth")
    assert convert({"Nu": 100.0}, SQUARE, average, RigFacts(average_ribbed=0.8))[
        "Nu"
    ] == pytest.approx(80.0)
    array = convert(
        {"Nu": np.array([100.0, 50.0])},
        SQUARE,
        average,
        RigFacts(average_ribbed=np.array([0.8, 0.9])),
    )["Nu"]
    np.testing.assert_allclose(array, [80.0, 45.0])


def test_actual_diameter_keeps_coefficient_mass_flow_and_pressure_drop():
    # a square channel of 50 mm with ribs of 3 mm every 30 mm, 2 m long; by hand on both bases
    side, mass_flow, pressure_drop, viscosity, density = 0.05, 0.03, 900.0, 1.85e-5, 1.17
    facts = open_channel(0.06, 10.0, 1.0, definition="crown")
    section, wide = side * 0.044, dimensionless.hydraulic_diameter(side * 0.044, 2 * (side + 0.044))
    assert facts.open_section == pytest.approx(section / side**2)
    assert facts.actual_smooth == pytest.approx(wide / side)

    def numbers_on(area, diameter):
        drop = dimensionless.fanning_of_pressure_drop(
            pressure_drop, 2.0, diameter, density, mass_flow / density / area
        )
        Re = dimensionless.reynolds_of_mass_flow(mass_flow, diameter, area, viscosity)
        return {
            "Nu": dimensionless.nusselt(200.0, diameter, 0.026),
            "Re": Re,
            "friction": drop,
            "e_D": 0.003 / diameter,
        }

    found = convert(
        numbers_on(side**2, side), SQUARE, Basis("ribbed", "projected", "actual"), facts
    )
    assert found == pytest.approx(numbers_on(section, wide), rel=1e-12)


def test_open_volume_and_wetted_area_by_counting():
    # a channel 60 wide and 30 high, ribs 3 high and 2 wide at 45 degrees every 30 along the flow,
    # in mm, one pitch
    width, height, rib, thick, pitch = 60.0, 30.0, 3.0, 2.0, 30.0
    length = width * 2**0.5
    volume = width * height * pitch - 2 * rib * thick * length
    wetted = 2 * (width + height) * pitch + 2 * 2 * rib * length - 4 * rib * thick * 2**0.5
    facts = open_channel(rib / 40.0, 10.0, 2.0, width_e=thick / rib, alpha_deg=45.0)
    assert facts.open_section == pytest.approx(volume / (width * height * pitch))
    assert facts.actual_smooth == pytest.approx(4 * volume / wetted / 40.0)
    assert facts.true_projected_all == pytest.approx(wetted / (2 * (width + height) * pitch))
    assert facts.true_projected == pytest.approx(1 + 2 * rib * length / (width * pitch))


@pytest.mark.parametrize(
    ("change", "needs"),
    [
        ({"wall": "average"}, "average_ribbed .*1.10 to 1.41.*not guessed"),
        ({"area": "true"}, "true_projected .*wetted_area_ratio"),
        ({"diameter": "actual"}, "actual_smooth"),
        ({"properties": "film"}, "conductivity_film"),
        ({"extent": "mean"}, "depends on the entrance"),
    ],
)
def test_what_cannot_be_converted_names_what_is_missing(change, needs):
    target = Basis(**{"wall": "ribbed", "area": "projected", "diameter": "smooth", **change})
    with pytest.raises(ConfigError, match=needs) as error:
        convert({"Nu": 100.0}, SQUARE, target)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError):
        convert({"Nu": 100.0}, target, SQUARE)


def test_reynolds_number_on_the_actual_diameter_needs_its_cross_section():
    with pytest.raises(ConfigError, match="Re from .* needs open_section"):
        convert(
            {"Re": 1e4}, SQUARE, Basis("ribbed", "projected", "actual"), RigFacts(actual_smooth=0.9)
        )


def test_geometry_that_cannot_be_stops():
    for wrong, message in (
        ({"e_D": 0.5}, "gap between opposite ribs"),
        ({"P_e": 1.0}, "gap between neighbouring"),
        ({"alpha_deg": 120.0}, "rib angle 120.0"),
        ({"W_H": 0.0}, "W_H must be above zero"),
    ):
        with pytest.raises(DataError, match=message):
            open_channel(**{"e_D": 0.06, "P_e": 10.0, "W_H": 1.0, **wrong})
    with pytest.raises(ConfigError, match="no definition 'area'"):
        open_channel(0.06, 10.0, 1.0, definition="area")


def test_ratio_of_averages_is_a_laws_own_or_refused():
    ratio = reference_basis.average_ribbed_of_law("han-1988", 3.2, 3.7 * 200**0.28, 0.057)
    walls = [
        dimensionless.stanton_of_roughness(3.2, level * 200**0.28, 0.057) for level in (3.7, 4.5)
    ]
    assert ratio == pytest.approx(walls[1] / walls[0])
    with pytest.raises(ConfigError, match="no stated Gbar/G of the law 'webb-1971'"):
        reference_basis.average_ribbed_of_law("webb-1971", 3.2, 15.0, 0.057)


# --- fluids ---


def test_without_coolprop_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "CoolProp", None)
    monkeypatch.setitem(sys.modules, "CoolProp.CoolProp", None)
    with pytest.raises(
        MissingExtra, match=r'CoolProp is not installed; pip install "sciforge\[heat\]"'
    ):
        fluids.properties("Air", 300.0)


def test_importing_is_light():
    code = (
        "import sys, sciforge.heat.correlations.dimensionless, sciforge.heat.correlations.fluids; "
    )
    code += "import sciforge.heat.data.reference_basis; "
    code += "print([name for name in ('CoolProp', 'ht', 'fluids', 'pint') if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert result.stdout.strip() == "[]", result.stderr


class TestCoolProp:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("CoolProp", reason="CoolProp is not installed")

    def test_prandtl_number_of_compressed_air(self):
        air = fluids.properties("Air", np.array([300.0, 600.0, 900.0, 1200.0]), 3e6)
        np.testing.assert_allclose(air.prandtl, [0.729, 0.708, 0.726, 0.739], atol=6e-4)

    def test_air_at_room_temperature(self):
        air = fluids.properties("Air", 300.0)  # Incropera & DeWitt, table A.4
        assert air.density_kg_m3 == pytest.approx(1.1614, rel=0.015)
        assert air.kinematic_viscosity_m2_s == pytest.approx(15.89e-6, rel=0.015)
        assert air.conductivity_W_mK == pytest.approx(26.3e-3, rel=0.01)
        assert air.heat_capacity_J_kgK == pytest.approx(1007, rel=0.002)
        assert air.reference == "bulk" and isinstance(air.prandtl, float)

    def test_film_and_bulk_convert_there_and_back(self):
        bulk = fluids.properties("Air", 300.0)
        film = fluids.properties("Air", fluids.film_temperature(500.0, 300.0), reference="film")
        facts = reference_basis.film_facts(bulk, film)
        target = Basis("ribbed", "projected", "smooth", properties="film")
        found = convert({"Nu": 100.0, "Re": 1e4}, SQUARE, target, facts)
        assert found["Nu"] == pytest.approx(100 * bulk.conductivity_W_mK / film.conductivity_W_mK)
        assert found["Re"] == pytest.approx(
            1e4 * bulk.kinematic_viscosity_m2_s / film.kinematic_viscosity_m2_s
        )
        with pytest.raises(DataError, match="of the film and of the bulk"):
            reference_basis.film_facts(film, bulk)

    def test_shapes_and_missing_cells(self):
        found = fluids.properties("Air", np.array([[300.0], [np.nan]]), np.array([1e5, 1e6, 3e6]))
        assert found.prandtl.shape == (2, 3)
        assert np.isnan(found.prandtl[1]).all() and np.isfinite(found.prandtl[0]).all()

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            (("Airr", 300.0), ConfigError, "no fluid 'Airr'; did you mean 'Air'"),
            (("qq", 300.0), ConfigError, "use a name of CoolProp such as Air"),
            (("Air", 27.0), DataError, "27 K is outside 59.75 to 2000 K"),
            (("Air", np.array([300.0, 2500.0])), DataError, "2500 K is outside"),
            (("Air", 300.0, -1e5), DataError, "pressure -100000 Pa"),
            (("Xenon", 400.0), DataError, "Viscosity model is not available"),
            (("Water", 373.1242958), DataError, "Saturation pressure"),
            (("Water", np.array([300.0, 373.1242958])), DataError, "Water at 373.124 K"),
            (("Air", 300.0, 1e5, "wall"), ConfigError, "no reference temperature 'wall'"),
        ],
    )
    def test_wrong_states_stop_with_one_line(self, given, error, message):
        with pytest.raises(error, match=message) as caught:
            fluids.properties(*given)
        assert "\n" not in str(caught.value)
