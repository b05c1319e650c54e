"""The results of a forgetting report on disk, one line a run, so that a stopped report goes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sciforge.experiments.forgetting.result import Trial
from sciforge.experiments.label_efficiency.results_log import record, recorded


@dataclass
class ResultsLog:
    """The results of a report on disk, one line a run."""

    out: Path
    found: dict[tuple[str, float, int], Trial] = field(default_factory=dict)

    @classmethod
    def open(cls, out: Path, fingerprint: Mapping[str, Any]) -> "ResultsLog":
        """Read what is done; raises ConfigError where it was done under other settings."""
        runs = [Trial.from_json(line) for line in recorded(out, fingerprint, "a report")]
        return cls(out, {(run.method, run.knob, run.seed): run for run in runs})

    def add(self, run: Trial) -> None:
        """Write down one result."""
        record(self.out, run.to_json())
        self.found[run.method, run.knob, run.seed] = run
