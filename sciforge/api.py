"""The verbs of sciforge: what Python calls and what the command line parses."""

import logging
import os
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from sciforge import catalog
from sciforge.core.data.dataset import Dataset, prepare_dataset
from sciforge.core.data.store import Store
from sciforge.core.domain import find_offer
from sciforge.core.files.results import Metrics, Result
from sciforge.core.learners.calibration import Calibrate
from sciforge.core.methods.fisher import fisher_information
from sciforge.core.training import loop
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import choose_device
from sciforge.core.training.laws import CheckResult
from sciforge.core.training.model import Model
from sciforge.core.training.run import Estimator, Run
from sciforge.core.training.tasks import planned
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.experiments.compression import distillation, pruning, pruning_curve
from sciforge.experiments.forgetting import run as forgetting_runs
from sciforge.experiments.forgetting.spec import Forgetting
from sciforge.experiments.invariance import run as invariance_runs
from sciforge.experiments.label_efficiency import run as label_efficiency_runs
from sciforge.experiments.privacy import run as privacy_runs
from sciforge.experiments.schedules import run as schedule_runs
from sciforge.experiments.transfer import run as transfer_runs
from sciforge.keywords import fields_as_keywords, options_as_keywords
from sciforge.provenance import export as exports
from sciforge.provenance import model_card
from sciforge.provenance import verify as verification

__all__ = [
    "audit",
    "card",
    "check",
    "distill",
    "evaluate",
    "export",
    "fisher",
    "fit",
    "forgetting",
    "generate",
    "invariance",
    "label",
    "label_efficiency",
    "load",
    "predict",
    "prepare",
    "privacy",
    "prune",
    "sample",
    "schedules",
    "score",
    "train",
    "transfer",
    "verify",
]

LOGGER = logging.getLogger("sciforge")
Place = Path | str  # of a file or folder, or the name of a bundled checkpoint
Data = Dataset | Store | Path | str  # prepared data


# Models -------------------------------------------------------------------------------------------


def prepare(
    preparer: Any,
    out: Path | str | None = None,
    *,
    workers: int = 1,
    executor: str = "processes",
    on_error: Literal["stop", "skip"] = "stop",
) -> Dataset:
    """Turn files into a dataset; byte-identical for every executor and number of workers.

    Args:
        preparer: a preparer of a domain with its options, e.g. `genomes.Genome(files=...)`.
        out: the dataset's folder, which appears whole or not at all; None for a temporary one that
            lives as long as the dataset.
        workers: number of processes.
        executor: `processes`, or `dask://host:port` for a Dask cluster that sees the same disk.
        on_error: `skip` writes bad records to rejected.jsonl and counts them; `stop` raises at the
            first.

    Raises:
        DataError: a file or record is not what it should be.
    """
    return prepare_dataset(preparer, out, workers=workers, executor=executor, on_error=on_error)


@fields_as_keywords(Run, "run")
def train(run: Run, *, resume: bool = False) -> Checkpoint:
    """Pretrain or fine-tune a model.

    Args:
        run: everything that decides the result; `model` starts fresh, `init` from a checkpoint's
            path or name.
        resume: continue from the newest checkpoint in `run.out`, bit-equal to a run never stopped.
    """
    if run.teacher is not None:
        run = replace(
            run, teacher=replace(run.teacher, checkpoint=catalog.locate(run.teacher.checkpoint))
        )
    if os.environ.get("RANK", "0") == "0" and not resume:
        _log_data(run)
    invariance_runs.warn_before_training(run)
    checkpoint = loop.train(run, resume=resume)
    if os.environ.get("RANK", "0") == "0" and (sources := _sources(checkpoint)):
        model_card.write(checkpoint, sources=sources)
    return checkpoint


def load(
    name: Place,
    *,
    device: str = "auto",
    batch: int = 64,
    follow_links: bool = False,
    task: str | None = None,
) -> Model:
    """Return a checkpoint as a Model, which predicts, evaluates, embeds and can be fine-tuned.

    Args:
        name: a path, or the name of a bundled or fetched checkpoint such as `dna-bert-mini`.
        device: `auto`, `cpu` or `cuda`.
        batch: records in one forward pass.
        follow_links: read a checkpoint whose files are links into the caches of Hugging Face or
            DVC.
        task: whose heads to load, where a run learnt several tasks; None for the first.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
        ConfigError: it learnt no such task.
    """
    return Model.load(catalog.locate(name), device, batch, follow_links, task)


def fit(
    checkpoint: Model | Place,
    data: Any,
    targets: Any = None,
    *,
    input: str | None = None,
    target: str | Sequence[str] | None = None,
    split: str | Sequence[str] | None = None,
    group: str | Sequence[Any] | None = None,
    labels: int | None = None,
    recipe: str | None = None,
    calibrate: Calibrate = "auto",
    seed: int = 0,
    out: Path | str | None = None,
    verbose: bool = True,
    device: str = "auto",
    **settings: Any,
) -> Model:
    """Specialise a checkpoint with labelled data by its domain's recipe, and return the new model.

    Args:
        checkpoint: path, name or Model.
        data: a dataset or its folder; or a table (DataFrame, .csv, .tsv) or natural inputs with
            their labels.
        targets: the labels of natural inputs: an array, a Series, or a DataFrame of several
            targets.
        input: the column of a table that holds the inputs.
        target: the column or columns of a table that hold the labels.
        split: the column of a table that holds the splits, or the split of each input; None trains
            on all.
        group: the column of a table that holds the groups, or the group of each input (patient,
            laboratory): what is held out of training is held out by whole groups; None for none.
        labels: train on so many labelled records, classes balanced, chosen by `seed`; None for all.
        recipe: a named recipe of the domain; None for the recommended one.
        calibrate: correct probabilities, or learn 90 % intervals of numbers, on held-out folds
            of the training labels, from 50 labels on: `auto`; for classes also `temperature` or
            `isotonic` by name; `none` does not.
        seed: of new weights, the order of records and the choice of labels.
        out: folder of the run; None for a temporary one, until the model is saved.
        verbose: print what was used and what was not.
        device: `auto`, `cpu` or `cuda`.
        settings: fields of Run that replace those of the recipe: `schedule`, `finetuning`,
            `regularization`, ...

    Raises:
        ConfigError: an unknown recipe or setting, or too few records.
        DataError: a record is bad; names it by its place.
    """
    options: dict[str, Any] = {
        "input": input,
        "target": target,
        "split": split,
        "group": group,
        "labels": labels,
        "recipe": recipe,
        "calibrate": calibrate,
    }
    options |= {"seed": seed, "out": out, "verbose": verbose, **settings}
    return _model(checkpoint, device).fit(data, targets, **options)


def fisher(
    checkpoint: Place,
    data: Data,
    *,
    estimator: Estimator = "exact",
    examples: int = 256,
    seed: int = 0,
    device: str = "auto",
) -> Checkpoint:
    """Estimate the Fisher information on pretraining data and keep it in the checkpoint, for EWC
    without that data.

    Args:
        checkpoint: path or name.
        data: the dataset that the checkpoint was trained on.
        estimator: `exact`, `sampled` or `empirical`; always per example.
        examples: how many to average over.
        seed: of their choice and of sampled labels.
        device: `auto`, `cpu` or `cuda`.
    """
    opened = Checkpoint.open(catalog.locate(checkpoint))
    objective = opened.objectives[0]
    network = opened.build().to(choose_device(device))
    records = objective.examples(_store(data), "train")
    options: dict[str, Any] = {"estimator": estimator, "examples": examples, "seed": seed}
    fisher_weights = fisher_information(network, objective, opened.codec, records, **options)
    return opened.with_file(f"fisher-{estimator}.safetensors", fisher_weights, options)


def evaluate(
    checkpoint: Model | Place,
    data: Any,
    targets: Any = None,
    *,
    split: str | None = None,
    input: str | None = None,
    target: str | Sequence[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    batch: int = 64,
) -> Metrics:
    """Return loss and metrics of a checkpoint on labelled data.

    Args:
        checkpoint: path, name or Model.
        data: a dataset or its folder; or a table (DataFrame, .csv, .tsv) or natural inputs with
            their labels.
        targets: the labels of natural inputs.
        split: of a dataset: `train`, `validation` or `test`; None takes test, or all of a table.
        input: the column of a table that holds the inputs.
        target: the column or columns of a table that hold the labels.
        seed: of the masks of a pretraining objective.
        device: `auto`, `cpu` or `cuda`.
        batch: records in one forward pass.
    """
    model = _model(checkpoint, device, batch)
    return model.evaluate(data, targets, split=split, input=input, target=target, seed=seed)


def predict(
    checkpoint: Model | Place, output: Any, *, device: str = "auto", batch: int = 64
) -> Result:
    """Compute what a domain's users want from a checkpoint (classes, embeddings, a genome scan,
    ...).

    Args:
        checkpoint: path, name or Model.
        output: one of the domain's outputs with its options, e.g. `genomes.Scan(genome=...)`.
        device: `auto`, `cpu` or `cuda`.
        batch: records in one forward pass.
    """
    return output.run(_model(checkpoint, device, batch))


@options_as_keywords("outputs", "generate", "what")
def generate(checkpoint: Model | Place, what: Any, *, device: str = "auto") -> Result:
    """Generate new molecules that keep hard constraints, valid by construction.

    Args:
        checkpoint: path, name or Model.
        what: a `Generate` with its options, e.g. `molecules.Generate(num=1000, formula="C9H8O4")`.
        device: `auto`, `cpu` or `cuda`.
    """
    return what.run(_model(checkpoint, device))


@options_as_keywords("tools", "label", "what")
def label(what: Any) -> Result:
    """Label structures with energies and forces by quantum chemistry: GFN-xTB or density
    functionals.

    Args:
        what: a `Label` with its options, e.g. `atoms.Label(file=..., method="gfn2-xtb")`.
    """
    return what.run()


@options_as_keywords("tools", "sample", "what")
def sample(what: Any) -> Result:
    """Make structures in thermal motion from SMILES, to be labelled.

    Args:
        what: a `Sample` with its options, e.g. `atoms.Sample(smiles=...)`.
    """
    return what.run()


@options_as_keywords("tools", "score", "what")
def score(what: Any) -> Result:
    """Score generated molecules: validity, uniqueness, novelty, distances to real molecules, each
    with an interval.

    Args:
        what: a `Score` with its options, e.g. `molecules.Score(file=..., reference=...)`.
    """
    return what.run()


def check(checkpoint: Model | Place, *, device: str = "cpu", seed: int = 0) -> CheckResult:
    """Run the domain's laws on a checkpoint and return how far each is broken.

    Args:
        checkpoint: path, name or Model.
        device: of the arithmetic.
        seed: of the random inputs that the laws are tried on.
    """
    return _model(checkpoint, device).check(seed)


def audit(what: Any, which: str | None = None, **settings: Any) -> Any:
    """Look for leaks and shortcuts in prepared data before a metric is believed.

    Args:
        what: one of a domain's audits with its options, e.g. `genomes.AuditShortcuts(data=...)`; or
            a dataset or its folder.
        which: the name of the audit of a dataset, e.g. `near-duplicates`, which every domain has.
        settings: options of that audit.

    Raises:
        ConfigError: there is no such audit, or it has no such option.
    """
    if not isinstance(what, Dataset | Store | Path | str):
        if which is not None or settings:
            raise ConfigError("the audit has its options in one object; leave the others out")
        return what.run()
    if which is None:
        raise ConfigError('name the audit of the dataset, e.g. "near-duplicates"')
    store = _store(what)
    cls = find_offer("audits", which, store.domain)[1]
    known = {field.name for field in fields(cls)}
    for name in settings:
        if name not in known:
            raise ConfigError(f"audit {which} has no option {name!r}; {did_you_mean(name, known)}")
    return cls(data=store.path, **settings).run()


# Experiments --------------------------------------------------------------------------------------


@fields_as_keywords(label_efficiency_runs.LabelEfficiency, "spec", labelled="data")
def label_efficiency(
    spec: label_efficiency_runs.LabelEfficiency,
) -> label_efficiency_runs.LabelEfficiencyResult:
    """Compare pretrained and untrained networks and classical baselines at several numbers of
    labels, on paired seeds.

    Args:
        spec: what to compare, on which data, at which numbers of labels.
    """
    if spec.objective is None:
        model, store = Model.load(Path(spec.init), "cpu"), Store.open(Path(spec.data))
        spec = replace(spec, objective=model.recommended(store)["objective"])
    return label_efficiency_runs.measure(spec)


@fields_as_keywords(schedule_runs.Schedules, "spec", labelled="data")
def schedules(spec: schedule_runs.Schedules) -> schedule_runs.SchedulesResult:
    """Compare learning-rate schedules of equal final rate and equal area or peak, on paired seeds.

    Args:
        spec: what to train, under which schedules.
    """
    return schedule_runs.measure(spec)


@fields_as_keywords(transfer_runs.Transfer, "spec")
def transfer(spec: transfer_runs.Transfer) -> transfer_runs.TransferResult:
    """Measure transfer between sources of data: train on each, test on every other, and leave one
    source out.

    Args:
        spec: which sources, which methods, how many labels and seeds.
    """
    return transfer_runs.measure(spec)


@fields_as_keywords(Forgetting, "spec", labelled="new")
def forgetting(spec: Forgetting) -> forgetting_runs.ForgettingResult:
    """Compare ways to fine-tune without forgetting: both tasks' errors at each strength, the Pareto
    front, a budget.

    Args:
        spec: the parent checkpoint, the old and the new data, the methods and strengths to try.
    """
    return forgetting_runs.measure(spec)


@fields_as_keywords(privacy_runs.Privacy, "spec")
def privacy(spec: privacy_runs.Privacy) -> privacy_runs.PrivacyResult:
    """Measure what a model reveals of its training records: membership inference by shadow models,
    with intervals.

    Args:
        spec: which checkpoint, whose membership to guess, how many shadow models.
    """
    return privacy_runs.measure(spec)


@fields_as_keywords(invariance_runs.Invariance, "spec")
def invariance(
    checkpoint: Model | Place,
    spec: invariance_runs.Invariance,
    *,
    device: str = "auto",
    batch: int = 64,
) -> invariance_runs.InvarianceResult:
    """Measure what augmentations do: how far they move the embedding, and whether they erase the
    label.

    Args:
        checkpoint: path, name or Model.
        spec: on which records, which augmentations.
        device: `auto`, `cpu` or `cuda`.
        batch: records in one forward pass.
    """
    path = (
        checkpoint.checkpoint.path if isinstance(checkpoint, Model) else catalog.locate(checkpoint)
    )
    return invariance_runs.measure(path, spec, device, batch)


@fields_as_keywords(pruning.Prune, "spec", labelled="data")
def prune(spec: pruning.Prune) -> pruning.PrunedCheckpoint | pruning_curve.PruningCurveResult:
    """Set a checkpoint's smallest weights to zero, fine-tune with the zeros held, or measure
    quality against sparsity.

    Args:
        spec: which checkpoint, how far, by which data; with `curve`, which checkpoints at which
            sparsities.
    """
    return pruning_curve.measure(spec) if spec.curve else pruning.prune(spec)


@fields_as_keywords(distillation.Distill, "spec", labelled="data")
def distill(spec: distillation.Distill) -> distillation.DistillationResult:
    """Teach a smaller student by a checkpoint, and judge both beside the same student taught by
    labels alone.

    Args:
        spec: teacher, student, data, how long and how many seeds.
    """
    return distillation.distill(spec)


# Provenance ---------------------------------------------------------------------------------------


def export(
    checkpoint: Model | Place, out: Path | str, *, data: Data | None = None
) -> exports.Exported:
    """Export a checkpoint as one file that runs without sciforge, a torch.export program or ONNX,
    checked on real records.

    Args:
        checkpoint: path, name or Model.
        out: the file: NAME.pt2 or NAME.onnx.
        data: a dataset whose records it is tried on; by default the one it was trained on.
    """
    return exports.export(
        _model(checkpoint, "cpu"), Path(out), None if data is None else _store(data).path
    )


def verify(
    checkpoint: Place,
    *,
    data: Data | None = None,
    init: Place | None = None,
    replay: int = 5,
    device: str = "auto",
) -> verification.Verification:
    """Verify a run: digests, data, parent, environment then and now, and some of its steps taken
    again, bit by bit.

    Args:
        checkpoint: a run's folder, a checkpoint, or a name.
        data: where the run's data are now, if not where they were.
        init: where the run's parent is now, if not where it was; a path or a name.
        replay: how many steps to take again, 0 for none.
        device: of the replay; `auto` takes the recorded one where it is there.
    """
    parent = None if init is None else catalog.locate(init)
    store = None if data is None else data.path if isinstance(data, Dataset | Store) else Path(data)
    return verification.verify(
        catalog.locate(checkpoint), data=store, init=parent, replay=replay, device=device
    )


def card(
    checkpoint: Place,
    *,
    data: Data | None = None,
    licence: str | None = None,
    reports: Path | str | None = None,
    device: str = "auto",
) -> Path:
    """Write the model card (README.md) of a checkpoint from what lies in its folder and the reports
    beside it.

    Args:
        checkpoint: path or name.
        data: a dataset on whose test split to evaluate the checkpoint for the card; kept as
            evaluation.json.
        licence: of the model, e.g. `apache-2.0`; by default what the card says already, else
            `unknown`.
        reports: a folder with reports of privacy, sparsity or forgetting, beside the usual places.
        device: of the evaluation.
    """
    opened = Checkpoint.open(catalog.locate(checkpoint))
    if data is not None:
        store = _store(data)
        metrics = Model.load(opened.path, device).evaluate(store, split="test")
        model_card.keep_evaluation(opened, store, "test", metrics)
    place = None if reports is None else Path(reports)
    return model_card.write(opened, licence=licence, sources=_sources(opened), reports=place)


def _model(checkpoint: Model | Place, device: str, batch: int = 64) -> Model:
    return (
        checkpoint
        if isinstance(checkpoint, Model)
        else load(checkpoint, device=device, batch=batch)
    )


def _store(data: Data) -> Store:
    return (
        data.store
        if isinstance(data, Dataset)
        else data
        if isinstance(data, Store)
        else Store.open(Path(data))
    )


def _log_data(run: Run) -> None:
    """Log the summary of the training data; data that cannot be opened are named when the run
    opens them.
    """
    try:
        dataset = Dataset(Store.open(run.data, verify=False))
    except DataError:
        return
    for line in dataset.describe():
        LOGGER.info("%s: %s", run.data, line)


def _sources(checkpoint: Checkpoint) -> list[dict[str, str]]:
    """Return name, licence and citation of the dataset cards that have the digests of the files
    behind a checkpoint.
    """
    files: list[Any] = []
    try:
        for place in dict.fromkeys(task.data for task in planned(checkpoint.run)):
            preparer = Store.open(place, verify=False).index.get("preparer") or {}
            files += preparer.get("files") or ()
    except DataError:
        return []  # the store has gone; the card keeps what it says
    cards = [catalog.card_of(Path(file)) for file in files if isinstance(file, str)]
    cards = list({c.name: c for c in cards if c is not None}.values())
    return [
        {"name": c.name, "licence": c.licence, "citation": c.citation}
        for c in cards
        if c is not None
    ]
