"""The laws of heat hold on every kind of model, and each of them notices a model that breaks it."""

import numpy as np
import pytest
import torch

from sciforge import catalog
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.heat.correlations.library import get_correlation
from sciforge.heat.data.codec import CHANNEL, HeatCodec
from sciforge.heat.evaluation.laws import JUMP, LAWS
from sciforge.heat.evaluation.probing import kept, laws_alone, mean_log_nu, measured
from sciforge.heat.inference.estimator import NusseltLaw
from sciforge.heat.model.nusselt_net import MODELS, POWER, NusseltConfig, NusseltNet
from sciforge.heat.model.posterior import NEW_RIG, Prior
from sciforge.heat.objectives.nusselt import HEAD, Nusselt

PLAIN = NusseltConfig((POWER,))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def measurements(num: int = 12) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return points of two rigs that are some per cent off Han and Park's law."""
    draw = np.random.default_rng(1)
    plate = np.arange(num) % 4
    x_NG = np.stack(
        [
            draw.uniform(1e4, 6e4, num),
            np.full(num, 0.703),
            np.array([0.047, 0.063, 0.063, 0.078])[plate],
            np.array([10.0, 20.0, 10.0, 10.0])[plate],
            np.array([90.0, 60.0, 45.0, 90.0])[plate],
            np.array([1.0, 1.0, 2.0, 4.0])[plate],
        ],
        1,
    )
    law_N = (
        get_correlation("han-park-1988")
        .unchecked(dict(zip(CHANNEL, torch.from_numpy(x_NG.T), strict=True)))
        .numpy()
    )
    return (
        x_NG,
        law_N * np.exp(0.1 * (plate > 1) + 0.03 * draw.standard_normal(num)),
        [f"rig {p // 2}" for p in plate],
    )


def finetuned(prior: str | None = "nusselt-ribbed", num: int = 12) -> NusseltNet:
    x_NG, nusselt_N, rig = measurements(num)
    return NusseltLaw(prior, columns=CHANNEL, audit=False).fit(x_NG, nusselt_N, rig=rig).model_


def generic(num: int) -> NusseltNet:
    """A net of columns that are no channel, one of them not positive, with `num` measured
    points.
    """
    x_NG = np.random.default_rng(2).normal(size=(30, 2))
    x_NG[:, 0] = np.exp(x_NG[:, 0])
    model = (
        PLAIN.build(HeatCodec(columns=("gap", "tilt")).fitted(x_NG)).double().requires_grad_(False)
    )
    if num:
        given_NG = torch.from_numpy(x_NG[:num])
        kept(model, given_NG, 2 + 0.5 * given_NG[:, 0].log() + torch.sin(3 * given_NG[:, 1]), 1.0)
    return model


MAKERS = {
    **{
        f"fresh {name}": lambda config=config: config.build(HeatCodec())
        for name, config in MODELS.items()
    },
    "fresh smooth-duct": lambda: NusseltConfig(("smooth-duct", "smooth-plate")).build(HeatCodec()),
    "fresh with two jumps": (
        lambda: NusseltConfig(("han-1989-narrow", "han-park-1988")).build(HeatCodec())
    ),
    **{
        f"pretrained {name}": (
            lambda name=name: Checkpoint.open(catalog.locate(f"nusselt-{name}")).build()
        )
        for name in ("ribbed", "tubes", "smooth")
    },
    "finetuned": finetuned,
    "finetuned on one point": lambda: finetuned(num=1),
    "finetuned without a prior": lambda: finetuned(None),
    "fresh generic": lambda: generic(0),
    "finetuned generic": lambda: generic(20),
}


@pytest.mark.filterwarnings("ignore::sciforge.heat.inference.estimator.HeatWarning")
@pytest.mark.parametrize("name", MAKERS)
def test_laws_hold(name):
    model = MAKERS[name]().double().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for key, law in LAWS.items():
        violation, tolerance = law(model, model.codec, rng())
        assert 0 <= violation <= tolerance, key
    after = model.state_dict()
    assert before.keys() == after.keys()  # a model without points is not given any
    assert all(torch.equal(after[key], value) for key, value in before.items())


def bend(monkeypatch: pytest.MonkeyPatch, away) -> None:
    """Add something to log Nu of every model that holds points."""
    mixture = Nusselt.mixture

    def bent(self, model, batch):
        mean_CB, variance_CB, weight_C = mixture(self, model, batch)
        return mean_CB + away(model, batch["x"]), variance_CB, weight_C

    monkeypatch.setattr(Nusselt, "mixture", bent)


BROKEN = {
    "dimensions": lambda model, x_BG: torch.nan * x_BG[:, 0],
    "monotone": lambda model, x_BG: -2 * x_BG[:, 0].log(),
    "limits": lambda model, x_BG: 1e-3 * x_BG[:, 0].log() ** 2,
    "continuity": lambda model, x_BG: 0.02 * (x_BG[:, 0] > 1e4),
    "published-jumps": lambda model, x_BG: 0.05 * (x_BG[:, 5] > 1),
    "recovery": lambda model, x_BG: 0.03,
    "permutation": lambda model, x_BG: 1e-3 * model.heads[HEAD].log_N[0],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_model_that_breaks_a_law_is_caught(monkeypatch, name):
    model = finetuned("nusselt-tubes")
    bend(monkeypatch, BROKEN[name])
    violation, tolerance = LAWS[name](model, model.codec, rng())
    assert violation > tolerance


def test_a_residual_that_does_not_fade_is_caught(monkeypatch):
    model = finetuned()
    away = Prior.correlation
    monkeypatch.setattr(
        Prior, "correlation", staticmethod(lambda a, b, length: away(a * 0.01, b * 0.01, length))
    )
    model.heads[HEAD]._found = None
    violation, tolerance = LAWS["extrapolation"](model, model.codec, rng())
    assert violation > tolerance


def test_a_new_rig_that_is_too_sure_is_caught(monkeypatch):
    model, mixture = finetuned(), Nusselt.mixture

    def too_sure(self, model, batch):
        mean_CB, variance_CB, weight_C = mixture(self, model, batch)
        return mean_CB, torch.where(batch["rig"] == NEW_RIG, 0.2, 1.0) * variance_CB, weight_C

    monkeypatch.setattr(Nusselt, "mixture", too_sure)
    violation, tolerance = LAWS["intervals"](model, model.codec, rng())
    assert violation > 0.1 > tolerance


def test_published_jumps_are_shown_and_only_where_they_are_published():
    for laws, low, high in (
        # G is 1.47 times as large above W/H 1 as at it, for ribs at 30 degrees
        (("han-park-1988",), 0.25, 0.4),
        (("han-park-1988", "webb-1971"), 0.12, 0.25),
        (("webb-1971", "ravigururajan-bergles-1996"), 0.0, 1e-4),
    ):
        model = NusseltConfig(laws).build(HeatCodec()).double()
        violation, tolerance = LAWS["published-jumps"](model, model.codec, rng())
        assert low <= violation <= high and tolerance == pytest.approx(violation + JUMP, rel=1e-6)


def test_a_bare_power_law_of_one_point_may_fall_with_Re():
    # Nothing but the level is known: its prior says Nu near 1 at Re 30,000, and one point at Re
    # 15,000 turns it upside down.
    x_NG, nusselt_N, _ = measurements(1)
    x_NG[:, 0] = 1.5e4
    model = NusseltLaw(columns=CHANNEL).fit(x_NG, nusselt_N).model_
    violation, tolerance = LAWS["monotone"](model, model.codec, rng())
    slope = float(
        mean_log_nu(model, torch.from_numpy(x_NG * [2, 1, 1, 1, 1, 1]))
        - mean_log_nu(model, torch.from_numpy(x_NG))
    )
    assert (slope < 0) == (violation > tolerance)


def test_mean_without_points_is_that_of_the_prior():
    model = MODELS["tubes"].build(HeatCodec()).double().requires_grad_(False)
    model.law_K += torch.tensor([0.0, 1.0, 2.0])
    model.delta_KF[:, 0] += torch.tensor([0.1, 0.2, 0.3])
    x_NG = torch.from_numpy(measurements()[0])
    weight = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    laws_KN = model.bases(x_NG).numpy()
    assert measured(model) == 0
    assert mean_log_nu(model, x_NG).numpy() == pytest.approx(
        weight @ (laws_KN + np.array([[0.1], [0.2], [0.3]]))
    )
    assert laws_alone(model, x_NG).numpy() == pytest.approx(weight @ laws_KN)


@pytest.mark.parametrize("fit", ["exact", "descent"])
def test_mean_with_points_is_what_the_objective_predicts(fit):
    x_NG, nusselt_N, _ = measurements()
    model = MODELS["tubes"].build(HeatCodec()).double().requires_grad_(False)
    kept(model, torch.from_numpy(x_NG), torch.from_numpy(np.log(nusselt_N)), 1.0)
    if fit == "descent":
        model.heads[HEAD].solved_KF.copy_(model.heads[HEAD].centre_KF)
    model.delta_KF += 0.01  # training moves it after the points were met
    x_BG = torch.from_numpy(x_NG[:5])
    batch = {"x": x_BG, "factor": torch.ones(5), "rig": torch.zeros(5, dtype=torch.long)}
    assert mean_log_nu(model, x_BG).exp().numpy() == pytest.approx(
        Nusselt(fit=fit).predict(model, batch)["value"].numpy()
    )
