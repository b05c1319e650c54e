"""What must hold for every DNA-BERT, fresh or trained; `sciforge check` runs these on a user's own
checkpoint.

A law takes (model in float64, codec, numpy generator) and returns (largest violation, tolerance).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.domain import Example
from sciforge.genomes.data.codec import KmerCodec, kmer_ids, reverse_complement_ids
from sciforge.genomes.data.sequences import N_CODE, SOFT_MASK, reverse_complement
from sciforge.genomes.objectives.masking import SCORED_MASKED, draw_masks
from sciforge.genomes.objectives.sequence_labels import Classify

Verdict = tuple[float, float]
ROUNDING = 1e-9  # of float64 through a dozen blocks; float32 leaves 1e-5


def _bases(rng: np.random.Generator, length: int, unknown: float = 0.0) -> np.ndarray:
    bases = rng.integers(0, 4, length).astype(np.uint8)
    bases[rng.random(length) < unknown] = N_CODE
    return bases


def _example(codec: KmerCodec, bases: np.ndarray) -> Example:
    return codec.encode({"bases": bases})


@torch.no_grad()
def _states(model: nn.Module, codec: KmerCodec, sequences: list[np.ndarray]) -> list[Tensor]:
    """Return the hidden states of the real tokens of each sequence, all in one batch."""
    batch = codec.collate([_example(codec, bases) for bases in sequences])
    batch = {name: value.to(_device(model)) for name, value in batch.items()}
    return [x_TD[:n] for x_TD, n in zip(model(batch), batch["lengths"].tolist(), strict=True)]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _largest(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max())


def padding(model: nn.Module, codec: KmerCodec, rng: np.random.Generator) -> Verdict:
    """Padding never changes a result, neither hidden states nor class probabilities where there
    is a head.
    """
    short, long = _bases(rng, 40 + codec.k, 0.02), _bases(rng, 150 + codec.k)
    alone, padded = _states(model, codec, [short])[0], _states(model, codec, [short, long])[0]
    changed = _largest(alone, padded)
    if "class" in model.heads:
        probabilities = [
            _probabilities(model, codec, rng, rows, strand_free=False)[0]
            for rows in ([short], [short, long])
        ]
        changed = max(changed, _largest(*probabilities))
    return changed, ROUNDING


def batch_mates(model: nn.Module, codec: KmerCodec, rng: np.random.Generator) -> Verdict:
    """What else is in the batch, and in which order, never changes a result."""
    rows = [_bases(rng, size + codec.k) for size in (30, 80, 55, 80)]
    together = _states(model, codec, rows)
    reversed_states = _states(model, codec, rows[::-1])[::-1]
    others = _states(model, codec, [rows[0], _bases(rng, 80 + codec.k)])[0]
    return max(_largest(others, together[0]), *map(_largest, together, reversed_states)), ROUNDING


def soft_mask(model: nn.Module, codec: KmerCodec, rng: np.random.Generator) -> Verdict:
    """Lower-case bases give exactly the result of upper-case ones."""
    upper = _bases(rng, 100 + codec.k, 0.02)
    lower = upper | np.where(rng.random(len(upper)) < 0.5, SOFT_MASK, 0).astype(np.uint8)
    return _largest(_states(model, codec, [upper])[0], _states(model, codec, [lower])[0]), 0.0


def reverse_complement_map(model: nn.Module, codec: KmerCodec, rng: np.random.Generator) -> Verdict:
    """The map of ids to those of the other strand equals encoding the reverse complement."""
    bases = _bases(rng, 997, 0.02)
    mapped = reverse_complement_ids(codec.k)[kmer_ids(bases, codec.k)][::-1]
    return float((mapped != kmer_ids(reverse_complement(bases), codec.k)).sum()), 0.0


@torch.no_grad()
def masks_hide(model: nn.Module, codec: KmerCodec, rng: np.random.Generator) -> Verdict:
    """Bases hidden under masks cannot be read: changing them changes no output at all."""
    bases = _bases(rng, 200 + codec.k)
    options = {"shortest": 1, "longest": 12, "random_share": 0.0, "keep_share": 0.0}
    masks = draw_masks(bases, codec, rng, rate=0.2, **options)
    hidden = masks.scored_L == SCORED_MASKED
    outputs = []
    for shift in range(2):
        changed = np.where(hidden, (masks.bases_L + shift) & 3, masks.bases_L).astype(np.uint8)
        batch = codec.collate([codec.encode({"bases": changed, "masked": masks.masked_T})])
        batch = {name: value.to(_device(model)) for name, value in batch.items()}
        x_TD = model(batch)[0]
        outputs.append(
            torch.cat([x_TD.flatten(), model.base_logits(x_TD[masks.masked_T]).flatten()])
        )
    return _largest(*outputs), 0.0


@torch.no_grad()
def _probabilities(
    model: nn.Module,
    codec: KmerCodec,
    rng: np.random.Generator,
    rows: list[np.ndarray],
    strand_free: bool,
) -> Tensor:
    # names and their number play no part in predict
    objective = Classify(classes=("a", "b"), strand_free=strand_free)
    examples = [objective.prepare({"bases": bases}, codec, rng, training=False) for bases in rows]
    batch = {name: value.to(_device(model)) for name, value in codec.collate(examples).items()}
    return objective.predict(model, batch)["probability"]


def probabilities(model: nn.Module, codec: KmerCodec, rng: np.random.Generator) -> Verdict:
    """Class probabilities are at least 0 and add up to 1 (holds idly without a classification
    head).
    """
    if "class" not in model.heads:
        return 0.0, 1e-6
    rows = [_bases(rng, size + codec.k, 0.02) for size in (60, 90, 120)]
    p_BC = _probabilities(model, codec, rng, rows, strand_free=False)
    return max(float((p_BC.sum(-1) - 1).abs().max()), float(-p_BC.min())), 1e-6


def strand_free(model: nn.Module, codec: KmerCodec, rng: np.random.Generator) -> Verdict:
    """The strand-free average is the same for both strands, at every length (holds idly without
    a head).
    """
    if "class" not in model.heads:
        return 0.0, 1e-6
    rows = [_bases(rng, size + codec.k, 0.02) for size in (60, 91, 122)]
    forward = _probabilities(model, codec, rng, rows, strand_free=True)
    reverse = _probabilities(
        model, codec, rng, [reverse_complement(bases) for bases in rows], strand_free=True
    )
    return _largest(forward, reverse), 1e-6


LAWS: dict[str, Callable[[nn.Module, KmerCodec, np.random.Generator], Verdict]] = {
    "padding": padding,
    "batch-mates": batch_mates,
    "soft-mask": soft_mask,
    "reverse-complement": reverse_complement_map,
    "masks-hide": masks_hide,
    "probabilities": probabilities,
    "strand-free": strand_free,
}
