"""Write docs/cli.md out of the commands' own types and docstrings; run it as `python
docs/make_cli.py`.
"""

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sciforge
from sciforge import catalog, demo, doctor
from sciforge.cli import commands
from sciforge.cli import main as cli
from sciforge.cli.flags import POSITIONAL, Flag, dataclass_options, flags_of_class
from sciforge.core.files.docstrings import summary_of

HEAD = """# The command line

Made by `python docs/make_cli.py`; a test compares it with the code. Every command but `demo` and
`doctor` is also a function of `sciforge` in Python, with the same names and defaults: `sciforge
label-efficiency --sizes 32` is `sf.label_efficiency(..., sizes=[32])`. What a domain adds (the
preparers of `prepare`, the objectives of `train`, the outputs of `predict`, the audits) is
printed by `sciforge COMMAND --help`, and its options by `sciforge COMMAND NAME --help`.

Exit codes: 0 done; 1 a law is broken, a run is not what it says, a demo failed, or something
required is missing; 2 bad input, named in one line on stderr; 75 training was stopped by
SIGTERM or SIGUSR1 and can be resumed; 130 interrupted by Ctrl-C. `--json` prints JSON, `--out FILE`
writes a result that is printed otherwise, its suffix chooses the format; `--verbose` (what is
opened, built and saved, and where an error arose), `--quiet` (results and errors only, no progress
bars) and `--follow-links` (read checkpoints and stores whose files are links into the caches of
Hugging Face or DVC) go with every command. Under `torchrun` one process prints. A list takes all
words up to the next option, so files stand before options: `sciforge prepare genome a.fa b.fa --out
store`.
"""
USAGE = {
    "prepare": "PREPARER [FILE ...]",
    "audit": "AUDIT",
    "label": "FILE",
    "score": "FILE",
    "train": "OBJECTIVE | --config RUN.json",
    "fit": "CHECKPOINT [TABLE]",
    "fisher": "CHECKPOINT",
    "evaluate": "CHECKPOINT",
    "predict": "CHECKPOINT OUTPUT",
    "generate": "CHECKPOINT",
    "check": "CHECKPOINT",
    "label-efficiency": "[OBJECTIVE]",
    "schedules": "OBJECTIVE",
    "forgetting": "CHECKPOINT --objective OBJECTIVE",
    "invariance": "CHECKPOINT",
    "privacy": "CHECKPOINT",
    "prune": "CHECKPOINT ...",
    "distill": "TEACHER",
    "export": "CHECKPOINT",
    "verify": "RUN",
    "card": "CHECKPOINT",
    "datasets": "list | find NAME | fetch NAME ...",
    "demo": "[DOMAIN]",
}
APART = {"datasets": catalog.fetch_all, "doctor": doctor.doctor, "demo": demo.demo}
NAMED = ("preparer", "what", "output", "objective")  # given by name, with options of their own


def rows(flags: Sequence[Flag], prefix: str = "") -> Iterator[str]:
    """Yield a table row for each flag, groups and selectors written out."""
    for flag in flags:
        name = prefix + flag.name.replace("_", "-")
        options = dataclass_options(flag.hint)
        if dataclasses.is_dataclass(flag.hint):
            start = flag.default if dataclasses.is_dataclass(flag.default) else None
            yield from rows(flags_of_class(flag.hint, start), f"{name}.")
        elif options:
            if len(options) > 1:
                yield f"| `--{name}` | {' '.join(options)} | {default(flag)} | {flag.help} |"
            for word, cls in options.items():
                for inner in flags_of_class(cls):
                    note = f"{word}: " if len(options) > 1 else ""
                    shown = dataclasses.replace(inner, help=note + inner.help)
                    yield next(rows([shown], f"{name}."))
        else:
            dashes = "" if flag.name in POSITIONAL and not prefix else "--"
            yield (
                f"| `{dashes}{name}` | {kind(flag.hint)} | {default(flag)} |"
                f" {flag.help.replace('|', '/')} |"
            )


def kind(hint: Any) -> str:
    """Return a type as a reader writes it."""
    if typing.get_origin(hint) is typing.Literal:
        return " ".join(map(str, typing.get_args(hint)))
    if arguments := [a for a in typing.get_args(hint) if a not in (type(None), Ellipsis)]:
        return " or ".join(dict.fromkeys(map(kind, arguments))) + (
            " ..." if typing.get_origin(hint) is tuple else ""
        )
    return {
        "Path": "path",
        "str": "text",
        "float": "number",
        "int": "integer",
        "bool": "switch",
        "Any": "name",
    }.get(getattr(hint, "__name__", str(hint)), getattr(hint, "__name__", str(hint)))


def default(flag: Flag) -> str:
    """Return a default as a reader types it."""
    if flag.default is dataclasses.MISSING:
        return "needed"
    if dataclasses.is_dataclass(flag.default):
        return type(flag.default).__name__.lower()
    if isinstance(flag.default, tuple):
        return " ".join(map(str, flag.default))
    return "" if flag.default is None else f"{flag.default}"


def manual() -> str:
    """Return the whole page."""
    parts = [HEAD]
    texts = cli.summaries()
    for group, verbs in cli.GROUPS.items():
        parts.append(f"## {group}\n")
        for verb in verbs:
            usage = f"sciforge {verb} {USAGE.get(verb, '')}".rstrip()
            parts.append(f"### sciforge {verb}\n\n`{usage}`\n\n{texts[verb]}\n")
            function = APART.get(verb) or getattr(sciforge, verb.replace("-", "_"))
            cls = getattr(function, "settings", None)
            if cls is not None:
                parts.append(f"{summary_of(cls)}\n")
            flags = [flag for flag in commands.verb_flags(function) if flag.name not in NAMED]
            if flags:
                head = ["| option | value | default | meaning |", "|---|---|---|---|"]
                parts.append("\n".join([*head, *rows(flags)]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    path = Path(__file__).with_name("cli.md")
    path.write_text(manual(), encoding="utf-8")
    print(path)
