"""The strategy `tensor`: each block's matrices are cut over processes, as the block plans."""

from collections.abc import Callable
from typing import Any

from torch import nn

from sciforge.errors import ConfigError


def cut(model: nn.Module, mesh: Any) -> None:
    """Cut the matrices of a model over the processes of a mesh of one dimension, in place, as its
    blocks plan.

    A block has `tensor_plan`, names of its submodules -> `column` (cut by outputs), `row` (by
    inputs) or `bias by head` (its second argument by dimension 1), and `tensor_units`, how many
    equal pieces it has. Where that is no multiple of the number of processes (the small generator
    of replaced-token detection) a block stays whole on each.

    Raises:
        ConfigError: no block has a plan, none can be cut into equal pieces, or LoRA is on the
            matrices.
    """
    blocks: list[Any] = [module for module in model.modules() if hasattr(module, "tensor_plan")]
    if not blocks:
        raise ConfigError(
            "this model has no blocks with a tensor_plan; use --strategy shard or replicate"
        )
    chosen = [block for block in blocks if block.tensor_units % mesh.size() == 0]
    if not chosen:
        units = max(block.tensor_units for block in blocks)
        raise ConfigError(
            f"strategy tensor: blocks of {units} equal pieces (common to heads and hidden width)"
            f" cannot be cut for {mesh.size()} processes; set hardware.tensor to a divisor, or use"
            " --strategy shard"
        )
    if any("parametrizations" in name for name, _ in model.named_parameters()):
        raise ConfigError(
            "strategy tensor cannot cut matrices under LoRA; use --strategy shard or replicate"
        )
    # imported where needed: as for sharding
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        PrepareModuleInput,
        RowwiseParallel,
        parallelize_module,
    )

    by_head: dict[str, Any] = {
        "input_layouts": (None, Replicate()),
        "desired_input_layouts": (None, Shard(1)),
    }
    styles: dict[str, Callable[[], Any]] = {
        "column": ColwiseParallel,
        "row": RowwiseParallel,
        "bias by head": lambda: PrepareModuleInput(**by_head, use_local_output=True),
    }
    for block in chosen:
        parallelize_module(
            block, mesh, {name: styles[kind]() for name, kind in block.tensor_plan.items()}
        )
