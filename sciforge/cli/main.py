"""The command line: verbs are the functions of `sciforge`, flags their signatures. It parses, calls
and prints.

Exit codes: 0 done; 1 a law is broken, a run is not what it says, a demo failed or something
required is missing; 2 bad input, named in one line; 75 training was stopped by SIGTERM or SIGUSR1
and can be resumed; 130 interrupted.
"""

import ast
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from sciforge import __version__
from sciforge.cli.registry import HELP, take_switch
from sciforge.core.files.docstrings import first_paragraph
from sciforge.errors import ConfigError, SciforgeError, StoppedError, did_you_mean

# What each command is for, in the order of `sciforge --help`; its module is imported only when the
# command is called.
GROUPS = {
    "Data": ("datasets", "prepare", "audit", "label", "sample"),
    "Models": ("train", "fit", "fisher", "evaluate", "predict", "generate", "score", "check"),
    "Experiments": (
        "label-efficiency",
        "transfer",
        "forgetting",
        "schedules",
        "invariance",
        "privacy",
        "prune",
        "distill",
    ),
    "Provenance": ("export", "verify", "card"),
    "Installation": ("demo", "doctor"),
}
VERBS = {verb: f"api.{verb.replace('-', '_')}" for verbs in GROUPS.values() for verb in verbs}
VERBS |= {"datasets": "catalog.cards", "doctor": "doctor.doctor", "demo": "demo.demo"}
EVERYWHERE = {"--verbose": "log what is done", "--quiet": "print results and errors only"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error that a user can cause is one line on
    stderr.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    quiet, argv = take_switch(argv, "--quiet")
    verbose, argv = take_switch(argv, "--verbose")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            if quiet:
                warnings.simplefilter("ignore")
            _configure_logging(verbose, quiet)
            code = _dispatch(argv, quiet)
        sys.stdout.flush()
        return code
    except SciforgeError as error:
        if error.on_all_ranks and os.environ.get("RANK", "0") != "0":
            return 2  # the first process says it
        return _complain(str(error), 2)
    except StoppedError as stop:
        return _complain(str(stop), 75) if os.environ.get("RANK", "0") == "0" else 75
    except KeyboardInterrupt as interrupt:
        hint = "; continue with --resume" if argv[:1] == ["train"] else ""
        return _complain(str(interrupt) or f"interrupted, nothing is left half-written{hint}", 130)
    except BrokenPipeError:  # `sciforge ... | head` closed our output: not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(
            f"{where}{error.strerror or error}; check the path, its permissions and the disk", 2
        )


def _open_closed_streams() -> None:
    """Give standard output and error a file where the launcher closed them: both may be None
    then.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def _configure_logging(verbose: bool, quiet: bool) -> None:
    logger = logging.getLogger("sciforge")
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("sciforge: %(message)s"))
        logger.addHandler(handler)


def _show_warning(
    message: Warning | str, category: type[Warning], *where: object, **more: object
) -> None:
    """Print a warning as one line; where in the code it arose helps nobody at a terminal."""
    if os.environ.get("RANK", "0") == "0":
        print(f"sciforge: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _complain(line: str, code: int) -> int:
    rank = os.environ.get("RANK", "0")
    print(
        f"sciforge{'' if rank == '0' else f' (rank {rank})'}: {' '.join(line.split())}",
        file=sys.stderr,
    )
    return code


def _dispatch(argv: list[str], quiet: bool) -> int:
    if not argv or argv[0] in HELP:
        print(overview())
        return 0 if argv else 2
    if argv[0] in ("--version", "-V"):
        print(f"sciforge {__version__}")
        return 0
    verb = argv[0].replace("_", "-")
    if verb not in VERBS:
        raise ConfigError(f"no command {argv[0]!r}; {did_you_mean(verb, VERBS)}")
    from sciforge.cli import commands

    return commands.run(verb, argv[1:], quiet)


def summaries() -> dict[str, str]:
    """Return verb -> first paragraph of its docstring, read from the source so that nothing heavy
    is imported.
    """
    lines = {}
    for verb, place in VERBS.items():
        module, function = place.split(".")
        tree = ast.parse((Path(__file__).parents[1] / f"{module}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == function:
                lines[verb] = first_paragraph(ast.get_docstring(node))
    return lines


def overview() -> str:
    """Return what `sciforge --help` prints."""
    lines = ["usage: sciforge COMMAND ... [--help]", ""]
    lines += ["Pretrain once on plentiful scientific data, specialise with little.", ""]
    texts = summaries()
    for group, verbs in GROUPS.items():
        lines += [f"{group}:", *(f"  {verb:<16} {texts[verb]}" for verb in verbs), ""]
    lines += [
        "Options of every command:",
        *(f"  {name:<16} {text}" for name, text in EVERYWHERE.items()),
        "",
    ]
    return "\n".join(
        [
            *lines,
            "sciforge COMMAND --help explains a command; sciforge --version prints the version.",
        ]
    )
