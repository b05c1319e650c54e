"""Relative position of two pieces of an image (Doersch et al. 2015, arXiv 1505.05192): on which of
eight sides does it lie?

Legend of shape letters: B batch, Q pairs an image, G side of a piece in pixels, C channels, D
width, K the eight sides.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import Batch, Categorical, Example, Likelihood, Loss, Record, widened
from sciforge.errors import ConfigError
from sciforge.images.data.codec import ImageCodec
from sciforge.images.data.training_views import Viewed

# The eight sides on which the second piece may lie, as steps of rows and columns.
SIDES = tuple(
    (row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)
)


class PairHead(nn.Module):
    """Tells the side from the states of two pieces, one after the other: their order is what is
    asked for.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.join = nn.Linear(2 * width, width)
        self.side = nn.Linear(width, len(SIDES))
        nn.init.normal_(self.join.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(self.side.weight, std=0.02)
        for bias in (self.join.bias, self.side.bias):
            nn.init.zeros_(bias)

    def forward(self, first_XD: Tensor, second_XD: Tensor) -> Tensor:
        """Return scores of the eight sides [X, K]."""
        return self.side(F.gelu(self.join(torch.cat([first_XD, second_XD], -1))))


@dataclass(frozen=True)
class RelativePositions(Viewed):
    """Tell on which of eight sides one piece of an image lies of another; each piece is encoded
    alone.

    What would give the answer away without any look at the content is taken out. The pieces carry
    no place in the image: each is encoded as a small image of its own. A gap between them hides
    lines that run on, and a random shift of the second keeps the net from measuring. A pair lies
    anywhere in the image, so that a piece's look (a dark rim, say) tells little of its side. Of
    coloured images one channel is left, drawn for each pair, since lenses bend colours apart
    towards the rim.

    Args:
        crop, flip, rotation, jitter, hue: strengths of random views in training, see `views`.
        piece: side of a piece in pixels, a multiple of the codec's patch; 0 takes two patches.
        gap: pixels between the pieces.
        shift: the second piece is moved by up to this many pixels on each axis; below the gap.
        pairs: pairs of an image.
        drop_colour: leave one channel of three.
    """

    piece: int = 0
    gap: int = 2
    shift: int = 1
    pairs: int = 4
    drop_colour: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, 2**16, "piece", "gap", "shift")
        self.require(1, 2**16, "pairs")
        if self.shift > self.gap:
            raise ConfigError(
                f"shift {self.shift} could make the pieces overlap across a gap of {self.gap}; make"
                " it smaller"
            )

    def attach(self, model: nn.Module) -> None:
        """Add the head that compares two pieces."""
        model.heads["pair"] = PairHead(model.width)

    def prepare(
        self, record: Record, codec: ImageCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Draw pairs of pieces of an image (of a random view of it in training)."""
        image_HWC = np.asarray(self.view(record, rng, training)["image"])
        codec.encode({"image": image_HWC})  # its checks
        piece = self.piece or 2 * codec.patch
        codec.check_size(piece, piece)
        pieces, sides = [], rng.integers(0, len(SIDES), self.pairs)
        for side in sides:
            pair = cut_pair(image_HWC, SIDES[side], piece, self.gap, self.shift, rng)
            if self.drop_colour and codec.channels == 3:
                pair = one_channel(pair, int(rng.integers(3)), codec.mean)
            pieces.append(pair)
        return {
            "pieces": torch.from_numpy(np.stack(pieces)),
            "target_side": torch.from_numpy(sides),
        }

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return scores of the eight sides of every pair [B * Q, K]."""
        pieces_BQ2GGC = batch["pieces"]
        state_XD = model({"image": pieces_BQ2GGC.flatten(0, 2)}).mean(1)
        first_XD, second_XD = state_XD.unflatten(0, (-1, 2)).unbind(1)
        return widened(model.heads["pair"](first_XD, second_XD))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the cross-entropy summed over pairs."""
        logits_XK, target_X = self.logits(model, batch), batch["target_side"].flatten()
        total, count = (
            F.cross_entropy(logits_XK, target_X, reduction="sum"),
            torch.tensor(len(target_X)),
        )
        return Loss(total, count, {"accuracy": ((logits_XK.argmax(-1) == target_X).sum(), count)})

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return the distribution over the eight sides of every pair."""
        return Categorical(self.logits(model, batch), batch["target_side"].flatten())


def cut_pair(
    image_HWC: np.ndarray,
    side: tuple[int, int],
    piece: int,
    gap: int,
    shift: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return two pieces [2, G, G, C], the second on the given side of the first; the pair lies
    anywhere in the image.

    Raises:
        ConfigError: the image has no room for two pieces and the gap.
    """
    corners = []
    for axis in (0, 1):
        moved = 0 if shift == 0 else int(rng.integers(-shift, shift + 1))
        step = side[axis] * (piece + gap) + moved
        room = image_HWC.shape[axis] - piece - abs(step)
        if room < 0:
            least = 2 * piece + gap + shift
            raise ConfigError(
                f"pairs of pieces of {piece} pixels need images of {least} pixels; make"
                " objective.piece smaller"
            )
        first = int(rng.integers(0, room + 1)) + max(0, -step)
        corners.append((first, first + step))
    (top, top_2), (left, left_2) = corners
    cuts = [image_HWC[y : y + piece, x : x + piece] for y, x in ((top, left), (top_2, left_2))]
    return np.stack(cuts)


def one_channel(pieces: np.ndarray, channel: int, mean: tuple[float, ...]) -> np.ndarray:
    """Return coloured pieces [..., C] in which the other channels are the training images' mean.

    >>> one_channel(np.full((1, 1, 3), 9, np.uint8), 1, (100.0, 100.0, 120.4)).tolist()
    [[[100, 9, 120]]]
    """
    out = np.empty_like(pieces)
    out[:] = np.rint(mean).astype(np.uint8)
    out[..., channel] = pieces[..., channel]
    return out
