"""Settings of a run that makes a model smaller: zeros in its matrices, and a teacher to learn from."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError


@dataclass(frozen=True)
class Pruning(Settings):
    """Cut weight matrices to zero where they are smallest, and keep every zero a zero while training.

    Args:
        share: of the weights in the matrices that match, to be cut; 0 cuts nothing and keeps the zeros of `init`.
        scope: rank the weights of all matrices together (`global`), or cut each `matrix` by the same share.
        pattern: regular expression over names of weight matrices; the default leaves heads out, which a new task makes anew.
            Embeddings never count.
        ramp: share of the steps over which the cut share rises, by the cubic of Zhu and Gupta 2017; 0 cuts all before the
            first step.
        cuts: how many cuts the ramp has.
    """

    share: float = 0.0
    scope: Literal["global", "matrix"] = "global"
    pattern: str = r"^(?!heads\.).*\bweight$"
    ramp: float = 0.0
    cuts: int = 10

    def __post_init__(self):
        super().__post_init__()
        self.require(1, math.inf, "cuts")
        if not 0 <= self.share < 1:
            raise ConfigError(f"pruning.share is {self.share}; it must be at least 0 and below 1")
        if not 0 <= self.ramp < 1:
            raise ConfigError(f"pruning.ramp is {self.ramp}; it must be at least 0 and below 1")


@dataclass(frozen=True)
class Teacher(Settings):
    """Learn what another checkpoint of the same objective says of each training example (Hinton et al. 2015, arXiv 1503.02531).

    Args:
        checkpoint: the teacher.
        weight: share of the teacher's term in the loss; at 1 the labels count for nothing.
        temperature: classes are compared by softmax(logits / temperature), and the term is scaled by its square; means of
            numbers are compared as they are.
    """

    checkpoint: Path
    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self):
        super().__post_init__()
        self.require(0, 1, "weight")
        self.require(1e-3, 1e3, "temperature")
