"""Pretrained models as scikit-learn estimators, for every domain whose inputs are a sequence of
natural objects.

>>> from sklearn.base import clone
>>> clone(PretrainedClassifier("dna-bert-mini", seed=3)).seed
3
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted

from sciforge.api import load
from sciforge.core.learners.calibration import Calibrate
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError

TARGET = "target"  # the label's name inside; users' labels keep their own values


class _Pretrained(BaseEstimator):
    """What the classifier and the regressor share.

    Args:
        model: the checkpoint to start from: a path, a bundled name, or a Model.
        recipe: a named recipe of the domain; None for the recommended one.
        seed: of new weights and the order of records.
        labels: train on so many of the labels; None for all.
        calibrate: `auto` corrects probabilities, or learns intervals of numbers, from 50 labels on;
            `none` does not.
        settings: fields of Run that replace those of the recipe, e.g. `{"schedule":
            Schedule(steps=10)}`; None for none.
        device: `auto`, `cpu` or `cuda`.
        batch: records in one forward pass of a prediction.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        recipe: str | None = None,
        seed: int = 0,
        labels: int | None = None,
        calibrate: Calibrate = "auto",
        settings: dict[str, Any] | None = None,
        device: str = "auto",
        batch: int = 64,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.seed = seed
        self.labels = labels
        self.calibrate = calibrate
        self.settings = settings
        self.device = device
        self.batch = batch

    def _require_model(self) -> None:
        if self.model is None:
            raise ConfigError(
                f"{type(self).__name__} needs a model: a path, a bundled name, or a Model"
            )

    def _fit(self, X: Any, targets: Any, group: Sequence[Any] | None) -> Self:
        start = (
            self.model
            if isinstance(self.model, Model)
            else load(self.model, device=self.device, batch=self.batch)
        )
        options = {
            "labels": self.labels,
            "calibrate": self.calibrate,
            "recipe": self.recipe,
            "seed": self.seed,
            **(self.settings or {}),
        }
        labels = pd.Series(targets, name=TARGET)
        self.model_ = start.fit(_inputs(X), labels, group=group, verbose=False, **options)
        return self

    def _table(self, X: Any) -> pd.DataFrame:
        check_is_fitted(self, "model_")
        inputs = _inputs(X)
        if not len(inputs):
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        return self.model_.predict(inputs)

    def transform(self, X: Any) -> np.ndarray:
        """Return what the fitted network makes of each input, float32 [N, D]."""
        check_is_fitted(self, "model_")
        return self.model_.embed(_inputs(X))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.target_tags.required = True
        tags.no_validation = True  # the domain reads the inputs, and names a bad one by its place
        return tags


class PretrainedClassifier(ClassifierMixin, _Pretrained):
    """A classifier of natural inputs (sequences, molecules, images, documents), fine-tuned from a
    pretrained model.

    Args:
        model: the checkpoint to start from: a path, a bundled name, or a Model.
        recipe: a named recipe of the domain; None for the recommended one.
        seed: of new weights and the order of records.
        labels: train on so many of the labels, classes balanced; None for all.
        calibrate: `auto` corrects probabilities from 50 labels on, by a `temperature` or, of many
            labels of two classes, by `isotonic` regression; `none` does not.
        settings: fields of Run that replace those of the recipe, e.g. `{"schedule":
            Schedule(steps=10)}`; None for none.
        device: `auto`, `cpu` or `cuda`.
        batch: records in one forward pass of a prediction.

    Attributes:
        classes_: the classes, sorted, as they were given.
        model_: the fitted Model.
    """

    def fit(self, X: Any, y: Any, group: Sequence[Any] | None = None) -> Self:
        """Fine-tune on inputs and their classes.

        Args:
            X: natural inputs of the model's domain, N of them.
            y: class of each, [N]: text, integers or booleans.
            group: of each, [N] (patient, laboratory): what is held out of training is held out by
                whole groups; None for none.

        Returns:
            The estimator itself.

        Raises:
            ValueError: lengths differ, y is continuous, or holds fewer than two classes.
        """
        self._require_model()
        y = _labels(X, y)
        check_classification_targets(y)
        self.classes_ = unique_labels(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y holds the one class {str(self.classes_[0])!r}; a classifier needs at least two"
                " classes"
            )
        codes = np.searchsorted(self.classes_, y)
        return self._fit(X, codes, group)  # whole numbers are classes in every domain

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, float64 [N, C], in the order of `classes_`."""
        table = self._table(X)
        if len(self.classes_) == 2:
            second = table["probability"].to_numpy(float)
            return np.stack([1 - second, second], axis=1)
        names = [f"probability_{code}" for code in range(len(self.classes_))]
        probabilities = table[names].to_numpy(float)
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each input, [N]."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]


class PretrainedRegressor(RegressorMixin, _Pretrained):
    """A regressor of natural inputs, fine-tuned from a pretrained model.

    Args:
        model: the checkpoint to start from: a path, a bundled name, or a Model.
        recipe: a named recipe of the domain; None for the recommended one.
        seed: of new weights and the order of records.
        labels: train on so many of the labels; None for all.
        calibrate: `auto` corrects probabilities, or learns intervals of numbers, from 50 labels on;
            `none` does not.
        settings: fields of Run that replace those of the recipe, e.g. `{"schedule":
            Schedule(steps=10)}`; None for none.
        device: `auto`, `cpu` or `cuda`.
        batch: records in one forward pass of a prediction.

    Attributes:
        model_: the fitted Model.
    """

    def fit(self, X: Any, y: Any, group: Sequence[Any] | None = None) -> Self:
        """Fine-tune on inputs and their numbers.

        Args:
            X: natural inputs of the model's domain, N of them.
            y: one finite number each, [N].
            group: of each, [N]; as for the classifier.

        Returns:
            The estimator itself.

        Raises:
            ValueError: lengths differ, or y is not numeric and finite.
        """
        self._require_model()
        y = _labels(X, y).astype(float)
        if not np.isfinite(y).all():
            raise ValueError("Input y contains NaN or infinity.")
        return self._fit(X, y, group)

    def predict(
        self, X: Any, *, return_std: bool = False, interval: bool = False
    ) -> np.ndarray | tuple[np.ndarray, ...]:
        """Return the predicted number of each input, float64 [N].

        Args:
            X: natural inputs.
            return_std: also return the standard deviation, [N]: that of the normal distribution
                with this interval.
            interval: also return the bounds of the domain's interval (90 % unless its manual says
                otherwise), [N] each.

        Raises:
            ConfigError: the domain has no intervals.
        """
        table = self._table(X)
        # potentials name their energies
        name = TARGET if TARGET in table else str(table.columns[0])
        value = table[name].to_numpy(float)
        if not (return_std or interval):
            return value
        if f"{TARGET}_lower" not in table:
            raise ConfigError(
                f"models of {self.model_.domain.name} have no intervals; leave out return_std and"
                " interval"
            )
        lower, upper = (table[f"{TARGET}_{bound}"].to_numpy(float) for bound in ("lower", "upper"))
        width = 2 * norm.ppf(0.5 + self.model_.inputs.coverage / 2)
        std = ((upper - lower) / width,) if return_std else ()
        return (value, *std, *((lower, upper) if interval else ()))


def _inputs(X: Any) -> Sequence[Any]:
    """Return X as a list; a DataFrame of one column is that column."""
    if isinstance(X, pd.DataFrame):
        if X.shape[1] != 1:
            raise ConfigError(
                f"X has {X.shape[1]} columns; give the one column that holds the inputs"
            )
        X = X.iloc[:, 0]
    if isinstance(X, str | bytes):
        raise ConfigError("X is a single input; give a list of inputs")
    return list(X)


def _labels(X: Any, y: Any) -> np.ndarray:
    if y is None:
        raise ValueError("This estimator requires y to be passed, but the target y is None.")
    y = column_or_1d(y, warn=True)
    inputs = _inputs(X)
    if len(inputs) != len(y):
        raise ValueError(
            f"X holds {len(inputs)} inputs and y {len(y)} labels; give one label for each input"
        )
    if not len(y):
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    return y
