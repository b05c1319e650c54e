"""Held-out records: metrics agree with evaluation, and each group of records is left out."""

import numpy as np
import pytest
import torch

from sciforge.core.data.store import Store, prepare
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import evaluate
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError
from sciforge.experiments.held_out import HeldOut
from sciforge.genomes import Sequences

ENGINE = Engine(torch.device("cpu"), "float32")


def test_metrics_agree_with_evaluation_and_groups_are_left_out(tiny):
    made = tiny.checkpoint
    objective = made.objectives[0]
    held_out = HeldOut.of(Store.open(made.run.data), objective, ("validation",), "loss")
    found = held_out.evaluate_checkpoint(made, ENGINE)
    assert found.metrics == pytest.approx(
        evaluate(made.build(), objective, made.codec, held_out.records, ENGINE), rel=1e-5
    )
    assert found.value == found.metrics["loss"] and not held_out.higher_is_better
    assert len(found.without) == min(20, len(held_out.records)) and np.std(found.without) > 0


def test_outputs_and_networks_are_compared_alike(tiny, fit):
    made = fit(tiny.finetuning, "tuned", schedule={"steps": 2, "evaluate_every": 0, "patience": 0})
    held_out = HeldOut.of(tiny.labelled, made.objectives[0])
    outputs = Model.load(made.path, "cpu").outputs(held_out.records)
    found, other = held_out.evaluate_outputs(outputs), held_out.evaluate_checkpoint(made, ENGINE)
    assert held_out.split == "test" and "loss" not in found.metrics
    assert [found.value, *found.without] == pytest.approx([other.value, *other.without])


def test_a_store_without_held_out_records_is_refused(tiny, tmp_path):
    objective = tiny.finetuning.objective
    store = prepare(
        Sequences(files=(write_labels(tmp_path),), validation_share=0.0, test_share=0.0),
        tmp_path / "s",
    )
    with pytest.raises(
        ConfigError, match="has no test or validation records; prepare it with a test split"
    ):
        HeldOut.of(store, objective)


def write_labels(folder):
    (folder / "labels.tsv").write_text(
        "sequence\tlabel\n" + "ACGTACGTAC\tno\nTTGGTTGGTT\tyes\n" * 4
    )
    return folder / "labels.tsv"
