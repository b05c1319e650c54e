"""Recommended ways to specialise a Vision Transformer, by name."""

import math
from collections.abc import Mapping
from typing import Any

from sciforge.core.domain import FitRecipe, Objective
from sciforge.core.training.run import Freeze, Full, Schedule
from sciforge.errors import ConfigError
from sciforge.images.objectives.detection import DetectObjects
from sciforge.images.objectives.segmentation import SegmentPatches
from sciforge.images.objectives.supervised import ClassifyImages, RegressImages

BATCH = 32


def objective_for(store: Any) -> Objective:
    """Return what a store has labels for: classes, numbers, boxes or label maps; raises
    ConfigError where it has none.
    """
    columns = next(shard["columns"] for shard in store.index["shards"] if shard["num_records"])
    kinds = {
        "label": ClassifyImages,
        "value": RegressImages,
        "boxes": DetectObjects,
        "segments": SegmentPatches,
    }
    for name, kind in kinds.items():
        if name in columns:
            return kind()
    raise ConfigError("the images have no labels; give targets, one for each")


def _few_labels(store: Any, parent: Any, count: int) -> dict[str, Any]:
    objective = objective_for(store)
    if isinstance(objective, SegmentPatches):  # its head is not solved in closed form
        return _finetune(store, parent, count)
    schedule = Schedule(steps=1, batch=BATCH, lr=0.0, kind="constant")
    return {"objective": objective, "schedule": schedule, "finetuning": Freeze()}


def _finetune(store: Any, parent: Any, count: int) -> dict[str, Any]:
    objective = objective_for(store)
    if isinstance(objective, DetectObjects | SegmentPatches):
        schedule = Schedule(steps=300, batch=8, lr=1e-3, kind="cosine")
        return {"objective": objective, "schedule": schedule}
    steps = max(16, math.ceil(count / BATCH))
    schedule = Schedule(steps=steps, batch=BATCH, lr=2e-4, kind="step", warmup=0.1)
    return {"objective": objective, "schedule": schedule, "finetuning": Full(layer_decay=0.8)}


RECIPES: Mapping[str, FitRecipe] = {
    "few-labels": FitRecipe(
        "A head solved in closed form on the network as it is: seconds, as good as training it with"
        " few labels.",
        _few_labels,
    ),
    "finetune": FitRecipe(
        "The solved head, then descent on the whole network: one gentle epoch, or 300 steps for"
        " boxes and label maps.",
        _finetune,
    ),
}
