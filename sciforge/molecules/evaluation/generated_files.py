"""Samples as a generator wrote them: every line counts, and a line is a valid molecule or has a
reason why it is none.
"""

import csv
import gzip
import io
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from sciforge.core.files.decompression import bounded
from sciforge.errors import DataError, printable

HEADS = ("smiles", "canonical_smiles", "mol")  # what files call the column; BACE says mol
# Without these a SMILES can hold no second component, dummy atom or radical; without those no
# stereochemistry or atom map.
KINDS = (".smi", ".smiles", ".txt", ".ism", ".csv", ".tsv")
SPECIAL, MARKS = frozenset("[.*| \t"), frozenset("@/\\:")
CHUNK = 2000  # strings at a time for a process: about half a second
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Sample:
    """A string that was judged.

    Args:
        smiles: canonical SMILES with stereochemistry, as ChemNet reads it; empty where invalid.
        plain: canonical SMILES without stereochemistry and atom maps, by which molecules are the
            same; empty where invalid.
        reason: why it is invalid, a few words; empty where valid.
    """

    smiles: str = ""
    plain: str = ""
    reason: str = ""


def judge(text: str) -> Sample:
    """Return the molecule of a string, or why it is none: valid is what RDKit sanitises, one
    component, no radical.

    The largest fragment of a mixture is never taken for the whole, nor an empty string for a
    molecule.

    >>> judge("OCC").plain
    'CCO'
    >>> [judge(text).reason for text in ("CC.O", "", "C[CH2]", "CF(C)C")]
    ['several components', 'empty', 'radical', 'breaks a valence']
    """
    from rdkit import Chem, rdBase

    if not text.strip():
        return Sample(reason="empty")
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(text)
        if mol is None:
            raw = Chem.MolFromSmiles(text, sanitize=False)
            problems = Chem.DetectChemistryProblems(raw) if raw is not None else ()
            kinds = {problem.GetType() for problem in problems}
            if not kinds:
                return Sample(reason="not a SMILES")
            return Sample(
                reason=(
                    "breaks a valence" if "AtomValenceException" in kinds else "cannot be kekulised"
                )
            )
    if not mol.GetNumAtoms():
        return Sample(reason="empty")
    if SPECIAL.intersection(text):
        if len(Chem.GetMolFrags(mol)) > 1:
            return Sample(reason="several components")
        if any(atom.GetAtomicNum() == 0 for atom in mol.GetAtoms()):
            return Sample(reason="dummy atom")
        if any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()):
            return Sample(reason="radical")
    smiles = Chem.MolToSmiles(mol)
    if not MARKS.intersection(smiles):
        return Sample(smiles, smiles)
    Chem.RemoveStereochemistry(mol)
    for atom in mol.GetAtoms():
        atom.SetAtomMapNum(0)
    return Sample(smiles, Chem.MolToSmiles(mol))


def judge_all(texts: Sequence[str]) -> list[Sample]:
    """Return what `judge` says of each."""
    return [judge(text) for text in texts]


def read_strings(path: Path, num: int | None = None) -> Iterator[str]:
    """Yield the SMILES of each line of a .smi file, or of each row of a .csv with a column
    `smiles`; .gz too.

    Empty lines come as empty strings, since a generator that fails writes them; a line `SMILES` at
    the top is a head.

    Args:
        path: the file.
        num: at most so many, from the top.

    Raises:
        DataError: there is no such file, it is not text, or a .csv has no column of SMILES.
    """
    return islice(_strings(Path(path)), num)


def _strings(path: Path) -> Iterator[str]:
    zipped = path.suffix.lower() == ".gz"
    kind = (path.with_suffix("") if zipped else path).suffix.lower()
    if kind not in KINDS and not path.is_dir():
        raise DataError(
            f"the ending {kind!r} is none of {', '.join(KINDS)} (with or without .gz); rename or"
            " convert it",
            path,
        )
    try:
        raw = bounded(gzip.open(path, "rb"), path) if zipped else open(path, "rb")
        with io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as handle:
            if kind in (".csv", ".tsv"):
                yield from _column(
                    csv.reader(handle, delimiter="\t" if kind == ".tsv" else ","), path
                )
                return
            for number, line in enumerate(handle):
                word = line.split(maxsplit=1)[0] if line.strip() else ""
                if number or word.lower() not in HEADS:
                    yield word
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error, csv.Error) as error:
        raise DataError(
            f"this is no text that can be read ({error}); give .smi or .csv, or either as .gz", path
        ) from None
    except FileNotFoundError:
        raise DataError("there is no such file; correct the path", path) from None
    except IsADirectoryError:
        raise DataError("this is a folder; give a file", path) from None


def _column(rows: Iterator[list[str]], path: Path) -> Iterator[str]:
    heads = [head.strip().lower() for head in next(rows, [])]
    column = next((heads.index(name) for name in HEADS if name in heads), None)
    if column is not None and heads.count(heads[column]) > 1:
        raise DataError(f"two columns are called {heads[column]!r}; rename one", path, 1)
    if column is None:
        known = ", ".join(map(printable, heads[:8])) or "none"
        raise DataError(
            f"no column called {' or '.join(HEADS)} among {known[:200]}; name it", path, 1
        )
    for row in rows:
        yield row[column].strip() if column < len(row) else ""


def pick_strings(path: Path, num: int, seed: int) -> list[str]:
    """Return `num` random rows of a file in random order, all where it has no more; two passes,
    nothing else in memory.

    Raises:
        DataError: the file cannot be read.
    """
    rng = np.random.default_rng(seed)
    total = sum(1 for _ in read_strings(path))
    wanted = set(rng.choice(total, num, replace=False).tolist()) if num < total else range(total)
    picked = [text for number, text in enumerate(read_strings(path)) if number in wanted]
    return [picked[i] for i in rng.permutation(len(picked))]


def in_chunks(
    work: Callable[[Any], Answer],
    items: Iterable[Any],
    pool: Executor | None,
    say: str,
    size: int = CHUNK,
) -> Iterator[Answer]:
    """Yield work(chunk) for chunks of the items in their order, in a pool where there is one, with
    a progress bar.

    At most a few chunks wait at a time, so a file of any length streams through.
    """
    total = len(items) if isinstance(items, Sequence) else None
    waiting: deque[Any] = deque()
    with tqdm(total=total, desc=say, unit="molecule", disable=None, leave=False) as bar:
        stream = iter(items)
        while chunk := list(islice(stream, size)):
            waiting.append((len(chunk), work(chunk) if pool is None else pool.submit(work, chunk)))
            if pool is None or len(waiting) > 64:
                yield _next(waiting, pool, bar)
        while waiting:
            yield _next(waiting, pool, bar)


def _next(waiting: deque[Any], pool: Executor | None, bar: tqdm) -> Any:
    length, answer = waiting.popleft()
    answer = answer if pool is None else answer.result()
    bar.update(length)
    return answer
