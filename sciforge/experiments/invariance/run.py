"""What an augmentation does: how far it moves the embedding, and whether it scrambles what the
label is read from.

Training on randomly changed records teaches a net to ignore what the change scrambles. Where the
label is read from just that, the change erases it (colour jitter and birds: Xiao et al. 2021, arXiv
2008.05659). Both can be seen before any training.

Legend of shape letters: N records, D width of the embedding.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from sciforge.core.data import sampling
from sciforge.core.data.store import Store
from sciforge.core.domain import Augmentation, Objective, Record, get_domain
from sciforge.core.files.atomic import atomic_folder
from sciforge.core.objective import Records
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import evaluation
from sciforge.core.training.model import Model
from sciforge.core.training.run import Run, to_json
from sciforge.errors import ConfigError, did_you_mean
from sciforge.experiments.invariance.label_probe import MIN_RECORDS, erases, explain, indicators
from sciforge.experiments.invariance.result import (
    AugmentationEffect,
    InvarianceResult,
    LabelInformation,
    erased_line,
)
from sciforge.experiments.invariance.spec import Invariance
from sciforge.experiments.statistics import Interval, percentile_interval

TRIES = 16  # draws until one changes the record
VIEWS = 2  # draws of each record over which numbers of changed records are means
WARN_SHARE = 0.25  # share of the label in the nuisance from which `sciforge train` warns
WARN_RECORDS = 100  # records for that warning


def measure(
    checkpoint: Path, spec: Invariance, device: str = "auto", batch: int = 64
) -> InvarianceResult:
    """Measure what augmentations do to a checkpoint, in float64.

    Raises:
        ConfigError: the domain names no such augmentations, the data are of another domain or have
            no such records, or `spec.out` exists.
    """
    if spec.out is not None and spec.out.exists():
        raise ConfigError(f"{spec.out} exists already; remove it or choose another folder")
    model = Model.load(checkpoint, device, batch)
    exact = Float64Model(model.checkpoint, model.network.double(), model.device, batch)
    run = InvarianceRun.open(exact, spec)
    progress = tqdm(
        run.chosen.items(), "invariance", unit="augmentation", disable=None, leave=False
    )
    effects = tuple(run.measure(name, augmentation) for name, augmentation in progress)
    result = InvarianceResult(effects, len(run.records), spec.split, run.note)
    about = {"spec": to_json(spec), "checkpoint": str(checkpoint)}
    result.keep(None, False, about)
    if spec.out is not None:
        with atomic_folder(spec.out) as work:
            result.save(work)
    return result


class Float64Model(Model):
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
            raise ConfigError(
                f"{spec.data} is of the domain {store.domain}, the checkpoint of {domain.name}"
            )
        if not domain.augmentations or domain.embed is None:
            raise ConfigError(
                f"the domain {domain.name} names no augmentations; there is nothing to measure"
            )
        for name in spec.augmentations:
            if name not in domain.augmentations:
                raise ConfigError(
                    f"no augmentation {name!r} in {domain.name};"
                    f" {did_you_mean(name, domain.augmentations)}"
                )
        chosen = {
            n: a
            for n, a in domain.augmentations.items()
            if n in (spec.augmentations or domain.augmentations)
        }
        records, labels = labelled_records(
            store, model.objective, spec.split, spec.max_records, spec.seed
        )
        if len(records) < 2:
            raise ConfigError(
                f"{spec.data} has {len(records)} {spec.split} records; choose another --split"
            )
        known = {name: values for name, values in labels.items() if _usable(values)}
        note = (
            ""
            if known
            else (
                f"No label that at least {MIN_RECORDS} records have and that varies: no label"
                " information."
            )
        )
        run = cls(model, spec, chosen, records, known, note, np.zeros(0), {})
        return replace(run, embedded_ND=run.embed(records), predicted=run.predict(records))

    def embed(self, records: Sequence[Record]) -> np.ndarray:
        """Return the embeddings [N, D] of records, labels and hidden tokens aside."""
        model, rows = self.model, []
        with torch.no_grad(), evaluation(model.network, model.objective):
            for part in sampling.micro_batches(records, model.batch):
                batch = model.codec.collate(
                    [model.codec.encode(_unlabelled(record)) for record in part]
                )
                assert model.domain.embed is not None
                embedded_BD: Tensor = model.domain.embed(model.network, model.engine.move(batch))
                rows.append(embedded_BD.detach().double().cpu().numpy())
        return np.concatenate(rows)

    def predict(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """Return the checkpoint's outputs of one shape as rows [N, ...]; nothing for a
        pretraining checkpoint.
        """
        if type(self.model.objective).predict is Objective.predict:
            return {}
        outputs = self.model.outputs(records)
        return {
            name: x.reshape(len(x), -1).astype(float)
            for name, x in outputs.items()
            if x.dtype.kind in "fiu"
        }

    def measure(self, name: str, augmentation: Augmentation) -> AugmentationEffect:
        """Measure one augmentation."""
        drawn = [self._changed(augmentation, record, i) for i, record in enumerate(self.records)]
        places = [i for i, record in enumerate(drawn) if record is not None]
        shift = Interval(0.0, 0.0, 0.0)
        moved: dict[str, Interval] = {}
        if places:
            changed = [record for record in drawn if record is not None]
            shift = relative_shift(self.embedded_ND, self.embed(changed), places, self.spec.seed)
            after = self.predict(changed)
            moved = {
                n: relative_shift(x, after[n], places, self.spec.seed)
                for n, x in self.predicted.items()
                if n in after
            }
        labels: tuple[LabelInformation, ...] = ()
        if self.labels:
            views = [
                [self._draw(augmentation, r, i, view) for i, r in enumerate(self.records)]
                for view in range(VIEWS)
            ]
            embedded = [self.embed(view) for view in views]
            labels = tuple(self._information(x, augmentation, views, embedded) for x in self.labels)
        return AugmentationEffect(name, augmentation.summary, len(places), shift, moved, labels)

    def _draw(self, augmentation: Augmentation, record: Record, index: int, draw: int) -> Record:
        return augmentation.apply(
            record, sampling.generator(self.spec.seed, sampling.CORRUPT, draw, index)
        )

    def _changed(self, augmentation: Augmentation, record: Record, index: int) -> Record | None:
        """Return the first draw that changes the record; None where none does."""
        draws = (self._draw(augmentation, record, index, draw) for draw in range(TRIES))
        return next((changed for changed in draws if _differs(record, changed)), None)

    def _information(
        self,
        label: str,
        augmentation: Augmentation,
        views: list[list[Record]],
        embedded: list[np.ndarray],
    ) -> LabelInformation:
        kept = np.flatnonzero(_known(self.labels[label]))
        target_NC = indicators(self.labels[label][kept])
        options: dict[str, Any] = {"seed": self.spec.seed, "permutations": self.spec.permutations}
        before, after = nuisances(
            augmentation, [self.records[i] for i in kept], [[v[i] for i in kept] for v in views]
        )
        return LabelInformation(
            label,
            len(kept),
            explain([before], target_NC, **options, scaled=True),
            explain(after, target_NC, **options, scaled=True),
            explain([self.embedded_ND[kept]], target_NC, **options),
            explain([x[kept] for x in embedded], target_NC, **options),
        )


def labelled_records(
    store: Store, objective: Objective, split: str, max_records: int, seed: int
) -> tuple[list[Record], dict[str, np.ndarray]]:
    """Return up to `max_records` records of a split, drawn at random, and their labels by name;
    windows where there are no labels.
    """
    domain = get_domain(store.domain)
    rows: Records = store.split(split)
    if not domain.labels([store[0]], store.meta):
        rows = objective.examples(store, split)
    places = np.sort(sampling.generator(seed, sampling.SUBSET).permutation(len(rows))[:max_records])
    records: list[Record] = [rows[int(i)] for i in places]
    return records, dict(domain.labels(records, store.meta)) if records else {}


def nuisances(
    augmentation: Augmentation, records: Sequence[Record], views: Sequence[Sequence[Record]]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the nuisance of records [N, F] as they are, and of every view of them."""
    before, *after = (
        np.stack([augmentation.nuisance(r) for r in rows]) for rows in (records, *views)
    )
    return before, after


def relative_shift(
    before_ND: np.ndarray, after_MD: np.ndarray, places: Sequence[int], seed: int
) -> Interval:
    """Return the median distance from before to after, in median distances between two records,
    with its interval.

    >>> relative_shift(np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [1.0]]), [0, 1], 0).value
    0.0
    """
    moved = np.linalg.norm(after_MD - before_ND[list(places)], axis=1)
    rng = np.random.default_rng(seed)
    # each record's distances to eight others
    steps = rng.integers(1, len(before_ND), (8, len(before_ND)))
    others = (np.arange(len(before_ND)) + steps) % len(before_ND)
    distance = float(np.median(np.linalg.norm(before_ND[others] - before_ND, axis=2)))
    if not moved.any():
        return Interval(0.0, 0.0, 0.0)
    drawn = np.median(moved[rng.integers(0, len(moved), (1000, len(moved)))], axis=1)
    interval = percentile_interval(float(np.median(moved)), drawn)
    return Interval(
        *(
            x / distance if distance else float("inf")
            for x in (interval.value, interval.low, interval.high)
        )
    )


def warn_before_training(run: Run) -> None:
    """Warn where the objective augments by something that erases the label of the training records.

    Cheap: it looks at what is scrambled, not at any network, and only for objectives that augment
    labelled records.
    """
    if run.dp_sgd:  # a warning would reveal something of records that are to stay private
        return
    for task in run.tasks or (run,):
        if getattr(task.objective, "augments", ()):
            _warn_of(task.objective, task.data)


def _warn_of(objective: Any, data: Path) -> None:
    store = Store.open(data, verify=False)  # training itself compares the digests
    domain = get_domain(store.domain)
    records, labels = labelled_records(store, objective, "train", 512, 0)
    for name in (name for name in objective.augments if name in domain.augmentations):
        augmentation = domain.augmentations[name]
        view = [
            augmentation.apply(r, sampling.generator(0, sampling.CORRUPT, 0, i))
            for i, r in enumerate(records)
        ]
        for label, values in labels.items():
            kept = np.flatnonzero(_known(values))
            if len(kept) < WARN_RECORDS or not _usable(values):
                continue
            before, (after,) = nuisances(
                augmentation, [records[i] for i in kept], [[view[i] for i in kept]]
            )
            shares = [explain([x], indicators(values[kept]), scaled=True) for x in (before, after)]
            if shares[0].value > WARN_SHARE and erases(*shares):
                warnings.warn(erased_line(name, label, shares[0]), stacklevel=2)


def _unlabelled(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("label", "value")}


def _known(values_N: np.ndarray) -> np.ndarray:
    return (
        np.ones(len(values_N), bool)
        if values_N.dtype.kind in "OSU"
        else np.isfinite(np.asarray(values_N, float))
    )


def _usable(values_N: np.ndarray) -> bool:
    known = values_N[_known(values_N)]
    return len(known) >= MIN_RECORDS and len(np.unique(known)) > 1


def _differs(one: Record, other: Record) -> bool:
    return any(
        name not in one or not np.array_equal(one[name], value) for name, value in other.items()
    )
