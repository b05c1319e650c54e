"""What happened, as it happens: metrics.jsonl, TensorBoard's event files, and a progress bar.

A line of metrics.jsonl is {"step": 3, "loss": 1.2, ..., "lr": 0.001, "timing": {"seconds": 4.1,
"examples_per_second": 250.0, "memory_MiB": 800.0}}. A resumed run repeats every number but those
under "timing".
"""

import contextlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import IO, Any

import torch
from tqdm.auto import tqdm

from sciforge.core.files.atomic import one_line, replace_file
from sciforge.errors import MissingExtra

TIMING = "timing"  # the key of what no two runs have in common


class MetricsLog:
    """Appends JSON lines to metrics.jsonl and shows a progress bar on a terminal; silent on other
    ranks.

    Args:
        folder: of the run; None on other ranks.
        steps: of the run.
        start: the step to continue from; later lines are removed, since a resumed run writes them
            again.
        examples: of a step, for examples per second.
        device: whose memory is reported.
        tensorboard: also write event files, for `tensorboard --logdir FOLDER`.
    """

    def __init__(
        self,
        folder: Path | None,
        steps: int,
        start: int = 0,
        *,
        examples: int = 0,
        device: torch.device | None = None,
        tensorboard: bool = False,
    ) -> None:
        self.path = None if folder is None else folder / "metrics.jsonl"
        self.examples, self.device = examples, device or torch.device("cpu")
        self.handle: IO[str] | None = None
        self.events: Any = None
        if self.path is not None:
            kept = "".join(_lines_before(self.path, start))
            with one_line(self.path):
                self.events = _summary_writer(self.path.parent, start) if tensorboard else None
                replace_file(self.path, lambda work: work.write_text(kept, encoding="utf-8"))
                self.handle = open(self.path, "a", encoding="utf-8")
        self.bar = tqdm(
            total=steps, initial=start, desc="train", unit="step", disable=None if folder else True
        )
        self.began = self.before = time.monotonic()

    def step(self, step: int, **metrics: float) -> None:
        """Append the line of an optimiser step, with its timing, and move the progress bar on."""
        now = time.monotonic()
        timing = {"seconds": now - self.began, "memory_MiB": memory_MiB(self.device)}
        timing["examples_per_second"] = self.examples / max(now - self.before, 1e-9)
        self.before = now
        self.write(
            step,
            **metrics,
            **{TIMING: {name: float(f"{value:.6g}") for name, value in timing.items()}},
        )
        self.bar.set_postfix({"loss": f"{metrics['loss']:.4g}"}, refresh=False)
        self.bar.update()

    def write(self, step: int, **metrics: Any) -> None:
        """Append one line; metrics are numbers, text, or numbers by name."""
        if self.handle and self.path:
            with one_line(self.path):
                self.handle.write(json.dumps({"step": step, **metrics}) + "\n")
                self.handle.flush()
        if self.events:
            for name, value in {**metrics, **metrics.get(TIMING, {})}.items():
                if isinstance(value, float | int):
                    self.events.add_scalar(name, value, step)

    def sync(self) -> None:
        """Force the lines to disk."""
        if self.handle and self.path:
            with one_line(self.path):
                os.fsync(self.handle.fileno())

    def close(self) -> None:
        """Close files and bar."""
        self.bar.close()
        for handle in (self.handle, self.events):
            if handle:
                # what a full disk could not take has been reported
                with contextlib.suppress(OSError):
                    handle.close()


def memory_MiB(device: torch.device) -> float:
    """Return the largest memory so far in MiB: that allocated on a GPU, on a CPU the resident
    memory of the process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _summary_writer(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtra("tensorboard", "tensorboard") from None
    return SummaryWriter(str(folder), purge_step=start)


def _lines_before(path: Path, step: int) -> list[str]:
    lines = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                if line.endswith("\n") and json.loads(line)["step"] < step:
                    lines.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # a line cut by a crash
    return lines


def read_metrics(path: Path, *, timing: bool = False) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl; without timing they are the same for every run of the
    same settings.
    """
    lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return lines if timing else [{k: v for k, v in line.items() if k != TIMING} for line in lines]
