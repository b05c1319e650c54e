"""How training sees an image: whole, or through random changes whose strengths the objective names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sciforge.core.domain import Objective, Record
from sciforge.core.settings import Settings


@dataclass(frozen=True)
class Viewed(Settings, Objective):
    """What objectives on images share: the random views of training; all off unless asked for.

    Evaluation and prediction always see the image as it is. Before training on labelled records the core looks whether a view
    scrambles what the label is read from, and warns.

    Args:
        crop: side that a random crop may lose, as a share; the rest is scaled back.
        flip: chance of a mirrored image.
        rotation: largest turn, in degrees.
        jitter: largest change of brightness, contrast and saturation, as a share.
        hue: largest turn of the hue, as a share of the colour circle; 0.5 is any hue.
    """

    crop: float = 0.0
    flip: float = 0.0
    rotation: float = 0.0
    jitter: float = 0.0
    hue: float = 0.0

    def changes(self) -> Mapping[str, Any]:
        """Return the changes that are drawn, by the domain's names."""
        return {}

    @property
    def augments(self) -> tuple[str, ...]:
        """Names of the changes that are drawn."""
        return tuple(self.changes())

    def view(self, record: Record, rng: np.random.Generator, training: bool) -> Record:
        """Return the record as training sees it, or as it is."""
        for change in self.changes().values() if training else ():
            record = change(record, rng)
        return record
