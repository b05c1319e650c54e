"""Verbs whose keywords are the fields of a settings class: `sf.label_efficiency(task, init=...,
sizes=[32])`.
"""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sciforge import catalog
from sciforge.core.data.dataset import Dataset, as_dataset, is_prepared
from sciforge.core.data.store import Store
from sciforge.core.domain import find_offer
from sciforge.core.files.docstrings import arguments_of, summary_of
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, did_you_mean

T = TypeVar("T")

CHECKPOINTS = ("init", "checkpoint")  # fields that take a name, a folder or a Model
# fields that take a Dataset, a Store or a folder
DATA = ("data", "old", "new", "members", "nonmembers")
LABELLED = {
    "targets": (
        "the labels of natural inputs: an array, a Series, or a DataFrame of several targets."
    ),
    "input": "the column of a table that holds the inputs.",
    "target": "the column or columns of a table that hold the labels.",
    "split": (
        "the column of a table that holds the splits, or the split of each input; None holds a"
        " random quarter out for the test."
    ),
    "group": (
        "the column of a table that holds the groups, or the group of each input (patient,"
        " laboratory), of which none is divided where the test is drawn."
    ),
}
HELD_OUT = 0.25  # share of natural inputs without splits that is kept for the test


def fields_as_keywords(
    cls: type, parameter: str, *, labelled: str | None = None
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Return a decorator: the function takes an instance of `cls`, or the fields of `cls` as
    keywords.

    Args:
        cls: a dataclass of settings.
        parameter: the function's parameter that holds the instance.
        labelled: the field that also takes natural inputs with labels: lists, a DataFrame, or the
            path of a table.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        signature = _signature(function, cls, parameter, labelled)
        before = [p.name for p in _positional(function, parameter)]
        others = [
            name
            for name in inspect.signature(function).parameters
            if name not in (parameter, *before)
        ]
        extra = [name for name in LABELLED if labelled and name not in _names(cls)]

        @functools.wraps(function)
        def verb(*args: Any, **given: Any) -> T:
            settings = given.pop(parameter, None)
            leading = dict(zip(before, args, strict=False)) | {
                name: given.pop(name) for name in before if name in given
            }
            args = args[len(before) :]
            if args and isinstance(args[0], cls):
                settings, args = args[0], args[1:]
            table = {name: given.pop(name) for name in extra if name in given}
            options = {name: given.pop(name) for name in others if name in given}
            if settings is None:
                fields = _bound(
                    function.__name__, signature, args, given, [*before, *others, *extra]
                )
            elif args or given:
                name = next(iter(given), "a second argument")
                raise ConfigError(
                    f"{function.__name__} has its settings in one object; leave out {name!r}"
                )
            else:
                fields = {name: getattr(settings, name) for name in _names(cls)}
            # what is prepared here lives until the verb returns
            fields, _kept = _located(cls, fields, labelled, table)
            return function(**leading, **{parameter: cls(**fields)}, **options)

        verb.__signature__ = signature  # type: ignore[attr-defined]
        verb.__doc__ = _docstring(function, cls, parameter, extra)
        verb.settings = cls  # type: ignore[attr-defined]
        return verb

    return decorate


def _names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls) if field.init]


def parameters_of(cls: type, first: bool = True) -> list[inspect.Parameter]:
    """Return a parameter for each field of a dataclass, keyword only but for the first where
    `first`.
    """
    hints, parameters = typing.get_type_hints(cls), []
    for number, field in enumerate(f for f in dataclasses.fields(cls) if f.init):
        default = (
            field.default
            if field.default_factory is dataclasses.MISSING
            else field.default_factory()
        )
        default = inspect.Parameter.empty if default is dataclasses.MISSING else default
        positional = first and number == 0
        kind = (
            inspect.Parameter.POSITIONAL_OR_KEYWORD
            if positional
            else inspect.Parameter.KEYWORD_ONLY
        )
        parameters.append(
            inspect.Parameter(field.name, kind, default=default, annotation=hints[field.name])
        )
    return parameters


def options_as_keywords(
    kind: str, name: str, parameter: str
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Return a decorator: the function takes one of what the domains offer, or its options as
    keywords.

    The domains are imported on the first call, or by `complete`, and not when the function is
    defined.

    Args:
        kind: `outputs` or `tools`.
        name: of the offer.
        parameter: the function's parameter that holds it.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        own = inspect.signature(function)

        @functools.wraps(function)
        def verb(*args: Any, **given: Any) -> T:
            bound = own.bind_partial(
                *args, **{k: given.pop(k) for k in list(given) if k in own.parameters}
            )
            cls = find_offer(kind, name)[1]
            if parameter not in bound.arguments:
                known = {p.name: p for p in parameters_of(cls, first=False)}
                for word in given:
                    if word not in known:
                        raise ConfigError(
                            f"{function.__name__} has no option {word!r};"
                            f" {did_you_mean(word, known)}"
                        )
                needed = [
                    n
                    for n, p in known.items()
                    if p.default is inspect.Parameter.empty and n not in given
                ]
                if needed:
                    raise ConfigError(
                        f"{function.__name__} needs {', '.join(needed)}; give it by keyword"
                    )
                bound.arguments[parameter] = cls(**given)
            elif given:
                raise ConfigError(
                    f"{function.__name__} has its options in one object; leave out"
                    f" {next(iter(given))!r}"
                )
            return function(*bound.args, **bound.kwargs)

        verb.offer = (kind, name, parameter)  # type: ignore[attr-defined]
        return verb

    return decorate


def complete(verb: Callable[..., T]) -> Callable[..., T]:
    """Give a verb of `options_as_keywords` the signature and the docstring of the options;
    others stay as they are.
    """
    offer = getattr(verb, "offer", None)
    if offer is not None and "__signature__" not in vars(verb):
        kind, name, parameter = offer
        cls, function = find_offer(kind, name)[1], inspect.unwrap(verb)
        signature = _signature(function, cls, parameter, None)
        verb.__signature__ = signature  # type: ignore[attr-defined]
        verb.__doc__ = _docstring(function, cls, parameter, ())
    return verb


def _positional(function: Callable, parameter: str) -> list[inspect.Parameter]:
    """Return the parameters that stand before the one which holds the settings."""
    parameters = list(inspect.signature(function).parameters.values())
    return parameters[: [p.name for p in parameters].index(parameter)]


def _signature(
    function: Callable, cls: type, parameter: str, labelled: str | None
) -> inspect.Signature:
    own = inspect.signature(function)
    before = _positional(function, parameter)
    extra = [name for name in LABELLED if labelled and name not in _names(cls)]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, keyword, default=None, annotation=Any) for name in extra]
    taken = {parameter, *(p.name for p in before)}
    others = [p.replace(kind=keyword) for name, p in own.parameters.items() if name not in taken]
    return own.replace(parameters=[*before, *parameters_of(cls, first=not before), *added, *others])


def _docstring(function: Callable, cls: type, parameter: str, extra: Sequence[str]) -> str:
    """Return the function's docstring with the sentences of the fields in place of the
    parameter's.
    """
    own = arguments_of(function)
    sentences = {name: text for name, text in arguments_of(cls).items() if name in _names(cls)}
    sentences |= {name: LABELLED[name] for name in extra}
    sentences |= {name: text for name, text in own.items() if name != parameter}
    rows = [f"    {name}: {text}" for name, text in sentences.items()]
    also = f"Takes these keywords, or one `{cls.__name__}` that holds them."
    return "\n".join([summary_of(function), "", also, "", "Args:", *rows, ""])


def _bound(
    verb: str,
    signature: inspect.Signature,
    args: Sequence[Any],
    given: Mapping[str, Any],
    others: Sequence[str],
) -> dict[str, Any]:
    """Return the fields that are given by position or keyword; raises ConfigError for what is
    unknown or missing.
    """
    known = [name for name in signature.parameters if name not in others]
    fields = dict(zip(known[:1], args, strict=False)) | dict(given)
    if len(args) > 1 or (args and known[0] in given):
        raise ConfigError(
            f"{verb} takes {known[0]} by position and the rest by keyword; name the others"
        )
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{verb} has no option {name!r}; {did_you_mean(name, signature.parameters)}"
            )
    needed = [
        n
        for n in known
        if signature.parameters[n].default is inspect.Parameter.empty and n not in fields
    ]
    if needed:
        raise ConfigError(
            f"{verb} needs {', '.join(needed)}; give {'it' if len(needed) == 1 else 'them'} by"
            " keyword"
        )
    return fields


def _located(
    cls: type, fields: Mapping[str, Any], labelled: str | None, table: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Any]]:
    """Return the fields with paths in place of names, Models, Datasets and natural inputs, and
    what must stay alive.
    """
    fields, kept = dict(fields), []
    several = [
        name
        for name, hint in typing.get_type_hints(cls).items()
        if typing.get_origin(hint) is tuple
    ]
    for name in (n for n in CHECKPOINTS if fields.get(n) is not None):
        kept.append(fields[name])
        fields[name] = _checkpoint(fields[name])
        if name in several and not isinstance(fields[name], tuple):
            fields[name] = (fields[name],)
    for name in (n for n in DATA if fields.get(n) is not None):
        value = fields[name]
        if name == labelled and not is_prepared(value):
            value = as_dataset(value, domain=_domain(fields), held_out=HELD_OUT, **table)
        elif any(part is not None for part in table.values()) and name == labelled:
            raise ConfigError(
                f"{name} is prepared already; leave out {next(k for k, v in table.items() if v)}"
            )
        kept.append(value)
        fields[name] = tuple(map(_path, value)) if isinstance(value, list | tuple) else _path(value)
        if name in several and not isinstance(fields[name], tuple):
            fields[name] = (fields[name],)
    return fields, kept


def _path(value: Any) -> Path:
    return value.path if isinstance(value, Dataset | Store) else Path(value)


def _checkpoint(value: Any) -> Any:
    if isinstance(value, Model):
        return value.checkpoint.path
    if isinstance(value, Checkpoint):
        return value.path
    return (
        tuple(map(_checkpoint, value)) if isinstance(value, list | tuple) else catalog.locate(value)
    )


def _domain(fields: Mapping[str, Any]) -> str:
    """Return the domain of the checkpoint that a description names, which reads its natural
    inputs.
    """
    path = next((fields[name] for name in CHECKPOINTS if fields.get(name) is not None), None)
    if path is None:
        raise ConfigError(
            "natural inputs are read by the domain of a checkpoint; give init=..., or prepare them"
            " first"
        )
    return Checkpoint.open(path[0] if isinstance(path, tuple) else path).domain.name
