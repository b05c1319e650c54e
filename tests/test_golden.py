"""Every format ever released opens for good and predicts what it did (tests/golden/<name>-v<format>)."""

import json
from pathlib import Path

import numpy as np
import pytest

from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.model import Model

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*-v*"))


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_an_old_checkpoint_opens_and_predicts(folder: Path):
    assert sum(f.stat().st_size for f in folder.rglob("*")) < 250_000
    expected = json.loads((folder / "expected.json").read_text())
    records = [{"bases": np.array(["ACGT".index(base) for base in text], np.uint8)} for text in expected["sequences"]]
    opened = Checkpoint.open(folder / "checkpoint")
    assert opened.run.objective == opened.objectives[0] and opened.step > 0
    predicted = Model.load(folder / "checkpoint", device="cpu").outputs(records)
    for name, values in predicted.items():
        assert np.allclose(values, expected[name], atol=1e-6, rtol=0)
