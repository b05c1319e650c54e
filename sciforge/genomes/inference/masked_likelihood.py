"""What a pretrained net says of bases it cannot see: log-probabilities under masks that leave no
trace of them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sciforge.core.domain import Batch
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError
from sciforge.genomes.data.codec import KmerCodec
from sciforge.genomes.data.sequences import reverse_complement
from sciforge.genomes.objectives.masking import touching_tokens


def hide(bases: np.ndarray, start: int, stop: int, codec: KmerCodec) -> dict[str, Tensor]:
    """Return an example with every token that touches bases start..stop masked, and those bases
    overwritten by A.
    """
    blind = bases.copy()
    blind[start:stop] = 0  # so that nothing downstream could read them, even by mistake
    masked = np.zeros(codec.num_tokens(len(bases)), bool)
    masked[touching_tokens(start, stop, codec, len(masked))] = True
    return codec.encode({"bases": blind, "masked": masked})


@torch.no_grad()
def log_probabilities(
    model: Model, windows: Sequence[tuple[np.ndarray, int, int]]
) -> list[np.ndarray]:
    """Return log p of A, C, G, T [stop - start, 4] at bases start..stop of each window, all hidden
    at once.

    The mean over both strands of what all tokens over a base say, normalised.
    """
    total = [np.zeros((stop - start, 4)) for _, start, stop in windows]
    for flip in (False, True):
        for first in range(0, len(windows), model.batch):
            part = windows[first : first + model.batch]
            if flip:
                part = [
                    (reverse_complement(b), len(b) - stop, len(b) - start)
                    for b, start, stop in part
                ]
            batch = model.codec.collate([hide(*window, model.codec) for window in part])
            votes = _votes(
                model, model.engine.move(batch), [(start, stop) for _, start, stop in part]
            )
            for i, log_p in enumerate(votes, first):
                total[i] += (log_p[::-1, ::-1] if flip else log_p) / 2
    return [log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True) for log_p in total]


def _votes(model: Model, batch: Batch, spans: list[tuple[int, int]]) -> list[np.ndarray]:
    """Return the mean log-probabilities that masked tokens give to the bases of each row's span."""
    network, device = model.network, model.device
    row_M, token_M = batch["masked"].nonzero(as_tuple=True)
    log_p_Mk4 = network.base_logits(network(batch, only=batch["masked"])).double().log_softmax(-1)
    start_B, stop_B = torch.tensor(spans, device=device).T
    place_Mk = (
        token_M[:, None] * network.stride
        + torch.arange(network.k, device=device)
        - start_B[row_M, None]
    )
    inside_Mk = (place_Mk >= 0) & (place_Mk < (stop_B - start_B)[row_M, None])
    row_Mk = row_M[:, None].expand_as(place_Mk)
    widest = max(stop - start for start, stop in spans)
    total_BS4 = torch.zeros(len(spans), widest, 4, dtype=torch.float64, device=device)
    count_BS = torch.zeros(len(spans), widest, dtype=torch.float64, device=device)
    at = (row_Mk[inside_Mk], place_Mk[inside_Mk])
    total_BS4.index_put_(at, log_p_Mk4[inside_Mk], accumulate=True)
    count_BS.index_put_(at, torch.ones_like(at[0], dtype=torch.float64), accumulate=True)
    mean_BS4 = (total_BS4 / count_BS.clamp(min=1)[..., None]).cpu().numpy()
    return [mean_BS4[i, : stop - start] for i, (start, stop) in enumerate(spans)]


def centred_window(
    length: int, start: int, stop: int, window: int, codec: KmerCodec
) -> tuple[int, int]:
    """Return (left, right) of a window about bases start..stop of a contig, moved inwards at its
    ends.

    Its length is cut to a whole number of tokens, so that a token lies over each of its bases on
    both strands.

    >>> centred_window(1000, 5, 6, 100, KmerCodec(6))
    (0, 100)
    >>> centred_window(1000, 500, 501, 100, KmerCodec(6, 3))
    (451, 550)
    """
    size = min(max(window, stop - start + 2 * codec.k), length)
    if size < max(codec.k, stop - start):
        raise ConfigError(
            f"a contig of {length} bases is too short for k = {codec.k}; leave it out"
        )
    size -= (size - codec.k) % codec.stride
    left = min(max((start + stop - size) // 2, 0), length - size)
    return left, left + size
