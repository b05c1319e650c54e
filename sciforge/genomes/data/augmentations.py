"""Changes of a sequence that need not mean anything: the other strand, another start; and what each
scrambles.

Legend of shape letters: B batch, T tokens, D width.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.domain import Augmentation, Batch, Record
from sciforge.genomes.data.codec import kmer_ids, reverse_complement_ids
from sciforge.genomes.data.sequences import reverse_complement

MAX_SHIFT = 12  # bases; a tenth of short sequences
STRAND_KMER = 3


def embed(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean of the hidden states of a sequence's tokens [B, D]."""
    x_BTD, lengths_B = model(batch), batch["lengths"]
    real_BT1 = (torch.arange(x_BTD.shape[1], device=x_BTD.device) < lengths_B[:, None])[..., None]
    return torch.where(real_BT1, x_BTD, 0.0).sum(1) / lengths_B[:, None]


def either_strand(record: Record, rng: np.random.Generator) -> dict[str, Any]:
    """Return the record on a strand drawn at random."""
    bases = np.asarray(record["bases"])
    return {**record, "bases": reverse_complement(bases) if rng.integers(2) else bases}


def strand_bias(record: Record) -> np.ndarray:
    """Return what tells the strands apart [35]: GC and AT skew, GC of the left less the right half,
    3-mers less their complement.

    Every number changes its sign on the other strand.

    >>> strand_bias({"bases": np.array([2, 2, 2, 1], np.uint8)})[:3].tolist()
    [0.5, 0.0, 0.0]
    """
    bases = np.asarray(record["bases"]) & 7
    num = np.bincount(bases, minlength=5)[:4].astype(float)
    skews = [
        (num[2] - num[1]) / max(num[1] + num[2], 1),
        (num[0] - num[3]) / max(num[0] + num[3], 1),
    ]
    strong, half = (bases == 1) | (bases == 2), len(bases) // 2
    halves = float(strong[:half].mean() - strong[len(bases) - half :].mean()) if half else 0.0
    other = reverse_complement_ids(STRAND_KMER)[: 4**STRAND_KMER].astype(int)
    counts = np.zeros(4**STRAND_KMER)
    if len(bases) >= STRAND_KMER:
        counts += np.bincount(kmer_ids(bases, STRAND_KMER), minlength=4**STRAND_KMER)[
            : 4**STRAND_KMER
        ]
    odd = ((counts - counts[other]) / max(counts.sum(), 1))[np.arange(len(other)) < other]
    return np.array([*skews, halves, *odd])


def another_start(record: Record, rng: np.random.Generator) -> dict[str, Any]:
    """Return the record without up to 12 bases (a tenth of short sequences) at its ends, how
    many at which drawn at random.
    """
    bases = np.asarray(record["bases"])
    spare = min(MAX_SHIFT, len(bases) // 10)
    left = int(rng.integers(0, spare + 1))
    return {**record, "bases": bases[left : len(bases) - (spare - left)]}


def phases(record: Record) -> np.ndarray:
    """Return the share of each base at places 0, 1 and 2 of three [12], less its share overall: the
    frame that the start sets.

    >>> phases({"bases": np.array([0, 1, 1, 0, 1, 1], np.uint8)}).reshape(3, 4)[0].round(2).tolist()
    [0.67, -0.67, 0.0, 0.0]
    """
    bases = np.asarray(record["bases"]) & 7
    rows = [
        np.bincount(part, minlength=5)[:4] / max(len(part), 1)
        for part in (bases, *(bases[p::3] for p in range(3)))
    ]
    return np.concatenate([row - rows[0] for row in rows[1:]])


AUGMENTATIONS = {
    "reverse-complement": Augmentation(either_strand, strand_bias, "either strand, at random"),
    "shift": Augmentation(another_start, phases, "up to 12 bases off the ends, at random"),
}
