"""What potentials learn from: labels that are missing or wrong, levels of theory, the Fisher,
averaged weights.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule
from tiny_runs import ROOT, load_file

from sciforge.atoms import (
    AtomsCodec,
    Denoise,
    EnergyForces,
    MaskedElements,
    PotentialConfig,
    Structures,
)
from sciforge.atoms.data.codec import joined_energy, split_energy
from sciforge.atoms.objectives.energy_forces import potential_metrics
from sciforge.atoms.objectives.initialization import start_potential
from sciforge.core.data import sampling
from sciforge.core.data.store import Store, prepare
from sciforge.core.methods.fisher import fisher_information
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.loop import train
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.errors import ConfigError, DataError
from sciforge.structures.extxyz import write_extxyz
from sciforge.structures.structure import Structure

CONTRACT = load_file(ROOT / "tests" / "atoms" / "contract.py")
EXACT = Engine(torch.device("cpu"), "float64")
SMALL = PotentialConfig(channels=4, radial=3, hidden=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> tuple[Store, Checkpoint]:
    """A store of small molecules and a potential that has learnt something of them."""
    folder = tmp_path_factory.mktemp("atoms")
    store, pretraining, _ = CONTRACT.tiny(folder)
    schedule = replace(pretraining.schedule, steps=120, lr=1e-2, evaluate_every=0, ema_decay=0.9)
    return store, train(replace(pretraining, out=folder / "base", schedule=schedule))


def stored(folder, structures, **options) -> Store:
    write_extxyz(folder / "made.xyz", structures)
    return prepare(
        Structures(files=(folder / "made.xyz",), split="random", **options), folder / "made"
    )


def made(count: int = 20, level: str = "emt", names=("CH3OH",), seed: int = 1) -> list[Structure]:
    return CONTRACT.shaken(list(names), count // len(names), np.random.default_rng(seed), level)


def tune(base, store, out, **changes) -> Checkpoint:
    options = {
        "objective": EnergyForces(),
        "schedule": Schedule(steps=4, batch=4, lr=1e-3),
    } | changes
    return train(
        Run(
            data=store.path,
            out=out,
            init=base.path,
            hardware=Hardware(precision="float64"),
            **options,
        )
    )


def batch_of(store, codec, objective, places=(0, 1, 2)) -> dict:
    rng = sampling.generator(0, sampling.CORRUPT)
    return EXACT.move(
        codec.collate([objective.prepare(store[i], codec, rng, True) for i in places])
    )


def test_energies_travel_exactly():
    for energy in (-17617.123456789, 1e5 / 3, -0.001, 0.0):
        assert float(joined_energy(split_energy(energy))) == pytest.approx(
            energy, rel=1e-13, abs=1e-13
        )


def test_missing_labels_count_nothing(base):
    store, checkpoint = base
    objective, codec, model = EnergyForces(), checkpoint.codec, checkpoint.build().double()
    whole = objective.loss(model, batch_of(store, codec, objective))
    batch = batch_of(store, codec, objective)
    batch["forces_known"] = torch.tensor([True, False, False])
    batch["energy_known"] = torch.tensor([False, True, False])
    part = objective.loss(model, batch)
    assert int(whole.count) == 3 and int(part.count) == 2
    assert int(part.parts["force_mae_meV_A"][1]) == 3 * int(batch["size"][0])
    only = [
        {**batch, "forces_known": f, "energy_known": e}
        for f, e in (
            (torch.tensor([True, False, False]), torch.zeros(3, dtype=bool)),
            (torch.zeros(3, dtype=bool), torch.tensor([False, True, False])),
        )
    ]
    apart = sum(float(objective.loss(model, b).total.detach()) for b in only)
    assert float(part.total.detach()) == pytest.approx(apart, rel=1e-12)


def test_a_store_without_labels_is_refused(tmp_path, base):
    bare = [replace(s, energy_eV=None, forces_eV_A_N3=None) for s in made()]
    store = stored(tmp_path, bare)
    with pytest.raises(DataError, match="no structure has a label"):
        tune(base[1], store, tmp_path / "run")
    again = train(
        Run(
            data=store.path,
            out=tmp_path / "denoise",
            init=base[1].path,
            objective=Denoise(),
            schedule=Schedule(steps=2),
        )
    )
    assert again.step == 2


@pytest.mark.filterwarnings("ignore:.*kcal/mol")
@pytest.mark.parametrize(
    "factor, word", [(23.060548, "kcal/mol"), (1 / 27.211386, "hartree"), (-1.0, "sign")]
)
def test_forces_in_another_unit_stop_fine_tuning(tmp_path, base, factor: float, word: str):
    wrong = [
        replace(s, forces_eV_A_N3=factor * s.forces_eV_A_N3)
        for s in made(40, names=("H2O", "NH3", "CH4", "CO2"))
    ]
    store = stored(tmp_path, wrong)
    with pytest.raises(ConfigError, match=word):
        tune(base[1], store, tmp_path / "run")


def test_references_are_fitted_in_closed_form(tmp_path, base):
    """Another level of theory is, at first, other free atoms: the fit takes that out and nothing
    more.
    """
    shift = {1: -3.0, 6: -900.0, 8: 40.0}
    moved = [
        replace(s, energy_eV=s.energy_eV + sum(shift[int(z)] for z in s.numbers_N), level="other")
        for s in made(30, names=("CH3OH", "H2O", "CH4", "H2CO", "CO"))
    ]
    # whatever it has learnt
    options = {"objective": EnergyForces(guard=0.0), "schedule": Schedule(steps=1, lr=0.0)}
    found = tune(base[1], stored(tmp_path, moved), tmp_path / "run", **options)
    before, after = (
        base[1].build().double().references_eV()[0],
        found.build().double().references_eV()[0],
    )
    for element, energy in shift.items():
        # the model is a poor one
        assert float(after[element] - before[element]) == pytest.approx(energy, abs=6.0)
    assert "rank 3 of 3" in found.body["loop"]["start"]["references_level_0"]
    assert found.body["loop"]["start"]["step_0_force_mae_meV_A"] > 0


def test_levels_have_readouts_of_their_own(tmp_path, base):
    both = made(20) + made(20, level="better", seed=2)
    store = stored(tmp_path, both)
    with pytest.raises(ConfigError, match="mixes levels of theory"):
        tune(base[1], store, tmp_path / "no")
    objective = EnergyForces(levels=("emt", "better"))
    tuned = tune(
        base[1], store, tmp_path / "run", objective=objective, schedule=Schedule(steps=3, lr=1e-2)
    )
    model = tuned.build()
    assert model.levels_known.tolist()[:2] == [1, 1]
    last = model.readout[-1][-1].weight
    assert not torch.equal(last[0], last[1])
    with pytest.raises(ConfigError, match="not among the objective's"):
        tune(base[1], store, tmp_path / "bad", objective=EnergyForces(levels=("emt", "worse")))
    with pytest.raises(ConfigError, match="room for"):
        tune(
            base[1],
            store,
            tmp_path / "many",
            objective=EnergyForces(levels=("emt", "better", *"abcd")),
        )


def test_a_new_level_starts_as_the_old_one(base):
    store, checkpoint = base
    model = checkpoint.build().double()
    records = [{**store[i], "level": "new"} for i in range(6)]
    start_potential(
        model,
        EnergyForces(levels=("emt", "new"), guard=0),
        checkpoint.codec,
        records,
        EXACT,
        {},
        checkpoint,
    )
    old, new = (
        EXACT.move(checkpoint.codec.collate([checkpoint.codec.encode(r) for r in records]))
        for _ in range(2)
    )
    new["level"] = torch.ones(6, dtype=torch.int64)
    assert torch.allclose(model(old)["forces_eV_A"], model(new)["forces_eV_A"])


def test_fisher_is_the_brute_force_jacobian():
    """Exact Fisher of energy and forces: J^T S^-1 J from the Jacobian of every output by every
    weight.
    """
    codec = AtomsCodec(cutoff_A=4.0, neighbours=4.0, force_eV_A=1.0, elements=(1, 8))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PotentialConfig(channels=2, radial=2, hidden=2, blocks=2).build(codec).double()
    rng = np.random.default_rng(0)
    records = []
    for _ in range(3):
        atoms = molecule("H2O")
        pos = atoms.positions + rng.normal(0, 0.1, (3, 3))
        structure = Structure(
            atoms.numbers.astype(np.int64), pos, energy_eV=1.0, forces_eV_A_N3=np.zeros((3, 3))
        )
        records.append(codec.record_of(structure))
    objective = EnergyForces(energy_sigma_eV=0.01, force_sigma_eV_A=0.3)
    found = fisher_information(model, objective, codec, records, examples=3)
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for record in records:
        batch = EXACT.move(codec.collate([codec.encode(record)]))
        outputs = model(batch, create_graph=True)
        rows = [
            (outputs["energy_eV"][0] / 3, 0.01),
            *((f, 0.3) for f in outputs["forces_eV_A"].flatten()),
        ]
        for value, sigma in rows:
            grads = torch.autograd.grad(
                value, list(model.parameters()), retain_graph=True, allow_unused=True
            )
            for name, grad in zip(expected, grads, strict=True):
                if grad is not None:
                    expected[name] += (grad / sigma) ** 2 / 3
    for name, value in expected.items():
        assert torch.allclose(
            found[name], value, rtol=1e-8, atol=1e-8 * float(value.abs().max() or 1)
        ), name
    assert all(torch.isfinite(f).all() for f in found.values())


def test_fisher_needs_no_labels(base):
    store, checkpoint = base
    model = checkpoint.build().double()
    bare = [
        {
            **store[i],
            "energy_eV": np.nan,
            "forces_eV_A": np.full((len(store[i]["numbers"]), 3), np.nan),
        }
        for i in (0, 1)
    ]
    labelled = [store[i] for i in (0, 1)]
    a, b = (
        fisher_information(model, EnergyForces(), checkpoint.codec, records, examples=2)
        for records in (bare, labelled)
    )
    assert all(torch.allclose(a[name], b[name], rtol=1e-9) for name in a)


def test_averaged_weights_are_saved_beside_the_raw_ones(base):
    _, checkpoint = base
    weights, raw = checkpoint.weights(), checkpoint.weights("raw.safetensors")
    assert weights.keys() == raw.keys()
    assert any(not torch.equal(weights[name], raw[name]) for name in weights)


def test_forgetting_is_reported(tmp_path, base):
    store, checkpoint = base
    tuned = tune(
        checkpoint,
        stored(tmp_path, made(30)),
        tmp_path / "run",
        retention=store.path,
        schedule=Schedule(steps=20, batch=4, lr=2e-2),
    )
    found = tuned.metrics["retained"]
    assert (
        found["before"]["force_mae_meV_A"] == pytest.approx(found["before"]["force_mae_meV_A"])
        and found["after"]["loss"] != found["before"]["loss"]
    )


def test_denoising_learns_the_noise(base):
    store, checkpoint = base
    objective = Denoise(sigma_A=0.05)
    rng = np.random.default_rng(0)
    record = store[0]
    example = objective.prepare(record, checkpoint.codec, rng, True)
    clean = checkpoint.codec.encode(record)
    noise = -example["forces_eV_A"].numpy()
    assert np.abs(noise.mean(0)).max() < 1e-12
    moved = (noise[clean["sender"]] - noise[clean["receiver"]]) * 0.05
    if len(example["edge_A"]) == len(clean["edge_A"]):
        assert np.allclose(example["edge_A"].numpy(), clean["edge_A"].numpy() + moved)


def test_what_denoising_taught_can_be_fine_tuned(tmp_path, base):
    """A label-free parent has learnt no force in eV/angstrom, so the guard has nothing to
    compare.
    """
    store, _ = base
    schedule = Schedule(steps=2, batch=4, lr=1e-3)
    parent = train(
        Run(
            data=store.path,
            out=tmp_path / "denoise",
            model=SMALL,
            codec=AtomsCodec(cutoff_A=4.0),
            objective=Denoise(),
            schedule=schedule,
        )
    )
    tuned = tune(parent, store, tmp_path / "tuned", schedule=schedule)
    assert "references_level_0" in tuned.body["loop"]["start"]


def test_hidden_elements_cannot_be_read(base):
    store, checkpoint = base
    objective = MaskedElements(share=0.9)
    example = objective.prepare(store[0], checkpoint.codec, np.random.default_rng(0), True)
    hidden = example["number"] == 119
    assert (
        hidden.any()
        and (example["forces_eV_A"][hidden, 0] > 0).all()
        and (example["forces_eV_A"][~hidden] == 0).all()
    )
    run = Run(
        data=store.path,
        out=checkpoint.path.parent.parent / "masked",
        model=SMALL,
        codec=AtomsCodec(cutoff_A=4.0),
        objective=MaskedElements(),
        schedule=Schedule(steps=200, batch=16, lr=1e-2, evaluate_every=200),
    )
    assert train(run).metrics["accuracy"] > 0.5


def test_metrics_are_those_of_the_labels():
    class Rows(list):
        def column(self, name):
            return [r[name] for r in self]

    rng = np.random.default_rng(0)
    rows = Rows(
        {
            "numbers": np.array([8, 1, 1]),
            "forces_eV_A": rng.normal(size=(3, 3)),
            "energy_eV": -5.0 * i,
        }
        for i in (1, 2)
    )
    rows[1]["forces_eV_A"] = np.full((3, 3), np.nan)
    outputs = {
        "energy_eV": np.array([-5.3, -10.3]),
        "forces_eV_A": [rows[0]["forces_eV_A"] + 0.1, np.zeros((3, 3))],
    }
    found = potential_metrics(outputs, rows)
    assert found["force_mae_meV_A"] == pytest.approx(100) and found[
        "energy_mae_meV_atom"
    ] == pytest.approx(100)
    assert found["relative_energy_mae_meV_atom"] == pytest.approx(0, abs=1e-9)
