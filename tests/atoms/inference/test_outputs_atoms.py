"""Energies and forces of structures in files: the same as one at a time, nothing lost, nothing
half written.
"""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import read

from sciforge.atoms import AtomsCodec, Denoise, EnergyForces, PotentialConfig
from sciforge.atoms.evaluation.laws import answer
from sciforge.atoms.inference.energies import Energies
from sciforge.core.domain import seeded_model
from sciforge.core.files.output_files import whole_files, write_whole
from sciforge.core.training.checkpoint import save
from sciforge.core.training.model import Model
from sciforge.core.training.run import Run, Subset
from sciforge.errors import ConfigError, DataError
from sciforge.structures.extxyz import write_extxyz
from sciforge.structures.readers import read_structures
from sciforge.structures.structure import Structure

REFERENCE_EV = {1: -13.6, 6: -1027.3, 8: -2040.1}


def tiny_checkpoint(folder, seed=0, objective=None, levels=1):
    """Write an untrained potential of H, C and O, whose forces are not small."""
    objective = objective or EnergyForces(references=(("pbe", tuple(REFERENCE_EV.items())),))
    codec = AtomsCodec(cutoff_A=4.0, neighbours=6.0, force_eV_A=1.0, elements=(1, 6, 8))
    config = PotentialConfig(channels=8, order=1, radial=4, hidden=8, levels=levels)
    model = seeded_model(config, codec, (objective,), seed)
    for element, energy in REFERENCE_EV.items():
        model.set_reference(element, energy)
    run = Run(
        data=folder / "no store", out=folder, objective=objective, model=config, subset=Subset(10)
    )
    parts = {
        "codec": codec,
        "model_config": config,
        "objectives": (objective,),
        "weights": model.state_dict(),
    }
    return save(folder, domain="atoms", run=run, step=0, metrics={}, provenance={}, **parts)


def frames(seed=0, labelled=True):
    """Return molecules of several sizes, in no order of size, and one small crystal."""
    rng = np.random.default_rng(seed)
    found = []
    for number, name in enumerate(["CH3CH2OH", "H2O", "C6H6", "CH4", "CO2", "CH3OH"]):
        atoms = molecule(name)
        pos = atoms.positions + rng.normal(0, 0.05, atoms.positions.shape)
        labels = (
            {"energy_eV": -100.0 - number, "forces_eV_A_N3": rng.normal(size=pos.shape)}
            if labelled
            else {}
        )
        found.append(Structure(np.array(atoms.numbers, np.int64), pos, level="pbe", **labels))
    atoms = bulk("C", "diamond", 3.6)
    cell = np.array(atoms.cell.array)
    return [
        *found,
        Structure(np.array(atoms.numbers, np.int64), atoms.positions + 0.1, cell, np.ones(3, bool)),
    ]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    path = tmp_path_factory.mktemp("potential") / "tiny"
    tiny_checkpoint(path)
    return Model.load(path, "cpu", batch=2)


@pytest.fixture
def source(tmp_path):
    write_extxyz(tmp_path / "in.xyz", frames())
    return tmp_path / "in.xyz"


def rows_of(path):
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def test_extended_xyz_holds_what_the_model_says_of_each_structure(predictor, source, tmp_path):
    given = list(read_structures(source))
    out = Energies(files=(source,), stress=True).run(predictor).save(tmp_path / "out.xyz")
    found = list(read_structures(out))
    assert len(found) == len(given)
    for one, other in zip(given, found, strict=True):
        alone = answer(predictor.network, predictor.codec, one, stress=True)
        above = other.energy_eV - sum(REFERENCE_EV[int(z)] for z in other.numbers_N)
        assert (one.pos_A_N3 == other.pos_A_N3).all() and (one.numbers_N == other.numbers_N).all()
        assert above == pytest.approx(alone["energy"], abs=1e-3)
        np.testing.assert_allclose(other.forces_eV_A_N3, alone["forces"], atol=2e-4)
        if one.pbc_3.all():
            np.testing.assert_allclose(other.stress_eV_A3_6, alone["stress"], atol=1e-4)
        else:
            assert other.stress_eV_A3_6 is None
    for atoms, one in zip(read(out, ":"), given, strict=True):
        assert (
            atoms.info["model_weights_sha256"]
            == predictor.checkpoint.body["files"]["model.safetensors"]
        )
        if one.energy_eV is not None:
            assert atoms.info["label_energy"] == one.energy_eV
            np.testing.assert_array_equal(atoms.arrays["label_forces"], one.forces_eV_A_N3)


def test_the_table_has_one_row_a_structure_and_errors_where_labels_are(predictor, source, tmp_path):
    packed = tmp_path / "two.xyz.gz"
    write_extxyz(packed, frames(1, labelled=False))
    out = Energies(files=(source, packed)).run(predictor).save(tmp_path / "deep" / "out.csv")
    rows = rows_of(out)
    places = [(str(source), str(n)) for n in range(1, 8)] + [
        (str(packed), str(n)) for n in range(1, 8)
    ]
    assert [(row["file"], row["frame"]) for row in rows] == places
    assert [row["formula"] for row in rows[:3]] == ["C2H6O", "H2O", "C6H6"]
    true = frames()[0]
    error = 1e3 * (float(rows[0]["energy_eV"]) - true.energy_eV) / 9
    assert float(rows[0]["energy_error_meV_atom"]) == pytest.approx(error, rel=1e-4)
    alone = answer(predictor.network, predictor.codec, true)["forces"]
    mae = 1e3 * np.abs(alone - true.forces_eV_A_N3).mean()
    assert float(rows[0]["force_mae_meV_A"]) == pytest.approx(mae, rel=1e-3)
    assert float(rows[0]["max_force_eV_A"]) == pytest.approx(
        np.linalg.norm(alone, axis=1).max(), rel=1e-3
    )
    assert {row["energy_error_meV_atom"] + row["force_mae_meV_A"] for row in rows[6:]} == {""}
    about = json.loads(out.with_suffix(".json").read_text())
    assert (
        about["checkpoint"] == str(predictor.checkpoint.path)
        and about["options"]["type"] == "Energies"
    )


def broken(kind):
    water = frames()[1]
    if kind == "element":
        return replace(water, numbers_N=np.array([16, 1, 1]))
    pos = water.pos_A_N3.copy()
    pos[1] = np.nan if kind == "nan" else pos[0] + 0.01
    return replace(water, pos_A_N3=pos)


@pytest.mark.parametrize(
    ("kind", "error", "match"),
    [
        ("element", ConfigError, "not trained on S"),
        ("nan", DataError, "no finite position"),
        ("overlap", DataError, "0.017 angstrom apart"),
    ],
)
def test_a_bad_frame_is_named(predictor, tmp_path, kind, error, match):
    write_extxyz(tmp_path / "in.xyz", [*frames()[:3], broken(kind)])
    with pytest.raises(error, match=rf"in\.xyz.*frame 4.*{match}") as caught:
        Energies(files=(tmp_path / "in.xyz",)).run(predictor)
    assert "\n" not in str(caught.value)


def test_refusals(predictor, source, tmp_path):
    result = Energies(files=(source,)).run(predictor)
    for out, match in ((tmp_path / "out.txt2", "another name"), (source, "also read from")):
        with pytest.raises(ConfigError, match=match):
            result.save(out)
    assert len(list(read_structures(source))) == 7
    with pytest.raises(ConfigError, match="at least one"):
        Energies(files=()).run(predictor)
    with pytest.raises(ConfigError, match="energies.stress"):
        Energies(files=(source,), stress="yes")
    tiny_checkpoint(tmp_path / "denoise", objective=Denoise())
    with pytest.raises(ConfigError, match="trained for Denoise"):
        Energies(files=(source,)).run(Model.load(tmp_path / "denoise", "cpu"))


def test_predictions_become_atoms_and_a_plot(predictor, source):
    result = Energies(files=(source,), stress=True).run(predictor)
    for atoms, structure in zip(result.to_atoms(), result.structures, strict=True):
        assert atoms.get_potential_energy() == structure.energy_eV
        np.testing.assert_array_equal(atoms.get_forces(), structure.forces_eV_A_N3)
    pytest.importorskip("matplotlib").use("Agg")
    axes = result.plot()
    points = [line for line in axes.lines if line.get_marker() == "."]
    labelled = [s for s in frames() if s.forces_eV_A_N3 is not None]
    assert len(points[0].get_xdata()) == sum(3 * len(s) for s in labelled)


def test_the_level_of_theory_decides_between_readouts(source, tmp_path):
    tiny_checkpoint(tmp_path / "two", objective=EnergyForces(levels=("xtb", "pbe")), levels=2)
    two = Model.load(tmp_path / "two", "cpu")
    with pytest.raises(ConfigError, match=r"frame 7: level of theory '' is none"):
        Energies(files=(source,)).run(two)
    energy = {}
    for level in two.objective.levels:
        table = Energies(files=(source,), level=level).run(two).to_pandas()
        energy[level] = table["energy_eV"][0]
    assert abs(energy["xtb"] - energy["pbe"]) > 1e-3


def test_files_appear_together_or_not_at_all(tmp_path):
    names = tmp_path / "deep" / "a.txt", tmp_path / "deep" / "b.txt"
    with pytest.raises(RuntimeError, match="stopped"), whole_files(*names) as (first, second):
        first.write("half")
        second.write("half")
        raise RuntimeError("stopped")
    assert not list((tmp_path / "deep").iterdir())
    with whole_files(*names) as (first, second):
        first.write("one\n")
        second.write("two\n")
        assert not any(name.exists() for name in names)
    assert [name.read_bytes() for name in names] == [b"one\n", b"two\n"]
    assert len(list((tmp_path / "deep").iterdir())) == 2


def test_a_failed_write_leaves_the_old_file(tmp_path):
    out = write_whole(tmp_path / "out.txt", lambda work: work.write_text("old"))

    def fail(work):
        work.write_text("new")
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="disk is full"):
        write_whole(out, fail)
    assert out.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_what_is_read_is_not_written_over(tmp_path):
    source = write_whole(tmp_path / "in.txt", lambda work: work.write_text("kept"))
    with pytest.raises(ConfigError, match="also read from"):
        write_whole(
            tmp_path / "x" / ".." / "in.txt", lambda work: work.write_text("lost"), [source]
        )
    with (
        pytest.raises(ConfigError, match="written twice"),
        whole_files(tmp_path / "a", tmp_path / "a"),
    ):
        pass
    with pytest.raises(ConfigError, match="is a folder"):
        write_whole(tmp_path, lambda work: None)
    assert source.read_text() == "kept"
