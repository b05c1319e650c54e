"""What tests/test_contract.py needs of this domain: a tiny store and two tiny runs on it."""

from pathlib import Path

from sciforge.core.data.store import Store, prepare
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.molecules.data.prepare import Molecules
from sciforge.molecules.model.molecule_transformer import MoleculeNetConfig
from sciforge.molecules.objectives.properties import Properties
from sciforge.molecules.objectives.self_supervised import PredictDescriptors

PARTS = ("C", "O", "N", "F", "C#N", "C(=O)O", "c1ccccc1", "C1CC1")


def tiny(folder: Path) -> tuple[Store, Run, Run]:
    """Return a store, a pretraining run on it, and a fine-tuning run from that run's checkpoint."""
    pairs = [f"C({a})CC{b}" for a in PARTS for b in PARTS]
    (folder / "old.smi").write_text("\n".join(pairs) + "\n")
    rows = [
        f"{s}CO,{len(s) + 0.5 * s.count('O')},{int('c' in s) if i % 4 else ''}"
        for i, s in enumerate(pairs)
    ]
    (folder / "new.csv").write_text("smiles,size,aromatic\n" + "\n".join(rows) + "\n")
    options = {
        "split": "random",
        "shares": (0.6, 0.2, 0.2),
        "descriptors": True,
        "duplicates": "first",
    }
    store = prepare(Molecules(files=(folder / "old.smi",), **options), folder / "old")
    labelled = Molecules(files=(folder / "new.csv",), labels=("size", "aromatic"), **options)
    prepare(labelled, folder / "new", on_error="skip")
    common = {"hardware": Hardware(device="cpu", precision="float64", threads=1), "seed": 3}
    pretraining = Run(
        data=folder / "old",
        out=folder / "pretraining",
        model=MoleculeNetConfig(width=16, depth=1, heads=2),
        objective=PredictDescriptors(),
        schedule=Schedule(steps=6, batch=8, lr=5e-3, evaluate_every=3, ema_decay=0.5),
        **common,
    )
    finetuning = Run(
        data=folder / "new",
        out=folder / "finetuning",
        init=pretraining.out,
        objective=Properties(),
        schedule=Schedule(steps=6, batch=8, lr=1e-4, kind="step", evaluate_every=2, patience=3),
        **common,
    )
    return store, pretraining, finetuning
