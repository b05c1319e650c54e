"""Hidden patches filled in by a network that was pretrained to do so, as images.

Legend of shape letters: B images, H rows, W columns, C channels, N patches, K hidden patches, Q
pixels of a patch, P numbers of a patch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sciforge.core.domain import Record
from sciforge.images.data.codec import from_patches, to_patches
from sciforge.images.inference.sheets import ImageSheet, Panel
from sciforge.images.objectives.inpainting import InpaintPatches, patch_scale

if TYPE_CHECKING:
    import pandas as pd

    from sciforge.core.training.model import Model

HIDDEN = 128  # the grey of a hidden patch


class Reconstruction(ImageSheet):
    """Images, what the encoder saw of them, and the filled images, each uint8 [B, H, W, C]."""

    def __init__(
        self,
        images: np.ndarray,
        seen: np.ndarray,
        filled: np.ndarray,
        names: Sequence[str],
        about: Mapping[str, Any],
    ) -> None:
        self.images, self.seen, self.filled = images, seen, filled
        rows = [[Panel(image) for image in row] for row in (images, seen, filled)]
        super().__init__(
            _errors(images, seen, filled, names), rows, ("image", "seen", "filled"), about
        )


def _errors(
    images: np.ndarray, seen: np.ndarray, filled: np.ndarray, names: Sequence[str]
) -> "pd.DataFrame":
    """Return a row for each image: name, share of hidden pixels, RMSE of the filled ones in
    bytes.
    """
    import pandas as pd

    hidden = ((seen != images) | (filled != images)).any(
        -1
    )  # a hidden pixel that is grey and filled rightly counts as seen
    error_BHW = ((filled.astype(float) - images) ** 2).mean(-1)
    rmse = [
        float(np.sqrt(e[h].mean())) if h.any() else 0.0
        for e, h in zip(error_BHW, hidden, strict=True)
    ]
    return pd.DataFrame({"name": list(names), "hidden": hidden.mean((1, 2)), "rmse": rmse})


@torch.no_grad()
def reconstructed(
    model: "Model", objective: InpaintPatches, records: Sequence[Record], seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images as they are, with hidden patches grey, and filled in, each uint8 [B, H, W, C];
    all of one size.

    A network of normalised patches predicts texture, not brightness: it is shown at the true mean
    and std of each patch.
    """
    objective = replace(objective, decoded_share=1.0)
    examples = [
        objective.prepare(
            {"image": record["image"]},
            model.codec,
            np.random.default_rng((seed, i)),
            training=False,
        )
        for i, record in enumerate(records)
    ]
    batch, network = model.engine.move(model.codec.collate(examples)), model.network
    predicted_BKP, hidden_BK = objective.filled(network, batch), batch["hidden"]
    true_BNP = to_patches(batch["image"], network.patch)
    at_BKP = hidden_BK[..., None].expand(-1, -1, true_BNP.shape[-1])
    if objective.normalise:
        mean_BK1, std_BK1 = patch_scale(network.normalised(true_BNP.gather(1, at_BKP)))
        predicted_BKP = predicted_BKP * std_BK1 + mean_BK1

    def joined(hidden_BKP: Tensor) -> np.ndarray:
        patches_BNP = true_BNP.scatter(1, at_BKP, hidden_BKP)
        return from_patches(patches_BNP, network.grid_of(batch), network.patch).cpu().numpy()

    colours_BKQC = (
        predicted_BKP.unflatten(-1, (-1, len(network.mean_C))) * network.std_C + network.mean_C
    )
    filled_BKP = colours_BKQC.flatten(-2).round().clamp(0, 255).to(torch.uint8)
    return (
        batch["image"].cpu().numpy(),
        joined(torch.full_like(filled_BKP, HIDDEN)),
        joined(filled_BKP),
    )
