"""A genome store seen as windows for pretraining: nothing is stored twice, no window crosses a
contig, hold-out or N run.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sciforge.core.data.store import Store
from sciforge.errors import ConfigError

# Runs of at least this many unknown bases end a window; shorter ones stay inside it and out of the
# loss.
LONG_UNKNOWN_RUN = 10


class GenomeWindows(Sequence):
    """Windows that tile the intervals of one split, for an objective that crops them.

    A record holds `bases` from the tile's start to at most `length` beyond its end, so that a
    random crop of `length` reaches every position, and up to `flank` bases of context on each side
    (`inside` = (start, stop) of the tile).

    Args:
        store: a store of kind `genome`.
        split: `train`, `validation` or `test`.
        length: L, bases of a window.
        flank: bases of context on each side, never beyond the contig, hold-out or N run.
    """

    def __init__(self, store: Store, split: str, length: int, flank: int = 0) -> None:
        if store.kind != "genome":
            raise ConfigError(
                f"{store.path} holds {store.kind}; pretraining needs a store made by `sciforge"
                " prepare genome`"
            )
        self.store, self.length, self.flank = store, length, flank
        spans = [
            span for span in store.meta["spans"] if span[3] == split and span[2] - span[1] >= length
        ]
        self.contig = np.array([span[0] for span in spans], np.int64)
        self.start = np.array([span[1] for span in spans], np.int64)
        self.stop = np.array([span[2] for span in spans], np.int64)
        self.ends = np.cumsum((self.stop - self.start) // length)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, i: int) -> dict[str, Any]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        span = int(np.searchsorted(self.ends, i, side="right"))
        tile = i - (int(self.ends[span - 1]) if span else 0)
        first, last = int(self.start[span]), int(self.stop[span])
        start = first + tile * self.length
        stop = min(start + 2 * self.length - 1, last)
        left, right = max(start - self.flank, first), min(stop + self.flank, last)
        contig = self.store[int(self.contig[span])]
        inside = (start - left, stop - left)
        return {
            "bases": contig["bases"][left:right],
            "inside": inside,
            "contig": contig["name"],
            "start": left,
        }


def spans_of_split(
    length: int, unknown_runs: np.ndarray, held: Sequence[tuple[int, int, str]]
) -> list[tuple[int, int, str]]:
    """Cut a contig at long N runs and at the borders of held-out regions.

    Args:
        length: bases of the contig.
        unknown_runs: int64 [n, 2], half-open runs of unknown bases, sorted.
        held: (start, stop, split) regions that are not for training, sorted and disjoint.

    Returns:
        (start, stop, split) spans.

    >>> spans_of_split(100, np.array([[40, 60]]), [(80, 100, "test")])
    [(0, 40, 'train'), (60, 80, 'train'), (80, 100, 'test')]
    """
    regions, at = [], 0
    for start, stop, split in held:
        regions += [(at, start, "train"), (start, stop, split)]
        at = stop
    regions.append((at, length, "train"))
    spans = []
    for start, stop, split in regions:
        at = start
        for left, right in unknown_runs.tolist():
            if right - left >= LONG_UNKNOWN_RUN and left < stop and right > at:
                spans.append((at, max(left, at), split))
                at = right
        spans.append((at, stop, split))
    return [(start, stop, split) for start, stop, split in spans if stop > start]
