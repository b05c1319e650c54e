"""What a DNA-BERT learns before it sees a label: hidden k-mers, reading frames, pairs of segments.

Legend of shape letters: B batch, T tokens, L bases, k bases of a token, D width, M predicted
tokens, F frames.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
from sciforge.core.transfers import host_view, places
from sciforge.errors import ConfigError
from sciforge.genomes.data.codec import KmerCodec
from sciforge.genomes.data.genome_windows import GenomeWindows
from sciforge.genomes.data.sequences import reverse_complement
from sciforge.genomes.model.dna_bert import PooledHead
from sciforge.genomes.model.heads import FrameHead
from sciforge.genomes.objectives.masking import SCORED_MASKED, draw_masks
from sciforge.genomes.objectives.reading_frames import frame_targets

# Context on each side of a window, in which reading frames and other second halves are looked for.
FLANK = 1500
NO_TARGET = -100
SHORTEST_WINDOW = 90


@dataclass(frozen=True)
class MaskedKmers(Objective):
    """Masked-language modelling of a genome (Devlin et al. 2018; Ji et al. 2021) with leak-proof
    spans of bases.

    The loss is in nats per scored base, comparable across k, stride and span.

    Args:
        length: bases of a window.
        mask_rate: share of the bases to score.
        shortest: fewest bases of a hidden span.
        longest: most bases of a hidden span.
        random_share: share of spans replaced by random bases.
        keep_share: share of spans left as they are.
        soft_mask_weight: weight of soft-masked (repeat) bases in the loss; GPN uses 0.1.
        short_share: share of windows cut to a random length, so that short sequences are known too.
        unmasked_share: share of windows in which nothing is hidden, so that side tasks also learn
            from whole sequence, which is what fine-tuning shows.
        frame_weight: weight of the reading-frame task (strand, codon position, distance to start
            and stop codons), in nats per token; 0 leaves it out.
        pair_weight: weight of next-segment prediction (BERT's second task); off by default, since
            RoBERTa found no gain.
        pair: half of the windows get another second half: `next` takes one from elsewhere within
            1,500 bases, so that composition does not tell; `strand` turns it onto the other strand.
    """

    length: int = 512
    mask_rate: float = 0.15
    shortest: int = 3
    longest: int = 12
    random_share: float = 0.1
    keep_share: float = 0.1
    soft_mask_weight: float = 1.0
    short_share: float = 0.0
    unmasked_share: float = 0.0
    frame_weight: float = 0.0
    pair_weight: float = 0.0
    pair: Literal["next", "strand"] = "next"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, 1, "short_share")
        self.require(0, math.inf, "soft_mask_weight", "frame_weight", "pair_weight")
        if not 0 < self.mask_rate < 1:
            raise ConfigError(
                f"objective.mask_rate is {self.mask_rate}; it must lie between 0 and 1"
            )
        if not 1 <= self.shortest <= self.longest < self.length:
            raise ConfigError(
                "objective: 1 <= shortest <= longest < length must hold for the hidden spans"
            )
        if not 0 <= self.unmasked_share < 1:
            raise ConfigError(
                f"objective.unmasked_share is {self.unmasked_share}; it must be at least 0 and"
                " below 1"
            )
        if min(self.random_share, self.keep_share) < 0 or self.random_share + self.keep_share > 1:
            raise ConfigError(
                "objective: random_share and keep_share must be shares that add up to at most 1"
            )

        if self.pair != "next" and not self.pair_weight:
            raise ConfigError("objective.pair is not used without pair_weight; give a weight")

    def attach(self, model: nn.Module) -> None:
        """Add the heads of the side tasks that are switched on."""
        if self.frame_weight and "frames" not in model.heads:
            model.heads["frames"] = FrameHead(model.width)
        if self.pair_weight and "pair" not in model.heads:
            model.heads["pair"] = PooledHead(model.width, classes=2, bins=2)

    def examples(self, store: Any, split: str) -> Sequence[Record]:
        """Return the windows that tile a split of a genome store."""
        return GenomeWindows(
            store, split, self.length, FLANK if self.frame_weight or self.pair_weight else 0
        )

    def prepare(
        self, record: Record, codec: KmerCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Crop a window, take either strand, hide spans, and note what is to be predicted."""
        context = np.asarray(record["bases"])
        first, last = record["inside"]
        length = self.length
        if training and rng.random() < self.short_share:
            length = int(rng.integers(min(SHORTEST_WINDOW, length), length + 1))
        start = first + (int(rng.integers(0, max(1, last - first - length + 1))) if training else 0)
        if rng.integers(2):
            context, start = reverse_complement(context), len(context) - start - length
        bases = context[start : start + length]
        example: Example = {}
        changed = bool(self.pair_weight and rng.integers(2))
        if self.pair_weight:
            half = length // 2
            if changed:
                bases = np.concatenate(
                    [bases[:half], self._other_half(context, start, half, length, rng)]
                )
            example["target_pair"] = torch.tensor(int(changed))
        options = {"random_share": self.random_share, "keep_share": self.keep_share}
        rate = 0.0 if rng.random() < self.unmasked_share else self.mask_rate
        masks = draw_masks(
            bases, codec, rng, rate=rate, shortest=self.shortest, longest=self.longest, **options
        )
        example |= codec.encode({"bases": masks.bases_L})
        known = (bases & 7) < 4
        scored = known & (masks.scored_L > 0)
        example["target_bases"] = torch.from_numpy(
            np.where(scored, (bases & 3).astype(np.int64), NO_TARGET)
        )
        example["unseen"] = torch.from_numpy(masks.scored_L == SCORED_MASKED)
        example["soft"] = torch.from_numpy((bases & 8) > 0)
        example["masked"] = torch.from_numpy(masks.masked_T)
        example["predicted"] = torch.from_numpy(masks.predicted_T)
        if self.frame_weight:
            frame, distance = frame_targets(context)
            at = start + np.arange(codec.num_tokens(length)) * codec.stride
            if changed:  # the other half has its frames elsewhere
                frame[start + half - codec.k + 1 :] = NO_TARGET
                distance[start + half - codec.k + 1 :] = NO_TARGET
            example["target_frame"] = torch.from_numpy(frame[at])
            example["target_distance"] = torch.from_numpy(distance[at])
        return example

    def _other_half(
        self, context: np.ndarray, start: int, half: int, length: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Return a second half that does not follow the first: from elsewhere in the context, or
        of the other strand.
        """
        size = length - half
        places = np.arange(len(context) - size + 1)
        away = places[np.abs(places - (start + half)) >= size]
        # nor one that repeats the first half
        away = away[(away >= start + half) | (away + size <= start)]
        if self.pair == "next" and len(away):
            at = int(rng.choice(away))
            return context[at : at + size]
        return reverse_complement(context[start + half : start + length])

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return nats summed over scored bases; `nats_per_base` counts bases that no visible
        token shows.
        """
        predicted_BT = batch["predicted"]
        # torch.compile would break its graph at a number of tokens that depends on the data
        if self.frame_weight or self.pair_weight or hasattr(model, "_orig_mod"):
            x_BTD = model(batch)
            x_MD = x_BTD[places(host_view(predicted_BT), x_BTD.device)]
        else:  # the last block need not finish tokens that nobody asks about
            x_MD = model(batch, only=predicted_BT)
        logits_Mk4, target_Mk, weight_Mk, unseen_Mk = _scored(
            model, x_MD, batch, self.soft_mask_weight
        )
        nats_Mk = F.cross_entropy(
            widened(logits_Mk4).flatten(0, 1), target_Mk.flatten(), reduction="none"
        ).view_as(weight_Mk)
        total, count = (nats_Mk * weight_Mk).sum(), weight_Mk.sum()
        hidden_Mk = weight_Mk * unseen_Mk
        parts = {"nats_per_base": ((nats_Mk * hidden_Mk).sum(), hidden_Mk.sum())}
        if self.frame_weight:
            nats, tokens, distance_nats, right = _frame_nats(model, x_BTD, batch)
            parts |= {
                "frame_nats": (nats, tokens),
                "distance_nats": (distance_nats, tokens),
                "frame_accuracy": (right, tokens),
            }
            # Weighted per scored base, so that the one count divides both tasks; a token has
            # mask_rate * stride of them.
            total = (
                total
                + self.frame_weight * (nats + 0.25 * distance_nats) * self.mask_rate * model.stride
            )
        if self.pair_weight:
            logits_B2 = widened(model.heads["pair"](x_BTD, batch["lengths"]))
            nats = F.cross_entropy(logits_B2, batch["target_pair"], reduction="sum")
            right = (logits_B2.argmax(-1) == batch["target_pair"]).sum()
            pairs = torch.tensor(len(logits_B2))
            parts |= {"pair_nats": (nats, pairs), "pair_accuracy": (right, pairs)}
            total = total + self.pair_weight * nats * self.mask_rate * self.length
        return Loss(total, count, parts)

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return the distribution of each scored base, once for every token that predicts it."""
        logits_Mk4, target_Mk, weight_Mk, _ = _scored(
            model, model(batch, only=batch["predicted"]), batch, 1.0
        )
        chosen = weight_Mk > 0
        return Categorical(logits_Mk4[chosen], target_Mk[chosen])


def _scored(
    model: nn.Module, x_MD: Tensor, batch: Batch, soft_mask_weight: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return logits [M, k, 4] at predicted tokens, targets [M, k], weights [M, k] that share each
    base's score among the tokens that predict it, and whether the base is unseen [M, k].
    """
    k, stride = model.k, model.stride
    row_M, token_M = places(host_view(batch["predicted"]), x_MD.device)
    place_Mk = token_M[:, None] * stride + torch.arange(k, device=token_M.device)
    row_Mk = row_M[:, None].expand_as(place_Mk)
    target_Mk = batch["target_bases"][row_Mk, place_Mk]
    scored_Mk = (target_Mk >= 0).to(x_MD.dtype)
    votes_BL = torch.zeros(batch["bases"].shape, dtype=x_MD.dtype, device=x_MD.device)
    votes_BL.index_put_((row_Mk, place_Mk), scored_Mk, accumulate=True)
    soft_Mk = torch.where(batch["soft"][row_Mk, place_Mk], soft_mask_weight, 1.0).to(x_MD.dtype)
    weight_Mk = scored_Mk * soft_Mk / votes_BL[row_Mk, place_Mk].clamp(min=1)
    return (
        model.base_logits(x_MD),
        target_Mk.clamp(min=0),
        weight_Mk,
        batch["unseen"][row_Mk, place_Mk],
    )


def _frame_nats(
    model: nn.Module, x_BTD: Tensor, batch: Batch
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    frame_BTF, distance_BTPC = model.heads["frames"](x_BTD)
    target_BT = batch["target_frame"]
    tokens = (target_BT >= 0).sum()
    options = {"ignore_index": NO_TARGET, "reduction": "sum"}
    nats = F.cross_entropy(widened(frame_BTF).flatten(0, 1), target_BT.flatten(), **options)
    distance = F.cross_entropy(
        widened(distance_BTPC).flatten(0, 2), batch["target_distance"].flatten(), **options
    )
    return nats, tokens, distance, (frame_BTF.argmax(-1) == target_BT).sum()
