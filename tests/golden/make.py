"""Write golden checkpoints of the present format; run once for each new format, never to mend a
failing test.

    python tests/golden/make.py [DOMAIN ...]

For each domain, from the tiny runs of tests/<domain>/contract.py: the fine-tuned checkpoint in
float32, its store, what it predicts for the test split, and every metric of both runs in float64.
"""

import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from sciforge.core.data.store import Store
from sciforge.core.domain import domain_names
from sciforge.core.files.metrics_log import read_metrics
from sciforge.core.training.checkpoint_formats import FORMAT
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from tiny_runs import load_file  # noqa: E402


def plain(value: np.ndarray) -> list:
    """Return an output as JSON values; a ragged one as a list for each record."""
    return (
        [plain(np.asarray(part)) for part in value]
        if value.dtype == object
        else value.astype(float).tolist()
    )


def write(domain: str) -> Path:
    """Train the tiny runs of a domain, in float64 and in float32, and keep what they gave."""
    out = TESTS / "golden" / f"{domain}-v{FORMAT}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for precision in ("float64", "float32"):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)  # short relative paths in the recorded run
            runs = load_file(TESTS / domain / "contract.py").tiny(Path("."))[1:]
            runs = [
                replace(run, hardware=replace(run.hardware, precision=precision)) for run in runs
            ]
            checkpoint = [train(run) for run in runs][1]
            if precision == "float64":
                for run in runs:
                    lines = [
                        json.dumps(line) + "\n" for line in read_metrics(run.out / "metrics.jsonl")
                    ]
                    (out / f"{run.out.name}.jsonl").write_text("".join(lines))
            else:
                shutil.copytree(checkpoint.path, out / "checkpoint")
                shutil.copytree(runs[1].data, out / "store")
                model = Model.load(checkpoint.path, device="cpu")
                outputs = model.outputs(model.objective.examples(Store.open(runs[1].data), "test"))
                expected = {name: plain(value) for name, value in outputs.items()}
                (out / "expected.json").write_text(json.dumps(expected) + "\n")
            os.chdir(TESTS)
    return out


if __name__ == "__main__":
    for name in sys.argv[1:] or domain_names():
        print(write(name))
