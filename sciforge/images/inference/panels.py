"""Pictures of what a model makes of images: sheets of panels as PNG files.

Legend of shape letters: H rows, W columns, C channels, R rows of patches, S columns of patches, N patches, K hidden patches, P
numbers of a patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciforge.core.domain import Record
from sciforge.core.files.output_files import write_whole
from sciforge.images.data.codec import from_patches, to_patches
from sciforge.images.inference.attention import attention_maps
from sciforge.images.objectives.inpainting import InpaintPatches, patch_scale

HIDDEN = 128  # the grey of a hidden patch
INCHES = 1.5  # side of a panel
# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#FFFFFF")


@dataclass(frozen=True)
class Box:
    """A box to draw: (x0, y0, x1, y1) in pixels, what to write at it, and the number of its colour; dashed for a true one."""

    corners: tuple[float, float, float, float]
    text: str = ""
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """An image uint8 [H, W, C], a heading, boxes over it, and a map [R, S] laid over it from dark to light."""

    image: np.ndarray
    title: str = ""
    boxes: tuple[Box, ...] = ()
    map: np.ndarray | None = None


def sheet(path: Path, rows: Sequence[Sequence[Panel]], names: Sequence[str] = ()) -> Path:
    """Write rows of panels as one PNG, each row with its name at the left; appears whole."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = max(map(len, rows))
    figure, axes = pyplot.subplots(
        len(rows), columns, figsize=(columns * INCHES + 0.3, len(rows) * INCHES), layout="constrained", squeeze=False
    )
    for at in figure.axes:
        at.set(xticks=[], yticks=[])
        for side in at.spines.values():
            side.set_visible(False)
    for line, panels in zip(axes, rows, strict=True):
        for at, panel in zip(line, panels, strict=False):
            _draw(at, panel)
    for line, name in zip(axes, names, strict=False):
        line[0].set_ylabel(name, fontsize=9)
    try:
        return write_whole(path, lambda work: figure.savefig(work, dpi=150, format="png"))
    finally:
        pyplot.close(figure)


def _draw(at: Any, panel: Panel) -> None:
    from matplotlib.patches import Rectangle

    height, width, channels = panel.image.shape
    extent = (0, width, height, 0)  # pixel edges, so that boxes lie where they say
    if panel.map is None:
        grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if channels == 1 else {}
        at.imshow(panel.image[..., 0] if channels == 1 else panel.image, extent=extent, interpolation="nearest", **grey)
    else:
        at.imshow(panel.image.mean(2), extent=extent, cmap="gray", interpolation="nearest")
        at.imshow(panel.map, extent=extent, cmap="inferno", alpha=0.7, interpolation="bilinear", vmin=0)
    at.set(xlim=(0, width), ylim=(height, 0))
    if panel.title:
        at.set_title(panel.title, fontsize=8)
    for box in panel.boxes:
        x0, y0, x1, y1 = box.corners
        colour = COLOURS[box.colour % len(COLOURS)]
        style = {"ls": "--" if box.dashed else "-", "lw": 1.4, "ec": colour, "fc": "none"}
        at.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, **style))
        if box.text:  # above the box, or below it at the image's upper rim
            place = {"y": y0, "va": "bottom"} if y0 > height / 8 else {"y": y1, "va": "top"}
            at.text(x0, s=box.text, fontsize=5.5, color="black", clip_on=True, **place,
                    bbox={"fc": colour, "ec": "none", "pad": 0.6})  # fmt: skip


@torch.no_grad()
def reconstructed(
    model: Any, objective: InpaintPatches, records: Sequence[Record], seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images as they are, with hidden patches grey, and filled in, each uint8 [B, H, W, C]; all of one size.

    A network of normalised patches tells texture, not brightness: it is shown at the true mean and std of each patch.
    """
    objective = replace(objective, decoded_share=1.0)
    made = [
        objective.prepare({"image": record["image"]}, model.codec, np.random.default_rng((seed, i)), training=False)
        for i, record in enumerate(records)
    ]
    batch, network = model.engine.move(model.codec.collate(made)), model.network
    told_BKP, hidden_BK = objective.filled(network, batch), batch["hidden"]
    true_BNP = to_patches(batch["image"], network.patch)
    at_BKP = hidden_BK[..., None].expand(-1, -1, true_BNP.shape[-1])
    if objective.normalise:
        mean_BK1, std_BK1 = patch_scale(network.normalised(true_BNP.gather(1, at_BKP)))
        told_BKP = told_BKP * std_BK1 + mean_BK1

    def joined(hidden_BKP: Tensor) -> np.ndarray:
        patches_BNP = true_BNP.scatter(1, at_BKP, hidden_BKP)
        return from_patches(patches_BNP, network.grid_of(batch), network.patch).cpu().numpy()

    colours_BKQC = told_BKP.unflatten(-1, (-1, len(network.mean_C))) * network.std_C + network.mean_C
    filled_BKP = colours_BKQC.flatten(-2).round().clamp(0, 255).to(torch.uint8)
    return batch["image"].cpu().numpy(), joined(torch.full_like(filled_BKP, HIDDEN)), joined(filled_BKP)


def draw_reconstructions(
    path: Path, model: Any, objective: InpaintPatches, records: Sequence[Record], seed: int = 0
) -> Path:
    """Write a sheet of images, what the encoder saw of them, and the filled images."""
    rows = [[Panel(image) for image in images] for images in reconstructed(model, objective, records, seed)]
    return sheet(path, rows, ("image", "seen", "filled"))


def draw_attention(path: Path, model: Any, records: Sequence[Record]) -> Path:
    """Write a sheet of images beside the attention of the last block, the mean of all heads and each head."""
    examples = [model.codec.encode({"image": record["image"]}) for record in records]
    batch = model.engine.move(model.codec.collate(examples))
    rows = []
    for record, map_HRS in zip(records, attention_maps(model.network, batch).cpu().numpy(), strict=True):
        image = np.asarray(record["image"])
        maps = [("all heads", map_HRS.mean(0)), *((f"head {i + 1}", part) for i, part in enumerate(map_HRS))]
        rows.append([Panel(image, "image"), *(Panel(image, title, map=part) for title, part in maps)])
    return sheet(path, rows)
