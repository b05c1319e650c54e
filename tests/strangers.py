"""Labelled files as strangers bring them, one of each domain: 40 records of 7 donors, some of whose
records are near duplicates.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sciforge as sf

COUNT = 40
DONORS = [f"donor {i % 7}" for i in range(COUNT)]
DOMAINS = ("atoms", "genomes", "heat", "images", "molecules", "text")


def natural_inputs(domain: str) -> tuple[Any, Any]:
    """Return inputs in memory and their labels; a heat table holds its labels."""
    inputs, labels = INPUTS[domain](np.random.default_rng(0))
    return inputs, labels


def _genomes(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    return ["".join(rng.choice(list("ACGT"), 60)) for _ in range(COUNT)], ["no", "yes"] * 20


def _text(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    words = ["cell", "rat", "dose", "liver", "serum", "group", "trial", "gene", "mice", "blood"]
    return [" ".join(rng.choice(words, 9)) for _ in range(COUNT)], ["no", "yes"] * 20


def _molecules(rng: np.random.Generator) -> tuple[list[str], list[float]]:
    ends = ["O", "N", "Cl", "C(=O)O"]
    inputs = ["C" * (2 + i // 4) + ends[i % 4] for i in range(COUNT)]
    return inputs, [float(i) for i in range(COUNT)]


def _images(rng: np.random.Generator) -> tuple[list[np.ndarray], list[str]]:
    return [rng.integers(0, 255, (16, 16), dtype=np.uint8) for _ in range(COUNT)], ["a", "b"] * 20


def _atoms(rng: np.random.Generator) -> tuple[list[Any], None]:
    from ase.build import molecule

    inputs = []
    for number in range(COUNT):
        atoms = molecule(("H2O", "CH4", "C2H6", "NH3")[number % 4])
        atoms.positions += rng.normal(0, 0.3, atoms.positions.shape)
        atoms.info["energy"] = -1.0 - 0.01 * number
        inputs.append(atoms)
    return inputs, None


def _heat(rng: np.random.Generator) -> tuple[pd.DataFrame, None]:
    re = np.linspace(1e4, 5e4, COUNT)
    geometry = {"Pr": 0.7, "e_D": 0.05, "P_e": 10.0, "alpha_deg": 90.0, "W_H": 1.0}
    return pd.DataFrame({"Re": re, **geometry, "Nu": 0.02 * re**0.8}), None


INPUTS: dict[str, Callable[[np.random.Generator], tuple[Any, Any]]] = {
    "atoms": _atoms,
    "genomes": _genomes,
    "heat": _heat,
    "images": _images,
    "molecules": _molecules,
    "text": _text,
}


def preparer(domain: str, folder: Path, group: str = "donor", **options: Any) -> Any:
    """Write the domain's file with a column `donor` and return its preparer.

    Args:
        domain: its name.
        folder: where to.
        group: of `group_column`; empty for none.
        options: of the preparer.
    """
    inputs, labels = natural_inputs(domain)
    options = {"group_column": group, **options}
    if domain == "atoms":
        from ase.io import write

        for atoms, donor in zip(inputs, DONORS, strict=True):
            atoms.info["donor"] = donor
        write(folder / "frames.xyz", inputs)
        return sf.atoms.Structures(files=(folder / "frames.xyz",), **options)
    if domain == "images":
        from PIL import Image

        (folder / "pictures").mkdir(parents=True)
        for number, pixels in enumerate(inputs):
            Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")
        names = [f"{number}.png" for number in range(COUNT)]
        table = pd.DataFrame({"image": names, "label": labels, "donor": DONORS})
        table.to_csv(folder / "labels.csv", index=False)
        files = {"files": (folder / "pictures",), "labels": (folder / "labels.csv",)}
        return sf.images.Images(**files, **options)
    if domain == "heat":
        basis = "# basis: ribbed wall, projected area, smooth diameter\n"
        table = basis + inputs.assign(donor=DONORS).to_csv(index=False)
        (folder / "points.csv").write_text(table, encoding="utf-8")
        return sf.heat.Measurements(files=(folder / "points.csv",), **options)
    column = {"genomes": "sequence", "molecules": "smiles", "text": "text"}[domain]
    table = pd.DataFrame({column: inputs, "label": labels, "donor": DONORS})
    table.to_csv(folder / "table.csv", index=False)
    files = {"files": (folder / "table.csv",)}
    if domain == "genomes":
        return sf.genomes.Sequences(**files, **options)
    if domain == "text":
        return sf.text.Documents(**files, label_column="label", **options)
    options = {"split": "random", **options}  # all of them are of one scaffold
    return sf.molecules.Molecules(**files, labels=("label",), **options)
