"""A checkpoint as something to call: on records, for outputs or embeddings, and on itself, for its laws."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sciforge.core.data import sampling
from sciforge.core.data.store import Store
from sciforge.core.domain import Domain, Objective, Record
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine, choose_device
from sciforge.core.training.evaluation import as_array, evaluate, evaluation
from sciforge.errors import CheckpointError, ConfigError


@dataclass
class Model:
    """A model in evaluation mode with its codec and objective.

    Args:
        checkpoint: where it comes from.
        network: on `device`.
        device: of the arithmetic.
        batch: records in one forward pass.
    """

    checkpoint: Checkpoint
    network: nn.Module
    device: torch.device
    batch: int = 64

    @classmethod
    def load(cls, path: Path, device: str = "auto", batch: int = 64) -> "Model":
        """Open a checkpoint folder; raises CheckpointError where it is missing or damaged."""
        checkpoint = Checkpoint.open(path)
        place = choose_device(device)
        return cls(checkpoint, checkpoint.build().to(place), place, batch)

    @property
    def domain(self) -> Domain:
        """The domain of the checkpoint."""
        return self.checkpoint.domain

    @property
    def codec(self) -> Any:
        """The fitted codec."""
        return self.checkpoint.codec

    @property
    def objective(self) -> Objective:
        """What the checkpoint was trained for."""
        return self.checkpoint.objectives[0]

    @property
    def engine(self) -> Engine:
        """A single-process engine on the predictor's device."""
        return Engine(self.device, "float32")

    def predict(self, records: Iterable[Record]) -> dict[str, np.ndarray]:
        """Return the objective's outputs for records, first axis the record; labels are not needed.

        Raises:
            ConfigError: the checkpoint's objective predicts nothing (a pretraining checkpoint).
        """
        found: dict[str, list[np.ndarray]] = {}
        with evaluation(self.network, self.objective):
            for batch in self._batches(records):
                for name, value in self.objective.predict(self.network, batch).items():
                    found.setdefault(name, []).append(as_array(value))
        if not found:
            kind = type(self.objective).__name__
            raise ConfigError(
                f"{self.checkpoint.path} was trained for {kind}, which predicts no labels; fine-tune it first"
            )
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def _batches(self, records: Iterable[Record]) -> Iterable[dict[str, Any]]:
        waiting: list[Any] = []
        for index, record in enumerate(records):
            plain = {k: v for k, v in record.items() if k not in ("label", "value")}
            rng = sampling.generator(0, sampling.EVALUATE, 0, index)
            waiting.append(self.objective.prepare(plain, self.codec, rng, training=False))
            if len(waiting) == self.batch:
                yield self.engine.move(self.codec.collate(waiting))
                waiting = []
        if waiting:
            yield self.engine.move(self.codec.collate(waiting))

    def evaluate(self, store: Store, split: str = "test", seed: int = 0) -> dict[str, float]:
        """Return loss and metrics on a split of a store."""
        if store.domain != self.domain.name:
            raise ConfigError(f"{store.path} is of the domain {store.domain}, the checkpoint of {self.domain.name}")
        records = self.objective.examples(store, split)
        if not len(records):
            raise ConfigError(f"{store.path} has no {split} records; choose another split")
        return evaluate(self.network, self.objective, self.codec, records, self.engine, seed, self.batch)

    def check(self, seed: int = 0) -> list["LawResult"]:
        """Run the domain's laws on this very model, in float64."""
        if not self.domain.laws:
            raise CheckpointError(f"the domain {self.domain.name} states no laws")
        model = self.checkpoint.build().double().to(self.device)
        results = []
        for number, (name, law) in enumerate(self.domain.laws.items()):
            violation, tolerance = law(model, self.codec, sampling.generator(seed, sampling.EVALUATE, 1, number))
            summary = (law.__doc__ or name).strip().splitlines()[0]
            results.append(LawResult(name, summary, float(violation), float(tolerance)))
        return results


@dataclass(frozen=True)
class LawResult:
    """How far a model breaks a law, and how far rounding may."""

    name: str
    summary: str
    violation: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the violation is within the tolerance (NaN is not)."""
        return self.violation <= self.tolerance
