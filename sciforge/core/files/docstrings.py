"""Docstrings as data: the sentence of each argument, for help texts and generated signatures."""

import inspect
import re
from typing import Any

_SECTIONS = r"\n+(?:Args|Raises|Returns|Attributes):\n|\n+>>> "
_POINTER = re.compile(r"see `\w+`\.?")


def summary_of(documented: Any) -> str:
    """Return a docstring without its sections (Args, Raises, ...) and examples."""
    return re.split(_SECTIONS, inspect.cleandoc(documented.__doc__ or ""))[0].strip()


def first_paragraph(docstring: str | None) -> str:
    r"""Return the first paragraph of a docstring on one line, for lists of commands and classes.

    >>> first_paragraph("Return a sum\n    of numbers.\n\n    In order.")
    'Return a sum of numbers.'
    """
    return " ".join(inspect.cleandoc(docstring or "").partition("\n\n")[0].split())


def arguments_of(documented: Any) -> dict[str, str]:
    """Return name -> sentence out of the `Args` of a Google-style docstring; `a, b: text` documents
    both.

    The fields that a class inherits are looked up in its parents' docstrings.

    >>> class Parent:
    ...     '''Have a field.
    ...
    ...     Args:
    ...         size, step: in pixels.
    ...     '''
    >>> class Child(Parent):
    ...     '''Have the same field.'''
    >>> arguments_of(Child)["step"]
    'in pixels.'
    """
    if not isinstance(documented, type):
        return _arguments(documented.__doc__ or "")
    sentences: dict[str, str] = {}
    for cls in reversed(documented.__mro__):
        own = _arguments(cls.__dict__.get("__doc__") or "")
        sentences |= {
            name: text
            for name, text in own.items()
            if not _POINTER.fullmatch(text) or name not in sentences
        }
    return sentences


def _arguments(docstring: str) -> dict[str, str]:
    sentences: dict[str, str] = {}
    _, _, section = inspect.cleandoc(docstring).partition("\nArgs:\n")
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if head := re.match(r" {4}(\w[\w, ]*): *(.*)", line):
            names = [name.strip() for name in head[1].split(",")]
            sentences |= dict.fromkeys(names, head[2])
        elif line.strip():
            sentences |= {name: f"{sentences[name]} {line.strip()}" for name in names}
    return sentences
