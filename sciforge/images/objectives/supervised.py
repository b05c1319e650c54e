"""What a Vision Transformer learns of whole images: a class or a number.

Legend of shape letters: B batch, N records, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor, nn

from sciforge.core.domain import Batch, Example, Record, widened
from sciforge.core.learners.linear_probe import fit_logistic, fit_ridge
from sciforge.core.learners.supervised import OneClass, OneNumber
from sciforge.errors import ConfigError, DataError
from sciforge.images.data.codec import ImageCodec
from sciforge.images.data.training_views import Viewed
from sciforge.images.model.heads import MAX_SOLVED, ImageHead, read_features, states

VIEWS = 4  # of each image from which a head is solved, where training sees random views


@dataclass(frozen=True)
class _Labelled(Viewed):
    """What classes and numbers share: an ImageHead, solved before the first step."""

    bins: int = 7
    layers: tuple[int, ...] = (-1,)
    warm_start: bool = True

    head: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, 64, "bins")
        if not self.layers:
            raise ConfigError(
                "objective.layers is empty; the head reads at least one layer, -1 for the last"
            )

    @property
    def outputs(self) -> int:
        """The number of scores of an image."""
        return 1

    def attach(self, model: nn.Module) -> None:
        """Add the head."""
        depth = len(model.encoder.blocks)
        if any(not -depth - 1 <= layer <= depth for layer in self.layers):
            raise ConfigError(
                f"layers {self.layers}: the model has layers 0 to {depth} (-1 is the last)"
            )
        model.heads[self.head] = ImageHead(model.width, self.outputs, self.bins, len(self.layers))

    def scores(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return scores [B, C] in float32 at least."""
        return widened(
            model.heads[self.head](states(model, batch, self.layers), model.grid_of(batch))
        )

    def features(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return what the head reads, before centring [B, F]."""
        return model.heads[self.head].features(
            states(model, batch, self.layers), model.grid_of(batch)
        )

    def labelled(
        self, model: nn.Module, codec: ImageCodec, records: Any, engine: Any, seed: int
    ) -> tuple[Any, Any, int]:
        """Return features [copies N, F], the records they are of, and how many views each has."""
        max_records = max(1, MAX_SOLVED // len(model.heads[self.head].centre_F))
        few = records.take(np.arange(0, len(records), -(-len(records) // max_records)))
        # what training never sees as it is, the head must not be solved on
        copies = VIEWS if self.augments else 1
        return (
            read_features(self, model, codec, few, engine, seed, copies, self.features),
            few,
            copies,
        )


@dataclass(frozen=True)
class ClassifyImages(OneClass, _Labelled):
    """One class an image; also the supervised pretraining that self-supervised ones are compared
    with.

    Args:
        crop, flip, rotation, jitter, hue: strengths of random views in training, see `views`.
        bins: the head reads means of patch states in a grid of so many by so many. With 100 labels
            of Fashion-MNIST 7 told more on the validation split than 4, 3, 2 and 1 did (accuracy
            .734, .722, .726, .720, .713), and the last layer more than others or several.
        layers: whose states it reads; 0 is the embedding, -1 the last.
        warm_start: solve the head before the first step.
        classes: names, in the order of the outputs; empty takes them from the data.
    """

    classes: tuple[str, ...] = ()

    head: ClassVar[str] = "class"
    metric: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    fresh: ClassVar[tuple[str, ...]] = ("class",)

    def resolve(self, store: Any) -> Self:
        """Take the class names from the store; raises DataError where it has fewer than two
        classes.
        """
        classes = self.classes or tuple(store.meta.get("classes", ()))
        if len(classes) < 2:
            raise DataError(
                "classification needs labels of at least two classes; prepare with labels",
                store.path,
            )
        return replace(self, classes=classes)

    def start(
        self,
        model: nn.Module,
        codec: ImageCodec,
        records: Sequence[Record],
        engine: Any,
        seed: int,
        parent: Any,
    ) -> None:
        """Solve the head on (some of) the training records, unless the parent learnt this very
        objective.
        """
        if self.warm_start and (parent is None or self not in parent.objectives):
            features_NF, few, copies = self.labelled(model, codec, records, engine, seed)
            label_N = np.tile(self.class_numbers(few), copies)
            options = {"num_classes": self.outputs, "seed": seed, "copies": copies}
            model.heads[self.head].solve(
                features_NF, partial(fit_logistic, label_N=label_N, **options)
            )

    def prepare(
        self, record: Record, codec: ImageCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode an image (a random view of it in training) and its class."""
        return codec.encode(self.view(record, rng, training)) | self.target(record)


@dataclass(frozen=True)
class RegressImages(OneNumber, _Labelled):
    """One number an image, learnt in units of the training labels' std.

    Args:
        crop, flip, rotation, jitter, hue: strengths of random views in training, see `views`.
        bins, layers, warm_start: as for ClassifyImages.
        mean, std: of the training labels; a std of 0 takes both from the data.
        target_name: of the number, in tables of predictions; from the data where they name it.
    """

    mean: float = 0.0
    std: float = 0.0
    target_name: str = "value"

    head: ClassVar[str] = "value"
    metric: ClassVar[str] = "rmse"
    fresh: ClassVar[tuple[str, ...]] = ("value",)

    def resolve(self, store: Any) -> Self:
        """Take mean and std from the training split; raises DataError where there are no
        numbers.
        """
        if self.std:
            return self
        train = store.split("train")
        value_N = np.asarray(train.column("value"), np.float64) if len(train) else np.zeros(0)
        if not len(value_N) or not np.isfinite(value_N).all():
            raise DataError(
                "regression needs finite numbers as labels; prepare with numeric labels", store.path
            )
        target = store.meta.get("target", self.target_name)
        return replace(
            self, mean=float(value_N.mean()), std=float(value_N.std()) or 1.0, target_name=target
        )

    def start(
        self,
        model: nn.Module,
        codec: ImageCodec,
        records: Sequence[Record],
        engine: Any,
        seed: int,
        parent: Any,
    ) -> None:
        """Solve the head on (some of) the training records, unless the parent learnt this very
        objective.
        """
        if (
            self.warm_start
            and len(records) > 1
            and (parent is None or self not in parent.objectives)
        ):
            features_NF, few, copies = self.labelled(model, codec, records, engine, seed)
            target_N = np.tile((np.asarray(few.column("value")) - self.mean) / self.std, copies)
            model.heads[self.head].solve(features_NF, partial(fit_ridge, target_N=target_N))

    def prepare(
        self, record: Record, codec: ImageCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode an image (a random view of it in training) and its number."""
        return codec.encode(self.view(record, rng, training)) | self.target(record)
