"""One process or many: the only importer of torch.distributed.

Gradients are summed by hand once per step, not by DDP's hooks: forces need double backward, which DDP and FSDP
do not support. `shard` is FSDP2 for models whose domain allows it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from sciforge.core.run import Hardware
from sciforge.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}


def choose_device(name: str) -> torch.device:
    """Return the torch device of a name; `auto` is CUDA where there is one. Raises ConfigError."""
    if name == "auto":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"hardware.device {name!r} is not a device; use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("hardware.device is cuda but this torch sees no GPU; use --hardware.device cpu")
    return device


@dataclass(frozen=True)
class Engine:
    """Where the arithmetic runs: device, precision, this process's rank among `world`."""

    device: torch.device
    precision: str
    rank: int = 0
    world: int = 1
    shard: bool = False

    @classmethod
    @contextmanager
    def start(cls, hardware: Hardware, strategy: str = "replicate") -> Iterator["Engine"]:
        """Join the processes that torchrun started (or none) and leave them at the end."""
        device = choose_device(hardware.device)
        if hardware.threads:
            torch.set_num_threads(hardware.threads)
        precision = hardware.precision
        if precision == "auto":
            precision = "bfloat16" if device.type == "cuda" else "float32"
        own = int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized()
        if own:
            dist.init_process_group("cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo")
            if device.type == "cuda":
                torch.cuda.set_device(device)
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if strategy == "shard" and not dist.is_initialized():
            raise ConfigError("strategy shard needs processes; start with torchrun --nproc-per-node N -m sciforge train ...")
        try:
            yield cls(device, precision, rank, world, strategy == "shard")
        finally:
            if own:
                dist.destroy_process_group()

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device and precision; under `shard` split it over the processes."""
        model.to(device=self.device, dtype=DTYPES[self.precision])
        if not self.shard:
            return model
        mesh = dist.init_device_mesh(self.device.type, (self.world,))
        for name, module in model.named_modules():
            if name.rpartition(".")[0].endswith("blocks") and name.rpartition(".")[2].isdigit():
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):  # not inherited by nested units; the loop divides by the global count
                module.set_gradient_divide_factor(1.0)
        return model

    def autocast(self) -> AbstractContextManager:
        """Return the context in which losses are computed."""
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def move(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Send a batch to the device, its real numbers in the run's precision."""
        dtype = DTYPES[self.precision]
        moved = {}
        for name, value in batch.items():
            if isinstance(value, Tensor):
                value = value.to(self.device, dtype if value.is_floating_point() else value.dtype, non_blocking=True)
            moved[name] = value
        return moved

    def sum(self, values: Sequence[Tensor]) -> list[float]:
        """Add scalars over all processes, in float64."""
        stacked = torch.stack([v.detach().double().cpu() for v in values])
        if self.world > 1:
            dist.all_reduce(stacked)
        return stacked.tolist()

    def reduce_grads(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add gradients over all processes, once; FSDP2 has done so already."""
        if self.world == 1 or self.shard:
            return
        for parameter in parameters:
            if parameter.grad is None:  # a head that this process's share of the batch did not touch
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.flatten() for p in parameters])
        dist.all_reduce(flat)
        for parameter, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad.copy_(piece.view_as(parameter))

    def full_state(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the whole state of a model on the CPU (a collective call under `shard`)."""
        if not self.shard:
            return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))

    def load_state(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Load a whole state, splitting it under `shard`."""
        if self.shard:
            set_model_state_dict(model, dict(state), options=StateDictOptions(full_state_dict=True))
        else:
            model.load_state_dict(state)

    def full(self, tensor: Tensor) -> Tensor:
        """Return a whole tensor on the CPU (a collective call under `shard`)."""
        tensor = tensor.detach()
        return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu().clone()

    def like(self, parameter: Tensor, whole: Tensor) -> Tensor:
        """Return `whole` placed, and split, as `parameter` is."""
        whole = whole.to(device=self.device, dtype=parameter.dtype)
        if isinstance(parameter, DTensor):
            return distribute_tensor(whole, parameter.device_mesh, parameter.placements)
        return whole.clone()

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in order of rank."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def agree(self, error: str | None) -> str | None:
        """Return the first error that any process reports, so that all stop together."""
        return next((found for found in self.gather(error) if found), None)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()
