"""Annotation files: one convention for coordinates, and one clear line when they do not fit the
genome.
"""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sciforge.errors import DataError, SciforgeError
from sciforge.genomes.data.annotation import (
    Annotation,
    check_assembly,
    read_annotation,
    read_bed,
    read_genbank,
    read_gff,
    reconcile,
)
from sciforge.genomes.data.sequences import read_sequences

SHARED = (
    Path(os.environ.get("SCIFORGE_SHARED", Path(__file__).parents[4] / "shared"))
    / "data"
    / "genomes"
)
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the shared data are not at {SHARED}"
)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

GENBANK = """LOCUS       TEST                     100 bp    DNA     circular BCT 01-JAN-2000
ACCESSION   TEST
VERSION     TEST.1
FEATURES             Location/Qualifiers
     gene            2..10
                     /gene="one"
     CDS             complement(join(20..30,41..50))
                     /gene="two"
     CDS             join(91..100,1..9)
                     /locus_tag="three"
     gene            95..5
     gene            <1..>99
     variation       5^6
     CDS             join(7,OTHER.1:1..5)
ORIGIN
        1 acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac
       61 acgtacgtac acgtacgtac acgtacgtac acgtacgtac
//
"""
GFF = """##gff-version 3
##sequence-region c 1 100
c\tx\tregion\t1\t100\t.\t+\t.\tID=c;Is_circular=true
c\tx\tgene\t1\t1\t.\t+\t.\tID=g;Name=a%20b
c\tx\tCDS\t20\t30\t.\t-\t0\tID=d;gene=two
c\tx\tCDS\t41\t50\t.\t-\t0\tID=d;gene=two
c\tx\tgene\t91\t109\t.\t?\t.\tID=o
##FASTA
>c
ACGT
"""


def put(folder: Path, content: bytes | str, name: str = "a.bed") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def spans(intervals: Annotation) -> list[tuple]:
    columns = (
        intervals.contig,
        intervals.start,
        intervals.end,
        intervals.strand,
        intervals.kind,
        intervals.name,
    )
    return [
        tuple(getattr(v, "item", lambda v=v: v)() for v in row)
        for row in zip(*columns, strict=True)
    ]


def fails(call, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value) and ";" in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_bed_is_taken_as_it_is(tmp_path):
    path = put(
        tmp_path,
        "track x\n#c\n\nchrI\t0\t5\nchrI 7 8 name\r\nII\t3\t9\tn\t0\t-\t3\t9\t0\t1\t6,\t0,\n",
    )
    found = read_annotation(path)
    assert spans(found) == [
        ("chrI", 0, 5, 0, "region", ""),
        ("chrI", 7, 8, 0, "region", "name"),
        ("II", 3, 9, -1, "region", "n"),
    ]
    assert (
        found.line.tolist() == [4, 5, 6]
        and found.start.dtype == np.int64
        and found.strand.dtype == np.int8
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("I\t5\t5", ["start 5 is not before end 5"]),
        ("I\t6\t5", ["start 6 is not before end 5"]),
        ("I\t-1\t5", ["start -1 is negative"]),
        ("I\t1.5\t5", ["'1.5' is not a whole number"]),
        ("I\t1_0\t50", ["'1_0' is not a whole number"]),
        ("I\t1\t٣", ["is not a whole number"]),
        ("I\t1\t9" + "9" * 30, ["is not a whole number"]),
        ("I\t5", ["3 to 12 columns, this one 2"]),
        ("I\t1\t5\tn\t0\tx", ["strand 'x'"]),
    ],
)
def test_what_is_wrong_with_bed(tmp_path, row, words):
    path = put(tmp_path, f"I\t0\t1\n{row}\n")
    fails(lambda: read_annotation(path), f"{path}:2: ", *words)


def test_contigs_named_like_browser_instructions_are_contigs(tmp_path):
    head = "browser position chr1:1-10\ntrack name=x\n"
    rows = "track1\t0\t10\nbrowser_2\t3\t8\ntrack\t5\t9\n"
    for text in (head + rows, rows):
        read = read_annotation(put(tmp_path, text))
        assert spans(read) == spans(read_bed(put(tmp_path, rows, "b.bed"))) and len(read) == 3


def test_a_comment_like_the_fasta_mark_ends_nothing(tmp_path):
    row = "1\tm\tgene\t{}\t{}\t.\t-\t1\tID={}\n"
    text = "##gff-version 3\n" + row.format(2, 9, "a") + "##FASTATKA\n" + row.format(20, 30, "b")
    assert len(read_annotation(put(tmp_path, text))) == 2
    assert len(read_annotation(put(tmp_path, text + "##FASTA \n>1\nACGT\n"))) == 2


def test_gff_without_tabs_is_named_as_gff(tmp_path):
    row = "1 m gene 2 9 . - 1 ID=a\n"
    fails(lambda: read_annotation(put(tmp_path, row)), "GFF", "tabs")


def test_gff_counts_from_one_and_splits_at_the_origin(tmp_path):
    found = read_annotation(put(tmp_path, GFF))
    assert spans(found) == [
        ("c", 0, 100, 1, "region", "c"),
        ("c", 0, 1, 1, "gene", "a b"),
        ("c", 19, 30, -1, "CDS", "two"),
        ("c", 40, 50, -1, "CDS", "two"),
        ("c", 90, 100, 0, "gene", "o"),
        ("c", 0, 9, 0, "gene", "o"),
    ]
    assert (
        found.feature[2] == found.feature[3]
        and found.feature[4] == found.feature[5] != found.feature[1]
    )
    assert found.declared_bp == {"c": 100}
    assert len(found.of_kind("CDS")) == 2


def test_gtf(tmp_path):
    row = 'I\tsgd\tCDS\t3\t5\t.\t+\t0\tgene_id "Y; x"; transcript_id "T=1"; exon_number "1";\n'
    assert spans(read_annotation(put(tmp_path, "#!genome-build R64\n" + row))) == [
        ("I", 2, 5, 1, "CDS", "Y; x")
    ]
    row = 'I\tsgd\tCDS\t3\t5\t.\t+\t0\tgene_id "YAL1"; transcript_id "T=1";\n'
    assert spans(read_annotation(put(tmp_path, row))) == [("I", 2, 5, 1, "CDS", "YAL1")]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("c\tx\tgene\t0\t5\t.\t+\t.\t", ["start 0, end 5 is no interval", "counts from 1"]),
        ("c\tx\tgene\t6\t5\t.\t+\t.\t", ["start 6, end 5"]),
        ("c\tx\tgene\ta\t5\t.\t+\t.\t", ["'a' is not a whole number"]),
        ("c\tx\tgene\t1\t5\t.\t*\t.\t", ["strand '*'"]),
        ("c x gene 1 5", ["9 columns, this one 1", "tabs"]),
    ],
)
def test_what_is_wrong_with_gff(tmp_path, row, words):
    path = put(tmp_path, f"##gff-version 3\n{row}\n")
    fails(lambda: read_annotation(path), f"{path}:2: ", *words)


def test_genbank_locations(tmp_path):
    found = read_annotation(put(tmp_path, gzip.compress(GENBANK.encode())))
    assert spans(found) == [
        ("TEST.1", 1, 10, 1, "gene", "one"),
        ("TEST.1", 40, 50, -1, "CDS", "two"),
        ("TEST.1", 19, 30, -1, "CDS", "two"),
        ("TEST.1", 90, 100, 1, "CDS", "three"),
        ("TEST.1", 0, 9, 1, "CDS", "three"),
        ("TEST.1", 94, 100, 1, "gene", ""),
        ("TEST.1", 0, 5, 1, "gene", ""),
        ("TEST.1", 0, 99, 1, "gene", ""),
        ("TEST.1", 6, 7, 1, "CDS", ""),
    ]
    assert found.line.tolist() == [5, 7, 7, 9, 9, 11, 11, 12, 14]
    assert found.feature.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 6]
    assert found.declared_bp == {"TEST.1": 100}


def test_nothing_to_read(tmp_path):
    fails(lambda: read_annotation(put(tmp_path, "#x\n\n")), "no interval")
    fails(lambda: read_bed(put(tmp_path, "#x\n")), "no interval")
    fails(lambda: read_annotation(put(tmp_path, "")), "empty")
    fails(lambda: read_annotation(put(tmp_path, b"\0\1")), "binary")
    fails(lambda: read_annotation(put(tmp_path, ">a\nACGT\n")), "this is FASTA")


def bed(folder: Path, *rows: str) -> Annotation:
    return read_bed(put(folder, "".join(row.replace(" ", "\t") + "\n" for row in rows)))


def test_chr_prefix_is_mended_and_noted(tmp_path):
    lengths = {"I": 10, "Mito": 5, "chrX": 4}
    found = reconcile(
        bed(tmp_path, "chrI 0 10", "chrM 0 5", "X 1 2", "I 1 2").select(np.arange(3)), lengths
    )
    assert found.contig.tolist() == ["I", "Mito", "chrX"] and found.notes == (
        "3 contigs renamed, 'chrI' to 'I'",
    )
    same = reconcile(bed(tmp_path, "I 0 10"), lengths)
    assert same.notes == () and same.contig.tolist() == ["I"]


def test_names_that_cannot_be_mended(tmp_path):
    path = tmp_path / "a.bed"
    fails(
        lambda: reconcile(bed(tmp_path, "I 0 1", "NC_1 0 1"), {"I": 10, "II": 5}, "genome.fa"),
        f"{path}:2: names 'NC_1' but genome.fa has 'I', 'II'",
    )
    fails(
        lambda: reconcile(bed(tmp_path, "I 0 1", "chrI 0 1"), {"I": 10}),
        "'I', 'chrI' mean the same contig",
    )
    fails(lambda: reconcile(bed(tmp_path, "chrM 0 1"), {"MT": 10, "Mito": 5}), "names 'chrM'")


def test_coordinates_past_the_end(tmp_path):
    path = tmp_path / "a.bed"
    assert len(reconcile(bed(tmp_path, "I 0 10"), {"I": 10})) == 1
    fails(
        lambda: reconcile(
            bed(tmp_path, "I 0 10", "chrI 0 11").select(np.array([1])), {"I": 10}, "g.fa"
        ),
        f"{path}:2: the interval ends at 11 but I of g.fa has 10 bases; use the assembly",
    )


def test_declared_lengths_are_compared(tmp_path):
    for found in (read_genbank(put(tmp_path, GENBANK)), read_gff(put(tmp_path, GFF))):
        (name,) = found.declared_bp
        check_assembly(found, {name: 100})
        fails(
            lambda f=found, n=name: check_assembly(f, {n: 99}, "g.fa"),
            f"{name} of 100 bp, g.fa has {name} of 99 bp",
        )
        fails(
            lambda f=found: check_assembly(f, {"z": 99}),
            "the genome has z of 99 bp; use the assembly",
        )
        fails(lambda f=found: reconcile(f, {"z": 100}), f"names '{name}' but the genome has 'z'")


@FUZZ
@given(
    st.sampled_from(
        [
            "",
            "##gff-version 3\n",
            "c\tx\tgene\t1\t5\t.\t+\t.\t",
            "LOCUS       ",
            "I\t1\t",
            "track\n",
        ]
    ),
    st.one_of(st.binary(max_size=100), st.text('cI\t 1209-+.=;"#\n', max_size=80).map(str.encode)),
)
def test_no_bytes_escape_as_another_error(tmp_path, head, rest):
    path = put(tmp_path, head.encode() + rest)
    for read in (read_annotation, read_bed, read_gff, read_genbank):
        try:
            found = read(path)
            assert (found.start < found.end).all() and (found.start >= 0).all()
            reconcile(found, {"I": 100, "c": 5})
        except SciforgeError as error:
            assert len(str(error).splitlines()) == 1


@FUZZ
@given(
    st.integers(0, len(GENBANK) - 1),
    st.text("<>.,()^join?0123456789 \n/x", max_size=6),
    st.integers(0, 12),
)
def test_damaged_genbank_fails_in_one_kind(tmp_path, at, noise, drop):
    try:
        found = read_genbank(put(tmp_path, GENBANK[:at] + noise + GENBANK[at + drop :]))
        assert (found.start < found.end).all()
    except SciforgeError as error:
        assert len(str(error).splitlines()) == 1


@needs_shared
def test_the_older_assembly_of_e_coli_is_told():
    older = {
        p.name: p.start + p.bases.size
        for p in read_sequences(SHARED / "ecoli" / "MG1655-K12.fasta.gz")
    }
    assert older == {"K-12-MG1655": 4_639_675}
    for suffix in ("gff", "gbff"):
        found = read_annotation(SHARED / "ecoli" / f"GCF_000005845.2_ASM584v2_genomic.{suffix}.gz")
        assert reconcile(found, {"NC_000913.3": 4_641_652}).notes == ()
        words = [
            "NC_000913.3 of 4,641,652 bp, old.fa has K-12-MG1655 of 4,639,675 bp; use the assembly"
        ]
        fails(lambda f=found: reconcile(f, older, "old.fa"), *words)
        fails(
            lambda f=found: reconcile(f, {"NC_000913.3": 4_639_675}, "old.fa"),
            "old.fa has NC_000913.3 of 4,639,675",
        )
    cds = found.of_kind("CDS")
    assert len(np.unique(cds.feature)) == 4315 and len(cds) == 4337


@needs_shared
def test_yeast_names_are_mended():
    found = read_bed(SHARED / "yeast" / "Scer_polIItranscripts-adjustedTSS.bed")
    assert len(found) == 6445
    roman = "I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI".split()
    fixed = reconcile(found, dict.fromkeys(roman, 2_000_000))
    assert set(fixed.contig) == set(roman) and fixed.notes == ("16 contigs renamed, 'chrI' to 'I'",)
