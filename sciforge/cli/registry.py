"""What can be named on the command line: what the domains offer, the domain of a folder, a run in a file."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sciforge.errors import ConfigError, did_you_mean

HELP = ("-h", "--help")


def offers(kind: str, domain: str | None = None) -> dict[str, tuple[Any, type]]:
    """Return name -> (domain, class) of what all domains, or one, offer of a kind (`objectives`, `preparers`, ...).

    `domain/name` is always a name; the bare name too, unless two domains share it.
    """
    from sciforge.core.domain import discover

    domains = [d for d in discover().values() if domain in (None, d.name)]
    pairs = [(name, d, cls) for d in domains for name, cls in getattr(d, kind).items()]
    names = [name for name, _, _ in pairs]
    found = {name: (d, cls) for name, d, cls in pairs if names.count(name) == 1}
    return found | {f"{d.name}/{name}": (d, cls) for name, d, cls in pairs}


def choose(prog: str, kind: str, argv: list[str], domain: str | None = None) -> tuple[str, Any, type, list[str]]:
    """Take the name of an offer off the command line; without one, explain what there is."""
    known = offers(kind, domain)
    what = kind.removesuffix("s")
    if not argv or argv[0].startswith("-"):
        from sciforge.cli.flags import summary_of

        names = {name: cls for name, (_, cls) in known.items() if "/" not in name or name.split("/")[1] not in known}
        rows = [f"  {name:<18} {summary_of(cls).partition(chr(10))[0]}" for name, cls in names.items()]
        page = [f"usage: {prog} {what.upper()} ... [--help]", "", f"{what.capitalize()}s:", *rows]
        if any(word in HELP for word in argv):
            print("\n".join(page))
            raise SystemExit(0)
        raise ConfigError(f"{prog} needs {'an' if what[0] in 'aeiou' else 'a'} {what}; {did_you_mean('', names)}")
    if argv[0] not in known:
        shared = [name for name in known if name.endswith(f"/{argv[0]}")]
        raise ConfigError(
            f"no {what} {argv[0]!r}; {'say ' + ' or '.join(shared) if shared else did_you_mean(argv[0], known)}"
        )
    return argv[0], *known[argv[0]], argv[1:]


def domain_of(folder: str, file: str) -> str | None:
    """Return the domain that a store or checkpoint names, without opening it in earnest."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((Path(folder) / file).read_bytes())["domain"])
    return None


def option(argv: Sequence[str], name: str) -> str | None:
    """Return the value of `--name value` or `--name=value`; None where it is not typed."""
    for word, after in zip(argv, [*argv[1:], None], strict=False):
        if word == name or word.startswith(f"{name}="):
            return after if word == name else word.partition("=")[2]
    return None


def read_config(path: Path, cls: type) -> Any:
    """Read a run (or a checkpoint.json that holds one) from JSON; raises ConfigError naming the file."""
    from sciforge.core.domain import discover
    from sciforge.core.training.run import CORE_TYPES, from_json

    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error}); write it by sciforge.core.training.run.to_json") from None
    body = body.get("run", body) if isinstance(body, dict) else body  # a checkpoint.json holds its run
    types = {name: t for domain in discover().values() for name, t in domain.types().items()}
    made = from_json(body, {**CORE_TYPES, cls.__name__: cls, **types}, str(path))
    if not isinstance(made, cls):
        raise ConfigError(f'{path}: holds no {cls.__name__}; it must begin with {{"type": "{cls.__name__}"')
    return made


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
