"""Domains are found by name, and each is imported alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import ROOT

from sciforge.core.domain import domain_names, get_domain
from sciforge.errors import ConfigError

BROKEN = """
import importlib.abc
import sys


class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "rdkit":
            raise ImportError("libboost.so.1: cannot open shared object file")


sys.meta_path.insert(0, Broken())
"""


def python(code: str, **environment: str) -> str:
    """Return what a new process prints."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=variables, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_names_are_listed_without_importing_a_domain():
    code = (
        "import sys; from sciforge.core.domain import domain_names; domain_names();"
        " print(*sys.modules)"
    )
    modules = python(code).split()
    assert not [
        name for name in modules for domain in domain_names() if name == f"sciforge.{domain}"
    ]


def test_looking_one_domain_up_imports_it_alone():
    code = (
        "import sys; from sciforge.core.domain import get_domain; get_domain('heat');"
        " print(*sys.modules)"
    )
    modules = set(python(code).split())
    assert {name for name in domain_names() if f"sciforge.{name}" in modules} == {"heat"}
    assert not {"rdkit", "ase", "e3nn", "Bio"} & modules


def test_a_broken_package_of_one_domain_stops_no_other():
    code = BROKEN + "from sciforge.core.domain import discover\nprint(*sorted(discover()))"
    assert {"genomes", "heat", "images", "text"} <= set(
        python(code, PYTHONWARNINGS="ignore").split()
    )


def test_an_unknown_domain_is_one_line():
    with pytest.raises(ConfigError, match="no domain 'genome'; did you mean 'genomes'"):
        get_domain("genome")


def test_every_folder_of_a_domain_is_listed():
    folders = {path.parent.name for path in Path(ROOT, "sciforge").glob("*/demo.py")}
    assert folders <= set(domain_names())
