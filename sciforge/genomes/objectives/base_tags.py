"""A class for every base (coding or not, a track of annotation), learnt from labels.

Legend of shape letters: B batch, L bases, C classes.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import (
    Batch,
    Categorical,
    Example,
    Likelihood,
    Loss,
    Objective,
    Record,
    widened,
)
from sciforge.errors import DataError
from sciforge.genomes.data.codec import KmerCodec
from sciforge.genomes.model.dna_bert import TokenHead


@dataclass(frozen=True)
class TagBases(Objective):
    """One class a base (coding or not, a track of annotation).

    Args:
        classes: names; empty takes them from the data.
    """

    classes: tuple[str, ...] = ()

    metric: ClassVar[str] = "loss"
    fresh: ClassVar[tuple[str, ...]] = ("bases",)

    def resolve(self, store: Any) -> Self:
        """Take the class names from the store; raises DataError where it is no store of tracks."""
        classes = self.classes or tuple(store.meta.get("track_classes", ()))
        if len(classes) < 2:
            raise DataError(
                "per-base labelling needs a store made by `sciforge prepare tracks`", store.path
            )
        return replace(self, classes=classes)

    def attach(self, model: nn.Module) -> None:
        """Add the head in which each token votes on its bases."""
        model.heads["bases"] = TokenHead(model.width, len(self.classes), model.k, model.stride)

    def prepare(
        self, record: Record, codec: KmerCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode a window and its track; bases behind the last token have no target."""
        example = codec.encode({"bases": np.asarray(record["bases"])})
        example["num_bases"] = torch.tensor(len(record["bases"]))
        if "track" in record:
            covered = (codec.num_tokens(len(record["bases"])) - 1) * codec.stride + codec.k
            track_L = np.asarray(record["track"]).astype(np.int64)
            track_L[covered:] = -100
            example["target_track"] = torch.from_numpy(track_L)
        return example

    def _logits(self, model: nn.Module, batch: Batch) -> Tensor:
        logits_BLC = widened(model.heads["bases"](model(batch), batch["lengths"]))
        return F.pad(logits_BLC, (0, 0, 0, batch["bases"].shape[1] - logits_BLC.shape[1]))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the cross-entropy summed over bases."""
        logits_BLC, target_BL = self._logits(model, batch), batch["target_track"]
        total = F.cross_entropy(
            logits_BLC.flatten(0, 1), target_BL.flatten(), ignore_index=-100, reduction="sum"
        )
        count = (target_BL >= 0).sum()
        return Loss(total, count, {"accuracy": ((logits_BLC.argmax(-1) == target_BL).sum(), count)})

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor | list[Tensor]]:
        """Return the class of each base of each window, int64 [L], -1 behind the last token,
        ragged.
        """
        class_BL = self._logits(model, batch).argmax(-1)
        covered_B = (batch["lengths"] - 1) * model.stride + model.k
        place_L = torch.arange(class_BL.shape[1], device=class_BL.device)
        class_BL = class_BL.masked_fill(place_L >= covered_B[:, None], -1)
        return {
            "track": [row[:n] for row, n in zip(class_BL, batch["num_bases"].tolist(), strict=True)]
        }

    def runs(self, track_L: np.ndarray) -> list[tuple[int, int, str]]:
        """Return the stretches of one class as (start, end, class), from 0, end excluded.

        >>> TagBases(("background", "CDS")).runs(np.array([0, 0, 1, 1, -1]))
        [(0, 2, 'background'), (2, 4, 'CDS')]
        """
        borders = np.flatnonzero(np.diff(track_L)) + 1
        starts, ends = [0, *borders.tolist()], [*borders.tolist(), len(track_L)]
        return [
            (start, end, self.classes[track_L[start]])
            for start, end in zip(starts, ends, strict=True)
            if len(track_L) and track_L[start] >= 0
        ]

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return the distribution over classes of each base."""
        logits_BLC, target_BL = self._logits(model, batch), batch["target_track"]
        return Categorical(logits_BLC[target_BL >= 0], target_BL[target_BL >= 0])
