"""Recommended ways to specialise a molecule encoder, or a generator, by name."""

import math
from collections.abc import Mapping
from typing import Any

from sciforge.core.domain import FitRecipe
from sciforge.core.training.run import Freeze, Full, Schedule
from sciforge.errors import ConfigError
from sciforge.molecules.objectives.generation import Grow
from sciforge.molecules.objectives.properties import Properties

BATCH = 32


def _few_labels(store: Any, parent: Any, count: int) -> dict[str, Any]:
    _need_labels(store)
    schedule = Schedule(steps=1, batch=BATCH, lr=0.0, kind="constant")
    return {"objective": Properties(), "schedule": schedule, "finetuning": Freeze()}


def _finetune(store: Any, parent: Any, count: int) -> dict[str, Any]:
    _need_labels(store)
    steps = max(16, math.ceil(count / BATCH))
    schedule = Schedule(steps=steps, batch=BATCH, lr=5e-5, kind="step", warmup=0.1)
    return {"objective": Properties(), "schedule": schedule, "finetuning": Full(layer_decay=0.8)}


def _generator(store: Any, parent: Any, count: int) -> dict[str, Any]:
    if not isinstance(parent.objectives[0], Grow):
        raise ConfigError(
            f"{parent.path} is no generator; start from molecules-mini, or choose another recipe"
        )
    return {
        "objective": parent.objectives[0],
        "schedule": Schedule(steps=300, batch=BATCH, lr=3e-4),
    }


def _need_labels(store: Any) -> None:
    if not store.meta.get("labels"):
        raise ConfigError(
            "there are no labels; give targets, or recipe='generator' to train a generator on"
            " molecules"
        )


RECIPES: Mapping[str, FitRecipe] = {
    "few-labels": FitRecipe(
        "A head solved in closed form on the encoder as it is: seconds, best up to some thousand"
        " labels.",
        _few_labels,
    ),
    "finetune": FitRecipe(
        "The solved head, then one gentle epoch (16 steps at least) that moves the encoder too.",
        _finetune,
    ),
    "generator": FitRecipe(
        "Train a generator further on molecules without labels: 300 steps.",
        _generator,
    ),
}
