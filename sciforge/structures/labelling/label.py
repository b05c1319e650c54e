"""`label`: energies and forces of many structures by quantum chemistry, in several processes,
resumable.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from sciforge.core.files.atomic import one_line, try_lock
from sciforge.core.files.settings import Settings, to_json
from sciforge.errors import ConfigError, DataError
from sciforge.structures.labelling.quantum import GRID_LEVEL, LevelOfTheory, single_point
from sciforge.structures.labelling.worker_pool import scatter
from sciforge.structures.readers import read_structures
from sciforge.structures.structure import Structure
from sciforge.structures.structure_set import StructureSet

MAX_WORKERS = 32
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Label(Settings):
    """Label structures with energy and forces, in the order of the input.

    What cannot be labelled is left out and counted, with its reason; saved structures have it in
    NAME.rejected.jsonl. The result depends neither on the number of workers nor on interruptions.

    Args:
        file: structures, in any format that sciforge reads; charge and spin multiplicity are taken
            from it.
        method: gfn2-xtb, gfn1-xtb, or functional/basis such as pbe/def2-svp.
        workers: processes at a time, each with one thread; by default one for each core.
        fmax_eV_A: a structure with a larger force (length of the vector) on any atom is rejected.
        journal: file of JSON lines that keeps each label as it is made, so that a killed run goes
            on; none keeps nothing.
    """

    file: Path
    method: str = "gfn2-xtb"
    workers: int = field(default_factory=lambda: min(os.cpu_count() or 1, MAX_WORKERS))
    fmax_eV_A: float = 100.0
    journal: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, float("inf"), "workers")
        if not self.fmax_eV_A > 0:
            raise ConfigError(f"fmax_eV_A is {self.fmax_eV_A}; give a positive number")

    def run(self) -> StructureSet:
        """Return the labelled structures.

        Raises:
            ConfigError: an unknown method, or another process writes the journal.
            DataError: the input cannot be read, or nothing could be labelled.
            MissingExtra: the package for the method is not installed.
        """
        level = LevelOfTheory.parse(self.method)
        structures = list(read_structures(self.file))
        with locked(self.journal):
            records = _labels(structures, level, self.workers, self.journal)
        return self._accepted(structures, records, level)

    def _accepted(
        self,
        structures: Sequence[Structure],
        records: Sequence[dict[str, Any]],
        level: LevelOfTheory,
    ) -> StructureSet:
        """Return the structures with their labels, those that failed or have too large a force
        left out.
        """
        labelled, rejected = [], []
        for index, (structure, record) in enumerate(zip(structures, records, strict=True)):
            forces = np.array(record.get("forces_eV_A_N3", np.zeros((1, 3))))
            largest = float(np.linalg.norm(forces, axis=1).max())
            reason = record.get("reason", "")
            if largest > self.fmax_eV_A:
                reason = f"a force of {largest:.1f} eV/A is above {self.fmax_eV_A:g}"
            if reason:
                rejected.append({"index": index, "name": structure.name, "reason": reason})
                continue
            stress = record["stress_eV_A3_6"] and np.array(record["stress_eV_A3_6"])
            labels = {
                "energy_eV": record["energy_eV"],
                "forces_eV_A_N3": forces,
                "stress_eV_A3_6": stress,
            }
            labelled.append(replace(structure, **labels, level=level.name))
        if not labelled:
            first = rejected[0]["reason"]
            raise DataError(
                f"none of its structures could be labelled; the first: {first}", self.file
            )
        if rejected:
            logger.warning(
                "%d of %d structures rejected: %s",
                len(rejected),
                len(structures),
                rejected[0]["reason"],
            )
        about = {"level": level.name, "options": to_json(self)}
        return StructureSet(labelled, rejected, about, (self.file,))


@contextmanager
def locked(journal: Path | None) -> Iterator[None]:
    """Make the journal where it is missing and hold it against other processes; raises
    ConfigError where one holds it.
    """
    if journal is None:
        yield
        return
    with one_line(journal):
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.touch()
        lock = try_lock(journal)
    if lock is None:
        raise ConfigError(
            f"{journal}: another process labels with it; wait for it or choose another journal"
        )
    try:
        yield
    finally:
        os.close(lock)


def _digest(structure: Structure, level: LevelOfTheory) -> str:
    program = version("pyscf" if level.functional else "tblite")
    described = (
        level,
        program,
        GRID_LEVEL,
        structure.charge,
        structure.spin,
        structure.pbc_3.tolist(),
    )
    digest = hashlib.sha256(repr(described).encode())
    for part, kind in (
        (structure.numbers_N, "<i8"),
        (structure.pos_A_N3, "<f8"),
        (structure.cell_A_33, "<f8"),
    ):
        digest.update(np.ascontiguousarray(part, kind).tobytes())
    return digest.hexdigest()[:32]


def _as_record(structure: Structure, level: LevelOfTheory) -> dict[str, Any]:
    """Label a structure, as JSON: this runs in the worker."""
    done = single_point(structure, level)
    stress = None if done.stress_eV_A3_6 is None else done.stress_eV_A3_6.tolist()
    return {
        "energy_eV": done.energy_eV,
        "forces_eV_A_N3": done.forces_eV_A_N3.tolist(),
        "stress_eV_A3_6": stress,
    }


def _finished(journal: Path, digests: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Read what an earlier run has done, and cut off the line it was killed in."""
    done, good_bytes = {}, 0
    with open(journal, "rb+") as handle:
        for line in handle:
            try:
                record = json.loads(line)
                index, digest = record.pop("index"), record.pop("digest")
            except (ValueError, KeyError, AttributeError):
                break
            good_bytes += len(line)
            if index < len(digests) and digest == digests[index]:
                done[index] = record
        handle.truncate(good_bytes)
    return done


def _labels(
    structures: Sequence[Structure], level: LevelOfTheory, workers: int, journal: Path | None
) -> list[dict[str, Any]]:
    """Return a record for every structure, computing those that the journal does not hold."""
    digests = [_digest(structure, level) for structure in structures]
    done = _finished(journal, digests) if journal is not None else {}
    tasks = [(index, structure) for index, structure in enumerate(structures) if index not in done]
    work = scatter(partial(_as_record, level=level), tasks, min(workers, max(len(tasks), 1)))
    bar = tqdm(
        total=len(structures), initial=len(done), desc=level.name, unit="structure", disable=None
    )
    place = journal or Path(os.devnull)
    with one_line(place):
        handle = open(place, "a", encoding="utf-8")  # noqa: SIM115
    with closing(handle), bar, closing(work):
        for index, record, reason in work:
            done[index] = {"reason": reason} if record is None else record
            line = json.dumps({"index": index, "digest": digests[index], **done[index]})
            with one_line(place):
                handle.write(line + "\n")
                handle.flush()
            bar.update()
    return [done[index] for index in range(len(structures))]
