"""Sequence files: exact round trips, and one clear line for everything that can be wrong with
them.
"""

import bz2
import gzip
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sciforge.errors import DataError, SciforgeError
from sciforge.genomes.data.labelled_tables import read_labelled
from sciforge.genomes.data.sequences import (
    N_CODE,
    SOFT_MASK,
    Reject,
    as_letters,
    encode,
    open_stream,
    read_sequences,
    reverse_complement,
)

SHARED = (
    Path(os.environ.get("SCIFORGE_SHARED", Path(__file__).parents[4] / "shared"))
    / "data"
    / "genomes"
)
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the shared data are not at {SHARED}"
)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
COMPRESS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}

GENBANK = """LOCUS       TEST                      20 bp    DNA     circular BCT 01-JAN-2000
DEFINITION  a test.
ACCESSION   TEST
VERSION     TEST.1
FEATURES             Location/Qualifiers
     source          1..20
                     /organism="x"
     CDS             2..10
                     /gene="abc"
ORIGIN
        1 acgtacgtac gtnnacgtac
//
"""


def put(folder: Path, content: bytes | str, name: str = "reads.fa") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def whole(path: Path, **options) -> dict[str, str]:
    found: dict[str, str] = {}
    for piece in read_sequences(path, **options):
        assert piece.start == len(found.get(piece.name, ""))
        found[piece.name] = found.get(piece.name, "") + as_letters(piece.bases)
    return found


def fails(path: Path, *words: str, line: int | None = None, read=read_sequences) -> None:
    with pytest.raises(DataError) as caught:
        list(read(path))
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: " if line else f"{path}: "), message
    assert "\n" not in message and ";" in message, message
    for word in words:
        assert word in message, message


def test_codes_of_every_letter():
    codes = encode(b"ACGTUNRYSWKMBDHVacgtun")
    assert codes.tolist() == [0, 1, 2, 3, 3] + [N_CODE] * 11 + [
        SOFT_MASK | c for c in (0, 1, 2, 3, 3, N_CODE)
    ]


def test_reverse_complement_keeps_mask_and_n():
    codes = encode(b"AAcgTn")
    assert as_letters(reverse_complement(codes)) == "nAcgTT"
    assert np.array_equal(reverse_complement(reverse_complement(codes)), codes)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compression_is_told_by_content(tmp_path, suffix):
    path = put(tmp_path, COMPRESS[suffix](b">a\nACGT\n>b\nGG\n"), "misleading.txt")
    assert whole(path) == {"a": "ACGT", "b": "GG"}


def test_multi_member_gzip_is_one_file(tmp_path):
    path = put(tmp_path, gzip.compress(b">a\nAC") + gzip.compress(b"GT\n"), "a.bgz")
    assert whole(path) == {"a": "ACGT"}


def test_pieces_of_one_contig(tmp_path):
    path = put(tmp_path, ">a circular=true\nACGTA\nCG\n>b\nAC\n")
    pieces = list(read_sequences(path, piece_bases=3, block_bytes=4))
    assert [(p.name, p.start, as_letters(p.bases), p.last, p.circular) for p in pieces] == [
        ("a", 0, "ACG", False, True),
        ("a", 3, "TAC", False, True),
        ("a", 6, "G", True, True),
        ("b", 0, "AC", True, False),
    ]


def test_crlf_blank_lines_byte_order_mark_and_no_last_newline(tmp_path):
    path = put(tmp_path, b"\xef\xbb\xbf\r\n\r\n>a x\r\nAC\r\n\r\nGT\r\n\r\n>b\r\nTT")
    assert whole(path) == {"a": "ACGT", "b": "TT"}


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_truncated_compressed_file(tmp_path, suffix):
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 20_000))
    content = COMPRESS[suffix](f">a\n{letters}\n".encode())
    fails(
        put(tmp_path, content[: len(content) // 2], "r.fa" + suffix),
        "ends too early; fetch it again",
    )
    fails(put(tmp_path, content[:-4], "s.fa" + suffix), "ends too early; fetch it again")


def test_flipped_bytes_in_a_compressed_file(tmp_path):
    content = bytearray(gzip.compress(b">a\n" + b"ACGTTGCA" * 1000 + b"\n"))
    content[-6] ^= 255
    fails(put(tmp_path, bytes(content), "r.fa.gz"), "cannot be read", "fetch it again")


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", None, ["empty"]),
        (gzip.compress(b""), None, ["empty"]),
        (b"\n \n\n", None, ["no record"]),
        (bytes(range(256)), None, ["binary"]),
        (b">a\nAC\nAJT\n", 3, ["letter 'J' is not a nucleotide", "--on-error skip"]),
        (b">a\r\nAC\r\n\r\nAC\r\nG-T\r\n", 5, ["letter '-'"]),
        (b">a\nAC*\n", 2, ["letter '*'"]),
        (b">a\nAC\xc3\n", 2, ["not a nucleotide"]),
        (b">a\nAC\n>b\nGG\n>a\nTT\n", 5, ["'a'", "second"]),
        (b">a\n>b\nGG\n", 1, ["'a' has no sequence"]),
        (b">b\nGG\n>a", 3, ["'a' has no sequence"]),
        (b">\nGG\n", 1, ["no name"]),
        (b"\n\nACGT\n>a\nGG\n", 3, ["'>name'"]),
        (b"@r1\nACGT\n+\nIIII\n", 1, ["'>name'"]),
        (GENBANK.replace("nnac", "njac").encode(), 11, ["letter 'J'"]),
        (GENBANK.replace("nnac", "ac").encode(), 1, ["LOCUS says 20 bp but there are 18"]),
        (
            GENBANK.partition("ORIGIN")[0].encode() + b"CONTIG      join(X:1..20)\n//\n",
            1,
            ["no sequence"],
        ),
        (GENBANK.encode()[:-3], 1, ["not closed by '//'"]),
        ((GENBANK + GENBANK).encode(), 13, ["second record is named 'TEST.1'"]),
        ((GENBANK + "nonsense\n//\n").encode(), 13, ["begins with LOCUS"]),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, content, line, words):
    fails(put(tmp_path, content), *words, line=line)


def test_missing_folder_and_forbidden(tmp_path):
    fails(tmp_path / "none.fa", "no such file")
    fails(tmp_path, "cannot be opened")
    path = put(tmp_path, ">a\nAC\n")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    fails(path, "cannot be opened")


def test_overlapping_kmers_are_not_joined(tmp_path):
    kmers = ">x\nACGT\nACGTAC CGTACG GTACGA\n>y\nACGTACGTAC GTTACGATCG AC\n"
    fails(put(tmp_path, kmers), "overlapping 6-mers", line=3)
    rejects = []
    pieces = list(read_sequences(put(tmp_path, kmers), rejects.append))
    assert [piece.name for piece in pieces] == ["y"] and len(pieces[0].bases) == 22
    assert [reject.line for reject in rejects] == [3]


def test_carriage_returns_alone_are_named(tmp_path):
    fails(put(tmp_path, ">a\rACGT\r>b\rACGT\r"), "carriage return", line=1)


def test_a_far_line_is_named_exactly(tmp_path):
    rows = [">a"] + ["ACGTACGTAC"] * 900
    rows[700] = "ACGTJCGTAC"
    path = put(tmp_path, "\n".join(rows))
    for block_bytes in (7, 64, 2**20):
        with pytest.raises(DataError, match="reads.fa:701: letter 'J'"):
            list(read_sequences(path, block_bytes=block_bytes))


@pytest.mark.parametrize("block_bytes", [1, 5, 2**20])
def test_a_header_begins_only_at_the_start_of_a_line(tmp_path, block_bytes):
    path = put(tmp_path, ">a\nAC>b\nGG\n")
    with pytest.raises(DataError, match="reads.fa:2: letter '>'"):
        list(read_sequences(path, block_bytes=block_bytes))


@pytest.mark.parametrize("block_bytes", [3, 2**20])
def test_skip_drops_bad_records_whole(tmp_path, block_bytes):
    path = put(tmp_path, "CC\n>bad\nACGT\nAJ\nA?\n>a\nAC\n>a\nGG\n>none\n>bad\nTT\n>\nAA\n")
    rejects: list[Reject] = []
    options = {"on_reject": rejects.append, "block_bytes": block_bytes, "piece_bases": 2}
    assert whole(path, **options) == {"a": "AC", "bad": "TT"}
    assert [(r.line, r.name) for r in rejects] == [
        (1, ""),
        (4, "bad"),
        (8, "a"),
        (10, "none"),
        (13, ""),
    ]


def test_skip_in_genbank_and_when_nothing_is_left(tmp_path):
    rejects: list[Reject] = []
    path = put(tmp_path, GENBANK.replace("TEST", "BADX").replace("nnac", "njac") + GENBANK)
    assert whole(path, on_reject=rejects.append) == {"TEST.1": "ACGTACGTACGTNNACGTAC"}
    assert [(r.line, r.name, r.reason) for r in rejects] == [
        (11, "BADX.1", "letter 'J' is not a nucleotide")
    ]
    path = put(tmp_path, ">a\nJ\n")
    fails(path, "every record was rejected", read=lambda p: read_sequences(p, rejects.append))


def test_genbank_is_circular_and_not_soft_masked(tmp_path):
    path = put(tmp_path, gzip.compress(GENBANK.replace("\n", "\r\n").encode()), "x.gb.gz")
    pieces = list(read_sequences(path, piece_bases=12))
    assert [(p.name, p.start, p.bases.size, p.last, p.circular) for p in pieces] == [
        ("TEST.1", 0, 12, False, True),
        ("TEST.1", 12, 8, True, True),
    ]
    assert as_letters(np.concatenate([p.bases for p in pieces])) == "ACGTACGTACGTNNACGTAC"


records = st.dictionaries(
    st.text("abcXYZ|.019>_", min_size=1, max_size=8),
    st.text("ACGTNacgtn", min_size=1, max_size=90),
    min_size=1,
    max_size=5,
)


@FUZZ
@given(
    records,
    st.integers(1, 70),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(list(COMPRESS)),
    st.integers(1, 50),
    st.integers(1, 40),
    st.booleans(),
)
def test_fasta_round_trip(
    tmp_path, given_records, width, newline, suffix, block_bytes, piece_bases, skip
):
    rows = []
    for name, bases in given_records.items():
        rows += [f">{name} described", *(bases[i : i + width] for i in range(0, len(bases), width))]
    path = put(tmp_path, COMPRESS[suffix](newline.join(rows).encode()))
    on_reject = (lambda reject: pytest.fail(str(reject))) if skip else None
    pieces = list(read_sequences(path, on_reject, block_bytes=block_bytes, piece_bases=piece_bases))
    found: dict[str, str] = {}
    for piece in pieces:
        assert (
            piece.start == len(found.get(piece.name, "")) and 1 <= piece.bases.size <= piece_bases
        )
        found[piece.name] = found.get(piece.name, "") + as_letters(piece.bases)
        assert piece.last == (len(found[piece.name]) == len(given_records[piece.name]))
        assert piece.last or piece.bases.size == piece_bases
    assert found == given_records and list(found) == list(given_records)


heads = st.sampled_from(
    [
        b"",
        b">a\n",
        b"LOCUS       ",
        GENBANK.encode(),
        b"\x1f\x8b\x08",
        b"BZh9",
        b"\xfd7zXZ\0",
        b"+,",
    ]
)


@FUZZ
@given(
    heads,
    st.one_of(st.binary(max_size=200), st.text(">ACGTJ\n \t/.,", max_size=80).map(str.encode)),
    st.booleans(),
)
def test_no_bytes_escape_as_another_error(tmp_path, head, rest, skip):
    path = put(tmp_path, head + rest)
    for read in (read_sequences, read_labelled):
        try:
            items = list(read(path, on_reject=(lambda reject: None) if skip else None))
            assert all(
                item.bases.size and set((item.bases & 7).tolist()) <= {*range(5)} for item in items
            )
            assert items or read is read_labelled  # a table may have no row below its header
        except SciforgeError as error:
            assert len(str(error).splitlines()) == 1


@FUZZ
@given(st.integers(0, len(GENBANK) - 1), st.text(max_size=4), st.integers(0, 12))
def test_damaged_genbank_fails_in_one_kind(tmp_path, at, noise, drop):
    path = put(tmp_path, GENBANK[:at] + noise + GENBANK[at + drop :])
    try:
        list(read_sequences(path))
    except SciforgeError as error:
        assert len(str(error).splitlines()) == 1


def test_labelled_table(tmp_path):
    path = put(tmp_path, "id\tsequence\tlabel\nx\tACgt\t1\n\ny\t ACNN \tno\n", "t.tsv")
    rows = list(read_labelled(path))
    assert [(r.name, as_letters(r.bases), r.label, r.line) for r in rows] == [
        ("x", "ACgt", "1", 2),
        ("y", "ACNN", "no", 4),
    ]
    path = put(tmp_path, 'class,seq\r\n"a,b",AC\r\n', "t.csv")
    assert [(r.name, r.label) for r in read_labelled(path, "seq", "class")] == [("line2", "a,b")]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("sequense\tlabel\nAC\t1\n", 1, ["no column 'sequence'", "did you mean 'sequense'?"]),
        ("sequence\tlabel\nAC\t1\nAJ\t0\n", 3, ["letter 'J'"]),
        ("sequence\tlabel\nAC\n", 2, ["fewer than the header"]),
        ("sequence\tlabel\nAC\t\n", 2, ["empty"]),
        ("sequence\tlabel\n\t1\n", 2, ["empty"]),
        ("sequence\tlabel\nACG CGT GTA\t1\n", 2, ["blanks", "3-mers"]),
    ],
)
def test_what_is_wrong_with_a_table(tmp_path, content, line, words):
    path = put(tmp_path, content, "t.tsv")
    fails(path, *words, line=line, read=read_labelled)
    if line > 1:
        rejects: list[Reject] = []
        list(read_labelled(path, on_reject=rejects.append))
        assert [r.line for r in rejects] == [line]


def test_streams_close_and_peek(tmp_path):
    with open_stream(put(tmp_path, ">a\nAC\n")) as stream:
        assert stream.read() == b">a\nAC\n"
    assert stream.closed


@needs_shared
def test_real_files():
    uci = list(read_labelled(SHARED / "promoters" / "uci_ecoli_promoters.data"))
    assert [sum(r.label == sign for r in uci) for sign in "+-"] == [53, 53] and {
        r.bases.size for r in uci
    } == {57}
    sizes = {
        p.name: p.start + p.bases.size
        for p in read_sequences(SHARED / "bacteria" / "MGH78578.fna.xz")
    }
    assert len(sizes) == 6 and sum(sizes.values()) == 5_694_894
    folder = SHARED / "ecoli"
    stem = "GCF_000005845.2_ASM584v2_genomic"
    fasta, genbank = (
        list(read_sequences(folder / f"{stem}.{kind}.gz")) for kind in ("fna", "gbff")
    )
    assert [p.name for p in fasta] == [p.name for p in genbank] == ["NC_000913.3"] * 5
    assert all(np.array_equal(a.bases, b.bases) for a, b in zip(fasta, genbank, strict=True))


def table(folder, text):
    return put(folder, "sequence,label,name\n" + text, "t.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ACGT,yes,a,b\n", "more than the header"),
        ('ACGT,"yes,a\nACGT,no,b\n', "not a table"),
    ],
)
def test_rows_that_would_lose_cells_are_named(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        list(read_labelled(table(tmp_path, text)))


def test_a_column_named_twice_is_named(tmp_path):
    path = put(tmp_path, "sequence,label,label\nACGT,a,b\n", "t.csv")
    with pytest.raises(DataError, match="more than once"):
        list(read_labelled(path))


def test_numeric_labels_are_finite_numbers(tmp_path):
    rejects = []
    path = table(tmp_path, "ACGT,1.5,a\nACGT,nan,b\nACGT,high,c\nACGT,inf,d\n")
    rows = list(read_labelled(path, on_reject=rejects.append, numeric=True))
    assert [row.label for row in rows] == ["1.5"] and [r.line for r in rejects] == [3, 4, 5]
