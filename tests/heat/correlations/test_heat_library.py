"""The law library: smooth laws against ht, laws without jumps, ranges that warn once, and
hostile input.
"""

import importlib
import warnings

import pytest
import torch
from heat_points import column, drawn, point

from sciforge.errors import ConfigError, DataError
from sciforge.heat.correlations.correlation import (
    ValidityWarning,
    outside_counts,
    reset_outside_counts,
)
from sciforge.heat.correlations.groups import GROUPS
from sciforge.heat.correlations.library import CORRELATIONS, get_correlation, table
from sciforge.heat.correlations.smooth import (
    gnielinski,
    petukhov_fanning,
    petukhov_kirillov_popov,
    smooth_duct,
    smooth_fanning,
)
from sciforge.heat.data.reference_basis import Basis

# --- smooth laws ---


@pytest.mark.parametrize(
    ("name", "module", "function", "options"),
    [
        ("dittus-boelter", "conv_internal", "turbulent_Dittus_Boelter", {}),
        ("dittus-boelter-cooling", "conv_internal", "turbulent_Dittus_Boelter", {"heating": False}),
        ("colburn", "conv_internal", "turbulent_Colburn", {}),
        ("sieder-tate", "conv_internal", "turbulent_Sieder_Tate", {}),
        ("churchill-ozoe", "conv_external", "Nu_horizontal_plate_laminar_Churchill_Ozoe", {}),
        ("schlichting", "conv_external", "Nu_horizontal_plate_turbulent_Schlichting", {}),
    ],
)
def test_smooth_laws_equal_those_of_ht(name, module, function, options):
    pytest.importorskip("ht", reason="ht is not installed")
    reference = getattr(importlib.import_module(f"ht.{module}"), function)
    points = drawn(name)
    expected = [
        reference(Re, Pr, **options)
        for Re, Pr in zip(points["Re"].tolist(), points["Pr"].tolist(), strict=True)
    ]
    torch.testing.assert_close(
        get_correlation(name).unchecked(points), column(*expected), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (gnielinski, "turbulent_Gnielinski"),
        (petukhov_kirillov_popov, "turbulent_Petukhov_Kirillov_Popov"),
    ],
)
def test_laws_with_a_friction_factor_equal_those_of_ht_for_the_same_one(ours, name):
    internal = pytest.importorskip("ht.conv_internal", reason="ht is not installed")
    points = drawn("petukhov-kirillov-popov")
    fanning = petukhov_fanning(points["Re"])
    triples = zip(points["Re"].tolist(), points["Pr"].tolist(), (4 * fanning).tolist(), strict=True)
    expected = column(*(getattr(internal, name)(*triple) for triple in triples))
    torch.testing.assert_close(
        ours(points["Re"], points["Pr"], fanning), expected, rtol=1e-12, atol=0
    )


def test_laminar_laws_are_the_constants_and_the_plate_laws_the_textbook_ones():
    pr = point(Re=1e5, Pr=0.7)
    assert get_correlation("laminar-wall").unchecked(pr).item() == pytest.approx(3.66)
    assert get_correlation("laminar-flux").unchecked(pr).item() == pytest.approx(4.36, rel=1e-3)
    assert get_correlation("laminar-flux").fanning(
        point(Re=1000.0, Pr=0.7)
    ).item() == pytest.approx(0.016)
    mean, local = (
        get_correlation(f"plate-laminar-{extent}")(pr).item() for extent in ("mean", "local")
    )
    assert mean == pytest.approx(186.43785, rel=1e-6)  # ht's Baehr-Stephan at this point
    assert mean == pytest.approx(2 * local)
    turbulent = point(Re=2e6, Pr=0.7)
    mean, local = (
        get_correlation(f"plate-turbulent-{extent}")(turbulent).item()
        for extent in ("mean", "local")
    )
    assert mean == pytest.approx(1.25 * local)
    # The mixed law is the laminar one up to Re 5e5 (to 1 %: 871 is rounded) and nearly the
    # turbulent one far on.
    at_transition = get_correlation("plate-mixed")(point(Re=5e5, Pr=0.7)).item()
    assert at_transition == pytest.approx(0.664 * 5e5**0.5 * 0.7 ** (1 / 3), rel=0.01)


def test_smooth_laws_name_their_differences_at_the_points_of_the_literature():
    air = {"Re": column(1e4, 1e5), "Pr": column(0.7, 0.7)}
    assert get_correlation("dittus-boelter")(air).tolist() == pytest.approx([31.6, 199.4], rel=2e-3)
    # 29.2 and 179 with Colebrook's friction factor of a smooth tube, some 2 % below Petukhov's at
    # Re 1e4.
    assert get_correlation("gnielinski")(air).tolist() == pytest.approx([29.2, 179.0], rel=0.025)


def test_sieder_tate_takes_the_viscosity_ratio_where_it_is_given():
    law = get_correlation("sieder-tate")
    base = law(point(Re=1e5, Pr=1.2)).item()
    assert base == pytest.approx(286.9178136793052)
    assert law(point(Re=1e5, Pr=1.2, mu_ratio=0.01 / 0.067)).item() == pytest.approx(
        219.84016455766044
    )


@pytest.mark.parametrize("name", ["smooth-duct", "smooth-duct-flux"])
@pytest.mark.parametrize("pr", [0.5, 0.7, 1.0, 7.0, 50.0])
def test_the_continuous_duct_law_never_jumps(name, pr):
    Re = 500 * 1.001 ** torch.arange(7610, dtype=torch.float64)  # to 1e6 in steps of 0.1 %
    law = get_correlation(name)
    for value in (law.unchecked({"Re": Re, "Pr": pr}), smooth_fanning(Re)):
        assert (value[1:] / value[:-1] - 1).abs().max() < 0.01
    nusselt = law.unchecked({"Re": Re, "Pr": pr})
    assert (nusselt.diff() >= 0).all()
    laminar = {"smooth-duct": 3.66, "smooth-duct-flux": 48 / 11}[name]
    assert (nusselt[Re < 2300] == laminar).all()
    turbulent = Re > 4000
    expected = get_correlation("gnielinski").unchecked({"Re": Re, "Pr": pr})
    torch.testing.assert_close(nusselt[turbulent], expected[turbulent], rtol=1e-14, atol=0)


@pytest.mark.parametrize("end", [2300.0, 4000.0])
@pytest.mark.parametrize(
    "law", [lambda Re: smooth_duct(Re, torch.full_like(Re, 0.7)), smooth_fanning]
)
def test_the_continuous_duct_law_has_a_continuous_slope(law, end):
    Re = column(end - 1e-6, end + 1e-6).requires_grad_()
    before, after = torch.autograd.grad(law(Re).sum(), Re)[0].tolist()
    assert before == pytest.approx(after, rel=1e-6, abs=1e-10)
    value = law(column(end - 1e-9, end + 1e-9))
    assert value[0].item() == pytest.approx(value[1].item(), rel=1e-9)


def test_transition_takes_turbulent_values_at_its_end_and_not_at_the_local_reynolds_number():
    # Blended with the local Gnielinski value, Nu at mid-transition would be some 5.6; with that of
    # Re 4000 it is 7.9.
    assert get_correlation("smooth-duct")(point(Re=3150.0, Pr=0.7)).item() == pytest.approx(
        7.88, abs=0.01
    )


def test_the_continuous_plate_law_lies_between_sum_and_larger_of_its_two_branches():
    Re = torch.logspace(1, 7, 2000, dtype=torch.float64)
    value = get_correlation("smooth-plate").unchecked({"Re": Re, "Pr": 0.7})
    laminar = 0.664 * Re**0.5 * 0.7 ** (1 / 3)
    turbulent = get_correlation("schlichting").unchecked({"Re": Re, "Pr": 0.7})
    assert (value >= torch.maximum(laminar, turbulent)).all() and (
        value <= laminar + turbulent
    ).all()
    slope = value.log().diff() / Re.log().diff()
    assert slope.min() > 0.5 and slope.max() < 0.85 and slope.diff().abs().max() < 1e-3
    assert value[-1].item() == pytest.approx(turbulent[-1].item(), rel=0.03)


# --- what holds of every law ---


@pytest.mark.parametrize("name", CORRELATIONS)
def test_every_law_is_finite_rising_and_differentiable_in_its_range(name):
    law, points = get_correlation(name), drawn(name)
    inside = law.inside(points)
    assert inside.double().mean() > 0.5
    points = {group: value[inside].requires_grad_() for group, value in points.items()}
    value = law(points)
    assert value.isfinite().all() and (value > 0).all()
    slopes = torch.autograd.grad(value.sum(), list(points.values()), allow_unused=True)
    assert all(slope is None or slope.isfinite().all() for slope in slopes)
    slope = slopes[0] * points["Re"] / value  # the exponent of Re
    assert (slope >= 0).all() and (slope < (11 if "smooth-duct" in name else 2)).sum() >= 0.9 * len(
        slope
    )
    if law.friction is not None:
        assert law.fanning(points).isfinite().all() and (law.fanning(points) > 0).all()


@pytest.mark.parametrize("name", CORRELATIONS)
def test_single_precision_gives_the_same(name):
    law, points = get_correlation(name), drawn(name)
    exact, single = (
        law.unchecked(points),
        law.unchecked({group: value.float() for group, value in points.items()}),
    )
    assert single.dtype == torch.float32
    inside = law.inside(points)
    smallest = 1e-3 if name == "plate-mixed" else 1e-4  # a difference of two near numbers
    torch.testing.assert_close(single.double()[inside], exact[inside], rtol=smallest, atol=0)
    assert law.inside({group: value.float() for group, value in points.items()})[inside].all()


@pytest.mark.parametrize("name", CORRELATIONS)
def test_numbers_that_are_not_finite_give_nan(name):
    base = {"Pr": 0.7, "e_D": 0.0625}
    for bad in (float("nan"), float("inf"), -float("inf")):
        points = {**base, "Re": column(3e4, bad)}
        value = get_correlation(name).unchecked(points)
        assert value[1].isnan() and value[0].isfinite()
        assert get_correlation(name).unchecked({"Re": 3e4, "Pr": bad, "e_D": 0.0625}).isnan()
        assert not get_correlation(name).inside(points)[1]


@pytest.mark.parametrize("name", CORRELATIONS)
def test_every_law_says_where_it_comes_from(name):
    law = get_correlation(name)
    assert law.source and law.basis and law.reliability in ("read", "recalled")
    assert {"Re", "Pr"} <= set(law.box) <= set(GROUPS)
    for group, (low, high) in law.box.items():
        assert GROUPS[group].low <= low <= high <= GROUPS[group].high
    if law.kind != "plate":
        assert Basis.parse(law.basis).wall == ("ribbed" if law.ribs else "smooth")
    assert law.accuracy is None or law.accuracy_says != "not stated"


# --- ranges, counts, hostile input ---


@pytest.fixture(autouse=True)
def _no_counts():
    reset_outside_counts()
    yield
    reset_outside_counts()


def test_a_law_warns_once_with_counts_and_then_only_counts():
    law = get_correlation("gnielinski")
    points = {"Re": column(1e3, 1e4, 1e5, 1e9), "Pr": column(0.7, 0.7, 1e4, 0.7)}
    with pytest.warns(
        ValidityWarning,
        match=r"gnielinski: 3 of 4 points .*Re 2300 to 5e\+06: 2, Pr 0.5 to 2000: 1",
    ) as seen:
        law(points)
    assert len(seen) == 1 and seen[0].filename == __file__
    law(points)  # a warning would be an error here
    with torch.no_grad():
        law(points)
    assert outside_counts() == {"gnielinski": 9}
    assert law.inside(points).tolist() == [False, True, False, False]
    with pytest.warns(ValidityWarning, match="colburn"):
        get_correlation("colburn")(points)
    reset_outside_counts()
    assert outside_counts() == {}
    with pytest.warns(ValidityWarning):
        law(points)


def test_no_warning_inside_nor_unchecked_and_edges_are_inside():
    law = get_correlation("han-zhang-lee-1991-60-parallel")
    inside = {"Re": column(1.5e4, 9e4), "Pr": 0.703, "e_D": 0.0625, "alpha_deg": 60.0}
    law(inside)
    law({name: torch.as_tensor(value, dtype=torch.float32) for name, value in inside.items()})
    law.unchecked({**inside, "Re": 1e9})
    assert outside_counts() == {}


def test_conditions_on_products_of_groups_are_checked_too():
    low_e_plus = {"Re": 9e3, "Pr": 0.703, "e_D": 0.021}
    with pytest.warns(ValidityWarning, match=r"han-1988: 1 of 1 points .*e\+ >= 50: 1"):
        get_correlation("han-1988")(low_e_plus)
    with pytest.warns(ValidityWarning, match=r"p/d 0.1 to 7: 1"):
        get_correlation("ravigururajan-bergles-1996")(
            {"Re": 3e4, "Pr": 0.7, "e_D": 0.01, "P_e": 5.0}
        )


def test_points_are_numbers_arrays_or_tensors_of_fitting_shapes():
    law = get_correlation("dittus-boelter")
    assert law({"Re": 3e4, "Pr": 0.7}).dtype == torch.float64
    assert law({"Re": [2e4, 3e4], "Pr": 0.7}).shape == (2,)
    assert law({"Re": torch.tensor([20000, 30000]), "Pr": 0.7}).dtype == torch.float64
    assert law({"Re": column(2e4, 3e4), "Pr": 0.7, "rig": ["a", "b", "c"]}).shape == (2,)
    empty = torch.zeros(0, dtype=torch.float64)
    assert law({"Re": empty, "Pr": empty}).shape == (0,)
    with pytest.raises(DataError, match="no 'Pr'"):
        law({"Re": column(3e4)})
    with pytest.raises(DataError, match="do not fit .*Re \\(2,\\)"):
        law({"Re": column(2e4, 3e4), "Pr": column(0.7, 0.7, 0.7)})
    with pytest.raises(DataError, match="'Pr' is not numbers"):
        law({"Re": column(3e4), "Pr": "air"})


def test_impossible_points_give_nan_and_no_crash():
    for name in CORRELATIONS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ValidityWarning)
            value = get_correlation(name)(
                {
                    "Re": column(-1e4, 0.0, 1e4),
                    "Pr": column(-0.7, 0.0, 0.7),
                    "e_D": 0.4,
                    "P_e": 1e-3,
                }
            )
        assert value.shape == (3,)


def test_unknown_names_and_missing_parts_are_one_line():
    with pytest.raises(ConfigError, match="did you mean 'gnielinski'"):
        get_correlation("gnielinsky")
    with pytest.raises(ConfigError, match="schlichting has no friction factor"):
        get_correlation("schlichting").fanning({"Re": 1e6, "Pr": 0.7})
    with pytest.raises(ConfigError, match="no average over four walls"):
        get_correlation("webb-1971").wall_average({"Re": 1e6, "Pr": 0.7})


def test_the_table_lists_every_law_in_order():
    rows = table().rows
    assert [row[0] for row in rows] == list(CORRELATIONS) and len(rows) == len(
        {row[0] for row in rows}
    )
    assert {
        "dittus-boelter",
        "gnielinski",
        "ravigururajan-bergles-1996",
        "webb-1971",
        "han-1988",
        "han-park-1988",
    } <= {*CORRELATIONS}
    assert {"lau-1990-v45", "han-zhang-lee-1991-60-parallel", "smooth-duct", "smooth-plate"} <= {
        *CORRELATIONS
    }


@pytest.mark.parametrize("name", CORRELATIONS)
def test_a_law_stays_on_the_device_of_its_points(name):
    law, there = get_correlation(name), torch.zeros(5, device="meta")
    for value in (law.unchecked({"Re": there, "Pr": 0.7}), law.inside({"Re": there, "Pr": 0.7})):
        assert value.device.type == "meta" and value.shape == (5,)
