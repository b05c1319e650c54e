"""Structures that a tool made, in memory: a sequence, ase.Atoms, a table, or a file of extended
XYZ.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.files.atomic import replace_file
from sciforge.core.files.results import Result
from sciforge.structures.ase_atoms import labelled_atoms
from sciforge.structures.extxyz import SUFFIXES, write_extxyz
from sciforge.structures.structure import Structure, formula

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms


class StructureSet(Result):
    """Structures in order, and what was rejected on the way.

    Args:
        structures: in order.
        rejected: what was left out: dicts with a reason.
        about: where they come from.
        sources: files that must not be replaced.
    """

    def __init__(
        self,
        structures: Sequence[Structure],
        rejected: Sequence[Mapping[str, Any]] = (),
        about: Mapping[str, Any] | None = None,
        sources: Sequence[Path] = (),
    ) -> None:
        self.structures, self.rejected = list(structures), list(rejected)
        self._about, self.sources = dict(about or {}), tuple(sources)

    @property
    def about(self) -> dict[str, Any]:
        """Where the structures come from, and how many were rejected."""
        return {**self._about, "structures": len(self), "rejected": len(self.rejected)}

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, index: int) -> Structure:
        return self.structures[index]

    def __iter__(self) -> Iterator[Structure]:
        return iter(self.structures)

    def to_atoms(self) -> "list[Atoms]":
        """Return ase.Atoms; labels are in their calculators."""
        return [labelled_atoms(structure) for structure in self.structures]

    def to_pandas(self) -> "pd.DataFrame":
        """Return a row for each structure: name, formula, atoms, charge, spin, level, energy_eV,
        max_force_eV_A.
        """
        import pandas as pd

        return pd.DataFrame([_row(structure) for structure in self.structures])

    def save(self, path: Path | str) -> Path:
        """Write .xyz or .extxyz (each also .gz), or a table (.csv, .tsv); what was rejected goes to
        NAME.rejected.jsonl.

        Raises:
            ConfigError: another suffix, or a file that was read.
            DataError: the disk is full or may not be written.
        """
        path = Path(path)
        if not path.name.lower().endswith(SUFFIXES):
            return super().save(path)
        write_extxyz(path, self.structures, self.sources)
        beside = path.with_name(f"{path.name}.rejected.jsonl")
        beside.unlink(missing_ok=True)
        if self.rejected:
            lines = [
                json.dumps(dict(reject), ensure_ascii=False) + "\n" for reject in self.rejected
            ]
            replace_file(beside, lambda work: work.write_text("".join(lines), encoding="utf-8"))
        return path


def _row(structure: Structure) -> dict[str, Any]:
    forces = structure.forces_eV_A_N3
    return {
        "name": structure.name,
        "formula": formula(structure.numbers_N),
        "atoms": len(structure),
        "charge": structure.charge,
        "spin": structure.spin,
        "level": structure.level,
        "energy_eV": np.nan if structure.energy_eV is None else structure.energy_eV,
        "max_force_eV_A": np.nan if forces is None else np.linalg.norm(forces, axis=1).max(),
    }
