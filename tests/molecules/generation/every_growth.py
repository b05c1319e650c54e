"""Every state of a growth under constraints, by brute force: what the mask offers, and what could
have been finished.

The brute force knows elementary valence only (no plan): atoms that fit, rings of the allowed sizes,
leaving an atom that lacks nothing, stopping where the request is met. Two states are one where
nothing that happens later can tell them apart: atoms that were left matter only by the distances
that go through them, their hydrogens, elements and charges.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sciforge.molecules.chemistry.forbidden_substructures import Pattern, patterns_of, restrict
from sciforge.molecules.chemistry.graph import Graph
from sciforge.molecules.chemistry.valence import NONE, TYPES, indices_of
from sciforge.molecules.generation.action_mask import _State, legal
from sciforge.molecules.generation.constraints import Constraints, alphabet_of, compile_feasibility
from sciforge.molecules.generation.feasibility import ELEMENTS, Feasibility
from sciforge.molecules.generation.partial_graph import (
    FIRST_ADD,
    MAX_ORDER,
    NEXT,
    RING_ORDERS,
    STOP,
    Actions,
    PartialGraph,
    tables,
)
from sciforge.molecules.generation.sampler import _only, _Scaffold

ELEMENT_OF = np.array([ELEMENTS.index(t.symbol) for t in TYPES])
AT_ONCE = 20_000


@dataclass
class Game:
    """A request in the words of the sampler."""

    constraints: Constraints
    actions: Actions
    rules: Feasibility
    only: Tensor
    patterns: tuple[Pattern, ...]
    start: PartialGraph

    @classmethod
    def of(cls, constraints: Constraints, names: tuple[str, ...]) -> "Game":
        """Compile a request for a net with an alphabet, as sampling does."""
        known = indices_of(names)
        alphabet = alphabet_of(constraints, known)
        rules = compile_feasibility(constraints, alphabet)
        patterns = patterns_of(constraints.forbidden)
        room = rules.atoms[1]
        start = PartialGraph.empty(1, room)
        if constraints.scaffold:
            start = _Scaffold.read(constraints, room).read_in(1, room, torch.device("cpu"))
        alphabet, rules = restrict(patterns, rules, alphabet, start)
        actions = Actions(known)
        only = _only(actions, torch.tensor([kind in alphabet for kind in known]), room)
        return cls(constraints, actions, rules, only, patterns, start)

    def offered(self, partial_graph: PartialGraph) -> Tensor:
        """Return the mask of sampling [B, A], forbidden parts aside."""
        return (
            legal(partial_graph, self.actions, self.rules, self.only) & ~partial_graph.done[:, None]
        )

    def strained(self, partial_graph: PartialGraph) -> Tensor:
        """Return what the mask avoids for the strain of linear atoms in small rings [B, A]."""
        state, none = (
            _State.of(partial_graph, self.actions, self.rules),
            torch.zeros(len(partial_graph), FIRST_ADD, dtype=torch.bool),
        )
        return torch.cat(
            [none, state.strained_adds().flatten(1), state.strained_rings().flatten(1)], 1
        )

    def possible(self, partial_graph: PartialGraph) -> Tensor:
        """Return what valence, room and ring sizes alone allow, and stopping where the request
        is met [B, A].
        """
        slots_of, need_of, _ = tables(partial_graph.device)
        rows, focus, (low, high) = (
            torch.arange(len(partial_graph)),
            partial_graph.focus,
            self.rules.sizes,
        )
        kind, some = partial_graph.kind.clamp(min=0), focus >= 0

        def takes(kinds: Tensor, used: Tensor) -> Tensor:
            return (slots_of[kinds, used] != NONE) & (need_of[kinds, used] != NONE)

        kind_f, used_f = (
            kind[rows, focus.clamp(min=0)],
            partial_graph.used[rows, focus.clamp(min=0)],
        )
        made = torch.zeros(
            len(partial_graph), self.actions.count(partial_graph.kind.shape[1]), dtype=torch.bool
        )
        for place, new in enumerate(self.actions.alphabet):
            fresh = torch.full_like(kind_f, new)
            for order in range(1, MAX_ORDER + 1):
                fits = (
                    takes(kind_f, used_f + order)
                    & takes(fresh, torch.full_like(fresh, order))
                    & some
                )
                if order == 1:
                    fits |= (partial_graph.num == 0) & takes(fresh, torch.zeros_like(fresh))
                made[:, self.actions.add(place, order)] = fits & (
                    partial_graph.num < self.rules.atoms[1]
                )
        if self.rules.formula is not None:
            for place, new in enumerate(self.actions.alphabet):
                counts = (torch.from_numpy(ELEMENT_OF)[kind] == ELEMENT_OF[new]) & (
                    partial_graph.kind >= 0
                )
                spent = counts.sum(1) >= self.rules.formula[ELEMENT_OF[new]]
                made[
                    :, self.actions.add(place, 1) : self.actions.add(place, MAX_ORDER) + 1
                ] &= ~spent[:, None]
        for atom in range(partial_graph.kind.shape[1]):
            size = partial_graph.distance[rows, focus.clamp(min=0), atom].long() + 1
            near = (
                partial_graph.open[:, atom]
                & some
                & (focus != atom)
                & (size >= max(low, 3))
                & (size <= high)
            )
            near &= partial_graph.rings < self.rules.rings[1]
            for order in range(1, RING_ORDERS + 1):
                fits = takes(kind_f, used_f + order) & takes(
                    kind[:, atom], partial_graph.used[:, atom] + order
                )
                made[:, self.actions.close(atom, order)] = near & fits
        need = need_of[kind, partial_graph.used] * partial_graph.open
        made[:, NEXT] = (
            some & (need[rows, focus.clamp(min=0)] == 0) & (partial_graph.open.sum(1) > 1)
        )
        made[:, STOP] = (need.sum(1) == 0) & self.met(partial_graph)
        return made & self.only & ~partial_graph.done[:, None]

    def met(self, partial_graph: PartialGraph) -> Tensor:
        """Return which molecules would meet the request if they ended now [B]."""
        slots_of, _, charges = tables(partial_graph.device)
        kind, there = partial_graph.kind.clamp(min=0), partial_graph.kind >= 0
        few, most = self.rules.atoms
        ok = (partial_graph.num >= max(few, 1)) & (partial_graph.num <= most)
        ok &= (partial_graph.rings >= self.rules.rings[0]) & (
            partial_graph.rings <= self.rules.rings[1]
        )
        ok &= (charges[kind] * there).sum(1) == self.constraints.charge
        if self.rules.formula is not None:
            hydrogens = (slots_of[kind, partial_graph.used] * there).sum(1)
            ok &= hydrogens == self.rules.hydrogens
            for element, count in enumerate(self.rules.formula.tolist()):
                ok &= ((torch.from_numpy(ELEMENT_OF)[kind] == element) & there).sum(1) == count
        return ok

    def holds_forbidden(self, partial_graph: PartialGraph) -> Tensor:
        """Return which molecules hold a forbidden part [B]."""
        found = torch.zeros(len(partial_graph), dtype=torch.bool)
        for pattern in self.patterns:
            found |= pattern.found(partial_graph)
        return found


def key(partial_graph: PartialGraph, formula: bool) -> np.ndarray:
    """Return bytes [B] that are equal where the future is."""
    _, _, charges = tables(partial_graph.device)
    first = torch.argsort((~partial_graph.open).int(), dim=1, stable=True)
    there = partial_graph.open.gather(1, first)

    def of(value: Tensor) -> Tensor:
        return value.gather(1, first) * there

    kinds, straight = partial_graph.kind.clamp(min=0), partial_graph.linear()
    far = partial_graph.distance.int()
    # [B, i, j, k]: k on a shortest way
    over = far[:, :, None, :] + far[:, None, :, :] == far[:, :, :, None]
    bent = (over & straight[:, None, None, :]).any(3)
    pair = there[:, :, None] & there[:, None]
    size = partial_graph.kind.shape[1]
    rows = first[:, :, None].expand(-1, -1, size)

    def pairs(value: Tensor) -> Tensor:
        return (value.gather(1, rows).gather(2, rows.transpose(1, 2)) * pair).flatten(1)

    columns = [
        of(partial_graph.kind + 1),
        of(partial_graph.used),
        of(partial_graph.double.clamp(max=2)),
        of(partial_graph.triple),
        of(partial_graph.ring),
    ]
    columns += [pairs(far + 1), pairs(bent.int())]
    whole = [
        partial_graph.num,
        partial_graph.rings,
        partial_graph.hydrogens,
        (charges[kinds] * (partial_graph.kind >= 0)).sum(1),
        partial_graph.done,
    ]
    if formula:
        there_all = partial_graph.kind >= 0
        place = torch.from_numpy(ELEMENT_OF)[kinds]
        whole += [((place == e) & there_all).sum(1) for e in range(len(ELEMENTS))]
    columns.append(torch.stack([w.long() for w in whole], 1))
    made = np.ascontiguousarray(torch.cat([c.to(torch.int8) for c in columns], 1).numpy())
    return made.view([("", f"V{made.shape[1]}")])["f0"][:, 0] if made.shape[1] else made


def whole_key(partial_graph: PartialGraph) -> np.ndarray:
    """Return bytes [B] of the whole graph and which atoms are open."""
    parts = [
        partial_graph.kind,
        partial_graph.open,
        partial_graph.done[:, None],
        partial_graph.bond.flatten(1),
    ]
    made = np.ascontiguousarray(torch.cat([p.to(torch.int8) for p in parts], 1).numpy())
    return made.view([("", f"V{made.shape[1]}")])["f0"][:, 0]


@dataclass
class Found:
    """What the enumeration counts.

    Args:
        states: reachable by actions that are offered.
        dead: reachable, not done, and nothing is offered (some examples as rows of a growth).
        finishing: pairs of a reachable state and an action after which the request can still be
            met.
        pruned: those of them that are not offered, strain aside.
        wrong: reachable ends that do not meet the request.
        ends: done molecules, one of each kind of state.
    """

    states: int = 0
    dead: int = 0
    finishing: int = 0
    pruned: int = 0
    wrong: int = 0
    all_states: int = 0
    reachable_ends: int = 0
    all_ends: int = 0
    examples: list = field(default_factory=list)
    ends: list = field(default_factory=list)
    pruned_examples: list = field(default_factory=list)


def explore(game: Game, whole: bool = False, brute: bool = True) -> Found:
    """Walk through every state, breadth first; with `brute`, through those too that the mask does
    not lead to.

    Args:
        game: the request.
        whole: tell whole graphs apart, not only futures; then `ends` holds every growth that ends.
        brute: also count what could have been finished.
    """
    found = Found()
    frontier, reachable = game.start.copy(), np.ones(1, bool)
    levels: list[dict] = []
    while len(frontier):
        level = _expand(game, frontier, reachable, found, brute, whole)
        levels.append(level)
        frontier, reachable = level.pop("next"), level.pop("next_reachable")
    if brute:
        _look_back(levels, found)
    return found


def _expand(
    game: Game,
    partial_graph: PartialGraph,
    reachable: np.ndarray,
    found: Found,
    brute: bool,
    whole: bool,
) -> dict:
    """Take every action in every state of a level; states of the next level once each."""
    sources, kinds, offers, strains, keys, states = [], [], [], [], [], []
    for start in range(0, len(partial_graph), AT_ONCE):
        rows = torch.arange(start, min(start + AT_ONCE, len(partial_graph)))
        some = partial_graph.select(rows)
        offered = game.offered(some)
        may = game.possible(some) if brute else offered
        strange = offered & ~may
        assert not bool(strange.any()), f"offered beyond valence: {strange.nonzero()[:3].tolist()}"
        row, action = may.nonzero(as_tuple=True)
        after = some.select(row)
        after.act(game.actions, action)
        clean = torch.ones(len(row), dtype=torch.bool)
        if game.patterns:
            clean = ~game.holds_forbidden(after)
            row, action, after = row[clean], action[clean], after.select(clean)
        sources.append(row.numpy() + start)
        kinds.append(action.numpy())
        offers.append(offered[row, action].numpy())
        strains.append(game.strained(some)[row, action].numpy())
        keys.append(whole_key(after) if whole else key(after, game.rules.formula is not None))
        states.append(after)
    source, action, offer, strain, name = (
        np.concatenate(x) for x in (sources, kinds, offers, strains, keys)
    )
    live = ~partial_graph.done.numpy()
    has = np.zeros(len(partial_graph), bool)
    has[source[offer]] = True
    dead = reachable & live & ~has
    found.states += int(reachable.sum())
    found.all_states += len(partial_graph)
    found.dead += int(dead.sum())
    if dead.any() and len(found.examples) < 5:
        found.examples.append(partial_graph.select(torch.from_numpy(np.flatnonzero(dead)[:5])))
    _, first, inverse = np.unique(name, return_index=True, return_inverse=True)
    bounds = np.cumsum([0] + [len(s) for s in sources])
    parts = [(first >= a) & (first < b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    picked = [
        s.select(torch.from_numpy(first[p] - a))
        for s, p, a in zip(states, parts, bounds[:-1], strict=True)
    ]
    order = np.concatenate([np.flatnonzero(p) for p in parts])
    place = np.empty(len(first), np.int64)
    place[order] = np.arange(len(first))
    target = place[inverse.reshape(-1)]
    after = _cat(picked) if picked else partial_graph.select(torch.zeros(0, dtype=torch.long))
    next_reachable = np.zeros(len(first), bool)
    next_reachable[target[offer & reachable[source]]] = True
    ended = after.done
    if bool(ended.any()):
        ends, by_mask = after.select(ended), next_reachable[ended.numpy()]
        found.all_ends += len(ends)
        found.reachable_ends += int(by_mask.sum())
        found.wrong += int((~game.met(ends)[torch.from_numpy(by_mask)]).sum())
        found.ends.append((ends, by_mask))
    return {
        "source": source,
        "target": target,
        "offer": offer,
        "strain": strain,
        "reachable": reachable,
        "action": action,
        "done": partial_graph.done.numpy(),
        "next": after,
        "next_reachable": next_reachable,
        "growth": partial_graph if brute else None,
    }


def _cat(parts: list[PartialGraph]) -> PartialGraph:
    from dataclasses import fields

    return PartialGraph(
        **{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(PartialGraph)}
    )


def _look_back(levels: list[dict], found: Found) -> None:
    """Find from the ends which states can be finished, and which ways to them the mask hides."""
    after = np.zeros(0, bool)
    for level in reversed(levels):
        good = np.zeros(len(level["reachable"]), bool)
        good[level["done"]] = True
        leads = after[level["target"]] if len(after) else np.zeros(len(level["target"]), bool)
        good[level["source"][leads]] = True
        here = level["reachable"][level["source"]] & leads & ~level["strain"]
        found.finishing += int(here.sum())
        hidden = here & ~level["offer"]
        found.pruned += int(hidden.sum())
        if hidden.any() and len(found.pruned_examples) < 12:
            for edge in np.flatnonzero(hidden)[:4]:
                state = level["growth"].select(torch.tensor([level["source"][edge]]))
                found.pruned_examples.append((said(state), int(level["action"][edge])))
        lost = level["offer"] & level["reachable"][level["source"]] & ~leads
        assert not lost.any(), "offered, though no end can be reached"
        after = good


def said(partial_graph: PartialGraph, row: int = 0) -> str:
    """Return a state in words."""
    num = int(partial_graph.num[row])
    names = [
        TYPES[k].name + ("*" if o else "")
        for k, o in zip(
            partial_graph.kind[row, :num].tolist(),
            partial_graph.open[row, :num].tolist(),
            strict=True,
        )
    ]
    bonds = [
        f"{i}{'?-=#'[int(partial_graph.bond[row, i, j])]}{j}"
        for i in range(num)
        for j in range(i + 1, num)
        if partial_graph.bond[row, i, j]
    ]
    return " ".join(names) + " | " + " ".join(bonds)


def graphs(partial_graph: PartialGraph) -> Iterator[Graph]:
    """Yield the molecules of a growth."""
    for row in range(len(partial_graph)):
        num = int(partial_graph.num[row])
        bond = partial_graph.bond[row, :num, :num].numpy()
        i, j = np.nonzero(np.triu(bond))
        yield Graph(
            partial_graph.kind[row, :num].numpy().astype(np.uint8),
            np.stack([i, j], 1).astype(np.uint8),
            bond[i, j].astype(np.uint8),
        )
