"""Typed settings: one set of checks and one JSON form for all dataclasses that describe a run.

Python, the command line and JSON build the same frozen dataclasses and meet the same one-line
errors.
"""

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sciforge.errors import ConfigError, did_you_mean


class Settings:
    """Checks each field of a dataclass against its type, so that Python, command line and JSON
    meet the same errors.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in _hints(kind).items():
            value = _fit(getattr(self, name), hint, self.where(name))
            # the dataclass is frozen; a path or number takes its hinted type
            object.__setattr__(self, name, value)

    def where(self, name: str) -> str:
        """Return how an error names a field, e.g. schedule.lr."""
        return f"{type(self).__name__.lower()}.{name}"

    def require(self, low: float, high: float, *names: str) -> None:
        """Raise ConfigError for the first of the fields that is not between `low` and `high`."""
        bounds = f"between {low} and {high}" if high < math.inf else f"at least {low}"
        for name in names:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{self.where(name)} is {value}; it must be {bounds}")


@cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def to_json(value: Any) -> Any:
    """Turn a dataclass tree into plain JSON values; each dataclass names its type.

    >>> from sciforge.core.training.run import Subset
    >>> to_json(Subset(32))
    {'type': 'Subset', 'count': 32, 'seed': 0}
    """
    if dataclasses.is_dataclass(value):
        fields = {
            f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init
        }
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def from_json(data: Any, known: Mapping[str, type], where: str = "run") -> Any:
    """Rebuild a dataclass tree from JSON; only types in `known` can be named.

    Raises:
        ConfigError: an unknown type, an unknown or missing field, or a value of the wrong kind.
    """
    if isinstance(data, list):
        return tuple(from_json(v, known, where) for v in data)
    if not isinstance(data, dict):
        return data
    if "type" not in data:
        return {k: from_json(v, known, f"{where}.{k}") for k, v in data.items()}
    name = data["type"]
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"{where}: unknown type {name!r}; {did_you_mean(str(name), known)}")
    cls = known[name]
    hints = _hints(cls)
    values = {}
    for key, value in data.items():
        if key == "type":
            continue
        if key not in hints:
            raise ConfigError(f"{where}: {name} has no field {key!r}; {did_you_mean(key, hints)}")
        values[key] = _fit(from_json(value, known, f"{where}.{key}"), hints[key], f"{where}.{key}")
    try:
        return cls(**values)
    except ConfigError:
        raise  # names its field already
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{where}: {str(error).split('__init__() ')[-1]}") from None


def _fit(value: Any, hint: Any, where: str) -> Any:
    """Check a value against a type hint and give it the hinted type (Path, tuple, int, float)."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        options = [option for option in inner if option is not types.NoneType]
        if len(options) == 1 and len(inner) == 2:
            return None if value is None else _fit(value, options[0], where)
        for option in inner:
            try:
                return _fit(value, option, where)
            except ConfigError:
                continue
        kinds = " or ".join(
            "none" if o is types.NoneType else getattr(o, "__name__", str(o)) for o in inner
        )
        raise ConfigError(f"{where} is {value!r}; expected {kinds}")
    if origin is Literal:
        if value not in inner:
            raise ConfigError(f"{where} is {value!r}; {did_you_mean(str(value), map(str, inner))}")
        return value
    if inner == (Path, ...) and isinstance(value, str | Path):
        value = (value,)  # one file where several may be given
    if origin is tuple and isinstance(value, list | tuple):
        hints = (inner[0],) * len(value) if inner[-1] is ... else inner
        if len(hints) != len(value):
            raise ConfigError(f"{where} is {value!r}; expected {len(hints)} values")
        return tuple(
            _fit(v, h, f"{where}[{i}]") for i, (v, h) in enumerate(zip(value, hints, strict=True))
        )
    number = isinstance(value, numbers.Number) and not isinstance(value, bool)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and number and isinstance(value, numbers.Real):
        return float(value)
    if hint is int and number and isinstance(value, numbers.Integral):
        return int(value)
    plain = origin or hint
    if not isinstance(plain, type) or plain is int or not isinstance(value, plain):
        raise ConfigError(f"{where} is {value!r}; expected {getattr(plain, '__name__', plain)}")
    return value
