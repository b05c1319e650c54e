"""Variant effects: how much a pretrained or a fine-tuned net prefers the reference or the
alternative allele.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from sciforge.core.data.store import Reject
from sciforge.core.files.output_files import about
from sciforge.core.files.results import TableResult
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError
from sciforge.genomes.data.annotation import Annotation, reconcile
from sciforge.genomes.data.sequences import as_letters, encode, open_stream, reverse_complement
from sciforge.genomes.inference.masked_likelihood import centred_window, log_probabilities
from sciforge.genomes.inference.reading import ReadsRecords
from sciforge.genomes.inference.requirements import class_index, need_length
from sciforge.genomes.inference.sequence_windows import (
    OnReject,
    contig_lengths,
    in_groups,
    read_contigs,
)
from sciforge.genomes.objectives.masked_kmers import MaskedKmers

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_COLUMNS = {"chrom": "chrom", "contig": "chrom", "chr": "chrom", "pos": "pos", "position": "pos"}
_COLUMNS |= {"ref": "ref", "alt": "alt", "id": "id", "name": "id"}
_MAX_ALLELE_BASES = 50
IN_MEMORY = Path("variants")  # what takes the place of a file's name
SHOWN = 20  # effects in a picture


@dataclass(frozen=True)
class Variant:
    """One allele: ref becomes alt at start (0-based) of a contig; line is where the file says
    so.
    """

    contig: str
    start: int
    name: str
    ref: str
    alt: str
    line: int


def read_variants(path: Path, on_reject: OnReject = None) -> Iterator[Variant]:
    """Yield the alleles of a VCF, or of a table with columns chrom, pos (from 1), ref, alt and
    perhaps id.

    Raises:
        DataError: a column is missing, or (without `on_reject`) a row is wrong; names file and
            line.
    """
    columns: dict[str, int] = {}
    with open_stream(path) as stream:
        for line, raw in enumerate(stream, 1):
            text = raw.decode("utf-8", "backslashreplace").rstrip("\r\n")
            if not text.strip() or text.startswith("##"):
                continue
            cells = text.lstrip("#").split("\t")
            if not columns:
                columns = {
                    _COLUMNS[c.strip().lower()]: i
                    for i, c in enumerate(cells)
                    if c.strip().lower() in _COLUMNS
                }
                if missing := [
                    name for name in ("chrom", "pos", "ref", "alt") if name not in columns
                ]:
                    what = (
                        f"no column {missing[0]!r} in the header; give chrom, pos, ref and alt"
                        " separated by tabs"
                    )
                    raise DataError(what, path, line)
            elif not text.startswith("#"):
                yield from _alleles(cells, columns, path, line, on_reject)
    if not columns:
        raise DataError("no header; give VCF, or a table with chrom, pos, ref, alt", path)


def variants_of_table(table: "pd.DataFrame") -> Iterator[Variant]:
    """Yield the alleles of a DataFrame with columns chrom, pos (from 1), ref, alt and perhaps id;
    rows count from 0.

    Raises:
        DataError: a column is missing, or a row is wrong; names the row.
    """
    names = [str(name).strip().lower() for name in table.columns]
    columns = {_COLUMNS[name]: place for place, name in enumerate(names) if name in _COLUMNS}
    if missing := [name for name in ("chrom", "pos", "ref", "alt") if name not in columns]:
        raise DataError(f"no column {missing[0]!r} in the table; give chrom, pos, ref and alt")
    for row, cells in enumerate(table.itertuples(index=False)):
        yield from _alleles([str(value) for value in cells], columns, IN_MEMORY, row)


def _alleles(
    cells: list[str],
    columns: dict[str, int],
    path: Path,
    line: int,
    on_reject: OnReject = None,
) -> Iterator[Variant]:
    """Yield the alleles of a row; a bad row is given to `on_reject` whole."""
    try:
        alleles = list(_checked_alleles(cells, columns, path, line))
    except DataError as error:
        if on_reject is None:
            raise
        reason = str(error).removeprefix(f"{path}:{line}: ").partition(";")[0]
        on_reject(Reject(str(path), line, "", reason))
        return
    yield from alleles


def _checked_alleles(
    cells: list[str], columns: dict[str, int], path: Path, line: int
) -> Iterator[Variant]:
    if len(cells) <= max(columns.values()):
        raise DataError(
            f"the row has {len(cells)} columns, fewer than the header; correct it", path, line
        )
    row = {name: cells[i].strip() for name, i in columns.items()}
    if not (row["pos"].isascii() and row["pos"].isdigit() and 0 < int(row["pos"]) < 10**12):
        raise DataError(
            f"position {row['pos'][:40]!r} is not a whole number from 1; correct it", path, line
        )
    for allele in row["alt"].split(","):
        for what, letters in (("ref", row["ref"]), ("alt", allele)):
            if not letters or set(letters.upper()) - set("ACGT"):
                mend = "only alleles spelt in A, C, G, T can be scored; leave it out"
                raise DataError(f"{what} is {letters[:40]!r}; {mend}", path, line)
            if len(letters) > _MAX_ALLELE_BASES:
                what = (
                    f"an allele of {len(letters)} bases; the longest that can be scored has"
                    f" {_MAX_ALLELE_BASES}"
                )
                raise DataError(f"{what}; leave it out", path, line)
        name = row.get("id", "")
        yield Variant(
            row["chrom"], int(row["pos"]) - 1, name, row["ref"].upper(), allele.upper(), line
        )


@dataclass(frozen=True, kw_only=True)
class Variants(ReadsRecords):
    """Effects of variants, as a table: positive where the net prefers the alternative allele.

    With a pretraining checkpoint `score` is log p(alt) - log p(ref) in nats with all tokens that
    touch the position hidden (so the allele itself is never seen), averaged over both strands;
    where several bases change it is their sum, and insertions and deletions get `nan`. With a
    classification checkpoint it is the log-odds of `label` with alt minus with ref, the window
    centred on the variant, for each strand (`plus`, `minus`) and their mean (`score`).

    Args:
        genome: FASTA or GenBank of the reference.
        variants: VCF, or a table with columns chrom, pos (from 1), ref, alt and perhaps id; plain
            or compressed.
        label: the class to score; of two classes the second by default.
        window: bases around a variant; by default the length trained on, where the checkpoint
            records it.
        on_error: `skip` leaves bad rows out and lists them in the provenance; `stop` raises at the
            first.
    """

    genome: Path
    variants: Path
    label: str = ""
    window: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "window")

    def run(self, model: Model) -> TableResult:
        """Return the table: chrom, pos, id, ref, alt, score (and plus, minus of a classification
        checkpoint).

        Raises:
            DataError: a row is wrong, or its ref is not what the genome has there; names file and
                line.
        """
        self.rejected.clear()
        alleles = list(read_variants(self.variants, self.on_reject))
        result = effects(
            model,
            alleles,
            self.genome,
            self.variants,
            self.label,
            self.window,
            {},
            self.on_reject,
        )
        return TableResult(
            result.frame, self.facts(model), draw=_draw, sources=(self.genome, self.variants)
        )


def variants(
    model: Model,
    table: "Path | str | pd.DataFrame",
    genome: Path | str,
    *,
    label: str = "",
    window: int | None = None,
) -> TableResult:
    """Return the effects of variants: chrom, pos, id, ref, alt, score (and plus, minus of a
    classification model).

    Args:
        model: fine-tuned to classify, or pretrained on hidden bases.
        table: VCF, a table's path, or a DataFrame with columns chrom, pos (from 1), ref, alt and
            perhaps id.
        genome: FASTA or GenBank of the reference.
        label: the class to score; of two classes the second by default.
        window: bases around a variant; by default the length trained on.

    Raises:
        ConfigError: a class is unknown, or no window is known.
        DataError: a row is wrong, or its ref is not what the genome has there; names it.
    """
    if isinstance(table, str | Path):
        return Variants(genome=Path(genome), variants=Path(table), label=label, window=window).run(
            model
        )
    options = {
        "genome": str(genome),
        "variants": f"{len(table)} rows in memory",
        "label": label,
        "window": window,
    }
    alleles = list(variants_of_table(table))
    return effects(model, alleles, Path(genome), IN_MEMORY, label, window, about(options, model))


def effects(
    model: Model,
    alleles: Sequence[Variant],
    genome: Path,
    source: Path,
    label: str,
    window: int | None,
    facts: Mapping[str, Any],
    on_reject: OnReject = None,
) -> TableResult:
    """Return the effects of alleles as a table; `source` is named in errors."""
    import pandas as pd

    masked = isinstance(model.objective, MaskedKmers)
    if masked and label:
        raise ConfigError(
            f"label {label!r} is for a classification checkpoint; leave it out with a pretrained"
            " one"
        )
    column = 0 if masked else class_index(model, label)
    length = need_length(model.objective, window)
    if not alleles:
        raise DataError("no variant in it; give rows below the header", source)
    alleles, contigs, codes = _locate(alleles, genome, source, on_reject)
    score = masked_scores if masked else class_scores
    rows: list[tuple[Any, ...]] = []
    with tqdm(total=len(alleles), desc="variants", disable=None, leave=False) as bar:
        for group in in_groups(zip(alleles, contigs, strict=True), 4 * model.batch):
            places = [(allele, codes[contig]) for allele, contig in group]
            for (allele, contig), values in zip(
                group, score(model, places, length, column), strict=True
            ):
                place = (contig, allele.start + 1, allele.name or ".", allele.ref, allele.alt)
                rows.append((*place, *(round(value, 5) for value in values)))
            bar.update(len(group))
    names = ["chrom", "pos", "id", "ref", "alt", "score", *([] if masked else ["plus", "minus"])]
    return TableResult(
        pd.DataFrame(rows, columns=names), facts, draw=_draw, sources=(genome, source)
    )


def _draw(frame: "pd.DataFrame", ax: "Axes") -> None:
    """Draw the largest effects as bars, the largest on top."""
    largest = frame.loc[frame["score"].abs().sort_values().dropna().index[-SHOWN:]]
    names = [f"{row.chrom}:{row.pos:,} {row.ref}>{row.alt}" for row in largest.itertuples()]
    ax.barh(
        range(len(names)),
        largest["score"],
        color=np.where(largest["score"] < 0, "#2166ac", "#b2182b"),
    )
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.axvline(0, color="0.3", lw=0.8)
    ax.set_xlabel("effect of the alternative allele")


def _locate(
    alleles: Sequence[Variant], genome: Path, source: Path, on_reject: OnReject
) -> tuple[list[Variant], list[str], dict[str, np.ndarray]]:
    """Return the variants whose ref is what the genome has, the contig of each as the genome spells
    it, and the codes of those contigs.
    """
    n, blank = len(alleles), np.full(len(alleles), "", object)
    start = np.array([allele.start for allele in alleles], np.int64)
    end = start + np.array([len(allele.ref) for allele in alleles])
    line = np.array([allele.line for allele in alleles], np.int64)
    names = np.array([allele.contig for allele in alleles], object)
    rows = Annotation(
        names, start, end, np.ones(n, np.int8), blank, blank, line, line, path=str(source)
    )
    contigs = list(reconcile(rows, contig_lengths(genome), str(genome)).contig)
    codes = read_contigs(genome, sorted(set(contigs)))
    kept = []
    for allele, contig in zip(alleles, contigs, strict=True):
        here = as_letters(codes[contig][allele.start : allele.start + len(allele.ref)]).upper()
        if here == allele.ref:
            kept.append((allele, contig))
            continue
        what = f"ref is {allele.ref} but {contig} has {here} at {allele.start + 1:,}"
        if on_reject is None:
            raise DataError(
                f"{what}; use the assembly the variants were called on", source, allele.line
            )
        on_reject(Reject(str(source), allele.line, allele.name, what))
    if not kept:
        raise DataError("every variant was rejected; use the assembly they were called on", source)
    return [allele for allele, _ in kept], [contig for _, contig in kept], codes


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
    """Return [mean, plus strand, minus strand] of the change in log-odds that each variant
    makes.
    """
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
    """Return log p / (1 - p) of a class; 1 - p is summed from the others, which keeps its digits
    where p is near 1.

    >>> round(float(log_odds(np.array([[0.25, 0.75]]), 1)[0]), 4)
    1.0986
    """
    p_NC = np.maximum(p_NC.astype(np.float64), 1e-30)
    return np.log(p_NC[:, column]) - np.log(np.delete(p_NC, column, axis=1).sum(1))
