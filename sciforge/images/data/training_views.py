"""How training sees an image: whole, or through random changes whose strengths the objective
names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sciforge.core.domain import Objective, Record
from sciforge.images.data.augmentations import ColourJitter, Crop, Flip, Rotation


@dataclass(frozen=True)
class Viewed(Objective):
    """What objectives on images share: the random views of training; all off unless asked for.

    Evaluation and prediction always see the image as it is. Before training on labelled records the
    core looks whether a view scrambles what the label is read from, and warns.

    Args:
        crop: strength of `augmentations.Crop`; at 1 down to a tenth of the area.
        flip: strength of `augmentations.Flip`; at 1 every second image is mirrored.
        rotation: strength of `augmentations.Rotation`; at 1 any angle.
        jitter: brightness, contrast and saturation change by up to this share.
        hue: the hue turns by up to this share of the colour circle; 0.5 is any hue.
    """

    crop: float = 0.0
    flip: float = 0.0
    rotation: float = 0.0
    jitter: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.changes()  # which refuse strengths out of range

    def changes(self) -> dict[str, Callable[[Record, np.random.Generator], dict[str, Any]]]:
        """Return the changes that are drawn, in their order, by the domain's names of
        augmentations.
        """
        colours = {"brightness": self.jitter, "contrast": self.jitter, "saturation": self.jitter}
        every = {
            "crop": Crop(self.crop),
            "flip": Flip(self.flip),
            "rotation": Rotation(self.rotation),
            "jitter": ColourJitter(**colours, hue=0.0),
            "hue": ColourJitter(brightness=0.0, contrast=0.0, saturation=0.0, hue=self.hue),
        }
        return {name: change.apply for name, change in every.items() if getattr(self, name)}

    @property
    def augments(self) -> tuple[str, ...]:
        """Names of the changes that are drawn."""
        return tuple(self.changes())

    def view(self, record: Record, rng: np.random.Generator, training: bool) -> Record:
        """Return the record as training sees it, or as it is."""
        for change in self.changes().values() if training else ():
            record = change(record, rng)
        return record
