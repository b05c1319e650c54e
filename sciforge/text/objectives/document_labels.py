"""What a Bert learns from labels of documents: a class, or a number.

Legend of shape letters: B batch, L tokens, C classes, N documents, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.domain import Batch, Example, Objective, Record, widened
from sciforge.core.learners.linear_probe import fit_ridge
from sciforge.core.learners.supervised import OneClass, OneNumber
from sciforge.core.training.evaluation import batches, evaluation
from sciforge.errors import ConfigError, DataError
from sciforge.text.data.codec import SHORTEST_ROW, TextCodec
from sciforge.text.data.ngrams import letter_grams
from sciforge.text.model.feature_blocks import fit_fused
from sciforge.text.model.heads import DocumentHead

# of a document cut at both ends: 128 tokens of the head and 382 of the tail (Sun et al. 2019)
TAIL_SHARE = 0.75
SMALLEST = 1e-15  # probability, as scikit-learn clips it for the log-loss


@dataclass(frozen=True)
class _Documents(Objective):
    """What classes and numbers share: a DocumentHead whose linear part is solved before the
    first step.
    """

    length: int = 256
    cut: Literal["head", "ends"] = "head"
    grams: bool = True
    warm_start: bool = True

    head: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < SHORTEST_ROW:
            raise ConfigError(
                f"objective.length is {self.length}; a row needs at least {SHORTEST_ROW} tokens"
            )

    @property
    def outputs(self) -> int:
        """The number of scores of a document."""
        return 1

    def attach(self, model: nn.Module) -> None:
        """Add the head that pools every layer."""
        model.heads[self.head] = DocumentHead(
            model.width, model.depth + 1, self.outputs, self.grams
        )

    def _encode(self, record: Record, codec: TextCodec) -> Example:
        """Encode a document, a long one cut, and count its grams."""
        ids = codec.pieces(record["text"])[0]
        if not len(ids):
            raise DataError(f"{record.get('name', 'a document')!r} holds no word; leave it out")
        example = codec.row(shortened(ids, min(self.length, codec.length) - 2, self.cut))
        if self.grams:
            grams, weights = letter_grams(record["text"], codec.lower)
            example |= {"grams": torch.from_numpy(grams), "gram_weights": torch.from_numpy(weights)}
        return example

    def scores(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return scores [B, C] in float32 at least."""
        return widened(model.heads[self.head](model(batch, layers=True), batch))

    def _solve(
        self, model: nn.Module, codec: TextCodec, records: Sequence[Record], engine: Any, fit: Any
    ) -> None:
        """Set the head from its features under the net as it stands, and `fit`."""
        head, rows = model.heads[self.head], []
        if self.grams:
            head.weigh([letter_grams(record["text"], codec.lower)[0] for record in records])
        with evaluation(model, self):
            for batch in batches(self, codec, records, range(len(records)), 0, 32):
                batch = engine.move(batch)
                rows.append(head.features(model(batch, layers=True), batch).double().cpu().numpy())
        head.solve(np.concatenate(rows), fit)


def shortened(ids: np.ndarray, capacity: int, cut: str) -> np.ndarray:
    """Return at most `capacity` tokens: the first, or some of the first and more of the last.

    >>> shortened(np.arange(10), 4, "head").tolist(), shortened(np.arange(10), 4, "ends").tolist()
    ([0, 1, 2, 3], [0, 7, 8, 9])
    """
    tail = round(TAIL_SHARE * capacity) if cut == "ends" else 0
    if len(ids) <= capacity or not tail:
        return ids[:capacity]
    return np.concatenate([ids[: capacity - tail], ids[-tail:]])


@dataclass(frozen=True)
class ClassifyDocuments(OneClass, _Documents):
    """One class a document.

    Args:
        length: tokens of a row; longer documents are cut.
        cut: of a long document take the `head`, or both `ends` (a quarter of the head, the rest of
            the tail).
        grams: read hashed grams of 2 to 5 letters beside the hidden states, so that the head knows
            what TF-IDF knows.
        warm_start: solve the linear head before the first step.
        classes: names, in the order of the outputs; empty takes them from the data.
    """

    classes: tuple[str, ...] = ()

    head: ClassVar[str] = "document_class"
    metric: ClassVar[str] = "log_loss"
    fresh: ClassVar[tuple[str, ...]] = ("document_class",)

    def resolve(self, store: Any) -> Self:
        """Take the class names from the store; raises DataError where it has fewer than two."""
        classes = self.classes or tuple(store.meta.get("classes", ()))
        if len(classes) < 2:
            raise DataError(
                "classes need labels of at least two kinds; prepare with --label-column", store.path
            )
        return replace(self, classes=classes)

    def start(
        self,
        model: nn.Module,
        codec: TextCodec,
        records: Sequence[Record],
        engine: Any,
        seed: int,
        parent: Any,
    ) -> None:
        """Solve the linear head on the training records, unless the parent learnt this very
        objective.
        """
        if self.warm_start and (parent is None or self not in parent.objectives):
            label_N = self.class_numbers(records)
            fit = partial(fit_fused, label_N=label_N, num_classes=self.outputs, seed=seed)
            self._solve(model, codec, records, engine, fit)

    def prepare(
        self, record: Record, codec: TextCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode a document and its class."""
        return self._encode(record, codec) | self.target(record)

    def metrics(
        self, outputs: Mapping[str, np.ndarray], records: Sequence[Record]
    ) -> dict[str, float]:
        """Return accuracy, MCC, log-loss and, for two classes, AUROC and average precision."""
        label_N = self.class_numbers(records)
        p_NC = outputs["probability"]
        nats_N = -np.log(p_NC[np.arange(len(label_N)), label_N].clip(SMALLEST))
        return super().metrics(outputs, records) | {"log_loss": float(nats_N.mean())}


@dataclass(frozen=True)
class RateDocuments(OneNumber, _Documents):
    """One number a document (stars, a grade), learnt in units of the training labels' std.

    Args:
        length: tokens of a row; longer documents are cut.
        cut: of a long document take the `head`, or both `ends` (a quarter of the head, the rest of
            the tail).
        grams: read hashed grams of 2 to 5 letters beside the hidden states, so that the head knows
            what TF-IDF knows.
        warm_start: solve the linear head before the first step.
        mean: of the training labels.
        std: of the training labels; 0 takes it and the mean from the data.
        target_name: of the number, which names the column of predictions; empty takes it from the
            data.
    """

    mean: float = 0.0
    std: float = 0.0
    target_name: str = ""

    head: ClassVar[str] = "document_value"
    metric: ClassVar[str] = "rmse"
    fresh: ClassVar[tuple[str, ...]] = ("document_value",)

    def resolve(self, store: Any) -> Self:
        """Take mean and std from the training split; raises DataError where there are no
        numbers.
        """
        values = np.asarray(store.split("train").column("value"), np.float64)
        if not len(values) or not np.isfinite(values).all():
            raise DataError(
                "regression needs finite numbers as labels; prepare with --numeric", store.path
            )
        named = replace(self, target_name=self.target_name or str(store.meta.get("target", "")))
        if self.std:
            return named
        return replace(named, mean=float(values.mean()), std=float(values.std()) or 1.0)

    def start(
        self,
        model: nn.Module,
        codec: TextCodec,
        records: Sequence[Record],
        engine: Any,
        seed: int,
        parent: Any,
    ) -> None:
        """Solve the linear head on the training records, unless the parent learnt this very
        objective.
        """
        if self.warm_start and (parent is None or self not in parent.objectives):
            target_N = (np.asarray(records.column("value"), np.float64) - self.mean) / self.std
            self._solve(
                model, codec, records, engine, partial(_fit_side_by_side, target_N=target_N)
            )

    def prepare(
        self, record: Record, codec: TextCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode a document and its number."""
        return self._encode(record, codec) | self.target(record)


def _fit_side_by_side(
    blocks: list[np.ndarray], target_N: np.ndarray
) -> tuple[list[np.ndarray], float]:
    """Return ridge weights [R_k] of each block, all under one penalty, and the bias."""
    weight_R, bias = fit_ridge(np.concatenate(blocks, axis=1), target_N)
    return np.split(weight_R, np.cumsum([block.shape[1] for block in blocks])[:-1]), bias
