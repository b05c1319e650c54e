"""A class for every word: names in text, parts of speech. Scored at a word's first piece; entities
by the BIO scheme.

Legend of shape letters: B batch, L tokens, W words, C classes, N words of a batch, F features.
"""

from collections.abc import Mapping, Sequence
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
from sciforge.core.learners.linear_probe import fit_logistic
from sciforge.core.training.evaluation import batches, evaluation
from sciforge.errors import ConfigError, DataError
from sciforge.text.data.codec import NO_TARGET, SHORTEST_ROW, TextCodec
from sciforge.text.model.heads import TagHead

OUTSIDE = "O"
MAX_SOLVED_WORDS = 20_000  # words the linear head is solved from


@dataclass(frozen=True)
class TagWords(Objective):
    """One class a word (named entities, parts of speech), from a store of words with tags.

    Args:
        length: tokens of a row; words behind it are given no class, and count as wrong where they
            have one.
        warm_start: solve the linear head before the first step.
        classes: names, in the order of the outputs; empty takes them from the data.
    """

    length: int = 256
    warm_start: bool = True
    classes: tuple[str, ...] = ()

    metric: ClassVar[str] = "f1"
    higher_is_better: ClassVar[bool] = True
    fresh: ClassVar[tuple[str, ...]] = ("word_tag",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < SHORTEST_ROW:
            raise ConfigError(
                f"objective.length is {self.length}; a row needs at least {SHORTEST_ROW} tokens"
            )

    def resolve(self, store: Any) -> Self:
        """Take the classes from the store; raises DataError where its words have no tags of at
        least two kinds.
        """
        classes = self.classes or tuple(store.meta.get("tags", ()))
        if len(classes) < 2:
            raise DataError(
                "tagging needs words with tags of at least two kinds; prepare a .conll file",
                store.path,
            )
        return replace(self, classes=classes)

    def attach(self, model: nn.Module) -> None:
        """Add the head that reads every layer at a word's first piece."""
        model.heads["word_tag"] = TagHead(model.width * (model.depth + 1), len(self.classes))

    def start(
        self,
        model: nn.Module,
        codec: TextCodec,
        records: Sequence[Record],
        engine: Any,
        seed: int,
        parent: Any,
    ) -> None:
        """Solve the linear head on up to 20,000 training words, unless the parent learnt this
        very objective.
        """
        if not self.warm_start or (parent is not None and self in parent.objectives):
            return
        features, labels, num_words = [], [], 0
        with evaluation(model, self):
            for batch in batches(self, codec, records, range(len(records)), seed, 32):
                batch = engine.move(batch)
                x_BWF, known_BW = self._states(model, batch), batch["target_tags"] >= 0
                features.append(x_BWF[known_BW].double().cpu().numpy())
                labels.append(batch["target_tags"][known_BW].cpu().numpy())
                num_words += len(labels[-1])
                if num_words >= MAX_SOLVED_WORDS:
                    break
        model.heads["word_tag"].solve(
            np.concatenate(features),
            lambda scaled_NF: fit_logistic(
                scaled_NF, np.concatenate(labels), len(self.classes), seed
            ),
        )

    def prepare(
        self, record: Record, codec: TextCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode a document and find the first piece of each of its words."""
        if "words" not in record:
            raise DataError(
                f"{record.get('name', 'a document')!r} has no words; prepare a .conll file"
            )
        capacity = min(self.length, codec.length) - 2
        example = codec.row(codec.pieces(record["text"])[0][:capacity])
        first_W = first_pieces(
            codec.places(record["text"])[:capacity], np.asarray(record["words"]).reshape(-1, 2)
        )
        # [CLS] stands before; 0 is a word without a piece
        example["word_token"] = torch.from_numpy(first_W + 1)
        example["num_words"] = torch.tensor(len(first_W))
        if "tags" in record:
            target_W = np.array([self.index(tag) for tag in record["tags"].split()])
            example["target_tags"] = torch.from_numpy(np.where(first_W < 0, NO_TARGET, target_W))
        return example

    def index(self, tag: str) -> int:
        """Return the place of a class; raises DataError for an unknown one."""
        if tag not in self.classes:
            raise DataError(
                f"tag {tag!r} is none of {', '.join(self.classes)}; correct it or give"
                " objective.classes"
            )
        return self.classes.index(tag)

    def _states(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return every layer's states at the first piece of each word [B, W, F]."""
        x_BLF = torch.cat(model(batch, layers=True), dim=-1)
        return x_BLF.gather(1, batch["word_token"][..., None].expand(-1, -1, x_BLF.shape[-1]))

    def scores(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return scores [B, W, C] in float32 at least; those of words without a piece mean
        nothing.
        """
        return widened(model.heads["word_tag"](self._states(model, batch)))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the cross-entropy summed over words."""
        logits_BWC, target_BW = self.scores(model, batch), batch["target_tags"]
        total = F.cross_entropy(
            logits_BWC.flatten(0, 1), target_BW.flatten(), ignore_index=NO_TARGET, reduction="sum"
        )
        count = (target_BW >= 0).sum()
        return Loss(total, count, {"accuracy": ((logits_BWC.argmax(-1) == target_BW).sum(), count)})

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return the distribution over classes of each word."""
        known_BW = batch["target_tags"] >= 0
        return Categorical(self.scores(model, batch)[known_BW], batch["target_tags"][known_BW])

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, list[Tensor]]:
        """Return the class of each word of each document, -1 for a word without a piece, ragged."""
        tag_BW = self.scores(model, batch).argmax(-1).masked_fill(batch["word_token"] == 0, -1)
        return {
            "tag": [row[:n] for row, n in zip(tag_BW, batch["num_words"].tolist(), strict=True)]
        }

    def metrics(
        self, outputs: Mapping[str, np.ndarray], records: Sequence[Record]
    ) -> dict[str, float]:
        """Return the share of words that are right, and precision, recall and F1 of whole
        entities (BIO) or of words not `O`.
        """
        true_tags = [record["tags"].split() for record in records]
        predicted_tags = [self.names(row) for row in outputs["tag"]]
        pairs = [
            (a, b)
            for one, two in zip(true_tags, predicted_tags, strict=True)
            for a, b in zip(one, two, strict=True)
        ]
        return {
            "accuracy": float(np.mean([a == b for a, b in pairs])),
            **entity_metrics(true_tags, predicted_tags),
        }

    def names(self, tags_W: np.ndarray) -> list[str]:
        """Return the classes' names; a word without a piece is outside."""
        return [self.classes[int(tag)] if tag >= 0 else OUTSIDE for tag in tags_W]


def first_pieces(places_T2: np.ndarray, words_W2: np.ndarray) -> np.ndarray:
    """Return the first piece of each word, -1 where none of its letters is in a piece.

    Args:
        places_T2: from which letter to which each piece stands, in order.
        words_W2: the same of each word.

    >>> places = np.array([[0, 3], [3, 5], [6, 9]])
    >>> first_pieces(places, np.array([[0, 5], [5, 6], [6, 9], [10, 12]])).tolist()
    [0, -1, 2, -1]
    """
    if not len(places_T2):
        return np.full(len(words_W2), -1)
    at_W = np.searchsorted(places_T2[:, 1], words_W2[:, 0], side="right")
    inside_W = at_W < len(places_T2)
    inside_W &= places_T2[at_W.clip(max=len(places_T2) - 1), 0] < words_W2[:, 1]
    return np.where(inside_W, at_W, -1)


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return kind, first word and one behind the last of every entity; tags without B- or I- are
    entities of one word.

    An I- that continues nothing begins an entity, as in the scorer of CoNLL-2000.

    >>> sorted(entities(["B-a", "I-a", "O", "I-b", "B-b", "I-a"]))
    [('a', 0, 2), ('a', 5, 6), ('b', 3, 4), ('b', 4, 5)]
    """
    spans, start, kind = set(), 0, ""
    for at, tag in enumerate([*tags, OUTSIDE]):
        mark, _, name = tag.partition("-")
        if kind and not (mark == "I" and name == kind):
            spans.add((kind, start, at))
            kind = ""
        if tag == OUTSIDE:
            continue
        if mark not in ("B", "I") or not name:
            spans.add((tag, at, at + 1))
        elif not kind:
            start, kind = at, name
    return spans


def entity_metrics(
    true_tags: Sequence[Sequence[str]], predicted_tags: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Return precision, recall and F1 of whole entities, and how many there are; 0 where there
    is nothing to count.
    """
    right = sum(
        len(entities(a) & entities(b)) for a, b in zip(true_tags, predicted_tags, strict=True)
    )
    num_true, num_predicted = (
        sum(len(entities(row)) for row in rows) for rows in (true_tags, predicted_tags)
    )
    precision, recall = (
        right / num_predicted if num_predicted else 0.0,
        (right / num_true if num_true else 0.0),
    )
    f1 = 2 * right / (num_predicted + num_true) if right else 0.0
    return {"f1": f1, "precision": precision, "recall": recall, "entities": float(num_true)}
