"""The summary of prepared data: nothing is dropped or doubled without a word."""

import json
import logging
from pathlib import Path

import pandas as pd
import pytest
from strangers import COUNT, DOMAINS, DONORS, natural_inputs, preparer

import sciforge as sf
from sciforge.cli.main import main
from sciforge.core.data import duplicates
from sciforge.core.data.dataset import Dataset, as_dataset

pytestmark = pytest.mark.filterwarnings("ignore:.*never change")
SEQUENCES = natural_inputs("genomes")[0]


def _table(path: Path, rows: list[tuple]) -> Path:
    pd.DataFrame(rows, columns=["sequence", "label", "donor", "split"]).to_csv(path, index=False)
    return path


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """A stranger's table: an empty label, two duplicates with other labels, a torn donor."""
    rows = [(s, "yes" if i % 2 else "no", DONORS[i], "train") for i, s in enumerate(SEQUENCES)]
    rows.append((SEQUENCES[0], "yes", "donor 0", "test"))  # in training as "no"
    rows.append((SEQUENCES[1], "yes", "donor 8", "train"))  # twice in training
    near = SEQUENCES[2][:30] + ("A" if SEQUENCES[2][30] != "A" else "C") + SEQUENCES[2][31:]
    rows.append((near, "no", "donor 9", "test"))
    rows += [(SEQUENCES[3], "", "donor 9", "test"), ("QQQQ", "no", "donor 9", "test")]
    return _table(tmp_path / "leaky.csv", rows)


def _prepared(file: Path) -> Dataset:
    task = sf.genomes.Sequences(files=(file,), group_column="donor")
    return sf.prepare(task, on_error="skip")


def test_every_loss_and_leak_is_counted(leaky: Path) -> None:
    dataset = _prepared(leaky)
    checks = dataset.checks
    assert (checks.duplicates.across, checks.duplicates.within) == (1, 1)
    assert checks.duplicates.conflicting == 2
    assert (checks.near.count, checks.near.records, checks.near.split) == (2, 2, "test")
    assert (checks.torn.count, checks.torn.first, checks.torn.splits) == (
        1,
        "donor 0",
        ("train", "test"),
    )
    assert sorted(kind.count for kind in checks.dropped) == [1, 1]
    assert any("leaky.csv:45" in kind.first for kind in checks.dropped)
    text = repr(dataset)
    for part in ("1 held-out record also in training", "1 exact duplicate within", "2 bad records"):
        assert part in text
    assert "donor 0" in dataset._repr_html_() and "45" in dataset._repr_html_()


def test_reasons_that_differ_in_a_number_or_a_name_are_one(tmp_path: Path) -> None:
    rows = [(s, "no" if i % 2 else "yes", "a", "train") for i, s in enumerate(SEQUENCES)]
    rows += [("ACGT" * 10 + "?", "no", "a", name) for name in ("traain", "tset", "dve")]
    dataset = _prepared(_table(tmp_path / "t.csv", rows))
    assert [kind.count for kind in dataset.checks.dropped] == [3]


def test_the_command_prints_the_summary_hides_it_and_gives_it_as_json(
    leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--group-column", "donor", "--on-error", "skip"]
    argv = ["prepare", "sequences", str(leaky), *options, "--out"]
    assert main([*argv, str(tmp_path / "one")]) == 0
    printed = capsys.readouterr().out
    assert "also in training" in printed and "label: train no: 20, yes: 21" in printed
    assert main(["--quiet", *argv, str(tmp_path / "two")]) == 0
    assert "also in training" not in capsys.readouterr().out
    assert main([*argv, str(tmp_path / "three"), "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["checks"]["duplicates"]["across"] == 1 and body["checks"]["torn"]["count"] == 1
    assert body["counts"] == {"train": 41, "test": 2}


def test_what_is_too_large_is_said_not_to_be_checked(
    leaky: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "MOST_COMPARED", 10)
    assert "not checked (more than 10 records); see sciforge audit" in repr(_prepared(leaky))
    monkeypatch.setattr(duplicates, "MOST_RECORDS", 10)
    assert _prepared(leaky).checks.duplicates is None


def test_repeats_with_another_label_among_missing_ones_do_not_conflict() -> None:
    inputs, _ = natural_inputs("molecules")
    labels = pd.DataFrame({"a": [1.0, *range(COUNT - 1)], "b": [None] * COUNT})
    dataset = as_dataset(inputs, labels, domain="molecules")
    assert dataset.checks.duplicates.conflicting == 0


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_same_record_in_two_splits_never_passes_in_silence(domain: str) -> None:
    inputs, labels = natural_inputs(domain)
    if domain == "heat":
        inputs = pd.concat([inputs, inputs.iloc[:3]], ignore_index=True)
    else:
        inputs, labels = [*inputs, *inputs[:3]], labels and [*labels, *labels[:3]]
    split = ["train"] * COUNT + ["test"] * 3
    notes = " ".join(as_dataset(inputs, labels, domain=domain, split=split).notes)
    assert "3 held-out records also in training" in notes or "left out" in notes


@pytest.mark.parametrize("domain", DOMAINS)
def test_given_splits_that_tear_groups_are_reported(domain: str) -> None:
    inputs, labels = natural_inputs(domain)
    split = ["train", "test"] * (COUNT // 2)
    dataset = as_dataset(inputs, labels, domain=domain, split=split, group=DONORS)
    assert "7 groups span several splits (40 records), the first: 'donor 0'" in repr(dataset)


def test_fit_and_train_say_it(
    tiny: object, tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    split = ["train"] * COUNT + ["test"]
    labels = ["no", "yes"] * 20 + ["no"]
    task = as_dataset([*SEQUENCES, SEQUENCES[0]], labels, domain="genomes", split=split)
    schedule = sf.Schedule(steps=1, batch=2)
    model = sf.load(tiny.checkpoint.path)
    model.fit(task, schedule=schedule)
    assert "1 held-out record also in training" in capsys.readouterr().out
    model.fit(task, schedule=schedule, verbose=False)
    assert "also in training" not in capsys.readouterr().out
    objective = sf.genomes.Classify(classes=("no", "yes"))
    with caplog.at_level(logging.INFO, "sciforge"):
        sf.train(
            data=task,
            out=tmp_path / "run",
            init=tiny.checkpoint.path,
            objective=objective,
            schedule=schedule,
        )
    assert "1 held-out record also in training" in caplog.text


def test_files_of_every_domain_have_a_summary(tmp_path: Path) -> None:
    for domain in DOMAINS:
        (tmp_path / domain).mkdir()
        dataset = sf.prepare(preparer(domain, tmp_path / domain))
        assert dataset.describe()[0].startswith(f"{COUNT} records: ")
        assert json.loads(json.dumps(dataset.to_json()))["checks"]["groups"] == 7
