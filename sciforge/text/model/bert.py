"""BERT as published (Devlin et al. 2019, arXiv 1810.04805): post-norm blocks, learnt positions,
segments, a tied language head.

Legend of shape letters: B batch, L tokens, M chosen tokens, D width, E width of the embeddings, H
heads, K head width, F hidden width of the MLP, V vocabulary.

It differs from nn.transformer (pre-norm, rotary positions, gated MLP without biases) in every part,
because published weights must give published outputs. ALBERT (arXiv 1909.11942) is two of its
settings: `shared` and `embedding`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sciforge.core.domain import Batch
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError
from sciforge.nn.transformer import chosen_first, padding_mask, take
from sciforge.text.data.codec import TextCodec

NORM_EPS = 1e-12  # BERT's
SEGMENTS = 2
INITIAL = 0.02  # standard deviation of fresh weights, as published
# How processes may share a block (core.engine.cut): each takes some heads and some of the MLP's
# hidden units.
TENSOR_PLAN = {f"attention.{name}": "column" for name in ("query", "key", "value")}
# the projections back have biases, which a row-wise cut would add once a process
TENSOR_PLAN |= {"mlp.up": "column"}


@dataclass(frozen=True)
class BertConfig(Settings):
    """The size of a Bert; the defaults are the preset `bert-mini`.

    Args:
        width: D, a multiple of `heads`.
        depth: transformer blocks.
        heads: attention heads.
        hidden: F, 4 widths as published.
        embedding: E; 0 takes the width (BERT), less is ALBERT's factorised embedding.
        shared: one block's weights serve at every depth (ALBERT).
        activation: `gelu` is the exact one; `gelu-tanh` the approximation that ALBERT's weights
            were trained with.
        dropout: of embeddings, attention weights and both residual branches; published: 0.1.
        eps: of the layer norms.
    """

    width: int = 128
    depth: int = 4
    heads: int = 2
    hidden: int = 512
    embedding: int = 0
    shared: bool = False
    activation: Literal["gelu", "gelu-tanh"] = "gelu"
    dropout: float = 0.0
    eps: float = NORM_EPS

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            min(self.width, self.depth, self.heads, self.hidden) < 1
            or self.embedding < 0
            or self.eps <= 0
        ):
            raise ConfigError(
                "model: width, depth, heads, hidden and eps must be positive, embedding at least 0"
            )
        if self.width % self.heads:
            raise ConfigError(
                f"model: width {self.width} is no multiple of {self.heads} heads; change one of"
                " them"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}; it must be at least 0 and below 1")

    def where(self, name: str) -> str:
        """Return how an error names a field: model.width."""
        return f"model.{name}"

    def build(self, codec: TextCodec) -> "Bert":
        """Return a fresh model for a codec, its weights drawn from torch's global generator."""
        return Bert(self, codec.num_tokens, codec.length)


MODELS = {
    "bert-mini": BertConfig(),
    "bert-small": BertConfig(width=512, depth=8, heads=8, hidden=2048),
    "bert-base": BertConfig(width=768, depth=12, heads=12, hidden=3072, dropout=0.1),
    "albert-base": BertConfig(
        width=768, depth=12, heads=12, hidden=3072, embedding=128, shared=True
    ),
}


def gelu(x: Tensor, activation: str) -> Tensor:
    """Return the exact GELU, or its tanh approximation."""
    return F.gelu(x, approximate="tanh" if activation == "gelu-tanh" else "none")


class Embeddings(nn.Module):
    """Word + position + segment, normalised."""

    def __init__(self, tokens: int, length: int, width: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.word = nn.Embedding(tokens, width)
        self.position = nn.Embedding(length, width)
        self.segment = nn.Embedding(SEGMENTS, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids_BL: Tensor, segments_BL: Tensor) -> Tensor:
        """Return the embedded tokens [B, L, E]; raises ConfigError for rows longer than the
        positions.
        """
        if ids_BL.shape[1] > self.position.num_embeddings:
            capacity = self.position.num_embeddings
            raise ConfigError(
                f"a row of {ids_BL.shape[1]} tokens is longer than the {capacity} positions of the"
                " model"
            )
        x_BLE = (
            self.word(ids_BL) + self.position.weight[: ids_BL.shape[1]] + self.segment(segments_BL)
        )
        return self.dropout(self.norm(x_BLE))


class Attention(nn.Module):
    """Multi-head self-attention with biases."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.head_width, self.dropout = width // heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor, asking_BMD: Tensor, mask: Tensor | None) -> Tensor:
        """Return what each asking token takes from all tokens [B, M, D]."""

        def split(y_BLD: Tensor) -> Tensor:
            return y_BLD.unflatten(-1, (-1, self.head_width)).transpose(1, 2)

        q_BHMK, k_BHLK, v_BHLK = (
            split(self.query(asking_BMD)),
            split(self.key(x_BLD)),
            split(self.value(x_BLD)),
        )
        dropout = self.dropout if self.training else 0.0
        y_BHMK = F.scaled_dot_product_attention(
            q_BHMK, k_BHLK, v_BHLK, attn_mask=mask, dropout_p=dropout
        )
        return self.output(y_BHMK.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """down(gelu(up(x)))."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return the states [B, L, D] of each token by itself."""
        return self.down(gelu(self.up(x_BLD), self.activation))


class Block(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x))."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, config.dropout)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = FeedForward(config.width, config.hidden, config.activation)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BLD: Tensor, mask: Tensor | None, at_BM: Tensor | None = None) -> Tensor:
        """Return the states [B, L, D], or [B, M, D] of the tokens at `at_BM` alone."""
        asking_BMD = x_BLD if at_BM is None else take(x_BLD, at_BM)
        x_BMD = self.attention_norm(
            asking_BMD + self.dropout(self.attention(x_BLD, asking_BMD, mask))
        )
        return self.mlp_norm(x_BMD + self.dropout(self.mlp(x_BMD)))


class Encoder(nn.Module):
    """A stack of blocks, or one block many times over.

    Attributes:
        checkpointing: recompute each block in the backward pass; about a third more time for far
            less memory.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.depth, self.checkpointing = config.depth, False
        self.blocks = nn.ModuleList(
            Block(config) for _ in range(1 if config.shared else config.depth)
        )

    def forward(
        self,
        x_BLD: Tensor,
        lengths_B: Tensor | None = None,
        only_BL: Tensor | None = None,
        layers: bool = False,
    ) -> Tensor | list[Tensor]:
        """Encode embedded tokens; neither padding nor the other rows change a row's result.

        Args:
            x_BLD: embedded tokens.
            lengths_B: real tokens of each row, the padding behind them; None where all rows are
                full.
            only_BL: bool; return the states of these tokens alone [N, D]: the last block computes
                nothing else.
            layers: return depth + 1 tensors, the input and every block's output.
        """
        if only_BL is not None and layers:
            raise ConfigError(
                "only leaves nothing of the earlier layers to return; use one of the two"
            )
        mask = None if lengths_B is None else padding_mask(lengths_B, x_BLD.shape[1])
        states = [x_BLD]
        for number in range(self.depth - (only_BL is not None)):
            states.append(self._run(number, states[-1], mask))
            if not layers:
                states = states[-1:]
        if only_BL is None:
            return states if layers else states[-1]
        order_BM, chosen = chosen_first(only_BL)
        return self._run(self.depth - 1, states[-1], mask, order_BM)[chosen]

    def _run(
        self, number: int, x_BLD: Tensor, mask: Tensor | None, at_BM: Tensor | None = None
    ) -> Tensor:
        block = self.blocks[number % len(self.blocks)]
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(
                block, x_BLD, mask, at_BM, use_reentrant=False, preserve_rng_state=True
            )
        return block(x_BLD, mask, at_BM)


class WordHead(nn.Module):
    """What word stands at a hidden token: dense, GELU, norm, then the table of the embeddings,
    and a bias.
    """

    def __init__(
        self, width: int, embedding: int, tokens: int, activation: str, eps: float
    ) -> None:
        super().__init__()
        self.activation = activation
        self.dense = nn.Linear(width, embedding)
        self.norm = nn.LayerNorm(embedding, eps=eps)
        self.bias = nn.Parameter(torch.zeros(tokens))

    def forward(self, x_ND: Tensor, table_VE: Tensor) -> Tensor:
        """Return logits [N, V]."""
        # autocast leaves bfloat16
        hidden_NE = gelu(self.dense(x_ND), self.activation).to(self.norm.weight.dtype)
        return F.linear(self.norm(hidden_NE), table_VE, self.bias)


class Bert(nn.Module):
    """A BERT encoder with its language head; other heads are put into `heads` by objectives.

    Attributes:
        width: D, for those who attach heads.
        encoder: set `encoder.checkpointing` to trade time for memory.
    """

    def __init__(self, config: BertConfig, tokens: int, length: int) -> None:
        super().__init__()
        self.config, self.width, self.tokens, self.depth = (
            config,
            config.width,
            tokens,
            config.depth,
        )
        embedding = config.embedding or config.width
        self.embeddings = Embeddings(tokens, length, embedding, config.eps, config.dropout)
        self.embedding_project = (
            nn.Linear(embedding, config.width) if embedding != config.width else nn.Identity()
        )
        self.encoder = Encoder(config)
        self.words = WordHead(config.width, embedding, tokens, config.activation, config.eps)
        self.heads = nn.ModuleDict()
        initialise(self)

    def embed(self, batch: Batch) -> Tensor:
        """Return the embedded tokens [B, L, E], before any projection to the width."""
        return self.embeddings(batch["ids"], batch["segments"])

    def forward(
        self, batch: Batch, layers: bool = False, only: Tensor | None = None
    ) -> Tensor | list[Tensor]:
        """Encode a batch.

        Args:
            batch: `ids`, `segments` int64 [B, L] and `lengths` int64 [B], as collated.
            layers: return depth + 1 hidden states, from the embedding on.
            only: bool [B, L]; return the hidden states of these tokens alone [N, D], which is
                cheaper.

        Returns:
            hidden states [B, L, D] of the last block; those of padding mean nothing.
        """
        x_BLD = self.embedding_project(self.embed(batch))
        return self.encoder(x_BLD, batch["lengths"], only, layers)

    def word_logits(self, x_ND: Tensor) -> Tensor:
        """Return the logits of each word [N, V] at hidden tokens from their states [N, D];
        choose the tokens first.
        """
        return self.words(x_ND, self.embeddings.word.weight)


class PairHead(nn.Module):
    """BERT's pooler and second task: tanh(dense([CLS])), then is the second segment a random
    one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pooler = nn.Linear(width, width)
        self.linear = nn.Linear(width, 2)
        initialise(self)

    def forward(self, first_BD: Tensor) -> Tensor:
        """Return logits [B, 2] from the states of [CLS] [B, D]: 0 the next segment, 1 a random
        one.
        """
        return self.linear(self.pooler(first_BD).tanh())


def initialise(module: nn.Module) -> None:
    """Draw every matrix from N(0, 0.02^2) and set biases to 0, as published; norms stay at 1 and
    0.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=INITIAL)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)
