"""The bundled atoms data are what their cards say, physical, and without the molecules that are
for testing.
"""

from collections import Counter

import numpy as np
import pytest

from sciforge import api, catalog
from sciforge.atoms.data.structures import Structures
from sciforge.core.files.atomic import sha256
from sciforge.structures.labelling.geometries import molecule, skeleton
from sciforge.structures.labelling.quantum import LevelOfTheory, single_point
from sciforge.structures.readers import read_structures
from sciforge.structures.splits import formula, skeleton_of_smiles

# all tautomers of malonaldehyde and acetylacetone share formula and skeleton with these
HELD_OUT = {"malonaldehyde": "O=CC=CO", "acetylacetone": "CC(=O)CC(C)=O", "ethanol": "CCO"}
HELD_OUT |= {"aspirin": "CC(=O)Oc1ccccc1C(=O)O"}


@pytest.fixture(scope="module")
def small():
    return list(read_structures(catalog.fetch("xtb-small")))


@pytest.fixture(scope="module")
def malonaldehyde():
    return list(read_structures(catalog.fetch("malonaldehyde-dft")))


def smiles_of(structure):
    return tuple(part.split()[0] for part in structure.name.split(" + "))


def identity(smiles):
    """Formula with hydrogens, and the skeleton of heavy atoms."""
    numbers = np.array([atom.GetAtomicNum() for atom in molecule(smiles).GetAtoms()])
    return formula(numbers), skeleton_of_smiles(smiles)


def require_physical_labels(structures, lowest_eV, highest_eV):
    for structure in structures:
        assert np.abs(structure.forces_eV_A_N3.sum(0)).max() < 2e-3, structure.name
        assert np.linalg.norm(structure.forces_eV_A_N3, axis=1).max() <= 100, structure.name
        assert lowest_eV < structure.energy_eV / len(structure) < highest_eV, structure.name


@pytest.mark.parametrize("name", ["xtb-small", "malonaldehyde-dft"])
def test_the_files_are_the_ones_on_the_cards(name):
    card, path = catalog.cards()[name], catalog.datasets_folder() / catalog.cards()[name].file
    assert sha256(path) == card.sha256 and path.stat().st_size == card.bytes


def test_the_small_molecules(small):
    assert len(small) == 15_887 and sum(map(len, small)) == 206_821
    assert set().union(*(s.numbers_N.tolist() for s in small)) == {1, 6, 7, 8, 9, 16, 17}
    assert {(s.level, s.charge, s.spin) for s in small} == {("gfn2-xtb", 0, 1)} and all(
        s.group for s in small
    )
    kinds = Counter(len(smiles_of(s)) for s in small)
    assert kinds == {1: 15_289, 2: 598}
    require_physical_labels(small, -127, -13)


def test_the_names_tell_the_molecules(small):
    pytest.importorskip("rdkit")
    lines = (catalog.datasets_folder() / "xtb-small.smi").read_text().splitlines()
    listed = {line for line in lines if not line.startswith("# ")}
    found = {smiles for s in small for smiles in smiles_of(s)}
    assert found == listed - {"FS(F)(F)(F)(F)F"}  # no force field has parameters for it
    numbers = {
        smiles: [atom.GetAtomicNum() for atom in molecule(smiles).GetAtoms()] for smiles in found
    }
    for s in small:
        assert sorted(s.numbers_N) == sorted(
            z for smiles in smiles_of(s) for z in numbers[smiles]
        ), s.name


def test_the_molecules_for_testing_are_not_among_them(small):
    pytest.importorskip("rdkit")
    found = {smiles for s in small for smiles in smiles_of(s)}
    formulas = {identity(smiles) for smiles in found}
    keys = {key for s in small for key in s.group.split(".")}
    for name, smiles in HELD_OUT.items():
        assert identity(smiles) not in formulas, name
        assert skeleton(molecule(smiles)) not in keys, name


@pytest.mark.parametrize("index", [3, 7001, 15_800])
def test_tblite_gives_the_same_labels(small, index):
    pytest.importorskip("tblite")
    again = single_point(small[index], LevelOfTheory.parse("gfn2-xtb"))
    assert np.abs(again.forces_eV_A_N3 - small[index].forces_eV_A_N3).max() < 1e-3
    assert abs(again.energy_eV - small[index].energy_eV) < 1e-3


def test_malonaldehyde(malonaldehyde):
    frames, atoms = malonaldehyde[:330], malonaldehyde[330:]
    assert {(formula(s.numbers_N), s.level, s.charge, s.spin) for s in frames} == {
        ("C3H4O2", "pbe/def2-svp", 0, 1)
    }
    assert Counter(s.group.split("_")[0] for s in frames) == {"walker1": 165, "walker2": 165}
    assert set(Counter(s.group for s in frames).values()) == {15}
    require_physical_labels(frames, -807, -805)
    assert np.ptp([s.energy_eV for s in frames]) < 1.5
    assert [(s.numbers_N.tolist(), s.spin, s.level) for s in atoms] == [
        ([z], spin, "pbe/def2-svp") for z, spin in ((1, 2), (6, 3), (8, 3))
    ]


def test_the_isolated_atoms_become_references(tmp_path):
    path = catalog.fetch("malonaldehyde-dft")
    store = api.prepare(Structures(files=(path,), split="time"), tmp_path / "store").store
    reference = store.meta["reference"]["pbe/def2-svp"]
    assert reference["isolated_eV"].keys() == {"H", "C", "O"} and reference["how"] == "isolated"
    assert store.meta["isolated_frames"] == 3 and not store.meta["notes"]
    # atomisation takes 42 eV, so the levels and spins of the atoms are those of the frames
    apart = sum(n * reference["isolated_eV"][s] for s, n in (("C", 3), ("H", 4), ("O", 2)))
    assert -43 < store.column("energy_eV").mean() - apart < -42
