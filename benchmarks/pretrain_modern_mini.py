"""The recipe of the bundled checkpoint modern-mini-english, as it was run (CPU, one thread).

    python datasets/build_text.py --corpus runs/text
    python benchmarks/pretrain_modern_mini.py [--corpus runs/text] [--out runs]

Corpus, 5.6 million letters: Jane Austen's novels without the chapters that austen-speech holds out,
and what gensim carries for its own tests: 107 articles of Wikipedia, Australian news, posts of news
groups. It holds no hotel review. The same on the command line:

    sciforge prepare documents runs/text/*.txt --shares 0.98 0.02 0 --out runs/general
    sciforge train masked-words --data runs/general --out runs/modern-mini-english --model
    modern-mini --length 256 \\
        --schedule.steps 3000 --schedule.batch 8 --schedule.lr 2e-3 --schedule.warmup 0.05 \\
        --schedule.kind trapezoid --schedule.cooldown 0.3 \\
        --hardware.threads 1
"""

import argparse
from pathlib import Path

import sciforge as sf
from sciforge.text import MaskedWords
from sciforge.text.data.documents import Documents

STEPS = 3000


def main() -> None:
    """Prepare the corpus where it is missing and train, or go on with a run that was stopped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=Path("runs/text"))
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    store = options.out / "general"
    if not store.exists():
        files = tuple(sorted(options.corpus.glob("*.txt")))
        sf.prepare(Documents(files=files, shares=(0.98, 0.02, 0.0)), store)
    run = sf.Run(
        data=store,
        out=options.out / "modern-mini-english",
        model="modern-mini",
        objective=MaskedWords(length=256),
        schedule=sf.Schedule(
            steps=options.steps,
            batch=8,
            lr=2e-3,
            warmup=0.05,
            kind="trapezoid",
            cooldown=0.3,
            save_every=1000,
        ),
        hardware=sf.Hardware(threads=1),
    )
    checkpoint = sf.train(run, resume=True)
    metrics = sf.evaluate(checkpoint.path, store, split="validation")
    print(f"{checkpoint.path}: step {checkpoint.step}, {metrics}")


if __name__ == "__main__":
    main()
