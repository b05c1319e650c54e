"""A model that is judged by its training records says so."""

import logging
import shutil

import pytest
from strangers import natural_inputs

import sciforge as sf
from sciforge.core.data.dataset import Dataset, as_dataset
from sciforge.core.training.model import Model

SEQUENCES, LABELS = natural_inputs("genomes")
SPLIT = ["train"] * 30 + ["test"] * 10


@pytest.fixture(scope="module")
def task() -> Dataset:
    return as_dataset(SEQUENCES, LABELS, domain="genomes", split=SPLIT)


@pytest.fixture(scope="module")
def tuned(tiny: object, task: Dataset) -> Model:
    model = sf.load(tiny.checkpoint.path)
    return model.fit(task, schedule=sf.Schedule(steps=1, batch=4), verbose=False)


def _said(caplog: pytest.LogCaptureFixture, model: Model, *data: object, **options: object) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "sciforge"):
        model.evaluate(*data, **options)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) <= 1
    return "".join(lines)


def test_the_train_split_is_named_and_the_test_split_is_not(
    tuned: Model, task: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    line = _said(caplog, tuned, task, split="train")
    assert "the train split is what the checkpoint was trained on" in line
    assert not _said(caplog, tuned, task)


def test_a_part_of_the_train_split_is_called_a_part(
    tiny: object, task: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"schedule": sf.Schedule(steps=1, batch=4), "verbose": False}
    tuned = sf.load(tiny.checkpoint.path).fit(task, labels=10, **options)
    assert "is some of what" in _said(caplog, tuned, task, split="train")


def test_training_records_in_other_data_are_counted(
    tuned: Model, caplog: pytest.LogCaptureFixture
) -> None:
    line = _said(caplog, tuned, SEQUENCES[25:35], LABELS[25:35])
    assert "5 of 10 records are in the training split" in line
    assert not _said(caplog, tuned, SEQUENCES[30:], LABELS[30:])
    other = as_dataset(SEQUENCES, LABELS, domain="genomes", split=["test"] * 20 + ["train"] * 20)
    assert "20 of 20 records" in _said(caplog, tuned, other)


def test_data_that_have_gone_are_no_error(
    tiny: object, caplog: pytest.LogCaptureFixture, tmp_path: object
) -> None:
    store = as_dataset(SEQUENCES, LABELS, domain="genomes").save(tmp_path / "store")
    options = {"schedule": sf.Schedule(steps=1, batch=4), "verbose": False}
    tuned = sf.load(tiny.checkpoint.path).fit(store, **options)
    assert "10 of 10 records" in _said(caplog, tuned, SEQUENCES[:10], LABELS[:10])
    shutil.rmtree(store)
    assert not _said(caplog, tuned, SEQUENCES[:10], LABELS[:10])
