"""What fine-tuning on a new level of theory costs on the old one: plain, frozen, LoRA, L2-SP, EWC,
replay, EWC + replay.

    python benchmarks/atoms_forgetting.py --old runs/potential-mini/store --new
    runs/few-shot/acetylacetone --out runs/forget

Base: potential-mini (GFN2-xTB, many molecules). New task: 50 frames of acetylacetone at PBE, a
molecule and a level that the base has not met, with a readout of its own. Old task: forces on
molecules held out from pretraining, at the old level. All methods take the same steps, batch and
rate; strengths are swept. Forgetting = rise of the old force MAE.
"""

import argparse
import json
import shutil
from pathlib import Path

from sciforge import api, catalog
from sciforge.atoms import EnergyForces
from sciforge.core.data.store import Store
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import (
    EWC,
    L2SP,
    Freeze,
    Hardware,
    LoRA,
    Replay,
    Run,
    Schedule,
    Subset,
)

SCHEDULE = Schedule(
    steps=400,
    batch=5,
    lr=2e-3,
    kind="cosine",
    min_lr_ratio=0.02,
    warmup=0.05,
    weight_decay=0.0,
    betas=(0.9, 0.999),
    clip=10.0,
    ema_decay=0.99,
)


def methods(old: Path) -> dict[str, dict]:
    """Return name -> what differs from plain fine-tuning."""
    found: dict[str, dict] = {
        "plain": {},
        "frozen": {"finetuning": Freeze(r"^readout\.\d+\.2|level_embed")},
        "LoRA": {"finetuning": LoRA(8)},
    }
    found |= {
        f"L2-SP {s:g}": {"regularization": L2SP(s, step="proximal")}
        for s in (1e-4, 1e-3, 1e-2, 1e-1)
    }
    ewc = {
        s: EWC(s, data=old, examples=256, step="proximal") for s in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    }
    found |= {f"EWC {s:g}": {"anchor": anchor} for s, anchor in ewc.items()}
    found |= {f"replay {s:g}": {"replay": Replay(old, s)} for s in (0.25, 0.5)}
    found |= {
        f"EWC {s:g} + replay": {"anchor": ewc[s], "replay": Replay(old, 0.25)}
        for s in (1e-4, 1e-3, 1e-2)
    }
    return found


def main() -> None:
    """Fine-tune by every method and seed, and print the two errors of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", type=Path, required=True)
    parser.add_argument("--new", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", default="potential-mini")
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    base = options.out / "base"
    # the Fisher is kept in a copy of the checkpoint, so that each run need not estimate it
    if not base.exists():
        shutil.copytree(catalog.locate(options.init), base)
        if "fisher-exact.safetensors" not in Checkpoint.open(base).body["files"]:
            api.fisher(base, options.old, examples=256)
    levels = ("gfn2-xtb", Store.open(options.new).meta["levels"][0])
    with open(options.out / "results.jsonl", "a") as log:
        for seed in range(options.seeds):
            for name, change in methods(options.old).items():
                if options.only and not any(name.startswith(word) for word in options.only):
                    continue
                out = options.out / f"{name.replace(' ', '_')}-{seed}"
                shutil.rmtree(out, ignore_errors=True)
                run = Run(
                    data=options.new,
                    out=out,
                    init=base,
                    objective=EnergyForces(levels=levels),
                    schedule=SCHEDULE,
                    subset=Subset(options.frames, seed),
                    seed=seed,
                    retention=options.old,
                    hardware=Hardware(threads=1),
                    **change,
                )
                made = api.train(run)
                old = made.metrics["retained"]
                row = {
                    "method": name,
                    "seed": seed,
                    "new": api.evaluate(made.path, options.new)["force_mae_meV_A"],
                    "old_before": old["before"]["force_mae_meV_A"],
                    "old_after": old["after"]["force_mae_meV_A"],
                }
                print(row, flush=True)
                log.write(json.dumps(row) + "\n")
                log.flush()
                shutil.rmtree(out)


if __name__ == "__main__":
    main()
