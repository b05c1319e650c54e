"""The genomes section of `sciforge demo`: few labels of a real task, beside rivals, then a scan
of another genome.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciforge.core.files.tables import Section, Table

if TYPE_CHECKING:
    import pandas as pd

TASK = (
    "The task: is a window of 100 bases part of a protein-coding gene? Windows of Leptospira"
    " kirschneri are matched in GC content, so composition alone says nothing; training and test"
    " windows lie in different blocks of the genome. All methods see the same few labels, seed by"
    " seed. The network was pretrained on the bare sequence of this genome among others, never on"
    " its annotation; its reading-frame task uses the genetic code. frames_boosting is the"
    " classical rival that is given the same knowledge by hand: gradient boosting on k-mers, bases"
    " by place and open reading frames."
)
SCAN = (
    "Phage lambda, which the network has not seen, in windows of 100 bases: {share:.0%} score above"
    " .5 for coding (its genes cover about nine tenths of it). The regions above .9 are in {bed},"
    " for a genome browser."
)


def demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    """Fine-tune dna-bert-mini on few labels of real windows, compare it with rivals, and scan a
    phage.

    Args:
        folder: for everything that is made.
        find: gives the path of bundled data by name.
        full: more numbers of labels and seeds; takes minutes.
    """
    import sciforge as sf
    from sciforge.experiments.methods import PROBE, Recipe

    task = _task(folder / "windows", find("leptospira-kirschneri"))
    rivals = (
        ("kmer_lr", "gradient_boosting", "frames_boosting")
        if full
        else ("kmer_lr", "frames_boosting")
    )
    curve = sf.label_efficiency(
        task,
        init=find("dna-bert-mini"),
        sizes=(32, 128, 512) if full else (32,),
        seeds=5 if full else 3,
        methods=("pretrained", "untrained", *rivals),
        recipe=Recipe() if full else PROBE,
        out=folder / "curve",
    )
    model = sf.load(find("dna-bert-mini")).fit(task, labels=512 if full else 128, verbose=False)
    metrics = model.evaluate(task)
    scan = model.scan(find("phage-lambda"), step=25 if full else 50)
    scan.to_bed(folder / "phage-lambda.bed", threshold=0.9)
    scores = scan.to_pandas()
    text = SCAN.format(share=(scores["probability"] > 0.5).mean(), bed="phage-lambda.bed")
    rows = tuple((name, f"{metrics[name]:.3f}") for name in ("mcc", "auroc", "accuracy"))
    note = "Of the model whose scan is drawn below."
    pictures = (
        (curve.save(folder / "curve.png"), "MCC on test windows, with 95 % intervals."),
        (
            _draw_scan(scores, folder / "phage-lambda.png"),
            "Probability of coding along phage lambda.",
        ),
    )
    tables = (curve.table(), Table((f"{512 if full else 128} labels", "test"), rows, note))
    return Section("Genomes: coding windows from few labels", (TASK, text), tables, pictures)


def _task(place: Path, genome: Path) -> Any:
    import sciforge as sf

    return (
        sf.Dataset.open(place)
        if place.exists()
        else sf.prepare(sf.genomes.EcoliCoding(genome=genome), place)
    )


def _draw_scan(scores: "pd.DataFrame", out: Path) -> Path:
    """Draw the running mean of nine windows along the genome."""
    from sciforge.core.files.results import new_axes

    middle = (scores["start"] + scores["end"]) / 2000
    axes = new_axes(9, 2.4)
    axes.fill_between(
        middle, scores["probability"].rolling(9, center=True, min_periods=1).mean(), lw=0
    )
    axes.set(
        xlabel="phage lambda, kb",
        ylabel="probability of coding",
        ylim=(0, 1),
        xlim=(0, middle.max()),
    )
    axes.figure.savefig(out, dpi=150)
    return out
