"""The atoms section of `sciforge demo`: few DFT frames, what fine-tuning forgets, and a molecule in motion."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np

from sciforge.atoms.data.structures import Structures
from sciforge.atoms.inference.calculator import Calculator
from sciforge.atoms.objectives.energy_forces import EnergyForces
from sciforge.atoms.simulation.dynamics import run_md
from sciforge.core.data.store import Store, prepare
from sciforge.core.files.tables import Section, Table
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.loop import train
from sciforge.core.training.run import EWC, Full, Hardware, Replay, Run, Schedule, Subset
from sciforge.experiments.label_efficiency.run import measure
from sciforge.experiments.label_efficiency.spec import LabelEfficiency
from sciforge.experiments.methods import Recipe
from sciforge.structures.extxyz import write_extxyz
from sciforge.structures.readers import read_structures

SIZES, SEEDS = (10, 50), 3
STRENGTH = 1e-3
SHORT = Schedule(
    steps=150,
    batch=5,
    lr=4e-3,
    kind="cosine",
    min_lr_ratio=0.02,
    weight_decay=0.0,
    betas=(0.9, 0.999),
    clip=10.0,
    ema_decay=0.97,
)
WHAT = (
    "Malonaldehyde at PBE/def2-SVP, 330 frames of thermal motion with proton transfers; potential-mini was pretrained on "
    "GFN2-xTB labels of other molecules and has met neither this molecule nor this level of theory. All methods see the same "
    "few frames, seed by seed; blocks of time separate training from test. gdml is the classical rival: kernel regression in "
    "the gradient domain with the symmetry of the molecule."
)


def demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    """Fine-tune potential-mini on few DFT frames, compare, show what it forgets, and run dynamics with it.

    Args:
        folder: for everything that is made.
        find: gives the path of bundled data by name.
        full: more numbers of labels and seeds; takes minutes.
    """
    new, base = _new_data(folder, find("malonaldehyde-dft")), find("potential-mini")
    objective = EnergyForces()
    spec = LabelEfficiency(
        data=new.path, out=folder / "curve", init=base, objective=objective, sizes=SIZES, seeds=SEEDS,
        methods=("pretrained", "untrained", "gdml"), recipe=Recipe(SHORT, Full(), epochs=0.0), hardware=Hardware(threads=1),
    )  # fmt: skip
    result = measure(spec)
    picture = result.save(folder / "curve.png")
    forgetting = _forgetting(folder, _old_data(folder, find("xtb-small")), new, base)
    trace, summary = _motion(folder, find("malonaldehyde-dft"))
    pictures = (
        (picture, "Force error against the number of DFT frames, with 95 % intervals."),
        (trace, "Energies in 0.15 ps of Newtonian motion with the fine-tuned potential."),
    )
    title = "Atoms: a potential specialised with few DFT frames"
    return Section(title, (WHAT, summary), (result.table(), forgetting), pictures)


def _new_data(folder: Path, file: Path) -> Store:
    place = folder / "malonaldehyde"
    if place.exists():
        return Store.open(place)
    return prepare(Structures(files=(file,), split="time", validation_share=0.05, test_share=0.4), place)


def _old_data(folder: Path, file: Path, every: int = 40) -> Store:
    """Return a thin slice of the pretraining data: enough to see forgetting on, and to replay."""
    place = folder / "old"
    if place.exists():
        return Store.open(place)
    write_extxyz(folder / "old.extxyz", islice(read_structures(file), 0, None, every))
    return prepare(
        Structures(files=(folder / "old.extxyz",), split="molecule", validation_share=0.3, test_share=0.0), place
    )


def _forgetting(folder: Path, old: Store, new: Store, base: Path) -> Table:
    """Fine-tune on 50 frames with and without the means against forgetting; return both errors of each."""
    levels = ("gfn2-xtb", new.meta["levels"][0])
    means = {
        "plain": {},
        "EWC": {"regularization": EWC(STRENGTH, step="proximal")},
        "EWC + replay": {"regularization": EWC(STRENGTH, step="proximal"), "replay": Replay(old.path, 0.25)},
    }
    rows = []
    for name, change in means.items():
        out = folder / name.replace(" + ", "-").lower()
        run = Run(
            data=new.path, out=out, init=base, objective=EnergyForces(levels=levels), schedule=SHORT, subset=Subset(50),
            retention=old.path, hardware=Hardware(threads=1), **change,
        )  # fmt: skip
        made = train(run, resume=out.exists())
        error = _test_error(made, new)
        kept = made.metrics["retained"]
        before, after = (kept[when]["force_mae_meV_A"] for when in ("before", "after"))
        rows.append((name, f"{error:.0f}", f"{before:.0f}", f"{after:.0f}", f"{after / before:.2f}"))
    columns = ("fine-tuning, 50 frames", "new, force MAE meV/A", "old before", "old after", "ratio")
    note = (
        "Old: GFN2-xTB forces of molecules of the pretraining distribution. Each level of theory has its own readout."
    )
    return Table(columns, tuple(rows), note)


def _test_error(made: Checkpoint, store: Store) -> float:
    from sciforge.core.training.model import Model

    return Model.load(made.path).evaluate(store, split="test")["force_mae_meV_A"]


def _motion(folder: Path, file: Path) -> tuple[Path, str]:
    """Let the molecule move without a thermostat, draw the energies, and say how well they are kept."""
    from ase import Atoms

    first = next(s for s in read_structures(file) if len(s) > 1)
    atoms = Atoms(first.numbers_N, first.pos_A_N3)
    calculator = Calculator(folder / "ewc" / "final", level=first.level)
    found = run_md(atoms, calculator, steps=300, temperature_K=300.0, timestep_fs=0.5, ensemble="nve", interval=2)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 2.8), layout="constrained")
    start = found["total_eV"][0]
    for name, colour in (("potential", "#0072B2"), ("kinetic", "#D55E00"), ("total", "black")):
        values = found[f"{name}_eV"] - (0 if name == "kinetic" else start)
        axes.plot(found["time_fs"], values, color=colour, label=name, lw=1.6 if name == "total" else 1.0)
    axes.set(xlabel="time, fs", ylabel="energy above the start, eV")
    axes.legend(frameon=False, ncols=3, loc="upper right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    picture = folder / "motion.png"
    figure.savefig(picture, dpi=150)
    pyplot.close(figure)
    swing = 1000 * float(np.ptp(found["total_eV"])) / len(atoms)
    summary = (
        f"Dynamics with the EWC checkpoint through ASE: over {found['time_fs'][-1]:.0f} fs without a thermostat the total "
        f"energy stays within {swing:.2f} meV per atom while potential and kinetic energy exchange "
        f"{float(np.ptp(found['kinetic_eV'])):.2f} eV."
    )
    return picture, summary
