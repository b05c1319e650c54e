"""Replaced-token detection (ELECTRA, Clark et al. 2020, arXiv 2003.10555): tell words that a small
generator made up.

Legend of shape letters: B batch, L tokens, N hidden tokens, D width, E width of the embeddings, V
vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import Batch, Example, Likelihood, Loss, Record, widened
from sciforge.core.transfers import host_view, to_device
from sciforge.errors import ConfigError
from sciforge.text.data.codec import TextCodec
from sciforge.text.model.bert import Bert, BertConfig, Encoder, WordHead, gelu, initialise
from sciforge.text.objectives.masked_words import MaskedWords, hidden_places


@dataclass(frozen=True)
class ReplacedWords(MaskedWords):
    """Replaced-token detection: a generator fills hidden words, the net finds the tokens that it
    changed.

    Takes the options of MaskedWords for the generator's masks. The generator shares the net's
    embeddings.

    Args:
        random_share: share of hidden tokens that becomes a random piece; 0 as published.
        keep_share: share of hidden tokens that stays as it is; 0 as published.
        generator_share: width of the generator as a share of the net's (1/4 in the paper's base
            model).
        generator_depth: blocks of the generator; 0 takes the net's depth.
        discriminator_weight: of the net's loss against the generator's (50 in the paper).
    """

    random_share: float = 0.0
    keep_share: float = 0.0
    generator_share: float = 0.25
    generator_depth: int = 0
    discriminator_weight: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs:
            raise ConfigError("objective.pairs belongs to masked-words; leave it off here")
        if not 0 < self.generator_share <= 1:
            raise ConfigError(
                f"objective.generator_share is {self.generator_share}; it must lie between 0 and 1"
            )
        if self.generator_depth < 0 or self.discriminator_weight < 0:
            raise ConfigError(
                "objective: generator_depth and discriminator_weight must be at least 0"
            )

    def attach(self, model: nn.Module) -> None:
        """Add the generator and the head that says replaced or not."""
        model.heads["generator"] = Generator(
            model, self.generator_share, self.generator_depth or model.depth
        )
        model.heads["replaced"] = ReplacedHead(model.width, model.config.activation)

    def prepare(
        self, record: Record, codec: TextCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Hide words; the noise that samples the generator is drawn here, so that no device
        matters.
        """
        example = super().prepare(record, codec, rng, training)
        return {**example, "noise": torch.from_numpy(rng.random(len(example["ids"])))}

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the generator's nats and the weighted detection nats, per hidden token."""
        hidden_BL = to_device(host_view(batch["target_ids"]) >= 0, batch["target_ids"].device)
        words_NV = model.heads["generator"](model, batch, hidden_BL)
        target_N = batch["target_ids"][hidden_places(batch)]
        nats, count = (
            F.cross_entropy(words_NV, target_N, reduction="sum"),
            torch.tensor(len(target_N)),
        )
        ids_BL, replaced_BL = _filled(words_NV.detach(), hidden_BL, batch)
        logits_BL = widened(model.heads["replaced"](model({**batch, "ids": ids_BL})))
        real_BL = torch.arange(ids_BL.shape[1], device=ids_BL.device) < batch["lengths"][:, None]
        nats_BL = F.binary_cross_entropy_with_logits(
            logits_BL, replaced_BL.to(logits_BL.dtype), reduction="none"
        )
        detection, tokens = torch.where(real_BL, nats_BL, 0).sum(), real_BL.sum()
        found_BL = ((logits_BL > 0) == replaced_BL) & real_BL
        parts = {"word_nats": (nats, count), "detection_nats": (detection, tokens)}
        parts |= {
            "detection_accuracy": (found_BL.sum(), tokens),
            "replaced_share": (replaced_BL.sum(), tokens),
        }
        # A token has mask_rate hidden ones, so that the one count divides both losses.
        return Loss(nats + self.discriminator_weight * self.mask_rate * detection, count, parts)

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Refuse: detection is trained on the generator's own samples, which no fixed likelihood
        describes.
        """
        raise ConfigError(
            "replaced-token detection has no likelihood; EWC needs one: use --regularization l2sp"
        )


def _filled(words_NV: Tensor, hidden_BL: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return ids [B, L] with hidden tokens drawn from the generator, and which of them are not
    what stood there.
    """
    hidden = hidden_places(batch)
    drawn_N = sample(words_NV, batch["noise"][hidden])
    ids_BL = batch["ids"].clone()
    ids_BL[hidden] = drawn_N
    return ids_BL, hidden_BL & (ids_BL != batch["target_ids"])


def sample(logits_NV: Tensor, noise_N: Tensor) -> Tensor:
    """Return one class a row, drawn by inverting the cumulative distribution at noise in [0, 1).

    One number a token; Gumbel's trick would need one for each word of the vocabulary.

    >>> sample(torch.tensor([[0.0, 0.0], [0.0, -50.0]]), torch.tensor([0.6, 0.6])).tolist()
    [1, 0]
    """
    cumulative_NV = logits_NV.double().softmax(-1).cumsum(-1)
    drawn_N = torch.searchsorted(cumulative_NV, noise_N.double()[:, None], right=True)[:, 0]
    return drawn_N.clamp(max=logits_NV.shape[1] - 1)


class Generator(nn.Module):
    """A narrower encoder over the net's own embeddings, with a language head tied to them."""

    def __init__(self, model: Bert, share: float, depth: int) -> None:
        super().__init__()
        whole, table = model.config, model.embeddings.word.weight
        heads = max(1, round(whole.heads * share))
        width = max(1, round(whole.width * share / heads)) * heads
        config = BertConfig(
            width, depth, heads, 4 * width, activation=whole.activation, dropout=whole.dropout
        )
        self.project = nn.Linear(table.shape[1], width)
        self.encoder = Encoder(config)
        self.words = WordHead(width, table.shape[1], table.shape[0], whole.activation, whole.eps)
        initialise(self)

    def forward(self, model: Bert, batch: Batch, only_BL: Tensor) -> Tensor:
        """Return the logits of each word [N, V] at the chosen tokens."""
        x_BLD = self.project(model.embed(batch))
        return widened(
            self.words(self.encoder(x_BLD, batch["lengths"], only_BL), model.embeddings.word.weight)
        )


class ReplacedHead(nn.Module):
    """ELECTRA's discriminator head: dense, GELU, one number a token."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.dense = nn.Linear(width, width)
        self.linear = nn.Linear(width, 1)
        initialise(self)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return the log-odds that each token was replaced [B, L]."""
        return self.linear(gelu(self.dense(x_BLD), self.activation))[..., 0]
