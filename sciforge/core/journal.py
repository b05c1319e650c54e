"""What happened, as it happens: metrics.jsonl and a progress bar."""

import json
import os
from pathlib import Path
from typing import Any

from tqdm import tqdm


class Journal:
    """Appends one JSON line a step to metrics.jsonl and shows a progress bar on a terminal; silent on other ranks."""

    def __init__(self, path: Path | None, steps: int, start: int = 0, label: str = "train"):
        self.path = path
        self.handle = None
        if path is not None:
            keep = _lines_before(path, start)  # a resumed run repeats the steps after its checkpoint
            path.write_text("".join(keep), encoding="utf-8")
            self.handle = open(path, "a", encoding="utf-8")
        self.bar = tqdm(total=steps, initial=start, desc=label, unit="step", disable=None if path else True)

    def write(self, step: int, **figures: Any) -> None:
        """Append one line; figures are numbers or strings."""
        if self.handle:
            self.handle.write(json.dumps({"step": step, **figures}) + "\n")
            self.handle.flush()

    def advance(self, **shown: float) -> None:
        """Move the bar one step on."""
        self.bar.set_postfix({k: f"{v:.4g}" for k, v in shown.items()}, refresh=False)
        self.bar.update()

    def sync(self) -> None:
        """Force the lines to disk."""
        if self.handle:
            os.fsync(self.handle.fileno())

    def close(self) -> None:
        """Close file and bar."""
        self.bar.close()
        if self.handle:
            self.handle.close()


def _lines_before(path: Path, step: int) -> list[str]:
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                if line.endswith("\n") and json.loads(line)["step"] < step:
                    kept.append(line)
            except (ValueError, KeyError):
                continue  # a line cut by a crash
    return kept


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
