"""Labelled molecules that are in memory already: the same store as their file would give."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.data.groups import group_names
from sciforge.core.data.store import SPLIT_NAMES, Reject, ShardWriter, Store
from sciforge.errors import DataError, did_you_mean
from sciforge.molecules.data.leakage import KnownMolecules
from sciforge.molecules.data.prepare import Molecules, OnReject
from sciforge.molecules.data.readers import Entry, Part

if TYPE_CHECKING:
    import pandas as pd

MAX_LABEL = float(np.finfo(np.float32).max)
PLACE = Path("inputs")  # what takes the place of a file's name


def smiles_of_input(value: Any) -> str:
    """Return the SMILES of what users hand over: a SMILES, an RDKit molecule, or a table's row with
    a column `smiles`.

    Raises:
        DataError: it is none of these.

    >>> smiles_of_input("CCO"), smiles_of_input({"smiles": "CCO", "name": "ethanol"})
    ('CCO', 'CCO')
    """
    if isinstance(value, str):
        return value
    from rdkit import Chem

    if isinstance(value, Chem.Mol):
        return Chem.MolToSmiles(value)
    if hasattr(value, "get") and isinstance(smiles := value.get("smiles"), str):
        return smiles
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise DataError("no SMILES here; leave the row out")
    raise DataError(f"a {type(value).__name__} is no molecule; give a SMILES or an RDKit Mol")


@dataclass(frozen=True, kw_only=True)
class MoleculesInMemory(Molecules):
    """Molecules that are in memory, prepared as `Molecules` prepares files.

    A SMILES that cannot be read is refused. A molecule that can be read but not stored (a metal, a
    radical) is left out, and counted in the store's notes, as are salts of which one part is used.
    """

    files: tuple[Path, ...] = ()
    entries: tuple[Entry, ...] = field(default=(), init=False, repr=False)
    groups: tuple[str, ...] | None = field(default=None, init=False, repr=False)
    unused: list[str] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def of(
        cls,
        inputs: Sequence[Any],
        targets: "pd.DataFrame | None",
        split: Sequence[str] | None,
        seed: int,
        group: Sequence[Any] | None = None,
    ) -> "MoleculesInMemory":
        """Return the preparer of some molecules.

        Args:
            inputs: SMILES, RDKit molecules or rows of a table.
            targets: one column of numbers a target, NaN where a label is missing; None without
                labels, where the quick properties that generators are steered by are stored
                instead.
            split: name of each molecule's split; None for all in training.
            seed: kept with the store.
            group: of each molecule; None for none.

        Raises:
            DataError: an input is no molecule, a label is no number, or a split has an unknown
                name.
        """
        labels = () if targets is None else tuple(map(str, targets.columns))
        columns = [
            _numbers(targets[name], str(name))
            for name in ([] if targets is None else targets.columns)
        ]
        options = (
            {"properties": ("logp", "tpsa", "size")} if targets is None else {"labels": labels}
        )
        rule = "none" if split is None else "column"
        preparer = cls(split=rule, seed=seed, components="largest", isotopes="remove", **options)
        cells = [
            tuple("" if math.isnan(x) else repr(x) for x in row)
            for row in zip(*columns, strict=True)
        ]
        cells = cells or [()] * len(inputs)
        if split is not None:
            cells = [
                (*row, _split(name, place))
                for place, (row, name) in enumerate(zip(cells, split, strict=True))
            ]
        entries = tuple(
            _entry(place, *pair) for place, pair in enumerate(zip(inputs, cells, strict=True))
        )
        object.__setattr__(preparer, "entries", entries)
        object.__setattr__(preparer, "groups", group_names(group, len(entries)))
        return preparer

    def sources(self) -> Sequence[Part]:
        """Return all molecules as one range; raises DataError where there are none."""
        if not self.entries:
            raise DataError("there are no molecules; give at least one")
        return [Part(PLACE, 0, len(self.entries))]

    def write(self, source: Part, shard: ShardWriter, on_reject: OnReject) -> None:
        """Append the molecules; those that cannot be stored are counted."""
        nothing = KnownMolecules(frozenset(), frozenset())
        for entry in self.entries:
            try:
                mol = entry.mol()
            except DataError as error:
                if on_reject is None:
                    raise DataError(f"input {entry.number}: {error}") from None
                on_reject(Reject(str(PLACE), entry.line, entry.text[:80], str(error)))
                continue
            try:
                group = "" if self.groups is None else self.groups[entry.number]
                self.add(entry, mol, shard, nothing, group)
            except DataError as error:
                if on_reject is not None:
                    on_reject(Reject(str(PLACE), entry.line, entry.text[:80], str(error)))
                else:
                    self.unused.append(f"input {entry.number}, {entry.text[:40]}: {error}")

    def finish(self, store: Store) -> dict[str, Any]:
        """Return the metadata of the store, with a note on what was not used."""
        meta = super().finish(store)
        notes = list(meta.get("notes", ()))
        if self.unused:
            count = len(self.unused)
            notes.insert(
                0, f"{count} molecule{'s' * (count > 1)} not used, the first: {self.unused[0]}"
            )
        return meta | ({"notes": notes} if notes else {})


def _entry(place: int, value: Any, cells: tuple[str, ...]) -> Entry:
    try:
        text = smiles_of_input(value)
    except DataError as error:
        raise DataError(f"input {place}: {error}") from None
    return Entry(place, text, False, "", place, cells)


def _split(name: Any, place: int) -> str:
    if str(name).strip().lower() not in SPLIT_NAMES:
        raise DataError(
            f"input {place}: no split {name!r}; {did_you_mean(str(name).lower(), SPLIT_NAMES)}"
        )
    return str(name)


def _numbers(column: "pd.Series", name: str) -> list[float]:
    """Return labels as floats, NaN where missing; raises DataError where one is no number."""
    import pandas as pd

    values = pd.to_numeric(column, errors="coerce")
    if (bad := column.notna() & ~values.abs().lt(MAX_LABEL)).any():
        place = int(bad.to_numpy().argmax())
        word = column.iloc[place]
        raise DataError(
            f"input {place}: label {word!r} of {name!r} is no number; yes and no are 1 and 0"
        )
    return values.astype(float).tolist()
