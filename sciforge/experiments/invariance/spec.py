"""On which records to measure what augmentations do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sciforge.core.files.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Invariance(Settings):
    """What the domain's augmentations do to a checkpoint's embedding and to the label.

    Args:
        data: a prepared store; with labels where label information is to be measured.
        out: folder of the report; None for none, the result is in memory.
        split: whose records; those trained on would favour a fine-tuned embedding.
        augmentations: names; empty takes all of the domain.
        max_records: largest number of records, drawn at random.
        permutations: of the labels, to estimate what chance reaches.
        seed: of the records, the augmentations, folds and permutations.
    """

    data: Path
    out: Path | None = None
    split: Literal["train", "validation", "test"] = "test"
    augmentations: tuple[str, ...] = ()
    max_records: int = 512
    permutations: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(2, 10**6, "max_records")
        self.require(40, 10**5, "permutations")
        self.require(0, 2**31, "seed")
