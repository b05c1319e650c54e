"""One transformer for molecules: over the atoms of a whole graph it predicts, over the history of a
growing one it generates.

Attention knows the graph by a bias for each pair: the bond between two atoms, or how many bonds lie
between them. Nothing else tells positions, so the whole-graph reading does not depend on the order
of atoms.

Legend of shape letters: B batch, N atoms, L tokens (N atoms and one for the molecule, or the steps
of a history), D width, H heads, K head width (D / H), R relations.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sciforge.core.domain import Batch
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError
from sciforge.molecules.chemistry.valence import MAX_ORDER, ORGANIC, indices_of
from sciforge.nn.transformer import NORM_EPS, TENSOR_PLAN, GatedMLP

# Relations of a pair: itself, bonds of order 1 to 3, distances 2 to 9, farther or unconnected, and
# with the whole molecule.
FARTHEST = 10
SELF, BOND, FAR, MOLECULE = 0, 1, MAX_ORDER + FARTHEST - 1, MAX_ORDER + FARTHEST
NUM_RELATIONS = MOLECULE + 1
# rows of the table of atom types: room for the table in valence.py to grow without a new format
MAX_TYPES = 32
ATOM_FIELDS = {"hydrogens": 9, "degree": 9, "aromatic": 2, "ring": 8}
HIDDEN = -1e9  # finite: a row that sees nothing gives numbers, not NaN


def relations(order: Tensor, distance: Tensor) -> Tensor:
    """Return the relation of pairs from bond orders (0 where not bonded) and topological distances,
    any shape.

    >>> relations(torch.tensor([0, 2, 0, 0]), torch.tensor([0, 1, 2, 99])).tolist()
    [0, 2, 4, 12]
    """
    apart = torch.where(distance == 0, SELF, (distance + MAX_ORDER - 1).clamp(max=FAR))
    return torch.where(order > 0, order, apart)


def graph_distances(bond_BNN: Tensor) -> Tensor:
    """Return the number of bonds between every two atoms [B, N, N]; FARTHEST where there are that
    many or no way.

    >>> graph_distances(torch.tensor([[[0, 1, 0], [1, 0, 2], [0, 2, 0]]]))[0].tolist()
    [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    """
    near_BNN = (bond_BNN > 0).float() + torch.eye(bond_BNN.shape[1], device=bond_BNN.device)
    reach_BNN = torch.eye(bond_BNN.shape[1], device=bond_BNN.device).expand_as(near_BNN)
    distance_BNN = torch.full_like(bond_BNN, FARTHEST, dtype=torch.int64)
    for steps in range(FARTHEST):
        new = (reach_BNN > 0) & (distance_BNN == FARTHEST)
        distance_BNN = torch.where(new, steps, distance_BNN)
        reach_BNN = (reach_BNN @ near_BNN).clamp(max=1)
    return distance_BNN


class Attention(nn.Module):
    """Multi-head attention with a given bias for each pair; keys and values of earlier tokens
    may be kept.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.head_width, self.dropout = width // heads, dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def split(self, y_BLD: Tensor) -> Tensor:
        """Return [B, H, L, K]."""
        # of the heads that are here
        return y_BLD.unflatten(-1, (-1, self.head_width)).transpose(1, 2)

    def keys_values(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return what later tokens look at, each [B, H, L, K]."""
        return self.split(self.key(x_BLD)), self.split(self.value(x_BLD))

    def forward(
        self, x_BLD: Tensor, bias_BHLL: Tensor, kept: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Return the tokens after attention [B, L, D]; `kept` holds the keys and values of earlier
        ones too.
        """
        q_BHLK = self.split(self.query(x_BLD))
        k_BHLK, v_BHLK = self.keys_values(x_BLD) if kept is None else kept
        scores_BHLL = (q_BHLK @ k_BHLK.transpose(-1, -2)) * q_BHLK.shape[-1] ** -0.5 + bias_BHLL
        weights_BHLL = F.dropout(scores_BHLL.softmax(-1), self.dropout, self.training)
        return self.output((weights_BHLL @ v_BHLK).transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    Attributes:
        tensor_plan, tensor_units: how processes may share it, and what their number must divide.
    """

    tensor_plan = {**TENSOR_PLAN, "attention": "bias by head"}

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.tensor_units = math.gcd(heads, hidden)
        self.attention_norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.attention = Attention(width, heads, dropout)
        self.mlp_norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.mlp = GatedMLP(width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, bias_BHLL: Tensor) -> Tensor:
        """Return the tokens after attention and perceptron [B, L, D]."""
        x_BLD = x_BLD + self.dropout(self.attention(self.attention_norm(x_BLD), bias_BHLL))
        return x_BLD + self.dropout(self.mlp(self.mlp_norm(x_BLD)))

    def step(
        self, x_B1D: Tensor, bias_BHLL: Tensor, kept: tuple[Tensor, Tensor], at: int
    ) -> Tensor:
        """Return the state of token `at`, whose keys and values are added to what is kept [B, H,
        L, K].
        """
        normed_B1D = self.attention_norm(x_B1D)
        for store, new in zip(kept, self.attention.keys_values(normed_B1D), strict=True):
            store[:, :, at] = new[:, :, 0]
        seen = kept[0][:, :, : at + 1], kept[1][:, :, : at + 1]
        x_B1D = x_B1D + self.attention(normed_B1D, bias_BHLL, seen)
        return x_B1D + self.mlp(self.mlp_norm(x_B1D))


class MoleculeNet(nn.Module):
    """A transformer whose attention is biased by the graph; `forward` reads whole molecules,
    `read_history` growing ones.

    Attributes:
        heads: what each objective adds.
        width: D.
        alphabet: places in valence.TYPES that a generator may use.
        checkpointing: recompute each block in the backward pass; about a third more time for far
            less memory.
    """

    def __init__(self, config: "MoleculeNetConfig") -> None:
        super().__init__()
        self.checkpointing = False
        width, hidden = config.width, config.hidden or config.width * 8 // 3
        self.width, self.num_heads, self.alphabet = width, config.heads, indices_of(config.alphabet)
        self.atom = nn.Embedding(MAX_TYPES, width)
        self.fields = nn.ModuleDict(
            {name: nn.Embedding(size, width) for name, size in ATOM_FIELDS.items()}
        )
        self.molecule = nn.Parameter(torch.zeros(width))
        self.relation = nn.Embedding(NUM_RELATIONS, config.heads)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, hidden, config.dropout) for _ in range(config.depth)
        )
        self.norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.heads = nn.ModuleDict()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw projections from N(0, 1 / fan-in); those that write to the residual stream start
        small.
        """
        for name, parameter in self.named_parameters():
            if name.endswith(("output.weight", "down.weight")):
                nn.init.normal_(parameter, std=0.02 / (2 * len(self.blocks)) ** 0.5)
            elif name.startswith("relation"):
                nn.init.zeros_(parameter)
            elif name.startswith(("atom", "fields", "molecule")):
                nn.init.normal_(parameter, std=0.5)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)

    def forward(self, batch: Batch) -> Tensor:
        """Return the states [B, 1 + N, D] of whole molecules: the first is the molecule's, then its
        atoms'.

        Args:
            batch: as MoleculeCodec.collate makes it: atom [B, N] with -1 where there is none
                (MASKED_ATOM hides one), bond [B, N, N], hydrogens and flags [B, N].
        """
        atom_BN, bond_BNN, flags_BN = batch["atom"], batch["bond"], batch["flags"]
        fields = {
            "hydrogens": batch["hydrogens"],
            "degree": (bond_BNN > 0).sum(-1),
            "aromatic": flags_BN & 1,
            "ring": (flags_BN >> 1) & 7,
        }
        x_BND = self.atom(atom_BN.clamp(min=0))
        for name, table in self.fields.items():
            x_BND = x_BND + table(fields[name].clamp(max=ATOM_FIELDS[name] - 1))
        x_BLD = torch.cat([self.molecule.expand(len(x_BND), 1, -1), x_BND], 1)
        relation_BLL = F.pad(
            relations(bond_BNN, graph_distances(bond_BNN)), (1, 0, 1, 0), value=MOLECULE
        )
        missing_BL = F.pad(atom_BN < 0, (1, 0))
        bias_BHLL = self.bias(relation_BLL).masked_fill(missing_BL[:, None, None], HIDDEN)
        return self.encode(x_BLD, bias_BHLL)

    def bias(self, relation_BLL: Tensor) -> Tensor:
        """Return the attention bias [B, H, L, L] of relations."""
        return self.relation(relation_BLL).permute(0, 3, 1, 2)

    def encode(self, x_BLD: Tensor, bias_BHLL: Tensor) -> Tensor:
        """Run the blocks and the final norm."""
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x_BLD = checkpoint(
                    block, x_BLD, bias_BHLL, use_reentrant=False, preserve_rng_state=True
                )
            else:
                x_BLD = block(x_BLD, bias_BHLL)
        return self.norm(x_BLD)


@dataclass(frozen=True)
class MoleculeNetConfig(Settings):
    """Sizes of a MoleculeNet.

    Args:
        width: D, a multiple of `heads`.
        depth: blocks.
        heads: of attention.
        hidden: of the gated MLP; 0 is 8/3 of the width.
        dropout: of attention and of both residual branches.
        alphabet: names of the atom types that it may generate.
    """

    width: int = 256
    depth: int = 4
    heads: int = 8
    hidden: int = 0
    dropout: float = 0.0
    alphabet: tuple[str, ...] = ORGANIC

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.width, self.depth, self.heads) < 1 or self.width % self.heads:
            raise ConfigError(
                f"model.width {self.width} must be a positive multiple of model.heads {self.heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}; it must be at least 0 and below 1")
        indices_of(self.alphabet)

    def build(self, codec: object) -> MoleculeNet:
        """Return a net with fresh weights from torch's global generator."""
        return MoleculeNet(self)


MODELS = {
    "mini": MoleculeNetConfig(width=192, depth=4, heads=6),
    "small": MoleculeNetConfig(width=256, depth=6),
    "medium": MoleculeNetConfig(width=512, depth=8),
}
