"""The mask: which actions are legal by valence, rings and every hard constraint at once.

Legend of shape letters: B batch, N atoms, T types of the alphabet, A actions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sciforge.core.transfers import constant
from sciforge.molecules.chemistry.valence import MAX_ORDER, NONE
from sciforge.molecules.generation.feasibility import (
    ELEMENT_OF,
    ELEMENTS,
    SINGLE_BONDS,
    Feasibility,
    Outlook,
    completable,
)
from sciforge.molecules.generation.partial_graph import (
    FIRST_ADD,
    RING_ORDERS,
    STOP,
    Actions,
    PartialGraph,
    bends,
    tables,
)


def legal(
    partial_graph: PartialGraph,
    actions: Actions,
    rules: Feasibility,
    only: Tensor | None = None,
    banned: Tensor | None = None,
) -> Tensor:
    """Return which actions may be taken [B, A]; molecules that are done may only stop.

    Args:
        partial_graph: B molecules on their way.
        actions: how they are numbered.
        rules: the constraints.
        only: [A] actions that the request allows at all.
        banned: [B, A] actions that would complete a forbidden part.

    Closures and multiple bonds that would bend a linear atom into a ring of fewer than eight atoms
    are left out wherever another action is legal: RDKit accepts them, chemists do not.
    """
    state = _State.of(partial_graph, actions, rules)
    add_BTO, ring_BNO = state.adds(), state.rings()
    parts = [state.stop()[:, None], state.leave()[:, None], add_BTO.flatten(1), ring_BNO.flatten(1)]
    legal_BA = torch.cat(parts, 1)
    legal_BA = legal_BA if only is None else legal_BA & only
    legal_BA = legal_BA if banned is None else legal_BA & ~banned
    strained_BA = torch.zeros_like(legal_BA)
    strained_BA[:, FIRST_ADD : actions.first_ring] = state.strained_adds().flatten(1)
    strained_BA[:, actions.first_ring :] = state.strained_rings().flatten(1)
    calm_BA = legal_BA & ~strained_BA
    legal_BA = torch.where(calm_BA.any(1, keepdim=True), calm_BA, legal_BA)
    legal_BA = legal_BA & ~partial_graph.done[:, None]
    legal_BA[:, STOP] |= partial_graph.done
    return legal_BA


@dataclass
class _State:
    """What the mask needs of a growth, computed once a step; see Outlook for the words."""

    partial_graph: PartialGraph
    actions: Actions
    rules: Feasibility
    focus: Tensor
    slots: Tensor
    free: Tensor
    need: Tensor
    charge: Tensor
    elements: Tensor | None
    clean: Tensor

    @classmethod
    def of(cls, partial_graph: PartialGraph, actions: Actions, rules: Feasibility) -> "_State":
        slots_table, need_table, charges = tables(partial_graph.device)
        slots = partial_graph.lookup(slots_table) * partial_graph.open
        need = partial_graph.lookup(need_table) * partial_graph.open
        charge = (charges[partial_graph.kind.clamp(min=0)] * (partial_graph.kind >= 0)).sum(1)
        elements = None
        if rules.formula is not None:
            element_of = constant(ELEMENT_OF, partial_graph.device)[partial_graph.kind.clamp(min=0)]
            one_hot = (
                torch.nn.functional.one_hot(element_of, len(ELEMENTS))
                * (partial_graph.kind >= 0)[..., None]
            )
            elements = one_hot.sum(1)
        clean = (partial_graph.kind == (NONE if rules.filler is None else rules.filler)) & (
            partial_graph.double + partial_graph.triple == 0
        )
        return cls(
            partial_graph,
            actions,
            rules,
            partial_graph.focus,
            slots,
            slots - need,
            need,
            charge,
            elements,
            clean,
        )

    def partners(
        self, focus: Tensor, hidden: Tensor, further: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return partners, units and reach [B] of an atom `further` bonds behind the focus; [B,
        N] `hidden` do not count.
        """
        partial_graph, (low, high) = self.partial_graph, self.rules.sizes
        if self.rules.plain:
            return partial_graph.num, partial_graph.num, partial_graph.num  # not looked at
        size = partial_graph.at(partial_graph.distance, focus).long() + further + 1
        index = torch.arange(size.shape[1], device=size.device)
        others = (
            partial_graph.open
            & ~hidden
            & (self.free >= 1)
            & ((index != focus[:, None]) if further == 0 else True)
        )
        closable = others & (size >= max(low, 3)) & (size <= high)
        units = (self.free.clamp(max=RING_ORDERS) * closable).sum(1)
        return closable.sum(1), units, (size * (others & (size <= high))).amax(1)

    def stop(self) -> Tensor:
        """Return where nothing is owed [B]."""
        partial_graph, rules = self.partial_graph, self.rules
        ok = (
            (self.need.sum(1) == 0)
            & (partial_graph.num >= rules.atoms[0])
            & (partial_graph.rings >= rules.rings[0])
            & (partial_graph.rings <= rules.rings[1])  # a scaffold may have too many
            & (partial_graph.num > 0)
        )
        if rules.charge is not None:
            ok &= self.charge == rules.charge
        if rules.formula is not None:
            ok &= (self.elements == rules.formula).all(1)
            ok &= partial_graph.hydrogens + self.slots.sum(1) == rules.hydrogens
        return ok

    def leave(self) -> Tensor:
        """Return where the focus may be left [B]: it lacks nothing, another atom is open, and a
        legal end stays in reach.
        """
        partial_graph, focus = self.partial_graph, self.focus
        index = torch.arange(self.slots.shape[1], device=focus.device)
        gone = index == focus[:, None]
        open_after = partial_graph.open & ~gone
        after = torch.where(open_after, index, -1).amax(1)
        partners, units, reach = self.partners(after, gone, 0)
        free_after = partial_graph.at(self.free, after)
        look = Outlook(
            partial_graph.num,
            (self.slots * ~gone).sum(1),
            self.need.sum(1),
            self.charge,
            partial_graph.rings,
            partial_graph.hydrogens + partial_graph.at(self.slots, focus),
            (self.free * ~gone).amax(1),
            free_after,
            partners,
            units,
            torch.where(free_after >= 2, reach.clamp(min=1), reach),
            torch.full_like(partial_graph.num, -1),
            partial_graph.at(self.clean, after),
        )
        needless = partial_graph.at(self.need, focus) == 0
        return (after >= 0) & needless & completable(look, self.rules, self.elements)

    def adds(self) -> Tensor:
        """Return which types may be added by which bond orders [B, T, 3]; the first atom is
        added by order 1 without a bond.
        """
        partial_graph, focus = self.partial_graph, self.focus
        slots_table, need_table, charges = tables(partial_graph.device)
        kind = constant(self.actions.alphabet, partial_graph.device)
        order = torch.arange(1, MAX_ORDER + 1, device=partial_graph.device)
        first = (partial_graph.num == 0)[:, None, None]
        own = torch.where(first, 0, order)  # bond order that the new atom spends [B, 1, 3]
        kind_f, used_f = (
            partial_graph.at(partial_graph.kind, focus).clamp(min=0),
            partial_graph.at(partial_graph.used, focus),
        )
        slots_f, need_f = (
            t[kind_f[:, None], used_f[:, None] + order][:, None] for t in (slots_table, need_table)
        )
        slots_n, need_n = (t[kind[None, :, None], own] for t in (slots_table, need_table))
        possible = torch.where(
            first,
            order == 1,
            (slots_f != NONE) & partial_graph.at(partial_graph.open, focus)[:, None, None],
        )
        possible = possible & (slots_n != NONE) & (need_n != NONE) & (first | (need_f != NONE))
        single = constant(SINGLE_BONDS, partial_graph.device)
        possible = possible & (
            (order == 1) | ~(single[kind][:, None] | single[kind_f][:, None, None])
        )
        slots_f, need_f = torch.where(first, 0, slots_f), torch.where(first, 0, need_f)
        index = torch.arange(self.slots.shape[1], device=focus.device)
        others = index != focus[:, None]
        partners, units, reach = (x[:, None, None] for x in self.partners(focus, ~others, 1))
        free_f, free_n = slots_f - need_f, slots_n - need_n
        reach = torch.maximum(reach, torch.where(free_f >= 1, 2, torch.where(free_n >= 2, 1, 0)))
        look = Outlook(
            partial_graph.num[:, None, None] + 1,
            _rest(self.slots, others) + slots_f + slots_n,
            _rest(self.need, others) + need_f + need_n,
            self.charge[:, None, None] + charges[kind][None, :, None],
            partial_graph.rings[:, None, None],
            partial_graph.hydrogens[:, None, None],
            torch.maximum(
                torch.maximum((self.free * others).amax(1)[:, None, None], free_f), free_n
            ),
            free_n,
            partners,
            units,
            reach,
            kind[None, :, None].expand(len(partial_graph), -1, MAX_ORDER),
            (kind[None, :, None] == (NONE if self.rules.filler is None else self.rules.filler))
            & (order == 1),
        )
        shape = (len(partial_graph), len(kind), MAX_ORDER)
        look = Outlook(*(x.expand(shape) for x in look))
        return possible.expand(shape) & completable(look, self.rules, self.elements)

    def rings(self) -> Tensor:
        """Return to which atoms a ring may be closed by which bond orders [B, N, 2]."""
        partial_graph, focus, (low, high) = self.partial_graph, self.focus, self.rules.sizes
        slots_table, need_table, _ = tables(partial_graph.device)
        order = torch.arange(1, RING_ORDERS + 1, device=partial_graph.device)
        kind, kind_f = (
            partial_graph.kind.clamp(min=0),
            partial_graph.at(partial_graph.kind, focus).clamp(min=0),
        )
        used_f = partial_graph.at(partial_graph.used, focus)
        slots_f, need_f = (
            t[kind_f[:, None], used_f[:, None] + order][:, None] for t in (slots_table, need_table)
        )
        slots_j, need_j = (
            t[kind[..., None], partial_graph.used[..., None] + order]
            for t in (slots_table, need_table)
        )
        size = partial_graph.at(partial_graph.distance, focus).long() + 1
        index = torch.arange(size.shape[1], device=focus.device)
        apart = (
            partial_graph.open & (index != focus[:, None]) & (size >= max(low, 3)) & (size <= high)
        )
        possible = (
            apart[..., None]
            & (slots_f != NONE)
            & (slots_j != NONE)
            & (need_f != NONE)
            & (need_j != NONE)
        )
        single = constant(SINGLE_BONDS, partial_graph.device)
        possible = possible & ((order == 1) | ~(single[kind] | single[kind_f][:, None])[..., None])
        others = index != focus[:, None]
        third = torch.topk(self.free * others, min(2, size.shape[1]), 1)
        best_rest = torch.where(
            third.indices[:, :1] == index, third.values[:, -1:], third.values[:, :1]
        )[..., None]
        free_f, free_j = slots_f - need_f, slots_j - need_j
        partners, units, _ = (x[:, None] for x in self.partners(focus, ~others, 0))
        was = apart & (self.free >= 1)
        keeps = low == 3  # else the closure may make a partner's ring too small
        partners = (partners - was.long()) * keeps
        units = (units - self.free.clamp(max=RING_ORDERS) * was) * keeps
        look = Outlook(
            partial_graph.num[:, None, None],
            _rest(self.slots, others) - self.slots[..., None] + slots_f + slots_j,
            _rest(self.need, others) - self.need[..., None] + need_f + need_j,
            self.charge[:, None, None],
            partial_graph.rings[:, None, None] + 1,
            partial_graph.hydrogens[:, None, None],
            torch.maximum(torch.maximum(best_rest, free_f), free_j),
            free_f,
            partners[..., None],
            units[..., None],
            torch.where(free_f >= 2, 1, 0),
            torch.full_like(size, -1)[..., None],
            partial_graph.at(self.clean, focus)[:, None, None] & (order == 1),
        )
        shape = (*size.shape, RING_ORDERS)
        look = Outlook(*(x.expand(shape) for x in look))
        return possible & completable(look, self.rules, self.elements)

    def strained_adds(self) -> Tensor:
        """Return the additions [B, T, 3] that would make an atom of a ring linear."""
        partial_graph, focus = self.partial_graph, self.focus
        bent = bends(partial_graph.device)[
            partial_graph.at(partial_graph.kind, focus).clamp(min=0)
        ] & partial_graph.at(partial_graph.ring, focus)
        order = torch.arange(1, MAX_ORDER + 1, device=partial_graph.device)
        straightens = (order == 3) | (
            (order == 2) & (partial_graph.at(partial_graph.double, focus)[:, None] > 0)
        )
        return (bent[:, None] & straightens)[:, None].expand(-1, len(self.actions.alphabet), -1)

    def strained_rings(self) -> Tensor:
        """Return the closures [B, N, 2] of rings under eight atoms with a linear atom in them."""
        partial_graph, focus = self.partial_graph, self.focus
        here, bent = (
            partial_graph.at(partial_graph.distance, focus),
            bends(partial_graph.device)[partial_graph.kind.clamp(min=0)],
        )
        straight = partial_graph.linear()
        linear = torch.zeros_like(straight)
        some = torch.arange(len(straight), device=partial_graph.device)
        # few molecules have a linear atom; to find them, the host would wait for a GPU
        if partial_graph.device.type == "cpu":
            some = straight.any(1).nonzero()[:, 0]
        # k lies on a way from the focus to j
        between = here[some, :, None] + partial_graph.distance[some] == here[some, None]
        linear[some] = (straight[some, :, None] & between).any(1)
        doubled = bent & (partial_graph.double > 0)
        doubled = doubled | partial_graph.at(doubled, focus)[:, None]
        small = here + 1 < 8
        return small[..., None] & torch.stack([linear, linear | doubled], -1)


def _rest(value_BN: Tensor, others: Tensor) -> Tensor:
    return (value_BN * others).sum(1)[:, None, None]
