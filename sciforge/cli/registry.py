"""What can be named on the command line: what the domains offer, the domain of a folder, a run
in a file.
"""

import contextlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sciforge.errors import ConfigError, SciforgeError, did_you_mean

HELP = ("-h", "--help")


def offers_page(prog: str, kind: str, domain: str | None = None) -> str:
    """Return the help that lists what the domains, or one, offer of a kind, grouped by domain.

    Args:
        prog: the command so far.
        kind: `objectives`, `preparers`, `outputs` or `audits`.
        domain: the only domain to list; None for all.
    """
    from sciforge.core.domain import discover, get_domain
    from sciforge.core.files.docstrings import first_paragraph

    what = kind.removesuffix("s")
    lines = [f"usage: {prog} {what.upper()} ... [--help]", ""]
    lines += [
        f"{what.capitalize()}s by domain; the domain may be left out where only one has the name:"
    ]
    for home in discover().values() if domain is None else [get_domain(domain)]:
        if options := getattr(home, kind):
            lines += ["", f"{home.name}: {home.summary}"]
            for name, cls in options.items():
                lines.append(f"  {home.name + '/' + name:<28} {first_paragraph(cls.__doc__)}")
    return "\n".join(lines)


def choose(
    prog: str, kind: str, argv: list[str], domain: str | None = None
) -> tuple[str, Any, type, list[str]]:
    """Take the name of an offer off the command line; without one, explain what there is.

    Returns:
        The name as it was typed, the domain, the class, and the other words.
    """
    from sciforge.core.domain import find_offer, offers

    what = kind.removesuffix("s")
    if not argv or argv[0].startswith("-"):
        if any(word in HELP for word in argv):
            print(offers_page(prog, kind, domain))
            raise SystemExit(0)
        names = [name for name in offers(kind, domain) if "/" in name]
        raise ConfigError(
            f"{prog} needs {'an' if what[0] in 'aeiou' else 'a'} {what}; {did_you_mean('', names)}"
        )
    return argv[0], *find_offer(kind, argv[0], domain), argv[1:]


def domain_of(folder: str | Path, file: str) -> str | None:
    """Return the domain that a store or checkpoint names, without opening it in earnest."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((Path(folder) / file).read_bytes())["domain"])
    return None


def domain_of_checkpoint(name: str | None) -> str | None:
    """Return the domain of a checkpoint given by name or path; None where there is none."""
    from sciforge import catalog
    from sciforge.core.training.checkpoint import resolve

    with contextlib.suppress(SciforgeError, OSError):
        return domain_of(resolve(catalog.locate(name or "")), "checkpoint.json")
    return None


def option(argv: Sequence[str], name: str) -> str | None:
    """Return the value of `--name value` or `--name=value`; None where it is not typed."""
    for word, after in zip(argv, [*argv[1:], None], strict=False):
        if word == name or word.startswith(f"{name}="):
            return after if word == name else word.partition("=")[2]
    return None


def read_config(path: Path, cls: type) -> Any:
    """Read a run (or a checkpoint.json that holds one) from JSON; raises ConfigError naming the
    file.
    """
    from sciforge.core.domain import discover
    from sciforge.core.training.run import CORE_TYPES, from_json

    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"{path}: not JSON ({error}); write it by sciforge.core.training.run.to_json"
        ) from None
    # a checkpoint.json holds its run
    body = body.get("run", body) if isinstance(body, dict) else body
    types = {name: t for domain in discover().values() for name, t in domain.types().items()}
    settings = from_json(body, {**CORE_TYPES, cls.__name__: cls, **types}, str(path))
    if not isinstance(settings, cls):
        raise ConfigError(
            f'{path}: holds no {cls.__name__}; it must begin with {{"type": "{cls.__name__}"'
        )
    return settings


def read_tasks(path: Path) -> tuple[tuple[Any, ...], str]:
    """Read the tasks of a run from TOML (`[[tasks]]`) or JSON (a list), and return them with the
    domain of the first one's store.

    A task's `objective` is a name, or a table of `name` and settings. Paths are as typed in a
    command. Raises ConfigError naming the file.
    """
    from sciforge.core.domain import get_domain
    from sciforge.core.training.run import Task, from_json

    try:
        text = path.read_text(encoding="utf-8")
        body = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give a .toml or .json file") from None
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read ({error}); correct it") from None
    rows = body.get("tasks") if isinstance(body, dict) else body
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{path}: holds no tasks; begin each with [[tasks]]")
    place = str(rows[0].get("data", ""))
    if (name := domain_of(place, "index.json")) is None:
        raise ConfigError(f"{path}: task 1: no store at {place!r}; give its data")
    home = get_domain(name)
    tasks = []
    for number, row in enumerate(rows, 1):
        where, row = f"{path}: task {number}", dict(row)
        objective = row.get("objective")
        if isinstance(objective, dict) and "type" not in objective:
            kind = type(home.objective(str(objective.get("name", "")))).__name__
            rest = {key: value for key, value in objective.items() if key != "name"}
            row["objective"] = {"type": kind, **rest}
        elif isinstance(objective, str):
            row["objective"] = home.objective(objective)
        settled = {key: value for key, value in row.items() if key not in ("objective", "type")}
        task = from_json({"type": "Task", **settled}, {"Task": Task}, where)
        if isinstance(row.get("objective"), dict):
            row["objective"] = from_json(row["objective"], home.types(), f"{where}.objective")
        tasks.append(replace(task, objective=row.get("objective")))
    return tuple(tasks), name


def take_option(argv: list[str], name: str) -> tuple[str | None, list[str]]:
    """Return the value of an option, None where it is not typed, and the other words.

    >>> take_option(["base", "--objective", "classify", "--bins=3"], "--objective")
    ('classify', ['base', '--bins=3'])
    """
    rest, words = [], iter(argv)
    for word in words:
        if word == name:
            next(words, None)
        elif not word.startswith(f"{name}="):
            rest.append(word)
    return option(argv, name), rest


def take_switch(argv: list[str], name: str) -> tuple[bool, list[str]]:
    """Return whether a switch is typed, and the other words."""
    return name in argv, [word for word in argv if word != name]
