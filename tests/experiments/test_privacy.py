"""Privacy audits: the attacks on numbers whose answer is known, and whole audits of tiny runs in
two domains.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_runs import make_tiny

from sciforge.core.data.store import Rows, Store
from sciforge.core.training.loop import train
from sciforge.core.training.run import DPSGD, Hardware
from sciforge.errors import ConfigError
from sciforge.experiments.privacy import attack as attack_module
from sciforge.experiments.privacy import run as module
from sciforge.experiments.privacy.attack import (
    Attack,
    Exposure,
    Ranks,
    halves,
    leave_one_out,
    lira,
    statistic,
)
from sciforge.experiments.privacy.pool import Pool
from sciforge.experiments.privacy.result import CANARIES
from sciforge.experiments.privacy.run import losses, measure
from sciforge.experiments.privacy.spec import Privacy
from sciforge.experiments.statistics import Interval

EXACT = Hardware(device="cpu", precision="float64", threads=1)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(attack_module, "DRAWS", 200)


def test_ranks_agree_with_scikit_learn():
    from sklearn.metrics import roc_auc_score, roc_curve

    rng = np.random.default_rng(0)
    member_N = rng.random(400) < 0.4
    score_N = np.round(rng.normal(member_N * 0.7, 1), 1)  # with ties
    ranks = Ranks(score_N, member_N)
    assert ranks.auc() == pytest.approx(roc_auc_score(member_N, score_N))
    fpr, tpr, _ = roc_curve(member_N, score_N, drop_intermediate=False)
    for rate in (0.01, 0.1, 0.5):
        assert ranks.shares(ranks.levels(rate)) == pytest.approx(
            (tpr[fpr <= rate].max(), fpr[fpr <= rate].max())
        )
    weight = rng.integers(0, 3, 400)
    weighted = roc_auc_score(member_N, score_N, sample_weight=weight)
    assert ranks.auc(weight) == pytest.approx(weighted)


def test_shadows_come_in_balanced_pairs():
    for num in (20, 21):
        in_KN = halves(num, 16, seed=3)
        assert (in_KN.sum(0) == 8).all()
        assert (in_KN[0::2] == ~in_KN[1::2]).all() and np.abs(in_KN.sum(1) - num / 2).max() <= 0.5
        assert (halves(num, 8, seed=3) == in_KN[:8]).all()  # more shadows keep the first


@pytest.mark.parametrize("online", [True, False])
def test_memory_is_found_and_its_absence_too(online):
    rng = np.random.default_rng(1)
    in_KN = halves(300, 16, seed=0)
    hard_N, noise_KN = rng.normal(0, 3, 300), rng.normal(0, 1, (16, 300))
    for shift, low, high in ((0.0, 0.47, 0.53), (2.0, 0.85, 0.99)):
        found = Attack.of(
            "lira", leave_one_out(hard_N + noise_KN + shift * in_KN, in_KN, online), in_KN, seed=0
        )
        assert low < found.auc.value < high
        assert (found.auc.low <= 0.5 <= found.auc.high) == (shift == 0)
    by_loss = Attack.of("loss", hard_N + noise_KN + 2.0 * in_KN, in_KN, seed=0)
    assert by_loss.auc.value < found.auc.value - 0.1  # what makes LiRA worth its shadows


def test_own_variances_from_many_shadows_on():
    rng = np.random.default_rng(2)
    in_KN = halves(200, 64, seed=0)
    spread_N = np.exp(rng.normal(0, 1, 200))
    stat_KN = rng.normal(0, 1, (64, 200)) * spread_N + in_KN * 2 * spread_N
    target_N = rng.normal(0, 1, 200) * spread_N
    member_N = np.arange(200) < 100
    target_N[member_N] += 2 * spread_N[member_N]
    many, few = (
        Ranks(lira(target_N, stat_KN[:k], in_KN[:k], True), member_N).auc() for k in (64, 62)
    )
    assert many > few + 0.02


def test_rates_that_the_sample_does_not_resolve_are_refused():
    rng = np.random.default_rng(3)
    found = Attack.of("loss", rng.normal(size=300), np.arange(300) < 150, seed=0)
    assert [point.rate for point in found.points] == [
        0.01,
        0.1,
    ] and found.smallest == pytest.approx(1 / 150)
    for point in found.points:
        assert point.fpr.value <= point.rate and point.tpr.low <= point.tpr.value <= point.tpr.high
        assert point.epsilon(1e-5) < 1.0


def test_the_logit_of_classes():
    p_N = np.array([0.01, 0.5, 0.999999])
    assert statistic(-np.log(p_N), True) == pytest.approx(np.log(p_N / (1 - p_N)))
    assert np.isfinite(statistic(np.array([0.0]), True)).all()


def test_exposure_of_what_is_learnt_by_heart():
    rng = np.random.default_rng(4)
    in_KC = halves(40, 8, seed=0)
    loss_KC = rng.random((8, 40))
    blind = Exposure.of(loss_KC, in_KC, seed=0)
    assert blind.mean.low < blind.chance < blind.mean.high
    unequal = Exposure.of(np.where(np.arange(8)[:, None] < 4, 1.0, -1.0) * in_KC, in_KC, seed=0)
    # some shadows learn all by heart, others nothing
    assert unequal.mean.high - unequal.mean.low > 2.0
    heart = Exposure.of(loss_KC - 2.0 * in_KC, in_KC, seed=0)
    assert heart.mean.value == heart.maximum == pytest.approx(np.log2(21))


@pytest.fixture(scope="module", params=["genomes", "molecules"])
def trained(request, tmp_path_factory):
    """A fine-tuned checkpoint and its store with a test split, in two domains."""
    tiny = make_tiny(request.param, tmp_path_factory.mktemp(request.param))
    run = tiny.finetuning
    schedule = replace(run.schedule, evaluate_every=0, patience=0, lr=3e-3, steps=4)
    changes = {"objective": replace(run.objective, warm_start=False), "schedule": schedule}
    return train(replace(run, out=run.out.with_name("audited"), **changes))


@pytest.fixture
def spec(trained, tmp_path):
    return Privacy(
        checkpoint=trained.path,
        data=trained.run.data,
        out=tmp_path / "audit",
        shadows=8,
        hardware=EXACT,
    )


def test_an_untrained_model_betrays_nothing(trained, spec, tmp_path):
    still = replace(trained.run.schedule, lr=0.0, steps=1)
    untrained = train(replace(trained.run, out=tmp_path / "still", schedule=still))
    found = measure(replace(spec, checkpoint=untrained.path))
    for attack in found.attacks:
        assert attack.auc.low <= 0.5 <= attack.auc.high
    assert found.target == "recipe" and found.privacy is None and found.bound_holds is None


def test_an_audit_of_a_checkpoint(trained, spec):
    rest = Store.open(trained.run.data).split("test")
    spec = replace(
        spec, data=None, members=trained.run.data, nonmembers=trained.run.data, canaries=4
    )
    found = measure(spec)
    assert [a.name for a in found.attacks] == [
        "loss",
        "lira online",
        "lira offline",
        "canaries, lira online",
    ]
    members = len(Store.open(trained.run.data).split("train"))
    assert (
        found.counts["records"] + found.counts["unlabelled"]
        == members + min(len(rest), members) - 4
    )
    assert found.exposure.canaries == 4 and 0 <= found.exposure.mean.value <= found.exposure.maximum
    written = json.loads((spec.out / "privacy.json").read_text())
    assert written["target"] == "checkpoint" and len(written["most_exposed"]) == 10
    assert (spec.out / "privacy.png").read_bytes()[:4] == b"\x89PNG"
    frame = found.to_pandas()
    assert (
        set(frame.attack) == {a.name for a in found.attacks} and (frame.auc_low <= frame.auc).all()
    )
    assert "never proves" in found.table().text() and "non-members" in found.table().text()
    assert not list(spec.out.glob(".*"))


@pytest.mark.parametrize("trained", ["molecules"], indirect=True)
def test_a_stopped_audit_goes_on(spec, monkeypatch):
    runs = []

    def counting(run):
        if len(runs) == 3:
            raise KeyboardInterrupt
        runs.append(run)
        return train(run)

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", counting)
        with pytest.raises(KeyboardInterrupt):
            measure(spec)
    assert len((spec.out / "runs.jsonl").read_text().splitlines()) == 3
    stopped = measure(spec)
    whole = measure(replace(spec, out=spec.out.with_name("whole")))
    assert stopped.to_json() == whole.to_json()
    assert len({run.seed for run in runs}) == 3 and all(run.subset is None for run in runs)
    with pytest.raises(ConfigError, match="another seed"):
        measure(replace(spec, seed=1))


@pytest.mark.parametrize("trained", ["genomes"], indirect=True)
def test_a_private_checkpoint_keeps_its_promise(trained, spec, tmp_path):
    private = DPSGD(epsilon=0.5, delta=1e-3, accountant="rdp")
    made = train(replace(trained.run, out=tmp_path / "private", dp_sgd=private))
    found = measure(replace(spec, checkpoint=made.path))
    assert found.privacy["epsilon"] <= 0.5 and found.bound_holds
    for attack in found.attacks:
        for point in attack.points:
            assert point.tpr.low <= np.exp(0.5) * point.fpr.high + 1e-3
    assert "holds in all" in found.table().text()
    assert any(found.bound(attack, point) < 1 for attack, point in found.pairs)
    assert found.proven_epsilon < 0.5


@pytest.mark.parametrize("trained", ["molecules"], indirect=True)
def test_shadows_on_half_the_records_spend_another_budget(trained, spec, tmp_path):
    private = DPSGD(noise=1.0, delta=1e-3, accountant="rdp")
    made = train(replace(trained.run, out=tmp_path / "private", dp_sgd=private))
    found = measure(replace(spec, checkpoint=made.path))
    told, shadows = found.privacy, found.shadow_privacy
    assert shadows["sampling_rate"] == pytest.approx(2 * told["sampling_rate"], rel=0.05)
    assert shadows["epsilon"] > 1.5 * told["epsilon"]
    learnt = len(Store.open(made.run.data).split("train"))
    assert (
        f"the shadows learn {learnt // 2} records each, the checkpoint learnt {learnt}"
        in found.warnings
    )
    attack = found.attacks[0]
    assert (
        found.promise(attack) == shadows
        and replace(found, target="checkpoint").promise(attack) == told
    )
    canaries = replace(attack, name=CANARIES)
    assert replace(found, target="checkpoint").promise(canaries) == shadows
    report = json.loads((spec.out / "privacy.json").read_text())
    assert report["weights_sha256"] == made.body["files"]["model.safetensors"]
    log = spec.out / "runs.jsonl"
    log.write_text(log.read_text().replace('"shadow": 2', '"shadow": ', 1))
    with pytest.raises(ConfigError, match=r"runs.jsonl:3: damaged; delete this line"):
        measure(replace(spec, checkpoint=made.path))


def test_a_broken_promise_is_seen():
    in_KN = halves(400, 8, seed=0)
    attack = Attack.of(
        "lira", np.where(in_KN, 1.0, 0.0) + np.random.default_rng(0).random((8, 400)) / 2, in_KN, 0
    )
    counts = {"shadows": 8, "records": 400, "canaries": 0, "members": 0, "unlabelled": 0}
    promise = {"epsilon": 1.0, "delta": 1e-5, "not_covered": "nothing"}
    found = module.PrivacyResult("recipe", (attack,), None, counts, promise)
    assert not found.bound_holds and found.proven_epsilon > 4
    assert "IS BROKEN" in found.table().text()
    point = attack.points[-1]
    little = replace(
        attack, points=(replace(point, tpr=Interval(0.5, 0.3, 0.6), fpr=Interval(0.1, 0.05, 0.1)),)
    )
    swapped = replace(found, attacks=(little,))
    assert not swapped.bound_holds and "swapping one record for another" in swapped.table().text()


def test_losses_are_of_single_examples(trained):
    store = Store.open(trained.run.data)
    records = trained.objectives[0].examples(store, "train")
    found = losses(trained, records, "cpu")
    turned = losses(trained, records.take(np.arange(len(records))[::-1]), "cpu")
    assert np.allclose(found, turned[::-1], rtol=1e-12, equal_nan=True)
    assert np.isfinite(found).sum() > len(found) // 2


def test_a_pool_becomes_a_store_of_the_chosen_records(trained, tmp_path):
    store = Store.open(trained.run.data)
    rows = store.split("train"), store.split("test")
    pool = Pool(
        rows, np.arange(len(rows[0]) + len(rows[1])) < len(rows[0]), store.split("validation")
    )
    chosen = np.arange(len(pool)) % 3 == 0
    pool = pool.with_canaries(2, seed=0)
    made = pool.write(tmp_path / "made", chosen)
    assert len(made.split("train")) == chosen.sum() and len(made.split("validation")) == len(
        pool.validation
    )
    for row, place in zip(made.split("train"), np.flatnonzero(chosen), strict=True):
        same = [
            np.array_equal(row[k], v) for k, v in pool[place].items() if k not in ("split", "label")
        ]
        assert all(same)
    assert all(not pool.member_N[place] for place in pool.labels)
    for place, label in pool.labels.items():
        assert repr(np.asarray(label).tolist()) != repr(np.asarray(pool[place]["label"]).tolist())


def test_what_cannot_be_audited_is_refused(trained, spec, tiny):
    with pytest.raises(ConfigError, match="even number"):
        replace(spec, shadows=9)
    with pytest.raises(ConfigError, match="needs --members and --nonmembers"):
        replace(spec, members=spec.data)
    same = replace(
        spec,
        data=None,
        members=trained.run.data,
        nonmembers=trained.run.data,
        nonmembers_split="train",
    )
    with pytest.raises(ConfigError, match="are members too"):
        measure(same)
    with pytest.raises(ConfigError, match="whole records"):
        measure(replace(spec, checkpoint=tiny.checkpoint.path, data=tiny.store.path))
    with pytest.raises(ConfigError, match="not what"):
        measure(replace(spec, init=trained.path))
    with pytest.raises(ConfigError, match="at most half"):
        measure(replace(spec, canaries=500))


def test_rows_of_two_stores_are_one_pool(trained):
    store = Store.open(trained.run.data)
    pool = Pool(
        (Rows(store, np.array([3, 1])), Rows(store, np.array([2]))),
        np.ones(3, bool),
        store.split("validation"),
    )
    assert len(pool) == 3 and all(
        np.array_equal(pool[2][k], v) for k, v in store[2].items() if k == "label"
    )
    with pytest.raises(IndexError):
        pool[3]
