"""The valence table against the installed RDKit: what it says must be what RDKit makes of such
an atom.
"""

import pytest
from rdkit import Chem, rdBase

from sciforge.errors import ConfigError
from sciforge.molecules.chemistry.valence import NONE, ORGANIC, TYPES, AtomType, indices_of

ORDERS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}


def std(total: int) -> list[list[int]]:
    """Return ways to reach a total by bonds of order 1 to 3: single ones only, and as few as can
    be.
    """
    return [[1] * total, [3] * (total // 3) + [total % 3] * (total % 3 > 0)]


def judged(kind: AtomType, orders: list[int]) -> tuple[int, int, int]:
    """Return charge, hydrogens and radicals that RDKit gives to an atom with such bonds to
    carbons.
    """
    mol = Chem.RWMol()
    atom = Chem.Atom(kind.symbol)
    atom.SetFormalCharge(kind.charge)
    mol.AddAtom(atom)
    for order in orders:
        mol.AddBond(0, mol.AddAtom(Chem.Atom("C")), ORDERS[order])
    with rdBase.BlockLogs():
        Chem.SanitizeMol(mol)
    found = mol.GetAtomWithIdx(0)
    return found.GetFormalCharge(), found.GetTotalNumHs(), found.GetNumRadicalElectrons()


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_rdkit_agrees(kind: AtomType):
    for used in range(kind.valences[-1] + 1):
        hydrogens = kind.slots(used)
        if hydrogens == NONE or (kind.bonds_only and kind.need(used)):
            continue  # never left so
        for orders in std(used):
            try:
                found = judged(kind, orders)
            except Chem.MolSanitizeException as error:
                pytest.fail(f"this RDKit refuses {kind.name} with bonds {orders}: {error}")
            assert found == (
                kind.charge,
                hydrogens,
                0,
            ), f"{kind.name} with bonds {orders}: RDKit moved its valences"


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_what_generation_leaves_is_sane(kind: AtomType):
    endings = kind.endings()
    assert set(endings) <= set(range(kind.valences[-1] + 1)) and endings[-1] == kind.valences[-1]
    for used in range(kind.valences[-1] + 1):
        need = kind.need(used)
        assert (need == 0) == (used in endings) and used + need in endings
        if not need and kind.charge == 0:
            assert kind.slots(used) == 0 or used <= kind.valences[0]  # no S(IV)-H, no P(V)-H
    if kind.charge:
        assert endings == kind.valences  # no NH+, no OH-
    assert kind.need(kind.valences[-1] + 1) == NONE == kind.slots(kind.valences[-1] + 1)


def test_the_order_of_types_is_that_of_stored_files():
    """Stores and checkpoints hold places in the table; new types go to the end."""
    first = (
        "C",
        "N",
        "O",
        "F",
        "S",
        "Cl",
        "Br",
        "I",
        "P",
        "B",
        "Si",
        "Se",
        "N+",
        "O-",
        "N-",
        "S+",
        "S-",
        "O+",
        "P+",
    )
    assert tuple(t.name for t in TYPES)[: len(first)] == first
    assert indices_of(ORGANIC) == tuple(range(16))


def test_unknown_name_is_met_with_a_suggestion():
    with pytest.raises(ConfigError, match="no atom type 'Sii'.*Si"):
        indices_of(["C", "Sii"])
