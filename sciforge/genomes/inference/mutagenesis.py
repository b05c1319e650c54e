"""In-silico mutagenesis: what every possible single-base change of a sequence does."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from sciforge.core.files.output_files import about
from sciforge.core.files.settings import Settings
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.genomes.data.sequences import reverse_complement
from sciforge.genomes.inference.inputs import bases_of_input
from sciforge.genomes.inference.masked_likelihood import centred_window, log_probabilities
from sciforge.genomes.inference.mutagenesis_map import MutagenesisMap
from sciforge.genomes.inference.region import Region
from sciforge.genomes.inference.requirements import class_index, need_length
from sciforge.genomes.inference.sequence_windows import in_groups, read_contigs
from sciforge.genomes.inference.variants import log_odds
from sciforge.genomes.objectives.masked_kmers import MaskedKmers

MAX_MAP_BASES = 2000  # bases of a map


@dataclass(frozen=True, kw_only=True)
class Mutagenesis(Settings):
    """Effect of every base change in one sequence: a table with a row a base, or a heat map where
    it is saved as .png.

    With a classification checkpoint the change in log-odds of `label`; with a pretraining
    checkpoint the masked log-odds log p(base) - log p(reference) in nats, each position hidden in
    turn within its window of context.

    Args:
        genome: FASTA or GenBank.
        region: `contig`, `contig:from-to` or `contig:from-to:-` (from 1, both ends included, `-`
            for the other strand); the whole first contig where it is empty.
        label: the class to score; of two classes the second by default.
        window: context of a hidden position for a pretraining checkpoint; by default the length
            trained on.
    """

    genome: Path
    region: str = ""
    label: str = ""
    window: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "window")

    def run(self, model: Model) -> MutagenesisMap:
        """Return the effects.

        Raises:
            ConfigError: a region, contig or class is unknown, or the region is too long for a map.
            DataError: the genome cannot be read, or the region lies beyond the contig.
        """
        contig, start, stop, strand, codes = self._region()
        changes = Changes(model, codes, start, stop, strand, self.label, self.window)
        return MutagenesisMap.of(
            contig,
            start,
            strand,
            codes[start:stop],
            changes.effects(),
            changes.title,
            about(self, model),
        )

    def _region(self) -> tuple[str, int, int, int, np.ndarray]:
        region = Region.parse(self.region)
        contigs = read_contigs(self.genome, (region.contig,) if region.contig else ())
        if not contigs:
            hint = did_you_mean(region.contig, read_contigs(self.genome))
            raise ConfigError(f"no contig {region.contig!r} in {self.genome}; {hint}")
        name = region.contig or next(iter(contigs))
        codes = contigs[name]
        stop = len(codes) if region.stop is None else region.stop
        if stop > len(codes):
            raise DataError(
                f"region {self.region!r} is not within {name} of {len(codes):,} bases; correct it",
                self.genome,
            )
        return name, region.start, stop, region.strand, codes


@dataclass
class Changes:
    """The base changes of a stretch of a contig under a model.

    Args:
        model: that scores them.
        codes: of the whole contig, uint8.
        start: first base of the stretch.
        stop: one behind its last.
        strand: +1, or -1 to read the stretch on the other strand.
        label: the class to score; of two classes the second by default.
        window: context of a hidden position; None for the length trained on.
    """

    model: Model
    codes: np.ndarray
    start: int
    stop: int
    strand: int = 1
    label: str = ""
    window: int | None = None
    title: str = field(default="", init=False)

    def effects(self) -> np.ndarray:
        """Return the effect of A, C, G and T at each base [L, 4], in the direction of the
        strand; sets `title`.
        """
        if self.stop - self.start > MAX_MAP_BASES:
            size = f"{self.stop - self.start:,} bases are too many for a map"
            raise ConfigError(f"{size}; give a region of at most {MAX_MAP_BASES:,}")
        if isinstance(self.model.objective, MaskedKmers):
            if self.label:
                raise ConfigError(
                    f"label {self.label!r} is for a classification checkpoint; leave it out with a"
                    " pretrained one"
                )
            self.title = "log p(base) - log p(reference), hidden base (nats)"
            effect_L4 = self._masked()
            return effect_L4[::-1, ::-1] if self.strand < 0 else effect_L4
        if self.window is not None:
            raise ConfigError(
                "window is for a pretraining checkpoint; a classifier reads the whole region"
            )
        column = class_index(self.model, self.label)
        self.title = f"change in log-odds of {self.model.objective.classes[column]}"
        bases = self.codes[self.start : self.stop]
        return self._classes(reverse_complement(bases) if self.strand < 0 else bases, column)

    def _masked(self) -> np.ndarray:
        window = need_length(self.model.objective, self.window)
        rows: list[np.ndarray] = []
        with tqdm(
            total=self.stop - self.start, desc="mutagenesis", unit="base", disable=None, leave=False
        ) as bar:
            for group in in_groups(range(self.start, self.stop), 4 * self.model.batch):
                spans = [
                    centred_window(len(self.codes), at, at + 1, window, self.model.codec)
                    for at in group
                ]
                hidden = [
                    (self.codes[a:b], at - a, at - a + 1)
                    for (a, b), at in zip(spans, group, strict=True)
                ]
                rows += [log_p[0] for log_p in log_probabilities(self.model, hidden)]
                bar.update(len(group))
        return relative(np.stack(rows), self.codes[self.start : self.stop])

    def _classes(self, bases: np.ndarray, column: int) -> np.ndarray:
        if len(bases) < self.model.codec.k:
            raise ConfigError(
                f"{len(bases)} bases are fewer than k = {self.model.codec.k}; give a longer region"
            )
        odds_L4 = np.empty((len(bases), 4))
        with tqdm(
            total=4 * len(bases), desc="mutagenesis", unit="seq", disable=None, leave=False
        ) as bar:
            for group in in_groups(np.ndindex(len(bases), 4), 8 * self.model.batch):
                changed = []
                for place, base in group:
                    mutant = bases.copy()
                    mutant[place] = base
                    changed.append({"bases": mutant})
                p_NC = self.model.outputs(changed)["probability"]
                odds_L4[tuple(np.array(group).T)] = log_odds(p_NC, column)
                bar.update(len(group))
        return relative(odds_L4, bases)


def mutagenesis(
    model: Model,
    sequence: Any = None,
    *,
    genome: Path | str | None = None,
    region: str = "",
    label: str = "",
    window: int | None = None,
) -> MutagenesisMap:
    """Return what every single-base change of a sequence, or of a region of a genome, does.

    Args:
        model: fine-tuned to classify, or pretrained on hidden bases.
        sequence: a string, Bio.Seq or array of codes; or give `genome` and `region`.
        genome: FASTA or GenBank.
        region: `contig:from-to` or `contig:from-to:-` of the genome (from 1, both ends included).
        label: the class to score; of two classes the second by default.
        window: context of a hidden position for a pretrained model; by default the length trained
            on.

    Raises:
        ConfigError: neither or both of `sequence` and `genome` are given, or a region or class is
            unknown.
        DataError: the sequence or the genome cannot be read.
    """
    if (sequence is None) == (genome is None):
        raise ConfigError("give either a sequence, or a genome with a region")
    if genome is None and region:
        raise ConfigError(f"region {region!r} is of a genome; leave it out with a sequence")
    if genome is not None:
        return Mutagenesis(genome=Path(genome), region=region, label=label, window=window).run(
            model
        )
    codes = bases_of_input(sequence)
    changes = Changes(model, codes, 0, len(codes), 1, label, window)
    options = {"label": label, "window": window}
    facts = about(options, model)
    return MutagenesisMap.of("sequence", 0, 1, codes, changes.effects(), changes.title, facts)


def relative(score_L4: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """Return scores minus that of the reference base; where the reference is N, minus their mean.

    >>> relative(np.array([[1.0, 2.0, 3.0, 6.0]] * 2), np.array([1, 4], np.uint8)).tolist()
    [[-1.0, 0.0, 1.0, 4.0], [-2.0, -1.0, 0.0, 3.0]]
    """
    plain = bases & 7
    known = score_L4[np.arange(len(bases)), np.minimum(plain, 3)]
    return score_L4 - np.where(plain < 4, known, score_L4.mean(1))[:, None]
