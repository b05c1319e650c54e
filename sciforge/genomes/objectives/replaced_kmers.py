"""Replaced-token detection on genomes (ELECTRA, Clark et al. 2020): tell bases that a small
generator made up.

Legend of shape letters: B batch, T tokens, L bases, k bases of a token, M masked tokens, D width.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import Batch, Example, Likelihood, Loss, Record, widened
from sciforge.core.transfers import host_view, places
from sciforge.errors import ConfigError
from sciforge.genomes.data.codec import KmerCodec, torch_kmer_ids
from sciforge.genomes.model.dna_bert import DnaBert, DnaBertConfig
from sciforge.genomes.objectives.masked_kmers import MaskedKmers


@dataclass(frozen=True)
class ReplacedKmers(MaskedKmers):
    """Replaced-token detection: a generator fills hidden spans of bases, the net finds the tokens
    that it changed.

    Takes the options of MaskedKmers for the generator's masks; spans are always masked, never kept
    or randomised.

    Args:
        generator_share: width of the generator as a share of the net's.
        discriminator_weight: of the net's loss against the generator's (50 in the paper).
    """

    generator_share: float = 0.25
    discriminator_weight: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frame_weight or self.pair_weight:
            raise ConfigError(
                "objective: frame_weight and pair_weight belong to masked; leave them at 0 here"
            )
        self.require(0, math.inf, "discriminator_weight")
        if not 0 < self.generator_share <= 1:
            raise ConfigError(
                f"objective.generator_share is {self.generator_share}; it must lie between 0 and 1"
            )

    def attach(self, model: nn.Module) -> None:
        """Add the generator, a smaller net of the same make, and the head that says replaced or
        not.
        """
        width = max(32, round(model.width * self.generator_share / 32) * 32)
        sizes = DnaBertConfig(width=width, depth=2, heads=max(1, width // 64), hidden=2 * width)
        model.heads["generator"] = DnaBert(sizes, KmerCodec(model.k, model.stride))
        model.heads["replaced"] = nn.Linear(model.width, 1)

    def prepare(
        self, record: Record, codec: KmerCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Mask spans as MaskedKmers does; the noise that samples the generator is drawn here, so
        that no device matters.
        """
        plain = replace(self, random_share=0.0, keep_share=0.0)
        example = super(ReplacedKmers, plain).prepare(record, codec, rng, training)
        noise_L4 = rng.gumbel(size=(len(example["bases"]), 4)).astype(np.float32)
        return {**example, "noise": torch.from_numpy(noise_L4)}

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the generator's nats and the weighted detection nats, per hidden base."""
        generator = super().loss(model.heads["generator"], batch)
        replaced_BT, logits_BT = self._detect(model, batch)
        real_BT = (
            torch.arange(logits_BT.shape[1], device=logits_BT.device) < batch["lengths"][:, None]
        )
        nats_BT = F.binary_cross_entropy_with_logits(
            logits_BT, replaced_BT.to(logits_BT.dtype), reduction="none"
        )
        detection, tokens = (nats_BT * real_BT).sum(), real_BT.sum()
        right_BT = ((logits_BT > 0) == replaced_BT) & real_BT
        parts = {"generator_nats_per_base": generator.parts["nats_per_base"]}
        parts |= {
            "detection_nats": (detection, tokens),
            "detection_accuracy": (right_BT.sum(), tokens),
        }
        parts |= {"replaced_share": ((replaced_BT & real_BT).sum(), tokens)}
        # A token has mask_rate * stride hidden bases, so that the one count divides both losses.
        per_base = self.discriminator_weight * self.mask_rate * model.stride
        return Loss(generator.total + per_base * detection, generator.count, parts)

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Refuse: detection is trained on the generator's own samples, which no fixed likelihood
        describes.
        """
        raise ConfigError(
            "replaced-token detection has no likelihood; EWC needs one: use --regularization l2sp"
        )

    def _detect(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return which tokens the generator changed [B, T] and the logits of the net [B, T]."""
        with torch.no_grad():
            bases_BL = self._fill(model.heads["generator"], batch)
        changed_BL = (bases_BL & 7) != (batch["bases"] & 7)
        changed_BTk = changed_BL.unfold(1, model.k, model.stride)
        ids_BT = torch_kmer_ids(bases_BL, model.k, model.stride)
        beyond_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) >= batch["lengths"][:, None]
        ids_BT = ids_BT.masked_fill(beyond_BT, 4**model.k)
        x_BTD = model({"ids": ids_BT, "lengths": batch["lengths"]})
        return changed_BTk.any(-1), widened(model.heads["replaced"](x_BTD)[..., 0])

    def _fill(self, generator: DnaBert, batch: Batch) -> Tensor:
        """Return the bases with every unseen one drawn from what the tokens over it say together
        (Gumbel's trick).
        """
        row_M, token_M = places(host_view(batch["masked"]), batch["masked"].device)
        logits_Mk4 = widened(generator.base_logits(generator(batch)[row_M, token_M])).log_softmax(
            -1
        )
        place_Mk = token_M[:, None] * generator.stride + torch.arange(
            generator.k, device=token_M.device
        )
        votes_BL4 = torch.zeros(
            batch["noise"].shape, dtype=logits_Mk4.dtype, device=logits_Mk4.device
        )
        votes_BL4.index_put_(
            (row_M[:, None].expand_as(place_Mk), place_Mk), logits_Mk4, accumulate=True
        )
        count_BL1 = votes_BL4.new_zeros(*batch["bases"].shape, 1)
        ones_Mk1 = torch.ones_like(logits_Mk4[..., :1])
        count_BL1.index_put_(
            (row_M[:, None].expand_as(place_Mk), place_Mk), ones_Mk1, accumulate=True
        )
        drawn_BL = (
            (votes_BL4 / count_BL1.clamp(min=1) + batch["noise"])
            .argmax(-1)
            .to(batch["bases"].dtype)
        )
        hidden_BL = batch["unseen"] & ((batch["bases"] & 7) < 4)
        return torch.where(hidden_BL, drawn_BL, batch["bases"])
