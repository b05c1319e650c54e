"""What does a plain LSTM over SELFIES (or SMILES) reach on MOSES in a given processor time? The
competitor to be honest about.

    PYTHONPATH=. python benchmarks/molecules_selfies_lstm.py TRAIN.csv.gz --out lstm.smi --minutes
    30 [--tokens smiles]

Two layers of 256, trained by the next token on molecules of the training set in random order, none
twice before all were seen; Adam, 2e-3 falling to 0 along a cosine of the processor time used. One
thread; 32-bit floats or bfloat16 autocast, whichever trains faster here. `--minutes` is processor
time of training alone; tokenising is told apart, and sampling is split into the net's time and the
time that SELFIES take to become SMILES. `sciforge score` then judges the file: every sample is a
line, also one that is no molecule. Needs: pip install selfies
"""

import argparse
import json
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.molecules.evaluation.generated_files import read_strings

END, START, PAD = 0, 1, 2
BLOCK, LONGEST = 20_000, 120
SMILES_TOKENS = re.compile(r"\[[^\]]+\]|Br|Cl|%\d\d|.")


class Lstm(nn.Module):
    """Embedding, two LSTM layers, a linear map to the next token."""

    def __init__(self, tokens: int, width: int = 256, layers: int = 2):
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.next = nn.Linear(width, tokens)

    def forward(self, ids_BL: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        """Return logits (B, L, tokens) and the state after the last token."""
        hidden, state = self.lstm(self.embed(ids_BL), state)
        return self.next(hidden), state


class ExampleSource:
    """Batches of token ids from a shuffled file; tokenised in blocks when they are needed, the
    time for it on `seconds`.
    """

    def __init__(self, file: Path, tokens: str, seed: int, molecules: int | None):
        self.rng = np.random.default_rng(seed)
        texts = list(read_strings(file))
        self.texts = [texts[i] for i in self.rng.permutation(len(texts))[:molecules]]
        self.kind, self.seconds, self.seen, self.dropped, self.place = tokens, 0.0, 0, 0, 0
        first = self._block()
        words = sorted({word for one in first for word in one})
        self.words = ["", "", "", *words]
        self.ids = {word: i for i, word in enumerate(words, 3)}
        self.waiting = [first]

    def _tokens(self, text: str) -> list[str]:
        if self.kind == "smiles":
            return SMILES_TOKENS.findall(text)
        import selfies

        try:
            return list(selfies.split_selfies(selfies.encoder(text)))
        except selfies.EncoderError:  # the grammar cannot hold some molecules; counted
            self.dropped += 1
            return []

    def _block(self) -> list[list[str]]:
        start = time.process_time()
        some = [
            self.texts[(self.place + i) % len(self.texts)]
            for i in range(min(BLOCK, len(self.texts)))
        ]
        self.place += len(some)
        found = [one for one in map(self._tokens, some) if 0 < len(one) <= LONGEST]
        self.seconds += time.process_time() - start
        return found

    def batches(self, size: int) -> Iterator[Tensor]:
        """Yield ids (B, L) without end: START, tokens, END, then PAD; molecules of like length
        together.
        """
        while True:
            block = self.waiting.pop() if self.waiting else self._block()
            rows = [
                [START, *(self.ids[w] for w in one), END]
                for one in block
                if all(w in self.ids for w in one)
            ]
            self.dropped += len(block) - len(rows)
            rows.sort(key=len)
            parts = [rows[i : i + size] for i in range(0, len(rows), size)]
            for i in self.rng.permutation(len(parts)):
                length = max(map(len, parts[i]))
                self.seen += len(parts[i])
                yield torch.tensor([row + [PAD] * (length - len(row)) for row in parts[i]])

    def text(self, ids: list[int]) -> str:
        """Return the string of sampled ids; what comes after END is not in them."""
        return "".join(self.words[i] for i in ids)


def step(
    net: Lstm, optimiser: torch.optim.Optimizer, ids: Tensor, rate: float, half: bool
) -> float:
    """Take one optimiser step and return the loss in nats a token."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits, _ = net(ids[:, :-1])
    loss = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD
    )
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def faster_in_half(tokens: int, batches: Iterator[Tensor], rate: float) -> bool:
    """Return whether bfloat16 autocast trains faster here, by 6 steps each of nets that are
    thrown away.
    """
    ids, spent = next(batches), {}
    for half in (False, True):
        net = Lstm(tokens)
        optimiser = torch.optim.Adam(net.parameters())
        step(net, optimiser, ids, rate, half)
        start = time.process_time()
        for _ in range(5):
            step(net, optimiser, ids, rate, half)
        spent[half] = time.process_time() - start
    print(
        f"a step: {spent[False] / 5 * 1e3:.0f} ms in 32-bit, {spent[True] / 5 * 1e3:.0f} ms in"
        " bfloat16"
    )
    return spent[True] < spent[False]


def train(stream: ExampleSource, args: argparse.Namespace) -> tuple[Lstm, dict]:
    """Train for the processor time and return the net and what it took."""
    torch.manual_seed(args.seed)
    batches = stream.batches(args.batch)
    half = (
        faster_in_half(len(stream.words), batches, args.rate)
        if args.precision == "auto"
        else args.precision == "bf16"
    )
    torch.manual_seed(args.seed)
    net = Lstm(len(stream.words))
    optimiser = torch.optim.Adam(net.parameters())
    stream.seen, steps, spent, budget, losses, told = 0, 0, 0.0, args.minutes * 60, [], 0.0
    while spent < budget:
        ids = next(batches)
        start = time.process_time()
        losses.append(
            step(
                net, optimiser, ids, args.rate * (1 + math.cos(math.pi * spent / budget)) / 2, half
            )
        )
        spent += time.process_time() - start
        steps += 1
        if spent > told:
            told += budget / 20
            print(
                f"{spent:6.0f} s  {steps:6d} steps  {stream.seen:8d} molecules "
                f" {np.mean(losses[-100:]):.4f}",
                flush=True,
            )
    size = sum(p.numel() for p in net.parameters())
    return net, {
        "parameters": size,
        "train_cpu_s": round(spent, 1),
        "steps": steps,
        "molecules_seen": stream.seen,
        "of": len(stream.texts),
        "nats_a_token": round(float(np.mean(losses[-100:])), 4),
        "bfloat16": half,
        "tokenise_cpu_s": round(stream.seconds, 1),
        "dropped": stream.dropped,
    }


@torch.inference_mode()
def sample(net: Lstm, count: int, batch: int, seed: int) -> list[list[int]]:
    """Return ids of `count` samples at temperature 1, each up to END or LONGEST tokens."""
    generator = torch.Generator().manual_seed(seed)
    found: list[list[int]] = []
    while len(found) < count:
        rows = min(batch, count - len(found))
        alive, texts = torch.arange(rows), [[] for _ in range(rows)]
        ids, state = torch.full((rows, 1), START), None
        for _ in range(LONGEST):
            logits, state = net(ids, state)
            logits[:, :, [START, PAD]] = -math.inf
            drawn = torch.multinomial(logits[:, 0].softmax(-1), 1, generator=generator)
            on = drawn[:, 0] != END
            alive, ids = alive[on], drawn[on]
            if not len(alive):
                break
            state = tuple(part[:, on].contiguous() for part in state)
            for row, one in zip(alive.tolist(), ids[:, 0].tolist(), strict=True):
                texts[row].append(one)
        found += texts
    return found


def main() -> None:
    """Train, sample, write the SMILES and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("training", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tokens", choices=("selfies", "smiles"), default="selfies")
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument(
        "--molecules", type=int, help="train on so many random molecules instead of all"
    )
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    stream = ExampleSource(args.training, args.tokens, args.seed, args.molecules)
    net, report = train(stream, args)
    start = time.process_time()
    drawn = sample(net, args.num, 1000, args.seed)
    net_s = time.process_time() - start
    texts = [stream.text(ids) for ids in drawn]
    if args.tokens == "selfies":
        import selfies

        texts = [selfies.decoder(text) for text in texts]
    decode_s = time.process_time() - start - net_s
    args.out.write_text("\n".join(texts) + "\n", encoding="utf-8")
    report = {
        "tokens": args.tokens,
        "minutes": args.minutes,
        "seed": args.seed,
        **report,
        "samples": args.num,
    }
    report |= {
        "net_s": round(net_s, 2),
        "decode_s": round(decode_s, 2),
        "samples_a_s": round(args.num / (net_s + decode_s), 1),
    }
    args.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
