"""What only all shards together can tell: duplicates, splits, groups and the statistics of
training.

The shards are written by workers that know nothing of each other; this is done once, afterwards, on
small columns, so memory does not grow with the molecules and the result does not depend on the
number of workers.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.data.groups import groups_of, split_by_group
from sciforge.core.data.store import SPLITS, Store
from sciforge.core.files.atomic import atomic_folder, write_json
from sciforge.core.training.run import to_json
from sciforge.errors import DataError, did_you_mean
from sciforge.molecules.chemistry.descriptors import descriptor_names
from sciforge.molecules.data.readers import columns_of, name_column_in, smiles_column_in
from sciforge.molecules.data.splits import split_at_random, split_by_scaffold

LEFT_OUT = ("", "excluded", "duplicate", "conflicting duplicate", "no label")
SALT, DOUBTFUL, ISOTOPE = 1, 2, 4  # sums of them in the column `taken_off`
FEW_VALUES = 10  # a label of no more whole numbers is probably of classes
NO_SPLIT = len(SPLITS)  # the number in the column `split` of a molecule that is in none
MAX_NAMED = 8  # columns that a note lists
SAMPLED = 100_000  # molecules from which the statistics of descriptors are taken


def complete(store: Store, options: Any) -> dict[str, Any]:
    """Write the columns `left_out`, `label`, `split` and `group` of all shards and return the
    store's metadata.

    Args:
        store: being written.
        options: the Molecules.

    Raises:
        DataError: no molecule is left to use.
    """
    import rdkit

    key_N, left_N = store.column("key"), store.column("left_out").copy()
    label_NK = np.array(store.column("label"), np.float32) if options.labels else None
    differing = settle_duplicates(key_N, left_N, label_NK, options.duplicates)
    used = np.flatnonzero(left_N == 0)
    if not len(used):
        counts = ", ".join(f"{num} {name}" for name, num in _left_out(left_N).items())
        raise DataError(f"every molecule is left out ({counts}){_absent(label_NK, options)}")
    group_N = np.full(len(left_N), -1, np.int32)
    group_N[used] = by_first(store.column("scaffold")[used])
    split_N = np.full(len(left_N), NO_SPLIT, np.uint8)
    named = groups_of(store)
    if named is not None and options.split not in ("column", "none"):
        split_N[used] = split_by_group(np.array(named)[used], options.shares, options.seed)
    else:
        split_N[used] = _split(store.column("split")[used], group_N[used], options)
    if options.labels:
        store.rewrite("label", label_NK)
    for name, values in (("left_out", left_N), ("split", split_N), ("group", group_N)):
        if name != "group" or named is None:
            store.rewrite(name, values)
    train = np.flatnonzero(split_N == 0)
    if not len(train):
        raise DataError("no molecule is in training; choose other shares, or another split column")
    counts = {name: int((split_N == place).sum()) for place, name in enumerate(SPLITS)}
    meta: dict[str, Any] = {
        "counts": counts,
        "left_out": _left_out(left_N),
        "rdkit": rdkit.__version__,
    }
    meta |= {"stereo_removed": int(store.column("stereo").sum()), "groups": int(group_N.max()) + 1}
    meta |= {
        "largest_group": int(np.bincount(group_N[used]).max()),
        "split": options.split,
        "seed": options.seed,
    }
    meta |= _all_statistics(store, options, label_NK, train)
    notes = _notes(meta) + _taken_off_notes(store) + _duplicate_notes(differing, options.duplicates)
    if options.labels:
        notes += label_notes(options.labels, label_NK[used])
    notes += _unused_columns(options)
    return meta | ({"notes": notes} if notes else {})


def _all_statistics(
    store: Store, options: Any, label_NK: np.ndarray | None, train: np.ndarray
) -> dict[str, Any]:
    """Return the statistics of labels, properties and descriptors over the training molecules."""
    meta: dict[str, Any] = {}
    if options.labels:
        meta["labels"] = _statistics(options.labels, label_NK[train])
    if options.properties:
        meta["properties"] = _statistics(options.properties, store.column("property")[train])
    if options.descriptors:
        sample = train[:: -(-len(train) // SAMPLED)]
        meta["descriptors"] = {
            "names": list(descriptor_names()),
            **scales(store.column("descriptor")[sample]),
        }
    return meta


def _duplicate_notes(differing: int, rule: str) -> list[str]:
    """Return a note on molecules that come several times with other labels."""
    if not differing:
        return []
    done = {"first": "that of the first is used", "mean": "numbers are averaged"}
    return [
        f"{differing} molecules come several times with labels that differ;"
        f" {done.get(rule, 'these are left out')} (stereoisomers count as one molecule)"
    ]


def _left_out(left_N: np.ndarray) -> dict[str, int]:
    """Return how many molecules are left out for each reason that occurs."""
    counts = {name: int((left_N == place).sum()) for place, name in enumerate(LEFT_OUT) if name}
    return {name: num for name, num in counts.items() if num}


def _absent(label_NK: np.ndarray | None, options: Any) -> str:
    """Return which label no molecule has, and which columns there are, for the end of an error."""
    if label_NK is None or np.isfinite(label_NK).any():
        return "; nothing to prepare"
    known = [name for file in options.files for name in columns_of(Path(file))]
    name = options.labels[0]
    return f"; no value of {name!r}: {did_you_mean(name, known)}"


def _taken_off_notes(store: Store) -> list[str]:
    """Return what was taken off molecules, one sentence each."""
    columns = next(shard["columns"] for shard in store.index["shards"] if shard["num_records"])
    if "taken_off" not in columns:  # a store of an earlier release that is split again
        return []
    taken_N = np.asarray(store.column("taken_off"))
    notes = {
        SALT: "salts or mixtures: counter-ions, solvents and smaller parts taken off",
        DOUBTFUL: "mixtures of several molecules that are no known counter-ions: the largest kept",
        ISOTOPE: "molecules with isotopes, which are not used",
    }
    counts = {sentence: int((taken_N & bit > 0).sum()) for bit, sentence in notes.items()}
    return [f"{count} {sentence}" for sentence, count in counts.items() if count]


def label_notes(names: Sequence[str], label_NK: np.ndarray) -> list[str]:
    """Return what each label is taken for where that may surprise, and how many are missing.

    >>> taken, missing = label_notes(["active"], np.array([[-1.0], [1.0], [1.0], [np.nan]]))
    >>> taken[:62]
    'active holds 2 whole numbers (-1, 1) and is learnt as a number'
    >>> missing
    '1 labels of active missing'
    """
    notes = []
    for name, label_N in zip(names, np.asarray(label_NK).T, strict=True):
        known_N = label_N[np.isfinite(label_N)]
        values = np.unique(known_N)
        whole = len(values) and not (values % 1).any() and len(values) <= FEW_VALUES
        if whole and len(values) < len(known_N) and not np.isin(values, (0, 1)).all():
            listed = ", ".join(f"{value:g}" for value in values)
            notes.append(
                f"{name} holds {len(values)} whole numbers ({listed}) and is learnt as a number;"
                " write yes-or-no classes as 1 and 0, and a column for each of several classes"
            )
        if missing := len(label_N) - len(known_N):
            notes.append(f"{missing} labels of {name} missing")
    return notes


def _unused_columns(options: Any) -> list[str]:
    """Return a note on the columns of each file that are not used."""
    used = {*options.labels, options.group_column}
    used |= {options.split_column} if options.split == "column" else set()
    notes = []
    for file in map(Path, options.files):
        columns = columns_of(file)
        kept = used | {smiles_column_in(columns, options.smiles_column), name_column_in(columns)}
        if unused := [name for name in columns if name and name not in kept]:
            more = f", ... ({len(unused)} in all)" if len(unused) > MAX_NAMED else ""
            hint = "; to use its splits: --split column" if options.split_column in unused else ""
            notes.append(
                f"columns of {file.name} not used: {', '.join(unused[:MAX_NAMED])}{more}{hint}"
            )
    return notes


def _notes(meta: Mapping[str, Any]) -> list[str]:
    """Return what was left out or taken off, one sentence each."""
    notes = [f"{num} left out: {name}" for name, num in meta["left_out"].items()]
    if meta["stereo_removed"]:
        notes.append(f"stereochemistry of {meta['stereo_removed']} molecules is not used")
    return notes


def resplit(store: Store, options: Any, out: Path) -> Store:
    """Write the same molecules under another split, without reading files and computing descriptors
    anew.

    Args:
        store: a finished store, prepared with the same options but split, shares and seed.
        options: the Molecules with the new ones.
        out: the new store's folder.
    """
    with atomic_folder(out) as work:
        for file in store.path.iterdir():
            if file.name != "index.json":
                shutil.copy(file, work / file.name)
        index = json.loads(json.dumps(store.index))
        index["meta"] = complete(Store(work, index), options)
        index["preparer"] = to_json(options)
        write_json(work / "index.json", index)
    return Store.open(out)


def settle_duplicates(
    key_N: np.ndarray, left_N: np.ndarray, label_NK: np.ndarray | None, rule: str
) -> int:
    """Mark duplicates in `left_N` and settle their labels in place; the first that is used stays.

    Returns:
        How many molecules come several times with labels that differ.

    >>> left, label = np.zeros(3, np.uint8), np.array([[1.0], [5.0], [3.0]], np.float32)
    >>> settle_duplicates(np.array([7, 8, 7], np.uint64), left, label, "mean")
    1
    >>> left.tolist(), label[:, 0].tolist()
    ([0, 0, 2], [2.0, 5.0, 3.0])
    """
    usable = np.flatnonzero(left_N == 0)
    _, first, inverse, count = np.unique(
        key_N[usable], return_index=True, return_inverse=True, return_counts=True
    )
    again = np.setdiff1d(usable, usable[first], assume_unique=True)
    left_N[again] = LEFT_OUT.index("duplicate")
    if label_NK is None:
        return 0
    differing = 0
    known = np.isfinite(label_NK)
    binary_K = np.array(
        [
            np.isin(column[seen], (0, 1)).all()
            for column, seen in zip(label_NK.T, known.T, strict=True)
        ]
    )
    in_groups = np.argsort(inverse, kind="stable")
    starts = np.concatenate([[0], np.cumsum(count)])
    for place in np.flatnonzero(count > 1):
        rows = usable[in_groups[starts[place] : starts[place + 1]]]
        low, high = (edge(label_NK[rows], axis=0) for edge in (np.fmin.reduce, np.fmax.reduce))
        differ_K = high > low
        differing += bool(differ_K.any())
        if rule == "first":
            continue
        if rule == "drop" and differ_K.any():
            left_N[rows] = LEFT_OUT.index("conflicting duplicate")
            continue
        seen_K = known[rows].sum(0)
        mean_K = np.where(known[rows], label_NK[rows].astype(np.float64), 0).sum(0) / np.maximum(
            seen_K, 1
        )
        label_NK[rows[0]] = np.where((seen_K == 0) | (binary_K & differ_K), np.nan, mean_K)
        if not np.isfinite(label_NK[rows[0]]).any():
            left_N[rows[0]] = LEFT_OUT.index("conflicting duplicate")
    return differing


def by_first(values_N: np.ndarray) -> np.ndarray:
    """Number equal values in the order in which they are first met, int32 [N].

    >>> by_first(np.array([9, 3, 9])).tolist()
    [0, 1, 0]
    """
    _, first, inverse = np.unique(values_N, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first)).astype(np.int32)[inverse]


def _split(given_N: np.ndarray, group_N: np.ndarray, options: Any) -> np.ndarray:
    if options.split.startswith("scaffold"):
        return split_by_scaffold(
            group_N, options.shares, options.seed, balanced=options.split == "scaffold"
        )
    return (
        split_at_random(len(group_N), options.shares, options.seed)
        if options.split == "random"
        else given_N
    )


def _statistics(names: tuple[str, ...], values_NK: np.ndarray) -> list[dict[str, Any]]:
    """Return name, count, mean, std, and whether all are 0 or 1, of each column over its known
    values.
    """
    statistics = []
    for name, column in zip(names, np.asarray(values_NK, np.float64).T, strict=True):
        known = column[np.isfinite(column)]
        mean, std = (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)
        binary = bool(len(known) and np.isin(known, (0, 1)).all())
        statistics.append(
            {"name": name, "count": len(known), "mean": mean, "std": std or 1.0, "binary": binary}
        )
    return statistics


def scales(values_ND: np.ndarray) -> dict[str, list[float]]:
    """Return what makes descriptors comparable: a median and a width inside an arcsinh, then a mean
    and a std.

    The arcsinh is linear about the median and logarithmic far out, so counts stay counts and the
    few giants (Ipc goes to 1e30) do not rule the loss. A column that never varies has the std 0 and
    is not learnt.
    """
    x_ND = np.where(np.isfinite(values_ND), values_ND, np.nan).astype(np.float64)
    x_ND[:, np.isnan(x_ND).all(0)] = 0
    low, centre, high = np.nanpercentile(x_ND, (25, 50, 75), axis=0)
    width = (high - low) / 1.349
    std = np.nanstd(x_ND, axis=0)
    width = np.where(width > 0, width, np.where(std > 0, std, 1.0))
    bent_ND = np.arcsinh((x_ND - centre) / width)
    columns = {
        "centre": centre,
        "width": width,
        "mean": np.nanmean(bent_ND, 0),
        "std": np.nanstd(bent_ND, 0),
    }
    return {name: [float(f"{value:.7g}") for value in column] for name, column in columns.items()}
