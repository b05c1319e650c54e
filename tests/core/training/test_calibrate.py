"""Fine-tuned heads are calibrated by themselves, and say what they did."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

import sciforge as sf
from sciforge.core.data.store import Store
from sciforge.core.learners.calibration import Isotonic, Temperature
from sciforge.core.training.calibrate import calibrate, group_numbers
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import Schedule
from sciforge.errors import ConfigError
from sciforge.sklearn import PretrainedClassifier, PretrainedRegressor


@pytest.fixture(scope="module")
def vit() -> sf.Model:
    return sf.load("vit-mini", device="cpu")


def pictures(num: int, seed: int = 0, classes: int = 2) -> tuple[list[np.ndarray], list[str]]:
    """Return noisy pictures whose stripes are brighter the likelier a class is, and labels drawn
    from those chances.
    """
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (num, 28, 28)).astype(float)
    score_NC = rng.normal(size=(num, classes))
    chance_NC = np.exp(1.5 * score_NC)
    chance_NC /= chance_NC.sum(1, keepdims=True)
    label_N = (rng.random((num, 1)) > chance_NC.cumsum(1)).sum(1).clip(max=classes - 1)
    for place, score_N in enumerate(score_NC.T):
        images[:, :, 9 * place : 9 * place + 9] += 80 + 30 * score_N[:, None, None].clip(-2, 3)
    return list(images.clip(0, 255).astype(np.uint8)), [f"class {name}" for name in label_N]


@pytest.fixture(scope="module")
def tuned(vit) -> sf.Model:
    return vit.fit(*pictures(64), verbose=False)


def test_fit_calibrates_and_the_checkpoint_keeps_it(vit, tuned, tmp_path):
    plain = vit.fit(*pictures(64), calibrate="none", verbose=False)
    correction = tuned.objective.calibration
    assert isinstance(correction, Temperature) and correction.labels == 64
    assert plain.objective.calibration is None and plain.objective == tuned.objective
    fresh = pictures(100, seed=1)
    tables = tuned.predict(fresh[0]), plain.predict(fresh[0])
    assert (tables[0]["label"] == tables[1]["label"]).all()
    odds = [np.log(t["probability"] / (1 - t["probability"])) for t in tables]
    assert np.allclose(odds[0], odds[1] / correction.temperature, atol=1e-3)
    again = sf.load(tuned.save(tmp_path / "saved"), device="cpu")
    assert again.objective.calibration == correction
    assert again.predict(fresh[0]).equals(tables[0])
    metrics = again.evaluate(*fresh)
    assert metrics == tuned.evaluate(*fresh) and {"ece", "brier"} <= metrics.keys()
    estimator = PretrainedClassifier(vit).fit(*pictures(64))
    assert np.allclose(estimator.predict_proba(fresh[0])[:, 1], tables[0]["probability"])


def test_calibration_improves_a_deliberately_overconfident_head(vit, tmp_path):
    """The head is made ten times as sure after training; held-out labels take that back."""
    store = sf.prepare(_prepared(pictures(120)), tmp_path / "store").store
    model = vit.fit(store, calibrate="none", verbose=False)
    sure = model.checkpoint.with_objective(_overconfident(model.objective))
    images, labels = pictures(400, seed=2)
    before = sf.load(sure.path, device="cpu").evaluate(images, labels)
    calibrated, _ = calibrate(sure, store, "auto")
    after = sf.load(calibrated.path, device="cpu").evaluate(images, labels)
    assert after["ece"] < 0.07 < before["ece"] - 0.05 and after["accuracy"] == before["accuracy"]


def _prepared(labelled: tuple) -> object:
    from sciforge.images import DOMAIN

    images, labels = labelled
    targets = pd.DataFrame({"label": labels})
    return DOMAIN.inputs.preparer(images, targets, split=None, seed=0)


def _overconfident(objective):
    from dataclasses import replace

    return replace(objective, calibration=Temperature(0.1, 50))


def test_few_labels_are_not_calibrated_and_fit_says_so(vit, capsys):
    model = vit.fit(*pictures(49))
    assert model.objective.calibration is None
    assert "not calibrated: 49 labels, it takes 50" in capsys.readouterr().out
    vit.fit(*pictures(50))
    assert "calibrated by temperature" in capsys.readouterr().out


def test_a_class_with_one_label_is_calibrated_with_the_others(vit):
    images, labels = pictures(60, classes=3)
    labels = [f"class {i % 2}" for i in range(59)] + ["rare"]
    model = vit.fit(images, labels, verbose=False)
    assert model.objective.calibration.labels == 60
    p = model.predict(images).filter(like="probability").to_numpy()
    assert p.shape == (60, 3) and np.allclose(p.sum(1), 1, atol=1e-5)


def test_a_second_fit_forgets_the_first_calibration(tuned, capsys):
    again = tuned.fit(*pictures(64))
    assert again.objective.calibration is None
    assert "which may have learnt the same labels" in capsys.readouterr().out


def test_what_cannot_be_is_refused_before_training(vit):
    images, labels = pictures(60, classes=3)
    for options, message in (
        ({"calibrate": "isotonic"}, "two classes; there are 3"),
        ({"calibrate": "temprature"}, "temperature"),
    ):
        with pytest.raises(ConfigError, match=message):
            vit.fit(images, labels, verbose=False, **options)
    with pytest.raises(ConfigError, match="RegressImages predicts no class"):
        vit.fit(images, np.arange(60.0) / 7, calibrate="temperature", verbose=False)


def test_descent_is_calibrated_on_the_validation_split(vit, capsys):
    images, labels = pictures(120)
    split = ["validation" if i % 12 < 6 else "train" for i in range(120)]
    schedule = Schedule(steps=40, batch=32, lr=1e-6, kind="constant")
    options = {"split": split, "schedule": schedule, "calibrate": "isotonic"}
    model = vit.fit(images, labels, **options)
    assert isinstance(model.objective.calibration, Isotonic)
    assert model.objective.calibration.labels == 60
    assert "60 labels of the validation split" in capsys.readouterr().out


def numbers(num: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    level_N = rng.uniform(0, 100, num)
    images = [np.clip(rng.normal(x + 60, 20, (28, 28)), 0, 255).astype(np.uint8) for x in level_N]
    return images, level_N / 10 + rng.normal(size=num)


def test_numbers_get_conformal_intervals(vit, capsys):
    model = vit.fit(*numbers(80))
    assert "90% intervals of +-" in capsys.readouterr().out
    images, value_N = numbers(300, seed=1)
    table = model.predict(images)
    name = model.objective.target_name
    assert list(table) == [name, f"{name}_lower", f"{name}_upper"]
    inside = model.evaluate(images, value_N)["coverage"] * 300
    low, high = binom.ppf([0.001, 0.999], 300, 0.9)
    assert low - 15 <= inside <= high + 15  # 80 labels know their quantile to 3 %
    estimator = PretrainedRegressor(vit).fit(*numbers(80))
    value, std, lower, upper = estimator.predict(images, return_std=True, interval=True)
    assert np.allclose(upper - lower, 2 * 1.6449 * std, rtol=1e-3) and (lower < value).all()
    assert "interval" not in str(vit.fit(*numbers(40), calibrate="none").predict(images).columns)


def test_groups_stay_whole_and_their_coverage_is_printed(tmp_path, capsys):
    """Grades that depend on the author alone: left-out authors are harder than random documents."""
    rng = np.random.default_rng(0)
    words = [[f"{c}{v}{d}" for c in "bdfgklm"[a : a + 3] for v in "aeiou" for d in "nrst"]
             for a in range(5)]  # fmt: skip
    rows = [
        {"text": " ".join(rng.choice(words[i % 5], 12)), "grade": (i % 5) ** 2 + rng.normal() / 5,
         "author": f"author {i % 5}"} for i in range(100)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    data = sf.prepare(
        sf.text.Documents(
            files=(tmp_path / "table.csv",),
            label_column="grade",
            group_column="author",
            numeric=True,
            shares=(1.0, 0.0, 0.0),
        ),
        tmp_path / "store",
    )
    records = data.store.split("train")
    assert len(np.unique(group_numbers(records))) == 5
    model = sf.load("modern-mini-english", device="cpu").fit(data)
    line = capsys.readouterr().out.splitlines()[-1]
    assert "folds of whole groups" in line and "% if learnt from a random split" in line
    assert model.objective.interval.labels == 100


def test_reliability_of_a_model_and_of_the_command_line(tuned, tmp_path):
    images, labels = pictures(200, seed=3)
    diagram = tuned.reliability(images, labels)
    assert diagram.metrics["ece"] == tuned.evaluate(images, labels)["ece"]
    frame = diagram.to_pandas()
    assert frame["records"].sum() == 200
    assert ((frame["low"] <= frame["accuracy"]) & (frame["accuracy"] <= frame["high"])).all()
    assert diagram.plot().get_xlabel() == "probability of the predicted class"
    diagram.save(tmp_path / "curve.png")
    assert pd.read_csv(tmp_path / "curve.csv")["records"].sum() == 200
    with pytest.raises(ConfigError, match="10 train records; a reliability diagram takes 50"):
        tuned.reliability(images[:10], labels[:10])


def test_checkpoints_of_before_open_without_calibration(tuned):
    body = dict(tuned.checkpoint.body)
    body["objectives"] = [{k: v for k, v in body["objectives"][0].items() if k != "calibration"}]
    old = Checkpoint(tuned.checkpoint.path, body)
    assert old.objectives[0].calibration is None and old.objectives[0] == tuned.objective


def test_the_store_of_a_fit_needs_no_group(tmp_path):
    data = sf.prepare(_prepared(pictures(8)), tmp_path / "store")
    assert group_numbers(Store.open(data.path).split("train")) is None
