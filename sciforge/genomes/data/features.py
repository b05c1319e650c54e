"""Hand-made features of sequences for the classical baselines: composition, places, open reading
frames.

Every function takes a sequence of uint8 codes [L], 0 to 3 for A C G T and 4 for unknown, and
returns float32 rows.
"""

from collections.abc import Sequence

import numpy as np

from sciforge.genomes.data.codec import kmer_ids
from sciforge.genomes.data.sequences import reverse_complement

LONGEST_KMER = 4


def gc_content(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Return the share of G and C among known bases [N, 1].

    >>> gc_content([np.array([0, 1, 2, 3, 4], np.uint8)]).tolist()
    [[0.5]]
    """
    rows = [((b == 1) | (b == 2)).sum() / max((b < 4).sum(), 1) for b in sequences]
    return np.array(rows, np.float32)[:, None]


def kmer_roots(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Return the square roots of k-mer counts, k = 1 to 4 [N, 340]; the root makes counts of
    equal variance.
    """
    ends = np.cumsum([0] + [4**k for k in range(1, LONGEST_KMER + 1)])
    rows = np.zeros((len(sequences), ends[-1]), np.float32)
    for row, bases in zip(rows, sequences, strict=True):
        for k in range(1, min(LONGEST_KMER, len(bases)) + 1):
            counts = np.bincount(kmer_ids(bases, k), minlength=4**k)[: 4**k]
            row[ends[k - 1] : ends[k]] = counts
    return np.sqrt(rows)


def one_hot(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Return the base at every place [N, 4 L]; all zero where it is unknown. Needs equal
    lengths.
    """
    bases_NL = np.stack(sequences)
    return (bases_NL[..., None] == np.arange(4)).reshape(len(bases_NL), -1).astype(np.float32)


def reading_frames(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Return stop-free runs of the six reading frames, in codons [N, 43].

    For each strand and frame: the longest run, the run at the left edge, the run at the right edge;
    each strand's three sorted, all six sorted, and the longest run that begins with ATG and is open
    at its strand's end or closed.
    """
    runs_N6x4 = np.stack(
        [np.stack([_runs(b), _runs(reverse_complement(b))]).reshape(6, 4) for b in sequences]
    )
    longest_N6 = runs_N6x4[..., 0]
    ordered = [
        np.sort(longest_N6, axis=1),
        np.sort(longest_N6[:, :3], axis=1),
        np.sort(longest_N6[:, 3:], axis=1),
    ]
    edges = [
        runs_N6x4[:, half, column].max(axis=1)
        for half in (slice(3), slice(3, 6))
        for column in (1, 2, 3)
    ]
    lead = longest_N6[:, :3].max(axis=1) - longest_N6[:, 3:].max(axis=1)
    spread = [np.stack([*edges, lead], axis=1)]
    return np.concatenate(
        [runs_N6x4.reshape(len(runs_N6x4), -1), *ordered, *spread], axis=1
    ).astype(np.float32)


def _runs(bases: np.ndarray) -> np.ndarray:
    """Return for each of three frames: longest stop-free run, run at the left, at the right,
    longest from an ATG [3, 4].
    """
    run_34 = np.zeros((3, 4))
    if len(bases) < 5:
        return run_34
    first, second, third = bases[:-2], bases[1:-1], bases[2:]
    stop = (first == 3) & (
        ((second == 0) & ((third == 0) | (third == 2))) | ((second == 2) & (third == 0))
    )
    start = (first == 0) & (second == 3) & (third == 2)
    for frame in range(3):
        stops = np.flatnonzero(stop[frame::3])
        codons = len(stop[frame::3])
        borders = np.concatenate([[-1], stops, [codons]])
        lengths = np.diff(borders) - 1
        starts = np.flatnonzero(start[frame::3])
        after = 0
        if len(starts):
            after = (borders[np.searchsorted(borders, starts)] - starts).max()
        run_34[frame] = lengths.max(), lengths[0], lengths[-1], after
    return run_34
