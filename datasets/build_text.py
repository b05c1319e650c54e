"""Make the bundled English text anew out of Debian and Python packages; run it as `python
datasets/build_text.py`.

Needs `apt-get`, `dpkg-deb` (for Debian's r-cran-janeaustenr) and, for --corpus, `pip install
gensim`. Prints size and SHA-256 of each file; a file that differs from what its card records is an
error. With `--corpus FOLDER` it writes the general corpus of modern-mini-english there instead: the
novels without their held-out chapters, and the Wikipedia extract, the news and the news groups that
gensim carries for its own tests.
"""

import argparse
import bz2
import csv
import gzip
import hashlib
import io
import re
import struct
import subprocess
import sys
import tempfile
import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sciforge.text.data.sentences import split_sentences

HERE = Path(__file__).resolve().parent
NOVELS = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
CHAPTER = re.compile(r"(?:CHAPTER|Chapter) [IVXL0-9]+\.?")
WITHIN = 5  # of so many chapters one is for the test and one for development
ROWS = {"train": 600, "validation": 120, "test": 300}  # of each class
LETTERS = (60, 240)
STRINGS, STRING = 16, 9  # R's types STRSXP and CHARSXP


def novels(package: Path | None, work: Path) -> list[list[str]]:
    """Return the lines of each of the six novels, in the order of the package (Emma first)."""
    if package is None:
        subprocess.run(
            ["apt-get", "download", "r-cran-janeaustenr"],
            cwd=work,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        subprocess.run(
            ["dpkg-deb", "-x", str(next(work.glob("r-cran-janeaustenr*.deb"))), str(work / "x")],
            check=True,
        )
        package = work / "x"
    data, found = (package / NOVELS).read_bytes(), []
    while data:  # each value: its length, then zlib
        unpack = zlib.decompressobj()
        found.append(strings(unpack.decompress(data[4:])))
        data = unpack.unused_data
    return found


def strings(data: bytes) -> list[str]:
    """Return a vector of strings out of R's serialisation (XDR, version 3)."""
    if data[:2] != b"X\n":
        sys.exit("not a serialised value of R")
    at = 2 + 12
    at += 4 + struct.unpack_from(">i", data, at)[0]  # the name of the encoding
    kind, count = struct.unpack_from(">ii", data, at)
    if kind & 255 != STRINGS:
        sys.exit("not a vector of strings")
    at, found = at + 8, []
    for _ in range(count):
        kind, size = struct.unpack_from(">ii", data, at)
        if kind & 255 != STRING:
            sys.exit("not a string")
        found.append(data[at + 8 : at + 8 + max(size, 0)].decode("utf-8", "replace"))
        at += 8 + max(size, 0)
    return found


def chapters(lines: list[str]) -> list[list[str]]:
    """Return the paragraphs of each chapter of a novel; what stands before the first chapter is
    left out.
    """
    found: list[list[str]] = []
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        block = " ".join(block.split()).replace("_", "")
        if CHAPTER.fullmatch(block):
            found.append([])
        elif found and block and not re.fullmatch(r"(?:VOLUME|THE END|FINIS|END OF).*", block):
            found[-1].append(block)
    return found


def split_of(number: int) -> str:
    """Return the split of a chapter by its place in the novel."""
    return {1: "validation", 3: "test"}.get(number % WITHIN, "train")


def speech(paragraph: str) -> str | None:
    """Return what a paragraph says that is speech from end to end, or that has none; None for a
    mixture.
    """
    marks = [place for place, letter in enumerate(paragraph) if letter in '"“”']
    if not marks:
        return "narration"
    return "speech" if marks == [0, len(paragraph) - 1] else None


def opening(paragraph: str) -> str:
    """Return the first sentences of a paragraph, its quotes taken off, as far as they fit in."""
    text = ""
    for sentence in split_sentences(paragraph.strip('"“”')):
        if len(text) + len(sentence) > LETTERS[1]:
            break
        text = f"{text} {sentence}".strip()
    return text


def austen_speech(books: list[list[str]]) -> bytes:
    """Return openings of paragraphs that are speech or narration, quotes taken off, split by
    chapter, as CSV.
    """
    rows: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for book, lines in enumerate(books):
        for number, paragraphs in enumerate(chapters(lines)):
            for paragraph in paragraphs:
                label, text = speech(paragraph), opening(paragraph)
                if label and LETTERS[0] <= len(text) and not set('"“”') & set(text):
                    rows.setdefault((split_of(number), label), []).append(
                        (text, f"{book}-{number}")
                    )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["split", "label", "chapter", "text"])
    for (split, label), found in sorted(rows.items()):
        chosen = np.random.default_rng(0).permutation(len(found))[: ROWS[split]]
        for place in sorted(chosen.tolist()):
            writer.writerow([split, label, found[place][1], found[place][0]])
    return gzip.compress(out.getvalue().encode(), 9, mtime=0)


def austen_novels(books: list[list[str]]) -> bytes:
    """Return the training chapters of all novels, a paragraph a line, a blank line after each
    chapter.
    """
    parts = []
    for lines in books:
        kept = [
            found for number, found in enumerate(chapters(lines)) if split_of(number) == "train"
        ]
        parts += ["\n".join(paragraphs) for paragraphs in kept]
    return gzip.compress(("\n\n".join(parts) + "\n").encode(), 9, mtime=0)


def wikipedia(data: Path) -> Iterator[str]:
    """Yield the articles of the extract as plain text, tables and lists left out."""
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki

    with bz2.open(
        data / "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
    ) as pages:
        for _, text, _ in extract_pages(pages, ("0",)):
            if not text.upper().startswith("#REDIRECT"):
                plain = re.sub(r"'{2,}", "", filter_wiki(text))
                lines = (line.strip() for line in plain.split("\n"))
                kept = [line for line in lines if len(line) > 80 and line[0] not in "*#:;|=!{+"]
                yield "\n".join(kept)


def news_groups(data: Path) -> Iterator[str]:
    """Yield the posts, without headers, quotations and signatures; read as text, since a pickle
    is not to be trusted.
    """
    packed = zlib.decompress((data / "mini_newsgroup").read_bytes())
    for found in re.findall(rb"^a?V(.*)$", packed, re.MULTILINE):
        _, _, body = found.decode("raw_unicode_escape").partition("\n\n")
        lines = body.split("\n--")[0].split("\n")
        kept = [
            line
            for line in lines
            if not re.match(r"\s*(?:[>|:#]|\S+>)|.*(?:writes|wrote|said):\s*$|In article", line)
        ]
        yield "\n".join(line for line in kept if line.strip())


def corpus(folder: Path, books: list[list[str]]) -> None:
    """Write the general corpus: a document's paragraphs on lines, a blank line after each
    document.
    """
    from gensim.test.utils import datapath

    data = Path(datapath(""))
    news = [
        line.strip()
        for name in ("lee_background.cor", "lee.cor")
        for line in (data / name).read_text("cp1252").splitlines()
    ]
    parts = {
        "novels": [gzip.decompress(austen_novels(books)).decode()],
        "wikipedia": wikipedia(data),
        "news": news,
        "groups": news_groups(data),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, documents in parts.items():
        text = (
            "\n\n".join(document.strip() for document in documents if len(document.strip()) > 200)
            + "\n"
        )
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        print(name, len(text))


MADE = {"austen-speech": austen_speech, "austen-novels": austen_novels}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MADE)}; all by default")
    parser.add_argument(
        "--package",
        type=Path,
        help="folder where r-cran-janeaustenr is unpacked, to save downloading it",
    )
    parser.add_argument(
        "--corpus", type=Path, help="write the general corpus into this folder instead"
    )
    args = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as room:
        books = novels(args.package, Path(room))
    if args.corpus:
        corpus(args.corpus, books)
        return 0
    for name in args.names or MADE:
        data = MADE[name](books)
        card = tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))
        (HERE / card["file"]).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        same = digest == card.get("sha256")
        wrong += not same
        print(name, len(data), digest, "as its card says" if same else "NOT what its card says")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
