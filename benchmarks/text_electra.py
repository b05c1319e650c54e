"""Hidden words (BERT) or replaced words (ELECTRA)? The same tokens for both, judged by few labels.

    python benchmarks/text_electra.py --out runs/text-electra [--steps 3000] [--seeds 5] [--quick]

Both nets are bert-mini, pretrained on Austen's novels (austen-novels, bundled) with the same
vocabulary, rows and order; their development losses are of different tasks, so what is compared is
the AUC of speech against narration (austen-speech, split by chapters that were held out of the
pretraining) with 50, 100 and 200 labels. The head is solved on the hidden states alone, no step is
descended. The generator makes a step of replaced words dearer: processor seconds are printed
beside.
"""

import argparse
import json
import time
from pathlib import Path

from sciforge import api, catalog
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.text import ClassifyDocuments, Documents, MaskedWords, ReplacedWords

OBJECTIVES = {"masked-words": MaskedWords, "replaced-words": ReplacedWords}


def prepare(out: Path) -> tuple[Path, Path]:
    """Prepare novels and passages where they are not there yet; return the stores."""
    novels, speech = out / "novels", out / "speech"
    if not novels.exists():
        api.prepare(
            Documents(files=(catalog.fetch("austen-novels"),), shares=(0.98, 0.02, 0.0)), novels
        )
    if not speech.exists():
        options = {"label_column": "label", "split_column": "split", "group_column": "chapter"}
        api.prepare(Documents(files=(catalog.fetch("austen-speech"),), **options), speech)
    return novels, speech


def pretrain(name: str, novels: Path, options: argparse.Namespace) -> tuple[Checkpoint, float]:
    """Return a pretrained net and the processor seconds it took (0 where it was there)."""
    begun = time.process_time()
    run = Run(
        data=novels,
        out=options.out / name,
        model="bert-mini",
        objective=OBJECTIVES[name](length=options.length),
        schedule=Schedule(steps=options.steps, batch=options.batch, lr=options.rate, warmup=0.06),
        hardware=Hardware(threads=1),
    )
    return api.train(run, resume=True), time.process_time() - begun


def main() -> None:
    """Pretrain twice, measure two curves on the same labels, print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.seeds, options.sizes = 3, 1, [50]
    novels, speech = prepare(options.out)
    found = {}
    for name in OBJECTIVES:
        checkpoint, seconds = pretrain(name, novels, options)
        rivals = ("untrained", "word_tfidf", "letter_tfidf") if name == "masked-words" else ()
        spec = api.label_efficiency_runs.LabelEfficiency(
            data=speech,
            out=options.out / f"curve-{name}",
            init=checkpoint.path,
            objective=ClassifyDocuments(length=options.length, grams=False),
            sizes=tuple(options.sizes),
            seeds=options.seeds,
            methods=("pretrained", *rivals),
            recipe=api.label_efficiency_runs.Recipe(
                Schedule(steps=1, batch=32, lr=0.0, kind="step"), epochs=0.0
            ),
            metric="auroc",
            higher_is_better=True,
            hardware=Hardware(threads=1),
        )
        result = api.label_efficiency(spec)
        for method in result.methods:
            cells = [result.interval(method, n).text(3) for n in result.sizes]
            found[name if method == "pretrained" else method] = cells
        print(f"{name}: {seconds / 60:.1f} CPU minutes", flush=True)
    print("| method | " + " | ".join(f"{n} labels" for n in options.sizes) + " |")
    print("|---" * (len(options.sizes) + 1) + "|")
    for name, cells in found.items():
        print(f"| {name} | " + " | ".join(cells) + " |")
    (options.out / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
