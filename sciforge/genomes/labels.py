"""What a DNA-BERT learns from labels: a class, a number, or a class for every base.

Legend of shape letters: B batch, T tokens, L bases, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import Batch, Categorical, Example, Gaussian, Likelihood, Loss, Objective, Record
from sciforge.core.metrics import classification_metrics, regression_metrics
from sciforge.errors import ConfigError, DataError
from sciforge.genomes.codec import KmerCodec
from sciforge.genomes.model import PooledHead, TokenHead
from sciforge.genomes.records import reverse_complement


def _crop(bases: np.ndarray, shift: int, rng: np.random.Generator, training: bool) -> np.ndarray:
    """Drop up to `shift` bases at the ends, at random in training, so that no token grid is learnt by heart."""
    if not shift:
        return bases
    left = int(rng.integers(0, shift + 1)) if training else shift // 2
    return bases[left : len(bases) - (shift - left)]


@dataclass(frozen=True)
class Classify(Objective):
    """One class a sequence.

    Args:
        classes: names, in the order of the outputs; empty takes them from the data.
        strand_free: the label does not depend on the strand; then training takes either strand and predictions
            average both. Leave it off for oriented windows such as promoters.
        shift: random crops move the token grid by up to this many bases in training.
        bins: positional bins of the pooling.
    """

    classes: tuple[str, ...] = ()
    strand_free: bool = False
    shift: int = 0
    bins: int = 12

    metric: ClassVar[str] = "mcc"
    higher_is_better: ClassVar[bool] = True
    fresh: ClassVar[tuple[str, ...]] = ("class",)

    def resolve(self, store: Any) -> Self:
        """Take the class names from the store; raises DataError where it has fewer than two."""
        classes = self.classes or tuple(store.meta.get("classes", ()))
        if len(classes) < 2:
            raise DataError("classification needs labels of at least two classes; prepare a labelled task", store.path)
        return replace(self, classes=classes)

    def attach(self, model: nn.Module) -> None:
        """Add the head that pools by position."""
        model.heads["class"] = PooledHead(model.width, len(self.classes), self.bins)

    def prepare(self, record: Record, codec: KmerCodec, rng: np.random.Generator, training: bool) -> Example:
        """Encode a sequence and its label, on a random strand where strands do not matter."""
        bases = _crop(np.asarray(record["bases"]), self.shift, rng, training)
        if training and self.strand_free and rng.integers(2):
            bases = reverse_complement(bases)
        example = codec.encode({"bases": bases})
        if (label := record.get("label")) is not None:
            if label not in self.classes:
                raise DataError(f"label {label!r} is none of {', '.join(self.classes)}; correct it or give objective.classes")
            example["target_class"] = torch.tensor(self.classes.index(label))
        return example

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return class scores [B, C]."""
        return model.heads["class"](model(batch), batch["lengths"]).float()

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the cross-entropy summed over sequences."""
        logits_BC, target_B = self.logits(model, batch), batch["target_class"]
        total = F.cross_entropy(logits_BC, target_B, reduction="sum")
        count = torch.tensor(len(target_B))
        return Loss(total, count, {"accuracy": ((logits_BC.argmax(-1) == target_B).sum(), count)})

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return the distribution over classes of each sequence."""
        return Categorical(self.logits(model, batch), batch["target_class"])

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return class probabilities [B, C], averaged over both strands where strands do not matter."""
        p_BC = self.logits(model, batch).softmax(-1)
        if self.strand_free:
            p_BC = (p_BC + self.logits(model, reverse_batch(batch, model)).softmax(-1)) / 2
        return {"probability": p_BC}

    def metrics(self, outputs: Mapping[str, np.ndarray], records: Sequence[Record]) -> dict[str, float]:
        """Return accuracy, MCC, and for two classes AUROC and average precision."""
        labels = np.array([self.classes.index(name) for name in records.column("label")])
        return classification_metrics(labels, outputs["probability"])
