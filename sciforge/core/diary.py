"""The results of a curve on disk: one line a run, so that a curve that was stopped goes on where it was."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.curve_result import RunFigures
from sciforge.core.folder import read_json, write_json
from sciforge.errors import ConfigError


@dataclass
class Diary:
    """The results of a curve on disk, one line a run, beside the outputs on every test example."""

    out: Path
    found: dict[tuple[str, int, int], RunFigures] = field(default_factory=dict)

    @classmethod
    def open(cls, out: Path, fingerprint: Mapping[str, Any]) -> "Diary":
        """Read what is done; raises ConfigError where it was done under other settings."""
        for stale in out.glob(".run-*"):
            shutil.rmtree(stale, ignore_errors=True)
        (out / "outputs").mkdir(exist_ok=True)
        if not (out / "spec.json").exists():
            if (out / "runs.jsonl").exists():
                raise ConfigError(f"{out}: runs.jsonl without spec.json; choose another --out")
            write_json(out / "spec.json", fingerprint)
        before = read_json(out / "spec.json", ConfigError)
        for key, value in fingerprint.items():
            if key in before and before[key] != value:
                raise ConfigError(f"{out} holds a curve with another {key}; use the same one or choose another --out")
        if fingerprint.keys() - before.keys():  # the curve has grown by what it did not have before
            write_json(out / "spec.json", {**before, **fingerprint})
        diary = cls(out)
        path = out / "runs.jsonl"
        whole = (
            [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            if path.exists()
            else []
        )
        if path.exists():
            path.write_text("".join(whole))  # drops a line that a kill cut short
        for line in whole:
            run = RunFigures.from_json(json.loads(line))
            diary.found[run.method, run.labels, run.seed] = run
        return diary

    def add(self, run: RunFigures) -> None:
        """Write down one result: the outputs first, so that a line is never without them."""
        target = self.out / "outputs" / f"{name_of(run.method, run.labels, run.seed)}.npz"
        with open(target.with_suffix(".part"), "wb") as handle:
            np.savez_compressed(handle, **_flat(run.outputs))
        target.with_suffix(".part").replace(target)
        with open(self.out / "runs.jsonl", "a") as handle:
            handle.write(json.dumps(run.to_json()) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        self.found[run.method, run.labels, run.seed] = replace(run, outputs={})


def _flat(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return outputs without ragged ones, which become all rows and how many each example has (`NAME.lengths`)."""
    flat = {}
    for name, values in outputs.items():
        flat[name] = np.concatenate(values.tolist()) if values.dtype == object else values
        if values.dtype == object:
            flat[f"{name}.lengths"] = np.array([len(value) for value in values])
    return flat


def name_of(method: str, labels: int, seed: int) -> str:
    """Return the file name of a run.

    >>> name_of("scratch:cnn", 32, 0)
    'scratch-cnn_32_0'
    """
    return f"{method.replace(':', '-')}_{labels}_{seed}"
