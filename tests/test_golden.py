"""Every format ever released opens for good and predicts what it did
(tests/golden/<name>-v<format>).
"""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import GOLDEN

from sciforge.core.data.store import Store
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.model import Model

# Outputs that have another name than when the golden predictions were written.
RENAMED = {"spread": "std"}


def golden(pattern: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "folder", sorted(GOLDEN.glob(pattern)), ids=lambda folder: folder.name
    )


def differences(outputs: dict[str, np.ndarray], expected: dict[str, list]) -> dict[str, float]:
    """Return the largest difference of each expected output, of ragged ones over all records."""
    largest = {}
    for name, values in expected.items():
        actual = outputs[name if name in outputs else RENAMED.get(name, name)]
        assert len(actual) == len(values), name
        pairs = zip(actual, values, strict=True)
        largest[name] = max(
            float(np.abs(np.asarray(a, float) - np.asarray(b)).max()) for a, b in pairs
        )
    return largest


@golden("*-v*")
def test_an_old_checkpoint_opens(folder: Path):
    checkpoint = Checkpoint.open(folder / "checkpoint")
    assert checkpoint.run.objective == checkpoint.objectives[0] and checkpoint.step > 0
    assert checkpoint.build()


@golden("*-v?")
def test_an_old_checkpoint_predicts_what_it_did(folder: Path):
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 800_000
    model = Model.load(folder / "checkpoint", device="cpu")
    records = model.objective.examples(Store.open(folder / "store"), "test")
    expected = json.loads((folder / "expected.json").read_text())
    assert expected and all(
        value < 1e-5 for value in differences(model.outputs(records), expected).values()
    )


def test_a_checkpoint_of_before_the_first_added_fields_predicts_what_it_did():
    """Format 1 gained fields with defaults (private training, pruning); a checkpoint without
    them opens too.
    """
    folder = GOLDEN / "genomes-v1-first"
    expected = json.loads((folder / "expected.json").read_text())
    records = [
        {"bases": np.array(["ACGT".index(x) for x in text], np.uint8)}
        for text in expected.pop("sequences")
    ]
    model = Model.load(folder / "checkpoint", device="cpu")
    outputs = model.outputs(records)
    assert all(value < 1e-5 for value in differences(outputs, expected).values())
