"""The map of centres that detection learns, and the boxes that are read from it.

Boxes are (x0, y0, x1, y1) in pixels of the image, x to the right, y down, x1 and y1 the far edges.
A cell of the map is a patch.

Legend of shape letters: B batch, N patches, D width, F features, R rows of cells, S columns of
cells, K classes, M boxes, T detections.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.learners.linear_probe import block_scales
from sciforge.images.data.boxes import suppressed

# standard deviation of a centre's hill as a share of the box (Liu et al. 2019, arXiv 1909.00700)
HILL_STD = 0.54 / 6
# and in cells at least, so that a neighbour of a small object's cell is not punished in full
NARROWEST = 0.4
FIRST_CHANCE = 0.1  # of an object in a cell before any training; CenterNet's
AROUND = (1, 3, 5)  # a cell is told from its own state and from means over so many cells about it
NO_CLASS = -100

Fit = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class PointHead(nn.Module):
    """Linear scores of each cell: whether an object's centre lies there, of which class, how large,
    and where in the cell.

    Centre and class are apart: every object teaches what a centre is, and classes are compared with
    each other, not with empty ground. One map for each class, as CenterNet has them, told no class
    from another after 100 steps on 160 scenes.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.blocks_F = [width] * len(AROUND)
        features = sum(self.blocks_F)
        self.weight_OF = nn.Parameter(torch.zeros(1 + classes + 4, features))
        self.bias_O = nn.Parameter(torch.zeros(1 + classes + 4))
        self.register_buffer("centre_F", torch.zeros(features))
        self.register_buffer("scale_F", torch.ones(features))
        nn.init.normal_(self.weight_OF, std=0.1 * features**-0.5)
        with torch.no_grad():
            self.bias_O[0] = float(np.log(FIRST_CHANCE / (1 - FIRST_CHANCE)))
            # two patches wide, in the middle
            self.bias_O[1 + classes :] = torch.tensor([2.0, 2.0, 0.5, 0.5])

    def features(self, x_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return what is read of every cell before centring [B, R, S, F]."""
        x_BDRS = x_BND.transpose(1, 2).unflatten(2, grid)
        seen = [F.avg_pool2d(x_BDRS, n, 1, n // 2, count_include_pad=False) for n in AROUND]
        return torch.cat(seen, 1).permute(0, 2, 3, 1).to(self.weight_OF.dtype)

    def forward(self, x_BND: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of centres [B, R, S], of classes [B, R, S, K], and width, height (in
        cells), offset [B, R, S, 4].
        """
        scaled_BRSF = (self.features(x_BND, grid) - self.centre_F) / self.scale_F
        output_BRSO = F.linear(scaled_BRSF, self.weight_OF, self.bias_O)
        return (
            output_BRSO[..., 0],
            output_BRSO[..., 1 : 1 + self.classes],
            output_BRSO[..., 1 + self.classes :],
        )

    @torch.no_grad()
    def solve(
        self, cell_NF: np.ndarray, at_N: np.ndarray, centre: Fit, classes: Fit, frame: Fit
    ) -> None:
        """Set the head from cells, of which those `at_N` hold a centre; each part is fitted to
        scaled features.
        """
        centre_F, scale_F = block_scales(cell_NF, self.blocks_F)
        scaled_NF = (cell_NF - centre_F) / scale_F
        parts = [centre(scaled_NF), classes(scaled_NF[at_N]), frame(scaled_NF[at_N])]
        weight_OF, bias_O = (
            np.concatenate([np.asarray(part[i]) for part in parts]) for i in (0, 1)
        )
        slots = (
            (self.centre_F, centre_F),
            (self.scale_F, scale_F),
            (self.weight_OF, weight_OF),
            (self.bias_O, bias_O),
        )
        for slot, value in slots:
            slot.copy_(torch.as_tensor(value))


def centre_map(
    box_M4: np.ndarray, label_M: np.ndarray, cells: tuple[int, int], stride: int
) -> dict[str, np.ndarray]:
    """Return the map that boxes ask for.

    Args:
        box_M4: in pixels.
        label_M: class numbers.
        cells: R and S.
        stride: pixels of a cell.

    Returns:
        "target_heat" float32 [R, S], 1 in the cell of an object's centre and falling off around it;
        "target_label" int64 [R, S], -100 in all other cells; "target_frame" float32 [R, S, 4],
        width and height in cells and the centre's place in its cell.

    >>> target = centre_map(np.array([[2.0, 0.0, 6.0, 8.0]]), np.array([7]), (3, 2), 4)
    >>> target["target_frame"][1, 1].tolist()
    [1.0, 2.0, 0.0, 0.0]
    >>> int(target["target_heat"].argmax()), int(target["target_label"].max())
    (3, 7)
    """
    heat_RS = np.zeros(cells, np.float32)
    label_RS = np.full(cells, NO_CLASS, np.int64)
    frame_RS4 = np.zeros((*cells, 4), np.float32)
    size_M2 = (box_M4[:, 2:] - box_M4[:, :2]) / stride
    centre_M2 = (box_M4[:, 2:] + box_M4[:, :2]) / (2 * stride)
    row_R, column_S = np.arange(cells[0])[:, None], np.arange(cells[1])[None]
    # where two share a cell, the smaller one, drawn last, has it
    for i in np.argsort(-size_M2.prod(1), kind="stable"):
        column, row = (
            min(max(int(c), 0), n - 1) for c, n in zip(centre_M2[i], cells[::-1], strict=True)
        )
        wide, high = np.maximum(size_M2[i] * HILL_STD, NARROWEST)
        hill_RS = np.exp(
            -((column_S - column) ** 2) / (2 * wide**2) - (row_R - row) ** 2 / (2 * high**2)
        )
        heat_RS = np.maximum(heat_RS, hill_RS.astype(np.float32))
        frame_RS4[row, column] = [*size_M2[i], centre_M2[i, 0] - column, centre_M2[i, 1] - row]
        label_RS[row, column] = label_M[i]
    return {"target_heat": heat_RS, "target_label": label_RS, "target_frame": frame_RS4}


def focal(logits: Tensor, heat: Tensor) -> Tensor:
    """Return the focal loss of every cell: hard ones count more, those near a centre less (Law and
    Deng 2018).

    >>> focal(torch.tensor([20.0, -20.0, -20.0]), torch.tensor([1.0, 0.0, 1.0])).round().tolist()
    [0.0, 0.0, 20.0]
    """
    p = logits.sigmoid()
    hit, miss = (
        -((1 - p) ** 2) * F.logsigmoid(logits),
        -((1 - heat) ** 4) * p**2 * F.logsigmoid(-logits),
    )
    return torch.where(heat == 1, hit, miss)


def peaks(
    chance_BRS: Tensor, class_BRSK: Tensor, frame_BRS4: Tensor, stride: int, max_peaks: int
) -> Tensor:
    """Return the boxes of cells that no neighbour tops, [B, T, 6]: x0, y0, x1, y1 in pixels, score,
    class; best first.

    Args:
        chance_BRS: of a centre.
        class_BRSK: probabilities; a score is the product of both, and a cell may speak for several
            classes.
        frame_BRS4: width, height (in cells), offset.
        stride: pixels of a cell.
        max_peaks: T; fewer where there are fewer cells. What is left of few peaks has score 0.
    """
    B, R, S, K = class_BRSK.shape
    peak_BRS = chance_BRS * (F.max_pool2d(chance_BRS[:, None], 3, 1, 1)[:, 0] == chance_BRS)
    score_BT, place_BT = (
        (peak_BRS[..., None] * class_BRSK).flatten(1).topk(min(max_peaks, K * R * S), sorted=True)
    )
    label_BT, cell_BT = place_BT % K, place_BT // K
    frame_BT4 = frame_BRS4.flatten(1, 2).gather(1, cell_BT[..., None].expand(-1, -1, 4))
    corner_BT2 = torch.stack([cell_BT % S, cell_BT // S], -1)
    centre_BT2, half_BT2 = corner_BT2 + frame_BT4[..., 2:], frame_BT4[..., :2].clamp(min=0) / 2
    rim = torch.tensor([S, R], dtype=frame_BT4.dtype, device=frame_BT4.device)
    low_BT2, high_BT2 = (
        (centre_BT2 + way * half_BT2).clamp(min=0).minimum(rim) * stride for way in (-1, 1)
    )
    return torch.cat(
        [low_BT2, high_BT2, score_BT[..., None], label_BT[..., None].to(score_BT.dtype)], -1
    )


def detected_boxes(detection_T6: np.ndarray, least: float = 0.0) -> dict[str, np.ndarray]:
    """Return the boxes, scores and labels of an image's detections that score above `least`.

    >>> detections = np.array([[0.0, 0.0, 2.0, 2.0, 0.9, 3.0], [0.0, 0.0, 1.0, 1.0, 0.0, 1.0]])
    >>> detected_boxes(detections)["labels"].tolist()
    [3]
    """
    kept_T6 = np.asarray(detection_T6)[np.asarray(detection_T6)[:, 4] > least]
    return {"boxes": kept_T6[:, :4], "scores": kept_T6[:, 4], "labels": kept_T6[:, 5].astype(int)}


def clearest(detection_T6: np.ndarray, max_detections: int) -> dict[str, np.ndarray]:
    """Return the best detections of an image, no two of which overlap by half whatever their
    classes: one a thing, to draw.

    >>> same = [[0.0, 0, 4, 4, 0.9, 1], [0, 0, 4, 4, 0.8, 2]]
    >>> detections = np.array([*same, [8, 8, 9, 9, 0.7, 1], [5, 5, 6, 6, 0.1, 0]])
    >>> clearest(detections, 2)["scores"].tolist()
    [0.9, 0.7]
    """
    boxes = detected_boxes(detection_T6)
    kept = suppressed(boxes["boxes"], boxes["scores"], np.zeros(len(boxes["scores"])), 0.5)
    return {name: values[kept[:max_detections]] for name, values in boxes.items()}
