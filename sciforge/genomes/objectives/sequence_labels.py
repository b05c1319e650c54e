"""What a DNA-BERT learns from labels of sequences: a class, or a number.

Legend of shape letters: B batch, T tokens, L bases, C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.domain import Batch, Example, Objective, Record, widened
from sciforge.core.learners.boosted_trees import fit_classes, fit_numbers
from sciforge.core.learners.linear_probe import fit_logistic, fit_ridge
from sciforge.core.learners.supervised import OneClass, OneNumber
from sciforge.core.training.evaluation import batches, evaluation
from sciforge.errors import DataError
from sciforge.genomes.data.codec import KmerCodec, torch_kmer_ids
from sciforge.genomes.data.sequences import reverse_complement
from sciforge.genomes.model.heads import FrameHead, SequenceHead


def _crop(bases: np.ndarray, shift: int, rng: np.random.Generator, training: bool) -> np.ndarray:
    """Drop up to `shift` bases at the ends, at random in training, so that no token grid is
    learnt by heart.
    """
    if not shift:
        return bases
    left = int(rng.integers(0, shift + 1)) if training else shift // 2
    return bases[left : len(bases) - (shift - left)]


@dataclass(frozen=True)
class _Sequences(Objective):
    """What classes and numbers share: a SequenceHead whose linear part is solved before the
    first step.
    """

    strand_free: bool = False
    shift: int = 0
    bins: int = 10
    length: int = 0
    warm_start: bool = True
    trees: bool = True

    head: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "bins")
        self.require(0, math.inf, "shift", "length")

    @property
    def augments(self) -> tuple[str, ...]:
        """What `_encode` draws: either strand, and crops."""
        drawn = {"reverse-complement": self.strand_free, "shift": self.shift > 0}
        return tuple(name for name, yes in drawn.items() if yes)

    @property
    def outputs(self) -> int:
        """The number of scores of a sequence."""
        return 1

    def attach(self, model: nn.Module) -> None:
        """Add the head that pools by position, and the frame head that it reads."""
        if "frames" not in model.heads:
            model.heads["frames"] = FrameHead(model.width)
        model.heads[self.head] = SequenceHead(
            model.width, self.outputs, self.length, self.bins, model.stride
        )

    def _encode(
        self, record: Record, codec: KmerCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode a sequence, on a random strand in training where strands do not matter."""
        bases = _crop(np.asarray(record["bases"]), self.shift, rng, training)
        if training and self.strand_free and rng.integers(2):
            bases = reverse_complement(bases)
        return {**codec.encode({"bases": bases}), "num_bases": torch.tensor(len(bases))}

    def scores(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return scores [B, C] in float32 at least."""
        return widened(model.heads[self.head](model(batch), model.heads["frames"], batch))

    def _features(
        self, model: nn.Module, codec: KmerCodec, records: Sequence[Record], engine: Any
    ) -> np.ndarray:
        """Return the head's features under the net as it stands [N, F], or of both strands one
        after the other [2N, F].
        """
        strands: list[list[np.ndarray]] = [[], []] if self.strand_free else [[]]
        with evaluation(model, self):
            for batch in batches(self, codec, records, range(len(records)), 0, 64):
                batch = engine.move(batch)
                for parts in strands:
                    oriented = batch if parts is strands[0] else reversed_batch(batch, model)
                    features_BF = model.heads[self.head].features(
                        model(oriented), model.heads["frames"], oriented
                    )
                    parts.append(features_BF.cpu().numpy())
        return np.concatenate([rows for parts in strands for rows in parts])


@dataclass(frozen=True)
class Classify(OneClass, _Sequences):
    """One class a sequence.

    Args:
        strand_free: the label does not depend on the strand; then training takes either strand and
            predictions average both. Leave it off for oriented windows such as promoters.
        shift: random crops move the token grid by up to this many bases in training.
        bins: positional bins of the pooling.
        length: bases of the longest sequence; 0 takes it from the data. Also the window of a genome
            scan.
        warm_start: solve the linear part of the head before the first step.
        trees: add boosted trees to the solved head; they are not moved by descent.
        classes: names, in the order of the outputs; empty takes them from the data.
    """

    classes: tuple[str, ...] = ()

    head: ClassVar[str] = "class"
    metric: ClassVar[str] = "mcc"
    higher_is_better: ClassVar[bool] = True
    fresh: ClassVar[tuple[str, ...]] = ("class",)

    def resolve(self, store: Any) -> Self:
        """Take class names and length from the store; raises DataError where it has fewer than
        two classes.
        """
        classes = self.classes or tuple(store.meta.get("classes", ()))
        if len(classes) < 2:
            raise DataError(
                "classification needs labels of at least two classes; prepare a labelled task",
                store.path,
            )
        return replace(
            self, classes=classes, length=self.length or int(store.lengths("bases").max())
        )

    def start(
        self,
        model: nn.Module,
        codec: KmerCodec,
        records: Sequence[Record],
        engine: Any,
        seed: int,
        parent: Any,
    ) -> None:
        """Solve the linear part of the head on the training records, unless the parent learnt
        this very objective.
        """
        if self.warm_start and (parent is None or self not in parent.objectives):
            label_N = self.class_numbers(records)
            features_NF = self._features(model, codec, records, engine)
            label_N = np.tile(label_N, len(features_NF) // len(label_N))
            grow = (
                partial(fit_classes, label_N=label_N, seed=seed)
                if self.trees and _countable(label_N, self.outputs)
                else None
            )
            copies = 2 if self.strand_free else 1
            linear = partial(
                fit_logistic, label_N=label_N, num_classes=self.outputs, seed=seed, copies=copies
            )
            model.heads["class"].solve(features_NF, linear, grow)

    def prepare(
        self, record: Record, codec: KmerCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode a sequence and its label."""
        return self._encode(record, codec, rng, training) | self.target(record)

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return class probabilities [B, C], averaged over both strands where strands do not
        matter.
        """
        p_BC = self.scores(model, batch).softmax(-1)
        if self.strand_free:
            p_BC = (p_BC + self.scores(model, reversed_batch(batch, model)).softmax(-1)) / 2
        return {"probability": self.calibrated(p_BC)}


@dataclass(frozen=True)
class Regress(OneNumber, _Sequences):
    """One number a sequence (expression, affinity), learnt in units of the training labels' std.

    Args:
        strand_free: the number does not depend on the strand; then training takes either strand and
            predictions average both.
        shift: random crops move the token grid by up to this many bases in training.
        bins: positional bins of the pooling.
        length: bases of the longest sequence; 0 takes it from the data.
        warm_start: solve the linear part of the head before the first step.
        trees: add boosted trees to the solved head; they are not moved by descent.
        mean: of the training labels.
        std: of the training labels; 0 takes it and the mean from the data.
        target_name: of the number, which names the column of predictions; empty takes it from the
            data.
    """

    mean: float = 0.0
    std: float = 0.0
    target_name: str = ""

    head: ClassVar[str] = "value"
    metric: ClassVar[str] = "rmse"
    fresh: ClassVar[tuple[str, ...]] = ("value",)

    def resolve(self, store: Any) -> Self:
        """Take length, name, mean and std from the training split; raises DataError where there
        are no numbers.
        """
        values = np.asarray(store.split("train").column("value"), np.float64)
        if not len(values) or not np.isfinite(values).all():
            raise DataError(
                "regression needs finite numbers as labels; prepare with --numeric", store.path
            )
        scale = {"mean": self.mean, "std": self.std}
        if not self.std:
            scale = {"mean": float(values.mean()), "std": float(values.std()) or 1.0}
        name = self.target_name or str(store.meta.get("target", ""))
        return replace(
            self, length=self.length or int(store.lengths("bases").max()), target_name=name, **scale
        )

    def start(
        self,
        model: nn.Module,
        codec: KmerCodec,
        records: Sequence[Record],
        engine: Any,
        seed: int,
        parent: Any,
    ) -> None:
        """Solve the linear part of the head on the training records, unless the parent learnt
        this very objective.
        """
        if self.warm_start and (parent is None or self not in parent.objectives):
            target_N = (np.asarray(records.column("value")) - self.mean) / self.std
            features_NF = self._features(model, codec, records, engine)
            target_N = np.tile(target_N, len(features_NF) // len(target_N))
            grow = (
                partial(fit_numbers, target_N=target_N, seed=seed)
                if self.trees and len(target_N) > 1
                else None
            )
            model.heads["value"].solve(
                features_NF, partial(fit_ridge, target_N=target_N), grow, blend=True
            )

    def prepare(
        self, record: Record, codec: KmerCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode a sequence and its number."""
        return self._encode(record, codec, rng, training) | self.target(record)

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the number of each sequence [B], in the labels' own unit, and its interval's ends
        `lower` and `upper` [B] where there is one.
        """
        value_B = self.scores(model, batch)[:, 0]
        if self.strand_free:
            value_B = (value_B + self.scores(model, reversed_batch(batch, model))[:, 0]) / 2
        return self.with_bounds(value_B * self.std + self.mean)


def _countable(label_N: np.ndarray, num_classes: int) -> bool:
    """Return whether every class has an example, as boosted trees need."""
    return len(np.unique(label_N)) == num_classes


def reversed_batch(batch: Batch, model: nn.Module) -> Batch:
    """Return the batch read on the other strand, its tokens made anew."""
    bases_BL, num_B1 = batch["bases"], batch["num_bases"][:, None]
    place_BL = num_B1 - 1 - torch.arange(bases_BL.shape[1], device=bases_BL.device)
    turned_BL = bases_BL.gather(1, place_BL.clamp(min=0))
    plain_BL = turned_BL & 7
    turned_BL = torch.where(plain_BL < 4, (turned_BL & 8) | (3 - plain_BL), turned_BL)
    turned_BL = torch.where(place_BL >= 0, turned_BL, torch.full_like(turned_BL, 4))
    return {**batch, "bases": turned_BL, "ids": torch_kmer_ids(turned_BL, model.k, model.stride)}
