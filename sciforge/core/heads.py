"""Heads of several tasks in one network: `model.heads[TASK]` holds those of a task, apart from the
others'.

An objective always finds its heads in `model.heads`: while a task computes, its own stand there.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

HEADS = "heads."  # prefix of the names of their weights


@contextmanager
def heads_of(model: nn.Module, scope: str | None) -> Iterator[None]:
    """Let `model.heads` be the heads of one task.

    Args:
        model: the network.
        scope: the task whose heads they are; None for heads that no task has for itself.
    """
    if scope is None:
        yield
        return
    whole: Any = model.heads
    model.heads = whole[scope]
    try:
        yield
    finally:
        model.heads = whole


def weights_under(tensors: Mapping[str, Tensor], scope: str | None) -> dict[str, Tensor]:
    """Return weights by the names that they have in a network with the heads of one task only.

    >>> whole = {"embed.weight": 1, "heads.a.class.bias": 2, "heads.b.class.bias": 3}
    >>> weights_under(whole, "b")
    {'embed.weight': 1, 'heads.class.bias': 3}
    """
    if scope is None:
        return dict(tensors)
    prefix = f"{HEADS}{scope}."
    return {
        HEADS + name.removeprefix(prefix) if name.startswith(prefix) else name: tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) or not name.startswith(HEADS)
    }


def names_under(tensors: Mapping[str, Tensor], scope: str | None) -> dict[str, Tensor]:
    """Return weights of a network with the heads of one task by their names among several tasks.

    >>> names_under({"embed.weight": 1, "heads.class.bias": 3}, "b")
    {'embed.weight': 1, 'heads.b.class.bias': 3}
    """
    return {
        f"{HEADS}{scope}.{name.removeprefix(HEADS)}"
        if scope is not None and name.startswith(HEADS)
        else name: tensor
        for name, tensor in tensors.items()
    }
