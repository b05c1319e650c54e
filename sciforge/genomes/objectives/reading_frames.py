"""Open reading frames read off the sequence alone: a self-supervised signal from the genetic code,
no annotation.

What few labels can use first is whether, on which strand and in which frame a window codes for
protein, and where such a stretch starts and ends. The genetic code gives a noisy answer for free
wherever the context is long; the net learns to give it from a short window, where stop codons alone
say little.
"""

import numpy as np

# Signed distance in bases to the nearest start or stop of a strand, in the direction of reading,
# cut into classes.
DISTANCE_EDGES = np.array([-400, -200, -100, -50, -20, 0, 20, 50, 100, 200, 400])
NUM_FRAMES = 7  # none, codon position 1-3 on the strand as read, 1-3 on the other strand
NUM_DISTANCES = len(DISTANCE_EDGES) + 1
NUM_POINTS = 4  # start +, start -, stop +, stop -
# an open frame that longer ones already cover by more than this is taken for chance
MAX_OVERLAP = 0.3


def open_frames(bases: np.ndarray, shortest: int = 300) -> list[tuple[int, int, int, bool, bool]]:
    """Find open reading frames on both strands, longest first, shadows of longer ones left out.

    Args:
        bases: uint8 codes [L]; anything but A, C, G, T closes a frame.
        shortest: least length in bases, the stop codon included.

    Returns:
        (start, stop, strand, has_start, has_stop), half-open on the strand given; a frame that runs
        over the edge of the sequence lacks its start or stop codon.

    >>> dna = np.array(["ACGT".index(c) for c in "CTAAATGGCTAACTTAGGCTAACT"], np.uint8)
    >>> open_frames(dna, shortest=18)
    [(4, 22, 1, True, True)]
    """
    length = len(bases)
    plain = bases & 7
    frames = []
    for strand in (1, -1):
        codes = plain if strand == 1 else np.where(plain < 4, 3 - plain, 4)[::-1]
        frames += [
            (stop - start, start, stop, strand, *ends)
            for start, stop, *ends in _frames_of_strand(codes, shortest)
        ]
    frames.sort(key=lambda f: (-f[0], f[3], f[1]))
    covered, chosen = np.zeros(length, bool), []
    for _, start, stop, strand, has_start, has_stop in frames:
        if strand == -1:
            start, stop = length - stop, length - start
        if covered[start:stop].mean() <= MAX_OVERLAP:
            covered[start:stop] = True
            chosen.append((start, stop, strand, bool(has_start), bool(has_stop)))
    return chosen


def _frames_of_strand(codes: np.ndarray, shortest: int) -> list[tuple[int, int, bool, bool]]:
    first, second, third = codes[:-2], codes[1:-1], codes[2:]
    ends = (first == 3) & (
        ((second == 0) & ((third == 0) | (third == 2))) | ((second == 2) & (third == 0))
    )
    unknown = (first > 3) | (second > 3) | (third > 3)
    starts = (first == 0) & (second == 3) & (third == 2)
    frames = []
    for frame in range(3):
        breaks = np.flatnonzero((ends | unknown)[frame::3]) * 3 + frame
        last = frame + (len(codes) - frame) // 3 * 3
        borders = np.concatenate([[frame - 3], breaks, [last]])
        methionines = np.flatnonzero(starts[frame::3]) * 3 + frame
        for left, right in zip(borders[:-1] + 3, borders[1:], strict=True):
            has_stop = right < last and bool(ends[right])
            stop = int(right + 3 if has_stop else right)
            if stop - left < shortest:
                continue
            at = np.searchsorted(methionines, left)
            open_left = left == frame
            if open_left:  # runs over the edge: no start codon is known
                start, has_start = int(left), False
            elif at < len(methionines) and methionines[at] < right:
                start, has_start = int(methionines[at]), True
            else:
                continue
            if stop - start >= shortest:
                frames.append((start, stop, has_start, has_stop))
    return frames


def frame_targets(bases: np.ndarray, shortest: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes to predict at every base of a sequence read as it stands.

    Args:
        bases: uint8 codes [L].
        shortest: as in `open_frames`.

    Returns:
        frame int64 [L] (0 none, 1-3 codon position, 4-6 codon position on the other strand) and
        distance int64 [L, 4], the class of the signed distance to the nearest start +, start -,
        stop +, stop -.
    """
    length = len(bases)
    at = np.arange(length)
    frame = np.zeros(length, np.int64)
    points: list[list[int]] = [[], [], [], []]
    for start, stop, strand, has_start, has_stop in reversed(open_frames(bases, shortest)):
        inside = at[start:stop]
        if strand == 1:
            frame[start:stop] = 1 + (inside - start) % 3
        else:
            frame[start:stop] = 4 + (stop - 1 - inside) % 3
        begin, end = (start, stop - 1) if strand == 1 else (stop - 1, start)
        if has_start:
            points[0 if strand == 1 else 1].append(begin)
        if has_stop:
            points[2 if strand == 1 else 3].append(end)
    senses = (1, -1, 1, -1)
    distances = [
        np.digitize(s * _nearest(p, at), DISTANCE_EDGES)
        for p, s in zip(points, senses, strict=True)
    ]
    return frame, np.stack(distances, axis=1)


def _nearest(points: list[int], at: np.ndarray) -> np.ndarray:
    """Return the signed offset from every place to the nearest point; beyond every edge where
    there is none.
    """
    if not points:
        return np.full(len(at), 10**6)
    offsets = np.sort(points)[None, :] - at[:, None]
    return np.take_along_axis(offsets, np.abs(offsets).argmin(axis=1)[:, None], axis=1)[:, 0]
