"""The results of a forgetting report on disk, one line a run, so that a stopped report goes on."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sciforge.core.folder import read_json, write_json
from sciforge.core.forget_result import Trial
from sciforge.errors import ConfigError


@dataclass
class Diary:
    """The results of a report on disk, one line a run."""

    out: Path
    found: dict[tuple[str, float, int], Trial] = field(default_factory=dict)

    @classmethod
    def open(cls, out: Path, fingerprint: Mapping[str, Any]) -> "Diary":
        """Read what is done; raises ConfigError where it was done under other settings."""
        for stale in out.glob(".run-*"):
            shutil.rmtree(stale, ignore_errors=True)
        path = out / "runs.jsonl"
        if not (out / "spec.json").exists():
            if path.exists():
                raise ConfigError(f"{out}: runs.jsonl without spec.json; choose another --out")
            write_json(out / "spec.json", fingerprint)
        before = read_json(out / "spec.json", ConfigError)
        for key, value in fingerprint.items():
            if before.get(key) != value:
                raise ConfigError(f"{out} holds a report with another {key}; use the same one or choose another --out")
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if whole != lines:
            path.write_text("".join(whole))  # drops a line that a kill cut short
        runs = [Trial.from_json(json.loads(line)) for line in whole]
        return cls(out, {(run.method, run.knob, run.seed): run for run in runs})

    def add(self, run: Trial) -> None:
        """Write down one result."""
        with open(self.out / "runs.jsonl", "a") as handle:
            handle.write(json.dumps(run.to_json()) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        self.found[run.method, run.knob, run.seed] = run
