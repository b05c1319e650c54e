"""What preparation did not use of what it was given, one sentence each: the notes of a store."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sciforge.core.data.store import SPLIT_NAMES
from sciforge.images.data.annotations import header_of
from sciforge.images.data.readers import ARRAY_NAMES, array_names, hidden_in, unread_in

MAX_NAMED = 6  # items that a note lists
DARK = 64  # a store whose brightest value is below was probably scaled by too large a `white`
DIGITS_ONLY = 20  # more classes than this that are all numbers are taken for numbers to regress on


def unread_notes(places: Iterable[Path], used: Iterable[Path] = ()) -> list[str]:
    """Return notes on the files below folders that are not read.

    Args:
        places: folders and files.
        used: tables that lie in the folders and are read otherwise.
    """
    known = {Path(path).resolve() for path in used}
    folders = [Path(place) for place in places if Path(place).is_dir()]
    unread = [path for folder in folders for path in unread_in(folder)]
    unread = [path for path in unread if path.resolve() not in known]
    hidden = [path for folder in folders for path in hidden_in(folder)]
    notes = []
    if unread:
        kinds = Counter(path.suffix.lower() or "no suffix" for path in unread)
        counts = _listed([f"{count} {kind}" for kind, count in sorted(kinds.items())])
        notes.append(
            f"{len(unread)} other files in the folders not read: {counts}; the first: {unread[0]}"
        )
    if hidden:
        notes.append(f"{len(hidden)} hidden images not read; the first: {hidden[0]}")
    return notes


def array_notes(paths: Iterable[Path], replaced: Sequence[Path] = ()) -> list[str]:
    """Return notes on the arrays of .npz files that are not used.

    Args:
        paths: the .npz files.
        replaced: those whose labels come from another file.
    """
    notes = []
    for path in paths:
        names = array_names(path) if path.suffix.lower() == ".npz" else ()
        if len(names) < 2:
            continue
        if unused := sorted(set(names) - set(ARRAY_NAMES)):
            notes.append(f"arrays of {path.name} not used: {_listed(unused)}")
        if path in replaced and "labels" in names:
            notes.append(f"labels in {path.name} not used: --labels gives others")
    return notes


def column_notes(path: Path, used: Sequence[str]) -> list[str]:
    """Return a note on the columns of a CSV that are not used."""
    if path.suffix.lower() != ".csv":
        return []
    unused = [name for name in header_of(path) if name and name not in used]
    return [f"columns of {path.name} not used: {_listed(unused)}"] if unused else []


def folder_notes(names: Sequence[str], folder_labels: bool) -> list[str]:
    """Return notes on folders whose names say something that is not used.

    >>> folder_notes(["train/a.png", "test/b.png"], folder_labels=False)[0][:52]
    'folders named train, test are not taken for splits; '
    >>> folder_notes(["p1/cat/a.png", "p2/dog/b.png"], folder_labels=True)
    ['folders above those of the classes not used: p1, p2']
    """
    if folder_labels:
        above = [
            folder
            for name in names
            for folder in name.split("/")[:-2]
            if folder.lower() not in SPLIT_NAMES
        ]
        kept = _listed(list(dict.fromkeys(above)))
        return [f"folders above those of the classes not used: {kept}"] if above else []
    splits = [
        folder for name in names for folder in name.split("/")[:-1] if folder.lower() in SPLIT_NAMES
    ]
    if not splits:
        return []
    kept = _listed(list(dict.fromkeys(splits)))
    return [
        f"folders named {kept} are not taken for splits; use --folder-labels, or --validation"
        " and --test"
    ]


def class_notes(labels: np.ndarray, split_N: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Return notes on classes without images and on classes that look like numbers.

    Args:
        labels: of each image [N].
        split_N: its place in SPLITS.
        classes: names that were given; may be empty.
    """
    present = sorted(set(labels.tolist()))
    notes = []
    if absent := [name for name in classes if name not in present]:
        notes.append(f"classes without an image left out: {_listed(absent)}")
    trained = set(labels[split_N == 0].tolist())
    if unseen := [name for name in present if name not in trained]:
        notes.append(f"classes without a training image: {_listed(unseen)}")
    if _are_numbers(present) and (
        len(present) > DIGITS_ONLY or any(float(name) % 1 for name in present)
    ):
        notes.append(
            f"labels are numbers ({_listed(present)}) and are taken for {len(present)} classes;"
            " for regression use --numeric"
        )
    return notes


def mask_notes(pixels_by_value: np.ndarray) -> list[str]:
    """Return notes on the values of label maps.

    Args:
        pixels_by_value: how many pixels of all maps have each value, int64 [256].

    >>> mask_notes(np.bincount([0, 0, 127, 254], minlength=256))[0][:68]
    'label maps hold 3 values (0, 127, 254), taken for classes 0 to 254; '
    """
    notes = []
    if share := pixels_by_value[255] / max(pixels_by_value.sum(), 1):
        notes.append(f"{share:.1%} of the pixels of label maps are 255, no class")
    values = np.flatnonzero(pixels_by_value[:255]).tolist()
    if values and len(values) < (values[-1] + 1) / 2:
        words = [str(value) for value in values]
        notes.append(
            f"label maps hold {len(values)} values ({_listed(words, ', ')}), taken for classes 0"
            f" to {values[-1]}; number them by --mask-classes {_listed(words, ' ')}"
        )
    return notes


def brightness_note(brightest: int) -> list[str]:
    """Return a note on a store that is almost black, as 12-bit images read as 16-bit ones are."""
    if brightest >= DARK:
        return []
    return [
        f"the brightest value of all images is {brightest} of 255; for files of 12 bits use"
        " --white 4095"
    ]


def _are_numbers(names: Sequence[str]) -> bool:
    try:
        return bool(names) and all(np.isfinite(float(name)) for name in names)
    except ValueError:
        return False


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    more = [f"... ({len(names)} in all)"] if len(names) > MAX_NAMED else []
    return separator.join([*names[:MAX_NAMED], *more])
