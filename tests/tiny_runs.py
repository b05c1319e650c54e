"""Each domain's tiny store and runs (tests/<domain>/contract.py), for whoever tests with them."""

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from sciforge.core.data.store import Store
from sciforge.core.files.metrics_log import read_metrics
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Run

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
# Names in a metrics.jsonl of the first golden runs, as regular expressions, and what they are
# called now.
RENAMED_METRICS = {r"^rate$": "lr", r"^dev_": "validation_"}


def load_file(path: Path) -> ModuleType:
    """Import a Python file that is in no package (a contract, a benchmark)."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exhaust(read: Callable[[Path], Any]) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        for _ in read(path):
            pass

    return run


@dataclass(frozen=True)
class Tiny:
    """A domain's tiny store and runs, the first already trained."""

    store: Store
    pretraining: Run
    finetuning: Run
    checkpoint: Checkpoint

    @property
    def labelled(self) -> Store:
        """The store of the fine-tuning run."""
        return Store.open(self.finetuning.data)


def make_tiny(domain: str, folder: Path) -> Tiny:
    """Build a domain's tiny store and pretrain on it."""
    store, pretraining, finetuning = load_file(ROOT / "tests" / domain / "contract.py").tiny(folder)
    return Tiny(store, pretraining, finetuning, train(pretraining))


def assert_saves_itself(model: Model, folder: Path, inputs: Any, *labelled: Any, **names: str):
    """Save a model, open it again and compare: predictions and metrics are equal to the last bit.

    Args:
        model: fitted.
        folder: to save in.
        inputs: to predict for.
        labelled: to evaluate on: inputs and labels, or a table.
        names: of the columns of a table, as `evaluate` takes them.
    """
    again = Model.load(model.save(folder), device="cpu", batch=model.batch)
    column = {"input": names["input"]} if "input" in names else {}
    before, after = model.predict(inputs, **column), again.predict(inputs, **column)
    assert len(before) == len(inputs) and list(before) == list(after)
    assert before.index.equals(after.index)
    for name in before:
        for one, other in zip(before[name], after[name], strict=True):
            np.testing.assert_array_equal(one, other)
    metrics = model.evaluate(*labelled, **names)
    assert metrics and dict(metrics) == dict(again.evaluate(*labelled, **names))


def golden_metrics(file: Path) -> dict[tuple[int, str], float]:
    """Return (step, present name) -> value of every metric in a golden metrics.jsonl."""
    metrics = {}
    for line in read_metrics(file):
        step = line.pop("step")
        for name, value in line.items():
            for pattern, new in RENAMED_METRICS.items():
                name = re.sub(pattern, new, name)
            metrics[step, name] = value
    return metrics


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Return the largest difference between two sets of weights of the same names."""
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
