"""One process or many: the only importer of torch.distributed, but for tensor_parallel.

Gradients are summed by hand once per step, not by DDP's hooks: forces need double backward, which
DDP and FSDP do not support. `shard` is FSDP2 for models whose domain allows it; `tensor` cuts the
matrices of blocks with a `tensor_plan` over the processes of a node, which then work on the same
examples (Megatron-LM, arXiv 1909.08053).
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sciforge.core.training.agreement import disagreement
from sciforge.core.training.rank_watch import RankWatch, broken_call
from sciforge.core.training.run import Hardware
from sciforge.core.training.stop_signals import ignored
from sciforge.core.training.tensor_parallel import cut
from sciforge.core.transfers import to_device
from sciforge.errors import ConfigError, SciforgeError

LOGGER = logging.getLogger("sciforge")
T = TypeVar("T")
DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}


def choose_device(name: str) -> torch.device:
    """Return the torch device of a name; `auto` is CUDA where there is one. Raises ConfigError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"hardware.device {name!r} is not a device; use auto, cpu or cuda"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("hardware.device is cuda but this torch sees no GPU; use cpu")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device


@dataclass(frozen=True)
class Engine:
    """Where the arithmetic runs: device, precision, this process's rank among `world`.

    Args:
        device: of this process.
        precision: `float32`, `bfloat16` (autocast) or `float64`.
        rank: of this process.
        world: how many processes there are.
        shard: whether FSDP2 splits the model over all of them.
        tensor: how many processes hold one model together under the strategy `tensor`; 1 otherwise.
        mesh: of [world / tensor, tensor] processes, under `tensor`.
        watch: what the processes know of each other; None where there is one.
    """

    device: torch.device
    precision: str
    rank: int = 0
    world: int = 1
    shard: bool = False
    tensor: int = 1
    mesh: Any = None
    watch: RankWatch | None = None

    @classmethod
    @contextmanager
    def start(
        cls,
        hardware: Hardware,
        strategy: str = "replicate",
        must_agree: Callable[[], Mapping[str, Mapping[str, str]]] | None = None,
    ) -> Iterator["Engine"]:
        """Join the processes that torchrun started (or none) and leave them at the end.

        Args:
            hardware: device, precision, timeout.
            strategy: how they share the model.
            must_agree: returns what all processes must have in common, for `compare`; called where
                there are several.

        Raises:
            ConfigError: processes disagree, one of them hung or died (it is named), or the strategy
                cannot be had.
        """
        device = choose_device(hardware.device)
        if hardware.threads:
            torch.set_num_threads(hardware.threads)
        products = torch.get_float32_matmul_precision()
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high" if hardware.tf32 else "highest")
        precision = hardware.precision
        if precision == "auto":
            precision = "bfloat16" if device.type == "cuda" else "float32"
        own = int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized()
        if own:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            _join(device, hardware.timeout)
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        watch = _watch(rank, world, hardware.timeout) if world > 1 else None
        LOGGER.debug("process %d of %d on %s in %s", rank, world, device, precision)
        engine = cls(device, precision, rank, world, watch=watch)
        try:
            engine.compare(must_agree() if must_agree and world > 1 else {})
            if strategy != "replicate" and not dist.is_initialized():
                start = "start it with torchrun --nproc-per-node N -m sciforge"
                raise ConfigError(f"strategy {strategy} needs processes; {start}")
            tensor, mesh = 1, None
            if strategy == "tensor":
                tensor = hardware.tensor or min(
                    int(os.environ.get("LOCAL_WORLD_SIZE", world)), world
                )
                if world % tensor:
                    raise ConfigError(
                        f"hardware.tensor {tensor} does not divide {world} processes; give a"
                        " divisor"
                    )
                mesh = dist.init_device_mesh(
                    device.type, (world // tensor, tensor), mesh_dim_names=("data", "tensor")
                )
            yield replace(engine, shard=strategy == "shard", tensor=tensor, mesh=mesh)
        except BaseException as error:
            if watch is None:
                raise
            if (broken := broken_call(error)) is not None:
                with ignored():  # torchrun signals all as soon as one process died
                    problem = watch.blame(broken)
                raise problem from None
            watch.note_error(error)
            raise
        finally:
            torch.set_float32_matmul_precision(products)
            if watch is not None:
                watch.end()
            if own:
                dist.destroy_process_group()

    def compare(self, own: Mapping[str, Mapping[str, str]]) -> None:
        """Stop all processes with one line where they do not have the same; see
        `agreement.disagreement`.

        Raises:
            ConfigError: names what differs, and at which processes.
        """
        if self.world > 1 and (problem := disagreement(self._gather(own, "a comparison"))):
            raise _on_all_ranks(ConfigError(problem))

    def in_turn(self, open_it: Callable[[], T]) -> T:
        """Call a function on the first process of each node, then on the others, and stop all where
        it fails on one.

        The first one leaves what the others need not do again (the digests of a store).

        Raises:
            SciforgeError: as the function does, on this process or another.
        """
        first = self.world == 1 or int(os.environ.get("LOCAL_RANK", self.rank)) == 0
        value: Any = None
        for turn in (True, False):
            problem = None
            if turn == first:
                try:
                    value = open_it()
                except SciforgeError as error:
                    problem = error
            self.raise_first(problem)
        return value

    def raise_first(self, problem: SciforgeError | None) -> None:
        """Raise on every process the first error that any process met."""
        problems = self._gather(problem and (type(problem), str(problem)), "its files")
        rank, first = next(((rank, p) for rank, p in enumerate(problems) if p), (0, None))
        if problem is not None and rank == self.rank:
            raise problem
        if first is not None:
            error = first[0].__new__(first[0])
            error.args = (f"rank {rank}: {first[1]}",)
            vars(error).update(path=None, line=None)
            raise _on_all_ranks(error)

    def any(self, flag: bool) -> bool:
        """Return whether any process says so; on the host, so that no device is waited for."""
        if self.world == 1:
            return flag
        device = "cpu" if "gloo" in str(dist.get_backend_config()) else self.device
        votes = torch.tensor([float(flag)], device=device)
        with self.waiting("whether to stop"):
            dist.all_reduce(votes, op=dist.ReduceOp.MAX)
            return bool(votes.item())

    def waiting(self, awaits: str) -> AbstractContextManager[None]:
        """Return the context of a collective call, which tells the other processes what is
        awaited.
        """
        return nullcontext() if self.watch is None else self.watch.waiting(awaits)

    def note_step(self, step: int) -> None:
        """Tell the other processes which step is in progress, counted from 1."""
        if self.watch is not None:
            self.watch.step = step

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    @property
    def parts(self) -> int:
        """Into how many parts a batch is cut: one a copy of the model."""
        return self.world // self.tensor

    @property
    def part(self) -> int:
        """Which part of a batch is this process's; those that hold one model together have the
        same.
        """
        return self.rank // self.tensor

    @property
    def splits(self) -> bool:
        """Whether a process holds pieces of weights, not whole ones."""
        return self.shard or self.mesh is not None

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device and precision; under `shard` and `tensor` split it over the
        processes.

        Raises:
            ConfigError: under `tensor`, the model has no plan for cutting it, or cannot be cut into
                so many pieces.
        """
        model.to(device=self.device, dtype=DTYPES[self.precision])
        if self.mesh is not None:
            cut(model, self.mesh["tensor"])
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
            # not inherited by nested units; the loop divides by the global count
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                # gloo has no scaled sum, which float32 would get
                module.set_force_sum_reduction_for_comms(True)
        return model

    def reshard(self, model: nn.Module) -> None:
        """Let go of the whole weights that FSDP2 keeps after a forward pass: they are no longer the
        weights once these were replaced.
        """
        if self.shard:
            from torch.distributed.fsdp import FSDPModule

            for module in model.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()

    def autocast(self) -> AbstractContextManager:
        """Return the context in which losses are computed."""
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    @contextmanager
    def enough_memory(self, examples: int) -> Iterator[None]:
        """Turn an out-of-memory error with so many examples at once into one line with a remedy.

        Raises:
            ConfigError: torch ran out of memory.
        """
        try:
            yield
        # torch.OutOfMemoryError is one; the CPU's allocator has no type of its own
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(
                error
            ):
                raise
            hint = f"set hardware.micro_batch {max(examples // 2, 1)} or hardware.checkpointing"
            raise ConfigError(
                f"out of memory on {self.device} with {examples} examples at once; {hint}"
            ) from None

    def move(self, batch: Any) -> Any:
        """Send a batch (a mapping, or an object such as PyG's with `apply` or `to`) to the device.

        Its real numbers take the run's precision.
        """
        if isinstance(batch, Tensor):
            dtype = DTYPES[self.precision] if batch.is_floating_point() else batch.dtype
            return to_device(batch, self.device, dtype)
        if isinstance(batch, Mapping):
            return {name: self.move(value) for name, value in batch.items()}
        if hasattr(batch, "apply"):
            return batch.apply(self.move)
        return batch.to(self.device) if hasattr(batch, "to") else batch

    def sum(self, pairs: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        """Add named (sum, count) pairs over all processes, in order of rank; a process may lack
        some names.
        """
        added: dict[str, tuple[float, float]] = {}
        for share in self.gather(dict(pairs), "losses"):
            for name, (total, count) in share.items():
                before = added.get(name, (0.0, 0.0))
                added[name] = before[0] + total, before[1] + count
        return added

    def reduce_grads(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add gradients over all parts of the batch, once; FSDP2 has done so already.

        A weight that no process's share of the batch touched keeps no gradient, so that it does not
        move, as in one process.
        """
        if self.parts == 1 or self.shard:
            return
        touched = torch.tensor(
            [p.grad is not None for p in parameters], dtype=torch.float32, device=self.device
        )
        with self.waiting("gradients"):
            dist.all_reduce(touched, group=self._group)
        parameters = [p for p, times in zip(parameters, touched.tolist(), strict=True) if times]
        if not parameters:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        with self.waiting("gradients"):
            dist.all_reduce(flat, group=self._group)
        for parameter, grad, piece in zip(
            parameters, grads, flat.split([g.numel() for g in grads]), strict=True
        ):
            if grad is parameter.grad:
                parameter.grad = piece.view_as(grad)
            else:
                grad.copy_(piece.view_as(grad))

    def clip(self, parameters: Sequence[nn.Parameter], largest: float) -> float | Tensor:
        """Scale gradients so that their norm over all weights is at most `largest`; return the norm
        before.

        The host does not wait for the norm, except under `tensor`.
        """
        if self.mesh is None:
            total = nn.utils.clip_grad_norm_(parameters, largest)
            return total.full_tensor() if hasattr(total, "full_tensor") else total
        grads: list[Any] = [parameter.grad for parameter in parameters]
        whole, pieces = (
            [g for g in grads if hasattr(g, "to_local") == cut] for cut in (False, True)
        )
        # the same on all processes
        squares = [nn.utils.get_total_norm(whole).double().square()] if whole else []
        if pieces:
            total = nn.utils.get_total_norm(pieces)
            squares.append(getattr(total, "full_tensor")().double().square())  # noqa: B009
        norm = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
        if norm > largest:
            # as clip_grad_norm_ does
            torch._foreach_mul_([local(grad) for grad in grads], largest / (norm + 1e-6))
        return norm

    def full_state(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the whole state of a model on the CPU; a collective call under `shard` and
        `tensor`.

        Under `shard` the first process alone gets it, one tensor at a time, so that it must fit
        into no GPU; the others get nothing.
        """
        if not self.shard:
            return {name: self.full(tensor) for name, tensor in model.state_dict().items()}
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        with self.waiting("weights to save"):
            return dict(get_model_state_dict(model, options=options))  # type: ignore[arg-type]

    def load_state(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Load a whole state, splitting it as the model is split; under `shard` that of the
        first process.
        """
        if self.shard:
            from torch.distributed.checkpoint.state_dict import (
                StateDictOptions,
                set_model_state_dict,
            )
            from torch.distributed.fsdp import FSDPModule

            for module in model.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()  # an evaluation leaves the root whole
            on_gpu = self.device.type == "cuda"
            options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=on_gpu)
            whole: list[Any] = [dict(state)]
            with self.waiting("weights to load"):
                if not on_gpu:  # gloo broadcasts no tensor of 16-bit integers, which trees hold
                    dist.broadcast_object_list(whole, src=0)
                set_model_state_dict(model, whole[0], options=options)
        else:
            own = model.state_dict()
            model.load_state_dict(
                {name: self.like(own[name], tensor) for name, tensor in state.items()}
            )

    def full(self, tensor: Tensor) -> Tensor:
        """Return a whole tensor on the CPU (a collective call where it is split)."""
        tensor = tensor.detach()
        return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).cpu().clone()

    def like(self, parameter: Tensor, whole: Tensor) -> Tensor:
        """Return `whole` placed, and split, as `parameter` is."""
        whole = whole.to(device=self.device, dtype=parameter.dtype)
        if self.splits and hasattr(parameter, "device_mesh"):
            from torch.distributed.tensor import DTensor, distribute_tensor

            assert isinstance(parameter, DTensor)
            return distribute_tensor(whole, parameter.device_mesh, parameter.placements)
        return whole.clone()

    @property
    def _group(self) -> Any:
        """The processes that hold the same weights and work on different examples; None for all
        there are.
        """
        return None if self.mesh is None else self.mesh.get_group("data")

    def gather(self, value: Any, awaits: str = "results") -> list[Any]:
        """Return the value of every part of the batch, in order."""
        if self.parts == 1:
            return [value]
        values: list[Any] = [None] * self.parts
        with self.waiting(awaits):
            dist.all_gather_object(values, value, group=self._group)
        return values

    def agree(self, error: str | None) -> str | None:
        """Return the first error that any process reports, so that all stop together."""
        return next((first for first in self._gather(error, "its files") if first), None)

    def _gather(self, value: Any, awaits: str) -> list[Any]:
        """Return the value of every process, in order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with self.waiting(awaits):
            dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            with self.waiting("a checkpoint"):
                dist.barrier()


def _join(device: torch.device, timeout: float) -> None:
    """Join the processes that torchrun started."""
    limit = timedelta(seconds=timeout)
    backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
    store, rank, world = next(dist.rendezvous("env://", timeout=limit))
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("sciforge", store),
        rank=rank,
        world_size=world,
        timeout=limit,
    )


def _watch(rank: int, world: int, timeout: float) -> RankWatch:
    """Begin to watch the other processes, by the store in which all met."""
    return RankWatch(dist.distributed_c10d._get_default_store(), rank, world, timeout).start()


def _on_all_ranks(error: SciforgeError) -> SciforgeError:
    error.on_all_ranks = True
    return error


def local(tensor: Tensor) -> Tensor:
    """Return this process's piece of a split tensor, or the tensor itself; it shares the memory."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
