"""The command line: verbs are the functions of `sciforge`, flags their signatures. It parses, calls
and prints.

Exit codes: 0 done; 1 a law is broken, a run is not what it says, a demo failed or something
required is missing; 2 bad input, named in one line; 75 training was stopped by SIGTERM or SIGUSR1
and can be resumed; 130 interrupted.
"""

import ast
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sciforge import __version__
from sciforge.cli.registry import HELP, take_switch
from sciforge.cli.stderr import LOGGER, complain, is_first, messages, open_closed_streams
from sciforge.core.files.atomic import disk_error
from sciforge.core.files.docstrings import first_paragraph
from sciforge.core.files.links import following_links
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
EVERYWHERE = {
    "--verbose": "log what is opened, built and saved, and where an error arose",
    "--quiet": "print results and errors only",
    "--follow-links": "read checkpoints and stores whose files are links into the caches of Hugging"
    " Face or DVC",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error that a user can cause is one line on
    stderr.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    open_closed_streams()
    quiet, argv = take_switch(argv, "--quiet")
    verbose, argv = take_switch(argv, "--verbose")
    follow, argv = take_switch(argv, "--follow-links")
    with messages(verbose, quiet), following_links(follow):
        try:
            code = _dispatch(argv, quiet)
            sys.stdout.flush()
            return code
        except (SciforgeError, StoppedError, KeyboardInterrupt, OSError) as error:
            LOGGER.debug("where the error arose", exc_info=True)
            return _exit_code(error, argv)


def _exit_code(error: BaseException, argv: Sequence[str]) -> int:
    """Print the line of an error that a user can cause and return the exit code."""
    if isinstance(error, SciforgeError):
        # the first process says it
        return 2 if error.on_all_ranks and not is_first() else complain(str(error), 2)
    if isinstance(error, StoppedError):
        return complain(str(error), 75) if is_first() else 75
    if isinstance(error, KeyboardInterrupt):
        hint = "; continue with --resume" if argv[:1] == ["train"] else ""
        return complain(str(error) or f"interrupted, nothing is left half-written{hint}", 130)
    assert isinstance(error, OSError)
    if isinstance(error, BrokenPipeError):  # `sciforge ... | head` closed our output: no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        # every other file is named where it is written
        return complain(str(disk_error(error, Path("standard output"))), 2)
    hint = "check the path, its permissions and the disk"
    return complain(f"{error.strerror or error}; {hint}", 2)


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
