"""What learning one class or one number a record means, for every objective that has `scores(model,
batch)` -> [B, C].

Legend of shape letters: B batch, C classes, N records.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.data.store import Rows
from sciforge.core.domain import Batch, Categorical, Example, Gaussian, Likelihood, Loss, Record
from sciforge.core.learners import calibration as calibrations
from sciforge.core.learners.calibration import Calibrate, Calibration, ConformalInterval
from sciforge.core.learners.metrics import classification_metrics, regression_metrics
from sciforge.errors import DataError

COVERAGE = 0.9  # of intervals, as core.domain.Inputs.coverage


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


def number_columns(name: str, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of a table of predicted numbers: NAME, and the ends of its interval
    NAME_lower and NAME_upper where there is one.
    """
    bounds = {f"{name}_{end}": outputs[end] for end in ("lower", "upper") if end in outputs}
    return {name: outputs["value"], **bounds}


# Of a field that is learnt after training, and no option. Objectives that differ in such a field
# alone are equal: they have learnt the same.
LEARNT = {"option": False}


@dataclass(frozen=True)
class OneClass:
    """One class a record; to be mixed into an Objective that is a dataclass.

    Args:
        classes: names, in the order of the outputs.
        calibration: what corrects the probabilities of `predict`, learnt from held-out labels after
            training; the loss does not know it. None leaves them as they are.
    """

    classes: tuple[str, ...] = ()
    calibration: Calibration | None = field(default=None, compare=False, metadata=LEARNT)

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def solves_head(self) -> bool:
        """Whether `start` sets the head from the labels, so that it can be done again without
        some of them.
        """
        return bool(getattr(self, "warm_start", False))

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
        return {"probability": self.calibrated(self.scores(model, batch).softmax(-1))}

    def calibrated(self, p_BC: Tensor) -> Tensor:
        """Return probabilities [B, C] as the calibration corrects them."""
        return p_BC if self.calibration is None else self.calibration.apply(p_BC)

    def with_calibration(
        self, outputs: Mapping[str, np.ndarray], records: Rows, choice: Calibrate
    ) -> Self:
        """Return a copy calibrated on the outputs, without calibration, of records not learnt."""
        label_N = self.class_numbers(records)
        return replace(
            self, calibration=calibrations.fit_classes(outputs["probability"], label_N, choice)
        )

    def without_calibration(self) -> Self:
        """Return a copy whose probabilities are not corrected."""
        return replace(self, calibration=None)

    def metrics(self, outputs: Mapping[str, np.ndarray], records: Rows) -> dict[str, float]:
        """Return accuracy, MCC, and for two classes AUROC and average precision; of 50 records or
        more the expected calibration error and the Brier score.
        """
        label_N, p_NC = self.class_numbers(records), outputs["probability"]
        return classification_metrics(label_N, p_NC) | calibrations.probability_metrics(
            label_N, p_NC
        )


@dataclass(frozen=True)
class OneNumber:
    """One number a record, learnt in units of the training labels' std; to be mixed into an
    Objective that is a dataclass.

    Args:
        mean, std: of the training labels.
        interval: how far from `value` the true number may lie, learnt from held-out labels after
            training; None gives no interval.
    """

    mean: float = 0.0
    std: float = 0.0
    interval: ConformalInterval | None = field(default=None, compare=False, metadata=LEARNT)

    @property
    def solves_head(self) -> bool:
        """Whether `start` sets the head from the labels, so that it can be done again without
        some of them.
        """
        return bool(getattr(self, "warm_start", False))

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
        """Return the number of each record [B], in the labels' own unit, and its interval's ends
        `lower` and `upper` [B] where there is one.
        """
        return self.with_bounds(self.scores(model, batch)[:, 0] * self.std + self.mean)

    def with_bounds(self, value_B: Tensor) -> dict[str, Tensor]:
        """Return `value`, and `lower` and `upper` where the objective has an interval."""
        if self.interval is None:
            return {"value": value_B}
        half = self.interval.half_width
        return {"value": value_B, "lower": value_B - half, "upper": value_B + half}

    def with_calibration(
        self, outputs: Mapping[str, np.ndarray], records: Rows, choice: Calibrate
    ) -> Self:
        """Return a copy with the interval that the errors of records not learnt ask for."""
        error_N = outputs["value"] - np.asarray(records.column("value"), np.float64)
        return replace(self, interval=ConformalInterval.fit(error_N, COVERAGE))

    def without_calibration(self) -> Self:
        """Return a copy without an interval."""
        return replace(self, interval=None)

    def metrics(self, outputs: Mapping[str, np.ndarray], records: Rows) -> dict[str, float]:
        """Return RMSE, MAE, R2 and Pearson's correlation in the labels' own unit, and the share of
        numbers inside their interval where there is one.
        """
        value_N = np.asarray(records.column("value"))
        metrics = regression_metrics(value_N, outputs["value"])
        if "lower" in outputs:
            inside_N = (outputs["lower"] <= value_N) & (value_N <= outputs["upper"])
            metrics["coverage"] = float(inside_N.mean())
        return metrics
