"""The policy: from the history of a growing molecule to the next action.

Each step of a growth is a token, anchored at the atom that is the focus then; it sees the steps
before it through the attention of MoleculeNet, biased by the graph as it is at that step. So
nothing is encoded twice: training reads a whole walk in one pass, and sampling keeps keys and
values.

Legend of shape letters: B batch, N atoms, L steps, D width, H heads, A actions, F features, P
conditions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.molecules.chemistry.valence import MAX_ORDER
from sciforge.molecules.generation.partial_graph import RING_ORDERS, Actions, PartialGraph, tables
from sciforge.molecules.model.molecule_transformer import (
    HIDDEN,
    MAX_TYPES,
    MOLECULE,
    MoleculeNet,
    relations,
)

# how a walk is ordered; told to the net, so that each can be asked for
STYLES = ("canonical", "random", "seeded")
RECENT = 16  # steps back that the net tells apart
FIRST_ROOM = 16  # steps that memory is taken for at a time
MAX_SIZE = 9  # rings of that size and larger are one class
# One-hot features of a step and how many values each has; counts are clamped to the last.
FEATURES = {
    "last": 5,
    "last_order": 4,
    "last_size": MAX_SIZE,
    "kind": MAX_TYPES + 1,
    "used": 9,
    "slots": 7,
    "need": 4,
    "ring": 2,
    "double": 3,
    "triple": 2,
    "degree": 7,
    "rings": 8,
    "num": 48,
    "open": 8,
    "charge": 5,
}
NUM_ONE_HOT = sum(FEATURES.values())
NUM_FEATURES = NUM_ONE_HOT + MAX_ORDER * MAX_TYPES + MAX_SIZE + 1


def features(partial_graph: PartialGraph) -> Tensor:
    """Return what a step tells of itself [B, F], uint8: its last action, the focus, its
    neighbours, rings in reach, counts.
    """
    focus, device = partial_graph.focus, partial_graph.device
    slots_table, need_table, charges = tables(device)
    slots = partial_graph.lookup(slots_table) * partial_graph.open
    bond = partial_graph.at(partial_graph.bond, focus).long()
    index = torch.arange(slots.shape[1], device=device)
    present = partial_graph.num > 0
    waiting = partial_graph.open & (slots > 0) & (index != focus[:, None])
    values = {
        "last": partial_graph.last,
        "last_order": partial_graph.last_order,
        "last_size": partial_graph.last_size,
        "kind": torch.where(focus >= 0, partial_graph.at(partial_graph.kind, focus), MAX_TYPES),
        "used": partial_graph.at(partial_graph.used, focus),
        "slots": partial_graph.at(slots, focus),
        "need": partial_graph.at(partial_graph.lookup(need_table), focus),
        "ring": partial_graph.at(partial_graph.ring, focus).long(),
        "double": partial_graph.at(partial_graph.double, focus),
        "triple": partial_graph.at(partial_graph.triple, focus),
        "degree": (bond > 0).sum(1),
        "rings": partial_graph.rings,
        "num": partial_graph.num,
        "open": waiting.sum(1),
        "charge": (charges[partial_graph.kind.clamp(min=0)] * (partial_graph.kind >= 0)).sum(1) + 2,
    }
    columns, start = [], 0
    for name, size in FEATURES.items():
        columns.append(values[name].clamp(0, size - 1) + start)
        start += size
    feature = torch.zeros(len(partial_graph), NUM_FEATURES, dtype=torch.uint8, device=device)
    feature.scatter_(1, torch.stack(columns, 1), 1)
    neighbour = start + (bond - 1).clamp(min=0) * MAX_TYPES + partial_graph.kind.clamp(min=0)
    feature.scatter_add_(1, neighbour, (bond > 0).to(torch.uint8))
    start += MAX_ORDER * MAX_TYPES
    size = (partial_graph.at(partial_graph.distance, focus).long() + 1).clamp(max=MAX_SIZE)
    feature.scatter_reduce_(1, start + size, (waiting & present[:, None]).to(torch.uint8), "amax")
    return feature


@dataclass(frozen=True)
class History:
    """Steps of B molecules, as the net reads them.

    Args:
        features: [B, L, F] uint8.
        anchor: [B, L] the focus at each step, -1 before the first atom.
        order, distance: [B, L, N] of the focus to all atoms at each step, int8.
        born: [B, N] the step at which each atom was there first.
    """

    features: Tensor
    anchor: Tensor
    order: Tensor
    distance: Tensor
    born: Tensor

    def relation(self) -> Tensor:
        """Return the relation of each step's focus to the anchors of all steps [B, L, L]."""
        anchor_B1L = self.anchor.clamp(min=0)[:, None].expand(-1, self.anchor.shape[1], -1)
        order, distance = (x.gather(2, anchor_B1L).long() for x in (self.order, self.distance))
        absent = (self.anchor < 0)[:, None] | (self.anchor < 0)[:, :, None]
        return torch.where(absent, MOLECULE, relations(order, distance))


class Policy(nn.Module):
    """What turns steps into tokens and tokens into logits of actions.

    Args:
        width, heads: of the trunk.
        types: size of the alphabet.
        conditions: number of properties that the molecules can be conditioned on.
    """

    def __init__(self, width: int, heads: int, types: int, conditions: int) -> None:
        super().__init__()
        self.embed = nn.Linear(NUM_FEATURES, width)
        self.style = nn.Embedding(len(STYLES), width)
        self.condition = nn.Linear(2 * conditions, width, bias=False) if conditions else None
        self.recent = nn.Parameter(torch.zeros(heads, RECENT))
        self.act = nn.Linear(width, 2 + MAX_ORDER * types)
        self.size = nn.Linear(width, RING_ORDERS * (MAX_SIZE + 1))
        self.query = nn.Linear(width, RING_ORDERS * width // 2)
        self.key = nn.Linear(width, width // 2, bias=False)
        for layer in (self.embed, self.act, self.size):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.embed.weight, std=0.3)
        nn.init.normal_(self.style.weight, std=0.3)

    def tokens(self, features: Tensor, style: Tensor, condition: Tensor | None) -> Tensor:
        """Return embedded steps [B, L, D] from features [B, L, F], style [B] and conditions [B,
        2 P] (values, then 1 where known).
        """
        x_BLD = self.embed(features.to(self.embed.weight.dtype)) + self.style(style)[:, None]
        # nothing is told, which is what zeros say too
        if self.condition is None or condition is None:
            return x_BLD
        return x_BLD + self.condition(condition.to(x_BLD.dtype))[:, None]

    def bias_of_recency(self, steps: int) -> Tensor:
        """Return the bias [H, L, L] of how many steps back a step lies; later ones are hidden."""
        index = torch.arange(steps, device=self.recent.device)
        back = index[:, None] - index
        return self.recent[:, back.clamp(0, RECENT - 1)].masked_fill(back < 0, HIDDEN)

    def logits(self, x_BLD: Tensor, keys_BNK: Tensor, distance_BLN: Tensor) -> Tensor:
        """Return logits [B, L, A] in the order of growth.Actions, ring closures by the size of the
        ring and by the atom.

        Args:
            x_BLD: states of steps.
            keys_BNK: self.key of the states at which atoms were born.
            distance_BLN: from each step's focus.
        """
        size_BLN = (distance_BLN.long() + 1).clamp(max=MAX_SIZE)
        of_size = self.size(x_BLD).unflatten(-1, (RING_ORDERS, MAX_SIZE + 1))
        query = self.query(x_BLD).unflatten(-1, (RING_ORDERS, -1))
        of_atom = torch.einsum("blok,bnk->blno", query, keys_BNK) * keys_BNK.shape[-1] ** -0.5
        index = size_BLN[..., None, :].expand(-1, -1, RING_ORDERS, -1)
        of_ring = of_atom + of_size.gather(-1, index).transpose(-1, -2)
        return torch.cat([self.act(x_BLD), of_ring.flatten(2)], -1)


def read_history(
    model: MoleculeNet, history: History, style: Tensor, condition: Tensor | None
) -> Tensor:
    """Return the logits of the next action after each step [B, L, A], all steps in one causal
    pass.
    """
    policy: Policy = model.heads["policy"]
    x_BLD = policy.tokens(history.features, style, condition)
    bias_BHLL = model.bias(history.relation()) + policy.bias_of_recency(x_BLD.shape[1])
    x_BLD = model.encode(x_BLD, bias_BHLL)
    born_BND = history.born.clamp(min=0)[..., None].expand(-1, -1, x_BLD.shape[-1])
    return policy.logits(x_BLD, policy.key(x_BLD.gather(1, born_BND)), history.distance)


class Reader:
    """Reads a growth step by step, for sampling: the same logits as `read_history`, in constant
    work a step and layer.

    Args:
        model: with a policy.
        rows: B.
        atoms: N, the room.
        style: place in STYLES.
        condition: [B, 2 P] or None.
    """

    def __init__(
        self, model: MoleculeNet, rows: int, atoms: int, style: int, condition: Tensor | None
    ) -> None:
        self.model, self.condition, self.steps = model, condition, 0
        weight = model.relation.weight
        shape = (rows, model.num_heads, FIRST_ROOM, model.width // model.num_heads)
        self.kept = [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in model.blocks]
        self.anchors = torch.full((rows, FIRST_ROOM), -1, device=weight.device)
        self.keys = weight.new_zeros(rows, atoms, model.width // 2)
        self.style = torch.full((rows,), style, device=weight.device)

    def read(self, partial_graph: PartialGraph) -> Tensor:
        """Return the logits of the next action [B, A] and keep the step."""
        policy: Policy = self.model.heads["policy"]
        at, focus = self.steps, partial_graph.focus
        if at == self.anchors.shape[1]:
            self._make_room()
        self.anchors[:, at] = focus
        seen = self.anchors[:, : at + 1]
        order, distance = (
            partial_graph.at(partial_graph.bond, focus),
            partial_graph.at(partial_graph.distance, focus),
        )
        relation = relations(*(x.gather(1, seen.clamp(min=0)).long() for x in (order, distance)))
        relation = torch.where((seen < 0) | (focus < 0)[:, None], MOLECULE, relation)
        back = torch.arange(at, -1, -1, device=focus.device).clamp(max=RECENT - 1)
        bias = self.model.bias(relation[:, None]) + policy.recent[:, back][:, None]
        x_B1D = policy.tokens(features(partial_graph)[:, None], self.style, self.condition)
        for block, kept in zip(self.model.blocks, self.kept, strict=True):
            x_B1D = block.step(x_B1D, bias, kept, at)
        x_B1D = self.model.norm(x_B1D)
        born = (partial_graph.num - 1).clamp(min=0)
        fresh = (partial_graph.last == 1) & ~partial_graph.done
        rows = torch.arange(len(born), device=born.device)
        self.keys[rows, born] = torch.where(
            fresh[:, None], policy.key(x_B1D[:, 0]), self.keys[rows, born]
        )
        self.steps += 1
        return policy.logits(x_B1D, self.keys, distance[:, None])[:, 0]

    def _make_room(self) -> None:
        size = FIRST_ROOM
        self.anchors = F.pad(self.anchors, (0, size), value=-1)
        self.kept = [tuple(F.pad(x, (0, 0, 0, size)) for x in pair) for pair in self.kept]

    def select(self, rows: Tensor) -> None:
        """Go on with some of the molecules only."""
        self.kept = [(k[rows, :, : self.steps], v[rows, :, : self.steps]) for k, v in self.kept]
        self.anchors = self.anchors[:, : self.steps]
        self.anchors, self.keys, self.style = self.anchors[rows], self.keys[rows], self.style[rows]
        self.condition = None if self.condition is None else self.condition[rows]


def new_policy(model: MoleculeNet, conditions: int) -> Policy:
    """Return a policy that fits a net."""
    return Policy(model.width, model.num_heads, len(model.alphabet), conditions)


def actions_of(model: MoleculeNet) -> Actions:
    """Return how a net numbers its actions."""
    return Actions(model.alphabet)
