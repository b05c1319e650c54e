"""BERT's tasks on the shared encoder: pre-norm, rotary positions, gated MLP, no biases (ModernBERT,
arXiv 2412.13663).

Legend of shape letters: B batch, L tokens, D width, V vocabulary.

A BERT must learn from its absolute positions what "the word before" is. In a short training it does
not get that far: after 1,500 steps of 8 x 256 tokens its masked-word loss stood still at 5.62 nats.
Rotary positions know distances from the start.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sciforge.core.domain import Batch
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError
from sciforge.nn.transformer import Encoder
from sciforge.text.data.codec import TextCodec
from sciforge.text.model.bert import INITIAL, NORM_EPS, SEGMENTS, Bert, WordHead, initialise


@dataclass(frozen=True)
class ModernBertConfig(Settings):
    """The size of a ModernBert; the defaults are the preset `modern-mini`, as large as `bert-mini`.

    Args:
        width: D, a multiple of twice `heads`.
        depth: transformer blocks.
        heads: attention heads.
        hidden: width inside the gated MLP; 8/3 of the width costs as much as an ungated one of 4
            widths.
        dropout: of attention weights and both residual branches.
    """

    width: int = 128
    depth: int = 4
    heads: int = 4
    hidden: int = 344
    dropout: float = 0.0

    activation: ClassVar[str] = "gelu"  # of the heads
    eps: ClassVar[float] = NORM_EPS

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "width", "depth", "heads", "hidden")
        self.require(0, 1, "dropout")
        if self.width % (2 * self.heads):
            raise ConfigError(
                f"model.width is {self.width}, no multiple of twice {self.heads} heads; change one"
                " of them"
            )

    def where(self, name: str) -> str:
        """Return how an error names a field: model.width."""
        return f"model.{name}"

    def build(self, codec: TextCodec) -> "ModernBert":
        """Return a fresh model for a codec, its weights drawn from torch's global generator."""
        return ModernBert(self, codec.num_tokens, codec.length)


class ModernBertEmbeddings(nn.Module):
    """Word + segment, normalised; positions are the encoder's."""

    def __init__(self, tokens: int, width: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.word = nn.Embedding(tokens, width)
        self.segment = nn.Embedding(SEGMENTS, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, ids_BL: Tensor, segments_BL: Tensor) -> Tensor:
        """Return the embedded tokens [B, L, D]; raises ConfigError for rows longer than the
        codec makes.
        """
        if ids_BL.shape[1] > self.length:
            raise ConfigError(
                f"a row of {ids_BL.shape[1]} tokens is longer than the codec's {self.length}"
            )
        return self.norm(self.word(ids_BL) + self.segment(segments_BL))


class ModernBert(Bert):
    """A Bert whose blocks are those of nn.transformer; heads and objectives see no difference.

    Attributes:
        width: D, for those who attach heads.
        encoder: set `encoder.checkpointing` to trade time for memory.
    """

    def __init__(self, config: ModernBertConfig, tokens: int, length: int) -> None:
        nn.Module.__init__(self)
        self.config, self.width, self.tokens, self.depth = (
            config,
            config.width,
            tokens,
            config.depth,
        )
        self.embeddings = ModernBertEmbeddings(tokens, config.width, length)
        self.encoder = Encoder(
            config.width, config.depth, config.heads, config.hidden, config.dropout
        )
        self.words = WordHead(config.width, config.width, tokens, config.activation, config.eps)
        self.heads = nn.ModuleDict()
        initialise(self.words)
        for table in (self.embeddings.word, self.embeddings.segment):
            nn.init.normal_(table.weight, std=INITIAL)

    def forward(
        self, batch: Batch, layers: bool = False, only: Tensor | None = None
    ) -> Tensor | list[Tensor]:
        """Encode a batch, as Bert.forward does; states of all layers pass the encoder's last
        norm.
        """
        lengths_B = torch.as_tensor(batch["lengths"])
        return self.encoder(self.embed(batch), lengths_B, only_BL=only, return_layers=layers)


MODELS = {
    "modern-mini": ModernBertConfig(),
    "modern-small": ModernBertConfig(width=512, depth=8, heads=8, hidden=1368),
}
