"""`sciforge generate`: molecules under hard constraints, as SMILES and, on request, with conformers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor
from tqdm import tqdm

from sciforge.core.files.output_files import about, whole_files, whole_paths
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, did_you_mean
from sciforge.molecules.data.codec import MoleculeCodec
from sciforge.molecules.generation.constraints import Constraints
from sciforge.molecules.generation.feasibility import NO_LIMIT
from sciforge.molecules.generation.sampler import Drawn, Sampling, sample
from sciforge.molecules.generation.unmasked_validity import unmasked_validity
from sciforge.molecules.objectives.generation import Grow, condition_of


@dataclass(frozen=True, kw_only=True)
class Generate:
    """New molecules, every one valid and within every constraint; no draw is rejected.

    Beside OUT stands OUT.json: where the molecules come from, what the mask took from the policy, and how many would be valid
    without it.

    Args:
        out: SMILES to write (.smi), one a line with a name.
        num: how many.
        charge: net charge.
        atoms: fewest and most heavy atoms.
        formula: exact formula such as C9H8O4; overrides `atoms`.
        rings: fewest and most rings.
        ring_sizes: smallest and largest ring.
        types: atom types to use, such as C N O F; all that the checkpoint knows where empty.
        scaffold: SMILES to grow from; dummy atoms (*) mark where.
        forbidden: SMILES of substructures that must not appear (heavy atoms and bond orders count, hydrogens do not).
        want: properties to steer to, as NAME=VALUE (logp=2.5); a wish, not a constraint.
        temperature: of the policy, after the mask.
        top_p: keep the likeliest actions up to that probability, after the mask.
        seed: of the draws.
        draw: molecules at once; other numbers give other molecules.
        precision: of the net; bfloat16 is about twice as fast on processors that calculate in it.
        unmasked: how many to draw without the mask, to tell how much of the validity is learnt; 0 for none.
        conformers: SDF to write with one ETKDG conformer for each molecule that RDKit can embed.
    """

    out: Path
    num: int = 1000
    charge: int = 0
    atoms: tuple[int, int] = (1, 40)
    formula: str | None = None
    rings: tuple[int, int] = (0, NO_LIMIT)
    ring_sizes: tuple[int, int] = (3, 8)
    types: tuple[str, ...] = ()
    scaffold: str | None = None
    forbidden: tuple[str, ...] = ()
    want: tuple[str, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    draw: int = 1024
    precision: Literal["float32", "bfloat16"] = "float32"
    unmasked: int = 256
    conformers: Path | None = None

    def constraints(self) -> Constraints:
        """Return the hard part."""
        names = ("charge", "atoms", "formula", "rings", "ring_sizes", "types", "scaffold", "forbidden")
        return Constraints(**{name: getattr(self, name) for name in names})

    def write(self, model: Model) -> Path:
        """Draw, write, and return the path of the SMILES."""
        if self.num < 1 or self.unmasked < 0:
            raise ConfigError(f"num is {self.num} and unmasked {self.unmasked}; give at least 1 and 0")
        wishes = wishes_of(self.want)
        sampling = Sampling(self.temperature, self.top_p, self.draw, self.seed, self.precision)
        drawn = generate_from(model, self.num, self.constraints(), sampling, wishes)
        smiles = drawn.smiles()
        report = about(self, model) | {
            "molecules": len(smiles),
            "unique": len(set(smiles)),
            "mask_removed": drawn.removed,
        }
        if self.unmasked:
            condition = condition_for(model, wishes)
            report["valid_without_mask"] = unmasked_validity(model.network, self.unmasked, sampling, condition)
        with whole_files(self.out, Path(f"{self.out}.json")) as (lines, beside):
            for number, text in enumerate(smiles):
                lines.write(f"{text}\tsciforge-{number}\n")
            beside.write(json.dumps(report, indent=1) + "\n")
        if self.conformers is not None:
            write_conformers(smiles, self.conformers, self.seed)
        return Path(self.out)


def generate(
    checkpoint: Path | str,
    num: int = 100,
    *,
    constraints: Constraints | None = None,
    sampling: Sampling | None = None,
    want: dict[str, float] | None = None,
    device: str = "auto",
) -> Drawn:
    """Draw molecules from a checkpoint in Python; `.smiles()` of the result are canonical SMILES.

    Args:
        checkpoint: path or name, such as molecules-mini.
        num: how many.
        constraints: hard; the defaults ask for neutral molecules of at most 40 heavy atoms.
        sampling: temperature, top-p, batch, seed.
        want: properties to steer to, such as {"logp": 2.5}.
        device: auto, cpu or cuda.

    Raises:
        ConfigError: the checkpoint does not generate, or no molecule can meet the constraints.
    """
    from sciforge import catalog

    model = Model.load(catalog.locate(checkpoint), device)
    return generate_from(model, num, constraints or Constraints(), sampling or Sampling(), want or {})


def generate_from(
    model: Model, num: int, constraints: Constraints, sampling: Sampling, want: dict[str, float]
) -> Drawn:
    """Draw molecules from a loaded checkpoint."""
    need_policy(model)
    model.network.eval()
    return sample(model.network, num, constraints, sampling, condition_for(model, want))


def need_policy(model: Model) -> Grow:
    """Return the generating objective of a checkpoint; raises ConfigError where it has none."""
    if not isinstance(model.objective, Grow):
        kind = type(model.objective).__name__
        raise ConfigError(f"{model.checkpoint.path} was trained for {kind}, not to generate; train it with `grow`")
    return model.objective


def condition_for(model: Model, want: dict[str, float]) -> Tensor | None:
    """Return the condition [2 P] of wishes, None where the checkpoint knows no properties and none is wished.

    Raises:
        ConfigError: a wish is not among the properties that the checkpoint was told in training.
    """
    known, codec = need_policy(model).conditions, model.codec
    for name in want:
        if name not in known:
            raise ConfigError(f"{model.checkpoint.path} cannot be steered to {name!r}; {did_you_mean(name, known)}")
    if not known:
        return None
    told = np.array([name in want for name in known])
    return condition_of(np.array([_scaled(codec, name, want.get(name)) for name in known]), told)


def _scaled(codec: MoleculeCodec, name: str, value: float | None) -> float:
    place = codec.properties.index(name)
    return 0.0 if value is None else (value - codec.means[place]) / codec.stds[place]


def wishes_of(words: Sequence[str]) -> dict[str, float]:
    """Return NAME=VALUE words as a table.

    >>> wishes_of(["logp=2.5"])
    {'logp': 2.5}
    """
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(f"want {word!r} is not NAME=VALUE; write logp=2.5 for instance") from None
    return found


def write_conformers(smiles: Sequence[str], out: Path, seed: int) -> int:
    """Write an SDF with one ETKDG conformer of each molecule, relaxed by MMFF94 where it has parameters; return how many could
    not be embedded."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import AllChem

    failed = 0
    with whole_paths(out) as (work,), rdBase.BlockLogs():
        with Chem.SDWriter(str(work)) as writer:
            for number, text in enumerate(tqdm(smiles, "conformers", disable=None, leave=False)):
                mol = Chem.AddHs(Chem.MolFromSmiles(text))
                mol.SetProp("_Name", f"sciforge-{number}")
                mol.SetProp("SMILES", text)
                if AllChem.EmbedMolecule(mol, randomSeed=seed + number) < 0:
                    failed += 1
                    continue
                if AllChem.MMFFHasAllMoleculeParams(mol):
                    AllChem.MMFFOptimizeMolecule(mol)
                writer.write(mol)
    return failed
