"""A Vision Transformer on the shared encoder, its places told by a grid of embeddings that any
image size can read.

Legend of shape letters: B batch, H height, W width, C channels, R rows of patches, S columns of
patches, N patches (R S), M chosen patches, P numbers of a patch, D width.

Sources: Dosovitskiy et al. 2021 (arXiv 2010.11929), with the pre-norm, gated blocks of
nn/transformer.py; the grid starts as sines and cosines of row and column (arXiv 2111.06377) and is
learnt from there. There is no class token: heads read means.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import Batch
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError
from sciforge.images.data.codec import ImageCodec, to_patches
from sciforge.nn.transformer import Encoder, take

# in patches; the 10,000 of sentences would leave most waves flat over a dozen rows
LONGEST_WAVE = 100.0


@dataclass(frozen=True)
class VitConfig(Settings):
    """The size of a Vision Transformer; the defaults are the preset "vit-mini" (1.2 M parameters).

    Args:
        width: D, a multiple of 4 and of 2 * heads.
        depth: transformer blocks.
        heads: attention heads.
        hidden: width inside the gated MLP; 8/3 of the width costs as much as an ungated one of 4
            widths.
        dropout: 0 for pretraining on plentiful data.
    """

    width: int = 128
    depth: int = 6
    heads: int = 4
    hidden: int = 344
    dropout: float = 0.0

    def build(self, codec: ImageCodec) -> "VisionTransformer":
        """Return a fresh model for a codec, its weights drawn from torch's global generator."""
        return VisionTransformer(self, codec)


MODELS = {
    "vit-mini": VitConfig(),
    "vit-small": VitConfig(width=384, depth=12, heads=6, hidden=1024),
}


def sine_grid(rows: int, columns: int, width: int) -> Tensor:
    """Return the grid [R, S, D] of sines and cosines: half of the width tells the row, half the
    column.

    >>> grid = sine_grid(2, 3, 8)
    >>> grid.shape, grid[1, 2, :2].tolist() == grid[1, 0, :2].tolist()
    (torch.Size([2, 3, 8]), True)
    """
    rate_Q = LONGEST_WAVE ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    tables = []
    for size in (rows, columns):
        angle_LQ = torch.arange(size, dtype=torch.float64)[:, None] * rate_Q
        tables.append(torch.cat([angle_LQ.sin(), angle_LQ.cos()], 1))
    row_RSD = tables[0][:, None].expand(-1, columns, -1)
    column_RSD = tables[1][None].expand(rows, -1, -1)
    return torch.cat([row_RSD, column_RSD], 2).float()


def resized_grid(grid_RSD: Tensor, rows: int, columns: int) -> Tensor:
    """Return a grid of embeddings at another number of rows and columns, bicubically; the same size
    is the identity.

    >>> grid = torch.randn(3, 4, 2)
    >>> bool((resized_grid(grid, 3, 4) == grid).all()), resized_grid(grid, 6, 8).shape
    (True, torch.Size([6, 8, 2]))
    """
    if grid_RSD.shape[:2] == (rows, columns):
        return grid_RSD
    image = grid_RSD.permute(2, 0, 1)[None]
    return F.interpolate(image, (rows, columns), mode="bicubic", align_corners=False)[0].permute(
        1, 2, 0
    )


class VisionTransformer(nn.Module):
    """Patches, a linear projection, places, an encoder; heads read the patches' states.

    Attributes:
        width: D, for those who attach heads.
        patch: side of a patch in pixels.
        heads: objectives put their heads here by name; empty in a fresh model.
        encoder: set ``encoder.checkpointing`` to trade time for memory.
    """

    def __init__(self, config: VitConfig, codec: ImageCodec) -> None:
        super().__init__()
        if config.width % 4:
            raise ConfigError(
                f"width {config.width} cannot hold sines and cosines of two axes; use a multiple"
                " of 4"
            )
        if not codec.channels:
            raise ConfigError("the codec is not fitted; fit it on a store first")
        self.width, self.patch = config.width, codec.patch
        self.patch_embedding = nn.Linear(codec.patch_numbers, config.width)
        self.position_embedding = nn.Parameter(sine_grid(*codec.grid, config.width))
        self.encoder = Encoder(
            config.width, config.depth, config.heads, config.hidden, config.dropout, rotary=False
        )
        self.heads = nn.ModuleDict()
        nn.init.normal_(self.patch_embedding.weight, std=codec.patch_numbers**-0.5)
        nn.init.zeros_(self.patch_embedding.bias)
        # Of the codec, not of the training: what it fitted is not saved twice.
        self.register_buffer("mean_C", torch.tensor(codec.mean), persistent=False)
        self.register_buffer("std_C", torch.tensor(codec.std), persistent=False)

    def grid_of(self, batch: Batch) -> tuple[int, int]:
        """Return rows and columns of patches of a batch's images."""
        _, height, width, _ = batch["image"].shape
        return height // self.patch, width // self.patch

    def normalised(self, patches_BNP: Tensor) -> Tensor:
        """Return patches of bytes as numbers of mean 0 and std 1 a channel."""
        channels_C = patches_BNP.unflatten(-1, (-1, len(self.mean_C))).to(self.mean_C.dtype)
        return ((channels_C - self.mean_C) / self.std_C).flatten(-2)

    def embedded(
        self, patches_BNP: Tensor, grid: tuple[int, int], at_BM: Tensor | None = None
    ) -> Tensor:
        """Return embeddings of patches of bytes with their places; of chosen patches [B, M, P]
        with `at_BM`.
        """
        place_ND = resized_grid(self.position_embedding, *grid).flatten(0, 1)
        return self.patch_embedding(self.normalised(patches_BNP)) + (
            place_ND if at_BM is None else place_ND[at_BM]
        )

    def forward(
        self, batch: Batch, visible_BM: Tensor | None = None, layers: bool = False
    ) -> Tensor | list[Tensor]:
        """Encode a batch.

        Args:
            batch: "image" uint8 [B, H, W, C]; any size that divides into patches.
            visible_BM: numbers of the patches (row by row) to see; others are never looked at.
            layers: return depth + 1 states, from the embedding on, all normalised alike; the last
                is the usual result.

        Returns:
            states of all patches [B, N, D], or of the visible ones [B, M, D] in their order.
        """
        patches_BNP = to_patches(batch["image"], self.patch)
        if visible_BM is not None:
            patches_BNP = take(patches_BNP, visible_BM)
        x_BND = self.embedded(patches_BNP, self.grid_of(batch), visible_BM)
        return self.encoder(x_BND, return_layers=layers)


def embed(model: VisionTransformer, batch: Batch) -> Tensor:
    """Return the mean of the states of an image's patches [B, D]."""
    return model(batch).mean(1)
