"""The valence rules: which (element, charge) may be built, with which total bond orders; one table
for everything.

A molecule is a kekulised graph of heavy atoms: element, formal charge, bond orders 1, 2 and 3.
Hydrogens are implicit and fill up to the smallest allowed valence. The table is a curated part of
what RDKit accepts; the tests hold it against the installed RDKit, so that a release that moves its
valence model fails loudly. No radicals, no bare ions, no Cl(VII).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from sciforge.errors import ConfigError, did_you_mean

MAX_ORDER = 3
NONE = -1  # in the tables below: this total of bond orders cannot be


@dataclass(frozen=True)
class AtomType:
    """An element with a formal charge and the total bond orders that it may have, hydrogens
    counted.

    Args:
        symbol: of the element.
        charge: formal charge.
        valences: allowed totals, ascending.
        bonds_only: a generated atom reaches its valence by bonds to heavy atoms alone: N+ must not
            end as NH+ nor O- as OH-, since a generator that may leave them so draws charges where
            the structure asks for none.
    """

    symbol: str
    charge: int
    valences: tuple[int, ...]
    bonds_only: bool = False

    @property
    def name(self) -> str:
        """Return the symbol with its charge, such as N+ or O-."""
        return self.symbol + "+" * self.charge + "-" * -self.charge

    def endings(self) -> tuple[int, ...]:
        """Return the sums of bond orders to heavy atoms at which a generated atom may be left.

        Hydrogen completes the smallest valence only: S(IV)-H and P(V)-H are kept out.

        >>> AtomType("S", 0, (2, 4, 6)).endings(), AtomType("N", 1, (4,), bonds_only=True).endings()
        ((0, 1, 2, 4, 6), (4,))
        """
        return self.valences if self.bonds_only else (*range(self.valences[0]), *self.valences)

    def slots(self, used: int) -> int:
        """Return how many hydrogens complete an atom with bonds of total order `used`; NONE where
        no valence holds them.

        >>> [AtomType("S", 0, (2, 4, 6)).slots(used) for used in (1, 2, 3, 7)]
        [1, 0, 1, -1]
        """
        return next((v - used for v in self.valences if v >= used), NONE)

    def need(self, used: int) -> int:
        """Return how much bond order to heavy atoms is missing before a generated atom may be left;
        NONE if it never may.

        >>> [AtomType("S", 0, (2, 4, 6)).need(used) for used in (1, 2, 3, 4, 5)]
        [0, 0, 1, 0, 1]
        """
        return next((end - used for end in self.endings() if end >= used), NONE)


# The order is part of every store and checkpoint: new types go to the end.
TYPES = (
    AtomType("C", 0, (4,)),
    AtomType("N", 0, (3,)),
    AtomType("O", 0, (2,)),
    AtomType("F", 0, (1,)),
    AtomType("S", 0, (2, 4, 6)),
    AtomType("Cl", 0, (1,)),
    AtomType("Br", 0, (1,)),
    AtomType("I", 0, (1, 3, 5)),
    AtomType("P", 0, (3, 5)),
    AtomType("B", 0, (3,)),
    AtomType("Si", 0, (4,)),
    AtomType("Se", 0, (2, 4, 6)),
    AtomType("N", 1, (4,), bonds_only=True),
    AtomType("O", -1, (1,), bonds_only=True),
    AtomType("N", -1, (2,), bonds_only=True),
    AtomType("S", 1, (3,), bonds_only=True),
    AtomType("S", -1, (1,), bonds_only=True),
    AtomType("O", 1, (3,), bonds_only=True),
    AtomType("P", 1, (4,), bonds_only=True),
    AtomType("B", -1, (4,), bonds_only=True),
    AtomType("C", -1, (3,), bonds_only=True),
    AtomType("S", 2, (4,), bonds_only=True),
    AtomType("Cl", 3, (4,), bonds_only=True),
    # a hydrogen that RDKit keeps as an atom: H2, or one that bridges
    AtomType("H", 0, (1,), bonds_only=True),
)
MAX_USED = max(t.valences[-1] for t in TYPES)

# What a generator may use unless told otherwise: the atoms of drug-like molecules, nitro groups and
# N-oxides among them.
ORGANIC = ("C", "N", "O", "F", "S", "Cl", "Br", "I", "P", "B", "Si", "Se", "N+", "O-", "N-", "S+")


@cache
def index_of(symbol: str, charge: int) -> int | None:
    """Return the place of an (element, charge) in TYPES, None where the table does not hold it.

    >>> index_of("N", 1), index_of("Pt", 0)
    (12, None)
    """
    return next((i for i, t in enumerate(TYPES) if (t.symbol, t.charge) == (symbol, charge)), None)


def indices_of(names: Iterable[str]) -> tuple[int, ...]:
    """Return the places in TYPES of names such as C, N+ and O-.

    Raises:
        ConfigError: a name is not in the table.

    >>> indices_of(["C", "O-"])
    (0, 13)
    """
    known = {t.name: i for i, t in enumerate(TYPES)}
    for name in names:
        if name not in known:
            raise ConfigError(f"no atom type {name!r}; {did_you_mean(name, known)}")
    return tuple(known[name] for name in names)
