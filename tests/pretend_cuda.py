"""A pretend GPU for machines without one: tensors on `cuda:0`, with real arithmetic on the CPU.

    with pretend_cuda() as gpu:
        train(run)                     # hardware.device = "cuda"
    gpu.syncs                          # Counter: "core/training/loop.py:81 item" -> times

* An operation that mixes devices raises MixedDeviceError where CUDA's would: a CPU tensor of no
  dimension may join a pointwise operation, CPU indices may index, copies may cross; a generator of
  another device may not be drawn from.
* What makes the host wait for the device is counted with its line in the package: `.item()`,
  `bool()`, copies to the host, blocking copies to the device, `nonzero` and boolean indices, checks
  of linear algebra.
* `torch.autocast("cuda", ...)` casts by the lists of operations that torch documents for CUDA.

Not pretended: streams, events, memory, kernels (CUDA's may be slower, unsupported, or add in
another order), torch.compile, torch.distributed. C++ takes the tensors for meta tensors, so true
meta tensors cannot be used beside them.
"""

import functools
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

import sciforge

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
PACKAGE = str(Path(sciforge.__file__).parent)

COPIES = (aten._to_copy.default, aten.copy_.default)
INDEXED = (aten.index.Tensor, aten._unsafe_index.Tensor)
INDEX_PUTS = (aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
# Besides pointwise operations, those that take a CPU tensor of no dimension as a number.
TAKES_CPU_NUMBER = (
    aten.fill_.Tensor,
    aten.fill.Tensor,
    aten.masked_fill.Tensor,
    aten.masked_fill_.Tensor,
)
SYNCHRONISES = {
    aten._local_scalar_dense.default: "item",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.equal.default: "equal",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.unique_consecutive.default: "unique",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten.bincount.default: "bincount",
    aten._linalg_check_errors.default: "linalg",
    aten._linalg_eigh.default: "linalg",
    aten._linalg_svd.default: "linalg",
    aten.linalg_eig.default: "linalg",
    aten.linalg_lstsq.default: "linalg",
}


LOAD_STATE_DICT = torch.nn.Module.load_state_dict


class MixedDeviceError(RuntimeError):
    """An operation on tensors, or a generator, of two devices that CUDA would refuse."""


@dataclass
class PretendGpu:
    """What a program did to the device.

    Args:
        syncs: "file:line kind" -> how often the host waited for the device there.
        copies: `pinned`, `pageable` (both to the device without waiting) or `to host` -> how many.
    """

    syncs: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)

    def wait(self, kind: str) -> None:
        """Count one synchronisation at the line of the package that asked for it."""
        self.syncs[f"{_place()} {kind}"] += 1

    @property
    def waits(self) -> int:
        """How often the host waited in all."""
        return self.syncs.total()


def _place() -> str:
    """Return the innermost line of the package, or of its caller where no frame is in it."""
    frame, outside = sys._getframe(2), None
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            return f"{file[len(PACKAGE) + 1 :]}:{frame.f_lineno}"
        if outside is None and file != __file__ and "/torch/" not in file:
            outside = f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return outside or "?"


def _no_numpy(self: Tensor, *args: Any, **kwargs: Any) -> Any:
    raise TypeError(
        f"can't convert cuda:0 device type tensor to numpy at {_place()}; copy it to the host first"
    )


class CudaTensor(Tensor):
    """A tensor that says it is on `cuda:0`; `host` holds its values."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: Tensor) -> "CudaTensor":
        shape = {"strides": host.stride(), "storage_offset": host.storage_offset()}
        kind = {"dtype": host.dtype, "layout": host.layout, "device": "meta"}
        tensor = Tensor._make_wrapper_subclass(cls, host.size(), **shape, **kind)
        tensor.host = host
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on a tensor of a pretend GPU outside of pretend_cuda()")

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)
    numpy = __array__ = _no_numpy

    def get_device(self) -> int:
        """Return the index of the device."""
        return 0

    def to(self, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
        """Return the tensor itself where nothing changes; C++ would compare with `meta`."""
        if args and isinstance(args[0], Tensor):
            device, dtype = args[0].device, args[0].dtype
        else:
            device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
        stays = (device is None or on_device(device)) and dtype in (None, self.dtype)
        return self if stays and not copy else super().to(*args, copy=copy, **kwargs)

    def cuda(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the tensor itself."""
        return self

    def tolist(self) -> Any:
        """Copy the values to the host as numbers."""
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        """Return the address of the values, by which shared memory is recognised."""
        return self.host.data_ptr()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else repr(self)

    def __repr__(self, **_: Any) -> str:
        return f"CudaTensor({self.host!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy: Tensor = CudaTensor(self.host.detach().clone())
        parameter = isinstance(self, torch.nn.Parameter)
        copy = (
            torch.nn.Parameter(copy, self.requires_grad)
            if parameter
            else copy.requires_grad_(self.requires_grad)
        )
        return memo.setdefault(id(self), copy)


def on_device(device: Any) -> bool:
    """Return whether a device is the pretend GPU; C++ calls it meta."""
    return device is not None and torch.device(device).type in ("cuda", "meta")


def _host(value: Any) -> Any:
    return value.host if isinstance(value, CudaTensor) else value


class Generator(torch.Generator):
    """A generator that says which device it is of."""

    # by the address of C++'s generator, which alone reaches an operation
    on_cuda: ClassVar[set[int]] = set()

    def __new__(cls, device: Any = "cpu") -> "Generator":
        generator = super().__new__(cls, "cpu")
        if on_device(device):
            cls.on_cuda.add(generator._cdata)
            weakref.finalize(generator, cls.on_cuda.discard, generator._cdata)
        return generator

    device = property(lambda self: CUDA if self._cdata in self.on_cuda else torch.device("cpu"))


# Dispatched operations ----------------------------------------------------------------------------


class Dispatch(TorchDispatchMode):
    """Runs every operation on the host; refuses what CUDA would and counts what it waits for."""

    def __init__(self, gpu: PretendGpu):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.ops.prim.device.default:
            return CUDA
        # composite operations arrive whole, not in their parts
        if torch.is_inference_mode_enabled():
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        operands = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        device = kwargs.get("device")
        placed = (
            any(isinstance(x, CudaTensor) for x in operands)
            if device is None
            else on_device(device)
        )
        self._require_generator(func, kwargs.get("generator"), placed)
        if any(isinstance(x, CudaTensor) for x in operands):
            self._require_one_device(func, args, operands)
            self._count_waits(func, args, kwargs)
        if func in COPIES:
            self._count_copy(func, args, kwargs)
        if not torch.is_inference_mode_enabled():
            return self._compute(func, args, kwargs, operands, placed)
        with (
            torch.inference_mode(False),
            torch.no_grad(),
        ):  # a view of a normal tensor is to stay one
            return self._compute(func, args, kwargs, operands, placed)

    @staticmethod
    def _require_generator(func: Any, generator: torch.Generator | None, placed: bool) -> None:
        if generator is not None and (generator._cdata in Generator.on_cuda) != placed:
            raise MixedDeviceError(
                f"{func} draws from a generator of another device, cuda:0 or cpu, at {_place()}"
            )

    @staticmethod
    def _require_one_device(func: Any, args: Any, operands: list[Tensor]) -> None:
        stray = [x for x in operands if not isinstance(x, CudaTensor)]
        if not stray or func in COPIES:
            return
        takes_number = torch.Tag.pointwise in func.tags or func in TAKES_CPU_NUMBER
        # indices may be on the host, for CUDA at the price of a copy
        if func in INDEXED + INDEX_PUTS:
            value = args[2:3] if func in INDEX_PUTS else ()
            fine = isinstance(args[0], CudaTensor) and all(
                isinstance(x, CudaTensor) or x.dim() == 0 for x in value
            )
        else:
            fine = takes_number and all(x.dim() == 0 for x in stray)
        in_place = func._schema.name.endswith("_") and not isinstance(
            args[0], CudaTensor | list | tuple
        )
        if in_place or not fine:
            raise MixedDeviceError(f"{func} has operands on cuda:0 and on cpu at {_place()}")

    def _count_waits(self, func: Any, args: Any, kwargs: Any) -> None:
        if func in SYNCHRONISES and kwargs.get("output_size") is None:
            self.gpu.wait(SYNCHRONISES[func])
        if func in INDEXED + INDEX_PUTS:
            indices = [x for x in args[1] if x is not None]
            masks = any(x.dtype in (torch.bool, torch.uint8) for x in indices)
            filled = (
                func in INDEX_PUTS and len(indices) == 1 and not isinstance(args[2], CudaTensor)
            )
            # a number put where a mask is true is a masked_fill, which does not wait
            if masks and not filled:
                self.gpu.wait("boolean index")
            if any(not isinstance(x, CudaTensor) for x in indices):
                self.gpu.wait("index copied to device")

    def _count_copy(self, func: Any, args: Any, kwargs: Any) -> None:
        if func is aten.copy_.default:
            target, source = args[:2]
            to_device, blocking = (
                isinstance(target, CudaTensor),
                not (args[2:] + (kwargs.get("non_blocking"),))[0],
            )
        else:
            source, device = args[0], kwargs.get("device")
            to_device = isinstance(source, CudaTensor) if device is None else on_device(device)
            blocking = not kwargs.get("non_blocking")
        if to_device == isinstance(source, CudaTensor):
            return
        if not to_device:
            self.gpu.copies["to host"] += 1
            if blocking:
                self.gpu.wait("copy to host")
        elif blocking:
            self.gpu.wait("blocking copy to device")
        else:
            self.gpu.copies["pinned" if source.is_pinned() else "pageable"] += 1

    def _compute(
        self, func: Any, args: Any, kwargs: Any, operands: list[Tensor], placed: bool
    ) -> Any:
        if on_device(kwargs.get("device")):
            kwargs["device"] = torch.device("cpu")
        pinned = kwargs.pop("pin_memory", None)
        if func is aten.copy_.default:
            placed = isinstance(args[0], CudaTensor)
        own = {id(x.host): x for x in operands if isinstance(x, CudaTensor)}
        result = func(*tree_map(_host, args), **tree_map(_host, kwargs))
        if not placed:
            return _pinned(result) if pinned else result
        # changes the shape of its argument: let C++ do it to the pretender too
        if torch.Tag.inplace_view in func.tags:
            with no_dispatch():
                func(*args, **kwargs)

        def wrap(
            value: Any,
        ) -> Any:  # what an operation changed in place is the caller's own tensor
            return (
                own.get(id(value))
                if id(value) in own
                else CudaTensor(value)
                if isinstance(value, Tensor)
                else value
            )

        return tree_map(wrap, result)


# Python functions: what torch does before it dispatches -------------------------------------------

# https://docs.pytorch.org/docs/stable/amp.html, operations of CUDA by the type they run in
LOW = frozenset(
    "__matmul__ __rmatmul__ addbmm addmm addmv addr baddbmm bmm chain_matmul multi_dot conv1d "
    "conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d einsum linear matmul mm "
    "mv prelu scaled_dot_product_attention".split()
)
FULL = frozenset(
    "__pow__ __rdiv__ __rpow__ __rtruediv__ acos asin binary_cross_entropy_with_logits cosh "
    "cosine_embedding_loss cdist cosine_similarity cross_entropy cumprod cumsum dist erfinv exp "
    "expm1 gaussian_nll_loss group_norm hinge_embedding_loss huber_loss kl_div l1_loss "
    "layer_norm log log10 log_softmax log1p log2 logsumexp margin_ranking_loss mse_loss "
    "multilabel_margin_loss multi_margin_loss nll_loss norm normalize pdist poisson_nll_loss "
    "pow prod reciprocal renorm rms_norm rsqrt sinh smooth_l1_loss soft_margin_loss softmax "
    "softmin softplus sum tan triplet_margin_loss".split()
)
WIDEST = frozenset(
    "addcdiv addcmul atan2 bilinear cat cross dot grid_sample index_put scatter_add stack tensordot"
    " vdot".split()
)


def _indexed(value: Any) -> Any:
    """Return `cuda` with the index that only a true device could tell."""
    return (
        CUDA
        if isinstance(value, str | torch.device) and str(value) in ("cuda", "cuda:0")
        else value
    )


class Functions(TorchFunctionMode):
    """Handles what is done before dispatch: constructors, indices that are lists, autocast."""

    def __init__(self, gpu: PretendGpu):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        first = args[0] if args else None
        args, kwargs = (
            args[:1] + tuple(map(_indexed, args[1:])),
            {k: _indexed(v) for k, v in (kwargs or {}).items()},
        )
        if func in (torch.tensor, torch.as_tensor, torch.asarray):
            return self._construct(func, args, kwargs)
        if name == "cuda":
            return first.to(CUDA, non_blocking=kwargs.get("non_blocking", False))
        if isinstance(first, CudaTensor):
            if name == "new_tensor":
                return self._construct(
                    torch.tensor, args[1:], {"dtype": first.dtype, "device": CUDA, **kwargs}
                )
            if func is torch.unravel_index:
                return tuple(
                    CudaTensor(x) for x in torch.unravel_index(first.host, *args[1:], **kwargs)
                )
            if name in ("__getitem__", "__setitem__"):
                args = self._place_indices(name, args)
        if Autocast.dtype is not None:
            args, kwargs, cast = self._cast(name, args, kwargs)
            if cast:
                with patch.object(Autocast, "dtype", None):
                    return func(*args, **kwargs)
        return func(*args, **kwargs)

    def _construct(self, func: Callable, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """Make a tensor of numbers: on the host first, as torch does, and then copied."""
        kwargs = dict(kwargs)
        data = args[0] if args else kwargs.pop("data", kwargs.pop("obj", None))
        device = kwargs.pop("device", None)
        if isinstance(data, CudaTensor):
            copy = data.detach().clone() if func is torch.tensor else data
            return copy.to(device=device or CUDA, dtype=kwargs.get("dtype") or data.dtype)
        data = tree_map(lambda x: x.item() if isinstance(x, CudaTensor) else x, data)
        tensor = func(data, *args[1:], **kwargs)
        return tensor.to(device) if device is not None else tensor

    def _place_indices(self, name: str, args: Any) -> Any:
        """Turn lists and arrays among indices into tensors, and a number to be put into one."""

        def place(index: Any) -> Any:
            return (
                torch.as_tensor(index).to(CUDA) if isinstance(index, list | np.ndarray) else index
            )

        index = tuple(map(place, args[1])) if isinstance(args[1], tuple) else place(args[1])
        if name == "__setitem__" and not isinstance(args[2], Tensor):
            return args[0], index, torch.tensor(args[2], dtype=args[0].dtype)
        return args[0], index, *args[2:]

    @staticmethod
    def _cast(name: str, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any], bool]:
        leaves, spec = tree_flatten((args, kwargs))
        real = [
            x
            for x in leaves
            if isinstance(x, CudaTensor) and x.is_floating_point() and x.dtype != torch.float64
        ]
        dtype = None
        if real and name in LOW:
            dtype = Autocast.dtype
        elif real and name in FULL and kwargs.get("dtype") is None:
            dtype = torch.float32
        elif real and name in WIDEST:
            dtype = max((x.dtype for x in real), key=lambda kind: kind.itemsize)
        if dtype is None:
            return args, kwargs, False
        ids = {id(x) for x in real}
        args, kwargs = tree_unflatten([x.to(dtype) if id(x) in ids else x for x in leaves], spec)
        return args, kwargs, True


class Autocast:
    """`torch.autocast` for the pretend GPU; other devices get torch's own."""

    dtype: torch.dtype | None = None  # of the innermost context that is on
    original = torch.autocast

    def __init__(
        self,
        device_type: str,
        dtype: torch.dtype | None = None,
        enabled: bool = True,
        **options: Any,
    ):
        self.real = (
            None if device_type == "cuda" else self.original(device_type, dtype, enabled, **options)
        )
        self.chosen = (dtype or torch.float16) if enabled else None

    def __enter__(self) -> Any:
        if self.real is not None:
            return self.real.__enter__()
        self.outer, Autocast.dtype = Autocast.dtype, self.chosen
        return self

    def __exit__(self, *error: Any) -> Any:
        if self.real is not None:
            return self.real.__exit__(*error)
        Autocast.dtype = self.outer
        return None

    def __call__(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return inside


# The switch ---------------------------------------------------------------------------------------


def _load_state_dict(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Load by copying into the parameters: swapping, which moves a module, is not for tensors in
    use.
    """
    torch.__future__.set_swap_module_params_on_conversion(False)
    try:
        return LOAD_STATE_DICT(self, *args, **kwargs)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(True)


def _pinned(tensor: Tensor) -> Tensor:
    tensor.pretends_to_be_pinned = True
    return tensor


@contextmanager
def pretend_cuda() -> Iterator[PretendGpu]:
    """Let torch see one GPU, `cuda:0`, and yield what is counted on it.

    Modules are moved by swapping tensors, so that a parameter stays the same object, as it does on
    a true GPU.
    """
    gpu, cuda = PretendGpu(), torch.cuda
    replaced = {
        cuda: {
            "is_available": lambda: True,
            "_lazy_init": lambda: None,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "set_device": lambda device: None,
            "is_bf16_supported": lambda *args, **kwargs: True,
            "synchronize": lambda device=None: gpu.wait("synchronize"),
            "get_rng_state": lambda device=None: torch.get_rng_state(),
            "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
        },
        torch: {"autocast": Autocast, "Generator": Generator},
        torch.amp: {"autocast": Autocast},
        torch.nn.Module: {"load_state_dict": _load_state_dict},
        Tensor: {
            "pin_memory": lambda self, device=None: _pinned(self.clone()),
            "is_pinned": lambda self, device=None: getattr(self, "pretends_to_be_pinned", False),
        },
    }
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    with ExitStack() as stack:
        for owner, values in replaced.items():
            for name, value in values.items():
                stack.enter_context(patch.object(owner, name, value))
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swapped)
        torch.__future__.set_swap_module_params_on_conversion(True)
        stack.enter_context(Functions(gpu))
        stack.enter_context(Dispatch(gpu))
        yield gpu
