"""In-silico mutagenesis: what every possible single-base change of a sequence does, as a heat map."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sciforge.core.files.output_files import cell, provenance, whole_files
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.genomes.data.sequences import as_letters, reverse_complement
from sciforge.genomes.inference.masked_likelihood import centred_window, log_probabilities
from sciforge.genomes.inference.sequence_classes import class_index, in_groups
from sciforge.genomes.inference.sequence_windows import read_contigs, trained_length
from sciforge.genomes.inference.variants import log_odds
from sciforge.genomes.objectives.masked_kmers import MaskedKmers

_ROW_BASES = 100  # of the plot; letters stay readable
_LARGEST = 2000


@dataclass(frozen=True, kw_only=True)
class Mutagenesis:
    """Effect of every base change in one sequence: a heat map (PNG) and its numbers (TSV beside it).

    With a classification checkpoint the change in log-odds of `label`; with a pretraining checkpoint the masked
    log-odds log p(base) - log p(reference) in nats, each position hidden in turn within its window of context.

    Args:
        genome: FASTA or GenBank.
        out: the PNG file.
        region: `contig`, `contig:from-to` or `contig:from-to:-` (from 1, both ends included, `-` for the other strand);
            the whole first contig where it is empty.
        label: the class to score; of two classes the second by default.
        window: context of a hidden position for a pretraining checkpoint; by default the length trained on.
    """

    genome: Path
    out: Path
    region: str = ""
    label: str = ""
    window: int | None = None

    def write(self, model: Model) -> Path:
        """Write picture and table and return the picture's path."""
        out = Path(self.out)
        if out.suffix.lower() != ".png":
            raise ConfigError(f"out is {out}; give a name that ends in .png")
        contig, start, stop, strand, codes = self._region()
        if isinstance(model.objective, MaskedKmers):
            effect_L4 = self._masked(model, codes, start, stop)
            title = "log p(base) - log p(reference), hidden base (nats)"
        else:
            column = class_index(model, self.label)
            effect_L4 = self._classes(model, codes[start:stop], strand, column)
            title = f"change in log-odds of {model.objective.classes[column]}"
        bases = codes[start:stop]
        if strand < 0:
            bases = reverse_complement(bases)
            effect_L4 = effect_L4[::-1, ::-1] if isinstance(model.objective, MaskedKmers) else effect_L4
        place = f"{contig}:{start + 1:,}-{stop:,} ({'+' if strand > 0 else '-'})"
        at = np.arange(start, stop)[::strand] + 1
        with whole_files(out.with_suffix(".tsv")) as (table,), whole_files(out, binary=True) as (picture,):
            table.write(f"# {provenance(self, model)}\ncontig\tpos\tstrand\tref\tA\tC\tG\tT\n")
            for pos, letter, row in zip(at.tolist(), as_letters(bases).upper(), effect_L4.tolist(), strict=True):
                cells = [cell(contig), str(pos), "+" if strand > 0 else "-", letter, *(f"{e:.5f}" for e in row)]
                table.write("\t".join(cells) + "\n")
            draw(picture, effect_L4, as_letters(bases).upper(), at, f"{title}\n{place}")
        return out

    def _region(self) -> tuple[str, int, int, int, np.ndarray]:
        name, _, rest = self.region.partition(":")
        contigs = read_contigs(self.genome, (name,) if name else ())
        if not contigs:
            raise ConfigError(f"no contig {name!r} in {self.genome}; {did_you_mean(name, read_contigs(self.genome))}")
        name = name or next(iter(contigs))
        codes, (start, stop), strand = contigs[name], (0, len(contigs[name])), 1
        if rest:
            ends, _, sign = rest.replace(",", "").partition(":")
            first, _, last = ends.partition("-")
            if not (first.isdigit() and last.isdigit()) or sign not in ("", "+", "-"):
                raise ConfigError(f"region {self.region!r} is not contig:from-to or contig:from-to:-")
            start, stop, strand = int(first) - 1, int(last), -1 if sign == "-" else 1
        if not 0 <= start < stop <= len(codes):
            raise DataError(
                f"region {self.region!r} is not within {name} of {len(codes):,} bases; correct it", self.genome
            )
        if stop - start > _LARGEST:
            raise ConfigError(f"{stop - start:,} bases are too many for a map; give a --region of at most {_LARGEST:,}")
        return name, start, stop, strand, codes

    def _masked(self, model: Model, codes: np.ndarray, start: int, stop: int) -> np.ndarray:
        window = trained_length(model.objective, self.window)
        rows = []
        with tqdm(total=stop - start, desc="mutagenesis", unit="base", disable=None, leave=False) as bar:
            for group in in_groups(range(start, stop), 4 * model.batch):
                spans = [centred_window(len(codes), at, at + 1, window, model.codec) for at in group]
                hidden = [(codes[a:b], at - a, at - a + 1) for (a, b), at in zip(spans, group, strict=True)]
                rows += [log_p[0] for log_p in log_probabilities(model, hidden)]
                bar.update(len(group))
        return relative(np.stack(rows), codes[start:stop])

    def _classes(self, model: Model, bases: np.ndarray, strand: int, column: int) -> np.ndarray:
        bases = reverse_complement(bases) if strand < 0 else bases
        if len(bases) < model.codec.k:
            raise ConfigError(f"{len(bases)} bases are fewer than k = {model.codec.k}; give a longer --region")
        odds_L4 = np.empty((len(bases), 4))
        with tqdm(total=4 * len(bases), desc="mutagenesis", unit="seq", disable=None, leave=False) as bar:
            for group in in_groups(np.ndindex(len(bases), 4), 8 * model.batch):
                changed = []
                for place, base in group:
                    mutant = bases.copy()
                    mutant[place] = base
                    changed.append({"bases": mutant})
                p_NC = model.outputs(changed)["probability"]
                odds_L4[tuple(np.array(group).T)] = log_odds(p_NC, column)
                bar.update(len(group))
        return relative(odds_L4, bases)


def relative(score_L4: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """Return scores minus that of the reference base; where the reference is N, minus their mean.

    >>> relative(np.array([[1.0, 2.0, 3.0, 6.0]] * 2), np.array([1, 4], np.uint8)).tolist()
    [[-1.0, 0.0, 1.0, 4.0], [-2.0, -1.0, 0.0, 3.0]]
    """
    plain = bases & 7
    known = score_L4[np.arange(len(bases)), np.minimum(plain, 3)]
    return score_L4 - np.where(plain < 4, known, score_L4.mean(1))[:, None]


def draw(file: Any, effect_L4: np.ndarray, letters: str, at: np.ndarray, title: str) -> None:
    """Draw the heat map as PNG: blue lowers, red raises, dots mark the reference; the line is the mean effect."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    length = len(letters)
    rows = -(-length // _ROW_BASES)
    wide = min(length, _ROW_BASES)
    limit = max(float(np.abs(effect_L4).max()), 1e-9)
    mean_L = effect_L4.sum(1) / 3
    figure = Figure(figsize=(max(5.0, 1.6 + 0.15 * wide), 0.7 + 1.75 * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * rows, 1, squeeze=False, gridspec_kw={"height_ratios": [1, 1.4] * rows})[:, 0]
    image = None
    for row in range(rows):
        part = slice(row * _ROW_BASES, min((row + 1) * _ROW_BASES, length))
        size = part.stop - part.start
        line, heat = axes[2 * row], axes[2 * row + 1]
        line.bar(np.arange(size), mean_L[part], width=0.9, color=np.where(mean_L[part] < 0, "#2166ac", "#b2182b"))
        line.axhline(0, color="0.3", linewidth=0.6)
        line.set_ylim(1.1 * min(mean_L.min(), 0) - 1e-9, 1.1 * max(mean_L.max(), 0) + 1e-9)
        line.set_ylabel("mean", fontsize=7)
        line.tick_params(labelsize=6, labelbottom=False, bottom=False)
        image = heat.imshow(
            effect_L4[part].T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
        )
        places = np.array(["ACGT".find(letter) for letter in letters[part]])
        heat.plot(np.flatnonzero(places >= 0), places[places >= 0], ".", color="0.15", markersize=3)
        heat.set_yticks(range(4), "ACGT", fontsize=7)
        heat.set_xticks(range(size), letters[part], fontsize=6, family="monospace")
        heat.tick_params(length=0, pad=2)
        tens = [i for i in range(size) if (abs(int(at[part][i])) % 10 == 0)]
        names = [f"{int(at[part][i]):,}" for i in tens]
        ruler = line.secondary_xaxis("top")
        ruler.set_xticks(tens, names, fontsize=6)
        ruler.tick_params(length=2, pad=1)
        for axis in (line, heat):
            axis.set_xlim(-0.5, wide - 0.5)
            axis.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=9)
    bar = figure.colorbar(image, ax=list(axes), fraction=0.015, pad=0.01, aspect=min(40, 12 * rows))
    bar.ax.tick_params(labelsize=6)
    figure.savefig(file, format="png", metadata={"Software": "sciforge"})
