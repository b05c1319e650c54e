"""A fitted law in readable forms: exponents, formula, LaTeX, Python source; and which readings
to take next.
"""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from sciforge import catalog
from sciforge.errors import ConfigError, DataError
from sciforge.heat.correlations.correlation import Correlation
from sciforge.heat.correlations.library import CORRELATIONS
from sciforge.heat.data.codec import CHANNEL
from sciforge.heat.data.readers import read_table
from sciforge.heat.inference.estimator import NusseltLaw
from sciforge.heat.inference.experiment_design import joint, next_experiment
from sciforge.heat.inference.fitted_law import FittedLaw
from sciforge.heat.inference.formula import exponents, formula, latex
from sciforge.heat.inference.python_source import to_python
from sciforge.heat.inference.tracing import written

pytestmark = pytest.mark.filterwarnings("ignore::sciforge.heat.inference.estimator.HeatWarning")
AWKWARD = ('flow "rate"', 'x"""\nimport os\nos.abort()\n"""', "back\\slash", "class", "math")


@pytest.fixture(scope="module")
def measured() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    table = read_table(catalog.fetch("ribbed-channel"), warn=False)
    return np.stack([table.points[name] for name in CHANNEL], 1), table.nu, table.rig


@pytest.fixture(scope="module")
def law(measured) -> NusseltLaw:
    x_NG, nusselt_N, _ = measured
    some = np.random.default_rng(0).permutation(len(x_NG))[:12]
    return NusseltLaw.pretrained("ribbed", audit=False).fit(x_NG[some], nusselt_N[some])


def spread_points(count: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    columns = [
        np.exp(rng.uniform(math.log(6e3), math.log(1e5), count)),
        rng.uniform(0.6, 1.0, count),
    ]
    columns += [
        rng.uniform(0.02, 0.1, count),
        rng.uniform(8, 25, count),
        rng.choice([30.0, 47.0, 60.0, 90.0], count),
    ]
    return np.stack([*columns, rng.choice([1.0, 2.0, 4.0], count)], 1)


def by_subprocess(source: str, x_MG: np.ndarray, tmp_path) -> np.ndarray:
    """Run exported source with nothing but the standard library and return its Nusselt numbers."""
    script = (
        f"{source}\nimport json, sys\nprint(json.dumps([nusselt(*row) for row in"
        " json.load(sys.stdin)]))\n"
    )
    path = tmp_path / "law.py"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "-S", path],
        input=json.dumps(x_MG.tolist()),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout), float)


def power_law(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x_N2 = np.exp(rng.uniform(np.log([1e4, 0.6]), np.log([1e5, 9.0]), (count, 2)))
    return x_N2, 0.023 * x_N2[:, 0] ** 0.8 * x_N2[:, 1] ** 0.4


def test_a_pure_power_law_comes_back():
    x_N2, nusselt_N = power_law()
    for columns in (("Re", "Pr"), ("speed", "fluid")):
        fitted = NusseltLaw(columns=columns).fit(x_N2, nusselt_N)
        found = {n.group: n for n in fitted.exponents().of("exponent")}
        assert set(found) == set(columns)  # groups that never vary are in the level
        for name, true in zip(columns, (0.8, 0.4), strict=True):
            assert found[name].value == pytest.approx(true, abs=1e-3)
            assert found[name].low < true < found[name].high and found[name].source == "data"
        first = fitted.formula().splitlines()[0]
        assert first == f"Nu = 0.023 {columns[0]}^0.80 {columns[1]}^0.40"


def test_exponents_are_slopes_of_the_prediction(law):
    """Without the residual, slopes of the law by finite differences at the centre are the
    exponents.
    """
    view = FittedLaw.of(law)
    tangent = law.exponents()
    numbers = {n.name: n for n in tangent.numbers}
    at_G = view.centre()
    mean_CF, _ = view.corrections(at_G)
    c = view.posterior.components

    def law_part(x_G: torch.Tensor) -> float:
        log_C = view.net.bases(x_G)[c.law_C] + mean_CF @ view.codec.featured(x_G)
        return float(c.weight_C @ log_C)

    for place, name in ((0, "Re"), (1, "Pr"), (2, "e_D"), (3, "P_e")):
        up_G, down_G = at_G.clone(), at_G.clone()
        up_G[place], down_G[place] = at_G[place] * 1.0001, at_G[place] / 1.0001
        slope = (law_part(up_G) - law_part(down_G)) / (2 * math.log(1.0001))
        assert numbers[name].value == pytest.approx(slope, abs=1e-6)
    assert numbers["Nu"].value == pytest.approx(math.exp(law_part(at_G)))
    for angle in (60, 30):
        there_G = at_G.clone()
        there_G[4] = angle
        assert numbers[f"f({angle})"].value == pytest.approx(
            math.exp(law_part(there_G) - law_part(at_G))
        )
        assert (
            numbers[f"f({angle})"].low < numbers[f"f({angle})"].value < numbers[f"f({angle})"].high
        )


def test_what_never_varied_is_from_the_prior(measured):
    """One plate in air: Re is learnt, the plate's and the fluid's exponents are the prior's."""
    x_NG, nusselt_N, _ = measured
    plate = np.flatnonzero((x_NG[:, 2:] == x_NG[0, 2:]).all(1))
    few = {
        n.name: n
        for n in (
            NusseltLaw.pretrained("ribbed", audit=False)
            .fit(x_NG[plate], nusselt_N[plate])
            .exponents()
            .numbers
        )
    }
    assert few["Re"].source == "data"
    assert {few[name].source for name in ("Pr", "e_D", "P_e", "W_H", "f(60)", "f(30)")} == {"prior"}


def test_covariance_of_corrections_is_one(law):
    """Plates share only part of what is learnt; a covariance that forgets that is none."""
    view = FittedLaw.of(law)
    _, covariance_CFF = view.corrections(view.centre())
    assert float(torch.linalg.eigvalsh(covariance_CFF).min()) > -1e-12


def test_formula_passes_through_the_centre_and_says_what_it_is(law):
    text, tangent = law.formula(), law.exponents()
    first, spans, what, laws = text.splitlines()
    terms = first.removeprefix("Nu = ").split(" f(alpha)")[0].split()
    named = {"Re": "Re", "Pr": "Pr", "(e/D)": "e_D", "(P/e)": "P_e", "(W/H)": "W_H"}
    value = float(terms[0])
    for term in terms[1:]:
        name, power = term.split("^")
        value *= tangent.centre[named[name]] ** float(power)
    assert value == pytest.approx(tangent.of("level")[0].value, rel=0.005)
    assert (
        "tangent" in what
        and "12 measured points" in what
        and "residual" in what
        and "(prior)" in spans
    )
    assert "han-park-1988" in laws
    assert tangent.table().text().startswith("group")


def test_smooth_walls_have_no_rib_exponents():
    Re = np.geomspace(1e4, 1e5, 6)
    smooth = NusseltLaw.pretrained("smooth", audit=False).fit(
        {"Re": Re, "Pr": np.full(6, 0.7)}, 0.022 * Re**0.8
    )
    assert "(e/D)" not in smooth.formula() and "f(alpha)" not in smooth.formula()
    assert smooth.exponents().of("exponent")[0].value == pytest.approx(0.8, abs=0.02)


def test_latex_of_awkward_names_cannot_escape():
    x_N2, nusselt_N = power_law()
    fitted = NusseltLaw(columns=(r"\input{x}", "50%_#a$")).fit(x_N2, nusselt_N)
    text = latex(fitted)
    body = text.split(r"\begin{equation}")[1]
    assert r"\input" not in body and r"50\%\_\#a\$" in body
    assert all(line.startswith("%") for line in text.split(r"\begin{equation}")[0].splitlines())
    assert body.count("{") == body.count("}")


def test_python_source_gives_the_same_numbers(law, tmp_path):
    x_MG = spread_points(200)
    ours = law.predict(x_MG)
    theirs = by_subprocess(law.to_python(), x_MG, tmp_path)
    assert np.max(np.abs(theirs / ours - 1)) < 1e-9


@pytest.mark.parametrize(
    "prior, laws", [("nusselt-tubes", None), ("nusselt-smooth", None), (None, None)]
)
def test_python_source_of_other_priors(measured, tmp_path, prior, laws):
    x_NG, nusselt_N, rig = measured
    fitted = NusseltLaw(prior=prior, columns=CHANNEL, laws=laws, audit=False).fit(
        x_NG[::9], nusselt_N[::9]
    )
    x_MG = spread_points(60)
    assert np.allclose(
        by_subprocess(fitted.to_python(), x_MG, tmp_path), fitted.predict(x_MG), rtol=1e-9
    )
    rigs = NusseltLaw(prior=prior, columns=CHANNEL, audit=False).fit(
        x_NG[::9], nusselt_N[::9], rig=rig[::9]
    )
    assert np.allclose(
        by_subprocess(rigs.to_python(), x_MG, tmp_path), rigs.predict(x_MG), rtol=1e-9
    )


def test_names_of_columns_do_not_become_code(tmp_path):
    rng = np.random.default_rng(0)
    x_NG = rng.uniform(1, 2, (10, len(AWKWARD)))
    x_NG[:, 2] -= 1.5  # a column that may be negative enters linearly
    fitted = NusseltLaw(columns=AWKWARD).fit(x_NG, 5 * x_NG[:, 0] ** 0.5 * np.exp(0.3 * x_NG[:, 2]))
    source = to_python(fitted)
    assert np.allclose(by_subprocess(source, x_NG, tmp_path), fitted.predict(x_NG), rtol=1e-9)
    assert "\nimport os" not in source
    rate = fitted.exponents().of("rate")[0]
    assert rate.value == pytest.approx(0.3, abs=0.01) and "exp(0." in formula(fitted)
    assert len(formula(fitted).splitlines()) == 3


def test_source_refuses_what_physics_does_and_gives_nan_where_no_law_holds(law):
    space: dict = {}
    exec(law.to_python(), space)
    with pytest.raises(ValueError, match="Re must lie in"):
        space["nusselt"](-1.0, 0.7, 0.06)
    with pytest.raises(TypeError):  # e/D varied: forgetting it must not mean a smooth wall
        space["nusselt"](1e4, 0.7)
    assert math.isnan(space["nusselt"](1e4, 0.7, 0.0))


@pytest.mark.parametrize("name", CORRELATIONS)
def test_every_law_of_the_library_can_be_written(name):
    """On points in and far out of its range, where torch gives NaN too."""
    from sciforge.heat.inference.python_source import _HELPERS

    published: Correlation = CORRELATIONS[name]
    space: dict = {}
    exec(f"import math\n{_HELPERS}\n{written('law', published)}", space)
    x_MG = np.concatenate(
        [
            spread_points(40),
            [[5.0, 0.7, 0.06, 10, 60, 1], [3e3, 7, 0.2, 2, 90, 0.3], [1e5, 0.7, 0, 10, 90, 1]],
        ]
    )
    points = dict(zip(CHANNEL, torch.from_numpy(x_MG).unbind(1), strict=True))
    expected = published.unchecked(points).numpy()
    found = np.array([space["law"](*row) for row in x_MG.tolist()], float)
    assert np.allclose(found, expected, rtol=1e-12, equal_nan=True)


# --- the next experiment ---


def test_next_experiment_reduces_the_std(law):
    x_MG = spread_points(60)
    found = law.next_experiment(x_MG, 5)
    left = [found.before, *(r.remaining for r in found.readings)]
    assert all(after < before for before, after in zip(left, left[1:], strict=False))
    assert len({r.place for r in found.readings}) == 5
    assert "std of all after" in found.table().text()


def test_the_first_choice_is_the_best_of_all(law):
    """By brute force: every candidate as a reading, its value as expected, by the formula of the
    conditional covariance.
    """
    x_MG = spread_points(25)
    view = FittedLaw.of(law)
    _, joint_MM = joint(view, view.rows(torch.from_numpy(x_MG)))
    c = view.posterior.components
    noise = float(c.weight_C @ c.noise_C**2)
    left = []
    for place in range(len(x_MG)):
        seen = joint_MM + 0
        taken = torch.linalg.solve(
            seen[place : place + 1, place : place + 1] + noise, seen[place : place + 1]
        )
        left.append(float((seen - seen[:, place : place + 1] @ taken).diagonal().mean()))
    best = next_experiment(law, x_MG).readings[0]
    assert best.place == int(np.argmin(left)) and best.remaining == pytest.approx(
        math.sqrt(min(left))
    )


def test_joint_variance_is_that_of_the_mixture(law):
    view = FittedLaw.of(law)
    rows = view.rows(torch.from_numpy(spread_points(8)))
    c = view.posterior.components
    mean_CM, variance_CM = view.posterior.predict(rows)
    mean_M, joint_MM = joint(view, rows)
    whole_M = c.weight_C @ (variance_CM - c.noise_C[:, None] ** 2 + (mean_CM - mean_M) ** 2)
    assert torch.allclose(joint_MM.diagonal(), whole_M, rtol=1e-6)
    assert float(torch.linalg.eigvalsh(joint_MM).min()) > -1e-10


def test_an_unmeasured_exponent_is_asked_for(measured):
    """Points at one Reynolds number: the next is far from it."""
    x_NG, nusselt_N, _ = measured
    near = np.argsort(np.abs(np.log(x_NG[:, 0] / 3e4)))[:5]
    fitted = NusseltLaw(columns=CHANNEL).fit(np.repeat(x_NG[near[:1]], 3, 0), nusselt_N[near[:3]])
    Re = np.geomspace(1e4, 9e4, 9)
    asked = {"Re": Re, **{name: x_NG[near[0], g] for g, name in enumerate(CHANNEL) if name != "Re"}}
    first = fitted.next_experiment(asked).readings[0]
    assert first.groups["Re"] in (Re[0], Re[1], Re[-2], Re[-1]) and first.plate == "measured"


def test_next_experiment_refuses(law):
    with pytest.raises(ConfigError, match="give 1 to 4"):
        law.next_experiment(spread_points(4), 5)
    with pytest.raises(DataError, match="candidate 0: .* smooth wall"):
        law.next_experiment({"Re": [1e4], "Pr": [0.7]})
    with pytest.raises(DataError, match="e_D is 3"):
        next_experiment(law, {"Re": [1e4], "Pr": [0.7], "e_D": [3.0]})
    with pytest.raises(DataError, match="no column 'Pr'"):
        next_experiment(law, {"Re": [1e4]})


def test_exponents_need_a_fitted_law():
    with pytest.raises(Exception, match="not fitted"):
        exponents(NusseltLaw())
