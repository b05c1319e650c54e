"""A genome read through a classifier: scores along both strands as bedGraph, and the regions above a threshold as BED."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from sciforge.core.files.output_files import cell, provenance, whole_files
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.genomes.data.sequences import N_CODE, read_sequences, reverse_complement
from sciforge.genomes.inference.sequence_classes import class_index, in_groups
from sciforge.genomes.inference.sequence_windows import contig_lengths, sliding, trained_length

Window = tuple[str, int, np.ndarray, bool]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Score a whole genome: `out` is BED6+2 of regions, with bedGraph of the scores of each strand beside it.

    A score is the probability of `label` in the window around it, written at the window's middle; a minus-strand score
    reads the reverse complement. A region joins the windows above the threshold that touch; its columns 7 and 8 (drawn
    thick by browsers) are its best window, its score 1000 times that window's probability. Strand-free tasks have one
    bedGraph and strand '.'. Contigs shorter than a window are named in the bedGraph's last lines.

    Args:
        genome: FASTA or GenBank, plain or compressed; read as a stream.
        out: the BED file; `NAME.plus.bedGraph` and `NAME.minus.bedGraph` (or `NAME.bedGraph`) stand beside it.
        step: bases from one window to the next; the last window is flush with the contig's end.
        threshold: least probability of a region; a scan has few positives, so choose it on a realistic ratio.
        label: the class to score; of two classes the second by default.
        window: bases of a window; by default the length trained on, where the checkpoint records it.
        max_unknown: windows with a larger share of N are left out.
        contigs: scan only these; all where none is named.
    """

    genome: Path
    out: Path
    step: int = 25
    threshold: float = 0.9
    label: str = ""
    window: int | None = None
    max_unknown: float = 0.1
    contigs: tuple[str, ...] = ()

    def __post_init__(self):
        if self.step < 1:
            raise ConfigError(f"step is {self.step}; it must be at least 1")
        if not 0 <= self.threshold <= 1 or not 0 <= self.max_unknown <= 1:
            raise ConfigError("threshold and max_unknown must lie between 0 and 1")

    def write(self, model: Model) -> Path:
        """Write the three files (two where the task is strand-free) and return the BED file's path."""
        column = class_index(model, self.label)
        window = trained_length(model.objective, self.window)
        if window is None:
            raise ConfigError("the checkpoint does not record the length it was trained on; give --window")
        lengths = self._lengths(window)
        strands = "." if model.objective.strand_free else "+-"
        name = cell(model.objective.classes[column]).replace(" ", "_")
        out = Path(self.out)
        tracks = [
            out.with_name(f"{out.stem}{part}.bedGraph") for part in ([""] if strands == "." else [".plus", ".minus"])
        ]
        with whole_files(out, *tracks) as (bed, *graphs):
            bed.write(f"# {provenance(self, model)}\n")
            writers = [_Strand(s, name, window, self, bed, graph) for s, graph in zip(strands, graphs, strict=True)]
            for strand, graph in zip(writers, graphs, strict=True):
                graph.write(f'track type=bedGraph name="{name} {strand.strand}"\n# {provenance(self, model)}\n')
            for contig, start, scores in self._scores(model, column, window, lengths):
                for strand, score in zip(writers, scores, strict=True):
                    strand.add(contig, start, score)
            for strand, graph in zip(writers, graphs, strict=True):
                strand.close()
                for contig in [c for c, length in lengths.items() if length < window]:
                    graph.write(f"# {contig} has {lengths[contig]} bases, fewer than a window: not scanned\n")
        return out

    def _lengths(self, window: int) -> dict[str, int]:
        lengths = contig_lengths(self.genome)
        for contig in self.contigs:
            if contig not in lengths:
                raise ConfigError(f"no contig {contig!r} in {self.genome}; {did_you_mean(contig, lengths)}")
        lengths = {contig: n for contig, n in lengths.items() if not self.contigs or contig in self.contigs}
        if max(lengths.values()) < window:
            raise DataError(f"no contig is as long as a window of {window} bases; give --window", self.genome)
        return lengths

    def _scores(
        self, model: Model, column: int, window: int, lengths: dict[str, int]
    ) -> Iterator[tuple[str, int, np.ndarray]]:
        """Yield (contig, start, probability of each strand) of every window with few enough N, in order."""
        pieces = (piece for piece in read_sequences(self.genome) if piece.name in lengths)
        windows = sliding(pieces, window, self.step, short=False)
        with tqdm(desc="scan", total=sum(lengths.values()), unit="bp", unit_scale=True, disable=None) as bar:
            at = ("", 0)
            for group in in_groups(windows, 8 * model.batch):
                kept = [w for w in group if ((w[2] & 7) == N_CODE).mean() <= self.max_unknown]
                if kept:
                    for (contig, start, _, _), scores in zip(kept, self._strands(model, kept, column), strict=True):
                        yield contig, start, scores
                for contig, start, bases, final in group:
                    reached = start + (len(bases) if final else 0)
                    bar.update(reached - (at[1] if contig == at[0] else 0))
                    at = (contig, reached)

    def _strands(self, model: Model, windows: list[Window], column: int) -> np.ndarray:
        def probability(records: Iterable[np.ndarray]) -> np.ndarray:
            return model.outputs({"bases": bases} for bases in records)["probability"][:, column]

        forward = probability(bases for _, _, bases, _ in windows)
        if model.objective.strand_free:
            return forward[:, None]
        return np.stack([forward, probability(reverse_complement(bases) for _, _, bases, _ in windows)], axis=1)


@dataclass
class _Strand:
    """Writes one strand's scores as they come, each window once the next is known."""

    strand: str
    name: str
    window: int
    scan: Scan
    bed: IO
    graph: IO
    waiting: tuple[str, int, float] | None = None
    region: dict = field(default_factory=dict)

    def add(self, contig: str, start: int, score: float) -> None:
        self._write_score(contig, start)
        self.waiting = (contig, start, float(score))
        if score < self.scan.threshold:
            return
        if self.region and (self.region["contig"] != contig or start > self.region["end"]):
            self._write_region()
        if not self.region:
            self.region = {"contig": contig, "start": start, "best": start, "score": float(score)}
        self.region["end"] = start + self.window
        if score > self.region["score"]:
            self.region |= {"best": start, "score": float(score)}

    def close(self) -> None:
        self._write_score("", 0)
        self._write_region()

    def _write_score(self, next_contig: str, next_start: int) -> None:
        if self.waiting is None:
            return
        contig, start, score = self.waiting
        left = max(start + self.window // 2 - self.scan.step // 2, 0)
        right = left + self.scan.step
        if next_contig == contig:  # the last window may come sooner than a step
            right = min(right, max(next_start + self.window // 2 - self.scan.step // 2, 0))
        else:
            right = min(right, max(start + self.window, left + 1))
        if right > left:
            self.graph.write(f"{contig}\t{left}\t{right}\t{score:.4f}\n")
        self.waiting = None

    def _write_region(self) -> None:
        if r := self.region:
            best = f"{r['best']}\t{r['best'] + self.window}"
            row = f"{r['contig']}\t{r['start']}\t{r['end']}\t{self.name}\t{round(1000 * r['score'])}\t{self.strand}\t{best}\n"
            self.bed.write(row)
        self.region = {}
