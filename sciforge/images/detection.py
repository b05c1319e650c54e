"""Objects as points (CenterNet, Zhou et al. 2019, arXiv 1904.07850): a map of centres for each class, sizes and offsets.

Boxes are (x0, y0, x1, y1) in pixels of the image, x to the right, y down, x1 and y1 the far edges.

Legend of shape letters: B batch, N patches, D width, R rows of cells, S columns of cells, K classes, M boxes, T detections.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import Batch, Example, Loss, Record, widened
from sciforge.errors import ConfigError, DataError
from sciforge.images.boxes import average_precision, mean_average_precision
from sciforge.images.codec import ImageCodec, from_patches
from sciforge.images.views import Viewed

SPREAD = 0.54 / 6  # standard deviation of a centre's hill as a share of the box (Liu et al. 2019, arXiv 1909.00700)
NARROWEST = 0.4  # and in cells at least, so that a neighbour of a small object's cell is not punished in full
SIZE_WEIGHT = 0.1  # of the error of sizes in cells; the paper's
FIRST_CHANCE = 0.1  # of an object in a cell before any training; the paper's


class PointHead(nn.Module):
    """From each patch's state, for `cells` by `cells` cells of it: scores of classes, width, height and place of the centre."""

    def __init__(self, width: int, classes: int, cells: int):
        super().__init__()
        self.cells, self.classes = cells, classes
        self.mix = nn.Linear(width, width)
        self.tell = nn.Linear(width, cells * cells * (classes + 4))
        nn.init.normal_(self.mix.weight, std=width**-0.5)
        nn.init.normal_(self.tell.weight, std=0.02 * width**-0.5)
        nn.init.zeros_(self.mix.bias)
        with torch.no_grad():
            bias = self.tell.bias.view(cells * cells, classes + 4)
            bias[:, :classes] = float(np.log(FIRST_CHANCE / (1 - FIRST_CHANCE)))
            bias[:, classes:] = torch.tensor([2.0 * cells, 2.0 * cells, 0.5, 0.5])  # two patches wide, in the middle

    def forward(self, x_BND: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return logits of centres [B, R, S, K], and width, height (in cells) and offset of the centre [B, R, S, 4]."""
        told = from_patches(self.tell(F.gelu(self.mix(x_BND))), grid, self.cells)
        return told[..., : self.classes], told[..., self.classes :]


@dataclass(frozen=True)
class DetectObjects(Viewed):
    """Boxes of objects with their classes.

    Args:
        crop, flip, rotation, jitter, hue: strengths of random views in training, see `views`; boxes move along. Rotation
            is not for boxes.
        cells: cells of the map on each axis of a patch; must divide the patch. Two centres in one cell cannot be told apart.
        most: detections of an image.
        classes: names of the objects; empty takes them from the data.
    """

    cells: int = 1
    most: int = 50
    classes: tuple[str, ...] = ()

    metric: ClassVar[str] = "ap"
    higher_is_better: ClassVar[bool] = True
    fresh: ClassVar[tuple[str, ...]] = ("points",)

    def __post_init__(self):
        super().__post_init__()
        self.require(1, 2**16, "cells", "most")
        if self.rotation:
            raise ConfigError("a turned object's box is not the turned box; use --rotation 0 for detection")

    def resolve(self, store: Any) -> Self:
        """Take the class names from the store; raises DataError where it has no boxes."""
        classes = self.classes or tuple(store.meta.get("box_classes", ()))
        if not classes:
            raise DataError("detection needs boxes; prepare with --boxes", store.path)
        return replace(self, classes=classes)

    def attach(self, model: nn.Module) -> None:
        """Add the head."""
        if model.patch % self.cells:
            raise ConfigError(f"objective.cells {self.cells} does not divide a patch of {model.patch} pixels")
        model.heads["points"] = PointHead(model.width, len(self.classes), self.cells)

    def prepare(self, record: Record, codec: ImageCodec, rng: np.random.Generator, training: bool) -> Example:
        """Encode an image (a random view of it in training) and draw the map that its boxes ask for."""
        seen = self.view(record, rng, training)
        example = codec.encode(seen)
        if "boxes" in seen:
            height, width, _ = example["image"].shape
            stride = codec.patch // self.cells
            found = np.asarray(seen["boxes"], np.float64).reshape(-1, 4), np.asarray(seen["box_labels"], int)
            targets = centre_map(*found, len(self.classes), (height // stride, width // stride), stride)
            example |= {name: torch.from_numpy(x) for name, x in targets.items()}
        return example

    def told(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what the head says, in float32 at least."""
        logits_BRSK, frame_BRS4 = model.heads["points"](model(batch), model.grid_of(batch))
        return widened(logits_BRSK), widened(frame_BRS4)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the focal loss of the maps and the errors of sizes and offsets, summed over objects; the count is of images.

        Of images, not of objects as in the paper: a batch may hold no object.
        """
        logits_BRSK, frame_BRS4 = self.told(model, batch)
        at_BRS1 = batch["target_at"][..., None].to(frame_BRS4.dtype)
        error_BRS4 = (frame_BRS4 - batch["target_frame"]).abs() * at_BRS1
        heat = focal(logits_BRSK, batch["target_heat"]).sum()
        size, offset = error_BRS4[..., :2].sum(), error_BRS4[..., 2:].sum()
        images, objects = torch.tensor(len(logits_BRSK)), batch["target_at"].sum()
        parts = {"heat": (heat, images), "size": (size, 2 * objects), "offset": (offset, 2 * objects)}
        return Loss(heat + SIZE_WEIGHT * size + offset, images, parts)

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return detections [B, T, 6], best first: x0, y0, x1, y1 in pixels, score, class number."""
        logits_BRSK, frame_BRS4 = self.told(model, batch)
        return {"detections": peaks(logits_BRSK.sigmoid(), frame_BRS4, model.patch // self.cells, self.most)}

    def metrics(self, outputs: Mapping[str, np.ndarray], records: Sequence[Record]) -> dict[str, float]:
        """Return `ap` (mean over overlaps .50 to .95, as COCO's), `ap50` and `ap75`."""
        truths = [{"boxes": np.asarray(r["boxes"]), "labels": np.asarray(r["box_labels"])} for r in records]
        if not any(len(truth["labels"]) for truth in truths):
            raise DataError(f"no object in {len(truths)} images, so precision means nothing; evaluate on another split")
        found = [found_boxes(detection_T6) for detection_T6 in outputs["detections"]]
        return {
            "ap": mean_average_precision(found, truths),
            "ap50": average_precision(found, truths, 0.5),
            "ap75": average_precision(found, truths, 0.75),
        }


def found_boxes(detection_T6: np.ndarray, least: float = 0.0) -> dict[str, np.ndarray]:
    """Return the boxes, scores and labels of an image's detections that score above `least`.

    >>> found_boxes(np.array([[0.0, 0.0, 2.0, 2.0, 0.9, 3.0], [0.0, 0.0, 1.0, 1.0, 0.0, 1.0]]))["labels"].tolist()
    [3]
    """
    kept_T6 = np.asarray(detection_T6)[np.asarray(detection_T6)[:, 4] > least]
    return {"boxes": kept_T6[:, :4], "scores": kept_T6[:, 4], "labels": kept_T6[:, 5].astype(int)}


def centre_map(
    box_M4: np.ndarray, label_M: np.ndarray, classes: int, cells: tuple[int, int], stride: int
) -> dict[str, np.ndarray]:
    """Return the map that boxes ask for.

    Args:
        box_M4: in pixels.
        label_M: class numbers.
        classes: K.
        cells: R and S.
        stride: pixels of a cell.

    Returns:
        "target_heat" float32 [R, S, K], 1 in the cell of an object's centre and falling off around it; "target_frame"
        float32 [R, S, 4], width and height in cells and the centre's place in its cell; "target_at" bool [R, S].

    >>> found = centre_map(np.array([[2.0, 0.0, 6.0, 8.0]]), np.array([0]), 1, (3, 2), 4)
    >>> found["target_frame"][1, 1].tolist(), int(found["target_heat"].argmax()), int(found["target_at"].sum())
    ([1.0, 2.0, 0.0, 0.0], 3, 1)
    """
    heat_RSK = np.zeros((*cells, classes), np.float32)
    frame_RS4 = np.zeros((*cells, 4), np.float32)
    at_RS = np.zeros(cells, bool)
    size_M2 = (box_M4[:, 2:] - box_M4[:, :2]) / stride
    centre_M2 = (box_M4[:, 2:] + box_M4[:, :2]) / (2 * stride)
    row_R, column_S = np.arange(cells[0])[:, None], np.arange(cells[1])[None]
    for i in np.argsort(-size_M2.prod(1), kind="stable"):  # where two share a cell, the smaller one, drawn last, has it
        column, row = (min(max(int(c), 0), n - 1) for c, n in zip(centre_M2[i], cells[::-1], strict=True))
        wide, high = np.maximum(size_M2[i] * SPREAD, NARROWEST)
        hill_RS = np.exp(-((column_S - column) ** 2) / (2 * wide**2) - (row_R - row) ** 2 / (2 * high**2))
        heat_RSK[..., label_M[i]] = np.maximum(heat_RSK[..., label_M[i]], hill_RS)
        frame_RS4[row, column] = [*size_M2[i], centre_M2[i, 0] - column, centre_M2[i, 1] - row]
        at_RS[row, column] = True
    return {"target_heat": heat_RSK, "target_frame": frame_RS4, "target_at": at_RS}


def focal(logits: Tensor, heat: Tensor) -> Tensor:
    """Return the focal loss of every cell: hard ones count more, those near a centre less (Law and Deng 2018).

    >>> focal(torch.tensor([20.0, -20.0, -20.0]), torch.tensor([1.0, 0.0, 1.0])).round().tolist()
    [0.0, 0.0, 20.0]
    """
    p = logits.sigmoid()
    hit, miss = -((1 - p) ** 2) * F.logsigmoid(logits), -((1 - heat) ** 4) * p**2 * F.logsigmoid(-logits)
    return torch.where(heat == 1, hit, miss)


def peaks(heat_BRSK: Tensor, frame_BRS4: Tensor, stride: int, most: int) -> Tensor:
    """Return the boxes of the highest cells that no neighbour of their class tops, [B, T, 6] as `DetectObjects.predict`.

    Boxes are cut at the image's rim. Fewer than `most` cells give fewer boxes; the rest of few peaks have score 0.
    """
    B, R, S, K = heat_BRSK.shape
    heat_BKRS = heat_BRSK.permute(0, 3, 1, 2)
    peak_BKRS = heat_BKRS * (F.max_pool2d(heat_BKRS, 3, 1, 1) == heat_BKRS)
    score_BT, place_BT = peak_BKRS.flatten(1).topk(min(most, K * R * S), sorted=True)
    label_BT, cell_BT = place_BT // (R * S), place_BT % (R * S)
    frame_BT4 = frame_BRS4.flatten(1, 2).gather(1, cell_BT[..., None].expand(-1, -1, 4))
    corner_BT2 = torch.stack([cell_BT % S, cell_BT // S], -1)
    centre_BT2, half_BT2 = corner_BT2 + frame_BT4[..., 2:], frame_BT4[..., :2].clamp(min=0) / 2
    rim = torch.tensor([S, R], dtype=frame_BT4.dtype, device=frame_BT4.device)
    low_BT2, high_BT2 = ((centre_BT2 + way * half_BT2).clamp(min=0).minimum(rim) * stride for way in (-1, 1))
    return torch.cat([low_BT2, high_BT2, score_BT[..., None], label_BT[..., None].to(score_BT.dtype)], -1)
