"""The functions of `sciforge` and the commands of the command line are one surface: names,
defaults, help.
"""

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sciforge as sf
from sciforge.cli import commands
from sciforge.cli import main as cli
from sciforge.core.domain import discover, offers
from sciforge.core.files.docstrings import arguments_of

ROOT = Path(sf.__file__).parents[1]
APART = ("datasets", "demo", "doctor")  # a namespace in Python; and what concerns an installation
VERBS = [verb for verb in cli.VERBS if verb not in APART]
# Words that choose what a domain offers, whose own options are then printed too.
CHOSEN = {
    "prepare": ["genome"],
    "audit": ["shortcuts"],
    "train": ["masked"],
    "predict": ["dna-bert-mini", "embeddings"],
    "label-efficiency": ["classify"],
    "transfer": ["classify"],
    "schedules": ["classify"],
    "forgetting": ["--objective", "classify"],
    "generate": ["molecules-mini"],
    "distill": ["dna-bert-mini"],
}
# In Python: labels in memory, the printed summary; what the command line takes by name with options
# of its own.
PYTHON_ONLY = {"targets", "which", "verbose", "settings", "preparer", "output", "what", "objective"}
SHELL_ONLY = {"help", "json"}


def help_of(words: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--help"])
    assert not stop.value.code
    return capsys.readouterr().out


def options_of(page: str) -> dict[str, str]:
    """Return name -> text of the options and arguments on a page of help."""
    options: dict[str, str] = {}
    name = None
    for raw in page.splitlines():
        line = re.sub(r"[│╭╮╰╯─|]", " ", raw).strip()
        first = re.match(r"[│| ] \S", raw)  # continued text is indented
        if first and (match := re.match(r"(?:-\w, )?--([a-z][\w.-]*)|\[?(?:PATH|STR)\b", line)):
            name = (match[1] or line.split()[0]).replace("-", "_")
            options[name] = line
        elif name and line:
            options[name] += " " + line
    return options


def sentence(text: str) -> str:
    """Return what is left of an option's text without its names, values and default."""
    text = re.sub(r"\((default: .*|required|optional|fixed.*)\)$|\{[^}]*\}|--?[\w.,-]+", " ", text)
    words = [
        w
        for w in text.split()
        if not re.fullmatch(r"[\[\](){}|.,]*((INT|FLOAT|STR|PATH|BOOL|None)[\[\](){}|.,]*)*", w)
    ]
    return re.sub(r"see `\w+`\.?", "", " ".join(words)).strip()


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.parametrize("verb", VERBS)
def test_command_and_function_have_the_same_options(verb, capsys):
    function = getattr(sf, verb.replace("-", "_"))
    parameters = {
        n: p for n, p in inspect.signature(function).parameters.items() if n not in PYTHON_ONLY
    }
    page = options_of(help_of([verb, *CHOSEN.get(verb, [])], capsys))
    words = {name.split(".")[0] for name in page if not name.isupper()}
    offered: set[str] = set()
    for kind, word in (
        ("preparers", "genome"),
        ("audits", "shortcuts"),
        ("objectives", "masked"),
        ("objectives", "classify"),
        ("outputs", "genomes/embeddings"),
    ):
        if word.split("/")[-1] in CHOSEN.get(verb, []):
            offered |= {field.name for field in dataclasses.fields(offers(kind)[word][1])}
    positional = {name for name in parameters if name in ("checkpoint", "file", "files", "names")}
    saved = {"out"} - set(parameters)  # where the command writes what the function returns
    assert words - offered - SHELL_ONLY - saved - {"model", "codec"} == set(
        parameters
    ) - positional - {
        "model",
        "codec",
    }
    for name in words & set(parameters) - offered:
        default = parameters[name].default
        if isinstance(default, int | float | str) and name in page and "default:" in page[name]:
            shown = re.findall(r"\(default: (.*)\)", page[name])[-1]
            assert shown.strip("'") in (str(default), "{None}"), name
    assert set(arguments_of(function)) >= set(parameters), (
        "a parameter has no sentence in the docstring"
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_has_a_sentence(verb, capsys):
    page = options_of(help_of([verb, *CHOSEN.get(verb, [])], capsys))
    assert page and not [name for name, text in page.items() if not sentence(text)]


@pytest.mark.parametrize("kind", ["preparers", "objectives", "outputs", "audits"])
def test_every_option_of_an_offer_has_a_sentence(kind, capsys):
    verb = {"preparers": "prepare", "objectives": "train", "outputs": "predict", "audits": "audit"}[
        kind
    ]
    bare = {}
    for name, (_, cls) in offers(kind).items():
        if "/" not in name:
            continue
        if kind == "outputs":
            with pytest.raises(SystemExit):
                commands._offered("predict", name, cls, "output", ["c", "--help"])
            page = options_of(capsys.readouterr().out)
        else:
            page = options_of(help_of([verb, name], capsys))
        if silent := [option for option, text in page.items() if not sentence(text)]:
            bare[name] = silent
    assert not bare


@pytest.mark.parametrize("verb", ["train", "prepare", "audit"])
def test_offers_are_listed_by_domain(verb, capsys):
    page = help_of([verb], capsys)
    kind = {"train": "objectives", "prepare": "preparers", "audit": "audits"}[verb]
    for home in discover().values():
        for name in getattr(home, kind):
            assert f"  {home.name}/{name} " in page
    assert "genomes: " in page


def test_outputs_are_those_of_the_checkpoint_s_domain(capsys):
    page = help_of(["predict", "vit-mini"], capsys)
    assert "images/" in page and "genomes" not in page


def test_the_surface_names_what_it_has():
    assert {verb.replace("-", "_") for verb in VERBS} <= set(dir(sf))
    for name in sf.__all__:
        assert getattr(sf, name) is not None
    assert {"find", "list", "fetch"} <= set(dir(sf.datasets))
    with pytest.raises(AttributeError, match="no attribute 'curve'"):
        _ = sf.curve


def python(code: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([environment.pop("PYTHONPATH", ""), str(ROOT)]).lstrip(os.pathsep)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


@pytest.mark.parametrize("domain", ["genomes", "heat", "text", "images"])
def test_looking_a_domain_up_imports_it_alone(domain, tmp_path):
    code = f"""
import sys
from sciforge.core.domain import get_domain
get_domain({domain!r})
names = ['genomes', 'atoms', 'molecules', 'heat', 'images', 'text']
names.remove({domain!r})
others = [m for n in names for m in sys.modules if f'{{m}}.'.startswith(f'sciforge.{{n}}.')]
heavy = [m for m in ('rdkit', 'ase', 'sklearn', 'e3nn') if m in sys.modules]
assert not others, others
assert not heavy, heavy
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_broken_package_stops_its_own_domain_only(tmp_path):
    fake = tmp_path / "fake" / "sciforge_molecules_break.pth"
    fake.parent.mkdir()
    code = """
import sys, warnings
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == 'sciforge.molecules':
            raise ImportError('libboost.so.1: cannot open shared object file')
sys.meta_path.insert(0, Broken())
from sciforge.core.domain import discover, get_domain, find_offer
assert get_domain('genomes').name == 'genomes' and find_offer('objectives', 'genomes/masked')
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    assert 'molecules' not in discover() and 'heat' in discover()
assert any('molecules cannot be imported: libboost' in str(w.message) for w in caught)
from sciforge.cli.main import main
sys.exit(main(['generate', 'molecules-mini']))
"""
    done = python(code, tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "libboost" in done.stderr


@pytest.mark.parametrize("command", ["--help", "--version", "datasets list"])
def test_closed_stdout_is_quiet(command, tmp_path):
    call = f"{{ '{sys.executable}' -m sciforge {command} >&- ; }} 2>err.txt; echo $?"
    done = subprocess.run(
        ["bash", "-c", call],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "0" and (tmp_path / "err.txt").read_text() == ""


def test_wrong_keywords_are_one_line(tmp_path):
    with pytest.raises(
        sf.ConfigError, match="label_efficiency has no option 'size'; did you mean 'sizes'"
    ):
        sf.label_efficiency(tmp_path, init="dna-bert-mini", out=tmp_path / "o", size=[3])
    with pytest.raises(sf.ConfigError, match="label_efficiency needs init"):
        sf.label_efficiency(tmp_path, out=tmp_path / "o")
    with pytest.raises(sf.ConfigError, match="by position"):
        sf.label_efficiency(tmp_path, tmp_path, init="dna-bert-mini", out=tmp_path)
    with pytest.raises(sf.ConfigError, match="generate has no option 'nmu'; did you mean 'num'"):
        sf.generate("molecules-mini", nmu=3)
    with pytest.raises(sf.CheckpointError, match="did you mean 'dna-bert-mini'"):
        sf.label_efficiency(tmp_path, init="dna-bert-mni", out=tmp_path / "o")


def test_signatures_are_those_of_the_settings():
    from sciforge.experiments.label_efficiency.run import LabelEfficiency

    parameters = inspect.signature(sf.label_efficiency).parameters
    for field in dataclasses.fields(LabelEfficiency):
        default = parameters[field.name].default
        if field.default is not dataclasses.MISSING:
            assert default == field.default, field.name
        assert field.name in sf.label_efficiency.__doc__
    assert next(iter(parameters)) == "data" and {"input", "target", "targets", "split"} <= set(
        parameters
    )
