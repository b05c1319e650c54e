"""Which weights train, and at what rate: all, those that match a pattern, or low-rank updates
(LoRA).
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sciforge.core.files.settings import Settings
from sciforge.core.heads import HEADS
from sciforge.errors import ConfigError

# Networks name their stack of layers `blocks` and what feeds it `...embed...`, so a weight's depth
# follows from its name.
BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


@dataclass(frozen=True)
class Full(Settings):
    """Every weight trains.

    Args:
        layer_decay: the rate of each block is this times the rate of the block above (1 for equal
            rates).
        frozen_steps: steps at the start in which only new heads train.
        backbone_lr_mult: rate of the weights that came from `init` as a share of the rate of new
            heads.
    """

    layer_decay: float = 1.0
    frozen_steps: int = 0
    backbone_lr_mult: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, math.inf, "layer_decay", "frozen_steps", "backbone_lr_mult")


@dataclass(frozen=True)
class Freeze(Settings):
    """Only weights whose name matches the regular expression train, and new heads.

    Args:
        pattern: regular expression over the names of weights; the default matches the heads alone.
    """

    pattern: str = r"^heads\."


@dataclass(frozen=True)
class LoRA(Settings):
    """Low-rank updates of the matching weight matrices, and new heads (Hu et al. 2021).

    Args:
        rank: rank of the update.
        alpha: the update is scaled by alpha / rank.
        pattern: regular expression over the names of weight matrices.
    """

    rank: int = 8
    alpha: float = 16.0
    pattern: str = r"\bblocks\..*\.weight$"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "rank")


class LowRank(nn.Module):
    """The parametrization W + (alpha / rank) B A (Hu et al. 2021); B starts at 0, so training
    starts at W.
    """

    def __init__(self, weight_OI: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight_OI.shape
        self.scale = alpha / rank
        self.down_RI = nn.Parameter(
            torch.empty(rank, columns, dtype=weight_OI.dtype, device=weight_OI.device)
        )
        self.up_OR = nn.Parameter(
            torch.zeros(rows, rank, dtype=weight_OI.dtype, device=weight_OI.device)
        )
        nn.init.kaiming_uniform_(self.down_RI, a=math.sqrt(5))

    def forward(self, weight_OI: Tensor) -> Tensor:
        """Return the matrix with the low-rank update added."""
        return weight_OI + self.scale * self.up_OR @ self.down_RI


def apply(model: nn.Module, finetuning: Full | Freeze | LoRA, fresh: Iterable[str]) -> None:
    """Mark which parameters of `model` train, in place; `fresh` names those that did not come from
    a checkpoint.

    Raises:
        ConfigError: the pattern is not a regular expression or matches no weight.
    """
    fresh = set(fresh)
    if isinstance(finetuning, Full):
        return
    matches = _matcher(finetuning.pattern)
    names = [name for name, _ in model.named_parameters()]
    if isinstance(finetuning, Freeze):
        chosen = {name for name in names if matches(name)} | fresh
        if not chosen:
            raise ConfigError(
                f"finetuning.pattern {finetuning.pattern!r} matches no weight; weights look like"
                f" {names[0]!r}"
            )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen)
        return
    matrices = [name for name, p in model.named_parameters() if matches(name) and p.ndim == 2]
    if not matrices:
        raise ConfigError(
            f"finetuning.pattern {finetuning.pattern!r} matches no weight matrix; weights look like"
            f" {names[0]!r}"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in fresh)
    for name in matrices:
        owner, leaf = name.rpartition(".")[::2]
        module = model.get_submodule(owner)
        update = LowRank(getattr(module, leaf), finetuning.rank, finetuning.alpha)
        parametrize.register_parametrization(module, leaf, update)


def _matcher(pattern: str) -> Any:
    try:
        return re.compile(pattern).search
    except re.error as error:
        raise ConfigError(
            f"finetuning.pattern {pattern!r} is not a regular expression ({error}); correct it"
        ) from None


def merge(model: nn.Module) -> nn.Module:
    """Fold every low-rank update into its matrix, in place; the state then has the original
    names.
    """
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for leaf in list(_parametrizations(module)):
                parametrize.remove_parametrizations(module, leaf, leave_parametrized=True)
    return model


def _parametrizations(module: nn.Module) -> Any:
    """Return name of a weight -> its parametrizations."""
    return module.parametrizations


def merged_name(name: str) -> str | None:
    """Return the name a parameter has after merging; None for the low-rank factors themselves.

    >>> merged_name("blocks.0.q.parametrizations.weight.original")
    'blocks.0.q.weight'
    """
    if ".parametrizations." not in name:
        return name
    owner, rest = name.split(".parametrizations.", 1)
    leaf, part = rest.split(".", 1)
    return f"{owner}.{leaf}" if part == "original" else None


@torch.no_grad()
def merged_state(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` (a full state of `model`) with low-rank updates folded in and the original
    names.
    """
    out = {}
    for name, tensor in state.items():
        plain = merged_name(name)
        if plain is None:
            continue
        if plain != name:
            stem = name.removesuffix("original")
            owner, leaf = plain.rpartition(".")[::2]
            scale = _parametrizations(model.get_submodule(owner))[leaf][0].scale
            tensor = tensor + scale * state[f"{stem}0.up_OR"] @ state[f"{stem}0.down_RI"]
        out[plain] = tensor
    return out


@dataclass
class Group:
    """Parameters that share a learning rate and a weight decay."""

    names: list[str] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)
    factor: float = 1.0
    decay: float = 0.0
    frozen_steps: int = 0


def groups(
    model: nn.Module, finetuning: Full | Freeze | LoRA, fresh: Iterable[str], weight_decay: float
) -> list[Group]:
    """Sort the training parameters into groups by rate and weight decay; vectors are not
    decayed.
    """
    fresh = set(fresh)
    depths = [int(m.group(1)) for name, _ in model.named_parameters() if (m := BLOCK.search(name))]
    num_blocks = max(depths, default=-1) + 1
    groups: dict[tuple[float, float, int, bool], Group] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor, frozen = 1.0, 0
        if isinstance(finetuning, Full) and name not in fresh:
            factor = finetuning.backbone_lr_mult * finetuning.layer_decay ** _height(
                name, num_blocks
            )
            frozen = finetuning.frozen_steps
        decay = weight_decay if parameter.ndim > 1 else 0.0
        # one optimiser call takes whole or split weights, not both
        split = hasattr(parameter, "device_mesh")
        empty = Group(factor=factor, decay=decay, frozen_steps=frozen)
        group = groups.setdefault((factor, decay, frozen, split), empty)
        group.names.append(name)
        group.parameters.append(parameter)
    if not groups:
        raise ConfigError("no weight would train; choose another finetuning")
    return list(groups.values())


def _height(name: str, num_blocks: int) -> int:
    """Return how many blocks lie above a weight: all of them for the embedding, 0 for what comes
    behind the stack.
    """
    if match := BLOCK.search(name):
        return num_blocks - 1 - int(match.group(1))
    return num_blocks if "embed" in name and not name.startswith(HEADS) else 0
