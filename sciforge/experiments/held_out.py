"""The held-out records of an experiment and the metrics of models on them, the same for every
experiment.

Every metric is also computed without each group of records (`statistics.jackknife_groups`), for
intervals.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from sciforge.core.data.store import Store
from sciforge.core.objective import Objective, Record, Records
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import Tally, as_array, batches, evaluation, means
from sciforge.errors import ConfigError
from sciforge.experiments.statistics import higher_is_better, jackknife_groups, metric_of


@dataclass(frozen=True)
class Scores:
    """Metrics of a model on held-out records.

    Args:
        metrics: the objective's metrics, with the loss and its parts where it was computed.
        value: the metric that is compared.
        without: the same without each group of records.
    """

    metrics: Mapping[str, float]
    value: float
    without: tuple[float, ...] = ()

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Scores":
        """Return the scores of a line of a results log."""
        return cls(row["metrics"], row["value"], tuple(row["without"]))


class HeldOutRecords(Sequence):
    """Records whose columns are read once, since metrics are computed on them many times."""

    def __init__(
        self,
        records: Records,
        places: np.ndarray | None = None,
        base: "HeldOutRecords | None" = None,
    ) -> None:
        self.records, self.places, self.base = records, places, base
        self.cache: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.records) if self.places is None else len(self.places)

    def __getitem__(self, i: int) -> Record:  # type: ignore[override]  # no slices
        return self.records[i if self.places is None else int(self.places[i])]

    def column(self, name: str) -> np.ndarray:
        """Return a column over these records."""
        if self.base is not None:
            return self.base.column(name)[self.places]
        if name not in self.cache:
            self.cache[name] = _as_array(self.records.column(name))  # type: ignore[attr-defined]
        return self.cache[name]

    def take(self, places: np.ndarray) -> "HeldOutRecords":
        """Return the records at these places."""
        places = np.asarray(places)
        return HeldOutRecords(
            self.records, places if self.places is None else self.places[places], self.base or self
        )


def _as_array(column: Any) -> np.ndarray:
    """Return a column as an array that places can be taken of; a ragged one as an array of
    arrays.
    """
    if isinstance(column, np.ndarray) or not column or not isinstance(column[0], np.ndarray):
        return np.asarray(column)
    ragged = np.empty(len(column), object)
    for place, item in enumerate(column):
        ragged[place] = item
    return ragged


@dataclass(frozen=True)
class HeldOut:
    """Held-out records of an objective, and the metric by which models are compared on them.

    Args:
        objective: whose metrics are computed.
        records: the records.
        split: which split of the store they are.
        metric: the metric that is compared.
        higher_is_better: its direction; None where it is unknown.
    """

    objective: Objective
    records: HeldOutRecords
    split: str
    metric: str
    higher_is_better: bool | None

    @classmethod
    def of(
        cls,
        store: Store,
        objective: Objective,
        splits: Sequence[str] = ("test", "validation"),
        metric: str | None = None,
        direction: bool | None = None,
    ) -> "HeldOut":
        """Return the first of the splits that has records; raises ConfigError where none has."""
        for split in splits:
            if len(records := objective.examples(store, split)):
                return cls.on(objective, records, split, metric, direction)
        raise ConfigError(
            f"{store.path} has no {' or '.join(splits)} records; prepare it with a {splits[0]}"
            " split, or set split"
        )

    @classmethod
    def on(
        cls,
        objective: Objective,
        records: Records,
        split: str,
        metric: str | None = None,
        direction: bool | None = None,
    ) -> "HeldOut":
        """Return these records; by default with the objective's own metric."""
        metric = metric or objective.metric
        direction = higher_is_better(objective, metric, direction)
        return cls(objective, HeldOutRecords(records), split, metric, direction)

    def evaluate(self, network: nn.Module, codec: Any, engine: Engine, batch: int = 64) -> Scores:
        """Return loss and metrics of a model; masks and groups of records are the same at every
        call.

        Raises:
            ConfigError: the objective has no such metric.
        """
        groups = jackknife_groups(len(self.records)) or [np.arange(len(self.records))]
        sums: list[Mapping[str, tuple[float, float]]] = []
        parts: dict[str, list[np.ndarray]] = {}
        with evaluation(network, self.objective):
            for places in groups:
                tally = Tally()
                for collated in batches(
                    self.objective, codec, self.records, places.tolist(), 0, batch
                ):
                    collated = engine.move(collated)
                    tally.add(self.objective.loss(network, collated))
                    for name, value in self.objective.predict(network, collated).items():
                        parts.setdefault(name, []).append(as_array(value))
                sums.append(tally.pairs)
        order = np.argsort(np.concatenate(groups))
        outputs = {name: np.concatenate(values)[order] for name, values in parts.items()}
        return self._scores(outputs, groups if len(groups) > 1 else [], sums)

    def evaluate_checkpoint(self, checkpoint: Checkpoint, engine: Engine) -> Scores:
        """Return loss and metrics of a checkpoint."""
        return self.evaluate(checkpoint.build().to(engine.device), checkpoint.codec, engine)

    def evaluate_outputs(self, outputs: Mapping[str, np.ndarray]) -> Scores:
        """Return the objective's metrics of outputs, first axis the record; without a loss."""
        return self._scores(outputs, jackknife_groups(len(self.records)), ())

    def _scores(
        self,
        outputs: Mapping[str, np.ndarray],
        groups: Sequence[np.ndarray],
        sums: Sequence[Mapping[str, tuple[float, float]]],
    ) -> Scores:
        """Return metrics of all records and, of the compared one, without each group.

        Args:
            outputs: of all records.
            groups: places of each group of records.
            sums: name -> (sum, count) of the loss and its parts, for each group; empty without a
                loss.
        """
        metrics = self._metrics(outputs, self.records, sums)
        value, without = metric_of(metrics, self.metric), []
        for number, places in enumerate(groups):
            rest = np.setdiff1d(np.arange(len(self.records)), places)
            remaining = {name: values[rest] for name, values in outputs.items()}
            others = [pairs for other, pairs in enumerate(sums) if other != number]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is left of few records may be of one class
                without.append(
                    self._metrics(remaining, self.records.take(rest), others)[self.metric]
                )
        return Scores(metrics, value, tuple(without))

    def _metrics(
        self,
        outputs: Mapping[str, np.ndarray],
        records: HeldOutRecords,
        sums: Sequence[Mapping[str, tuple[float, float]]],
    ) -> dict[str, float]:
        pairs: dict[str, tuple[float, float]] = {}
        for group in sums:
            for name, (total, count) in group.items():
                before = pairs.get(name, (0.0, 0.0))
                pairs[name] = before[0] + total, before[1] + count
        metrics = self.objective.metrics(outputs, records) if outputs else {}
        return means(pairs) | {name: float(value) for name, value in metrics.items()}
