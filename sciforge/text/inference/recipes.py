"""Recommended ways to specialise a text model, by name."""

from collections.abc import Mapping
from typing import Any

from sciforge.core.domain import FitRecipe, Objective
from sciforge.core.training.run import Full, Schedule
from sciforge.errors import ConfigError
from sciforge.text.objectives.document_labels import ClassifyDocuments, RateDocuments
from sciforge.text.objectives.word_tags import TagWords

# As in benchmarks/text_adapt.py: with few labels the solved head is the result, and descent adds
# nothing.
SOLVED = Schedule(steps=1, batch=32, lr=0.0, kind="constant")
GENTLE = Schedule(steps=32, batch=32, lr=5e-5, kind="step", warmup=0.1)


def objective_of(store: Any, **options: Any) -> Objective:
    """Return what a store's labels call for: tags of words, a class, or a number.

    Raises:
        ConfigError: there are no labels.
    """
    if store.meta.get("tags"):
        return TagWords()
    if store.meta.get("classes"):
        return ClassifyDocuments(**options)
    if "value" in store[0]:
        return RateDocuments(**options)
    raise ConfigError(
        f"{store.path} holds documents without labels; prepare them with a label column"
    )


def _few_labels(store: Any, parent: Any, count: int) -> dict[str, Any]:
    return {"objective": objective_of(store), "schedule": SOLVED}


def _states_alone(store: Any, parent: Any, count: int) -> dict[str, Any]:
    return {"objective": objective_of(store, grams=False), "schedule": SOLVED}


def _finetune(store: Any, parent: Any, count: int) -> dict[str, Any]:
    return {
        "objective": objective_of(store),
        "schedule": GENTLE,
        "finetuning": Full(layer_decay=0.8),
    }


RECIPES: Mapping[str, FitRecipe] = {
    "few-labels": FitRecipe(
        "A solved head on the states of every layer and on n-grams of letters.", _few_labels
    ),
    "states-alone": FitRecipe(
        "As few-labels without n-grams: what the net alone knows.", _states_alone
    ),
    "finetune": FitRecipe(
        "The solved head, then 32 gentle steps of the whole net: for thousands of labels.",
        _finetune,
    ),
}
