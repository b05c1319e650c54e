"""The genomes section of `sciforge demo`: few labels on a real task, beside scratch and classical rivals, then a scan."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sciforge.core.data.store import Store, prepare
from sciforge.core.files.tables import Section, Table
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Full, Run, Schedule, Subset
from sciforge.experiments.label_efficiency.run import measure
from sciforge.experiments.label_efficiency.spec import LabelEfficiency
from sciforge.experiments.methods import Recipe
from sciforge.genomes.data.annotated_windows import EcoliCoding
from sciforge.genomes.inference.scan import Scan
from sciforge.genomes.objectives.sequence_labels import Classify

SIZES = (32, 128)
SEEDS = 5
METHODS = ("pretrained", "untrained", "kmer_lr", "frames_boosting")
GENTLE = Schedule(steps=8, batch=32, lr=2e-4, kind="step", warmup=0.1)
WHAT = (
    "The task: is a window of 100 bases part of a protein-coding gene? Windows of Leptospira kirschneri are matched in GC "
    "content, so composition alone says nothing; training and test windows lie in different blocks of the genome. All "
    "methods see the same few labels, seed by seed. The net was pretrained on this genome's bare sequence among others, "
    "never on its annotation; its reading-frame task uses the genetic code. frames_boosting is the classical rival that is "
    "given the same knowledge by hand: gradient boosting on k-mers, bases by place and open reading frames."
)


def demo(folder: Path, find: Callable[[str], Path], full: bool = False) -> Section:
    """Fine-tune dna-bert-mini on few labels of real windows, compare, and scan a phage it has never seen.

    Args:
        folder: for everything that is made.
        find: gives the path of bundled data by name.
        full: more numbers of labels and seeds; takes minutes.
    """
    store = _store(folder, find("leptospira-kirschneri"))
    spec = LabelEfficiency(
        data=store.path,
        out=folder / "curve",
        init=find("dna-bert-mini"),
        objective=Classify(strand_free=True),
        sizes=SIZES,
        seeds=SEEDS,
        methods=METHODS,
        recipe=Recipe(GENTLE, Full(layer_decay=0.8), epochs=0.0),
    )
    result = measure(spec)
    picture = result.save(folder / "curve.png")
    checkpoint = folder / "coding"
    if not (checkpoint / "final").exists():
        train(
            Run(
                data=store.path,
                out=checkpoint,
                init=spec.init,
                objective=Classify(strand_free=True),
                subset=Subset(512),
                schedule=GENTLE,
            )
        )
    model = Model.load(checkpoint)
    scan, summary = _scan(model, folder, find("phage-lambda"))
    metrics = model.evaluate(store, split="test")
    rows = tuple((name, f"{metrics[name]:.3f}") for name in ("mcc", "auroc", "accuracy"))
    table = Table(("figure, 512 labels", "test"), rows, "The checkpoint whose scan of phage lambda is drawn below.")
    pictures = (
        (picture, "MCC against the number of labels, with 95 % intervals."),
        (scan, "Probability of coding along phage lambda."),
    )
    return Section(
        "Genomes: a DNA-BERT specialised with few labels", (WHAT, summary), (result.table(), table), pictures
    )


def _store(folder: Path, genome: Path) -> Store:
    place = folder / "windows"
    return Store.open(place) if place.exists() else prepare(EcoliCoding(genome=genome), place)


def _scan(model: Model, folder: Path, genome: Path) -> tuple[Path, str]:
    """Scan a genome, draw the scores, and describe them in a sentence."""
    bed = folder / "phage-lambda.bed"
    result = Scan(genome=genome, step=50).run(model)
    result.save(bed)
    scores = result.to_pandas()
    middle, score = (scores["start"] + scores["end"]) / 2, scores["probability"].to_numpy()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 2.4), layout="constrained")
    axes.fill_between(middle / 1000, np.convolve(score, np.ones(9) / 9, mode="same"), color="#0072B2", lw=0)
    axes.set(xlabel="phage lambda, kb", ylabel="probability of coding", ylim=(0, 1), xlim=(0, middle.max() / 1000))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    picture = folder / "phage-lambda.png"
    figure.savefig(picture, dpi=150)
    pyplot.close(figure)
    share = float((score > 0.5).mean())
    summary = (
        f"Phage lambda, which the net has never seen, read in windows of 100 bases: {share:.0%} score above .5 for coding "
        f"(its genes cover about nine tenths of it); tracks for a genome browser: {bed.name}, {bed.stem}.bedGraph."
    )
    return picture, summary
