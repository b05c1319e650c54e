"""Variant effects: how much a pretrained or a fine-tuned net prefers the reference or the alternative allele."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sciforge.core.files.output_files import cell, provenance, whole_files
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError
from sciforge.genomes.data.annotation import Annotation, reconcile
from sciforge.genomes.data.sequences import as_letters, encode, open_stream, reverse_complement
from sciforge.genomes.inference.masked_likelihood import centred_window, log_probabilities
from sciforge.genomes.inference.sequence_classes import class_index, in_groups
from sciforge.genomes.inference.sequence_windows import contig_lengths, read_contigs, trained_length
from sciforge.genomes.objectives.masked_kmers import MaskedKmers

_COLUMNS = {"chrom": "chrom", "contig": "chrom", "chr": "chrom", "pos": "pos", "position": "pos"}
_COLUMNS |= {"ref": "ref", "alt": "alt", "id": "id", "name": "id"}
_LARGEST_ALLELE = 50


@dataclass(frozen=True)
class Variant:
    """One allele: ref becomes alt at start (0-based) of a contig; line is where the file says so."""

    contig: str
    start: int
    name: str
    ref: str
    alt: str
    line: int


def read_variants(path: Path) -> Iterator[Variant]:
    """Yield the alleles of a VCF, or of a table with columns chrom, pos (from 1), ref, alt and perhaps id.

    Raises:
        DataError: a column is missing, or a row is wrong; names file and line.
    """
    columns: dict[str, int] = {}
    with open_stream(path) as stream:
        for line, raw in enumerate(stream, 1):
            text = raw.decode("utf-8", "backslashreplace").rstrip("\r\n")
            if not text.strip() or text.startswith("##"):
                continue
            cells = text.lstrip("#").split("\t")
            if not columns:
                columns = {_COLUMNS[c.strip().lower()]: i for i, c in enumerate(cells) if c.strip().lower() in _COLUMNS}
                if missing := [name for name in ("chrom", "pos", "ref", "alt") if name not in columns]:
                    what = f"no column {missing[0]!r} in the header; give chrom, pos, ref and alt separated by tabs"
                    raise DataError(what, path, line)
            elif not text.startswith("#"):
                yield from _alleles(cells, columns, path, line)
    if not columns:
        raise DataError("no header; give VCF, or a table with chrom, pos, ref, alt", path)


def _alleles(cells: list[str], columns: dict[str, int], path: Path, line: int) -> Iterator[Variant]:
    if len(cells) <= max(columns.values()):
        raise DataError(f"the row has {len(cells)} columns, fewer than the header; correct it", path, line)
    row = {name: cells[i].strip() for name, i in columns.items()}
    if not (row["pos"].isascii() and row["pos"].isdigit() and 0 < int(row["pos"]) < 10**12):
        raise DataError(f"position {row['pos'][:40]!r} is not a whole number from 1; correct it", path, line)
    for allele in row["alt"].split(","):
        for what, letters in (("ref", row["ref"]), ("alt", allele)):
            if not letters or set(letters.upper()) - set("ACGT"):
                mend = "only alleles spelt in A, C, G, T can be scored; leave it out"
                raise DataError(f"{what} is {letters[:40]!r}; {mend}", path, line)
            if len(letters) > _LARGEST_ALLELE:
                what = f"an allele of {len(letters)} bases; the longest that can be scored has {_LARGEST_ALLELE}"
                raise DataError(f"{what}; leave it out", path, line)
        name = row.get("id", "")
        yield Variant(row["chrom"], int(row["pos"]) - 1, name, row["ref"].upper(), allele.upper(), line)


@dataclass(frozen=True, kw_only=True)
class Variants:
    """Effects of variants, as a table (TSV): positive where the net prefers the alternative allele.

    With a pretraining checkpoint `score` is log p(alt) - log p(ref) in nats with all tokens that touch the position
    hidden (so the allele itself is never seen), averaged over both strands; where several bases change it is their sum,
    and insertions and deletions get `nan`. With a classification checkpoint it is the log-odds of `label` with alt
    minus with ref, the window centred on the variant, for each strand (`plus`, `minus`) and their mean (`score`).

    Args:
        genome: FASTA or GenBank of the reference.
        variants: VCF, or a table with columns chrom, pos (from 1), ref, alt and perhaps id; plain or compressed.
        out: the table to write.
        label: the class to score; of two classes the second by default.
        window: bases around a variant; by default the length trained on, where the checkpoint records it.
    """

    genome: Path
    variants: Path
    out: Path
    label: str = ""
    window: int | None = None

    def write(self, model: Model) -> Path:
        """Write the table and return its path.

        Raises:
            DataError: a row is wrong, or its ref is not what the genome has there; names file and line.
        """
        masked = isinstance(model.objective, MaskedKmers)
        column = 0 if masked else class_index(model, self.label)
        window = trained_length(model.objective, self.window)
        if window is None:
            raise ConfigError("the checkpoint does not record the length it was trained on; give --window")
        variants = list(read_variants(self.variants))
        if not variants:
            raise DataError("no variant in it; give rows below the header", self.variants)
        contigs, genome = self._places(variants)
        heads = ["chrom", "pos", "id", "ref", "alt", "score", *([] if masked else ["plus", "minus"])]
        with (
            whole_files(self.out) as (table,),
            tqdm(total=len(variants), desc="variants", disable=None, leave=False) as bar,
        ):
            table.write(f"# {provenance(self, model)}\n" + "\t".join(heads) + "\n")
            for group in in_groups(zip(variants, contigs, strict=True), 4 * model.batch):
                found = [(variant, genome[contig]) for variant, contig in group]
                score = masked_scores if masked else class_scores
                for (v, contig), metrics in zip(group, score(model, found, window, column), strict=True):
                    places = [cell(contig), str(v.start + 1), cell(v.name), v.ref, v.alt]
                    table.write("\t".join([*places, *(f"{figure:.5f}" for figure in metrics)]) + "\n")
                bar.update(len(group))
        return self.out

    def _places(self, variants: list[Variant]) -> tuple[list[str], dict[str, np.ndarray]]:
        """Return each variant's contig as the genome spells it, and those contigs; checks every ref."""
        n, blank = len(variants), np.full(len(variants), "", object)
        start = np.array([v.start for v in variants], np.int64)
        end = start + np.array([len(v.ref) for v in variants])
        line = np.array([v.line for v in variants], np.int64)
        names = np.array([v.contig for v in variants], object)
        rows = Annotation(names, start, end, np.ones(n, np.int8), blank, blank, line, line, path=str(self.variants))
        contigs = list(reconcile(rows, contig_lengths(self.genome), str(self.genome)).contig)
        genome = read_contigs(self.genome, set(contigs))
        for variant, contig in zip(variants, contigs, strict=True):
            here = as_letters(genome[contig][variant.start : variant.start + len(variant.ref)]).upper()
            if here != variant.ref:
                what = f"ref is {variant.ref} but {contig} has {here} at {variant.start + 1:,}"
                raise DataError(f"{what}; use the assembly the variants were called on", self.variants, variant.line)
        return contigs, genome


Place = tuple[Variant, np.ndarray]


def masked_scores(model: Model, places: list[Place], window: int, _: int) -> list[list[float]]:
    """Return [log p(alt) - log p(ref)] of each variant, NaN where the lengths differ."""
    windows, scored = [], []
    for i, (variant, contig) in enumerate(places):
        if len(variant.ref) == len(variant.alt):
            stop = variant.start + len(variant.ref)
            left, right = centred_window(len(contig), variant.start, stop, window, model.codec)
            windows.append((np.asarray(contig[left:right]), variant.start - left, stop - left))
            scored.append(i)
    scores = [[float("nan")] for _ in places]
    for i, log_p in zip(scored, log_probabilities(model, windows), strict=True):
        alt, ref = encode(places[i][0].alt.encode()), encode(places[i][0].ref.encode())
        at = np.arange(len(ref))
        scores[i] = [float((log_p[at, alt] - log_p[at, ref]).sum())]
    return scores


def class_scores(model: Model, places: list[Place], window: int, column: int) -> list[list[float]]:
    """Return [mean, plus strand, minus strand] of the change in log-odds that each variant makes."""
    sequences = []
    for variant, contig in places:
        for allele in (variant.ref, variant.alt):
            reach = max(window - len(allele), 2 * model.codec.k)
            left = max(variant.start - reach // 2, 0)
            right = variant.start + len(variant.ref) + reach - (variant.start - left)
            after = contig[variant.start + len(variant.ref) : right]
            bases = np.concatenate([contig[left : variant.start], encode(allele.encode()), after])
            sequences += [bases, reverse_complement(bases)]
    odds = log_odds(model.outputs({"bases": bases} for bases in sequences)["probability"], column)
    ref_plus, ref_minus, alt_plus, alt_minus = odds.reshape(-1, 4).T
    plus, minus = alt_plus - ref_plus, alt_minus - ref_minus
    return np.stack([(plus + minus) / 2, plus, minus], axis=1).tolist()


def log_odds(p_NC: np.ndarray, column: int) -> np.ndarray:
    """Return log p / (1 - p) of a class; 1 - p is summed from the others, which keeps its digits where p is near 1.

    >>> round(float(log_odds(np.array([[0.25, 0.75]]), 1)[0]), 4)
    1.0986
    """
    p_NC = np.maximum(p_NC.astype(np.float64), 1e-30)
    return np.log(p_NC[:, column]) - np.log(np.delete(p_NC, column, axis=1).sum(1))
