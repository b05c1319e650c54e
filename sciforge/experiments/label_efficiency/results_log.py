"""The results of a curve on disk: one line a run, so that a curve that was stopped goes on where it was."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.files.atomic import read_json, replace_json
from sciforge.errors import ConfigError
from sciforge.experiments.label_efficiency.result import RunMetrics


def recorded(out: Path, fingerprint: Mapping[str, Any], what: str, grows: bool = False) -> list[dict[str, Any]]:
    """Return the lines of results that stand in a folder, and keep what they were made under.

    Args:
        out: the folder.
        fingerprint: settings that must not change between two runs.
        what: how an error names the results.
        grows: settings may be added that earlier results did not have.

    Raises:
        ConfigError: they were made under other settings, or a line is damaged.
    """
    for stale in out.glob(".run-*"):
        shutil.rmtree(stale, ignore_errors=True)
    path = out / "runs.jsonl"
    if not (out / "spec.json").exists():
        if path.exists():
            raise ConfigError(f"{out}: runs.jsonl without spec.json; choose another --out")
        replace_json(out / "spec.json", fingerprint)
    before = read_json(out / "spec.json", ConfigError)
    for key, value in fingerprint.items():
        if before.get(key) != value and (key in before or not grows):
            raise ConfigError(f"{out} holds {what} with another {key}; use the same one or choose another --out")
    if fingerprint.keys() - before.keys():
        replace_json(out / "spec.json", {**before, **fingerprint})
    text = path.read_bytes() if path.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        os.truncate(path, len(whole))  # drops a line that a kill cut short
    found = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            raise ConfigError(f"{path}:{number}: damaged; delete this line, and its run is made again") from None
    return found


def record(out: Path, line: Mapping[str, Any]) -> None:
    """Add one line of results, on the disk before this returns."""
    with open(out / "runs.jsonl", "a") as handle:
        handle.write(json.dumps(line) + "\n")
        handle.flush()
        os.fsync(handle.fileno())


@dataclass
class ResultsLog:
    """The results of a curve on disk, one line a run, beside the outputs on every test example."""

    out: Path
    found: dict[tuple[str, int, int], RunMetrics] = field(default_factory=dict)

    @classmethod
    def open(cls, out: Path, fingerprint: Mapping[str, Any]) -> "ResultsLog":
        """Read what is done; raises ConfigError where it was done under other settings."""
        diary = cls(out)
        for line in recorded(out, fingerprint, "a curve", grows=True):
            run = RunMetrics.from_json(line)
            diary.found[run.method, run.labels, run.seed] = run
        (out / "outputs").mkdir(exist_ok=True)
        return diary

    def add(self, run: RunMetrics) -> None:
        """Write down one result: the outputs first, so that a line is never without them."""
        target = self.out / "outputs" / f"{name_of(run.method, run.labels, run.seed)}.npz"
        with open(target.with_suffix(".part"), "wb") as handle:
            np.savez_compressed(handle, **_flat(run.outputs))
        target.with_suffix(".part").replace(target)
        record(self.out, run.to_json())
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
