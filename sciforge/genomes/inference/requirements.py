"""What an output needs of a checkpoint: classes, a class by name, hidden bases, the length of a
window.
"""

from typing import Any

from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, did_you_mean
from sciforge.genomes.objectives.masked_kmers import MaskedKmers
from sciforge.genomes.objectives.sequence_labels import Classify


def need_classes(model: Model) -> tuple[str, ...]:
    """Return the class names of a classification checkpoint; raises ConfigError for any other."""
    if not isinstance(model.objective, Classify):
        kind = type(model.objective).__name__
        raise ConfigError(
            f"{model.checkpoint.path} was trained for {kind}, not to classify; fine-tune it first"
        )
    return model.objective.classes


def class_index(model: Model, label: str) -> int:
    """Return the column of a class; of two classes the second needs no naming."""
    classes = need_classes(model)
    if not label and len(classes) == 2:
        return 1
    if label not in classes:
        raise ConfigError(
            f"label {label!r} is no class of the checkpoint; {did_you_mean(label, classes)}"
        )
    return classes.index(label)


def need_masked(model: Model) -> None:
    """Raise ConfigError unless the checkpoint was trained to fill in hidden bases."""
    if not isinstance(model.objective, MaskedKmers):
        kind = type(model.objective).__name__
        raise ConfigError(
            f"{model.checkpoint.path} was trained for {kind}; give a pretraining (MaskedKmers)"
            " checkpoint"
        )


def trained_length(objective: Any, window: int | None) -> int | None:
    """Return the bases of a window: as asked, or as the objective records; None where neither
    says.
    """
    if window is not None and window < 1:
        raise ConfigError(f"window is {window}; it must be at least 1")
    return window or getattr(objective, "length", None) or None


def need_length(objective: Any, window: int | None) -> int:
    """Return the bases of a window; raises ConfigError where neither `window` nor the objective
    says.
    """
    length = trained_length(objective, window)
    if length is None:
        raise ConfigError(
            "the checkpoint does not record the length it was trained on; give a window"
        )
    return length
