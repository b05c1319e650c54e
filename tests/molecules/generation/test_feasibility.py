"""No dead end: every state of small growths is visited, under many constraints, and held against
brute force.
"""

import pytest
import torch
from every_growth import Found, Game, explore, graphs, said
from rdkit import Chem
from tiny_runs import ROOT, load_file

from sciforge.errors import ConfigError
from sciforge.molecules.chemistry.graph import mol_of_graph
from sciforge.molecules.generation.constraints import Constraints
from sciforge.molecules.generation.sampler import sample

untrained = load_file(ROOT / "benchmarks/molecules_rollouts.py").untrained
NITRO = ("C", "N", "N+", "O", "O-")


def sound(found: Found, charge: int) -> None:
    """Check that there is no dead end, and what RDKit says of what ended."""
    assert not found.dead, [said(partial_graph) for partial_graph in found.examples]
    assert not found.wrong and found.reachable_ends
    for ends, by_mask in found.ends:
        for graph in graphs(ends.select(torch.from_numpy(by_mask.nonzero()[0][:200]))):
            mol = mol_of_graph(graph)
            assert len(Chem.GetMolFrags(mol)) == 1 and Chem.GetFormalCharge(mol) == charge
            assert not any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())


# Over-pruned: the largest share of ways that could be finished and are not offered; near a tight
# limit the plan is cautious.
FREE = [
    (("C", "O"), {"atoms": (1, 5)}, 0.0),
    (("N", "O", "F"), {"atoms": (1, 5)}, 0.0),
    (("C", "N"), {"atoms": (1, 4)}, 0.0),
    (("C", "S"), {"atoms": (1, 4)}, 0.15),
    (("C", "N+", "O-"), {"atoms": (1, 4)}, 0.02),
    (("C", "N+", "O-"), {"atoms": (1, 4), "charge": -1}, 0.02),
    (("C", "N+", "O-"), {"atoms": (1, 5), "charge": 1}, 0.1),
    (("C", "N", "O-", "S+"), {"atoms": (4, 4)}, 0.02),
    (("C", "O"), {"atoms": (5, 5), "rings": (1, 2)}, 0.01),
    (("C", "O"), {"atoms": (1, 5), "rings": (1, 1), "ring_sizes": (5, 5)}, 0.0),
    (("C", "N", "O-"), {"atoms": (1, 5), "rings": (1, 2), "charge": -1}, 0.05),
    (("N", "O-"), {"atoms": (1, 7), "charge": -4}, 0.0),
    (("N", "O-"), {"atoms": (1, 7), "charge": -2, "rings": (1, 1)}, 0.05),
    (("N", "O-"), {"atoms": (5, 6), "charge": -1, "rings": (1, 2), "ring_sizes": (3, 5)}, 0.05),
    (("C", "O-"), {"atoms": (6, 6), "charge": -3, "rings": (1, 1)}, 0.1),
    (("C", "O", "O-"), {"atoms": (4, 5), "scaffold": "C[NH3+]", "charge": 0}, 0.05),
    (("C", "O"), {"atoms": (4, 6), "scaffold": "O=S", "rings": (1, 1)}, 0.3),
]
FORMULAS = [
    (("C", "O"), {"formula": "C3H6O"}, 0.0),
    (("C", "O"), {"formula": "C4H4O", "rings": (1, 2)}, 0.06),
    (("C", "O"), {"formula": "C4H8O", "ring_sizes": (4, 6)}, 0.0),
    (("C", "S"), {"formula": "C2H2S2"}, 0.15),
    (("C", "S"), {"formula": "C2H6S"}, 0.0),
    (NITRO, {"formula": "CH3NO2"}, 0.02),
    (NITRO, {"formula": "C2H3O2", "charge": -1}, 0.01),
    (NITRO, {"formula": "C4H12N", "charge": 1}, 0.0),
    (("C", "F", "Cl"), {"formula": "C3H4FCl"}, 0.02),
    (("C", "P", "O"), {"formula": "C2H3PO2", "rings": (0, 0)}, 0.05),
    (("C", "B", "N"), {"formula": "C2H4BN", "rings": (1, 1)}, 0.06),
]
FORBIDDEN = [
    (("C", "N", "N+", "O-"), {"forbidden": ("N[O-]",), "charge": -1, "atoms": (1, 4)}, 0.06),
    (("C", "N+", "O", "O-"), {"forbidden": ("[O-][N+]=O",), "atoms": (1, 4)}, 0.02),
    (("C", "N+", "O-"), {"forbidden": ("[O-]",), "atoms": (1, 4)}, 0.0),
    (("C", "O", "N"), {"forbidden": ("OO",), "atoms": (1, 4), "rings": (1, 1)}, 0.15),
    (("C", "N"), {"forbidden": ("NN",), "atoms": (4, 4), "rings": (1, 2)}, 0.1),
    (("C", "S", "O"), {"forbidden": ("CC",), "atoms": (1, 4)}, 0.1),
    (("N", "S", "O"), {"forbidden": ("NS",), "atoms": (1, 4)}, 0.0),
    (("C", "S", "N+", "O-"), {"forbidden": ("S[N+]",), "atoms": (3, 4)}, 0.1),
    (("N", "O-"), {"forbidden": ("O[O-]",), "charge": -3, "atoms": (1, 7)}, 0.1),
]


def name(value: object) -> str:
    return ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else ""


@pytest.mark.parametrize(("names", "asked", "share"), [*FREE, *FORMULAS, *FORBIDDEN], ids=name)
def test_every_state_can_be_finished(names: tuple, asked: dict, share: float):
    constraints = Constraints(**asked)
    found = explore(Game.of(constraints, names))
    sound(found, constraints.charge)
    pruned = found.pruned / found.finishing
    assert pruned <= share, (
        f"{found.pruned} of {found.finishing} ways are hidden: {found.pruned_examples}"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (("C", "O"), {"atoms": (1, 6)}),
        (("C", "N+", "O-"), {"atoms": (1, 6)}),
        (("C", "S"), {"atoms": (1, 5)}),
        (("C", "N", "O-", "S+"), {"atoms": (1, 5), "rings": (1, 2)}),
        (("C", "N+", "O-"), {"atoms": (6, 6), "rings": (1, 2), "ring_sizes": (5, 6)}),
        (NITRO, {"formula": "C4H10NO", "charge": 1}),
        (("C", "S"), {"formula": "C3H4S2"}),
        (("C", "O", "N+"), {"forbidden": ("O[N+]",), "charge": 1, "atoms": (1, 5)}),
    ],
    ids=name,
)
def test_larger_growths_have_no_dead_end(names: tuple, asked: dict):
    constraints = Constraints(**asked)
    exploration = explore(Game.of(constraints, names), brute=False)
    assert exploration.reachable_ends and not exploration.dead
    sound(exploration, constraints.charge)


def test_every_end_is_a_molecule():
    """Whole graphs are told apart here, so that RDKit sees each growth that ends."""
    found = explore(Game.of(Constraints(atoms=(1, 4)), ("C", "N", "O")), whole=True, brute=False)
    seen = 0
    for ends, _ in found.ends:
        for graph in graphs(ends):
            mol = mol_of_graph(graph)
            seen += not any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
    assert seen == found.reachable_ends > 5000


def test_without_forbidden_parts_small_molecules_are_all_reached():
    """Completeness: without tight limits, the mask leaves every molecule that valence and ring
    sizes allow.
    """
    found = explore(Game.of(Constraints(atoms=(1, 5)), ("C", "O")))
    strained = sum(int((~by_mask).sum()) for _, by_mask in found.ends)
    assert (
        not found.pruned and strained == found.all_ends - found.reachable_ends
    )  # only what linear atoms in rings cost


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"formula": "C6H7"}, "odd hydrogen count"),
        ({"formula": "C2H8"}, "too many hydrogens.*at most 6"),
        ({"formula": "C2H5Xe"}, "the valence table holds no Xe"),
        ({"formula": "c2h5"}, "cannot be read"),
        ({"formula": "C3H7Cl", "types": ("C", "N")}, "Cl is not among the types"),
        ({"types": ("O", "F")}, "no neutral type of three or more bonds"),
        ({"types": ("C", "Clx")}, "alphabet holds no 'Clx'"),
        ({"charge": 1, "types": ("C", "O")}, "no atom type of that charge"),
        (
            {"rings": (3, 3), "ring_sizes": (6, 6), "atoms": (1, 8)},
            "charges, rings and needed bonds take more atoms than 8",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(asked: dict, reason: str):
    with pytest.raises(ConfigError, match=reason):
        sample(untrained(0), 2, Constraints(**asked))
