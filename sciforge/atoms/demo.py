"""The atoms section of `sciforge demo`: few DFT frames beside rivals, what fine-tuning forgets,
and dynamics.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.files.tables import Section, Table
from sciforge.core.training.run import EWC, Full, Hardware, Replay, Run, Schedule, Subset

if TYPE_CHECKING:
    from sciforge.core.training.model import Model

STRENGTH = 1e-3
EVERY = 40  # of the pretraining structures: enough to measure forgetting on, and to replay
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
TASK = (
    "Malonaldehyde at PBE/def2-SVP, 330 frames of thermal motion with proton transfers."
    " potential-mini was pretrained on GFN2-xTB labels of other molecules and has seen neither this"
    " molecule nor this level of theory. All methods see the same few frames, seed by seed; blocks"
    " of time separate training from test. gdml is the classical rival: kernel regression in the"
    " gradient domain with the symmetry of the molecule. From about 50 frames on it is better than"
    " these short trainings; see the benchmarks."
)
MOTION = (
    "Dynamics with the fine-tuned potential in ASE: over {time:.0f} fs without a thermostat the"
    " total energy stays within {swing:.2f} meV per atom while potential and kinetic energy"
    " exchange {exchange:.2f} eV."
)


def demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    """Fine-tune potential-mini on few DFT frames, compare, measure what it forgets, and run
    dynamics with it.

    Args:
        folder: for everything that is made.
        find: gives the path of bundled data by name.
        full: more numbers of frames and seeds; takes minutes.
    """
    import sciforge as sf
    from sciforge.experiments.methods import Recipe

    init = find("potential-mini")
    frames = sf.atoms.Structures(
        files=(find("malonaldehyde-dft"),), split="time", validation_share=0.05, test_share=0.4
    )
    task = _dataset(folder / "malonaldehyde", frames)
    curve = sf.label_efficiency(
        task,
        init=init,
        objective=sf.atoms.EnergyForces(),
        sizes=(10, 20, 50) if full else (10,),
        seeds=5 if full else 3,
        methods=("pretrained", "untrained", "gdml"),
        recipe=Recipe(SHORT, Full(), epochs=0.0),
        hardware=Hardware(threads=1),
        out=folder / "curve",
    )
    old = _dataset(folder / "old", _old_structures(folder, find("xtb-small")))
    forgotten, model = _forgetting(folder, old, task, init, full)
    trace, text = _motion(folder, model, find("malonaldehyde-dft"))
    pictures = (
        (
            curve.save(folder / "curve.png"),
            "Force error against the number of DFT frames, with 95 % intervals.",
        ),
        (trace, "Energies in 0.15 ps of Newtonian dynamics with the fine-tuned potential."),
    )
    title = "Atoms: a potential specialised with few DFT frames"
    return Section(title, (TASK, text), (curve.table(), forgotten), pictures)


def _dataset(place: Path, preparer: Any) -> Any:
    import sciforge as sf

    return sf.Dataset.open(place) if place.exists() else sf.prepare(preparer, place)


def _old_structures(folder: Path, file: Path) -> Any:
    """Return a preparer of a thin slice of the pretraining data."""
    from itertools import islice

    import sciforge as sf
    from sciforge.structures.extxyz import write_extxyz
    from sciforge.structures.readers import read_structures

    thin = folder / "old.extxyz"
    write_extxyz(thin, islice(read_structures(file), 0, None, EVERY))
    return sf.atoms.Structures(
        files=(thin,), split="molecule", validation_share=0.3, test_share=0.0
    )


def _forgetting(folder: Path, old: Any, new: Any, init: Path, full: bool) -> "tuple[Table, Model]":
    """Fine-tune on 50 frames with and without means against forgetting; return both errors of
    each, and the last model.
    """
    import sciforge as sf

    levels = ("gfn2-xtb", new.store.meta["levels"][0])
    ewc = EWC(STRENGTH, step="proximal")
    means: dict[str, Mapping[str, Any]] = {"plain": {}, "EWC": {"regularization": ewc}}
    means["EWC + replay"] = {"regularization": ewc, "replay": Replay(old.path, 0.25)}
    rows = []
    for name, change in means.items():
        if name == "EWC" and not full:
            continue
        out = folder / name.replace(" + ", "-").lower()
        run = Run(
            data=new.path,
            out=out,
            init=init,
            objective=sf.atoms.EnergyForces(levels=levels),
            schedule=SHORT,
            subset=Subset(50),
            retention=old.path,
            hardware=Hardware(threads=1),
            **change,
        )
        checkpoint = sf.train(run, resume=out.exists())
        model = sf.load(checkpoint.path, device="cpu")
        error = model.evaluate(new)["force_mae_meV_A"]
        before, after = (
            checkpoint.metrics["retained"][when]["force_mae_meV_A"] for when in ("before", "after")
        )
        rows.append(
            (name, f"{error:.0f}", f"{before:.0f}", f"{after:.0f}", f"{after / before:.2f}")
        )
    columns = ("fine-tuning, 50 frames", "new, force MAE meV/A", "old before", "old after", "ratio")
    note = (
        "Old: GFN2-xTB forces of molecules of the pretraining data. Each level of theory has its"
        " own readout."
    )
    return Table(columns, tuple(rows), note), model


def _motion(folder: Path, model: "Model", file: Path) -> tuple[Path, str]:
    """Let the molecule move without a thermostat, draw the energies, and say how well they are
    conserved.
    """
    from sciforge.core.files.results import new_axes
    from sciforge.structures.readers import read_structures

    first = next(structure for structure in read_structures(file) if len(structure) > 1)
    from ase import Atoms

    atoms = Atoms(first.numbers_N, first.pos_A_N3)
    atoms.calc = model.calculator(level=first.level)
    from sciforge.atoms.simulation.dynamics import run_md

    log = run_md(
        atoms, atoms.calc, 300, temperature_K=300.0, timestep_fs=0.5, ensemble="nve", interval=2
    ).to_pandas()
    axes = new_axes(7, 2.8)
    for name, colour in (("potential", "#0072B2"), ("kinetic", "#D55E00"), ("total", "black")):
        start = 0 if name == "kinetic" else log["total_eV"][0]
        axes.plot(
            log["time_fs"],
            log[f"{name}_eV"] - start,
            color=colour,
            label=name,
            lw=1.6 if name == "total" else 1,
        )
    axes.set(xlabel="time, fs", ylabel="energy above the start, eV")
    axes.legend(frameon=False, ncols=3, loc="upper right")
    picture = folder / "motion.png"
    axes.figure.savefig(picture, dpi=150)
    swing = 1000 * float(np.ptp(log["total_eV"])) / len(atoms)
    exchange = float(np.ptp(log["kinetic_eV"]))
    return picture, MOTION.format(time=log["time_fs"].iloc[-1], swing=swing, exchange=exchange)
