"""Virtual rigs stay inside the laws they obey, and the objective that learns from them is honest
about their source.
"""

import numpy as np
import pytest
import torch

from sciforge.core.data import sampling
from sciforge.core.data.store import prepare
from sciforge.core.training.distributed import Engine
from sciforge.errors import ConfigError, DataError
from sciforge.heat.correlations.library import CORRELATIONS, get_correlation
from sciforge.heat.data.campaigns import Campaigns
from sciforge.heat.data.codec import CHANNEL, HeatCodec
from sciforge.heat.model import posterior
from sciforge.heat.model.nusselt_net import MODELS, NusseltConfig
from sciforge.heat.objectives.campaign_pretraining import CampaignEvidence

SYSTEMS = ("han-park-1988", "webb-1971", "gnielinski", "lau-1990-90+lau-1990-v45")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return prepare(
        Campaigns(systems=SYSTEMS, campaigns=60), tmp_path_factory.mktemp("heat") / "store"
    )


def test_every_plate_lies_inside_its_law_and_has_its_nusselt_number(store):
    assert len(store) == 240 and store.meta["systems"] == list(SYSTEMS)
    for record in (store[i] for i in range(len(store))):
        points = dict(zip(CHANNEL, torch.from_numpy(np.array(record["x"])).unbind(1), strict=True))
        said = torch.from_numpy(np.array(record["log_nu"])).exp()
        laws = [get_correlation(name) for name in record["system"].split("+")]
        found = torch.stack([(law.unchecked(points) / said - 1).abs() < 1e-9 for law in laws])
        inside = torch.stack([law.inside(points) for law in laws])
        assert bool((found & inside).any(0).all()), record["system"]


def test_a_rig_has_one_fluid_and_smooth_walls_have_no_ribs(store):
    for record in (store[i] for i in range(len(store))):
        x_NG = np.array(record["x"])
        assert np.ptp(x_NG[:, 1]) < 1e-12
        if record["system"] == "gnielinski":
            assert np.allclose(x_NG[:, 2:], [0, 10, 90, 1], rtol=1e-12)
        if record["system"] == "webb-1971":
            assert np.allclose(x_NG[:, 4:], [90, 1], rtol=1e-12)


def test_campaigns_are_the_same_whoever_makes_them(store, tmp_path):
    again = prepare(Campaigns(systems=SYSTEMS, campaigns=60), tmp_path / "again", workers=2)
    assert again.digests() == store.digests()


def test_a_law_may_not_explain_its_own_campaigns(store):
    codec, model = HeatCodec(), MODELS["ribbed"].build(HeatCodec()).double()
    objective = CampaignEvidence().resolve(store)
    records = store.split("train")
    made = [
        objective.prepare(records[i], codec, np.random.default_rng(i), True)
        for i in range(len(records))
    ]
    _, _, law_BK = objective._seen(model, codec.collate(made))
    for record, law_K in zip(records, law_BK, strict=True):
        own = [name in record["system"].split("+") for name in model.laws]
        assert not (law_K & torch.tensor(own)).any()
        if record["system"] == "gnielinski":  # ribbed laws have no value on a smooth wall
            assert law_K.tolist() == [True, False, False, False]


def test_a_system_that_only_its_own_law_explains_is_refused(store):
    codec, model = HeatCodec(), NusseltConfig(("webb-1971",)).build(HeatCodec()).double()
    objective = CampaignEvidence().resolve(store)
    records = [r for r in store.split("train") if r["system"] == "webb-1971"]
    batch = codec.collate([objective.prepare(records[0], codec, np.random.default_rng(0), True)])
    with pytest.raises(DataError, match="no law but its own"):  # before the first step
        objective.start(model, codec, records, Engine(torch.device("cpu"), "float64"), 0, None)
    with pytest.raises(DataError, match="no law but its own"):  # in evaluation
        objective.loss(model.eval(), batch)


def test_rigs_are_off_by_what_is_said(store):
    """Over many draws of one campaign the level varies by `rig` and the noise by `noise`."""
    codec, objective = (
        HeatCodec(),
        CampaignEvidence(rig=0.2, noise=0.03, noise_spread=0.0).resolve(store),
    )
    record = next(r for r in store.split("train") if len(r["log_nu"]) > 6)
    x_NG = torch.from_numpy(np.array(record["x"]))
    drawn = [
        objective.prepare(record, codec, sampling.generator(0, sampling.CORRUPT, 0, i), True)[
            "log_nu"
        ]
        for i in range(3000)
    ]
    covariance = np.cov(np.stack(drawn).T)
    shape = np.array([posterior.RIG_SHAPE.get(name, 0.0) for name in codec.features])
    phi = codec.featured(x_NG).numpy()
    expected = (0.2**2) * (phi * shape**2) @ phi.T + 0.03**2 * np.eye(len(phi))
    assert np.abs(covariance - expected).max() < 0.1 * expected.max()


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="did you mean 'han-park-1988'"):
        Campaigns(systems=("han-park-88",))
    with pytest.raises(ConfigError, match="different names"):
        Campaigns(systems=())
    with pytest.raises(ConfigError, match="different names"):
        NusseltConfig(("webb-1971", "webb-1971"))
    with pytest.raises(ConfigError, match="published laws need the columns"):
        MODELS["ribbed"].build(HeatCodec(columns=("Re", "Pr")))
    assert "han-park-1988" in CORRELATIONS
