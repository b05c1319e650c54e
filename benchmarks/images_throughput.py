"""Training throughput of masked-patch pretraining against transformers' ViTMAE of equal size, in
the same run.

    python benchmarks/images_throughput.py [--repeats 12] [--steps 4] [--batch 64]

Equal: width, depth, heads, patch, share of hidden patches, decoder's width, depth and heads, batch,
optimiser, threads, and the parameters of an MLP (ours is gated: 8/3 of the width twice in, once
out; theirs 4 widths in and out). Different: our decoder's hidden patches read the visible ones
alone, theirs all read all; their class token. The two take turns; what is compared is processor
time, which other work on the machine changes little, and wall time beside it. Data preparation is
left out of both.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from sciforge.images import ImageCodec, InpaintPatches, VitConfig

SIZES = {
    "mini, 28 x 28 grey, patch 4": (VitConfig(), 28, 1, 4),
    "small, 64 x 64 colour, patch 8": (
        VitConfig(width=384, depth=12, heads=6, hidden=1024),
        64,
        3,
        8,
    ),
}


def ours(
    config: VitConfig, side: int, channels: int, patch: int, batch: int
) -> tuple[Callable[[], float], int]:
    """Return one step of our pretraining and the number of parameters."""
    grey = {"mean": (128.0,) * channels, "std": (64.0,) * channels}
    codec = ImageCodec(patch=patch, height=side, width=side, channels=channels, **grey)
    objective = InpaintPatches(decoder_width=config.width // 2)
    torch.manual_seed(0)
    model = config.build(codec)
    objective.attach(model)
    rng = np.random.default_rng(0)
    records = [
        {"image": rng.integers(0, 256, (side, side, channels)).astype(np.uint8)}
        for _ in range(batch)
    ]
    made = codec.collate([objective.prepare(record, codec, rng, True) for record in records])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def step() -> float:
        optimizer.zero_grad()
        loss = objective.loss(model, made)
        (loss.total / loss.count).backward()
        optimizer.step()
        return float(loss.total / loss.count)

    return step, sum(p.numel() for p in model.parameters())


def theirs(
    config: VitConfig, side: int, channels: int, patch: int, batch: int
) -> tuple[Callable[[], float], int]:
    """Return one step of transformers' ViTMAEForPreTraining and the number of parameters."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    torch.manual_seed(0)
    encoder = {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
    }
    decoder = {"decoder_hidden_size": config.width // 2, "decoder_num_hidden_layers": 2}
    decoder |= {"decoder_num_attention_heads": 4, "decoder_intermediate_size": 2 * config.width}
    picture = {"image_size": side, "patch_size": patch, "num_channels": channels}
    options = {
        **encoder,
        **decoder,
        **picture,
        "intermediate_size": 4 * config.width,
        "mask_ratio": 0.75,
    }
    model = ViTMAEForPreTraining(ViTMAEConfig(**options)).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    pixels = torch.randn(batch, channels, side, side)

    def step() -> float:
        optimizer.zero_grad()
        loss = model(pixel_values=pixels).loss
        loss.backward()
        optimizer.step()
        return float(loss)

    return step, sum(p.numel() for p in model.parameters())


def main() -> None:
    """Let the two take turns and print both rates and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--only", type=int, nargs="+", default=[0, 1], help="places of the sizes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| size | parameters, ours / theirs | ours, pictures/s | ViTMAE, pictures/s | ratio of"
        " medians | of wall time |"
    )
    print("|---|---|---|---|---|---|")
    for name in [name for place, name in enumerate(SIZES) if place in options.only]:
        (step_a, size_a), (step_b, size_b) = (
            make(*SIZES[name], options.batch) for make in (ours, theirs)
        )
        spent = np.zeros((options.repeats, 2, 2))
        for step in (step_a, step_b):
            step(), step()
        for repeat in range(options.repeats):
            for place, step in (
                ((0, step_a), (1, step_b)) if repeat % 2 else ((1, step_b), (0, step_a))
            ):
                wall, cpu = time.perf_counter(), time.process_time()
                for _ in range(options.steps):
                    step()
                spent[repeat, place] = time.process_time() - cpu, time.perf_counter() - wall
        rate = options.steps * options.batch / np.median(spent, axis=0)
        ratio = spent[:, 1, 0] / spent[:, 0, 0]
        low, high = np.percentile(ratio, (10, 90))
        print(
            f"| {name} | {size_a / 1e6:.2f} M / {size_b / 1e6:.2f} M | {rate[0, 0]:.0f} |"
            f" {rate[1, 0]:.0f} | {rate[0, 0] / rate[1, 0]:.2f} [{low:.2f}, {high:.2f}] |"
            f" {rate[0, 1] / rate[1, 1]:.2f} |"
        )
    turns = f"{options.repeats} turns of {options.steps} steps of {options.batch} pictures"
    print(f"\n{turns}, one thread, processor time; [10th, 90th percentile of turns].")


if __name__ == "__main__":
    main()
