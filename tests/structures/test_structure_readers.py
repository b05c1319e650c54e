"""Every format gives back what was written, in our units; ambiguous, damaged and misread files
say so in one line.
"""

import gzip
import json
import os
import re
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from sciforge.errors import ConfigError, DataError, MissingExtra
from sciforge.structures.extxyz import write_extxyz
from sciforge.structures.readers import read_structures
from sciforge.structures.structure import Structure, require_physical
from sciforge.structures.units import Units, suspect_units, unit_factor

SHARED = (
    Path(os.environ.get("SCIFORGE_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "atoms"
)
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the shared data are not at {SHARED}"
)


def labelled(rng, atoms, **changes):
    periodic = bool(atoms.pbc.all())
    return Structure(
        np.array(atoms.numbers, np.int64),
        atoms.positions + rng.normal(0, 0.1, atoms.positions.shape),
        np.array(atoms.cell.array),
        np.array(atoms.pbc),
        energy_eV=float(rng.normal(-4000, 100)),
        forces_eV_A_N3=rng.normal(0, 1, (len(atoms), 3)),
        stress_eV_A3_6=rng.normal(0, 0.1, 6) if periodic else None,
        **changes,
    )


@pytest.fixture
def several():
    rng = np.random.default_rng(0)
    return [
        labelled(
            rng,
            molecule("CH3CH2OH"),
            charge=-1,
            spin=2,
            level="pbe/def2",
            name='an "odd" \\ name',
            group="CCO",
        ),
        labelled(rng, bulk("Si").repeat(2), level="pbe", name="Si=8"),
        Structure(np.array([8, 1]), np.array([[0.0, 0, 0], [0, 0, 1 / 3]])),
    ]


def as_ase(structure, frame=1):
    atoms = ase.Atoms(
        structure.numbers_N, structure.pos_A_N3, cell=structure.cell_A_33, pbc=structure.pbc_3
    )
    results = {
        "energy": structure.energy_eV,
        "forces": structure.forces_eV_A_N3,
        "stress": structure.stress_eV_A3_6,
    }
    atoms.calc = SinglePointCalculator(atoms, **{k: v for k, v in results.items() if v is not None})
    return atoms


def assert_same(read, written, text=True, exact=True):
    close = (
        np.testing.assert_array_equal
        if exact
        else lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7)
    )
    assert (read.charge, read.spin, read.level) == (
        written.charge,
        written.spin,
        written.level,
    ) or not text
    assert (
        read.group == written.group and (not written.name or read.name == written.name) or not text
    )
    for name in ("numbers_N", "pos_A_N3", "cell_A_33", "pbc_3"):
        close(getattr(read, name), getattr(written, name))
    for name in ("energy_eV", "forces_eV_A_N3", "stress_eV_A3_6"):
        assert (getattr(read, name) is None) == (getattr(written, name) is None), name
        if getattr(written, name) is not None:
            close(getattr(read, name), getattr(written, name))


@pytest.mark.parametrize("name", ["a.xyz", "b.extxyz", "c.xyz.gz"])
def test_extended_xyz_gives_back_every_bit(several, tmp_path, name):
    assert write_extxyz(tmp_path / name, several) == 3
    for read, written in zip(read_structures(tmp_path / name), several, strict=True):
        assert_same(read, written)
    write_extxyz(tmp_path / f"again-{name}", several)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"again-{name}").read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_ase_reads_what_is_written(several, tmp_path):
    write_extxyz(tmp_path / "a.xyz", several)
    for atoms, written in zip(ase.io.read(tmp_path / "a.xyz", ":"), several, strict=True):
        assert np.array_equal(atoms.positions, written.pos_A_N3) and np.array_equal(
            atoms.pbc, written.pbc_3
        )
        if written.energy_eV is not None:
            assert atoms.get_potential_energy() == written.energy_eV
            assert np.array_equal(atoms.get_forces(), written.forces_eV_A_N3)
            assert atoms.info["spin"] == written.spin and atoms.info["name"] == written.name
        if written.stress_eV_A3_6 is not None:
            np.testing.assert_allclose(atoms.get_stress(), written.stress_eV_A3_6, rtol=1e-15)


@pytest.mark.parametrize("name", ["a.traj", "a.xyz", "a.xyz.gz", "a.json"])
def test_files_written_by_ase(several, tmp_path, name):
    ase.io.write(tmp_path / name, [as_ase(s) for s in several])
    for read, written in zip(read_structures(tmp_path / name), several, strict=True):
        assert_same(read, written, text=False, exact="xyz" not in name)


def test_databases_of_ase(several, tmp_path):
    from ase.db import connect

    with connect(tmp_path / "a.db") as database:
        for structure in several:
            database.write(as_ase(structure), total_charge=1)
    for read, written in zip(read_structures(tmp_path / "a.db"), several, strict=True):
        assert_same(read, written, text=False)
        assert read.charge == 1


def test_fixed_atoms_keep_their_forces(several, tmp_path):
    from ase.constraints import FixAtoms

    atoms = as_ase(several[0])
    atoms.set_constraint(FixAtoms([0, 1]))
    ase.io.write(tmp_path / "a.traj", atoms)
    (read,) = read_structures(tmp_path / "a.traj")
    assert np.array_equal(read.forces_eV_A_N3, several[0].forces_eV_A_N3)


@pytest.mark.parametrize("name", ["a.cif", "POSCAR"])
def test_formats_whose_units_ase_knows(tmp_path, name):
    crystal = bulk("NaCl", "rocksalt", 5.6)
    ase.io.write(tmp_path / name, crystal)
    (read,) = read_structures(tmp_path / name, units="hartree bohr")
    assert sorted(read.numbers_N) == [11, 17] and read.pbc_3.all() and read.energy_eV is None
    assert read.volume_A3 == pytest.approx(crystal.get_volume(), rel=1e-5)


def test_units_and_keys(tmp_path):
    text = (
        '2\nProperties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-1.0 pbc="F F F"\nH 0 0 0 1 0'
        " 0\nH 0 0 1.4 -1 0 0\n"
    )
    (tmp_path / "a.xyz").write_text(text)
    (read,) = read_structures(tmp_path / "a.xyz", units="hartree bohr")
    assert read.energy_eV == pytest.approx(-27.211386, abs=1e-5)
    assert read.pos_A_N3[1, 2] == pytest.approx(1.4 * 0.52917721, abs=1e-7)
    assert read.forces_eV_A_N3[0, 0] == pytest.approx(51.42207, abs=1e-4)
    (same,) = read_structures(tmp_path / "a.xyz", key_energy="REF_energy", key_forces="REF_forces")
    assert same.energy_eV == -1 and same.forces_eV_A_N3[0, 0] == 1
    with pytest.raises(DataError, match=r"a\.xyz: no frame has 'dft'; correct --key-energy"):
        list(read_structures(tmp_path / "a.xyz", key_energy="dft"))


@pytest.mark.parametrize("head", ["energy=1 REF_energy=2", "energy=1 dft_energy=1.5"])
def test_two_candidates_are_an_error(tmp_path, head):
    (tmp_path / "a.xyz").write_text(f"1\nProperties=species:S:1:pos:R:3 {head}\nH 0 0 0\n")
    with pytest.raises(
        DataError, match="energy under '.*' and 'energy'|energy under 'REF_energy' and 'energy'"
    ):
        list(read_structures(tmp_path / "a.xyz"))
    (read,) = read_structures(tmp_path / "a.xyz", key_energy="energy")
    assert read.energy_eV == 1


def test_the_key_may_not_change_midway(tmp_path):
    frame = "1\nProperties=species:S:1:pos:R:3 {}=1\nH 0 0 0\n"
    (tmp_path / "a.xyz").write_text(frame.format("energy") + frame.format("Energy"))
    with pytest.raises(DataError, match="'Energy' and 'energy'"):
        list(read_structures(tmp_path / "a.xyz"))


def test_stress_and_virial_agree(tmp_path):
    stress = np.array([1, 2, 3, 4, 5, 6]) / 100
    full = stress[[0, 5, 4, 5, 1, 3, 4, 3, 2]]
    head = '1\nLattice="2 0 0 0 3 0 0 0 4" Properties=species:S:1:pos:R:3 {}="{}"\nCu 0 0 0\n'
    cases = [("stress", full, "eV angstrom"), ("virial", -24 * full, "eV angstrom")]
    cases += [
        ("REF_stress", stress * 1602.1766208, "eV angstrom kbar"),
        ("stress", -stress, "eV angstrom vasp"),
    ]
    for key, numbers, units in cases:
        (tmp_path / "a.xyz").write_text(head.format(key, " ".join(map(str, numbers))))
        (read,) = read_structures(tmp_path / "a.xyz", units=units)
        np.testing.assert_allclose(read.stress_eV_A3_6, stress, rtol=1e-6)
    (tmp_path / "a.xyz").write_text(head.format("stress", "1 2 3 4 5 6 7 8 9"))
    with pytest.raises(DataError, match="not symmetric"):
        list(read_structures(tmp_path / "a.xyz"))


def test_missing_labels_stay_none(tmp_path, several):
    frames = [several[0], several[0].moved(several[0].pos_A_N3)]
    write_extxyz(tmp_path / "a.xyz", frames)
    read = list(read_structures(tmp_path / "a.xyz"))
    assert (
        read[0].forces_eV_A_N3 is not None
        and read[1].forces_eV_A_N3 is None
        and read[1].energy_eV is None
    )


def test_plain_xyz(tmp_path):
    (tmp_path / "a.xyz").write_text("2\na comment = of a kind\nO 0 0 0\n1 0 0 1\n\n")
    (read,) = read_structures(tmp_path / "a.xyz")
    assert read.numbers_N.tolist() == [8, 1] and not read.pbc_3.any() and read.name == "a.xyz#1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\n\nH 0 0 0\n", "a.xyz:1: the file ends within frame 1"),
        ("1\n\nH 0 0 0\ntwo\n", "a.xyz:4: 'two' is not a number of atoms"),
        ("1\n\nHx 0 0 0\n", "a.xyz:1: frame 1 is no structure .*no element 'Hx'"),
        ("1\n\nH 0 zero 0\n", "a.xyz:1: frame 1 is no structure .*zero"),
        (
            "1\nProperties=species:S:1:pos:R:3:forces:R:3\nH 0 0 0\n",
            "4 values where 1 atoms with 7 columns need 7",
        ),
        ('1\nLattice="1 2 3"\nH 0 0 0\n', "frame 1 is no structure"),
        ("", "no structure in the file"),
        ("1\ncharge=0.5\nH 0 0 0\n", "charge 0.5 is not a whole number"),
    ],
)
def test_bad_xyz(tmp_path, text, message):
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        list(read_structures(tmp_path / "a.xyz"))
    assert "\n" not in str(error.value)


def test_the_dummy_element_is_no_element(tmp_path):
    (tmp_path / "a.xyz").write_text("1\n\nX 0 0 0\n")
    (read,) = read_structures(tmp_path / "a.xyz")
    with pytest.raises(DataError, match="no element has the atomic number 0"):
        require_physical(read)


def spice(path, count=3, gradient=True, numbers=True):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        for name, smiles, elements in (
            ("water", "[O:1]([H:2])[H:3]", [8, 1, 1]),
            ("hydroxide", "[O-:2][H:1]", [1, 8]),
        ):
            group = file.create_group(name)
            group["smiles"] = [smiles]
            if numbers:
                group["atomic_numbers"] = np.array(elements)
            group["conformations"] = rng.normal(0, 3, (count, len(elements), 3)).astype("f4")
            group["conformations"].attrs["units"] = "bohr"
            group["dft_total_energy"] = rng.normal(-76, 1, count)
            group["dft_total_energy"].attrs["units"] = "hartree"
            if gradient:
                group["dft_total_gradient"] = rng.normal(0, 0.02, (count, len(elements), 3))
                group["dft_total_gradient"].attrs["units"] = "hartree/bohr"
    return path


@pytest.mark.parametrize("numbers", [True, False])
def test_spice(tmp_path, numbers):
    import h5py

    path = spice(tmp_path / "a.hdf5", numbers=numbers)
    read = list(read_structures(path))
    assert [s.name for s in read][:3] == ["hydroxide#1", "hydroxide#2", "hydroxide#3"] and len(
        read
    ) == 6
    assert (
        read[0].numbers_N.tolist() == [1, 8]
        and read[0].charge == -1
        and read[3].charge == 0
        and read[0].spin == 1
    )
    with h5py.File(path) as file:
        group = file["water"]
        assert read[5].energy_eV == pytest.approx(
            group["dft_total_energy"][2] * 27.211386, rel=1e-7
        )
        np.testing.assert_allclose(
            read[5].forces_eV_A_N3, -51.42207 * group["dft_total_gradient"][2], rtol=1e-6
        )
        np.testing.assert_allclose(
            read[5].pos_A_N3, 0.52917721 * group["conformations"][2], rtol=1e-6
        )
    assert read[5].group == "[O:1]([H:2])[H:3]"


def test_ani(tmp_path):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("gdb/s01/CH4")
        group["species"] = np.array([b"C", b"H", b"H", b"H", b"H"])
        group["coordinates"], group["energies"] = (
            rng.normal(0, 1, (2, 5, 3)),
            np.array([-40.0, np.nan]),
        )
        two = file.create_group("ani1x/H2")
        two["atomic_numbers"], two["coordinates"] = np.array([1, 1]), rng.normal(0, 1, (2, 2, 3))
    read = list(read_structures(tmp_path / "a.h5", units="hartree angstrom"))
    assert (
        [len(s) for s in read] == [2, 2, 5, 5]
        and read[3].energy_eV is None
        and read[0].energy_eV is None
    )
    assert read[2].energy_eV == pytest.approx(-40 * 27.211386)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["ani1x/H2/wb97x_dz.energy"], file["ani1x/H2/wb97x_tz.energy"] = np.zeros(2), np.ones(2)
    with pytest.raises(
        DataError, match="'wb97x_dz.energy' and 'wb97x_tz.energy'; choose one with --key-energy"
    ):
        list(read_structures(tmp_path / "a.h5"))
    read = list(read_structures(tmp_path / "a.h5", key_energy="wb97x_tz.energy"))
    assert [s.energy_eV for s in read] == [1, 1, None, None]


def test_hdf5_without_h5py_names_the_extra(tmp_path, monkeypatch):
    path = spice(tmp_path / "a.h5")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtra, match=re.escape('pip install "sciforge[label]"')):
        list(read_structures(path))


def mlearn(path):
    entry = {
        "structure": {
            "lattice": {"matrix": [[5.0, 0, 0], [0, 5, 0], [0, 0, 5]]},
            "charge": None,
            "sites": [{"species": [{"element": "Si", "occu": 1}], "xyz": [0, 0, 0]}],
        },
        "outputs": {"energy": -5.4, "forces": [[0, 0, 1]], "virial_stress": [1, 2, 3, 4, 5, 6]},
        "description": "one",
    }
    path.write_bytes(gzip.compress(json.dumps([entry] * 3).encode()))
    return path


def test_mlearn(tmp_path):
    read = list(read_structures(mlearn(tmp_path / "a.json.gz")))
    kbar = 1 / 1602.1766208
    np.testing.assert_allclose(
        read[2].stress_eV_A3_6, -kbar * np.array([1, 2, 3, 5, 6, 4]), rtol=1e-6
    )
    assert read[2].name == "a.json.gz#3 one" and read[2].energy_eV == -5.4 and read[2].pbc_3.all()


@pytest.mark.parametrize(
    "kind", ["a.hdf5", "a.xyz.gz", "a.json.gz", "a.traj", "a.db", "a.cif", "none.xyz"]
)
def test_cut_off_files(tmp_path, several, kind):
    path = tmp_path / kind
    if kind == "a.hdf5":
        spice(path, count=2000)
    elif kind == "a.json.gz":
        mlearn(path)
    elif kind == "a.xyz.gz":
        write_extxyz(path, several * 20)
    elif kind in ("a.traj", "a.cif", "a.db"):
        ase.io.write(path, [as_ase(s) for s in several * 20][: 1 if kind != "a.traj" else 60])
    if path.exists():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // (2 if kind != "a.cif" else 9)])
    with pytest.raises(DataError, match=kind) as error:
        list(read_structures(path))
    assert "\n" not in str(error.value)


def test_a_flipped_byte_in_gzip(tmp_path, several):
    write_extxyz(tmp_path / "a.xyz.gz", several * 20)
    data = bytearray((tmp_path / "a.xyz.gz").read_bytes())
    data[-6] ^= 1
    (tmp_path / "a.xyz.gz").write_bytes(data)
    with pytest.raises(DataError, match="a.xyz.gz: cannot be read"):
        list(read_structures(tmp_path / "a.xyz.gz"))


def test_units_are_parsed():
    units = Units.parse("kcal/mol nm GPa vasp")
    assert units.energy_eV == pytest.approx(0.0433641) and units.force_eV_A == pytest.approx(
        0.00433641
    )
    assert units.stress_eV_A3 == pytest.approx(-0.00624151)
    assert Units.parse("hartree").stress_eV_A3 == pytest.approx(27.211386)
    assert unit_factor("hartree/bohr") == pytest.approx(51.42207) and unit_factor("kJ/mol/nm") > 0
    for text, match in (
        ("hartre", "did you mean 'hartree'"),
        ("eV hartree", "two units of energy"),
        ("furlong", "no unit"),
    ):
        with pytest.raises(ConfigError, match=match):
            Units.parse(text)


@needs_shared
@pytest.mark.parametrize(
    ("energy", "length", "match"),
    [
        (1 / 27.2114, 1, "hartree"),
        (23.06, 1, "kcal/mol"),
        (96.5, 1, "kJ/mol"),
        (1, 1 / 0.529, "bohr"),
    ],
)
def test_wrong_units_are_noticed(tmp_path, energy, length, match):
    from itertools import islice

    source = SHARED / "rmd17_aspirin" / "rmd17_aspirin_train.xyz.gz"
    frames = list(islice(read_structures(source), 20))
    assert suspect_units(frames) == []
    wrong = []
    for s in frames:
        labels = {
            "energy_eV": s.energy_eV * energy,
            "forces_eV_A_N3": s.forces_eV_A_N3 * energy / length,
        }
        wrong.append(Structure(s.numbers_N, s.pos_A_N3 * length, **labels))
    assert any(match in line for line in suspect_units(wrong))


@needs_shared
@pytest.mark.parametrize("element", ["Si", "Ge"])
def test_the_virial_of_mlearn_is_the_derivative_of_the_energy(element):
    """Along each mode of strain: dE/ds = V sigma : (L^-1 dL/ds), with L the cell in rows."""
    modes = {}
    for s in read_structures(SHARED / "crystals_mlearn" / f"{element}_training.json.gz"):
        if found := re.search(r"mode (\d+), strain (-?[\d.]+)", s.name):
            modes.setdefault(int(found[1]), []).append((float(found[2]), s))
    assert sorted(modes) == [0, 1, 2, 3, 4, 5]
    for frames in modes.values():
        frames.sort(key=lambda pair: pair[0])
        strain, structures = np.array([f[0] for f in frames]), [f[1] for f in frames]
        degree = min(len(frames) - 2, 6)
        energy = np.poly1d(np.polyfit(strain, [s.energy_eV for s in structures], degree)).deriv()(
            strain
        )
        cells = np.array([s.cell_A_33.ravel() for s in structures])
        slopes = [
            np.poly1d(np.polyfit(strain, column, degree)).deriv()(strain) for column in cells.T
        ]
        work = []
        for i, s in enumerate(structures):
            rate = np.linalg.solve(s.cell_A_33, np.array(slopes)[:, i].reshape(3, 3))
            stress = s.stress_eV_A3_6[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)
            work.append(s.volume_A3 * (stress * rate).sum())
        inner = slice(1, -1)  # the ends of a polynomial fit are poor
        scale = np.abs(energy).max()
        assert np.abs(energy[inner] - np.array(work)[inner]).max() < 0.02 * scale


@needs_shared
def test_the_shared_files():
    ethanol = list(read_structures(SHARED / "botnet" / "dataset_ethanol_train_eth_meth.xyz.gz"))
    assert len(ethanol) == 1300 and all(s.forces_eV_A_N3 is not None for s in ethanol)
    removal = list(read_structures(SHARED / "botnet" / "dataset_ethanol_test_H_removal.xyz.gz"))
    assert len(removal) == 60 and all(
        s.forces_eV_A_N3 is None and s.energy_eV < -4000 for s in removal
    )
    waters = list(read_structures(SHARED / "spice_geoms" / "solvated-amino-acids.hdf5"))
    assert len(waters) == 1300 and {s.charge for s in waters} == {-1, 0, 1}
    assert suspect_units(waters[:50]) == []
