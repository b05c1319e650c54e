"""Label-efficiency curves: paired subsets, resuming, and what a result says of synthetic runs."""

import gc
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import sciforge as sf
from sciforge.core.domain import FitRecipe, Inputs
from sciforge.core.training.run import Hardware, Schedule
from sciforge.errors import ConfigError, DivergedError
from sciforge.experiments import methods as module
from sciforge.experiments import statistics
from sciforge.experiments.held_out import HeldOutRecords
from sciforge.experiments.label_efficiency.result import (
    LabelEfficiencyResult,
    RunMetrics,
    labels_needed,
)
from sciforge.experiments.label_efficiency.run import LabelEfficiencyRun, measure
from sciforge.experiments.label_efficiency.spec import LabelEfficiency
from sciforge.experiments.methods import Recipe, TrainingSet
from sciforge.genomes import DOMAIN, Classify

CPU = Hardware(device="cpu", precision="float32", threads=1)
SHORT = Recipe(Schedule(steps=2, batch=4, lr=1e-3, kind="step"), epochs=0.0)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(statistics, "DRAWS", 400)


@pytest.fixture
def spec(tiny, tmp_path):
    return LabelEfficiency(
        data=tiny.labelled.path,
        out=tmp_path / "curve",
        init=tiny.checkpoint.path,
        objective=Classify(bins=3, warm_start=False),
        sizes=(4, 8),
        seeds=2,
        methods=("pretrained", "untrained", "frozen", "gc_only"),
        recipe=SHORT,
        hardware=CPU,
    )


@pytest.fixture
def trained(noted):
    """The runs handed to `train`."""
    return noted(module)


def test_every_method_sees_the_same_nested_subsets(spec, monkeypatch):
    seen = []

    def baseline(objective, train, test, seed):
        seen.append([record["bases"].tobytes() for record in train])
        return original_baseline(objective, train, test, seed)

    def start(self, model, codec, records, engine, seed, parent):
        seen.append([record["bases"].tobytes() for record in records])
        heads.append(
            {name: value.clone() for name, value in model.heads["class"].state_dict().items()}
        )
        return original_start(self, model, codec, records, engine, seed, parent)

    heads, original_start, original_baseline = [], Classify.start, DOMAIN.baselines["gc_only"]
    monkeypatch.setitem(DOMAIN.baselines, "gc_only", baseline)
    monkeypatch.setattr(Classify, "start", start)
    measure(spec)
    num = len(spec.methods)
    groups = [seen[i : i + num] for i in range(0, len(seen), num)]
    assert len(groups) == 4  # two sizes of two seeds
    assert all(rows == group[0] for group in groups for rows in group)
    small, large = [g[0] for g in groups[:2]], [g[0] for g in groups[2:]]
    assert [len(rows) for rows in (*small, *large)] == [4, 4, 8, 8]
    assert all(more[:4] == few for few, more in zip(small, large, strict=True))
    assert set(small[0]) != set(small[1])
    for one, two, three in (heads[i : i + 3] for i in range(0, len(heads), 3)):
        assert all(
            (one[name] == two[name]).all() and (one[name] == three[name]).all() for name in one
        )


def test_a_finished_curve_is_not_trained_again_and_may_grow(spec, trained):
    spec = replace(spec, methods=("pretrained", "frozen", "gc_only"))
    first = measure(spec)
    assert len(trained) == 8 and len(first.runs) == 12
    assert {(r.subset.count, r.subset.seed, r.seed) for r in trained} == {
        (n, s, s) for n in (4, 8) for s in (0, 1)
    }
    trained.clear()
    assert measure(spec) == first and not trained
    assert measure(replace(spec, methods=("frozen",))).methods == ("frozen",) and not trained
    grown = measure(replace(spec, seeds=3, methods=("frozen", "kmer_lr")))
    assert [run.subset.seed for run in trained] == [2, 2]
    assert len(grown.runs) == 12 and grown.cell("frozen", 4)[:2] == first.cell("frozen", 4)
    written = json.loads((spec.out / "label_efficiency.json").read_text())
    assert len(written["runs"]) == 12 and written["metric"] == "mcc"


@pytest.mark.parametrize("cut", [1, 25])
def test_a_cut_curve_goes_on(spec, trained, cut):
    spec = replace(spec, methods=("untrained", "gc_only"))
    first = measure(spec)
    path = spec.out / "runs.jsonl"
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    path.write_text("".join(lines[:3])[:-cut])  # the third line, a net's, was cut short
    (spec.out / ".run-stale").mkdir()
    trained.clear()
    again = measure(spec)
    assert [run.subset.count for run in trained] == [4, 8, 8]
    assert [run.metrics for run in again.runs] == [run.metrics for run in first.runs]
    assert [run.without for run in again.runs] == [run.without for run in first.runs]
    assert len(path.read_text().splitlines()) == len(lines) and not list(spec.out.glob(".run-*"))


def test_an_interrupted_curve_keeps_what_was_done(spec, monkeypatch, trained):
    def stop(*args):
        raise KeyboardInterrupt

    spec = replace(spec, sizes=(4,), seeds=1, methods=("untrained", "gc_only"))
    with monkeypatch.context() as patch:
        patch.setitem(DOMAIN.baselines, "gc_only", stop)
        with pytest.raises(KeyboardInterrupt):
            measure(spec)
    assert len(trained) == 1
    assert len(measure(spec).runs) == 2 and len(trained) == 1


def test_another_spec_in_the_same_folder_is_refused(spec):
    spec = replace(spec, methods=("gc_only",))
    measure(spec)
    for change, key in (
        ({"recipe": Recipe()}, "recipe"),
        ({"objective": Classify(bins=2)}, "objective"),
        ({"metric": "accuracy"}, "metric"),
    ):
        with pytest.raises(ConfigError, match=f"another {key}"):
            measure(replace(spec, **change))
    (spec.out / "spec.json").unlink()
    with pytest.raises(ConfigError, match="without spec.json"):
        measure(spec)


def test_what_cannot_be_measured_is_refused_before_any_work(spec, trained):
    with pytest.raises(ConfigError, match="training labels; sizes ask for 5000"):
        measure(replace(spec, sizes=(4, 5000)))
    with pytest.raises(ConfigError, match="did you mean.*pretrained"):
        measure(replace(spec, methods=("pretraind",)))
    with pytest.raises(ConfigError, match="did you mean.*untrained:cnn"):
        measure(replace(spec, methods=("untrained:cn",)))
    with pytest.raises(ConfigError, match="did you mean.*classify"):
        measure(replace(spec, objective="clasify"))
    with pytest.raises(ConfigError, match="different numbers"):
        replace(spec, sizes=(4, 4))
    with pytest.raises(ConfigError, match="seeds is 0"):
        replace(spec, seeds=0)
    with pytest.raises(ConfigError, match="no early stopping"):
        Recipe(Schedule(steps=4, batch=4, evaluate_every=2))
    assert not trained and not spec.out.exists()


def test_an_unknown_metric_is_refused(spec):
    with pytest.raises(ConfigError, match="no metric 'mc'.*mcc"):
        measure(replace(spec, metric="mc", methods=("gc_only",)))


def test_the_sense_of_another_metric_is_its_own(spec):
    assert LabelEfficiencyRun.open(replace(spec, metric="accuracy")).test.higher_is_better
    assert not LabelEfficiencyRun.open(replace(spec, metric="rmse")).test.higher_is_better
    assert LabelEfficiencyRun.open(
        replace(spec, metric="collapsed", higher_is_better=True)
    ).test.higher_is_better
    with pytest.raises(ConfigError, match="whether a larger collapsed is better"):
        measure(replace(spec, metric="collapsed", methods=("gc_only",)))


def test_a_single_test_record_has_no_groups_to_leave_out(spec, tmp_path):
    work = LabelEfficiencyRun.open(replace(spec, metric="accuracy")).within(tmp_path)
    one = replace(work, test=replace(work.test, records=work.test.records.take(np.array([0]))))
    assert one.run("gc_only", 8, 0)["without"] == ()
    assert len(work.run("gc_only", 8, 0)["without"]) == min(20, len(work.test.records))


def test_a_damaged_line_is_named(spec):
    spec = replace(spec, methods=("gc_only",))
    measure(spec)
    path = spec.out / "runs.jsonl"
    path.write_text(path.read_text().replace('{"method"', '{"meth', 1))
    with pytest.raises(ConfigError, match="runs.jsonl:1: damaged; delete this line"):
        measure(spec)


def test_all_labels_and_the_default_methods(spec):
    work = LabelEfficiencyRun.open(replace(spec, sizes=(0, 4), methods=()))
    assert work.sizes == [4, len(work.train)]
    assert work.names == ("pretrained", "untrained", "frozen", "untrained:cnn", *DOMAIN.baselines)
    assert work.kinds["untrained:cnn"] == "control" and work.kinds["kmer_lr"] == "baseline"
    everything = work.train.take(TrainingSet(work.spec.data, work.train, len(work.train), 0).places)
    assert len({record["bases"].tobytes() for record in everything}) == len(work.train)


def test_rates_are_searched_within_the_few_labels(spec, trained):
    recipe = replace(SHORT, lrs=(1e-4, 1e-2))
    spec = replace(
        spec, sizes=(8,), seeds=1, methods=("pretrained", "untrained:cnn"), recipe=recipe, keep=True
    )
    found = measure(spec)
    assert [run.subset.count for run in trained] == [6, 6, 8] * 2
    for run, last in zip(found.runs, trained[2::3], strict=True):
        tried = run.about["tried"]
        assert set(tried) == {"0.0001", "0.01"}
        assert run.about["lr"] == last.schedule.lr == float(min(tried, key=tried.get))
    assert {p.name for p in (spec.out / "checkpoints").iterdir()} == {
        "pretrained_8_0",
        "untrained-cnn_8_0",
    }


def test_a_rate_that_diverges_is_not_chosen(spec, monkeypatch):
    def failing(run):
        if run.schedule.lr > 1e-3:
            raise DivergedError("step 1: loss nan")
        return original(run)

    original = module.train
    monkeypatch.setattr(module, "train", failing)
    recipe = replace(SHORT, lrs=(1e-2, 1e-4))
    (run,) = measure(
        replace(spec, sizes=(8,), seeds=1, methods=("pretrained",), recipe=recipe)
    ).runs
    assert run.about["lr"] == 1e-4 and run.about["tried"]["0.01"] is None


def test_held_records_are_taken_of_takes(tiny):
    held = HeldOutRecords(tiny.labelled.split("train"))
    part = held.take(np.array([5, 3, 1])).take(np.array([2, 0]))
    assert [record["bases"].tobytes() for record in part] == [
        held[i]["bases"].tobytes() for i in (1, 5)
    ]
    assert list(part.column("label")) == [held[1]["label"], held[5]["label"]]


def made(curves, seeds=5, spread=0.02, kinds=None, collapsed=(), higher=True, parts=10):
    """Return a result whose means are `curves`: method -> {labels: value}."""
    deviations = np.linspace(-1, 1, seeds) * spread if seeds > 1 else np.zeros(1)
    runs = []
    for method, points in curves.items():
        for labels, value in points.items():
            for seed in range(seeds):
                own = value + float(deviations[seed])
                without = tuple(own + 0.002 * (part - (parts - 1) / 2) for part in range(parts))
                lost = float((method, labels, seed) in collapsed)
                runs.append(
                    RunMetrics(method, labels, seed, {"mcc": own, "collapsed": lost}, without)
                )
    kinds = kinds or {
        m: "network" if m in ("pretrained", "untrained", "frozen") else "baseline" for m in curves
    }
    return LabelEfficiencyResult(tuple(runs), "mcc", higher, kinds)


CROSSING = {
    "pretrained": {32: 0.4, 128: 0.5, 512: 0.7},
    "untrained": {32: 0.2, 128: 0.4, 512: 0.6},
}


def test_labels_saved_where_the_curves_cross():
    result = made(CROSSING)
    few, some, most = (result.saving(n) for n in (32, 128, 512))
    assert few.factor.value == pytest.approx(4) and some.factor.value == pytest.approx(2)
    assert (
        few.factor.low - 1e-9 <= 4 <= few.factor.high + 1e-9 and some.factor.low < some.factor.high
    )
    assert "4.0 times fewer labels than untrained at .40" in few.text()
    assert most.factor is None and "not reached" in most.text() and "times fewer" not in most.text()
    note = result.table().note
    assert (
        "Labels saved, 32 labels: 4.0 times" in note
        and "Labels saved, 512 labels: not reached" in note
    )
    saved = json.loads(json.dumps(result.to_json(), allow_nan=False))["labels_saved"]
    assert saved["32"]["factor"][0] == pytest.approx(4) and saved["512"]["factor"] is None


def test_no_factor_where_the_curves_do_not_cross():
    apart = made({"pretrained": {32: 0.7, 128: 0.8}, "untrained": {32: 0.1, 128: 0.2}})
    behind = made({"pretrained": {32: 0.1, 128: 0.15}, "untrained": {32: 0.5, 128: 0.6}})
    for result, words in ((apart, "not reached"), (behind, "no crossing")):
        assert all(
            result.saving(n).factor is None and words in result.saving(n).text() for n in (32, 128)
        )
        assert "times fewer" not in result.note()
    assert made({"pretrained": {32: 0.7}, "frozen": {32: 0.1}}).saving(32) is None


def test_errors_that_should_be_small_turn_the_curves_round():
    turned = {m: {n: 1 - v for n, v in points.items()} for m, points in CROSSING.items()}
    result = made(
        {**turned, "a": {32: 0.5, 128: 0.5, 512: 0.5}, "b": {32: 0.9, 128: 0.4, 512: 0.9}},
        higher=False,
    )
    assert result.saving(32).factor.value == pytest.approx(4) and result.saving(512).factor is None
    assert [result.best_baseline(n) for n in (32, 128, 512)] == ["a", "b", "a"]


def test_curves_are_made_monotone_before_they_are_read():
    assert labels_needed([10, 100, 1000], [0.75, 0.25, 1.0], 0.5) == 10
    assert labels_needed([10, 100, 1000], [0.75, 0.25, 1.0], 0.75) == pytest.approx(10**2.5)
    assert labels_needed([10, 100, 1000], [0.75, 0.25, 1.0], 0.45) == 0
    assert labels_needed([10, 100], [0.2, 0.4], 0.1) == 0
    assert labels_needed([10, 100], [0.2, 0.4], 0.5) == np.inf
    assert labels_needed([10], [0.2], 0.2) == 10


def test_intervals_cover_the_mean_and_widen_with_fewer_seeds():
    widths = {}
    for seeds in (2, 3, 5, 10):
        found = made(CROSSING, seeds=seeds).interval("untrained", 128)
        assert found.value == pytest.approx(0.4) and found.low < 0.4 < found.high
        widths[seeds] = found.high - found.low
    assert widths[10] < widths[5] < widths[3] < widths[2]
    one = made(CROSSING, seeds=1).interval("untrained", 128)  # the test examples alone
    assert one.low < one.value < one.high


def test_paired_differences_cancel_what_seeds_share():
    found = made(CROSSING).difference("pretrained", "untrained", 32)
    assert found.value == pytest.approx(0.2) and found.high - found.low < 1e-9


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        runs = tuple(
            RunMetrics("a", 8, s, {"mcc": float(v)}, ())
            for s, v in enumerate(rng.normal(0.5, 0.1, 5))
        )
        found = LabelEfficiencyResult(runs, "mcc", True, {"a": "network"}).interval("a", 8)
        held += found.low < 0.5 < found.high
    assert 0.88 < held / 200 < 0.99


def test_few_test_examples_widen_intervals_as_they_should():
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        value_N = rng.normal(0.5, 0.1, 8)
        without = tuple(float(np.delete(value_N, i).mean()) for i in range(8))
        runs = (RunMetrics("a", 8, 0, {"mcc": float(value_N.mean())}, without),)
        found = LabelEfficiencyResult(runs, "mcc", True, {"a": "network"}).interval("a", 8)
        held += found.low < 0.5 < found.high
    assert 0.91 < held / 200 < 0.99


def test_collapsed_runs_are_counted():
    lost = {("untrained", 32, 0), ("untrained", 32, 3), ("pretrained", 128, 1)}
    table = made(CROSSING, collapsed=lost).table()
    cells = {row[0]: row[1:] for row in table.rows}
    assert cells["untrained"][0].endswith("2 collapsed") and cells["pretrained"][1].endswith(
        "1 collapsed"
    )
    assert "collapsed" not in cells["untrained"][1] and "3 of 30 runs collapsed" in table.note
    assert "No run collapsed" in made(CROSSING).table().note
    assert (
        "Fewer than 5 seeds" in made(CROSSING, seeds=3).note()
        and "Fewer than" not in made(CROSSING).note()
    )


def test_the_table_sets_pretraining_against_scratch_and_the_best_baseline():
    rivals = {"a": {32: 0.1, 128: 0.6, 512: 0.1}, "b": {32: 0.3, 128: 0.2, 512: 0.5}}
    table = made({**CROSSING, **rivals}).table()
    assert [row[0] for row in table.rows] == [
        *CROSSING,
        *rivals,
        "pretrained - untrained",
        "pretrained - best baseline",
    ]
    assert table.rows[-2][1].startswith("+.20 [")
    assert (
        table.rows[-1][1].endswith("(b)")
        and table.rows[-1][2].startswith("-.10")
        and "(a)" in table.rows[-1][2]
    )
    alone = made({"pretrained": CROSSING["pretrained"], "b": rivals["b"]}).table()
    assert [row[0] for row in alone.rows] == ["pretrained", "b", "pretrained - best baseline"]


@pytest.mark.parametrize("sizes", [(32,), (32, 128, 512)])
def test_the_plot_names_every_method(tmp_path, sizes):
    curves = {
        **CROSSING,
        "untrained:cnn": dict.fromkeys((32, 128, 512), 0.3),
        "a": dict.fromkeys((32, 128, 512), 0.3),
    }
    kinds = {
        "pretrained": "network",
        "untrained": "network",
        "untrained:cnn": "control",
        "a": "baseline",
    }
    result = made({m: {n: v[n] for n in sizes} for m, v in curves.items()}, kinds=kinds)
    axes = Figure().add_subplot()
    assert result.plot(axes) is axes
    if len(sizes) > 1:
        assert axes.get_ylabel() == "test MCC"
        named = {text.get_text() for text in axes.texts}
    else:  # a row for each method
        assert axes.get_xlabel() == "test MCC, 32 labels"
        named = {text.get_text().removeprefix("untrained:") for text in axes.get_yticklabels()}
    assert named == {"pretrained", "untrained", "cnn", "a"}
    path = result.save(tmp_path / "deep" / "curve.png")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_a_result_is_a_tidy_table_and_short_in_notebooks(tmp_path):
    result = made(CROSSING, seeds=2)
    frame = result.to_pandas()
    assert len(frame) == 12 and {"method", "kind", "labels", "seed", "mcc"} <= set(frame.columns)
    assert frame[(frame.method == "untrained") & (frame.labels == 128)].mcc.mean() == pytest.approx(
        0.4
    )
    assert "<table" in result._repr_html_() and repr(result) == result.table().text()
    again = pd.read_csv(result.save(tmp_path / "runs.csv"))
    assert list(again.columns) == list(frame.columns) and len(again) == 12


def test_without_out_the_runs_live_as_long_as_the_result(spec, tmp_path):
    result = measure(replace(spec, out=None, methods=("gc_only",)))
    folder = result.folder
    assert (folder / "runs.jsonl").exists()
    saved = result.save(tmp_path / "kept")
    del result
    gc.collect()
    assert not folder.exists() and (saved / "label_efficiency.json").exists()
    # continues from what was saved
    assert len(measure(replace(spec, out=saved, methods=("gc_only",))).runs) == 4
    assert len((saved / "runs.jsonl").read_text().splitlines()) == 4


def test_without_an_objective_the_domains_recipe_chooses(spec, monkeypatch):
    class Own(Inputs):
        recipes = {
            "first": FitRecipe(
                "a test", lambda store, parent, count: {"objective": Classify(bins=2)}
            )
        }

    monkeypatch.setitem(vars(DOMAIN), "inputs", Own())
    work = LabelEfficiencyRun.open(replace(spec, objective=None))
    assert work.methods.objective.bins == 2 and len(work.methods.objective.classes) == 2
    monkeypatch.setitem(vars(DOMAIN), "inputs", Inputs())
    with pytest.raises(ConfigError, match="recommends no objective; give one of"):
        LabelEfficiencyRun.open(replace(spec, objective=None))


def test_a_table_of_natural_inputs_is_enough(tiny, tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "bases": ["".join(rng.choice(list("AT" if n % 2 else "GC"), 30)) for n in range(40)],
            "kind": ["poor" if n % 2 else "rich" for n in range(40)],
            "part": ["test"] * 8 + ["train"] * 32,
        }
    )
    options = {"init": tiny.checkpoint.path, "sizes": (4, 8), "seeds": 2, "methods": ("gc_only",)}
    columns = {"input": "bases", "target": "kind"}
    drawn = sf.label_efficiency(table.drop(columns="part"), **columns, **options)
    assert len(drawn.runs) == 4 and drawn.interval("gc_only", 8).value > 0.9
    chosen = sf.label_efficiency(table, split="part", **columns, **options)
    listed = sf.label_efficiency(
        table["bases"].tolist(), targets=table["kind"], split=table["part"], **options
    )
    assert [run.metrics for run in chosen.runs] == [run.metrics for run in listed.runs]
    with pytest.raises(ConfigError, match="no column 'kin'; did you mean 'kind'"):
        sf.label_efficiency(table, input="bases", target="kin", **options)
    options["sizes"] = (31,)
    assert len(sf.label_efficiency(table, split="part", **columns, **options).runs) == 2
    with pytest.raises(ConfigError, match="30 training labels; sizes ask for 31"):
        sf.label_efficiency(table[["bases", "kind"]], **columns, **options)
