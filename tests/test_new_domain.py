"""The domain of docs/new-domain.md, installed as a reader would and taken through the page's own
commands.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sciforge.cli import main as cli
from sciforge.core import domain

PAGE = (Path(__file__).parents[1] / "docs/new-domain.md").read_text(encoding="utf-8")
SHORTER = {"--schedule.steps": "5", "--seeds": "1"}
METADATA = "Metadata-Version: 2.1\nName: sciforge-spectra\nVersion: 1.0\n"


def block(language: str) -> str:
    """Return the page's only code block of a language."""
    (only,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return only


@pytest.fixture
def installed(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A site folder on the path that holds the module and its entry point."""
    site = tmp_path / "site"
    metadata = site / "sciforge_spectra-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "spectra.py").write_text(block("python"), encoding="utf-8")
    name, value = re.search(
        r"^(spectra) = \"(spectra:DOMAIN)\"$", block("toml"), re.MULTILINE
    ).groups()
    (metadata / "METADATA").write_text(METADATA)
    (metadata / "entry_points.txt").write_text(f"[sciforge.domains]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    domain.discover.cache_clear()
    yield tmp_path
    domain.discover.cache_clear()


def test_the_page_s_domain_goes_through_the_page_s_commands(installed: Path, capsys):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(120):
        width = 3 + 3 * (number % 2)
        peak_L = np.exp(
            -(((np.arange(64) - rng.uniform(20, 44)) / width) ** 2)
        ) + 0.1 * rng.standard_normal(64)
        rows.append(
            ",".join(["wide" if number % 2 else "narrow", *(f"{value:.3f}" for value in peak_L)])
        )
    (installed / "mine.csv").write_text("\n".join(rows) + "\n")
    lines = [shlex.split(line)[1:] for line in block("bash").splitlines()]
    assert [words[0] for words in lines] == [
        "prepare",
        "train",
        "train",
        "evaluate",
        "check",
        "label-efficiency",
        "prune",
    ]
    for words in lines:
        words = [
            SHORTER.get(before, word) for before, word in zip(["", *words[:-1]], words, strict=True)
        ]
        assert cli.main(words) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    assert "reach" in output and "logistic" in output and "zeros of the matrices" in output
    (installed / "mine.csv").write_text("narrow,1.0,oops\n")
    assert cli.main(["prepare", "spectra", "mine.csv", "--out", "other"]) == 2
    assert "mine.csv:1: could not convert string to float: 'oops'" in capsys.readouterr().err
