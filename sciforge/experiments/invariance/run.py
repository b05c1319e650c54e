"""What an augmentation does: how far it moves the embedding, and whether it scrambles what the label is read from.

Training on randomly changed records teaches a net to ignore what the change scrambles. Where the label is read from just that,
the change erases it (colour jitter and birds: Xiao et al. 2021, arXiv 2008.05659). Both can be seen before any training.

Legend of shape letters: N records, D width of the embedding.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sciforge.core.data import sampling
from sciforge.core.data.store import Store
from sciforge.core.domain import Augmentation, Objective, Record, get_domain
from sciforge.core.files.atomic import atomic_folder, write_json
from sciforge.core.files.settings import Settings
from sciforge.core.files.tables import Section, write_html
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import evaluation
from sciforge.core.training.model import Model
from sciforge.core.training.run import Run, to_json
from sciforge.errors import ConfigError, did_you_mean
from sciforge.experiments.invariance.label_probe import FEWEST, explain, indicators, lost
from sciforge.experiments.invariance.plot import draw
from sciforge.experiments.invariance.result import AugmentationFigures, InvarianceResult, LabelInformation, erased_line
from sciforge.experiments.label_efficiency.result import Interval

TRIES = 16  # draws until one changes the record
VIEWS = 2  # draws of each record over which metrics of changed records are means
STRONG = 0.25  # share of the label in the nuisance from which `sciforge train` warns
ENOUGH = 100  # records for that warning


@dataclass(frozen=True, kw_only=True)
class Invariance(Settings):
    """What the domain's augmentations do to a checkpoint's embedding and to the label.

    Args:
        data: a prepared store; with labels where label information is to be measured.
        out: folder of invariance.json and invariance.html; appears whole.
        split: whose records; those trained on would flatter a fine-tuned embedding.
        augmentations: names; empty takes all of the domain.
        records: the most records, drawn at random.
        permutations: of the labels, to know what chance reaches.
        seed: of the records, the augmentations, folds and permutations.
    """

    data: Path
    out: Path
    split: Literal["train", "validation", "test"] = "test"
    augmentations: tuple[str, ...] = ()
    records: int = 512
    permutations: int = 200
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        self.require(2, 10**6, "records")
        self.require(40, 10**5, "permutations")
        self.require(0, 2**31, "seed")


def measure(checkpoint: Path, spec: Invariance, device: str = "auto", batch: int = 64) -> InvarianceResult:
    """Measure what augmentations do to a checkpoint, in float64, and write the report.

    Raises:
        ConfigError: the domain names no such augmentations, the data are of another domain or have no such records, or
            `spec.out` exists.
    """
    plain = Model.load(checkpoint, device, batch)
    bench = InvarianceRun.open(Exact(plain.checkpoint, plain.network.double(), plain.device, batch), spec)
    with atomic_folder(spec.out) as work:
        bar = tqdm(bench.chosen.items(), "invariance", unit="augmentation", disable=None, leave=False)
        metrics = tuple(bench.measure(name, augmentation) for name, augmentation in bar)
        result = InvarianceResult(metrics, len(bench.records), spec.split, bench.note)
        write_json(work / "invariance.json", {"spec": to_json(spec), "checkpoint": str(checkpoint), **result.to_json()})
        picture = draw(result, work / "invariance.png")
        shown = ((picture, "How far the embedding moves, and what is left of the labels."),)
        section = Section(f"{plain.domain.name}: {checkpoint}", result.warnings, (result.table(),), shown)
        write_html(work / "invariance.html", "What augmentations do", [section])
    return result


class Exact(Model):
    """A predictor in float64, so that what is invariant moves by rounding alone."""

    @property
    def engine(self) -> Engine:
        """A single-process engine in float64."""
        return Engine(self.device, "float64")


@dataclass(frozen=True)
class InvarianceRun:
    """A checkpoint, some records, and what it makes of them as they are."""

    model: Model
    spec: Invariance
    chosen: Mapping[str, Augmentation]
    records: list[Record]
    labels: Mapping[str, np.ndarray]
    note: str
    embedded_ND: np.ndarray
    predicted: Mapping[str, np.ndarray]

    @classmethod
    def open(cls, model: Model, spec: Invariance) -> "InvarianceRun":
        """Open the data and embed the records as they are."""
        domain, store = model.domain, Store.open(spec.data)
        if store.domain != domain.name:
            raise ConfigError(f"{spec.data} is of the domain {store.domain}, the checkpoint of {domain.name}")
        if not domain.augmentations or domain.embed is None:
            raise ConfigError(f"the domain {domain.name} names no augmentations; there is nothing to measure")
        for name in spec.augmentations:
            if name not in domain.augmentations:
                raise ConfigError(
                    f"no augmentation {name!r} in {domain.name}; {did_you_mean(name, domain.augmentations)}"
                )
        chosen = {n: a for n, a in domain.augmentations.items() if n in (spec.augmentations or domain.augmentations)}
        records, labels = labelled_records(store, model.objective, spec.split, spec.records, spec.seed)
        if len(records) < 2:
            raise ConfigError(f"{spec.data} has {len(records)} {spec.split} records; choose another --split")
        known = {name: values for name, values in labels.items() if _usable(values)}
        note = "" if known else f"No label that at least {FEWEST} records have and that varies: no label information."
        bench = cls(model, spec, chosen, records, known, note, np.zeros(0), {})
        return cls(model, spec, chosen, records, known, note, bench.embed(records), bench.predict(records))

    def embed(self, records: Sequence[Record]) -> np.ndarray:
        """Return the embeddings [N, D] of records, labels and hidden tokens aside."""
        model, rows = self.model, []
        with torch.no_grad(), evaluation(model.network, model.objective):
            for part in sampling.micro_batches(records, model.batch):
                batch = model.codec.collate([model.codec.encode(_unlabelled(record)) for record in part])
                found: Tensor = model.domain.embed(model.network, model.engine.move(batch))
                rows.append(found.detach().double().cpu().numpy())
        return np.concatenate(rows)

    def predict(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """Return the checkpoint's outputs of one shape as rows [N, ...]; nothing for a pretraining checkpoint."""
        if type(self.model.objective).predict is Objective.predict:
            return {}
        found = self.model.outputs(records)
        return {name: x.reshape(len(x), -1).astype(float) for name, x in found.items() if x.dtype.kind in "fiu"}

    def measure(self, name: str, augmentation: Augmentation) -> AugmentationFigures:
        """Measure one augmentation."""
        drawn = [self._changed(augmentation, record, i) for i, record in enumerate(self.records)]
        places = [i for i, record in enumerate(drawn) if record is not None]
        shift, moved = Interval(0.0, 0.0, 0.0), {}
        if places:
            changed = [drawn[i] for i in places]
            shift = relative_shift(self.embedded_ND, self.embed(changed), places, self.spec.seed)
            after = self.predict(changed)
            moved = {
                n: relative_shift(x, after[n], places, self.spec.seed) for n, x in self.predicted.items() if n in after
            }
        labels = ()
        if self.labels:
            views = [
                [self._draw(augmentation, r, i, view) for i, r in enumerate(self.records)] for view in range(VIEWS)
            ]
            embedded = [self.embed(view) for view in views]
            labels = tuple(self._information(x, augmentation, views, embedded) for x in self.labels)
        return AugmentationFigures(name, augmentation.summary, len(places), shift, moved, labels)

    def _draw(self, augmentation: Augmentation, record: Record, index: int, draw: int) -> Record:
        return augmentation.apply(record, sampling.generator(self.spec.seed, sampling.CORRUPT, draw, index))

    def _changed(self, augmentation: Augmentation, record: Record, index: int) -> Record | None:
        """Return the first draw that changes the record; None where none does."""
        draws = (self._draw(augmentation, record, index, draw) for draw in range(TRIES))
        return next((found for found in draws if _differs(record, found)), None)

    def _information(
        self, label: str, augmentation: Augmentation, views: list[list[Record]], embedded: list[np.ndarray]
    ) -> LabelInformation:
        kept = np.flatnonzero(_known(self.labels[label]))
        target_NC = indicators(self.labels[label][kept])
        options = {"seed": self.spec.seed, "permutations": self.spec.permutations}
        before, after = nuisances(augmentation, [self.records[i] for i in kept], [[v[i] for i in kept] for v in views])
        return LabelInformation(
            label,
            len(kept),
            explain([before], target_NC, **options, scaled=True),
            explain(after, target_NC, **options, scaled=True),
            explain([self.embedded_ND[kept]], target_NC, **options),
            explain([x[kept] for x in embedded], target_NC, **options),
        )


def labelled_records(
    store: Store, objective: Objective, split: str, most: int, seed: int
) -> tuple[list[Record], dict[str, np.ndarray]]:
    """Return up to `most` records of a split, drawn at random, and their labels by name; windows where there are no labels."""
    domain, rows = get_domain(store.domain), store.split(split)
    if not domain.labels([store[0]], store.meta):
        rows = objective.examples(store, split)
    places = np.sort(sampling.generator(seed, sampling.SUBSET).permutation(len(rows))[:most])
    records = [rows[int(i)] for i in places]
    return records, dict(domain.labels(records, store.meta)) if records else {}


def nuisances(
    augmentation: Augmentation, records: Sequence[Record], views: Sequence[Sequence[Record]]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the nuisance of records [N, F] as they are, and of every view of them."""
    before, *after = (np.stack([augmentation.nuisance(r) for r in rows]) for rows in (records, *views))
    return before, after


def relative_shift(before_ND: np.ndarray, after_MD: np.ndarray, places: Sequence[int], seed: int) -> Interval:
    """Return the median distance from before to after, in median distances between two records, with its interval.

    >>> relative_shift(np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [1.0]]), [0, 1], 0).value
    0.0
    """
    moved = np.linalg.norm(after_MD - before_ND[list(places)], axis=1)
    rng = np.random.default_rng(seed)
    steps = rng.integers(1, len(before_ND), (8, len(before_ND)))  # each record's distances to eight others
    others = (np.arange(len(before_ND)) + steps) % len(before_ND)
    apart = float(np.median(np.linalg.norm(before_ND[others] - before_ND, axis=2)))
    if not moved.any():
        return Interval(0.0, 0.0, 0.0)
    drawn = np.median(moved[rng.integers(0, len(moved), (1000, len(moved)))], axis=1)
    middle, (low, high) = np.median(moved), np.percentile(drawn, (2.5, 97.5))
    return Interval(*(float(x) / apart if apart else float("inf") for x in (middle, low, high)))


def warn_before_training(run: Run) -> None:
    """Warn where the objective augments by something that erases the label of the training records.

    Cheap: it looks at what is scrambled, not at any net, and only for objectives that augment labelled records.
    """
    objective = run.objective
    # A warning would tell of records that are to stay private.
    if run.dp_sgd or not getattr(objective, "augments", ()):
        return
    store = Store.open(run.data, verify=False)  # training itself compares the digests
    domain = get_domain(store.domain)
    records, labels = labelled_records(store, objective, "train", 512, 0)
    for name in (name for name in objective.augments if name in domain.augmentations):
        augmentation = domain.augmentations[name]
        view = [augmentation.apply(r, sampling.generator(0, sampling.CORRUPT, 0, i)) for i, r in enumerate(records)]
        for label, values in labels.items():
            kept = np.flatnonzero(_known(values))
            if len(kept) < ENOUGH or not _usable(values):
                continue
            before, (after,) = nuisances(augmentation, [records[i] for i in kept], [[view[i] for i in kept]])
            told, still = (explain([x], indicators(values[kept]), scaled=True) for x in (before, after))
            if told.informative and told.value > STRONG and still.value < told.value / 2 and lost(told, still)[0] > 0:
                warnings.warn(erased_line(name, label, told), stacklevel=2)


def _unlabelled(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("label", "value")}


def _known(values_N: np.ndarray) -> np.ndarray:
    return np.ones(len(values_N), bool) if values_N.dtype.kind in "OSU" else np.isfinite(np.asarray(values_N, float))


def _usable(values_N: np.ndarray) -> bool:
    known = values_N[_known(values_N)]
    return len(known) >= FEWEST and len(np.unique(known)) > 1


def _differs(one: Record, other: Record) -> bool:
    return any(name not in one or not np.array_equal(one[name], value) for name, value in other.items())
