"""How many bases a second does one core turn into 6-mer tokens: ours, DNABERT's strings, and HF
tokenizers?

    PYTHONPATH=. python benchmarks/tokenise.py [--quick] [FASTA ...]      (HF's line needs: pip
    install tokenizers)

All three start from what they read: ours from base codes as sciforge stores them, DNABERT's and
HF's from a sequence in memory; letters to codes is listed apart. The slow ones get the first 2 Mbp
only. Processor time, the best of several alternating rounds. Prediction: about 10 passes over bytes
in the cache at 10 GB/s, so several hundred Mbp/s; DNABERT's 1.6 (an earlier trial on another
machine).
"""

import argparse
import gzip
import lzma
import os
import time
from itertools import product
from pathlib import Path

os.environ.setdefault("RAYON_NUM_THREADS", "1")

import numpy as np

from sciforge.genomes.data.codec import dnabert_order, kmer_ids

K = 6
GENOMES = Path(__file__).parents[2] / "shared/data/genomes"
DEFAULT = [
    GENOMES / "yeast/Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz",
    GENOMES / "ecoli/GCF_000005845.2_ASM584v2_genomic.fna.gz",
    GENOMES / "bacteria/V_cholerae_N16961.fasta.gz",
    GENOMES / "bacteria/MGH78578.fna.xz",
]
OPENERS = {".gz": gzip.open, ".xz": lzma.open}
CODES = np.full(256, 4, np.uint8)
CODES[list(b"ACGTacgt")] = [0, 1, 2, 3, 8, 9, 10, 11]


def read_letters(paths: list[Path]) -> bytes:
    """All sequences of the files, joined; random ones where no file is at hand."""
    paths = [path for path in paths if path.exists()]
    if not paths:
        print("(no FASTA at hand: 20 Mbp of random bases)")
        return np.frombuffer(b"ACGT", np.uint8)[
            np.random.default_rng(0).integers(0, 4, 20_000_000)
        ].tobytes()
    sequences = []
    for path in paths:
        with OPENERS.get(path.suffix, open)(path, "rb") as lines:
            sequences += [line.strip() for line in lines if not line.startswith(b">")]
    return b"".join(sequences)


def seq2kmer(seq: str, k: int) -> str:
    """DNABERT's own function (jerryji1993/DNABERT, motif_utils.py), word for word but for this
    line.
    """
    kmer = [seq[x : x + k] for x in range(len(seq) + 1 - k)]
    kmers = " ".join(kmer)
    return kmers


def dnabert_vocabulary() -> dict[str, int]:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map("".join, product("ATCG", repeat=K))]
    return {word: index for index, word in enumerate(words)}


def dnabert(text: str, vocabulary: dict[str, int]) -> list[int]:
    """As DNABERT's DNATokenizer: split the spaced text, look up every word."""
    unknown = vocabulary["[UNK]"]
    return [vocabulary.get(word, unknown) for word in seq2kmer(text, K).split()]


def huggingface(vocabulary: dict[str, int]):
    """Return a function from text to ids by tokenizers' WordLevel model, or None where it is not
    installed.
    """
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers
    except ImportError:
        return None
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return lambda text: tokenizer.encode(seq2kmer(text, K)).ids


def seconds(function, argument) -> float:
    start = time.process_time()
    function(argument)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fasta", nargs="*", type=Path, default=DEFAULT)
    parser.add_argument(
        "--quick", action="store_true", help="two rounds, and less for the slow ones"
    )
    args = parser.parse_args()
    letters = read_letters(args.fasta)
    little = letters[: 200_000 if args.quick else 2_000_000].decode().upper()
    raw = np.frombuffer(letters, np.uint8)
    bases, vocabulary = CODES[raw], dnabert_vocabulary()
    same = dnabert_order(K)[dnabert(little[:10_000], vocabulary)] == kmer_ids(bases[:10_000], K)
    if not same.all():
        raise SystemExit("the two disagree about a token: the comparison means nothing")
    ways = {
        "sciforge, codes to ids": (lambda codes: kmer_ids(codes, K), bases),
        "sciforge, letters to codes to ids": (lambda text: kmer_ids(CODES[text], K), raw),
        "DNABERT, seq2kmer and dict": (lambda text: dnabert(text, vocabulary), little),
    }
    if by_words := huggingface(vocabulary):
        ways["HF tokenizers WordLevel, spacing included"] = (by_words, little)
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(2 if args.quick else 5):
        for name, (function, argument) in ways.items():
            best[name] = min(best[name], seconds(function, argument))
    speeds = {name: len(ways[name][1]) / best[name] / 1e6 for name in ways}
    print(
        f"{len(letters) / 1e6:.1f} Mbp, k = {K}, one core\n\n| way | Mbp/s | times DNABERT's"
        " |\n|---|---|---|"
    )
    for name, speed in speeds.items():
        print(f"| {name} | {speed:,.1f} | {speed / speeds['DNABERT, seq2kmer and dict']:,.1f} |")


if __name__ == "__main__":
    main()
