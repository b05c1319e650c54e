"""Users' own images as records, and what a checkpoint says of them as columns of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.domain import Inputs, Record
from sciforge.core.learners.supervised import class_columns, number_columns
from sciforge.errors import ConfigError, DataError
from sciforge.images.data.image_files import Picture, in_channels
from sciforge.images.data.in_memory import ImagesInMemory, pixels_of
from sciforge.images.data.readers import Fit, Rules
from sciforge.images.inference.recipes import RECIPES
from sciforge.images.objectives.detection import DetectObjects
from sciforge.images.objectives.segmentation import SegmentPatches
from sciforge.images.objectives.supervised import ClassifyImages, RegressImages

if TYPE_CHECKING:
    import pandas as pd

    from sciforge.core.training.model import Model

PLAIN = Rules()


@dataclass(frozen=True)
class ImageInputs(Inputs):
    """Arrays, Pillow images and paths; brought to the size and the channels of a model where one is
    known.

    Args:
        size: rows and columns; None takes those of the first image.
        channels: 1 or 3; 0 takes those of the first image.
    """

    size: tuple[int, int] | None = None
    channels: int = 0

    recipes = RECIPES

    def of(self, model: "Model") -> "ImageInputs":
        """Return the inputs in the size and the channels that the model was trained on."""
        return ImageInputs((model.codec.height, model.codec.width), model.codec.channels)

    def pictures(self, inputs: Sequence[Any]) -> list[Picture]:
        """Return images with how they were laid into the frame; raises DataError naming a bad
        one by its place.
        """
        size, channels, pictures = self.size, self.channels, []
        for place, value in enumerate(inputs):
            try:
                image = pixels_of(value, PLAIN)
                size, channels = size or image.shape[:2], channels or image.shape[2]
                fit = Fit.letterbox(image.shape[:2], size)
                framed = fit.picture(in_channels(image, channels), PLAIN.background)
            except DataError as error:
                raise DataError(f"input {place}: {error}") from None
            pictures.append(Picture(f"input {place}", framed, image.shape[:2], fit))
        return pictures

    def records(self, inputs: Sequence[Any]) -> list[Record]:
        """Return a record for each image; those of another size are scaled to fit and framed
        with white.
        """
        return [picture.record for picture in self.pictures(inputs)]

    def preparer(
        self,
        inputs: Sequence[Any],
        targets: "pd.DataFrame | None",
        *,
        split: Sequence[str] | None,
        seed: int,
        group: Sequence[Any] | None = None,
    ) -> ImagesInMemory:
        """Return a preparer of labelled images; as `Inputs.preparer`."""
        return ImagesInMemory.of(inputs, targets, split, seed, self.size, self.channels, group)

    def columns(
        self, model: "Model", outputs: Mapping[str, np.ndarray]
    ) -> dict[str, Sequence[Any]]:
        """Return the label and probabilities of classes, or the number under its target's name.

        Raises:
            ConfigError: the checkpoint finds objects or segments, which are not columns.
        """
        objective = model.objective
        if isinstance(objective, ClassifyImages):
            return class_columns(objective.classes, outputs["probability"])
        if isinstance(objective, RegressImages):
            return number_columns(objective.target_name, outputs)
        method = {DetectObjects: "detect", SegmentPatches: "segment"}.get(type(objective))
        if method is not None:
            raise ConfigError(
                f"{model.checkpoint.path} predicts no table; use model.{method}(images)"
            )
        return super().columns(model, outputs)
