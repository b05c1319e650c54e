"""A genome read through a classifier: the scores of both strands as a table, tracks for a genome
browser, and a picture.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from sciforge.core.files.output_files import about
from sciforge.core.files.settings import Settings
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.genomes.data.sequences import N_CODE, read_sequences, reverse_complement
from sciforge.genomes.inference.requirements import class_index, need_length
from sciforge.genomes.inference.scan_result import ScanResult
from sciforge.genomes.inference.sequence_windows import Window, contig_lengths, in_groups, sliding

if TYPE_CHECKING:
    import pandas as pd

MAX_TESTED = 64  # likeliest windows that are moved by one base
STABLE_SHARE = 0.5  # of the probability that a window keeps when moved by one base
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Scan(Settings):
    """Score a whole genome, window by window: a table of chrom, start, end, strand and probability.

    The probability is that of `label` in the window; on the minus strand the reverse complement is
    read. Strand-free tasks have one row a window, with strand '.'. Saved as NAME.bed, regions above
    the threshold are written as BED6+2, with bedGraph of the scores of each strand beside it; as
    NAME.bedGraph the scores alone; as .csv or .tsv the table.

    Args:
        genome: FASTA or GenBank, plain or compressed; read as a stream.
        step: bases from one window to the next; the last window is flush with the contig's end.
        threshold: least probability of a region; a scan has few positives, so choose it on a
            realistic ratio.
        label: the class to score; of two classes the second by default.
        window: bases of a window; by default the length trained on, where the checkpoint records
            it.
        max_unknown: windows with a larger share of N are left out.
        contigs: scan only these; all where none is named.
    """

    genome: Path
    step: int = 25
    threshold: float = 0.9
    label: str = ""
    window: int | None = None
    max_unknown: float = 0.1
    contigs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "step", "window")
        self.require(0, 1, "threshold", "max_unknown")

    def run(self, model: Model) -> ScanResult:
        """Return the scores.

        Raises:
            ConfigError: the checkpoint does not classify, or a contig or class is unknown.
            DataError: the genome cannot be read, or no contig is as long as a window.
        """
        column = class_index(model, self.label)
        window = need_length(model.objective, self.window)
        lengths = self._lengths(window)
        unknown: Counter[str] = Counter()
        best = BestWindows(self.threshold)
        groups = list(self._scores(model, column, window, lengths, unknown, best))
        frame = _table(groups, list(lengths), window, model.objective.strand_free)
        short = {contig: length for contig, length in lengths.items() if length < window}
        facts = about(self, model) | {"not_scanned": short, "windows_left_out": unknown.total()}
        if short:
            log.warning(
                "%d contigs shorter than a window of %d were not scanned", len(short), window
            )
        if unknown:
            listed = ", ".join(f"{contig} ({count})" for contig, count in unknown.most_common(3))
            log.warning(
                "%d windows left out for unknown bases (max_unknown %g): %s",
                unknown.total(),
                self.max_unknown,
                listed,
            )
        if advice := best.advice(model, column, self.step):
            log.warning(advice)
            facts["advice"] = advice
        name = str(model.objective.classes[column])
        return ScanResult(frame, facts, name=name, step=self.step, threshold=self.threshold)

    def _lengths(self, window: int) -> dict[str, int]:
        lengths = contig_lengths(self.genome)
        for contig in self.contigs:
            if contig not in lengths:
                raise ConfigError(
                    f"no contig {contig!r} in {self.genome}; {did_you_mean(contig, lengths)}"
                )
        lengths = {
            contig: n for contig, n in lengths.items() if not self.contigs or contig in self.contigs
        }
        if max(lengths.values()) < window:
            raise DataError(
                f"no contig is as long as a window of {window} bases; give a shorter window",
                self.genome,
            )
        return lengths

    def _scores(
        self,
        model: Model,
        column: int,
        window: int,
        lengths: Mapping[str, int],
        unknown: Counter[str],
        best: "BestWindows",
    ) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
        """Yield contigs, starts [N] and the probability of each strand [N, S] of windows with
        few enough N, in order; count the others in `unknown` and note the likeliest in `best`.
        """
        pieces = (piece for piece in read_sequences(self.genome) if piece.name in lengths)
        windows = sliding(pieces, window, self.step, short=False)
        with tqdm(
            desc="scan", total=sum(lengths.values()), unit="bp", unit_scale=True, disable=None
        ) as bar:
            at = ("", 0)
            for group in in_groups(windows, 8 * model.batch):
                kept = [w for w in group if ((w[2] & 7) == N_CODE).mean() <= self.max_unknown]
                names = {id(w) for w in kept}
                unknown.update(w[0] for w in group if id(w) not in names)
                if kept:
                    starts = np.array([start for _, start, _, _ in kept])
                    p_NS = _strand_scores(model, kept, column)
                    best.add(kept, p_NS)
                    yield [contig for contig, *_ in kept], starts, p_NS
                for contig, start, bases, final in group:
                    reached = start + (len(bases) if final else 0)
                    bar.update(reached - (at[1] if contig == at[0] else 0))
                    at = (contig, reached)


class BestWindows:
    """The likeliest windows of a scan, to see whether the classifier knows them at one offset only.

    Args:
        threshold: least probability of a window that counts.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.windows: list[tuple[float, np.ndarray]] = []

    def add(self, windows: Sequence[Window], p_NS: np.ndarray) -> None:
        """Take windows with the probability of each strand [N, S]; keep the likeliest."""
        for row, strand in zip(*np.nonzero(p_NS >= self.threshold), strict=True):
            bases = windows[row][2]
            oriented = reverse_complement(bases) if strand else bases
            self.windows.append((float(p_NS[row, strand]), oriented.copy()))
        self.windows = sorted(self.windows, key=lambda item: -item[0])[:MAX_TESTED]

    def advice(self, model: Model, column: int, step: int) -> str:
        """Return what to do where windows lose their class when moved by one base; else nothing."""
        if step == 1:
            return ""
        if not self.windows:
            return (
                f"no window reaches the threshold; with a step of {step} a classifier of one offset"
                " from its anchor misses its sites: use a smaller --step"
            )
        moved = [np.roll(bases, shift) for _, bases in self.windows for shift in (-1, 1)]
        p_N = model.outputs({"bases": bases} for bases in moved)["probability"][:, column]
        ratio = float(np.median(p_N / np.repeat([p for p, _ in self.windows], 2)))
        if ratio >= STABLE_SHARE:
            return ""
        return (
            f"the likeliest windows keep {ratio:.0%} of their probability when moved by one base:"
            f" the classifier knows one offset from the anchor, and a step of {step} misses sites;"
            " use --step 1, or train on windows at several offsets"
        )


def _strand_scores(model: Model, windows: Sequence[Window], column: int) -> np.ndarray:
    """Return the probability of a class on each strand [N, 2], or of both together [N, 1] where
    strands do not matter.
    """

    def probability(sequences: Iterable[np.ndarray]) -> np.ndarray:
        return model.outputs({"bases": bases} for bases in sequences)["probability"][:, column]

    forward_N = probability(bases for _, _, bases, _ in windows)
    if model.objective.strand_free:
        return forward_N[:, None]
    return np.stack(
        [forward_N, probability(reverse_complement(bases) for _, _, bases, _ in windows)], axis=1
    )


def _table(
    groups: Sequence[tuple[list[str], np.ndarray, np.ndarray]],
    contigs: list[str],
    window: int,
    strand_free: bool,
) -> "pd.DataFrame":
    """Return one row a window and strand, in the order of the genome."""
    import pandas as pd

    strands = ["."] if strand_free else ["+", "-"]
    number = {contig: place for place, contig in enumerate(contigs)}
    contig_N = np.array([number[contig] for names, _, _ in groups for contig in names], np.int32)
    start_N = np.concatenate([starts for _, starts, _ in groups] or [np.zeros(0, np.int64)]).astype(
        np.int64
    )
    p_NS = np.concatenate(
        [scores for _, _, scores in groups] or [np.zeros((0, len(strands)), np.float32)]
    )
    return pd.DataFrame(
        {
            "chrom": pd.Categorical.from_codes(
                np.repeat(contig_N, len(strands)), categories=contigs
            ),
            "start": np.repeat(start_N, len(strands)),
            "end": np.repeat(start_N + window, len(strands)),
            "strand": pd.Categorical.from_codes(
                np.tile(np.arange(len(strands)), len(start_N)), categories=strands
            ),
            "probability": p_NS.ravel(),
        }
    )


def scan(
    model: Model,
    genome: Path | str,
    *,
    contigs: Sequence[str] = (),
    step: int = 25,
    threshold: float = 0.9,
    label: str = "",
    window: int | None = None,
    max_unknown: float = 0.1,
) -> ScanResult:
    """Return the scores of a genome, window by window: chrom, start, end, strand, probability.

    Args:
        model: fine-tuned to classify.
        genome: FASTA or GenBank, plain or compressed.
        contigs: scan only these; all where none is named.
        step: bases from one window to the next; the last window is flush with the contig's end.
        threshold: least probability of a region, where the result is saved as BED.
        label: the class to score; of two classes the second by default.
        window: bases of a window; by default the length trained on.
        max_unknown: windows with a larger share of N are left out.

    Raises:
        ConfigError: the model does not classify, or a contig or class is unknown.
        DataError: the genome cannot be read, or no contig is as long as a window.
    """
    options: dict[str, Any] = {
        "step": step,
        "threshold": threshold,
        "label": label,
        "window": window,
    }
    return Scan(genome=genome, contigs=contigs, max_unknown=max_unknown, **options).run(model)  # type: ignore[arg-type]
