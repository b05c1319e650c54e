"""Generated molecules as users hold them: a sequence of RDKit molecules with a table, a picture
and files.
"""

import html
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from tqdm import tqdm

from sciforge.core.files.output_files import whole_files, whole_paths
from sciforge.core.files.results import Result, new_axes
from sciforge.errors import ConfigError
from sciforge.molecules.chemistry.graph import mol_of_graph
from sciforge.molecules.generation.sampler import Drawn

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from rdkit import Chem

SHOWN, COLUMNS = 12, 4  # molecules of a picture, and of one of its rows
CELL = (190, 150)  # pixels of a molecule's picture
LISTS = (".smi", ".smiles", ".txt")


class GeneratedMolecules(Result, Sequence["Chem.Mol"]):
    """Molecules in the order in which they were drawn; `molecules[0]` is an RDKit Mol.

    Args:
        drawn: what the sampler returned.
        about: where they come from, as JSON values.
        valid_without_mask: share of valid molecules without the action mask; None where it was not
            measured.
    """

    def __init__(
        self, drawn: Drawn, about: Mapping[str, Any], valid_without_mask: float | None = None
    ) -> None:
        self.drawn, self._about, self.valid_without_mask = drawn, dict(about), valid_without_mask

    @cached_property
    def mols(self) -> "list[Chem.Mol]":
        """The molecules, sanitised, hydrogens implicit."""
        return [mol_of_graph(graph) for graph in self.drawn.graphs]

    def __len__(self) -> int:
        return len(self.drawn.graphs)

    @overload
    def __getitem__(self, place: int) -> "Chem.Mol": ...
    @overload
    def __getitem__(self, place: slice) -> "list[Chem.Mol]": ...
    def __getitem__(self, place: int | slice) -> "Chem.Mol | list[Chem.Mol]":
        return self.mols[place]

    def __iter__(self) -> "Iterator[Chem.Mol]":
        return iter(self.mols)

    def smiles(self) -> list[str]:
        """Return the canonical SMILES of each molecule."""
        return list(self._smiles)

    @cached_property
    def _smiles(self) -> list[str]:
        from rdkit import Chem

        return [Chem.MolToSmiles(mol) for mol in self.mols]

    @property
    def log_likelihood(self) -> list[float]:
        """Of each molecule's path under the policy with mask and temperature, in nats."""
        return self.drawn.log_likelihood

    @property
    def mask_removed(self) -> dict[str, float]:
        """Sort of action -> probability that the mask took from the policy, a mean over steps."""
        return self.drawn.removed

    @property
    def about(self) -> dict[str, Any]:
        """Where the molecules come from, how many differ, and what the mask removed."""
        counts = {
            "molecules": len(self),
            "unique": len(set(self._smiles)),
            "mask_removed": self.mask_removed,
        }
        learnt = (
            {}
            if self.valid_without_mask is None
            else {"valid_without_mask": self.valid_without_mask}
        )
        return self._about | counts | learnt

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a molecule: name, smiles, log_likelihood (nats)."""
        import pandas as pd

        names = [f"sciforge-{number}" for number in range(len(self))]
        return pd.DataFrame(
            {"name": names, "smiles": self._smiles, "log_likelihood": self.log_likelihood}
        )

    def to_smiles(self, path: Path | str) -> Path:
        """Write a SMILES list, one molecule a line with its name, and NAME.json with its
        provenance; return its path.
        """
        path = Path(path)
        with whole_files(path, path.with_suffix(".json")) as (lines, beside):
            for number, text in enumerate(self._smiles):
                lines.write(f"{text}\tsciforge-{number}\n")
            beside.write(json.dumps(self.about, indent=1) + "\n")
        return path

    def to_sdf(self, path: Path | str, *, conformers: bool = True, seed: int = 0) -> Path:
        """Write an SDF and return its path.

        Args:
            path: NAME.sdf; the provenance is NAME.json.
            conformers: one ETKDG conformer of each molecule, relaxed by MMFF94 where it has
                parameters; without, hydrogens stay implicit and all coordinates are 0. Molecules
                that cannot be embedded are left out with a warning.
            seed: of the conformers.
        """
        from rdkit import Chem, rdBase

        path, missing = Path(path), 0
        with whole_paths(path, path.with_suffix(".json")) as (work, beside), rdBase.BlockLogs():
            with Chem.SDWriter(str(work)) as writer:
                for number, mol in enumerate(
                    tqdm(self.mols, "conformers", disable=None, leave=False)
                ):
                    mol = embedded(mol, seed + number) if conformers else Chem.Mol(mol)
                    if mol is None:
                        missing += 1
                        continue
                    mol.SetProp("_Name", f"sciforge-{number}")
                    mol.SetProp("SMILES", self._smiles[number])
                    writer.write(mol)
            about = self.about | {"without_conformer": missing}
            beside.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        if missing:
            what = f"{missing} of {len(self)} molecules have no conformer and are not in {path}"
            warnings.warn(f"{what}; use conformers=False to write all", stacklevel=2)
        return path

    def save(self, path: Path | str) -> Path:
        """Write the molecules by the suffix of the path: .smi a SMILES list, .sdf conformers, .csv
        or .tsv a table, .png a picture.

        Raises:
            ConfigError: another suffix.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix in LISTS:
            return self.to_smiles(path)
        if suffix == ".sdf":
            return self.to_sdf(path)
        if suffix in (".csv", ".tsv"):
            return super().save(path)
        if suffix == ".png":
            with whole_paths(path) as (work,):
                work.write_bytes(_png(self.mols[:SHOWN]))
            return path
        raise ConfigError(
            f"{path}: molecules are written as .smi, .sdf, .csv, .tsv or .png; give another name"
        )

    def plot(
        self, ax: "Axes | None" = None, *, count: int = SHOWN, columns: int = COLUMNS
    ) -> "Axes":
        """Draw the first molecules as a grid of structural formulas.

        Args:
            ax: where to draw; None for axes of their own.
            count: how many molecules.
            columns: of the grid.
        """
        from matplotlib.image import imread

        pixels_HWC = imread(io.BytesIO(_png(self.mols[:count], columns)), format="png")
        ax = new_axes(pixels_HWC.shape[1] / 90, pixels_HWC.shape[0] / 90) if ax is None else ax
        ax.imshow(pixels_HWC)
        ax.axis("off")
        return ax

    def __repr__(self) -> str:
        first = ", ".join(self._smiles[:3])
        return (
            f"{len(self)} molecules, {len(set(self._smiles))} different:"
            f" {first}{', ...' * (len(self) > 3)}"
        )

    def _repr_html_(self) -> str:
        head = f"{len(self)} molecules, {len(set(self._smiles))} different"
        head += f"; the first {SHOWN}:" if len(self) > SHOWN else ":"
        return f"<p>{html.escape(head)}</p>{_grid(self.mols[:SHOWN], COLUMNS, vector=True)}"


def embedded(mol: "Chem.Mol", seed: int) -> "Chem.Mol | None":
    """Return a molecule with hydrogens and one conformer; None where RDKit finds none."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    mol = Chem.AddHs(mol)
    if AllChem.EmbedMolecule(mol, randomSeed=seed) < 0:
        return None
    if AllChem.MMFFHasAllMoleculeParams(mol):
        AllChem.MMFFOptimizeMolecule(mol)
    return mol


def _png(mols: "Sequence[Chem.Mol]", columns: int = COLUMNS) -> bytes:
    return _grid(mols, columns, vector=False)


def _grid(mols: "Sequence[Chem.Mol]", columns: int, vector: bool) -> Any:
    """Return a grid of structural formulas: SVG text, or the bytes of a PNG."""
    from rdkit.Chem.Draw import rdMolDraw2D

    if not mols:
        raise ConfigError("there is no molecule to draw")
    columns = min(columns, len(mols))
    size = (columns * CELL[0], -(-len(mols) // columns) * CELL[1], *CELL)
    drawer = rdMolDraw2D.MolDraw2DSVG(*size) if vector else rdMolDraw2D.MolDraw2DCairo(*size)
    drawer.drawOptions().padding = 0.03
    drawer.DrawMolecules([rdMolDraw2D.PrepareMolForDrawing(mol) for mol in mols])
    drawer.FinishDrawing()
    return drawer.GetDrawingText()
