"""What learning one class or one number a record means, for every objective that has `scores(model,
batch)` -> [B, C].

Legend of shape letters: B batch, C classes, N records.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.data.store import Rows
from sciforge.core.domain import Batch, Categorical, Example, Gaussian, Likelihood, Loss, Record
from sciforge.core.learners.metrics import classification_metrics, regression_metrics
from sciforge.errors import DataError


def class_values(classes: Sequence[str]) -> np.ndarray:
    """Return the classes [C] as users gave them: whole numbers and booleans again, where all of
    them were.

    >>> class_values(("0", "1")).tolist(), class_values(("False", "True")).tolist()
    ([0, 1], [False, True])
    >>> class_values(("a", "1")).tolist()
    ['a', '1']
    """
    if classes and all(re.fullmatch(r"-?(0|[1-9]\d{0,17})", name) for name in classes):
        return np.array([int(name) for name in classes])
    if set(classes) == {"False", "True"}:
        return np.array([name == "True" for name in classes])
    return np.array(classes, object)


def class_columns(classes: Sequence[str], p_NC: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of a table of predicted classes.

    Args:
        classes: names, in the order of the outputs.
        p_NC: their probabilities.

    Returns:
        `label`, the most probable class, then `probability` of the second of two classes, or
        `probability_CLASS` of each.

    >>> list(class_columns(("no", "yes"), np.array([[0.3, 0.7]])))
    ['label', 'probability']
    >>> list(class_columns(("a", "b", "c"), np.ones((1, 3))))
    ['label', 'probability_a', 'probability_b', 'probability_c']
    """
    columns = {"label": class_values(classes)[p_NC.argmax(1)]}
    if len(classes) == 2:
        return columns | {"probability": p_NC[:, 1]}
    return columns | {f"probability_{name}": p_N for name, p_N in zip(classes, p_NC.T, strict=True)}


class OneClass:
    """One class a record; to be mixed into an Objective with a field `classes`, its names in the
    order of the outputs.
    """

    classes: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def class_number(self, label: str) -> int:
        """Return the output of a class; raises DataError where it is none."""
        if label not in self.classes:
            known = ", ".join(self.classes)
            raise DataError(
                f"label {label!r} is none of {known}; correct it or give objective.classes"
            )
        return self.classes.index(label)

    if TYPE_CHECKING:

        def scores(self, model: nn.Module, batch: Batch) -> Tensor:
            """Return the scores [B, C] of a batch; the objective that this is mixed into defines
            it.
            """

    def class_numbers(self, records: Rows) -> np.ndarray:
        """Return the outputs [N] of the records' classes."""
        return np.array([self.class_number(name) for name in records.column("label")])

    def target(self, record: Record) -> Example:
        """Return the class to learn; nothing for a record without a label."""
        label = record.get("label")
        return {} if label is None else {"target_class": torch.tensor(self.class_number(label))}

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the cross-entropy summed over records."""
        logits_BC, target_B = self.scores(model, batch), batch["target_class"]
        total, count = (
            F.cross_entropy(logits_BC, target_B, reduction="sum"),
            torch.tensor(len(target_B)),
        )
        return Loss(total, count, {"accuracy": ((logits_BC.argmax(-1) == target_B).sum(), count)})

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return the distribution over classes of each record."""
        return Categorical(self.scores(model, batch), batch["target_class"])

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return class probabilities [B, C]."""
        return {"probability": self.scores(model, batch).softmax(-1)}

    def metrics(self, outputs: Mapping[str, np.ndarray], records: Rows) -> dict[str, float]:
        """Return accuracy, MCC, and for two classes AUROC and average precision."""
        return classification_metrics(self.class_numbers(records), outputs["probability"])


class OneNumber:
    """One number a record, learnt in units of the training labels' std; mixed into an Objective
    with `mean` and `std`.
    """

    mean: float
    std: float

    if TYPE_CHECKING:

        def scores(self, model: nn.Module, batch: Batch) -> Tensor:
            """Return the scores [B, 1] of a batch; the objective that this is mixed into defines
            it.
            """

    def target(self, record: Record) -> Example:
        """Return the number to learn, in stds from the mean; nothing for a record without one."""
        value = record.get("value")
        return (
            {}
            if value is None
            else {"target_value": torch.tensor((float(value) - self.mean) / self.std)}
        )

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the squared error summed over records, in squared stds."""
        error_B = self.scores(model, batch)[:, 0] - batch["target_value"]
        return Loss((error_B**2).sum(), torch.tensor(len(error_B)))

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return a Gaussian of unit std about each prediction."""
        mean_B = self.scores(model, batch)[:, 0]
        return Gaussian(mean_B, torch.ones_like(mean_B), batch["target_value"])

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the number of each record [B], in the labels' own unit."""
        return {"value": self.scores(model, batch)[:, 0] * self.std + self.mean}

    def metrics(self, outputs: Mapping[str, np.ndarray], records: Rows) -> dict[str, float]:
        """Return RMSE, MAE, R2 and Pearson's correlation in the labels' own unit."""
        return regression_metrics(np.asarray(records.column("value")), outputs["value"])
