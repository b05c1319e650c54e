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

from sciforge.core.run import Hardware
from sciforge.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}


def choose_device(name: str) -> torch.device:
    """Return the torch device of a name; `auto` is CUDA where there is one. Raises ConfigError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"hardware.device {name!r} is not a device; use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("hardware.device is cuda but this torch sees no GPU; use cpu")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
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
            if device.type == "cuda":
                torch.cuda.set_device(device)
            dist.init_process_group("cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo")
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if strategy == "shard" and not dist.is_initialized():
            raise ConfigError("strategy shard needs processes; start it with torchrun --nproc-per-node N -m sciforge")
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
        # imported where needed: sharding brings 50 MB that no single process should pay for
        from torch.distributed.fsdp import FSDPModule, fully_shard

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

    def move(self, batch: Any) -> Any:
        """Send a batch (a mapping, or an object such as PyG's with `apply` or `to`) to the device.

        Its real numbers take the run's precision.
        """
        if isinstance(batch, Tensor):
            dtype = DTYPES[self.precision] if batch.is_floating_point() else batch.dtype
            return batch.to(self.device, dtype, non_blocking=True)
        if isinstance(batch, Mapping):
            return {name: self.move(value) for name, value in batch.items()}
        if hasattr(batch, "apply"):
            return batch.apply(self.move)
        return batch.to(self.device) if hasattr(batch, "to") else batch

    def sum(self, pairs: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        """Add named (sum, count) pairs over all processes, in order of rank; a process may lack some names."""
        added: dict[str, tuple[float, float]] = {}
        for share in self.gather(dict(pairs)):
            for name, (total, count) in share.items():
                before = added.get(name, (0.0, 0.0))
                added[name] = before[0] + total, before[1] + count
        return added

    def reduce_grads(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add gradients over all processes, once; FSDP2 has done so already.

        A weight that no process's share of the batch touched keeps no gradient, so that it does not move, as in one
        process.
        """
        if self.world == 1 or self.shard:
            return
        touched = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=self.device)
        dist.all_reduce(touched)
        parameters = [p for p, times in zip(parameters, touched.tolist(), strict=True) if times]
        if not parameters:
            return
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        dist.all_reduce(flat)
        for parameter, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = piece.view_as(parameter)

    def full_state(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the whole state of a model on the CPU (a collective call under `shard`)."""
        if not self.shard:
            return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))

    def load_state(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Load a whole state, splitting it under `shard`."""
        if self.shard:
            from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
            from torch.distributed.fsdp import FSDPModule

            for module in model.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()  # an evaluation leaves the root whole
            set_model_state_dict(model, dict(state), options=StateDictOptions(full_state_dict=True))
        else:
            model.load_state_dict(state)

    def full(self, tensor: Tensor) -> Tensor:
        """Return a whole tensor on the CPU (a collective call under `shard`)."""
        tensor = tensor.detach()
        return (tensor.full_tensor() if self.shard and hasattr(tensor, "full_tensor") else tensor).cpu().clone()

    def like(self, parameter: Tensor, whole: Tensor) -> Tensor:
        """Return `whole` placed, and split, as `parameter` is."""
        whole = whole.to(device=self.device, dtype=parameter.dtype)
        if self.shard and hasattr(parameter, "device_mesh"):
            from torch.distributed.tensor import distribute_tensor

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
