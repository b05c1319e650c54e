"""What the results of all experiments share: each draws on the axes it is given, and its saved
table opens in pandas with defaults; on small synthetic results.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sciforge.core.training.run import Schedule
from sciforge.experiments.compression.distillation import KINDS, DistillationResult
from sciforge.experiments.compression.pruning import PrunedCheckpoint
from sciforge.experiments.compression.pruning_curve import PruningCurveResult
from sciforge.experiments.forgetting.result import ForgettingResult, Task, Trial
from sciforge.experiments.held_out import Scores
from sciforge.experiments.invariance.label_probe import Explained
from sciforge.experiments.invariance.result import (
    AugmentationEffect,
    InvarianceResult,
    LabelInformation,
)
from sciforge.experiments.label_efficiency.result import LabelEfficiencyResult, RunMetrics
from sciforge.experiments.privacy.attack import Attack
from sciforge.experiments.privacy.result import PrivacyResult
from sciforge.experiments.schedules.result import SchedulesResult
from sciforge.experiments.statistics import Interval
from sciforge.experiments.transfer.result import TransferResult, TransferScore

PARTS = (0.4, 0.5, 0.6)  # a metric without each group of records


def score(value: float) -> Scores:
    return Scores({"mcc": value}, value, PARTS)


def label_efficiency() -> LabelEfficiencyResult:
    runs = [
        RunMetrics(method, labels, seed, {"mcc": 0.5 + 0.1 * seed}, PARTS)
        for method in ("pretrained", "a")
        for labels in (8, 32)
        for seed in (0, 1)
    ]
    return LabelEfficiencyResult(
        tuple(runs), "mcc", True, {"pretrained": "network", "a": "baseline"}
    )


def transfer() -> TransferResult:
    runs = [
        TransferScore("a", s, t, 0, 8, "test", 50, {"mcc": 0.5}, 0.5, PARTS)
        for s in "xy"
        for t in "xy"
    ]
    return TransferResult(tuple(runs), "mcc", True, {"a": "baseline"}, ("x", "y"))


def forgetting() -> ForgettingResult:
    points = {("plain", 0.0): (1.0, 3.0), ("l2sp", 1.0): (2.0, 2.0), ("lora", 8.0): (2.0, 1.0)}
    runs = [
        Trial(name, strength, seed, new, old, (new, new), (old, old))
        for (name, strength), (new, old) in points.items()
        for seed in (0, 1)
    ]
    task = Task("rmse", "rmse", "test", 10)
    return ForgettingResult(tuple(runs), Scores({}, 1.0, (1.0, 1.0)), task, task, 0.5)


def privacy() -> PrivacyResult:
    rng = np.random.default_rng(0)
    in_KN = np.array([rng.permutation(200) < 100 for _ in range(4)])
    attack = Attack.of("lira", in_KN + rng.random((4, 200)), in_KN, 0)
    counts = {"shadows": 4, "records": 200, "canaries": 0, "members": 0, "unlabelled": 0}
    promise = {"epsilon": 1.0, "delta": 1e-5, "not_covered": "nothing"}
    return PrivacyResult("recipe", (attack,), None, counts, promise)


def invariance() -> InvarianceResult:
    part = Explained(0.5, 0.4, 0.6, 0.1, np.ones(20), np.ones(20))
    label = LabelInformation("kind", 20, part, part, part, part)
    shift = Interval(0.2, 0.1, 0.3)
    effects = (
        AugmentationEffect("flip", "Mirror.", 20, shift, {}, (label,)),
        AugmentationEffect("turn", "Rotate.", 20, shift, {"p": shift}, (label,)),
    )
    return InvarianceResult(effects, 20, "test")


def schedules() -> SchedulesResult:
    scores = {(kind, seed): score(0.5) for kind in ("step", "cosine") for seed in (0, 1)}
    kinds = {kind: Schedule(kind=kind) for kind in ("step", "cosine")}
    return SchedulesResult(scores, kinds, "mcc", True, "area")


def pruning() -> PruningCurveResult:
    scores = {(g, level, 0): score(0.5) for g in ("a", "b") for level in (0.0, 0.5)}
    return PruningCurveResult(scores, "mcc", True, "test", 50)


def distillation() -> DistillationResult:
    size = {"parameters": 1000, "bytes": 4000, "records_s_1": 10.0, "records_s_64": 100.0}
    scores = {(kind, 0): score(0.5) for kind in KINDS}
    return DistillationResult(scores, dict.fromkeys(KINDS, size), "mcc", True, 50, "test", 1)


def pruned(compared: bool = False) -> PrunedCheckpoint:
    report = {"sparsity": 0.5, "sparsity_all": 0.4, "weights": 80, "weights_all": 100}
    if compared:
        ends = {"value": 0.7, "interval": [0.6, 0.8]}
        report |= {"metric": "mcc", "split": "test", "records": 50}
        report["compared"] = {name: dict(ends) for name in ("dense", "pruned", "difference")}
    return PrunedCheckpoint(SimpleNamespace(path="checkpoint"), report)


RESULTS = {
    function.__name__: function
    for function in (
        label_efficiency,
        transfer,
        forgetting,
        privacy,
        invariance,
        schedules,
        pruning,
        distillation,
    )
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_draws_on_the_axes_it_is_given(name):
    result, figures = RESULTS[name](), plt.get_fignums()
    for draw in result.panels:
        axes = Figure().add_subplot()
        assert not axes.has_data()
        assert draw(axes) is axes and axes.has_data()
        assert axes.get_xlabel() or axes.get_ylabel()
    assert plt.get_fignums() == figures  # and on no other
    own = result.plot()
    assert own.has_data() and own.figure is not axes.figure
    plt.close(own.figure)


@pytest.mark.parametrize("name", RESULTS)
def test_a_saved_result_opens_in_pandas_with_defaults(name, tmp_path):
    result = RESULTS[name]().keep(None, False, {"seed": 7})
    frame = result.to_pandas()
    for path, options in ((tmp_path / "r.csv", {}), (tmp_path / "r.tsv", {"sep": "\t"})):
        again = pd.read_csv(result.save(path), **options)
        assert again.columns.tolist() == frame.columns.tolist() and len(again) == len(frame) > 0
        for column in frame.select_dtypes("number"):
            np.testing.assert_allclose(again[column], frame[column], rtol=1e-12)
        assert json.loads((tmp_path / "r.json").read_text()) == {"seed": 7}
        (tmp_path / "r.json").unlink()


@pytest.mark.parametrize("name", RESULTS)
def test_a_folder_holds_the_report_the_table_and_the_picture(name, tmp_path):
    result = RESULTS[name]().keep(None, False, {"seed": 7})
    folder = result.save(tmp_path / "all")
    assert {p.name for p in folder.iterdir()} == {
        f"{result.name}.json",
        f"{result.name}.png",
        "runs.csv",
    }
    report = json.loads((folder / f"{result.name}.json").read_text())
    assert report["seed"] == 7 and len(report) > 2
    assert len(pd.read_csv(folder / "runs.csv")) == len(result.to_pandas())


def test_a_pruned_checkpoint_draws_its_zeros_or_the_metric_before_and_after(tmp_path):
    zeros, metric = Figure().add_subplot(), Figure().add_subplot()
    assert pruned().plot(zeros) is zeros and pruned(True).plot(metric) is metric
    assert [bar.get_height() for bar in zeros.patches] == [0.5, 0.4]
    assert [line.get_ydata()[0] for line in metric.lines] == [0.6, 0.7, 0.6, 0.7]
    assert metric.get_ylabel() == "test mcc"
    table = pd.read_csv(pruned(True).save(tmp_path / "p.csv"))
    assert table["quantity"].tolist()[-1] == "difference" and table["high"].tolist()[-1] == 0.8
    assert "0.5000 of 80" in pruned().table().text() and "Not evaluated" in pruned().table().note


def test_a_privacy_plot_has_every_curve_interval_and_bound():
    result, axes = privacy(), Figure().add_subplot()
    result.plot(axes)
    (attack,) = result.attacks
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["chance", "lira", "promised bound"]
    assert len(axes.lines) == len(names) + len(attack.points)
    chance, curve, *intervals, bound = axes.lines
    assert (chance.get_xdata() == chance.get_ydata()).all()
    assert curve.get_ydata()[-1] == 1 and curve.get_xdata().min() >= attack.smallest * 0.999
    for point, line in zip(attack.points, intervals, strict=True):
        assert line.get_ydata()[1] == point.tpr.high
    assert bound.get_ydata()[0] == pytest.approx(np.e * attack.smallest + 1e-5)


def test_areas_of_pruning_curves_are_paired_over_seeds_and_records():
    scores = {}
    for group, shift in (("a", 0.0), ("b", 0.25)):
        for level, loss in ((0.0, 0.0), (0.5, 0.1), (1.0, 0.4)):
            for seed, own in enumerate((0.5, 0.7)):
                parts = tuple(own + shift - loss + 0.01 * part for part in (-1, 0, 1))
                scores[group, level, seed] = Scores({"mcc": own}, own + shift - loss, parts)
    result = PruningCurveResult(scores, "mcc", True, "test", 50)
    assert result.area("a").value == pytest.approx(0.6 - 0.15)
    difference = result.area("b", "a")
    assert difference.value == pytest.approx(0.25) and difference.high - difference.low < 1e-9
    rows = {row[0]: row[1:] for row in result.table().rows}
    assert list(rows) == ["a", "b", "b - a"] and rows["b - a"][:3] == ("", "", "")
    assert rows["b - a"][3].startswith("+0.25")


def test_a_bound_is_said_to_be_untested_only_where_it_is_one():
    result, untested = privacy(), "not put to the test"
    assert untested not in "".join(result.notes())
    assert untested in "".join(replace(result, privacy={**result.privacy, "epsilon": 50}).notes())
