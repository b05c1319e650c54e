"""What does a step cost in time, memory and traffic, and does a model of it predict what is
measured?

    python benchmarks/cost_model.py            measures constants of this machine, predicts and
    measures: 2 minutes python benchmarks/cost_model.py --project  prints what 8, 64 and 512 GPUs
    would do, by the same formulas

The model trained is a DnaBert on random bases by the shared loop, in float32. Constants are
measured with single operations (a product of matrices, attention, an addition, AdamW, an
all-reduce), never with the model. Times are of processor time a process, since others use the
machine: on one host gloo's transfers are copies that processors make; waiting is left out. Legend:
T tokens of a process's batch, L length, D width, F hidden width, H heads, N blocks, P parameters, p
processes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sciforge.core.data.store import Store, prepare
from sciforge.core.domain import seeded_model
from sciforge.core.training import loop
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.genomes.data.codec import KmerCodec
from sciforge.genomes.data.genome import Genome
from sciforge.genomes.model.dna_bert import DnaBertConfig
from sciforge.genomes.objectives.masked_kmers import MaskedKmers

STEPS, SKIPPED = 10, 2
WAYS = ("replicate", "shard", "tensor")
# Reads and writes of elements a block, forward and backward: 2 norms 46 D, rotation 32 D, residuals
# and the sums of gradients that meet 21 D, transposition 4 D; silu and product 14 F.
ACCESSES_D, ACCESSES_F = 103, 14
# forward: attention and MLP out; backward: query, key, value, gate, up
ROW_ALL_REDUCES, COLUMN_ALL_REDUCES = 2, 5


@dataclass(frozen=True)
class Shape:
    """A transformer and the batch of a whole step; `chosen` is the share of tokens that the last
    block computes.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    tokens: int
    length: int
    chosen: float = 1.0
    other_parameters: int = 0

    @property
    def block_parameters(self) -> int:
        """Of one block: four square matrices, three of the MLP, two norms."""
        return 4 * self.width**2 + 3 * self.width * self.hidden + 2 * self.width

    @property
    def parameters(self) -> int:
        """Of blocks, final norm and the rest."""
        return self.depth * self.block_parameters + self.width + self.other_parameters

    @property
    def blocks(self) -> float:
        """How many whole blocks' products a forward pass takes."""
        square, gated = self.width**2, 3 * self.width * self.hidden
        return (
            self.depth
            - 1
            + (2 * square + self.chosen * (2 * square + gated)) / (4 * square + gated)
        )

    def linear_flops(self) -> float:
        """Of the blocks' products and the language head, forward."""
        block = 8 * self.width**2 + 6 * self.width * self.hidden
        return self.tokens * (self.blocks * block + self.chosen * 2 * self.width**2)

    def attention_flops(self) -> float:
        """Of scores and their mixing, forward."""
        return 4 * self.tokens * self.length * self.width * (self.depth - 1 + self.chosen)

    def saved_bytes(self, checkpointing: bool, cut: int = 1) -> float:
        """Of activations kept for the backward pass, float32: 11 D + 4 F + H + 2 a token and block,
        or its input.

        Each norm keeps its input, the scaled input and its output, attention q, k, v and its output
        twice, the MLP four of width F. Blocks cut for several processes keep the norms' whole. With
        checkpointing one block's are rebuilt at a time, on top of these.
        """
        full = 6 * self.width + 2 + (5 * self.width + 4 * self.hidden + self.heads) / cut
        # norm, keys, values: of all
        last = ((3 + 2 / cut) * self.width + 1) * (1 - self.chosen) + full * self.chosen
        kept = self.depth * self.width if checkpointing else (self.depth - 1) * full + last
        return 4.0 * self.tokens * (kept + self.chosen * 5 * self.width)  # final norm and head


@dataclass(frozen=True)
class Machine:
    """Constants of a machine; seconds a forward flop are of forward and backward together.

    Args:
        linear, cut_linear, attention: seconds a forward flop of whole matrices, of their pieces, of
            attention.
        access: seconds an element read or written.
        optimiser, split_optimiser: seconds a parameter of AdamW, fused and by operations over lists
            (split weights).
        link: seconds a byte of an all-reduce, gathered and scattered bytes costing half.
        cut_link: the same for the fresh activations between the pieces of a block (torch's DTensor
            copies them).
        latency: seconds of an all-reduce of nothing.
        block: seconds a block of issuing its operations, forward and backward.
        cut_block, shard_block: the same, more, where its matrices are cut (torch's DTensor) or
            sharded (FSDP2).
        weight: seconds of optimiser and clipping for a split weight, however small.
    """

    linear: float
    cut_linear: float
    attention: float
    access: float
    optimiser: float
    split_optimiser: float
    link: float = 0.0
    cut_link: float = 0.0
    latency: float = 0.0
    block: float = 0.0
    cut_block: float = 0.0
    shard_block: float = 0.0
    weight: float = 0.0


def traffic(shape: Shape, way: str, p: int, sizes: tuple[int, int] = (4, 4)) -> tuple[float, float]:
    """Return (bytes to all-reduce a process and step, number of calls); gathers and scatters
    count half.
    """
    if p == 1 or way == "replicate":
        return (0.0, 0.0) if p == 1 else (4.0 * shape.parameters, 3)
    if way == "shard":  # weights gathered forward and again backward, gradients scattered
        return 4.0 * shape.parameters * 1.5, 3 * (shape.depth + 1) / 2 + 3
    forward, backward = sizes  # bytes of an activation and of its gradient
    calls = ROW_ALL_REDUCES + COLUMN_ALL_REDUCES
    block = ROW_ALL_REDUCES * forward + COLUMN_ALL_REDUCES * backward
    # of the last block only keys and values see all tokens
    rows = shape.depth - 1 + (2 + 5 * shape.chosen) / 7
    return shape.tokens * shape.width * block * rows, calls * shape.depth


def seconds(
    shape: Shape, machine: Machine, way: str, p: int, sizes: tuple[int, int] = (4, 4)
) -> dict[str, float]:
    """Return the seconds of a step by part, for one of p processes that share the shape's batch."""
    mine = shape if way == "tensor" else replace(shape, tokens=shape.tokens // p)
    cut = p if way == "tensor" else 1
    accesses = mine.tokens * mine.blocks * (ACCESSES_D * mine.width + ACCESSES_F * mine.hidden)
    # each has its heads and hidden units, and the norms and residuals of the whole
    if way == "tensor":
        accesses = (
            mine.tokens * mine.blocks * ((67 + 36 / p) * mine.width + ACCESSES_F * mine.hidden / p)
        )
    held = shape.parameters if way == "replicate" else shape.parameters / p
    # weights in pieces
    split = 0 if p == 1 else shape.depth * {"replicate": 0, "shard": 9, "tensor": 7}[way]
    moved, calls = traffic(mine, way, p, sizes)
    more = (
        0.0
        if p == 1
        else {"replicate": 0.0, "shard": machine.shard_block, "tensor": machine.cut_block}[way]
    )
    return {
        "products": mine.linear_flops() / cut * (machine.cut_linear if cut > 1 else machine.linear),
        "attention": mine.attention_flops() / cut * machine.attention,
        "elements": (accesses + 8 * held) * machine.access,
        "optimiser": (
            held * (machine.split_optimiser if split else machine.optimiser)
            + split * machine.weight
        ),
        "traffic": (
            moved * (machine.cut_link if cut > 1 else machine.link) + calls * machine.latency
        ),
        "issuing": shape.depth * (machine.block + more),
    }


def memory(
    shape: Shape, way: str, p: int, passes: int = 1, checkpointing: bool = False, share: float = 1.0
) -> float:
    """Return the bytes a process needs: weights, gradients, two moments (16 a parameter),
    activations of a pass.

    `share` is that of float32's activations which a lower precision keeps (bfloat16 autocast about
    0.6).
    """
    mine = shape if way == "tensor" else replace(shape, tokens=shape.tokens // p)
    mine = replace(mine, tokens=max(mine.tokens // passes, shape.length))
    held = 16.0 * shape.parameters / (1 if way == "replicate" else p)
    return held + share * mine.saved_bytes(checkpointing, p if way == "tensor" else 1)


def spent(function: Callable[[], Any], repeats: int = 7) -> float:
    """Return the least processor time of a call."""
    function()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


def products(tokens: int, width: int, inner: int, hidden: int) -> float:
    """Return the seconds a forward flop of a block's products: to and from the heads (3 and 1),
    the MLP (2 and 1).
    """
    total = flops = 0.0
    for num, source, target in (
        (3, width, inner),
        (1, inner, width),
        (2, width, hidden),
        (1, hidden, width),
    ):
        x, w = (
            torch.randn(tokens, source, requires_grad=True),
            torch.randn(target, source, requires_grad=True),
        )
        grad = torch.randn(tokens, target)
        total += num * spent(lambda x=x, w=w, grad=grad: F.linear(x, w).backward(grad))
        flops += num * 2 * tokens * source * target
    return total / flops


def measure_machine(shape: Shape) -> Machine:
    """Measure single operations at the size of the model."""
    tokens, width, hidden, length = shape.tokens, shape.width, shape.hidden, shape.length
    q, k, v = (
        torch.randn(tokens // length, shape.heads, length, width // shape.heads) for _ in range(3)
    )
    qkv = [t.requires_grad_() for t in (q, k, v)]
    attention = spent(lambda: F.scaled_dot_product_attention(*qkv).backward(q.detach()))
    a, b = (torch.randn(tokens, width) for _ in range(2))
    # into fresh memory, as activations are
    access = spent(lambda: [a * b for _ in range(20)]) / 60 / a.numel()
    optimiser = {}
    for fused in (True, False):
        weights = [nn.Parameter(torch.randn(hidden, width)) for _ in range(4)]
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        adam = torch.optim.AdamW(weights, fused=fused, foreach=not fused)
        optimiser[fused] = spent(adam.step) / sum(weight.numel() for weight in weights)
    tiny = seeded_model(DnaBertConfig(8, 8, 2, 8), KmerCodec(k=1), (), 0).encoder
    few = torch.randn(1, 4, 8)
    block = spent(lambda: tiny(few).sum().backward()) / 8
    per_flop = attention / (4 * tokens * length * width)
    linear, cut_linear = (products(tokens, width, width // p, hidden // p) for p in (1, 2))
    return Machine(
        linear, cut_linear, per_flop, access, optimiser[True], optimiser[False], block=block
    )


def measure_links(sizes: tuple[int, ...] = (1, 2**19, 2**22)) -> dict[str, float]:
    """Measure all-reduces among the processes that torchrun started, and what a block costs more
    when cut.
    """
    from torch import distributed
    from torch.distributed.tensor import DTensor, Partial

    from sciforge.core.training.distributed import Engine

    found = {}
    for size in sizes:
        flat = torch.zeros(size)
        found[size] = spent(lambda flat=flat: distributed.all_reduce(flat), 20)
    link = (found[sizes[-1]] - found[sizes[0]]) / 4 / (sizes[-1] - sizes[0])
    cpu, world = torch.device("cpu"), distributed.get_world_size()
    mesh = distributed.init_device_mesh("cpu", (1, world), mesh_dim_names=("data", "tensor"))
    one, many = (torch.zeros(size) for size in sizes[:2])
    sums = [
        spent(lambda x=x: DTensor.from_local(x, mesh["tensor"], [Partial()]).full_tensor(), 20)
        for x in (one, many)
    ]
    cut_link = (sums[1] - sums[0]) / 4 / (sizes[1] - sizes[0])
    took, adam = {}, {}
    for way in WAYS:
        engine = Engine(
            cpu,
            "float32",
            distributed.get_rank(),
            world,
            way == "shard",
            mesh=mesh if way == "tensor" else None,
        )
        tiny = engine.place(seeded_model(DnaBertConfig(8, 8, 2, 8), KmerCodec(k=1), (), 0).encoder)
        few = torch.randn(1, 4, 8)
        took[way] = spent(lambda tiny=tiny, few=few: tiny(few).sum().backward()) / 8
        weights = [
            w for w in tiny.parameters() if hasattr(w, "device_mesh") == (way != "replicate")
        ]
        step = torch.optim.AdamW(weights, foreach=True).step
        adam[way] = spent(lambda e=engine, w=weights, step=step: (e.clip(w, 1.0), step())) / len(
            weights
        )
    calls = {"shard_block": 1.5, "cut_block": ROW_ALL_REDUCES + COLUMN_ALL_REDUCES}
    more = {
        "shard_block": took["shard"] - took["replicate"],
        "cut_block": took["tensor"] - took["replicate"],
    }
    more = {name: max(value - calls[name] * found[sizes[0]], 0.0) for name, value in more.items()}
    return {
        "link": link,
        "cut_link": cut_link,
        "latency": found[sizes[0]],
        "weight": max(adam["shard"], adam["tensor"]),
        **more,
    }


def tiny_run(folder: Path) -> Run:
    """Return the run to measure: 8 windows of 256 tokens a step, 3 M parameters."""
    if not (folder / "store").exists():
        bases = "".join(np.random.default_rng(0).choice(list("ACGT"), 60_000))
        (folder / "random.fa").write_text(f">a\n{bases}\n")
        prepare(Genome(files=(folder / "random.fa",)), folder / "store")
    model = DnaBertConfig(width=256, depth=4, heads=4, hidden=704)
    return Run(
        data=folder / "store",
        out=folder / "out",
        model=model,
        codec=KmerCodec(k=4),
        objective=MaskedKmers(length=259),
        schedule=Schedule(steps=STEPS, batch=8),
        hardware=Hardware(device="cpu", threads=1),
    )


def step_seconds(run: Run) -> float:
    """Train and return the least processor time of a step in this process, the first ones left
    out.
    """
    take_step, found = loop.take_step, []

    def timed(*arguments: Any) -> Any:
        start = time.process_time()
        result = take_step(*arguments)
        found.append(time.process_time() - start)
        return result

    try:
        loop.take_step = timed
        loop.train(run)
    finally:
        loop.take_step = take_step
    return min(found[SKIPPED:])


def first_batch(objective: Any, codec: Any, records: Any, num: int) -> Any:
    """Return the first records as a batch."""
    rng = np.random.default_rng(0)
    return codec.collate([objective.prepare(records[i], codec, rng, True) for i in range(num)])


def saved_by(model: nn.Module, function: Callable[[], Any]) -> tuple[Any, float]:
    """Return a function's result and the bytes of the real tensors it saves for the backward
    pass, weights left out.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept, sizes = [], {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)  # so that no address is used twice
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    return result, float(sum(sizes.values()))


def saved_bytes(run: Run, checkpointing: bool) -> tuple[float, float]:
    """Return the bytes saved for the backward pass of one batch, and the share of tokens the
    last block computes.
    """
    model = seeded_model(run.model, run.codec, (run.objective,), 0)
    model.encoder.checkpointing = checkpointing
    records = run.objective.examples(Store.open(run.data), "train")
    batch = first_batch(run.objective, run.codec, records, run.schedule.batch)
    size = saved_by(model, lambda: run.objective.loss(model, batch))[1]
    # rows are filled to the fullest
    return size, int(batch["predicted"].sum(1).max()) / batch["predicted"].shape[1]


def worker(folder: Path) -> None:
    """Measure as one of the processes of torchrun."""
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    found: dict[str, Any] = {"constants": measure_links()}
    for way in WAYS:
        found[way] = step_seconds(replace(tiny_run(folder), out=folder / way, strategy=way))
    if distributed.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def compare() -> None:
    """Print the constants and predicted against measured."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = tiny_run(folder)
        plain, share = saved_bytes(run, False)
        model = seeded_model(run.model, run.codec, (run.objective,), 0)
        m = run.model
        shape = Shape(m.width, m.depth, m.heads, m.hidden, 8 * 256, 256, share)
        shape = replace(
            shape, other_parameters=sum(p.numel() for p in model.parameters()) - shape.parameters
        )
        machine = measure_machine(shape)
        alone = step_seconds(run)
        launch = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "--standalone",
        ]
        paths = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        command = [*launch, __file__, "--worker", str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-4000:])
        found = json.loads((folder / "found.json").read_text())
        machine = replace(machine, **found.pop("constants"))
        again = measure_machine(shape)  # others use the machine: the quieter of two measurements
        least = {
            name: min(value, getattr(machine, name))
            for name, value in asdict(again).items()
            if value and name
        }
        machine = replace(machine, **least)
        checkpointed = saved_bytes(run, True)[0]
    print(
        "constants of this machine:",
        *(f"  {name:<16}{value:.3g} s" for name, value in asdict(machine).items()),
        sep="\n",
    )
    print(f"\n{'':<34}{'predicted':>11}{'measured':>11}{'ratio':>8}")
    rows = [("1 process, s", sum(seconds(shape, machine, "replicate", 1).values()), alone)]
    rows += [
        (f"2 processes, {way}, s", sum(seconds(shape, machine, way, 2).values()), found[way])
        for way in WAYS
    ]
    rows += [("saved, MB", shape.saved_bytes(False) / 1e6, plain / 1e6)]
    rows += [("saved with checkpointing, MB", shape.saved_bytes(True) / 1e6, checkpointed / 1e6)]
    for label, predicted, measured in rows:
        print(f"{label:<34}{predicted:>11.3f}{measured:>11.3f}{predicted / measured:>8.2f}")
    print("\nseconds by part, as predicted:")
    for way, p in (("replicate", 1), *((way, 2) for way in WAYS)):
        parts = seconds(shape, machine, way, p)
        print(
            f"  {p} x {way:<10}", " ".join(f"{name} {value:.3f}" for name, value in parts.items())
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", action="store_true", help="what many GPUs would do")
    parser.add_argument("--worker", type=Path)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
    elif options.project:
        from cost_projection import project

        project()
    else:
        compare()
