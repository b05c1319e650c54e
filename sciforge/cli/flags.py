"""Command-line flags out of typed signatures: each field of a dataclass or parameter of a function
is one flag.

Docstrings' `Args` become the help. A field whose type is a choice of dataclasses (`All | Only |
LoRA`) is a selector (`--finetuning lora`) and the flags of the chosen one (`--finetuning.rank 4`).
"""

import contextlib
import dataclasses
import inspect
import io
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Annotated, Any, Literal

from sciforge.core.files.docstrings import arguments_of, summary_of
from sciforge.errors import ConfigError, did_you_mean

# fields and parameters that are given without a flag
POSITIONAL = ("file", "files", "checkpoint", "names")


@dataclass(frozen=True)
class Flag:
    """One flag, or a group of them where the type is a dataclass.

    Args:
        key: under which the value comes back.
        name: as it is typed, without the dashes.
        hint: its type.
        default: MISSING where it must be given.
        help: one sentence.
    """

    key: str
    name: str
    hint: Any
    default: Any = MISSING
    help: str = ""


def flags_of_function(function: Callable, replaced: str = "") -> list[Flag]:
    """Return a flag for each parameter but `replaced`, the one that the flags of a dataclass
    stand for.
    """
    hints, helps = typing.get_type_hints(function), arguments_of(function)
    flags = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name != replaced:
            default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
            hint = hints.get(name, parameter.annotation)
            flags.append(Flag(name, name, hint, default, helps.get(name, "")))
    return flags


def flags_of_class(cls: type, default: Any = None) -> list[Flag]:
    """Return a flag for each field of a dataclass; with `default`, an instance, its values are
    the defaults.
    """
    hints, helps = typing.get_type_hints(cls), arguments_of(cls)
    flags = []
    for field in dataclasses.fields(cls):
        if not field.init or _origin(hints[field.name]) in (dict, Mapping):
            continue
        if not field.metadata.get("option", True):  # learnt, not chosen
            continue
        value = field.default if field.default_factory is MISSING else field.default_factory()
        value = value if default is None else getattr(default, field.name)
        flags.append(
            Flag(field.name, field.name, hints[field.name], value, helps.get(field.name, ""))
        )
    return flags


def wants_help(argv: Sequence[str]) -> bool:
    """Return whether help is asked for."""
    return "--help" in argv or "-h" in argv


def _origin(hint: Any) -> Any:
    return typing.get_origin(hint) or hint


def _is_class(hint: Any) -> bool:
    """Return whether a hint is a dataclass, whose fields are options of their own."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def dataclass_options(hint: Any) -> dict[str, type]:
    """Return lower-case name -> class of the dataclasses in a union; empty for every other hint."""
    if _origin(hint) not in (typing.Union, types.UnionType):
        return {}
    classes = [
        t for t in typing.get_args(hint) if isinstance(t, type) and dataclasses.is_dataclass(t)
    ]
    return {t.__name__.lower(): t for t in classes}


class Spec:
    """The flags of a description of work (`Run`, `LabelEfficiency`): a dataclass whose `Any` fields
    a domain fills.

    Args:
        cls: the dataclass.
        argv: what was typed; decides which of the optional groups are flags at all.
        choices: name of an `Any` field -> what a domain offers: a class (its fields become flags
            without a prefix), an instance (prefixed flags, None unless one is given) or presets by
            name.
        default: an instance whose values are the defaults.
        prefix: of the flags' names, for a description inside another.
    """

    def __init__(
        self,
        cls: type,
        argv: Sequence[str],
        choices: Mapping[str, Any],
        default: Any = None,
        prefix: str = "",
    ) -> None:
        self.cls, self.argv, self.default, self.prefix = cls, list(argv), default, prefix
        self.flags: list[Flag] = []
        self.builders: list[Callable[[dict[str, Any]], None]] = []
        for flag in flags_of_class(cls, default):
            flag = dataclasses.replace(flag, key=prefix + flag.name, name=prefix + flag.name)
            offered = choices.get(flag.name)
            options = dataclass_options(flag.hint)
            if isinstance(offered, type):
                self._flatten(flag, offered)
            elif isinstance(offered, Mapping):
                self._select(flag, offered)
            elif offered is not None:
                self._group(flag, type(offered), flag.default or offered)
            elif len(options) > 1:
                self._select(flag, options)
            elif options:
                (only,) = options.values()
                self._group(flag, only, flag.default)
            elif _is_class(flag.hint) and any(
                dataclass_options(f.hint) for f in flags_of_class(flag.hint)
            ):
                self._nest(flag)
            elif flag.hint is not Any:
                self.flags.append(flag)

    def build(self, values: dict[str, Any]) -> Any:
        """Take this spec's values out of the parsed ones and return the instance."""
        for builder in self.builders:
            builder(values)
        fields = [
            f.name
            for f in dataclasses.fields(self.cls)
            if f.init and self.prefix + f.name in values
        ]
        given = {name: values.pop(self.prefix + name) for name in fields}
        return (
            self.cls(**given)
            if self.default is None
            else dataclasses.replace(self.default, **given)
        )

    def _nest(self, flag: Flag) -> None:
        inner = Spec(
            flag.hint,
            self.argv,
            {},
            None if flag.default is MISSING else flag.default,
            f"{flag.name}.",
        )
        self.flags += inner.flags
        self.builders.append(lambda values: values.update({flag.key: inner.build(values)}))

    def _typed(self, prefix: str) -> bool:
        return any(word.startswith(prefix) for word in self.argv)

    def _flatten(self, flag: Flag, cls: type) -> None:
        default = flag.default if isinstance(flag.default, cls) else None
        taken = {f.name for f in dataclasses.fields(self.cls)}
        flags = flags_of_class(cls, default)
        for inner in flags:
            name = f"{flag.name}.{inner.name}" if inner.name in taken else inner.name
            self.flags.append(dataclasses.replace(inner, key=f"{flag.key}/{inner.name}", name=name))

        def build(values: dict[str, Any]) -> None:
            values[flag.key] = cls(**{f.name: values.pop(f"{flag.key}/{f.name}") for f in flags})

        self.builders.append(build)

    def _group(self, flag: Flag, cls: type, default: Any) -> None:
        """An optional group: None (or what the default holds) unless one of its flags is typed."""
        if self._typed(f"--{flag.name}.") or wants_help(self.argv):
            start = MISSING if default in (None, MISSING) else default
            self.flags.append(dataclasses.replace(flag, hint=cls, default=start))

    def _select(self, flag: Flag, options: Mapping[str, Any]) -> None:
        """A selector; presets by name stay names unless one of their sizes is changed."""
        name = (
            flag.default if isinstance(flag.default, str) else type(flag.default).__name__.lower()
        )
        now = name if name in options else None
        typed = self._value_of(f"--{flag.name}")
        if typed is not None and typed not in ("None", *options):
            raise ConfigError(f"no {flag.name} {typed!r}; {did_you_mean(typed, options)}")
        literal = Literal[tuple(options)]  # type: ignore[valid-type]
        hint = (
            literal
            if dataclass_options(flag.hint) and now and flag.default is not None
            else literal | None
        )
        self.flags.append(dataclasses.replace(flag, hint=hint, default=now))
        preset, key = options.get(typed or now or ""), f"{flag.key}/options"
        cls = preset if isinstance(preset, type) else type(preset)
        asked = self._typed(f"--{flag.name}.") or (typed is not None and wants_help(self.argv))
        if preset is not None and (isinstance(preset, type) or asked):
            start = (
                flag.default
                if isinstance(flag.default, cls)
                else cls()
                if isinstance(preset, type)
                else preset
            )
            self.flags.append(Flag(key, flag.name, cls, start))

        def build(values: dict[str, Any]) -> None:
            named, sizes = values.pop(flag.key), values.pop(key, None)
            if typed is None and sizes is None:
                values[flag.key] = flag.default
            else:
                values[flag.key] = named if sizes is None else sizes

        self.builders.append(build)

    def _value_of(self, option: str) -> str | None:
        for word, after in zip(self.argv, [*self.argv[1:], None], strict=False):
            if word == option:
                return after
            if word.startswith(f"{option}="):
                return word.partition("=")[2]
        return None


def parse(
    prog: str, description: str, flags: Sequence[Flag], argv: Sequence[str]
) -> dict[str, Any]:
    """Parse `argv` by tyro and return the values by key.

    Raises:
        ConfigError: one line for whatever is wrong with the command line.
        SystemExit: after `--help` was printed.
    """
    import tyro

    names = [flag.name for flag in flags if not flag.key.endswith("/options")]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(
            f"{prog}: two options are called --{min(twice)}; rename the field in the domain"
        )
    form = dataclasses.make_dataclass(
        "Form", [_form_field(*pair) for pair in enumerate(flags)], kw_only=True
    )
    if wants_help(argv):
        tyro.cli(form, prog=prog, description=description, args=["--help"])
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured), contextlib.redirect_stdout(captured):
            values: Any = tyro.cli(form, prog=prog, description=description, args=list(argv))
    except SystemExit:
        raise ConfigError(
            f"{_complaint(captured.getvalue(), argv, form)}; see {prog} --help"
        ) from None
    return {
        flag.key: _undocumented(flag.hint, getattr(values, f"field_{n}"))
        for n, flag in enumerate(flags)
    }


def _form_field(number: int, flag: Flag) -> tuple[Any, ...]:
    """Return a flag as a field of the dataclass that tyro parses."""
    import tyro

    marks: list[Any] = [tyro.conf.arg(name=flag.name.replace("_", "-"), help=flag.help or None)]
    if flag.name in POSITIONAL:
        marks = [tyro.conf.Positional, tyro.conf.arg(name=flag.name, help=flag.help or None)]
    hint, default = flag.hint, flag.default
    if _is_class(hint):
        hint = _documented(hint, None if default is MISSING else default)
        default = default if default is MISSING else hint()
    return (f"field_{number}", Annotated[(hint, *marks)], *_default(default))


def _default(value: Any) -> tuple[Any, ...]:
    return () if value is MISSING else (dataclasses.field(default_factory=lambda: value),)


def _documented(cls: type, default: Any) -> type:
    """Return a dataclass with the fields of `cls` whose options carry the sentences of the
    docstring.

    tyro reads docstrings too, but neither those of parent classes nor `a, b: text`.
    """
    import tyro

    fields: list[Any] = []
    for flag in flags_of_class(cls, default):
        marks = (tyro.conf.arg(help=flag.help or None),)
        fields.append((flag.name, Annotated[(flag.hint, *marks)], *_default(flag.default)))
    form = dataclasses.make_dataclass(cls.__name__, fields, kw_only=True)
    form.__doc__ = summary_of(cls)
    return form


def _undocumented(hint: Any, value: Any) -> Any:
    """Return a value of `_documented` as one of the class itself; others as they are."""
    if not _is_class(hint) or isinstance(value, hint):
        return value
    return hint(**{field.name: getattr(value, field.name) for field in dataclasses.fields(value)})


def _complaint(output: str, argv: Sequence[str], form: type) -> str:
    """Make one line of tyro's box; an unknown option comes with the nearest known one."""
    import tyro

    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        tyro.cli(form, args=["--help"])
    known = set(re.findall(r"--[a-z][\w.-]*", page.getvalue()))
    for word in argv:
        name = word.split("=")[0]
        if name.startswith("--") and name.replace("_", "-") not in known:
            return f"unknown option {name}; {_nearest(name, known)}"
    # tyro answers in a box: a title, a rule, what is wrong, a rule, the help of the option. Plain
    # where no terminal is.
    lines = [
        line.strip("│| ").strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines()
    ]
    blocks: list[list[str]] = [[]]
    for line in lines:
        if re.fullmatch(r"[-─+╭╮╰╯ ]+", line):
            blocks.append([])
        elif line and not re.match(r"[╭+][─-]", line):
            blocks[-1].append(line)
    texts = [" ".join(block) for block in blocks if block]
    if not texts:
        return "the command line cannot be understood"
    text = (
        texts[1]
        if len(texts) > 1 and len(texts[0]) < 40 and not re.search(r"[-:\d]", texts[0])
        else texts[0]
    )
    if text.startswith("Missing from"):
        names = (
            re.findall(r"--[a-z][\w.-]*(?= )", text)
            or re.findall(r"[A-Z][A-Z|]+\b", text.partition(":")[2])[:1]
        )
        return f"missing: {', '.join(dict.fromkeys(names))}"
    return text[0].lower() + text[1:]


def _nearest(name: str, known: set[str]) -> str:
    """Name the nearest option: first one whose part behind the last dot is the same, then by
    spelling.
    """
    last = name.lstrip("-").rsplit(".", 1)[-1]
    if ends := sorted((k for k in known if k.lstrip("-").rsplit(".", 1)[-1] == last), key=len):
        return f"did you mean {ends[0]!r}?"
    hint = did_you_mean(name, known)
    return "there is nothing like it" if hint.startswith("known:") else hint
