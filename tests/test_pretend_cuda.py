"""The pretend GPU itself: what it must refuse, count and compute before others test on it."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretend_cuda import CUDA, MixedDeviceError, PretendGpu, pretend_cuda
from torch import nn


@pytest.fixture
def gpu():
    with pretend_cuda() as gpu:
        yield gpu


def kinds(gpu: PretendGpu) -> list[str]:
    """Return the kinds of all synchronisations, in order of their first time."""
    return [line.split(" ", 1)[1] for line in gpu.syncs]


def test_tensors_say_where_they_are(gpu: PretendGpu):
    x = torch.zeros(2, 3, device="cuda")
    for tensor in (
        x,
        x + 1,
        x[0],
        x.new_ones(2),
        torch.zeros_like(x),
        torch.ones(2).to(CUDA),
        torch.ones(2).cuda(),
    ):
        assert (
            tensor.device == CUDA
            and tensor.is_cuda
            and not tensor.is_cpu
            and tensor.get_device() == 0
        )
    assert x.cpu().device.type == "cpu" and torch.zeros(2).device.type == "cpu"
    assert x.to("cuda") is x and x.to(torch.float32) is x and x.to(torch.float64) is not x
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(x)


def test_the_pretence_ends():
    available = torch.cuda.is_available()
    with pretend_cuda():
        assert torch.cuda.is_available() and torch.cuda.device_count() == 1
        kept = torch.ones(2, device="cuda")
    assert torch.cuda.is_available() == available and torch.autocast.__module__.startswith("torch")
    assert not torch.__future__.get_swap_module_params_on_conversion()
    with pytest.raises(RuntimeError, match="outside"):
        kept + 1


@pytest.mark.parametrize(
    "mixed",
    [
        lambda cpu, cuda: cpu + cuda,
        lambda cpu, cuda: torch.where(cuda > 0, cpu, cuda),
        lambda cpu, cuda: cpu @ cuda,
        lambda cpu, cuda: torch.cat([cpu, cuda]),
        lambda cpu, cuda: torch.stack([cpu[0, 0], cuda[0, 0]]),
        lambda cpu, cuda: cpu[cuda[0].long()],
        lambda cpu, cuda: cuda.index_select(0, torch.tensor([0])),
        lambda cpu, cuda: cuda.index_put_((torch.tensor([0]),), cpu[0]),
        lambda cpu, cuda: cuda.scatter_add(0, torch.zeros(3, 3).long(), cuda),
        lambda cpu, cuda: cpu.add_(cuda[0, 0]),
        lambda cpu, cuda: F.embedding(torch.tensor([0]), cuda),
        lambda cpu, cuda: F.linear(cuda, cuda, cpu[0]),
        lambda cpu, cuda: F.mse_loss(cuda, cpu),
        lambda cpu, cuda: torch._foreach_mul([cuda], [cpu]),
    ],
)
def test_mixed_devices_raise(gpu: PretendGpu, mixed):
    with pytest.raises(MixedDeviceError, match="cuda:0|cpu"):
        mixed(torch.ones(3, 3), torch.ones(3, 3, device="cuda"))


def test_what_cuda_lets_through(gpu: PretendGpu):
    x = torch.arange(3.0, device="cuda")
    assert (x * torch.tensor(2.0)).tolist() == [0, 2, 4]
    assert torch.tensor(2.0).mul(x).tolist() == [0, 2, 4]
    assert x.masked_fill(x > 1, torch.tensor(7.0)).tolist() == [0, 1, 7]
    assert x[torch.tensor([2, 0])].tolist() == [2, 0]
    x.copy_(torch.zeros(3))
    x[1] = torch.tensor(5.0)
    assert x.tolist() == [0, 5, 0]


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        ("item", lambda x: x.sum().item()),
        ("item", lambda x: float(x[0])),
        ("item", lambda x: bool(x.any())),
        ("item", lambda x: [0, 1, 2][x[1].long()]),
        ("item", lambda x: f"{x[0]:.1f}"),
        ("item", lambda x: torch.tensor([x[0], 1.0])),
        ("copy to host", lambda x: x.cpu()),
        ("copy to host", lambda x: x.tolist()),
        ("copy to host", lambda x: x.to("cpu", torch.float64)),
        ("copy to host", lambda x: torch.zeros(3).copy_(x)),
        ("nonzero", lambda x: x.nonzero()),
        ("nonzero", lambda x: torch.where(x > 1)),
        ("boolean index", lambda x: x[x > 1]),
        ("boolean index", lambda x: x.index_put_((x > 1,), x[:1])),
        ("masked_select", lambda x: x.masked_select(x > 1)),
        ("unique", lambda x: x.unique()),
        ("repeat_interleave", lambda x: x.repeat_interleave(x.long())),
        ("bincount", lambda x: x.long().bincount()),
        ("equal", lambda x: torch.equal(x, x + 1)),
        ("blocking copy to device", lambda x: torch.tensor([1.0], device="cuda")),
        ("blocking copy to device", lambda x: torch.ones(2).to("cuda")),
        ("blocking copy to device", lambda x: x[[0, 2]]),
        ("index copied to device", lambda x: x[torch.tensor([0])]),
        ("linalg", lambda x: torch.linalg.cholesky(torch.diag(x + 1))),
        ("synchronize", lambda x: torch.cuda.synchronize()),
    ],
)
def test_synchronisations_are_counted(gpu: PretendGpu, kind: str, work):
    x = torch.arange(3.0, device="cuda")
    work(x)
    assert kinds(gpu) == [kind] and gpu.waits == 1
    assert next(iter(gpu.syncs)).startswith("test_pretend_cuda.py:")


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_synchronisations_are_counted_without_gradients(gpu: PretendGpu, mode):
    x = torch.arange(3.0, device="cuda")
    with mode():
        assert float(x.sum()) == 3 and bool((x > 1).any()) and x.cpu().tolist() == [0, 1, 2]
        F.linear(x[None], x[None])
    assert gpu.waits == 3, gpu.syncs


@pytest.mark.parametrize(
    "work",
    [
        lambda x: (x + 1).sum().sqrt().clamp(max=2),
        lambda x: torch.where(x > 1, x, 0.0),
        lambda x: x.masked_fill(x > 1, 0.0),
        lambda x: x.__setitem__(x > 1, 0.0),
        lambda x: x.__setitem__(slice(1), 7.0),
        lambda x: x[1:] + x[0],
        lambda x: x[x.argsort()],
        lambda x: x.repeat_interleave(x.long(), output_size=3),
        lambda x: F.one_hot(x.long(), 3),
        lambda x: torch.zeros(4, device=x.device).index_add_(0, x.long(), x),
        lambda x: torch.linalg.cholesky_ex(torch.diag(x + 1)),
        lambda x: len(x) + x.shape[0] + x.numel(),
    ],
)
def test_work_on_the_device_waits_for_nothing(gpu: PretendGpu, work):
    work(torch.arange(3.0, device="cuda"))
    assert gpu.waits == 0, gpu.syncs


def test_pinned_and_nonblocking_copies(gpu: PretendGpu):
    x = torch.ones(3)
    assert not x.is_pinned() and x.pin_memory().is_pinned()
    assert torch.empty(2, pin_memory=True).is_pinned()
    assert x.pin_memory().to("cuda", non_blocking=True).tolist() == [1, 1, 1]
    assert x.to("cuda", non_blocking=True).device == CUDA
    torch.zeros(3, device="cuda").copy_(x, non_blocking=True)
    assert gpu.copies["pinned"] == 1 and gpu.copies["pageable"] == 2
    assert kinds(gpu) == ["copy to host"]  # of tolist
    assert x.to("cuda").to("cpu", non_blocking=True).tolist() == [1, 1, 1]
    assert gpu.syncs.total() == 2  # one more: the blocking copy to the device


def test_generators(gpu: PretendGpu):
    own, other = torch.Generator("cuda").manual_seed(3), torch.Generator().manual_seed(3)
    assert own.device == CUDA and other.device.type == "cpu"
    assert torch.randn(3, generator=own, device="cuda").cpu().equal(torch.randn(3, generator=other))
    p = torch.tensor([0.0, 1.0]).to("cuda", non_blocking=True)
    assert torch.multinomial(p, 1, generator=own).tolist() == [1]
    for draw in (
        lambda: torch.randn(3, generator=other, device="cuda"),
        lambda: torch.randperm(3, generator=own),
        lambda: torch.multinomial(p, 1, generator=other),
        lambda: torch.empty(3).normal_(generator=own),
    ):
        with pytest.raises(MixedDeviceError, match="generator"):
            draw()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.0), nn.Linear(8, 1)
    ).double()


def trained(device: str, steps: int = 5, **options) -> dict[str, torch.Tensor]:
    """Return the weights of a small network after steps of AdamW with clipping and an average."""
    model = network().to(device)
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1)).double().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, **options)
    average = [p.detach().clone() for p in model.parameters()]
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(x)[:, 0] - x.sum(1)).square().mean()
        slope = torch.autograd.grad(model(x.requires_grad_()).sum(), x, create_graph=True)[0]
        (loss + 0.1 * slope.square().mean()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 0.1)
    weights = {**model.state_dict(), "average": average[0]}
    assert all(w.device.type == device for w in weights.values())
    return {name: w.detach().cpu() for name, w in weights.items()}


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"foreach": False}])
def test_training_is_exact(options: dict[str, bool]):
    on_cpu = trained("cpu", **options)
    with pretend_cuda() as gpu:
        on_gpu = trained("cuda", **options)
    assert not [name for name in on_cpu if not torch.equal(on_cpu[name], on_gpu[name])]
    assert not [
        line
        for line in gpu.syncs
        if "item" in line and "cuda.py" not in line and options.get("fused")
    ]


def test_gradients_flow_across_devices(gpu: PretendGpu):
    weight = torch.ones(3, requires_grad=True)
    (weight.to("cuda") * torch.arange(3.0, device="cuda")).sum().cpu().backward()
    assert weight.grad.tolist() == [0, 1, 2] and weight.grad.device.type == "cpu"


def test_modules_keep_their_parameters(gpu: PretendGpu):
    model = nn.ModuleDict(
        {"embed": nn.Embedding(5, 4), "out": nn.Linear(4, 5, bias=False), "norm": nn.BatchNorm1d(4)}
    )
    model["out"].weight = model["embed"].weight
    before = list(model.parameters())
    model.to("cuda")
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert model["out"].weight is model["embed"].weight and model["embed"].weight.device == CUDA
    assert model["norm"].running_mean.device == CUDA
    model.load_state_dict(
        {name: torch.full_like(w, 2).cpu() for name, w in model.state_dict().items()}
    )
    assert model["out"].weight.device == CUDA and float(model["out"].weight.detach().mean()) == 2
    twin = copy.deepcopy(model)
    assert twin["out"].weight is twin["embed"].weight and isinstance(
        twin["out"].weight, nn.Parameter
    )
    with torch.no_grad():
        twin["out"].weight.zero_()
    assert float(model["out"].weight.detach().mean()) == 2
    assert model.cpu()["out"].weight.device.type == "cpu"


def test_autocast_casts_as_cuda_does(gpu: PretendGpu):
    x, weight = torch.randn(2, 4, device="cuda"), nn.Parameter(torch.randn(3, 4, device="cuda"))
    with torch.autocast("cuda", torch.bfloat16):
        low = F.linear(x, weight)
        assert low.dtype == (x @ weight.T).dtype == torch.bfloat16
        assert F.gelu(low).dtype == torch.bfloat16
        assert (
            low.softmax(-1).dtype
            == F.layer_norm(low, (3,)).dtype
            == low.sum().dtype
            == torch.float32
        )
        assert torch.cat([low, low.float()]).dtype == torch.float32
        assert (x.double() @ weight.double().T).dtype == torch.float64
        with torch.autocast("cuda", enabled=False):
            assert F.linear(x, weight).dtype == torch.float32
        F.linear(x, weight).float().sum().backward()
        assert torch.ones(2, 2).mm(torch.ones(2, 2)).dtype == torch.float32  # a tensor of the CPU
    assert weight.grad.dtype == torch.float32 and weight.grad.device == CUDA
    assert F.linear(x, weight).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.ones(2, 2).mm(torch.ones(2, 2)).dtype == torch.bfloat16


def test_views_and_functional_transforms(gpu: PretendGpu):
    x = torch.zeros(2, 3, device="cuda")
    x.view(-1)[4] = 1.0
    x[0].add_(2)
    x.T[2, 1] = 5.0
    assert x.tolist() == [[2, 2, 2], [0, 1, 5]]
    assert x.unsqueeze_(0).shape == (1, 2, 3) and x.tolist() == [[[2, 2, 2], [0, 1, 5]]]
    normal = torch.ones(2, 3, device="cuda")
    with torch.inference_mode():
        doubled = (normal.view(-1) * 2).view(3, 2)
    assert doubled.add_(1).tolist() == [[3, 3], [3, 3], [3, 3]]
    per_row = torch.func.vmap(torch.func.grad(lambda row: (row**2).sum()))(
        torch.ones(2, 3, device="cuda")
    )
    assert per_row.device == CUDA and per_row.tolist() == [[2, 2, 2], [2, 2, 2]]
