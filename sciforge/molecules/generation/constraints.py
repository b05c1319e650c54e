"""What a user may ask of generated molecules, checked for feasibility before a single one is
drawn.
"""

import re
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError
from sciforge.molecules.chemistry.valence import MAX_ORDER, TYPES
from sciforge.molecules.generation.action_mask import legal
from sciforge.molecules.generation.feasibility import (
    ELEMENTS,
    IMPOSSIBLE,
    NO_LIMIT,
    NORMAL,
    Feasibility,
    charges_of,
)
from sciforge.molecules.generation.partial_graph import Actions, PartialGraph

MAX_ATOMS = 64


@dataclass(frozen=True, kw_only=True)
class Constraints(Settings):
    """Hard constraints that every generated molecule keeps, all at once.

    Args:
        charge: net charge.
        atoms: fewest and most heavy atoms.
        formula: exact molecular formula such as C9H8O4 (hydrogens included); overrides `atoms`.
        rings: fewest and most rings (independent cycles).
        ring_sizes: smallest and largest ring.
        types: atom types to use, such as C N O F; all of the checkpoint's alphabet where empty.
        scaffold: SMILES to grow from, kept whole in every molecule; with dummy atoms (*) growth
            starts only at their neighbours.
        forbidden: SMILES of substructures that must not appear, compared as kekulised graphs of
            heavy atoms.
    """

    charge: int = 0
    atoms: tuple[int, int] = (1, 40)
    formula: str | None = None
    rings: tuple[int, int] = (0, NO_LIMIT)
    ring_sizes: tuple[int, int] = (3, 8)
    types: tuple[str, ...] = ()
    scaffold: str | None = None
    forbidden: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.atoms[0] <= self.atoms[1] <= MAX_ATOMS:
            raise ConfigError(
                f"atoms is {self.atoms}; give the fewest and the most heavy atoms, 1 to {MAX_ATOMS}"
            )
        if not 0 <= self.rings[0] <= self.rings[1]:
            raise ConfigError(
                f"rings is {self.rings}; give the fewest and the most rings, at least 0"
            )
        if not 3 <= self.ring_sizes[0] <= self.ring_sizes[1] <= 24:
            raise ConfigError(
                f"ring_sizes is {self.ring_sizes}; give the smallest and the largest ring, 3 to 24"
                " atoms"
            )
        if self.formula is not None and self.atoms != type(self).atoms:
            heavy = sum(parse_formula(self.formula)[0].values())
            if not self.atoms[0] <= heavy <= self.atoms[1]:
                raise ConfigError(
                    f"formula {self.formula} has {heavy} heavy atoms, and atoms is {self.atoms};"
                    " leave one out"
                )


def parse_formula(formula: str) -> tuple[dict[str, int], int]:
    """Return the heavy atoms of each element and the hydrogens of a formula.

    Raises:
        ConfigError: not a formula, an element outside the table, or no heavy atom.

    >>> parse_formula("C9H8O4")
    ({'C': 9, 'O': 4}, 8)
    """
    parts = re.findall(r"([A-Z][a-z]?)(\d*)", formula)
    if "".join(symbol + number for symbol, number in parts) != formula or not parts:
        raise ConfigError(f"formula {formula!r} cannot be read; write it like C9H8O4")
    counts: dict[str, int] = {}
    for symbol, number in parts:
        counts[symbol] = counts.get(symbol, 0) + (int(number) if number else 1)
    hydrogens = counts.pop("H", 0)
    for symbol in counts:
        if symbol not in ELEMENTS:
            raise ConfigError(f"formula {formula!r}: the valence table holds no {symbol}")
    if not 1 <= sum(counts.values()) <= MAX_ATOMS:
        raise ConfigError(
            f"formula {formula!r} has {sum(counts.values())} heavy atoms; 1 to {MAX_ATOMS} can be"
            " generated"
        )
    return counts, hydrogens


def chain_capacities(four: int, three: int, two: int) -> Tensor:
    """Return how many bond orders above one a chain can take [free slots, fours + 1, threes + 1,
    twos + 1].

    The chain starts at an atom with some free slots and holds all of so many atoms of four, three
    and two bonds; IMPOSSIBLE where they cannot all be placed.

    >>> table = chain_capacities(2, 1, 0)
    >>> int(table[1, 1, 0, 0]), int(table[1, 2, 0, 0]), int(table[1, 1, 1, 0])
    (0, 2, 2)
    """
    table = torch.full((MAX_ORDER * 2 + 1, four + 1, three + 1, two + 1), IMPOSSIBLE)

    @cache
    def most(free: int, fours: int, threes: int, twos: int) -> int:
        if not fours + threes + twos:
            return 0
        best = IMPOSSIBLE
        for bonds, rest in (
            (4, (fours - 1, threes, twos)),
            (3, (fours, threes - 1, twos)),
            (2, (fours, threes, twos - 1)),
        ):
            if min(rest) >= 0:
                for order in range(1, min(MAX_ORDER, free, bonds) + 1):
                    best = max(best, order - 1 + most(bonds - order, *rest))
        return max(best, IMPOSSIBLE)

    for free in range(table.shape[0]):
        for fours in range(four + 1):
            for threes in range(three + 1):
                for twos in range(two + 1):
                    table[free, fours, threes, twos] = most(free, fours, threes, twos)
    return table


def alphabet_of(constraints: Constraints, alphabet: tuple[int, ...]) -> tuple[int, ...]:
    """Return the places in TYPES that may be used; raises ConfigError for a type that the
    checkpoint does not know.
    """
    names = {TYPES[place].name: place for place in alphabet}
    if unknown := [name for name in constraints.types if name not in names]:
        raise ConfigError(
            f"the checkpoint's alphabet holds no {unknown[0]!r}; it knows {', '.join(names)}"
        )
    allowed = {names[name] for name in constraints.types} or set(alphabet)
    return tuple(place for place in alphabet if place in allowed)


def compile_feasibility(
    constraints: Constraints, alphabet: tuple[int, ...], device: torch.device | str = "cpu"
) -> Feasibility:
    """Return the constraints as tensors.

    Args:
        constraints: of the user.
        alphabet: the types that may be used.
        device: of the tensors.

    Raises:
        ConfigError: the formula cannot be read, or the plan of the rules needs a type that is not
            allowed.
    """
    allowed = [TYPES[place] for place in alphabet]
    if not any(t.charge == 0 and t.valences[0] >= 3 for t in allowed):
        raise ConfigError(
            "types holds no neutral type of three or more bonds, which loose ends may need; add C"
            " or N"
        )
    anion, cation = charges_of(alphabet)
    options = {
        "charge": torch.tensor([constraints.charge], device=device),
        "rings": constraints.rings,
    }
    brings = max(t.valences[0] for t in allowed if t.charge == 0) - 2
    options |= {"sizes": constraints.ring_sizes, "anion": anion, "cation": cation, "brings": brings}
    if constraints.formula is None:
        return Feasibility(constraints.atoms, **options)
    counts, hydrogens = parse_formula(constraints.formula)
    neutral = {t.symbol for t in allowed if t.charge == 0}
    if missing := sorted(set(counts) - neutral):
        raise ConfigError(
            f"formula {constraints.formula}: {missing[0]} is not among the types that may be used;"
            " add it to types"
        )
    # The plan for a formula places its charges as an oxygen of one bond and a nitrogen of four.
    options |= {
        "anion": any(t.name == "O-" for t in allowed),
        "cation": 4 * any(t.name == "N+" for t in allowed),
    }
    by_bonds = {
        v: sum(n for e, n in counts.items() if NORMAL[ELEMENTS.index(e)] == v) for v in (2, 3, 4)
    }
    atoms = sum(counts.values())
    formula = torch.tensor([counts.get(e, 0) for e in ELEMENTS], device=device)
    chain = chain_capacities(by_bonds[4], by_bonds[3], by_bonds[2]).to(device)
    return Feasibility((atoms, atoms), **options, formula=formula, hydrogens=hydrogens, chain=chain)


def require_feasible(
    constraints: Constraints,
    rules: Feasibility,
    partial_graph: PartialGraph,
    actions: Actions,
    only: Tensor,
) -> None:
    """Refuse a request that no molecule can meet, or none is known to, before anything is drawn.

    Args:
        constraints: of the user.
        rules: the same, compiled.
        partial_graph: one molecule as sampling will find it: empty, or the scaffold.
        actions: how they are numbered.
        only: [A] the actions that add no type that may not be used.

    Raises:
        ConfigError: names what is in the way.
    """
    if bool(legal(partial_graph, actions, rules, only).any()):
        return
    asked = f"no molecule with {_said(constraints)} can be grown"
    if constraints.formula is not None:
        raise ConfigError(f"{asked}: {_why_not_formula(constraints)}")
    if partial_graph.num.any() and int(partial_graph.num) > constraints.atoms[1]:
        raise ConfigError(f"{asked}: the scaffold has {int(partial_graph.num)} atoms")
    if partial_graph.num.any() and int(partial_graph.rings) > constraints.rings[1]:
        raise ConfigError(f"{asked}: the scaffold has {int(partial_graph.rings)} rings")
    if constraints.charge > 0 and not rules.cation or constraints.charge < 0 and not rules.anion:
        raise ConfigError(
            f"{asked}: no atom type of that charge may be used; add N+ or O- to types"
        )
    needed = constraints.rings[0] * constraints.ring_sizes[0]
    raise ConfigError(
        f"{asked}: charges, rings and needed bonds take more atoms than"
        f" {constraints.atoms[1]}{f' (the rings alone up to {needed})' if needed else ''}; allow"
        " more atoms or ask for less"
    )


def _said(constraints: Constraints) -> str:
    """Return what was asked for, other than the defaults, in words."""
    plain = Constraints()
    words = {
        "formula": "formula {}",
        "charge": "charge {:+d}",
        "atoms": "atoms {0[0]} to {0[1]}",
        "scaffold": "scaffold {}",
    }
    words |= {
        "rings": "rings {0[0]} to {0[1]}",
        "ring_sizes": "ring sizes {0[0]} to {0[1]}",
        "types": "types {}",
    }
    asked = {
        name: getattr(constraints, name)
        for name in words
        if getattr(constraints, name) != getattr(plain, name)
    }
    return ", ".join(words[name].format(value) for name, value in asked.items()) or "these settings"


def _why_not_formula(constraints: Constraints) -> str:
    """Return the reason in terms of hydrogens and unsaturation."""
    counts, hydrogens = parse_formula(constraints.formula)
    heavy = sum(counts.values())
    # Lewis structures of the whole: a positive charge on nitrogen binds one more, a negative one on
    # oxygen one less.
    bonds = sum(NORMAL[ELEMENTS.index(e)] * n for e, n in counts.items()) + constraints.charge
    most = bonds - 2 * (heavy - 1)
    if constraints.scaffold:
        return "the scaffold does not fit the formula's atoms, hydrogens or charge"
    if (most - hydrogens) % 2:
        return (
            f"odd hydrogen count: {hydrogens} hydrogens leave a radical; use {hydrogens - 1} or"
            f" {hydrogens + 1}"
        )
    if hydrogens > most:
        return f"too many hydrogens: {heavy} heavy atoms in one piece hold at most {max(most, 0)}"
    return (
        f"no way is known to place {(most - hydrogens) // 2} rings and multiple bonds under the"
        " other constraints"
    )
