"""Sampling: the same seed gives the same file, motion is Boltzmann's, walls are seen, charges
are passed.
"""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit", reason="RDKit makes the geometries")

from sciforge.errors import ConfigError, DataError, MissingExtra
from sciforge.structures.labelling import sample as sampling
from sciforge.structures.labelling.geometries import (
    BOLTZMANN_EV_K,
    KCAL_MOL_EV,
    SOFTEST_EV_A2,
    charge_and_spin,
    dimer,
    find_wells,
    internal_space,
    molecule,
    skeleton,
    stretched,
)
from sciforge.structures.labelling.sample import Sample
from sciforge.structures.readers import read_structures


def sample(smiles=("CCO", "CC(=O)[O-]"), **changes):
    return Sample(smiles=smiles, **{"conformers": 2, "per_conformer": 4} | changes)


def test_same_seed_same_bytes(tmp_path):
    first, again = (sample().run().save(tmp_path / f"{i}.extxyz").read_bytes() for i in range(2))
    other = sample(seed=1).run().save(tmp_path / "2.extxyz").read_bytes()
    assert first == again != other


def test_a_molecule_does_not_depend_on_its_neighbours_in_the_file(tmp_path):
    both = list(sample().run())
    alone = list(sample(smiles=("CC(=O)[O-]",)).run())
    assert len(both) == 16 and len(alone) == 8
    for a, b in zip(both[8:], alone, strict=True):
        assert a.name == b.name and np.array_equal(a.pos_A_N3, b.pos_A_N3)


def test_charge_spin_and_group(tmp_path):
    out = sample(
        smiles=("CC(=O)[O-]", "C[NH3+]", "[CH3]", "CCO"), conformers=1, per_conformer=1
    ).run()
    found = list(out)
    assert [one.charge for one in found] == [-1, 1, 0, 0]
    assert [one.spin for one in found] == [1, 1, 2, 1]
    assert found[3].group == "LFQSCWFLJHTTHZ"  # InChIKey of ethanol: LFQSCWFLJHTTHZ-UHFFFAOYSA-N
    assert len(found[1]) == 8  # hydrogens are there


def test_group_sees_neither_stereochemistry_nor_mobile_hydrogens():
    assert skeleton(molecule("C[C@H](N)O")) == skeleton(molecule("C[C@@H](N)O"))
    assert skeleton(molecule("Oc1ccccn1")) == skeleton(molecule("O=c1cccc[nH]1"))
    assert charge_and_spin(molecule("[NH3+]CC(=O)[O-]")) == (0, 1)


def test_hessian_is_that_of_the_energy():
    """RDKit's gradient silently uses the distances of the last energy; a Hessian of it must not."""
    from rdkit.Chem import AllChem

    mol = molecule("O")
    well = find_wells(mol, 1, 3)[0]
    field = AllChem.MMFFGetMoleculeForceField(mol, AllChem.MMFFGetMoleculeProperties(mol))
    for stiffness, mode in zip(well.stiffness_eV_A2_M, well.modes_MN3, strict=True):
        ends = [
            field.CalcEnergy((well.pos_A_N3 + step * mode).ravel().tolist())
            for step in (1e-3, 0, -1e-3)
        ]
        assert stiffness == pytest.approx(
            (ends[0] - 2 * ends[1] + ends[2]) / 1e-6 * KCAL_MOL_EV, rel=1e-3
        )
    # bend, stretch
    assert 5 < well.stiffness_eV_A2_M[0] < 30 and 50 < well.stiffness_eV_A2_M[2] < 150


@pytest.mark.parametrize(("smiles", "internal"), [("O", 3), ("C#C", 7), ("CCO", 21), ("[H][H]", 1)])
def test_internal_modes(smiles, internal):
    well = find_wells(molecule(smiles), 1, 1)[0]
    assert well.modes_MN3.shape == (internal, len(well.pos_A_N3), 3)
    assert abs(well.modes_MN3.sum(1)).max() < 1e-9  # no translation
    turning = np.cross(well.pos_A_N3 - well.pos_A_N3.mean(0), well.modes_MN3).sum(1)
    assert abs(turning).max() < 1e-4  # no rotation; acetylene is straight to 1e-5


def test_internal_space_is_orthonormal():
    basis = internal_space(np.random.default_rng(0).standard_normal((5, 3)))
    assert basis.shape == (15, 9) and np.allclose(basis.T @ basis, np.eye(9))


def test_every_mode_has_half_kT_and_the_soft_ones_less():
    well = find_wells(molecule("CC=O"), 1, 1)[0]
    random = np.random.default_rng(0)
    variances = []
    for temperature in (300.0, 1200.0):
        drawn = np.array([well.thermal(temperature, random) - well.pos_A_N3 for _ in range(3000)])
        along = np.einsum("sni,mni->sm", drawn, well.modes_MN3)
        stiffness = np.maximum(well.stiffness_eV_A2_M, SOFTEST_EV_A2)
        assert (along**2).mean(0) * stiffness == pytest.approx(
            BOLTZMANN_EV_K * temperature, rel=0.12
        )
        variances.append((drawn**2).mean())
    assert variances[1] / variances[0] == pytest.approx(4, rel=0.1)
    assert np.array_equal(well.thermal(0.0, random), well.pos_A_N3)


def test_stretched_changes_one_bond():
    mol = molecule("CCO")
    well = find_wells(mol, 1, 1)[0]
    random = np.random.default_rng(0)
    ratios = []
    for _ in range(200):
        pos = stretched(mol, well.pos_A_N3, random)
        pairs = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]
        ratio = [
            np.linalg.norm(pos[a] - pos[b]) / np.linalg.norm(np.subtract(*well.pos_A_N3[[a, b]]))
            for a, b in pairs
        ]
        changed = [r for r in ratio if abs(r - 1) > 1e-9]
        assert len(changed) == 1
        ratios += changed
    assert 0.75 <= min(ratios) < 0.8 and 1.5 < max(ratios) <= 1.6
    ring = molecule("c1ccccc1")
    flat = find_wells(ring, 1, 1)[0].pos_A_N3
    moved = [np.abs(stretched(ring, flat, random) - flat).max(1) > 1e-9 for _ in range(50)]
    assert max(map(sum, moved)) == 1  # only hydrogens leave


def test_wild_and_stretched_are_shares(tmp_path):
    out = sample(smiles=("CCO",), conformers=1, per_conformer=400, wild=0.25, stretched=0.25).run()
    names = [one.name for one in out]
    assert 70 < sum(name.endswith("wild") for name in names) < 130
    assert 70 < sum(name.endswith("stretched") for name in names) < 130


@pytest.mark.parametrize("closest_A", [2.0, 4.5])
def test_dimer_touches_at_the_distance_asked(tmp_path, closest_A):
    first, second = (next(Sample(smiles=(s,)).geometries(s)) for s in ("CC(=O)[O-]", "O"))
    random = np.random.default_rng(4)
    for _ in range(20):
        both = dimer(first, second, closest_A, random)
        a, b = both.pos_A_N3[: len(first)], both.pos_A_N3[len(first) :]
        assert np.linalg.norm(a[:, None] - b[None], axis=2).min() == pytest.approx(
            closest_A, abs=1e-6
        )
        inside = np.linalg.norm(a[:, None] - a[None], axis=2)
        assert np.allclose(
            inside, np.linalg.norm(first.pos_A_N3[:, None] - first.pos_A_N3[None], axis=2)
        )
        volume = [np.linalg.det(part[1:4] - part[0]) for part in (a, first.pos_A_N3)]
        assert volume[0] == pytest.approx(volume[1])  # turned, not mirrored
        assert (both.charge, both.spin, both.group) == (-1, 1, f"{first.group}.{second.group}")


def test_files_of_smiles(tmp_path, caplog):
    file = tmp_path / "some.smi"
    file.write_text("# a comment\nCCO ethanol\n\nC1CC\nO\nFS(F)(F)(F)(F)F\n")
    out = sample(smiles=file, conformers=1, per_conformer=1).run().save(tmp_path / "out.extxyz")
    assert [one.name.split()[0] for one in read_structures(out)] == ["CCO", "O"]
    rejected = [json.loads(line) for line in Path(f"{out}.rejected.jsonl").read_text().splitlines()]
    assert [(reject["line"], reject["name"]) for reject in rejected] == [
        (4, "C1CC"),
        (6, "FS(F)(F)(F)(F)F"),
    ]
    assert "no SMILES" in rejected[0]["reason"] and "parameters" in rejected[1]["reason"]
    assert "2 of 4 molecules rejected" in caplog.text


def test_mistakes_are_named(tmp_path, monkeypatch):
    def fails(error, match, **changes):
        with pytest.raises(error, match=match):
            sample(**changes).run()

    fails(ConfigError, "at least 1", conformers=0)
    fails(ConfigError, "kelvin", temperature_K=(-1.0,))
    fails(ConfigError, "kelvin", temperature_K=())
    fails(ConfigError, "shares", wild=0.7, stretched=0.7)
    fails(DataError, "no SMILES of a molecule", smiles=("nonsense",))
    fails(DataError, "there is no SMILES", smiles=())
    fails(DataError, "none.smi", smiles=tmp_path / "none.smi")
    monkeypatch.setattr(sampling, "find_spec", lambda package: None)
    fails(MissingExtra, "rdkit is not installed")
