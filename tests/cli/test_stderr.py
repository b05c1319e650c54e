"""What a command writes to standard error, in one process or several."""

import io
import logging
import multiprocessing
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from tqdm.auto import tqdm

from sciforge.cli import commands, stderr
from sciforge.cli.main import main
from sciforge.errors import ConfigError


class Terminal(io.StringIO):
    """A terminal, on which progress bars show."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stderr.LOGGER, "handlers", [])


def run(monkeypatch, *argv: str, error: BaseException | None = None) -> str:
    """Run a command that does what commands do to standard error; return what it wrote there."""

    def noisy(verb, words, quiet):
        stderr.LOGGER.debug("detail")
        stderr.LOGGER.info("said")
        warnings.warn("beware", stacklevel=1)
        logging.getLogger("a library").warning("library noise")
        for _ in tqdm(range(3), "bar", disable=None):
            pass
        with tqdm(total=2, desc="other bar", disable=False, file=sys.stderr) as bar:
            bar.update()
        if error:
            raise error
        return 0

    monkeypatch.setattr(logging.root, "handlers", [])  # pytest has some
    monkeypatch.setattr(commands, "run", noisy)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        main(["check", *argv])
    return sys.stderr.getvalue()


def test_the_log_goes_to_the_standard_error_of_the_day(monkeypatch, capsys):
    """A handler that keeps the first stream writes into a closed file later."""
    for _ in range(3):
        text = run(monkeypatch)
        assert text.count("sciforge: said\n") == 1 and "Logging error" not in text
        sys.stderr.close()
    assert stderr.LOGGER.handlers == []


def test_quiet_hides_bars_warnings_and_logs(monkeypatch):
    loud = run(monkeypatch)
    words = ("sciforge: said", "beware", "library noise", "bar:", "other bar:")
    assert all(word in loud for word in words) and "detail" not in loud
    assert run(monkeypatch, "--quiet") == ""
    line = run(monkeypatch, "--quiet", error=ConfigError("what; how"))
    assert line == "sciforge: what; how\n"
    assert all(word in run(monkeypatch) for word in words)  # all as before
    assert "TQDM_DISABLE" not in os.environ


def test_quiet_reaches_processes_that_are_started(monkeypatch, capfd):
    code = "import warnings; from tqdm import tqdm; warnings.warn('beware')\nfor _ in tqdm([1]): 0"

    def starts(*_):
        subprocess.run([sys.executable, "-c", code], check=True)
        return 0

    monkeypatch.setattr(commands, "run", starts)
    main(["check"])
    assert "beware" in (shown := capfd.readouterr().err) and "1/1" in shown
    main(["check", "--quiet"])
    assert capfd.readouterr().err == ""


def test_verbose_tells_details_and_where_an_error_arose(monkeypatch):
    text = run(monkeypatch, "--verbose", error=ConfigError("what; how"))
    assert "sciforge: detail\n" in text and "in noisy" in text
    assert text.endswith("sciforge: what; how\n")
    assert "Traceback" not in run(monkeypatch, error=ConfigError("what; how"))


def test_verbose_names_what_is_opened_built_and_saved(tiny, tmp_path, capsys):
    words = ["--data", str(tiny.pretraining.data), "--out", str(tmp_path / "run")]
    size = ["--schedule.steps", "1", "--schedule.batch", "2", "--hardware.device", "cpu"]
    command = ["train", "genomes/masked", *words, "--model", "mini", *size]
    assert main([*command, "--verbose"]) == 0
    text = capsys.readouterr().err
    for part in (
        "store of genomes",
        "process 0 of 1 on cpu",
        "of them train",
        "saved after step 1",
    ):
        assert part in text


def test_a_program_with_a_handler_of_its_own_sees_each_line_once(monkeypatch):
    own = io.StringIO()
    stderr.LOGGER.handlers.append(logging.StreamHandler(own))
    text = run(monkeypatch)
    assert own.getvalue() == "said\n" and "sciforge: said" not in text


def test_later_ranks_are_silent_but_for_errors(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    text = run(monkeypatch, error=ConfigError("what; how"))
    assert "said" not in text and "beware" not in text
    assert text.endswith("sciforge (rank 1): what; how\n")


def say(line: str, rank: int, folder: Path) -> None:
    """Complain as one of torchrun's processes."""
    file = folder / str(rank) / "error.json"
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "TORCHELASTIC_ERROR_FILE": str(file)}
    sys.stderr = open(folder / f"stderr-{rank}", "w")
    stderr.complain(line, 2)


@pytest.mark.parametrize("ranks", [(0, 1, 2), (2, 1, 0), (1, 2)])
def test_a_line_of_several_processes_is_said_once(ranks: tuple[int, ...], tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    lines = {rank: "same; mend" for rank in ranks}
    lines[2] = "another; mend"
    processes = [context.Process(target=say, args=(lines[rank], rank, tmp_path)) for rank in ranks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    texts = {rank: (tmp_path / f"stderr-{rank}").read_text() for rank in ranks}
    assert texts[2] == "sciforge (rank 2): another; mend\n"
    said = [rank for rank in ranks if "same; mend" in texts[rank]]
    assert said == ([0] if 0 in ranks else [1])
