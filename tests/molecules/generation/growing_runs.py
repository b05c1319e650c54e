"""What tests/test_contract.py needs of this domain: a tiny store and two tiny runs on it."""

from pathlib import Path

from sciforge.core.data.store import Store, prepare
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.molecules import Grow, MoleculeNetConfig, Molecules

OLD = (
    "CCO",
    "CC(=O)O",
    "c1ccccc1",
    "CCN",
    "C1CC1",
    "OCC=C",
    "N#CC",
    "C[N+](=O)[O-]",
    "CS(C)(=O)=O",
    "c1cc[nH]c1",
    "CCF",
    "CCCl",
    "C1CCOC1",
    "NC(=O)C",
    "C#CC",
    "COC",
    "CC(C)C",
    "OC=O",
    "CNC",
    "C1=CC=NC=C1",
    "CCS",
    "C1CC2CC12",
    "O=C=O",
    "CCBr",
)
NEW = (
    "CCCO",
    "CCCC(=O)O",
    "Cc1ccccc1",
    "CCCN",
    "CC1CC1",
    "OCCC=C",
    "N#CCC",
    "CC[N+](=O)[O-]",
    "Oc1ccccc1",
    "NCCO",
    "FCCF",
    "CC1CCOC1",
    "CNC(=O)C",
    "CC#CC",
    "CCOC",
    "CC(C)O",
    "COC=O",
    "CN(C)C",
    "Cc1ccncc1",
    "CSC",
    "OCCO",
    "CCCBr",
    "C1CCCC1",
    "O=CC=O",
)


def tiny(folder: Path) -> tuple[Store, Run, Run]:
    """Return a store, a pretraining run on it, and a fine-tuning run from that run's checkpoint."""
    stores = {}
    for name, smiles in (("old", OLD), ("new", NEW)):
        (folder / f"{name}.smi").write_text("".join(f"{text}\n" for text in smiles))
        what = Molecules(
            files=(folder / f"{name}.smi",),
            split="random",
            shares=(0.6, 0.25, 0.15),
            properties=("logp",),
        )
        stores[name] = prepare(what, folder / name)
    common = {"hardware": Hardware(device="cpu", precision="float64", threads=1), "seed": 3}
    pretraining = Run(
        data=folder / "old",
        out=folder / "pretraining",
        model=MoleculeNetConfig(width=16, depth=1, heads=2),
        objective=Grow(conditions=("logp",), canonical_share=0.5, seeded_share=0.25),
        schedule=Schedule(steps=6, batch=8, lr=5e-3, evaluate_every=3, ema_decay=0.5),
        **common,
    )
    finetuning = Run(
        data=folder / "new",
        out=folder / "finetuning",
        init=pretraining.out,
        objective=Grow(conditions=("logp",)),
        schedule=Schedule(steps=6, batch=8, lr=5e-3, kind="step", evaluate_every=2, patience=3),
        **common,
    )
    return stores["old"], pretraining, finetuning
