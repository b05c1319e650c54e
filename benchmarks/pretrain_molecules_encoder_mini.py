"""Pretrain molecules-encoder-mini: RDKit descriptors and masked atoms of some 55,000 structures, on
one CPU core.

The structures: every 56th molecule of MOSES train, fragments of others (cut at acyclic single
bonds, for small molecules with halogens), every 18th of QM9 and all of Tox21 (structures, no
labels). Whatever shares the first 14 letters of its InChIKey with ESOL, FreeSolv, Lipo, BBBP or
BACE is left out. Example:

    python benchmarks/pretrain_molecules_encoder_mini.py --data ../shared/data/molecules --out
    runs/molecules-encoder-mini
"""

import argparse
import csv
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rdkit import Chem, rdBase

from sciforge import api
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.molecules.data.prepare import Molecules
from sciforge.molecules.model.molecule_transformer import MODELS
from sciforge.molecules.objectives.self_supervised import (
    DescriptorsAndMasked,
    MaskedAtoms,
    PredictDescriptors,
)

HELD_OUT = ("esol_delaney", "freesolv_sampl", "lipo", "bbbp", "bace")
FRAGMENTS = 12_000
OBJECTIVES = {
    "descriptors": PredictDescriptors(),
    "masked": MaskedAtoms(),
    "both": DescriptorsAndMasked(),
}


def fragments(smiles: str, rng: np.random.Generator) -> list[str]:
    """Cut one or two acyclic single bonds that touch no aromatic nitrogen and return the pieces
    of at least 4 atoms.
    """
    mol = Chem.MolFromSmiles(smiles)
    cut = Chem.MolFromSmarts("[!$([n])]-!@[!$([n])]")
    bonds = [mol.GetBondBetweenAtoms(i, j).GetIdx() for i, j in mol.GetSubstructMatches(cut)]
    if not bonds:
        return []
    chosen = rng.choice(bonds, min(len(bonds), int(rng.integers(1, 3))), replace=False).tolist()
    pieces = Chem.GetMolFrags(
        Chem.FragmentOnBonds(mol, chosen, addDummies=False), asMols=True, sanitizeFrags=False
    )
    found = [Chem.MolToSmiles(piece) for piece in pieces if piece.GetNumAtoms() >= 4]
    with rdBase.BlockLogs():
        return [text for text in found if Chem.MolFromSmiles(text) is not None]


def structures(data: Path) -> Iterator[str]:
    """Yield SMILES of the pretraining set, the same on every machine."""
    rng = np.random.default_rng(0)
    made = 0
    with gzip.open(data / "moses/train.csv.gz", "rt") as file:
        for number, row in enumerate(csv.DictReader(file)):
            if number % 56 == 0:
                yield row["SMILES"]
            if number % 200 == 7 and made < FRAGMENTS:
                for piece in fragments(row["SMILES"], rng):
                    made += 1
                    yield piece
    with gzip.open(data / "qm9_smiles.csv.gz", "rt") as file:
        yield from (
            row["smiles"] for number, row in enumerate(csv.DictReader(file)) if number % 18 == 0
        )
    with open(data / "moleculenet/tox21.csv") as file:
        yield from (row["smiles"] for row in csv.DictReader(file))


def prepared(data: Path, out: Path, workers: int) -> Path:
    """Write the list of structures and prepare it with descriptors; what exists is kept."""
    store = out / "store"
    if not store.exists():
        out.mkdir(parents=True, exist_ok=True)
        (out / "structures.smi").write_text("\n".join(structures(data)) + "\n")
        held_out = tuple(data / f"moleculenet/{name}.csv" for name in HELD_OUT)
        preparer = Molecules(
            files=(out / "structures.smi",),
            split="random",
            shares=(0.98, 0.01, 0.01),
            components="largest",
            duplicates="first",
            exclude=held_out,
            descriptors=True,
        )
        api.prepare(preparer, store, workers=workers, on_error="skip")
    return store


def main() -> None:
    """Prepare, train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--objective", choices=OBJECTIVES, default="descriptors")
    parser.add_argument("--steps", type=int, default=4000)
    options = parser.parse_args()
    store = prepared(options.data, options.out, options.workers)
    run = Run(
        data=store,
        out=options.out / options.objective,
        model=MODELS["mini"],
        objective=OBJECTIVES[options.objective],
        schedule=Schedule(
            steps=options.steps,
            batch=64,
            lr=1.5e-3,
            kind="cosine",
            min_lr_ratio=0.01,
            warmup=0.03,
            save_every=500,
        ),
        hardware=Hardware(threads=1, precision="bfloat16"),
    )
    checkpoint = api.train(run, resume=True)
    print(
        {
            name: round(value, 4)
            for name, value in api.evaluate(checkpoint.path, store, split="test").items()
        }
    )


if __name__ == "__main__":
    main()
