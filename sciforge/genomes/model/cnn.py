"""A small convolutional net on one-hot bases: the control that asks whether a transformer was
needed at all.

Legend of shape letters: B batch, L bases, D width.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError
from sciforge.genomes.data.codec import KmerCodec


@dataclass(frozen=True)
class SmallCnnConfig(Settings):
    """Sizes of a SmallCnn; trained by the same loop and judged by the same head as a DnaBert.

    Args:
        width: filters of each layer.
        kernels: bases under the filters of each layer.
        dropout: share of the filters' outputs dropped in training, few labels being easily learnt
            by heart.
    """

    width: int = 64
    kernels: tuple[int, ...] = (13, 7, 7)
    dropout: float = 0.3

    codec: ClassVar[KmerCodec] = KmerCodec(k=1)
    control: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "width")
        if not self.kernels or any(kernel < 1 or kernel % 2 == 0 for kernel in self.kernels):
            raise ConfigError(f"model.kernels are {self.kernels}; give odd numbers of bases")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}; it must be at least 0 and below 1")

    def where(self, name: str) -> str:
        """Return how an error names a field: model.width."""
        return f"model.{name}"

    def build(self, codec: KmerCodec) -> "SmallCnn":
        """Return a fresh model, its weights drawn from torch's global generator; raises
        ConfigError unless k is 1.
        """
        if codec.k != 1:
            raise ConfigError(
                f"the small CNN reads single bases, not {codec.k}-mers; give --codec.k 1"
            )
        return SmallCnn(self, codec)


class SmallCnn(nn.Module):
    """Convolutions with residuals; one token a base.

    Attributes:
        width: D, for those who attach heads.
        heads: objectives put their heads here by name.
    """

    def __init__(self, config: SmallCnnConfig, codec: KmerCodec) -> None:
        super().__init__()
        self.width, self.k, self.stride = config.width, codec.k, codec.stride
        sizes = [4] + [config.width] * (len(config.kernels) - 1)
        pairs = zip(sizes, config.kernels, strict=True)
        self.blocks = nn.ModuleList(
            nn.Conv1d(size, config.width, kernel, padding="same") for size, kernel in pairs
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in config.kernels)
        self.dropout = nn.Dropout(config.dropout)
        self.heads = nn.ModuleDict()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return hidden states [B, L, D] of "ids" int64 [B, L] with "lengths" int64 [B]; an
        unknown base is all zero.
        """
        ids_BL = batch["ids"]
        real_BL1 = (
            torch.arange(ids_BL.shape[1], device=ids_BL.device) < batch["lengths"][:, None]
        )[..., None]
        x_BLD = (ids_BL[..., None] == torch.arange(4, device=ids_BL.device)).to(
            self.norms[0].weight.dtype
        )
        for layer, (convolution, norm) in enumerate(zip(self.blocks, self.norms, strict=True)):
            seen_BLD = convolution(x_BLD.transpose(1, 2)).transpose(1, 2)
            seen_BLD = self.dropout(F.gelu(norm(seen_BLD)))
            # Padding stays zero, so that a row's result does not depend on the others of its batch.
            x_BLD = torch.where(real_BL1, seen_BLD + x_BLD if layer else seen_BLD, 0.0)
        return x_BLD

    def base_logits(self, x_ND: Tensor) -> Tensor:
        """Refuse: the CNN is a control of what labels alone teach."""
        raise ConfigError("the small CNN has no language head; pretrain a DnaBert (--model mini)")
