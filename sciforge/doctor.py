"""`sciforge doctor`: what works on this machine, what is broken, and the command that repairs it.

Packages are imported in other processes, since a broken one can take its importer down with it. To
be quick, all packages of one kind share a process; only one that fails there is imported again in a
process of its own, for a clean verdict.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Literal

from sciforge.core.files.tables import Table

TIMEOUT_SECONDS = 120
# Distributions whose metadata do not tell which of their modules to import.
MODULES = {
    "biopython": "Bio",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "scikit-image": "skimage",
}
# Not required, but beside a CPU build of torch a wrong torchvision breaks the import of packages
# that look for it.
BYSTANDERS = ("torchvision", "torchaudio")
# Extras of developers: sciforge imports none of their packages, so being installed suffices.
DEVELOPER_EXTRAS = ("test", "docs")

_PROBE = """
import importlib, importlib.metadata as metadata, importlib.util, re, sys

def plain(name):
    return re.sub("[-_.]+", "", name).lower()

def module_of(distribution):
    known = dict(pair.split("=") for pair in sys.argv[2].split(",") if pair)
    if distribution in known:
        return known[distribution]
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError:
        files = []
    modules = [f for f in files if f.suffix == ".py" and f.parts[0] != ".."]
    tops = sorted({f.parts[0].removesuffix(".py") for f in modules})
    same = [top for top in tops if plain(top) == plain(distribution)]
    public = [top for top in tops if not top.startswith("_")]
    return (same or public or [distribution.replace("-", "_")])[0]

for distribution in sys.argv[3:]:
    print("START", distribution, flush=True)
    module = module_of(distribution)
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        if importlib.util.find_spec(module) is None:
            print("MISSING", distribution, flush=True)
            continue
        version = "?"
    if sys.argv[1] == "import":
        try:
            imported = importlib.import_module(module)
        except BaseException as error:
            text = f"{type(error).__name__}: {error}".strip().splitlines()[-1]
            print("BROKEN", distribution, text, flush=True)
            continue
        if version == "?":
            version = getattr(imported, "__version__", "?")
    print("VERSION", distribution, version, flush=True)
"""
_PLACE = """
import torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print("GPU", ", ".join(gpus) or "none, the CPU is used")
print("THREADS", torch.get_num_threads())
from sciforge.core.domain import discover
for name, domain in discover().items(): print("DOMAIN", name, len(domain.models), "models")
"""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        what: package or part.
        state: `ok`, `missing`, `broken` or `info`.
        detail: version, or the error's last line.
        mend: the command that repairs it.
        required: whether sciforge can work without it.
    """

    what: str
    state: Literal["ok", "missing", "broken", "info"]
    detail: str = ""
    mend: str = ""
    required: bool = True


@dataclass(frozen=True)
class Diagnosis:
    """The findings of `sciforge doctor`, one a package or part."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether everything required works."""
        return not any(f.required and f.state in ("missing", "broken") for f in self.findings)

    def text(self) -> str:
        """Return a table, and below it the verdict."""
        rows = tuple((f.what, f.state, f.detail, f.mend) for f in self.findings)
        verdict = (
            "everything required works"
            if self.healthy
            else "something required does not work; run the commands of the last column"
        )
        return Table(("what", "state", "detail", "how to repair"), rows, verdict).text()


def doctor(*, timeout: float = TIMEOUT_SECONDS) -> Diagnosis:
    """Import each package in another process and say what is broken and the command that repairs
    it.

    Args:
        timeout: seconds for one package.

    Returns:
        the findings: python, packages, GPU, threads, domains, cache folder, current folder.
    """
    extras = requirements()
    required = [name for name, extra in extras.items() if not extra]
    optional = [name for name, extra in extras.items() if extra and extra not in DEVELOPER_EXTRAS]
    developer = [name for name, extra in extras.items() if extra in DEVELOPER_EXTRAS]
    extras |= dict.fromkeys(BYSTANDERS, "bystander")
    with ThreadPoolExecutor(2) as pool:
        place_of_run = pool.submit(_place, timeout)
        others = pool.submit(probe_all, [*optional, *BYSTANDERS], extras, timeout)
        packages = probe_all(required, extras, timeout) + probe_all(
            developer, extras, timeout, how="list"
        )
        packages += others.result()
        place, error = place_of_run.result()
    version = "ok" if sys.version_info >= (3, 11) else "broken"
    findings = [
        Finding(
            "python",
            version,
            sys.version.split()[0],
            "" if version == "ok" else "install Python 3.11+",
        )
    ]
    findings += packages
    findings += [
        Finding(key.lower(), "info", text, required=False) for key, text in place if key != "DOMAIN"
    ]
    findings.append(_domains([text for key, text in place if key == "DOMAIN"], error))
    return Diagnosis((*findings, _cache(), _writable(Path.cwd(), "current folder")))


def requirements() -> dict[str, str]:
    """Return package -> extra that brings it, "" for the required ones, as sciforge's own metadata
    say.

    >>> requirements()["torch"]
    ''
    """
    try:
        lines = requires("sciforge") or []
    except PackageNotFoundError:  # run from a checkout that was not installed
        lines = _from_pyproject()
    extras: dict[str, str] = {}
    for line in lines:
        name = re.split(r"[\s<>=!~;\[(]", line.strip(), maxsplit=1)[0].lower()
        extra = re.search(r"extra *== *['\"]([\w-]+)['\"]", line)
        if name != "sciforge":  # an extra that names other extras
            extras.setdefault(name, extra[1] if extra else "")
    return extras


def _from_pyproject() -> list[str]:
    import tomllib

    path = Path(__file__).resolve().parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"] if path.exists() else {}
    extras = project.get("optional-dependencies", {})
    return project.get("dependencies", []) + [
        f'{line}; extra == "{x}"' for x, lines in extras.items() for line in lines
    ]


def _run(code: str, *arguments: str, timeout: float) -> tuple[int, str, str]:
    """Run Python code in another process; return exit code, output and error output, what came
    of them on a timeout.
    """
    command = [sys.executable, "-c", code, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        return done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout or b""
        text = output.decode(errors="replace") if isinstance(output, bytes) else output
        return 1, text, f"the import took more than {timeout:g} seconds"


def _probed(names: Sequence[str], timeout: float, how: str) -> dict[str, tuple[str, str]]:
    """Return name -> (state, text) of packages probed in one process; the last one is where the
    process died.
    """
    modules = ",".join(f"{name}={module}" for name, module in MODULES.items())
    code, output, error = _run(_PROBE, how, modules, *names, timeout=timeout)
    states: dict[str, tuple[str, str]] = {}
    for line in output.splitlines():
        state, _, rest = line.partition(" ")
        name, _, text = rest.partition(" ")
        if state in ("START", "MISSING", "BROKEN", "VERSION") and name in names:
            states[name] = (state, text.strip())
    for name, (state, _) in states.items():
        if state == "START":
            lines = [line for line in error.strip().splitlines() if line.strip()]
            states[name] = ("BROKEN", lines[-1] if lines else f"exit code {code}")
    return states


def probe_all(
    names: Sequence[str], extras: Mapping[str, str], timeout: float, how: str = "import"
) -> list[Finding]:
    """Probe packages in one process, and again alone those that fail there.

    Args:
        names: of the packages.
        extras: package -> extra that brings it; "" for required ones.
        timeout: seconds for one package alone; together they may take twice as long.
        how: `import`, or `list` to look only whether they are installed.

    Returns:
        a finding a package, bystanders that are not installed left out.
    """
    states: dict[str, tuple[str, str]] = {}
    while left := [name for name in names if name not in states]:
        states |= _probed(left, 2 * timeout, how) or {
            left[0]: ("BROKEN", "Python itself does not start")
        }
    failed = [name for name, (state, _) in states.items() if state == "BROKEN"]
    states |= {name: _probed([name], timeout, how)[name] for name in failed if len(names) > 1}
    findings = [_finding(name, extras.get(name, ""), *states[name]) for name in names]
    return [finding for finding in findings if finding is not None]


def probe(name: str, extra: str, timeout: float = TIMEOUT_SECONDS) -> Finding | None:
    """Import one package in a process of its own; None for a bystander that is not there."""
    return _finding(name, extra, *_probed([name], timeout, "import")[name])


def _finding(name: str, extra: str, state: str, text: str) -> Finding | None:
    required = extra == ""
    if state == "VERSION":
        return Finding(name, "ok", text, required=required)
    if state == "MISSING":
        if extra == "bystander":
            return None
        return Finding(
            name,
            "missing",
            "",
            f'pip install "sciforge[{extra}]"' if extra else f"pip install {name}",
            required,
        )
    if extra == "bystander":
        return Finding(name, "broken", text[:100], f"pip uninstall {name}", required=False)
    culprit = next((b for b in BYSTANDERS if b in text and name != b), None)
    mend = (
        f"pip uninstall {culprit}"
        if culprit
        else f"pip install --force-reinstall --no-cache-dir {name}"
    )
    return Finding(name, "broken", text[:100], mend, required)


def _place(timeout: float) -> tuple[list[tuple[str, str]], str]:
    """Return the lines about GPU, threads and domains, and the last line of an error."""
    code, output, error = _run(_PLACE, timeout=timeout)
    pairs = [(key, text) for key, _, text in (line.partition(" ") for line in output.splitlines())]
    lines = error.strip().splitlines()
    return pairs, (lines[-1] if lines else f"exit code {code}") if code else ""


def _domains(lines: list[str], error: str) -> Finding:
    if lines and not error:
        return Finding("domains", "ok", ", ".join(line.split()[0] for line in lines))
    return Finding(
        "domains",
        "broken",
        error[:100] or "none found",
        "repair the packages above, or install sciforge again",
    )


def _cache() -> Finding:
    try:
        from sciforge.catalog import cache_folder

        folder = cache_folder()
    except ImportError:
        return Finding(
            "cache folder",
            "broken",
            "pooch cannot be imported",
            "pip install pooch",
            required=False,
        )
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    return _writable(existing, "cache folder", shown=folder, mend="export SCIFORGE_CACHE=FOLDER")


def _writable(
    folder: Path, what: str, shown: Path | None = None, mend: str = "change to a folder of yours"
) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
        return Finding(what, "ok", f"{shown or folder} ({free / 1e9:.0f} GB free)", required=False)
    except OSError as error:
        return Finding(what, "broken", f"{shown or folder}: {error.strerror}", mend, required=False)
