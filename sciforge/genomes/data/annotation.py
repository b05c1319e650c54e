"""Annotation files -> intervals in one convention: BED, GFF3, GTF and the features of GenBank.

Every interval is 0-based and half-open on the + strand, whatever its file counts: BED is so
already; GFF, GTF and GenBank are 1-based and closed (GFF3 1.26; INSDC feature table 11.3). A
feature of several parts (join(), or one that spans the origin of a circular contig) becomes several
intervals that share a name and a feature number.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from sciforge.errors import DataError, printable
from sciforge.genomes.data.genbank import locus_bp, parse_genbank, split_genbank
from sciforge.genomes.data.sequences import open_stream

MITOCHONDRIA = frozenset({"M", "MT", "Mito", "mt", "chrM", "chrMT", "chrMito", "chrmt"})

_ATTRIBUTE = re.compile(r"""([^\s=;]+)[ =]\s*("[^"]*"|[^;]*)""")
_STRANDS = {"+": 1, "-": -1, ".": 0, "?": 0}
_OTHER_ASSEMBLY = "use the assembly the annotation was made for"


@dataclass(frozen=True, eq=False)
class Annotation:
    """Rows of an annotation, in file order; every array has one entry an interval.

    contig, kind, name: object arrays of str; start, end: int64, 0-based half-open; strand: int8
    (+1, -1, 0 unknown); line: int64, 1-based; feature: int64, equal for the parts of one feature;
    declared_bp: contig lengths that the file itself states; notes: what was left out in reading,
    and what reconcile changed.
    """

    contig: np.ndarray
    start: np.ndarray
    end: np.ndarray
    strand: np.ndarray
    kind: np.ndarray
    name: np.ndarray
    line: np.ndarray
    feature: np.ndarray
    path: str = ""
    declared_bp: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.start)

    def select(self, chosen: np.ndarray) -> "Annotation":
        """Return the rows that a boolean mask or an index array picks."""
        columns = ("contig", "start", "end", "strand", "kind", "name", "line", "feature")
        return replace(self, **{column: getattr(self, column)[chosen] for column in columns})

    def of_kind(self, *kinds: str) -> "Annotation":
        """Return the rows of the given kinds ('CDS', 'gene', ...)."""
        return self.select(np.array([kind in kinds for kind in self.kind], bool))


@dataclass
class _Rows:
    """Rows of an annotation while they are being read."""

    path: Path
    rows: list[tuple[str, int, int, int, str, str, int, int]] = field(default_factory=list)
    declared_bp: dict[str, int] = field(default_factory=dict)
    unused: Counter[str] = field(default_factory=Counter)  # what was left out -> how often

    def add(
        self,
        contig: str,
        start: int,
        end: int,
        strand: int,
        kind: str,
        name: str,
        line: int,
        feature: int,
    ) -> None:
        self.rows.append((contig, start, end, strand, kind, name, line, feature))

    def freeze(self) -> Annotation:
        if not self.rows:
            raise DataError(
                "no interval in it; give a BED, GFF3, GTF or annotated GenBank file", self.path
            )
        kinds = (object, np.int64, np.int64, np.int8, object, object, np.int64, np.int64)
        columns = [
            np.array(column, kind)
            for column, kind in zip(zip(*self.rows, strict=True), kinds, strict=True)
        ]
        notes = tuple(f"{self.path.name}: {count} {what}" for what, count in self.unused.items())
        return Annotation(*columns, path=str(self.path), declared_bp=self.declared_bp, notes=notes)


def read_annotation(path: Path | str) -> Annotation:
    """Read BED, GFF3, GTF or GenBank, told apart by content.

    Raises:
        DataError: the file is unreadable or a row is wrong; names file and line.
    """
    path = Path(path)
    for _, text in _lines(path):
        if text.startswith("LOCUS"):
            return read_genbank(path)
        if text.startswith("##gff-version"):
            return read_gff(path)
        if text.startswith(">"):
            raise DataError(
                "this is FASTA, not annotation; give BED, GFF3, GTF or annotated GenBank", path
            )
        if text.strip() and not _is_heading(text):
            cells = text.split("\t")
            is_gff = (
                len(cells) in (8, 9)
                and not cells[1].isdigit()
                and cells[3].isdigit()
                and cells[4].isdigit()
            )
            return read_gff(path) if is_gff else read_bed(path)
    raise DataError("no interval in it; give a BED, GFF3, GTF or annotated GenBank file", path)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file with their numbers from 1."""
    with open_stream(path) as stream:
        for number, raw in enumerate(stream, 1):
            yield number, raw.decode("utf-8", "backslashreplace").rstrip("\r\n")


def _is_heading(text: str) -> bool:
    r"""Return whether a line of BED is a comment or an instruction to a genome browser.

    >>> _is_heading("track name=x"), _is_heading("track1\t0\t10"), _is_heading("track\t0\t10")
    (True, False, False)
    """
    words = text.split()
    is_interval = len(words) > 2 and words[1].isdigit() and words[2].isdigit()
    return text.startswith("#") or (words[0] in ("track", "browser") and not is_interval)


def _coordinate(text: str, what: str, path: Path, line: int) -> int:
    """Return a coordinate that must be a plain whole number, zero or more."""
    # int() also takes '1_000' and Arabic-Indic digits, which no genome browser does
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return int(text)
    if text[:1] == "-" and text[1:].isdigit():
        raise DataError(f"{what} {text} is negative; correct it", path, line)
    raise DataError(f"{what} {text[:40]!r} is not a whole number; correct it", path, line)


def _strand(text: str, path: Path, line: int) -> int:
    if text not in _STRANDS:
        raise DataError(f"strand {text[:40]!r} is not '+', '-' or '.'; correct it", path, line)
    return _STRANDS[text]


def read_bed(path: Path | str) -> Annotation:
    """Read BED of 3 to 12 columns; kind is 'region'. Blocks (columns 10 to 12) are not used, which
    the notes count.

    Raises:
        DataError: a row has too few or many columns, a bad coordinate or strand, or start >= end.
    """
    rows = _Rows(Path(path))
    for line, text in _lines(rows.path):
        if not text.strip() or _is_heading(text):
            continue
        cells = [cell.strip() for cell in text.split("\t")] if "\t" in text else text.split()
        if "\t" not in text and len(cells) > 8 and cells[6] in _STRANDS:
            raise DataError(
                "a row of GFF without tabs; separate its columns by tabs", rows.path, line
            )
        if not 3 <= len(cells) <= 12 or not cells[0]:
            raise DataError(
                f"a BED row has 3 to 12 columns, this one {len(cells)}; correct it", rows.path, line
            )
        start = _coordinate(cells[1], "start", rows.path, line)
        end = _coordinate(cells[2], "end", rows.path, line)
        if start >= end:
            mend = "BED counts from 0 and leaves the end out; correct it"
            raise DataError(f"start {start} is not before end {end}; {mend}", rows.path, line)
        strand = _strand(cells[5], rows.path, line) if len(cells) > 5 else 0
        if len(cells) == 12 and cells[9].isdigit() and int(cells[9]) > 1:
            rows.unused["intervals have several blocks; each is read as one stretch"] += 1
        rows.add(
            cells[0],
            start,
            end,
            strand,
            "region",
            cells[3] if len(cells) > 3 else "",
            line,
            len(rows.rows),
        )
    return rows.freeze()


def _attributes(text: str) -> dict[str, str]:
    """Return column 9 as a dict: GFF3 'key=value;' or GTF 'key "value";'."""
    attributes = {}
    for key, value in _ATTRIBUTE.findall(text):
        attributes[key] = value.strip('"') if value.startswith('"') else unquote(value.strip())
    return attributes


def read_gff(path: Path | str) -> Annotation:
    """Read GFF3 or GTF; kind is column 3, and name the first of Name, gene, locus_tag, gene_id, ID.

    In GFF3 a feature that runs past the end of a contig marked Is_circular is split at the origin.

    Raises:
        DataError: a row has not 9 columns, or has a bad coordinate or strand, or ends before it
            starts.
    """
    rows, circular, features = _Rows(Path(path)), set(), {}
    for line, text in _lines(rows.path):
        if text.strip() == "##FASTA" or text.startswith(">"):  # ##FASTATAK... is a comment
            break
        if text.startswith("##sequence-region"):
            words = text.split()
            if len(words) == 4:
                rows.declared_bp[unquote(words[1])] = _coordinate(
                    words[3], "length", rows.path, line
                )
        if not text.strip() or text.startswith("#"):
            continue
        cells = text.split("\t")
        if len(cells) not in (8, 9) or not cells[0]:
            mend = "separate them by tabs"
            raise DataError(
                f"a GFF row has 9 columns, this one {len(cells)}; {mend}", rows.path, line
            )
        start = _coordinate(cells[3], "start", rows.path, line)
        end = _coordinate(cells[4], "end", rows.path, line)
        if not 1 <= start <= end:
            mend = "GFF counts from 1 and keeps the end; correct it"
            raise DataError(f"start {start}, end {end} is no interval; {mend}", rows.path, line)
        strand = _strand(cells[6], rows.path, line)
        attributes = _attributes(cells[8]) if len(cells) == 9 else {}
        name = next(
            (
                attributes[key]
                for key in ("Name", "gene", "locus_tag", "gene_id", "ID")
                if attributes.get(key)
            ),
            "",
        )
        contig, kind = unquote(cells[0]), cells[2]
        if attributes.get("Is_circular") == "true":
            circular.add(contig)
        # GFF3 says that rows of one ID are one feature; GTF rows of one transcript and kind are
        mark = attributes.get("ID") or attributes.get("transcript_id")
        feature = features.setdefault((contig, kind, mark) if mark else line, len(features))
        length = rows.declared_bp.get(contig, 0)
        if contig in circular and start <= length < end <= 2 * length:
            rows.add(contig, start - 1, length, strand, kind, name, line, feature)
            start, end = 1, end - length
        rows.add(contig, start - 1, end, strand, kind, name, line, feature)
    return rows.freeze()


def read_genbank(path: Path | str) -> Annotation:
    """Read the features of a GenBank file of any number of records; kind is the feature key
    ('source' included).

    Name is the first of gene, locus_tag, label, product. Fuzzy ends (<1..>99) are taken at the
    number given; places between two bases (5^6) and parts on other records are left out, which the
    notes count. Declared lengths are those of the LOCUS lines.

    Raises:
        DataError: a record or a location cannot be read.
    """
    rows, features = _Rows(Path(path)), 0
    with open_stream(rows.path) as stream:
        for line, text in split_genbank(stream, rows.path):
            record = parse_genbank(text, rows.path, line, features=True)
            length = locus_bp(text)
            if length is not None:
                rows.declared_bp[record.id] = length
            key_lines = _feature_lines(text, line)
            if len(key_lines) != len(record.features):
                key_lines = [line] * len(record.features)
            for feature, key_line in zip(record.features, key_lines, strict=True):
                _add_feature(rows, record.id, feature, key_line, features)
                features += 1
    return rows.freeze()


def _feature_lines(text: str, first_line: int) -> list[int]:
    """Return the file's line numbers of the feature keys of one record: five blanks, then the
    key (INSDC 4.1).
    """
    numbers, inside = [], False
    for number, row in enumerate(text.split("\n"), first_line):
        if row.startswith("FEATURES"):
            inside = True
        elif inside and row[:1] not in ("", " "):
            break
        elif inside and row[:5] == "     " and row[5:6].strip():
            numbers.append(number)
    return numbers


def _add_feature(rows: _Rows, contig: str, feature: Any, line: int, number: int) -> None:
    """Add every part of one Biopython feature."""
    if feature.location is None:
        raise DataError(
            f"the location of this {feature.type!r} cannot be read; correct it", rows.path, line
        )
    keys = ("gene", "locus_tag", "label", "product")
    name = next((feature.qualifiers[key][0] for key in keys if feature.qualifiers.get(key)), "")
    for part in feature.location.parts:
        if part.ref is not None:
            rows.unused["parts of features lie on other records and are left out"] += 1
            continue
        try:
            start, end = int(part.start), int(part.end)
        except TypeError:  # '?', an unknown position
            raise DataError(
                f"the ends of {feature.type!r} {name!r} are unknown; correct it", rows.path, line
            ) from None
        if 0 <= start < end < 10**12:
            rows.add(contig, start, end, part.strand or 0, feature.type, name, line, number)
        else:
            rows.unused["features lie between two bases and are left out"] += 1


def join_annotations(parts: Sequence[Annotation]) -> Annotation:
    """Return the rows of several annotations, one after another; features stay apart."""
    if len(parts) == 1:
        return parts[0]
    columns = ("contig", "start", "end", "strand", "kind", "name", "line")
    joined = {
        column: np.concatenate([getattr(part, column) for part in parts]) for column in columns
    }
    offsets = np.cumsum([0] + [int(part.feature.max()) + 1 for part in parts[:-1]])
    feature = np.concatenate(
        [part.feature + offset for part, offset in zip(parts, offsets, strict=True)]
    )
    declared = {name: length for part in parts for name, length in part.declared_bp.items()}
    path = ", ".join(part.path for part in parts)
    notes = tuple(note for part in parts for note in part.notes)
    return Annotation(**joined, feature=feature, path=path, declared_bp=declared, notes=notes)


def _aliases(name: str) -> list[str]:
    """Return the spellings under which another file may hold this contig, the name itself first."""
    other = name[3:] if name.lower().startswith("chr") and len(name) > 3 else "chr" + name
    return [name, other, *(sorted(MITOCHONDRIA - {name, other}) if name in MITOCHONDRIA else [])]


def _partner(name: str, contig_lengths: dict[str, int]) -> str | None:
    """Return the contig that a name must mean: itself, or else the only one that it can mean."""
    known = [alias for alias in _aliases(name) if alias in contig_lengths]
    return name if name in contig_lengths else known[0] if len(known) == 1 else None


def check_assembly(
    annotation: Annotation, contig_lengths: dict[str, int], genome: str = "the genome"
) -> None:
    """Compare the contig lengths that an annotation declares (##sequence-region, LOCUS) with those
    of a genome.

    Raises:
        DataError: a length differs, so the annotation was made for another assembly.
    """
    used = set(annotation.contig)
    for name, length in annotation.declared_bp.items():
        if name not in used:
            continue
        partner = _partner(name, contig_lengths)
        if partner is None and length in contig_lengths.values():
            continue  # the same assembly under another name: reconcile names both spellings
        if partner is None:
            partner = min(
                contig_lengths, key=lambda contig: abs(contig_lengths[contig] - length), default=""
            )
        if contig_lengths.get(partner) != length:
            has = f"{genome} has {partner} of {contig_lengths.get(partner, 0):,} bp"
            raise DataError(
                f"annotation is for {printable(name)} of {length:,} bp, {has}; {_OTHER_ASSEMBLY}",
                annotation.path,
            )


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def reconcile(
    intervals: Annotation, contig_lengths: dict[str, int], genome: str = "the genome"
) -> Annotation:
    """Return the intervals with the genome's spelling of contig names, all within the contigs.

    Only 'chr' before the name and the usual names of the mitochondrion are mended, and only where a
    single contig can be meant; the returned notes say what was.

    Raises:
        DataError: the assembly is another one, a name is unknown or ambiguous, or an interval runs
            past the end.
    """
    check_assembly(intervals, contig_lengths, genome)
    names = list(dict.fromkeys(intervals.contig))
    partners = {name: _partner(name, contig_lengths) for name in names}
    unknown = [name for name in names if partners[name] is None]
    if unknown:
        has = f"names {_listed(unknown)} but {genome} has {_listed(list(contig_lengths))}"
        line = int(intervals.line[list(intervals.contig).index(unknown[0])])
        raise DataError(f"{has}; rename the contigs, or {_OTHER_ASSEMBLY}", intervals.path, line)
    times_meant = Counter(partners.values())
    clash = [name for name in names if times_meant[partners[name]] > 1]
    if clash:
        raise DataError(
            f"{_listed(clash)} mean the same contig of {genome}; use one spelling", intervals.path
        )
    changed = [name for name in names if partners[name] != name]
    notes = intervals.notes
    if changed:
        notes += (f"{len(changed)} contigs renamed, {changed[0]!r} to {partners[changed[0]]!r}",)
    lengths_bp = np.array(
        [contig_lengths[partners[contig]] for contig in intervals.contig], np.int64
    )
    past = intervals.end > lengths_bp
    if past.any():
        row = int(past.argmax())
        contig, end, line = (
            partners[intervals.contig[row]],
            int(intervals.end[row]),
            int(intervals.line[row]),
        )
        what = (
            f"the interval ends at {end:,} but {contig} of {genome} has {lengths_bp[row]:,} bases"
        )
        raise DataError(f"{what}; {_OTHER_ASSEMBLY}", intervals.path, line)
    renamed = np.array([partners[contig] for contig in intervals.contig], object)
    declared = {
        partners.get(name) or name: length for name, length in intervals.declared_bp.items()
    }
    return replace(intervals, contig=renamed, declared_bp=declared, notes=notes)
