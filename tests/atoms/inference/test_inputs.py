"""Natural inputs of a potential: ase.Atoms, Structure and files in; a table and arrays out."""

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from test_outputs_atoms import frames, tiny_checkpoint
from tiny_runs import assert_saves_itself

from sciforge.atoms.data.in_memory import StructuresInMemory, as_structures
from sciforge.atoms.data.structures import Structures
from sciforge.atoms.objectives.energy_forces import EnergyForces
from sciforge.core.data.store import prepare
from sciforge.core.training.model import Model
from sciforge.core.training.run import Schedule
from sciforge.errors import ConfigError, DataError
from sciforge.structures.ase_atoms import labelled_atoms
from sciforge.structures.extxyz import write_extxyz


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    tiny_checkpoint(folder / "tiny")
    return Model.load(folder / "tiny", "cpu", batch=3)


def test_atoms_structures_and_files_are_the_same_inputs(model, tmp_path):
    structures = frames()
    write_extxyz(tmp_path / "in.xyz", structures)
    tables = [
        model.predict(inputs)
        for inputs in (structures, [labelled_atoms(s) for s in structures], [tmp_path / "in.xyz"])
    ]
    for table in tables:
        assert list(table.columns) == ["energy_eV", "forces_eV_A"] and len(table) == len(structures)
        np.testing.assert_allclose(table["energy_eV"], tables[0]["energy_eV"], atol=1e-4)
        for structure, forces in zip(structures, table["forces_eV_A"], strict=True):
            assert forces.shape == (len(structure), 3)


def test_the_index_is_kept_and_bad_inputs_are_named_by_place(model):
    series = pd.Series([labelled_atoms(s) for s in frames()[:2]], index=["ethanol", "water"])
    assert model.predict(series).index.tolist() == ["ethanol", "water"]
    overlapping = Atoms("OH", [(0, 0, 0), (0, 0, 0.01)])
    for bad, error, match in (
        (overlapping, DataError, "input 1: .*apart"),
        (Atoms("SH", [(0, 0, 0), (0, 0, 1.3)]), ConfigError, "input 1: .*not trained on S"),
        (3, DataError, "input 1: is a int"),
    ):
        with pytest.raises(error, match=match):
            model.predict([frames()[0], bad])


def test_labels_are_found_where_the_file_readers_find_them():
    water = Atoms("OHH", [(0, 0, 0), (0, 0, 0.97), (0, 0.94, -0.24)])
    forces = np.arange(9.0).reshape(3, 3)
    in_info, in_calculator = water.copy(), water.copy()
    in_info.info |= {"REF_energy": -3.5, "charge": 1, "spin": 2, "level": "pbe"}
    in_info.arrays["REF_forces"] = forces
    in_calculator.info |= {"charge": 1, "spin": 2, "level": "pbe"}
    in_calculator.calc = SinglePointCalculator(in_calculator, energy=-3.5, forces=forces)
    for atoms in (in_info, in_calculator):
        (structure,) = as_structures([atoms])
        assert (structure.energy_eV, structure.charge, structure.spin, structure.level) == (
            -3.5,
            1,
            2,
            "pbe",
        )
        np.testing.assert_array_equal(structure.forces_eV_A_N3, forces)
    in_info.info["energy"] = -3.6
    with pytest.raises(DataError, match="input 1: energy under 'REF_energy' and 'energy'"):
        as_structures([in_calculator, in_info])


def test_memory_and_files_make_the_same_store(tmp_path):
    structures = [s for s in frames() if s.energy_eV is not None]
    write_extxyz(tmp_path / "in.xyz", structures)
    options = {"split": "random", "validation_share": 0.0, "test_share": 0.0}
    from_file = prepare(Structures(files=(tmp_path / "in.xyz",), **options), tmp_path / "file")
    from_memory = prepare(
        StructuresInMemory.of([labelled_atoms(s) for s in structures]), tmp_path / "memory"
    )
    for one, other in zip(from_file.split("train"), from_memory.split("train"), strict=True):
        for name in ("numbers", "pos_A", "sender", "receiver", "forces_eV_A", "energy_eV", "level"):
            np.testing.assert_array_equal(one[name], other[name])
    assert from_file.meta["reference"] == from_memory.meta["reference"]


def test_splits_are_as_given_and_isolated_atoms_are_references(tmp_path):
    structures = [*(s for s in frames() if s.energy_eV is not None)]
    names = ["train", "dev", "test"] + ["train"] * (len(structures) - 3)
    atom = Atoms("H")
    atom.calc = SinglePointCalculator(atom, energy=-13.6)
    atom.info["level"] = structures[0].level
    store = prepare(
        StructuresInMemory.of([*structures, atom], [*names, "train"]), tmp_path / "store"
    )
    counts = {name: len(store.split(name)) for name in ("train", "validation", "test")}
    assert counts == {"train": len(structures) - 2, "validation": 1, "test": 1}
    assert store.meta["isolated_frames"] == 1
    with pytest.raises(ConfigError, match="'held-out' is not known"):
        StructuresInMemory.of(structures[:1], ["held-out"])
    with pytest.raises(DataError, match="input 0: .*apart"):
        prepare(StructuresInMemory.of([Atoms("OH", [(0, 0, 0), (0, 0, 0.01)])]), tmp_path / "bad")


def test_fit_evaluate_and_simulate(model, tmp_path):
    labelled = [
        labelled_atoms(s) for s in frames() if s.energy_eV is not None and not s.pbc_3.any()
    ]
    schedule = Schedule(steps=2, batch=2, lr=1e-4)
    tuned = model.fit(labelled, schedule=schedule, objective=EnergyForces(guard=0.0), verbose=False)
    scores = tuned.evaluate(labelled)
    assert {"force_mae_meV_A", "energy_mae_meV_atom"} <= set(scores)
    assert_saves_itself(tuned, tmp_path / "saved", labelled, labelled)
    atoms = labelled[0].copy()
    atoms.calc = tuned.calculator(dtype="float64")
    table = tuned.predict(labelled[:1])
    assert atoms.get_potential_energy() == pytest.approx(table["energy_eV"][0], abs=1e-3)
    np.testing.assert_allclose(atoms.get_forces(), table["forces_eV_A"][0], atol=2e-4)
    log = tuned.run_md(atoms, 4, temperature_K=10.0, interval=2)
    assert len(log.to_pandas()) == 3 and log["time_fs"].tolist() == [0.0, 1.0, 2.0]
    assert tuned.relax(labelled[0], steps=1).steps <= 1
    with pytest.raises(ConfigError, match="labels"):
        model.fit(labelled, [0.0] * (len(labelled) - 1))
    with pytest.raises(DataError, match="no structure has an energy or forces"):
        model.fit([Atoms("H2", [(0, 0, 0), (0, 0, 0.8)])])


def test_embeddings_of_atoms_average_to_those_of_structures(model):
    structures = frames()
    whole = model.embed(structures)
    atoms = model.embed(structures, per_atom=True)
    assert atoms.shape == (sum(map(len, structures)), whole.shape[1])
    starts = np.cumsum([0, *map(len, structures)])
    for i, mean in enumerate(whole):
        np.testing.assert_allclose(atoms[starts[i] : starts[i + 1]].mean(0), mean, atol=1e-5)
