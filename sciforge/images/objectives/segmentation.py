"""A class for every pixel, told by the patch it lies in.

Legend of shape letters: B batch, H height, W width, N patches, D width of the model, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import Batch, Categorical, Example, Likelihood, Loss, Record, widened
from sciforge.errors import DataError
from sciforge.images.data.codec import ImageCodec, from_patches
from sciforge.images.data.training_views import Viewed

IGNORE = 255  # a pixel of no class, as prepared stores and most public label maps have it


@dataclass(frozen=True)
class SegmentPatches(Viewed):
    """One class a pixel.

    Args:
        crop, flip, rotation, jitter, hue: strengths of random views in training, see `views`; label
            maps move along.
        classes: how many; 0 takes it from the data.
    """

    classes: int = 0

    metric: ClassVar[str] = "iou"
    higher_is_better: ClassVar[bool] = True
    fresh: ClassVar[tuple[str, ...]] = ("segments",)

    def resolve(self, store: Any) -> Self:
        """Take the number of classes from the store; raises DataError where it has fewer than
        two.
        """
        classes = self.classes or int(store.meta.get("segment_classes", 0))
        if classes < 2:
            raise DataError(
                "segmentation needs label maps of at least two classes; prepare with --masks",
                store.path,
            )
        return replace(self, classes=classes)

    def attach(self, model: nn.Module) -> None:
        """Add the head."""
        head = nn.Linear(model.width, model.patch * model.patch * self.classes)
        nn.init.normal_(head.weight, std=0.1 * model.width**-0.5)  # starts near equal scores
        nn.init.zeros_(head.bias)
        model.heads["segments"] = head

    def prepare(
        self, record: Record, codec: ImageCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode an image (a random view of it in training) and its label map."""
        seen = self.view(record, rng, training)
        example = codec.encode(seen)
        if "segments" in seen:
            segments_HW = np.asarray(seen["segments"]).astype(np.int64)
            known_HW = segments_HW != IGNORE
            if (segments_HW[known_HW] >= self.classes).any():
                raise DataError(
                    f"a label map holds class {segments_HW[known_HW].max()}, of {self.classes} (0"
                    " first); correct it"
                )
            example["target_segments"] = torch.from_numpy(np.where(known_HW, segments_HW, -100))
        return example

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return scores of every pixel [B, H, W, K]."""
        output_BNQ = model.heads["segments"](model(batch))
        return widened(from_patches(output_BNQ, model.grid_of(batch), model.patch))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the cross-entropy summed over pixels of a class."""
        logits_BHWK, target_BHW = self.logits(model, batch), batch["target_segments"]
        total = F.cross_entropy(
            logits_BHWK.flatten(0, 2), target_BHW.flatten(), ignore_index=-100, reduction="sum"
        )
        count = (target_BHW >= 0).sum()
        return Loss(
            total, count, {"accuracy": ((logits_BHWK.argmax(-1) == target_BHW).sum(), count)}
        )

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return the distribution over classes of each pixel of a class."""
        known_BHW = batch["target_segments"] >= 0
        return Categorical(
            self.logits(model, batch)[known_BHW], batch["target_segments"][known_BHW]
        )

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the class of every pixel [B, H, W]."""
        return {"segments": self.logits(model, batch).argmax(-1).to(torch.uint8)}

    def metrics(
        self, outputs: Mapping[str, np.ndarray], records: Sequence[Record]
    ) -> dict[str, float]:
        """Return `iou` and `dice`, means over the classes that occur in labels or predictions,
        over all pixels together.
        """
        true_Q = np.concatenate([np.asarray(record["segments"]).ravel() for record in records])
        if not (true_Q != IGNORE).any():
            raise DataError(
                f"no pixel of a class in {len(records)} label maps, so overlap means nothing;"
                " evaluate on another split"
            )
        predicted_Q = outputs["segments"].ravel()
        iou_K, dice_K = overlaps(
            predicted_Q[true_Q != IGNORE], true_Q[true_Q != IGNORE], self.classes
        )
        return {"iou": float(np.nanmean(iou_K)), "dice": float(np.nanmean(dice_K))}


def overlaps(
    predicted_Q: np.ndarray, true_Q: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return intersection over union (Jaccard) and Dice's coefficient of each class [K], NaN of one
    that is nowhere.

    >>> [x.round(3).tolist() for x in overlaps(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 3)]
    [[0.5, 0.667, nan], [0.667, 0.8, nan]]
    """
    both_KK = np.bincount(
        true_Q.astype(int) * classes + predicted_Q.astype(int), minlength=classes**2
    ).reshape(classes, classes)
    hit_K, true_K, predicted_K = np.diag(both_KK).astype(float), both_KK.sum(1), both_KK.sum(0)
    union_K = true_K + predicted_K - hit_K
    nowhere_K = np.where(union_K > 0, 1.0, np.nan)
    return (
        hit_K / np.maximum(union_K, 1) * nowhere_K,
        2 * hit_K / np.maximum(true_K + predicted_K, 1) * nowhere_K,
    )
