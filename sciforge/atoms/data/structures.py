"""What `sciforge prepare` makes of files of structures: edges, labels, honest splits and reference
energies.

Two passes: the first reads every file once and decides, for all of them together, the splits, the
levels of theory and the isolated atoms; the second writes one shard a file. The first is a pure
function of the options, so shards do not depend on who writes them.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from sciforge.atoms.data.reference_basis import Reference, fit_reference
from sciforge.atoms.data.split_plan import BAD, Plan, Survey, make_plan, survey
from sciforge.core.data.store import SPLITS, Reject, ShardWriter, Store
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError
from sciforge.structures.file_labels import Keys
from sciforge.structures.neighbours import find_neighbours, require_apart
from sciforge.structures.readers import Frame, read_frames, read_structures
from sciforge.structures.structure import Structure, require_physical
from sciforge.structures.units import Units

OnReject = Callable[[Reject], None] | None


@dataclass(frozen=True)
class Source:
    """One file and what the first pass decided for its frames: the split (negative: left out)
    and the group.
    """

    path: Path
    split: np.ndarray
    group: np.ndarray

    def __str__(self) -> str:
        return str(self.path)


class StructureStore:
    """Writes structures as graphs, and the reference energies beside them; the preparers say
    which structures.
    """

    cutoff_A: float

    @property
    def grouped(self) -> bool:
        """Whether the groups of the structures are kept by name."""
        return False

    def plan(self) -> Plan:
        """Return the split and group of every frame."""
        raise TypeError(f"{type(self).__name__} must define plan")

    def frames(self, path: Path) -> Iterable[Frame]:
        """Return (number from 1, structure or the error of a bad frame) of a source."""
        raise TypeError(f"{type(self).__name__} must define frames")

    def named(self, number: int) -> str:
        """Return what messages call a frame, by its number from 1."""
        return f"frame {number}"

    def free_atoms(self, plan: Plan) -> dict[str, dict[int, float]]:
        """Return level -> atomic number -> energy of the free atom, eV."""
        raise TypeError(f"{type(self).__name__} must define free_atoms")

    def write(self, source: Source, shard: ShardWriter, on_reject: OnReject) -> None:
        """Write the frames of one file that belong to a split, with their edges."""
        for number, structure in self.frames(source.path):
            if number > len(source.split):
                raise DataError("the file changed while it was read; prepare again", source.path)
            split = int(source.split[number - 1])
            if split < 0 and split != BAD:
                continue
            try:
                if isinstance(structure, DataError):
                    raise structure
                group = structure.group if self.grouped else int(source.group[number - 1])
                add_record(shard, structure, self.cutoff_A, split, group)
            except DataError as error:
                message = str(error).removeprefix(f"{source.path}: ")
                if not message.startswith((f"{source.path}:", "frame ")):
                    message = f"{self.named(number)}: {message}"
                if on_reject is None:
                    raise DataError(message, source.path) from None
                name = getattr(structure, "name", "")
                on_reject(Reject(str(source.path), number, name, message))

    def finish(self, store: Store) -> dict[str, Any]:
        """Return levels, elements, counts and reference energies; raises DataError where no
        frame is left to train on.
        """
        plan = self.plan()
        split = store.column("split")
        if not (split == SPLITS.index("train")).any():
            raise DataError(
                "no structure is left to train on; lower the shares of validation and test"
            )
        energy, level = store.column("energy_eV"), np.array(store.column("level"))
        counts, num_forces = compositions(store)
        isolated = self.free_atoms(plan)
        references: dict[str, Any] = {}
        notes = [*plan.alarms, *plan.notes]
        notes += [
            f"isolated atoms of level {k!r} serve no structure"
            for k in sorted(set(isolated) - set(plan.levels))
        ]
        for name in plan.levels:
            rows = (level == name) & np.isfinite(energy) & (split == SPLITS.index("train"))
            apart = isolated.get(name, {})
            reference = fit_reference(counts[rows], energy[rows], apart) if rows.any() else None
            elements = set(np.flatnonzero(counts[level == name].any(0)).tolist())
            references[name], more = describe(reference, apart, elements)
            notes += [f"level {name or 'unnamed'}: {line}" for line in more]
        return {
            "levels": list(plan.levels),
            "elements": np.flatnonzero(counts.any(0)).tolist(),
            "cutoff_A": self.cutoff_A,
            "split": plan.how,
            "groups": len(np.unique(store.column("group"))),
            "structures": {name: int((split == i).sum()) for i, name in enumerate(SPLITS)},
            "energies": int(np.isfinite(energy).sum()),
            "forces": num_forces,
            "stresses": int(np.isfinite(store.column("stress_eV_A3")).all(1).sum()),
            "dropped_frames": plan.num_dropped,
            "isolated_frames": plan.num_isolated,
            "reference": references,
            "notes": notes,
        }


@dataclass(frozen=True, kw_only=True)
class Structures(StructureStore, Settings):
    """Structures with what is known of energies, forces and stresses, as graphs.

    Args:
        files: extended XYZ, HDF5 of SPICE or ANI, JSON of mlearn, or anything that ASE reads (traj,
            db, CIF, POSCAR).
        units: of energy, length and stress, e.g. "hartree bohr" or "eV angstrom kbar vasp"
            (positive when compressed).
        level: level of theory of structures that name none, e.g. gfn2-xtb.
        cutoff_A: pairs of atoms closer than this are edges, angstrom.
        split: molecule, time (blocks of each file), random, given (by `group` in the files), or
            auto: molecule for 8 or more different ones, else time.
        group_column: key of the frames that names what must not be in two splits (campaign,
            molecule family, laboratory); whole groups are drawn then, with the split auto or given.
        validation_share: share of the validation split, drawn from `files`; not used where
            `validation` names files.
        test_share: share of the test split, drawn from `files`; not used where `test` names files.
        validation: files that are the validation split.
        test: files that are the test split.
        block: frames of a block of time; 0 cuts each file in 20.
        gap: frames dropped between blocks of different splits; -1 takes twice the memory of the
            energy.
        isolated: file of one-atom structures, or JSON of element to eV; one-atom frames with an
            energy count without it.
        isolated_eV: element -> energy, from Python.
        key_energy, key_forces, key_stress: names of the labels in the files; found where not given.
        key_charge, key_spin: names of total charge and multiplicity.
        seed: of the splits.
    """

    files: tuple[Path, ...]
    units: str = "eV angstrom"
    level: str = ""
    cutoff_A: float = 5.0
    split: Literal["auto", "molecule", "time", "random", "given"] = "auto"
    group_column: str = ""
    validation_share: float = 0.1
    test_share: float = 0.1
    validation: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    block: int = 0
    gap: int = -1
    isolated: Path | None = None
    isolated_eV: dict[str, float] = field(default_factory=dict)
    key_energy: str = ""
    key_forces: str = ""
    key_stress: str = ""
    key_charge: str = ""
    key_spin: str = ""
    seed: int = 0

    domain: ClassVar[str] = "atoms"
    kind: ClassVar[str] = "structures"

    @property
    def keys(self) -> Keys:
        """Names of the labels."""
        keys = (self.key_energy, self.key_forces, self.key_stress, self.key_charge, self.key_spin)
        return Keys(*keys, self.group_column or "group")

    @property
    def grouped(self) -> bool:
        """Whether the groups of the frames are kept by name."""
        return bool(self.group_column)

    @property
    def plan_options(self) -> dict[str, Any]:
        """What decides the splits, the shares taken by named files left out."""
        shares = {
            "validation_share": 0.0 if self.validation else self.validation_share,
            "test_share": 0.0 if self.test else self.test_share,
        }
        return {
            "how": "group" if self.group_column else self.split,
            "block": self.block,
            "gap": self.gap,
            "seed": self.seed,
            **shares,
        }

    @cached_property
    def _surveys(self) -> list[Survey]:
        everything = [*self.files, *self.validation, *self.test]
        return [survey(file, self.frames(file), self.cutoff_A, self.grouped) for file in everything]

    def frames(self, path: Path) -> Iterable[Frame]:
        """Return the frames of a file."""
        return read_frames(path, self.units, self.keys, self.level)

    def plan(self) -> Plan:
        """Return the splits and groups of all frames of all files."""
        return self._plan

    @cached_property
    def _plan(self) -> Plan:
        roles = (
            ["files"] * len(self.files)
            + ["validation"] * len(self.validation)
            + ["test"] * len(self.test)
        )
        return make_plan(self._surveys, roles, **self.plan_options)

    def __getstate__(self) -> dict[str, Any]:
        # what a worker needs of the plan is in its Source
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def sources(self) -> Sequence[Source]:
        """Return the files with the splits of their frames, one shard each.

        Raises:
            ConfigError: an option out of range, a file named twice, or too few frames or molecules
                for the splits.
            DataError: a file cannot be read.
        """
        self._check()
        plan = self._plan
        for line in plan.alarms:
            warnings.warn(line, stacklevel=2)
        decided = zip(self._surveys, plan.split, plan.group, strict=True)
        return [Source(s.path, split, group) for s, split, group in decided]

    def _check(self) -> None:
        everything = [Path(f) for f in (*self.files, *self.validation, *self.test)]
        if not self.files:
            raise ConfigError("no file of structures; give XYZ, HDF5 or what ASE reads")
        if self.group_column and self.split not in ("auto", "given"):
            raise ConfigError(
                f"split {self.split!r} does not keep groups whole; leave it out, or group_column"
            )
        if twice := [f for f in everything if everything.count(f) > 1]:
            raise ConfigError(f"{twice[0]} is named twice; a file belongs to one split")
        if not 0 < self.cutoff_A <= 50:
            raise ConfigError(f"cutoff_A is {self.cutoff_A}; it must be between 0 and 50 angstrom")
        shares = (self.validation_share, self.test_share)
        if min(shares) < 0 or sum(shares) >= 1:
            raise ConfigError("validation_share + test_share must leave something to train on")
        Units.parse(self.units)
        if self.block < 0 or self.gap < -1:
            raise ConfigError("block and gap count frames; use 0 and -1 for the automatic choice")

    def free_atoms(self, plan: Plan) -> dict[str, dict[int, float]]:
        """Return level -> atomic number -> eV from the frames, the file and the dictionary; the
        last given wins.
        """
        energies = {level: dict(values) for level, values in plan.isolated.items()}
        given = named_energies(self.isolated_eV, "isolated_eV")
        if self.isolated and Path(self.isolated).suffix == ".json":
            try:
                table = json.loads(Path(self.isolated).read_text(encoding="utf-8"))
                given = named_energies(table, str(self.isolated)) | given
            except (OSError, ValueError, AttributeError, TypeError) as error:
                raise DataError(
                    f"no JSON of element and energy ({error}); correct it", self.isolated
                ) from None
        elif self.isolated:
            for atom in read_structures(
                self.isolated, self.units, self.key_energy, level=self.level
            ):
                if len(atom) != 1 or atom.energy_eV is None:
                    raise DataError(
                        f"{atom.name} is not one atom with an energy; leave it out", self.isolated
                    )
                energies.setdefault(atom.level, {})[int(atom.numbers_N[0])] = atom.energy_eV
        if given and len(plan.levels) > 1:
            raise DataError(
                "energies of isolated atoms for several levels of theory; give a file that names"
                " the level"
            )
        for level in plan.levels if given else ():
            energies.setdefault(level, {}).update(given)
        return energies


def named_energies(table: dict[str, float], where: str) -> dict[int, float]:
    """Return atomic number -> eV of a table of symbols; raises DataError for an unknown element."""
    from ase.data import atomic_numbers

    if unknown := [symbol for symbol in table if not atomic_numbers.get(symbol)]:
        raise DataError(f"{where}: no element {unknown[0]!r}; use symbols such as H and Cl")
    return {atomic_numbers[symbol]: float(energy) for symbol, energy in table.items()}


def add_record(
    shard: ShardWriter, structure: Structure, cutoff_A: float, split: int, group: int | str
) -> None:
    """Check a structure and append it; raises DataError where it is not physical or atoms
    overlap.
    """
    bare = replace(structure, name="")  # the caller says which frame of which file it is
    require_physical(bare)
    edges = find_neighbours(structure.pos_A_N3, structure.cell_A_33, structure.pbc_3, cutoff_A)
    require_apart(bare, edges)
    if np.abs(edges.shift_E3).max(initial=0) > 127:
        raise DataError(
            "an atom lies more than 127 cells away from its neighbours; wrap the positions into the"
            " cell"
        )
    forces, stress = structure.forces_eV_A_N3, structure.stress_eV_A3_6
    shard.append(
        numbers=structure.numbers_N.astype(np.int16),
        pos_A=structure.pos_A_N3.astype(np.float64),
        forces_eV_A=(
            np.full((len(structure), 3), np.nan) if forces is None else forces.astype(np.float64)
        ),
        receiver=edges.receiver_E.astype(np.int32),
        sender=edges.sender_E.astype(np.int32),
        shift=edges.shift_E3.astype(np.int8),
    )
    periodic = structure.pbc_3.any()
    shard.end(
        cell_A=structure.cell_A_33.astype(np.float64) if periodic else np.zeros((3, 3)),
        pbc=structure.pbc_3.astype(np.uint8),
        name=structure.name,
        energy_eV=np.float64(np.nan if structure.energy_eV is None else structure.energy_eV),
        stress_eV_A3=np.full(6, np.nan) if stress is None else stress.astype(np.float64),
        charge=np.int16(structure.charge),
        spin=np.int16(structure.spin),
        level=structure.level,
        split=np.uint8(split),
        group=group if isinstance(group, str) else np.int32(group),
    )


def compositions(store: Store) -> tuple[np.ndarray, int]:
    """Return the counts of the elements [records, 119], column z for the atomic number z, and
    how many have forces.
    """
    counts, forces = np.zeros((len(store), 119), np.int32), 0
    for i in range(len(store)):
        record = store[i]
        counts[i] = np.bincount(record["numbers"], minlength=119)
        forces += bool(np.isfinite(record["forces_eV_A"][0, 0]))
    return counts, forces


def describe(
    reference: Reference | None, isolated: dict[int, float], elements: set[int]
) -> tuple[dict[str, Any], list[str]]:
    """Return the reference of one level for the store's metadata, and what is worth a warning."""
    from ase.data import chemical_symbols as symbols

    apart = {symbols[z]: e for z, e in sorted(isolated.items())}
    if reference is None:
        return {
            "energies_eV": apart,
            "how": "isolated" if apart else "none",
            "isolated_eV": apart,
        }, []
    unseen = {z: isolated[z] for z in elements - set(reference.energies) if z in isolated}
    energies = {symbols[z]: e for z, e in sorted({**reference.energies, **unseen}.items())}
    notes = (
        []
        if reference.extensive
        else [f"energies do not grow with size (offset {reference.offset_eV:.3g} eV)"]
    )
    if lost := sorted(elements - set(reference.energies) - set(unseen)):
        notes.append(
            f"no reference energy of {symbols[lost[0]]}, which is not in the training split"
        )
    return {
        "energies_eV": energies,
        "how": reference.source,
        "isolated_eV": apart,
        "rank": reference.rank,
        "num_elements": reference.num_elements,
        "residual_meV_atom": reference.residual_meV_atom,
        "offset_eV": reference.offset_eV,
        "num_structures": reference.num_structures,
    }, notes
