"""Objects as points (after CenterNet, Zhou et al. 2019, arXiv 1904.07850): where a centre lies, of
which class, how large.

Legend of shape letters: B batch, R rows of cells, S columns of cells, K classes, T detections, N
cells, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.data import sampling
from sciforge.core.domain import Batch, Example, Loss, Record, widened
from sciforge.core.learners.linear_probe import fit_logistic, fit_ridge
from sciforge.core.training.evaluation import batches, evaluation
from sciforge.errors import ConfigError, DataError
from sciforge.images.data.boxes import average_precision, mean_average_precision
from sciforge.images.data.codec import ImageCodec
from sciforge.images.data.training_views import Viewed
from sciforge.images.model.center_maps import (
    NO_CLASS,
    PointHead,
    centre_map,
    detected_boxes,
    focal,
    peaks,
)

SIZE_WEIGHT = 0.1  # of the error of sizes in cells; CenterNet's
EMPTY = 12  # cells without a centre, of an image, from which the head is solved
MAX_IMAGES = 1000  # from which the head is solved; descent sees the others


@dataclass(frozen=True)
class DetectObjects(Viewed):
    """Boxes of objects with their classes. Two centres in one patch cannot be told apart.

    Args:
        crop, flip, rotation, jitter, hue: strengths of random views in training, see `views`; boxes
            move along. Rotation is not for boxes.
        max_detections: detections of an image.
        warm_start: solve the head before the first step.
        classes: names of the objects; empty takes them from the data.
    """

    max_detections: int = 100
    warm_start: bool = True
    classes: tuple[str, ...] = ()

    metric: ClassVar[str] = "ap"
    higher_is_better: ClassVar[bool] = True
    fresh: ClassVar[tuple[str, ...]] = ("points",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, 2**16, "max_detections")
        if self.rotation:
            raise ConfigError(
                "a turned object's box is not the turned box; use --rotation 0 for detection"
            )

    def resolve(self, store: Any) -> Self:
        """Take the class names from the store; raises DataError where it has no boxes."""
        classes = self.classes or tuple(store.meta.get("box_classes", ()))
        if not classes:
            raise DataError("detection needs boxes; prepare with --boxes", store.path)
        return replace(self, classes=classes)

    def attach(self, model: nn.Module) -> None:
        """Add the head."""
        model.heads["points"] = PointHead(model.width, len(self.classes))

    def start(
        self,
        model: nn.Module,
        codec: ImageCodec,
        records: Sequence[Record],
        engine: Any,
        seed: int,
        parent: Any,
    ) -> None:
        """Solve the head on cells of (1,000 of) the training images, unless the parent learnt
        this very objective.
        """
        if not self.warm_start or (parent is not None and self in parent.objectives):
            return
        head, few = model.heads["points"], range(0, len(records), -(-len(records) // MAX_IMAGES))
        images: list[tuple[np.ndarray, ...]] = []
        with evaluation(model, self):
            for batch in batches(self, codec, records, few, seed, 16):
                batch = engine.move(batch)
                cells_BRSF = head.features(model(batch), model.grid_of(batch)).cpu().numpy()
                targets = (
                    batch[name].cpu().numpy()
                    for name in ("target_heat", "target_label", "target_frame")
                )
                images += list(zip(cells_BRSF, *targets, strict=True))
        cell_NF, label_N, frame_N4, empty_share = chosen_cells(
            images, sampling.generator(seed, sampling.SUBSET, 1)
        )
        at_N = label_N != NO_CLASS
        if at_N.sum() > 1:
            fits = (
                partial(_centre, at_N, empty_share, seed),
                partial(_classes, label_N[at_N], len(self.classes), seed),
            )
            head.solve(cell_NF, at_N, *fits, partial(_frame, frame_N4[at_N]))

    def prepare(
        self, record: Record, codec: ImageCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode an image (a random view of it in training) and draw the map that its boxes ask
        for.
        """
        seen = self.view(record, rng, training)
        example = codec.encode(seen)
        if "boxes" in seen:
            height, width, _ = example["image"].shape
            boxes = (
                np.asarray(seen["boxes"], np.float64).reshape(-1, 4),
                np.asarray(seen["box_labels"], int),
            )
            targets = centre_map(*boxes, (height // codec.patch, width // codec.patch), codec.patch)
            example |= {name: torch.from_numpy(x) for name, x in targets.items()}
        return example

    def head_outputs(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the head says, in float32 at least."""
        centre, classes, frame = model.heads["points"](model(batch), model.grid_of(batch))
        return widened(centre), widened(classes), widened(frame)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the focal loss of the map and the errors of class, size and offset, summed over
        objects; the count is of images.

        Of images, not of objects as in the paper: a batch may hold no object.
        """
        centre_BRS, class_BRSK, frame_BRS4 = self.head_outputs(model, batch)
        label_N, images = batch["target_label"].flatten(), torch.tensor(len(centre_BRS))
        at_BRS = batch["target_label"] != NO_CLASS
        error_BRS4 = (frame_BRS4 - batch["target_frame"]).abs() * at_BRS[..., None].to(
            frame_BRS4.dtype
        )
        heat = focal(centre_BRS, batch["target_heat"].to(centre_BRS.dtype)).sum()
        kind = F.cross_entropy(
            class_BRSK.flatten(0, 2), label_N, ignore_index=NO_CLASS, reduction="sum"
        )
        size, offset, objects = error_BRS4[..., :2].sum(), error_BRS4[..., 2:].sum(), at_BRS.sum()
        hits = (class_BRSK.argmax(-1) == batch["target_label"]).sum()
        parts = {"heat": (heat, images), "accuracy": (hits, objects)}
        parts |= {"size": (size, 2 * objects), "offset": (offset, 2 * objects)}
        return Loss(heat + kind + SIZE_WEIGHT * size + offset, images, parts)

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return detections [B, T, 6], best first: x0, y0, x1, y1 in pixels, score, class
        number.
        """
        centre_BRS, class_BRSK, frame_BRS4 = self.head_outputs(model, batch)
        detections = peaks(
            centre_BRS.sigmoid(),
            class_BRSK.softmax(-1),
            frame_BRS4,
            model.patch,
            self.max_detections,
        )
        return {"detections": detections}

    def metrics(
        self, outputs: Mapping[str, np.ndarray], records: Sequence[Record]
    ) -> dict[str, float]:
        """Return `ap` (mean over overlaps .50 to .95, as COCO's), `ap50` and `ap75`."""
        truths = [
            {"boxes": np.asarray(r["boxes"]), "labels": np.asarray(r["box_labels"])}
            for r in records
        ]
        if not any(len(truth["labels"]) for truth in truths):
            raise DataError(
                f"no object in {len(truths)} images, so precision means nothing; evaluate on"
                " another split"
            )
        predictions = [detected_boxes(detection_T6) for detection_T6 in outputs["detections"]]
        return {
            "ap": mean_average_precision(predictions, truths),
            "ap50": average_precision(predictions, truths, 0.5),
            "ap75": average_precision(predictions, truths, 0.75),
        }


def chosen_cells(
    images: Sequence[tuple[np.ndarray, ...]], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return all cells with a centre and some without of each image, and the share of the empty
    cells that was taken.

    Args:
        images: features [R, S, F], heat [R, S], labels [R, S] and frames [R, S, 4] of each.
        rng: draws the empty cells, among those less than half way up a centre's hill.

    Returns:
        features [N, F], labels [N] (-100 without a centre), frames [N, 4], share.
    """
    cells, labels, frames, taken, empty = [], [], [], 0, 0
    for cells_RSF, heat_RS, label_RS, frame_RS4 in images:
        at, away = np.flatnonzero(label_RS != NO_CLASS), np.flatnonzero(heat_RS < 0.5)
        few = rng.permutation(away)[:EMPTY]
        taken, empty = taken + len(few), empty + len(away)
        for place in np.concatenate([at, few]):
            row, column = divmod(int(place), label_RS.shape[1])
            cells.append(cells_RSF[row, column])
            labels.append(label_RS[row, column])
            frames.append(frame_RS4[row, column])
    return np.stack(cells), np.array(labels), np.stack(frames), taken / max(empty, 1)


def _centre(
    at_N: np.ndarray, empty_share: float, seed: int, x_NF: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a logistic regression of centres; its bias makes up for the empty cells that were
    left out.
    """
    weight_CF, bias_C = fit_logistic(x_NF, at_N.astype(int), 2, seed)
    return weight_CF[1:] - weight_CF[:1], bias_C[1:] - bias_C[:1] + np.log(max(empty_share, 1e-6))


def _classes(
    label_M: np.ndarray, classes: int, seed: int, x_MF: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return fit_logistic(x_MF, label_M, classes, seed)


def _frame(frame_M4: np.ndarray, x_MF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fits = [fit_ridge(x_MF, target_M) for target_M in frame_M4.T]
    return np.stack([weight for weight, _ in fits]), np.array([bias for _, bias in fits])
