"""Published laws as Python source, by tracing their torch formulas: one formula of each, written
nowhere twice.

What is written gives NaN and infinities where torch does, and calls the functions of export.py that
see to it (`_log`, `_root`, `_power`, `_over`) wherever a number is not surely above zero.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciforge.errors import ConfigError
from sciforge.heat.correlations.correlation import ABSENT, Correlation
from sciforge.heat.correlations.groups import GROUPS

# how tightly the outermost operator of a text binds
ATOM, POWERS, PRODUCT, SUM, LOOSE = 4, 3, 2, 1, 0
LONGEST = 90  # characters of an expression that is written into the next one
PASSED = (
    "lift_fresh_copy",
    "alias",
    "detach",
    "clone",
    "expand",
    "scalar_tensor",
    "full_like",
    "_to_copy",
)
COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


def quoted(lines: list[str]) -> str:
    r"""Return lines as the inside of a docstring that nothing in them can end.

    >>> print(quoted(['a"b', 'c']))
    a\"b
    c
    """
    return "\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)


@dataclass(frozen=True)
class _Text:
    """An expression: its text, how tightly it binds, and whether it is surely above zero (or
    NaN).
    """

    text: str
    binds: int = ATOM
    above_zero: bool = False

    def inside(self, binds: int) -> str:
        """Return the text, in brackets where an operator that binds so tightly would tear it
        apart.
        """
        return self.text if self.binds >= binds else f"({self.text})"


def written(name: str, law: Correlation) -> str:
    """Return a published law's Nusselt number as a function of the six groups; raises
    ConfigError for an unknown operation.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    columns = list(ABSENT)

    def traced(*values: Tensor) -> Tensor:
        return law.nusselt(dict(zip(columns, values, strict=True)))

    example = (3e4, 0.7, 0.0625, 10.0, 60.0, 1.0, 1.0)[: len(columns)]
    graph = make_fx(traced)(*(torch.tensor(v, dtype=torch.float64) for v in example))
    graph.graph.eliminate_dead_code()
    known: dict[Any, _Text] = {}
    lines, inputs = [], iter(columns)
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            column = next(inputs)
            known[node] = (
                _Text(column, ATOM, column != "e_D")
                if column in GROUPS
                else _constant(ABSENT[column])
            )
        elif node.op == "get_attr":
            known[node] = _constant(getattr(graph, node.target).item())
        elif node.op == "output":
            result = known[node.args[0]].text
        else:
            made = _operation(
                node, [known[a] if isinstance(a, torch.fx.Node) else a for a in node.args], law.name
            )
            if made.binds < ATOM and (len(node.users) > 1 or len(made.text) > LONGEST):
                lines.append(f"    v{len(lines) + 1} = {made.text}")
                made = _Text(f"v{len(lines)}", ATOM, made.above_zero)
            known[node] = made
    says = quoted([f"{law.source}: {law.summary}"])
    head = [f"def {name}({', '.join(c for c in columns if c in GROUPS)}):", f'    """{says}"""']
    return "\n".join([*head, *lines, f"    return {result}"])


def _constant(value: float) -> _Text:
    if isinstance(value, bool):
        return _Text(repr(value))
    if not math.isfinite(value):
        return _Text(
            "math.nan" if math.isnan(value) else f"{'-' if value < 0 else ''}math.inf", SUM
        )
    return _Text(repr(value), ATOM if value >= 0 else SUM, value > 0)


def _operation(node: Any, given: list[Any], law: str) -> _Text:
    """Return one operation of a trace as an expression."""
    name = node.target.overloadpacket.__name__.split(".")[-1]
    if name == "full_like":
        return _constant(given[1])
    a, *rest = [_constant(v) if isinstance(v, int | float) else v for v in given]
    b = rest[0] if rest else None
    if name in PASSED:
        return a
    if name in ("add", "sub", "rsub") and node.kwargs.get("alpha", 1) == 1 and len(given) == 2:
        top, below = (b, a) if name == "rsub" else (a, b)
        if name == "add":
            return _Text(
                f"{a.inside(SUM)} + {b.inside(PRODUCT)}", SUM, a.above_zero and b.above_zero
            )
        return _Text(f"{top.inside(SUM)} - {below.inside(PRODUCT)}", SUM)
    if name == "mul":
        return _Text(
            f"{a.inside(PRODUCT)} * {b.inside(POWERS)}", PRODUCT, a.above_zero and b.above_zero
        )
    if name in ("div", "reciprocal") and not node.kwargs:
        top, below = (a, b) if name == "div" else (_constant(1.0), a)
        if below.above_zero:
            return _Text(f"{top.inside(PRODUCT)} / {below.inside(POWERS)}", PRODUCT, top.above_zero)
        return _Text(f"_over({top.text}, {below.text})")
    if name == "pow":
        if a.above_zero:
            return _Text(f"{a.inside(ATOM)} ** {b.inside(ATOM)}", POWERS, True)
        return _Text(f"_power({a.text}, {b.text})")
    return _rarer(name, a, rest, law)


def _rarer(name: str, a: _Text, rest: list[Any], law: str) -> _Text:
    """Return what is no arithmetic; raises ConfigError for an operation that is not known."""
    if name == "log":
        return _Text(f"math.log({a.text})" if a.above_zero else f"_log({a.text})")
    if name == "sqrt":
        return _Text(
            f"math.sqrt({a.text})" if a.above_zero else f"_root({a.text})", ATOM, a.above_zero
        )
    if name in ("exp", "tanh", "abs"):
        return _Text(f"{'' if name == 'abs' else 'math.'}{name}({a.text})", ATOM, name == "exp")
    if name == "neg":
        return _Text(f"-{a.inside(POWERS)}", SUM)
    if name in COMPARISONS:
        return _Text(f"{a.inside(SUM)} {COMPARISONS[name]} {rest[0].inside(SUM)}", LOOSE)
    if name in ("bitwise_not", "logical_not"):
        return _Text(f"not {a.inside(ATOM)}", LOOSE)
    if name in ("bitwise_and", "logical_and", "bitwise_or", "logical_or"):
        return _Text(f"{a.inside(SUM)} {name.split('_')[1]} {rest[0].inside(SUM)}", LOOSE)
    if name in ("where", "masked_fill"):
        chosen, yes, no = (a, rest[0], rest[1]) if name == "where" else (rest[0], rest[1], a)
        above = yes.above_zero and no.above_zero
        return _Text(
            f"{yes.inside(SUM)} if {chosen.inside(SUM)} else {no.inside(SUM)}", LOOSE, above
        )
    if name in ("clamp", "clamp_min", "clamp_max"):  # NaN stays: it stands first
        low, high = (
            (rest + [None])[:2]
            if name == "clamp"
            else (rest[0], None)
            if name == "clamp_min"
            else (None, rest[0])
        )
        text = a.text if low is None else f"max({a.text}, {low.text})"
        text = text if high is None else f"min({text}, {high.text})"
        at_least = low.above_zero if low is not None else a.above_zero
        return _Text(text, ATOM, at_least and (high is None or high.above_zero))
    if name in ("minimum", "maximum"):
        return _Text(
            f"{name[:3]}({a.text}, {rest[0].text})", ATOM, a.above_zero and rest[0].above_zero
        )
    raise ConfigError(
        f"the operation {name!r} of {law} cannot be written as Python; choose other laws with"
        " `laws`"
    )
