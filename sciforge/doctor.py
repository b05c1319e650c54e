"""`sciforge doctor`: what works on this machine, what is broken, and the command that mends it.

Each package is imported in a process of its own, since a broken one can take its importer down with it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Literal

from sciforge.core.files.tables import Table

TIMEOUT_SECONDS = 120
MODULES = {"biopython": "Bio", "scikit-learn": "sklearn", "torch-geometric": "torch_geometric", "pytorch-lightning": ""}
# Not ours, but beside a CPU build of torch a wrong torchvision breaks the import of packages that look for it.
BYSTANDERS = ("torchvision", "torchaudio")

_PROBE = """
import importlib, importlib.metadata as m, importlib.util, sys
distribution, module = sys.argv[1:]
if importlib.util.find_spec(module) is None:
    print("MISSING"); sys.exit()
found = importlib.import_module(module)
try: version = m.version(distribution)
except Exception: version = getattr(found, "__version__", "?")
print("VERSION", version)
"""
_PLACE = """
import torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print("GPU", ", ".join(gpus) or "none, the CPU is used")
print("THREADS", torch.get_num_threads())
"""
_DOMAINS = """
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
        mend: the command that mends it.
        required: whether sciforge can work without it.
    """

    what: str
    state: Literal["ok", "missing", "broken", "info"]
    detail: str = ""
    mend: str = ""
    required: bool = True


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether everything required works."""
        return not any(f.required and f.state in ("missing", "broken") for f in self.findings)

    def text(self) -> str:
        """Return a table, and below it the commands that mend what is wrong."""
        rows = tuple((f.what, f.state, f.detail, f.mend) for f in self.findings)
        verdict = (
            "everything required works" if self.healthy else "something required does not work; run the commands above"
        )
        return Table(("what", "state", "detail", "to mend"), rows, verdict).text()


def doctor(*, timeout: float = TIMEOUT_SECONDS) -> Diagnosis:
    """Import each package in a process of its own and say what is broken and the command that mends it.

    Args:
        timeout: seconds for each.
    """
    wanted = requirements()
    jobs = [lambda n=n, extra=extra: probe(n, extra, timeout) for n, extra in wanted.items()]
    jobs += [lambda n=n: probe(n, "bystander", timeout) for n in BYSTANDERS]
    jobs += [lambda: _lines(_PLACE, timeout), lambda: _lines(_DOMAINS, timeout)]
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
        *packages, place, domains = pool.map(lambda state: state(), jobs)
    findings = [
        Finding(
            "python", "ok" if sys.version_info >= (3, 11) else "broken", sys.version.split()[0], "install Python 3.11+"
        )
    ]
    findings += [f for f in packages if f is not None]
    findings += [Finding(k.lower(), "info", v, required=False) for k, v in place[0]]
    findings.append(_domains(*domains))
    findings += [_cache(), _writable(Path.cwd(), "current folder")]
    return Diagnosis(
        tuple(
            f if f.state in ("missing", "broken") else Finding(f.what, f.state, f.detail, "", f.required)
            for f in findings
        )
    )


def requirements() -> dict[str, str]:
    """Return package -> extra that brings it, "" for the required ones, as sciforge's own metadata say.

    >>> requirements()["torch"]
    ''
    """
    try:
        lines = requires("sciforge") or []
    except PackageNotFoundError:  # run from a checkout that was not installed
        lines = _from_pyproject()
    found: dict[str, str] = {}
    for line in lines:
        name = re.split(r"[\s<>=!~;\[(]", line.strip(), maxsplit=1)[0].lower()
        extra = re.search(r"extra *== *['\"]([\w-]+)['\"]", line)
        found.setdefault(name, extra[1] if extra else "")
    return found


def _from_pyproject() -> list[str]:
    import tomllib

    path = Path(__file__).resolve().parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"] if path.exists() else {}
    extras = project.get("optional-dependencies", {})
    return project.get("dependencies", []) + [
        f'{line}; extra == "{x}"' for x, lines in extras.items() for line in lines
    ]


def _run(code: str, *arguments: str, timeout: float) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )
        return done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        return 1, "", f"the import took more than {timeout:g} seconds"


def probe(name: str, extra: str, timeout: float = TIMEOUT_SECONDS) -> Finding | None:
    """Import one package in a process of its own; None for a bystander that is not there."""
    module = MODULES.get(name, name.replace("-", "_"))
    code, said, wrong = _run(_PROBE, name, module, timeout=timeout)
    required = extra == ""
    if said.startswith("VERSION"):
        return Finding(name, "ok", said.split(maxsplit=1)[1].strip(), required=required)
    if said.startswith("MISSING"):
        if extra == "bystander":
            return None
        mend = f'pip install "sciforge[{extra}]"' if extra else f"pip install {name}"
        return Finding(name, "missing", "", mend, required)
    last = next((line for line in reversed(wrong.strip().splitlines()) if line.strip()), f"exit code {code}")
    if extra == "bystander":
        return Finding(name, "broken", last[:100], f"pip uninstall {name}", required=False)
    culprit = next((b for b in BYSTANDERS if b in wrong and name != b), None)
    mend = f"pip uninstall {culprit}" if culprit else f"pip install --force-reinstall --no-cache-dir {name}"
    return Finding(name, "broken", last[:100], mend, required)


def _lines(code: str, timeout: float) -> tuple[list[tuple[str, str]], str]:
    _, said, wrong = _run(code, timeout=timeout)
    pairs = [(first, rest) for first, _, rest in (line.partition(" ") for line in said.splitlines())]
    return pairs, wrong.strip().splitlines()[-1] if wrong.strip() else ""


def _domains(lines: list[tuple[str, str]], wrong: str) -> Finding:
    if lines and not wrong:
        return Finding("domains", "ok", ", ".join(rest.split()[0] for _, rest in lines))
    return Finding(
        "domains", "broken", wrong[:100] or "none found", "mend the packages above, or install sciforge again"
    )


def _cache() -> Finding:
    try:
        from sciforge.catalog import cache_folder

        folder = cache_folder()
    except ImportError:
        return Finding("cache folder", "broken", "pooch cannot be imported", "pip install pooch", required=False)
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    return _writable(existing, "cache folder", shown=folder, mend="export SCIFORGE_CACHE=FOLDER")


def _writable(folder: Path, what: str, shown: Path | None = None, mend: str = "cd to a folder of yours") -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
        return Finding(what, "ok", f"{shown or folder} ({free / 1e9:.0f} GB free)", required=False)
    except OSError as error:
        return Finding(what, "broken", f"{shown or folder}: {error.strerror}", mend, required=False)
