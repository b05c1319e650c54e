"""The verbs of sciforge: what Python calls and what the command line parses."""

from pathlib import Path
from typing import Any, Literal

from sciforge import catalog
from sciforge.core import anchor, loop, store
from sciforge.core import curve as curves
from sciforge.core.checkpoint import Checkpoint
from sciforge.core.engine import choose_device
from sciforge.core.predictor import LawResult, Predictor
from sciforge.core.run import Estimator, Run
from sciforge.core.store import Store

__all__ = ["prepare", "train", "fisher", "evaluate", "curve", "predict", "check", "audit", "label", "sample", "load"]
__all__ += ["generate", "schedules", "score"]


def prepare(
    what: Any,
    out: Path,
    *,
    workers: int = 1,
    executor: str = "processes",
    on_error: Literal["stop", "skip"] = "stop",
) -> Store:
    """Turn files into a store; byte-identical for every executor and number of workers.

    Args:
        what: a preparer of a domain with its options, e.g. `genomes.PrepareGenome(files=...)`.
        out: the store's folder; appears whole or not at all.
        workers: processes.
        executor: `processes`, or `dask://host:port` for a Dask cluster that sees the same disk.
        on_error: `skip` writes bad records to rejected.jsonl and counts them; `stop` raises at the first.
    """
    return store.prepare(what, Path(out), workers=workers, executor=executor, on_error=on_error)


def train(run: Run, *, resume: bool = False) -> Checkpoint:
    """Pretrain or fine-tune: one function, described by one `Run`.

    Args:
        run: everything that decides the result; `model` starts fresh, `init` from a checkpoint's path or name.
        resume: continue from the newest checkpoint in `run.out`, bit-equal to a run never stopped.
    """
    return loop.train(catalog.locate_run(run), resume=resume)


def fisher(
    checkpoint: Path | str,
    data: Path,
    *,
    estimator: Estimator = "exact",
    examples: int = 256,
    seed: int = 0,
    device: str = "auto",
) -> Checkpoint:
    """Estimate the Fisher information on pretraining data and keep it in the checkpoint, for EWC without that data.

    Args:
        checkpoint: path or name.
        data: the store the checkpoint was trained on.
        estimator: `exact`, `sampled` or `empirical`; always per example.
        examples: how many to average over.
        seed: of their choice and of sampled labels.
        device: `auto`, `cpu` or `cuda`.
    """
    opened = Checkpoint.open(catalog.locate(checkpoint))
    objective = opened.objectives[0]
    model = opened.build().to(choose_device(device))
    records = objective.examples(Store.open(data), "train")
    options = {"estimator": estimator, "examples": examples, "seed": seed}
    found = anchor.fisher_information(model, objective, opened.codec, records, **options)
    return opened.with_file(f"fisher-{estimator}.safetensors", found, options)


def load(name: Path | str, *, device: str = "auto", batch: int = 64) -> Predictor:
    """Return a checkpoint as a predictor.

    Args:
        name: a path, or the name of a bundled or fetched checkpoint such as `dna-bert-mini`.
        device: `auto`, `cpu` or `cuda`.
        batch: records in one forward pass.
    """
    return Predictor.load(catalog.locate(name), device, batch)


def evaluate(checkpoint: Path | str, data: Path, *, split: str = "test", device: str = "auto") -> dict[str, float]:
    """Return loss and metrics of a checkpoint on a split of a store.

    Args:
        checkpoint: path or name.
        data: a prepared store.
        split: `train`, `dev` or `test`.
        device: `auto`, `cpu` or `cuda`.
    """
    return load(checkpoint, device=device).evaluate(Store.open(data), split)


def curve(spec: "curves.Curve") -> "curves.CurveResult":
    """Measure a label-efficiency curve: pretrained, scratch and frozen nets and classical baselines on paired seeds.

    Args:
        spec: what to compare, on which data, at which numbers of labels.
    """
    return curves.measure(catalog.locate_curve(spec))


def schedules(spec: Any) -> Any:
    """Compare learning-rate schedules on your own task, with equal final rate and equal area or peak, on paired seeds.

    Args:
        spec: a `core.schedules.Schedules`: what to train, under which shapes.
    """
    from sciforge.core.schedules import compare_schedules

    return compare_schedules(catalog.locate_curve(spec))


def predict(checkpoint: Path | str, output: Any, *, device: str = "auto", batch: int = 64) -> Path:
    """Write what a domain's users want from a checkpoint (classes, embeddings, a genome scan, ...).

    Args:
        checkpoint: path or name.
        output: one of the domain's outputs with its options, e.g. `genomes.Scan(genome=..., out=...)`.
        device: `auto`, `cpu` or `cuda`.
        batch: records in one forward pass.
    """
    return output.write(load(checkpoint, device=device, batch=batch))


def check(checkpoint: Path | str, *, device: str = "cpu") -> list[LawResult]:
    """Run the domain's laws on a checkpoint and return how far each is broken.

    Args:
        checkpoint: path or name.
        device: of the arithmetic.
    """
    return load(checkpoint, device=device).check()


def label(what: Any) -> Path:
    """Label structures with energies and forces by quantum chemistry: GFN-xTB or density functionals.

    Args:
        what: a `Label` with its options, e.g. `atoms.Label(file=..., out=..., method="gfn2-xtb")`.
    """
    return what.run()


def sample(what: Any) -> Path:
    """Make structures in thermal motion from SMILES, to be labelled.

    Args:
        what: a `Sample` with its options, e.g. `atoms.Sample(smiles=..., out=...)`.
    """
    return what.run()


def generate(checkpoint: Path | str, what: Any, *, device: str = "auto") -> Path:
    """Generate new molecules that keep hard constraints, valid by construction.

    Args:
        checkpoint: path or name.
        what: a `Generate` with its options, e.g. `molecules.Generate(out=..., num=1000, formula="C9H8O4")`.
        device: `auto`, `cpu` or `cuda`.
    """
    return what.write(load(checkpoint, device=device))


def score(what: Any) -> Path:
    """Score generated molecules: validity, uniqueness, novelty, distances to real molecules, each with an interval.

    Args:
        what: a `Score` with its options, e.g. `molecules.Score(file=..., reference=..., out=...)`.
    """
    return what.run()


def audit(what: Any) -> Any:
    """Look for leaks and shortcuts before a figure is believed.

    Args:
        what: one of a domain's audits with its options, e.g. `genomes.AuditShortcuts(data=...)`.
    """
    return what.run()
