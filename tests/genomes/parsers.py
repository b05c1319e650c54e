"""Valid files of genomes, and what reads them, for tests/core/test_hostile.py to damage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny_runs import exhaust

from sciforge.genomes.data.annotation import read_annotation, read_bed, read_genbank, read_gff
from sciforge.genomes.data.labelled_tables import read_labelled
from sciforge.genomes.data.sequences import read_sequences
from sciforge.genomes.inference.sequence_windows import read_any
from sciforge.genomes.inference.variants import read_variants

FASTA = b">one circular=true\nACGTNNacgt\nRYKM\n>two\nACGTACGT\n"
GENBANK = b"""LOCUS       TEST                     100 bp    DNA     circular BCT 01-JAN-2000
ACCESSION   TEST
VERSION     TEST.1
FEATURES             Location/Qualifiers
     gene            2..10
                     /gene="one"
     CDS             complement(join(20..30,41..50))
                     /gene="two"
     gene            <1..>99
ORIGIN
        1 acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac
       61 acgtacgtac acgtacgtac acgtacgtac acgtacgtac
//
"""
GFF = b"""##gff-version 3
##sequence-region c 1 100
c\tx\tgene\t1\t50\t.\t+\t.\tID=g1;Name=one;Is_circular=true
c\tx\tCDS\t2\t40\t.\t-\t0\tParent=g1;product=a%20b
c\tx\texon\t5\t9\t.\t.\t.\tgene_id "g2"; transcript_id "t2";
"""
BED = b"track name=x\nc\t1\t50\tone\t0\t+\nc 5 9\n"
VCF = (
    b"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\n"
    b"c\t5\trs1\tA\tC,GT\t.\nc\t9\t.\tAC\tA\t3\n"
)
LABELLED = b"name\tsequence\tlabel\na\tACGT\tyes\nb\tNNAC\tno\n"

# Name -> (a valid file, its ending, what reads it).
PARSERS: dict[str, tuple[bytes, str, Callable[[Path], Any]]] = {
    "fasta": (FASTA, ".fa", exhaust(read_sequences)),
    "any sequences": (FASTA, ".txt", exhaust(lambda path: read_any([path]))),
    "genbank": (GENBANK, ".gb", exhaust(read_sequences)),
    "genbank features": (GENBANK, ".gb", read_genbank),
    "annotation": (GENBANK, ".gb", read_annotation),
    "gff": (GFF, ".gff", read_gff),
    "bed": (BED, ".bed", read_bed),
    "vcf": (VCF, ".vcf", exhaust(read_variants)),
    "labelled": (LABELLED, ".tsv", exhaust(read_labelled)),
}
