"""Make the bundled data anew out of Debian and Python packages; run it as `python
datasets/build.py` on Debian.

Needs `apt-get`, `dpkg-deb`, `pip` and, for the promoters, `pip install rdata`. Prints size and
SHA-256 of each file; a file that differs from what its card records is an error.
"""

import argparse
import gzip
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent


def from_debian(package: str, inside: str, work: Path) -> bytes:
    """Return one file of a Debian package."""
    folder = work / package
    if not folder.exists():
        folder.mkdir()
        subprocess.run(
            ["apt-get", "download", package], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        subprocess.run(
            ["dpkg-deb", "-x", str(next(folder.glob("*.deb"))), str(folder / "x")], check=True
        )
    return (folder / "x" / inside).read_bytes()


def from_biopython(inside: str, work: Path) -> bytes:
    """Return one file of Biopython's source distribution."""
    if not (found := list(work.glob("biopython-*.tar.gz"))):
        fetch = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
        ]
        subprocess.run(
            [*fetch, "--no-binary", ":all:", "--dest", str(work), "biopython==1.88"], check=True
        )
        found = list(work.glob("biopython-*.tar.gz"))
    with tarfile.open(found[0]) as archive:
        return archive.extractfile(f"biopython-1.88/{inside}").read()


def packed(data: bytes) -> bytes:
    """Compress without a time stamp: the same input and zlib give the same bytes."""
    return gzip.compress(data, 9, mtime=0)


def promoters(work: Path) -> bytes:
    """Return kernlab's `promotergene` (53 promoters, 53 others, 57 bases each) as CSV."""
    import rdata

    path = work / "promotergene.rda"
    path.write_bytes(
        from_debian("r-cran-kernlab", "usr/lib/R/site-library/kernlab/data/promotergene.rda", work)
    )
    frame = rdata.read_rda(path)["promotergene"]
    lines = ["name,label,sequence"]
    for number, (label, *bases) in enumerate(frame.to_numpy().tolist(), 1):
        word = {"+": "promoter", "-": "other"}[label]
        lines.append(f"{word}-{number},{word},{''.join(bases).upper()}")
    return ("\n".join(lines) + "\n").encode()


EXAMPLES = "usr/share/doc/any2fasta/examples/test.gbk.gz"
LAMBDA = "usr/share/doc/bowtie2/examples/reference/lambda_virus.fa.gz"
RECIPES: dict[str, Callable[[Path], bytes]] = {
    "uci-promoters": promoters,
    "leptospira-kirschneri": lambda work: from_debian("any2fasta-examples", EXAMPLES, work),
    "phage-lambda": lambda work: from_debian("bowtie2-examples", LAMBDA, work),
    "arabidopsis-chloroplast": lambda work: packed(
        from_biopython("Tests/GenBank/NC_000932.gb", work)
    ),
    "yersinia-plasmid": lambda work: packed(from_biopython("Tests/GenBank/NC_005816.gb", work)),
    "phage-phix174": lambda work: packed(from_biopython("Tests/GFF/NC_001422.gbk", work)),
}


def main() -> int:
    """Write the files and compare them with their cards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    wanted = parser.parse_args().names or list(RECIPES)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            data = RECIPES[name](Path(folder))
            digest = hashlib.sha256(data).hexdigest()
            card = HERE / f"{name}.toml"
            body = tomllib.loads(card.read_text(encoding="utf-8")) if card.exists() else {}
            same = body.get("sha256") == digest
            wrong += not same
            print(
                f"{name} {len(data)} {digest}"
                f" {'as the card says' if same else 'NOT as the card says'}"
            )
            (HERE / body.get("file", name)).write_bytes(data)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
