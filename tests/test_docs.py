"""The README and the manual tell the truth: their commands' options exist, their Python runs,
their links lead somewhere.
"""

import importlib.util
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest

from sciforge.cli import main as cli
from sciforge.core.domain import get_domain

ROOT = Path(__file__).parents[1]
MANUAL = ("genomes", "atoms", "molecules", "heat", "images", "text", "trust", "scale")
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in MANUAL)]
# A checkpoint of each domain that is at hand, for pages that name one of the reader's own.
AT_HAND = {
    "atoms": "potential-mini",
    "genomes": "dna-bert-mini",
    "molecules": "molecules-mini",
    "heat": "nusselt-ribbed",
    "images": "vit-mini",
    "text": "modern-mini-english",
}


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(
        rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )


def commands() -> list[list[str]]:
    """Return every sciforge command of the pages."""
    lines = [
        line
        for page in (*PAGES, ROOT / "docs" / "leakage.md", ROOT / "docs" / "calibration.md")
        for block in blocks(page, "bash")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    lines = [re.sub(r"^torchrun .* -m sciforge ", "sciforge ", line) for line in lines]
    found = [shlex.split(line)[1:] for line in lines if line.startswith("sciforge ")]
    assert len(found) > 15
    return found


@cache
def help_of(words: tuple[str, ...], capture: pytest.CaptureFixture) -> str:
    try:
        cli.main([*words, "--help"])
    except SystemExit as stop:
        assert not stop.code, words
    return capture.readouterr().out


@pytest.mark.parametrize("argv", commands(), ids=lambda argv: " ".join(argv)[:60])
def test_every_option_of_a_documented_command_exists(argv, capsys):
    verb, words = argv[0], [word for word in argv[1:] if not word.startswith("-")]
    depth = {
        "prepare": 1,
        "train": 1,
        "audit": 1,
        "label-efficiency": 1,
        "predict": 2,
        "datasets": 1,
        "schedules": 1,
        "distill": 1,
    }
    if verb == "predict":
        # the page's own checkpoint does not exist here; the options are the domain's
        words[0] = next(
            known for name, known in AT_HAND.items() if words[1] in get_domain(name).outputs
        )
    if "--tasks" in argv:
        words = ["masked"]  # the file, which does not exist here, names the objectives
    path = (verb, *words[: depth.get(verb, 0)])
    # the options of an anchor, and those of the objective whose forgetting is measured, are printed
    # for the one chosen
    asks = {"--regularization", *(("--objective",) if verb == "forgetting" else ())}
    chosen = [w for at, w in enumerate(argv) if asks & set(argv[max(at - 1, 0) : at + 1])]
    text = help_of((*path, *chosen), capsys)
    for option in (word for word in argv if word.startswith("--")):
        assert option in text, f"{' '.join(path)} has no {option}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_documented_python_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}  # a reader goes through a page from the top
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)
    said = capsys.readouterr().out
    assert "True" in said or (page.name in ("README.md", "molecules.md") and said.strip())


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        generated = target == "decisions/index.md"  # by the site's hooks
        assert target.startswith("http") or generated or (page.parent / target).exists(), target


def test_the_readme_is_one_screen_and_names_both_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 100
    assert (
        "pip install -e . && sciforge demo" in text and 'pip install -e ".[test]" && pytest' in text
    )


def test_the_numbers_of_the_readme_s_picture_stand_in_the_results():
    spec = importlib.util.spec_from_file_location("make_panels", ROOT / "docs" / "make_panels.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        module.check()
    finally:
        del sys.modules[spec.name]
