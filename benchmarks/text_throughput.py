"""How fast does our Bert learn hidden words (and pairs) against transformers' BertForPreTraining of
equal size?

    python benchmarks/text_throughput.py [--sizes bert-mini bert-small] [--repeats 5] [--length 128]
    [--mlm-only]

Both have the same sizes, vocabulary, dropout (none), float32, batch, length, hidden tokens,
optimiser (fused AdamW) and one thread; the peer uses its scaled-dot-product attention. The two take
turns step by step in one process, the first to go alternating. Time is the process's own (the
machine may be busy). Both compute the second task, unless --mlm-only, where the peer is
BertForMaskedLM. The two losses from equal weights are compared first: they must be the same
function.

Where a difference can come from: we compute the last block and the vocabulary's logits at hidden
tokens alone (15 % of them), the peer at every token.
"""

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import torch

from sciforge.core.domain import Batch
from sciforge.text import Bert, MaskedWords
from sciforge.text.model.bert import MODELS
from sciforge.text.model.published_weights import translated

VOCABULARY = 8000
SPECIAL = 5


def make_batch(rng: np.random.Generator, rows: int, length: int, pairs: bool) -> Batch:
    """Rows of random words in two segments, 15 % of them to be predicted, as objective and codec
    make them.
    """
    ids_BL = rng.integers(SPECIAL, VOCABULARY, (rows, length))
    ids_BL[:, 0], ids_BL[:, [length // 2, -1]] = 2, 3
    segments_BL = np.zeros_like(ids_BL)
    segments_BL[:, length // 2 + 1 :] = 1
    target_BL = np.full_like(ids_BL, -100)
    for row in range(rows):
        free = np.setdiff1d(np.arange(1, length - 1), [length // 2])
        hidden = rng.choice(free, round(0.15 * (length - 3)), replace=False)
        target_BL[row, hidden] = ids_BL[row, hidden]
        ids_BL[row, hidden[: round(0.8 * len(hidden))]] = 4
    made = {
        "ids": ids_BL,
        "segments": segments_BL,
        "target_ids": target_BL,
        "lengths": np.full(rows, length),
    }
    if pairs:
        made["target_pair"] = rng.integers(0, 2, rows)
    return {name: torch.from_numpy(np.asarray(value)) for name, value in made.items()}


def make_peer(size: str, length: int, pairs: bool) -> torch.nn.Module:
    """Return transformers' model of the size of a preset."""
    import transformers

    ours = MODELS[size]
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=ours.width,
        num_hidden_layers=ours.depth,
        num_attention_heads=ours.heads,
        intermediate_size=ours.hidden,
        max_position_embeddings=length,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )
    return (transformers.BertForPreTraining if pairs else transformers.BertForMaskedLM)(config)


class Ours:
    """Our model and objective."""

    def __init__(self, peer: torch.nn.Module, size: str, length: int, pairs: bool):
        hidden = round(0.15 * (length - 3))
        # pair_weight makes ours the peer's sum of two means, whose hidden share is not exactly 15 %
        self.objective = MaskedWords(
            length=length, pairs=pairs, pair_weight=hidden / (0.15 * length)
        )
        self.model = Bert(replace(MODELS[size], dropout=0.0), VOCABULARY, length)
        self.objective.attach(self.model)
        state = translated(peer.state_dict())
        self.model.load_state_dict({name: state[name] for name in self.model.state_dict()})

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean loss of a batch."""
        found = self.objective.loss(self.model, batch)
        return found.total / found.count


class Peer:
    """The model of transformers."""

    def __init__(self, model: torch.nn.Module):
        self.model = model

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean loss of a batch."""
        more = {"next_sentence_label": batch["target_pair"]} if "target_pair" in batch else {}
        mask = torch.ones_like(batch["ids"])
        types = {
            "token_type_ids": batch["segments"],
            "attention_mask": mask,
            "labels": batch["target_ids"],
        }
        return self.model(input_ids=batch["ids"], **types, **more).loss


def measure(size: str, rows: int, options: argparse.Namespace) -> None:
    """Print sequences a second of both and their ratio."""
    torch.manual_seed(0)
    rng, pairs = np.random.default_rng(0), not options.mlm_only
    peer_model = make_peer(size, options.length, pairs)
    models = {
        "sciforge": Ours(peer_model, size, options.length, pairs),
        "transformers": Peer(peer_model),
    }
    batches = [make_batch(rng, rows, options.length, pairs) for _ in range(4)]
    losses = {name: float(model.loss(batches[0]).detach()) for name, model in models.items()}
    if abs(losses["sciforge"] - losses["transformers"]) > 1e-4:
        raise SystemExit(f"not the same function: {losses}")
    optimizers = {
        name: torch.optim.AdamW(m.model.parameters(), lr=1e-4, fused=True)
        for name, m in models.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(-1, options.repeats):  # the first is a warm-up
        for name in list(models)[:: 1 if repeat % 2 else -1]:
            models[name].model.train()
            begun = time.process_time()
            for batch in batches:
                models[name].loss(batch).backward()
                optimizers[name].step()
                optimizers[name].zero_grad()
            if repeat >= 0:
                seconds[name].append((time.process_time() - begun) / len(batches))
    ratios = sorted(
        b / a for a, b in zip(seconds["sciforge"], seconds["transformers"], strict=True)
    )
    speeds = {name: rows / statistics.median(found) for name, found in seconds.items()}
    task = "MLM + NSP" if pairs else "MLM"
    print(
        f"| {size} | {task} | {rows} x {options.length} | {speeds['sciforge']:.1f} |"
        f" {speeds['transformers']:.1f} | {statistics.median(ratios):.2f} [{ratios[0]:.2f},"
        f" {ratios[-1]:.2f}] |",
        flush=True,
    )


def main() -> None:
    """Compare at every size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["bert-mini", "bert-small"], choices=MODELS)
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[32, 4], help="of a batch, one number for each size"
    )
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mlm-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        "| size | task | batch | sciforge, sequences/s | transformers | ratio, median [least,"
        " most] |"
    )
    print("|---|---|---|---|---|---|")
    for size, rows in zip(options.sizes, options.rows, strict=True):
        measure(size, rows, options)


if __name__ == "__main__":
    main()
