"""What `sciforge prepare molecules` makes of SMILES, tables and SDF: kekulised graphs with labels,
splits and reasons.

Policy, the same for every file: molecules are sanitised by RDKit; stereochemistry is taken off (the
graph has none) and counted; no tautomer is changed into another and no charge neutralised; atoms
are in the order of the canonical SMILES, and two molecules are the same when these SMILES are. A
molecule that is not used (a duplicate, one of the excluded files, one without any label) stays in
the store with the reason in `left_out`, in no split: nothing is lost.

Columns: `atom` uint8 [N] (places in valence.TYPES), `bond` uint8 [M, 3] (i, j, order), `hydrogens`
uint8 [N], `flags` uint8 [N] (codec.flags_of), `smiles` and `name` text, `line` int64, `key` uint64
(of the canonical SMILES), `stereo` bool (the input had some), `taken_off` uint8
(sum of SALT, DOUBTFUL, ISOTOPE), `left_out` uint8 (places in
LEFT_OUT), `split` uint8, `group` int32 (the scaffold, else the molecule; text where the file
names groups), and where asked for
`label` float32 [K] (NaN missing), `property` float32 [P], `descriptor` float32 [D].
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from sciforge.core.data.groups import group_name
from sciforge.core.data.store import SPLITS, Reject, ShardWriter, Store
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError
from sciforge.molecules.chemistry.descriptors import descriptors, property_functions, scaffold
from sciforge.molecules.chemistry.graph import canonical, graph_of_mol
from sciforge.molecules.chemistry.salts import parent_part
from sciforge.molecules.data.codec import flags_of
from sciforge.molecules.data.finalization import DOUBTFUL, ISOTOPE, LEFT_OUT, SALT, complete
from sciforge.molecules.data.leakage import KnownMolecules, known_molecules
from sciforge.molecules.data.readers import (
    ROWS,
    TABLES,
    Entry,
    Part,
    kind_of,
    parts_of,
    read_part,
)
from sciforge.molecules.data.splits import Rule, check_shares, split_of_name

if TYPE_CHECKING:
    from rdkit import Chem

OnReject = Callable[[Reject], None] | None
MISSING = ("", "nan", "na", "n/a", "none", "null")
MEND = "correct it, or skip bad records with --on-error skip"


@dataclass(frozen=True, kw_only=True)
class Molecules(Settings):
    """Molecules from SMILES lists (.smi, .txt), tables (.csv, .tsv) and SDF, each plain or gzipped.

    Args:
        files: what to read; big files are read in ranges, so more workers help with one file too.
        smiles_column: its name in tables.
        labels: columns of tables (properties of SDF) with numbers to learn, yes and no as 1 and 0;
            an empty cell or NaN is a missing label.
        split: `scaffold` (Bemis-Murcko, balanced by chemprop's rule), `scaffold-sorted` (largest
            scaffold first), `random`, `column` (train, validation or test in `split_column`), or
            `none` (all is training).
        split_column: its name, for the split `column`.
        group_column: column of tables (property of SDF) whose molecules of one value (campaign,
            laboratory, family) stay in one split: scaffold and random splits then draw groups.
        shares: of train, validation and test.
        seed: of the split.
        components: of a salt or mixture, `stop` rejects it and `largest` takes off known
            counter-ions and solvents and keeps the part with most heavy atoms of the rest.
        isotopes: `stop` rejects them, `remove` takes the masses off.
        duplicates: of molecules that come twice, keep the `first`, keep the first with the `mean`
            of the labels (labels that are only 0 and 1 and disagree become missing), or `drop` all
            copies where their labels disagree.
        exclude: files whose molecules must not be used, compared by the first 14 letters of the
            InChIKey.
        properties: quick properties to store for conditioning: logp, tpsa, qed, size.
        descriptors: store all RDKit descriptors (some 6 ms a molecule).
        every: use one row in so many, for a sample of a huge file.
        limit: use at most so many rows of each file; 0 for all.
    """

    files: tuple[Path, ...]
    smiles_column: str = "smiles"
    labels: tuple[str, ...] = ()
    split: Rule = "scaffold"
    split_column: str = "split"
    group_column: str = ""
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    components: Literal["stop", "largest"] = "stop"
    isotopes: Literal["stop", "remove"] = "stop"
    duplicates: Literal["first", "mean", "drop"] = "mean"
    exclude: tuple[Path, ...] = ()
    properties: tuple[str, ...] = ()
    descriptors: bool = False
    every: int = 1
    limit: int = 0

    domain: ClassVar[str] = "molecules"
    kind: ClassVar[str] = "molecules"

    def sources(self) -> Sequence[Part]:
        """Return ranges of rows, one shard each; raises ConfigError for settings that cannot be."""
        if not self.files:
            raise ConfigError("no file; give SMILES, CSV, TSV or SDF files")
        if self.every < 1 or self.limit < 0:
            raise ConfigError(
                f"every is {self.every} and limit {self.limit}; give at least 1 and 0"
            )
        if len(set(self.labels)) < len(self.labels):
            raise ConfigError(f"labels are {', '.join(self.labels)}; name each column once")
        check_shares(self.shares)
        property_functions(self.properties)
        self._check_used()
        last = self.limit * self.every
        parts = [part for file in self.files for part in parts_of(file, ROWS * self.every)]
        return [part for part in parts if not last or part.start < last]

    def _check_used(self) -> None:
        """Raise ConfigError for an option that changes nothing beside the others."""
        tables = any(kind_of(Path(file)) in TABLES for file in (*self.files, *self.exclude))
        given = {
            "smiles_column": (tables, "a table among the files"),
            "split_column": (self.split == "column", "--split column"),
            "shares": (self.split not in ("column", "none"), "a split that is drawn"),
        }
        for name, (used, what) in given.items():
            if not used and getattr(self, name) != getattr(Molecules, name):
                raise ConfigError(f"{name} is not used without {what}; leave it out")

    def write(self, source: Part, shard: ShardWriter, on_reject: OnReject) -> None:
        """Read one range and append its molecules."""
        columns = (*self.labels, self.split_column) if self.split == "column" else self.labels
        columns = (self.group_column, *columns) if self.group_column else columns
        known = known_molecules(self.exclude, self.smiles_column)
        for entry in read_part(source, self.smiles_column, columns):
            if entry.number % self.every or (
                self.limit and entry.number // self.every >= self.limit
            ):
                continue
            try:
                group, entry = self._group_of(entry)
                self.add(entry, entry.mol(), shard, known, group)
            except DataError as error:
                reason = str(error).removesuffix("; correct it").removesuffix("; correct the row")
                if on_reject is None:
                    raise DataError(f"{reason}; {MEND}", source.path, entry.line) from None
                on_reject(
                    Reject(str(source.path), entry.line, entry.name or entry.text[:80], reason)
                )

    def _group_of(self, entry: Entry) -> tuple[str, Entry]:
        """Return the group of a row, and the row without the cell that names it."""
        if not self.group_column:
            return "", entry
        return group_name(entry.cells[0]), replace(entry, cells=entry.cells[1:])

    def add(
        self,
        entry: Entry,
        mol: "Chem.Mol",
        shard: ShardWriter,
        known: KnownMolecules,
        group: str = "",
    ) -> None:
        """Append one molecule; raises DataError where it cannot be used.

        Args:
            entry: the row that it comes from.
            mol: sanitised, as read.
            shard: to write to.
            known: molecules that must not be used.
            group: its name; empty for none.
        """
        label_K = np.array(
            [_number(text, name) for text, name in zip(entry.cells, self.labels, strict=False)],
            "f4",
        )
        fixed: dict[str, Any] = {"split": np.uint8(0)}
        if self.split == "column":
            fixed["split"] = np.uint8(split_of_name(entry.cells[-1]))
        mol, taken_off = self._mended(mol)
        smiles, plain = canonical(mol)
        graph = graph_of_mol(plain)
        hydrogens, flags = flags_of(plain)
        reason = "" if np.isfinite(label_K).any() or not self.labels else "no label"
        reason = "excluded" if known.holds(graph, plain) else reason
        fixed |= {
            "smiles": smiles,
            "name": entry.name,
            "line": np.int64(entry.line),
            "key": _hash(smiles),
        }
        fixed |= {
            "stereo": np.bool_(_has_stereo(entry, mol)),
            "taken_off": np.uint8(taken_off),
            "left_out": np.uint8(LEFT_OUT.index(reason)),
        }
        fixed["group"] = group or np.int32(0)
        fixed["scaffold"] = (
            _hash(scaffold(plain)) if self.split.startswith("scaffold") else fixed["key"]
        )
        if self.labels:
            fixed["label"] = label_K
        if self.properties:
            properties = [function(plain) for function in property_functions(self.properties)]
            fixed["property"] = np.array(properties, np.float32)
        if self.descriptors:
            fixed["descriptor"] = descriptors(plain)
        bonds = np.concatenate([graph.pair_M2, graph.order_M[:, None]], axis=1)
        shard.add(
            {"atom": graph.atom_N, "bond": bonds, "hydrogens": hydrogens, "flags": flags}, **fixed
        )

    def _mended(self, mol: "Chem.Mol") -> "tuple[Chem.Mol, int]":
        """Return the molecule without what the options allow to take off, and what that was."""
        from rdkit import Chem

        taken_off = 0
        if self.components == "largest":
            whole = mol
            mol, doubtful = parent_part(whole)
            taken_off |= SALT * (mol is not whole) | DOUBTFUL * doubtful
        if self.isotopes == "remove" and any(atom.GetIsotope() for atom in mol.GetAtoms()):
            mol = Chem.Mol(mol)
            for atom in mol.GetAtoms():
                atom.SetIsotope(0)
            mol = Chem.RemoveHs(mol)
            taken_off |= ISOTOPE
        return mol, taken_off

    def finish(self, store: Store) -> dict[str, Any]:
        """Settle duplicates, splits and groups over all shards; return names, counts and
        statistics of training.
        """
        return complete(store, self)


def _number(text: str, column: str) -> float:
    """Return a label as a number, NaN for an empty cell; raises DataError for text.

    >>> _number("1e-3", "y"), _number("", "y")
    (0.001, nan)
    """
    if text.strip().lower() in MISSING:
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float(np.finfo(np.float32).max):
        raise DataError(
            f"label {text!r} in the column {column!r} is no number; yes and no are 1 and 0"
        )
    return value


def _hash(text: str) -> np.uint64:
    """Return 64 bits of a digest: equal for equal text, everywhere and always.

    >>> int(_hash("CCO")) % 1000
    733
    """
    return np.uint64(
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    )


def _has_stereo(entry: Entry, mol: "Chem.Mol") -> bool:
    from rdkit import Chem

    if not entry.is_sdf:
        return any(mark in entry.text for mark in "@/\\")
    return any(str(element.specified) == "Specified" for element in Chem.FindPotentialStereo(mol))


def split_name(number: int) -> str:
    """Return the name of a stored split.

    >>> split_name(0), split_name(3)
    ('train', 'none')
    """
    return SPLITS[number] if number < len(SPLITS) else "none"
