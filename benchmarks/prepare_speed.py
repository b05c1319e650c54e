"""Preparation of genomes: speed, peak memory and its growth, and DNABERT's corpus step beside it.

    python benchmarks/prepare_speed.py [--data ../shared/data/genomes] [--repeats 3]

Reads real FASTA (26.5 Mbp: yeast, E. coli, V. cholerae, K. pneumoniae), written uncompressed to a
temporary folder, as it stands and ten times over (contigs renamed), so that growth with the genome
shows. Start-up is measured by preparing a genome of 1 kb in the same process and taken off.
DNABERT's corpus step (seq2kmer strings) runs on a part of the same bases.
"""

import argparse
import gzip
import lzma
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILES = (
    "yeast/Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz",
    "ecoli/GCF_000005845.2_ASM584v2_genomic.fna.gz",
    "bacteria/V_cholerae_N16961.fasta.gz",
    "bacteria/MGH78578.fna.xz",
)
HUMAN_BP = 3_117_292_070  # T2T-CHM13v2.0, Nurk et al. 2022
CHILD = """
import resource, sys, time
from pathlib import Path
import sciforge as sf
from sciforge.genomes.data.genome import Genome
small, large, out = map(Path, sys.argv[1:4])
sf.prepare(Genome(files=(small,)), out / "warm")
peak_kB = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, wall, cpu = peak_kB(), time.perf_counter(), time.process_time()
sf.prepare(Genome(files=(large,)), out / "store")
print(time.perf_counter() - wall, time.process_time() - cpu, before, peak_kB())
"""


def read_letters(data: Path) -> list[tuple[str, bytes]]:
    """Return (header, sequence with its line ends) of every contig."""
    contigs = []
    for name in FILES:
        opener = lzma.open if name.endswith(".xz") else gzip.open
        for record in opener(data / name, "rb").read().split(b">")[1:]:
            header, _, body = record.partition(b"\n")
            contigs.append((header.split()[0].decode(), body))
    return contigs


def write_fasta(path: Path, contigs: list[tuple[str, bytes]], copies: int) -> int:
    """Write the contigs so many times over and return the number of bases."""
    total = 0
    with open(path, "wb") as handle:
        for copy in range(copies):
            for header, body in contigs:
                handle.write(f">{copy}_{header}\n".encode() + body.rstrip(b"\n") + b"\n")
                total += len(body) - body.count(b"\n") - body.count(b"\r")
    return total


def dnabert_seconds(
    contigs: list[tuple[str, bytes]], k: int = 6, most: int = 2_000_000
) -> tuple[float, int]:
    """Time DNABERT's corpus step (seq2kmer: a string of space-separated k-mers, written out) on
    up to `most` bases.
    """
    sequence = contigs[0][1].replace(b"\n", b"")[:most].decode()
    with tempfile.TemporaryFile("w+") as out:
        start = time.process_time()
        for at in range(0, len(sequence), 510 + k - 1):
            window = sequence[at : at + 510 + k - 1]
            out.write(" ".join([window[x : x + k] for x in range(len(window) + 1 - k)]) + "\n")
        return time.process_time() - start, len(sequence)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data/genomes"
    )
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if not options.data.exists():
        sys.exit(
            f"{options.data} is missing; give --data with the genomes named in datasets/*.toml"
        )
    contigs = read_letters(options.data)
    print(
        "| input | Mbp | wall Mbp/s | CPU Mbp/s | peak MiB | of it before"
        " |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "small.fa").write_text(">a\n" + "ACGT" * 250 + "\n")
        for copies in (1, 10):
            bases = write_fasta(place / "large.fa", contigs, copies)
            best = None
            for repeat in range(options.repeats):
                out = place / f"run-{copies}-{repeat}"
                command = [sys.executable, "-c", CHILD, place / "small.fa", place / "large.fa", out]
                wall, cpu, before, peak = map(
                    float, subprocess.check_output(command, text=True).split()
                )
                subprocess.run(["rm", "-r", out], check=True)
                best = (wall, cpu, before, peak) if best is None or cpu < best[1] else best
            wall, cpu, before, peak = best
            speeds = f"{bases / wall / 1e6:.0f} | {bases / cpu / 1e6:.0f}"
            print(
                f"| FASTA x {copies} | {bases / 1e6:.1f} | {speeds} | {peak / 1024:.0f} |"
                f" {before / 1024:.0f} |"
            )
    theirs, length = dnabert_seconds(contigs)
    print(
        f"\nHuman genome ({HUMAN_BP / 1e9:.2f} Gbp), extrapolated from the largest:"
        f" {HUMAN_BP / (bases / wall) / 60:.1f} minutes;"
    )
    hours = theirs / length * HUMAN_BP / 3600
    print(
        f"DNABERT's seq2kmer text at {length / theirs / 1e6:.1f} Mbp/s, one core, tokenising not"
        f" counted: {hours:.1f} hours."
    )
    print(
        f"This process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB (holds"
        " the input letters)."
    )


if __name__ == "__main__":
    main()
