"""`sciforge prepare` of structures: the columns, honest splits, references, and bad frames
skipped or fatal.
"""

import json
import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule

from sciforge.atoms.data.structures import Structures
from sciforge.core.data.store import SPLITS, prepare
from sciforge.errors import ConfigError, DataError
from sciforge.structures import splits
from sciforge.structures.extxyz import write_extxyz
from sciforge.structures.neighbours import find_neighbours
from sciforge.structures.readers import read_structures
from sciforge.structures.structure import Structure

SHARED = (
    Path(os.environ.get("SCIFORGE_SHARED", Path(__file__).parents[4] / "shared")) / "data" / "atoms"
)
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the shared data are not at {SHARED}"
)
NAMES = [
    "H2O",
    "CH4",
    "NH3",
    "CH3OH",
    "CH3CH2OH",
    "C6H6",
    "CO2",
    "HCN",
    "C2H6SO",
    "CH3Cl",
    "SiH4",
    "PH3",
]
RAGGED = {
    "numbers": "<i2",
    "pos_A": "<f8",
    "forces_eV_A": "<f8",
    "receiver": "<i4",
    "sender": "<i4",
    "shift": "|i1",
}
FIXED = {
    "cell_A": "<f8",
    "pbc": "|u1",
    "energy_eV": "<f8",
    "stress_eV_A3": "<f8",
    "charge": "<i2",
    "spin": "<i2",
}
FIXED |= {"split": "|u1", "group": "<i4"}


def frames(names, count, seed=0, **changes):
    rng = np.random.default_rng(seed)
    for name in names:
        atoms = molecule(name)
        for _ in range(count):
            pos = atoms.positions + rng.normal(0, 0.03, atoms.positions.shape)
            forces = rng.normal(0, 1, pos.shape)
            energy = -5.0 * len(atoms) + float(rng.normal())
            yield Structure(
                np.array(atoms.numbers, np.int64),
                pos,
                energy_eV=energy,
                forces_eV_A_N3=forces,
                **changes,
            )


def written(path, structures):
    write_extxyz(path, structures)
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def of_split(store, name):
    return np.flatnonzero(store.column("split") == SPLITS.index(name))


def test_columns_and_meta(tmp_path):
    mixed = [
        replace(s, forces_eV_A_N3=None) if i % 2 else s
        for i, s in enumerate(frames(NAMES, 2, level="a/b"))
    ]
    crystal = bulk("Si")
    mixed.append(
        Structure(
            np.array(crystal.numbers),
            crystal.positions,
            crystal.cell.array,
            crystal.pbc,
            None,
            None,
            np.ones(6) / 9,
        )
    )
    store = prepare(Structures(files=(written(tmp_path / "a.xyz", mixed),)), tmp_path / "store")
    columns = store.index["shards"][0]["columns"]
    assert {k: v["dtype"] for k, v in columns.items() if v["kind"] == "ragged"} == RAGGED
    assert {k: v["dtype"] for k, v in columns.items() if v["kind"] == "fixed"} == FIXED
    assert [k for k, v in columns.items() if v["kind"] == "text"] == ["name", "level"]
    assert (
        store.domain == "atoms"
        and store.meta["levels"] == ["", "a/b"]
        and 14 in store.meta["elements"]
    )
    assert (store.meta["energies"], store.meta["forces"], store.meta["stresses"]) == (24, 12, 1)
    assert store.meta["split"] == "molecule" and store.meta["reference"][""]["how"] == "none"
    for record, given in zip(store, mixed, strict=True):
        edges = find_neighbours(given.pos_A_N3, given.cell_A_33, given.pbc_3, 5.0)
        assert np.array_equal(record["sender"], edges.sender_E) and np.array_equal(
            record["shift"], edges.shift_E3
        )
        assert np.array_equal(record["pos_A"], given.pos_A_N3) and np.array_equal(
            record["numbers"], given.numbers_N
        )
        assert np.isnan(record["forces_eV_A"]).all() == (given.forces_eV_A_N3 is None)
        assert np.isnan(record["energy_eV"]) == (given.energy_eV is None)


def test_stores_are_identical_for_any_number_of_workers(tmp_path):
    files = [
        written(tmp_path / f"{i}.xyz", frames(NAMES[3 * i : 3 * i + 3], 4, seed=i))
        for i in range(4)
    ]
    one = prepare(Structures(files=tuple(files)), tmp_path / "one")
    two = prepare(Structures(files=tuple(files)), tmp_path / "two", workers=2)
    assert contents(one.path) == contents(two.path)


def test_no_molecule_is_in_two_splits(tmp_path):
    files = (
        written(tmp_path / "a.xyz", frames(NAMES, 5)),
        written(tmp_path / "b.xyz", frames(NAMES[::-1], 3, seed=1)),
    )
    store = prepare(
        Structures(files=files, validation_share=0.2, test_share=0.2), tmp_path / "store"
    )
    group, split = store.column("group"), store.column("split")
    assert (
        all(len(set(split[group == g])) == 1 for g in set(group))
        and store.meta["groups"] == len(set(group)) == 12
    )
    assert set(split) == {0, 1, 2}
    alone = prepare(
        Structures(files=files[:1], validation_share=0.2, test_share=0.2), tmp_path / "alone"
    )
    assert np.array_equal(alone.column("split"), split[: len(alone)])


def test_the_skeleton_is_the_same_from_smiles_and_from_geometry():
    pairs = {
        "CH3CH2OH": "[CH3][CH2][OH]",
        "C6H6": "c1ccccc1",
        "HCN": "C#N",
        "C2H6SO": "CS(C)=O",
        "CO2": "O=C=O",
    }
    for name, smiles in pairs.items():
        (structure,) = frames([name], 1)
        assert splits.molecule_key(structure) == splits.skeleton_of_smiles(smiles)
        assert splits.molecule_key(replace(structure, group=smiles)) == splits.skeleton_of_smiles(
            smiles
        )
    keys = {splits.molecule_key(s) for s in frames(["CH3CH2OH", "CH3OCH3"], 10)}
    assert len(keys) == 2
    assert splits.molecule_key(next(frames(["H2"], 1))) == "H2"
    assert splits.molecule_key(replace(next(frames(["H2"], 1)), group="my set")) == "my set"


def test_time_blocks_never_touch(tmp_path):
    path = written(tmp_path / "a.xyz", frames(["CH3OH"], 200))
    store = prepare(Structures(files=(path,), block=10, gap=3), tmp_path / "store")
    frame = np.array([int(name.split("#")[1]) for name in store.column("name")])
    split, group = store.column("split"), store.column("group")
    assert store.meta["split"] == "time" and store.meta["dropped_frames"] == 200 - len(store) > 0
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(frame[split == a][:, None] - frame[split == b]).min() > 3
    assert all(len(set(split[group == g])) == 1 for g in set(group))
    assert all(
        17 <= len(of_split(store, name)) <= 20 for name in ("validation", "test")
    )  # 3 go where validation and test touch


def test_the_gap_follows_the_memory_of_the_energy(tmp_path):
    rng = np.random.default_rng(0)
    assert splits.memory_length(rng.normal(size=1000)) == 1
    walk = np.zeros(4000)
    for i in range(1, len(walk)):
        walk[i] = 0.95 * walk[i - 1] + rng.normal()
    assert 12 < splits.memory_length(walk) < 30
    slow = [
        replace(s, energy_eV=float(e))
        for s, e in zip(frames(["CH3OH"], 600), walk[:600], strict=True)
    ]
    store = prepare(Structures(files=(written(tmp_path / "a.xyz", slow),)), tmp_path / "store")
    assert store.meta["dropped_frames"] > 40


def test_given_and_random_splits(tmp_path):
    grouped = [replace(s, group=f"run {i // 4}") for i, s in enumerate(frames(["CH3OH"], 40))]
    path = written(tmp_path / "a.xyz", grouped)
    store = prepare(Structures(files=(path,), split="given"), tmp_path / "given")
    split = store.column("split")
    assert (split.reshape(10, 4) == split[::4, None]).all() and set(split) == {0, 1, 2}
    store = prepare(Structures(files=(path,), split="random"), tmp_path / "random")
    assert len(of_split(store, "test")) == 4 and "neighbours in time" in store.meta["notes"][0]
    plain = written(tmp_path / "b.xyz", frames(["CH3OH"], 5))
    with pytest.raises(DataError, match="b.xyz: frame 1 has no group"):
        prepare(Structures(files=(plain,), split="given"), tmp_path / "none")


def test_named_test_files(tmp_path):
    train, test = (written(tmp_path / f"{i}.xyz", frames(["CH3OH"], 40, seed=i)) for i in range(2))
    store = prepare(Structures(files=(train,), test=(test,), gap=0), tmp_path / "store")
    assert len(of_split(store, "test")) == 40 and len(of_split(store, "validation")) == 4
    copy = tmp_path / "copy.xyz"
    copy.write_bytes(train.read_bytes())
    with pytest.warns(UserWarning, match=r"frame\(s\) are in two splits, atom for atom"):
        prepare(Structures(files=(train,), test=(copy,)), tmp_path / "leak")
    with pytest.raises(ConfigError, match="named twice"):
        prepare(Structures(files=(train,), test=(train,)), tmp_path / "twice")


def isolated_atoms(**changes):
    for number, energy in ((1, -13.6), (6, -1025.3), (8, -2035.6)):
        yield Structure(np.array([number]), np.zeros((1, 3)), energy_eV=energy, **changes)


def test_isolated_atoms_are_references_not_records(tmp_path):
    total = {1: -13.6, 6: -1025.3, 8: -2035.6}
    made = [
        replace(s, energy_eV=sum(total[z] for z in s.numbers_N) - 20) for s in frames(["CH3OH"], 30)
    ]
    inside = written(tmp_path / "a.xyz", [*made, *isolated_atoms()])
    store = prepare(Structures(files=(inside,), level="pbe"), tmp_path / "inside")
    reference = store.meta["reference"]["pbe"]
    assert store.meta["isolated_frames"] == 3 and store.column("name") and len(store) <= 30
    assert (
        reference["how"] == "isolated"
        and reference["rank"] == 1
        and reference["isolated_eV"]["C"] == -1025.3
    )
    assert reference["residual_meV_atom"] < 1 and abs(reference["energies_eV"]["O"] + 2035.6) < 10
    bare = written(tmp_path / "b.xyz", made)
    (tmp_path / "e0.json").write_text(json.dumps({"H": -13.6, "C": -1025.3, "O": -2035.6}))
    boxed = isolated_atoms(cell_A_33=np.eye(3) * 20, pbc_3=np.ones(3, bool))
    for name, options in (
        ("json", {"isolated": tmp_path / "e0.json"}),
        ("dict", {"isolated_eV": {"H": -13.6, "C": -1025.3, "O": -2035.6}}),
        ("file", {"isolated": written(tmp_path / "e0.xyz", boxed)}),
    ):
        other = prepare(Structures(files=(bare,), level="pbe", **options), tmp_path / name)
        assert other.meta["reference"]["pbe"] == reference, name
    with pytest.raises(DataError, match="no element 'Q'"):
        prepare(Structures(files=(bare,), isolated_eV={"Q": 1.0}), tmp_path / "bad")


def test_two_levels_never_share_references(tmp_path):
    pair = [
        replace(s, level=f"level {i % 2}", energy_eV=-100.0 * (1 + i % 2))
        for i, s in enumerate(frames(["CH4"], 60))
    ]
    store = prepare(Structures(files=(written(tmp_path / "a.xyz", pair),)), tmp_path / "store")
    sums = [
        v["energies_eV"]["C"] + 4 * v["energies_eV"]["H"] for v in store.meta["reference"].values()
    ]
    assert sums == pytest.approx([-100, -200], abs=1e-4)
    clash = [
        *pair,
        *isolated_atoms(level="level 0"),
        *(replace(a, energy_eV=-1.0) for a in isolated_atoms(level="level 0")),
    ]
    with pytest.raises(DataError, match="isolated H has -13.6000 and -1.0000 eV at one level"):
        prepare(Structures(files=(written(tmp_path / "b.xyz", clash),)), tmp_path / "clash")


def bad_frames():
    good = list(frames(["CH3OH"], 12))
    nan = good[1].pos_A_N3.copy()
    nan[2, 1] = np.nan
    close = good[2].pos_A_N3.copy()
    close[1] = close[0] + 0.01
    flat = {"cell_A_33": np.zeros((3, 3)), "pbc_3": np.ones(3, bool)}
    cubic = {"cell_A_33": np.eye(3) * 10}
    bad = [
        replace(good[0], pos_A_N3=nan),
        replace(good[0], pos_A_N3=close),
        replace(good[0], **flat),
    ]
    bad += [replace(good[0], stress_eV_A3_6=np.ones(6), **cubic), replace(good[0], spin=0)]
    return good, bad


def test_bad_frames_are_fatal_or_counted(tmp_path):
    good, bad = bad_frames()
    path = written(tmp_path / "a.xyz", [*good[:6], *bad, *good[6:]])
    text = path.read_text() + "1\n\nX 0 0 0\n1\n\nQq 0 0 0\n"
    path.write_text(text)
    store = prepare(Structures(files=(path,), block=1, gap=0), tmp_path / "store", on_error="skip")
    lines = [json.loads(line) for line in (store.path / "rejected.jsonl").read_text().splitlines()]
    assert len(store) == 12 and [line["line"] for line in lines] == [7, 8, 9, 10, 11, 18, 19]
    reasons = " | ".join(line["reason"] for line in lines)
    for reason in (
        "no finite position",
        "0.017 angstrom apart",
        "zero",
        "stress of a",
        "multiplicity 0",
        "number 0",
        "Qq",
    ):
        assert reason in reasons
    with pytest.raises(DataError, match="a.xyz: frame 7: atom 3 has no finite position"):
        prepare(Structures(files=(path,)), tmp_path / "fatal")
    assert not (tmp_path / "fatal").exists()


def test_one_atom_without_an_energy_is_a_record(tmp_path):
    ions = [
        Structure(np.array([z]), np.zeros((1, 3)), charge=q)
        for z, q in ((11, 1), (17, -1), (18, 0))
    ]
    store = prepare(Structures(files=(written(tmp_path / "a.xyz", ions),)), tmp_path / "store")
    assert (
        len(store) == 3
        and store[0]["receiver"].size == 0
        and store.column("charge").tolist() == [1, -1, 0]
    )
    assert (store.column("split") == 0).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"files": ()}, "no file of structures"),
        ({"cutoff_A": 0.0}, "cutoff_A is 0.0"),
        ({"validation_share": 0.5, "test_share": 0.5}, "must leave something"),
        ({"split": "moleculle"}, "did you mean 'molecule'"),
        ({"units": "eV parsec"}, "no unit 'parsec'"),
        ({"split": "molecule"}, "cannot fill the splits"),
        ({"block": 1000}, "choose a smaller --block"),
    ],
)
def test_options_are_checked(tmp_path, options, match):
    path = written(tmp_path / "a.xyz", frames(["CH3OH"], 20))
    with pytest.raises(ConfigError, match=match):
        prepare(Structures(**{"files": (path,), **options}), tmp_path / "store")


def test_wrong_units_warn_and_stay_in_the_store(tmp_path):
    wrong = [replace(s, forces_eV_A_N3=s.forces_eV_A_N3 * 23.06) for s in frames(["CH3OH"], 20)]
    with pytest.warns(UserWarning, match="are they in kcal/mol"):
        store = prepare(Structures(files=(written(tmp_path / "a.xyz", wrong),)), tmp_path / "store")
    assert "kcal/mol" in store.meta["notes"][0]


@needs_shared
def test_ethanol_and_methanol(tmp_path):
    folder = SHARED / "botnet"
    train = written(
        tmp_path / "a.xyz",
        islice(read_structures(folder / "dataset_ethanol_train_eth_meth.xyz.gz"), 500),
    )
    made = Structures(files=(train, folder / "dataset_ethanol_isolated_atoms.xyz.gz"), level="pbe")
    store = prepare(made, tmp_path / "store")
    reference = store.meta["reference"]["pbe"]
    assert (
        store.meta["notes"] == [] and reference["rank"] == 2 and reference["residual_meV_atom"] < 40
    )
    assert abs(reference["energies_eV"]["C"] + 1027) < 4 and set(reference["isolated_eV"]) == {
        "H",
        "C",
        "N",
        "O",
    }


@needs_shared
def test_the_two_carbons_are_refused_at_one_level(tmp_path):
    names = (
        "dataset_ethanol_train",
        "dataset_ethanol_isolated_atoms",
        "dataset_acac_isolated_atoms",
    )
    files = tuple(SHARED / "botnet" / f"{name}.xyz.gz" for name in names)
    with pytest.raises(DataError, match="isolated C has -1025.2771 and -1026.8"):
        prepare(Structures(files=files), tmp_path / "store")
