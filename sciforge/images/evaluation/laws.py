"""What must hold for every Vision Transformer, fresh or trained; `sciforge check` runs these on a
user's own checkpoint.

A law takes (model in float64, codec, numpy generator) and returns (largest violation, tolerance).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.domain import Batch
from sciforge.images.data.boxes import average_precision, overlaps
from sciforge.images.data.codec import ImageCodec, from_patches, to_patches
from sciforge.images.model.center_maps import centre_map, detected_boxes, peaks
from sciforge.images.model.vit import resized_grid
from sciforge.images.objectives.inpainting import draw_hidden

Verdict = tuple[float, float]
ROUNDING = 1e-9  # of float64 through a dozen blocks; float32 leaves 1e-5


def _images(model: nn.Module, codec: ImageCodec, rng: np.random.Generator, num: int) -> Batch:
    shape = (num, codec.height, codec.width, codec.channels)
    device = next(model.parameters()).device
    return {"image": torch.from_numpy(rng.integers(0, 256, shape).astype(np.uint8)).to(device)}


def _largest(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max())


@torch.no_grad()
def batch_mates(model: nn.Module, codec: ImageCodec, rng: np.random.Generator) -> Verdict:
    """What else is in the batch, and in which order, never changes a result."""
    batch = _images(model, codec, rng, 5)
    together = model(batch)
    turned = model({"image": batch["image"].flip(0)}).flip(0)
    alone = torch.cat([model({"image": image[None]}) for image in batch["image"]])
    return max(_largest(together, turned), _largest(together, alone)), ROUNDING


@torch.no_grad()
def patch_order(model: nn.Module, codec: ImageCodec, rng: np.random.Generator) -> Verdict:
    """Patches are a set: listed in another order, each with its place, they get the very same
    states.
    """
    batch = _images(model, codec, rng, 2)
    states_BND = model(batch)
    order_BN = torch.from_numpy(
        np.stack([rng.permutation(states_BND.shape[1]) for _ in range(2)])
    ).to(states_BND.device)
    expected_BND = states_BND.gather(1, order_BN[..., None].expand_as(states_BND))
    return _largest(model(batch, order_BN), expected_BND), ROUNDING


@torch.no_grad()
def hidden_patches(model: nn.Module, codec: ImageCodec, rng: np.random.Generator) -> Verdict:
    """Hidden patches cannot be read: changing their pixels changes no state, and nothing that a
    decoder tells, at all.
    """
    batch = _images(model, codec, rng, 1)
    parts = draw_hidden(codec.grid[0] * codec.grid[1], 0.75, rng)
    visible_BM, hidden_BK = (
        torch.from_numpy(part)[None].to(batch["image"].device) for part in parts
    )
    patches_BNP = to_patches(batch["image"], codec.patch)
    other_BNP = patches_BNP.clone()
    other_BNP[0, hidden_BK[0]] = 255 - other_BNP[0, hidden_BK[0]]
    filled = []
    for patches in (patches_BNP, other_BNP):
        seen = {"image": from_patches(patches, codec.grid, codec.patch)}
        states_BMD = model(seen, visible_BM)
        filled.append(states_BMD.flatten())
        if "inpainting" in model.heads:
            filled[-1] = torch.cat(
                [
                    filled[-1],
                    model.heads["inpainting"](
                        states_BMD, visible_BM, hidden_BK, codec.grid
                    ).flatten(),
                ]
            )
    return _largest(*filled), 0.0


@torch.no_grad()
def asked_alone(model: nn.Module, codec: ImageCodec, rng: np.random.Generator) -> Verdict:
    """What is told of a hidden patch does not depend on which others are asked for (holds idly
    without a decoder).
    """
    if "inpainting" not in model.heads:
        return 0.0, ROUNDING
    batch, decoder = _images(model, codec, rng, 1), model.heads["inpainting"]
    parts = draw_hidden(codec.grid[0] * codec.grid[1], 0.75, rng)
    visible_BM, hidden_BK = (
        torch.from_numpy(part)[None].to(batch["image"].device) for part in parts
    )
    states_BMD = model(batch, visible_BM)
    every_BKP = decoder(states_BMD, visible_BM, hidden_BK, codec.grid)
    alone_BKP = decoder(states_BMD, visible_BM, hidden_BK[:, -1:], codec.grid)
    return _largest(every_BKP[:, -1:], alone_BKP), ROUNDING


@torch.no_grad()
def places(model: nn.Module, codec: ImageCodec, rng: np.random.Generator) -> Verdict:
    """Places interpolated to the same grid are the very same, and an image of twice the size is
    encoded.
    """
    grid_RSD = model.position_embedding
    same = _largest(resized_grid(grid_RSD, *grid_RSD.shape[:2]), grid_RSD)
    rows, columns = (2 * n for n in grid_RSD.shape[:2])
    shape = (1, rows * codec.patch, columns * codec.patch, codec.channels)
    larger = model(
        {
            "image": (
                torch.from_numpy(rng.integers(0, 256, shape).astype(np.uint8)).to(grid_RSD.device)
            )
        }
    )
    whole = larger.shape[1] == rows * columns and bool(larger.isfinite().all())
    return same if whole else np.inf, 0.0


def patches_round_trip(model: nn.Module, codec: ImageCodec, rng: np.random.Generator) -> Verdict:
    """An image cut into patches and put together again is the same, byte for byte."""
    image = _images(model, codec, rng, 3)["image"]
    back = from_patches(to_patches(image, codec.patch), codec.grid, codec.patch)
    return float((back != image).sum()), 0.0


def boxes_round_trip(model: nn.Module, codec: ImageCodec, rng: np.random.Generator) -> Verdict:
    """Boxes drawn as the map that detection learns, and read from it again, are the same:
    average precision 1.
    """
    size, rows, columns = codec.patch, *codec.grid
    cells = [(row, column) for row in range(0, rows, 2) for column in range(0, columns, 2)]
    picked = rng.permutation(len(cells))[: max(1, len(cells) // 2)]
    corner_M2 = (
        np.array([cells[i][::-1] for i in picked]) + rng.uniform(0.3, 0.7, (len(picked), 2))
    ) * size
    half_M2 = rng.uniform(0.1, 0.3, corner_M2.shape) * size
    truth = {"boxes": np.concatenate([corner_M2 - half_M2, corner_M2 + half_M2], 1)}
    truth["labels"] = rng.integers(0, 2, len(picked))
    written = centre_map(truth["boxes"], truth["labels"], codec.grid, size)
    heat, label, frame = (
        torch.from_numpy(written[f"target_{name}"])[None] for name in ("heat", "label", "frame")
    )
    one_hot = torch.nn.functional.one_hot(label.clamp(min=0), 2).double()
    read = detected_boxes(
        peaks((heat * (heat == 1)).double(), one_hot, frame.double(), size, len(picked))[0].numpy()
    )
    precision = average_precision([read], [truth], 0.95)
    worst = overlaps(read["boxes"], truth["boxes"]).max(0).min()
    return max(1 - precision, 1 - worst), 1e-4  # sizes and offsets are float32


@torch.no_grad()
def class_probabilities(model: nn.Module, codec: ImageCodec, rng: np.random.Generator) -> Verdict:
    """Class probabilities are at least 0 and add up to 1, and no other image changes them (idle
    without a class head).
    """
    if "class" not in model.heads:
        return 0.0, ROUNDING
    head, batch = model.heads["class"], _images(model, codec, rng, 4)
    depth, layers = len(model.encoder.blocks), len(head.blocks_F)
    every = model(batch, layers=True)[depth + 1 - layers :] if layers > 1 else [model(batch)]
    p_BC = head(every, codec.grid).softmax(-1)
    alone_BC = head([x[:1] for x in every], codec.grid).softmax(-1)
    return (
        max(
            float((p_BC.sum(-1) - 1).abs().max()), float(-p_BC.min()), _largest(p_BC[:1], alone_BC)
        ),
        ROUNDING,
    )


LAWS: dict[str, Callable[[nn.Module, ImageCodec, np.random.Generator], Verdict]] = {
    "image-batch-mates": batch_mates,
    "patch-order": patch_order,
    "hidden-patches": hidden_patches,
    "asked-alone": asked_alone,
    "places": places,
    "patches-round-trip": patches_round_trip,
    "boxes-round-trip": boxes_round_trip,
    "class-probabilities": class_probabilities,
}
