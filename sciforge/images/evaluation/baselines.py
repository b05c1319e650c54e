"""Classical rivals of a Vision Transformer in every label-efficiency curve, each fitted on the few
labels it is given.

Every function takes (objective, train records, test records, seed) and returns {"probability": [N,
C]} for classes and {"value": [N]} for numbers. Penalties are chosen by cross-validation inside the
labels; the CNN's recipe was chosen on a validation split.

Legend of shape letters: N pictures, H rows, W columns, C channels or classes, R and S rows and
columns of cells, O directions, F features.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.data import sampling
from sciforge.core.domain import Record
from sciforge.core.learners.linear_probe import block_scales, fit_logistic, fit_ridge
from sciforge.errors import ConfigError

Outputs = dict[str, np.ndarray]

# pixels, cells and bins of HOG; the paper's 8 pixels are for people of 128
CELL, BLOCK, DIRECTIONS = 4, 2, 9
EPSILON = 1e-5
# of the CNN; at least so many steps, and so many epochs of many labels
STEPS, EPOCHS, BATCH, RATE = 400, 20, 32, 1e-3


def pixels_linear(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """Logistic (or ridge) regression on the pixels."""
    return _linear(
        objective, train, test, seed, lambda images: images.reshape(len(images), -1) / 255.0
    )


def hog_linear(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """Logistic (or ridge) regression on histograms of oriented gradients."""
    return _linear(objective, train, test, seed, hog)


def small_cnn(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """Two convolutions and two linear layers, trained from scratch with shifts of up to two
    pixels.
    """
    target_N, outputs = _targets(objective, train)
    images, unseen = (torch.from_numpy(pictures(records)) for records in (train, test))
    mean, std = images.float().mean(), images.float().std().clamp(min=1.0)

    def entered(part: Tensor) -> Tensor:
        return ((part.float() - mean) / std).permute(0, 3, 1, 2)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SmallCnn(images.shape[3], outputs)
        net.learn(entered(images), torch.from_numpy(target_N), seed)
        net.eval()
        with torch.no_grad():
            predicted = torch.cat([net(entered(part)) for part in unseen.split(500)])
    if outputs == 1:
        return {"value": predicted[:, 0].double().numpy() * objective.std + objective.mean}
    return {"probability": predicted.softmax(1).numpy()}


BASELINES: Mapping[str, Callable[..., Outputs]] = {
    "pixels_linear": pixels_linear,
    "hog_linear": hog_linear,
    "small_cnn": small_cnn,
}


def pictures(records: Sequence[Record]) -> np.ndarray:
    """Return the pictures of records, uint8 [N, H, W, C]."""
    return np.stack([np.asarray(records[i]["image"]) for i in range(len(records))])


def _targets(objective: Any, records: Sequence[Record]) -> tuple[np.ndarray, int]:
    """Return what is to be learnt and how many outputs that takes; raises ConfigError for other
    objectives.
    """
    if getattr(objective, "classes", ()) and records and "label" in records[0]:
        number = {name: place for place, name in enumerate(objective.classes)}
        return np.array([number[records[i]["label"]] for i in range(len(records))]), len(number)
    if hasattr(objective, "std") and records and "value" in records[0]:
        value_N = np.array([float(records[i]["value"]) for i in range(len(records))])
        return ((value_N - objective.mean) / objective.std).astype(np.float32), 1
    raise ConfigError(
        "these baselines tell a class or a number of a picture; give --methods without them"
    )


def _linear(
    objective: Any,
    train: Sequence[Record],
    test: Sequence[Record],
    seed: int,
    features: Callable[[np.ndarray], np.ndarray],
) -> Outputs:
    """Fit on centred features of unit total variance."""
    target_N, outputs = _targets(objective, train)
    train_NF, test_NF = (
        features(pictures(records)).astype(np.float64) for records in (train, test)
    )
    centre_F, scale_F = block_scales(train_NF, [train_NF.shape[1]])
    train_NF, test_NF = (train_NF - centre_F) / scale_F, (test_NF - centre_F) / scale_F
    if outputs == 1:
        weight_F, bias = fit_ridge(train_NF, target_N)
        return {"value": (test_NF @ weight_F + bias) * objective.std + objective.mean}
    weight_CF, bias_C = fit_logistic(train_NF, target_N, outputs, seed)
    return {"probability": torch.from_numpy(test_NF @ weight_CF.T + bias_C).softmax(1).numpy()}


def hog(
    image_NHWC: np.ndarray, cell: int = CELL, block: int = BLOCK, directions: int = DIRECTIONS
) -> np.ndarray:
    """Return histograms of oriented gradients [N, F], as skimage.feature.hog with L2-Hys.

    Source: Dalal and Triggs 2005. Of colours the channel of the steepest gradient counts. Rows and
    columns beyond the last whole cell are not looked at.

    Args:
        image_NHWC: pictures.
        cell: pixels of a cell's side.
        block: cells of a block's side.
        directions: bins between 0 and 180 degrees.

    Raises:
        ConfigError: the picture holds no block.
    """
    image = image_NHWC.astype(np.float32)
    down, across = np.zeros_like(image), np.zeros_like(image)
    down[:, 1:-1] = image[:, 2:] - image[:, :-2]
    across[:, :, 1:-1] = image[:, :, 2:] - image[:, :, :-2]
    steep = np.hypot(down, across)
    steepest = steep.argmax(-1)[..., None]
    down, across, steep = (
        np.take_along_axis(x, steepest, -1)[..., 0] for x in (down, across, steep)
    )
    angle = np.rad2deg(np.arctan2(down, across)) % 180
    rows, columns = image.shape[1] // cell, image.shape[2] // cell
    if min(rows, columns) < block:
        raise ConfigError(f"HOG needs pictures of {cell * block} pixels at least")
    bin_NHW = np.minimum((angle / (180 / directions)).astype(int), directions - 1)
    cell_NRSO = (
        np.stack([_summed(np.where(bin_NHW == o, steep, 0), cell) for o in range(directions)], -1)
        / cell**2
    )
    windows = np.lib.stride_tricks.sliding_window_view(cell_NRSO, (block, block), (1, 2))
    blocks = windows.transpose(0, 1, 2, 4, 5, 3).reshape(
        len(image), rows - block + 1, columns - block + 1, -1
    )
    blocks = blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + EPSILON**2)
    blocks = np.minimum(blocks, 0.2)
    blocks = blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + EPSILON**2)
    return blocks.reshape(len(image), -1)


def _summed(x_NHW: np.ndarray, cell: int) -> np.ndarray:
    """Return sums over cells [N, R, S]."""
    rows, columns = (size // cell for size in x_NHW.shape[1:])
    return (
        x_NHW[:, : rows * cell, : columns * cell].reshape(-1, rows, cell, columns, cell).sum((2, 4))
    )


class SmallCnn(nn.Module):
    """Two convolutions of 3 x 3, each halved by its maxima, and two linear layers.

    Args:
        channels: of the pictures.
        outputs: scores.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * 16, 128)
        self.last = nn.Linear(128, outputs)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return scores [N, C]."""
        x = F.max_pool2d(F.relu(self.first(x_NCHW)), 2)
        x = F.relu(self.second(x))
        x = F.dropout(F.adaptive_max_pool2d(x, 4).flatten(1), 0.5, self.training)
        return self.last(F.dropout(F.relu(self.hidden(x)), 0.5, self.training))

    def learn(self, x_NCHW: Tensor, target_N: Tensor, seed: int) -> None:
        """Descend by Adam on shifted pictures, the rate falling to 0 as a cosine."""
        steps = max(STEPS, EPOCHS * -(-len(x_NCHW) // BATCH))
        optimizer = torch.optim.AdamW(self.parameters(), lr=RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        padded = F.pad(x_NCHW, (2, 2, 2, 2), mode="replicate")
        height, width = x_NCHW.shape[2:]
        self.train()
        for step in range(steps):
            rng = sampling.generator(seed, sampling.CORRUPT, step)
            chosen = torch.tensor(
                [
                    i
                    for _, i in sampling.step_indices(
                        len(x_NCHW), min(BATCH, len(x_NCHW)), seed, step
                    )
                ]
            )
            top, left = (int(n) for n in rng.integers(0, 5, 2))
            scores = self(padded[chosen, :, top : top + height, left : left + width])
            if scores.shape[1] == 1:
                loss = F.mse_loss(scores[:, 0], target_N[chosen])
            else:
                loss = F.cross_entropy(scores, target_N[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
