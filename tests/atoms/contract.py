"""What tests/test_contract.py needs of this domain: a tiny store and two tiny runs on it."""

from pathlib import Path

import numpy as np
from ase.build import molecule
from ase.calculators.emt import EMT

from sciforge.atoms import AtomsCodec, EnergyForces, PotentialConfig, Structures
from sciforge.core.data.store import Store, prepare
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.structures.extxyz import write_extxyz
from sciforge.structures.structure import Structure


def shaken(names: list[str], count: int, rng: np.random.Generator, level: str) -> list[Structure]:
    """Return molecules in random motion with the energies and forces of effective medium theory."""
    made = []
    for name in names:
        for _ in range(count):
            atoms = molecule(name)
            atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
            atoms.calc = EMT()
            labels = {
                "energy_eV": float(atoms.get_potential_energy()),
                "forces_eV_A_N3": atoms.get_forces(),
            }
            made.append(
                Structure(
                    atoms.numbers.astype(np.int64),
                    atoms.positions,
                    level=level,
                    name=name,
                    **labels,
                )
            )
    return made


def tiny(folder: Path) -> tuple[Store, Run, Run]:
    """Return a store, a pretraining run on it, and a fine-tuning run from that run's checkpoint."""
    rng = np.random.default_rng(0)
    old = ["H2O", "NH3", "CH4", "CO2", "HCN", "N2", "CH3OH", "C2H2", "H2CO", "CO", "O2", "N2H4"]
    write_extxyz(folder / "old.xyz", shaken(old, 5, rng, "emt"))
    write_extxyz(folder / "new.xyz", shaken(["CH3CH2OH"], 60, rng, "emt"))
    store = prepare(
        Structures(files=(folder / "old.xyz",), validation_share=0.2, test_share=0.2),
        folder / "old",
    )
    split = {"split": "random", "validation_share": 0.3, "test_share": 0.2}
    prepare(Structures(files=(folder / "new.xyz",), **split), folder / "new")
    common = {"hardware": Hardware(device="cpu", precision="float64", threads=1), "seed": 3}
    pretraining = Run(
        data=folder / "old",
        out=folder / "pretraining",
        model=PotentialConfig(channels=8, radial=4, hidden=8, body=3),
        codec=AtomsCodec(cutoff_A=4.0),
        objective=EnergyForces(),
        schedule=Schedule(steps=6, batch=8, lr=5e-3, evaluate_every=3, ema_decay=0.5),
        **common,
    )
    finetuning = Run(
        data=folder / "new",
        out=folder / "finetuning",
        init=pretraining.out,
        objective=EnergyForces(guard=0.0),
        schedule=Schedule(steps=6, batch=8, lr=5e-3, kind="step", evaluate_every=2, patience=3),
        **common,
    )
    return store, pretraining, finetuning
