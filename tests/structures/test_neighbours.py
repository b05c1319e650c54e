"""Neighbours against ASE's own list: molecules, slabs, triclinic and tiny cells, atoms far
outside the cell.
"""

import ase
import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.geometry import complete_cell
from ase.neighborlist import primitive_neighbor_list

from sciforge.errors import DataError
from sciforge.structures.neighbours import find_neighbours, require_apart
from sciforge.structures.structure import Structure


def assert_as_ase(pos, cell, pbc, cutoff=5.0):
    mine = find_neighbours(pos, cell, pbc, cutoff)
    i, j, shift = primitive_neighbor_list(
        "ijS", pbc, complete_cell(cell), pos, cutoff, self_interaction=False
    )
    theirs = sorted(zip(i.tolist(), j.tolist(), map(tuple, shift.tolist()), strict=True))
    ours = list(
        zip(
            mine.receiver_E.tolist(),
            mine.sender_E.tolist(),
            map(tuple, mine.shift_E3.tolist()),
            strict=True,
        )
    )
    assert ours == theirs
    lengths = np.linalg.norm(mine.vectors_A(pos, cell), axis=1)
    assert (lengths < cutoff).all() and (len(lengths) == 0 or lengths.min() > 0)


@pytest.mark.parametrize("name", ["CH3CH2OH", "C6H6", "H2O", "H"])
def test_molecules(name):
    atoms = ase.Atoms("H") if name == "H" else molecule(name)
    assert_as_ase(atoms.positions, np.zeros((3, 3)), np.zeros(3, bool))


@pytest.mark.parametrize(
    "atoms", [bulk("Cu"), bulk("Si"), bulk("NaCl", "rocksalt", 5.6), bulk("Mo").repeat((2, 1, 1))]
)
def test_cells_smaller_than_the_cutoff(atoms):
    assert_as_ase(atoms.positions, atoms.cell.array, atoms.pbc)


def test_a_slab_and_a_slab_without_a_third_vector():
    slab = fcc111("Al", (2, 2, 3), vacuum=8)
    assert_as_ase(slab.positions, slab.cell.array, slab.pbc)
    cell = slab.cell.array.copy()
    cell[2] = 0
    assert_as_ase(slab.positions, cell, np.array([True, True, False]))


@pytest.mark.parametrize("seed", range(60))
def test_random_cells_and_periodicity(seed):
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(1.5, 7, 3)) + rng.normal(0, 0.8, (3, 3))
    pbc = rng.random(3) < 0.5
    if seed % 3 == 0:
        cell[~pbc] = 0
    assert_as_ase(rng.uniform(-6, 10, (rng.integers(1, 8), 3)), cell, pbc)


def test_a_supercell_has_the_same_neighbours():
    small, large = bulk("Si"), bulk("Si").repeat(3)
    few, many = (find_neighbours(a.positions, a.cell.array, a.pbc, 5.0) for a in (small, large))
    assert len(many) == 27 * len(few)


def test_overlapping_atoms_are_named():
    structure = Structure(
        np.array([1, 1, 8]), np.array([[0.0, 0, 0], [0, 0, 1], [0, 0, 1.05]]), name="frame"
    )
    edges = find_neighbours(structure.pos_A_N3, structure.cell_A_33, structure.pbc_3, 5.0)
    with pytest.raises(DataError, match="frame: atoms 2 and 3 are 0.050 angstrom apart"):
        require_apart(structure, edges)


def test_identical_positions_are_named():
    structure = Structure(np.array([1, 1]), np.zeros((2, 3)))
    edges = find_neighbours(structure.pos_A_N3, structure.cell_A_33, structure.pbc_3, 5.0)
    with pytest.raises(DataError, match="atoms 1 and 2 are 0.000 angstrom apart"):
        require_apart(structure, edges)
