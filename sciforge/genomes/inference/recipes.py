"""Recommended ways to specialise a DNA-BERT, by name."""

from collections.abc import Mapping
from typing import Any

from sciforge.core.domain import FitRecipe, Objective
from sciforge.core.training.run import Full, Schedule
from sciforge.errors import ConfigError
from sciforge.genomes.objectives.base_tags import TagBases
from sciforge.genomes.objectives.sequence_labels import Classify, Regress

# As in benchmarks/few_labels.py: few gentle steps behind a solved head, the backbone slower still.
GENTLE = Schedule(steps=16, batch=32, lr=2e-4, kind="step", warmup=0.1)
FINETUNING = Full(layer_decay=0.8, backbone_lr_mult=0.25)
SOLVED = Schedule(steps=1, batch=32, lr=0.0, kind="step")


def objective_of(store: Any, strand_free: bool = False) -> Objective:
    """Return what a store's labels call for: a class, a number, or a class for every base.

    Raises:
        ConfigError: there are no labels.
    """
    if store.kind == "tracks":
        return TagBases()
    if store.kind != "windows":
        raise ConfigError(
            f"{store.path} holds a {store.kind} without labels; give labelled sequences or"
            " intervals"
        )
    return (
        Classify(strand_free=strand_free)
        if store.meta.get("classes")
        else Regress(strand_free=strand_free)
    )


def _few_labels(store: Any, parent: Any, count: int) -> dict[str, Any]:
    return {"objective": objective_of(store), "schedule": GENTLE, "finetuning": FINETUNING}


def _strand_free(store: Any, parent: Any, count: int) -> dict[str, Any]:
    return {
        "objective": objective_of(store, strand_free=True),
        "schedule": GENTLE,
        "finetuning": FINETUNING,
    }


def _solved_head(store: Any, parent: Any, count: int) -> dict[str, Any]:
    return {"objective": objective_of(store), "schedule": SOLVED}


RECIPES: Mapping[str, FitRecipe] = {
    "few-labels": FitRecipe(
        "A solved head with boosted trees, then 16 gentle steps of the whole net.", _few_labels
    ),
    "strand-free": FitRecipe(
        "As few-labels, for labels that do not depend on the strand.", _strand_free
    ),
    "solved-head": FitRecipe(
        "The solved head alone, the net as it is: for thousands of labels.", _solved_head
    ),
}
