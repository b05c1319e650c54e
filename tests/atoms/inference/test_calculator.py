"""The calculator: same answers as the codec's own batches whatever the list, and the laws that
simulations rest on.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet

from sciforge.atoms import AtomsCodec, Denoise, EnergyForces, PotentialConfig
from sciforge.atoms.inference.calculator import Calculator
from sciforge.atoms.simulation.dynamics import relax, run_md
from sciforge.atoms.simulation.verlet_list import VerletList
from sciforge.core.training.checkpoint import save
from sciforge.core.training.model import Model
from sciforge.core.training.run import Run, Schedule
from sciforge.errors import CheckpointError, ConfigError, DataError, DivergedError, SciforgeError
from sciforge.structures.ase_atoms import as_atoms
from sciforge.structures.structure import Structure
from sciforge.structures.velocities import draw_momenta

CODEC = AtomsCodec(cutoff_A=4.0, neighbours=12.0, force_eV_A=0.3, elements=(1, 6, 8, 29))
CONFIG = PotentialConfig(channels=6, radial=4, body=3, hidden=8)


def build(
    folder: Path, seed: int = 0, objective=None, codec: AtomsCodec = CODEC, **changes
) -> Path:
    """Write a checkpoint with random weights and reference energies."""
    config = PotentialConfig(**{**vars(CONFIG), **changes})
    torch.manual_seed(seed)
    model = config.build(codec)
    for element, energy in ((1, -13.5), (6, -1029.0), (8, -2041.25), (29, -45000.125)):
        model.set_reference(element, energy)
    objective = objective or EnergyForces()
    run = Run(
        data=folder, out=folder, model=config, objective=objective, schedule=Schedule(steps=1)
    )
    out = folder / f"random-{seed}-{len(list(folder.iterdir()))}"
    about = {
        "domain": "atoms",
        "model_config": config,
        "codec": codec,
        "objectives": (objective,),
        "run": run,
    }
    save(out, weights=model.state_dict(), step=1, metrics={}, provenance={}, **about)
    return out


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("potential"))


@pytest.fixture(scope="module")
def exact(checkpoint) -> Model:
    """The checkpoint in float64, asked by way of records."""
    predictor = Model.load(checkpoint, "cpu")
    predictor.network.double()
    return predictor


def copper(repeat=(3, 3, 3), noise_A: float = 0.05, seed: int = 0) -> Atoms:
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(repeat)
    atoms.positions += noise_A * np.random.default_rng(seed).standard_normal(atoms.positions.shape)
    return atoms


def structure(atoms: Atoms) -> Structure:
    return Structure(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)


def by_records(predictor: Model, atoms: Atoms) -> dict[str, np.ndarray]:
    """What codec and model say, without calculator or list."""
    batch = predictor.codec.collate(
        [predictor.codec.encode(predictor.codec.record_of(structure(atoms)))]
    )
    batch = {name: x.to(torch.float64) if x.is_floating_point() else x for name, x in batch.items()}
    found = predictor.network(batch, stress=True)
    return {name: value[0].detach().numpy() for name, value in found.items()}


def slab() -> Atoms:
    atoms = fcc111("Cu", (3, 3, 3), vacuum=8.0)
    atoms.rattle(0.05, seed=1)
    return atoms


def cluster() -> Atoms:
    atoms = copper((3, 3, 2))
    atoms.set_pbc(False)
    atoms.set_cell(np.zeros((3, 3)))
    return atoms


def sheared() -> Atoms:
    atoms = copper((1, 1, 1))  # smaller than the cutoff: atoms see their own images
    atoms.set_cell(
        atoms.cell.array @ (np.eye(3) + np.array([[0, 0.2, 0], [0, 0, 0.1], [0.05, 0, 0]])),
        scale_atoms=True,
    )
    return atoms


@pytest.mark.parametrize(
    "make", [lambda: molecule("CH3CH2OH"), copper, slab, cluster, sheared, lambda: molecule("O")]
)
def test_the_answers_are_those_of_records(make, checkpoint, exact):
    atoms = make()
    atoms.calc = Calculator(checkpoint, "cpu", "float64")
    expected = by_records(exact, atoms)
    assert atoms.get_potential_energy() == pytest.approx(
        float(expected["energy_eV"]), abs=1e-12, rel=1e-14
    )
    assert atoms.get_potential_energies().sum() == pytest.approx(
        atoms.get_potential_energy(), rel=1e-14
    )
    np.testing.assert_allclose(atoms.get_forces(), expected["forces_eV_A"], atol=1e-12)
    if atoms.pbc.all():
        np.testing.assert_allclose(atoms.get_stress(), expected["stress_eV_A3"], atol=1e-13)
    assert atoms.calc.evaluations == 1


@pytest.mark.parametrize("make", [copper, slab, cluster, sheared])
def test_no_pair_is_missed_while_atoms_and_cell_move(make):
    """Random walks in which the list is kept for several steps; an unlisted pair within the
    cutoff would show.
    """
    random, atoms = np.random.default_rng(0), make()
    kept = VerletList(4.0, 1.0, torch.device("cpu"))
    for step in range(40):
        # and a drift of all
        atoms.positions += 0.06 * random.standard_normal(atoms.positions.shape) + 0.2
        if atoms.pbc.all():
            atoms.set_cell(
                atoms.cell.array @ (np.eye(3) + 0.004 * random.standard_normal((3, 3))),
                scale_atoms=True,
            )
        if step == 20:
            atoms.wrap()
        fresh = VerletList(4.0, 0.0, torch.device("cpu"))
        distances = []
        for pairs in (kept, fresh):
            pairs.update(atoms.positions, atoms.cell.array, atoms.pbc)
            near = pairs.vectors_A(atoms.positions, atoms.cell.array).norm(dim=1)
            distances.append(near[near < 4.0].sort().values)
        torch.testing.assert_close(*distances, rtol=0, atol=1e-12)
    assert 1 < kept.rebuilds < 30


def test_the_list_is_kept_until_it_must_not_be(checkpoint):
    atoms = copper()
    atoms.calc = Calculator(checkpoint, "cpu", skin_A=1.0)
    atoms.get_forces()
    atoms.positions += 7.0  # a drift is nobody's motion
    atoms.get_forces()
    atoms.positions[3, 0] += 0.45
    atoms.get_forces()
    atoms.set_cell(atoms.cell.array * 1.001, scale_atoms=True)
    atoms.get_stress()
    assert (atoms.calc.rebuilds, atoms.calc.evaluations) == (1, 4)
    atoms.positions[[3, 4], 0] += (0.3, -0.3)
    atoms.get_forces()
    assert atoms.calc.rebuilds == 2
    atoms.set_cell(atoms.cell.array * 0.8, scale_atoms=True)
    atoms.get_forces()
    assert atoms.calc.rebuilds == 3
    atoms.pbc = (True, True, False)
    atoms.get_forces()
    assert (atoms.calc.rebuilds, atoms.calc.evaluations) == (4, 7)
    atoms.get_potential_energy()
    assert atoms.calc.evaluations == 7


def test_a_trajectory_does_not_depend_on_the_skin(checkpoint):
    energies = []
    for skin_A in (0.0, 1.0):
        calculator = Calculator(checkpoint, "cpu", "float64", skin_A)
        log = run_md(copper((3, 3, 2), 0.01), calculator, 12, 600.0, 2.0)
        energies.append(log["total_eV"])
    np.testing.assert_allclose(*energies, rtol=1e-14, atol=1e-12)
    assert calculator.rebuilds < calculator.evaluations == 13


def test_precision_is_the_calculators_own(checkpoint):
    predictor = Model.load(checkpoint, "cpu")
    atoms = copper((2, 2, 2))
    single, double = (Calculator(predictor, dtype=name) for name in ("float32", "float64"))
    energies = [float(c.get_potential_energy(atoms)) for c in (single, double)]
    assert abs(energies[0] - energies[1]) < 1e-5 * len(atoms)
    assert abs(single.get_forces(atoms) - double.get_forces(atoms)).max() < 1e-4
    assert torch.get_default_dtype() == torch.float32 == next(predictor.network.parameters()).dtype
    assert all(weight.requires_grad for weight in predictor.network.parameters())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_forces_repeat_bit_for_bit_and_add_up_to_nothing(dtype, checkpoint):
    atoms = copper()
    first = Calculator(checkpoint, "cpu", dtype).get_forces(atoms)
    assert np.array_equal(first, Calculator(checkpoint, "cpu", dtype).get_forces(atoms))
    assert abs(first.sum(0)).max() < 1e-10


def test_forces_and_stress_are_derivatives_of_the_energy(checkpoint):
    atoms, step = copper((2, 1, 1)), 1e-4
    atoms.calc = Calculator(checkpoint, "cpu", "float64")
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.positions[2, 1] += sign * step
        energies.append(moved.get_potential_energy())
    assert forces[2, 1] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=1e-6)
    energies = []
    for sign in (1, -1):
        strained = atoms.copy()
        strained.calc = atoms.calc
        strain = np.zeros((3, 3))
        strain[0, 1] = strain[1, 0] = sign * step / 2
        strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        energies.append(strained.get_potential_energy())
    assert stress[0, 1] == pytest.approx(
        (energies[0] - energies[1]) / (2 * step) / atoms.get_volume(), abs=1e-7
    )


def test_a_committee_gives_mean_and_spread(tmp_path):
    folders = [build(tmp_path, seed) for seed in range(3)]
    atoms = molecule("CH3OH")
    alone = [Calculator(folder, "cpu", "float64") for folder in folders]
    atoms.calc = together = Calculator(folders, "cpu", "float64")
    forces = np.stack([c.get_forces(atoms) for c in alone])
    np.testing.assert_allclose(atoms.get_forces(), forces.mean(0), atol=1e-13)
    np.testing.assert_allclose(together.results["forces_std"], forces.std(0, ddof=1), atol=1e-13)
    energies = [c.get_potential_energy(atoms) for c in alone]
    assert together.results["energy_std"] == pytest.approx(np.std(energies, ddof=1), rel=1e-9)
    assert "energy_std" not in alone[0].results and "forces" in together.export_properties()


def test_relaxation_ends_where_forces_vanish(checkpoint):
    calculator = Calculator(checkpoint, "cpu", "float64")
    start = as_atoms(Structure(np.array([8, 1, 1]), molecule("H2O").positions * 1.05, name="water"))
    found = relax(start, calculator, 1e-3)
    assert found.converged and found.fmax_eV_A < 1e-3 and abs(found.atoms.get_forces()).max() < 1e-3
    assert found.atoms.get_potential_energy() < calculator.get_potential_energy(start)


def test_a_cell_relaxes_until_stress_vanishes(tmp_path):
    """The nuclei's repulsion has no minimum of its own, so the random energies are made large
    enough to bind.
    """
    codec = AtomsCodec(cutoff_A=4.0, neighbours=12.0, force_eV_A=2.0, elements=(29,))
    calculator = Calculator(build(tmp_path, 3, codec=codec), "cpu", "float64")
    found = relax(copper((1, 1, 1), 0.02), calculator, 2e-3, cell=True, steps=150)
    assert (
        found.converged
        and abs(found.atoms.get_stress()).max() * found.atoms.get_volume() < 3e-3 * 4
    )
    with pytest.raises(ConfigError, match="periodic in three directions"):
        relax(molecule("H2O"), calculator, cell=True)


def test_energy_and_momentum_are_conserved(tmp_path):
    """1 ps of a ring of carbon in a minimum of a smooth random landscape: less than 1
    meV/atom/ps of drift, in float64.
    """
    codec = AtomsCodec(cutoff_A=4.0, neighbours=8.0, force_eV_A=1.0, elements=(1, 6, 8))
    folder = build(tmp_path, codec=codec, channels=4, blocks=1, body=2)
    calculator = Calculator(folder, "cpu", "float64", warn_fmax_eV_A=0.0)
    atoms = relax(molecule("C6H6")[:6], calculator, 0.01).atoms
    log = run_md(atoms, calculator, 1000, 50.0, 1.0, interval=5)
    drift = np.polyfit(log["time_fs"] / 1000, log["total_eV"], 1)[0] / len(atoms)
    assert abs(drift) < 1e-3 and np.ptp(log["total_eV"]) < 0.01 * np.ptp(log["potential_eV"])
    assert atoms.get_all_distances().max() < 8.0  # it is still one molecule
    assert abs(atoms.get_momenta().sum(0)).max() < 1e-9
    assert len(log["time_fs"]) == 201 and log["time_fs"][-1] == 1000.0


def test_a_thermostat_holds_the_temperature_and_the_seed_decides(checkpoint):
    logs = [
        run_md(copper((2, 2, 2), 0.0), Calculator(checkpoint, "cpu"), 5, 400.0, ensemble="nvt")
        for _ in range(2)
    ]
    assert (
        np.array_equal(logs[0]["total_eV"], logs[1]["total_eV"])
        and 200 < logs[0]["temperature_K"].mean() < 800
    )
    with pytest.raises(ConfigError, match="ensemble"):
        run_md(copper(), Calculator(checkpoint, "cpu"), 1, ensemble="npt")


def test_velocities_there_are_can_be_kept(checkpoint):
    atoms = copper((2, 2, 2), 0.0)
    draw_momenta(atoms, 300.0, np.random.default_rng(0))
    before = atoms.get_kinetic_energy()
    log = run_md(atoms, Calculator(checkpoint, "cpu"), 0, temperature_K=None)
    assert log["kinetic_eV"].tolist() == [before]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda a: a.positions.__setitem__((1, 0), np.nan), "atom 2 has no finite position"),
        (
            lambda a: a.positions.__setitem__(1, a.positions[0] + 0.01),
            "atoms 1 and 2 are 0.017 angstrom apart",
        ),
        (lambda a: a.set_pbc(True), "zero or lies in the plane"),
        (lambda a: a.numbers.__setitem__(0, 92), "not trained on U"),
        (lambda a: a.info.update(charge=0.5), "give a whole number"),
        (lambda a: a.__delitem__(slice(None)), "without atoms"),
    ],
)
def test_what_is_no_structure_is_refused_in_one_line(spoil, message, checkpoint):
    for atoms in (
        molecule("CH3OH"),
        Atoms("HC" * 40, np.random.default_rng(0).permutation(160)[:80, None] * [1.0, 0, 0]),
    ):
        atoms.calc = Calculator(checkpoint, "cpu")
        spoil(atoms)
        for _ in range(2):  # the second time as well
            with pytest.raises(SciforgeError, match=message) as raised:
                atoms.get_potential_energy()
            assert "\n" not in str(raised.value)


def test_stress_needs_three_directions(checkpoint):
    for atoms in (molecule("CH3OH"), slab()):
        atoms.calc = Calculator(checkpoint, "cpu")
        with pytest.raises(PropertyNotImplementedError, match="three directions"):
            atoms.get_stress()


def test_one_atom_and_atoms_that_see_nobody(checkpoint):
    alone = Atoms("O")
    alone.calc = Calculator(checkpoint, "cpu", "float64")
    energy = alone.get_potential_energy()
    boxed = Atoms("O", cell=[30.0] * 3, pbc=True)
    boxed.calc = alone.calc
    assert (
        boxed.get_potential_energy() == pytest.approx(energy, abs=1e-12)
        and not boxed.get_forces().any()
    )
    assert not boxed.get_stress().any()
    far = Atoms("O" * 70, np.arange(70)[:, None] * [9.0, 0, 0])
    far.calc = alone.calc
    assert far.get_potential_energy() == pytest.approx(70 * energy, rel=1e-14)
    assert run_md(alone, alone.calc, 2)["time_fs"].tolist() == [0.0, 0.5, 1.0]


def test_charge_and_spin_reach_the_model(tmp_path):
    folder = build(tmp_path, charges=True)
    calculator = Calculator(folder, "cpu", "float64")
    torch.nn.init.normal_(calculator.members[0].model.charge_embed.weight)
    atoms = molecule("CH3O")
    atoms.calc = calculator
    energies = []
    for info in ({}, {"charge": 1}, {"spin": 2}):
        atoms.info = info
        energies.append(atoms.get_potential_energy())
    assert len(set(energies)) == 3 and calculator.evaluations == 3


def test_levels_of_theory_are_chosen_by_name(tmp_path):
    folder = build(tmp_path, objective=EnergyForces(levels=("pbe", "ccsd")))
    with pytest.raises(ConfigError, match="one of pbe, ccsd"):
        Calculator(folder, "cpu")
    with pytest.raises(ConfigError, match="did you mean 'pbe'"):
        Calculator(folder, "cpu", level="pb")
    atoms = molecule("H2O")
    energies = [
        Calculator(folder, "cpu", level=level).get_potential_energy(atoms)
        for level in ("pbe", "ccsd")
    ]
    assert energies[0] != energies[1]


def test_settings_and_checkpoints_are_checked(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="water-small"):
        Calculator("water-small")
    with pytest.raises(CheckpointError, match="no energies"):
        Calculator(build(tmp_path, objective=Denoise()), "cpu")
    with pytest.raises(ConfigError, match="float32"):
        Calculator(checkpoint, "cpu", "float3")
    with pytest.raises(ConfigError, match="skin_A"):
        Calculator(checkpoint, "cpu", skin_A=-1.0)
    with pytest.raises(ConfigError, match="at least one"):
        Calculator([], "cpu")


def test_wild_forces_warn_once_and_nonsense_is_refused(checkpoint):
    atoms = Atoms("O2", [[0, 0, 0], [0, 0, 0.3]])
    atoms.calc = Calculator(checkpoint, "cpu")
    with pytest.warns(UserWarning, match="far from any training data"):
        atoms.get_forces()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.positions[1, 2] = 0.31
        atoms.get_forces()
    atoms.calc.members[0].model.scale_eV.fill_(float("nan"))
    atoms.positions[1, 2] = 0.32
    with pytest.raises(DivergedError, match="no finite"):
        atoms.get_forces()


def test_a_run_that_explodes_stops_with_one_line(checkpoint):
    atoms = copper((2, 2, 2))
    atoms.calc = Calculator(checkpoint, "cpu", warn_fmax_eV_A=0.0)
    with pytest.raises((DataError, DivergedError)):
        run_md(atoms, atoms.calc, 200, 1e5, 50.0)


def test_ase_integrators_take_it_as_any_calculator(checkpoint):
    atoms = copper((2, 2, 2), 0.01)
    atoms.calc = Calculator(checkpoint, "cpu")
    draw_momenta(atoms, 300.0, np.random.default_rng(0))
    VelocityVerlet(atoms, 1.0 * units.fs).run(3)
    assert atoms.calc.evaluations == 4 and abs(atoms.get_momenta().sum(0)).max() < 1e-9
