"""What can still be finished under hard constraints, so that the mask (mask.py) never leads to a
dead end.

The proof of completability. Let F(state) be `completable` below; the mask offers an action only
where F holds after it, and stopping only where nothing is owed. Claim: if F holds, some action is
offered. F holds because of a plan, which uses carbon only (or another neutral type of three or more
bonds, the filler) and the charged atoms that are owed:

1. Without a formula. Each unit of bond order that an atom lacks (`need`) is met by one filler on a
  single bond; an owed anion stands in a slot (a needed one first), and where slots are too few,
  fillers come first, each of which brings more than it takes; an owed cation has its remaining
  bonds met by fillers; an owed ring, made before charges are, is a chain of as many fillers as the
  smallest allowed ring has atoms, closed on itself, or is closed from the focus. A filler takes one
  slot and brings at least two, so one slot is enough to begin, and the atoms that the plan needs
  are counted against the room. The next step of the plan is an action after which the rest of the
  same plan shows F again; a focus without slots may be left, since leaving it changes nothing that
  the plan uses.
2. With a formula. With S free slots on open atoms, remaining atoms of normal valences v, H
  hydrogens owed and X = the bond orders still to be drawn, S + sum(v) - 2 X = H; a tree needs one
  bond an atom, so U = X - atoms = (S + sum(v - 2) - H) / 2 bonds are left over for double and
  triple bonds and rings. F asks that U is a whole number that a plan can place exactly: needs are
  met by single atoms set aside, the other atoms with more than one bond form one chain whose bond
  orders take up to `chain_capacity` of U (any smaller number too, since an order can be lowered by
  one), and rings closed from the focus take the rest. Atoms of one bond find slots, because S is H
  and theirs in the end by the same sum.
3. Beside forbidden parts (`Feasibility.filler` is set). No forbidden part holds an atom of the
  filler's type with single bonds only (forbidden.restrict sees to it, or else nothing but needs is
  owed). So a bond with a clean end, that is a filler with single bonds only, never completes one,
  and the plan makes no other bonds: each need is met by a filler, a charge stands on a filler of
  its own (or on the focus, while no ring is owed), a ring is closed by a new filler or from a clean
  focus.
F is sufficient, not necessary: near a tight limit it forbids some actions that could have been
finished in another way; how many is counted in the tests by enumerating all states.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sciforge.molecules.chemistry.valence import TYPES

IMPOSSIBLE = -1000  # of capacities
NO_LIMIT = 255


@dataclass(frozen=True)
class Feasibility:
    """Hard constraints as tensors.

    Args:
        atoms: fewest and most heavy atoms.
        charge: [B] or [1] net charge; None leaves it free.
        rings: fewest and most rings (independent cycles).
        sizes: smallest and largest ring; each closure obeys it, so each ring of a smallest basis
            does.
        formula: [elements] atoms of each element of ELEMENTS, or None.
        hydrogens: of the formula.
        chain: capacities by (free slots of the first atom, remaining atoms of valence 4, 3, 2); see
            constraints.chain_capacities.
        anion, cation: whether there is a type of charge -1 and one bond; the bonds of the smallest
            cation, 0 without.
        brings: by how many a filler raises the number of free slots.
        filler: the place in TYPES of the plan's filler where parts are forbidden, else None: no
            bond is forbidden.
    """

    atoms: tuple[int, int]
    charge: Tensor | None
    rings: tuple[int, int] = (0, NO_LIMIT)
    sizes: tuple[int, int] = (3, 8)
    formula: Tensor | None = None
    hydrogens: int = 0
    chain: Tensor | None = None
    anion: bool = True
    cation: int = 3
    filler: int | None = None
    brings: int = 1

    @property
    def plain(self) -> bool:
        """Return whether neither rings nor a formula are owed, so that the plan needs no look at
        the graph.
        """
        return self.formula is None and self.rings[0] == 0


ELEMENTS = tuple(dict.fromkeys(t.symbol for t in TYPES))
ELEMENT_OF = tuple(ELEMENTS.index(t.symbol) for t in TYPES)
# RDKit turns I=O into [I+][O-], which the table does not hold; chemists write no multiple bonds of
# iodine anyway.
SINGLE_BONDS = tuple(t.symbol == "I" for t in TYPES)
# Bonds of an element as the formula's plan uses it: its smallest neutral valence.
NORMAL = tuple(
    next(t.valences[0] for t in TYPES if t.symbol == e and t.charge == 0) for e in ELEMENTS
)


class Outlook(NamedTuple):
    """What a state, or the state after each action, has to finish with; tensors [B, ...] that
    broadcast.

    Args:
        atoms, slots, need, charge, rings, hydrogens: atoms; free slots and needs of open atoms; net
            charge; ring closures; hydrogens of atoms that were left.
        best: the most free slots, not needed ones, on one open atom.
        free: those of the focus.
        partners: how many open atoms with a free slot the focus could close an allowed ring with.
        units: the bond orders which these could take.
        reach: the largest ring within the limit that an atom at the focus could close with an open
            atom that has a free slot (1: with the focus itself, 2: with its neighbour), 0 if none.
        added: place in TYPES of an atom that the action adds, -1 for none.
        clean: whether the focus is a filler with single bonds only; not looked at where no part is
            forbidden.
    """

    atoms: Tensor
    slots: Tensor
    need: Tensor
    charge: Tensor
    rings: Tensor
    hydrogens: Tensor
    best: Tensor
    free: Tensor
    partners: Tensor
    units: Tensor
    reach: Tensor
    added: Tensor
    clean: Tensor


def charges_of(alphabet: tuple[int, ...]) -> tuple[bool, int]:
    """Return `anion` and `cation` of Feasibility for types that may be used.

    >>> charges_of((0, 13)), charges_of((0, 12, 15))
    ((True, 0), (False, 3))
    """
    anion = any(TYPES[place].charge == -1 and TYPES[place].valences[0] == 1 for place in alphabet)
    return anion, min(
        (TYPES[place].valences[0] for place in alphabet if TYPES[place].charge == 1), default=0
    )


def completable(look: Outlook, rules: Feasibility, elements: Tensor | None) -> Tensor:
    """Return whether a plan is known to finish (see the module's proof); `elements` [B,
    elements] are atoms so far.
    """
    owed_charge = (
        torch.zeros_like(look.charge)
        if rules.charge is None
        else _like(rules.charge, look.charge) - look.charge
    )
    if rules.plain:
        return (
            (look.atoms <= rules.atoms[1])
            & _plain_plan(look, rules, owed_charge)
            & (look.rings <= rules.rings[1])
        )
    owed_rings = (rules.rings[0] - look.rings).clamp(min=0)
    fits = (look.atoms <= rules.atoms[1]) & (look.rings <= rules.rings[1])
    if rules.formula is not None:
        return fits & _formula_plan(look, rules, elements, owed_charge, owed_rings)
    return fits & _free_plan(look, rules, owed_charge, owed_rings)


def _like(value_B: Tensor, other: Tensor) -> Tensor:
    return value_B.view(-1, *[1] * (other.ndim - 1))


def _plain_plan(look: Outlook, rules: Feasibility, owed_charge: Tensor) -> Tensor:
    """Return what `_free_plan` does where no ring is owed, in fewer operations: most generation
    is of this kind.
    """
    anions, cations = (-owed_charge).clamp(min=0), owed_charge.clamp(min=0)
    few = look.atoms + torch.maximum(look.need, anions) < rules.atoms[0]
    cost = (
        torch.maximum(look.need, anions)
        + _carriers(look.slots, anions, few, rules)
        + cations * rules.cation
    )
    if rules.filler is not None:
        cost = look.need + _on_fillers(look, rules, anions, cations, torch.zeros_like(anions))
    possible = cost <= rules.atoms[1] - look.atoms
    if not rules.anion:
        possible &= anions == 0
    if not rules.cation:
        possible &= cations == 0
    return possible & ((look.slots >= 1) | ((cost == 0) & (look.atoms >= rules.atoms[0])))


def _carriers(slots: Tensor, anions: Tensor, few: Tensor, rules: Feasibility) -> Tensor:
    """Return how many fillers must come first, so that all anions find slots, and one is left
    where more has to follow.
    """
    lacking = (anions + few - slots).clamp(min=0) * (anions > 0)
    return torch.div(lacking + rules.brings - 1, rules.brings, rounding_mode="floor")


def _on_fillers(
    look: Outlook, rules: Feasibility, anions: Tensor, cations: Tensor, owed_rings: Tensor
) -> Tensor:
    """Return the atoms that charges take if each stands on a filler; the module's proof, part 3."""
    there = (
        look.clean
        & (look.free >= 1)
        & (look.slots >= 2)
        & (owed_rings == 0)
        & (anions + cations > 0)
    )
    return 2 * anions + (1 + rules.cation) * cations - there.long()


def _free_plan(
    look: Outlook, rules: Feasibility, owed_charge: Tensor, owed_rings: Tensor
) -> Tensor:
    """Return whether fillers can settle what is owed within the room; the module's proof, part
    1.
    """
    room, smallest = rules.atoms[1] - look.atoms, rules.sizes[0]
    anions, cations = (-owed_charge).clamp(min=0), owed_charge.clamp(min=0)
    # A ring closed from the focus by a chain of fillers; without one its second bond takes a slot
    # from an old atom.
    chain = torch.where(look.reach > 0, (smallest - look.reach).clamp(min=0), smallest)
    more_rings = owed_rings > 1
    keeps_slot = (
        (chain > 0)
        | (look.slots >= 3)
        | ((owed_charge == 0) & ~more_rings & (look.atoms >= rules.atoms[0]))
    )
    near = (look.reach > 0) & (look.free >= 1) & keeps_slot & (owed_rings > 0)
    if rules.filler is not None:
        near &= (chain > 0) | look.clean
    ring_atoms = torch.where(near, chain + (owed_rings - 1) * smallest, owed_rings * smallest)
    last = (owed_rings == 0) | (near & (owed_rings == 1))
    enough = look.atoms + chain * near + torch.maximum(look.need, anions) >= rules.atoms[0]
    # what a ring that is closed next leaves
    left = look.slots - (2 - chain * rules.brings).clamp(min=0) * near
    carriers = _carriers(left, anions, ~(last & enough), rules)
    charge_atoms = (anions - look.need).clamp(min=0) + carriers + cations * rules.cation
    if rules.filler is not None:
        charge_atoms = _on_fillers(look, rules, anions, cations, owed_rings)
    cost = look.need + charge_atoms + ring_atoms
    possible = ((anions == 0) | rules.anion) & ((cations == 0) | (rules.cation > 0))
    begins = (look.slots >= 1) | ((cost == 0) & (look.atoms >= rules.atoms[0]))
    return possible & begins & (cost <= room)


def _formula_plan(
    look: Outlook, rules: Feasibility, elements: Tensor, owed_charge: Tensor, owed_rings: Tensor
) -> Tensor:
    """Return whether the remaining atoms can be placed with exactly the owed hydrogens; the
    module's proof, part 2.
    """
    device = look.atoms.device
    element_of = torch.tensor((*ELEMENT_OF, 0), device=device)
    left = rules.formula - elements
    left = left.view(len(left), *[1] * (look.added.ndim - 1), -1)
    taken = (
        torch.nn.functional.one_hot(element_of[look.added], len(ELEMENTS))
        * (look.added >= 0)[..., None]
    )
    left = left - taken
    anions, cations = (-owed_charge).clamp(min=0), owed_charge.clamp(min=0)
    normal = torch.tensor(NORMAL, device=device)
    count = {v: (left * (normal == v)).sum(-1) for v in (1, 2, 3, 4)}
    oxygen, nitrogen = left[..., ELEMENTS.index("O")], left[..., ELEMENTS.index("N")]
    # an owed anion is an oxygen of one bond
    count[2], count[1] = count[2] - anions, count[1] + anions
    count[3] = count[3] - cations  # an owed cation is a nitrogen of four bonds, all of them needed
    atoms = sum(count.values())
    total = sum(v * n for v, n in count.items()) + 4 * cations
    twice = look.slots + total - 2 * (atoms + cations) - (rules.hydrogens - look.hydrogens)
    spare = torch.div(twice, 2, rounding_mode="floor")
    need = look.need + 3 * cations
    fits = (left >= 0).all(-1) & (oxygen >= anions) & (nitrogen >= cations) & (atoms >= need)
    if not rules.anion:
        fits &= anions == 0
    if not rules.cation:
        fits &= cations == 0
    fits &= (twice >= 0) & (twice % 2 == 0) & (look.hydrogens <= rules.hydrogens)
    fits &= (look.slots >= 1) | (atoms + cations == 0)
    aside, best = need, look.best
    for v in (1, 2, 3, 4):  # the atoms set aside for needs, of the fewest bonds first
        used = torch.minimum(aside, count[v])
        best = torch.maximum(best, torch.where(used > 0, v - 1, 0))
        count[v], aside = count[v] - used, aside - used
    return fits & _places(
        look, rules, (count[4], count[3], count[2]), best, spare, owed_rings, cations > 0
    )


def _places(
    look: Outlook,
    rules: Feasibility,
    chain: tuple,
    best: Tensor,
    spare: Tensor,
    owed_rings: Tensor,
    waiting: Tensor,
) -> Tensor:
    """Return whether `spare` bond orders can be placed: on a chain, in rings closed from the
    focus, or both.
    """
    four, three, two = chain
    empty = (four + three + two) == 0

    def capacity(first: Tensor, fours: Tensor) -> Tensor:
        table = rules.chain
        limits = [size - 1 for size in table.shape]
        places = [first, fours, three, two]
        legal = torch.stack([(p >= 0) & (p <= m) for p, m in zip(places, limits, strict=True)]).all(
            0
        )
        best = table[tuple(p.clamp(0, m) for p, m in zip(places, limits, strict=True))]
        return torch.where(legal, best, IMPOSSIBLE)

    none_owed = owed_rings == 0
    ok = none_owed & (spare <= torch.where(empty, 0, capacity(best, four)))
    allowed = rules.rings[1] - look.rings
    for closed in (1, 2, 3):  # bond orders that rings from the focus take
        single = (look.partners >= closed) & (allowed >= closed)
        double = none_owed & (look.units >= closed) & (look.partners >= 1) & (allowed >= closed)
        if rules.sizes[0] > 3:  # a second ring from the same atom may become smaller by the first
            single, double = (
                single & (closed == 1),
                double & (closed <= 2) & (look.units >= 2 * look.partners),
            )
        takes = (
            (single | double) & (look.free >= closed) & (closed >= owed_rings) & (spare >= closed)
        )
        takes &= (look.slots > 2 * closed) | ~waiting  # an owed cation needs a slot to stand on
        rest = torch.where(empty, 0, capacity(look.free - closed, four))
        ok |= takes & (spare - closed <= rest)
    # Rings of their own: chains of atoms of valence four, closed on themselves or back to an open
    # atom.
    smallest = rules.sizes[0]
    chained = (smallest - look.reach).clamp(min=0)
    closes = (look.reach > 0) & (look.free >= torch.where(chained > 0, 1, 2))
    after = torch.where(chained > 0, 2, look.free - 1)
    own = (torch.full_like(chained, smallest), torch.full_like(best, 2), best >= 1)
    for first_ring, start, possible in (own, (chained, after, closes)):
        fours = four - first_ring - (owed_rings - 1).clamp(min=0) * smallest
        rest = torch.where((fours + three + two) == 0, 0, capacity(start, fours))
        enough = (
            (fours >= 0)
            & (spare >= owed_rings)
            & (spare - owed_rings <= rest)
            & (look.rings + owed_rings <= rules.rings[1])
        )
        ok |= ~none_owed & possible & enough
    return ok
