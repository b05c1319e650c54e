"""Promoters from one species to another: E. coli, B. subtilis and mouse, and one of them left out.

The sources are published sets of promoters against other sequences (CNNPromoterData), cut to the
81 bases that all have (mouse: -60 to +20 of 251). Such sets differ in GC content between the
classes, so `gc_only` stands beside the others.

Usage: python benchmarks/genomes_transfer.py DATA OUT [--labels 128] [--seeds 3]
"""

import argparse
import gzip
from pathlib import Path

import sciforge as sf
from sciforge.core.training.run import Hardware

SOURCES = {
    "E. coli": ("Ecoli_prom.fa", "Ecoli_non_prom.fa", 0),
    "B. subtilis": (
        "other_species/Bacillus_prom.fa.gz",
        "other_species/Bacillus_non_prom.fa.gz",
        0,
    ),
    "mouse": ("other_species/Mouse_tata.fa.gz", "other_species/Mouse_nonprom.fa.gz", 140),
}
LENGTH = 81


def read_fasta(path: Path) -> list[str]:
    """Return the sequences of a FASTA file; their titles are not unique and not needed."""
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else open(path)
    with opened as lines:
        records = lines.read().split(">")[1:]
    return ["".join(record.splitlines()[1:]).upper() for record in records]


def write_table(folder: Path, files: tuple[str, str, int], out: Path) -> Path:
    """Write sequences of equal length with their label, each sequence once."""
    rows = {}
    for name, label in zip(files[:2], ("promoter", "other"), strict=True):
        for sequence in read_fasta(folder / name):
            window = sequence[files[2] : files[2] + LENGTH]
            if len(window) == LENGTH and set(window) <= set("ACGT"):
                rows[window] = label
    lines = [f"{sequence}\t{label}" for sequence, label in rows.items()]
    out.write_text("\n".join(["sequence\tlabel", *lines]) + "\n")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder `genomes/promoters`")
    parser.add_argument("out", type=Path)
    parser.add_argument("--labels", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    stores = []
    for name, files in SOURCES.items():
        store = given.out / name
        if not store.exists():
            table = write_table(given.data, files, given.out / f"{name}.tsv")
            sf.prepare(sf.genomes.Sequences(files=(table,), test_share=0.3), store)
        stores.append(store)
    result = sf.transfer(
        data=stores,
        init="dna-bert-mini",
        objective=sf.genomes.Classify(),
        labels=given.labels,
        seeds=given.seeds,
        methods=("frozen", "untrained", "kmer_lr", "gradient_boosting", "gc_only"),
        metric="mcc",
        hardware=Hardware(device="cpu", threads=1),
        out=given.out / "transfer",
    )
    print(result)
    result.save(given.out / "transfer.csv")


if __name__ == "__main__":
    main()
