"""Few labels: DNA-BERT against scratch, a frozen probe, a CNN and classical rivals, on two tasks of
real genomes.

    python benchmarks/few_labels.py promoters --out runs/promoters [--sizes 32 128 512] [--seeds 5]
    [--threads 1] python benchmarks/few_labels.py coding    --out runs/coding

`promoters`: yeast, TSS -200..+50 against GC-matched windows, test chromosomes IV, XIII, XV (never
in the pretraining corpus). `coding`: E. coli, windows of 100 bp inside and between genes,
GC-matched, by 232-kb blocks (E. coli is not in the corpus). Every method sees the same labels, seed
by seed; a size of 0 means all. A stopped run goes on where it was. The recipe of the nets (gentle
steps after the solved head) and the weight of the trees were chosen on chromosome VII of yeast, a
training chromosome; the test split is read once per run. The goals printed are those of the
project's plan.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sciforge import catalog
from sciforge.core.data.store import Store, prepare
from sciforge.core.training.run import Full, Hardware, Schedule
from sciforge.experiments.label_efficiency.result import LabelEfficiencyResult
from sciforge.experiments.label_efficiency.run import measure
from sciforge.experiments.label_efficiency.spec import LabelEfficiency
from sciforge.experiments.methods import Recipe
from sciforge.genomes.data.annotated_windows import EcoliCoding, YeastPromoters
from sciforge.genomes.objectives.sequence_labels import Classify

SHARED = Path(__file__).resolve().parents[2] / "shared/data/genomes"
YEAST = "Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz"
TASKS = {
    "promoters": lambda data: YeastPromoters(
        genome=data / "yeast" / YEAST,
        transcripts=data / "yeast/Scer_polIItranscripts-adjustedTSS.bed",
    ),
    "coding": lambda data: EcoliCoding(
        genome=data / "ecoli/GCF_000005845.2_ASM584v2_genomic.gbff.gz"
    ),
}
GOALS = {
    "promoters": {
        "goal": {32: 0.45, 128: 0.65, 512: 0.76, 0: 0.85},
        "boosting, plan": {32: 0.32, 128: 0.60, 512: 0.71, 0: 0.82},
    },
    "coding": {"goal": {128: 0.40}, "k-mer LR, plan": {32: 0.15, 128: 0.26, 512: 0.38}},
}
# Gentle steps from the solved head, the trunk slower still, for pretrained and scratch alike; no
# search. On chromosome VII the
# descent neither helped nor harmed beyond noise under 512 labels and harmed with all of them (MCC
# .87 against .91), so with all labels the solved head stands.
NETS = Recipe(
    Schedule(steps=16, batch=32, lr=2e-4, kind="step", warmup=0.1),
    Full(layer_decay=0.8, backbone_lr_mult=0.25),
    epochs=2.0,
)
SOLVED = Recipe(Schedule(steps=1, batch=32, lr=0.0, kind="step"), epochs=0.0)
# A hot rate and many passes: what the CNN needs to learn at all.
CNN = Recipe(Schedule(steps=150, batch=32, lr=2e-3, kind="step", warmup=0.1), Full(), epochs=15.0)
PARTS = {
    "nets": (("pretrained", "untrained", "frozen"), NETS),
    "baselines": (
        ("kmer_lr", "kmer_onehot_lr", "gradient_boosting", "frames_boosting", "gc_only"),
        NETS,
    ),
    "cnn": (("untrained:cnn",), CNN),
}


def main() -> None:
    """Measure the curves, print the table, and write curve.json and curve.png."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--init", default="dna-bert-mini")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--only", choices=PARTS, help="measure this part only; the parts may run side by side"
    )
    parser.add_argument("--quick", action="store_true", help="one seed, 32 labels")
    options = parser.parse_args()
    if not options.data.exists():
        sys.exit(
            f"{options.data} is missing; fetch ecoli-k12, yeast-genome and yeast-transcripts and"
            " give --data"
        )
    torch.set_num_threads(options.threads)
    sizes, seeds = ((32,), 1) if options.quick else (tuple(options.sizes), options.seeds)
    place = options.out / "windows"
    store = (
        Store.open(place) if place.exists() else prepare(TASKS[options.task](options.data), place)
    )
    results = []
    for part in [options.only] if options.only else PARTS:
        methods, recipe = PARTS[part]
        spec = LabelEfficiency(
            data=store.path,
            out=options.out / part if 0 not in sizes else options.out / f"{part}-all",
            init=catalog.locate(options.init),
            objective=(
                Classify(shift=6) if options.task == "promoters" else Classify(strand_free=True)
            ),
            sizes=sizes,
            seeds=seeds,
            methods=methods,
            recipe=recipe if recipe is CNN or 0 not in sizes else SOLVED,
            hardware=Hardware(device="auto", threads=options.threads),
        )
        results.append(measure(spec))
    result = joined(results)
    result.save(options.out / "curve.png")
    (options.out / "curve.json").write_text(json.dumps(result.to_json(), indent=1) + "\n")
    table = result.table()
    print("| " + " | ".join(table.columns) + " |\n|" + "---|" * len(table.columns))
    for row in table.rows:
        print("| " + " | ".join(row) + " |")
    for name, metrics in GOALS[options.task].items():
        cells = [f"{metrics[n]:.2f}" if n in metrics else "" for n in sizes]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(f"\n{table.note}")


def joined(results: Sequence[LabelEfficiencyResult]) -> LabelEfficiencyResult:
    """Return several results as one; their seeds and subsets are the same."""
    kinds = {name: kind for result in results for name, kind in result.kinds.items()}
    return replace(
        results[0], runs=tuple(run for result in results for run in result.runs), kinds=kinds
    )


if __name__ == "__main__":
    main()
