"""The recipe of the bundled checkpoint dna-bert-mini, as it was run (51 minutes of one CPU core,
bfloat16).

    python benchmarks/pretrain_dna_bert_mini.py [--data ../shared/data/genomes] [--out runs]

Corpus: S. cerevisiae without its test chromosomes IV, XIII, XV, its development chromosome VIII and
its mitochondrion; V. cholerae N16961; K. pneumoniae MGH78578; Leptospira kirschneri H1. E. coli is
left out, since it is a benchmark. The same on the command line:

    sciforge prepare genome FILES --test IV XIII XV --validation VIII --exclude Mito --out
    runs/corpus sciforge train masked --data runs/corpus --out runs/dna-bert-mini --model mini
    --codec.k 6 --codec.stride 3 \\
        --length 258 --frame-weight 1 --unmasked-share 0.25 --short-share 0.25 --schedule.steps 6000
        \\ --schedule.batch 32 --schedule.lr 1.5e-3 --schedule.warmup 0.03 --schedule.min-lr-ratio
        0.03 --schedule.save-every 500 \\ --hardware.threads 1 --hardware.precision bfloat16
"""

import argparse
from pathlib import Path

import sciforge as sf
from sciforge.genomes import KmerCodec, MaskedKmers
from sciforge.genomes.data.genome import Genome

FILES = (
    "yeast/Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz",
    "bacteria/V_cholerae_N16961.fasta.gz",
    "bacteria/MGH78578.fna.xz",
    "bacteria/Leptospira_kirschneri_H1.gbk.gz",
)


def main() -> None:
    """Prepare the corpus where it is missing and train, or go on with a run that was stopped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/genomes"))
    parser.add_argument("--out", type=Path, default=Path("runs"))
    options = parser.parse_args()
    files = tuple(options.data / name for name in FILES)
    corpus = options.out / "corpus"
    if not corpus.exists():
        sf.prepare(
            Genome(files=files, test=("IV", "XIII", "XV"), validation=("VIII",), exclude=("Mito",)),
            corpus,
        )
    run = sf.Run(
        data=corpus,
        out=options.out / "dna-bert-mini",
        model="mini",
        codec=KmerCodec(k=6, stride=3),
        objective=MaskedKmers(length=258, frame_weight=1.0, unmasked_share=0.25, short_share=0.25),
        schedule=sf.Schedule(
            steps=6000, batch=32, lr=1.5e-3, warmup=0.03, min_lr_ratio=0.03, save_every=500
        ),
        hardware=sf.Hardware(threads=1, precision="bfloat16"),
    )
    checkpoint = sf.train(run, resume=True)
    print(f"{checkpoint.path}: step {checkpoint.step}")


if __name__ == "__main__":
    main()
