"""The first pass over files of structures: what they hold, and from that every split, for all
files together.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sciforge.core.data.groups import split_by_group
from sciforge.errors import ConfigError, DataError
from sciforge.structures import splits as cut_by
from sciforge.structures.neighbours import find_neighbours
from sciforge.structures.readers import Frame
from sciforge.structures.splits import DEV, DROPPED, TEST, TRAIN
from sciforge.structures.structure import Structure, require_physical
from sciforge.structures.units import UnitGuard

ISOLATED, BAD = -2, -3
SAME_ATOM_EV = 1e-3  # two energies of one isolated atom may differ by less


@dataclass
class Survey:
    """What one file holds.

    Args:
        path: the file.
        keys: molecule of each frame; "" for a frame that is no record.
        given: whether the file named the group itself.
        marks: 0, ISOLATED or BAD for each frame.
        energies: eV per atom of each frame, NaN where missing.
        digests: of atoms and positions, to notice the same frame twice.
        levels: levels of theory of the records.
        isolated: level -> atomic number -> eV.
        suspicions: lines about units.
    """

    path: Path
    keys: list[str] = field(default_factory=list)
    given: list[bool] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    levels: set[str] = field(default_factory=set)
    isolated: dict[str, dict[int, float]] = field(default_factory=dict)
    suspicions: list[str] = field(default_factory=list)


def survey(path: Path, frames: Iterable[Frame], cutoff_A: float, grouped: bool = False) -> Survey:
    """Go through the frames of one file once and return what the splits need to know of them.

    Args:
        path: of the file, for messages.
        frames: (number, structure or the error of a bad frame), as `read_frames` gives them.
        cutoff_A: atoms with no neighbour within it are isolated.
        grouped: whether the groups of the frames are the keys, as they are, in place of molecules.
    """
    found, guard = Survey(path), UnitGuard()
    for _, structure in frames:
        try:
            if isinstance(structure, DataError):
                raise structure
            require_physical(structure)
        except DataError:  # the second pass says what is wrong with it
            _note(found, "", False, BAD, np.nan, b"")
            continue
        guard.add(structure, cut_by.nearest_bond(structure))
        energy = np.nan if structure.energy_eV is None else structure.energy_eV / len(structure)
        if is_isolated(structure, cutoff_A):
            _keep_isolated(found, structure)
            _note(found, "", False, ISOLATED, energy, b"")
            continue
        found.levels.add(structure.level)
        place = np.round(structure.pos_A_N3 - structure.pos_A_N3[0], 5) + 0.0  # no -0.0
        digest = hashlib.blake2b(structure.numbers_N.tobytes() + place.tobytes(), digest_size=16)
        digest.update(structure.cell_A_33.tobytes() if structure.pbc_3.any() else b"")
        key = structure.group if grouped else cut_by.molecule_key(structure)
        _note(found, key, bool(structure.group), 0, energy, digest.digest())
    found.suspicions = [f"{path.name}: {line}" for line in guard.warnings()]
    return found


def _note(s: Survey, key: str, given: bool, mark: int, energy: float, digest: bytes) -> None:
    s.keys.append(key)
    s.given.append(given)
    s.marks.append(mark)
    s.energies.append(energy)
    s.digests.append(digest)


def is_isolated(structure: Structure, cutoff_A: float) -> bool:
    """Return whether a structure is a free neutral atom with an energy, in a box or not: a
    reference, not a record.
    """
    if len(structure) != 1 or structure.energy_eV is None or structure.charge:
        return False
    apart = not structure.pbc_3.any()
    return apart or not len(
        find_neighbours(structure.pos_A_N3, structure.cell_A_33, structure.pbc_3, cutoff_A)
    )


def _keep_isolated(found: Survey, atom: Structure) -> None:
    known, element = found.isolated.setdefault(atom.level, {}), int(atom.numbers_N[0])
    if abs(known.setdefault(element, atom.energy_eV) - atom.energy_eV) > SAME_ATOM_EV:
        _refuse_two(element, known[element], atom.energy_eV, found.path)


def _refuse_two(element: int, first: float, second: float, path: Path) -> None:
    from ase.data import chemical_symbols

    raise DataError(
        f"isolated {chemical_symbols[element]} has {first:.4f} and {second:.4f} eV at one level of"
        " theory; prepare the levels apart, or name them in the files",
        path,
    )


@dataclass
class Plan:
    """Every decision about the frames of all files.

    Args:
        how: molecule, time, random, given or group.
        split: for each file, the split of each frame; DROPPED, ISOLATED or BAD where it is left
            out.
        group: for each file, the number of what was not torn apart.
        levels: levels of theory, sorted.
        isolated: level -> atomic number -> eV.
        alarms: lines that somebody must see now: suspicious units, frames in two splits.
        notes: lines for the record.
        num_dropped, num_isolated: counts.
    """

    how: str
    split: list[np.ndarray]
    group: list[np.ndarray]
    levels: tuple[str, ...]
    isolated: dict[str, dict[int, float]]
    alarms: list[str]
    notes: list[str]
    num_dropped: int
    num_isolated: int


def make_plan(
    surveys: Sequence[Survey],
    roles: Sequence[str],
    how: str,
    block: int,
    gap: int,
    validation_share: float,
    test_share: float,
    seed: int,
) -> Plan:
    """Return the splits and groups of all frames; `roles` says of each file whether it is cut or is
    validation or test.

    Raises:
        ConfigError: too few molecules or frames for the splits.
        DataError: `given` without groups, or two energies for one isolated atom.
    """
    open_files = [s for s, role in zip(surveys, roles, strict=True) if role == "files"]
    molecules = dict.fromkeys(
        key for s in open_files for key, mark in zip(s.keys, s.marks, strict=True) if mark == 0
    )
    asked = how
    if how == "auto":
        how = "molecule" if len(molecules) >= cut_by.FEWEST_MOLECULES else "time"
    if how in ("given", "group"):
        _require_groups(surveys)
    if asked == "auto" and how == "time" and sum(s.marks.count(0) for s in open_files) < 4:
        # a handful of structures is for looking at, not for learning
        validation_share = test_share = 0.0
    if how == "time":
        split, group = _by_time(open_files, block, gap, validation_share, test_share, seed)
    elif how == "group":
        split, group = _by_group(open_files, validation_share, test_share, seed), None
    elif how == "random":
        split, group = _at_random(open_files, validation_share, test_share, seed)
    else:
        chosen = (
            cut_by.split_groups(list(molecules), validation_share, test_share, seed)
            if validation_share or test_share
            else {}
        )
        split = [np.array([chosen.get(key, TRAIN) for key in s.keys], np.int64) for s in open_files]
        group = None
    return _assemble(surveys, roles, how, split, group)


def _require_groups(surveys: Sequence[Survey]) -> None:
    for s in surveys:
        for frame, (given, mark) in enumerate(zip(s.given, s.marks, strict=True), 1):
            if mark == 0 and not given:
                raise DataError(
                    f"frame {frame} has no group; add group=... to the frames, name its key"
                    " with --group-column, or choose --split time",
                    s.path,
                )


def _by_time(
    files: Sequence[Survey],
    block: int,
    gap: int,
    validation_share: float,
    test_share: float,
    seed: int,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    kept = [np.flatnonzero(np.array(s.marks) == 0) for s in files]
    gaps = [
        2 * _memory(s, rows) - 1 if gap < 0 else gap for s, rows in zip(files, kept, strict=True)
    ]
    found = cut_by.split_time(
        [len(rows) for rows in kept], block, gaps, validation_share, test_share, seed
    )
    split, group = (
        [np.full(len(s.marks), DROPPED) for s in files],
        [np.zeros(len(s.marks), np.int64) for s in files],
    )
    for i, rows in enumerate(kept):
        split[i][rows], group[i][rows] = found[0][i], found[1][i]
    return split, group


def _by_group(
    files: Sequence[Survey], validation_share: float, test_share: float, seed: int
) -> list[np.ndarray]:
    """Return the split of every frame, whole groups of frames together."""
    records = [np.array(s.marks) == 0 for s in files]
    keys = [key for s in files for key, mark in zip(s.keys, s.marks, strict=True) if mark == 0]
    shares = (1 - validation_share - test_share, validation_share, test_share)
    drawn = iter(np.array([TRAIN, DEV, TEST])[split_by_group(keys, shares, seed)].tolist())
    return [np.array([next(drawn) if kept else TRAIN for kept in rows], int) for rows in records]


def _memory(s: Survey, rows: np.ndarray) -> int:
    """Return the memory of a trajectory in frames: the energies' per molecule, since others
    differ by kilo-eV.
    """
    energies, keys = np.array(s.energies)[rows], [s.keys[i] for i in rows]
    lengths = [
        cut_by.memory_length(energies[np.array([k == key for k in keys])])
        for key in list(dict.fromkeys(keys))[:20]
    ]
    return max(lengths, default=1)


def _at_random(
    files: Sequence[Survey], validation_share: float, test_share: float, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draw frames; the same frame twice counts once."""
    digests = dict.fromkeys(
        d for s in files for d, mark in zip(s.digests, s.marks, strict=True) if mark == 0
    )
    place = {digest: i for i, digest in enumerate(digests)}
    order = np.random.default_rng([seed, 0x5A]).permutation(len(place))
    tests, devs = round(test_share * len(place)), round(validation_share * len(place))
    chosen = np.full(len(place) + 1, TRAIN)
    chosen[order[:tests]], chosen[order[tests : tests + devs]] = TEST, DEV
    group = [
        np.array([place.get(digest, len(place)) for digest in s.digests], np.int64) for s in files
    ]
    return [chosen[g] for g in group], group


def _assemble(
    surveys: Sequence[Survey],
    roles: Sequence[str],
    how: str,
    split: list[np.ndarray],
    group: list[np.ndarray] | None,
) -> Plan:
    """Put the cut files and the whole validation and test files together; number the groups;
    collect levels and warnings.
    """
    names: dict[str, int] = {}
    next_group = (
        1 + max((int(g.max(initial=-1)) for g in group), default=-1) if group is not None else 0
    )
    splits, groups, isolated, alarms, cut = [], [], {}, [], 0
    for s, role in zip(surveys, roles, strict=True):
        marks = np.array(s.marks)
        if role == "files":
            mine = split[cut].copy()
            own = (
                np.array([names.setdefault(k, len(names)) for k in s.keys])
                if group is None
                else group[cut]
            )
            cut += 1
        else:
            mine = np.full(len(marks), DEV if role == "validation" else TEST)
            own = np.array([names.setdefault(k, len(names)) for k in s.keys]) + next_group
        mine[marks != 0] = marks[marks != 0]
        splits.append(mine.astype(np.int8))
        groups.append(own.astype(np.int32))
        alarms += s.suspicions
        for level, atoms in s.isolated.items():
            known = isolated.setdefault(level, {})
            for element, energy in atoms.items():
                if abs(known.setdefault(element, energy) - energy) > SAME_ATOM_EV:
                    _refuse_two(element, known[element], energy, s.path)
    alarms += _leaks(surveys, splits, roles, how)
    random = "frames were split at random; neighbours in time may be in different splits"
    levels = tuple(sorted(set().union(*(s.levels for s in surveys))))
    if not levels:
        raise ConfigError(
            "the files hold isolated atoms and broken frames only; give structures to learn from"
        )
    every = np.concatenate(splits)
    return Plan(
        how=how,
        split=splits,
        group=groups,
        levels=levels,
        isolated=isolated,
        alarms=alarms,
        notes=[random] * (how == "random"),
        num_dropped=int((every == DROPPED).sum()),
        num_isolated=int((every == ISOLATED).sum()),
    )


def _leaks(
    surveys: Sequence[Survey], splits: Sequence[np.ndarray], roles: Sequence[str], how: str
) -> list[str]:
    """Return warnings about what is in two splits: equal frames always, molecules where splits
    are by molecule.
    """
    seen: dict[bytes, int] = {}
    twice = 0
    for s, split in zip(surveys, splits, strict=True):
        for digest, where in zip(s.digests, split.tolist(), strict=True):
            if where >= 0 and seen.setdefault(digest, where) != where:
                twice += 1
    notes = (
        [f"{twice} frame(s) are in two splits, atom for atom; remove them from one file"]
        if twice
        else []
    )
    if how == "molecule":
        trained = {
            k
            for s, p in zip(surveys, splits, strict=True)
            for k, w in zip(s.keys, p, strict=True)
            if w == TRAIN
        }
        whole = [(s, r) for s, r in zip(surveys, roles, strict=True) if r != "files"]
        if shared := trained & {key for s, _ in whole for key in s.keys if key}:
            notes.append(
                f"{len(shared)} molecule(s) of the validation or test files are in the training"
                " split too"
            )
    return notes
