"""How known molecules grow: depth-first walks, taken by a whole batch at once, that the generator
learns from.

A walk is decided by a rank for each atom (the root and, at each branch, the neighbour of the lowest
rank come first): the ranks of the canonical SMILES give its order, random ranks a random walk. With
a seed, a part of the molecule is walked first and then opened again, which is how a given scaffold
is grown from.

Legend of shape letters: B batch, N atoms, L steps, A actions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sciforge.core.transfers import constant
from sciforge.molecules.generation.partial_graph import NEXT, STOP, Actions, PartialGraph

REOPEN = -1  # not an action that a generator may take: the seed is complete
OUTSIDE = -2  # the molecule holds an atom type that the alphabet does not
LATE = 10_000  # of ranks: atoms that are not there


@dataclass(frozen=True)
class Target:
    """Molecules to be rebuilt.

    Args:
        kind: [B, N] places in valence.TYPES, -1 where there is no atom.
        bond: [B, N, N] bond orders 0 to 3.
        rank: [B, N] which comes first.
        seed: [B, N] the atoms that are walked first; all False for none.
    """

    kind: Tensor
    bond: Tensor
    rank: Tensor
    seed: Tensor


class Step(NamedTuple):
    """One step of a walk.

    Args:
        partial_graph: before the step; the walk changes it afterwards.
        action: [B] that the walk takes; STOP again and again where a molecule is complete.
        seeding: [B] whether the seed is still being walked.
        whose: [B, N] the target's atom that each atom of the growth is.
    """

    partial_graph: PartialGraph
    action: Tensor
    seeding: Tensor
    whose: Tensor


def trajectory(target: Target, actions: Actions, look: int = 1) -> Iterator[Step]:
    """Yield the steps that build targets, all molecules at once, until all are complete.

    Whether they are is looked up every `look` steps, since the host waits for the device then, and
    where `look` is not 1 not before there were as many steps as the targets have room for atoms;
    more steps may follow in which all stop once more.
    """
    batch, atoms = target.kind.shape
    partial_graph = PartialGraph.empty(batch, atoms, target.kind.device)
    rank = torch.where(target.kind >= 0, target.rank, LATE)
    built = torch.full_like(target.kind, -1)  # place in the growth of each atom of the target
    whose = torch.zeros_like(target.kind)  # and the reverse
    seeding = target.seed.any(1)
    rows = torch.arange(batch, device=target.kind.device)
    steps = 0
    while True:
        wanted = torch.where(seeding[:, None], target.seed, target.kind >= 0)
        action, new = _step(partial_graph, target, actions, rank, built, whose, wanted)
        complete = ~(wanted & (built < 0)).any(1) & (action == STOP)
        action = torch.where(complete & seeding, REOPEN, action)
        yield Step(partial_graph, action, seeding, whose)
        partial_graph.act(actions, torch.where(action == REOPEN, NEXT, action))
        place = (partial_graph.num - 1).clamp(min=0)
        old = built[rows, new.clamp(min=0)]
        built[rows, new.clamp(min=0)] = torch.where(new >= 0, place, old)
        whose[rows, place] = torch.where(new >= 0, new, whose[rows, place])
        partial_graph.reopen(action == REOPEN)
        seeding = seeding & (action != REOPEN)
        steps += 1
        # an atom takes a step at least; who has stopped stops in all later steps
        due = steps % look == 0 and (look == 1 or steps >= atoms)
        if due and bool((action == STOP).all()):
            return


def _step(
    partial_graph: PartialGraph,
    target: Target,
    actions: Actions,
    rank: Tensor,
    built: Tensor,
    whose: Tensor,
    wanted: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the walk's action [B] and the target's atom that it adds [B], -1 for none: close
    rings, add, leave, stop.
    """
    batch, atoms = target.kind.shape
    rows = torch.arange(batch, device=rank.device)
    focus = partial_graph.focus
    here = partial_graph.at(whose, focus)  # in the target
    order_BN = target.bond[rows, here] * wanted * (partial_graph.num > 0)[:, None]
    # To an atom that is there and not bonded yet: a ring. The nearest first: the envelope of fused
    # rings would come out too large.
    joined = partial_graph.at(partial_graph.bond, focus).long().gather(1, built.clamp(min=0)) > 0
    ring_BN = (order_BN > 0) & (built >= 0) & ~joined
    apart = partial_graph.at(partial_graph.distance, focus).long().gather(1, built.clamp(min=0))
    first = torch.where(ring_BN, apart * atoms + built, LATE).argmin(1)
    close = actions.close(built[rows, first], order_BN[rows, first])
    # To an atom that is not: the lowest rank; the very first atom is the lowest of all.
    fresh_BN = wanted & (built < 0) & ((order_BN > 0) | (partial_graph.num == 0)[:, None])
    new = torch.where(fresh_BN, rank, LATE).argmin(1)
    alphabet = constant(actions.alphabet, rank.device)
    match = target.kind[rows, new][:, None] == alphabet
    add = actions.add(match.int().argmax(1), order_BN[rows, new].clamp(min=1))
    add = torch.where(match.any(1), add, OUTSIDE)
    finished = ~(wanted & (built < 0)).any(1)
    rest = torch.where(finished, STOP, NEXT)
    has_ring, has_new = ring_BN.any(1), fresh_BN.any(1)
    action = torch.where(has_ring, close, torch.where(has_new, add, rest))
    action = torch.where(partial_graph.done, STOP, action)
    return action, torch.where(has_new & ~has_ring & ~partial_graph.done, new, -1)
