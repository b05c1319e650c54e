"""Masked-patch inpainting (MAE, He et al. 2022, arXiv 2111.06377): the encoder sees a quarter, a
light decoder fills the rest.

Legend of shape letters: B batch, L places in a row, N patches, M visible patches, K hidden patches
that are asked for, P numbers of a patch, D width of the encoder, E width of the decoder.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import Batch, Example, Gaussian, Likelihood, Loss, Record, widened
from sciforge.errors import ConfigError
from sciforge.images.data.codec import ImageCodec, to_patches
from sciforge.images.data.training_views import Viewed
from sciforge.images.model.vit import resized_grid, sine_grid
from sciforge.nn.transformer import NORM_EPS, GatedMLP, take

# Added to a patch's variance (the training pixels' own is 1): a flat patch whose bytes differ by
# one step, as scanners and JPEG leave them, has 1e-4 and would otherwise be scaled up to look like
# texture.
FLAT = 1e-3


class CrossBlock(nn.Module):
    """Hidden patches look at the visible ones, not at each other; then a gated MLP."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.query_norm, self.mlp_norm = (nn.RMSNorm(width, eps=NORM_EPS) for _ in range(2))
        self.query, self.key, self.value, self.output = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.mlp = GatedMLP(width, round(width / 3) * 8)
        for name, parameter in self.named_parameters():  # as nn/transformer.py
            last = name.endswith(("output.weight", "down.weight"))
            if parameter.ndim == 2:
                nn.init.normal_(
                    parameter, std=0.02 / (2 * depth) ** 0.5 if last else parameter.shape[1] ** -0.5
                )

    def forward(self, x_BKE: Tensor, seen_BME: Tensor) -> Tensor:
        """Return the hidden patches' states [B, K, E] after a look at the visible ones'
        (normalised).
        """

        def split(y_BLE: Tensor) -> Tensor:
            return y_BLE.unflatten(-1, (-1, self.head_width)).transpose(1, 2)

        query_BHKE = split(self.query(self.query_norm(x_BKE)))
        read_BHKE = F.scaled_dot_product_attention(
            query_BHKE, split(self.key(seen_BME)), split(self.value(seen_BME))
        )
        x_BKE = x_BKE + self.output(read_BHKE.transpose(1, 2).flatten(-2))
        return x_BKE + self.mlp(self.mlp_norm(x_BKE))


class Decoder(nn.Module):
    """Tells the pixels of hidden patches from the states of the visible ones.

    Hidden patches read the visible ones and nothing else (Fu et al. 2024, arXiv 2401.14391, who
    found it to learn as well): what is told of one does not depend on which others are asked for,
    and no work is done for visible patches but keys and values.

    Args:
        width: D, of the states that come in.
        inner: E.
        depth: blocks.
        heads: attention heads.
        grid: rows and columns of the places that it learns.
        numbers: P.
    """

    def __init__(
        self, width: int, inner: int, depth: int, heads: int, grid: tuple[int, int], numbers: int
    ) -> None:
        super().__init__()
        if inner % 4 or inner % heads:
            raise ConfigError(
                f"decoder_width {inner} must be a multiple of 4 and of decoder_heads {heads}"
            )
        self.project = nn.Linear(width, inner)
        self.seen_norm, self.norm = (nn.RMSNorm(inner, eps=NORM_EPS) for _ in range(2))
        self.hidden_E = nn.Parameter(torch.zeros(inner))
        self.position_embedding = nn.Parameter(sine_grid(*grid, inner))
        self.stages = nn.ModuleList(CrossBlock(inner, heads, depth) for _ in range(depth))
        self.pixels = nn.Linear(inner, numbers)
        nn.init.normal_(self.project.weight, std=width**-0.5)
        nn.init.normal_(self.pixels.weight, std=0.02)
        for bias in (self.project.bias, self.pixels.bias):
            nn.init.zeros_(bias)

    def forward(
        self, x_BMD: Tensor, visible_BM: Tensor, hidden_BK: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """Return the pixels of hidden patches [B, K, P]."""
        place_NE = resized_grid(self.position_embedding, *grid).flatten(0, 1)
        seen_BME = self.seen_norm((self.project(x_BMD) + place_NE[visible_BM]).to(place_NE.dtype))
        x_BKE = self.hidden_E + place_NE[hidden_BK]
        for stage in self.stages:
            x_BKE = stage(x_BKE, seen_BME)
        return self.pixels(self.norm(x_BKE))


@dataclass(frozen=True)
class InpaintPatches(Viewed):
    """Hide most patches of an image and fill them in; the loss is the squared error of a hidden
    patch's mean pixel.

    The unit is the training pixels' variance, or the patch's own with `normalise`.

    Args:
        crop, flip, rotation, jitter, hue: strengths of random views in training, see `views`.
        mask_rate: share of the patches to hide.
        decoded_share: share of the hidden patches that a step asks the decoder for; what it tells
            of them is the same, for less work.
        normalise: every hidden patch is to be told relative to its own mean and std, which lays
            weight on texture.
        decoder_width: E.
        decoder_depth: blocks of the decoder.
        decoder_heads: its attention heads.
    """

    mask_rate: float = 0.75
    decoded_share: float = 1.0
    normalise: bool = False
    decoder_width: int = 64
    decoder_depth: int = 2
    decoder_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_rate < 1 or not 0 < self.decoded_share <= 1:
            raise ConfigError(
                f"mask_rate {self.mask_rate} and decoded_share {self.decoded_share} must lie"
                " between 0 and 1"
            )
        self.require(1, 2**16, "decoder_width", "decoder_depth", "decoder_heads")

    def attach(self, model: nn.Module) -> None:
        """Add the decoder."""
        sizes = self.decoder_width, self.decoder_depth, self.decoder_heads
        grid = tuple(model.position_embedding.shape[:2])
        model.heads["inpainting"] = Decoder(
            model.width, *sizes, grid, model.patch_embedding.in_features
        )

    def prepare(
        self, record: Record, codec: ImageCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode an image (a random view of it in training) and draw the patches to hide."""
        example = codec.encode(self.view(record, rng, training))
        height, width, _ = example["image"].shape
        visible_M, hidden_K = draw_hidden(
            height // codec.patch * (width // codec.patch), self.mask_rate, rng
        )
        if self.decoded_share < 1:
            decoded = max(1, round(self.decoded_share * len(hidden_K)))
            hidden_K = np.sort(rng.permutation(hidden_K)[:decoded])
        return example | {
            "visible": torch.from_numpy(visible_M),
            "hidden": torch.from_numpy(hidden_K),
        }

    def filled(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the pixels told for hidden patches [B, K, P], in the units of the loss."""
        x_BMD = model(batch, batch["visible"])
        return widened(
            model.heads["inpainting"](
                x_BMD, batch["visible"], batch["hidden"], model.grid_of(batch)
            )
        )

    def targets(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the true pixels of hidden patches [B, K, P], in the units of the loss."""
        target_BKP = widened(
            model.normalised(take(to_patches(batch["image"], model.patch), batch["hidden"]))
        )
        if not self.normalise:
            return target_BKP
        mean_BK1, std_BK1 = patch_scale(target_BKP)
        return (target_BKP - mean_BK1) / std_BK1

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the squared error, a mean over the numbers of a patch, summed over hidden
        patches.
        """
        error_BKP = self.filled(model, batch) - self.targets(model, batch)
        return Loss(
            error_BKP.square().sum() / error_BKP.shape[-1], torch.tensor(error_BKP[..., 0].numel())
        )

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return a Gaussian of unit std about every number of the hidden patches."""
        mean_N = self.filled(model, batch).flatten()
        return Gaussian(mean_N, torch.ones_like(mean_N), self.targets(model, batch).flatten())


def draw_hidden(
    patches: int, rate: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of visible and of hidden patches, each rising; at least one is hidden and
    one visible.

    >>> visible, hidden = draw_hidden(16, 0.75, np.random.default_rng(0))
    >>> len(visible), sorted([*visible.tolist(), *hidden.tolist()]) == list(range(16))
    (4, True)
    """
    if patches < 2:
        raise ConfigError(
            "an image of one patch has nothing to hide behind; choose a smaller --codec.patch"
        )
    order_N = rng.permutation(patches)
    hidden = min(max(round(rate * patches), 1), patches - 1)
    return np.sort(order_N[hidden:]), np.sort(order_N[:hidden])


def patch_scale(target_BKP: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and std [B, K, 1] of each patch; a flat one's std stays that of noise."""
    variance_BK1, mean_BK1 = torch.var_mean(target_BKP, -1, correction=0, keepdim=True)
    return mean_BK1, (variance_BK1 + FLAT).sqrt()
