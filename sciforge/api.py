"""The verbs of sciforge: what Python calls and what the command line parses."""

import os
from pathlib import Path
from typing import Any, Literal

from sciforge import catalog
from sciforge.core.data.dataset import Dataset, prepare_dataset
from sciforge.core.data.store import Store
from sciforge.core.methods import regularization
from sciforge.core.training import loop
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import choose_device
from sciforge.core.training.model import LawResult, Model
from sciforge.core.training.run import Estimator, Run
from sciforge.errors import DataError
from sciforge.experiments.compression import distillation as distilling
from sciforge.experiments.compression import pruning, pruning_curve
from sciforge.experiments.forgetting import run as forgetting
from sciforge.experiments.invariance import run as invariances
from sciforge.experiments.label_efficiency import run as curves
from sciforge.experiments.privacy import run as privacies
from sciforge.experiments.schedules import run as scheduling
from sciforge.provenance import export as exports
from sciforge.provenance import model_card as cards
from sciforge.provenance import verify as verifying

__all__ = ["prepare", "train", "fisher", "evaluate", "curve", "predict", "check", "audit", "label", "sample", "load"]
__all__ += [
    "generate",
    "score",
    "schedules",
    "forget",
    "privacy",
    "invariance",
    "prune",
    "distill",
    "export",
    "verify",
    "card",
]


def prepare(
    what: Any,
    out: Path | str | None = None,
    *,
    workers: int = 1,
    executor: str = "processes",
    on_error: Literal["stop", "skip"] = "stop",
) -> Dataset:
    """Turn files into a dataset; byte-identical for every executor and number of workers.

    Args:
        what: a preparer of a domain with its options, e.g. `genomes.Genome(files=...)`.
        out: the dataset's folder, which appears whole or not at all; None for a temporary one that lives as long as
            the dataset.
        workers: processes.
        executor: `processes`, or `dask://host:port` for a Dask cluster that sees the same disk.
        on_error: `skip` writes bad records to rejected.jsonl and counts them; `stop` raises at the first.
    """
    return prepare_dataset(what, out, workers=workers, executor=executor, on_error=on_error)


def train(run: Run, *, resume: bool = False) -> Checkpoint:
    """Pretrain or fine-tune: one function, described by one `Run`.

    Args:
        run: everything that decides the result; `model` starts fresh, `init` from a checkpoint's path or name.
        resume: continue from the newest checkpoint in `run.out`, bit-equal to a run never stopped.
    """
    run = catalog.locate_run(run)
    invariances.warn_before_training(run)
    made = loop.train(run, resume=resume)
    if os.environ.get("RANK", "0") == "0" and (found := _sources(made)):
        cards.write(made, sources=found)
    return made


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
    found = regularization.fisher_information(model, objective, opened.codec, records, **options)
    return opened.with_file(f"fisher-{estimator}.safetensors", found, options)


def load(name: Path | str, *, device: str = "auto", batch: int = 64) -> Model:
    """Return a checkpoint as a predictor.

    Args:
        name: a path, or the name of a bundled or fetched checkpoint such as `dna-bert-mini`.
        device: `auto`, `cpu` or `cuda`.
        batch: records in one forward pass.
    """
    return Model.load(catalog.locate(name), device, batch)


def evaluate(checkpoint: Path | str, data: Path, *, split: str = "test", device: str = "auto") -> dict[str, float]:
    """Return loss and metrics of a checkpoint on a split of a store.

    Args:
        checkpoint: path or name.
        data: a prepared store.
        split: `train`, `validation` or `test`.
        device: `auto`, `cpu` or `cuda`.
    """
    return load(checkpoint, device=device).evaluate(Store.open(data), split=split)


def curve(spec: "curves.LabelEfficiency") -> "curves.LabelEfficiencyResult":
    """Measure a label-efficiency curve: pretrained, scratch and frozen nets and classical baselines on paired seeds.

    Args:
        spec: what to compare, on which data, at which numbers of labels.
    """
    return curves.measure(catalog.locate_curve(spec))


def schedules(spec: "scheduling.Schedules") -> "scheduling.ScheduleResult":
    """Compare learning-rate schedules on your own task, with equal final rate and equal area or peak, on paired seeds.

    Args:
        spec: what to train, under which shapes.
    """
    return scheduling.compare_schedules(catalog.locate_curve(spec))


def forget(spec: "forgetting.Forgetting") -> "forgetting.ForgettingResult":
    """Compare ways to fine-tune without forgetting: both tasks' errors at each strength, the Pareto front, a budget.

    Args:
        spec: the base, the old and the new data, the methods and strengths to try.
    """
    return forgetting.measure(catalog.locate_forget(spec))


def privacy(spec: "privacies.Privacy") -> "privacies.PrivacyResult":
    """Audit what a model betrays of its training records: membership inference by shadow models, with intervals.

    Args:
        spec: which checkpoint, whose membership to guess, how many shadows.
    """
    return privacies.measure(catalog.locate_privacy(spec))


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


def prune(spec: "pruning.Prune") -> "pruning.Pruned | pruning_curve.PruneResult":
    """Set a checkpoint's smallest weights to zero, fine-tune with the zeros held, or measure quality against sparsity.

    Args:
        spec: which checkpoint, how far, by which data; with `curve`, which checkpoints at which sparsities.
    """
    spec = catalog.locate_prune(spec)
    return pruning_curve.measure(spec) if spec.curve else pruning.prune(spec)


def distill(spec: "distilling.Distill") -> "distilling.DistillResult":
    """Teach a smaller student by a checkpoint, and judge both beside the same student taught by labels alone.

    Args:
        spec: teacher, student, data, how long and how many seeds.
    """
    return distilling.distill(catalog.locate_teacher(spec))


def export(checkpoint: Path | str, out: Path, *, data: Path | None = None) -> "exports.Exported":
    """Export a checkpoint as one file that runs without sciforge, a torch.export program or ONNX, checked on real records.

    Args:
        checkpoint: path or name.
        out: the file: NAME.pt2 or NAME.onnx.
        data: a store whose records it is tried on; by default the one it was trained on.
    """
    return exports.export(load(checkpoint, device="cpu"), Path(out), data)


def verify(
    checkpoint: Path | str,
    *,
    data: Path | None = None,
    init: Path | None = None,
    replay: int = 5,
    device: str = "auto",
) -> "verifying.Verification":
    """Verify a run: digests, data, parent, environment then and now, and some of its steps taken again, bit by bit.

    Args:
        checkpoint: a run's folder, a checkpoint, or a name.
        data: where the run's store is now, if not where it was.
        init: where the run's parent is now, if not where it was; a path or a name.
        replay: how many steps to take again, 0 for none.
        device: of the replay; `auto` takes the recorded one where it is there.
    """
    parent = None if init is None else catalog.locate(init)
    return verifying.verify(catalog.locate(checkpoint), data=data, init=parent, replay=replay, device=device)


def card(
    checkpoint: Path | str,
    *,
    data: Path | None = None,
    licence: str | None = None,
    reports: Path | None = None,
    device: str = "auto",
) -> Path:
    """Write the model card (README.md) of a checkpoint from what lies in its folder and the reports beside it.

    Args:
        checkpoint: path or name.
        data: a store on whose test split to evaluate the checkpoint for the card; kept as evaluation.json.
        licence: of the model, e.g. `apache-2.0`; by default what the card says already, else `unknown`.
        reports: a folder with reports of privacy, sparsity or forgetting, beside the usual places.
        device: of the evaluation.
    """
    made = Checkpoint.open(catalog.locate(checkpoint))
    if data is not None:
        found = Model.load(made.path, device)
        store = Store.open(data)
        cards.keep_evaluation(made, store, "test", found.evaluate(store, split="test"))
    return cards.write(made, licence=licence, sources=_sources(made), reports=reports)


def _sources(made: Checkpoint) -> list[dict[str, str]]:
    """Return name, licence and citation of the dataset cards that have the digests of the files behind a checkpoint."""
    try:
        files = (Store.open(made.run.data, verify=False).index.get("preparer") or {}).get("files") or ()
    except DataError:
        return []  # the store has gone; the card keeps what it says
    found = [catalog.card_of(Path(file)) for file in files if isinstance(file, str)]
    return [{"name": c.name, "licence": c.licence, "citation": c.citation} for c in found if c is not None]


def audit(what: Any) -> Any:
    """Look for leaks and shortcuts before a figure is believed.

    Args:
        what: one of a domain's audits with its options, e.g. `genomes.AuditShortcuts(data=...)`.
    """
    return what.run()


def invariance(
    checkpoint: Path | str, spec: "invariances.Invariance", *, device: str = "auto", batch: int = 64
) -> "invariances.InvarianceResult":
    """Measure what augmentations do: how far they move the embedding, and whether they erase the label.

    Args:
        checkpoint: path or name.
        spec: on which records, which augmentations.
        device: `auto`, `cpu` or `cuda`.
        batch: records in one forward pass.
    """
    return invariances.measure(catalog.locate(checkpoint), spec, device, batch)
