"""How fast, and how well, does our DnaBert learn against transformers' BertForMaskedLM of equal
size?

Both get the same vocabulary, batch, length, masked positions, data and fused AdamW; the two
alternate step by step in one process.

    python3.11 -m venv peers && peers/bin/pip install torch numpy transformers
    PYTHONPATH=. peers/bin/python benchmarks/train_throughput.py [--quick] [--sizes mini small]
    [--threads 1 2]

Prediction before the first run (one core at 87 GFLOP/s in float32): the encoders cost the same;
BERT also computes 4,101 logits at every token where we compute 24 at the masked 15 %. That is 6 *
4101 * D flops a token on top of 6 * parameters, 36 % more in mini and 11 % in small, and four or
five passes over a 67 MB tensor. So a ratio of about 1.6 in mini and 1.2 to 1.3 in small.

What came, on a busy machine: 1.33 and 1.00 (wall time, 3 repeats). A profile of small showed 0.3 s
of log-softmax where 1.1 s was guessed, and 0.9 s of element-wise steps in our gated MLP. Then the
last block came to be computed at masked tokens only (the result is the same; prediction 1.18 in
small): 1.46 and 1.17 (processor time). In mini both models also went from 6 heads to 3 between the
two runs. The rest is matrix products of equal size for both.

The loss is compared as nats per hidden base (a base under no visible token): BERT's softmax over
6-mers is marginalised to each base; and as nats per token: ours is the sum over the six bases.
"""

import argparse
import contextlib
import gzip
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from sciforge.genomes.data.codec import KmerCodec, torch_kmer_ids
from sciforge.genomes.model.dna_bert import MODELS

CODEC = KmerCodec(k=6)
TOKENS, SPAN = 512, 6
GENOME = (
    Path(__file__).parents[2]
    / "shared/data/genomes/yeast/Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz"
)


def read_bases() -> np.ndarray:
    """The yeast genome as base codes, or random bases where it is not at hand."""
    if not GENOME.exists():
        print("(no yeast genome: random bases, so that losses cannot fall below 1.386)")
        return np.random.default_rng(0).integers(0, 4, 10**7).astype(np.uint8)
    table = np.full(256, 4, np.uint8)
    for code, letter in enumerate("ACGT"):
        table[[ord(letter), ord(letter.lower())]] = code
    with gzip.open(GENOME, "rt") as lines:
        text = "".join(line.strip() for line in lines if not line.startswith(">"))
    return table[np.frombuffer(text.encode(), np.uint8)]


def make_batch(
    bases: np.ndarray, rows: int, rng: np.random.Generator, device: str
) -> dict[str, torch.Tensor]:
    """Windows with 15 % of the tokens under hidden spans of six bases: every token that touches
    a span is masked.
    """
    length = TOKENS + CODEC.k - 1
    starts = rng.integers(0, len(bases) - length, rows)
    windows = np.stack([bases[start : start + length] for start in starts])
    hidden = np.zeros(windows.shape, bool)
    for row in hidden:
        slots = rng.choice(
            TOKENS // 16, size=round(0.15 * TOKENS / (SPAN + CODEC.k - 1)), replace=False
        )
        for slot in slots:  # slots of 16 keep spans apart, so that the masked fraction is exact
            row[16 * slot + CODEC.k : 16 * slot + CODEC.k + SPAN] = True
    masked = np.lib.stride_tricks.sliding_window_view(hidden, CODEC.k, axis=1).any(-1)
    batch = CODEC.collate(
        [
            CODEC.encode({"bases": row, "masked": mask})
            for row, mask in zip(windows, masked, strict=True)
        ]
    )
    kmers = torch_kmer_ids(batch["bases"], CODEC.k, 1)
    batch["labels"] = torch.where(batch["masked"] & (kmers < 4**CODEC.k), kmers, -100)
    batch["where"] = torch.nonzero(batch["labels"].flatten() >= 0).flatten()
    kmers = batch["labels"].flatten()[batch["where"]]
    places = torch.arange(CODEC.k - 1, -1, -1)
    batch["target"] = kmers[:, None] >> 2 * places & 3
    hidden_windows = torch.from_numpy(hidden).unfold(1, CODEC.k, 1).flatten(0, 1)
    batch["hidden"] = hidden_windows[batch["where"]]
    return {name: value.to(device) for name, value in batch.items()}


class Ours:
    """DnaBert with its base-wise head at the masked tokens."""

    name = "sciforge DnaBert"

    def __init__(self, size: str):
        self.model = MODELS[size].build(CODEC)

    def base_losses(self, batch: dict) -> torch.Tensor:
        """Negative log-likelihoods [N, k] of the bases of masked tokens."""
        x_ND = self.model(batch, only=batch["labels"] >= 0)
        logits = self.model.base_logits(x_ND).float()
        return F.cross_entropy(
            logits.flatten(0, 1), batch["target"].flatten(), reduction="none"
        ).view(-1, CODEC.k)

    def loss(self, batch: dict) -> torch.Tensor:
        return self.base_losses(batch).sum() / len(batch["where"])

    def evaluate(self, batch: dict) -> tuple[float, float]:
        losses = self.base_losses(batch)
        return losses[batch["hidden"]].mean().item(), losses.sum(1).mean().item()


class Bert:
    """transformers' BertForMaskedLM with as many parameters, without dropout."""

    name = "transformers BERT"

    def __init__(self, size: str):
        from transformers import BertConfig, BertForMaskedLM

        ours = MODELS[size]
        config = BertConfig(
            vocab_size=CODEC.size,
            hidden_size=ours.width,
            num_hidden_layers=ours.depth,
            num_attention_heads=ours.heads,
            intermediate_size=ours.hidden * 3 // 2,  # two matrices where a gated MLP has three
            max_position_embeddings=TOKENS,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=CODEC.pad,
        )
        config._attn_implementation = "sdpa"
        self.model = BertForMaskedLM(config)

    def loss(self, batch: dict) -> torch.Tensor:
        return self.model(input_ids=batch["ids"], labels=batch["labels"]).loss

    def evaluate(self, batch: dict) -> tuple[float, float]:
        logits = self.model(input_ids=batch["ids"]).logits.flatten(0, 1)[batch["where"]].float()
        logs = logits.log_softmax(1)
        kmers = batch["labels"].flatten()[batch["where"]]
        token = F.nll_loss(logs, kmers).item()
        cube = logits[:, : 4**CODEC.k].log_softmax(1).view(-1, *[4] * CODEC.k)
        axes = range(1, CODEC.k + 1)
        by_base = torch.stack(
            [cube.logsumexp([axis for axis in axes if axis != kept]) for kept in axes], 1
        )
        losses = -by_base.gather(2, batch["target"].unsqueeze(2)).squeeze(2)
        return losses[batch["hidden"]].mean().item(), token


class Trainer:
    """A model, fused AdamW and one kind of step for both."""

    def __init__(self, side: Ours | Bert, device: str, rate: float = 5e-4, warmup: int = 20):
        self.side, self.device = side, device
        side.model.to(device).train()
        self.parameters = sum(parameter.numel() for parameter in side.model.parameters())
        self.optimiser = torch.optim.AdamW(
            side.model.parameters(), lr=rate, betas=(0.9, 0.98), fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: min(1.0, (step + 1) / warmup)
        )

    def cast(self):
        return (
            torch.autocast("cuda", torch.bfloat16)
            if self.device == "cuda"
            else contextlib.nullcontext()
        )

    def step(self, batch: dict) -> float:
        """One optimiser step; returns its seconds: of processor time with one thread, since
        others use the machine.
        """
        clock = (
            time.process_time
            if self.device == "cpu" and torch.get_num_threads() == 1
            else time.perf_counter
        )
        start = clock()
        with self.cast():
            loss = self.side.loss(batch)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.device == "cuda":
            torch.cuda.synchronize()
        seconds = clock() - start
        self.schedule.step()
        return seconds

    @torch.no_grad()
    def evaluate(self, batches: list[dict]) -> tuple[float, float]:
        with self.cast():
            results = [self.side.evaluate(batch) for batch in batches]
        return tuple(statistics.fmean(column) for column in zip(*results, strict=True))


def pair(size: str, device: str) -> list[Trainer]:
    """Both models from seed 0."""
    trainers = []
    for side in (Ours, Bert):
        torch.manual_seed(0)
        trainers.append(Trainer(side(size), device))
    return trainers


def throughput(
    size: str, device: str, threads: int, rows: int, repeats: int, bases: np.ndarray
) -> None:
    """Print one line of the first table."""
    torch.set_num_threads(threads)
    ours, bert = pair(size, device)
    rng = np.random.default_rng(1)
    for trainer in (ours, bert):
        trainer.step(make_batch(bases, rows, rng, device))
    seconds = []
    for repeat in range(repeats):
        batch = make_batch(bases, rows, rng, device)
        order = (ours, bert) if repeat % 2 == 0 else (bert, ours)
        took = {trainer: trainer.step(batch) for trainer in order}
        seconds.append((took[ours], took[bert]))
    speeds = [rows * TOKENS / statistics.median(column) for column in zip(*seconds, strict=True)]
    ratios = sorted(b / a for a, b in seconds)
    where = device if device == "cuda" else f"cpu, {threads} thread{'s' * (threads > 1)}"
    print(
        f"| {size} | {where} | {rows} | {ours.parameters / 1e6:.2f} / {bert.parameters / 1e6:.2f} |"
        f" {speeds[0]:,.0f} | {speeds[1]:,.0f} | **{statistics.median(ratios):.2f}**"
        f" ({ratios[0]:.2f} to {ratios[-1]:.2f}) |",
        flush=True,
    )


def learning(size: str, device: str, rows: int, steps: int, bases: np.ndarray) -> None:
    """Print the loss on held-out windows after equal steps on equal data."""
    held, bases = bases[: len(bases) // 10], bases[len(bases) // 10 :]
    rng = np.random.default_rng(2)
    tests = [make_batch(held, rows, rng, device) for _ in range(8)]
    print(
        f"\n{size}, {rows * TOKENS * steps / 1e6:.2f} M tokens: held-out loss after {steps} steps"
        f" of {rows} rows\n"
    )
    print(
        "| model | nats per hidden base | nats per masked token | seconds in steps"
        " |\n|---|---|---|---|"
    )
    for trainer in pair(size, device):
        rng = np.random.default_rng(3)
        seconds = sum(trainer.step(make_batch(bases, rows, rng, device)) for _ in range(steps))
        base, token = trainer.evaluate(tests)
        print(f"| {trainer.side.name} | {base:.4f} | {token:.3f} | {seconds:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="mini only, few repeats and steps")
    parser.add_argument("--sizes", nargs="+", default=["mini", "small"], choices=list(MODELS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rows", type=int, default=8, help="windows of 512 tokens in a batch")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--steps", type=int, default=100, help="of the learning comparison; 0 leaves it out"
    )
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.threads, args.repeats, args.steps = (
            ["mini"],
            args.threads[:1],
            3,
            min(args.steps, 10),
        )
    bases = read_bases()
    print(
        f"torch {torch.__version__}, float32 on the CPU, bfloat16 autocast on CUDA; {args.repeats}"
        " alternations\n"
    )
    print(
        "| size | device | rows | parameters, M: ours / BERT | ours, tokens/s | BERT, tokens/s |"
        " ratio (range) |"
    )
    print("|---|---|---|---|---|---|---|")
    for size in args.sizes:
        for threads in args.threads:
            throughput(size, "cpu", threads, args.rows, args.repeats, bases)
        if torch.cuda.is_available():
            throughput(size, "cuda", max(args.threads), 8 * args.rows, 4 * args.repeats, bases)
    if args.steps:
        learning(
            args.sizes[0],
            "cuda" if torch.cuda.is_available() else "cpu",
            args.rows,
            args.steps,
            bases,
        )


if __name__ == "__main__":
    main()
