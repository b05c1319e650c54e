"""Write docs/cli.md out of the commands' own types and docstrings; run it as `python docs/make_cli.py`."""

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sciforge import api, catalog, demo, doctor
from sciforge.cli import main as cli
from sciforge.cli.flags import POSITIONAL, Flag, dataclass_options, flags_of_class, flags_of_function, summary_of
from sciforge.cli.registry import offers
from sciforge.core.training import run
from sciforge.experiments.compression.distillation import Distill
from sciforge.experiments.compression.pruning import Prune
from sciforge.experiments.forgetting.run import Forgetting
from sciforge.experiments.invariance.run import Invariance
from sciforge.experiments.label_efficiency.run import LabelEfficiency
from sciforge.experiments.privacy.run import Privacy
from sciforge.experiments.schedules.run import Schedules

HEAD = """# The command line

Made by `python docs/make_cli.py`; a test compares it with the code. What a domain adds
(the preparers of `prepare`, the objectives of `train`, the outputs of `predict`, the audits) is printed by
`sciforge COMMAND --help`, and its options by `sciforge COMMAND NAME --help`.

Exit codes: 0 done; 1 a law is broken, a run is not what it says, a demo failed, or something required is missing; 2 bad
input, named in one line on stderr; 130 interrupted by Ctrl-C. `--json` makes `evaluate`, `curve`, `schedules`, `forget`,
`privacy`, `invariance`, `prune`, `distill`, `check`, `verify` and `audit` print JSON. Under `torchrun` one process prints.
A list takes all words up to the next option, so files stand before options:
`sciforge prepare genome a.fa b.fa --out store`.
"""
FORMS = {
    "prepare": ("PREPARER [FILE ...]", api.prepare, "what", None),
    "train": ("OBJECTIVE | --config RUN.json", api.train, "run", run.Run),
    "fisher": ("CHECKPOINT", api.fisher, "", None),
    "evaluate": ("CHECKPOINT", api.evaluate, "", None),
    "curve": ("OBJECTIVE", api.curve, "spec", LabelEfficiency),
    "schedules": ("OBJECTIVE", api.schedules, "spec", Schedules),
    "forget": ("CHECKPOINT --objective OBJECTIVE", api.forget, "spec", Forgetting),
    "privacy": ("CHECKPOINT", api.privacy, "spec", Privacy),
    "prune": ("CHECKPOINT ...", api.prune, "spec", Prune),
    "distill": ("TEACHER", api.distill, "spec", Distill),
    "export": ("CHECKPOINT", api.export, "", None),
    "predict": ("CHECKPOINT OUTPUT", api.predict, "output", None),
    "check": ("CHECKPOINT", api.check, "", None),
    "verify": ("RUN", api.verify, "", None),
    "card": ("CHECKPOINT", api.card, "", None),
    "audit": ("AUDIT", api.audit, "what", None),
    "label": ("FILE", api.label, "what", offers("tools")["label"][1]),
    "sample": ("", api.sample, "what", offers("tools")["sample"][1]),
    "generate": ("CHECKPOINT", api.generate, "what", offers("outputs")["generate"][1]),
    "score": ("FILE", api.score, "what", offers("tools")["score"][1]),
    "invariance": ("CHECKPOINT", api.invariance, "spec", Invariance),
    "datasets": ("list | fetch NAME ...", catalog.fetch_all, "", None),
    "doctor": ("", doctor.doctor, "", None),
    "demo": ("[DOMAIN]", demo.demo, "", None),
}


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
            yield f"| `{dashes}{name}` | {kind(flag.hint)} | {default(flag)} | {flag.help.replace('|', '/')} |"


def kind(hint: Any) -> str:
    """Return a type as a reader writes it."""
    if typing.get_origin(hint) is typing.Literal:
        return " ".join(map(str, typing.get_args(hint)))
    if arguments := [a for a in typing.get_args(hint) if a not in (type(None), Ellipsis)]:
        return " or ".join(dict.fromkeys(map(kind, arguments))) + (" ..." if typing.get_origin(hint) is tuple else "")
    return {"Path": "path", "str": "text", "float": "number", "int": "integer", "bool": "switch", "Any": "name"}.get(
        getattr(hint, "__name__", str(hint)), getattr(hint, "__name__", str(hint))
    )


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
    for verb, text in cli.summaries().items():
        usage, function, replaced, cls = FORMS[verb]
        parts.append(f"## sciforge {verb}\n\n`sciforge {verb} {usage}".rstrip() + f"`\n\n{text}\n")
        flags = flags_of_function(function, replaced)
        if cls is not None:
            described = [flag for flag in flags_of_class(cls) if flag.name != "objective"]
            flags = described + flags
            parts.append(f"{summary_of(cls)}\n")
        if flags:
            parts.append(
                "\n".join(["| option | value | default | meaning |", "|---|---|---|---|", *rows(flags)]) + "\n"
            )
    return "\n".join(parts)


if __name__ == "__main__":
    path = Path(__file__).with_name("cli.md")
    path.write_text(manual(), encoding="utf-8")
    print(path)
