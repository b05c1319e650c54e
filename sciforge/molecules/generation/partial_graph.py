"""Molecules that grow atom by atom, a whole batch at once on the device; no RDKit, no look at a
value on the way.

A growing molecule is a kekulised graph and a set of open atoms; the focus is the open atom that was
added last. One action at a time: stop; leave the focus for good (next); add an atom of a type to
the focus with a bond order and make it the focus; close a ring from the focus to another open atom.
So a depth-first walk of a graph is a growth, the graph stays connected, and an atom that was left
never changes again.

Legend of shape letters: B batch, N atoms, T types of the alphabet, A actions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache

import torch
from torch import Tensor

from sciforge.core.transfers import constant
from sciforge.molecules.chemistry.valence import MAX_ORDER, MAX_USED, NONE, TYPES

STOP, NEXT, FIRST_ADD = 0, 1, 2
RING_ORDERS = 2  # no triple bond closes a ring of at most eight atoms
UNREACHED = 60  # of distances, beyond every ring; twice it and 1 still fit int8
LAST_START, LAST_ADD, LAST_RING, LAST_NEXT, LAST_REOPEN = range(5)


@cache
def tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return slots and need [types, used] of valence.AtomType and charges [types], int64, on a
    device.
    """
    used = range(MAX_USED + MAX_ORDER + 1)
    slots = torch.tensor([[t.slots(u) for u in used] for t in TYPES], device=device)
    need = torch.tensor([[t.need(u) for u in used] for t in TYPES], device=device)
    need[slots == NONE] = NONE
    return slots, need, torch.tensor([t.charge for t in TYPES], device=device)


@cache
def bends(device: torch.device) -> Tensor:
    """Return which types [types] hold two neighbours in a line when they have a triple or two
    double bonds.
    """
    return torch.tensor(
        [t.symbol not in ("S", "P", "Se", "I", "Cl", "Br") for t in TYPES], device=device
    )


@dataclass(frozen=True)
class Actions:
    """How actions are numbered: stop, next, (type, order) pairs, (atom, order) pairs.

    Args:
        alphabet: places in valence.TYPES.

    >>> actions = Actions((0, 2))
    >>> actions.add(1, 2), actions.close(3, 1), actions.count(atoms=4)
    (6, 14, 16)
    """

    alphabet: tuple[int, ...]

    @property
    def first_ring(self) -> int:
        """Return the number of the first ring closure."""
        return FIRST_ADD + MAX_ORDER * len(self.alphabet)

    def count(self, atoms: int) -> int:
        """Return how many actions there are with room for `atoms` atoms."""
        return self.first_ring + RING_ORDERS * atoms

    def add(self, place: int | Tensor, order: int | Tensor) -> int | Tensor:
        """Return the action that adds the type at `place` of the alphabet; the first atom counts
        as order 1.
        """
        return FIRST_ADD + MAX_ORDER * place + order - 1

    def close(self, atom: int | Tensor, order: int | Tensor) -> int | Tensor:
        """Return the action that closes a ring to an atom."""
        return self.first_ring + RING_ORDERS * atom + order - 1


@dataclass
class PartialGraph:
    """B molecules on their way.

    Args:
        kind: [B, N] places in valence.TYPES, -1 where there is no atom yet.
        used: [B, N] sums of bond orders.
        open: [B, N] whether an atom may still get bonds.
        bond: [B, N, N] orders, int8.
        distance: [B, N, N] bonds between atoms, int8, UNREACHED where an atom is missing.
        ring: [B, N] whether an atom lies on a ring.
        double, triple: [B, N] numbers of such bonds.
        num, rings, hydrogens: [B] atoms, ring closures, hydrogens of atoms that were left.
        last, last_order, last_size: [B] what the last action was: its sort, its bond order, the
            ring it closed.
        done: [B].
    """

    kind: Tensor
    used: Tensor
    open: Tensor
    bond: Tensor
    distance: Tensor
    ring: Tensor
    double: Tensor
    triple: Tensor
    num: Tensor
    rings: Tensor
    hydrogens: Tensor
    last: Tensor
    last_order: Tensor
    last_size: Tensor
    done: Tensor

    @classmethod
    def empty(cls, batch: int, atoms: int, device: torch.device | str = "cpu") -> "PartialGraph":
        """Return molecules without an atom and with room for `atoms`."""
        device = torch.device(device)
        flat, square = (batch, atoms), (batch, atoms, atoms)

        def zeros(shape: tuple[int, ...], dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            kind=zeros(flat) - 1,
            used=zeros(flat),
            open=zeros(flat, torch.bool),
            bond=zeros(square, torch.int8),
            distance=zeros(square, torch.int8) + UNREACHED,
            ring=zeros(flat, torch.bool),
            double=zeros(flat),
            triple=zeros(flat),
            num=zeros((batch,)),
            rings=zeros((batch,)),
            hydrogens=zeros((batch,)),
            last=zeros((batch,)),
            last_order=zeros((batch,)),
            last_size=zeros((batch,)),
            done=zeros((batch,), torch.bool),
        )

    def __len__(self) -> int:
        return len(self.num)

    @property
    def device(self) -> torch.device:
        """Return where the tensors lie."""
        return self.num.device

    @property
    def focus(self) -> Tensor:
        """Return the open atom that was added last [B], -1 where none is open."""
        index_N = torch.arange(self.kind.shape[1], device=self.device)
        return torch.where(self.open, index_N, -1).amax(1)

    def lookup(self, table: Tensor) -> Tensor:
        """Return a (type, used) table's values of all atoms [B, N], 0 where there is none."""
        used = self.used.clamp(max=table.shape[1] - 1)  # only without the mask can it be more
        return torch.where(self.kind >= 0, table[self.kind.clamp(min=0), used], 0)

    def at(self, value_BN: Tensor, atom_B: Tensor) -> Tensor:
        """Return the value of one atom of each molecule [B] (or [B, ...]); atom -1 reads the
        first.
        """
        return value_BN[torch.arange(len(self), device=self.device), atom_B.clamp(min=0)]

    def select(self, rows: Tensor) -> "PartialGraph":
        """Return some of the molecules."""
        return replace(
            self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)}
        )

    def copy(self) -> "PartialGraph":
        """Return a copy that further actions do not change."""
        return replace(
            self, **{field.name: getattr(self, field.name).clone() for field in fields(self)}
        )

    @classmethod
    def join(cls, states: Sequence["PartialGraph"]) -> "PartialGraph":
        """Return L states of B molecules as one of B L rows, the steps of a molecule together."""
        stacked = {
            f.name: torch.stack([getattr(state, f.name) for state in states], 1).flatten(0, 1)
            for f in fields(cls)
        }
        return cls(**stacked)

    def linear(self) -> Tensor:
        """Return which atoms [B, N] hold their neighbours in a line: one triple or two double
        bonds on B, C, N, O or Si.
        """
        return (
            ((self.triple > 0) | (self.double > 1))
            & bends(self.device)[self.kind.clamp(min=0)]
            & (self.kind >= 0)
        )

    def act(self, actions: Actions, action_B: Tensor) -> None:
        """Take one legal action in each molecule; those that are done stay as they are."""
        live = ~self.done
        is_add = (action_B >= FIRST_ADD) & (action_B < actions.first_ring) & live
        is_ring = (action_B >= actions.first_ring) & live
        is_next = (action_B == NEXT) & live
        which = (action_B - FIRST_ADD).clamp(0, actions.first_ring - FIRST_ADD - 1)
        alphabet = constant(actions.alphabet, self.device)
        closing = (action_B - actions.first_ring).clamp(min=0)
        focus = self.focus
        first = is_add & (self.num == 0)
        order_B = torch.where(is_ring, closing % RING_ORDERS + 1, which % MAX_ORDER + 1) * (
            is_add & ~first | is_ring
        )
        other_B = torch.where(is_ring, closing // RING_ORDERS, self.num).clamp(
            max=self.kind.shape[1] - 1
        )
        size_B = (self.at(self.distance, focus).gather(1, other_B[:, None])[:, 0] + 1) * is_ring
        self._mark_ring(focus, other_B, is_ring)
        self._join(focus, other_B, order_B, alphabet[which // MAX_ORDER], is_add)
        slots = self.lookup(tables(self.device)[0])
        rows = torch.arange(len(self), device=self.device)
        self.hydrogens += self.at(slots, focus) * is_next
        self.open[rows, focus.clamp(min=0)] &= ~is_next
        self.rings += is_ring
        last = LAST_ADD * is_add + LAST_RING * is_ring + LAST_NEXT * is_next
        self.last = torch.where(live, last, self.last)
        self.last_order, self.last_size = order_B, size_B.long()
        self.done = self.done | (action_B == STOP)

    def reopen(self, row_B: Tensor) -> None:
        """Open all atoms of some molecules [B] again: a scaffold is complete and is now grown
        from.
        """
        self.open |= row_B[:, None] & (self.kind >= 0)
        self.hydrogens *= ~row_B
        self.last = torch.where(row_B, LAST_REOPEN, self.last)
        self.last_order, self.last_size = self.last_order * ~row_B, self.last_size * ~row_B

    def leave(self, atom_BN: Tensor) -> None:
        """Leave some atoms [B, N] for good, as the action `next` does with the focus."""
        self.hydrogens += (self.lookup(tables(self.device)[0]) * (atom_BN & self.open)).sum(1)
        self.open &= ~atom_BN

    def _mark_ring(self, focus: Tensor, other_B: Tensor, is_ring: Tensor) -> None:
        """Note the atoms on the shortest ways between the focus and the atom that it closes a
        ring with.
        """
        here, there = self.at(self.distance, focus), self.at(self.distance, other_B)
        between = here + there == self.at(here, other_B)[:, None]
        self.ring |= between & is_ring[:, None] & (self.kind >= 0)

    def _join(
        self, focus: Tensor, other_B: Tensor, order_B: Tensor, kind_B: Tensor, is_add: Tensor
    ) -> None:
        """Place new atoms, then bonds between focus and other of order_B (0 is none), and bring
        distances up to date.
        """
        rows = torch.arange(len(self), device=self.device)
        focus = focus.clamp(min=0)
        self.kind[rows, other_B] = torch.where(is_add, kind_B, self.kind[rows, other_B])
        self.open[rows, other_B] |= is_add
        self.num += is_add
        self.distance[rows, other_B, other_B] = torch.where(
            is_add, 0, self.distance[rows, other_B, other_B]
        )
        for a, b in ((focus, other_B), (other_B, focus)):
            self.used[rows, a] += order_B
            self.double[rows, a] += order_B == 2
            self.triple[rows, a] += order_B == 3
            self.bond[rows, a, b] += order_B.to(torch.int8)
        self._measure(focus, other_B, order_B > 0)

    def _measure(self, focus: Tensor, other_B: Tensor, bonded: Tensor) -> None:
        """Bring the distances of molecules that have a new bond up to date: a shorter way goes
        over that bond.
        """
        old, present = self.distance, self.kind >= 0
        rows = torch.arange(len(self), device=self.device)
        here, there = old[rows, focus], old[rows, other_B]
        around = torch.minimum(
            here[:, :, None] + 1 + there[:, None], there[:, :, None] + 1 + here[:, None]
        )
        nearer = torch.minimum(old, around.clamp(max=UNREACHED))
        nearer = torch.where(present[:, :, None] & present[:, None], nearer, UNREACHED)
        self.distance.copy_(torch.where(bonded[:, None, None], nearer, old))
