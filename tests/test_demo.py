"""`sciforge demo`: all sections are run, in one report, whatever becomes of one of them."""

import os
from types import SimpleNamespace

import pytest
from PIL import Image

from sciforge import catalog, demo
from sciforge.cli import main as cli
from sciforge.core.domain import get_domain
from sciforge.core.files.tables import Section
from sciforge.errors import DataError


@pytest.fixture
def domains(monkeypatch):
    """Three domains whose sections say what they were asked for; the one in the middle fails."""

    def section(name):
        return lambda folder, find, full: Section(f"{name} works", (f"full {full}", folder.name))

    def failing(folder, find, full):
        raise DataError("no data")

    demos = {"a": section("a"), "b": failing, "c": section("c"), "none": None}
    found = {name: SimpleNamespace(demo=function) for name, function in demos.items()}
    monkeypatch.setattr(demo, "discover", lambda: found)
    monkeypatch.setattr(demo, "get_domain", found.__getitem__)


def test_a_section_that_fails_does_not_stop_the_others(domains, tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path / "d"), "--jobs", "1"]) == 1
    out, err = capsys.readouterr()
    assert "a works" in out and "c works" in out
    assert "the demo of b failed: no data" in err and "Traceback" not in err
    page = (tmp_path / "d" / "report.html").read_text()
    assert page.index("a works") < page.index("c works") and "full False" in page


def test_one_domain_is_run_at_length(domains, tmp_path, capsys):
    assert cli.main(["demo", "c", "--out", str(tmp_path / "d")]) == 0
    assert "full True" in capsys.readouterr().out
    assert "a works" not in (tmp_path / "d" / "report.html").read_text()


def test_two_sections_at_a_time(tmp_path, monkeypatch, capsys):
    """In other processes, where an unknown domain fails in one line; the environment is
    afterwards what it was.
    """
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    outcomes = list(demo._outcomes(["nowhere", "nothing"], tmp_path, False, 2))
    assert {outcome.domain for outcome in outcomes} == {"nowhere", "nothing"}
    assert all("no domain" in outcome.error and not outcome.trace for outcome in outcomes)
    assert "TQDM_DISABLE" not in os.environ and os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.slow
@pytest.mark.parametrize(("domain", "sign"), [("heat", -1), ("images", 1), ("text", 1)])
def test_a_section_shows_the_rivals_and_where_we_are_ahead_of_them(domain, sign, tmp_path):
    section = get_domain(domain).demo(tmp_path, catalog.find, False)
    values = [sign * float(row[1].split()[0]) for row in section.tables[0].rows[:4]]
    # ours is the first row; the untrained network and rivals follow
    assert values[0] > max(values[1:])
    for path, caption in section.pictures:
        with Image.open(path) as image:
            image.load()
        assert caption.endswith(".")
