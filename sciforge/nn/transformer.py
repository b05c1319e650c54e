"""A pre-norm transformer encoder: rotary positions (or none), gated MLP, separate projections
without biases.

Legend of shape letters: B batch, L length in tokens, D width, H heads, K head width (D / H), F
hidden width of the MLP.

Separate ``nn.Linear`` projections for query, key, value and output keep the brick open to LoRA,
opacus, pruning and FSDP2 (``nn.MultiheadAttention`` fails opacus' validation). Positions are
computed, not stored: nothing to shard, cast or save. Sources: RMSNorm (arXiv 1910.07467), rotary
positions (2104.09864), gated MLP (2002.05202).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sciforge.core.transfers import host_view, places
from sciforge.errors import ConfigError

ROTARY_BASE = 10_000.0
NORM_EPS = 1e-6  # explicit: torch's default is the epsilon of the dtype, 8e-3 in bfloat16
# How processes may share a block (core.engine.cut): each takes some heads and some of the MLP's
# hidden units.
TENSOR_PLAN = {f"attention.{name}": "column" for name in ("query", "key", "value")}
TENSOR_PLAN |= {
    "attention.output": "row",
    "mlp.gate": "column",
    "mlp.up": "column",
    "mlp.down": "row",
}


def rotary_angles(positions: Tensor, head_width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the rotary angles.

    Args:
        positions: integer token positions, any shape [...].
        head_width: K, even.
        dtype: of the result; angles are computed in float64 when it is float64, else in float32.

    Returns:
        cosine and sine, each [..., K/2].
    """
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    exponent = torch.arange(0, head_width, 2, device=positions.device, dtype=precise) / head_width
    angles = positions.to(precise).unsqueeze(-1) * ROTARY_BASE**-exponent
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x_BHLK: Tensor, cosine: Tensor | None, sine: Tensor | None) -> Tensor:
    """Turn each pair (i, i + K/2) of a head by its position's angle; dot products then depend on
    distances only.

    Without angles nothing turns.
    """
    if cosine is None:
        return x_BHLK
    first, second = x_BHLK.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def positions_in_segments(segments_BL: Tensor) -> Tensor:
    """Count positions from 0 within each run of equal segment numbers.

    >>> positions_in_segments(torch.tensor([[7, 7, 7, 2, 2, 5]])).tolist()
    [[0, 1, 2, 0, 1, 0]]
    """
    index_L = torch.arange(segments_BL.shape[1], device=segments_BL.device)
    starts_BL = torch.zeros_like(segments_BL, dtype=torch.long)
    starts_BL[:, 1:] = torch.where(segments_BL[:, 1:] != segments_BL[:, :-1], index_L[1:], 0)
    return index_L - starts_BL.cummax(dim=1).values


class View(NamedTuple):
    """Where tokens stand and whom they see, the same in every block; angles are [L, K/2] or [B, 1,
    L, K/2].

    Without angles (both None) the tokens are a set: whatever tells their places is already in them.
    """

    cosine: Tensor | None
    sine: Tensor | None
    # [B, 1, 1, L] for padding, [B, 1, L, L] for packing, None where all see all
    mask: Tensor | None

    def rows(self, at_BM: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return angles [B, 1, M, K/2] and mask of chosen queries."""
        if self.cosine is None:
            angles = [None, None]
        elif self.cosine.ndim == 2:
            angles = [table[at_BM].unsqueeze(1) for table in (self.cosine, self.sine)]
        else:
            angles = [
                take(table.squeeze(1), at_BM).unsqueeze(1) for table in (self.cosine, self.sine)
            ]
        packed = self.mask is not None and self.mask.shape[2] > 1
        return *angles, take(self.mask.squeeze(1), at_BM).unsqueeze(1) if packed else self.mask


def take(x_BLD: Tensor, at_BM: Tensor) -> Tensor:
    """Return the chosen tokens of each row, [B, M, D]."""
    return x_BLD.gather(1, at_BM.unsqueeze(-1).expand(-1, -1, x_BLD.shape[-1]))


class Attention(nn.Module):
    """Multi-head self-attention over rotary-turned queries and keys."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.head_width, self.dropout = width // heads, dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x_BLD: Tensor, view: View, at_BM: Tensor | None = None) -> Tensor:
        """Return what each place takes from those that it sees; with `at_BM` at these places
        only.
        """

        def split(y_BLD: Tensor) -> Tensor:
            # of the heads that are here
            return y_BLD.unflatten(-1, (-1, self.head_width)).transpose(1, 2)

        k_BHLK = rotate(split(self.key(x_BLD)), view.cosine, view.sine)
        v_BHLK = split(self.value(x_BLD))
        if at_BM is None:
            q_BHLK, mask = rotate(split(self.query(x_BLD)), view.cosine, view.sine), view.mask
        else:
            cosine, sine, mask = view.rows(at_BM)
            q_BHLK = rotate(split(self.query(take(x_BLD, at_BM))), cosine, sine)
        dropout = self.dropout if self.training else 0.0
        y_BHLK = F.scaled_dot_product_attention(
            q_BHLK, k_BHLK, v_BHLK, attn_mask=mask, dropout_p=dropout
        )
        return self.output(y_BHLK.transpose(1, 2).flatten(-2))


class GatedMLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return the gated feed-forward layer's output."""
        return self.down(F.silu(self.gate(x_BLD)) * self.up(x_BLD))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    Attributes:
        tensor_plan, tensor_units: how processes may share it, and what their number must divide.
    """

    tensor_plan = TENSOR_PLAN

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.tensor_units = math.gcd(heads, hidden)
        self.attention_norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.attention = Attention(width, heads, dropout)
        self.mlp_norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.mlp = GatedMLP(width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, view: View, at_BM: Tensor | None = None) -> Tensor:
        """Return the block's states, at all places or at those of `at_BM`."""
        attended = self.attention(self.attention_norm(x_BLD), view, at_BM)
        x_BLD = (x_BLD if at_BM is None else take(x_BLD, at_BM)) + self.dropout(attended)
        return x_BLD + self.dropout(self.mlp(self.mlp_norm(x_BLD)))


class Encoder(nn.Module):
    """A stack of blocks and a final norm.

    Weights are drawn from torch's global generator: seed it, or build under
    ``torch.random.fork_rng``.

    Args:
        width: D, a multiple of ``2 * heads``.
        depth: the number of blocks; core reads ``blocks.N.`` in parameter names for layer-wise
            rates.
        heads: H.
        hidden: F; 8/3 of the width costs as much as an ungated MLP of 4 widths.
        dropout: of attention weights and of both residual branches.
        rotary: turn queries and keys by the token's place in the row; without it the caller's
            embeddings tell places (two-dimensional ones, say), and the order of the tokens means
            nothing.

    Attributes:
        checkpointing: recompute each block in the backward pass; about a third more time for far
            less memory.

    Raises:
        ConfigError: a size is not positive, the head width is not an even integer, or dropout is
            outside [0, 1).
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        *,
        rotary: bool = True,
    ) -> None:
        super().__init__()
        if min(width, depth, heads, hidden) < 1:
            raise ConfigError(
                f"width {width}, depth {depth}, heads {heads} and hidden {hidden} must be positive"
            )
        if width % (2 * heads):
            raise ConfigError(
                f"width {width} over {heads} heads is no even head width; use a multiple of"
                f" {2 * heads}"
            )
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"dropout {dropout} must be in [0, 1)")
        self.head_width, self.rotary = width // heads, rotary
        self.checkpointing = False
        self.blocks = nn.ModuleList(Block(width, heads, hidden, dropout) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw each projection from N(0, 1 / fan-in); those that write to the residual stream
        shrink by sqrt(2 depth).

        GPT-2's fixed .02 is right for a width of 2,500; at width 192 it cost a third of a short run
        (reading-frame loss .87 against .58 nats after 300 steps).
        """
        for name, parameter in self.named_parameters():
            if name.endswith(("output.weight", "down.weight")):
                nn.init.normal_(parameter, std=0.02 / (2 * len(self.blocks)) ** 0.5)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            else:
                nn.init.ones_(parameter)

    def forward(
        self,
        x_BLD: Tensor,
        lengths_B: Tensor | None = None,
        *,
        segments_BL: Tensor | None = None,
        only_BL: Tensor | None = None,
        return_layers: bool = False,
    ) -> Tensor | list[Tensor]:
        """Encode a batch; neither padding nor the other rows change a row's result.

        Args:
            x_BLD: embedded tokens, without positions.
            lengths_B: real tokens of each row, at least 1, the padding behind them; None where all
                rows are full. Values at padded places are finite and mean nothing.
            segments_BL: instead of lengths, for several documents packed in one row: the document
                number of every token. Tokens see their own document only, positions start anew in
                each; give padding a number of its own.
            only_BL: bool; return the states of these tokens only. The last block computes nothing
                else, which saves about two thirds of it when few are chosen, as in masked-language
                training; the result is the same.
            return_layers: return depth + 1 tensors, the input and every block's output, each
                through the final norm so that a mix of layers is a mix of equal scales. The last
                one is the usual result.

        Returns:
            [B, L, D], or the list of them; [N, D] with ``only_BL``, in the order of
            ``x_BLD[only_BL]``.

        Raises:
            ConfigError: both lengths and segments were given, or both ``only_BL`` and
                ``return_layers``.
        """
        if lengths_B is not None and segments_BL is not None:
            raise ConfigError("the encoder takes lengths or segments, not both")
        if only_BL is not None and return_layers:
            raise ConfigError(
                "only_BL leaves nothing of the earlier layers to return; use one of the two"
            )
        L, device = x_BLD.shape[1], x_BLD.device
        if segments_BL is not None:
            positions = positions_in_segments(segments_BL).unsqueeze(1)
            mask = (segments_BL.unsqueeze(2) == segments_BL.unsqueeze(1)).unsqueeze(1)
        else:
            positions = torch.arange(L, device=device)
            mask = None if lengths_B is None else padding_mask(lengths_B.to(device), L)
        angles = (
            rotary_angles(positions, self.head_width, x_BLD.dtype) if self.rotary else (None, None)
        )
        view = View(*angles, mask)
        layers = [x_BLD]
        for block in self.blocks[:-1]:
            layers.append(self._run(block, layers[-1] if return_layers else layers.pop(), view))
        if only_BL is not None:
            order_BM, chosen = chosen_first(only_BL)
            return self.norm(self._run(self.blocks[-1], layers[-1], view, order_BM)[chosen])
        layers.append(self._run(self.blocks[-1], layers[-1], view))
        return [self.norm(layer) for layer in layers] if return_layers else self.norm(layers[-1])

    def _run(self, block: Block, x_BLD: Tensor, view: View, at_BM: Tensor | None = None) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(
                block, x_BLD, view, at_BM, use_reentrant=False, preserve_rng_state=True
            )
        return block(x_BLD, view, at_BM)


def chosen_first(only_BL: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the places of each row's chosen tokens [B, M], filled up to the fullest row, and the
    indices that are no filling.

    >>> order_BM, chosen = chosen_first(torch.tensor([[False, True, True], [True, False, False]]))
    >>> order_BM.tolist(), [index.tolist() for index in chosen]
    ([[1, 2], [0, 1]], [[0, 0, 1], [0, 1, 0]])
    """
    device, only_BL = only_BL.device, host_view(only_BL)
    order_BL = (~only_BL).to(torch.uint8).argsort(dim=1, stable=True)
    width = max(1, int(only_BL.sum(1).max()))
    order_BM = order_BL[:, :width]
    return order_BM.to(device, non_blocking=True), places(only_BL.gather(1, order_BM), device)


def padding_mask(lengths_B: Tensor, length: int) -> Tensor | None:
    """Return the mask [B, 1, 1, L] of keys that may be seen, or None when every row is full,
    which is faster.
    """
    if not torch.compiler.is_compiling() and bool((host_view(lengths_B) >= length).all()):
        return None
    return (torch.arange(length, device=lengths_B.device) < lengths_B.unsqueeze(1))[
        :, None, None, :
    ]
