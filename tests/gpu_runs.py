"""Training on the pretend GPU, for whoever counts how often the host waits there."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pretend_cuda import pretend_cuda

from sciforge.core.training import loop
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import Hardware, Run

CUDA = Hardware(device="cuda", threads=1)  # precision auto: bfloat16 by autocast


def train_on_gpu(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Checkpoint, Counter[str]]:
    """Train 3 steps with an evaluation; return the checkpoint and the waits of the costliest
    step.
    """
    steps: list[Counter[str]] = []
    with pretend_cuda() as gpu, monkeypatch.context() as patch:
        take_step = loop.take_step

        def counted(*args: Any) -> Any:
            before = Counter(gpu.syncs)
            metrics = take_step(*args)
            steps.append(gpu.syncs - before)
            return metrics

        patch.setattr(loop, "take_step", counted)
        schedule = replace(run.schedule, steps=3, evaluate_every=3, patience=0)
        checkpoint = loop.train(replace(run, hardware=CUDA, schedule=schedule))
    assert all(np.isfinite(value) for value in checkpoint.metrics.values() if np.isscalar(value)), (
        name
    )
    return checkpoint, max(steps[1:], key=Counter.total)
