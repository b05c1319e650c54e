"""Every settings class of every domain checks its fields on construction: objectives, preparers,
outputs, codecs, ...
"""

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest

from sciforge.core.domain import discover
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError

KINDS = ("objectives", "preparers", "outputs", "audits", "tools")


def settings_classes() -> list[tuple[str, type]]:
    """Return (where it is offered, class) of all that users set."""
    classes = []
    for domain in discover().values():
        for kind in KINDS:
            classes += [
                (f"{domain.name} {kind} {name}", cls) for name, cls in getattr(domain, kind).items()
            ]
        classes.append((f"{domain.name} codec", type(domain.codec)))
        classes += [
            (f"{domain.name} models {name}", type(config)) for name, config in domain.models.items()
        ]
    return classes


CLASSES = settings_classes()


class NotASetting:
    """A value that no field takes."""


def plausible(hint: Any) -> Any:
    """Return a value that fits the type of a field."""
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return options[0]
    if origin is tuple:
        return tuple(plausible(option) for option in options if option is not ...)
    if options and origin is not None:
        return plausible(options[0])
    return {Path: Path("x"), str: "x", int: 1, float: 1.0, bool: True}.get(hint)


@pytest.mark.parametrize(("where", "cls"), CLASSES, ids=[where for where, _ in CLASSES])
def test_a_value_of_the_wrong_type_is_refused_on_construction(where: str, cls: type):
    message = (
        f"{cls.__module__}.{cls.__name__} is no Settings: derive it from"
        " sciforge.core.files.settings.Settings"
    )
    assert dataclasses.is_dataclass(cls) and issubclass(cls, Settings), message
    hints = typing.get_type_hints(cls)
    fields = [field for field in dataclasses.fields(cls) if field.init]
    required = {
        field.name: plausible(hints[field.name])
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    for field in fields:
        if hints[field.name] is Any:
            continue
        with pytest.raises(ConfigError) as caught:
            cls(**{**required, field.name: NotASetting()})
            pytest.fail(
                f"{where}: {cls.__name__}.{field.name} takes any value; call"
                " super().__post_init__() first"
            )
        text = str(caught.value)
        assert field.name in text and len(text.splitlines()) == 1, (
            f"{where}: the error must name {field.name}: {text}"
        )
