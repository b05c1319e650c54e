"""`sciforge demo`: a section of each domain, two at a time, and one report that grows as they
finish.
"""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sciforge import catalog
from sciforge.core.domain import discover, get_domain
from sciforge.core.files.tables import Section, write_html
from sciforge.errors import SciforgeError

# Of the processes of sections that run at the same time: one thread each, in BLAS and OpenMP too,
# and no progress bars, which cannot be read two at a time.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
}
SHORTEST = "heat"  # runs first, so that there is something to see after a few seconds


@dataclass(frozen=True)
class Outcome:
    """What became of the section of a domain.

    Args:
        domain: its name.
        seconds: wall time.
        section: None where it failed.
        error: one line; empty where it did not fail.
        trace: of an error that is no SciforgeError.
    """

    domain: str
    seconds: float
    section: Section | None = None
    error: str = ""
    trace: str = ""


def demo(*, domain: str | None = None, out: Path = Path("sciforge-demo"), jobs: int = 2) -> int:
    """Run a short demonstration of every domain, offline and on bundled data, and write
    report.html.

    Args:
        domain: run this one only, and at length.
        out: folder of the report and of everything that the sections make; a section started again
            there goes on.
        jobs: sections that run at the same time, one thread each.

    Returns:
        0, or 1 where a section failed; the others still run.
    """
    full = domain is not None
    chosen = [
        name
        for name, d in (discover() if domain is None else {domain: get_domain(domain)}).items()
        if d.demo
    ]
    out.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    report = out / "report.html"
    order = sorted(chosen, key=lambda name: name != SHORTEST)
    for outcome in _outcomes(order, out, full, min(jobs, len(chosen))):
        outcomes[outcome.domain] = outcome
        _show(outcome)
        sections = [outcomes[name].section for name in chosen if name in outcomes]
        write_html(
            report, "sciforge demo", [section for section in sections if section is not None]
        )
    print(f"report: {report}")
    return int(any(outcome.error for outcome in outcomes.values()) or not chosen)


def _outcomes(names: Sequence[str], out: Path, full: bool, jobs: int) -> Iterator[Outcome]:
    """Yield the outcomes as they come."""
    if jobs < 2:
        yield from (_run(name, out / name, full) for name in names)
        return
    with (
        _environment(),
        ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _one_thread) as pool,
    ):
        waiting = [pool.submit(_run, name, out / name, full) for name in names]
        yield from (future.result() for future in as_completed(waiting))


@contextmanager
def _environment() -> Iterator[None]:
    """Set the variables of the processes started inside, and set them back."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _run(name: str, folder: Path, full: bool) -> Outcome:
    """Run the section of a domain; an error becomes an outcome, so that it does not hide the
    others.
    """
    folder.mkdir(exist_ok=True)
    begun = time.monotonic()
    try:
        section = get_domain(name).demo(folder, catalog.find, full)
    except Exception as error:
        trace = "" if isinstance(error, SciforgeError) else traceback.format_exc()
        return Outcome(
            name, time.monotonic() - begun, None, str(error) or type(error).__name__, trace
        )
    return Outcome(name, time.monotonic() - begun, section)


def _show(outcome: Outcome) -> None:
    """Print a section, or the error in its place."""
    if outcome.section is None:
        print(
            f"sciforge: the demo of {outcome.domain} failed: {outcome.error}\n{outcome.trace}",
            file=sys.stderr,
        )
    else:
        print(
            f"{outcome.section.text()}\n\n({outcome.domain}: {outcome.seconds:.0f} s)\n", flush=True
        )
