"""What 8, 64 and 512 GPUs would do by the formulas of cost_model.py: a projection, nothing here is
measured.

    python benchmarks/cost_model.py --project

Assumed, as parameters below: metrics of an H100's data sheet times what programs commonly reach;
activations in bfloat16 autocast, weights and gradients in float32 as the engine keeps them; no
overlap of traffic with arithmetic, which is how `replicate` works (one sum after the backward pass)
and a lower bound for `shard`.
"""

from cost_model import Machine, Shape, memory, seconds, traffic

FLOPS = 989e12 * 0.4  # dense bfloat16 times the share of it that transformers of this width reach
# bytes a second and direction: within a node; to others (400 Gb/s a GPU)
NVLINK, NETWORK = 450e9 * 0.7, 50e9 * 0.8
MEMORY_RATE, MEMORY = 3.35e12 * 0.7, 80e9
NODE, LATENCY = 8, 25e-6
TOKENS, LENGTH = 2**20, 1024  # of a step, over all GPUs

MODELS = {
    "dna base, 0.1 G": Shape(768, 12, 12, 2048, TOKENS, LENGTH, other_parameters=3_200_000),
    "1.3 G": Shape(2048, 24, 16, 5632, TOKENS, LENGTH, other_parameters=8_400_000),
    "6.6 G": Shape(4096, 32, 32, 11008, TOKENS, LENGTH, other_parameters=16_800_000),
}


def machine(gpus: int) -> Machine:
    """Return the constants of so many GPUs; an all-reduce moves each byte twice."""
    rate = NVLINK if gpus <= NODE else NETWORK
    flop = 3.0 / FLOPS  # backward costs twice the forward pass
    access = 2.0 / MEMORY_RATE  # bfloat16
    return Machine(
        flop,
        flop,
        3.5 / FLOPS / 0.6,
        access / 3,
        30.0 / MEMORY_RATE,
        60.0 / MEMORY_RATE,
        link=2 / rate,
        cut_link=2 / NVLINK,
        latency=LATENCY,
        block=4e-4,
        cut_block=2e-3,
        shard_block=5e-4,
    )


def row(name: str, shape: Shape, way: str, gpus: int) -> str:
    """Return a line of the table; `tensor` is eight GPUs a model and a copy on every node."""
    copies = gpus // NODE if way == "tensor" else 1
    mine = Shape(**{**vars(shape), "tokens": shape.tokens // copies})
    p = NODE if way == "tensor" else gpus
    constants = machine(gpus)
    # autocast: outputs in bfloat16, gradients of norms float32
    parts = seconds(mine, constants, way, p, sizes=(2, 4))
    if copies > 1:  # gradients of a process's pieces, over the nodes
        parts["traffic"] += traffic(shape, "replicate", 2)[0] / NODE * constants.link
    need, how, passes = room(mine, way, p)
    if way == "shard":  # weights are gathered again for every pass
        parts["traffic"] *= passes
    total = sum(parts.values())
    ideal = (
        sum(
            seconds(shape, machine(1), "replicate", 1)[k]
            for k in ("products", "attention", "elements")
        )
        / gpus
    )
    worst = max((k for k in parts if k not in ("products", "attention")), key=parts.get)
    fits = f"{need / 1e9:.0f} GB{how}" + ("" if need < MEMORY else ": too much")
    return (
        f"| {name} | {gpus} | {way} | {total * 1e3:.0f} | {ideal / total:.0%} | {worst}"
        f" {parts[worst] / total:.0%} | {fits} |"
    )


def room(shape: Shape, way: str, p: int) -> tuple[float, str, int]:
    """Return the bytes needed, how (by micro-batches first, then by recomputing) and the number
    of micro-batches.
    """
    rows = shape.tokens // (1 if way == "tensor" else p) // LENGTH
    for checkpointing in (False, True):
        passes = 1
        while (
            need := memory(shape, way, p, passes, checkpointing, 0.6)
        ) > MEMORY and passes < rows:
            passes *= 2
        if need <= MEMORY:
            break
    return (
        need,
        (f" in {passes} passes" if passes > 1 else "") + (", recomputing" if checkpointing else ""),
        passes,
    )


def project() -> None:
    """Print the table."""
    print(f"{TOKENS:,} tokens a step in rows of {LENGTH}; H100 at {FLOPS / 1e12:.0f} TFLOP/s\n")
    print(
        "| parameters | GPUs | strategy | step, ms | efficiency | largest other part | memory a"
        " GPU |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, shape in MODELS.items():
        for gpus in (8, 64, 512):
            for way in ("replicate", "shard", "tensor"):
                print(row(name, shape, way, gpus))
    print(
        "\nassembling a checkpoint: every process holds the whole weights, two moments and best"
        " weights in host memory:"
    )
    for name, shape in MODELS.items():
        print(
            f"  {name}: {12 * shape.parameters / 1e9:.0f} GB a process,"
            f" {NODE * 12 * shape.parameters / 1e9:.0f} GB a node"
        )


if __name__ == "__main__":
    project()
