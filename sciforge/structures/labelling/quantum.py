"""Energies and forces of structures by quantum chemistry: GFN-xTB (tblite) and density functionals (pyscf).

Every structure is computed from scratch: a warm start would make a label depend on the structures before it, and so on
the number of workers and on where a killed run was taken up again.
"""

import hashlib
import json
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from tqdm import tqdm

from sciforge.core.files.atomic import one_line, replace_file, try_lock
from sciforge.errors import ConfigError, DataError, MissingExtra, did_you_mean
from sciforge.structures.neighbours import find_neighbours, require_apart
from sciforge.structures.readers import read_structures, write_extxyz
from sciforge.structures.structure import OVERLAP_A, Structure, require_physical

HARTREE_EV, BOHR_A = 27.211386245988, 0.529177210903  # CODATA 2018
XTB = {"gfn1-xtb": "GFN1-xTB", "gfn2-xtb": "GFN2-xTB"}
# rMD17's forces of ethanol come out within 0.00024 eV/A at this level, at half the time of pyscf's default of 3.
GRID_LEVEL = 2
# More OpenMP threads than one only get in each other's way on molecules: ethanol 19 ms with one, 750 ms with two.
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
MOST_WORKERS = 32
# A worker may die for reasons that are not the structure's (another process takes the memory), so it gets a second try.
TRIES = 2
Task = tuple[int, Any]  # index, argument
Labels = tuple[float, np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class LevelOfTheory:
    """A way to label: `name` is recorded with every label; pyscf takes a functional and a basis, tblite neither.

    >>> LevelOfTheory.parse("PBE/def2-SVP")
    LevelOfTheory(name='pbe/def2-svp', functional='pbe', basis='def2-svp')
    """

    name: str
    functional: str = ""
    basis: str = ""

    @classmethod
    def parse(cls, method: str) -> "LevelOfTheory":
        """Read `gfn2-xtb` or `functional/basis`; raises ConfigError for neither, MissingExtra without the package."""
        name = method.strip().lower()
        functional, slash, basis = name.partition("/")
        if not slash and name not in XTB:
            hint = did_you_mean(name, [*XTB, "pbe/def2-svp"])
            raise ConfigError(f"method {method!r} is neither of {', '.join(XTB)} nor functional/basis; {hint}")
        package = "pyscf" if slash else "tblite"
        if find_spec(package) is None:
            raise MissingExtra(package, "label")
        if slash:
            _require_known(functional, basis)
        return cls(name, functional, basis) if slash else cls(name)


def _require_known(functional: str, basis: str) -> None:
    from pyscf.dft import libxc
    from pyscf.gto.basis import load

    try:
        libxc.parse_xc(functional)
    except (KeyError, ValueError):
        raise ConfigError(f"pyscf knows no functional {functional!r}; try pbe, r2scan, b3lyp or wb97x") from None
    try:
        with warnings.catch_warnings(action="ignore"):
            load(basis, "H")
    except Exception:  # pyscf raises a different error for each way of not being a basis
        raise ConfigError(f"pyscf knows no basis {basis!r}; try def2-svp or def2-tzvp") from None


def single_point(structure: Structure, level: LevelOfTheory) -> Structure:
    """Return the structure with energy (eV), forces (eV/A), with tblite stress (eV/A^3) of a 3D cell, and the level.

    Raises:
        DataError: no structure can look like this, or the method cannot treat it, or did not converge.
    """
    require_physical(structure)
    place = structure.pos_A_N3, structure.cell_A_33, structure.pbc_3
    require_apart(structure, find_neighbours(*place, 2 * OVERLAP_A))
    compute = _density_functional if level.functional else _tight_binding
    energy, forces, stress = compute(structure, level)
    if not (math.isfinite(energy) and np.isfinite(forces).all()):
        raise DataError(f"{level.name} gave an energy or force that is not finite", structure.name or None)
    return replace(structure, energy_eV=energy, forces_eV_A_N3=forces, stress_eV_A3_6=stress, level=level.name)


def _tight_binding(structure: Structure, level: LevelOfTheory) -> Labels:
    """GFN-xTB; a periodic cell is seen at the Gamma point only, so a small one needs repeating first."""
    from tblite.interface import Calculator

    cell = {"lattice": structure.cell_A_33 / BOHR_A, "periodic": structure.pbc_3} if structure.pbc_3.any() else {}
    calculator = Calculator(
        XTB[level.name], structure.numbers_N, structure.pos_A_N3 / BOHR_A,
        charge=structure.charge, uhf=structure.spin - 1, **cell,
    )  # fmt: skip
    calculator.set("verbosity", 0)
    result = calculator.singlepoint()
    stress = None
    if structure.pbc_3.all():  # tblite's virial is dE/d(strain): the same sign as ASE's stress
        sigma = result.get("virial") * HARTREE_EV / structure.volume_A3
        stress = sigma[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return float(result.get("energy")) * HARTREE_EV, -result.get("gradient") * HARTREE_EV / BOHR_A, stress


def _density_functional(structure: Structure, level: LevelOfTheory) -> Labels:
    """Kohn-Sham with density fitting, unrestricted where the spin is not 1."""
    from pyscf import dft, gto, lib

    if structure.pbc_3.any():
        raise DataError("functional/basis labels molecules only; use gfn2-xtb for a cell", structure.name or None)
    lib.num_threads(1)
    atoms = list(zip(structure.numbers_N.tolist(), structure.pos_A_N3 / BOHR_A, strict=True))
    molecule = gto.M(
        atom=atoms, unit="Bohr", basis=level.basis, ecp=_core_potentials(structure.numbers_N, level.basis),
        charge=structure.charge, spin=structure.spin - 1, verbose=0,
    )  # fmt: skip
    field_of = (dft.RKS if structure.spin == 1 else dft.UKS)(molecule, xc=level.functional).density_fit()
    field_of.grids.level = GRID_LEVEL
    energy = field_of.kernel()
    if not field_of.converged:  # atoms and broken bonds oscillate; the second-order solver is slower and surer
        field_of = field_of.newton()
        energy = field_of.kernel()
    if not field_of.converged:
        raise DataError(f"{level.name} did not converge", structure.name or None)
    gradient = field_of.nuc_grad_method()
    # Without the response of the grid the forces add up to 3 meV/A and are not the slope of the energy.
    gradient.grid_response = True
    return float(energy) * HARTREE_EV, -np.asarray(gradient.kernel()) * HARTREE_EV / BOHR_A, None


def _core_potentials(numbers_N: np.ndarray, basis: str) -> dict[str, str]:
    """Return the elements whose basis is made for an effective core: pyscf leaves it out unless asked, silently."""
    from pyscf.data.elements import ELEMENTS
    from pyscf.gto.basis import load_ecp

    return {ELEMENTS[z]: basis for z in set(numbers_N.tolist()) if load_ecp(basis, ELEMENTS[z])}


def isolated_atoms(elements: Iterable[int], method: str = "gfn2-xtb") -> dict[int, float]:
    """Return the energy in eV of single atoms in their ground-state multiplicity.

    GFN-xTB has no spin polarisation: it fills the unpaired electrons but gains no exchange energy from them, so its
    atoms lie above those of a spin-polarised method by up to 3 eV (nitrogen). They are consistent with its own labels
    of molecules, but atomisation energies from them are too large.

    Raises:
        ConfigError: no such method.
        MissingExtra: the package for it is not installed.
        DataError: the method cannot treat an element.
    """
    from ase.data import ground_state_magnetic_moments as unpaired

    level = LevelOfTheory.parse(method)

    def energy_eV(z: int) -> float:
        atom = Structure(np.array([z]), np.zeros((1, 3)), spin=round(unpaired[z]) + 1, name=f"the isolated atom {z}")
        return single_point(atom, level).energy_eV

    return {z: energy_eV(z) for z in sorted(set(elements))}


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Answer each job that comes through the pipe with (result, "") or (None, reason), until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C too and closes the pipe
    pipe.send("ready")
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            answer = function(task), ""
        except Exception as error:
            answer = None, f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        pipe.send(answer)


class _Worker:
    """A spawned process with one OpenMP thread, and the job it is at."""

    def __init__(self, function: Callable[[Any], Any]):
        context = get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=_serve, args=(end, function), daemon=True)
        with patch.dict(os.environ, ONE_THREAD):  # OpenMP reads its variables once, when the child loads it
            self.process.start()
        end.close()
        self.give(None)
        try:
            self.pipe.recv()
        except (EOFError, ConnectionResetError):
            remedy = 'in a script, start it below `if __name__ == "__main__":`'
            raise ConfigError(f"a worker process died before its first structure; {remedy}") from None

    def give(self, task: Task | None, tries: int = 1) -> None:
        self.task, self.tries = task, tries
        if task is not None:
            with suppress(BrokenPipeError, ConnectionResetError):  # it died while idle: `take` sees the end of the pipe
                self.pipe.send(task[1])

    def take(self) -> tuple[Any, str] | None:
        """Return the answer, or None where the process died."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return None

    def stop(self) -> int | None:
        """End the process and return its exit code: its own, where it had died before."""
        self.pipe.close()
        self.process.join(0.2)
        self.process.kill()
        self.process.join()
        return self.process.exitcode


def scatter(
    function: Callable[[Any], Any], jobs: Iterable[Task], workers: int
) -> Iterator[tuple[int, Any, str]]:
    """Yield (index, result, reason) as jobs finish in spawned processes; a job that fails or kills one has a reason.

    Raises:
        ConfigError: the processes cannot start.
    """
    jobs = iter(jobs)
    crew: list[_Worker] = []
    try:
        for _, task in zip(range(workers), jobs, strict=False):
            crew.append(_Worker(function))
            crew[-1].give(task)
        while busy := [worker.pipe for worker in crew if worker.task is not None]:
            ready = set(wait(busy))
            for place, worker in enumerate(crew):
                if worker.pipe not in ready:
                    continue
                task, tries, answer = worker.task, worker.tries, worker.take()
                if answer is None:
                    answer = None, f"the worker process died with exit code {worker.stop()}"
                    crew[place] = worker = _Worker(function)
                    if tries < TRIES:
                        worker.give(task, tries + 1)
                        continue
                worker.give(next(jobs, None))
                yield task[0], *answer
    finally:
        for worker in crew:
            worker.stop()


def _digest(structure: Structure, level: LevelOfTheory) -> str:
    program = version("pyscf" if level.functional else "tblite")
    described = (level, program, GRID_LEVEL, structure.charge, structure.spin, structure.pbc_3.tolist())
    digest = hashlib.sha256(repr(described).encode())
    for part, kind in ((structure.numbers_N, "<i8"), (structure.pos_A_N3, "<f8"), (structure.cell_A_33, "<f8")):
        digest.update(np.ascontiguousarray(part, kind).tobytes())
    return digest.hexdigest()[:32]


def _as_record(structure: Structure, level: LevelOfTheory) -> dict[str, Any]:
    """Label a structure, as JSON: this runs in the worker."""
    done = single_point(structure, level)
    stress = None if done.stress_eV_A3_6 is None else done.stress_eV_A3_6.tolist()
    return {"energy_eV": done.energy_eV, "forces_eV_A_N3": done.forces_eV_A_N3.tolist(), "stress_eV_A3_6": stress}


def _finished(partial_file: Path, digests: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Read what an earlier run has done, and cut off the line it was killed in."""
    done, good = {}, 0
    with open(partial_file, "rb+") as handle:
        for line in handle:
            try:
                record = json.loads(line)
                index, digest = record.pop("index"), record.pop("digest")
            except (ValueError, KeyError, AttributeError):
                break
            good += len(line)
            if index < len(digests) and digest == digests[index]:
                done[index] = record
        handle.truncate(good)
    return done


@dataclass(frozen=True, kw_only=True)
class Label:
    """Label structures with energy and forces, and write extended XYZ in the order of the input.

    A killed run goes on where it was: what is done lies in `<out>.partial.jsonl` until all is. What cannot be labelled
    goes to `<out>.rejected.jsonl` with index, name and reason. The result depends neither on the number of workers nor
    on interruptions.

    Args:
        file: structures, in any format that sciforge reads; charge and spin multiplicity are taken from it.
        out: the file to write, .extxyz.
        method: gfn2-xtb, gfn1-xtb, or functional/basis such as pbe/def2-svp.
        workers: processes at a time, each with one thread; by default one for each core.
        fmax_eV_A: a structure with a larger force (length of the vector) on any atom is rejected.
    """

    file: Path
    out: Path
    method: str = "gfn2-xtb"
    workers: int = field(default_factory=lambda: min(os.cpu_count() or 1, MOST_WORKERS))
    fmax_eV_A: float = 100.0

    def run(self) -> Path:
        """Label and return `out`.

        Raises:
            ConfigError: an unknown method, a setting out of range, or `out` exists or is being written.
            DataError: the input cannot be read, the place cannot be written, or nothing could be labelled.
            MissingExtra: the package for the method is not installed.
        """
        level = self._check()
        structures = list(read_structures(self.file))
        partial_file = self.out.with_name(f"{self.out.name}.partial.jsonl")
        with one_line(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            partial_file.touch()
            if (lock := try_lock(partial_file)) is None:
                raise ConfigError(f"{self.out} is being labelled by another process; wait for it or choose another out")
            try:
                self._finish(structures, self._label(structures, level, partial_file), level)
                partial_file.unlink()
            finally:
                os.close(lock)
        return self.out

    def _check(self) -> LevelOfTheory:
        if self.workers < 1:
            raise ConfigError(f"workers is {self.workers}; give at least 1")
        if not self.fmax_eV_A > 0:
            raise ConfigError(f"fmax_eV_A is {self.fmax_eV_A}; give a positive number")
        if self.out.suffix not in (".extxyz", ".xyz"):
            raise ConfigError(f"{self.out} does not end in .extxyz; labels are written as extended XYZ")
        if self.out.exists():
            raise ConfigError(f"{self.out} exists already; remove it or choose another out")
        return LevelOfTheory.parse(self.method)

    def _label(self, structures: Sequence[Structure], level: LevelOfTheory, partial_file: Path) -> list[dict[str, Any]]:
        """Return a record for every structure, computing those that no earlier run has."""
        digests = [_digest(structure, level) for structure in structures]
        done = _finished(partial_file, digests)
        jobs = [(index, structure) for index, structure in enumerate(structures) if index not in done]
        work = scatter(partial(_as_record, level=level), jobs, min(self.workers, max(len(jobs), 1)))
        bar = tqdm(total=len(structures), initial=len(done), desc=level.name, unit="structure", disable=None)
        with open(partial_file, "a", encoding="utf-8") as handle, bar, closing(work):
            for index, record, reason in work:
                done[index] = {"reason": reason} if record is None else record
                handle.write(json.dumps({"index": index, "digest": digests[index], **done[index]}) + "\n")
                handle.flush()
                bar.update()
        return [done[index] for index in range(len(structures))]

    def _finish(self, structures: Sequence[Structure], records: Sequence[dict[str, Any]], level: LevelOfTheory) -> None:
        """Write the labelled and the rejected structures."""
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
            labels = {"energy_eV": record["energy_eV"], "forces_eV_A_N3": forces, "stress_eV_A3_6": stress}
            labelled.append(replace(structure, **labels, level=level.name))
        write_rejected(self.out, rejected, f"{len(structures)} structures")
        if not labelled:
            raise DataError(f"none of its structures could be labelled; the first: {rejected[0]['reason']}", self.file)
        write_extxyz(self.out, labelled)


def write_rejected(out: Path, rejected: Sequence[Mapping[str, Any]], of: str) -> None:
    """Write `<out>.rejected.jsonl` and say how many there are; without any, remove an older one."""
    file = out.with_name(f"{out.name}.rejected.jsonl")
    file.unlink(missing_ok=True)
    if rejected:
        text = "".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in rejected)
        replace_file(file, lambda path: path.write_text(text, encoding="utf-8"))
        print(f"{len(rejected)} of {of} rejected; see {file}", file=sys.stderr)
