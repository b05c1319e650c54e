"""Closed forms of the learning rate."""

import math

import numpy as np
import pytest

from sciforge.core.training.run import Schedule
from sciforge.errors import ConfigError

STEPS = np.arange(200)


def rates(**options) -> np.ndarray:
    schedule = Schedule(steps=200, lr=2.0, warmup=0.1, **options)
    return np.array([schedule.lr_at(int(step)) for step in STEPS])


@pytest.mark.parametrize("kind", ["constant", "exponential", "step", "cosine", "trapezoid"])
def test_warm_up_is_linear(kind: str):
    assert np.allclose(rates(kind=kind)[:20], 2.0 * np.arange(1, 21) / 20)


def test_kinds_follow_their_closed_forms():
    done = (STEPS[20:] - 20) / 180
    assert np.allclose(rates(kind="constant")[20:], 2.0)
    assert np.allclose(rates(kind="exponential", min_lr_ratio=0.01)[20:], 2.0 * 0.01**done)
    cosine = 0.1 + 0.9 * (1 + np.cos(np.pi * done)) / 2
    assert np.allclose(rates(kind="cosine", min_lr_ratio=0.1)[20:], 2.0 * cosine)
    assert np.allclose(
        rates(kind="step", factor=0.5, drops=3)[20:], 2.0 * 0.5 ** np.floor(4 * done)
    )
    falling = 1 - 0.9 * np.clip((done - 0.75) / 0.25, 0, 1)
    assert np.allclose(rates(kind="trapezoid", min_lr_ratio=0.1, cooldown=0.25)[20:], 2.0 * falling)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"lr": -1.0},
        {"lr": math.nan},
        {"warmup": 1.5},
        {"kind": "cosinus"},
        {"patience": 2},
        {"clip": -1},
    ],
)
def test_a_bad_schedule_is_refused(options: dict):
    with pytest.raises(ConfigError, match="schedule"):
        Schedule(**options)
