"""The posterior against brute force, and pretraining that learns a population it was drawn from."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from sciforge.core.data.store import Store, prepare
from sciforge.core.methods.fisher import fisher_information
from sciforge.core.training import loop
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.model import Model
from sciforge.core.training.run import EWC, Hardware, Run, Schedule, Subset
from sciforge.errors import ConfigError, DataError
from sciforge.heat.data.campaigns import Campaigns
from sciforge.heat.data.codec import HeatCodec
from sciforge.heat.data.measurements import Measurements
from sciforge.heat.model import posterior as module
from sciforge.heat.model.mixture import moments, quantile
from sciforge.heat.model.nusselt_net import MODELS, POWER, NusseltConfig
from sciforge.heat.model.posterior import NEW_RIG, Posterior, evidence, weigh
from sciforge.heat.model.transfer_audit import leave_one_out
from sciforge.heat.objectives.campaign_pretraining import CampaignEvidence
from sciforge.heat.objectives.nusselt import HEAD, Nusselt, keep

DOUBLE = Hardware(device="cpu", precision="float64", threads=1)


def points(num: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    columns = (
        rng.uniform(1e4, 6e4, num),
        np.full(num, 0.703),
        rng.uniform(0.03, 0.08, num),
        rng.uniform(10, 20, num),
    )
    return torch.from_numpy(
        np.stack([*columns, rng.uniform(35, 90, num), rng.uniform(1, 2, num)], 1)
    )


def net(preset: str = "tubes"):
    torch.manual_seed(0)
    model = MODELS[preset].build(HeatCodec()).double().requires_grad_(False)
    model.delta_KF += 0.05 * torch.randn_like(model.delta_KF)
    return model


def rows_of(model, num: int = 9, rigs: int = 1):
    x_NG = points(num)
    log_N = (
        model.bases(x_NG)[1]
        + 0.1
        + 0.05 * torch.randn(num, generator=torch.Generator().manual_seed(1)).double()
    )
    return model.rows(x_NG, log_N, torch.linspace(0.8, 1.5, num).double(), torch.arange(num) % rigs)


def one_choice(prior):
    """The prior with one noise, one amplitude, one rig spread and one scale, so that all can be
    computed by hand.
    """
    one = torch.ones(1, dtype=torch.float64)
    return replace(
        prior,
        noise_S=0.04 * one,
        noise_logit_S=0 * one,
        amplitude_A=0.06 * one,
        amplitude_logit_A=0 * one,
        rig_T=0.1 * one,
        scale_L=0.7 * one,
    )


def joint(prior, a, b, law: int) -> np.ndarray:
    """The covariance of log Nu, written out point by point."""
    scale = np.where(np.array(HeatCodec().features) == "Pr", 1.0, 0.7)
    spread = scale * prior.spread_KF[law].numpy()
    rig = np.minimum(0.1 * prior.rig_F.numpy(), spread)
    found = np.zeros((len(a.log_N), len(b.log_N)))
    length, plate = prior.length_D.numpy(), prior.plate_D.numpy()
    for i in range(len(a.log_N)):
        for j in range(len(b.log_N)):
            away = (a.coordinate_ND[i] - b.coordinate_ND[j]).numpy() / length

            def matern(d: np.ndarray) -> float:
                r = math.sqrt(3) * np.linalg.norm(d)
                return (1 + r) * math.exp(-r)

            same = float(a.rig_N[i] == b.rig_N[j] != NEW_RIG) * matern(away[plate])
            phi = (a.feature_NF[i] * b.feature_NF[j]).numpy()
            found[i, j] = phi @ (spread**2 - rig**2 + same * rig**2) + 0.06**2 * matern(away)
    return found


@pytest.mark.parametrize("rigs", [1, 3])
def test_posterior_is_the_textbook_one(rigs):
    model = net()
    prior, rows = one_choice(model.prior()), rows_of(model, rigs=rigs)
    asked = replace(model.rows(points(4, seed=7)), rig_N=torch.tensor([0, 0, rigs - 1, NEW_RIG]))
    found = Posterior.of(prior, rows)
    mean_CM, variance_CM = found.predict(asked)
    log_weights = []
    for place, law in enumerate(found.components.law_C.tolist()):
        noise = np.diag((0.04 * rows.factor_N.numpy()) ** 2)
        gram, cross = joint(prior, rows, rows, law) + noise, joint(prior, asked, rows, law)
        centre = (rows.base_KN[law] + rows.feature_NF @ prior.centre_KF[law]).numpy()
        left = rows.log_N.numpy() - centre
        base = (asked.base_KN[law] + asked.feature_NF @ prior.centre_KF[law]).numpy()
        mean = base + cross @ np.linalg.solve(gram, left)
        # each point is on its own plate
        one_rig = replace(asked, rig_N=torch.zeros(4, dtype=torch.long))
        own = np.diag(joint(prior, one_rig, one_rig, law))
        variance = own - np.einsum("mn,nm->m", cross, np.linalg.solve(gram, cross.T)) + 0.04**2
        assert mean_CM[place].numpy() == pytest.approx(mean, abs=1e-8)
        assert variance_CM[place].numpy() == pytest.approx(variance, abs=1e-8)
        log_weights.append(
            multivariate_normal(np.zeros(len(left)), gram).logpdf(left) + float(prior.law_K[law])
        )
    weight = np.exp(np.array(log_weights) - max(log_weights))
    assert found.components.weight_C.numpy() == pytest.approx(weight / weight.sum(), rel=1e-6)


@pytest.mark.parametrize("rigs", [1, 3])
def test_collapsed_law_is_the_mean_of_the_mixture(rigs):
    model = net("ribbed")
    rows, asked = rows_of(model, rigs=rigs), model.rows(points(20, seed=3))
    found = Posterior.of(model.prior(), rows)
    mean_CM, _ = found.predict(asked)
    whole = found.components.weight_C @ mean_CM
    assert found.collapsed().mean(asked).numpy() == pytest.approx(whole.numpy(), abs=1e-9)


def test_leaving_one_out_equals_fitting_without_it():
    model = net()
    prior, rows = model.prior(), rows_of(model, num=7)
    quick = leave_one_out(prior, rows)
    for point in range(7):
        others = torch.tensor([i for i in range(7) if i != point])
        components = weigh(prior, rows.take(others), 1e-9)
        slow = Posterior.with_components(prior, rows.take(others), components)
        asked = replace(rows.take(torch.tensor([point])), rig_N=torch.zeros(1, dtype=torch.long))
        mixture = (slow.components.weight_C, *slow.predict(asked))
        mean, spread = moments(*mixture)
        assert quick.log_N[point] == pytest.approx(float(mean), abs=1e-6)
        assert quick.spread_N[point] == pytest.approx(float(spread), rel=1e-5)
        assert quick.low_N[point] == pytest.approx(float(quantile(*mixture, 0.05)), abs=1e-5)


def test_evidence_of_padded_campaigns_is_that_of_each():
    model = net()
    rows = rows_of(model, num=8)
    prior = model.prior()
    away_KN = rows.log_N - rows.base_KN
    sizes = torch.tensor([8, 3])
    mask_BN = torch.arange(8) < sizes[:, None]
    whole = evidence(
        prior,
        rows.feature_NF.expand(2, -1, -1),
        rows.coordinate_ND.expand(2, -1, -1),
        away_KN.expand(2, -1, -1),
        mask_BN,
        torch.ones(2, 3, dtype=torch.bool),
    )
    for place, size in enumerate(sizes.tolist()):
        part = (
            rows.feature_NF[None, :size],
            rows.coordinate_ND[None, :size],
            away_KN[None, :, :size],
        )
        alone = evidence(
            prior, *part, torch.ones(1, size, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)
        )
        assert float(whole[place]) == pytest.approx(float(alone), abs=1e-9)


def test_pretraining_finds_the_population_it_was_drawn_from(tmp_path):
    """Rigs that are off by .12 in level and .06 in the exponent of one law: the prior learns
    those two numbers.
    """
    store = prepare(
        Campaigns(systems=("gnielinski",), campaigns=300, plates=1, readings=8), tmp_path / "store"
    )
    objective = CampaignEvidence(rig=0.12, noise_spread=0.0)
    # Gnielinski may not explain its own campaigns
    config = NusseltConfig(("dittus-boelter", "gnielinski"))
    run = Run(
        data=store.path,
        out=tmp_path / "run",
        objective=objective,
        model=config,
        hardware=DOUBLE,
        schedule=Schedule(
            steps=150, batch=32, lr=0.05, min_lr_ratio=0.05, weight_decay=0.0, clip=20.0
        ),
    )
    learnt = loop.train(run).build().requires_grad_(False)
    level, re = (float(learnt.log_spread_KF[0, place].exp()) for place in (0, 1))
    assert 0.08 < level < 0.3 and 0.02 < re < 0.15
    # never used: where it started
    assert float(learnt.log_spread_KF[1, 0].exp()) == pytest.approx(0.5, rel=0.3)
    shift = float(learnt.delta_KF[0, 1])
    # Gnielinski's local exponent is above .8 at low Re, below it at high
    assert -0.05 < shift < 0.1


def test_fisher_of_the_population_is_one_over_its_variance(tmp_path):
    systems = ("webb-1971", "ravigururajan-bergles-1996")
    store = prepare(Campaigns(systems=systems, campaigns=10), tmp_path / "store")
    model = MODELS["tubes"].build(HeatCodec()).double()
    objective = CampaignEvidence().resolve(store)
    found = fisher_information(model, objective, HeatCodec(), store.split("train"), examples=6)
    variance = model.log_spread_KF.detach().exp() ** 2
    assert found["delta_KF"].numpy() == pytest.approx((1 / variance).numpy(), rel=1e-9)
    assert float(found["log_spread_KF"].abs().max()) == 0


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A pretrained prior with its Fisher, and a store of 12 measured points."""
    from tiny_runs import ROOT, load_file

    folder = tmp_path_factory.mktemp("heat")
    contract = load_file(ROOT / "tests" / "heat" / "contract.py")
    _, pretraining, _ = contract.tiny(folder)
    parent = loop.train(pretraining)
    path = contract.measured(folder / "few.csv", num=24, rigs=1)
    store = prepare(Measurements(files=(path,), shares=(0.5, 0.0, 0.5)), folder / "few")
    opened = Checkpoint.open(parent.path)
    records = opened.objectives[0].examples(Store.open(pretraining.data), "train")
    fisher = fisher_information(
        opened.build().double(), opened.objectives[0], opened.codec, records, examples=16
    )
    opened.with_file("fisher-exact.safetensors", fisher, {})
    return parent.path, store


@pytest.mark.slow
def test_descent_with_ewc_comes_to_rest_at_the_exact_posterior(small, tmp_path, monkeypatch):
    parent, store = small
    for name, value in (
        ("NOISE_S", (0.035,)),
        ("AMPLITUDE_A", (0.0,)),
        ("RIG_T", (0.0,)),
        ("SCALE_L", (1.0,)),
    ):
        monkeypatch.setattr(module, name, value)
    weights = Checkpoint.open(parent).weights()
    num = len(store.split("train"))
    model = Checkpoint.open(parent).model_config.build(HeatCodec()).double().requires_grad_(False)
    known = {
        name: weights[name]
        for name, _ in model.named_parameters()
        if name not in ("noise_logit_S", "amplitude_logit_A")
    }
    model.load_state_dict(known, strict=False)
    objective = Nusselt().resolve(store)
    objective.attach(model)
    model.heads[HEAD].double()
    made = [
        objective.prepare(r, HeatCodec(), np.random.default_rng(0), False)
        for r in store.split("train")
    ]
    batch = HeatCodec().collate(made)
    keep(model, objective, batch["x"], batch["log_nu"], batch["factor"], batch["rig"])
    monkeypatch.undo()
    run = Run(
        data=store.path,
        out=tmp_path / "run",
        init=parent,
        objective=Nusselt(fit="descent", noise=0.035),
        hardware=DOUBLE,
        regularization=EWC(strength=1 / num),
        schedule=Schedule(
            steps=4000,
            batch=num,
            lr=0.02,
            kind="exponential",
            min_lr_ratio=1e-4,
            weight_decay=0.0,
            clip=None,
            betas=(0.9, 0.99),
        ),
    )
    descended = loop.train(run).weights()["delta_KF"]
    assert float((descended - model.delta_KF).abs().max()) < 2e-3
    moved = float((model.delta_KF - weights["delta_KF"]).abs().max())
    assert moved > 0.03  # and both are far from where they started


def test_a_solved_checkpoint_gives_the_same_law_as_the_net(small, tmp_path):
    parent, store = small
    schedule = Schedule(steps=1, batch=4, lr=0.0)
    run = Run(
        data=store.path,
        out=tmp_path / "run",
        init=parent,
        objective=Nusselt(),
        hardware=DOUBLE,
        schedule=schedule,
    )
    made = loop.train(run)
    metrics = Model.load(made.path, "cpu").evaluate(store, split="test")
    assert metrics["median_error"] < 10 and 50 < metrics["coverage"] <= 100
    assert sum(made.body["loop"]["start"]["laws"].values()) == pytest.approx(1)


def test_few_points_of_a_store_are_enough(small, tmp_path):
    parent, store = small
    run = Run(
        data=store.path,
        out=tmp_path / "run",
        init=parent,
        objective=Nusselt(),
        hardware=DOUBLE,
        schedule=Schedule(steps=1, batch=4, lr=0.0),
        subset=Subset(3),
    )
    found = loop.train(run).build().heads[HEAD]
    assert int(found.count) == 3 and len(found.log_N) == 12


def test_a_law_is_refused_by_name(small, tmp_path):
    parent, store = small
    run = Run(
        data=store.path,
        out=tmp_path / "run",
        init=parent,
        objective=Nusselt(laws=("web-1971",)),
        hardware=DOUBLE,
        schedule=Schedule(steps=1),
    )
    with pytest.raises(ConfigError, match="did you mean 'webb-1971'"):
        loop.train(run)
    with pytest.raises(DataError, match="prepare campaigns"):
        CampaignEvidence().resolve(store)


def test_residual_fades_and_pure_power_law_is_recovered():
    model = NusseltConfig((POWER,)).build(HeatCodec()).double().requires_grad_(False)
    x_NG = points(60)
    exponents = torch.tensor([4.0, 0.7, 0.4, 0.3, -0.2, 0.1, 0.15, 0.05, -0.1]).double()
    log_N = HeatCodec().featured(x_NG) @ exponents
    objective = Nusselt(points=60)
    objective.attach(model)
    model.heads[HEAD].double()
    keep(model, objective, x_NG, log_N, torch.ones(60).double(), torch.zeros(60, dtype=torch.long))
    varying = [0, 1, 3, 4, 5, 6, 7, 8]  # Pr does not vary in the points
    assert model.delta_KF[0, varying].numpy() == pytest.approx(exponents[varying].numpy(), abs=0.02)
    batch = {
        "x": points(50, seed=9),
        "factor": torch.ones(50).double(),
        "rig": torch.zeros(50, dtype=torch.long),
    }
    said = objective.predict(model.eval(), batch)["value"]
    true = (HeatCodec().featured(batch["x"]) @ exponents).exp()
    assert float((said / true - 1).abs().max()) < 0.005
