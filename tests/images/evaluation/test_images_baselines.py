"""The rivals: HOG against scikit-image, and that each learns what it can."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sciforge.errors import ConfigError
from sciforge.images.evaluation import baselines
from sciforge.images.evaluation.baselines import BASELINES, hog


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "STEPS", 60)
    monkeypatch.setattr(baselines, "EPOCHS", 1)


@dataclass(frozen=True)
class Classes:
    classes: tuple[str, ...] = ("flat", "upright", "never")


@dataclass(frozen=True)
class Number:
    mean: float = 10.0
    std: float = 4.0


def bars(count: int, seed: int) -> list[dict]:
    """Return bars that lie or stand, anywhere, before noise."""
    rng, records = np.random.default_rng(seed), []
    for number in range(count):
        image = rng.integers(0, 60, (16, 16, 1))
        at = int(rng.integers(3, 12))
        image[at : at + 2] = 200
        bright = int(image.max())
        image = image if number % 2 else image.transpose(1, 0, 2)
        records.append(
            {"image": image.astype(np.uint8), "label": "flat" if number % 2 else "upright"}
        )
        records[-1]["value"] = float(at) if bright else 0.0
    return records


@pytest.mark.parametrize("channels", [1, 3])
def test_hog_is_that_of_scikit_image(channels):
    feature = pytest.importorskip("skimage.feature", reason="scikit-image is not installed")
    images = np.random.default_rng(0).integers(0, 256, (3, 30, 28, channels)).astype(np.uint8)
    axis = -1 if channels == 3 else None
    options = {
        "orientations": 9,
        "pixels_per_cell": (4, 4),
        "cells_per_block": (2, 2),
        "channel_axis": axis,
    }
    expected = np.stack(
        [feature.hog(image if channels == 3 else image[..., 0], **options) for image in images]
    )
    assert np.abs(hog(images) - expected).max() < 1e-6


@pytest.mark.parametrize("name", BASELINES)
def test_classes_are_learnt_and_the_same_each_time(name):
    train, test = bars(60, 0), bars(100, 1)
    state = torch.get_rng_state()
    found = BASELINES[name](Classes(), train, test, 0)["probability"]
    right = (
        np.array([record["label"] for record in test])
        == np.array(Classes().classes)[found.argmax(1)]
    )
    assert found.shape == (100, 3) and np.allclose(found.sum(1), 1, atol=1e-5)
    assert right.mean() > (0.6 if name == "pixels_linear" else 0.95)
    assert np.array_equal(BASELINES[name](Classes(), train, test, 0)["probability"], found)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", BASELINES)
def test_numbers_are_learnt_in_their_own_unit(name):
    train, test = (bars(120, seed)[1::2] for seed in (0, 1))
    found = BASELINES[name](Number(), train, test, 0)["value"]
    value = np.array([record["value"] for record in test])
    assert found.shape == (60,) and np.mean((found - value) ** 2) < 0.5 * value.var()


def test_what_has_neither_classes_nor_numbers_is_refused():
    with pytest.raises(ConfigError, match="a class or a number"):
        BASELINES["pixels_linear"](Classes(()), bars(4, 0), bars(4, 1), 0)
    with pytest.raises(ConfigError, match="HOG needs pictures of 8 pixels"):
        hog(np.zeros((1, 7, 30, 1), np.uint8))
