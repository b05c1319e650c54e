"""Transfer: every source against every other, and one left out, on paired seeds, from several
stores or one with groups.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from tiny_runs import make_tiny

from sciforge.core.data.store import Store, prepare
from sciforge.core.training.run import Hardware, Schedule
from sciforge.errors import ConfigError, SciforgeError
from sciforge.experiments import methods
from sciforge.experiments.methods import Recipe
from sciforge.experiments.subsets import write_store
from sciforge.experiments.transfer import run as module
from sciforge.experiments.transfer.result import OTHERS, TransferResult, TransferScore
from sciforge.experiments.transfer.run import measure
from sciforge.experiments.transfer.spec import Transfer
from sciforge.genomes import DOMAIN, Classify, Sequences

CPU = Hardware(device="cpu", precision="float32", threads=1)
SHORT = Recipe(Schedule(steps=2, batch=4, lr=1e-3, kind="step"), epochs=0.0)


@pytest.fixture(scope="module")
def species(tmp_path_factory):
    """Three species in which the label is told by GC content: in the third the other way round."""
    folder, rng, stores = tmp_path_factory.mktemp("species"), np.random.default_rng(0), []
    for name, flipped in (("ant", False), ("bee", False), ("cat", True)):
        rows = []
        for n in range(60):
            share = 0.35 if bool(n % 2) != flipped else 0.15
            bases = "".join(
                rng.choice(list("ACGT"), 40, p=[0.5 - share, share, share, 0.5 - share])
            )
            rows.append(f"{bases}\t{'yes' if n % 2 else 'no'}")
        (folder / f"{name}.tsv").write_text("sequence\tlabel\n" + "\n".join(rows) + "\n")
        options = {"validation_share": 0.0, "test_share": 0.3}
        stores.append(prepare(Sequences(files=(folder / f"{name}.tsv",), **options), folder / name))
    return stores


@pytest.fixture
def spec(species, tiny, tmp_path):
    return Transfer(
        data=tuple(store.path for store in species),
        out=tmp_path / "transfer",
        init=tiny.checkpoint.path,
        objective=Classify(bins=3, warm_start=False),
        labels=16,
        seeds=2,
        methods=("pretrained", "untrained", "gc_only"),
        metric="accuracy",
        recipe=SHORT,
        hardware=CPU,
    )


@pytest.fixture
def trained(noted):
    """The runs handed to `train`."""
    return noted(methods)


def test_a_matrix_of_three_species_says_which_one_is_another(spec):
    found = measure(replace(spec, methods=("gc_only",), labels=0, metric=None))
    matrix = found.matrix("gc_only")
    assert list(matrix.index) == ["ant", "bee", "cat", OTHERS] and list(matrix.columns) == [
        "ant",
        "bee",
        "cat",
    ]
    assert (
        matrix.loc["ant", "bee"] > 0.8
        and matrix.loc["bee", "ant"] > 0.8
        and matrix.loc["cat", "cat"] > 0.8
    )
    assert (
        matrix.loc["ant", "cat"] < -0.8 and matrix.loc[OTHERS, "cat"] < -0.8
    )  # leaving it out shows what a new one gets
    assert {score.labels for score in found.scores if score.source == OTHERS} == {84}
    assert found.cell("gc_only", OTHERS, "cat")[0].split == "test"


def test_methods_learn_the_same_records_on_paired_seeds(spec, trained, monkeypatch):
    seen = {}

    def baseline(objective, train, test, seed):
        seen.setdefault((str(train.store.path.name), seed), set()).add(
            tuple(r["bases"].tobytes() for r in train)
        )
        return original(objective, train, test, seed)

    original = DOMAIN.baselines["gc_only"]
    monkeypatch.setitem(DOMAIN.baselines, "gc_only", baseline)
    found = measure(spec)
    assert len(trained) == 2 * 2 * 6  # networks, seeds, training sets
    assert {(run.subset.count, run.subset.seed, run.seed) for run in trained} == {
        (16, 0, 0),
        (16, 1, 1),
    }
    assert (
        all(len(rows) == 1 and len(next(iter(rows))) == 16 for rows in seen.values())
        and len(seen) == 12
    )
    first, second = (run for run in trained[:2])
    assert first.init == spec.init and second.init is None and first.data == second.data
    table = found.table()
    assert [row[0] for row in table.rows[-2:]] == [
        "pretrained - untrained",
        "pretrained - best baseline",
    ]
    assert all("(gc_only)" in cell for cell in table.rows[-1][2:])
    frame = found.to_pandas()
    assert len(frame) == 3 * 2 * (3 * 3 + 3) and {"source", "target", "accuracy", "kind"} <= set(
        frame.columns
    )


def test_it_goes_on_where_it_was_and_may_grow(spec, trained):
    spec = replace(spec, methods=("untrained",), seeds=1)
    first = measure(spec)
    log = spec.out / "runs.jsonl"
    log.write_text(log.read_text()[:-30])  # the last line was cut short
    trained.clear()
    again = measure(spec)
    assert len(trained) == 1 and again == first
    trained.clear()
    assert measure(replace(spec, seeds=2)).cell("untrained", "ant", "bee")[:1] == first.cell(
        "untrained", "ant", "bee"
    )
    assert len(trained) == 6
    for change, key in (
        ({"labels": 8}, "labels"),
        ({"metric": "mcc"}, "metric"),
        ({"data": spec.data[:2]}, "data"),
    ):
        with pytest.raises(ConfigError, match=f"another {key}"):
            measure(replace(spec, **change))
    written = json.loads((spec.out / "transfer.json").read_text())
    assert len(written["cells"]) == 12 and (spec.out / "transfer.png").stat().st_size > 5000
    assert not list(spec.out.glob(".run-*"))


def test_groups_of_one_store_are_sources(spec, tiny, tmp_path):
    store = tiny.labelled
    grouped = write_groups(store, tmp_path / "grouped")
    found = measure(
        replace(
            spec, data=(grouped.path,), groups="name", labels=0, methods=("gc_only",), metric=None
        )
    )
    assert found.targets == ("lab A", "lab B") and len(found.training_sets) == 3
    counts = {s.source: s.labels for s in found.scores}
    assert counts["lab A"] + counts["lab B"] == len(store.split("train"))
    assert (
        found.cell("gc_only", OTHERS, "lab A")[0].value
        == found.cell("gc_only", "lab B", "lab A")[0].value
    )
    with pytest.raises(ConfigError, match="'split' has one value"):
        only = write_store(tmp_path / "one", {"train": store.split("train")}, store)
        measure(replace(spec, out=None, data=(only.path,), groups="split"))


def write_groups(store: Store, path) -> Store:
    """Return the store with every other record from another laboratory."""
    splits = {}
    for split in ("train", "validation", "test"):
        records = enumerate(store.split(split))
        splits[split] = [{**record, "name": f"lab {'AB'[i % 2]}"} for i, record in records]
    return write_store(path, splits, store)


def test_a_source_without_held_out_records_leaves_the_diagonal_empty(spec, species, tmp_path):
    whole = write_store(tmp_path / "dog", {"train": list(species[0].split("train"))}, species[0])
    data = (species[1].path, whole.path)
    found = measure(replace(spec, data=data, methods=("gc_only",), metric=None))
    assert found.interval("gc_only", "dog", "dog") is None and np.isnan(
        found.matrix("gc_only").loc["dog", "dog"]
    )
    assert found.cell("gc_only", "bee", "dog")[0].split == "train"
    assert found.plot(Figure().add_subplot()).get_xlabel() == "tested on"


def test_molecules_of_two_sources(tmp_path, trained):
    tiny = make_tiny("molecules", tmp_path)
    half = tiny.labelled.split("train")
    parts = [half.take(np.arange(start, len(half), 2)) for start in (0, 1)]
    stores = [
        write_store(
            tmp_path / name, {"train": part, "test": tiny.labelled.split("test")}, tiny.labelled
        )
        for name, part in zip(("one", "two"), parts, strict=True)
    ]
    found = measure(
        Transfer(
            data=tuple(store.path for store in stores),
            init=tiny.checkpoint.path,
            objective="properties",
            labels=8,
            seeds=1,
            methods=("pretrained", "untrained"),
            recipe=SHORT,
            hardware=CPU,
        )
    )
    assert len(trained) == 8 and all(np.isfinite(score.value) for score in found.scores)
    assert "<table" in found._repr_html_() and not (found.folder / "transfer.png").exists()


def test_what_cannot_be_compared_is_refused_before_any_training(spec, tiny, trained, tmp_path):
    heat = make_tiny("heat", tmp_path)
    (tmp_path / "other.tsv").write_text(
        "sequence\tlabel\n" + "ACGTACGTAC\tleft\nTTGGTTGGTT\tright\n" * 20
    )
    other = prepare(Sequences(files=(tmp_path / "other.tsv",)), tmp_path / "other")
    for change, message in (
        ({"labels": 1000}, "ant has .* training labels; labels asks for 1000"),
        ({"methods": ("pretraind",)}, "did you mean.*pretrained"),
        ({"data": (spec.data[0], other.path)}, "other has the classes"),
        ({"data": (spec.data[0], heat.labelled.path)}, "store of|needs"),
    ):
        with pytest.raises(SciforgeError, match=message):
            measure(replace(spec, **change))
    for change, message in (
        ({"data": spec.data[:1]}, "at least two stores"),
        ({"groups": "name"}, "3 stores with groups"),
        ({"data": spec.data[:1] * 2}, "given twice"),
        ({"seeds": 0}, "seeds is 0"),
        ({"objective": 3}, None),
    ):
        if message:
            with pytest.raises(ConfigError, match=message):
                replace(spec, **change)
    assert not trained and module.name_without("x") == "all but x"


def test_differences_are_paired_over_seeds_and_records():
    def scores(method, value):
        for seed, shift in enumerate((0.0, 0.3, -0.2)):
            without = tuple(value + shift + 0.01 * g for g in range(5))
            yield TransferScore(
                method,
                "a",
                "b",
                seed,
                8,
                "test",
                50,
                {"mcc": value + shift},
                value + shift,
                without,
            )

    runs = (*scores("pretrained", 0.5), *scores("untrained", 0.3))
    found = TransferResult(
        runs, "mcc", True, dict.fromkeys(("pretrained", "untrained"), "network"), ("a", "b")
    )
    difference = found.difference("pretrained", "untrained", "a", "b")
    assert difference.value == pytest.approx(0.2) and difference.high - difference.low < 1e-9
    interval = found.interval("pretrained", "a", "b")
    assert interval.high - interval.low > 0.3 and found.interval("pretrained", "b", "a") is None
