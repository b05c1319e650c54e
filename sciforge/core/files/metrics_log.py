"""What happened, as it happens: metrics.jsonl and a progress bar."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sciforge.core.files.atomic import one_line, replace_file


class MetricsLog:
    """Appends one JSON line a step to metrics.jsonl and shows a progress bar on a terminal; silent on other ranks."""

    def __init__(self, path: Path | None, steps: int, start: int = 0, label: str = "train"):
        self.path = path
        self.handle = None
        if path is not None:
            keep = "".join(_lines_before(path, start))  # a resumed run repeats the steps after its checkpoint
            with one_line(path):
                replace_file(path, lambda work: work.write_text(keep, encoding="utf-8"))
                self.handle = open(path, "a", encoding="utf-8")
        self.bar = tqdm(total=steps, initial=start, desc=label, unit="step", disable=None if path else True)

    def write(self, step: int, **metrics: Any) -> None:
        """Append one line; metrics are numbers or strings."""
        if self.handle:
            with one_line(self.path):
                self.handle.write(json.dumps({"step": step, **metrics}) + "\n")
                self.handle.flush()

    def advance(self, **shown: float) -> None:
        """Move the bar one step on."""
        self.bar.set_postfix({k: f"{v:.4g}" for k, v in shown.items()}, refresh=False)
        self.bar.update()

    def sync(self) -> None:
        """Force the lines to disk."""
        if self.handle:
            with one_line(self.path):
                os.fsync(self.handle.fileno())

    def close(self) -> None:
        """Close file and bar."""
        self.bar.close()
        if self.handle:
            with contextlib.suppress(OSError):  # what a full disk could not take has been reported
                self.handle.close()


def _lines_before(path: Path, step: int) -> list[str]:
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                if line.endswith("\n") and json.loads(line)["step"] < step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # a line cut by a crash
    return kept


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
